from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden, randn, random_windows
from model_toys import MemoryRecorder
from torch.distributions import Independent, Normal, kl_divergence

from uepo_lib import cloning, policies
from uepo_lib.cloning import CloneConfig, train_clone
from uepo_lib.errors import UsageError
from uepo_lib.policies import GaussianConfig, GaussianPolicy, normal_kl, normal_log_prob
from uepo_lib.training import fit

SMALL = GaussianConfig(3, 2, obs_horizon=2, action_horizon=4, hidden=(16,))
BOTH = [SMALL, dataclasses.replace(SMALL, state_dependent_std=False, initial_log_std=-0.7)]


def policy(config: GaussianConfig = SMALL, seed: int = 0) -> GaussianPolicy:
    """Weights far from their tiny start, so that states matter."""
    made = GaussianPolicy(config, seed)
    with torch.no_grad():
        made.body[-1].weight.mul_(50)
    return made


# ---- the distribution ----------------------------------------------------------------------------


def test_normal_log_prob_is_torchs() -> None:
    x, mean, log_std = randn(50), randn(50, seed=1), randn(50, seed=2)
    expected = Normal(mean, log_std.exp()).log_prob(x)
    torch.testing.assert_close(normal_log_prob(x, mean, log_std), expected)


def test_normal_kl_is_torchs() -> None:
    moments = [randn(50, seed=i) for i in range(4)]
    expected = kl_divergence(
        Normal(moments[0], moments[1].exp()), Normal(moments[2], moments[3].exp())
    )
    torch.testing.assert_close(normal_kl(*moments), expected)


@pytest.mark.parametrize("config", BOTH)
def test_path_kl_is_torchs(config: GaussianConfig) -> None:
    old, new, states = policy(config), policy(config, 1), randn(5, 2, 3)
    (mean, log_std), (new_mean, new_log_std) = old(states), new(states)
    expected = kl_divergence(
        Independent(Normal(mean, log_std.exp()), 2),
        Independent(Normal(new_mean, new_log_std.exp()), 2),
    )
    torch.testing.assert_close(old.path_kl(new, states, mean), expected.unsqueeze(-1))


@pytest.mark.parametrize("config", BOTH)
def test_log_prob_and_entropy_are_torchs(config: GaussianConfig) -> None:
    made, states, actions = policy(config), randn(5, 7, 2, 3), randn(5, 7, 4, 2, seed=1)
    mean, log_std = made(states)
    assert mean.shape == log_std.shape == (5, 7, 4, 2)
    law = Independent(Normal(mean, log_std.exp()), 2)
    torch.testing.assert_close(made.log_prob(states, actions), law.log_prob(actions))
    torch.testing.assert_close(made.entropy(states), law.entropy())


def test_log_std_stays_in_its_range_however_far_the_state() -> None:
    config = dataclasses.replace(SMALL, log_std_range=(-3.0, -1.0))
    mean, log_std = policy(config)(1e6 * randn(64, 2, 3))
    assert log_std.min() >= -3
    assert log_std.max() <= -1
    assert log_std.max() - log_std.min() > 1
    assert mean.abs().max() <= 1


@pytest.mark.parametrize("config", BOTH)
def test_samples_have_the_stated_moments(config: GaussianConfig) -> None:
    made, state = policy(config), randn(1, 2, 3)
    with torch.no_grad():
        mean, log_std = made(state)
        draws = made.sample(state.expand(20_000, -1, -1), torch.Generator().manual_seed(0))
    std = log_std[0].exp()
    assert ((draws.mean(0) - mean[0]).abs() < 5 * std / 20_000**0.5).all()
    torch.testing.assert_close(draws.std(0), std, rtol=0.03, atol=0)


# ---- acting --------------------------------------------------------------------------------------


def test_acting_without_a_generator_is_the_mean_and_with_one_a_clipped_sample() -> None:
    made, states = policy(BOTH[1]), randn(1, 200, 2, 3)
    torch.testing.assert_close(made.act(states), made(states)[0].clamp(-1, 1))
    sampled = made.act(states, torch.Generator().manual_seed(1))
    raw = made.sample(states, torch.Generator().manual_seed(1))
    assert raw.abs().max() > 1
    assert torch.equal(sampled, raw.clamp(-1, 1))
    assert not made.act(states).requires_grad


