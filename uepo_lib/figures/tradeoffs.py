"""Notebook 16 (E7, E9): every dial of the method on one page. Tables, then figures."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.experiments import data_need, epsilon, tradeoffs
from uepo_lib.experiments.data_need import CLONE, SELECTED, ZERO
from uepo_lib.experiments.epsilon import INSIDE
from uepo_lib.experiments.epsilon_verdict import gains
from uepo_lib.experiments.seed_sets import FRESH, fixed
from uepo_lib.figures.epsilon import SOURCES

BUYS, COSTS = "buys", "costs"
AXES = {
    "n": "n, sub-policies", "eta": "η, in action units", "tau": "τ, in calibrated units",
    "ratio": "|D_diff| / |D|", "data": "share of D",
}  # fmt: skip
COLOURS = {
    fixed(1.0): "UEPO", FRESH: "control", "guided": "highlight", CLONE: "BC", ZERO: "data",
    SELECTED: "UEPO", **{source: colour for source, (_, colour) in SOURCES.items()},
}  # fmt: skip
NAMES = {source: name for source, (name, _) in SOURCES.items()}
"""Of lines whose name in the table is E2's short one."""
DONE, SCORE = "RMS distance of what is done", "normalised score, mean of members"
TITLES = {DONE: f"{DONE}\n(std of a state)", SCORE: f"{SCORE}\n(a fall is the cost)"}
"""Of measures whose name in the table says neither unit nor direction."""
_SEEDS = "best of n, other episodes"
_COLUMNS = ["task", "dial", "value", "row", "measure", "line", "seed", "y"]


# -- tables


def dials_page(
    returns: pd.DataFrame,
    episodes: int,
    dials: pd.DataFrame,
    ratios: pd.DataFrame,
    data: pd.DataFrame,
) -> pd.DataFrame:
    """All dials as one long table: columns task, dial, value, row ("buys", "costs"), measure, line,
    seed, y.

    ``returns`` is E1's of one task, where each member played ``episodes``; ``dials`` is E7's,
    ``ratios`` E2's, ``data`` E9's.
    """
    parts = [_of_n(returns, episodes // 2), _of_guidance(dials), _of_ratio(ratios), _of_data(data)]
    return pd.concat(parts, ignore_index=True)


def _of_n(returns: pd.DataFrame, half: int) -> pd.DataFrame:
    """One half of the episodes chooses: that is what the best of n costs. One needs no choice."""
    rows = []
    shown: Any = returns[returns["set"].isin([fixed(1.0), FRESH])].itertuples()
    for row in shown:
        best, paid = (row.mean, 0) if row.n == 1 else (row.other_half, row.n * half)
        about, mine = (row.task, "n", row.n), (row.set, row.seed)
        rows.append((*about, BUYS, f"normalised score, {_SEEDS}", *mine, best))
        rows.append((*about, COSTS, "episodes paid to choose the best", *mine, paid))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _of_guidance(dials: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in dials.itertuples():
        about = (tradeoffs.TASK, row.dial, row.value)
        rows.append((*about, BUYS, DONE, "guided", row.seed, row.executed_rms))
        rows.append((*about, COSTS, SCORE, "guided", row.seed, row.score))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _of_ratio(ratios: pd.DataFrame) -> pd.DataFrame:
    found = gains(ratios, steps=(1,))
    unfiltered = (found["acceptance"] == "kl") & found["epsilon"].isna()
    found = found[unfiltered & (found["data"] == INSIDE)]
    rows = []
    for row in found.itertuples():
        about = (epsilon.TASK, "ratio", row.ratio)
        gain = "T̂'s error below T̂_init's, log₂, no filter"
        rows.append((*about, BUYS, gain, row.source, row.seed, row.gain))
        rows.append((*about, COSTS, "transitions made", row.source, row.seed, row.volume))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _of_data(data: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in data.itertuples():
        about = (data_need.TASK, "data", row.share)
        rows.append((*about, BUYS, "normalised score", row.learner, row.seed, row.score))
        rows.append((*about, COSTS, "transitions", row.learner, row.seed, row.transitions))
    return pd.DataFrame(rows, columns=_COLUMNS)


# -- figures


@plotting.figure("16_dials")
def draw_dials(table: pd.DataFrame) -> Figure:
    """A column a dial and its task: above what turning it buys, below what it costs; every seed is
    seen. What n, the ratio and the data cost is counted, not measured; η and τ have one scale."""
    names = [dial for dial in AXES if dial in set(table["dial"])]
    figure, panels = plt.subplots(2, len(names), figsize=(2.5 * len(names), 5.8), squeeze=False)
    if {"eta", "tau"} <= set(names):
        for row in panels:
            row[names.index("tau")].sharey(row[names.index("eta")])
    for column, dial in enumerate(names):
        for row, kind in enumerate((BUYS, COSTS)):
            part = table[(table["dial"] == dial) & (table["row"] == kind)]
            _draw_dial(panels[row, column], part, dial, single=kind == COSTS)
        task = table.loc[table["dial"] == dial, "task"].iloc[0]
        slice_ = ", slice" if dial == "ratio" else ""  # E2 learns from a part of its task's data
        panels[1, column].set_xlabel(f"{AXES[dial]}\n{task}{slice_}")
        handles, labels = panels[0, column].get_legend_handles_labels()
        if len(labels) > 1:  # under the column: above, it would cover lines
            below = panels[1, column]
            below.legend(
                handles, labels, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.33)
            )
    return figure


def _draw_dial(axes: Axes, part: pd.DataFrame, dial: str, single: bool) -> None:
    lines = list(dict.fromkeys(part["line"]))
    counted = single and part.groupby("value")["y"].nunique().max() == 1
    for line in lines[:1] if counted else lines:
        mine = part[part["line"] == line]
        colour = plotting.COLOURS["data" if counted else COLOURS[line]]
        plotting.seed_lines(axes, mine, "value", "y", colour, NAMES.get(line, line))
    measure = str(part["measure"].iloc[0])
    axes.set_title(TITLES.get(measure, measure), size=7.5)
    if dial == "data":
        axes.set_xscale("log")
        if single:  # transitions: their number goes with the share
            axes.set_yscale("log")
    if dial == "n":
        axes.set_xticks(sorted(part["value"].unique()))


@plotting.figure("16_data_need")
def draw_data_need(table: pd.DataFrame) -> Figure:
    """Score against the number of transitions, a line a learner."""
    figure, (axes,) = plotting.panels(1, 4.6, 3.2)
    for name in dict.fromkeys(table["learner"]):
        mine = table[table["learner"] == name]
        plotting.seed_lines(
            axes, mine, "transitions", "score", plotting.COLOURS[COLOURS[name]], name
        )
    axes.set(xscale="log", xlabel="transitions learnt from", ylabel="normalised score")
    axes.legend()
    return figure
