"""Intervals. At three seeds every seed is shown, and no verdict goes past inconclusive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from uepo_lib.errors import check

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


def verdict(gains: Sequence[float]) -> str:
    """What gains, one a seed, say about the expectation that they are positive.

    Fewer than ``VERDICT_SEEDS`` say nothing final, whatever their sign.
    """
    positive, count = sum(gain > 0 for gain in gains), len(gains)
    seen = f"{positive} of {count} positive"
    if count < VERDICT_SEEDS:
        return f"inconclusive ({seen}; a verdict needs {VERDICT_SEEDS} seeds)"
    interval = mean_interval(gains)
    seen += f", mean {interval.mean:.3f} in [{interval.low:.3f}, {interval.high:.3f}]"
    if interval.low > 0:
        return f"supported ({seen})"
    return f"{'not supported' if interval.high < 0 else 'inconclusive'} ({seen})"
