"""Notebook 05: what T̂ knows, what the filter keeps, what D_diff adds. Tables, then figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting, rollouts
from uepo_lib.augmentation import (
    AugmentationConfig,
    gaussian_kl,
    moment_matched,
    step_costs,
)
from uepo_lib.datasets import Batch, Dataset, Transitions
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel
from uepo_lib.dynamics_training import train_dynamics

COLOURS = {
    "T̂_init": "model",
    "T̂": "UEPO",
    "physical velocity": "BC",
    "constant velocity": "control",
    "persistence": "data",
}
STEPS = 10
"""How far the open-loop errors look ahead."""


# -- the toy: a pendulum that was only ever seen on one side


def pendulum(states: Tensor, actions: Tensor) -> Tensor:
    """A pendulum's next state (angle, velocity), semi-implicit Euler: (..., 2), (..., 1)."""
    angle, speed = states.unbind(-1)
    speed = speed + 0.1 * (-9.8 * angle.sin() + 5 * actions[..., 0])
    return torch.stack([angle + 0.1 * speed, speed], -1)


def pendulum_pairs(count: int, low: float, high: float, seed: int) -> tuple[Tensor, Tensor]:
    """States with angles in [low, high] and velocities in [−3, 3], and actions in [−1, 1]."""
    uniform = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    angle = low + (high - low) * uniform[:, :1]
    return torch.cat([angle, 6 * uniform[:, 1:2] - 3], -1), 2 * uniform[:, 2:] - 1


def as_transitions(states: Tensor, actions: Tensor, next_states: Tensor) -> Transitions:
    """Steps without reward and without end."""
    zero = torch.zeros(len(states))
    return Transitions(states, actions, zero, next_states, zero.bool())


