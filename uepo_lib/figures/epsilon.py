"""E2 as pictures: what each ε keeps, what T̂'s error becomes, and what chance would have done."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.experiments.epsilon_verdict import MARGIN

SOURCES = {
    "model": ("D_diff from T̂_init", "model"),
    "simulator": ("D_diff from the simulator", "highlight"),
}
"""Name and colour of D_diff by what made its transitions, in every figure that has both."""
BAND = f"within {2**MARGIN - 1:.0%} of the error"
SHIFT = 0.09
"""Sources stand this far left and right of their ε, their controls twice as far."""


# -- table


def chance_table(gained: pd.DataFrame) -> pd.DataFrame:
    """``gained`` (``epsilon_verdict.gains``): the filter beside as many transitions at random.

    A control of one volume serves every ε that fills as much, and no filter too: there nothing is
    chosen on either side, and what is left is the luck of the draw. Columns source, epsilon, seed,
    data, step, volume, effect (log2 of the control's error over the filter's).
    """
    cell = ["source", "ratio", "seed", "volume", "data", "step"]
    drawn = gained[gained["acceptance"] == "random"].drop_duplicates(cell)
    filtered = gained[gained["acceptance"] == "kl"]
    both = filtered.merge(drawn[[*cell, "gain"]], on=cell, suffixes=("", "_at_random"))
    both["effect"] = both["gain"] - both["gain_at_random"]
    return both[["source", "epsilon", "seed", "data", "step", "volume", "effect"]]


def chance_says(chance: pd.DataFrame) -> str:
    """:func:`chance_table` in words: means over seeds, the filter beside the luck of the draw."""
    unfiltered = chance["epsilon"].isna()
    cell = ["source", "epsilon", "data", "step"]
    luck, filtered = (
        part.groupby(cell, dropna=False)["effect"].mean().to_numpy()
        for part in (chance[unfiltered], chance[~unfiltered])
    )
    if not len(luck):
        return "No control fills as much as no filter does: the luck of the draw is not measured."
    largest = np.abs(luck).max()
    beyond = filtered[np.abs(filtered) > largest]
    return (
        f"Where nothing is filtered, two draws of equal volume differ in the mean error by up to "
        f"{2**largest - 1:.0%}, from luck alone. The filter's effect is beyond that in "
        f"{len(beyond)} of {len(filtered)} comparisons of means, in its favour in "
        f"{(beyond > 0).sum()} of them."
    )


# -- figures


def _places(table: pd.DataFrame) -> dict[float, int]:
    """Where each ε stands on the axis, no filter last."""
    return {e: i for i, e in enumerate(sorted(table["epsilon"].fillna(math.inf).unique()))}


def _axis(axes: Axes, places: dict[float, int]) -> None:
    names = ["no filter" if math.isinf(e) else f"{e:g}" for e in places]
    axes.set_xticks(list(places.values()), names)
    axes.set_xlabel("ε (nats a dimension)")


def _placed(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[float, int]]:
    """``table`` with a column "place", and where each ε stands."""
    places = _places(table)
    return table.assign(place=table["epsilon"].fillna(math.inf).map(places)), places


@plotting.figure("05_epsilon_volume")
def draw_volume(table: pd.DataFrame) -> Figure:
    """Columns source, epsilon, acceptance, seed, passing, filled: the share of trajectories below
    ε, and how much of the wanted D_diff they filled."""
    figure, (left, right) = plotting.panels(2, 3.6)
    table, places = _placed(table[table["acceptance"] == "kl"])
    for axes, value, label in (
        (left, "passing", "share of trajectories below ε"),
        (right, "filled", "|D_diff| over the wanted volume"),
    ):
        for source, (name, colour) in SOURCES.items():
            part = table[table["source"] == source]
            if len(part):
                plotting.seed_lines(axes, part, "place", value, plotting.COLOURS[colour], name)
        _axis(axes, places)
        axes.set(ylabel=label, ylim=(0, 1.06))
    left.legend(loc="lower right")
    return figure


@plotting.figure("05_epsilon_error")
def draw_error(table: pd.DataFrame) -> Figure:
    """Columns source, epsilon, acceptance, seed, volume, data, step, gain: how much less T̂ errs
    than T̂_init, a panel a test, all on one scale. Seeds are dots, means lines; a control is its
    mean and the range of its seeds."""
    table, places = _placed(table)
    figure, grid = _grid(table)
    for axes, part in _tests(grid, table):
        for shift, (source, (label, colour)) in _shifted():
            one, paint = part[part["source"] == source], plotting.COLOURS[colour]
            kl, drawn = one[one["acceptance"] == "kl"], one[one["acceptance"] == "random"]
            if len(kl):
                _seeds(axes, kl, "gain", shift, paint, label)
            if len(drawn):
                _controls(axes, kl, drawn, 2.4 * shift, paint, f"{label}, at random")
        _axis(axes, places)
    said = "lines: means; small dots: seeds; diamonds: means of controls with the range of seeds"
    _finish(figure, grid, "log2(error of T̂_init / error of T̂);  above 0: D_diff helps", said)
    return figure


@plotting.figure("05_epsilon_chance")
def draw_chance(table: pd.DataFrame) -> Figure:
    """:func:`chance_table`: how much less T̂ errs than with as many transitions drawn at random, a
    panel a test, all on one scale; seeds are dots, means lines."""
    table, places = _placed(table)
    figure, grid = _grid(table)
    for axes, part in _tests(grid, table):
        for shift, (source, (label, colour)) in _shifted():
            one = part[part["source"] == source]
            if len(one):
                _seeds(axes, one, "effect", shift, plotting.COLOURS[colour], label)
        _axis(axes, places)
    said = "lines: means; small dots: seeds"
    _finish(figure, grid, "log2(error at random / error filtered);  above 0: filtering helps", said)
    return figure


# -- parts of the last two


def _shifted() -> Iterator[tuple[float, tuple[str, tuple[str, str]]]]:
    return zip((-SHIFT, SHIFT), SOURCES.items(), strict=True)


def _grid(table: pd.DataFrame) -> tuple[Figure, np.ndarray]:
    """A row of panels a set of test data, a column a number of steps."""
    shape = (table["data"].nunique(), table["step"].nunique())
    size = (3.7 * shape[1], 2.5 * shape[0] + 0.5)
    return plt.subplots(*shape, figsize=size, sharex=True, sharey=True, squeeze=False)


def _tests(grid: np.ndarray, table: pd.DataFrame) -> Iterator[tuple[Axes, pd.DataFrame]]:
    """Each panel with its part of the table, its title and the band of no effect."""
    for row, data in zip(grid, table["data"].unique(), strict=True):
        for axes, step in zip(row, sorted(table["step"].unique()), strict=True):
            axes.axhspan(-MARGIN, MARGIN, color="0.93", zorder=0, label=BAND)
            axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
            axes.set_title(f"{str(data).partition(' (')[0]}, {step} step{'s' if step > 1 else ''}")
            yield axes, table[(table["data"] == data) & (table["step"] == step)]


def _finish(figure: Figure, grid: np.ndarray, label: str, said: str) -> None:
    for axes in grid[:-1].flat:
        axes.set_xlabel("")
    figure.supylabel(label, fontsize=9)
    named = dict(zip(*reversed(grid[0][0].get_legend_handles_labels()), strict=True))
    named[BAND] = named.pop(BAND)  # last, after what was measured
    figure.legend(
        named.values(), named.keys(), loc="outside upper center", ncols=3, title=said,
        title_fontsize=8,
    )  # fmt: skip


def _seeds(
    axes: Axes, table: pd.DataFrame, value: str, shift: float, paint: str, label: str
) -> None:
    """A small dot a seed, and a line through the means."""
    axes.scatter(table["place"] + shift, table[value], s=12, color=paint, alpha=0.6, linewidth=0)
    mean = table.groupby("place")[value].mean()
    axes.plot(mean.index + shift, mean, color=paint, marker="o", markersize=4, label=label)


def _controls(
    axes: Axes, kl: pd.DataFrame, drawn: pd.DataFrame, shift: float, paint: str, label: str
) -> None:
    """An open diamond a volume with the range of its seeds, and dashes to every ε that fills as
    much: draws of one volume are one result, however many ε they were made for."""
    seen = drawn.groupby("place").agg(
        mean=("gain", "mean"), low=("gain", "min"), high=("gain", "max"), volume=("volume", "mean")
    )
    once = seen.drop_duplicates("volume")
    filled = kl.groupby("place")["volume"].mean()
    for mean, volume in once[["mean", "volume"]].itertuples(index=False):
        equal = filled.index[filled == volume]
        axes.plot(equal + shift, [mean] * len(equal), "--", color=paint, linewidth=0.9)
    axes.vlines(once.index + shift, once["low"], once["high"], color=paint, linewidth=1)
    axes.scatter(
        once.index + shift, once["mean"], s=30, facecolor="white", edgecolor=paint, marker="D",
        zorder=4, label=label,
    )  # fmt: skip
