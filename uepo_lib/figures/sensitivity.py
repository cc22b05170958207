"""E2's remainder as pictures: the ratio, what is thrown away, and what AM-Q makes of T̂."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.experiments.ratios import EPSILON
from uepo_lib.figures.epsilon import SOURCES

QUANTITIES = {
    "distance": ("distance from D", "#0072B2"),
    "disagreement": ("elites disagree", "#009E73"),
    "error": ("true error of T̂_init", "#D55E00"),
    "reward": ("reward a step", "#E69F00"),
    "speed": ("speed", "#CC79A7"),
    "length": ("length", "#555555"),
}
DASHED = ("reward",)
"""On top of the others: Hopper is paid for its speed, and one line would hide the other."""


@plotting.figure("11_ratio")
def draw_ratio(table: pd.DataFrame) -> Figure:
    """Columns source, ratio, epsilon, acceptance, seed, data, step, gain: a panel a test, a line a
    source; dashed the control at equal volume, dotted no filter at all (means over seeds)."""
    tests = [*table[["data", "step"]].drop_duplicates().itertuples(index=False, name=None)]
    figure, panels = plotting.panels(len(tests), 2.6, 3.6)
    for axes, (data, step) in zip(panels, tests, strict=True):
        here = table[(table["data"] == data) & (table["step"] == step)]
        for source, (label, colour) in SOURCES.items():
            part, paint = here[here["source"] == source], plotting.COLOURS[colour]
            kl, chance = (part[part["acceptance"] == how] for how in ("kl", "random"))
            filtered, every = kl[kl["epsilon"].notna()], kl[kl["epsilon"].isna()]
            plotting.seed_lines(axes, filtered, "ratio", "gain", paint, f"{label}, filtered")
            for one, line, name in ((chance, "D--", "at random"), (every, "s:", "unfiltered")):
                mean = one.groupby("ratio")["gain"].mean()
                axes.plot(mean.index, mean, line, color=paint, markersize=4,
                          markerfacecolor="white", label=f"{label}, {name}")  # fmt: skip
        axes.axhline(0, color="0.5", linewidth=1, zorder=1)
        axes.set_title(f"{data.partition(' (')[0]}, {step} step{'s' if step > 1 else ''}")
        axes.set(xlabel="|D_diff| / |D|", xticks=sorted({0, *here["ratio"]} - {0.25, 0.5}))
    panels[0].set_ylabel("log2(error of T̂_init / error of T̂)\nabove 0: D_diff helps")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


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
    error, and what each T̂ learnt, by fifths of that value; all on unseen trajectories."""
    figure, (left, right) = plotting.panels(2, 3.6, 3.2)
    left.scatter(table["excess"], table["error"], s=7, alpha=0.4, color=plotting.COLOURS["data"])
    left.axvline(EPSILON, color="0.2", linestyle="--", linewidth=1, label="the paper's ε")
    left.set(
        xlabel="excess KL (nats a dimension)", yscale="log",
        ylabel="true error of T̂_init\n(mean square, standardised)",
        title="simulator trajectories, seeds pooled",
    )  # fmt: skip
    left.legend(loc="lower right")
    fifth = table.groupby("seed")["excess"].transform(
        lambda x: pd.qcut(x.rank(method="first"), min(5, len(x)), labels=False)
    )
    table = table.assign(fifth=fifth + 1)
    for name, label, colour in (("random", "drawn at random", "control"),
                                ("filtered", "filtered", "UEPO")):  # fmt: skip
        means = table.groupby(["seed", "fifth"])[name].mean().reset_index()
        plotting.seed_lines(right, means, "fifth", name, plotting.COLOURS[colour], label)
    right.axhline(0, color="0.4", linestyle=":", linewidth=1)
    right.set(xlabel="fifths of trajectories by excess", ylabel="log2(error of T̂_init / of T̂)")
    right.set_xticks(sorted(table["fifth"].unique().astype(int)))
    right.legend(title="D_diff of T̂")
    return figure


@plotting.figure("11_selection")
def draw_selection(table: pd.DataFrame) -> Figure:
    """Columns seed, source, epsilon, acceptance, correlation, chosen, regret, random: a dot a seed
    and model; dashed, what a candidate drawn at random has on average."""
    figure, panels = plotting.panels(2, 5.2, 3.2)
    table = _once(table)
    tight = sorted(table["epsilon"].dropna().unique())
    columns = ["T̂_init", *(f"{e:g}" for e in tight), "none", *_controls(table)]
    drawn = table.groupby("seed")["random"].first().mean()
    for axes, value, chance in zip(panels, ("correlation", "regret"), (0, drawn), strict=True):
        axes.axhline(chance, color="0.5", linestyle="--", linewidth=1, zorder=1,
                     label="a candidate at random")  # fmt: skip
        for source, shift in (("none", 0.0), ("model", -0.15), ("simulator", 0.15)):
            _dots(axes, table[table["source"] == source], value, columns, source, shift)
        axes.set_xticks(range(len(columns)), [c.replace(" random", "\nrandom") for c in columns])
        axes.set_xlabel("D_diff of T̂: ε, no filter, or at random as many as ε keeps")
    panels[0].set_ylabel("Spearman's ρ with the true score")
    panels[1].set_ylabel("regret of AM-Q's choice (points)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _once(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` without controls that equal a source's later one: two ε that both fill the wanted
    volume are given the same draw, so the same model."""
    again = pd.Series(False, index=table.index)
    for source, part in table[table["acceptance"] == "random"].groupby("source"):
        wide = part.pivot_table(index="epsilon", columns="seed", values=["correlation", "chosen"])
        equal = wide.index[wide.duplicated(keep="last")]
        again |= (table["source"] == source) & table["epsilon"].isin(equal)
    return table[~again | (table["acceptance"] != "random")]


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
