from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch
from diffusion_toys import check_golden
from model_toys import LinearGaussian, MemoryRecorder, randn
from torch import Tensor

from uepo_lib import dynamics, dynamics_training, training
from uepo_lib.datasets import Transitions
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel, build
from uepo_lib.dynamics_training import train_dynamics
from uepo_lib.errors import UsageError

WORLD = LinearGaussian()
SMALL = DynamicsConfig(
    num_members=3,
    num_elites=2,
    hidden=(32, 32),
    weight_decay=(0.0, 0.0, 0.0),
    batch_size=128,
    max_updates=40,
    check_every=10,
)


def small_model(seed: int = 0) -> DynamicsModel:
    return build(SMALL, 3, 1, seed).requires_grad_(False)


def train(cfg: DynamicsConfig, size: int = 500, **kwargs: object) -> DynamicsModel:
    data, holdout = WORLD.transitions(size), WORLD.transitions(200, seed=10)
    return train_dynamics(cfg, data, holdout, seed=0, progress=False, **kwargs)  # type: ignore[arg-type]


@functools.cache
def fitted() -> DynamicsModel:
    cfg = dataclasses.replace(SMALL, hidden=(64, 64), max_updates=1500, check_every=100)
    data, holdout = WORLD.transitions(20_000), WORLD.transitions(1_000, seed=10)
    return train_dynamics(cfg, data, holdout, seed=0, progress=False)


# ---- what is learnt ------------------------------------------------------------------------------


def test_linear_gaussian_system_is_recovered() -> None:
    test = WORLD.transitions(2_000, seed=20)
    means, variances = fitted().moments(test.states, test.actions)
    truth = WORLD.mean(test.states, test.actions)
    error = (means.mean(0) - truth).square().mean(0).sqrt()
    assert (error < 0.35 * WORLD.noise).all(), "mean"
    ratio = variances.mean((0, 1)).sqrt() / WORLD.noise
    assert ((ratio > 0.9) & (ratio < 1.2)).all(), "standard deviation"


def test_variance_is_calibrated() -> None:
    test = WORLD.transitions(4_000, seed=30)
    means, variances = fitted().moments(test.states, test.actions)
    observed = torch.cat([test.next_states, test.rewards.unsqueeze(-1)], -1)
    inside = ((observed - means[0]).abs() < variances[0].sqrt()).float().mean(0)
    assert ((inside - 0.683).abs() < 0.05).all()  # one standard deviation


def test_nll_reaches_the_entropy_of_the_noise() -> None:
    entropy = float((0.5 + 0.5 * math.log(2 * math.pi) + WORLD.noise.log()).sum())
    nll = fitted().nll(WORLD.transitions(4_000, seed=40)).mean().item()
    assert entropy - 0.1 < nll < entropy + 0.3


def test_extra_data_count_row_by_row() -> None:
    """Reward 0 on D and 1 on three times as many copies of it: the best answer is 3/4."""
    data = dataclasses.replace(WORLD.transitions(500), rewards=torch.zeros(500))
    extra = Transitions(*(torch.cat([column] * 3) for column in data.tensors()))
    extra = dataclasses.replace(extra, rewards=torch.ones(1_500))
    cfg = dataclasses.replace(SMALL, max_updates=300, check_every=300)
    model = train_dynamics(cfg, data, data, seed=0, extra=extra, progress=False)
    _, rewards = model.predict(data.states, data.actions)
    assert rewards.mean().item() == pytest.approx(0.75, abs=0.05)


def test_refitting_starts_from_the_initial_model() -> None:
    initial = train(SMALL)
    cfg = dataclasses.replace(SMALL, max_updates=1, learning_rate=1e-12)
    again = train(cfg, start=initial)
    data = WORLD.transitions(9, seed=5)
    torch.testing.assert_close(again(data.states, data.actions), initial(data.states, data.actions))


def test_a_constant_coordinate_does_no_harm() -> None:
    data = dataclasses.replace(WORLD.transitions(500), rewards=torch.ones(500))
    model = train_dynamics(SMALL, data, data, seed=0, progress=False)
    assert model.target_scale[3] == 1
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_scale_comes_from_the_real_data() -> None:
    far = WORLD.transitions(500, seed=3)
    far = dataclasses.replace(far, rewards=far.rewards + 100)
    with_extra = train(dataclasses.replace(SMALL, max_updates=1), extra=far)
    without = train(dataclasses.replace(SMALL, max_updates=1))
    assert torch.equal(with_extra.target_scale, without.target_scale)


