"""E8 as pictures: each diagnostic's values beside its threshold, and the failures themselves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.diagnostics import (
    CALIBRATION_SEEDS,
    COLLAPSE,
    FAR_START,
    IMPLAUSIBLE,
    SIGNATURES,
    WORSE_MODEL,
)
from uepo_lib.experiments.failure_pipeline import CAUSES, HEALTHY

QUIET, LOUD, MILD = (plotting.COLOURS[name] for name in ("UEPO", "BC", "highlight"))
KINDS = {QUIET: "healthy", LOUD: "provoked", MILD: "mild: no guidance, κ = 1"}
DOORS = ((1, 1), (-1, 1), (-1, -1), (1, -1))
TITLES = {
    COLLAPSE: "div to the nearest plan (toy, 1 of {} seeds)",
    WORSE_MODEL: "error of T̂ on real steps (maze, 1 of {} seeds)",
    FAR_START: "arrivals while fine-tuning (maze, {} seeds)",
    IMPLAUSIBLE: "plans from one state (toy, 1 of {} seeds)",
}
"""Of the pictures; the number is that of all seeds."""
REACH = 1.4
"""Half the side of the smallest picture of walks: the doors with room around them."""


def _colour(cause: str) -> str:
    if cause == HEALTHY:
        return QUIET
    return MILD if CAUSES[cause].mild else LOUD


@plotting.figure("17_values")
def draw_values(table: pd.DataFrame) -> Figure:
    """Columns seed, setting, cause, signature, value, threshold: a panel a signature, with the
    healthy runs and those provoked for it; hollow where the threshold was set."""
    columns_of = {name: _columns(table, name) for name in SIGNATURES}
    widths = [max(3, len(columns)) + 1 for columns in columns_of.values()]
    figure, axes = plt.subplots(
        1, len(SIGNATURES), figsize=(12.5, 4.2), gridspec_kw={"width_ratios": widths}
    )
    for panel, (name, columns) in zip(axes, columns_of.items(), strict=True):
        part = table[table["signature"] == name]
        for place, (cause, setting) in enumerate(columns):
            chosen = part[(part["cause"] == cause) & (part["setting"] == setting)]
            _strip(panel, place, chosen, _colour(cause))
        panel.axhline(float(part["threshold"].iloc[0]), color="0.3", linestyle="--", linewidth=1)
        labels = [f"{s}: {'healthy' if c == HEALTHY else c}" for c, s in columns]
        panel.set_xticks(range(len(columns)), labels, rotation=40, ha="right", size=8)
        panel.set(yscale="log", title=name, xlim=(-0.6, len(columns) - 0.4))
        narrow = part["value"].max() < 10 * part["value"].min()
        plotting.plain_ticks(panel.yaxis, (2, 3, 4, 5) if narrow else (2, 5))
    axes[0].set_ylabel("value (no unit)")
    for face, label in (("none", "seeds 0 to 4: set the threshold"), ("0.3", "seeds 5 to 9: test")):
        axes[0].scatter([], [], edgecolors="0.3", facecolors=face, s=18, label=label)
    axes[0].plot([], [], "--", color="0.3", linewidth=1, label="threshold")
    for colour, label in KINDS.items():
        axes[0].plot([], [], "s", color=colour, markersize=5, label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _columns(table: pd.DataFrame, name: str) -> list[tuple[str, str]]:
    """Cause and setting of the columns of a signature, the healthy ones first."""
    settings = table.loc[table["signature"] == name, "setting"].unique()
    causes = [c for c in CAUSES if c == HEALTHY or CAUSES[c].signature == name]
    return [(cause, setting) for cause in causes for setting in settings]


def _strip(axes: Axes, place: int, part: pd.DataFrame, colour: str) -> None:
    part = part.sort_values("seed")
    known = part["seed"].isin(CALIBRATION_SEEDS)
    spread = np.linspace(-0.22, 0.22, max(len(part), 2))[: len(part)]
    for chosen, face in ((known, "none"), (~known, colour)):
        axes.scatter(
            place + spread[chosen.to_numpy()], part.loc[chosen, "value"], edgecolors=colour,
            facecolors=face, s=18, zorder=3,
        )  # fmt: skip


@plotting.figure("17_pictures")
def draw_pictures(table: pd.DataFrame) -> Figure:
    """Columns seed, panel, cause, line, x, y. Curves are of all seeds, the others of the last one
    that a panel has."""
    figure, axes = plt.subplots(2, 2, figsize=(7.4, 7.4))
    for panel, name in zip(axes.flat, SIGNATURES, strict=True):
        part = table[table["panel"] == name]
        if name != FAR_START:
            part = part[part["seed"] == part["seed"].max()]
        panel.set_title(TITLES[name].format(table["seed"].nunique()))
        bad = next(c for c in CAUSES if CAUSES[c].signature == name)
        for cause in (HEALTHY, bad):
            chosen = part[part["cause"] == cause]
            draw = {COLLAPSE: _nearest, WORSE_MODEL: _errors, FAR_START: _curves}.get(name, _walks)
            draw(panel, chosen, _colour(cause), "healthy" if cause == HEALTHY else cause)
        below = -0.02 if name == IMPLAUSIBLE else -0.2  # an axis has its label there
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, below))
    return figure


def _walks(axes: Axes, part: pd.DataFrame, colour: str, label: str) -> None:
    for line, walk in part.groupby("line"):
        axes.plot(walk["x"], walk["y"], color=colour, alpha=0.6, linewidth=1,
                  label=label if line == 0 else None)  # fmt: skip
    x, y = zip(*DOORS, strict=True)
    door = None if colour == QUIET else "door"  # once, though two causes are drawn
    axes.scatter(x, y, marker="s", color="0.6", s=24, zorder=0, label=door)
    half = max(REACH, 1.05 * float(np.abs(axes.dataLim.get_points()).max()))
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", xticks=(), yticks=())


def _nearest(axes: Axes, part: pd.DataFrame, colour: str, label: str) -> None:
    _sorted(axes, part, colour, ("D", label))
    axes.set(xlabel="share of plans", ylabel="div, quantile")


def _errors(axes: Axes, part: pd.DataFrame, colour: str, label: str) -> None:
    _sorted(axes, part, colour, ("model of D alone", f"T̂, {label}"))
    axes.set(xlabel="share of held-out steps", ylabel="RMS error, quantile")


def _sorted(axes: Axes, part: pd.DataFrame, colour: str, labels: tuple[str, str]) -> None:
    base, final = (part[part["line"] == line] for line in (0, 1))
    if colour == QUIET:  # the healthy run and the other have the same base
        axes.plot(base["x"], base["y"], "--", color="0.4", label=labels[0])
    axes.plot(final["x"], final["y"], color=colour, label=labels[1])
    axes.set_yscale("log")


def _curves(axes: Axes, part: pd.DataFrame, colour: str, label: str) -> None:
    order = part.groupby("line")["x"].rank(method="first")  # runs end a chunk apart
    part, order = part[order > 1], order[order > 1]  # no episode has ended in the first update
    wide = part.assign(update=order).pivot_table(index="update", columns="line", values="y")
    steps = part.assign(update=order).groupby("update")["x"].mean()
    axes.plot(steps, wide.to_numpy(), color=colour, alpha=0.3, linewidth=0.9)
    axes.plot(steps, wide.mean(axis=1), color=colour, marker="o", markersize=3, label=label)
    axes.set(xlabel="environment steps, from the second update on", ylabel="share that arrives")
    axes.set(xlim=(0, None), ylim=(-0.03, 1.03))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1_000:g}k" if value else "0")
