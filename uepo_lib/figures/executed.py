"""Notebook 04: do plans that differ act differently? Tables, then figures."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from uepo_lib import executed, plotting
from uepo_lib.divergence import low_pass
from uepo_lib.guided_sets import STRONG, GuidedRobot
from uepo_lib.runs import Run

PREDICTORS = {
    "div": ("div of plans", "UEPO"),
    "div, low-passed": ("low-passed div of plans", "model"),
    "rms": ("RMS distance of plans", "data"),
}
"""Distances of plans, how figures name them, and their colours."""


# -- tables


def correlation_table(
    robot: GuidedRobot, horizons: Sequence[int]
) -> tuple[pd.DataFrame, list[Run]]:
    """Rank correlations of the unguided set's plans with what they become, by horizon.

    Columns task, seed, horizon, plan ("div", "div, low-passed", "rms"), executed ("div", "rms"),
    rho, low, high (``executed.rank_correlation``); and the run.
    """
    study, product = robot.study, robot.trajectories()["unguided"]
    seen, floor = product.value, robot.rule(STRONG.steps).floor
    plans = executed.plan_distances(seen.plans, floor)
    plans["div, low-passed"] = executed.plan_distances(low_pass(seen.plans), floor)["div"]
    rows = []
    for horizon in horizons:
        ways = executed.distances(seen.until(horizon), executed.state_floor(study, horizon))
        for plan, planned in plans.items():
            for measure, distance in ways.items():
                rho = executed.rank_correlation(planned, distance)
                about = (study.task.name, study.seed, horizon, plan, measure)
                rows.append((*about, rho.mean, rho.low, rho.high))
    columns = ["task", "seed", "horizon", "plan", "executed", "rho", "low", "high"]
    return pd.DataFrame(rows, columns=columns), [product.run]


def trajectories_table(robot: GuidedRobot) -> tuple[pd.DataFrame, list[Run]]:
    """How far apart plans and trajectories are, set by set, averaged over pairs and states.

    Columns task, seed, set, plan_div, plan_rms, executed_div, executed_rms, steps; and the runs.
    """
    study, rows, runs = robot.study, [], []
    for name, product in robot.trajectories().items():
        seen = product.value
        n, horizon = len(seen.plans), seen.states.shape[2] - 1
        i, j = torch.triu_indices(n, n, 1)
        row: dict[str, object] = {"task": study.task.name, "seed": study.seed, "set": name}
        for kind, found in (
            ("plan", executed.plan_distances(seen.plans, robot.rule(STRONG.steps).floor)),
            ("executed", executed.distances(seen, executed.state_floor(study, horizon))),
        ):
            row |= {f"{kind}_{m}": float(d[i, j].mean()) for m, d in found.items()}
        rows.append(row | {"steps": int(seen.lengths.sum())})
        runs.append(product.run)
    return pd.DataFrame(rows), runs


# -- figures


@plotting.figure("04_executed")
def draw_executed(table: pd.DataFrame) -> Figure:
    """ρ of each distance of plans with each of trajectories; a dot a seed, with its interval."""
    horizon = table["horizon"].max()
    table = table[table["horizon"] == horizon]
    tasks = list(table["task"].unique())
    figure, panels = plotting.panels(len(tasks), 3.6, 3.0)
    names = {"div": "div of\ntrajectories", "rms": "RMS distance\nof trajectories"}
    for axes in panels[1:]:
        axes.sharey(panels[0])
    for axes, task in zip(panels, tasks, strict=True):
        for p, (plan, (label, colour)) in enumerate(PREDICTORS.items()):
            for place, measure in enumerate(names):
                part = table[(table["task"] == task) & (table["plan"] == plan)]
                part = part[part["executed"] == measure]
                x = [place + 0.25 * (p - 1) + 0.05 * s for s in range(len(part))]
                error = [part["rho"] - part["low"], part["high"] - part["rho"]]
                axes.errorbar(
                    x, part["rho"], error, fmt="o", color=plotting.COLOURS[colour], markersize=4,
                    linewidth=1, label=label if place == 0 else None,
                )  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set_xticks(range(len(names)), list(names.values()))
        axes.set(title=f"{task}, {horizon} steps", xlim=(-0.5, 1.5))
    panels[0].set_ylabel("rank correlation over pairs, ρ\n(bars: 95 % interval over states)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure
