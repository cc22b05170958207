from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden
from env_toys import scripted_robot
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import MemoryRecorder, randn
from torch import Tensor

from uepo_lib import ppo
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.networks import StateValue, mlp
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.ppo import (
    PPO,
    PPOConfig,
    clipped_objective,
    generalised_advantage,
    train_ppo,
)
from uepo_lib.scaling import RunningScale
from uepo_lib.training import fit

# ---- generalised advantages ----------------------------------------------------------------------


def slow_gae(
    rewards: Tensor, steps: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor,
    done: Tensor, discount: float, lam: float,
) -> Tensor:  # fmt: skip
    """Equation 16 as it is written: a sum over future TD errors, for each entry anew."""
    rounds, num_envs = rewards.shape
    out = torch.zeros(rounds, num_envs, dtype=torch.double)
    for n in range(num_envs):
        for r in range(rounds):
            weight, total = 1.0, 0.0
            for later in range(r, rounds):
                k = int(steps[later, n])
                future = 0.0 if terminated[later, n] else float(next_values[later, n])
                error = float(rewards[later, n]) + discount**k * future - float(values[later, n])
                total += weight * error
                if done[later, n]:
                    break
                weight *= (discount * lam) ** k
            out[r, n] = total
    return out.float()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 1.0), st.floats(0.0, 1.0), st.integers(1, 5))
def test_gae_is_the_sum_of_td_errors(seed: int, discount: float, lam: float, chunk: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (9, 3)
    rewards, values, nexts = torch.randn(3, *shape, generator=generator)
    steps = torch.randint(1, chunk + 1, shape, generator=generator).float()
    done = torch.rand(shape, generator=generator) < 0.3
    terminated = done & (torch.rand(shape, generator=generator) < 0.5)
    arguments = (rewards, steps, values, nexts, terminated, done, discount, lam)
    found = generalised_advantage(*arguments)
    torch.testing.assert_close(found, slow_gae(*arguments), rtol=1e-4, atol=1e-4)


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers).unsqueeze(1)


def test_an_end_bootstraps_nothing_and_a_timeout_its_own_last_state() -> None:
    no, yes = torch.tensor([[False], [False]]), torch.tensor([[True], [False]])
    common = (column(1, 1), column(1, 1), column(0, 0), column(10, 20))
    truncated = generalised_advantage(*common, no, yes, 0.9, 0.5)
    ended = generalised_advantage(*common, yes, yes, 0.9, 0.5)
    going = generalised_advantage(*common, no, no, 0.9, 0.5)
    assert truncated[0].item() == pytest.approx(1 + 0.9 * 10)
    assert ended[0].item() == pytest.approx(1)
    assert going[0].item() == pytest.approx(1 + 0.9 * 10 + 0.45 * (1 + 0.9 * 20))


def test_lambda_one_is_the_discounted_return_whatever_the_chunks() -> None:
    """Six rewards of 1 in chunks of 1, 2, 3: one episode, one Monte-Carlo return."""
    gamma = 0.9
    expected = sum(gamma**t for t in range(6)) - 5.0
    for sizes in ([1] * 6, [2, 2, 2], [3, 3], [1, 2, 3]):
        rewards = column(*(sum(gamma**k for k in range(size)) for size in sizes))
        values = column(5.0, *([-3.0] * (len(sizes) - 1)))
        nexts = column(*([-3.0] * (len(sizes) - 1)), 7.0)
        done = torch.zeros(len(sizes), 1, dtype=torch.bool)
        done[-1] = True
        steps = column(*map(float, sizes))
        found = generalised_advantage(rewards, steps, values, nexts, done, done, gamma, 1.0)
        assert found[0].item() == pytest.approx(expected, abs=1e-5)


def test_lambda_zero_is_the_td_error() -> None:
    rewards, values, nexts = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    none, steps = torch.zeros(4, 2, dtype=torch.bool), torch.full((4, 2), 3.0)
    found = generalised_advantage(rewards, steps, values, nexts, none, none, 0.9, 0.0)
    torch.testing.assert_close(found, rewards + 0.9**3 * nexts - values)


# ---- the clipped objective -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.2),
        (1.5, 2.0, 2.4, 0.0),  # enough gained: no further pull
        (0.5, 2.0, 1.0, 1.0),  # lost what it should gain: pulled back
        (1.5, -2.0, -3.0, -3.0),
        (0.5, -2.0, -1.6, 0.0),
        (0.9, -2.0, -1.8, -1.8),
    ],
)
def test_objective_in_closed_form(
    ratio: float, advantage: float, value: float, slope: float
) -> None:
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    gain = clipped_objective(new, torch.zeros(1, 1), torch.tensor([[advantage]]), 0.2)
    assert gain.item() == pytest.approx(value)
    gain.backward()
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(slope)  # d ratio / d log π = ratio


