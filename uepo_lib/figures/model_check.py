"""How T̂ is fitted, and how well: when training stops, which members are kept, what it is sure of,
and where its error lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import softplus

from uepo_lib import plotting
from uepo_lib.constraints import active_constraints
from uepo_lib.datasets import Dataset, Transitions
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel
from uepo_lib.dynamics_training import train_dynamics
from uepo_lib.errors import check
from uepo_lib.figures.augmentation import (
    as_transitions,
    calibration_table,
    fit_numbers,
    pendulum,
    pendulum_pairs,
)

HOPPER = (
    "height", "torso angle", "thigh angle", "leg angle", "foot angle", "forward velocity",
    "vertical velocity", "torso rate", "thigh rate", "leg rate", "foot rate",
)  # fmt: skip
"""What Hopper observes."""


# -- the toy: when to stop


class _Rows:
    """Keeps what a training loop logs, and no checkpoint."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **metrics})

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        pass

    def load_checkpoint(self) -> None:
        return None


def stopping_table(patience: int, seed: int = 0, updates: int = 800) -> pd.DataFrame:
    """Held-out error of a pendulum's ensemble with and without ``patience``: columns training
    ("with patience" or "all updates"), step, holdout_error, best_error.

    Sixty noisy steps are learnt: few enough to be learnt by heart.
    """
    cfg = DynamicsConfig(
        num_members=5, hidden=(64, 64), weight_decay=(0.0, 0.0, 0.0), max_updates=updates,
        batch_size=64, check_every=20,
    )  # fmt: skip
    data, held = (_noisy_pendulum(size, 10 * seed + i) for i, size in enumerate((60, 500)))
    parts = []
    for name, wait in (("all updates", None), ("with patience", patience)):
        recorder = _Rows()
        train_dynamics(
            replace(cfg, patience=wait), data, held, seed=seed, recorder=recorder, progress=False,
        )  # fmt: skip
        parts.append(pd.DataFrame(recorder.rows).assign(training=name))
    return pd.concat(parts)[["training", "step", "holdout_error", "best_error"]]


def _noisy_pendulum(size: int, seed: int) -> Transitions:
    states, actions = pendulum_pairs(size, -math.pi, math.pi, seed)
    noise = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed + 5))
    return as_transitions(states, actions, pendulum(states, actions) + 0.1 * noise)


# -- the robot: members, bounds, calibration, tails


def member_table(model: DynamicsModel, held: Transitions) -> pd.DataFrame:
    """Held-out error of each member, in the unit that it is trained in: member, error, elite."""
    mean, _ = model(held.states, held.actions)
    target = torch.cat([held.next_states - held.states, held.rewards.unsqueeze(-1)], -1)
    errors = ((mean - target) / model.target_scale).square().mean((1, 2))
    elite = torch.isin(torch.arange(len(errors)), model.elites)
    return pd.DataFrame(
        {"member": range(len(errors)), "error": errors.tolist(), "elite": elite.tolist()}
    )


def bounds_table(model: DynamicsModel, held: Transitions) -> pd.DataFrame:
    """Learnt bounds of the standard deviation, the widest of the elites', and what is predicted
    between them on held-out steps. In units of the target's spread; a row a dimension, the reward
    last. "crossed" is the share of elites whose parameters have passed each other."""
    x = torch.cat([held.states, held.actions], -1).expand(model.cfg.num_members, -1, -1)
    with torch.no_grad():
        logvar = model.scaled_moments(x)[1][model.elites].flatten(0, 1)
    low, middle, high = logvar.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    # softly between bounds that crossed: what a large output reaches is not the upper parameter
    reach = model.min_logvar + softplus(model.max_logvar - model.min_logvar)
    columns = {
        "lower bound": model.min_logvar[model.elites].amin((0, 1)),
        "5 %": low,
        "median": middle,
        "95 %": high,
        "upper bound": reach[model.elites].amax((0, 1)),
    }
    table = pd.DataFrame({name: (0.5 * value).exp().tolist() for name, value in columns.items()})
    crossed = (model.max_logvar < model.min_logvar)[model.elites].float().mean((0, 1))
    return table.assign(crossed=crossed.tolist())


def fit_table(
    models: Mapping[str, DynamicsModel], tests: Mapping[str, Transitions]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Likelihood and coverage of each model on each test: numbers (model, data, NLL, coverage of
    50 and 90 % intervals) and whole calibration curves (model, data, level, observed)."""
    numbers, curves = [], []
    for data, held in tests.items():
        for name, model in models.items():
            curve = calibration_table(model, held)
            levels = curve.set_index(curve["level"].round(2))["observed"]
            inside = {"inside 50 %": levels[0.5], "inside 90 %": levels[0.9]}
            numbers.append({"model": name, "data": data, **fit_numbers(model, held), **inside})
            curves.append(curve.assign(model=name, data=data))
    return pd.DataFrame(numbers), pd.concat(curves)


def tail_table(
    model: DynamicsModel, data: Dataset, steps: Tensor, share: float = 0.01
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where one-step error lies, on ``steps`` (M,) of D: by dimension, and by constraint.

    The first table has columns dimension, "all steps" and "worst steps": the part of the squared
    error that each dimension carries. The second has columns constraint, steps (their share of
    all), worst (of the worst ``share``), error (their part of the squared error), worst_error (that
    of those among the worst).
    """
    last = torch.zeros(len(data), dtype=torch.bool)
    last[data.bounds[:, 1] - 1] = True
    steps = steps[~last[steps]]  # what follows an episode's last state was not logged
    held = data.transitions()[steps]
    guess, _ = model.predict(held.states, held.actions)
    square = (guess - held.next_states).square()
    total = square.mean(1)
    worst = total >= total.quantile(1 - share)
    shares = {
        "all steps": square.sum(0) / square.sum(),
        "worst steps": square[worst].sum(0) / square[worst].sum(),
    }
    rows = []
    for name, kind in _constraint_kinds(data, steps).items():
        parts = (
            kind.float().mean(), kind[worst].float().mean(), total[kind].sum() / total.sum(),
            total[kind & worst].sum() / total.sum(),
        )  # fmt: skip
        rows.append((name, *(float(part) for part in parts)))
    columns = ["constraint", "steps", "worst", "error", "worst_error"]
    by_constraint = pd.DataFrame(rows, columns=columns)
    return pd.DataFrame(
        {"dimension": HOPPER, **{k: v.tolist() for k, v in shares.items()}}
    ), by_constraint


LANDING = "lands or lifts off"


def tail_says(by_constraint: pd.DataFrame) -> str:
    """The second table of :func:`tail_table` in words, beside what was expected of it: that the
    foot's landing and lifting off are the most frequent kind among the worst steps."""
    kinds = by_constraint.set_index("constraint").sort_values("worst", ascending=False)
    listed = "; ".join(
        f"*{name}* {kind['worst']:.0%} of them and {kind['steps']:.0%} of all steps"
        for name, kind in kinds.iterrows()
    )
    landing, first = kinds.loc[LANDING], str(kinds.index[0])
    often = f"{landing['worst'] / landing['steps']:.1f} times" if landing["steps"] else "not"
    met = "met" if first == LANDING else f"not met: the most frequent kind is *{first}*"
    return (
        f"The worst hundredth of the steps carries {kinds['worst_error'].sum():.0%} of the squared "
        f"error. By kind: {listed}. Steps on which the foot lands or lifts off are {often} as "
        f"frequent there as among all, and carry {landing['error']:.0%} of the squared error. "
        f"**The expectation, that they are most of the worst, is {met}.**"
    )


def _constraint_kinds(data: Dataset, steps: Tensor) -> dict[str, Tensor]:
    """Every step under one name, by the constraints at its two ends: name -> (M,) bool."""
    known, robot = data.simulator_states, data.task.robot
    check(known is not None, "dataset", data.key.id, "one that keeps simulator states")
    assert known is not None  # as checked; for the type
    contact, limit = active_constraints(robot, known[steps])
    contact_after, limit_after = active_constraints(robot, known[steps + 1])
    ground, joint = contact ^ contact_after, (limit ^ limit_after)
    still = ~ground & ~joint
    return {
        LANDING: ground,
        "joint limit begins or ends": joint & ~ground,
        "on the ground": still & contact,
        "joint at its limit": still & ~contact & limit,
        "free": still & ~contact & ~limit,
    }


# -- figures


@plotting.figure("05_early_stopping")
def draw_early_stopping(table: pd.DataFrame) -> Figure:
    """Held-out error along training; where patience ended it, and what was kept."""
    figure, (axes,) = plotting.panels(1, 5.2, 2.9)
    whole, stopped = (table[table["training"] == name] for name in ("all updates", "with patience"))
    axes.plot(
        whole["step"], whole["holdout_error"], color=plotting.COLOURS["data"], label="all updates"
    )
    axes.plot(
        stopped["step"], stopped["holdout_error"], color=plotting.COLOURS["model"], linewidth=2.4,
        label="until patience ends",
    )  # fmt: skip
    kept = float(stopped["best_error"].iloc[-1])
    axes.axhline(kept, color=plotting.COLOURS["UEPO"], linestyle="--", label="weights kept")
    axes.axvline(stopped["step"].iloc[-1], color="0.5", linestyle=":", label="stop")
    axes.set(xlabel="update", ylabel="held-out squared error (scaled)", ylim=(0, None))
    figure.legend(loc="outside right center")
    return figure


@plotting.figure("05_bounds")
def draw_bounds(table: pd.DataFrame) -> Figure:
    """Learnt bounds of the standard deviation, and what is predicted between them; means over
    seeds."""
    figure, (axes,) = plotting.panels(1, 6.4, 3.5)
    mean = table.groupby("dimension", sort=False).mean(numeric_only=True)
    places = range(len(mean))
    grey, green = plotting.COLOURS["data"], plotting.COLOURS["model"]
    for bound, marker, label in (("lower bound", "^", "learnt bounds"), ("upper bound", "v", None)):
        axes.scatter(places, mean[bound], marker=marker, color=grey, s=24, label=label)
    axes.vlines(
        places, mean["5 %"], mean["95 %"], color=green, linewidth=5, alpha=0.5,
        label="90 % of predictions",
    )  # fmt: skip
    axes.scatter(places, mean["median"], color=green, s=16, zorder=3, label="median prediction")
    axes.set_xticks(list(places), mean.index, rotation=40, ha="right")
    axes.set(ylabel="predicted σ over the target's spread", yscale="log")
    plotting.plain_ticks(axes.yaxis)
    figure.legend(loc="outside upper center", ncols=3, title="means over seeds")
    return figure


@plotting.figure("05_tail")
def draw_tail(table: pd.DataFrame) -> Figure:
    """Which dimensions the squared error is in, and which constraints act in the worst steps, a
    hundredth of all (:func:`tail_table`)."""
    figure, panels = plotting.panels(2, 4.1, 3.3)
    series = {
        "all steps": ("all steps", "data"),
        "worst steps": ("worst 1 % of steps", "highlight"),
    }
    for axes, (kind, part) in zip(panels, table.groupby("by", sort=False), strict=True):
        wide = part.pivot_table(index="name", columns="of", values="share", sort=False)
        for shift, (name, (label, colour)) in zip((-0.2, 0.2), series.items(), strict=True):
            places = [i + shift for i in range(len(wide))]
            axes.barh(places, wide[name], 0.38, color=plotting.COLOURS[colour], label=label)
        axes.set_yticks(range(len(wide)), wide.index)
        axes.invert_yaxis()
        axes.set(xlabel=kind)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


@plotting.figure("05_joint_calibration")
def draw_joint_calibration(table: pd.DataFrame) -> Figure:
    """Coverage before and after joint training, a panel a test."""
    tests = list(table.groupby("data", sort=False))
    figure, panels = plotting.panels(len(tests), 3.4, 3.1)
    for axes, (name, part) in zip(panels, tests, strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="calibrated")
        for model, colour in (("T̂_init", "model"), ("T̂", "UEPO")):
            line = part[part["model"] == model]
            plotting.seed_lines(axes, line, "level", "observed", plotting.COLOURS[colour], model)
        axes.set(xlabel="nominal level of a central interval", title=str(name))
    panels[0].set_ylabel("share of real values inside")
    panels[0].legend()
    return figure
