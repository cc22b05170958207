"""E3 as pictures: who scores what before and after going online, and what each swap adds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from uepo_lib import plotting
from uepo_lib.experiments.comparison_verdict import MEASURES, ONLINE_ONLY, SETS
from uepo_lib.statistics import VERDICT_SEEDS, mean_band

NAMES = {
    "uepo": "UEPO",
    "uepo_printed": "UEPO, κ = 1",
    "uepo_ppo": "UEPO + offline PPO",
    "uepo_simulator": "UEPO, simulator's D_diff",
    "greedy": "best plan a state, by Q",
    "random": "a random candidate",
    "fresh": "diffusion, fresh noise",
    "kappa_1": "diffusion, κ = 1",
    "kappa_0": "diffusion, κ = 0",
    "mse": "MSE-BC, same network",
    "distilled": "π* distilled",
    "uni_o4": "Uni-O4",
    "uni_o4_more": "Uni-O4, as many steps",
    "uni_o4_select": "Uni-O4, no offline PPO",
    "bppo": "BPPO",
    "iql": "IQL",
    "bc_chunk": "BC, chunks",
    "bc": "BC",
    "scratch": "PPO from scratch",
    "sac": "SAC, D in every batch",
}
"""Every row of E3 from top to bottom, as figures and tables call it."""
KINDS = {"diffusion": "o", "Gaussian": "s", "deterministic": "^"}
"""The marker of a policy class; colours are methods, as in all figures of this page."""
LINES = {
    "uepo": (plotting.COLOURS["UEPO"], "-"),
    "uepo_ppo": (plotting.COLOURS["UEPO"], "--"),
    "uni_o4": (plotting.COLOURS["model"], "-"),
    "uni_o4_select": (plotting.COLOURS["model"], "--"),
    "iql": (plotting.COLOURS["highlight"], "-"),
    "bc": (plotting.COLOURS["BC"], "-"),
    "scratch": (plotting.COLOURS["data"], ":"),
}
CURVES = {**LINES, "sac": (plotting.COLOURS["control"], ":")}
"""Rows whose way is drawn; the last one is played on one task at most."""
IMPROVED = ("uepo_ppo", "uni_o4")
"""Rows with offline PPO; where there is no line, a hollow mark tells them from those without."""
MARKERS = "os^DvP*X"
"""One a task or a seed, where colours mean something else; again from the first if there are more
than these."""


FAMILIES = (("uepo", "uepo_ppo"), ("uni_o4", "uni_o4_select"), ("iql", "bc", *ONLINE_ONLY))
"""Rows that share a panel of the curves."""
VARIANT = "0.55"
"""The grey of rows that have no colour of their own."""


def _present(table: pd.DataFrame) -> list[str]:
    return [name for name in NAMES if name in set(table["row"])]


@plotting.figure("12_scores")
def draw_scores(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, kind, phase (offline, final), score: marks are seeds, bars means;
    diamonds, as they are scored on fewer episodes, :data:`SETS`."""
    tasks = list(dict.fromkeys(table["task"]))
    rows = _present(table)[::-1]
    figure, panels = plotting.panels(len(tasks), 3.1, 0.9 + 0.32 * len(rows))
    for axes in panels[1:]:  # scores are of one unit, so a length is as many points everywhere
        axes.sharex(panels[0])
    for axes, task in zip(panels, tasks, strict=True):
        for place, row in enumerate(rows):
            part = table[(table["task"] == task) & (table["row"] == row)].dropna(subset="score")
            _background(axes, place, "not played" if part.empty else "")
            _pair(axes, part, place)
        axes.axvline(100, color="0.4", linestyle="-.", linewidth=1, zorder=1)
        axes.set(title=task, xlabel="normalised score")
        _name_rows(axes, [NAMES[row] for row in rows], named=axes is panels[0])
    panels[0].set_xlim(left=min(0.0, table["score"].min() - 3))
    _legend(
        figure, sorted(set(table["kind"]), key=list(KINDS).index), not set(SETS).isdisjoint(rows)
    )
    return figure


