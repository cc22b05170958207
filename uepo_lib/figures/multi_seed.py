"""Notebook 10 (E1): members, what is beyond chance, distances, and two seeds on film."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from uepo_lib import plotting, rendering, states, tasks
from uepo_lib.experiments.multi_seed import plays
from uepo_lib.experiments.seed_sets import FRESH, GUIDED, RIVALS, UNGATED, ZERO, SeedGrid, fixed
from uepo_lib.played import Played, apart, play
from uepo_lib.stages import Study

COLOURS = {
    ZERO: "data", fixed(0.25): "model", fixed(0.5): "model", fixed(1.0): "UEPO",
    FRESH: "control", GUIDED: "highlight", **dict.fromkeys(RIVALS, "BC"),
}  # fmt: skip
"""One colour a kind of set; the null is always the same."""
SEVENTH = "#56B4E9"
"""Of ungated noise, which stands beside all others: the sky blue of the same palette."""
FILM_FRAMES, FILM_SIDE = 6, 96


def colour_of(name: str) -> str:
    """A set's colour."""
    return SEVENTH if name == UNGATED else plotting.COLOURS[COLOURS.get(name, "model")]


def alpha_of(name: str) -> float:
    """κ = 0.25 is a paler κ = 0.5."""
    return 0.5 if name == fixed(0.25) else 1.0


# -- tables


def film_table(study: Study, grid: SeedGrid) -> pd.DataFrame:
    """Two members at κ = 1 whose paths differ most, from one start: a row a number of the state.

    Columns member, step, number, value; steps at which both still walk, evenly spread.
    """
    pair = furthest(plays(study, grid)[fixed(1.0)].value)
    policies = study.sub_policies(study.diffusion_policy(), 1.0, n=grid.n).value
    robot, normaliser = study.task.robot, study.dataset.normaliser
    seen = [play(policies.select(i), robot, normaliser, 1, points=lambda raw: raw) for i in pair]
    common = min(len(found.path(0, 0)) for found in seen)
    chosen = np.linspace(0, min(common, 60) - 1, min(FILM_FRAMES, common)).round().astype(int)
    parts = []
    for i, found in zip(pair, seen, strict=True):
        observed = found.path(0, 0).numpy()[chosen]
        poses, _ = states.state_from_observation(robot, observed)
        columns = {
            "task": study.task.name, "member": i,
            "step": (chosen * found.action_horizon).repeat(poses.shape[1]),
            "number": np.tile(np.arange(poses.shape[1]), len(chosen)),
            "value": poses.flatten().round(5),
        }  # fmt: skip
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def furthest(found: Played) -> tuple[int, int]:
    """The two members whose paths are furthest apart."""
    between = apart(found)
    first, second = divmod(int(between.argmax()), len(between))
    return min(first, second), max(first, second)


# -- figures


