"""Notebook 04: where in the reverse process guidance is undone. Tables, then figures."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.divergence import nearest_neighbour
from uepo_lib.figures.guidance import fold
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.survival import survival, trace, with_control
from uepo_lib.toys import gaussian_survival

AFTER = "guided, after δ"
"""The estimates of a guided chain once δ has been added, as a table names them."""


# -- tables


def noise_after(model: DiffusionModel, num_steps: int) -> list[float]:
    """σ_{k'}, the noise that is left after each reverse step."""
    return [float(model.schedule.sigma(torch.tensor([k]))) for _, k in model.timesteps(num_steps)]


def survival_table(
    name: str, guided: SubPolicies, past: Tensor, perturbation: float, std: float | None = None
) -> pd.DataFrame:
    """What is left of a perturbation of x̂_0 by the one reverse step where it was made.

    Columns name, steps, step, noise (σ_{k'}), along, size, and with the ``std`` of Gaussian data
    closed_form. ``perturbation`` is δ's standard deviation in action units.
    """
    steps = guided.num_denoising_steps
    seen = survival(guided, past, perturbation)
    closed = gaussian_survival(guided.model, std, steps) if std else [float("nan")] * steps
    return pd.DataFrame(
        {
            "name": name,
            "steps": steps,
            "step": range(1, steps + 1),
            "noise": noise_after(guided.model, steps),
            "along": seen.along.tolist(),
            "size": seen.size.tolist(),
            "closed_form": closed,
        }
    )


def trace_table(
    name: str, guided: SubPolicies, past: Tensor, threshold: float, floor: float, num_sets: int = 1
) -> pd.DataFrame:
    """Share of calls whose estimates x̂_0 are all at least ``threshold`` apart, step by step.

    Columns name, steps, step, noise, estimate ("unguided", "guided, before δ", "guided, after δ"),
    call_share. The unguided chain is the same set's.
    """
    steps = guided.num_denoising_steps
    calm = trace(with_control(guided, torch.zeros(steps)), past)
    pushed, noise = trace(guided, past), noise_after(guided.model, steps)

    def share(x0: Tensor) -> float:
        nearest = nearest_neighbour(fold(x0, num_sets), floor)[0]
        return float((nearest.amin(0) >= threshold).float().mean())

    rows = []
    for j, (plain, moved) in enumerate(zip(calm, pushed, strict=True)):
        for estimate, x0 in (
            ("unguided", plain.before),
            ("guided, before δ", moved.before),
            (AFTER, moved.after),
        ):
            rows.append((name, steps, j + 1, noise[j], estimate, share(x0)))
    columns = ["name", "steps", "step", "noise", "estimate", "call_share"]
    return pd.DataFrame(rows, columns=columns)


# -- figures


def _noise_axis(axes: Axes) -> None:
    axes.set(xlabel="noise left after the step, σ", xlim=(1.04, -0.04))


@plotting.figure("04_survival")
def draw_survival(table: pd.DataFrame) -> Figure:
    """A panel each: lines are the closed form, circles the part along δ, crosses all that changed
    where that is more."""
    return _survival(table)


@plotting.figure("04_robot_survival")
def draw_robot_survival(table: pd.DataFrame) -> Figure:
    """The same on robots, mean over seeds; the closed form is that of the data's action noise."""
    return _survival(table)


def _survival(table: pd.DataFrame) -> Figure:
    """A logarithmic axis down to the least positive number: a mean that is not is left out.

    Circles are open and smaller for longer chains, so that one shows inside another.
    """
    columns = ["along", "size", "closed_form"]
    mean = table.groupby(["name", "steps", "noise"])[columns].mean()
    names = list(dict.fromkeys(table["name"]))
    figure, panels = plotting.panels(len(names), 3.7, 3.3)
    limits = (0.7 * mean[mean > 0].min().min(), 1.6 * mean.max().max())
    colours = plotting.chain_colours(table["steps"])
    for axes, name in zip(panels, names, strict=True):
        chains = mean.loc[name].groupby("steps")
        for (steps, part), size in zip(chains, (9.0, 6.0, 3.5, 2.5), strict=False):
            _chain(axes, part.droplevel("steps"), colours[steps], size, f"{steps} steps")
        _noise_axis(axes)
        axes.set(title=name, yscale="log", ylim=limits)
    for style, label in (
        ("-", "closed form"), ("o", "kept along δ"), ("x", "all that changed,\nif more by a tenth")
    ):  # fmt: skip
        panels[0].plot(
            [], [], style, color="0.5", linewidth=1, markersize=5, markerfacecolor="none",
            label=label,
        )  # fmt: skip
    panels[0].set_ylabel("share of δ left in the actions")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _chain(axes: Axes, part: pd.DataFrame, colour: str, size: float, label: str) -> None:
    axes.plot(part.index, part["closed_form"], color=colour, linewidth=1, label=label)
    axes.plot(
        part.index, part["along"], "o", color=colour, markersize=size, markerfacecolor="none",
        markeredgewidth=1.2,
    )  # fmt: skip
    more = part["size"][part["size"] > 1.1 * part["along"]]
    axes.plot(more.index, more, "x", color=colour, markersize=0.5 * size + 2)


@plotting.figure("04_toy_trace")
def draw_toy_trace(table: pd.DataFrame) -> Figure:
    """Share of calls at τ among the estimates, from noise (left) to actions (right)."""
    return _trace(table, "share over all sets")


@plotting.figure("04_robot_trace")
def draw_robot_trace(table: pd.DataFrame) -> Figure:
    """The same on robots."""
    return _trace(table, "means over seeds")


def _trace(table: pd.DataFrame, title: str) -> Figure:
    """No δ is added at the last step, so that the estimates after it end one step earlier."""
    styles = {
        "unguided": ("data", "-", 1.6), "guided, before δ": ("UEPO", "-", 1.6),
        AFTER: ("UEPO", ":", 1.0),
    }  # fmt: skip
    table = table[(table["estimate"] != AFTER) | (table["step"] < table["steps"])]
    names = list(dict.fromkeys(table["name"]))
    wide = len(names) if len(names) < 4 else 2
    figure, grid = plt.subplots(
        -(-len(names) // wide), wide, figsize=(3.2 * wide + 1.2, 2.6 * -(-len(names) // wide)),
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    for axes, name in zip(grid.flat, names, strict=True):
        part = table[table["name"] == name]
        for estimate, (colour, line, width) in styles.items():
            mean = part[part["estimate"] == estimate].groupby("noise")["call_share"].mean()
            axes.plot(
                mean.index, mean, line, color=plotting.COLOURS[colour], marker="o",
                linewidth=width, markersize=2 * width, label=estimate,
            )  # fmt: skip
        axes.set(title=name, ylim=(-0.03, 1.03))
    for axes in grid[-1]:
        _noise_axis(axes)
    figure.supylabel("calls with min div ≥ τ (share)", fontsize=9)
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", title=title)
    return figure
