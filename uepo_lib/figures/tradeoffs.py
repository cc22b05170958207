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
    fixed(1.0): "UEPO", FRESH: "control", "guided": "model", CLONE: "BC", ZERO: "data",
    SELECTED: "UEPO", **{source: colour for source, (_, colour) in SOURCES.items()},
}  # fmt: skip
"""Blue is the paper's way of what a panel compares; every other colour has one meaning."""
NAMES = {source: name for source, (name, _) in SOURCES.items()}
"""Of lines whose name in the table is E2's short one."""
DONE, SCORE = "RMS distance of what is done", "normalised score, mean of members"
GAIN = "T̂'s error below T̂_init's, log₂, no filter"
LABELS = {
    DONE: f"{DONE}\n(std of a state)", SCORE: "mean normalised score\n(a fall is the cost)",
    GAIN: "log2(error of T̂_init / error of T̂),\nno filter; above 0: D_diff helps",
}  # fmt: skip
"""Of measures whose name in the table says neither unit nor direction."""
MEASURED = ("eta", "tau")
"""Dials whose cost is measured; what the others cost is counted."""
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
        rows.append((*about, BUYS, GAIN, row.source, row.seed, row.gain))
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
    """What turning each dial buys, and what it costs; every seed is seen. Above, dials whose cost
    is counted: it stands below each value. Below, η and τ on one scale: what is done, and the
    score."""
    counted = [dial for dial in AXES if dial not in MEASURED]
    mosaic: list[Any] = [[dial for dial in counted for _ in MEASURED]] + [
        [f"{kind} {dial}" for dial in MEASURED for _ in counted] for kind in (BUYS, COSTS)
    ]
    figure, panels = plt.subplot_mosaic(mosaic, figsize=(8.8, 8.6), height_ratios=(1.15, 1, 1))
    for dial in counted:
        _draw_counted(panels[dial], table[table["dial"] == dial], dial)
    for kind in (BUYS, COSTS):
        first = panels[f"{kind} {MEASURED[0]}"]
        for dial in MEASURED:
            part = table[(table["dial"] == dial) & (table["row"] == kind)]
            axes = panels[f"{kind} {dial}"]
            if axes is not first:
                axes.sharey(first)
            _draw_measured(axes, part, dial)
        first.set_ylim(0, None)  # last: it ends the scaling to what is drawn
        first.legend(loc="lower left")
    return figure


def _draw_counted(axes: Axes, part: pd.DataFrame, dial: str) -> None:
    bought, cost = part[part["row"] == BUYS], part[part["row"] == COSTS]
    for line in dict.fromkeys(bought["line"]):
        mine, colour = bought[bought["line"] == line], plotting.COLOURS[COLOURS[line]]
        plotting.seed_lines(axes, mine, "value", "y", colour, NAMES.get(line, line))
    if dial == "data":
        axes.set_xscale("log")
        axes.minorticks_off()
    if dial == "ratio":
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
    else:
        axes.set_ylim(0, None)
    paid = cost.groupby("value")["y"].first()
    if dial == "ratio":  # two small ratios would print over one another
        paid = paid[(paid.index == paid.index.min()) | (paid.index >= 1)]
    axes.set_xticks(paid.index, [f"{value:g}\n{count:,.0f}" for value, count in paid.items()])
    axes.set_xlabel(f"{AXES[dial]}\nbelow: {cost['measure'].iloc[0]}")
    _name(axes, bought, dial)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.36))


def _draw_measured(axes: Axes, part: pd.DataFrame, dial: str) -> None:
    """From 0 on, and with the unguided set's mean: a dial's effect is seen beside the whole."""
    colour = plotting.COLOURS[COLOURS["guided"]]
    plotting.seed_lines(axes, part, "value", "y", colour, "guided")
    unguided = float(part.loc[part["value"] == 0, "y"].mean())
    axes.axhline(unguided, color="0.4", linestyle=":", linewidth=1, label="unguided, mean of seeds")
    axes.set_xlabel(AXES[dial])
    _name(axes, part, dial)


def _name(axes: Axes, part: pd.DataFrame, dial: str) -> None:
    measure, task = str(part["measure"].iloc[0]), part["task"].iloc[0]
    slice_ = ", slice" if dial == "ratio" else ""  # E2 learns from a part of its task's data
    axes.set_title(f"{task}{slice_}", size=9)
    axes.set_ylabel(LABELS.get(measure, measure.replace(", ", ",\n")))


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
