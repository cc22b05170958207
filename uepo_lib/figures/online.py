"""Notebook 07: going online. Tables, then figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uepo_lib import plotting, ppo
from uepo_lib.datasets import Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.figures.selection import spent
from uepo_lib.methods.bc import bc
from uepo_lib.methods.uepo import UEPO, uepo
from uepo_lib.robots import Robot
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study
from uepo_lib.statistics import mean_interval

STARTS = {
    "UEPO": ("UEPO (π* by AM-Q)", plotting.COLOURS["UEPO"]),
    "median": ("median (sub-policy, κ = 0.5)", plotting.COLOURS["control"]),
    "BC": ("BC (Gaussian clone)", plotting.COLOURS["BC"]),
}
"""What goes online in notebook 07, how it is called, and its colour."""
CLOSES, HIGH = 20.0, 80.0
"""The rule of notebook 07: below a start of HIGH at least CLOSES percent of the gap are closed."""


def gone_online(study: Study, found: UEPO) -> dict[str, Product[Any]]:
    """The three online phases of one seed, by the names in :data:`STARTS`."""
    median = study.median_member(study.sub_policies(found.model, 0.5))
    return {
        "UEPO": found.online,
        "median": study.fine_tune(median, found.critic),
        "BC": bc(study).online,
    }


def all_online(studies: Iterable[Study]) -> tuple[dict[int, UEPO], dict[tuple[str, int], Run]]:
    """Algorithm 1's products by seed, and every online run by (start, seed)."""
    products, runs = {}, {}
    for study in studies:
        products[study.seed] = uepo(study)
        for name, online in gone_online(study, products[study.seed]).items():
            runs[name, study.seed] = online.run
    return products, runs


def objective_table(clip_range: float) -> pd.DataFrame:
    """L^CLIP of one sample against its ratio, by the library: columns advantage, ratio, value."""
    rows = []
    for advantage in (1.0, -1.0):
        for ratio in np.linspace(0.6, 1.4, 81):
            log_prob = torch.tensor([[ratio]], dtype=torch.float64).log()
            sign = torch.tensor([[advantage]], dtype=torch.float64)
            value = ppo.clipped_objective(log_prob, torch.zeros_like(log_prob), sign, clip_range)
            rows.append((advantage, float(ratio), float(value)))
    return pd.DataFrame(rows, columns=["advantage", "ratio", "value"]).assign(clip=clip_range)


def curves_table(
    runs: Mapping[tuple[str, int], Run], robot: Robot, dataset_return: float
) -> pd.DataFrame:
    """Every look at every policy: columns method, seed, look, env_steps, score, … , dataset."""
    parts = []
    for (name, seed), run in runs.items():
        frame = run.table("evaluations").frame()
        frame.insert(0, "method", name)
        frame.insert(1, "seed", seed)
        frame.insert(2, "look", range(len(frame)))
        frame["score"] = frame["return"].map(robot.normalised)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True).assign(dataset=robot.normalised(dataset_return))


