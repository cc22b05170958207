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
from uepo_lib.statistics import mean_band

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
KINDS = {
    "diffusion": plotting.COLOURS["UEPO"],
    "Gaussian": plotting.COLOURS["BC"],
    "deterministic": plotting.COLOURS["control"],
}
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


def _present(table: pd.DataFrame) -> list[str]:
    return [name for name in NAMES if name in set(table["row"])]


@plotting.figure("12_scores")
def draw_scores(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, kind, phase (offline, final), score: dots are seeds, bars means;
    diamonds, as they are scored on fewer episodes, :data:`SETS`."""
    tasks = list(dict.fromkeys(table["task"]))
    rows = _present(table)[::-1]
    figure, panels = plotting.panels(len(tasks), 3.0, 0.6 + 0.3 * len(rows))
    for axes, task in zip(panels, tasks, strict=True):
        for place, row in enumerate(rows):
            part = table[(table["task"] == task) & (table["row"] == row)]
            _pair(axes, part, place, "D" if row in SETS else "o")
        axes.set(title=task, xlabel="normalised score", ylim=(-0.6, len(rows) - 0.4))
        axes.set_yticks(range(len(rows)), [NAMES[r] for r in rows] if axes is panels[0] else [])
        axes.grid(axis="y", color="0.95")
    _legend(figure, sets=not set(SETS).isdisjoint(rows))
    return figure


def _pair(axes: Axes, part: pd.DataFrame, place: int, marker: str) -> None:
    for phase, shift, filled in (("offline", 0.16, False), ("final", -0.16, True)):
        values = part.loc[part["phase"] == phase, "score"].dropna()
        if values.empty:
            continue
        colour = KINDS[part["kind"].iloc[0]]
        axes.scatter(
            values, np.full(len(values), place + shift), s=16, marker=marker, zorder=3,
            edgecolor=colour, facecolor=colour if filled else "white", linewidth=1,
        )  # fmt: skip
        axes.vlines(values.mean(), place + shift - 0.13, place + shift + 0.13, colour, linewidth=2)


def _legend(figure: Figure, sets: bool) -> None:
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=kind)
        for kind, colour in KINDS.items()
    ]
    marks += [
        Line2D([], [], marker="o", linestyle="", color="0.3", markerfacecolor="white",
               label="offline"),
        Line2D([], [], marker="o", linestyle="", color="0.3", label="after online fine-tuning"),
        Line2D([], [], marker="|", linestyle="", color="0.3", markeredgewidth=2, label="mean"),
    ]  # fmt: skip
    if sets:
        label = "offline, mean over a set of policies, fewer episodes"
        marks.append(
            Line2D([], [], marker="D", markersize=5, linestyle="", color="0.3",
                   markerfacecolor="white", label=label)
        )  # fmt: skip
    figure.legend(handles=marks, loc="outside upper center", ncols=4 if sets else len(marks))


@plotting.figure("12_curves")
def draw_curves(table: pd.DataFrame) -> Figure:
    """Columns task, seed, row, look, env_steps, score, expert: thin lines are seeds, bands the
    bootstrap interval of their mean; rows far below are told in words."""
    tasks = list(dict.fromkeys(table["task"]))
    figure, panels = plotting.panels(len(tasks), 3.3, 3.3)
    for axes, task in zip(panels, tasks, strict=True):
        here = table[table["task"] == task]
        below = _far_below(here)
        for row, (colour, line) in CURVES.items():
            part = here[here["row"] == row]
            if part.empty or row in below:
                continue
            for _, one in part.groupby("seed"):
                axes.plot(one.env_steps, one.score, line, color=colour, alpha=0.3, linewidth=0.8)
            steps = part.groupby("look")["env_steps"].mean()
            scores = part.pivot(index="seed", columns="look", values="score")
            axes.plot(steps, scores.mean(), line, color=colour, label=NAMES[row])
            axes.fill_between(steps, *mean_band(scores), color=colour, alpha=0.1, linewidth=0)
        level = float(here["expert"].iloc[0])
        axes.axhline(level, color="0.4", linestyle="-.", linewidth=1, label="90 % of the expert")
        _say_below(axes, here, below)
        axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1_000:g}k" if steps else "0")
        axes.set(title=task, xlabel="online environment steps")
    panels[0].set_ylabel("normalised score, noise-free")
    shown: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    shown["95 % interval of a mean"] = Patch(color="0.88")
    figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=5)
    return figure


def _far_below(here: pd.DataFrame) -> list[str]:
    """Rows of one task that learn nothing offline and stay, in every seed, below all that do: they
    would stretch the axis until those could not be told apart."""
    others = here.loc[~here["row"].isin(ONLINE_ONLY), "score"]
    highest = here.groupby("row")["score"].max()
    return [row for row in ONLINE_ONLY if row in highest and highest[row] < others.min()]


def _say_below(axes: Axes, here: pd.DataFrame, rows: Sequence[str]) -> None:
    """Mean scores of ``rows`` at their first and last look, in room made below the lines."""
    if not rows:
        return
    looks = here.pivot_table(index="look", columns="row", values="score")
    said = [f"{NAMES[r]}, below: {looks[r].iloc[0]:.0f} → {looks[r].iloc[-1]:.0f}" for r in rows]
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.1 * len(rows) * (high - low), high)
    axes.text(
        0.03, 0.03, "\n".join(said), size="small", color="0.3", transform=axes.transAxes,
        va="bottom",
    )  # fmt: skip


@plotting.figure("12_components")
def draw_components(table: pd.DataFrame) -> Figure:
    """Columns pair, measure, task, seed, gain: what one swap adds, a mark a task and seed."""
    pairs = list(dict.fromkeys(table["pair"]))[::-1]
    measures = [m for m in MEASURES if m in set(table["measure"])]
    tasks = list(dict.fromkeys(table["task"]))
    figure, panels = plotting.panels(len(measures), 2.9, 0.7 + 0.38 * len(pairs))
    step = min(0.22, 0.8 / len(tasks))
    marks = [  # no colours: they are policy classes on this page
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], markersize=4.5, linestyle="",
               color=plotting.COLOURS["data"], label=task,
               fillstyle="full" if i < len(MARKERS) else "none")
        for i, task in enumerate(tasks)
    ]  # fmt: skip
    for axes in panels[1:]:
        axes.sharex(panels[0])
    for axes, measure in zip(panels, measures, strict=True):
        for place, pair in enumerate(pairs):
            part = table[(table["pair"] == pair) & (table["measure"] == measure)]
            for i, task in enumerate(tasks):  # from top to bottom
                values = part.loc[part["task"] == task, "gain"]
                height = place - step * (i - (len(tasks) - 1) / 2)
                axes.plot(
                    values, np.full(len(values), height), linestyle="", markersize=3.6,
                    marker=marks[i].get_marker(), fillstyle=marks[i].get_fillstyle(),
                    color=plotting.COLOURS["data"], markeredgewidth=0.5,
                )  # fmt: skip
        axes.axvline(0, color="0.4", linewidth=1)
        axes.set(title=f"{MEASURES[measure]}", xlabel="points gained")
        labels = [pair.replace(" (also", "\n(also") for pair in pairs]
        axes.set_yticks(range(len(pairs)), labels if axes is panels[0] else [])
        axes.set_ylim(-0.6, len(pairs) - 0.4)
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))
    return figure


def ordered(rows: Sequence[str]) -> list[str]:
    """Names of rows in the order of the figures."""
    return [name for name in NAMES if name in set(rows)]
