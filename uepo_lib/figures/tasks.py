"""Notebook 01: what the local datasets hold, seen side by side: scores, lengths, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from uepo_lib import episodes, plotting, tasks, visits
from uepo_lib.datasets import Dataset

END_COLOURS = {
    "terminated": plotting.COLOURS["BC"],
    "time limit": plotting.COLOURS["model"],
    "cut": plotting.COLOURS["data"],
}
BINS = 40
"""Of a robot's scores, and of its lengths."""

# ── scores and lengths ──────────────────────────────────────────────────────────────────────────


def spread_table(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """How many episodes of each end fall into each bin of score and of length; no empty bins.

    Bins are shared by a robot's datasets. Scores are those of whole episodes; ``mean`` is their
    mean, NaN where there is none, and for lengths the mean of all.
    """
    table, parts = episodes.episodes_table(found), []
    for quantity in ("score", "length"):
        kept = table[table.ended != "cut"] if quantity == "score" else table
        for _, mine in table.groupby("robot", sort=False):
            seen = kept[kept.robot == mine.robot.iloc[0]]
            edges = _bin_edges(seen[quantity].to_numpy())
            for name in mine.task.unique():
                parts.append(_counts(seen[seen.task == name], name, quantity, edges))
    return pd.concat(parts, ignore_index=True)


def _bin_edges(values: NDArray[Any]) -> NDArray[np.float64]:
    low, high = (min(0.0, values.min()), values.max()) if len(values) else (0.0, 100.0)
    return np.linspace(low, high + 1e-6, BINS + 1).round(3)


def _counts(
    mine: pd.DataFrame, name: str, quantity: str, edges: NDArray[np.float64]
) -> pd.DataFrame:
    rows = []
    for ended in episodes.ENDS:
        count = np.histogram(mine[mine.ended == ended][quantity], bins=edges)[0]
        rows += [(ended, edges[i], edges[i + 1], count[i]) for i in np.flatnonzero(count)]
    if not rows:  # the dataset is named all the same
        rows = [("cut", edges[0], edges[1], 0)]
    counts = pd.DataFrame(rows, columns=["ended", "left", "right", "episodes"])
    counts.insert(0, "quantity", quantity)
    counts.insert(0, "task", name)
    counts.insert(0, "robot", tasks.get(name).robot.name)
    return counts.assign(mean=round(float(mine[quantity].mean()), 2))


@plotting.figure("dataset_returns")
def dataset_returns(table: pd.DataFrame) -> Figure:
    """A ridge a dataset, scores left and lengths right; colours say how the episodes ended."""
    robots = table.robot.unique()
    counts = [table[table.robot == robot].task.nunique() for robot in robots]
    made, grid = plt.subplots(
        len(robots), 2, figsize=(9.6, 0.42 * sum(counts) + 0.5 * len(robots)), squeeze=False,
        height_ratios=[count + 0.7 for count in counts],
    )  # fmt: skip
    for row, robot in zip(grid, robots, strict=True):
        for axes, quantity in zip(row, ("score", "length"), strict=True):
            mine = table[(table.robot == robot) & (table.quantity == quantity)]
            _ridges(axes, mine, str(robot))
        row[0].set_title(str(robot), loc="left")
        row[1].set_yticklabels([])
    grid[-1, 0].set_xlabel("normalised score of whole episodes; the mark is their mean")
    grid[-1, 1].set_xlabel("length of episodes (steps)")
    made.supxlabel("each row of either column is scaled to its tallest bin", size=8)
    ends = [Patch(color=colour, label=end) for end, colour in END_COLOURS.items()]
    grid[0, 1].legend(handles=ends, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    return made


def _ridges(axes: Axes, mine: pd.DataFrame, robot: str) -> None:
    names = list(mine.task.unique())
    for place, name in enumerate(reversed(names)):
        part = mine[mine.task == name]
        tallest = max(part.groupby("left").episodes.sum().max(), 1)
        floor: dict[float, float] = {}
        for ended, rows in part.groupby("ended", sort=False):
            low = np.array([floor.get(left, place) for left in rows.left])
            size = 0.85 * rows.episodes.to_numpy() / tallest
            axes.bar(rows.left, size, rows.right - rows.left, low, align="edge", linewidth=0,
                     color=END_COLOURS[str(ended)])  # fmt: skip
            floor |= dict(zip(rows.left, low + size, strict=True))
        if part.quantity.iloc[0] == "score" and part["mean"].notna().all():
            axes.vlines(part["mean"].iloc[0], place, place + 0.9, color="0.1", linewidth=1.4,
                        clip_on=False)  # fmt: skip
        axes.axhline(place, color="0.8", linewidth=0.6, zorder=0)
    axes.set_yticks([k + 0.3 for k in range(len(names))],
                    [name.removeprefix(f"{robot}-") for name in reversed(names)])  # fmt: skip
    axes.set(xlim=(min(mine.left.min(), 0.0), mine.right.max()), ylim=(-0.1, len(names)))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


# ── coverage ────────────────────────────────────────────────────────────────────────────────────

COLUMNS = 4
SHARES = LogNorm(1e-5, 0.3, clip=True)
"""From one step of a hundred thousand to a third of them: a dataset that is in several figures has
the same colours in each."""


@plotting.figure("dataset_coverage")
def dataset_coverage(table: pd.DataFrame) -> Figure:
    """Where the data is: dark is visited often (logarithmic), white never; a row a robot."""
    rows: list[list[str]] = []
    for _, mine in table.groupby("robot", sort=False):
        names = list(mine.task.unique())
        rows += [names[i : i + COLUMNS] for i in range(0, len(names), COLUMNS)]
    return _planes(table, rows)


@plotting.figure("three_mediums")
def three_mediums(table: pd.DataFrame) -> Figure:
    """Three independently trained and collected datasets of one name, on one plane."""
    return _planes(table, [list(table.task.unique())])


@plotting.figure("action_noise")
def action_noise(table: pd.DataFrame) -> Figure:
    """One policy under three amounts of action noise, on one plane."""
    return _planes(table, [list(table.task.unique())])


def _planes(table: pd.DataFrame, rows: Sequence[Sequence[str]]) -> Figure:
    width = max(len(row) for row in rows)
    made, grid = plt.subplots(len(rows), width, figsize=(2.5 * width, 2.1 * len(rows) + 0.4),
                              squeeze=False)  # fmt: skip
    table = table.assign(share=table.steps / table.groupby("task").steps.transform("sum"))
    for cells, names in zip(grid, rows, strict=True):
        for axes in cells[len(names) :]:
            axes.set_axis_off()
        mine = table[table.robot == tasks.get(names[0]).robot.name]
        plane = visits.plane_of(tasks.get(names[0]).robot)
        for axes, name in zip(cells, names, strict=False):
            _squares(axes, table[table.task == name])
            axes.set(xlabel=plane.across, xlim=_span(mine.x, mine.width),
                     ylim=_span(mine.y, mine.height))  # fmt: skip
            axes.set_title(_title(table[table.task == name]), size=9)
            axes.grid(False)
            if plane.turns:
                axes.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
        cells[0].set_ylabel(plane.up)
    _key(made, grid, [axes for axes in grid.flat if not axes.axison])
    return made


def _key(made: Figure, grid: NDArray[Any], free: Sequence[Axes]) -> None:
    """What the colours say, in a free cell where there is one."""
    colours = ScalarMappable(SHARES, "mako_r")
    if free:
        place = free[0].inset_axes((0.1, 0.6, 0.85, 0.08))
        made.colorbar(colours, cax=place, orientation="horizontal", label="share of steps")
    else:
        made.colorbar(colours, ax=grid, label="share of steps", pad=0.02)


def _title(part: pd.DataFrame) -> str:
    name = str(part.task.iloc[0])
    return f"{name}\nscore {part.score.iloc[0]:.0f}" if "score" in part else name


def _span(middle: pd.Series, side: pd.Series) -> tuple[float, float]:
    return float((middle - side / 2).min()), float((middle + side / 2).max())


def _squares(axes: Axes, part: pd.DataFrame) -> None:
    """An image of the visited squares; the others stay empty."""
    width, height = part.width.iloc[0], part.height.iloc[0]
    column = ((part.x - part.x.min()) / width).round().astype(int)
    row = ((part.y - part.y.min()) / height).round().astype(int)
    image = np.full((row.max() + 1, column.max() + 1), np.nan)
    image[row, column] = part.share
    extent = (*_span(part.x, part.width), *_span(part.y, part.height))
    axes.imshow(image, cmap="mako_r", norm=SHARES, origin="lower", aspect="auto", extent=extent,
                interpolation="nearest")  # fmt: skip