def pendulum_models(seed: int, size: int = 2000) -> dict[str, DynamicsModel]:
    """Three ensembles with equal gradient steps: on D (angles below 0), and on D with twice as much
    from all angles, labelled by the first ensemble or by the pendulum itself."""
    cfg = DynamicsConfig(
        num_members=5, hidden=(64, 64), weight_decay=(2.5e-5, 5e-5, 1e-4), max_updates=450,
        batch_size=64, patience=None,
    )  # fmt: skip

    def real(count: int, low: float, high: float, draw: int) -> Transitions:
        pairs = pendulum_pairs(count, low, high, draw)
        return as_transitions(*pairs, pendulum(*pairs))

    data, held = real(size, -math.pi, 0, 3 * seed), real(size // 4, -math.pi, 0, 3 * seed + 1)
    first = train_dynamics(cfg, data, held, seed=seed, progress=False)
    everywhere = real(2 * size, -math.pi, math.pi, 3 * seed + 2)
    generator = torch.Generator().manual_seed(seed)
    imagined, _ = first.step(everywhere.states, everywhere.actions, generator)
    fake = as_transitions(everywhere.states, everywhere.actions, imagined)
    models = {"D alone": first}
    for name, extra in (("D and imagined steps", fake), ("D and real steps", everywhere)):
        models[name] = train_dynamics(cfg, data, held, seed=seed, extra=extra, progress=False)
    return models


def pendulum_table(seed: int, angles: int = 41) -> pd.DataFrame:
    """Error and disagreement of the three models along the angle: columns training, seed, angle,
    rmse (radians and radians a second together), disagreement (nats a dimension)."""
    cfg, models, rows = AugmentationConfig(), pendulum_models(seed), []
    for angle in np.linspace(-np.pi, np.pi, angles).tolist():
        states, actions = pendulum_pairs(256, angle, angle, seed=1_000)
        truth = pendulum(states, actions)
        for name, model in models.items():
            guess, _ = model.predict(states, actions)
            cost = step_costs(model, cfg, states, actions, truth)
            rmse = float((guess - truth).square().mean().sqrt())
            rows.append((name, seed, angle, rmse, float(cost.mean())))
    return pd.DataFrame(rows, columns=["training", "seed", "angle", "rmse", "disagreement"])


# -- the robot


def sequences(
    dataset: Dataset, steps: Tensor | None = None, count: int = 2048, ahead: int = STEPS
) -> Batch:
    """Real sequences for the open-loop errors; see ``rollouts.logged_sequences``."""
    return rollouts.logged_sequences(dataset, steps, count, ahead)


def physical_velocity(now: Tensor, data: Dataset, steps: int) -> Tensor:
    """A locomotion robot's positions moved on by its measured velocities, these held: (M, S) ->
    (M, k, S).

    All velocities are observed and all positions but the first, which is how far it has come.
    """
    normaliser, robot = data.normaliser, data.task.robot
    raw, positions = normaliser.inverse(now), robot.state_dim // 2
    velocity = torch.zeros_like(raw)
    velocity[:, :positions] = raw[:, positions + 1 :]
    ahead = robot.step_seconds * torch.arange(1, steps + 1).view(1, -1, 1)
    return normaliser(raw.unsqueeze(1) + ahead * velocity.unsqueeze(1))


def error_table(models: Mapping[str, DynamicsModel], batch: Batch, data: Dataset) -> pd.DataFrame:
    """Mean squared error in standardised units after 1 .. k steps: columns predictor, step, error.

    The models, and three predictors that know no dynamics; see ``rollouts.open_loop_errors``.
    """
    steps = batch.future.shape[1]
    guess = physical_velocity(batch.past[:, -1], data, steps)
    columns = {"physical velocity": (guess - batch.future).square().mean((0, 2))}
    for name, model in models.items():
        errors = rollouts.open_loop_errors(model, batch.past, batch.actions, batch.future)
        columns[name] = errors.model
        columns["constant velocity"] = errors.constant_velocity
        columns["persistence"] = errors.persistence
    wide = pd.DataFrame({name: error.tolist() for name, error in columns.items()})
    wide["step"] = range(1, steps + 1)
    return wide.melt("step", var_name="predictor", value_name="error")


def calibration_table(model: DynamicsModel, held: Transitions) -> pd.DataFrame:
    """The share of held-out next states inside central intervals of T̂: columns level, observed."""
    means, variances = (x[..., :-1] for x in model.moments(held.states, held.actions))
    mean, variance = moment_matched(means, variances)
    z = ((held.next_states - mean) / variance.sqrt()).abs()
    levels = torch.linspace(0.05, 0.95, 19)
    limits = torch.distributions.Normal(0.0, 1.0).icdf((1 + levels) / 2)
    observed = [float((z <= limit).float().mean()) for limit in limits]
    return pd.DataFrame({"level": levels.tolist(), "observed": observed})


def fit_numbers(model: DynamicsModel, held: Transitions) -> dict[str, float]:
    """NLL (nats) of held-out steps, median and mean, and that of one Gaussian blind to (s, a)."""
    nll = model.nll(held)
    change = torch.cat([held.next_states - held.states, held.rewards.unsqueeze(-1)], -1)
    mean, std = change.mean(0), change.std(0)
    blind = -torch.distributions.Normal(mean, std).log_prob(change).sum(-1)
    return {
        "median NLL": float(nll.median()),
        "mean NLL": float(nll.mean()),
        "blind Gaussian": float(blind.mean()),
    }


def acceptance_table(excess: Mapping[str, Tensor]) -> pd.DataFrame:
    """The share of trajectories below each ε: columns source, epsilon, share."""
    grid = torch.logspace(-4, 2, 37)
    rows = [
        (name, epsilon, float((values < epsilon).float().mean()))
        for name, values in excess.items()
        for epsilon in grid.tolist()
    ]
    return pd.DataFrame(rows, columns=["source", "epsilon", "share"])


def disagreement_by_hand(means: list[float], variance: float) -> float:
    """Mean KL of equal-variance Gaussians to their moment-matched mixture, in nats."""
    m, v = torch.tensor(means, dtype=torch.float64), torch.full((len(means),), variance).double()
    return float(gaussian_kl(m, v, *moment_matched(m, v)).mean())


# -- figures


@plotting.figure("05_toy")
def draw_toy(table: pd.DataFrame) -> Figure:
    """Error and disagreement along the angle; the support of D is shaded."""
    figure, (left, right) = plotting.panels(2, 3.9)
    colours = {"D alone": "model", "D and imagined steps": "UEPO", "D and real steps": "highlight"}
    for name, colour in colours.items():
        part = table[table["training"] == name]
        for axes, column in ((left, "rmse"), (right, "disagreement")):
            wide = part.pivot_table(index="angle", columns="seed", values=column)
            axes.plot(wide.index, wide, color=plotting.COLOURS[colour], alpha=0.35, linewidth=0.9)
            axes.plot(
                wide.index, wide.mean(axis=1), color=plotting.COLOURS[colour], label=name
            )  # fmt: skip
    for axes, label in (
        (left, "one-step RMSE (rad, rad/s)"),
        (right, "disagreement (nats a dimension)"),
    ):
        axes.axvspan(-math.pi, 0, color="0.93", zorder=0)
        axes.set(xlabel="angle (rad); D lies in the shaded half", ylabel=label, yscale="log")
    left.legend(loc="upper left")
    return figure


@plotting.figure("05_calibration")
def draw_calibration(table: pd.DataFrame) -> Figure:
    """Observed against nominal coverage."""
    figure, (axes,) = plotting.panels(1, 3.6, 3.2)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="calibrated")
    plotting.seed_lines(axes, table, "level", "observed", plotting.COLOURS["model"], "T̂_init")
    axes.set(xlabel="nominal level of a central interval", ylabel="share of held-out values inside")
    axes.legend()
    return figure


