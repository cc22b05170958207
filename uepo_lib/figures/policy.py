"""Notebook 02: what the diffusion policy is, on the toy and on the robot. Tables, then figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.datasets import Windows
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.figures.data import JOINTS
from uepo_lib.schedules import NoiseSchedule, alpha_bars
from uepo_lib.toys import Doors, gaussian_output_sd

MODE_COLOURS = [plotting.COLOURS[name] for name in ("UEPO", "BC", "model", "control")]
GREY = Line2D([], [], color="0.45", linewidth=0.8, label="in no door's support")
"""A walk of the toy that is at no door, as legends name it."""
LEVEL = "noise level k (0: least noise)"
"""Of the axes of k; "denoising steps" are the reverse steps of a chain."""


def both(*names: str) -> list[str]:
    """The outputs of a notebook that draws ``names``: of each its figure and its table."""
    return [out for name in names for out in (f"figures/{name}.png", f"tables/{name}.csv")]


# -- tables


def schedule_table(num_steps: int, kinds: Sequence[NoiseSchedule]) -> pd.DataFrame:
    """ᾱ_k of each schedule: columns schedule, k, alpha_bar."""
    parts = []
    for kind in kinds:
        bars = alpha_bars(kind, num_steps)
        parts.append(pd.DataFrame({"schedule": kind, "k": range(num_steps), "alpha_bar": bars}))
    return pd.concat(parts)


def walks_table(toy: Doors, panels: Mapping[str, tuple[Tensor, Tensor]]) -> pd.DataFrame:
    """Ways in the plane: panel -> (states (B, 2), actions (B, T, 2)), coloured by their door.

    Columns panel, walk, t, x, y, mode; ``mode`` is −1 where the actions are in no mode's support.
    """
    rows = []
    for panel, (states, actions) in panels.items():
        ways = toy.walk(states, actions)
        mode = toy.headings(actions, states)
        for walk, (way, m) in enumerate(zip(ways.tolist(), mode.tolist(), strict=True)):
            rows += [(panel, walk, t, x, y, m) for t, (x, y) in enumerate(way)]
    return pd.DataFrame(rows, columns=["panel", "walk", "t", "x", "y", "mode"])


def reverse_chain(
    model: DiffusionModel, noise: Tensor, past: Tensor, num_steps: int
) -> dict[str, Tensor]:
    """x̂_0 at every step of the chain, as a hook sees it: "k = 49" -> (B, T, A)."""
    seen: dict[str, Tensor] = {}

    def look(x0: Tensor, k: int, step_index: int) -> Tensor:
        seen[f"k = {k}"] = x0
        return x0

    model.sample(noise, past, num_steps, hook=look)
    return seen


@torch.no_grad()
def estimate_table(trained: DiffusionModel, exact: DiffusionModel, toy: Doors) -> pd.DataFrame:
    """How far the trained x̂_0 is from E[x_0 | x_k, s], and both from x_0: columns k, what, rmse."""
    generator = torch.Generator().manual_seed(1)
    batch = toy.batch(torch.arange(512))
    rows = []
    for k in range(0, exact.schedule.num_steps, 3):
        at = torch.tensor([k])
        noise = torch.randn(batch.actions.shape, generator=generator)
        x = exact.schedule.add_noise(batch.actions, noise, at)
        learnt, truth = (m.predict_x0(x, at, batch.past) for m in (trained, exact))
        for what, gap in (
            ("trained to exact", learnt - truth),
            ("trained to data", learnt - batch.actions),
            ("exact to data", truth - batch.actions),
        ):
            rows.append((k, what, float(gap.square().mean().sqrt())))
    return pd.DataFrame(rows, columns=["k", "what", "rmse"])


@torch.no_grad()
def sequences_table(
    model: DiffusionModel, windows: Windows, index: Tensor, draws: int, seed: int
) -> pd.DataFrame:
    """Logged, sampled and zero-noise sequences in the states of windows ``index``.

    Columns window, source, draw, t, joint, action.
    """
    batch = windows.batch(index)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, *model.action_shape, generator=generator)
    rows = []
    for w in range(len(index)):
        past = batch.past[w : w + 1]
        shown = {
            "logged": batch.actions[w : w + 1],
            "sampled": model.sample(noise, past.expand(draws, -1, -1)),
            "zero noise": model.sample(torch.zeros_like(noise[:1]), past),
        }
        for source, sequences in shown.items():
            for place, value in np.ndenumerate(sequences.numpy()):
                rows.append((w, source, *place, float(value)))
    return pd.DataFrame(rows, columns=["window", "source", "draw", "t", "joint", "action"])


@torch.no_grad()
def spread_table(
    model: DiffusionModel, windows: Windows, steps: Sequence[int], seed: int
) -> pd.DataFrame:
    """Output sd over data sd for each number of denoising steps, at 64 logged states.

    Output sd: over 16 noises in one state. Data sd: of the logged actions around the mean output of
    the longest chain. Both are root mean squares over states, T and A. Columns source, seed, steps,
    output_sd, data_sd, ratio.
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(windows), (64,), generator=generator)
    batch, draws = windows.batch(index), 16
    noise = torch.randn(draws * len(index), *model.action_shape, generator=generator)
    context = model.encode(batch.past).repeat(draws)
    outputs = {n: model.sample(noise, context, n).unflatten(0, (draws, -1)) for n in steps}
    centre = outputs[max(steps)].mean(dim=0)
    data_sd = float((batch.actions - centre).square().mean().sqrt())
    output_sd = {n: float(out.var(dim=0).mean().sqrt()) for n, out in outputs.items()}
    return pd.DataFrame(
        [("Hopper", seed, n, sd, data_sd, sd / data_sd) for n, sd in output_sd.items()],
        columns=["source", "seed", "steps", "output_sd", "data_sd", "ratio"],
    )


