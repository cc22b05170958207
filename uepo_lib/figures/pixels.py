"""E6 as pictures: a film, agreement with the states, what can be read off, moving cameras."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from uepo_lib import pixels, plotting
from uepo_lib.experiments.filming import (
    COMPONENTS,
    HORIZON,
    LATENT,
    PIXELS,
    POSITIONS,
    RANDOM,
    Filmed,
    photographed,
)
from uepo_lib.experiments.pixels import AGREES
from uepo_lib.experiments.pixels_measures import reconstructions
from uepo_lib.rendering import Frames, film_strip

COLOURS = {
    POSITIONS: plotting.COLOURS["data"],
    LATENT: plotting.COLOURS["UEPO"],
    RANDOM: plotting.COLOURS["control"],
    COMPONENTS: plotting.COLOURS["model"],
    PIXELS: plotting.COLOURS["highlight"],
}
DISTANCES = {"rms": "RMS distance", "div": "div"}
SHOWN_FRAMES = 6
MARKERS = "o^sDv"
"""Of seeds."""


def film_figure(found: Filmed) -> Figure:
    """One trajectory as filmed, as autoencoder and PCA draw it again, and by a shaking camera."""
    steps = np.linspace(0, HORIZON, SHOWN_FRAMES).round().astype(int)
    drawn = reconstructions(found)
    size = max(found.grid.shakes)
    wide = photographed(found.study, found.seen(1), pixels.WIDE)[0, 0]
    shaken = pixels.shake((len(wide),), size, torch.Generator().manual_seed(0))
    rows = {
        "filmed": found.frames.value["still"][0, 0],
        f"redrawn from\nthe {LATENT}": drawn[LATENT][0, 0],
        f"redrawn from {COMPONENTS}": drawn[COMPONENTS][0, 0],
        f"shaking {size:g} px": pixels.look(wide, shaken),
    }
    grey = torch.cat([frames[steps].round().to(torch.uint8) for frames in rows.values()])
    pictures = Frames(np.repeat(grey.numpy()[..., None], 3, axis=-1), pixels.renderer())
    figure, (axes,) = plotting.panels(1, 6.0, 2.9)
    film_strip(axes, pictures, (), SHOWN_FRAMES)
    middles = (np.arange(len(rows)) + 0.5) / len(rows)
    for name, middle in zip(rows, 1 - middles, strict=True):
        axes.text(-0.01, middle, name, transform=axes.transAxes, ha="right", va="center", size=8)
    for place, step in enumerate(steps):
        middle = (place + 0.5) / SHOWN_FRAMES
        axes.text(
            middle, 1.01, f"step {step}", transform=axes.transAxes, ha="center", va="bottom",
            size=7, color="0.4",
        )  # fmt: skip
    plotting.plt.close(figure)
    return figure


@plotting.figure("15_agreement")
def draw_agreement(table: pd.DataFrame) -> Figure:
    """Columns seed, representation, frames, distance, of, truth, rho, low, high, nearest, chance:
    each distance with the same one of states (above) and positions (below), a dot a seed with its
    interval over starts, hollow where the change since the frame before is added."""
    figure, grid = plotting.plt.subplots(2, 3, figsize=(10.5, 5.8))
    names = [name for name in COLOURS if name in set(table["representation"])]
    same = table[table["distance"] == table["truth"]]
    for row, of in zip(grid, ("states", "positions"), strict=True):
        part = same[same["of"] == of]
        for axes, (distance, title) in zip(row[:2], DISTANCES.items(), strict=True):
            _dots(axes, part[part["distance"] == distance], names, "rho", ("low", "high"))
            axes.axhline(0, color="0.6", linewidth=0.8)
            axes.set(title=f"{title}, of {of}", ylim=(-0.35, 1.05))
            if (of, distance) == ("states", "rms"):  # of which alone it was expected
                label = f"expected: ρ > {AGREES:g}"
                axes.axhline(AGREES, color="0.4", linestyle=":", linewidth=1, label=label)
        row[0].set_ylabel("rank correlation over pairs, ρ")
        _dots(row[2], part[part["distance"] == "div"], names, "nearest")
        chance = float(table["chance"].iloc[0])
        row[2].axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
        row[2].set(title=f"div, of {of}", ylim=(0, 1.05), ylabel="share with the same nearest")
    for face, label in (("0.3", "one frame"), ("white", "with the change since the frame before")):
        grid[0, 0].plot([], [], "o", color="0.3", markerfacecolor=face, label=label)
    handles = [*grid[0, 0].get_legend_handles_labels()[0],
               *grid[0, 2].get_legend_handles_labels()[0]]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _dots(
    axes: Axes, table: pd.DataFrame, names: Sequence[str], value: str, bounds: tuple[str, ...] = ()
) -> None:
    """A column a name, in one order in all panels; one that is itself the truth has no marks."""
    for place, name in enumerate(names):
        if name not in set(table["representation"]):
            axes.text(
                place, 0.5, "the truth here", size=7, color="0.5", rotation=90, ha="center",
                va="center", transform=axes.get_xaxis_transform(), backgroundcolor="white",
            )  # fmt: skip
            continue
        for frames, side in ((1, -0.2), (2, 0.2)):
            part = table[(table["representation"] == name) & (table["frames"] == frames)]
            x = place + side + 0.1 * (np.arange(len(part)) - (len(part) - 1) / 2)
            error = [(part[value] - part[b]).abs() for b in bounds] or None
            axes.errorbar(
                x, part[value], error, fmt="o", color=COLOURS[name], markersize=4, linewidth=1,
                markerfacecolor=COLOURS[name] if frames == 1 else "white",
            )  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names], size=7)
    axes.set_xlim(-0.5, len(names) - 0.5)


@plotting.figure("15_probes")
def draw_probes(table: pd.DataFrame) -> Figure:
    """Columns seed, representation, frames, positions, velocities: mean R², a line a seed."""
    figure, panels = plotting.panels(2, 3.4, 3.1)
    panels[1].sharey(panels[0])
    panels[1].tick_params(labelleft=False)
    for axes, target in zip(panels, ("positions", "velocities"), strict=True):
        for name in (LATENT, RANDOM, COMPONENTS):
            part = table[table["representation"] == name]
            plotting.seed_lines(axes, part, "frames", target, COLOURS[name], name)
        axes.set(title=f"joint {target}", xlabel="frames seen", xticks=(1, 2), xlim=(0.8, 2.2))
        axes.axhline(0, color="0.6", linewidth=0.8)
    lowest = float(table[["positions", "velocities"]].min().min())
    panels[0].set(ylabel="R² of a linear map", ylim=(min(0.0, lowest) - 0.03, 1.0))
    panels[0].plot([], [], color="0.3", alpha=0.5, linewidth=0.9, label="thin: a seed")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@plotting.figure("15_cameras")
def draw_cameras(table: pd.DataFrame) -> Figure:
    """Columns seed, representation, motion, distance, ratio, rho, floor: ρ by motion, a panel a
    distance, then the noise floor of shaking cameras; a marker a seed."""
    figure, panels = plotting.plt.subplots(
        1, 3, figsize=(12.5, 3.9), gridspec_kw={"width_ratios": (5, 5, 2.4)}
    )
    panels[1].sharey(panels[0])  # the two distances are compared
    panels[1].tick_params(labelleft=False)
    motions = list(table["motion"].unique())
    for axes, (distance, title) in zip(panels, DISTANCES.items(), strict=False):
        _by_motion(axes, table[table["distance"] == distance], motions, "rho")
        axes.set_title(title)
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    panels[0].set_ylabel("rank correlation with the states, ρ")
    shaking = [m for m in motions if m.startswith("shaking")]
    part = table[(table["distance"] == "div") & table["motion"].isin(shaking)]
    _by_motion(panels[2], part, shaking, "floor")
    panels[2].axhline(1, color="0.4", linestyle=":", linewidth=1, zorder=1)
    label = "one trajectory filmed twice /\ntwo different ones"
    panels[2].set(title="div: noise floor", ylabel=label, yscale="log")
    plotting.plain_ticks(panels[2].yaxis)
    marks = [_mark("o", COLOURS[n], n) for n in COLOURS if n in set(table["representation"])]
    marks += [_mark(m, "0.3", f"seed {s}") for s, m in _seed_markers(table).items()]
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))
    return figure


def _mark(marker: str, colour: str, label: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=4.5, color=colour, label=label
    )  # fmt: skip


def _seed_markers(table: pd.DataFrame) -> dict[int, str]:
    return dict(zip(sorted(table["seed"].unique()), itertools.cycle(MARKERS)))


def _by_motion(axes: Axes, table: pd.DataFrame, motions: list[str], value: str) -> None:
    """A field a motion; in it the representations side by side, and in each of them the seeds."""
    names = [name for name in COLOURS if name in set(table["representation"])]
    markers = _seed_markers(table)
    width = 0.86 / len(names)
    for k, name in enumerate(names):
        for i, (seed, marker) in enumerate(markers.items()):
            part = table[(table["representation"] == name) & (table["seed"] == seed)]
            side = width * (k - (len(names) - 1) / 2)
            side += 0.24 * width * (i - (len(markers) - 1) / 2)
            places = part["motion"].map(motions.index) + side
            axes.scatter(places, part[value], color=COLOURS[name], s=13, marker=marker, zorder=3)
    for border in range(1, len(motions)):
        axes.axvline(border - 0.5, color="0.85", linewidth=0.8, zorder=0)
    axes.set_xticks(range(len(motions)), motions, rotation=35, ha="right", size=8)
    axes.set_xlim(-0.5, len(motions) - 0.5)
    axes.grid(visible=False, axis="x")
