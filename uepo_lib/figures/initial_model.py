"""E5 as pictures: the linear world, what each T̂_init keeps and gives, and its bias by round."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.experiments.initial_verdict import TOY
from uepo_lib.filter_bias import SOURCES, LinearWorld

CHAINS = {
    ("model", "kl"): ("from T̂, filtered", "model", "-"),
    ("simulator", "kl"): ("simulator, filtered", "highlight", "-"),
    ("simulator", "random"): ("simulator, at random", "control", "-."),
    ("D alone", "none"): ("D alone", "data", ":"),
    (TOY, "model"): ("linear world: from T̂,\nat the volumes that passed", "model", "--"),
}
SOURCES_IN_TOY = {"model": ("from T̂", "model"), "simulator": ("real, filtered", "highlight"),
                  "unfiltered": ("real, unfiltered", "control")}  # fmt: skip
PAINTS = {"model": "model", "simulator": "highlight"}
"""Of what made the filtered transitions, on every figure of the page; drawn at random is pink."""
WORLD_LINES = (("0.1", "-"), ("0.45", "--"), ("0.45", ":"))
"""Worlds are told apart by grey and dashes: a colour is a source."""

LEARNT = "T̂_init learnt from"
START = 1.0
"""The bias with which the linear world's rounds begin."""


def toy_table(
    worlds: Sequence[LinearWorld], biases: Sequence[float], ratio: float, count: int
) -> pd.DataFrame:
    """Closed forms: columns of (part, world, x, source, value).

    part "kept" and "remaining" by bias; "round" the bias from :data:`START` on, over that, with an
    unbiased D; "wrong D" the same if D has that bias too. A world is named by its horizon and
    reference.
    """
    rows = []
    for world in worlds:
        name = f"H = {world.horizon}, " + ("over the median" if world.median else "ε alone")
        for bias in biases:
            rows.append(("kept", name, bias, "simulator", world.kept(bias)))
            rows.append(("remaining", name, bias, "simulator", world.remaining(bias)))
        for part, logged in (("round", 0.0), ("wrong D", START)):
            for source in SOURCES:
                found = world.rounds(START, ratio, source, count, logged)  # type: ignore[arg-type]
                rows += [(part, name, r, source, b / START) for r, b in enumerate(found)]
    return pd.DataFrame(rows, columns=["part", "world", "x", "source", "value"])


@plotting.figure("14_toy")
def draw_toy(table: pd.DataFrame) -> Figure:
    """Columns part, world, x, source, value; above, grey lines are worlds; below, rounds of the
    first world, colours are what D_diff is made of."""
    figure, (above, below) = plt.subplots(2, 2, figsize=(7.0, 5.6))
    worlds = list(dict.fromkeys(table["world"]))
    titles = {"kept": "share of real steps kept", "remaining": "λ: bias left in a fit to these"}
    for axes, (part, title) in zip(above, titles.items(), strict=True):
        for world, (grey, line) in zip(worlds, WORLD_LINES, strict=False):
            one = table[(table["part"] == part) & (table["world"] == world)]
            axes.plot(one["x"], one["value"], line, color=grey, label=world)
        axes.set(xlabel="bias b of the gain", title=title, ylim=(-0.03, 1.08))
    above[0].legend(loc="upper right")
    first = table[table["world"] == worlds[0]]
    where = f"{worlds[0].split(',')[0]}, $b_0$ = {START:g}"
    for axes, part, title in zip(below, ("round", "wrong D"), ("D is right", "D is wrong too"),
                                 strict=True):  # fmt: skip
        for source, (label, colour) in SOURCES_IN_TOY.items():
            one = first[(first["part"] == part) & (first["source"] == source)]
            axes.plot(one["x"], one["value"], "o-", markersize=3, label=label,
                      color=plotting.COLOURS[colour])  # fmt: skip
        axes.set(xlabel="round", title=f"rounds, {title} ({where})", ylim=(-0.03, 1.08))
        axes.set_xticks(sorted(first.loc[first["part"] == part, "x"].unique()))
    below[0].set_ylabel("bias over the first")
    below[0].legend(title="transitions of D_diff", loc="upper right")
    return figure


