"""Where in the reverse process a perturbation of x̂_0 is undone (A3).

Guidance adds δ to x̂_0 and keeps ε̂; the steps that follow are a denoiser, for which δ is noise to be
taken off. :func:`survival` measures what is left of δ in the actions when one step alone is
perturbed; ``toys.gaussian_survival`` is the closed form for one Gaussian. :func:`trace` follows a
guided set's estimates through all steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from uepo_lib.divergence import Guidance
from uepo_lib.errors import UsageError, check
from uepo_lib.subpolicies import SubPolicies


class Estimates(NamedTuple):
    """x̂_0 of all sub-policies at one reverse step, each (n, B, T, A)."""

    before: Tensor
    after: Tensor
    """With δ, as clipped to the actions' range."""


@dataclass(frozen=True)
class _Watched(Guidance):
    """Another guidance, of which is kept what it saw and what it made of it."""

    inner: Guidance = field(kw_only=True)
    clip: float = 1.0
    seen: list[Estimates] = field(default_factory=list)

    def __call__(self, x0: Tensor, k: int, step_index: int) -> Tensor:
        after = self.inner(x0, k, step_index).clamp(-self.clip, self.clip)
        shape = (len(self.xi), -1)
        self.seen.append(Estimates(x0.unflatten(0, shape), after.unflatten(0, shape)))
        return after


def trace(guided: SubPolicies, past: Tensor) -> list[Estimates]:
    """x̂_0 before and after δ at every reverse step in states (B, T_o, S); the last is the plan.

    Raises:
        UsageError: the set is not guided.
    """
    inner = _guidance_of(guided)
    watched = _Watched(inner.config, inner.xi, inner=inner, clip=guided.model.config.clip)
    guided.with_guidance(watched).plan_shared(past)
    return watched.seen


def with_control(guided: SubPolicies, control: Tensor) -> SubPolicies:
    """The set with ``control`` (K,), one σ a reverse step, in the place of the rule."""
    return guided.with_guidance(replace(_guidance_of(guided), control=control))


def _guidance_of(policies: SubPolicies) -> Guidance:
    if policies.guidance is None:
        raise UsageError("guidance=None: must be given, for there to be a perturbation to follow")
    return policies.guidance


@dataclass(frozen=True)
class Survival:
    """What is left of δ, by the reverse step that alone was perturbed; each (K,)."""

    along: Tensor
    """Component of the change of the actions along δ, over ‖δ‖: what is kept of δ itself."""
    size: Tensor
    """‖change of the actions‖ over ‖δ‖: more than ``along`` where δ led elsewhere, as to another
    mode."""


def survival(guided: SubPolicies, past: Tensor, std: float) -> Survival:
    """Perturb x̂_0 by ``std`` ξ at one reverse step at a time, in states (B, T_o, S).

    Both numbers pool sub-policies and states (a ratio of sums of squares). ξ is the set's own;
    δ is what was added after clipping. Costs K + 1 chains.

    Raises:
        UsageError: the set is not guided, or ``std`` is not positive.
    """
    check(std > 0, "std", std, "positive")
    steps, device = guided.num_denoising_steps, guided.model.device
    plain = trace(with_control(guided, torch.zeros(steps, device=device)), past)[-1].after
    along, size = torch.zeros(2, steps)
    for j in range(steps):
        control = torch.zeros(steps, device=device)
        control[j] = std
        seen = trace(with_control(guided, control), past)
        delta, change = seen[j].after - seen[j].before, seen[-1].after - plain
        power = delta.square().sum()
        along[j] = (change * delta).sum() / power
        size[j] = (change.square().sum() / power).sqrt()
    return Survival(along, size)
