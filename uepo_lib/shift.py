"""How far a policy has moved: one estimator for every class of policy (E3).

A Gaussian, a denoising chain and a point mass have no density in common, but all of them act. So M
actions are executed in each state of a fixed probe set, before and after; the two clouds are
matched by Gaussians, and the KL between these is what is compared across methods. Each method's own
KL (``finetuning.policy_kl``) stands beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.errors import check
from uepo_lib.policies import Policy, normal_kl

REVISION = 1

FLOOR = 0.05
"""Least standard deviation of an executed action, in action units, the same for every policy: a
point mass that moves by 5 % of the largest action has then moved by one σ."""


@torch.no_grad()
def executed_actions(
    policy: Policy, probe: Tensor, num_samples: int, generator: torch.Generator
) -> Tensor:
    """The first action of ``num_samples`` exploring plans in each state: (P, T_o, S) -> (P, M, A).

    Clipped to [-1, 1], as the environment gets it. ``policy`` has one member.
    """
    check(policy.n == 1, "policy", f"{policy.n} members", "one policy")
    check(num_samples >= 2, "num_samples", num_samples, "at least 2")
    rows = probe.repeat_interleave(num_samples, dim=0).unsqueeze(0)
    first = policy.act(rows, generator)[0, :, 0].clamp(-1, 1)
    return first.unflatten(0, (len(probe), num_samples))


def moment_matched_kl(old: Tensor, new: Tensor, floor: float = FLOOR) -> Tensor:
    """KL(old ‖ new) of diagonal Gaussians with the moments of two clouds (P, M, A), whose standard
    deviations are at least ``floor``: (P,) nats."""
    check(floor > 0, "floor", floor, "positive")
    (mean, std), (other_mean, other_std) = _moments(old, floor), _moments(new, floor)
    return normal_kl(mean, std.log(), other_mean, other_std.log()).sum(-1)


def displacement_in_sigmas(
    old: Policy, new: Policy, probe: Tensor, explored: Tensor, floor: float = FLOOR
) -> Tensor:
    """Change of the noise-free first action in units of what ``old`` explores by: (P,).

    ``explored`` (P, M, A) are executed actions of ``old``; root mean square over actions.
    """
    states = probe.unsqueeze(0)
    change = (new.act(states) - old.act(states))[0, :, 0]
    return (change / _moments(explored, floor)[1]).square().mean(-1).sqrt()


def _moments(cloud: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    return cloud.mean(1), cloud.std(1).clamp(min=floor)
