"""Is an online phase stable, does it gain, did it move, and where not: what was measured of it, and
what had been tried. Pure functions of E3's table of online phases."""

from __future__ import annotations

import numpy as np
import pandas as pd

from uepo_lib import settings
from uepo_lib.statistics import mean_interval

HOLDS, MOVED = 0.9, 0.01
"""Online UEPO is stable if its last three evaluations average HOLDS of its highest one, and has
moved if the KL of ``shift.py`` from first to last policy, in nats, is above MOVED."""
RULES = ("holds", "not_below_start", "moved")
MOST = 0.5
"""A sign counts as a cause if it is there in more than this share: of seeds that start at 90 % of
the expert, of updates that the KL target cut short, of a score that exploring costs."""
NOISE = 2.0
"""Standard errors within which the mean of three evaluations differs from a single one by noise."""


def stability(online: pd.DataFrame, row: str = "uepo") -> pd.DataFrame:
    """A row a task: gain with its interval over seeds, and the share of seeds that meet each rule.

    ``holds`` is NaN where some seed's highest evaluation is not positive: a share of it is no level
    below it.
    """
    rows = []
    for task, part in online[online["row"] == row].groupby("task", sort=False):
        found = mean_interval(part["gain"])
        defined = part["highest"] > 0
        holds = (part["last_three"] >= HOLDS * part["highest"]).astype(float).where(defined)
        rows.append(
            {"task": task, "start": part["start"].mean(), "end": part["end"].mean(),
             "gain": found.mean, "low": found.low, "high": found.high,
             "holds": holds.mean(skipna=False),
             "not_below_start": (part["last_three"] >= part["first_look"]).mean(),
             "moved": (part["shift"] > MOVED).mean(), "shift": part["shift"].mean(),
             "seeds": len(part)}
        )  # fmt: skip
    return pd.DataFrame(rows)


def explained(table: pd.DataFrame, online: pd.DataFrame, row: str = "uepo") -> pd.DataFrame:
    """:func:`stability`'s table with "cause" and "attempts", empty where every line is met.

    The lines: each rule in every seed, and a gain above 0 by its interval on some task.
    """
    gains = bool((table["low"] > 0).any())
    causes, attempts = [], []
    for found in table.itertuples():
        part = online[(online["row"] == row) & (online["task"] == found.task)]
        met = all(getattr(found, rule) == 1 for rule in RULES)  # what is NaN is not met
        failed = not met or not gains
        causes.append(cause(part) if failed else "")
        attempts.append(settings.attempts(str(found.task)) if failed else "")
    return table.assign(cause=causes, attempts=attempts)


def cause(part: pd.DataFrame) -> str:
    """What the online phases of one row and task show, a row a seed, that would explain why they do
    not gain or do not hold; where nothing does, that is said, as it is where to hold is not
    defined."""
    full = int((part["to_expert"] == 0).sum())
    stopped, price = part["stopped"].mean(), part["dip_exploring"].mean()
    lost = _lost(part)
    chance = lost <= NOISE * np.sqrt(4 / 3) * part["noise"]
    below = int((part["highest"] <= 0).sum())
    told = f"the highest evaluation of {below} of {len(part)} seeds is not positive"
    undefined = [f"to hold is not defined: {told}"] if below else []
    signs = []
    if full > MOST * len(part):
        signs.append(
            f"no room: by the first evaluation {full} of {len(part)} seeds are at 90 % of the "
            "expert or above"
        )
    if (lost > 0).any() and chance.all():
        signs.append(f"noise of the evaluations: {lost.max():.1f} points at most are lost")
    if price > MOST * part["start"].mean():
        signs.append(f"what learns is far from what is scored: exploring costs {price:.0f} points")
    if stopped > MOST:
        signs.append(f"small steps: the KL target cut {stopped:.0%} of the updates short")
    if signs:
        return "; ".join([*undefined, *signs])
    worst = f"{lost.max():.1f} points are lost in the worst seed" if lost.max() > 0 else "none lost"
    return "; ".join([*undefined, f"not explained: {worst}, with room left"])


def _lost(part: pd.DataFrame) -> pd.Series:
    """By how much a seed's last three evaluations fail: below the highest, if it is positive, or
    below the first."""
    fell = (part["highest"] > 0) & (part["last_three"] < HOLDS * part["highest"])
    falls = (part["highest"] - part["last_three"]).where(fell, 0.0)
    return falls.clip(lower=(part["first_look"] - part["last_three"]).clip(lower=0.0))