# ---- the model as a function ---------------------------------------------------------------------


def test_log_variance_stays_within_its_bounds() -> None:
    model = small_model()
    _, logvar = model.scaled_moments(1e4 * randn(3, 50, 4))
    assert (logvar >= model.min_logvar - 1e-4).all()
    assert (logvar <= model.max_logvar + 1e-2).all()


def test_forward_takes_shared_and_separate_rows() -> None:
    model, states, actions = small_model(), randn(5, 3), randn(5, 1, seed=1)
    shared = model(states, actions)
    separate = model(states.expand(3, -1, -1), actions.expand(3, -1, -1))
    assert shared[0].shape == (3, 5, 4)
    for a, b in zip(shared, separate, strict=True):
        assert torch.equal(a, b)


def test_step_moves_each_row_by_its_member() -> None:
    model, states, actions = small_model(), randn(6, 3), randn(6, 1, seed=1)
    model.target_scale.fill_(0.3)
    model.target_shift.fill_(-0.2)
    member = torch.tensor([2, 0, 1, 1, 0, 2])
    reached, rewards = model.step(states, actions, member=member, sample=False)
    mean, _ = model(states, actions)
    expected = mean[member, torch.arange(6)]
    torch.testing.assert_close(reached, states + expected[:, :-1])
    torch.testing.assert_close(rewards, expected[:, -1])


