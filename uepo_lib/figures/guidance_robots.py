"""Notebook 04: guidance on robots. Tables, then figures."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.divergence import calibrate_threshold, low_pass, nearest_neighbour
from uepo_lib.figures.guidance import NAMES, SETS, four_sets, paired, reached
from uepo_lib.guided_sets import FEWER_TOLD, LONG, SHIPPED, GuidedRobot, Setting
from uepo_lib.likelihood import estimation_errors, log_likelihood_bound
from uepo_lib.runs import Run
from uepo_lib.statistics import mean_interval
from uepo_lib.subpolicies import SubPolicies

NOISY = "one policy, data's noise"
"""The noise floor: repeats of the zero-noise policy with the dataset's action noise."""


# -- tables


def noise_floor_plans(robot: GuidedRobot, past: Tensor, n: int) -> Tensor:
    """n repeats of the zero-noise policy's plan with the action noise that D was collected with:
    (n, B, T, A)."""
    study = robot.study
    std = torch.as_tensor(study.dataset.metadata["recipe"]["parts"][0]["action_noise"]).float()
    base = study.zero_noise(robot.model).value.plan_shared(past)
    draw = torch.randn(n, *base.shape[1:], generator=study.generator("noise floor"))
    return (base + std * draw).clamp(-1, 1)


def calibration_table(robot: GuidedRobot, past: Tensor, kappas: Sequence[float]) -> pd.DataFrame:
    """Quantiles of nearest-neighbour div by κ, beside the noise floor: what τ could be.

    Columns task, seed, set, quantile, tau, low_passed.
    """
    study, floor = robot.study, robot.rule(SHIPPED.steps).floor
    sets = {
        f"κ = {k:g}": study.sub_policies(robot.model, k).value.plan_shared(past) for k in kappas
    }
    sets[NOISY] = noise_floor_plans(robot, past, study.budget.num_subpolicies)
    return pd.DataFrame(
        {
            "task": study.task.name,
            "seed": study.seed,
            "set": name,
            "quantile": quantile,
            "tau": calibrate_threshold(plans, quantile, floor),
            "low_passed": calibrate_threshold(low_pass(plans), quantile, floor),
        }
        for name, plans in sets.items()
        for quantile in (0.25, 0.5, 0.75)
    )


def relative_likelihood(
    model: DiffusionModel, past: Tensor, plans: Mapping[str, Tensor], errors: Tensor
) -> dict[str, float]:
    """log p(a_{1:T} | s) of each set (n, B, T, A) less that of "unguided", in nats, averaged.

    The variational bound with common random numbers, ten of its middle terms (A5).
    """
    context = model.encode(past)

    def mean(actions: Tensor) -> float:
        found = log_likelihood_bound(
            model, actions.flatten(0, 1), context.repeat(len(actions)),
            torch.Generator().manual_seed(0), errors=errors, num_terms=10,
        )  # fmt: skip
        return float(found.mean())

    level = mean(plans["unguided"])
    return {name: mean(actions) - level for name, actions in plans.items()}


def guidance_table(
    robot: GuidedRobot, settings: Sequence[Setting], num_states: int, num_likelihood: int = 32
) -> pd.DataFrame:
    """The four sets of every setting, in states that did not calibrate τ.

    Columns task, seed, steps, schedule, eta, set, tau, those of ``guidance.reached``, moved (RMS
    change of the plans by guidance, action units), likelihood (nats, over fewer states).
    """
    study, model = robot.study, robot.model.value
    past = study.starts(num_states, "guidance")
    index = torch.randint(len(study.windows), (128,), generator=study.generator("errors"))
    logged = study.windows.batch(index)
    errors = estimation_errors(model, logged.actions, logged.past, study.generator("error noise"))
    rows = []
    for setting in settings:
        sets, config = four_sets(robot.at(setting), past), robot.rule(setting.steps)
        plans = {name: policies.plan_shared(past) for name, policies in sets.items()}
        few = {name: actions[:, :num_likelihood] for name, actions in plans.items()}
        nats = relative_likelihood(model, past[:num_likelihood], few, errors)
        about = {"task": study.task.name, "seed": study.seed, **asdict(setting)}
        rows += [
            about
            | {"set": name, "tau": config.threshold}
            | reached(actions, config.threshold, config.floor)
            | {
                "moved": float((actions - plans["unguided"]).square().mean().sqrt()),
                "likelihood": nats[name],
            }
            for name, actions in plans.items()
        ]
    return pd.DataFrame(rows)


