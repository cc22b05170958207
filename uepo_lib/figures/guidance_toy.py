"""Notebook 04: guidance on the toy, drawn: the settings that were tried, and the four sets."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from uepo_lib import plotting
from uepo_lib.coverage import null_coverage
from uepo_lib.figures.guidance import MARGIN, NAMES, SETS, SUPPORT, ToyStudy, choose, near_best

PANELS = (
    ("call_share", "calls with min div ≥ τ (share)", 1.0),
    ("modes", "modes (of 4)", 4.0),
    ("in_support", "plans within a mode (share)", 1.0),
)
"""What is shown of a set: column, name, and the most that is possible; the least is 0."""
FRAME: dict[str, Any] = {"fill": False, "linewidth": 2}
NEAR: dict[str, Any] = FRAME | {"edgecolor": "0.15", "linestyle": ":"}
CHOSEN: dict[str, Any] = FRAME | {"edgecolor": "black", "linewidth": 3}
"""Frames of settings that are as good as the best, and of the one that is taken."""


# -- settings


@plotting.figure("04_toy_tuning")
def draw_toy_tuning(table: pd.DataFrame) -> Figure:
    """Every setting that was tried, a row of maps a schedule: reverse steps by η, the unguided
    sets as η = 0; framed what the rule that chooses looked at."""
    schedules = sorted(table.loc[table["eta"] > 0, "schedule"].unique())
    figure, grid = plt.subplots(
        len(schedules), len(PANELS), figsize=(9.6, 1.1 + 2.2 * len(schedules)), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    kept = table[table["in_support"] >= SUPPORT]
    for row, schedule in zip(grid, schedules, strict=True):
        shown = table[table["schedule"].isin((schedule, "none"))]
        for axes, (column, _, _) in zip(row, PANELS, strict=True):
            # one scale a column for both schedules, over the cells that are not grey
            _map(axes, shown, column, kept[column].min(), kept[column].max())
            _frame(axes, shown, near_best(table), NEAR)
            _frame(axes, shown, choose(table).to_frame().T, CHOSEN)
        row[0].set_ylabel(f"{schedule} η\nreverse steps")
    for top, bottom, (_, title, _) in zip(grid[0], grid[-1], PANELS, strict=True):
        top.set_title(title)
        bottom.set_xlabel("η (action units)")
    figure.legend(handles=_legend(), loc="outside upper center", ncols=3)
    return figure


def _map(axes: Axes, shown: pd.DataFrame, column: str, low: float, high: float) -> None:
    """A cell a setting with its number; grey where plans leave the modes."""
    wide, kept = (
        shown.pivot(index="steps", columns="eta", values=name) for name in (column, "in_support")
    )
    outside = kept.to_numpy() < SUPPORT
    shades = LinearSegmentedColormap.from_list("", ["white", plotting.COLOURS["UEPO"]])
    shade = (wide.to_numpy() - low) / max(high - low, 1e-9)
    paint = shades(0.85 * shade)
    paint[outside] = (*to_rgb("0.9"), 1.0)
    axes.imshow(paint, aspect="auto")
    digits = ".3f" if column == "in_support" else ".2f"  # enough to see which side of SUPPORT
    for (i, j), value in np.ndenumerate(wide.to_numpy()):
        dark = shade[i, j] > 0.6 and not outside[i, j]
        ink = "white" if dark else "0.55" if outside[i, j] else "0.1"
        axes.text(j, i, f"{value:{digits}}", ha="center", va="center", color=ink, fontsize=8)
    taus = shown.groupby("steps")["tau"].first()
    axes.set_yticks(range(len(taus)), [f"{s}, τ = {tau:.2f}" for s, tau in taus.items()])
    names = [f"{eta:g}" if eta else "unguided" for eta in wide.columns]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.grid(False)
    axes.axvline(0.5, color="white", linewidth=3)  # the unguided sets stand apart
    axes.spines[:].set_visible(False)


def _frame(axes: Axes, shown: pd.DataFrame, settings: pd.DataFrame, style: dict[str, Any]) -> None:
    """A frame around the cell of every one of ``settings`` that this map has."""
    steps, etas = sorted(shown["steps"].unique()), sorted(shown["eta"].unique())
    here = settings[settings["schedule"].isin(shown["schedule"])]
    for row in here.itertuples():
        corner = (etas.index(row.eta) - 0.46, steps.index(row.steps) - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, **style))


def _legend() -> list[Patch]:
    return [
        Patch(facecolor="0.9", label=f"under {SUPPORT:.0%} of plans within a mode"),
        Patch(label=f"within {100 * MARGIN:.0f} points of the best", **NEAR),
        Patch(label="chosen: of these the weakest η", **CHOSEN),
    ]


# -- sets


@plotting.figure("04_toy_guidance")
def draw_toy_guidance(table: pd.DataFrame) -> Figure:
    """The four sets against η, side by side: mean over sets of seeds with its 95 % interval, as
    far as that is possible; a line at the η that was chosen."""
    figure, panels = plotting.panels(3, 3.1, 3.2)
    chosen = table.loc[table["chosen"], "eta"].unique() if "chosen" in table else ()
    for axes, (column, label, most) in zip(panels, PANELS, strict=True):
        for eta in chosen:
            axes.axvline(eta, color="0.5", linestyle=":", label="chosen η")
        for i, (name, colour) in enumerate(SETS.items()):
            means = table[table["set"] == name].groupby("eta")[column]
            mean = means.mean()
            half: pd.Series = 1.96 * means.std() / np.sqrt(means.size())
            low, high = (mean - half).clip(lower=0), (mean + half).clip(upper=most)
            axes.errorbar(
                mean.index * 1.09 ** (i - 1.5), mean, [mean - low, high - mean],
                color=plotting.COLOURS[colour], marker="o", markersize=3, capsize=2,
                label=NAMES.get(name, name),
            )  # fmt: skip
        _eta_axis(axes, table["eta"])
        axes.set_ylabel(label)
    panels[1].axhline(
        null_coverage(ToyStudy.n), color="0.4", linestyle="--", linewidth=1,
        label="independent draws",
    )  # fmt: skip
    handles, labels = panels[1].get_legend_handles_labels()
    said = "mean over sets, with its 95 % interval"
    figure.legend(handles, labels, loc="outside upper center", ncols=3, title=said)
    return figure


def _eta_axis(axes: Axes, etas: pd.Series) -> None:
    axes.set(xlabel="η (action units)", xscale="log")
    axes.set_xticks(sorted(etas.unique()))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
