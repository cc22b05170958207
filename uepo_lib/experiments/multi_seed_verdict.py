"""What the tables of E1 say. Pure functions, each claim's sign fixed before any was computed.

A claim is a difference, one number a seed, that the paper's idea makes positive. Two sets are
compared on the same seeds, and in return over equally many episodes from the same resets. Five
things came after a table had been seen: equal episodes where guided sets play fewer, the claim
against n models without noise, the stronger rival in routes, the margin of what guidance may cost,
and that a route is kept or not among episodes that arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from uepo_lib import statistics
from uepo_lib.errors import check
from uepo_lib.experiments.seed_sets import (
    FRESH,
    GUIDED,
    NETWORKS,
    ONE_NOISE,
    UNGATED,
    ZERO,
    fixed,
)
from uepo_lib.experiments.sensitivity_verdict import POINTS

SEEDS = fixed(1.0)
"""The paper's set: n fixed noises at κ = 1."""


@dataclass(frozen=True)
class Claim:
    """``text``, and the difference of ``column`` that it says is positive: ``ours`` − ``theirs``.

    ``theirs`` None compares with 0. ``table`` is "returns", at the largest n, or "distances".
    """

    text: str
    table: str
    column: str
    ours: str
    theirs: str | None
    only: str | None = None
    """A task, where it can be said of one alone."""
    margin: float = 0.0
    """How much may be lost where the claim is that nothing is."""


CLAIMS = (
    Claim("seeds differ in return beyond chance", "returns", "between", SEEDS, FRESH),
    Claim("the best seed, chosen by other episodes, beats the best of n equal policies",
          "returns", "other_half", SEEDS, FRESH),
    Claim("the best seed, so chosen, beats zero noise", "returns", "other_half", SEEDS, ZERO),
    Claim("n seeds reach more routes than n draws", "returns", "coverage", SEEDS, FRESH,
          "maze-routes"),
    Claim("a seed that arrives keeps to its route more than draws do", "returns", "persistence",
          SEEDS, FRESH, "maze-routes"),
    Claim("n seeds of one model reach more routes than n models with one noise", "returns",
          "coverage", SEEDS, ONE_NOISE, "maze-routes"),
    Claim("n seeds of one model reach more routes than n models without noise", "returns",
          "coverage", SEEDS, NETWORKS, "maze-routes"),
    Claim("div of plans ranks what is done", "distances", "rho", SEEDS, None),
    Claim("div ranks it better than plain distance of plans", "distances", "rho-rho_rms", SEEDS,
          None),
    Claim("guidance moves what is done further apart", "distances", "executed_rms", GUIDED,
          SEEDS),
    Claim("guidance moves it further apart than noise of equal power", "distances",
          "executed_rms", GUIDED, UNGATED),
    Claim(f"guidance costs no return, to {POINTS:g} points", "returns", "equal_mean", GUIDED, SEEDS,
          margin=POINTS),
)  # fmt: skip
"""E2's ``POINTS`` are the margin of the last: less than that is no difference between policies."""


OTHER_KAPPA = "the best seed at another κ, so chosen, beats zero noise"
"""The third of :data:`CLAIMS` where κ is not the paper's: told beside it, and no claim of its."""


def at_other_kappas(
    returns: pd.DataFrame, distances: pd.DataFrame, kappas: Sequence[float]
) -> pd.DataFrame:
    """Rows of :func:`claims` for :data:`OTHER_KAPPA`, with κ beside the task."""
    rows = []
    for kappa in kappas:
        asked = Claim(OTHER_KAPPA, "returns", "other_half", fixed(kappa), ZERO)
        found = claims(returns, distances, [asked])
        rows.append(found.assign(task=found["task"] + f", {fixed(kappa)}"))
    return pd.concat(rows, ignore_index=True)


def claims(
    returns: pd.DataFrame, distances: pd.DataFrame, asked: Sequence[Claim] = CLAIMS
) -> pd.DataFrame:
    """Every claim of ``asked`` on every task that has its sets: columns claim, task, gain (mean
    over seeds), gains (one a seed), verdict (:func:`statistics.verdict`). One against n models has
    one seed at every profile, and so decides nothing."""
    largest = returns[(returns["n"] == returns["n"].max()) | (returns["set"] == ZERO)].copy()
    zero = largest["set"] == ZERO  # one policy: its best is itself
    largest.loc[zero, "other_half"] = largest.loc[zero, "mean"]
    tables = {
        "returns": largest,
        "distances": distances.assign(**{"rho-rho_rms": distances["rho"] - distances["rho_rms"]}),
    }
    rows = []
    for claim in asked:
        table = tables[claim.table]
        for task, part in table.groupby("task", sort=False):
            if claim.only not in (None, task):
                continue
            gains = _gains(part, claim)
            if len(gains):
                label = statistics.verdict(gains.tolist(), claim.margin)
                rows.append((claim.text, task, float(gains.mean()), gains.tolist(), label))
    check(len(rows) > 0, "returns", "no set of any claim", f"sets such as {SEEDS} and {FRESH}")
    return pd.DataFrame(rows, columns=["claim", "task", "gain", "gains", "verdict"])


def _gains(part: pd.DataFrame, claim: Claim) -> pd.Series:
    wide = part.pivot(index="seed", columns="set", values=claim.column)
    if claim.ours not in wide or (claim.theirs is not None and claim.theirs not in wide):
        return pd.Series(dtype=float)
    base = 0.0 if claim.theirs is None else wide[claim.theirs]
    return (wide[claim.ours] - base).dropna()