def test_objective_slopes_are_those_of_finite_differences() -> None:
    old = 0.5 * randn(12, 3).double()
    new = (old + 0.3 * randn(12, 3, seed=1).double()).requires_grad_(True)
    edge = ((new - old).exp() - 1).abs().sub(0.2).abs().min()
    assert edge > 1e-4  # away from the kink
    advantage = randn(12, 1, seed=2).double()
    assert torch.autograd.gradcheck(lambda n: clipped_objective(n, old, advantage, 0.2), (new,))


def test_at_the_old_policy_it_is_the_policy_gradient() -> None:
    """One shared advantage counts in every level, each by its own ratio."""
    old, advantage = randn(6, 4), randn(6, 1, seed=1)
    new = old.clone().requires_grad_(True)
    clipped_objective(new, old, advantage, 0.2).backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, advantage.expand(6, 4) / 24)


# ---- running scales ------------------------------------------------------------------------------


def test_states_are_scaled_by_what_was_seen_and_rewards_by_their_returns() -> None:
    scale = RunningScale(2, 3, 0.9, states=True, rewards=True)
    seen = 3 + 2 * randn(50, 3, 1, 2)
    for windows in seen:
        scale.update_states(windows)
    mean, std = scale.mean_std()
    torch.testing.assert_close(mean, seen.mean((0, 1, 2)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(std, seen.flatten(0, 2).std(0), rtol=2e-2, atol=0)
    rewards, done = randn(400, 3, seed=2), torch.zeros(3, dtype=torch.bool)
    scaled = [scale.scale_rewards(r, torch.ones(3), done) for r in rewards]
    # the returns Σ γ^k r of unit rewards have variance 1 / (1 − γ²)
    ratio = (scaled[-1] / rewards[-1]).mean().item()
    assert ratio == pytest.approx(math.sqrt(1 - 0.9**2), rel=0.15)


def test_a_chunk_discounts_what_came_before_by_all_its_steps() -> None:
    scale = RunningScale(2, 1, 0.5, states=False, rewards=True)
    going = torch.zeros(1, dtype=torch.bool)
    for reward, steps in ((8.0, 4.0), (1.0, 3.0)):
        scale.scale_rewards(torch.tensor([reward]), torch.tensor([steps]), going)
    assert scale.carried.item() == pytest.approx(8 * 0.5**3 + 1)


def test_off_means_untouched() -> None:
    scale = RunningScale(2, 3, 0.9, states=False, rewards=False)
    windows, rewards = randn(3, 1, 2), randn(3)
    scale.update_states(100 * windows)
    assert torch.equal(scale.normalise(windows), windows)
    assert torch.equal(scale.scale_rewards(rewards, torch.ones(3), rewards > 0), rewards)


# ---- the whole -----------------------------------------------------------------------------------


def bandit(config: PPOConfig, target: float = 0.6, seed: int = 0, **robot: Any) -> PPO:
    """−(a − target)² at every step, whatever the state: the best policy is known."""
    settings = {"last": None, "max_episode_steps": 10, **robot}
    envs = ChunkedEnvs(
        scripted_robot(target=target, **settings), range(config.num_envs), discount=config.discount
    )
    gaussian = GaussianConfig(
        1, 1, hidden=(8,), activation="tanh", state_dependent_std=False, initial_log_std=-1.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = StateValue(mlp([1, 8, 1], "tanh"))
    actor = GaussianPolicy(gaussian, seed)
    generator = torch.Generator().manual_seed(seed)
    return PPO(config, actor, critic, envs, generator, standardise=lambda w: w / 10)


BANDIT = PPOConfig(
    num_env_steps=4_096, steps_per_update=256, minibatch_size=64, num_epochs=5,
    learning_rate=1e-2, anneal=False, discount=0.9,
)  # fmt: skip


def test_ppo_finds_the_best_action() -> None:
    trainer = bandit(BANDIT)
    states = torch.arange(10.0).view(1, 10, 1, 1) / 10
    before = trainer.actor.act(states)  # type: ignore[attr-defined]
    assert (before - 0.6).abs().min() > 0.5
    train_ppo(trainer, progress=False)
    after = trainer.actor.act(states)  # type: ignore[attr-defined]
    assert (after - 0.6).abs().max() < 0.1
    assert trainer.actor.log_std.item() < -1.0  # type: ignore[attr-defined]
    assert trainer.envs.num_steps == 4_096
    assert len(trainer.episodes.value) == 4_096 // 10 - 4_096 // 10 % 8


def test_warming_up_trains_the_critic_alone() -> None:
    config = PPOConfig(
        num_env_steps=512, steps_per_update=256, minibatch_size=64, warmup_env_steps=256
    )
    trainer = bandit(config)
    actor, critic = copy.deepcopy(trainer.actor.state_dict()), trainer.critic.state_dict()
    critic = copy.deepcopy(critic)
    rollout = trainer.collect()
    sizes = trainer.improve(rollout, policy_too=False)
    assert sizes["policy_updates"] == 0
    assert all(torch.equal(v, actor[k]) for k, v in trainer.actor.state_dict().items())
    assert not torch.equal(trainer.critic.state_dict()["body.0.weight"], critic["body.0.weight"])


def test_the_critic_learns_the_value_and_a_timeout_is_no_end() -> None:
    """Reward −1 for ever, cut every ten steps: V = −1 / (1 − γ), not the sum of ten."""
    config = PPOConfig(
        num_env_steps=40 * 256, steps_per_update=256, minibatch_size=64, discount=0.8,
        learning_rate=1e-2, anneal=True,
    )  # fmt: skip
    for ends, low, high in (({}, -5.4, -4.6), ({"last": 2}, -2.1, -1.5)):
        trainer = bandit(config, **ends)
        for env in trainer.envs.envs:
            env.step = constant_reward(env.step)
        for _ in range(15):
            trainer.improve(trainer.collect(), policy_too=False)
        value = trainer.critic(torch.zeros(1, 1)).item()
        assert low < value < high, (ends, value)


def constant_reward(step: Any) -> Any:
    def stepped(action: Any) -> Any:
        state, _, terminated, truncated, info = step(action)
        return state, -1.0, terminated, truncated, info

    return stepped


def test_the_first_minibatch_sees_no_change_and_target_kl_stops() -> None:
    config = PPOConfig(
        num_env_steps=256, steps_per_update=256, minibatch_size=256, learning_rate=0.1,
        num_epochs=50, target_kl=0.01, anneal=False,
    )  # fmt: skip
    trainer = bandit(config)
    rollout = trainer.collect()
    log_prob = trainer.actor.path_log_prob(
        rollout.states.flatten(0, 1), rollout.paths.flatten(0, 1)
    )
    torch.testing.assert_close(log_prob, rollout.log_probs.flatten(0, 1))
    sizes = trainer.improve(rollout)
    assert 1 < sizes["policy_updates"] < 10
    assert sizes["kl"] > 0.01


def test_a_last_minibatch_of_one_sample_stays_finite() -> None:
    """A single advantage has no spread; it must not turn the weights into NaN."""
    config = PPOConfig(num_env_steps=32, num_envs=4, steps_per_update=36, minibatch_size=7)
    trainer = bandit(config)
    trainer.improve(trainer.collect())  # 36 = 5 · 7 + 1
    assert all(p.isfinite().all() for p in trainer.actor.parameters())


def test_rates_follow_the_share_of_the_budget() -> None:
    config = PPOConfig(
        num_env_steps=64, steps_per_update=16, learning_rate=1e-3, critic_learning_rate=1e-2
    )
    trainer = bandit(config)
    trainer.iterate(0.75)
    rates = [group["lr"] for group in trainer.optimiser.param_groups]
    assert rates == pytest.approx([2.5e-4, 2.5e-3])


def test_a_critic_rate_of_zero_is_no_default() -> None:
    """The policy learns, the critic stays; without a rate of its own it learns at the policy's."""
    config = replace(BANDIT, num_env_steps=256, critic_learning_rate=0.0)
    trainer = bandit(config)
    assert trainer.rates == (1e-2, 0.0)
    actor, critic = (copy.deepcopy(x.state_dict()) for x in (trainer.actor, trainer.critic))
    trainer.improve(trainer.collect())
    assert all(torch.equal(v, critic[k]) for k, v in trainer.critic.state_dict().items())
    assert any(not torch.equal(v, actor[k]) for k, v in trainer.actor.state_dict().items())
    assert bandit(BANDIT).rates == (1e-2, 1e-2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0), ("learning_rate", 0.0), ("critic_learning_rate", -1.0),
        ("num_epochs", 0), ("max_grad_norm", -1.0), ("max_grad_norm", 0.0), ("target_kl", 0.0),
        ("warmup_env_steps", -5), ("entropy_coefficient", -0.1), ("clip_range", 0.0),
        ("discount", 1.1), ("gae_lambda", -0.1), ("minibatch_size", 0),
    ],
)  # fmt: skip
def test_bad_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"^{name}={value}: must be"):
        replace(BANDIT, **{name: value})


