"""What a curve of returns over online environment steps says in one number (E3).

A curve is given by ``steps`` (M,) that rise from 0 and ``scores`` (M,), normalised returns at
them; between two looks it is taken to be a straight line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uepo_lib.errors import check

Array = NDArray[np.float64]


class StepsTo(NamedTuple):
    """When a curve first reached a level; ``censored``: it never did, and ``steps`` is its end."""

    steps: float
    censored: bool


class Dip(NamedTuple):
    """What the switch from the noise-free offline policy to learning online costs at first.

    In points of the score, both positive when they cost. ``exploring``: noise-free start less the
    same policy with its exploration noise. ``updates``: start less the worst later look of the
    noise-free policy, 0 if it never fell below.
    """

    exploring: float
    updates: float


def area_under_curve(steps: ArrayLike, scores: ArrayLike) -> float:
    """Mean score over the online phase: the curve's integral over its length."""
    x, y = _curve(steps, scores)
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def regret(steps: ArrayLike, scores: ArrayLike, reference: float = 100.0) -> float:
    """Cumulative regret, in points × steps: the integral of what is missing to ``reference``.

    Scores above the reference count as no regret, and do not pay for earlier ones.
    """
    x, y = _curve(steps, scores)
    missing = reference - y
    total = 0.0
    for i in range(len(x) - 1):
        total += _positive_area(x[i + 1] - x[i], missing[i], missing[i + 1])
    return total


def _positive_area(width: float, left: float, right: float) -> float:
    """Area above 0 under the line from ``left`` to ``right``."""
    if left <= 0 and right <= 0:
        return 0.0
    if left >= 0 and right >= 0:
        return 0.5 * width * (left + right)
    high, low = max(left, right), min(left, right)
    return 0.5 * width * high * high / (high - low)


def steps_to(steps: ArrayLike, scores: ArrayLike, level: float) -> StepsTo:
    """The first step at which the curve is at ``level`` or above; it never is where that is NaN."""
    x, y = _curve(steps, scores)
    reached = np.flatnonzero(y >= level)
    if len(reached) == 0:
        return StepsTo(float(x[-1]), True)
    i = int(reached[0])
    if i == 0:
        return StepsTo(float(x[0]), False)
    share = (level - y[i - 1]) / (y[i] - y[i - 1])
    return StepsTo(float(x[i - 1] + share * (x[i] - x[i - 1])), False)


def dip(scores: ArrayLike, exploring: float) -> Dip:
    """The parts of the dip of a curve whose first score is that of the offline policy; its score
    ``exploring`` is of the same episodes."""
    y = np.asarray(scores, dtype=float)
    check(y.ndim == 1 and len(y) > 0, "scores", y.shape, "a curve with at least one look")
    return Dip(float(y[0]) - exploring, float(y[0] - y.min()))


def _curve(steps: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(steps, dtype=float), np.asarray(scores, dtype=float)
    check(x.ndim == 1 and len(x) >= 2, "steps", x.shape, "at least two looks")
    check(y.shape == x.shape, "scores", y.shape, f"one score a look, {x.shape}")
    check(bool((np.diff(x) > 0).all()), "steps", x.tolist(), "rising")
    check(bool(np.isfinite(y).all()), "scores", y.tolist(), "finite")
    return x, y
