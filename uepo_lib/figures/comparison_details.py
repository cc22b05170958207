"""E3, closer: the price of the switch, how far policies and states move, what AM-Q knew."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from uepo_lib import plotting
from uepo_lib.figures.comparison import IMPROVED, LINES, MARKERS, NAMES
from uepo_lib.statistics import performance_profile

JUDGED = {
    "UEPO": ("UEPO's (i, κ), judged in T̂", plotting.COLOURS["UEPO"], True),
    "Uni-O4, clones": ("Uni-O4's clones", plotting.COLOURS["model"], True),
    "Uni-O4": ("Uni-O4 after offline PPO", plotting.COLOURS["model"], False),
}
"""Name, colour and whether marks are filled: hollow is offline PPO, as in 12_shift."""

HEADLINE = ("uepo", "uni_o4")
"""The pair of the first claim, drawn with more weight."""

PRICES = {
    "dip_exploring": ("o", "noise-free − exploring, both at the start"),
    "dip_updates": ("^", "start − lowest evaluation (0: never below)"),
}
"""What going online costs, by column."""


@plotting.figure("12_switch")
def draw_switch(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, dip_exploring, dip_updates: the two prices, a dot a seed."""
    tasks = list(dict.fromkeys(table["task"]))
    rows = [row for row in LINES if row in set(table["row"]) and row != "scratch"]
    figure, panels = plotting.panels(len(tasks), 3.0, 3.4)
    for axes in panels[1:]:  # heights are compared across tasks
        axes.sharey(panels[0])
    for axes, task in zip(panels, tasks, strict=True):
        for place, row in enumerate(rows):
            part = table[(table["task"] == task) & (table["row"] == row)]
            for (column, (marker, _)), shift in zip(PRICES.items(), (-0.15, 0.15), strict=True):
                axes.scatter(
                    np.full(len(part), place + shift), part[column], s=18, marker=marker,
                    color=LINES[row][0], facecolor=LINES[row][0] if marker == "o" else "white",
                )  # fmt: skip
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.set_title(task)
        axes.set_xticks(range(len(rows)), [NAMES[r] for r in rows], rotation=40, ha="right")
    panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panels[0].set_ylabel("points lost")
    marks = [
        Line2D([], [], marker=marker, linestyle="", color="0.3", label=label,
               markerfacecolor="0.3" if marker == "o" else "white")
        for marker, label in PRICES.values()
    ]  # fmt: skip
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))
    return figure


@plotting.figure("12_shift")
def draw_shift(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, shift_early, states_early, shift, states_late: how far both have
    moved early, a small mark, and at the end; offline PPO is a ring, wide enough to show a disc in
    the same place."""
    tasks = list(dict.fromkeys(table["task"]))
    figure, panels = plotting.panels(len(tasks), 3.0, 2.8)
    for axes, task in zip(panels, tasks, strict=True):
        for row, (colour, _) in LINES.items():
            part = table[(table["task"] == task) & (table["row"] == row)]
            axes.scatter(
                part["shift"], part["states_late"], s=64 if row in IMPROVED else 22,
                edgecolor=colour, linewidth=1.3,
                facecolor="none" if row in IMPROVED else colour, label=NAMES[row],
            )  # fmt: skip
            early, late = (["shift_early", "states_early"], ["shift", "states_late"])
            ways = np.stack([part[early], part[late]])  # (2, seeds, 2)
            axes.plot(ways[..., 0], ways[..., 1], color=colour, linewidth=0.7, alpha=0.5, zorder=1)
            axes.scatter(
                part[early[0]], part[early[1]], s=9, marker="x", color=colour, linewidth=0.8
            )
        axes.set(
            title=task, xlabel="policy shift from the first (nats)", xscale="log", yscale="log"
        )
        plotting.plain_ticks(axes.yaxis)
        axes.xaxis.set_major_formatter(plotting.plain)  # decades alone: three of them are shown
    panels[0].set_ylabel("state shift from D (nats)")
    handles, _ = panels[0].get_legend_handles_labels()
    cross = Line2D([], [], marker="x", markersize=4, linestyle="", color="0.3", label="early")
    figure.legend(handles=[*handles, cross], loc="outside upper center", ncols=4)
    return figure


@plotting.figure("12_selection")
def draw_selection(table: pd.DataFrame) -> Figure:
    """Columns task, seed, method, dead_zero, score: AM-Q against the truth, a mark a candidate, a
    marker a seed. Both less their mean over the candidates of a seed and method: differences
    between seeds would look like knowledge."""
    tasks, seeds = (list(dict.fromkeys(table[name])) for name in ("task", "seed"))
    both = table[["dead_zero", "score"]]
    means = table.groupby(["task", "seed", "method"])[["dead_zero", "score"]].transform("mean")
    centred = table.assign(**(both - means))
    figure, panels = plotting.panels(len(tasks), 3.0, 3.0)
    for axes, task in zip(panels, tasks, strict=True):
        for method, (_, colour, filled) in JUDGED.items():
            for i, seed in enumerate(seeds):
                part = centred[
                    (centred["task"] == task)
                    & (centred["method"] == method)
                    & (centred["seed"] == seed)
                ]
                axes.scatter(
                    part["dead_zero"], part["score"], s=13, marker=MARKERS[i % len(MARKERS)],
                    alpha=0.7, edgecolor=colour, facecolor=colour if filled else "none",
                    linewidth=0.9,
                )  # fmt: skip
        axes.set(title=task, xlabel="AM-Q (discounted return),\nless its mean")
    panels[0].set_ylabel("true score in few episodes,\nless its mean (points)")
    marks = [
        Line2D([], [], marker="o", markersize=4, linestyle="", color=colour, label=label,
               markerfacecolor=colour if filled else "none")
        for label, colour, filled in JUDGED.values()
    ]  # fmt: skip
    marks += [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], markersize=4, linestyle="", color="0.3",
               markerfacecolor="none", label=f"seed {seed}")
        for i, seed in enumerate(seeds)
    ]  # fmt: skip
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))
    return figure


@plotting.figure("12_profile")
def draw_profile(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, phase, score: the share of runs above each score. It falls at scores
    that were made and nowhere else, so its levels are these."""
    figure, panels = plotting.panels(2, 3.8, 3.0)
    panels[1].sharey(panels[0])
    panels[1].tick_params(labelleft=False)
    ends = min(0.0, table["score"].min()), max(100.0, table["score"].max()) + 2
    for axes, phase in zip(panels, ("offline", "final"), strict=True):
        for row, (colour, line) in LINES.items():
            part = table[(table["row"] == row) & (table["phase"] == phase)].dropna(subset="score")
            if len(part):
                square = part.pivot(index="seed", columns="task", values="score").to_numpy()
                levels = np.unique([*ends, *square.ravel()])
                axes.step(
                    levels, performance_profile(square, levels), line, where="post", color=colour,
                    linewidth=2.4 if row in HEADLINE else 1.2, zorder=3 if row in HEADLINE else 2,
                    label=_with_tasks(row, part, table),
                )  # fmt: skip
        axes.set(title=f"{phase} score", xlabel="normalised score", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("share of runs above this score")
    panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _with_tasks(row: str, part: pd.DataFrame, table: pd.DataFrame) -> str:
    """The name of ``row``, with the tasks of its ``part`` where the table has others too."""
    tasks = list(dict.fromkeys(part["task"]))
    few = len(tasks) < table["task"].nunique()
    return f"{NAMES[row]}\n({', '.join(tasks)})" if few else NAMES[row]