def test_samples_have_the_predicted_moments() -> None:
    model = small_model()
    states, actions = randn(1, 3).expand(20_000, -1), randn(1, 1).expand(20_000, -1)
    member = torch.full((20_000,), 1)
    generator = torch.Generator().manual_seed(0)
    reached, rewards = model.step(states, actions, generator, member)
    mean, logvar = (x[1, 0] for x in model(states[:1], actions[:1]))
    outcome = torch.cat([reached - states, rewards.unsqueeze(-1)], -1)
    torch.testing.assert_close(outcome.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(outcome.var(0), logvar.exp(), atol=0, rtol=0.05)


def test_step_repeats_with_its_generator_and_draws_elites_only() -> None:
    model, states, actions = small_model(), randn(50, 3), randn(50, 1)
    model.elites = torch.tensor([2, 0])
    first, second = (
        model.step(states, actions, torch.Generator().manual_seed(4))[0] for _ in range(2)
    )
    assert torch.equal(first, second)
    drawn = model.draw_elites(200, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 2}


def test_moments_and_prediction_are_those_of_the_elites() -> None:
    model, states, actions = small_model(), randn(7, 3), randn(7, 1)
    model.elites = torch.tensor([2, 1])
    mean, logvar = model(states, actions)
    means, variances = model.moments(states, actions)
    torch.testing.assert_close(means[..., :3], mean[[2, 1], :, :3] + states)
    torch.testing.assert_close(variances, logvar[[2, 1]].exp())
    reached, rewards = model.predict(states, actions)
    torch.testing.assert_close(reached, means.mean(0)[:, :3])
    torch.testing.assert_close(rewards, means.mean(0)[:, 3])


def test_moments_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model, states, actions = small_model(), randn(50, 3), randn(50, 1)
    whole = model.moments(states, actions)
    monkeypatch.setattr(dynamics, "ROWS_AT_ONCE", 7)
    for a, b in zip(model.moments(states, actions), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_nll_is_that_of_the_mixture() -> None:
    model, data = small_model(), WORLD.transitions(9)
    means, variances = model.moments(data.states, data.actions)
    components = torch.distributions.Independent(
        torch.distributions.Normal(means.transpose(0, 1), variances.sqrt().transpose(0, 1)), 1
    )
    weights = torch.distributions.Categorical(logits=torch.zeros(9, 2))
    mixture = torch.distributions.MixtureSameFamily(weights, components)
    outcome = torch.cat([data.next_states, data.rewards.unsqueeze(-1)], -1)
    torch.testing.assert_close(model.nll(data), -mixture.log_prob(outcome))


# ---- training ------------------------------------------------------------------------------------


def test_early_stopping_keeps_each_member_at_its_best() -> None:
    """Forty rows are soon learnt by heart; the held-out error then rises and training stops."""
    cfg = dataclasses.replace(SMALL, max_updates=2_000, patience=3, num_elites=3)
    recorder = MemoryRecorder()
    model = train(cfg, size=40, recorder=recorder)
    assert recorder.rows[-1][0] < 2_000
    best, last = recorder.rows[-1][1]["best_error"], recorder.rows[-1][1]["holdout_error"]
    unseen = dynamics_training._Table([WORLD.transitions(200, seed=10)], "cpu")
    unseen.scale(model)
    errors = dynamics_training.scaled_errors(model, unseen.inputs, unseen.targets)
    assert errors.mean().item() == pytest.approx(best, rel=1e-5)
    assert best < last
    assert torch.equal(model.elites, errors.argsort())


def test_without_patience_every_update_is_made() -> None:
    cfg = dataclasses.replace(SMALL, max_updates=305, patience=None)
    recorder = MemoryRecorder()
    train(cfg, size=40, recorder=recorder)
    assert recorder.rows[-1][0] == 305


def test_members_learn_as_if_alone() -> None:
    """No gradient flows between members, so the sum of their losses is no compromise."""
    model = build(SMALL, 3, 1)
    mean, logvar = model.scaled_moments(randn(3, 8, 4))
    (mean[0].sum() + logvar[0].sum()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert (parameter.grad[0] != 0).any()
        assert (parameter.grad[1:] == 0).all()


def test_the_same_seed_repeats_bit_for_bit_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = train(SMALL), train(SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    assert _same(first.state_dict(), second.state_dict())


def test_an_interrupted_run_ends_as_an_unbroken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken = MemoryRecorder()
    expected = train(SMALL, recorder=unbroken)
    broken = MemoryRecorder(stop_after=17)
    monkeypatch.setattr(
        dynamics_training, "fit", functools.partial(training.fit, checkpoint_seconds=-1.0)
    )
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, recorder=broken)
    resumed = train(SMALL, recorder=broken)
    assert _same(expected.state_dict(), resumed.state_dict())
    assert broken.rows == unbroken.rows


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_elites", 8),
        ("num_members", 0),
        ("hidden", ()),
        ("weight_decay", (0.0,)),
        ("learning_rate", 0.0),
        ("patience", 0),
        ("min_improvement", 1.0),
        ("bound_coefficient", -1.0),
    ],
)
def test_bad_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        DynamicsConfig(**{name: value})  # type: ignore[arg-type]


def test_bad_data_are_refused() -> None:
    good = WORLD.transitions(50)
    bad = dataclasses.replace(good, rewards=torch.full((50,), torch.nan))
    with pytest.raises(UsageError, match="NaN"):
        train_dynamics(SMALL, bad, good, seed=0, progress=False)
    with pytest.raises(UsageError, match="empty"):
        train_dynamics(SMALL, good, good[:0], seed=0, progress=False)


def test_golden() -> None:
    model, data = train(SMALL), WORLD.transitions(6, seed=50)
    means, variances = model.moments(data.states, data.actions)
    found = {"means": means, "variances": variances, "nll": model.nll(data)}
    check_golden("dynamics", found, dynamics.REVISION)


@pytest.mark.parametrize("layers", range(1, 6))
def test_one_rule_gives_every_network_its_decay(layers: int) -> None:
    """Written out: the first and the last are Uni-O4's, the steps between are even."""
    found = dynamics.decay_for((8,) * layers)
    step = (1e-4 - 2.5e-5) / layers
    assert found == pytest.approx([2.5e-5 + i * step for i in range(layers + 1)], abs=5.1e-8)
    assert DynamicsConfig(hidden=(8,) * layers, weight_decay=found).weight_decay == found


def test_decoupled_the_decay_is_hardly_one() -> None:
    """What AdamW itself takes off a weight over the default cosine, as the docstring says."""
    cfg = DynamicsConfig()
    rates = [
        cfg.learning_rate / 2 * (1 + math.cos(math.pi * t / cfg.max_updates))
        for t in range(cfg.max_updates)
    ]
    kept = [math.prod(1 - rate * decay for rate in rates) for decay in cfg.weight_decay]
    assert 0.0003 < 1 - max(kept) < 1 - min(kept) < 0.00151
