from __future__ import annotations

import copy
import dataclasses
import functools

import pytest
import torch
from diffusion_toys import check_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import LinearGaussian, MemoryRecorder, randn
from scipy.stats import expectile
from torch import Tensor

from uepo_lib import training, values
from uepo_lib.datasets import Transitions
from uepo_lib.errors import UsageError
from uepo_lib.networks import ensemble_mlp, mlp, multiply_
from uepo_lib.values import Critic, IQLConfig, build, expectile_loss, iql_loss, train_iql

SMALL = IQLConfig(hidden_q=(32, 32), hidden_v=(32, 32), batch_size=64, num_updates=30)
DATA = LinearGaussian().transitions(300)


def train(cfg: IQLConfig = SMALL, **kwargs: object) -> Critic:
    return train_iql(cfg, DATA, seed=0, progress=False, **kwargs)  # type: ignore[arg-type]


# ---- against exact solutions ---------------------------------------------------------------------

NUM_STATES, DISCOUNT, EXPECTILE = 5, 0.9, 0.8


def chain() -> Transitions:
    """Five states in a row, steps left and right; leaving on the right pays 1 and ends the episode.

    Every action in every state 200 times, so the behaviour is uniform. At the left wall the state
    stays: a time limit there would be a truncation, which does not stop the bootstrap.
    """
    states, moves = torch.arange(NUM_STATES).repeat(400), torch.tensor([-1, 1])
    moves = moves.repeat_interleave(NUM_STATES).repeat(200)
    reached = states + moves
    ended = reached == NUM_STATES
    one_hot = torch.eye(NUM_STATES)
    next_states = one_hot[reached.clamp(0, NUM_STATES - 1)]
    return Transitions(
        one_hot[states], moves.float().unsqueeze(-1), ended.float(), next_states, ended
    )


def exact_chain() -> tuple[Tensor, Tensor]:
    """IQL's fixed point by iteration: V (5,) and Q (5, 2) for left and right."""
    v = torch.zeros(NUM_STATES, dtype=torch.float64)
    for _ in range(500):
        left = DISCOUNT * torch.cat([v[:1], v[:-1]])
        right = torch.cat([DISCOUNT * v[1:], torch.ones(1, dtype=torch.float64)])
        q = torch.stack([left, right], 1)
        v = torch.tensor([expectile(row.numpy(), EXPECTILE) for row in q])
    return v, q


def test_chain_has_the_exact_expectile_values() -> None:
    cfg = IQLConfig(
        hidden_q=(64,),
        hidden_v=(64,),
        learning_rate=3e-3,
        num_updates=1_500,
        discount=DISCOUNT,
        expectile=EXPECTILE,
        polyak=0.05,
    )
    critic = train_iql(cfg, chain(), seed=0, progress=False)
    v, q = exact_chain()
    states = torch.eye(NUM_STATES)
    torch.testing.assert_close(critic.v(states).double(), v, atol=0.02, rtol=0.02)
    for column, move in enumerate((-1.0, 1.0)):
        found = critic.q(states, torch.full((NUM_STATES, 1), move)).double()
        torch.testing.assert_close(found, q[:, column].expand(2, -1), atol=0.02, rtol=0.02)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=20),
    st.floats(0.05, 0.95),
)
def test_expectile_loss_is_least_at_the_expectile(sample: list[float], tau: float) -> None:
    x = torch.tensor(sample, dtype=torch.float64)
    best = torch.tensor(float(expectile(x.numpy(), tau)), requires_grad=True, dtype=torch.float64)
    expectile_loss(x - best, tau).backward()
    assert best.grad is not None
    assert best.grad.abs().item() < 1e-4


def test_half_an_expectile_is_the_mean_square() -> None:
    u = randn(100)
    torch.testing.assert_close(expectile_loss(u, 0.5), 0.5 * u.square().mean())


# ---- the loss, by hand ---------------------------------------------------------------------------


def test_only_terminations_cut_the_bootstrap() -> None:
    critic = build(SMALL, 3, 1)
    batch = dataclasses.replace(DATA[:8], terminated=torch.arange(8) % 2 == 0)
    future = 0.99 * critic.v(batch.next_states) * (torch.arange(8) % 2)
    error = critic.q(batch.states, batch.actions) - (batch.rewards + future).detach()
    _, metrics = iql_loss(critic, batch)
    torch.testing.assert_close(metrics["q_loss"], error.square().mean(1).sum().detach())


def test_v_learns_from_the_target_and_q_from_v() -> None:
    critic, batch = build(SMALL, 3, 1), DATA[:16]
    with torch.no_grad():
        for parameter in critic.target_net.parameters():
            parameter.mul_(2)
    expected = critic.target_q(batch.states, batch.actions).amin(0) - critic.v(batch.states)
    loss, metrics = iql_loss(critic, batch)
    torch.testing.assert_close(metrics["v_loss"], expectile_loss(expected, 0.7).detach())
    loss.backward()
    assert all(p.grad is None for p in critic.target_net.parameters())
    v_grads = torch.autograd.grad(expectile_loss(expected, 0.7), [*critic.v_net.parameters()])
    for parameter, gradient in zip(critic.v_net.parameters(), v_grads, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)  # the Q loss adds nothing to V's


def test_target_moves_by_polyak_every_second_update() -> None:
    plain = dataclasses.replace(SMALL, scale_rewards=False)
    cfg = dataclasses.replace(plain, num_updates=1)
    start = build(cfg, 3, 1, seed=0)
    after_one = train(cfg)
    assert _same(start.target_net.state_dict(), after_one.target_net.state_dict())
    after_two = train(dataclasses.replace(plain, num_updates=2))
    for old, new, online in zip(
        start.target_net.parameters(),
        after_two.target_net.parameters(),
        after_two.q_net.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(new, 0.995 * old + 0.005 * online)


def test_target_starts_as_a_separate_copy() -> None:
    critic = build(SMALL, 3, 1)
    assert _same(critic.q_net.state_dict(), critic.target_net.state_dict())
    pairs = zip(critic.q_net.parameters(), critic.target_net.parameters(), strict=True)
    assert all(a.data_ptr() != b.data_ptr() for a, b in pairs)


# ---- the critic as a function --------------------------------------------------------------------


def test_shapes_and_leading_dimensions() -> None:
    critic = build(SMALL, 3, 1)
    states, actions = randn(4, 5, 3), randn(4, 5, 1, seed=1)
    flat = critic.q(states.flatten(0, 1), actions.flatten(0, 1))
    assert flat.shape == (2, 20)
    torch.testing.assert_close(critic.min_q(states, actions), flat.amin(0).view(4, 5))
    assert critic.v(states).shape == (4, 5)
    torch.testing.assert_close(
        critic.advantage(states, actions), critic.min_q(states, actions) - critic.v(states)
    )
    assert critic.min_q(states[0, 0], actions[0, 0]).shape == ()


# ---- training ------------------------------------------------------------------------------------


def test_the_same_seed_repeats_bit_for_bit_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = train(), train()
    assert torch.equal(torch.get_rng_state(), before)
    assert _same(first.state_dict(), second.state_dict())


def test_an_interrupted_run_ends_as_an_unbroken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = functools.partial(training.fit, checkpoint_seconds=-1.0, log_every=5)
    monkeypatch.setattr(values, "fit", fit)
    unbroken, broken = MemoryRecorder(), MemoryRecorder(stop_after=13)
    expected = train(recorder=unbroken)
    with pytest.raises(KeyboardInterrupt):
        train(recorder=broken)
    resumed = train(recorder=broken)
    assert _same(expected.state_dict(), resumed.state_dict())
    assert broken.rows == unbroken.rows


def test_a_critic_is_rebuilt_from_its_tensors() -> None:
    critic = train()
    tensors = copy.deepcopy(critic.state_dict())
    again = build(SMALL, 3, 1, seed=9)
    again.load_state_dict(tensors)
    assert torch.equal(again.v(DATA.states), critic.v(DATA.states))


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_q", ()),
        ("hidden_v", (0,)),
        ("learning_rate", 0.0),
        ("discount", 1.0),
        ("expectile", 1.0),
        ("polyak", 0.0),
        ("target_every", 0),
        ("batch_size", 0),
    ],
)
def test_bad_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        IQLConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [0.01, 300.0])
def test_a_perceptron_is_multiplied_layer_by_layer(factor: float) -> None:
    for network, x in (
        (mlp((3, 8, 8, 1)), randn(20, 3)),
        (ensemble_mlp(2, (3, 8, 1)), randn(2, 20, 3)),
    ):
        wanted = factor * network(x)
        before = [p.abs().mean() for p in network.parameters()][::2]
        multiply_(network, factor)
        torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-5 * factor)
        grown = [
            p.abs().mean() / b for p, b in zip([*network.parameters()][::2], before, strict=True)
        ]
        torch.testing.assert_close(
            torch.stack(grown), torch.full((len(grown),), factor ** (1 / len(grown)))
        )


@pytest.mark.parametrize("factor", [0.125, 1024.0])
def test_values_follow_the_unit_of_the_rewards(factor: float) -> None:
    """Whatever the unit, training is the same; raw rewards of a thousand would hardly be learnt."""
    louder = dataclasses.replace(DATA, rewards=factor * DATA.rewards)
    for cfg, alike in ((SMALL, True), (dataclasses.replace(SMALL, scale_rewards=False), False)):
        plain, found = train(cfg), train_iql(cfg, louder, seed=0, progress=False)
        for name in ("q", "v"):
            rows = (DATA.states, DATA.actions) if name == "q" else (DATA.states,)
            wanted = factor * getattr(plain, name)(*rows)
            assert torch.allclose(getattr(found, name)(*rows), wanted, rtol=1e-3) == alike


def test_what_is_logged_has_the_unit_of_the_rewards() -> None:
    logged = {}
    for factor in (1.0, 64.0):
        rows = dataclasses.replace(DATA, rewards=factor * DATA.rewards)
        recorder = MemoryRecorder()
        train_iql(SMALL, rows, seed=0, progress=False, recorder=recorder)
        _, logged[factor] = recorder.rows[-1]
    for name, power in (("v_mean", 1), ("q_mean", 1), ("v_loss", 2), ("q_loss", 2)):
        assert logged[64.0][name] == pytest.approx(64**power * logged[1.0][name], rel=1e-4)


def test_data_without_a_reward_are_worth_nothing() -> None:
    nothing = dataclasses.replace(DATA, rewards=torch.zeros(len(DATA)))
    assert values.value_unit(SMALL, nothing.rewards) == 1
    critic = train_iql(SMALL, nothing, seed=0, progress=False)
    assert critic.v(DATA.states).abs().mean() < 1


def test_bad_data_are_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        train_iql(SMALL, DATA[:0], seed=0, progress=False)
    bad = dataclasses.replace(DATA, next_states=torch.full_like(DATA.states, torch.inf))
    with pytest.raises(UsageError, match="NaN"):
        train_iql(SMALL, bad, seed=0, progress=False)


def test_golden() -> None:
    critic, (states, actions, *_) = train(), DATA[:6].tensors()
    found = {"q": critic.q(states, actions), "v": critic.v(states)}
    check_golden("values", found, values.REVISION)
