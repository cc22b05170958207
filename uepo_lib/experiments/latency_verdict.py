"""What E4's tables say of control in real time: pure functions, nothing is timed or played here.

Thresholds were written down after a first run of the experiment had been seen. They hold nothing
that was fitted to it: a period is the rate's, ``POINTS`` is E2's, and what "linear" and "far less"
mean is a round number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from uepo_lib.expectations import OPEN, seen
from uepo_lib.experiments.latency import BACKBONES, RATES, injected, reached
from uepo_lib.experiments.sensitivity_verdict import POINTS
from uepo_lib.statistics import VERDICT_SEEDS, mean_interval

LINEAR = 0.2
"""A power of the number of steps within this of 1 is linear growth."""
FAR_LESS = 0.5
"""A power of n up to this is far less than linear."""
SUGGESTED = 0.1
"""Of the score: what one control step of delay, some milliseconds, seems to be worth."""
LATE = "to be that late costs no return"
OVERALL = "fast enough for this robot"
Rule = Callable[[float], bool]


def verdict(times: pd.DataFrame, delays: pd.DataFrame, period: float, steps: int) -> pd.DataFrame:
    """Open question 1, of the default network with ``steps`` steps and n = 1.

    A rate, and the robot's own: "supported" if the 99th percentile fits into its period, "not
    supported" if not even the median does, else "inconclusive". These are of one machine; the unit
    is the decision. To be late (by the measured time in control steps, rounded up): "supported" if
    the whole interval of the loss lies below ``POINTS``, "not supported" if it lies above, else,
    and with fewer than ``VERDICT_SEEDS`` seeds, "inconclusive". The last row needs both of them.
    Columns claim, measured, seeds (0: not of seeds), verdict.
    """
    ours = _ours(times, steps)
    own = f"its own rate, {1 / period:.0f} Hz"
    periods = {f"{rate} Hz": 1_000 / rate for rate in RATES} | {own: 1_000 * period}
    told = f"median {ours['median']:.2f} ms, 99th percentile {ours['p99']:.2f} ms"
    rows = [
        (f"a decision fits into {length:g} ms ({name})", told, 0, _fits(ours, length))
        for name, length in periods.items()
    ]
    late = int(injected(times, period, steps).set_index("backbone")["delay"][BACKBONES[0]])
    rows.append(_late(delays, late))
    rows.append((OVERALL, f"{own}; {LATE}", rows[-1][2], _both(rows[-2][3], rows[-1][3])))
    return pd.DataFrame(rows, columns=["claim", "measured", "seeds", "verdict"])


def _ours(times: pd.DataFrame, steps: int) -> pd.Series:
    one = times[(times["backbone"] == BACKBONES[0]) & (times["n"] == 1)]
    return one[one["steps"] == steps].iloc[0]


def _fits(ours: pd.Series, length: float) -> str:
    if ours["p99"] <= length:
        return "supported"
    return "not supported" if ours["median"] > length else "inconclusive"


def _lost(delays: pd.DataFrame, late: int) -> pd.Series:
    """Points that the diffusion policy loses by ``late`` control steps, by seed."""
    wide = delays[delays["policy"] == "stale"].pivot(index="seed", columns="delay", values="score")
    return wide[0] - wide[late] if {0, late} <= set(wide) else pd.Series(dtype=float)


def _late(delays: pd.DataFrame, late: int) -> tuple[str, str, int, str]:
    lost = _lost(delays, late)
    if len(lost) < 2:
        told = f"{lost.iloc[0]:+.1f} points lost" if len(lost) else f"{late} steps were not played"
        return LATE, told, len(lost), "inconclusive"
    found = mean_interval(lost)
    told = f"{found.mean:+.1f} points lost [{found.low:+.1f}, {found.high:+.1f}] at delay {late}"
    label = "inconclusive"
    if len(lost) >= VERDICT_SEEDS and (found.high < POINTS or found.low > POINTS):
        label = "supported" if found.high < POINTS else "not supported"
    return LATE, told, len(lost), label


def _both(*labels: str) -> str:
    if "not supported" in labels:
        return "not supported"
    return "supported" if set(labels) == {"supported"} else "inconclusive"


# -- expectations


def expected(times: pd.DataFrame, delays: pd.DataFrame, steps: int) -> list[str]:
    """All four, in the order in which they were written, of the default network."""
    ours = times[times["backbone"] == BACKBONES[0]]
    by_steps, by_n = ours[ours["n"] == 1], ours[ours["steps"] == steps]
    return [
        _grows("linearly with the number of denoising steps", by_steps, "steps",
               lambda power: abs(power - 1) <= LINEAR, f"within {LINEAR:g} of 1"),
        _grows("far less than linearly with n", by_n, "n",
               lambda power: power <= FAR_LESS, f"up to {FAR_LESS:g}"),
        _five(by_steps),
        _dear(delays),
    ]  # fmt: skip


def _grows(text: str, part: pd.DataFrame, x: str, rule: Rule, read: str) -> str:
    ends = part.sort_values(x).iloc[[0, -1]]
    few, many = ends[x]
    if few == many:
        return f"Time grows {text}: one number alone was timed: {OPEN}."
    ratio = float(ends["median"].iloc[1] / ends["median"].iloc[0])
    power = math.log(ratio) / math.log(many / few)
    return (
        f"Time grows {text}: from {few} to {many} by a factor of {ratio:.1f}, a power of "
        f"{power:.2f} (read as {read}): {seen([rule(power)])}."
    )


def _five(part: pd.DataFrame) -> str:
    text = "Five steps reach 20 and 50 Hz, not 500 (each decision within its period)"
    rates = reached(part[part["steps"] == 5])
    if rates.empty:
        return f"{text}: five were not timed: {OPEN}."
    kept = {rate: rates[f"{rate} Hz"].iloc[0] == "each" for rate in (20, 50, 500)}
    told = ", ".join(f"{rate} Hz {'kept' if ok else 'not kept'}" for rate, ok in kept.items())
    return f"{text}: {told}: {seen([kept[20] and kept[50] and not kept[500]])}."


def _dear(delays: pd.DataFrame) -> str:
    text = "A delay costs more on a fast walker than its milliseconds suggest"
    lost = _lost(delays, 1)
    if lost.empty:
        return f"{text}: one step of delay was not played: {OPEN}."
    on_time = delays[(delays["policy"] == "stale") & (delays["delay"] == 0)]
    share = lost / on_time.set_index("seed")["score"]
    return (
        f"{text}: one control step costs the diffusion policy {share.mean():.0%} of its score "
        f"(more than {SUGGESTED:.0%} in {int((share > SUGGESTED).sum())} of {len(share)} seeds): "
        f"{seen(share > SUGGESTED)}."
    )


# -- fewer steps, faster and perhaps better


def by_steps(scores: Mapping[int, Sequence[float]], times: pd.DataFrame) -> pd.DataFrame:
    """Scores of the same sub-policies by number of denoising steps, beside the time that a decision
    takes: columns steps, score (mean), low and high (of the sub-policies), ms (NaN: not timed)."""
    ours = times[(times["backbone"] == BACKBONES[0]) & (times["n"] == 1)]
    spent = ours.set_index("steps")["median"]
    rows = [
        (steps, float(np.mean(found)), min(found), max(found), spent.get(steps, math.nan))
        for steps, found in scores.items()
    ]
    return pd.DataFrame(rows, columns=["steps", "score", "low", "high", "ms"])


def fewer_says(table: pd.DataFrame) -> str:
    """Whether fewer steps scored higher, in words; of one seed."""
    few, many = (table.sort_values("steps").iloc[i] for i in (0, -1))
    return (
        f"With {few['steps']:.0f} steps in place of {many['steps']:.0f} the mean score of the same "
        f"noises changes by {few['score'] - many['score']:+.1f} points: inconclusive, as it is of "
        "one seed."
    )
