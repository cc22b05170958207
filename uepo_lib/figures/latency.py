"""E4 as pictures: time to a decision, and the price of a late one."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.experiments.latency import GAUSSIAN, RATES

BACKBONES = {
    "unet_transformer": ("U-Net + Transformer", plotting.COLOURS["UEPO"]),
    "unet": ("U-Net", plotting.COLOURS["model"]),
    "mlp": ("MLP", plotting.COLOURS["highlight"]),
}
LATE = {
    "clone": ("Gaussian clone", plotting.COLOURS["BC"]),
    "stale": ("diffusion, stale plan", plotting.COLOURS["UEPO"]),
    "ahead": ("diffusion, overtaken actions skipped", plotting.COLOURS["model"]),
    "fresh": ("control: no delay, d actions skipped", plotting.COLOURS["control"]),
    "longer": ("control: no delay, $T_a$ + d executed", plotting.COLOURS["highlight"]),
}


@plotting.figure("13_times")
def draw_times(table: pd.DataFrame) -> Figure:
    """Columns backbone, steps, n, median, p99: a band from median to 99th percentile."""
    figure, (left, right) = plotting.panels(2, 4.1, 3.6)
    right.sharey(left)  # one quantity: heights are compared across the panels
    usual = int(table.loc[(table["n"] > 1), "steps"].iloc[0])
    single, together = table[table["n"] == 1], table[table["steps"] == usual]
    gaussian = float(table.loc[table["backbone"] == GAUSSIAN, "median"].iloc[0])
    for axes, part, x in ((left, single, "steps"), (right, together, "n")):
        for name, (label, colour) in BACKBONES.items():
            _times(axes, part[part["backbone"] == name], x, colour, label)
        axes.axhline(gaussian, color=plotting.COLOURS["BC"], linestyle="--", linewidth=1)
        axes.set(xscale="log", yscale="log")
        axes.xaxis.minorticks_off()
        _rates(axes, named=axes is right)
        values = sorted(part.loc[part["backbone"] != GAUSSIAN, x].unique())
        axes.set_xticks(values, [f"{value:g}" for value in values])
    plotting.plain_ticks(left.yaxis)
    right.tick_params(which="both", labelleft=False)
    left.set(xlabel="denoising steps (n = 1)", ylabel="time to a decision (ms)")
    right.set(xlabel=f"n sub-policies ({usual} denoising steps)")
    left.plot([], [], "--", color=plotting.COLOURS["BC"], label="Gaussian MLP")
    left.fill_between([], [], [], color="0.5", alpha=0.3, label="to the 99th percentile")
    left.plot([], [], ":", color="0.4", linewidth=1, label="one period of a control rate")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _rates(axes: Axes, named: bool) -> None:
    """The control periods of :data:`RATES`, each named at the right."""
    for rate in RATES:
        axes.axhline(1_000 / rate, color="0.4", linewidth=1, linestyle=":", zorder=1)
        if named:
            axes.text(
                1.015, 1_000 / rate, f"{rate} Hz", size=8, color="0.3", va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip


def _times(axes: Axes, part: pd.DataFrame, x: str, colour: str, label: str) -> None:
    part = part.sort_values(x)
    axes.plot(part[x], part["median"], color=colour, marker="o", markersize=3, label=label)
    axes.fill_between(part[x], part["median"], part["p99"], color=colour, alpha=0.15)


@plotting.figure("13_delay")
def draw_delay(table: pd.DataFrame) -> Figure:
    """Columns seed, policy, delay, score: a thin line a seed, the mean bold."""
    figure, (axes,) = plotting.panels(1, 7.4, 3.2)
    for name, (label, colour) in LATE.items():
        part = table[table["policy"] == name]
        plotting.seed_lines(axes, part, "delay", "score", colour, label)
    axes.set(xlabel="delay d, or d of the controls (control steps)", ylabel="normalised score")
    axes.set_xticks(sorted(table["delay"].unique()))
    axes.plot([], [], color="0.3", alpha=0.5, linewidth=0.9, label="thin: a seed; bold: their mean")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure
