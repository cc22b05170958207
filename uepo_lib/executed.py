"""What sub-policies do when they act: div's counterpart in the states they reach (A4).

div compares plans. Here all sub-policies are put into the same logged state of the simulator, act
for H steps, and the ways that they took are compared: by the formula of div on standardised states,
and by plain distance, which a constant difference does not escape.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from uepo_lib import rollouts
from uepo_lib.divergence import cosine_floor, pairwise
from uepo_lib.errors import check
from uepo_lib.runs import Run
from uepo_lib.stages import ACTING, Product, Study
from uepo_lib.statistics import Interval, mean_interval
from uepo_lib.subpolicies import SubPolicies

REVISION = 1
ENVIRONMENTS_AT_ONCE = 64
"""Each copy of the hand takes 10 MB."""


@dataclass(frozen=True)
class Executed:
    """n sub-policies from the same B starts."""

    plans: Tensor
    """(n, B, T, A) what each planned in the start state."""
    states: Tensor
    """(n, B, H + 1, S) standardised, the start included; after an episode's end its last state."""
    lengths: Tensor
    """(n, B) long, steps made until then."""

    @staticmethod
    def join(parts: Sequence[Executed]) -> Executed:
        """The starts of all parts, in order."""
        return Executed(
            torch.cat([part.plans for part in parts], 1),
            torch.cat([part.states for part in parts], 1),
            torch.cat([part.lengths for part in parts], 1),
        )

    def until(self, horizon: int) -> Executed:
        """The first ``horizon`` steps only."""
        within = 2 <= horizon < self.states.shape[2]
        check(within, "horizon", horizon, f"in 2 .. {self.states.shape[2] - 1}")
        states = self.states[:, :, : horizon + 1]
        return Executed(self.plans, states, self.lengths.clamp(max=horizon))


def execute(
    policies: SubPolicies, simulator: rollouts.Simulator, indices: Tensor, horizon: int
) -> Executed:
    """Every sub-policy from starts ``indices`` (B,), in receding horizon, for at most H steps.

    The simulator counts the steps and resets. Deterministic: fixed noise, no generator.
    """
    check(horizon >= 2, "horizon", horizon, "at least 2, for a second difference of states")
    n, count = policies.n, len(indices)
    past = simulator.reset_to(indices)
    found = rollouts.rollout(policies, simulator, indices.expand(n, -1), horizon)
    states = torch.cat([found.states[:, :1], found.next_states], dim=1)
    missing = horizon + 1 - states.shape[1]  # all had ended before
    states = torch.cat([states, states[:, -1:].expand(-1, missing, -1)], dim=1)
    return Executed(
        policies.plan_shared(past),
        states.unflatten(0, (count, n)).transpose(0, 1).contiguous(),
        found.lengths().view(count, n).T.contiguous(),
    )


def distances(executed: Executed, floor: float = 0.0) -> dict[str, Tensor]:
    """Of all pairs, each (n, n, B): "div" of the states' velocities and accelerations, "rms".

    ``floor`` is the cosine's, for states (see ``divergence.cosine_floor``).
    """
    gap = executed.states[:, None] - executed.states
    return {
        "div": pairwise(executed.states, floor),
        "rms": gap.square().mean(dim=(-2, -1)).sqrt(),
    }


def plan_distances(plans: Tensor, floor: float = 0.0) -> dict[str, Tensor]:
    """Of all pairs of plans (n, B, T, A), each (n, n, B): their div, and plain RMS distance."""
    gap = plans[:, None] - plans
    return {"div": pairwise(plans, floor), "rms": gap.square().mean(dim=(-2, -1)).sqrt()}


def rank_correlation(planned: Tensor, reached: Tensor) -> Interval:
    """Spearman's ρ over the pairs of sub-policies in a state, averaged over states: two (n, n, B).

    Ranking within a state leaves out that some states spread all sub-policies more than others. The
    interval is over states, which are independent starts, given the set and its model.
    """
    n = len(planned)
    check(n >= 3, "n", n, "at least 3 sub-policies, for pairs to rank")
    i, j = torch.triu_indices(n, n, 1)
    pairs = zip(planned[i, j].T.numpy(), reached[i, j].T.numpy(), strict=True)
    found = [
        float(stats.spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0
    ]
    return mean_interval(found)


def from_data(
    study: Study, policy: Product[SubPolicies], count: int, horizon: int
) -> Product[Executed]:
    """:func:`execute` from ``count`` logged states of D; steps and resets are counted as
    "executed trajectories"."""

    def produce(run: Run) -> None:
        simulator, policies = study.simulator(), policy.value
        drawn = torch.randint(len(simulator.past), (count,), generator=study.generator("executed"))
        waves = drawn.split(max(1, ENVIRONMENTS_AT_ONCE // policies.n))
        seen = Executed.join([execute(policies, simulator, wave, horizon) for wave in waves])
        simulator.close()
        run.save_tensors(
            {"plans": seen.plans, "states": seen.states, "lengths": seen.lengths}, "executed"
        )
        run.account("executed trajectories", simulator.steps, simulator.resets)

    config = {"policy": dict(policy.config), "starts": count, "horizon": horizon}
    return study.stage(
        "executed", config, produce, lambda run: Executed(**run.tensors("executed")),
        (*ACTING, rollouts, sys.modules[__name__]), (policy,), "seconds",
    )  # fmt: skip


def state_floor(study: Study, horizon: int) -> float:
    """The cosine's floor for states: 5 % of the median second difference over windows of D."""
    windows = study.dataset.windows(1, horizon + 1)
    index = torch.linspace(0, len(windows) - 1, 256).long()
    return cosine_floor(windows.batch(index).future)