@plotting.figure("10_members")
def draw_members(table: pd.DataFrame) -> Figure:
    """Every member a dot, a column a seed of the set; a bar is the column's mean. Open dots are
    means of fewer episodes than the other sets', and spread more by chance."""
    names = list(table["task"].unique())
    figure, panels = plt.subplots(len(names), 1, figsize=(7.8, 2.6 * len(names)), squeeze=False)
    for axes, task in zip(panels[:, 0], names, strict=True):
        part = table[table["task"] == task]
        shown, seeds = list(part["set"].unique()), sorted(part["seed"].unique())
        counts = part.groupby("set")["episodes"].first()
        for place, name in enumerate(shown):
            mine = part[part["set"] == name]
            fewer = counts[name] < counts.max()
            for s, seed in enumerate(seeds):
                scores = mine.loc[mine["seed"] == seed, "score"].to_numpy()
                if len(scores):
                    x = place + 0.22 * (s - (len(seeds) - 1) / 2)
                    _column(axes, x, scores, colour_of(name), filled=not fewer)
        axes.set_xticks(range(len(shown)), [_tick(name, counts) for name in shown])
        axes.tick_params(axis="x", labelsize=7.5)
        axes.set(ylabel="normalised score", title=f"{task}, {counts.max()} episodes a member")
        axes.grid(visible=False, axis="x")
    dots: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4, "color": "0.5"}
    handles = [Line2D([], [], **dots, label="a member; a column a seed")]
    if table.groupby("task")["episodes"].nunique().max() > 1:
        note = "of fewer episodes: more chance"
        handles.append(Line2D([], [], **dots, markerfacecolor="white", label=note))
    handles.append(Line2D([], [], color="0.2", linewidth=1.4, label="mean of the column"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _column(axes: Axes, x: float, scores: np.ndarray, colour: str, *, filled: bool) -> None:
    axes.scatter(
        np.full(len(scores), x), scores, s=13, alpha=0.7, edgecolor=colour,
        facecolor=colour if filled else "none", linewidth=0 if filled else 1,
    )  # fmt: skip
    axes.hlines(scores.mean(), x - 0.09, x + 0.09, color="0.2", linewidth=1.4)


def _tick(name: str, counts: pd.Series) -> str:
    """A set's name in short lines, with its episodes where others play more."""
    few = counts[name] < counts.max()
    return f"{_short(name)}\n({counts[name]} episodes)" if few else _short(name)


def _short(name: str) -> str:
    """A set's name in lines that fit below a column; κ stays with its value."""
    return textwrap.fill(name.replace(" = ", "\u00a0=\u00a0"), 10)


@plotting.figure("10_beyond_chance")
def draw_beyond_chance(table: pd.DataFrame) -> Figure:
    """Above: how much members' true means differ. Below: what choosing the best of n is worth, on
    episodes that did not choose it. A dot a seed; fresh noise is chance."""
    table = table[table["n"] > 1]
    tasks_shown = list(table["task"].unique())
    figure, panels = plt.subplots(
        2, len(tasks_shown), figsize=(2.9 * len(tasks_shown), 5.0), squeeze=False
    )
    ours = [name for name in dict.fromkeys(table["set"]) if name not in RIVALS]
    for column, task in enumerate(tasks_shown):
        part = table[table["task"] == task]
        largest = part[part["n"] == part["n"].max()]
        _between(panels[0, column], largest, ours)
        panels[0, column].set_title(task)
        _best(panels[1, column], part)
    panels[0, 0].set_ylabel("sd of members' true means\n(points of score)")
    panels[1, 0].set_ylabel("best of n − mean of the set,\non other episodes (points)")
    handles, labels = panels[1, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.5", linewidth=0.9, alpha=0.7))
    figure.legend(handles, [*labels, "thin: one seed"], loc="outside upper center",
                  ncols=len(handles), title="lower row")  # fmt: skip
    return figure


def _between(axes: Axes, part: pd.DataFrame, names: list[str]) -> None:
    for place, name in enumerate(names):
        values = part.loc[part["set"] == name, "between"].to_numpy()
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        paint, pale = colour_of(name), alpha_of(name)
        axes.scatter(
            place + spread, values, color=paint, alpha=pale, s=18, zorder=3, clip_on=False
        )  # at 0 a dot lies on the edge
        axes.hlines(values.mean(), place - 0.25, place + 0.25, color=paint, alpha=pale, linewidth=2)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7.5)
    axes.set_ylim(0, None)
    axes.grid(visible=False, axis="x")


def _best(axes: Axes, part: pd.DataFrame) -> None:
    gained = part.assign(gain=part["other_half"] - part["mean"])
    for name in (fixed(1.0), fixed(0.5), FRESH):
        mine = gained[gained["set"] == name]
        if len(mine):
            plotting.seed_lines(axes, mine, "n", "gain", colour_of(name), name)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("n sub-policies")


@plotting.figure("10_distances")
def draw_distances(table: pd.DataFrame) -> Figure:
    """Above: div of plans against the distance of what is done, a dot a set and seed; dashed: the
    same div of n noisy repeats of one behaviour, where it is known. Below: how well each of two
    distances of plans ranks what pairs of members do in a state."""
    done = table.dropna(subset=["executed_rms"])
    names, sets = list(done["task"].unique()), list(dict.fromkeys(done["set"]))
    figure, rows = plt.subplots(2, len(names), figsize=(3.7 * len(names), 5.6), squeeze=False)
    for task, above, below in zip(names, *rows, strict=True):
        part = done[done["task"] == task]
        _apart(above, part)
        above.set(title=task, xlabel="div to the nearest plan", xlim=(0, None), ylim=(0, None))
        _ranks(below, part, sets)
        below.sharey(rows[1, 0])
    rows[0, 0].set_ylabel("RMS distance of what is done\n(standard deviations of a state)")
    rows[1, 0].set_ylabel("rank correlation with it,\nover pairs in a state")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    floors = done.groupby("task", sort=False)["floor"].mean()
    handles.append(Line2D([], [], color="0.5", linestyle="--", linewidth=1))
    labels.append(_repeats(list(floors[floors.isna()].index)))
    for distance, face in (("div", "0.4"), ("plain distance", "white")):
        handles.append(Line2D([], [], linestyle="", marker="o", color="0.4", markerfacecolor=face))
        labels.append(f"lower row: ρ of {distance}")
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    absent = [name for name in dict.fromkeys(table["set"]) if name not in sets]
    if absent:
        figure.supxlabel(f"not executed from logged states: {'; '.join(absent)}", size=8)
    return figure


def _apart(axes: Axes, part: pd.DataFrame) -> None:
    for name, mine in part.groupby("set", sort=False):
        axes.scatter(
            mine["div"], mine["executed_rms"], color=colour_of(str(name)),
            marker="x" if name == UNGATED else "o", s=26, label=str(name),
            alpha=alpha_of(str(name)),
        )  # fmt: skip
    floor = part["floor"].mean()
    if np.isfinite(floor):
        axes.axvline(floor, color="0.5", linestyle="--", linewidth=1)


def _ranks(axes: Axes, part: pd.DataFrame, sets: list[str]) -> None:
    """Two dots a seed, joined: ρ of div, and of the plain distance of plans."""
    axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
    for place, name in enumerate(sets):
        mine, paint = part[part["set"] == name], colour_of(name)
        ends = mine[["rho", "rho_rms"]].to_numpy().T
        at = np.array([[place - 0.16], [place + 0.16]]) * np.ones_like(ends)
        axes.plot(at, ends, color=paint, alpha=0.35, linewidth=0.9)
        for x, y, face in zip(at, ends, (paint, "white"), strict=True):
            axes.scatter(
                x, y, s=22, facecolor=face, edgecolor=paint, alpha=alpha_of(name), zorder=3
            )
    axes.set_xticks(range(len(sets)), [_short(name) for name in sets], fontsize=7.5)
    axes.grid(visible=False, axis="x")


def _repeats(unknown: list[str]) -> str:
    """What the dashed line is, and the tasks that have none."""
    without = f" (not known: {', '.join(unknown)})" if unknown else ""
    return f"n noisy repeats of one behaviour{without}"


@plotting.figure("10_film")
def draw_film(table: pd.DataFrame) -> Figure:
    """Two sub-policies from one start, drawn from the simulator's states."""
    robot = tasks.get(str(table["task"].iloc[0])).robot
    members = list(table["member"].unique())
    figure, panels = plt.subplots(
        len(members), 1, figsize=(6.4, 1.35 * len(members)), squeeze=False
    )
    for axes, i in zip(panels[:, 0], members, strict=True):
        mine = table[table["member"] == i].pivot(index="step", columns="number", values="value")
        pictures = rendering.frames(robot, mine.to_numpy(), size=(FILM_SIDE, FILM_SIDE))
        seconds = [f"{step * robot.step_seconds:.2f} s" for step in mine.index]
        rendering.film_strip(axes, pictures, seconds, named=i == members[-1])
        axes.set_title(f"sub-policy {i}", loc="left", size=8)
    return figure