def exact_spread_table(
    model: DiffusionModel, stds: Sequence[float], steps: Sequence[int]
) -> pd.DataFrame:
    """The same for exact networks on one Gaussian, in closed form; the columns of
    :func:`spread_table` without a seed."""
    rows = []
    for std in stds:
        for n in steps:
            sd = gaussian_output_sd(model, std, n)
            rows.append((f"exact, sd {std:g}", n, sd, std, sd / std))
    return pd.DataFrame(rows, columns=["source", "steps", "output_sd", "data_sd", "ratio"])


# -- figures


@plotting.figure("noise_schedule")
def noise_schedule(table: pd.DataFrame) -> Figure:
    """ᾱ_k, and the signal-to-noise ratio on a logarithmic axis."""
    figure, (left, right) = plotting.panels(2)
    colours = [plotting.COLOURS["UEPO"], plotting.COLOURS["data"]]
    for (kind, part), colour in zip(table.groupby("schedule"), colours, strict=False):
        left.plot(part.k, part.alpha_bar, color=colour, label=kind)
        right.semilogy(part.k, part.alpha_bar / (1 - part.alpha_bar), color=colour, label=kind)
    left.set(xlabel=LEVEL, ylabel=r"$\bar\alpha_k$, share of signal power")
    right.set(xlabel=LEVEL, ylabel=r"signal-to-noise, $\bar\alpha_k / (1 - \bar\alpha_k)$")
    left.legend()
    return figure


@plotting.figure("forward_noising")
@plotting.figure("reverse_chain")
@plotting.figure("toy_samples")
@plotting.figure("subpolicy_walks")
@plotting.figure("zero_noise_walks")
def walks(table: pd.DataFrame) -> Figure:
    """One panel a group of walks; colour tells the door, grey is out of every mode's support."""
    names = list(dict.fromkeys(table.panel))
    side = max(1.6, 1.05 * float(table[["x", "y"]].abs().max().max()))  # noise walks far
    grey = bool((table["mode"] < 0).any())
    figure, axes = plotting.panels(len(names), width=1.9, height=2.4 if grey else 2.2)
    for axis, name in zip(axes, names, strict=True):
        for _, way in table[table.panel == name].groupby("walk"):
            mode = int(way["mode"].iloc[0])
            colour = GREY.get_color() if mode < 0 else MODE_COLOURS[mode % len(MODE_COLOURS)]
            axis.plot(way.x, way.y, color=colour, linewidth=0.8, alpha=0.7)
            axis.plot(way.x.iloc[-1], way.y.iloc[-1], ".", color=colour, markersize=4)
        axis.set(title=name, xlim=(-side, side), ylim=(-side, side), aspect="equal", xlabel="x")
        axis.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    axes[0].set_ylabel("y")
    if grey:
        figure.legend(handles=[GREY], loc="outside upper right")
    return figure