@plotting.figure("05_open_loop")
def draw_open_loop(table: pd.DataFrame) -> Figure:
    """T̂_init beside predictors that know no dynamics, up to k steps ahead."""
    figure, (axes,) = plotting.panels(1, 5.6, 3.2)
    for name, colour in COLOURS.items():
        part = table[table["predictor"] == name]
        if len(part):
            plotting.seed_lines(axes, part, "step", "error", plotting.COLOURS[colour], name)
    axes.set(xlabel="steps ahead", ylabel="mean squared error (standardised)", yscale="log")
    figure.legend(loc="outside right center")
    return figure


@plotting.figure("05_acceptance")
def draw_acceptance(table: pd.DataFrame) -> Figure:
    """The share of trajectories kept, against ε, before one is chosen; a colour a cost, dashed
    where the trajectories are real. Drawn up to the ε that refuses nothing any more."""
    sources = {
        "held-out real": ("held-out real, T̂_init's cost", "model"),
        "synthetic, T̂_init": ("synthetic, T̂_init", "model"),
        "held-out real, simulator's cost": ("held-out real, simulator's cost", "highlight"),
        "synthetic, simulator": ("synthetic, simulator", "highlight"),
    }
    figure, (axes,) = plotting.panels(1, 6.6, 3.2)
    everything = table.groupby("epsilon")["share"].min() == 1
    table = table[table["epsilon"] <= (everything.idxmax() if everything.any() else math.inf)]
    for name, (shown, colour) in sources.items():
        part, before = table[table["source"] == name], len(axes.lines)
        if len(part):
            label = plotting.counted(shown, part, table)
            plotting.seed_lines(axes, part, "epsilon", "share", plotting.COLOURS[colour], label)
        if name.startswith("held-out"):
            for line in axes.lines[before:]:
                line.set(linestyle="--", marker="")
    axes.axvline(AugmentationConfig().epsilon, color="0.5", linestyle=":", label="the paper's ε")
    axes.set(
        xlabel="ε (nats a dimension, over the real median)", ylabel="share kept", xscale="log",
        ylim=(-0.03, 1.03),
    )  # fmt: skip
    figure.legend(loc="outside right center")
    return figure


@plotting.figure("05_joint_training")
def draw_joint_training(table: pd.DataFrame) -> Figure:
    """T̂_init and T̂ on real transitions, in and out of D's distribution."""
    figure, panels = plotting.panels(2, 3.9)
    panels[1].sharey(panels[0])
    for axes, (name, part) in zip(panels, table.groupby("data", sort=False), strict=True):
        for predictor in ("T̂_init", "T̂", "physical velocity"):
            colour = plotting.COLOURS[COLOURS[predictor]]
            line = part[part["predictor"] == predictor]
            plotting.seed_lines(axes, line, "step", "error", colour, predictor)
        axes.set(xlabel="steps ahead", title=name, yscale="log")
    panels[0].set_ylabel("mean squared error (standardised)")
    panels[0].legend()
    return figure
