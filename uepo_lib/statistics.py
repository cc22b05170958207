"""Intervals, aggregates over tasks, verdicts. With three seeds none goes past inconclusive.

Aggregates are those of Agarwal et al. 2021, *Deep Reinforcement Learning at the Edge of the
Statistical Precipice* (arXiv 2108.13264). ``scores`` are (seeds, tasks) throughout: one number a
trained agent, already averaged over its episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from uepo_lib.errors import check

Scores = NDArray[np.float64]

VERDICT_SEEDS = 5
"""With fewer, three against three for instance, no test can go below p = 0.1."""


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.0f} [{self.low:.0f}, {self.high:.0f}]"


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values (at least two)."""
    x = np.asarray(values, dtype=float).ravel()
    check(len(x) >= 2, "values", len(x), "at least two numbers")
    check(0 < confidence < 1, "confidence", confidence, "between 0 and 1")
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half)


def pooled_interval(groups: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean over seeds of mean returns (seeds, episodes): the seed is the unit, not the episode.

    Episodes of one seed share a policy, so treating them as independent would flatter the interval.
    """
    table = np.asarray(groups, dtype=float)
    check(table.ndim == 2, "groups", table.shape, "an array (seeds, episodes)")
    return mean_interval(table.mean(axis=1), confidence)


def verdict(gains: Sequence[float], margin: float = 0.0) -> str:
    """What gains, one a seed, say about the expectation that they are positive; with a ``margin``,
    that they are above −``margin``, so that nothing which matters is lost.

    Fewer than ``VERDICT_SEEDS`` say nothing final, whatever their sign.
    """
    above, count = sum(gain > -margin for gain in gains), len(gains)
    seen = f"{above} of {count} " + (f"above −{margin:g}" if margin else "positive")
    if count < VERDICT_SEEDS:
        return f"inconclusive ({seen}; a verdict needs {VERDICT_SEEDS} seeds)"
    interval = mean_interval(gains)
    seen += f", mean {interval.mean:.3f} in [{interval.low:.3f}, {interval.high:.3f}]"
    if interval.low > -margin:
        return f"supported ({seen})"
    return f"{'not supported' if interval.high < -margin else 'inconclusive'} ({seen})"


def shown(gains: Sequence[float], digits: int) -> str:
    """The mean of gains, one a seed, and its interval, which one seed does not have."""
    if len(gains) < 2:
        return f"{np.mean(gains):+.{digits}f}"
    found = mean_interval(gains)
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """A table of verdicts as it is shown: in place of ``gains``, one a seed, the interval of their
    mean, ``low`` and ``high``, and how many ``seeds`` there are. One seed has no interval."""
    told = table.drop(columns="gains")
    place = list(table).index("gains")
    found = [mean_interval(gains) if len(gains) > 1 else None for gains in table["gains"]]
    told.insert(place, "low", [one.low if one else math.nan for one in found])
    told.insert(place + 1, "high", [one.high if one else math.nan for one in found])
    told.insert(place + 2, "seeds", [len(gains) for gains in table["gains"]])
    return told


def weakest(labels: Sequence[str]) -> str:
    """One label for a claim that is made several times: all must support it; one against it and one
    for it make "partly"."""
    kinds = set(labels)
    if kinds == {"supported"} or kinds == {"not supported"}:
        return labels[0]
    return "partly" if kinds == {"supported", "not supported"} else "inconclusive"


def _scores(values: ArrayLike, name: str = "scores") -> Scores:
    table = np.asarray(values, dtype=float)
    check(table.ndim == 2 and table.size > 0, name, table.shape, "an array (seeds, tasks)")
    check(bool(np.isfinite(table).all()), name, "nan or inf", "finite numbers")
    return table


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all (seeds, tasks): less noisy than a median, no hostage of one
    outlier. Whole scores are cut at both ends, so with fewer than four it is the mean."""
    ordered = np.sort(_scores(scores), axis=None)  # scipy's trim_mean is ten times slower here
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def stratified_bootstrap(
    *scores: ArrayLike,
    statistic: Callable[..., float] = interquartile_mean,
    generator: np.random.Generator,
    repeats: int = 2_000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of ``statistic`` of one or several tables (seeds, tasks).

    Each repeat draws seeds anew within every task, and within every table by itself: tasks are the
    strata, as they were chosen and not sampled. The interval's centre is the statistic as found.
    Of three or five seeds it is too narrow, since it draws the same few again and again: what is
    decided needs :func:`mean_interval` over seeds beside it.
    """
    tables = [_scores(table) for table in scores]
    check(len(tables) > 0, "scores", "nothing", "at least one array (seeds, tasks)")
    check(repeats > 0, "repeats", repeats, "a positive integer")
    check(0 < confidence < 1, "confidence", confidence, "between 0 and 1")
    draws = []
    for _ in range(repeats):
        resampled = []
        for table in tables:
            rows = generator.integers(len(table), size=table.shape)
            resampled.append(np.take_along_axis(table, rows, axis=0))
        draws.append(statistic(*resampled))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(statistic(*tables), float(low), float(high))


def mean_band(curves: ArrayLike, repeats: int = 2_000, confidence: float = 0.95) -> Scores:
    """Percentile bootstrap interval of the mean of (seeds, points) at each point: (2, points), the
    lower and the upper end. Whole curves are drawn, always the same draws; with three seeds 95 %
    reach from the lowest to the highest."""
    table = _scores(curves, "curves")
    draws = np.random.default_rng(0).integers(len(table), size=(repeats, len(table)))
    tail = 50 * (1 - confidence)
    band: Scores = np.percentile(table[draws].mean(1), [tail, 100 - tail], axis=0)
    return band


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """P(a run of ours beats a run of theirs on the same task), a tie counting half, averaged over
    tasks: (seeds, tasks) each, not necessarily equally many seeds."""
    x, y = _scores(ours, "ours"), _scores(theirs, "theirs")
    same = x.shape[1] == y.shape[1]
    check(same, "theirs", y.shape, f"(seeds, tasks) with the {x.shape[1]} tasks of ours")
    difference = x[:, None, :] - y[None, :, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Scores:
    """Share of all runs that score above each of ``thresholds`` (M,): (M,), falling."""
    levels = np.asarray(thresholds, dtype=float)
    above: Scores = (_scores(scores).ravel()[None, :] > levels[:, None]).mean(axis=1)
    return above


def verdict_on_gain(gain: Interval, num_seeds: int, claimed: float = 0.0) -> str:
    """The label of a claim that a gain is positive, and at least ``claimed``.

    "supported": its interval is above 0 and reaches the claim; "partly": above 0 and wholly below
    the claim; "not supported": wholly below the claim and not above 0, or below 0; "inconclusive":
    neither, or fewer than ``VERDICT_SEEDS`` seeds.
    """
    if num_seeds < VERDICT_SEEDS:
        return "inconclusive"
    if gain.low > 0:
        return "supported" if gain.high >= claimed else "partly"
    return "not supported" if gain.high < max(claimed, 0.0) else "inconclusive"