def _background(axes: Axes, place: int, empty: str) -> None:
    """Every other row shaded, so that its name can be followed to the right; and what to write
    where there is nothing to draw."""
    if place % 2:
        axes.axhspan(place - 0.5, place + 0.5, color="0.965", linewidth=0, zorder=0)
    axes.text(
        0.98, place, empty, size=6.5, color="0.6", ha="right", va="center",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip


def _name_rows(axes: Axes, names: Sequence[str], named: bool) -> None:
    axes.set_yticks(range(len(names)), names if named else [])
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.grid(visible=False, axis="y")


def _pair(axes: Axes, part: pd.DataFrame, place: int) -> None:
    """Hollow and above: offline; filled and below: after the online phase."""
    for phase, shift in (("offline", 0.17), ("final", -0.17)):
        mine = part[part["phase"] == phase]
        if mine.empty:
            continue
        row, values = mine["row"].iloc[0], mine["score"]
        colour = LINES[row][0] if row in LINES else VARIANT
        axes.scatter(
            values, np.full(len(values), place + shift), s=17, edgecolor=colour, linewidth=1,
            marker="D" if row in SETS else KINDS[mine["kind"].iloc[0]],
            facecolor=colour if phase == "final" else "white", zorder=3,
        )  # fmt: skip
        low, high = place + shift - 0.2, place + shift + 0.2  # seen above and below a mark
        axes.vlines(values.mean(), low, high, colour, linewidth=2.4, zorder=2)


def _legend(figure: Figure, kinds: Sequence[str], sets: bool) -> None:
    handles = [_mark(KINDS[kind], kind, face="0.75") for kind in kinds]
    handles += [
        _mark("o", "offline", face="white"),
        _mark("o", "after online fine-tuning"),
        Line2D([], [], color="0.4", linestyle="-.", linewidth=1, label="D4RL's expert"),
        _mark("|", "mean", size=8),
    ]
    if sets:
        label = "offline, mean over a set of policies, fewer episodes"
        handles.append(_mark("D", label, face="white"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)


def _mark(marker: str, label: str, face: str = "0.3", size: float = 5.5) -> Line2D:
    """A mark of a legend, without colour."""
    return Line2D(
        [], [], linestyle="", color="0.3", marker=marker, markersize=size, markerfacecolor=face,
        markeredgewidth=2.4 if marker == "|" else 1, label=label,
    )  # fmt: skip


@plotting.figure("12_curves")
def draw_curves(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, look, env_steps, score, expert: a row of panels a task, a column a
    family of methods, in colour before the means of all others; thin lines are seeds."""
    tasks = list(dict.fromkeys(table["task"]))
    families = [rows for rows in FAMILIES if not set(rows).isdisjoint(table["row"])]
    figure, grid = plotting.plt.subplots(
        len(tasks), len(families), figsize=(0.6 + 3.1 * len(families), 1.1 + 1.9 * len(tasks)),
        squeeze=False, sharex=True,
    )  # fmt: skip
    _share_scores(grid, tasks)
    for line, task in zip(grid, tasks, strict=True):
        here = table[table["task"] == task]
        for axes, family in zip(line, families, strict=True):
            _family(axes, here, family)
            axes.axhline(here["expert"].mean(), color="0.4", linestyle="-.", linewidth=1, zorder=1)
            axes.label_outer()
        line[0].set_ylabel(f"{task}\nnormalised score")
    for column in grid.T:
        _name_column(column)
    for axes in grid[-1]:
        axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1_000:g}k" if steps else "0")
        axes.set_xlabel("online environment steps")
    _curves_legend(figure, bands=table["seed"].nunique() >= VERDICT_SEEDS)
    return figure


def _share_scores(grid: np.ndarray, tasks: Sequence[str]) -> None:
    """One scale for all panels of a robot: its tasks are compared by eye."""
    first: dict[str, Axes] = {}
    for line, task in zip(grid, tasks, strict=True):
        for axes in line:
            leader = first.setdefault(task.split("-")[0], axes)
            if leader is not axes:
                axes.sharey(leader)


def _name_column(column: Sequence[Axes]) -> None:
    """The methods of a column over its first panel, those too that only another panel has."""
    shown: dict[str, Artist] = {}
    for axes in column:
        handles, labels = axes.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    column[0].legend(
        list(shown.values()), list(shown), loc="lower left", bbox_to_anchor=(-0.02, 1),
        ncols=len(shown) if len(shown) < 4 else 2, columnspacing=1.2,
    )  # fmt: skip


def _family(axes: Axes, here: pd.DataFrame, family: Sequence[str]) -> None:
    """The rows of ``family`` on one task; a band of their means only where it is more than what the
    lines of few seeds show already."""
    for row in CURVES:
        part = here[here["row"] == row]
        if part.empty:
            continue
        steps = part.groupby("look")["env_steps"].mean()
        scores = part.pivot(index="seed", columns="look", values="score")
        if row not in family:
            axes.plot(steps, scores.mean(), color="0.85", linewidth=1, zorder=1)
            continue
        colour, line = CURVES[row]
        for _, one in part.groupby("seed"):
            axes.plot(one.env_steps, one.score, line, color=colour, alpha=0.45, linewidth=0.8)
        face = "white" if row in IMPROVED else colour  # hollow is offline PPO, as in 12_shift
        axes.plot(
            steps, scores.mean(), line, color=colour, linewidth=2.2, zorder=4, marker="o",
            markersize=4.5, markerfacecolor=face, label=NAMES[row],
        )  # fmt: skip
        if len(scores) >= VERDICT_SEEDS:
            axes.fill_between(steps, *mean_band(scores), color=colour, alpha=0.15, linewidth=0)


def _curves_legend(figure: Figure, bands: bool) -> None:
    handles: list[Artist] = [
        Line2D([], [], color="0.3", linewidth=2.2, marker="o", markersize=4.5, label="mean"),
        Line2D([], [], color="0.3", linewidth=0.8, alpha=0.6, label="a seed"),
        Line2D([], [], color="0.8", linewidth=1, label="means of the other columns"),
        Line2D([], [], color="0.4", linestyle="-.", linewidth=1, label="90 % of the expert"),
    ]
    if bands:
        handles.append(Patch(color="0.85", label="95 % interval of a mean"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


@plotting.figure("12_components")
def draw_components(table: pd.DataFrame) -> Figure:
    """Columns pair, measure, task, seed, gain: what one swap adds, a mark a task and seed, a bar
    the mean of a task."""
    pairs = list(dict.fromkeys(table["pair"]))[::-1]
    measures = [m for m in MEASURES if m in set(table["measure"])]
    tasks = list(dict.fromkeys(table["task"]))
    figure, panels = plotting.panels(len(measures), 2.9, 0.9 + 0.42 * len(pairs))
    marks = _task_marks(tasks)
    for axes in panels[1:]:
        axes.sharex(panels[0])
    for axes, measure in zip(panels, measures, strict=True):
        for place, pair in enumerate(pairs):
            part = table[(table["pair"] == pair) & (table["measure"] == measure)]
            part = part.dropna(subset="gain")
            _background(axes, place, "not compared" if part.empty else "")
            _gains(axes, part, place, marks)
        axes.axvline(0, color="0.4", linewidth=1, zorder=1)
        axes.set(title=MEASURES[measure], xlabel="points gained")
        labels = [pair.replace(" (also", "\n(also") for pair in pairs]
        _name_rows(axes, labels, named=axes is panels[0])
    handles = [*marks.values(), _mark("|", "mean", size=8)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _task_marks(tasks: Sequence[str]) -> dict[str, Line2D]:
    """A marker a task; no colours, as they are methods on this page."""
    return {
        task: Line2D([], [], marker=MARKERS[i % len(MARKERS)], markersize=4.5, linestyle="",
                     color=VARIANT, label=task, fillstyle="full" if i < len(MARKERS) else "none")
        for i, task in enumerate(tasks)
    }  # fmt: skip


def _gains(axes: Axes, part: pd.DataFrame, place: int, marks: dict[str, Line2D]) -> None:
    """The tasks that were played, from top to bottom round the middle of their row."""
    played = [task for task in marks if task in set(part["task"])]
    step = min(0.26, 0.8 / max(len(played), 1))
    for i, task in enumerate(played):
        values = part.loc[part["task"] == task, "gain"]
        height = place - step * (i - (len(played) - 1) / 2)
        axes.plot(
            values, np.full(len(values), height), linestyle="", markersize=4, zorder=3,
            marker=marks[task].get_marker(), fillstyle=marks[task].get_fillstyle(),
            color=VARIANT, markeredgewidth=0.5,
        )  # fmt: skip
        axes.vlines(values.mean(), height - 0.12, height + 0.12, "0.1", linewidth=1.8, zorder=4)


def ordered(rows: Sequence[str]) -> list[str]:
    """Names of rows in the order of the figures."""
    return [name for name in NAMES if name in set(rows)]
