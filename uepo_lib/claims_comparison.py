"""How E3's tables judge the paper's claims; the verdicts are those of its notebook."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from uepo_lib import statistics
from uepo_lib.experiments import comparison_verdict
from uepo_lib.learners import EXPLORED


class Found(NamedTuple):
    """What was measured for a claim, in words with its interval, over how many seeds; the label."""

    measured: str
    seeds: int
    verdict: str


def relative(gained: pd.DataFrame, family: str, measure: str) -> Found:
    """The gain on totals, relative to Uni-O4's, as the paper computes it."""
    told = comparison_verdict.relative_told(gained, measure, family)
    if told is None:
        return Found("no task of that family at this profile", 0, comparison_verdict.UNTESTABLE)
    return Found(told[0], gained["seed"].nunique(), told[1])


def aggregate(gained: pd.DataFrame, pair: str, measure: str, unit: str) -> Found:
    """A pair of E3's rows, all tasks and without the tuning task: interquartile means, and the mean
    of gains on the same task and seed with both of its intervals. The label needs all of them, see
    ``comparison_verdict.aggregate``."""
    mine = gained[(gained["pair"] == pair) & (gained["measure"] == measure)]
    rows = comparison_verdict.aggregates(mine)
    told = [
        ("" if row.over == "all tasks" else f"{row.over} ")
        + f"{row.gain:+.1f} {unit} [{row.low:+.1f}, {row.high:+.1f}], "
        f"paired {row.paired:+.1f} [{row.paired_low:+.1f}, {row.paired_high:+.1f}], "
        f"t [{row.t_low:+.1f}, {row.t_high:+.1f}]"
        for row in rows.itertuples()
    ]
    return Found("; ".join(told), int(rows["seeds"].iloc[0]), str(rows["verdict"].iloc[0]))


def shift(online: pd.DataFrame) -> Found:
    """KL of the first online states from D, before any update: Uni-O4's minus UEPO's, by task, as
    states of other robots have other dimensions; of several tasks the weakest label."""
    table: Any = online.pivot(index=["task", "seed"], columns="row", values="states_early")
    gains = (table["uni_o4"] - table["uepo"]).dropna().groupby("task", sort=False)
    by_task = {task: part.tolist() for task, part in gains}
    told = "; ".join(f"{statistics.shown(part, 2)} ({task})" for task, part in by_task.items())
    labels = [statistics.verdict(part).partition(" (")[0] for part in by_task.values()]
    unit = (
        "nats less state shift from D than Uni-O4's, of the policies that explore, with "
        f"σ = {EXPLORED['sigma']:g} on UEPO's chain and the clone's learnt σ in Uni-O4"
    )
    return Found(f"{unit}: {told}", max(map(len, by_task.values())), statistics.weakest(labels))