@pytest.mark.parametrize(
    ("budget", "size", "longest"), [(512, 256, 256), (500, 256, 256), (256, 256, 0), (100, 256, 0)]
)
def test_a_warm_up_leaves_an_update_to_the_policy(budget: int, size: int, longest: int) -> None:
    """Else online PPO would end as it began, and nobody would be told."""
    made = PPOConfig(budget, num_envs=2, steps_per_update=size, warmup_env_steps=longest)
    trainer = bandit(replace(made, minibatch_size=64, num_epochs=1))
    learnt = [trainer.iterate(0.0)["policy_updates"] for _ in range(made.num_updates)]
    assert learnt[-1] > 0 and not any(learnt[:-1])
    with pytest.raises(UsageError, match=f"^warmup_env_steps={longest + 1}: must be at most"):
        replace(made, warmup_env_steps=longest + 1)


def test_rollout_keeps_chunks_and_both_kinds_of_end() -> None:
    config = PPOConfig(num_env_steps=64, num_envs=2, steps_per_update=32, discount=0.5)
    trainer = bandit(config, last=6)
    trainer.actor.sample_path = lambda s, g: (torch.full((2, 4, 1), 0.6 - 1.0), s)  # type: ignore[method-assign]
    trainer.actor.path_log_prob = lambda s, p: torch.zeros(2, 1)  # type: ignore[method-assign]
    rollout = trainer.collect()
    # 8 + 4 + 8 + 4 + 8 steps: chunks go on until the 32 are made
    assert rollout.steps[:, 0].tolist() == [4, 2, 4, 2, 4]
    assert rollout.terminated[:, 0].tolist() == [False, True, False, True, False]
    assert rollout.rewards[0, 0].item() == pytest.approx(-(1 + 0.5 + 0.25 + 0.125))
    assert rollout.rewards[1, 0].item() == pytest.approx(-1.5)
    assert (10 * rollout.states[:, 0, -1, 0]).tolist() == pytest.approx([0, 4, 0, 4, 0])
    assert (10 * rollout.next_states[:, 0, -1, 0]).tolist() == pytest.approx([4, 6, 4, 6, 4])


