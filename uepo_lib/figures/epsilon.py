"""E2 as pictures: what each ε keeps, and what T̂'s error becomes."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.experiments.epsilon_verdict import MARGIN

SOURCES = {
    "model": ("D_diff from T̂_init", "UEPO"),
    "simulator": ("D_diff from the simulator", "highlight"),
}
"""Name and colour of D_diff by what made its transitions, in every figure that has both."""


def _places(table: pd.DataFrame) -> dict[float, int]:
    """Where each ε stands on the axis, "none" last."""
    return {e: i for i, e in enumerate(sorted(table["epsilon"].fillna(math.inf).unique()))}


def _axis(axes: Axes, places: dict[float, int]) -> None:
    names = ["none" if math.isinf(e) else f"{e:g}" for e in places]
    axes.set_xticks(list(places.values()), names)
    axes.set_xlabel("ε (nats a dimension)")


def _lines(axes: Axes, table: pd.DataFrame, value: str) -> None:
    """A line a source with its seeds; controls as :func:`_controls` has them."""
    places = _places(table)
    table = table.assign(place=table["epsilon"].fillna(math.inf).map(places))
    for source, (label, colour) in SOURCES.items():
        part, paint = table[table["source"] == source], plotting.COLOURS[colour]
        kl, drawn = part[part["acceptance"] == "kl"], part[part["acceptance"] == "random"]
        if len(kl):
            plotting.seed_lines(axes, kl, "place", value, paint, label)
        if len(drawn):
            _controls(axes, kl, drawn, value, paint, f"{label}, drawn at random")
    _axis(axes, places)


def _controls(
    axes: Axes, kl: pd.DataFrame, drawn: pd.DataFrame, value: str, paint: str, label: str
) -> None:
    """An open diamond a volume, and dashes to every ε that fills as much: draws of one volume are
    one result, however many ε they were made for."""
    once = drawn.groupby("place")[[value, "volume"]].mean().drop_duplicates("volume")
    filled = kl.groupby("place")["volume"].mean()
    for mean, volume in once.itertuples(index=False):
        equal = filled.index[filled == volume]
        axes.plot(equal, [mean] * len(equal), "--", color=paint, linewidth=0.9)
    axes.scatter(
        once.index, once[value], s=42, facecolor="white", edgecolor=paint, marker="D", zorder=4,
        label=label,
    )  # fmt: skip


@plotting.figure("05_epsilon_volume")
def draw_volume(table: pd.DataFrame) -> Figure:
    """Columns source, epsilon, acceptance, seed, passing, filled: the share of trajectories below
    ε, and how much of the wanted D_diff they filled."""
    figure, (left, right) = plotting.panels(2, 3.6)
    filtered = table[table["acceptance"] == "kl"]
    for axes, value, label in (
        (left, "passing", "share of trajectories below ε"),
        (right, "filled", "|D_diff| over the wanted volume"),
    ):
        _lines(axes, filtered, value)
        axes.set(ylabel=label, ylim=(0, 1.06))
    left.legend(loc="lower right")
    return figure


@plotting.figure("05_epsilon_error")
def draw_error(table: pd.DataFrame) -> Figure:
    """Columns source, epsilon, acceptance, seed, volume, data, step, gain: how much less T̂ errs
    than T̂_init, a panel a test. Scales differ; the band is as high in all of them."""
    tests = table[["data", "step"]].drop_duplicates().itertuples(index=False)
    chosen = [(str(data), int(step)) for data, step in tests]
    figure, panels = plotting.panels(len(chosen), 2.75, 3.1)
    for axes, (data, step) in zip(panels, chosen, strict=True):
        _lines(axes, table[(table["data"] == data) & (table["step"] == step)], "gain")
        band = f"{2**MARGIN - 1:.0%} of the error"
        axes.axhspan(-MARGIN, MARGIN, color="0.93", zorder=0, label=band)
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axes.set_title(f"{data.partition(' (')[0]}, {step} step{'s' if step > 1 else ''}")
    panels[0].set_ylabel("log2(error of T̂_init / error of T̂)\nabove 0: D_diff helps")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
