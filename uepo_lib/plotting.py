"""One style, and a register of figures: a figure is a function of the table of the same name.

A notebook writes ``tables/<name>.csv`` and asks for ``figures/<name>.png``; ``make figures`` draws
every figure again from its table, without a notebook and without a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from uepo_lib.errors import unknown

Draw = Callable[[pd.DataFrame], Figure]
FIGURES: dict[str, Draw] = {}

COLOURS = {
    "UEPO": "#0072B2",
    "BC": "#D55E00",
    "data": "#555555",
    "model": "#009E73",
    "control": "#CC79A7",
    "highlight": "#E69F00",
}
"""Okabe and Ito's palette, told apart by colour-blind readers; one colour, one meaning."""


def figure(name: str) -> Callable[[Draw], Draw]:
    """Register the function that draws ``figures/<name>`` from ``tables/<name>.csv``."""

    def register(draw_one: Draw) -> Draw:
        FIGURES[name] = draw_one
        return draw_one

    return register


def draw(name: str, table: pd.DataFrame) -> Figure:
    """Draw the registered figure ``name``; ``UsageError`` for another name."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    with plt.rc_context(), sns.axes_style("whitegrid"):
        style()
        drawn = FIGURES[name](table)
    plt.close(drawn)  # the notebook shows it once, as the value of its cell
    return drawn


def style() -> None:
    """Fonts, lines and sizes of every figure."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.labelsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "0.9",
            "legend.frameon": False,
            "legend.fontsize": 8,
            "lines.linewidth": 1.6,
            "figure.constrained_layout.use": True,
        }
    )


def panels(count: int, width: float = 3.4, height: float = 2.8) -> tuple[Figure, list[Axes]]:
    """A row of ``count`` axes; sizes in inches."""
    made, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False)
    return made, list(axes[0])


def plain_ticks(axis: Axis, digits: Sequence[int] = (2, 5)) -> None:
    """Numbers of a logarithmic axis as they are written, at 1 and ``digits`` times powers of ten
    alone: on an axis of several powers more than 2 and 5 would print over one another."""
    axis.set_minor_locator(LogLocator(subs=digits))
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(partial(plain, digits=digits))


def plain(value: float, place: float | None = None, digits: Sequence[int] = (2, 5)) -> str:
    """A tick of :func:`plain_ticks`."""
    return f"{value:g}" if f"{value:e}"[0] in {"1", *map(str, digits)} else ""


def seed_lines(
    axes: Axes, table: pd.DataFrame, x: str, y: str, colour: str, label: str, seed: str = "seed"
) -> None:
    """One thin line a seed and their mean in bold; every seed is seen."""
    wide = table.pivot_table(index=x, columns=seed, values=y)
    axes.plot(wide.index, wide.to_numpy(), color=colour, alpha=0.35, linewidth=0.9)
    axes.plot(wide.index, wide.mean(axis=1), color=colour, label=label, marker="o", markersize=3)


def counted(label: str, part: pd.DataFrame, table: pd.DataFrame) -> str:
    """``label`` of a line that ``part`` of a table draws, with its seeds where it has fewer."""
    count = int(part["seed"].nunique())
    few = count < table["seed"].nunique()
    return f"{label} ({count} seed{'s' if count > 1 else ''})" if few else label


CHAINS = {5: "data", 10: "highlight", 13: "UEPO", 20: "model", 50: "control"}


def chain_colours(lengths: Iterable[int]) -> dict[int, str]:
    """A colour for each number of reverse steps: that of :data:`CHAINS`, the same in every figure,
    else one that is left."""
    wanted = sorted(set(map(int, lengths)))
    left = iter([name for name in COLOURS if name not in CHAINS.values()] * len(wanted))
    names = {steps: CHAINS[steps] if steps in CHAINS else next(left) for steps in wanted}
    return {steps: COLOURS[name] for steps, name in names.items()}


def dots(
    axes: Axes,
    groups: Sequence[str],
    values: Sequence[Sequence[float]],
    colours: str | Sequence[str],
) -> None:
    """Every value a dot, the mean a bar, one column a group; one colour, or one a group."""
    each = [colours] * len(values) if isinstance(colours, str) else colours
    for place, (group, colour) in enumerate(zip(values, each, strict=True)):
        spread = np.linspace(-0.12, 0.12, len(group)) if len(group) > 1 else [0.0]
        axes.scatter(place + np.asarray(spread), group, color=colour, s=14, alpha=0.7, zorder=3)
        axes.hlines(float(np.mean(group)), place - 0.25, place + 0.25, color=colour, linewidth=2)
    axes.set_xticks(range(len(groups)), groups)
