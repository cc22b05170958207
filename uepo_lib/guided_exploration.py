r"""Guidance while exploring online: a switch, off by default (A3).

Public notes of the paper disagree: one says that divergence helps online too, another that it is
measured by KL.

Here the frozen first steps of the chain are run for all n sub-policies with the guidance hook, and
sub-policy i's latent is taken; the trained last steps start from it, so their likelihood is what it
was. The perturbation ξ is fixed: an exploring policy that is displaced, not a noisier one.
Noise-free actions are unguided, and equal across the switch.

The KL of two plans is that of the policies that explore around them,

$$\mathrm{KL}\big(N(a_i, \sigma^2 I)\,\|\,N(a_j, \sigma^2 I)\big) = \|a_i - a_j\|^2 / 2\sigma^2,$$

here a mean over control steps. Unlike div it sees a constant offset, and no phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from uepo_lib.chain import ChainActor
from uepo_lib.divergence import Guidance, GuidanceConfig, nearest
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.subpolicies import SubPolicies

REVISION = 1

Measure = Literal["dynamic", "kl"]


def pairwise_kl(plans: Tensor, sigma: float) -> Tensor:
    """KL of all pairs of Gaussians around plans (n, B, T, A): (n, n, B), nats a control step."""
    check(sigma > 0, "sigma", sigma, "positive")
    gaps = plans.unsqueeze(1) - plans.unsqueeze(0)
    return gaps.square().sum(-1).mean(-1) / (2 * sigma**2)


@dataclass(frozen=True)
class KLGuidance(Guidance):
    """Guidance whose distance is :func:`pairwise_kl` with std ``plan_sigma``; τ is in its unit."""

    plan_sigma: float = 1.0

    def distance(self, x0: Tensor) -> Tensor:
        return nearest(pairwise_kl(x0, self.plan_sigma))[0]


def guidance_by(
    measure: Measure, guided: SubPolicies, sigma: float, past: Tensor, quantile: float
) -> Guidance:
    """The rule of the ``guided`` set, or the same by KL, with its own τ.

    That τ is the ``quantile`` of the unguided set's nearest-neighbour KL in states ``past``
    (B, T_o, S), as that of div is (A4).
    """
    rule = guided.guidance
    if rule is None:
        raise UsageError("guided: an unguided set; must be guided, for there to be a rule")
    if measure not in get_args(Measure):
        raise unknown("measure", measure, get_args(Measure))
    if measure == "dynamic":
        return rule
    plans = guided.with_guidance(None).plan_shared(past)
    threshold = float(nearest(pairwise_kl(plans, sigma))[0].quantile(quantile))
    config = GuidanceConfig(threshold, rule.config.eta, 0.0, rule.config.eta_schedule)
    return KLGuidance(config, rule.xi, plan_sigma=sigma)


class GuidedActor(ChainActor):
    """A chain that explores from where guidance pushes it, among its n − 1 neighbours.

    ``guided`` is the set, whose member ``i`` is replaced by ``sub_policy``: its start may have
    another κ, but it is not its own neighbour.
    """

    starts: Tensor

    def __init__(
        self,
        sub_policy: SubPolicies,
        guided: SubPolicies,
        i: int,
        rule: Guidance,
        sigma: float = 0.3,
        num_levels: int = 1,
    ) -> None:
        super().__init__(sub_policy, sigma, num_levels)
        check(0 <= i < guided.n, "i", i, f"in 0 .. {guided.n - 1}")
        alike = len(rule.xi) == guided.n and rule.num_steps == self.num_steps
        check(alike, "rule", tuple(rule.xi.shape), f"{guided.n} members, {self.num_steps} steps")
        frozen = self.num_steps - num_levels
        check(frozen > 0, "num_levels", num_levels, "fewer than all, for a step to be guided")
        starts = guided.kappa[:, None, None] * guided.noise
        starts[i] = self.noise
        self.register_buffer("starts", starts)
        self.member, self.rule = i, rule

    def latent(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return super().latent(states, None)
        # a function of the state: states that follow each other twice are paid for once
        each, place = states.unique_consecutive(return_inverse=True, dim=0)
        n, first = len(self.starts), self.num_steps - self.num_levels
        x = self.starts.repeat_interleave(len(each), dim=0)
        context = self.frozen.encode(each).repeat(n)
        latents = self.frozen.sample(x, context, self.num_steps, self.rule, stop=first)
        return latents.unflatten(0, (n, -1))[self.member, place]
