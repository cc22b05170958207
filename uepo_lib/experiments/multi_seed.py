"""E1: are n noise seeds of one diffusion model n policies? (Section 1, contribution 1; A2 to A4.)

Every set plays the same episodes, and its members plan and act from the same logged states. What a
set shows is read beside *fresh noise*: n policies that are equal in distribution, so that whatever
they show is chance.

**Expected** before any of it was computed: on data with one mode a fixed seed is a constant bias of
the actions, so seeds differ in return beyond chance, and most of them are worse than zero noise; on
the maze a seed keeps to a route more often than chance, and n seeds reach no more routes than n
draws; guidance moves plans apart more than it moves what is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from uepo_lib import cards, executed, profiles
from uepo_lib.coverage import coverage, mode_entropy, persistence
from uepo_lib.divergence import cosine_floor, low_pass, nearest_neighbour
from uepo_lib.ensembles import best_of_n, between_sd
from uepo_lib.experiments.seed_sets import (
    FRESH,
    ZERO,
    SeedGrid,
    Set,
    grid_of,
    of_one_model,
    rivals,
)
from uepo_lib.maze import ROUTES
from uepo_lib.mixture_density import MixturePolicy
from uepo_lib.played import Played, apart, played, routes
from uepo_lib.policies import Together
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study
from uepo_lib.subpolicies import SubPolicies

SUBSETS = 60
"""Of n members, so many random ones of each smaller size are judged and averaged."""
SPLITS = 20
"""Random halves of the episodes for each of them."""
LOOKED_AT = 256
"""Logged states in which plans are compared."""


def sets_of(study: Study, grid: SeedGrid) -> dict[str, Set]:
    """All sets of one task and seed; n models stand beside on one task, with its first seed."""
    found = of_one_model(study, grid)
    first = profiles.budget(study.profile).seeds[0]
    if study.task.name == grid.rivals and study.seed == first:
        found |= rivals(grid, study.seed, study.profile)
    return found


def plays(study: Study, grid: SeedGrid) -> dict[str, Product[Played]]:
    """What every set did."""
    return {
        name: played(study, chosen.policy, chosen.episodes, sampled=chosen.sampled)
        for name, chosen in sets_of(study, grid).items()
    }


def executions(study: Study, grid: SeedGrid) -> dict[str, Product[executed.Executed]]:
    """What the members of each set of fixed noises do from the same logged states."""
    return {
        name: executed.from_data(study, chosen.policy, grid.starts, grid.horizon)
        for name, chosen in of_one_model(study, grid).items()
        if name not in (ZERO, FRESH)
    }


def compute(study: Study, grid: SeedGrid | None = None) -> None:
    """Every run of one task and seed, those of n models excepted (:func:`network_runs`)."""
    grid = grid or grid_of(study.profile)
    for play in plays(study, grid).values():
        _ = play.run
    for execution in executions(study, grid).values():
        _ = execution.run


# -- returns and routes


def returns_table(study: Study, grid: SeedGrid | None = None) -> tuple[pd.DataFrame, list[Run]]:
    """How sets of each size do: a row a set and size.

    Columns task, seed, set, n, mean, equal_mean (over as many episodes as the set that played the
    fewest, from the same resets), between (standard deviation of the members' true means),
    same_half and other_half (the best member by one half of the episodes, on both), and on the maze
    coverage, entropy (:mod:`coverage`), persistence and arrived. Scores are normalised. Sets of
    fewer than all members are averaged over random ones.
    """
    grid = grid or grid_of(study.profile)
    rows: list[dict[str, Any]] = []
    runs: list[Run] = []
    shown = plays(study, grid)
    fewest = min(product.value.returns.shape[1] for product in shown.values())
    for name, product in shown.items():
        runs += product.runs
        rows += [
            {"task": study.task.name, "seed": study.seed, "set": name, **row}
            for row in _by_size(study, product.value, grid.sizes, fewest)
        ]
    return pd.DataFrame(rows), runs


def _by_size(
    study: Study, found: Played, sizes: Sequence[int], fewest: int
) -> Iterator[dict[str, Any]]:
    robot, n = study.task.robot, len(found.returns)
    span = robot.normalised(1.0) - robot.normalised(0.0)
    scores = robot.normalised(0.0) + span * found.returns
    modes = routes(found) if robot.name == "maze" else None
    generator = torch.Generator().manual_seed(0)
    for size in [m for m in sizes if m <= n]:
        count = SUBSETS if 1 < size < n else 1
        some = [torch.randperm(n, generator=generator)[:size] for _ in range(count)]
        if size == 1:  # each member once
            some = list(torch.arange(n).split(1))
        equal = torch.stack([scores[chosen, :fewest].mean() for chosen in some]).mean()
        yield {"n": size, "equal_mean": float(equal), **_judged(scores, modes, some, generator)}


def _judged(
    scores: Tensor, modes: Tensor | None, some: Sequence[Tensor], generator: torch.Generator
) -> dict[str, float]:
    rows = []
    for chosen in some:
        mine = scores[chosen]
        row = {"mean": float(mine.mean())}
        if len(chosen) > 1:
            best = best_of_n(mine, generator, SPLITS)
            halves = {"same_half": best.chosen, "other_half": best.fresh}
            row |= {"between": between_sd(mine), **halves}
        if modes is not None:
            row |= _of_routes(modes[chosen])
        rows.append(row)
    return {str(name): float(value) for name, value in pd.DataFrame(rows).mean().items()}


def _of_routes(modes: Tensor) -> dict[str, float]:
    return {
        "coverage": coverage(modes, len(ROUTES)),
        "entropy": mode_entropy(modes, len(ROUTES)),
        "persistence": persistence(modes, len(ROUTES)),
        "arrived": float((modes >= 0).float().mean()),
    }


def members_table(study: Study, grid: SeedGrid | None = None) -> pd.DataFrame:
    """Every member's mean normalised score: columns task, seed, set, episodes, member, score."""
    grid = grid or grid_of(study.profile)
    rows = []
    for name, product in plays(study, grid).items():
        about = (study.task.name, study.seed, name, product.value.returns.shape[1])
        for i, mean in enumerate(product.value.returns.mean(1).tolist()):
            rows.append((*about, i, study.task.robot.normalised(mean)))
    return pd.DataFrame(rows, columns=["task", "seed", "set", "episodes", "member", "score"])


def route_shares(study: Study, grid: SeedGrid | None = None) -> pd.DataFrame:
    """Of every set on the maze, the routes of each member: columns set, episodes (of a member),
    member, route, share."""
    grid = grid or grid_of(study.profile)
    rows = []
    for name, product in plays(study, grid).items():
        modes = routes(product.value)
        for i, mine in enumerate(modes):
            for route, about in enumerate(ROUTES):
                share = float((mine == route).float().mean())
                rows.append((name, modes.shape[1], i, about.name, round(share, 3)))
    return pd.DataFrame(rows, columns=["set", "episodes", "member", "route", "share"])


# -- distances


def distances_table(study: Study, grid: SeedGrid | None = None) -> tuple[pd.DataFrame, list[Run]]:
    """How far apart a set's plans are, and what its members do: a row a set.

    Columns task, seed, set, div (to the nearest neighbour, mean over states of D), low_passed (the
    same of smoothed plans), floor (the same of n noisy repeats of what D's behaviour meant; NaN
    where that is not known), plan_rms, executed_div and executed_rms (mean over pairs), rho (rank
    correlation of div with executed_rms over pairs), rho_rms (of plan_rms with it), apart (paths of
    whole episodes, in standard deviations).
    """
    grid = grid or grid_of(study.profile)
    past = study.starts(LOOKED_AT, "calibration")
    level, floor = cosine_floor(_logged(study)), data_floor(study, grid.n)
    rows: list[dict[str, Any]] = []
    runs: list[Run] = []
    done, shown = executions(study, grid), plays(study, grid)
    for name, chosen in sets_of(study, grid).items():
        if name == ZERO:
            continue
        runs += [*shown[name].runs, *(done[name].runs if name in done else ())]
        plans = _plans(chosen, past, study.generator("plans that are compared"))
        between = apart(shown[name].value)
        i, j = torch.triu_indices(len(between), len(between), 1)
        rows.append({
            "task": study.task.name, "seed": study.seed, "set": name, "floor": floor,
            **_plan_row(plans, level),
            **(_executed_row(study, done[name].value, level) if name in done else {}),
            "apart": float(between[i, j].mean()),
        })  # fmt: skip
    return pd.DataFrame(rows), runs


def _plans(chosen: Set, past: Tensor, generator: torch.Generator) -> Tensor | None:
    """(n, B, T, A); None for policies that plan no further than one action."""
    policy = chosen.policy.value
    if isinstance(policy, MixturePolicy):
        return policy.network.plan(past, policy.quantile[:, None].expand(-1, len(past)))
    members: list[Any] = policy.members if isinstance(policy, Together) else [policy]
    if not isinstance(members[0], SubPolicies):
        return None
    drawn = generator if chosen.sampled else None
    return torch.cat([member.plan_shared(past, drawn) for member in members])


def _plan_row(plans: Tensor | None, level: float) -> dict[str, float]:
    if plans is None:
        return {}
    i, j = torch.triu_indices(len(plans), len(plans), 1)
    return {
        "div": float(nearest_neighbour(plans, level)[0].mean()),
        "low_passed": float(nearest_neighbour(low_pass(plans), level)[0].mean()),
        "plan_rms": float(executed.plan_distances(plans)["rms"][i, j].mean()),
    }


def _executed_row(study: Study, seen: executed.Executed, level: float) -> dict[str, float]:
    n, horizon = len(seen.plans), seen.states.shape[2] - 1
    done = executed.distances(seen, executed.state_floor(study, horizon))
    plans = executed.plan_distances(seen.plans, level)
    i, j = torch.triu_indices(n, n, 1)
    return {
        "executed_div": float(done["div"][i, j].mean()),
        "executed_rms": float(done["rms"][i, j].mean()),
        "rho": executed.rank_correlation(plans["div"], done["rms"]).mean,
        "rho_rms": executed.rank_correlation(plans["rms"], done["rms"]).mean,
    }  # fmt: skip


def _logged(study: Study) -> Tensor:
    index = torch.linspace(0, len(study.windows) - 1, 1024).long()
    return study.windows.batch(index).actions


def data_floor(study: Study, n: int) -> float:
    """div to the nearest of n noisy repeats of one behaviour (A4), as that of n plans is measured:
    what D's policy meant to do along logged windows, with its logged noise and with that of n − 1
    other windows. NaN where it is not known."""
    index = torch.linspace(0, len(study.windows) - 1, LOOKED_AT).long()
    steps = study.windows.now[index][:, None] + torch.arange(study.windows.horizon)
    steps = steps.clamp(max=len(study.dataset) - 1)
    meant = cards.mean_actions(study.dataset, steps.flatten())
    if meant is None:
        return float("nan")
    logged = study.dataset.actions[steps]
    noise = logged - meant.view_as(logged)
    others = [(meant.view_as(logged) + noise.roll(i, 0)).clamp(-1, 1) for i in range(1, n)]
    repeats = torch.stack([logged, *others])
    return float(nearest_neighbour(repeats, cosine_floor(logged))[0].mean())


# -- all of it


def run(profile: str, grid: SeedGrid | None = None) -> dict[str, tuple[pd.DataFrame, list[Run]]]:
    """ "returns" and "distances" of every task and seed, with their runs."""
    grid = grid or grid_of(profile)
    studies = [
        Study(task, seed, profile, progress=False)
        for task in grid.tasks
        for seed in profiles.budget(profile).seeds
    ]
    found = {}
    for name, table in (("returns", returns_table), ("distances", distances_table)):
        parts = [table(study, grid) for study in studies]
        joined = pd.concat([part for part, _ in parts], ignore_index=True)
        found[name] = joined, [run for _, runs in parts for run in runs]
    return found