def switch_table(runs: Mapping[tuple[str, int], Run], robot: Robot) -> pd.DataFrame:
    """What the switch costs, in points of score: columns method, seed, start, exploration, …

    All on the episodes of the looks. ``start`` is the first one, ``exploration`` what the same
    policy loses with its noise, ``update`` the start minus the first look at a policy that moved,
    ``lowest`` minus the lowest such look.
    """
    rows = []
    for (name, seed), run in runs.items():
        exploring = robot.normalised(float(run.tensors("returns")["start_exploring"].mean()))
        seen = run.table("evaluations").frame()
        start = robot.normalised(float(seen["return"].iloc[0]))
        looks = seen[seen.displacement > 0]["return"].map(robot.normalised)
        rows.append(
            {"method": name, "seed": seed, "start": start, "exploration": start - exploring,
             "update": start - looks.iloc[0], "lowest": start - looks.min()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def gap_table(runs: Mapping[tuple[str, int], Run], robot: Robot) -> pd.DataFrame:
    """Start, end, share of the gap to the reference that was closed, and the rule's verdict.

    The rule: from a start below HIGH at least CLOSES percent of the gap are closed; from a higher
    one the end is not lower by more than the half-width of the 95 % interval of the change. Start
    and end are evaluated from the same reset seeds, so the change is a mean of paired differences.
    """
    rows = []
    for (name, seed), run in runs.items():
        start, end = (
            np.array([robot.normalised(float(r)) for r in run.tensors("returns")[key]])
            for key in ("start", "end")
        )
        half = mean_interval(end - start).mean - mean_interval(end - start).low
        rows.append(
            {"method": name, "seed": seed, "start": start.mean(), "half_width": half,
             "end": end.mean()}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    low = table.start < HIGH
    table["gap_closed"] = 100 * (table.end - table.start) / (100 - table.start)
    table["rule"] = np.where(low, f"closes {CLOSES:g} %", "does not fall")
    met = np.where(low, table.gap_closed >= CLOSES, table.start - table.end <= table.half_width)
    table["verdict"] = np.where(met, "met", "not met")
    return table


def shift_table(
    studies: Iterable[Study], found: Mapping[int, UEPO], runs: Mapping[tuple[str, int], Run]
) -> pd.DataFrame:
    """−log T̂ of real transitions before and after the refit: columns seed, data, model, nll."""
    rows = []
    for study in studies:
        made = found[study.seed]
        seen = {
            "D, held out": study.dataset.transitions()[study.testing],
            "D_online": Transitions(**runs["UEPO", study.seed].tensors("online")),
        }
        models: dict[str, DynamicsModel] = {
            "before": made.dynamics.value, "after": made.online_dynamics.value
        }  # fmt: skip
        for data, transitions in seen.items():
            for when, model in models.items():
                nll = model.nll(transitions)
                rows.append((study.seed, data, when, float(nll.mean()), float(nll.median())))
    return pd.DataFrame(rows, columns=["seed", "data", "model", "nll", "median"])


def steps_table(
    studies: Iterable[Study], found: Mapping[int, UEPO], runs: Mapping[tuple[str, int], Run]
) -> pd.DataFrame:
    """Environment steps by purpose: columns method, seed, purpose, steps, episodes.

    ``choosing`` is what it cost to find the policy that goes online; AM-Q asks only the model.
    """
    rows = []
    for study in studies:
        together = study.sub_policies(found[study.seed].model, 0.5)
        judged = study.evaluate(together, study.budget.curve_episodes)
        choosing = {"UEPO": found[study.seed].best.runs, "median": judged.runs, "BC": ()}
        for name, chosen_by in choosing.items():
            record = {"choosing": spent(chosen_by), **runs[name, study.seed].record["environment"]}
            rows += [(name, study.seed, why, *paid.values()) for why, paid in record.items()]
    return pd.DataFrame(rows, columns=["method", "seed", "purpose", "steps", "episodes"])


@plotting.figure("ppo_objective")
def ppo_objective(table: pd.DataFrame) -> Figure:
    """The clipped objective of one sample, for a good action and a bad one."""
    figure, axes = plotting.panels(2, width=3.3, height=2.4)
    clip = float(table["clip"].iloc[0])
    for axis, advantage in zip(axes, (1.0, -1.0), strict=True):
        part = table[table.advantage == advantage]
        axis.plot(part.ratio, advantage * part.ratio, "--", color=plotting.COLOURS["data"],
                  linewidth=1, label="unclipped")  # fmt: skip
        axis.plot(part.ratio, part.value, color=plotting.COLOURS["UEPO"], label="clipped")
        axis.axvspan(1 - clip, 1 + clip, color="0.94", label=r"$1 \pm c$")
        axis.set(title=f"advantage {'+' if advantage > 0 else '−'}1", xlabel="ratio new / old")
    axes[0].set_ylabel("objective")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@plotting.figure("online_curves")
def online_curves(table: pd.DataFrame) -> Figure:
    """Normalised return of the noise-free policy over online steps, every seed and the mean."""
    figure, (axis,) = plotting.panels(1, width=6.4, height=3.6)
    _paths(axis, table, "score")
    level = float(table.dataset.iloc[0])
    for height, text in ((level, "dataset's mean"), (100.0, "reference")):
        axis.axhline(height, color=plotting.COLOURS["data"], linestyle="--", linewidth=1)
        axis.annotate(text, (1, height), (3, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", size="x-small", color="0.35", va="center",
                      annotation_clip=False)  # fmt: skip
    axis.set(xlabel="online environment steps", ylabel="normalised return,\nnoise-free policy")
    axis.set_ylim(min(level, table.score.min()) - 5, max(106.0, 1.05 * table.score.max()))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(STARTS))
    return figure


@plotting.figure("policy_change")
def policy_change(table: pd.DataFrame) -> Figure:
    """How far the policy moved: its own KL from the first policy, and its noise-free actions.

    The clone's KL is dashed: it is of one action, the chain's of the whole path of a chunk.
    """
    figure, (left, right) = plotting.panels(2, width=3.8)
    _paths(left, table, "policy_kl", dashed="BC")
    _paths(right, table, "displacement")
    left.set(
        xlabel="online environment steps",
        ylabel="KL(start ‖ now), nats a decision",
    )
    right.set(
        xlabel="online environment steps",
        ylabel="noise-free action moved by\n(σ of what each start explores)",
    )
    right.plot([], [], "--", color=STARTS["BC"][1], label="BC's KL: one action, not a chunk")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _paths(axis: Axes, table: pd.DataFrame, y: str, dashed: str = "") -> None:
    """Thin lines for seeds, bold for the mean over seeds at each look; one method may be dashed.

    A chunk may end early, so looks of different seeds lie a few steps apart.
    """
    for name, (label, colour) in STARTS.items():
        part, line = table[table.method == name], "--" if name == dashed else "-"
        for _, one in part.groupby("seed"):
            axis.plot(one.env_steps, one[y], line, color=colour, alpha=0.35, linewidth=0.9)
        mean = part.groupby("look")[["env_steps", y]].mean()
        axis.plot(
            mean.env_steps, mean[y], line, color=colour, marker="o", markersize=3, label=label
        )


@plotting.figure("switch_cost")
def switch_cost(table: pd.DataFrame) -> Figure:
    """The two prices of the switch, a dot a seed; positive is lost."""
    figure, axes = plotting.panels(2, width=3.4)
    titles = {"exploration": "exploration: noise-free − exploring",
              "update": "update: start − first evaluation after"}  # fmt: skip
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for place, (name, (_, colour)) in enumerate(STARTS.items()):
            values = table[table.method == name][column]
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
            axis.scatter(place + spread, values, color=colour, s=16)
            axis.hlines(values.mean(), place - 0.25, place + 0.25, color=colour, linewidth=2)
        axis.axhline(0, color="0.5", linewidth=0.8)
        axis.set_title(title)
        axis.set_xticks(range(len(STARTS)), list(STARTS))
        axis.set_xlim(-0.5, len(STARTS) - 0.5)
    axes[1].sharey(axes[0])  # the two prices are compared
    axes[0].autoscale(axis="y")
    axes[0].set_ylabel("lost (points of score)")
    return figure


@plotting.figure("online_dynamics")
def online_dynamics(table: pd.DataFrame) -> Figure:
    """NLL of held-out and of online transitions, before and after the refit, a line a seed."""
    groups = list(dict.fromkeys(table.data))
    figure, axes = plotting.panels(len(groups), width=2.6)
    for axis, name in zip(axes, groups, strict=True):
        for _, one in table[table.data == name].groupby("seed"):
            axis.plot(one.model, one.nll, color=plotting.COLOURS["model"], marker="o", markersize=4)
        axis.set(title=name, xlabel="refit of the dynamics model", xlim=(-0.4, 1.4))
    low, high = table.nll.min(), table.nll.max()
    for axis in axes:
        axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes[0].set_ylabel("mean NLL (nats)")
    return figure