@plotting.figure("14_kept")
def draw_kept(table: pd.DataFrame) -> Figure:
    """Columns init, source, seed, passing, kept_error, refused_error (first round, filtered)."""
    figure, (left, right) = plotting.panels(2, 3.6, 3.0)
    inits = list(dict.fromkeys(table["init"]))
    for source, shift in (("model", -0.15), ("simulator", 0.15)):
        part, paint = table[table["source"] == source], plotting.COLOURS[PAINTS[source]]
        _dots(left, part, inits, "passing", shift, paint, _from(source))
    real = table[table["source"] == "simulator"]
    _dots(right, real, inits, "kept_error", -0.15, plotting.COLOURS["highlight"], "kept")
    _dots(right, real, inits, "refused_error", 0.15, plotting.COLOURS["data"], "refused")
    left.set(ylabel="share of trajectories below ε", ylim=(0, 1.05))
    right.set(ylabel="T̂_init's MSE (standardised),\nsimulator trajectories", ylim=(0, None))
    for axes in (left, right):
        axes.set_xticks(range(len(inits)), inits)
        axes.set_xlabel(LEARNT)
    left.legend(loc="center right")
    right.legend(loc="lower right")
    return figure


@plotting.figure("14_gain")
def draw_gain(table: pd.DataFrame) -> Figure:
    """Columns init, real, source, acceptance, step, seed, volume, wanted, gain: a row a number of
    steps, on one scale; a column a source. Below a T̂_init stands how much of the wanted D_diff it
    has, a mean over seeds; drawn at random has the filter's volume."""
    part = table[table["real"] == "D"]
    steps, sources = sorted(part["step"].unique()), list(dict.fromkeys(part["source"]))
    inits = list(dict.fromkeys(part["init"]))
    figure, rows = plt.subplots(
        len(steps), len(sources), figsize=(4.1 * len(sources), 2.7 * len(steps)), sharey="row",
        squeeze=False,
    )  # fmt: skip
    for row, step in zip(rows, steps, strict=True):
        for axes, source in zip(row, sources, strict=True):
            one = part[(part["source"] == source) & (part["step"] == step)]
            axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
            for how, shift, colour, label in (
                ("kl", -0.15, PAINTS[source], f"{_from(source)}, filtered"),
                ("random", 0.15, "control", "as many at random"),
            ):
                _dots(axes, one[one["acceptance"] == how], inits, "gain", shift,
                      plotting.COLOURS[colour], label)  # fmt: skip
            axes.set_xticks(range(len(inits)), _filled(one, inits))
            axes.set_title(f"{_from(source)}, {step} step{'s' if step > 1 else ''}")
    for axes in rows[-1]:
        axes.set_xlabel(f"{LEARNT}; below: share of the wanted |D_diff|")
    figure.supylabel("log2(error of D alone / error of T̂); above 0: D_diff helps", size=9)
    found = [pair for axes in rows[0] for pair in zip(*axes.get_legend_handles_labels(),
                                                      strict=True)]  # fmt: skip
    once = {label: handle for handle, label in found}
    names = sorted(once, key=lambda label: "random" in label)
    figure.legend([once[name] for name in names], names, loc="outside upper center",
                  ncols=len(names))  # fmt: skip
    return figure


def _from(source: str) -> str:
    return "from the simulator" if source == "simulator" else "from T̂_init"


def _filled(part: pd.DataFrame, inits: list[str]) -> list[str]:
    """Each T̂_init with the share of the wanted volume that its filter let pass."""
    shares = (part["volume"] / part["wanted"]).groupby(part["init"]).mean()
    return [f"{init}\n{shares[init]:.0%} filled" for init in inits]


@plotting.figure("14_rounds")
def draw_rounds(table: pd.DataFrame) -> Figure:
    """Columns seed, source, acceptance, round, bias; dashed, what the linear world expects."""
    figure, (axes,) = plotting.panels(1, 6.4, 3.3)
    for (source, how), (label, colour, line) in CHAINS.items():
        part = table[(table["source"] == source) & (table["acceptance"] == how)]
        wide = part.pivot(index="round", columns="seed", values="bias")
        paint, marker = plotting.COLOURS[colour], "" if source == TOY else "o"
        if source != TOY:  # its seeds differ by their volumes alone
            axes.plot(wide.index, wide.to_numpy(), color=paint, alpha=0.3, linewidth=0.8)
        axes.plot(wide.index, wide.mean(axis=1), line, color=paint, label=label, marker=marker,
                  markersize=3)  # fmt: skip
    axes.axhline(1, color="0.4", linestyle=":", linewidth=1, zorder=1)
    axes.set(xlabel="round", ylabel="bias (1: the wrong gain)")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xticks(sorted(table["round"].unique()))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _dots(
    axes: Axes, part: pd.DataFrame, groups: list[str], value: str, shift: float, colour: str,
    label: str,
) -> None:  # fmt: skip
    """Every seed a dot, the mean a bar."""
    places = [groups.index(name) + shift for name in part["init"]]
    axes.scatter(places, part[value], s=16, alpha=0.75, color=colour, label=label)
    for name, mean in part.groupby("init")[value].mean().items():
        at = groups.index(str(name)) + shift
        axes.hlines(float(mean), at - 0.12, at + 0.12, color=colour, linewidth=2)
