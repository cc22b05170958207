"""What the table of E2 says. Pure functions of the table, thresholds fixed before it was computed.

An effect is a difference of log2 errors, paired by seed: 1 is half the squared error.
"""

from __future__ import annotations

import math

import pandas as pd

from uepo_lib import statistics
from uepo_lib.errors import check
from uepo_lib.statistics import VERDICT_SEEDS, mean_interval

MARGIN = math.log2(1.1)
"""A tenth of the squared error. Less than this is no effect."""
CONFIDENCE = 0.95
"""Of all intervals of one verdict together (Bonferroni)."""

_CELL = ["source", "ratio", "epsilon", "acceptance"]
_TEST = ["data", "step"]


def gains(table: pd.DataFrame, steps: tuple[int, ...] | None = None) -> pd.DataFrame:
    """The table's filtered cells with ``gain`` = log2(error of T̂_init / error), by seed and test.

    ``steps`` are the numbers of steps ahead to keep; by default 1 and the largest.
    """
    steps = steps or (1, int(table["step"].max()))
    kept = table[table["step"].isin(steps)]
    initial = kept[kept["source"] == "none"].set_index(["seed", *_TEST])["error"]
    cells = kept[kept["source"] != "none"].copy()
    base = initial.reindex(pd.MultiIndex.from_frame(cells[["seed", *_TEST]]))
    check(bool(base.notna().all()), "table", "without T̂_init", "T̂_init for every seed and test")
    cells["gain"] = [
        math.log2(first / error)
        for first, error in zip(base.to_numpy(), cells["error"].to_numpy(), strict=True)
    ]
    return cells


def dependence(gained: pd.DataFrame) -> pd.DataFrame:
    """Does the error depend on ε? A verdict for each source, ratio and test of :func:`gains`.

    For each ε the gain over "no filter" is averaged over seeds; intervals hold together at
    :data:`CONFIDENCE`. "supported": one excludes 0 and its mean is beyond :data:`MARGIN`; "not
    supported": all lie within the margin; else, or with fewer than ``VERDICT_SEEDS`` seeds,
    "inconclusive". Columns besides: largest (the mean effect furthest from 0), at (its ε), low,
    high, seeds.
    """
    kl = gained[gained["acceptance"] == "kl"]
    rows = []
    for names, part in kl.groupby(["source", "ratio", *_TEST], sort=False):
        wide = part.assign(epsilon=part["epsilon"].fillna(math.inf))
        wide = wide.pivot(index="seed", columns="epsilon", values="gain")
        check(math.inf in wide and wide.shape[1] > 1, "epsilon", list(wide), "some, and none")
        effects = wide.drop(columns=math.inf).sub(wide[math.inf], axis=0)
        level = 1 - (1 - CONFIDENCE) / effects.shape[1]
        found = {e: mean_interval(effects[e].to_numpy(), level) for e in effects}
        at = max(found, key=lambda e: abs(found[e].mean))
        verdict = _verdict(list(found.values()), len(effects))
        row = (*names, verdict, found[at].mean, at, found[at].low, found[at].high, len(effects))
        rows.append(row)
    columns = ["source", "ratio", *_TEST, "verdict", "largest", "at", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _verdict(found: list[statistics.Interval], seeds: int) -> str:
    if seeds < VERDICT_SEEDS:
        return "inconclusive"
    if all(i.low > -MARGIN and i.high < MARGIN for i in found):
        return "not supported"
    moved = any((i.low > 0 or i.high < 0) and abs(i.mean) > MARGIN for i in found)
    return "supported" if moved else "inconclusive"


def against_random(gained: pd.DataFrame) -> pd.DataFrame:
    """Is the filter better than chance? The gain of "kl" over "random" at equal volume.

    Columns: source, ratio, epsilon, data, step, the effect of each seed, verdict.
    """
    wide = gained.pivot_table(
        index=["source", "ratio", "epsilon", *_TEST, "seed"], columns="acceptance", values="gain",
        sort=False,
    )  # fmt: skip
    effects = (wide["kl"] - wide["random"]).dropna().unstack("seed")
    effects["verdict"] = [statistics.verdict(row.tolist()) for _, row in effects.iterrows()]
    return effects.reset_index()


def against_initial(gained: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    """Does D_diff help at ``epsilon``? Columns as :func:`against_random`, over T̂_init."""
    kept = gained[(gained["acceptance"] == "kl") & (gained["epsilon"] == epsilon)]
    check(len(kept) > 0, "epsilon", epsilon, "one of the table's")
    effects = kept.set_index(["source", "ratio", "epsilon", *_TEST, "seed"])["gain"].unstack("seed")
    effects["verdict"] = [statistics.verdict(row.tolist()) for _, row in effects.iterrows()]
    return effects.reset_index()