def gain_table(shares: pd.DataFrame, other: str) -> pd.DataFrame:
    """Share of calls at τ, guided less ``other``: mean over seeds and its 95 % interval.

    ``shares`` as from :func:`guidance_table`. Columns task, steps, schedule, eta, gain, low, high;
    no interval for a single seed.
    """
    rows = []
    for setting, part in shares.groupby(["task", "steps", "schedule", "eta"], sort=False):
        gains = paired(part, "call_share", "guided", other)
        found = (gains[0], np.nan, np.nan)
        if len(gains) > 1:
            interval = mean_interval(gains)
            found = (interval.mean, interval.low, interval.high)
        rows.append((*setting, *found))
    columns = ["task", "steps", "schedule", "eta", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def quantile_table(robot: GuidedRobot, past: Tensor, setting: Setting) -> pd.DataFrame:
    """Quantiles of nearest-neighbour div of a setting's sets and the noise floor, as planned and
    low-passed.

    Columns task, set, filter, share, div, threshold: ``share`` of all sub-policies and states are
    below.
    """
    shares, config = torch.linspace(0.005, 0.995, 100), robot.rule(setting.steps)
    sets = four_sets(robot.at(setting), past)
    plans = {name: policies.plan_shared(past) for name, policies in sets.items()}
    plans[NOISY] = noise_floor_plans(robot, past, robot.study.budget.num_subpolicies)
    rows = []
    for name, actions in plans.items():
        for kind, seen in (("as planned", actions), ("low-passed", low_pass(actions))):
            levels = nearest_neighbour(seen, config.floor)[0].flatten().quantile(shares)
            about = (robot.study.task.name, name, kind)
            pairs = zip(shares.tolist(), levels.tolist(), strict=True)
            rows += [(*about, share, level, config.threshold) for share, level in pairs]
    return pd.DataFrame(rows, columns=["task", "set", "filter", "share", "div", "threshold"])


def returns_table(robot: GuidedRobot) -> tuple[pd.DataFrame, list[Run]]:
    """Mean normalised return of every sub-policy: columns task, seed, setting, set, member, score;
    and the runs."""
    study, played = robot.study, robot.returns()
    rows = [
        (study.task.name, study.seed, str(setting), name, i,
         study.task.robot.normalised(float(mean)))
        for (setting, name), seen in played.items()
        for i, mean in enumerate(seen.value.returns.mean(1))
    ]  # fmt: skip
    columns = ["task", "seed", "setting", "set", "member", "score"]
    return pd.DataFrame(rows, columns=columns), [seen.run for seen in played.values()]


def planning_time(policies: SubPolicies, past: Tensor, repeats: int = 10) -> float:
    """Least wall time of one call for all sub-policies in states (B, T_o, S), in milliseconds:
    what else the machine did can only add to it."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        policies.plan_shared(past)
        times.append(1000 * (time.perf_counter() - begin))
    return min(times)


def time_table(robot: GuidedRobot, settings: Sequence[Setting]) -> pd.DataFrame:
    """Time to one plan of one sub-policy in one state: columns task, steps, set, sequences, ms.

    A guided sub-policy denoises its n − 1 neighbours' sequences as well.
    """
    past, rows = robot.study.starts(1, "time"), []
    for setting in settings:
        alone, together = robot.unguided(setting.steps).value.select(0), robot.at(setting)
        for name, policies in (("unguided, alone", alone), ("guided", together)):
            ms = planning_time(policies, past)
            rows.append((robot.study.task.name, setting.steps, name, policies.n, ms))
    return pd.DataFrame(rows, columns=["task", "steps", "set", "sequences", "ms"])


# -- figures


@plotting.figure("04_robot_divergence")
def draw_robot_divergence(table: pd.DataFrame) -> Figure:
    """The distribution of nearest-neighbour div, as planned and low-passed, a row a task; one range
    a column, so that robots compare.

    τ is one of div as planned, so it stands beside that alone.
    """
    tasks, filters = table["task"].unique(), table["filter"].unique()
    figure, grid = plt.subplots(
        len(tasks), len(filters), figsize=(7.4, 2.5 * len(tasks)), sharex="col", sharey=True,
        squeeze=False,
    )  # fmt: skip
    for row, task in zip(grid, tasks, strict=True):
        for axes, kind in zip(row, filters, strict=True):
            part = table[(table["task"] == task) & (table["filter"] == kind)]
            for name, line in part.groupby("set", sort=False):
                colour = plotting.COLOURS[SETS.get(str(name), "model")]
                style = "-" if name in SETS else "--"
                label = NAMES.get(str(name), str(name))
                axes.plot(line["div"], line["share"], color=colour, linestyle=style, label=label)
            if kind == "as planned":
                axes.axvline(part["threshold"].iloc[0], color="0.7", linestyle=":", label="τ")
            axes.set(title=f"{task}, {kind}")
        row[0].set_ylabel("share at or below")
    for axes in grid[-1]:
        axes.set_xlabel("div to the nearest neighbour (no unit)")
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
    return figure


@plotting.figure("04_robot_guidance")
def draw_robot_guidance(table: pd.DataFrame) -> Figure:
    """Share of calls at τ and likelihood against η, constant schedule; every seed a thin line."""
    table = table[table["schedule"] == "constant"]
    tasks, steps = list(table["task"].unique()), sorted(table["steps"].unique())
    columns = {
        "call_share": "calls at τ (share)",
        "likelihood": "log-likelihood less\nthe unguided set's (nats)",
    }
    figure, grid = plt.subplots(
        len(columns), len(tasks) * len(steps), figsize=(2.4 * len(tasks) * len(steps), 4.8),
        sharey="row", squeeze=False,
    )  # fmt: skip
    places = [(task, num) for task in tasks for num in steps]
    for row, (column, label) in zip(grid, columns.items(), strict=True):
        for axes, (task, num) in zip(row, places, strict=True):
            for name, colour in SETS.items():
                part = table[(table["task"] == task) & (table["steps"] == num)]
                part = part[part["set"] == name]
                shown = NAMES.get(name, name)
                plotting.seed_lines(axes, part, "eta", column, plotting.COLOURS[colour], shown)
            axes.set(xscale="log")
            axes.set_xticks(sorted(table["eta"].unique()))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        row[0].set_ylabel(label)
    for axes, (task, num) in zip(grid[0], places, strict=True):
        axes.set_title(f"{task}\n{num} reverse steps")
    for axes in grid[-1]:
        axes.set_xlabel("η, constant (action units)")
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(SETS))
    return figure


@plotting.figure("04_robot_returns")
def draw_robot_returns(table: pd.DataFrame) -> Figure:
    """Each sub-policy's mean return, a panel a task, a column a set.

    Chains of different lengths stand apart: the long one plays fewer episodes
    (``GuidedRobot.played``), so its columns compare with one another alone.
    """
    tasks = list(table["task"].unique())
    figure, panels = plotting.panels(len(tasks), 4.6, 3.2)
    for axes, task in zip(panels, tasks, strict=True):
        part = table[table["task"] == task]
        groups = part.groupby(["setting", "set"], sort=False)["score"]
        labels, chains = [], []
        for place, ((setting, name), scores) in enumerate(groups):
            _column(axes, place, scores.tolist(), plotting.COLOURS[SETS[str(name)]])
            chains.append(str(setting).split(",")[0])  # all that matters to an unguided set
            about = chains[-1] if name == "unguided" else str(setting)
            named = textwrap.fill(NAMES.get(str(name), str(name)), 10)
            labels.append("\n".join((named, *about.split(", "))))
        axes.set_xticks(range(len(labels)), labels, fontsize=7)
        axes.set_title(task, loc="left")
        long = [place for place, chain in enumerate(chains) if chain == f"{LONG.steps} steps"]
        if 0 < len(long) < len(chains):
            axes.axvline(min(long) - 0.5, color="0.7", linestyle=":", linewidth=1)
            axes.text(
                min(long) - 0.4, 1.0, FEWER_TOLD, transform=axes.get_xaxis_transform(),
                fontsize=7, color="0.4", va="bottom",
            )  # fmt: skip
    panels[0].set_ylabel("mean return (normalised)")
    return figure


def _column(axes: Axes, place: int, values: Sequence[float], colour: str) -> None:
    """Every value a dot, the mean a bar."""
    spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
    axes.scatter(place + spread, values, color=colour, s=16, alpha=0.7, zorder=3)
    axes.hlines(float(np.mean(values)), place - 0.25, place + 0.25, color=colour, linewidth=2)
