"""E2's remainder as pictures: the ratio, what is thrown away, and what AM-Q makes of T̂."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from uepo_lib import plotting
from uepo_lib.experiments.epsilon_verdict import MARGIN
from uepo_lib.experiments.ratios import EPSILON
from uepo_lib.figures.epsilon import SOURCES

QUANTITIES = {
    "distance": ("distance from D", "#000000"),
    "disagreement": ("elites disagree", "#009E73"),
    "error": ("true error of T̂_init", "#D55E00"),
    "reward": ("reward a step", "#8C6D31"),
    "speed": ("speed", "#CC79A7"),
    "length": ("length", "#999999"),
}
"""Not in the colours of the sources, which stand beside them on the page."""
DASHED = ("reward",)
"""On top of the others: Hopper is paid for its speed, and one line would hide the other."""


FIFTHS = 5
HOW = (("kl", True, "o-", "filtered"), ("random", True, "D--", "at random"),
       ("kl", False, "s:", "unfiltered"))  # fmt: skip
"""Of D_diff: its acceptance, whether at an ε, its line, its name."""


@plotting.figure("11_ratio")
def draw_ratio(table: pd.DataFrame) -> Figure:
    """Columns source, ratio, epsilon, acceptance, seed, data, step, gain: a row a number of steps,
    on one scale; a column a test set. Bold lines are means over all seeds; where some are left out
    the mean of the others is an open marker, joined to nothing. Thin lines are the filter's seeds.
    """
    datasets, steps = list(dict.fromkeys(table["data"])), sorted(table["step"].unique())
    figure, rows = plt.subplots(
        len(steps), len(datasets), figsize=(3.9 * len(datasets), 2.7 * len(steps)), sharey="row",
        sharex=True, squeeze=False,
    )  # fmt: skip
    seeds = table["seed"].nunique()
    for row, step in zip(rows, steps, strict=True):
        for axes, data in zip(row, datasets, strict=True):
            here = table[(table["data"] == data) & (table["step"] == step)]
            for source in SOURCES:
                _by_ratio(axes, here[here["source"] == source], source, seeds)
            band = f"{2**MARGIN - 1:.0%} of the error"
            axes.axhspan(-MARGIN, MARGIN, color="0.93", zorder=0, label=band)
            axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
            axes.set_title(f"{data.partition(' (')[0]}, {step} step{'s' if step > 1 else ''}")
            axes.set_xticks(sorted({0, *table["ratio"]} - {0.25, 0.5}))
            axes.tick_params(labelbottom=True)
    for axes in rows[-1]:
        axes.set_xlabel("|D_diff| / |D|")
    figure.supylabel("log2(error of T̂_init / error of T̂); above 0: D_diff helps", size=9)
    handles, labels = rows[0, 0].get_legend_handles_labels()
    seed = Line2D([], [], color="0.5", linewidth=0.9, alpha=0.7, label="one seed, filtered")
    few = Line2D([], [], color="0.5", marker="o", markerfacecolor="white", linestyle="",
                 markersize=4, label="open: not all seeds are filled")  # fmt: skip
    notes = [seed, few] if _partial(table, seeds) else [seed]
    figure.legend(handles=[*handles, *notes], labels=[*labels, *(n.get_label() for n in notes)],
                  loc="outside upper center", ncols=3)  # fmt: skip
    return figure


def _by_ratio(axes: Axes, part: pd.DataFrame, source: str, seeds: int) -> None:
    """One source's lines in one panel."""
    label, paint = SOURCES[source][0], plotting.COLOURS[SOURCES[source][1]]
    for acceptance, at_epsilon, line, name in HOW:
        one = part[(part["acceptance"] == acceptance) & (part["epsilon"].notna() == at_epsilon)]
        if acceptance == "kl" and at_epsilon and len(one):
            each = one.pivot(index="ratio", columns="seed", values="gain")
            axes.plot(each.index, each.to_numpy(), color=paint, alpha=0.35, linewidth=0.9)
        whole, some = means_of_all(one, "ratio", "gain", seeds)
        axes.plot(whole.index, whole, line, color=paint, markersize=4, label=f"{label}, {name}")
        axes.plot(some.index, some, line[0], color=paint, markersize=5, markerfacecolor="white")


def means_of_all(part: pd.DataFrame, x: str, y: str, seeds: int) -> tuple[pd.Series, pd.Series]:
    """The mean of ``y`` at each ``x`` that all ``seeds`` have, and at each that fewer have: the two
    are not of the same seeds, and one line through both would show who is missing as an effect."""
    by_place = part.groupby(x)[y]
    means, complete = by_place.mean(), by_place.size() == seeds
    return means[complete], means[~complete]


def _partial(table: pd.DataFrame, seeds: int) -> bool:
    cells = table.groupby(["source", "ratio", "epsilon", "acceptance"], dropna=False)["seed"]
    return bool((cells.nunique() < seeds).any())


