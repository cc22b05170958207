"""Notebook 01: the maze's four routes, and episodes whose behaviour is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from uepo_lib import episodes, modes, plotting
from uepo_lib.datasets import Dataset
from uepo_lib.maze import GOAL_CENTRE, GOAL_RADIUS, MAP, ROUTES, centre, route_taken

PALETTE = ("#7B4FB5", "#A8A020", "#882255", "#222222", "#2A8C82")
"""Of routes and other known behaviours: none is a method's, beside which 10 shows them."""
EVERY = 4
"""One step in so many is drawn."""


def routes_table(data: Dataset, most: int = 12) -> pd.DataFrame:
    """Paths of up to ``most`` whole episodes a route: x and y in metres, and how many there are."""
    labels, raw = data.labels["route"].numpy(), data.normaliser.inverse(data.states)[:, :2].numpy()
    arrived, parts = episodes.whole(data), []
    for number, route in enumerate(ROUTES):
        mine = arrived[labels[arrived] == number]
        for episode in mine[:most]:
            begin, end = data.bounds[episode].tolist()
            path = raw[begin:end:EVERY]
            columns = {"route": route.name, "episodes": len(mine), "episode": episode,
                       "x": path[:, 0], "y": path[:, 1]}  # fmt: skip
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True).round(3)


@plotting.figure("maze_routes")
def maze_routes(table: pd.DataFrame) -> Figure:
    """The map and the paths on it, a panel a route."""
    made, grid = plt.subplots(2, 2, figsize=(8.4, 4.9))
    for axes, route, colour in zip(grid.flatten(), ROUTES, PALETTE, strict=False):
        draw_map(axes)
        mine = table[table.route == route.name]
        for _, path in mine.groupby("episode"):
            axes.plot(path.x, path.y, color=colour, linewidth=0.8, alpha=0.7)
        count = int(mine.episodes.iloc[0]) if len(mine) else 0
        axes.set_title(f"{route.name}: {mine.episode.nunique()} of {count} episodes")
    return made


def arrivals(data: Dataset) -> pd.DataFrame:
    """A row an episode that arrived: the route of its label, and the one that its path shows."""
    reached, labels = data.normaliser.inverse(data.next_states), data.labels["route"].tolist()
    rows = []
    for episode in np.flatnonzero(episodes.ends_of(data) == "terminated"):
        begin, end = data.bounds[episode].tolist()
        shown = route_taken(reached[begin:end, :2].numpy())
        name = "none" if shown is None else ROUTES[shown].name
        rows.append({"label": ROUTES[labels[episode]].name, "path": name})
    return pd.DataFrame(rows, columns=["label", "path"])


def draw_map(axes: Axes, *, named: bool = True) -> None:
    """The maze from above; ``named`` writes start and goal into it, above the paths."""
    sign: dict[str, Any] = {"ha": "center", "va": "center", "size": 7, "color": "0.2", "zorder": 5,
            "bbox": {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}}  # fmt: skip
    for row, line in enumerate(MAP):
        for column, letter in enumerate(line):
            x, y = centre(row, column)
            if letter == "#":
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color="0.75", linewidth=0))
            elif letter == "r" and named:
                axes.text(x, y, "start", **sign)
    axes.add_patch(Circle(GOAL_CENTRE, GOAL_RADIUS, fill=False, color="0.3", linestyle="--"))
    if named:
        axes.text(*GOAL_CENTRE, "goal", **sign)
    width, height = len(MAP[0]) / 2, len(MAP) / 2
    axes.set(xlim=(-width, width), ylim=(-height, height), aspect="equal")
    axes.set_axis_off()


def modes_table(found: Mapping[str, Dataset], cards: pd.DataFrame) -> pd.DataFrame:
    """Up to 150 whole episodes as two components, the known label, and what the cards estimate."""
    parts = []
    for name, data in found.items():
        labels, labelled_by = modes.known(data)
        chosen = episodes.whole(data)
        chosen = chosen[:: -(-len(chosen) // 150) or 1]
        if labels is None or len(chosen) < 3:
            continue
        at, card = modes.descriptions(data, chosen), cards[cards.task == name].iloc[0]
        columns = {
            "task": name, "label": labels[chosen], "labelled_by": labelled_by,
            "first": at[:, 0].round(2), "second": at[:, 1].round(2),
            "estimated": card.modes_estimated, "agreement": card.agreement,
        }  # fmt: skip
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


@plotting.figure("dataset_modes")
def dataset_modes(table: pd.DataFrame) -> Figure:
    """A dot an episode, its colour the known label; the title says what is estimated without it."""
    names = list(table.task.unique())
    columns = min(4, len(names))
    made, grid = plt.subplots(
        -(-len(names) // columns), columns, squeeze=False,
        figsize=(2.6 * columns, 2.7 * -(-len(names) // columns)),
    )  # fmt: skip
    for axes in grid.flatten()[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flatten(), names, strict=False):
        mine = table[table.task == name]
        colours = np.array(PALETTE)[mine.label.to_numpy() % len(PALETTE)]
        axes.scatter(mine["first"], mine["second"], c=colours, s=7, alpha=0.6, linewidth=0)
        first = mine.iloc[0]
        guess = "too few" if pd.isna(first.estimated) else f"{first.estimated:.0f}"
        agreed = "" if pd.isna(first.agreement) else f", agreement {first.agreement:.2f}"
        known = f"{mine.label.nunique()} by {first.labelled_by}"
        axes.set_title(f"{name}\nknown {known},\nestimated {guess}{agreed}", size=7.5)
        axes.set(xticks=[], yticks=[])
    made.supxlabel("first principal component of an episode", size=8)
    made.supylabel("second principal component", size=8)
    keys = [Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=str(i + 1))
            for i, colour in enumerate(PALETTE[: table.label.nunique()])]  # fmt: skip
    made.legend(handles=keys, title="known label, numbered in each dataset", ncols=len(keys),
                loc="outside upper center")  # fmt: skip
    return made
