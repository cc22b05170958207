"""E5 as pictures: the linear world, what each T̂_init keeps and gives, and its bias by round."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.filter_bias import SOURCES, LinearWorld

CHAINS = {
    ("model", "kl"): ("from T̂, filtered", "UEPO", "-"),
    ("simulator", "kl"): ("simulator, filtered", "highlight", "-"),
    ("simulator", "random"): ("simulator, at random", "control", "--"),
    ("D alone", "none"): ("D alone", "data", ":"),
}
TOY = {"model": ("from T̂", "UEPO"), "simulator": ("real, filtered", "highlight"),
       "unfiltered": ("real, unfiltered", "control")}  # fmt: skip

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
    """Columns part, world, x, source, value; rounds are shown for the first world."""
    figure, (kept, left, right, wrong) = plotting.panels(4, 2.7, 2.9)
    worlds = list(dict.fromkeys(table["world"]))
    for axes, part in ((kept, "kept"), (left, "remaining")):
        for world, colour in zip(worlds, ("highlight", "data", "model"), strict=False):
            one = table[(table["part"] == part) & (table["world"] == world)]
            axes.plot(one["x"], one["value"], color=plotting.COLOURS[colour], label=world)
        axes.set(xlabel="bias b of the gain", ylim=(-0.03, 1.03))
    kept.set_ylabel("share of real steps kept")
    left.set_ylabel("λ: bias left in kept steps")
    kept.legend(loc="upper right", fontsize=7)
    for axes, part, title in ((right, "round", "D is right"), (wrong, "wrong D", "D is wrong too")):
        for source, (label, colour) in TOY.items():
            one = table[(table["part"] == part) & (table["world"] == worlds[0])]
            one = one[one["source"] == source]
            axes.plot(one["x"], one["value"], "o-", markersize=3, label=label,
                      color=plotting.COLOURS[colour])  # fmt: skip
        where = f"{worlds[0].split(',')[0]}, $b_0$ = {START:g}"
        axes.set(xlabel="round", title=f"{title}\n({where})", ylim=(-0.03, 1.08))
        axes.set_xticks(sorted(table.loc[table["part"] == part, "x"].unique()))
    right.set_ylabel("bias over the first")
    right.legend(fontsize=7)
    return figure


@plotting.figure("14_kept")
def draw_kept(table: pd.DataFrame) -> Figure:
    """Columns init, source, seed, passing, kept_error, refused_error (first round, filtered)."""
    figure, (left, right) = plotting.panels(2, 3.6, 3.0)
    inits = list(dict.fromkeys(table["init"]))
    for source, shift, colour in (("model", -0.15, "UEPO"), ("simulator", 0.15, "highlight")):
        part = table[table["source"] == source]
        label = "from T̂_init" if source == "model" else "from the simulator"
        _dots(left, part, inits, "passing", shift, plotting.COLOURS[colour], label)
    real = table[table["source"] == "simulator"]
    _dots(right, real, inits, "kept_error", -0.15, plotting.COLOURS["model"], "kept")
    _dots(right, real, inits, "refused_error", 0.15, plotting.COLOURS["BC"], "refused")
    left.set(ylabel="share of trajectories below ε", ylim=(0, 1.05))
    right.set(ylabel="T̂_init's MSE (standardised),\nsimulator trajectories", ylim=(0, None))
    for axes in (left, right):
        axes.set_xticks(range(len(inits)), inits)
        axes.set_xlabel(LEARNT)
        axes.legend(loc="best")
    return figure


@plotting.figure("14_gain")
def draw_gain(table: pd.DataFrame) -> Figure:
    """Columns init, real, source, acceptance, step, seed, gain: a panel a source and step.

    Panels of as many steps have one scale.
    """
    part = table[table["real"] == "D"]
    chosen = [*part[["source", "step"]].drop_duplicates().itertuples(index=False, name=None)]
    figure, panels = plotting.panels(len(chosen), 2.8, 3.0)
    inits = list(dict.fromkeys(part["init"]))
    scale: dict[int, Axes] = {}
    for axes, (source, step) in zip(panels, chosen, strict=True):
        if scale.setdefault(step, axes) is not axes:
            axes.sharey(scale[step])
        one = part[(part["source"] == source) & (part["step"] == step)]
        for how, shift, colour, label in (("kl", -0.15, "UEPO", "filtered"),
                                          ("random", 0.15, "control", "at random")):  # fmt: skip
            _dots(axes, one[one["acceptance"] == how], inits, "gain", shift,
                  plotting.COLOURS[colour], label)  # fmt: skip
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axes.set_xticks(range(len(inits)), inits)
        where = "the simulator" if source == "simulator" else "T̂_init"
        axes.set(xlabel=LEARNT, title=f"from {where}, {step} step{'s' if step > 1 else ''}")
    panels[0].set_ylabel("log2(error of D alone / error of T̂)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@plotting.figure("14_rounds")
def draw_rounds(table: pd.DataFrame) -> Figure:
    """Columns seed, source, acceptance, round, bias."""
    figure, (axes,) = plotting.panels(1, 5.0, 3.2)
    for (source, how), (label, colour, line) in CHAINS.items():
        part = table[(table["source"] == source) & (table["acceptance"] == how)]
        wide = part.pivot(index="round", columns="seed", values="bias")
        paint = plotting.COLOURS[colour]
        axes.plot(wide.index, wide.to_numpy(), color=paint, alpha=0.3, linewidth=0.8)
        axes.plot(wide.index, wide.mean(axis=1), line, color=paint, label=label, marker="o",
                  markersize=3)  # fmt: skip
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
