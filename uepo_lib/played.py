"""Episodes of n policies with the ways that they took: returns alone do not tell behaviours apart.

Member i plays episode e from the same reset seed as every other member, so two members differ in
what they do and not in where they begin.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uepo_lib import evaluation, maze, visits
from uepo_lib.coverage import NO_MODE
from uepo_lib.datasets import Normaliser
from uepo_lib.errors import check
from uepo_lib.evaluation import ENVIRONMENTS_AT_ONCE, EVALUATION_SEED, Evaluation
from uepo_lib.policies import Policy
from uepo_lib.robots import Robot
from uepo_lib.runs import Run
from uepo_lib.stages import ACTING, Product, Study

REVISION = 1


@dataclass(frozen=True)
class Played:
    """``returns`` and ``lengths`` (n, E), undiscounted and in steps; ``paths`` (n, E, D, F), raw
    points (F = 2, the robot's plane of ``visits.py``) at each of up to D decisions, the last one
    kept on after an episode's end; ``action_horizon``, the steps between two decisions."""

    returns: Tensor
    lengths: Tensor
    paths: Tensor
    action_horizon: int

    def path(self, i: int, e: int) -> Tensor:
        """Where member i decided in episode e: (D_e, F)."""
        decisions = -(-int(self.lengths[i, e]) // self.action_horizon)
        return self.paths[i, e, :decisions]


class Watched:
    """``policy``, and the ``points`` (each (n, B, F)) of every state that it was asked about."""

    def __init__(self, policy: Policy, look: Callable[[Tensor], Tensor]) -> None:
        self.policy, self.look, self.points = policy, look, list[Tensor]()
        self.n, self.obs_horizon = policy.n, policy.obs_horizon
        self.action_horizon = policy.action_horizon

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As the policy acts."""
        now = states[:, :, -1]
        self.points.append(self.look(now.flatten(0, 1)).unflatten(0, now.shape[:2]))
        return self.policy.act(states, generator)


def play(
    policy: Policy,
    robot: Robot,
    normaliser: Normaliser,
    num_episodes: int,
    *,
    generator: torch.Generator | None = None,
    points: Callable[[Tensor], Tensor] | None = None,
) -> Played:
    """``evaluation.evaluate``, the same episodes, with the ways.

    ``points`` (N, S) -> (N, F) says what is kept of raw states: by default the robot's plane.
    """
    check(num_episodes > 0, "num_episodes", num_episodes, "a positive integer")
    points = points or visits.plane_of(robot).points
    per_wave = max(1, ENVIRONMENTS_AT_ONCE // policy.n)
    seen: list[Evaluation] = []
    paths: list[Tensor] = []
    for first in range(0, num_episodes, per_wave):
        watched = Watched(policy, lambda states: points(normaliser.inverse(states)))
        seen.append(
            evaluation.evaluate(
                watched, robot, normaliser, min(per_wave, num_episodes - first),
                first_seed=EVALUATION_SEED + first, generator=generator,
            )
        )  # fmt: skip
        paths.append(torch.stack(watched.points, 2))
    longest = max(part.shape[2] for part in paths)
    padded = [
        torch.cat([p, p[:, :, -1:].expand(-1, -1, longest - p.shape[2], -1)], 2) for p in paths
    ]
    return Played(
        torch.cat([s.returns for s in seen], 1), torch.cat([s.lengths for s in seen], 1),
        torch.cat(padded, 1), policy.action_horizon,
    )  # fmt: skip


def played(
    study: Study, policy: Product[Any], episodes: int, *, sampled: bool = False
) -> Product[Played]:
    """:func:`play` as a run; its steps are counted as "evaluation". ``sampled`` gives a generator,
    which fresh noise needs."""

    def produce(run: Run) -> None:
        chosen = policy.value
        found = play(
            chosen, study.task.robot, study.dataset.normaliser, episodes,
            generator=study.generator("sampled evaluation") if sampled else None,
        )  # fmt: skip
        parts = {"returns": found.returns, "lengths": found.lengths, "paths": found.paths}
        steps = torch.tensor(found.action_horizon)
        run.save_tensors({**parts, "action_horizon": steps}, "episodes")
        run.account("evaluation", int(found.lengths.sum()), found.returns.numel())

    def read(run: Run) -> Played:
        tensors = run.tensors("episodes")
        steps = int(tensors.pop("action_horizon"))
        return Played(**tensors, action_horizon=steps)

    config = {"policy": dict(policy.config), "episodes": episodes, "sampled": sampled}
    modules = (*ACTING, sys.modules[__name__])
    return study.stage("played", config, produce, read, modules, (policy,), "a minute")


def routes(found: Played) -> Tensor:
    """The maze's route of each episode that arrived, else ``coverage.NO_MODE``: (n, E) long."""
    modes = torch.full(found.returns.shape, NO_MODE)
    for i, e in (found.returns > 0).nonzero().tolist():
        route = maze.route_past(found.path(i, e).numpy())
        if route is not None:
            modes[i, e] = route
    return modes


def apart(found: Played) -> Tensor:
    """How far apart each pair of members is, on average over episodes: (n, n).

    The root-mean-square distance of their paths while both last, each coordinate in units of its
    standard deviation over all of them.
    """
    decisions = -(-found.lengths // found.action_horizon)
    step = torch.arange(found.paths.shape[2])
    alive = step < decisions[:, :, None]
    points = found.paths / found.paths[alive].std(dim=0).clamp(min=1e-6)
    squares = (points[:, None] - points).square().sum(dim=-1)
    both = alive[:, None] & alive
    return ((squares * both).sum(-1) / both.sum(-1)).sqrt().mean(dim=-1)
