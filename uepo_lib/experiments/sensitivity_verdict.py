"""Four claims about E2, each a pure function of a table. Thresholds stood before the tables,
FILLED excepted.

An effect on the error is a difference of log2 errors, paired by seed, and one of selection is in
points of normalised score. Each function returns a row a comparison: what is compared, ``mean``,
``low`` and ``high`` (95 %, Student's t over seeds), ``seeds``, ``verdict``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from uepo_lib.errors import check
from uepo_lib.experiments.epsilon_verdict import CONFIDENCE, MARGIN
from uepo_lib.experiments.ratios import EPSILON
from uepo_lib.statistics import VERDICT_SEEDS, mean_interval

POINTS = 2.0
"""Of normalised score: less than this is no difference between two choices of a policy."""
LARGE = (2.0, 3.0)
"""The paper's |D_diff| / |D|."""

FILLED = 0.9
"""Of the wanted volume: with less a cell does not have the ratio that it is named by. Added when
one seed's ratios had been seen to be far from filled."""

_TEST = ["data", "step"]


def label(values: Sequence[float], margin: float, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """A claim that effects, one a seed, are positive and matter.

    "supported": the interval is above 0 and the mean beyond ``margin``; "not supported": the whole
    interval is below ``margin``; else, and with fewer than ``VERDICT_SEEDS`` seeds, "inconclusive".
    Without any seed it is "not reached"; one has a mean and no interval.
    """
    mean, verdict = float(np.mean(values)) if len(values) else math.nan, "inconclusive"
    if len(values) < 2:
        said = verdict if len(values) else "not reached"
        return {"mean": mean, "low": math.nan, "high": math.nan, "seeds": len(values),
                "verdict": said}  # fmt: skip
    found = mean_interval(values, confidence)
    if len(values) >= VERDICT_SEEDS:
        if found.low > 0 and found.mean > margin:
            verdict = "supported"
        elif found.high < margin:
            verdict = "not supported"
    return {"mean": mean, "low": found.low, "high": found.high, "seeds": len(values),
            "verdict": verdict}  # fmt: skip


def sweet_spot(gained: pd.DataFrame) -> pd.DataFrame:
    """Is there an ε between the tightest and none that beats both?

    "supported": one does, by both comparisons; "not supported": none of them can, since one of its
    two intervals lies below the margin. Intervals hold together over all comparisons of a test.
    The numbers are those of the ε whose weaker comparison is best, at ``at``. Columns source,
    data, step, at besides. Only filters that every seed has count, so that all comparisons have the
    same seeds; "not reached" with fewer than three.
    """
    kl = gained[gained["acceptance"] == "kl"]
    rows = []
    for names, part in kl.groupby(["source", *_TEST], sort=False):
        wide = part.assign(epsilon=part["epsilon"].fillna(math.inf))
        wide = wide.pivot_table(index="seed", columns="epsilon", values="gain").dropna(axis=1)
        named = dict(zip(("source", *_TEST), names, strict=True))
        if wide.shape[1] < 3:
            rows.append({**named, "at": math.nan, **label([], MARGIN)})
            continue
        inner, ends = list(wide.columns[1:-1]), [wide.columns[0], wide.columns[-1]]
        sure = 1 - (1 - CONFIDENCE) / (2 * len(inner))
        pairs = {e: [label((wide[e] - wide[end]).tolist(), MARGIN, sure) for end in ends]
                 for e in inner}  # fmt: skip
        weaker = {e: min(both, key=lambda x: x["mean"]) for e, both in pairs.items()}
        at = max(weaker, key=lambda e: weaker[e]["mean"])
        each = [_both([one["verdict"] for one in both]) for both in pairs.values()]
        rows.append({**named, "at": at, **weaker[at], "verdict": _any(each)})
    return pd.DataFrame(rows)


def _both(verdicts: list[str]) -> str:
    if all(v == "supported" for v in verdicts):
        return "supported"
    return "not supported" if "not supported" in verdicts else "inconclusive"


def _any(verdicts: list[str]) -> str:
    if "supported" in verdicts:
        return "supported"
    return "not supported" if set(verdicts) == {"not supported"} else "inconclusive"


def reached(gained: pd.DataFrame) -> pd.DataFrame:
    """The cells whose D_diff is (nearly) as large as was wanted: the others' ratio is a name."""
    return gained[gained["volume"] >= FILLED * gained["wanted"]]


def left_out(gained: pd.DataFrame) -> str:
    """What :func:`reached` leaves out, in words: "model, ratio 1, ε = 0.01 (2 of 3 seeds)"."""
    keys, seeds = ["source", "ratio", "epsilon"], gained["seed"].nunique()
    short = gained[gained["volume"] < FILLED * gained["wanted"]]
    by_cell = short.groupby(keys, sort=False, dropna=False)["seed"].nunique().reset_index()
    told = [
        f"{source}, ratio {ratio:g}, {_filter(epsilon)} ({count} of {seeds} seeds)"
        for source, ratio, epsilon, count in by_cell.itertuples(index=False, name=None)
    ]
    return "; ".join(told) or "none"


def _filter(epsilon: float) -> str:
    return "no filter" if pd.isna(epsilon) else f"ε = {epsilon:g}"


def large_ratio(gained: pd.DataFrame) -> pd.DataFrame:
    """Do ratios of 2 to 3 help? Their mean gain against none, T̂_init's, and against ratios ≤ 1.

    Columns source, filter ("ε" or "none"), ratios (those reached, each with its number of seeds),
    data, step, against besides. Where the filter lets too little pass for such a ratio the verdict
    is "not reached", as the cell is not in ``gained``.
    """
    kl = gained[gained["acceptance"] == "kl"]
    kl = kl.assign(filter=np.where(kl["epsilon"].isna(), "none", "ε"))
    rows, keys = [], ["source", "filter", *_TEST]
    for names, part in kl.groupby(keys, sort=False):
        large, small = part[part["ratio"].between(*LARGE)], part[part["ratio"] <= 1]
        above, below = (one.groupby("seed")["gain"].mean() for one in (large, small))
        named = {**dict(zip(keys, names, strict=True)), "ratios": _with_seeds(large)}
        for against, effect in (("T̂_init", above), ("ratios up to 1", (above - below).dropna())):
            rows.append({**named, "against": against, **label(effect.tolist(), MARGIN)})
    return pd.DataFrame(rows)


def _with_seeds(cells: pd.DataFrame) -> str:
    """The ratios of ``cells`` in words: "2 (3 seeds), 3 (1 seed)"."""
    seeds = cells.groupby("ratio")["seed"].nunique()
    told = [f"{ratio:g} ({n} seed{'s' if n > 1 else ''})" for ratio, n in seeds.items()]
    return ", ".join(told) or "none"


def large_told(large: pd.DataFrame) -> str:
    """Mean gain over T̂_init at the large ratios, over all tests, by source and filter, in words,
    with the ratios and seeds that it is a mean of: from :func:`large_ratio`."""
    means = large[large["against"] == "T̂_init"]
    names = {"ε": f"ε = {EPSILON:g}", "none": "no filter"}
    lines = []
    for (source, kind), part in means.groupby(["source", "filter"], sort=False):
        gain, ratios = part["mean"].mean(), ", ".join(part["ratios"].unique())
        told = "not reached" if pd.isna(gain) else f"{gain:+.2f}, from ratio {ratios}"
        lines.append(f"{source}, {names[str(kind)]}: {told}")
    return "; ".join(lines)


def large_over_small(cells: pd.DataFrame) -> pd.Series:
    """The mean gain at ratios of 2 to 3 less that at ratios up to 1, by seed and filter.

    Within a filter, where a seed has both: a filter that fills no large ratio has its own cost in
    the small ones alone. ``cells`` are of one source and test, none drawn at random.
    """
    kinds = cells.assign(filter=cells["epsilon"].map(_filter))
    sides = kinds[kinds["ratio"].between(*LARGE)], kinds[kinds["ratio"] <= 1]
    large, small = (side.groupby(["seed", "filter"])["gain"].mean() for side in sides)
    return (large - small).dropna()


def filter_over_chance(gained: pd.DataFrame) -> pd.DataFrame:
    """Is the filter better than trajectories drawn at random, at equal volume?

    Columns source, ratio, epsilon, data, step besides.
    """
    keys = ["source", "ratio", "epsilon", *_TEST]
    wide = gained.pivot_table(
        index=[*keys, "seed"], columns="acceptance", values="gain", sort=False
    )
    effects = (wide["kl"] - wide["random"]).dropna().rename("effect").reset_index()
    rows = [
        {**dict(zip(keys, names, strict=True)), **label(part["effect"].tolist(), MARGIN)}
        for names, part in effects.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows)


def selects_better(regrets: pd.DataFrame) -> pd.DataFrame:
    """Does AM-Q lose less in T̂ than in T̂_init? Regret of the latter minus that of the former.

    Columns source, epsilon, acceptance besides; ``regrets`` as ``model_selection.regrets`` returns.
    """
    initial = regrets[regrets["source"] == "none"].set_index("seed")["regret"]
    rows = []
    augmented = regrets[regrets["source"] != "none"]
    keys = ["source", "epsilon", "acceptance"]
    for names, part in augmented.groupby(keys, sort=False, dropna=False):
        saved = initial - part.set_index("seed")["regret"]
        check(bool(saved.notna().all()), "regrets", "seeds differ", "T̂_init for every seed")
        rows.append({**dict(zip(keys, names, strict=True)), **label(saved.tolist(), POINTS)})
    return pd.DataFrame(rows)


def counted(verdicts: pd.DataFrame) -> str:
    """How often each label was given, in words: "inconclusive (8 of 8)"."""
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"{name} ({n} of {len(verdicts)})" for name, n in counts.items())