@plotting.figure("toy_training")
def toy_training(table: pd.DataFrame) -> Figure:
    """RMSE of x̂_0 over the noise level: what training can reach, and what it reached."""
    figure, (axis,) = plotting.panels(1, width=5.0)
    styles = {
        "exact to data": (plotting.COLOURS["data"], "--"),
        "trained to data": (plotting.COLOURS["model"], "-"),
        "trained to exact": (plotting.COLOURS["highlight"], "-"),
    }
    for what, (colour, line) in styles.items():
        part = table[table.what == what]
        axis.plot(part.k, part.rmse, line, color=colour, label=what)
    axis.set(xlabel=LEVEL, ylabel=r"RMSE of $\hat x_0$ (action units)")
    axis.legend()
    return figure


@plotting.figure("diffusion_training")
def diffusion_training(table: pd.DataFrame) -> Figure:
    """The training loss of each seed."""
    figure, (axis,) = plotting.panels(1, width=5.0)
    plotting.seed_lines(axis, table, "step", "loss", plotting.COLOURS["UEPO"], "mean of seeds")
    axis.set(xlabel="update", ylabel="loss: MSE of $\\hat x_0$ (action units²)", ylim=(0, None))
    axis.legend()
    return figure


@plotting.figure("action_sequences")
def action_sequences(table: pd.DataFrame) -> Figure:
    """Rows are Hopper's joints, columns logged states; many samples around one logged sequence."""
    joints, windows = sorted(table.joint.unique()), sorted(table.window.unique())
    figure, grid = plt.subplots(
        len(joints), len(windows), figsize=(2.3 * len(windows), 1.6 * len(joints)),
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    styles = {
        "sampled": {"color": plotting.COLOURS["model"], "linewidth": 0.7, "alpha": 0.5},
        "logged": {"color": plotting.COLOURS["data"], "marker": ".", "linewidth": 1.2},
        "zero noise": {"color": plotting.COLOURS["highlight"], "linewidth": 2.0},
    }
    for (joint, window), part in table.groupby(["joint", "window"]):
        axis = grid[joints.index(joint)][windows.index(window)]
        for source, style in styles.items():
            lines = part[part.source == source].pivot_table(
                index="t", columns="draw", values="action"
            )
            drawn = axis.plot(lines.index, lines.to_numpy(), **style)
            drawn[0].set_label(source)
    for axis, window in zip(grid[0], windows, strict=True):
        axis.set_title(f"state {window + 1}")
    for row, joint in zip(grid, joints, strict=True):
        row[0].set_ylabel(JOINTS[joint])
    figure.supylabel("action (share of full torque)", size=9)
    for axis in grid[-1]:
        axis.set_xlabel("control step")
    grid[0][0].set_ylim(-1.15, 1.15)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@plotting.figure("denoising_steps")
def denoising_steps(table: pd.DataFrame) -> Figure:
    """Output sd over data sd against the number of denoising steps."""
    figure, (axis,) = plotting.panels(1, width=5.0, height=3.0)
    robot = table[table.source == "Hopper"]
    plotting.seed_lines(
        axis, robot, "steps", "ratio", plotting.COLOURS["UEPO"], "Hopper, mean of seeds"
    )
    exact = table[table.source != "Hopper"]
    for (name, part), line in zip(exact.groupby("source"), ("--", ":", "-."), strict=False):
        axis.plot(part.steps, part.ratio, line, color=plotting.COLOURS["data"], label=name)
    axis.axhline(1, color="0.7", linewidth=0.8)
    ticks = sorted(table.steps.unique())
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()
    axis.set(xlabel="denoising steps", ylabel="output sd / data sd", ylim=(0, None))
    axis.legend()
    return figure