def test_the_path_that_is_scored_is_the_one_before_clipping() -> None:
    made, states = policy(BOTH[1]), randn(30, 2, 3)
    actions, path = made.sample_path(states, torch.Generator().manual_seed(2))
    assert path.abs().max() > 1
    assert torch.equal(actions, path)
    log_prob = made.path_log_prob(states, path)
    assert log_prob.shape == (30, 1)
    assert torch.equal(log_prob[:, 0], made.log_prob(states, path))


def test_building_leaves_the_global_generator_alone_and_depends_on_the_seed() -> None:
    before = torch.random.get_rng_state()
    first, again, other = GaussianPolicy(SMALL, 1), GaussianPolicy(SMALL, 1), GaussianPolicy(SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [made.body[0].weight for made in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "change",
    [
        {"state_dim": 0},
        {"action_horizon": 0},
        {"activation": "rleu"},
        {"log_std_range": (0, -1)},
        {"hidden": (-3,)},
        {"hidden": (16, 0)},
    ],
)
def test_bad_configs_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        GaussianConfig(**{"state_dim": 3, "action_dim": 2, **change})


# ---- cloning -------------------------------------------------------------------------------------

QUICK = CloneConfig(num_updates=60, batch_size=64, learning_rate=1e-2)


def test_cloning_recovers_a_known_gaussian() -> None:
    """a = tanh(s) / 2 + noise: the mean and σ of the data come back."""
    windows = random_windows(2_000, 3, 8, 2)
    mean = 0.5 * windows.data.past[:, -1, :1].tanh().unsqueeze(1).expand(-1, 8, 2)
    noisy = mean + 0.1 * randn(2_000, 8, 2, seed=5)
    windows = type(windows)(windows.data.past, noisy, windows.data.future)
    cfg = dataclasses.replace(QUICK, num_updates=600, batch_size=256)
    clone = train_clone(cfg, SMALL, windows, seed=0, progress=False)
    with torch.no_grad():
        found, log_std = clone(windows.data.past)
    assert (found - mean[:, :4]).square().mean().sqrt() < 0.05
    assert log_std.exp().mean() == pytest.approx(0.1, rel=0.2)


def test_only_the_executed_actions_are_cloned() -> None:
    windows = random_windows(200, 3, 8, 2)
    changed = windows.data.actions.clone()
    changed[:, 4:] = 0.0
    other = type(windows)(windows.data.past, changed, windows.data.future)
    first = train_clone(QUICK, SMALL, windows, seed=0, progress=False)
    second = train_clone(QUICK, SMALL, other, seed=0, progress=False)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_cloning_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(*args: Any, **kwargs: Any) -> int:
        return fit(*args, **{**kwargs, "checkpoint_seconds": -1, "log_every": 1})

    monkeypatch.setattr(cloning, "fit", eager)
    windows, whole, broken = random_windows(200, 3, 8, 2), MemoryRecorder(), MemoryRecorder(23)
    expected = train_clone(QUICK, SMALL, windows, seed=0, recorder=whole, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train_clone(QUICK, SMALL, windows, seed=0, recorder=broken, progress=False)
    broken.stop_after = None
    resumed = train_clone(QUICK, SMALL, windows, seed=0, recorder=broken, progress=False)
    assert broken.rows == whole.rows
    for a, b in zip(resumed.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)


def test_golden() -> None:
    clone = train_clone(QUICK, SMALL, random_windows(300, 3, 8, 2), seed=0, progress=False)
    states, actions = randn(6, 2, 3, seed=8), randn(6, 4, 2, seed=9)
    with torch.no_grad():
        tensors = {
            "mean": clone(states)[0],
            "log_prob": clone.log_prob(states, actions),
            "sample": clone.sample(states, torch.Generator().manual_seed(0)),
        }
    assert policies.REVISION == 1, "a golden file is kept by cloning.REVISION: bump both"
    check_golden("cloning", tensors, cloning.REVISION, atol=1e-3)