def test_a_rollout_keeps_each_round_though_nothing_is_standardised() -> None:
    trainer = bandit(PPOConfig(num_env_steps=64, num_envs=2, steps_per_update=32, discount=0.5))
    trainer.standardise = lambda windows: windows
    rollout = trainer.collect()
    assert rollout.states[:, 0, -1, 0].tolist()[:4] == [0.0, 1.0, 2.0, 3.0]
    again = trainer.actor.path_log_prob(rollout.states.flatten(0, 1), rollout.paths.flatten(0, 1))
    torch.testing.assert_close(again, rollout.log_probs.flatten(0, 1))


def hopper_trainer(num_updates: int) -> PPO:
    config = PPOConfig(
        num_env_steps=64 * num_updates, num_envs=2, steps_per_update=64, minibatch_size=32,
        num_epochs=2, normalise_states=True, normalise_rewards=True,
    )  # fmt: skip
    actor = GaussianPolicy(
        GaussianConfig(11, 3, hidden=(16,), activation="tanh", state_dependent_std=False), 0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        critic = StateValue(mlp([11, 16, 1], "tanh"))
    envs = ChunkedEnvs(HOPPER, [1, 2], discount=config.discount)
    return PPO(config, actor, critic, envs, torch.Generator().manual_seed(0))


def test_training_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mid-episode, running scales, generators, optimiser and simulators included."""

    def eager(*args: Any, **kwargs: Any) -> int:
        return fit(*args, **{**kwargs, "checkpoint_seconds": -1})

    monkeypatch.setattr(ppo, "fit", eager)
    whole, broken = MemoryRecorder(), MemoryRecorder(stop_after=2)
    unbroken, stopped, resumed = (hopper_trainer(4) for _ in range(3))
    train_ppo(unbroken, recorder=whole, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train_ppo(stopped, recorder=broken, progress=False)
    broken.stop_after = None
    train_ppo(resumed, recorder=broken, progress=False)
    assert broken.rows == whole.rows
    assert resumed.episodes.value == unbroken.episodes.value
    expected = unbroken.actor.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in resumed.actor.state_dict().items())


def test_golden() -> None:
    recorder, trainer = MemoryRecorder(), hopper_trainer(2)
    train_ppo(trainer, recorder=recorder, progress=False)
    rows = {
        f"{key}.{step}": torch.tensor(value) for step, row in recorder.rows
        for key, value in row.items()
    }  # fmt: skip
    weights = {"actor": trainer.actor.body[0].weight.detach()[0]}  # type: ignore[attr-defined]
    check_golden("ppo", {**rows, **weights}, ppo.REVISION, atol=1e-3)
