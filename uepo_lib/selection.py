"""The AM-Q-tuned sub-policy: (i, κ) chosen from n × {0, 0.25, 0.5, 1} without acting (A2).

All candidates are one :class:`SubPolicies`, so one AM-Q rolls them out side by side: from the same
starts, with the same draws of elites. At κ = 0 all noises are the same policy, which counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from uepo_lib.diffusion import DiffusionModel
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.runs import Run
from uepo_lib.stages import ACTION_HORIZON, Product, Study
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.values import Critic

KAPPAS = (0.0, 0.25, 0.5, 1.0)


def pairs(n: int, kappas: Sequence[float] = KAPPAS) -> list[tuple[int, float]]:
    """The candidates (i, κ), κ by κ: n for each positive κ, and (0, 0) once."""
    check(n >= 1, "n", n, "a positive integer")
    valid = len(kappas) > 0 and min(kappas) >= 0 and len(set(kappas)) == len(kappas)
    check(valid, "kappas", tuple(kappas), "one or more different numbers, none negative")
    return [(i, kappa) for kappa in kappas for i in range(n if kappa > 0 else 1)]


def candidates(policies: SubPolicies, kappas: Sequence[float] = KAPPAS) -> SubPolicies:
    """Every pair (i, κ) of a set's ε_i as one set, in the order of :func:`pairs`.

    Raises ``UsageError`` for a guided set, whose members are no policies alone (A3), and for fresh
    noise, which has no i to choose.
    """
    check(policies.guidance is None, "policies", "a guided set", "unguided")
    check(not policies.fresh_noise, "policies", "fresh noise", "of fixed noise")
    chosen = pairs(policies.n, kappas)
    return SubPolicies(
        policies.model,
        policies.noise[[i for i, _ in chosen]],
        torch.tensor([kappa for _, kappa in chosen]),
        action_horizon=policies.action_horizon,
        num_denoising_steps=policies.num_denoising_steps,
    )


@dataclass(frozen=True)
class Tuned:
    """The chosen sub-policy, and what it was chosen by."""

    policy: Product[SubPolicies]
    member: int
    kappa: float
    scores: pd.DataFrame
    """A row a candidate: member, kappa, score."""
    run: Run


def tuned(
    study: Study,
    model: Product[DiffusionModel],
    dynamics: Product[DynamicsModel],
    critic: Product[Critic],
    kappas: Sequence[float] = KAPPAS,
    n: int | None = None,
) -> Tuned:
    """Tune by AM-Q, one run for all candidates; the policy is the product that ``study`` itself
    makes of the chosen pair, so what builds on it has the same id."""
    n = study.budget.num_subpolicies if n is None else n
    check(n > 0, "n", n, "a positive integer")

    def make(trained: DiffusionModel) -> SubPolicies:
        plain = SubPolicies.from_seeds(trained, n, study.seed, action_horizon=ACTION_HORIZON)
        return candidates(plain, kappas)

    config = {"candidates": {"n": n, "kappas": list(kappas)}, "action_horizon": ACTION_HORIZON}
    judged = study.am_q(model.derive(make, config), dynamics, critic)
    scores = judged.value[study.config("amq").score]
    table = pd.DataFrame(pairs(n, kappas), columns=["member", "kappa"]).assign(score=scores.numpy())
    member, kappa = pairs(n, kappas)[int(scores.argmax())]
    together = study.sub_policies(model, kappa, n=n) if kappa > 0 else study.zero_noise(model)
    return Tuned(study.member(together, member), member, kappa, table, judged.run)


def best_member(
    study: Study, together: Product[Any], dynamics: Product[DynamicsModel], critic: Product[Critic]
) -> Product[Any]:
    """The member of an ensemble with the largest AM-Q, alone."""
    config = dict(together.config)
    judged = study.am_q(together, dynamics, critic)

    def best(policies: Any) -> Any:
        return policies.select(int(judged.value[study.config("amq").score].argmax()))

    keys = (*together.keys, *judged.keys)
    return Product(
        keys, lambda: (*together.runs, *judged.runs), lambda: best(together.value), config,
        together.acts,
    )  # fmt: skip
