from __future__ import annotations

from typing import Any

import pytest
import torch
from env_toys import ConstantPolicy
from model_toys import randn
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from uepo_lib.errors import UsageError
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.shift import FLOOR, displacement_in_sigmas, executed_actions, moment_matched_kl

PROBE = randn(5, 1, 2)


def gaussian(mean: float, log_std: float) -> GaussianPolicy:
    policy = GaussianPolicy(
        GaussianConfig(2, 3, hidden=(4,), state_dependent_std=False, initial_log_std=log_std)
    )
    last: Any = policy.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(mean)
    return policy


def cloud(policy: Any, seed: int = 0, count: int = 20_000) -> Tensor:
    return executed_actions(policy, PROBE, count, torch.Generator().manual_seed(seed))


def test_for_gaussians_it_is_their_kl() -> None:
    old, new = gaussian(0.0, -2.0), gaussian(0.1, -1.7)

    def distribution(mean: float, log_std: float) -> Independent:
        return Independent(Normal(torch.full((3,), mean), torch.tensor(log_std).exp()), 1)

    exact = kl_divergence(distribution(0.0, -2.0), distribution(0.1, -1.7))
    found = moment_matched_kl(cloud(old), cloud(new, seed=1))
    assert found.shape == (5,)
    torch.testing.assert_close(found, exact.expand(5), rtol=0.05, atol=0.01)


def test_a_policy_is_no_distance_from_itself() -> None:
    policy = gaussian(0.2, -2.0)
    assert moment_matched_kl(cloud(policy), cloud(policy)).abs().max() == 0
    assert moment_matched_kl(cloud(policy), cloud(policy, seed=1)).max() < 0.01


def test_a_point_mass_has_the_floor_for_its_width() -> None:
    """Moved by d in each of three actions: ½ · 3 (d / floor)² nats."""
    first = ConstantPolicy(torch.zeros(1, 1, 3))
    second = ConstantPolicy(torch.full((1, 1, 3), 2 * FLOOR))
    found = moment_matched_kl(cloud(first, count=4), cloud(second, count=4))
    torch.testing.assert_close(found, torch.full((5,), 0.5 * 3 * 4.0))


def test_displacement_counts_widths() -> None:
    old, new = gaussian(0.0, -2.0), gaussian(0.3, -2.0)
    found = displacement_in_sigmas(old, new, PROBE, cloud(old))
    sigma = float(torch.tensor(-2.0).exp())
    torch.testing.assert_close(found, torch.full((5,), 0.3 / sigma), rtol=0.03, atol=0.0)


def test_only_what_is_executed_counts() -> None:
    """Beyond the box two policies do the same."""
    first = ConstantPolicy(torch.full((1, 1, 3), 1.5))
    second = ConstantPolicy(torch.full((1, 1, 3), 9.0))
    assert moment_matched_kl(cloud(first, count=4), cloud(second, count=4)).abs().max() == 0


def test_several_members_and_single_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="policy"):
        cloud(ConstantPolicy(torch.zeros(2, 1, 3)))
    with pytest.raises(UsageError, match="num_samples"):
        cloud(gaussian(0.0, -1.0), count=1)
    with pytest.raises(UsageError, match="floor"):
        moment_matched_kl(randn(2, 3, 1), randn(2, 3, 1), floor=0.0)
