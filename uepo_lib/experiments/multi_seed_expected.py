"""Were E1's expectations met? A line each, from its tables; see ``multi_seed``.

What was written is wider than a number. Here "beyond chance" is beyond fresh noise, "most" is more
than a half, and two distances that grow are compared by their factors, as their units differ.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from uepo_lib.expectations import line
from uepo_lib.experiments.multi_seed_verdict import SEEDS
from uepo_lib.experiments.seed_sets import FRESH, GUIDED, ONE_MODE, ONE_NOISE, ZERO, fixed


def expected(returns: pd.DataFrame, distances: pd.DataFrame, members: pd.DataFrame) -> list[str]:
    """All of them, in the order in which they were written."""
    return [*of_returns(returns, members), *of_routes(returns), *of_distances(distances)]


def of_returns(returns: pd.DataFrame, members: pd.DataFrame) -> list[str]:
    """Seeds against fresh noise and κ = 0 where D has one mode; the smallest κ against κ = 1."""
    between = _wide(returns, "between")
    names = [str(name) for name in between]
    smallest = fixed(min(float(name[4:]) for name in names if name.startswith("κ = ")))
    return [
        line("Where D has one mode, seeds differ in return beyond chance (sd of true means, in "
             "points, more than of equal policies)", _one_mode(_less(between, SEEDS, FRESH))),
        line("There most seeds are worse than zero noise (share of them)",
             _one_mode(worse_than_zero(members)), above=0.5, shown="{:.0%}"),
        line(f"Smaller κ draws seeds together (that sd, in points, less at {smallest} than at "
             f"{SEEDS})", _less(between, SEEDS, smallest)),
    ]  # fmt: skip


def of_routes(returns: pd.DataFrame) -> list[str]:
    """In the maze, at the largest n."""
    kept, reached = _wide(returns, "persistence"), _wide(returns, "coverage")
    return [
        line("A seed keeps to a route more often than chance (share of pairs of arrivals, more "
             "than of fresh noise)", _less(kept, SEEDS, FRESH)),
        line("n seeds reach no more routes than n draws (routes fewer)",
             _less(reached, FRESH, SEEDS), ties=True),
        line("n models with one noise reach fewer (routes fewer than n seeds)",
             _less(reached, SEEDS, ONE_NOISE)),
    ]  # fmt: skip


def of_distances(distances: pd.DataFrame) -> list[str]:
    """Plans against what is done; div against plain distance; div against its floor."""
    table = distances.set_index(["task", "seed"])
    ours = table[table["set"] == SEEDS]
    plans, done = (_wide(distances, column).map(np.log2) for column in ("plan_rms", "executed_rms"))
    factors = _less(plans, GUIDED, SEEDS) - _less(done, GUIDED, SEEDS)
    known = ours[ours["floor"] > 0]
    return [
        line("Guidance moves plans apart more than what is done (log₂ of the factor of the one "
             "distance over that of the other)", factors),
        line("div ranks pairs no better than the plain distance of plans (ρ less)",
             ours["rho_rms"] - ours["rho"], ties=True),
        line("On noisy data most of div is the floor (κ = 1: div to the nearest of n repeats, over "
             "that to the nearest of n plans)",
             known["floor"] / known["div"], above=0.5, shown="{:.0%}"),
    ]  # fmt: skip


def worse_than_zero(members: pd.DataFrame) -> pd.Series:
    """Share of the members at κ = 1 whose score is below that of κ = 0, by task and seed."""
    by = ["task", "seed"]
    zero = members[members["set"] == ZERO].groupby(by, sort=False)["score"].mean()
    ours = members[members["set"] == SEEDS].set_index(by)["score"]
    below = ours < zero.reindex(ours.index)
    return below.groupby(by, sort=False).mean()


def _wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A row a task and seed, a column a set; of returns the largest n."""
    if column not in table:  # no task with routes
        return pd.DataFrame()
    largest = table[table["n"] == table["n"].max()] if "n" in table else table
    return largest.pivot(index=["task", "seed"], columns="set", values=column)


def _less(wide: pd.DataFrame, ours: str, theirs: str) -> pd.Series:
    """``ours`` − ``theirs``; nothing without one of them."""
    if ours not in wide or theirs not in wide:
        return pd.Series(dtype=float)
    return (wide[ours] - wide[theirs]).dropna()


def _one_mode(values: pd.Series) -> pd.Series:
    return values[[task in ONE_MODE for task, _ in values.index]]
