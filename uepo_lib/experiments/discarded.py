"""E2, continued: what does the filter throw away, and what would it have taught?

One pool of trajectories and every ε: those below it against those above, trajectory by trajectory.
In the simulator the true next states are known, so T̂_init's error is too, and so is what a T̂
that was fitted to a part of the pool predicts better on trajectories that it was *not* fitted to.

**Expected** before any of it was computed: rejected trajectories are further from D and T̂_init
errs more there, so the filter refuses what T̂ would learn most from; in the simulator its value is
a rescaled squared error, and ranks trajectories as the true error does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from uepo_lib import datasets, dynamics, pools, profiles
from uepo_lib.diagnostics import nearest_distance
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.experiments import epsilon
from uepo_lib.experiments.epsilon import Cells
from uepo_lib.experiments.ratios import EPSILON
from uepo_lib.pools import Choice, Pool
from uepo_lib.runs import Run
from uepo_lib.stages import Product

REVISION = 1
QUANTITIES = ("distance", "disagreement", "error", "length", "reward", "speed")
FORWARD = 5
"""Where Hopper's observation holds its forward velocity, m/s."""
NEIGHBOURS = 4_000
"""States of D that a distance is measured to."""
ROWS_AT_ONCE = 4_096
EVERY = 5
"""A trajectory's distance is measured at one state in so many."""


def mean_by_trajectory(values: Tensor, lengths: Tensor) -> Tensor:
    """Means of N steps' values over R trajectories that follow one another: (N,), (R,) -> (R,).

    A trajectory of length 0 has no mean: NaN.
    """
    check(len(values) == int(lengths.sum()), "lengths", int(lengths.sum()), f"{len(values)} in all")
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    return torch.zeros(len(lengths)).index_add(0, owner, values.float()) / lengths


@dataclass(frozen=True)
class _Fitted:
    """T̂ of the filter and of the random control, and which trajectories neither was fitted to."""

    models: dict[str, DynamicsModel]
    unseen: Tensor


def measure(seed: int, profile: str) -> Product[pd.DataFrame]:
    """One seed's table, a row a trajectory of a pool.

    Columns: seed, source, trajectory, excess (nats a dimension), length (steps), reward (a step's
    mean), speed (m/s), distance (mean distance of its states to the nearest of D's slice,
    standardised units), disagreement (standard deviation of the elites' means, rms), and for the
    simulator error, error_kl and error_random (mean squared one-step error of T̂_init, and of T̂ at
    the paper's ε and its control) with unseen: neither T̂ was fitted to this trajectory.
    """
    found = epsilon.cells(seed, profile)

    def produce(run: Run) -> None:
        for source in found.pools:
            for row in _rows(found, source):
                run.table("trajectories").append({"seed": seed, "source": source, **row})

    fitted = [p for key in found.cells if (p := found.cells[key]) and _compared(key)]
    parents: tuple[Product[Any], ...] = (found.initial, *found.pools.values(), *fitted)
    config = {"discarded": REVISION, "neighbours": NEIGHBOURS, "every": EVERY, "epsilon": EPSILON}
    return found.study.stage(
        "discarded", config, produce, lambda run: run.table("trajectories").frame(),
        (datasets, dynamics, pools), parents, "seconds",
    )  # fmt: skip