def advice(gained: pd.DataFrame) -> pd.DataFrame:
    """The cell of one sweep with the largest gain over T̂_init, its mean over tests, by source.

    Columns source, ratio, epsilon (NaN: no filter), acceptance, worst (the smallest mean gain of a
    test), gain, low, seeds, verdict, cells: the practical answer. It is the best of ``cells``, so
    its interval is one that holds together over all of them; a cell that some seed lacks is none.
    Raises ``UsageError`` for two sweeps: their cells gain over different T̂_init.
    """
    keys = ["source", "ratio", "epsilon", "acceptance"]
    twice = bool(gained.duplicated([*keys, *_TEST, "seed"]).any())
    check(not twice, "gained", "some cells twice", "the cells of one sweep")
    seeds = gained.groupby(keys, dropna=False)["seed"].transform("nunique")
    gained = gained[seeds == gained["seed"].nunique()]
    cells = gained.drop_duplicates(keys)["source"].value_counts().to_dict()
    rows = []
    for names, part in gained.groupby(keys, dropna=False, sort=False):
        by_seed = part.groupby("seed")["gain"].mean()
        worst = part.groupby(_TEST)["gain"].mean().min()
        count = cells[names[0]]
        found = label(by_seed.tolist(), MARGIN, 1 - (1 - CONFIDENCE) / count)
        rows.append({**dict(zip(keys, names, strict=True)), "worst": worst, "gain": found["mean"],
                     "low": found["low"], "seeds": found["seeds"], "verdict": found["verdict"],
                     "cells": count})  # fmt: skip
    best = pd.DataFrame(rows)
    return best.loc[best.groupby("source", sort=False)["gain"].idxmax()].reset_index(drop=True)


def advised(advice: pd.DataFrame) -> str:
    """:func:`advice` in words, a line a source."""
    rows: Any = advice.itertuples()
    lines = []
    for row in rows:
        kept = _filter(row.epsilon)
        how = "drawn at random at the volume of " if row.acceptance == "random" else ""
        above = "above" if row.low > 0 else "not above"
        lines.append(
            f"- *{row.source} transitions:* the best of {row.cells} cells is ratio {row.ratio:g}, "
            f"{how}{kept}: T̂'s error is {2**-row.gain:.2f} times T̂_init's on average, "
            f"{2**-row.worst:.2f} in its worst test (interval over all cells {above} 0, "
            f"{row.seeds} seeds: {row.verdict})."
        )
    return "\n".join(lines)