@plotting.figure("11_discarded")
def draw_discarded(table: pd.DataFrame) -> Figure:
    """Columns source, seed, epsilon, quantity, separation: P(rejected > accepted) by ε."""
    figure, panels = plotting.panels(len(SOURCES), 3.6, 3.2)
    places = {e: i for i, e in enumerate(sorted(table["epsilon"].unique()))}
    table = table.assign(place=table["epsilon"].map(places))
    for axes, (source, (label, _)) in zip(panels, SOURCES.items(), strict=True):
        part = table[table["source"] == source]
        for name, (text, colour) in QUANTITIES.items():
            one = pd.DataFrame(part[part["quantity"] == name])
            if len(one):
                plotting.seed_lines(axes, one, "place", "separation", colour, text)
            if name in DASHED and len(one):
                axes.lines[-1].set(linestyle="--", zorder=3)
        axes.axhline(0.5, color="0.4", linestyle=":", linewidth=1)
        axes.set_xticks(list(places.values()), [f"{e:g}" for e in places])
        axes.set(title=label.removeprefix("D_diff "), xlabel="ε (nats a dimension)", ylim=(0, 1.03))
    panels[0].set_ylabel("P(a rejected one is larger)")
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


@plotting.figure("11_novelty")
def draw_novelty(table: pd.DataFrame) -> Figure:
    """Columns seed, excess, error, filtered, random: the filter's value against T̂_init's true
    error, and what each T̂ learnt, by fifths of that value; all on trajectories that neither T̂ was
    fitted to. Dashed lines are ε: right, where it lies among each seed's fifths."""
    figure, (left, right) = plotting.panels(2, 3.9, 3.4)
    dashes: dict[str, Any] = {"color": "0.2", "linestyle": "--", "linewidth": 1}
    left.scatter(table["excess"], table["error"], s=7, alpha=0.4, color=plotting.COLOURS["data"])
    left.axvline(EPSILON, **dashes)
    left.set(
        xlabel="excess KL (nats a dimension)", yscale="log",
        ylabel="true error of T̂_init\n(mean square, standardised)",
        title="unseen simulator trajectories,\nseeds pooled",
    )  # fmt: skip
    fifth = table.groupby("seed")["excess"].transform(
        lambda x: pd.qcut(x.rank(method="first"), min(FIFTHS, len(x)), labels=False)
    )
    table = table.assign(fifth=fifth + 1)
    source = SOURCES["simulator"][1]
    for name, label, colour in (("random", "D_diff drawn at random", "control"),
                                ("filtered", "D_diff filtered", source)):  # fmt: skip
        means = table.groupby(["seed", "fifth"])[name].mean().reset_index()
        plotting.seed_lines(right, means, "fifth", name, plotting.COLOURS[colour], label)
    for below in (table["excess"] < EPSILON).groupby(table["seed"]).mean():
        right.axvline(0.5 + FIFTHS * below, **dashes)
    right.axhline(0, color="0.4", linestyle=":", linewidth=1)
    right.set(
        xlabel="fifths of a seed's trajectories, by excess",
        ylabel="log2(error of T̂_init / error of T̂)",
        xlim=(0.5, FIFTHS + 0.5),
        title="what T̂ learnt of them\n(above 0: it errs less)",
    )
    right.set_xticks(sorted(table["fifth"].unique().astype(int)))
    handles, _ = right.get_legend_handles_labels()
    handles.append(Line2D([], [], **dashes, label=f"ε = {EPSILON:g} (right: by seed)"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


@plotting.figure("11_selection")
def draw_selection(table: pd.DataFrame) -> Figure:
    """Columns seed, source, epsilon, acceptance, correlation, chosen, regret, random: a dot a seed
    and model; dashed, what a candidate drawn at random has on average."""
    figure, panels = plt.subplots(2, 1, figsize=(7.4, 5.4), sharex=True)
    tight = sorted(table["epsilon"].dropna().unique())
    columns = ["T̂_init", *(f"{e:g}" for e in tight), "none", *_controls(table)]
    drawn = table.groupby("seed")["random"].first().mean()
    for axes, value, chance in zip(panels, ("correlation", "regret"), (0, drawn), strict=True):
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axes.axhline(chance, color="0.5", linestyle="--", linewidth=1, zorder=1,
                     label="a candidate at random")  # fmt: skip
        for source, shift in (("none", 0.0), ("model", -0.15), ("simulator", 0.15)):
            _dots(axes, table[table["source"] == source], value, columns, source, shift)
    names = [c.replace(" random", "\nat random") for c in columns]
    panels[-1].set_xticks(range(len(columns)), names)
    panels[-1].set_xlabel("D_diff of T̂: ε, no filter, or at random as many as ε keeps")
    panels[0].set_ylabel("Spearman's ρ with the true score\n(0: no order)")
    panels[1].set_ylabel("regret of AM-Q's choice (points)\n(0: nothing is lost)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _controls(table: pd.DataFrame) -> list[str]:
    chance = table[table["acceptance"] == "random"]
    return [f"{e:g} random" for e in sorted(chance["epsilon"].unique())]


def _dots(
    axes: Axes, part: pd.DataFrame, value: str, columns: list[str], source: str, shift: float
) -> None:
    known = {"none": ("T̂_init itself", "0.2")} | {
        name: (label, plotting.COLOURS[colour]) for name, (label, colour) in SOURCES.items()
    }
    label, colour = known[source]
    places = [columns.index(_name(row)) + shift for _, row in part.iterrows()]
    axes.scatter(places, part[value], s=16, color=colour, alpha=0.75, label=label)
    for place in sorted(set(places)):
        mean = float(part[value][np.isclose(places, place)].mean())
        axes.hlines(mean, place - 0.12, place + 0.12, color=colour, linewidth=2)


def _name(row: pd.Series) -> str:
    if row["source"] == "none":
        return "T̂_init"
    text = "none" if math.isnan(row["epsilon"]) else f"{row['epsilon']:g}"
    return f"{text} random" if row["acceptance"] == "random" else text