def run(profile: str) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: the tidy table, and the runs it comes from."""
    products = [measure(seed, profile) for seed in profiles.budget(profile).seeds]
    return pd.concat([p.value for p in products], ignore_index=True), [p.run for p in products]


def _compared(cell: tuple[str, float, Choice]) -> bool:
    source, ratio, choice = cell
    return source == "simulator" and ratio == 1 and choice.epsilon == EPSILON


def _rows(found: Cells, source: str) -> Iterator[dict[str, Any]]:
    pool, initial = found.pools[source].value, found.initial.value
    columns = {
        "excess": pool.excess, "length": pool.lengths.float(),
        **_character(found, pool, initial),
    }  # fmt: skip
    unseen = torch.zeros(len(pool.lengths), dtype=torch.bool)
    if source == "simulator":
        fitted = _fitted(found, pool)
        unseen, models = fitted.unseen, {"error": initial, **fitted.models}
        columns |= {name: _errors(pool, model) for name, model in models.items()}
    for r in (pool.lengths > 0).nonzero().flatten().tolist():
        values = {name: float(column[r]) for name, column in columns.items()}
        absent = {n: None for n in ("error", "error_kl", "error_random") if n not in values}
        yield {"trajectory": r, **values, **absent, "unseen": bool(unseen[r])}


def _character(found: Cells, pool: Pool, initial: DynamicsModel) -> dict[str, Tensor]:
    steps, study = pool.transitions, found.study
    begins = pool.lengths.cumsum(0) - pool.lengths
    within = torch.arange(len(steps)) - begins.repeat_interleave(pool.lengths)
    sampled = within % EVERY == 0
    counts = (pool.lengths + EVERY - 1) // EVERY
    learnt = study.dataset.states[study.held_out[0]]
    chosen = torch.linspace(0, len(learnt) - 1, min(NEIGHBOURS, len(learnt))).long()
    means, _ = initial.moments(steps.states, steps.actions)
    spread = means[..., :-1].var(0, correction=0).mean(-1)
    away = nearest_distance(steps.states[sampled], learnt[chosen], ROWS_AT_ONCE)
    forward = study.dataset.normaliser.inverse(steps.next_states)[:, FORWARD]
    return {
        "reward": mean_by_trajectory(steps.rewards, pool.lengths),
        "speed": mean_by_trajectory(forward, pool.lengths),
        "distance": mean_by_trajectory(away, counts),
        "disagreement": mean_by_trajectory(spread, pool.lengths).sqrt(),
    }


def _errors(pool: Pool, model: DynamicsModel) -> Tensor:
    steps = pool.transitions
    guess, _ = model.predict(steps.states, steps.actions)
    return mean_by_trajectory((guess - steps.next_states).square().mean(-1), pool.lengths)


def _fitted(found: Cells, pool: Pool) -> _Fitted:
    models, used = {}, torch.zeros(len(pool.transitions), dtype=torch.bool)
    for cell, product in found.cells.items():
        if _compared(cell):
            models[f"error_{cell[2].acceptance}"] = product.value
            used[pool.rows(cell[2], found.study.generator("random acceptance"))] = True
    return _Fitted(models, mean_by_trajectory(used.float(), pool.lengths) == 0)


# -- what the table says


def separation(kept: Sequence[float], refused: Sequence[float]) -> float:
    """P(a refused value is larger than a kept one), a tie counting half: ½ if they are alike."""
    check(len(kept) > 0 and len(refused) > 0, "values", "none", "at least one kept and one refused")
    above = stats.mannwhitneyu(refused, kept).statistic
    return float(above) / (len(kept) * len(refused))


def compare(table: pd.DataFrame, epsilons: Sequence[float]) -> pd.DataFrame:
    """Accepted against rejected: a row a source, seed, ε and quantity.

    Columns besides: accepted and rejected (means), separation (:func:`separation`), share (of the
    trajectories that is accepted). An ε that keeps or refuses all has no row.
    """
    rows = []
    for (source, seed), part in table.groupby(["source", "seed"], sort=False):
        for e in epsilons:
            below = part["excess"] < e
            if not 0 < below.sum() < len(part):
                continue
            for name in QUANTITIES:
                kept, refused = part.loc[below, name].dropna(), part.loc[~below, name].dropna()
                if len(kept) and len(refused):
                    means, apart = (kept.mean(), refused.mean()), separation(
                        kept.to_list(), refused.to_list()
                    )  # fmt: skip
                    rows.append((source, seed, e, name, *means, apart, below.mean()))
    columns = ["source", "seed", "epsilon", "quantity", "accepted", "rejected", "separation"]
    return pd.DataFrame(rows, columns=[*columns, "share"])


EXPECTED = {
    "distance": "further from D",
    "disagreement": "more disagreement",
    "error": "larger errors of T̂_init",
    "speed": "faster",
}
"""What was expected of refused trajectories: more of each, a separation above ½."""


def expected(compared: pd.DataFrame, epsilon: float = EPSILON) -> str:
    """:data:`EXPECTED` against the mean separations of :func:`compare` at ``epsilon``, in words."""
    part = compared[compared["epsilon"] == epsilon]
    if part.empty:
        return f"At ε = {epsilon:g} no pool is divided: nothing to compare."
    found = part.groupby(["quantity", "source"], sort=False)["separation"].mean()
    told: dict[bool, list[str]] = {True: [], False: []}
    for name, words in EXPECTED.items():
        if name in found:
            for source, value in found[name].items():
                told[bool(value > 0.5)].append(f"{words} ({source}, {value:.2f})")
    seen, against = (", ".join(told[met]) or "nothing" for met in (True, False))
    seeds = part["seed"].nunique()
    return (
        f"Expected of refused trajectories, with the mean separation at ε = {epsilon:g}. **Seen**, "
        f"above ½: {seen}. **Not seen**, ½ or below: {against}. {seeds} seeds, no verdict."
    )


def learnt(table: pd.DataFrame) -> pd.DataFrame:
    """log2(error of T̂_init / error of T̂) on simulator trajectories that neither T̂ was fitted to.

    Columns seed, trajectory, excess, error, filtered, random.
    """
    part = table[(table["source"] == "simulator") & table["unseen"].astype(bool)]
    gain = {name: np.log2(part["error"] / part[f"error_{key}"])
            for name, key in (("filtered", "kl"), ("random", "random"))}  # fmt: skip
    return part[["seed", "trajectory", "excess", "error"]].assign(**gain)


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of the filter's value with T̂_init's true error and with what T̂ learns.

    A row a seed: seed, error (all simulator trajectories), random and filtered (the improvement on
    unseen ones), unseen (how many).
    """
    rows = []
    new = learnt(table)
    for seed, part in table[table["source"] == "simulator"].groupby("seed"):
        rest = new[new["seed"] == seed]
        found = {name: _spearman(rest["excess"], rest[name]) for name in ("random", "filtered")}
        error = _spearman(part["excess"], part["error"])
        rows.append({"seed": seed, "error": error, **found, "unseen": len(rest)})
    return pd.DataFrame(rows)


def _spearman(one: pd.Series, other: pd.Series) -> float:
    known = one.nunique() > 1 and other.nunique() > 1
    return float(stats.spearmanr(one, other).statistic) if known else float("nan")
