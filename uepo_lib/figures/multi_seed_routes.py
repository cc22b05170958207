"""Notebook 10 (E1) in the maze: which routes members take, and the paths themselves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from uepo_lib import plotting
from uepo_lib.coverage import null_coverage
from uepo_lib.experiments.multi_seed import plays
from uepo_lib.experiments.seed_sets import FRESH, ZERO, SeedGrid, fixed
from uepo_lib.figures.maze import PALETTE, draw_map
from uepo_lib.figures.multi_seed import alpha_of, colour_of
from uepo_lib.maze import ROUTES
from uepo_lib.played import routes
from uepo_lib.stages import Study

DRAWN_MEMBERS, DRAWN_EPISODES = 5, 4


def paths_table(study: Study, grid: SeedGrid) -> pd.DataFrame:
    """Paths of some members of the sets at κ = 1 and of fresh noise: columns set, member, episode,
    route (−1: none), x, y."""
    parts = []
    for name in (fixed(1.0), FRESH):
        found = plays(study, grid)[name].value
        modes = routes(found)
        for i in range(min(DRAWN_MEMBERS, len(modes))):
            for e in range(min(DRAWN_EPISODES, modes.shape[1])):
                path = found.path(i, e).numpy().round(2)
                columns = {"set": name, "member": i, "episode": e, "route": int(modes[i, e]),
                           "x": path[:, 0], "y": path[:, 1]}  # fmt: skip
                parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


# -- figures


@plotting.figure("10_routes")
def draw_routes(table: pd.DataFrame) -> Figure:
    """Share of a member's episodes by route, a row a member; a member that has a mode is one dark
    square."""
    names = list(dict.fromkeys(table["set"]))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(2.0 * columns, 2.1 * rows), squeeze=False, sharex=True
    )
    for axes in panels.flatten()[len(names) :]:
        axes.set_axis_off()
    short = ["".join(word[0].upper() for word in route.name.split("-")) for route in ROUTES]
    for axes, name in zip(panels.flatten(), names, strict=False):
        wide = table[table["set"] == name].pivot(index="member", columns="route", values="share")
        wide = wide[[route.name for route in ROUTES]]
        shades = axes.pcolormesh(wide, vmin=0, vmax=1, cmap="Blues", edgecolor="w", linewidth=0.4)
        axes.invert_yaxis()
        counts = table.groupby("set")["episodes"].first()
        few = int(counts[name]) if counts[name] < counts.max() else 0
        axes.set_title(_routes_title(name, wide, few), size=8)
        axes.set_xticks(np.arange(len(short)) + 0.5, short, rotation=0, fontsize=7.5)
        axes.set(xlabel="", ylabel="", yticks=[])
        axes.tick_params(labelbottom=True)
    figure.supylabel("member", size=8)
    figure.supxlabel("route (N north, S south, of block 1 and of block 2)", size=8)
    figure.colorbar(shades, ax=panels, label="share of episodes", shrink=0.6, aspect=30)
    return figure


def _routes_title(name: str, shares: pd.DataFrame, few: int = 0) -> str:
    """A set's name, with what an odd picture means: one member fills it, members play but a ``few``
    episodes, or many episodes (members play equally many) do not arrive and are in no square."""
    arrive = float(shares.sum(axis=1).mean())
    if arrive == 0:
        return f"{name}: no arrivals"
    notes = ["one member"] if len(shares) == 1 else []
    notes += [f"{few} episodes"] if few else []
    if arrive < 0.95:
        share = "<0.1%" if arrive < 0.001 else f"{arrive:.{0 if arrive >= 0.01 else 1}%}"
        notes.append(f"{share} arrive")
    return f"{name}:\n{', '.join(notes)}" if arrive < 0.95 else ": ".join([name, *notes])


@plotting.figure("10_coverage")
def draw_coverage(table: pd.DataFrame) -> Figure:
    """Left: routes that n members reach in one episode, means over seeds. Right: how often a member
    that arrives in two episodes takes the same route in both, a dot a seed."""
    table = table.dropna(subset=["coverage"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), width_ratios=(1.6, 1))
    names = [name for name in dict.fromkeys(table["set"]) if name != ZERO]
    lines = ["-", "--", ":", "-."]
    grid = np.linspace(1, table["n"].max(), 60)
    nulls = [null_coverage(n) for n in grid]
    left.plot(grid, nulls, color="0.6", linewidth=5, alpha=0.5, label=r"$4(1 - 0.75^n)$")
    for name in names:
        mine = table[table["set"] == name].groupby("n")["coverage"].mean()
        same = [other for other in names if colour_of(other) == colour_of(name)]
        style = lines[same.index(name) % len(lines)]
        left.plot(mine.index, mine, style, marker="o", markersize=3, color=colour_of(name),
                  alpha=alpha_of(name), zorder=3 if style == "--" else 2,  # dashes on equal lines
                  label=plotting.counted(name, table[table["set"] == name], table))  # fmt: skip
    left.set(xlabel="n", ylabel="routes reached (of 4)", ylim=(-0.1, 4.2))
    left.set_xticks(sorted(table["n"].unique()))
    largest = table[table["n"] == table["n"].max()]
    for place, name in enumerate(names):
        values = largest.loc[largest["set"] == name, "persistence"].to_numpy()
        if not np.isfinite(values).any():  # nobody arrives twice: an empty row is no zero
            right.text(0.5, place, "no two arrivals", ha="center", va="center", size=7.5,
                       bbox={"facecolor": "white", "linewidth": 0, "pad": 1})  # fmt: skip
        right.scatter(values, np.full(len(values), place), color=colour_of(name), s=18, zorder=3,
                      alpha=alpha_of(name))  # fmt: skip
    right.set_yticks(range(len(names)), names, fontsize=7.5)
    right.set(xlabel="same route in two arrivals (share)", xlim=(-0.03, 1.03))
    right.set_ylim(len(names) - 0.5, -0.5)
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", handlelength=4.5)
    return figure


@plotting.figure("10_paths")
def draw_paths(table: pd.DataFrame) -> Figure:
    """A row a set, a panel a member; colours are routes."""
    names = list(dict.fromkeys(table["set"]))
    members = sorted(table["member"].unique())
    figure, panels = plt.subplots(
        len(names), len(members), figsize=(1.9 * len(members), 1.35 * len(names)), squeeze=False
    )
    for row, name in enumerate(names):
        for axes, i in zip(panels[row], members, strict=True):
            draw_map(axes, named=False)
            mine = table[(table["set"] == name) & (table["member"] == i)]
            for _, path in mine.groupby("episode"):
                route = int(path["route"].iloc[0])
                colour = PALETTE[route] if route >= 0 else "0.5"
                axes.plot(path["x"], path["y"], color=colour, linewidth=1)
            axes.set_title(f"{name}, member {i}", size=7.5)
    ways = [(route.name, colour) for route, colour in zip(ROUTES, PALETTE, strict=False)]
    ways += [("no arrival", "0.5")] if (table["route"] < 0).any() else []
    ring = Circle((0, 0), fill=False, color="0.3", linestyle="--", label="goal")
    handles = [*(Line2D([], [], color=colour, label=way) for way, colour in ways), ring]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles),
        handler_map={Circle: HandlerPatch(patch_func=_ring)},
    )  # fmt: skip
    return figure


def _ring(width: float, height: float, **_: Any) -> Circle:
    """The goal in a legend, as a ring like the one in the map."""
    return Circle((width / 2, height / 2), 0.65 * height)
