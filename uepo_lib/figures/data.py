"""Notebook 01: who collected the local datasets, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from uepo_lib import behaviors, plotting
from uepo_lib.datasets import Dataset
from uepo_lib.environments import DatasetSimulator
from uepo_lib.robots import Robot

LEVEL_COLOURS = {"medium": plotting.COLOURS["UEPO"], "expert": plotting.COLOURS["highlight"]}
END_COLOURS = {
    "fell": plotting.COLOURS["BC"],
    "time limit": plotting.COLOURS["model"],
    "cut": plotting.COLOURS["data"],
}
"""How an episode ended: terminated; truncated by the clock; truncated as the last of its stream."""

# ── who collected the data ──────────────────────────────────────────────────────────────────────


def behaviour_table(robot: Robot) -> pd.DataFrame:
    """The training curves of the behaviour policies, and the step each level was taken at."""
    rows = []
    for level in ("medium", "expert"):
        record = behaviors.load_behaviour(robot, level).record
        curve = pd.DataFrame(record["training_curve"], columns=["env_steps", "training_return"])
        noisy = record["returns"]["with_noise"]["mean"]
        rows.append(
            curve.assign(level=level, seed=record["seed"], snapshot=record["env_steps"],
                         snapshot_return=noisy, random=robot.random_return,
                         expert=robot.expert_return)
        )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@plotting.figure("behaviour_training")
def behaviour_training(table: pd.DataFrame) -> Figure:
    """Return while PPO trains, a curve a run; a star where a level was taken."""
    made, (axes,) = plotting.panels(1, 6.4, 3.2)
    for seed, curve in table.drop_duplicates(["seed", "env_steps"]).groupby("seed"):
        axes.plot(curve.env_steps / 1e6, curve.training_return, color="0.5", alpha=0.7,
                  linewidth=1.2, label=f"PPO, seed {seed}")  # fmt: skip
    for level, rows in table.groupby("level", sort=False):
        colour, first = LEVEL_COLOURS[str(level)], rows.iloc[0]
        axes.plot(first.snapshot / 1e6, first.snapshot_return, "*", color=colour, markersize=14,
                  markeredgecolor="white", zorder=4, label=f"{level} was taken here")  # fmt: skip
    for value, name in ((table.random[0], "random (0)"), (table.expert[0], "reference (100)")):
        axes.axhline(value, color="0.5", linewidth=0.8, linestyle=":")
        axes.text(0.005, value, name, size=7, color="0.4", va="bottom",
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set(xlabel="environment steps (million)", ylabel="return while training")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


# ── what the datasets hold ──────────────────────────────────────────────────────────────────────


def episodes_table(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """A row an episode: return, normalised score, length in steps, and how it ended."""
    rows = []
    for name, data in found.items():
        robot = data.task.robot
        for begin, end in data.bounds.tolist():
            value, length = float(data.rewards[begin:end].double().sum()), end - begin
            late = "time limit" if length >= robot.max_episode_steps else "cut"
            ended = "fell" if bool(data.terminated[end - 1]) else late
            rows.append((name, round(value, 2), round(robot.normalised(value), 2), length, ended))
    return pd.DataFrame(rows, columns=["task", "return", "score", "length", "ended"])


def levels_of_steps(data: Dataset) -> list[str]:
    """Which behaviour policy made each step: (N,) levels, from the recipe in the metadata."""
    recipe = data.metadata["recipe"]
    levels: list[str] = []
    for part in recipe["parts"]:
        steps = round(recipe["num_transitions"] * part["share"])
        levels += [part["level"]] * (steps - steps % recipe["num_envs"])
    return levels


def mean_actions(data: Dataset) -> Tensor:
    """What the behaviour policies would have done without their noise: (N, A), clipped."""
    raw, levels = data.normaliser.inverse(data.states), np.array(levels_of_steps(data))
    means = torch.empty_like(data.actions)
    for level in np.unique(levels):
        chosen = torch.from_numpy(levels == level)
        policy = behaviors.load_behaviour(data.task.robot, str(level))
        means[chosen] = policy.mean_action(raw[chosen]).clamp(-1, 1)
    return means


def card(data: Dataset) -> dict[str, Any]:
    """One dataset in a column of facts; ``cut`` episodes count as steps, not as returns."""
    episodes = episodes_table({data.task.name: data})
    whole = episodes[episodes.ended != "cut"]
    residual = data.actions - mean_actions(data)
    share = episodes.ended.value_counts(normalize=True)
    return {
        "task": data.task.name,
        "Minari id": data.key.id,
        "transitions": f"{len(data):,}",
        "episodes": len(episodes),
        "played to the end": len(whole),
        "return, mean ± sd": f"{whole['return'].mean():.0f} ± {whole['return'].std():.0f}",
        "return, lowest to highest": f"{whole['return'].min():.0f} to {whole['return'].max():.0f}",
        "normalised score of the mean": round(float(whole.score.mean()), 1),
        "length, mean (steps)": round(float(whole.length.mean())),
        "terminated: fell": f"{share.get('fell', 0):.0%}",
        "truncated: time limit": f"{share.get('time limit', 0):.0%}",
        "truncated: cut": f"{share.get('cut', 0):.0%}",
        "action noise, recorded sd": _noise(data),
        "logged − mean action, sd": round(float(residual.std()), 2),
        "variance of actions that is noise": f"{float(residual.var() / data.actions.var()):.0%}",
        "action entries at ±1": f"{float((data.actions.abs() >= 1).float().mean()):.0%}",
        "content hash": data.key.hash,
    }


def _noise(data: Dataset) -> str:
    parts = data.metadata["recipe"]["parts"]
    return "; ".join("/".join(f"{sd:.2f}" for sd in part["action_noise"]) for part in parts)


@plotting.figure("dataset_returns")
def dataset_returns(table: pd.DataFrame) -> Figure:
    """Scores of whole episodes above, their lengths below, by how they ended."""
    made, (above, below) = _two_rows(table, sharex=True)
    whole = table[table.ended != "cut"]
    bins = np.linspace(min(0.0, whole.score.min()), whole.score.max() + 1, 31)
    for top, bottom, (name, part) in zip(
        above, below, table.groupby("task", sort=False), strict=True
    ):
        kinds = [(end, part[part.ended == end]) for end in END_COLOURS]
        shown = [(end, rows) for end, rows in kinds if end != "cut"]
        top.hist([rows.score for _, rows in shown], bins=bins, stacked=True, linewidth=0,
                 color=[END_COLOURS[end] for end, _ in shown])  # fmt: skip
        mean = part[part.ended != "cut"].score.mean()
        top.axvline(mean, color="0.2", linewidth=1.0)
        top.set_title(f"{name}: mean {mean:.0f}")
        for end, rows in kinds:
            bottom.scatter(rows.score, rows.length, s=9, alpha=0.6, linewidth=0,
                           color=END_COLOURS[end], label=end)  # fmt: skip
        bottom.set(xlabel="normalised score of an episode")
    above[0].set_ylabel("whole episodes")
    below[0].set(ylabel="length (steps)", ylim=(0, 1.06 * table.length.max()))
    below[-1].legend(loc="lower right", title="ended", title_fontsize=8)
    return made


def _two_rows(table: pd.DataFrame, sharex: Literal["row"] | bool) -> tuple[Figure, Any]:
    """Two rows of axes, a column a task."""
    columns = table.task.nunique()
    made, axes = plt.subplots(
        2, columns, figsize=(3.3 * columns, 4.8), sharex=sharex, sharey="row", squeeze=False
    )
    return made, axes


def coverage_table(found: Mapping[str, Dataset], reference: str, bins: int = 30) -> pd.DataFrame:
    """Share of each dataset's steps in the squares of two planes; empty squares have no row.

    One plane is measured (torso height, forward velocity), one is the first two principal
    components of the states of dataset ``reference``, in its standardised units.
    """
    base = found[reference].normaliser
    directions = torch.linalg.svd(_subsample(found[reference].states), full_matrices=False)[2][:2]
    directions = directions * directions.sum(1, keepdim=True).sign()
    rows = []
    planes = {
        "measured": {n: _raw(d)[:, [0, 5]].numpy() for n, d in found.items()},
        "components": {n: (base(_raw(d)) @ directions.T).numpy() for n, d in found.items()},
    }
    for plane, points in planes.items():
        low, high = np.quantile(np.concatenate(list(points.values())), [0.0005, 0.9995], axis=0)
        edges = [np.linspace(low[i], high[i], bins + 1) for i in range(2)]
        for name, xy in points.items():
            count = np.histogram2d(xy[:, 0], xy[:, 1], bins=edges)[0]
            for i, j in zip(*np.nonzero(count), strict=True):
                centre = [
                    (edge[k] + edge[k + 1]) / 2 for edge, k in zip(edges, (i, j), strict=True)
                ]
                size = [edge[1] - edge[0] for edge in edges]
                rows.append((name, plane, *centre, *size, count[i, j] / len(xy)))
    columns = ["task", "plane", "x", "y", "width", "height", "share"]
    return pd.DataFrame(rows, columns=columns).round(6)


def _raw(data: Dataset) -> Tensor:
    return data.normaliser.inverse(data.states)


def _subsample(states: Tensor, count: int = 20_000) -> Tensor:
    return states[:: max(1, len(states) // count)]


@plotting.figure("dataset_coverage")
def dataset_coverage(table: pd.DataFrame) -> Figure:
    """Where the data is: dark is visited often (logarithmic), white never."""
    made, axes = _two_rows(table, sharex="row")
    labels = {
        "measured": ("torso height (m)", "forward velocity (m/s)"),
        "components": ("first principal component", "second component"),
    }
    norm = LogNorm(table.share.min(), table.share.max())
    for row, (plane, (across, up)) in zip(axes, labels.items(), strict=True):
        for cell, name in zip(row, table.task.unique(), strict=True):
            part = table[(table.plane == plane) & (table.task == name)]
            mesh = _squares(cell, part, norm)
            cell.set(xlabel=across, title=name if plane == "measured" else "")
            cell.grid(False)
        row[0].set_ylabel(up)
    made.colorbar(mesh, ax=axes, label="share of steps", shrink=0.7, pad=0.02)
    return made


def _squares(axes: Axes, part: pd.DataFrame, norm: LogNorm) -> Any:
    corners = zip(part.x - part.width / 2, part.y - part.height / 2, strict=True)
    sizes = zip(part.width, part.height, strict=True)
    squares = [Rectangle(c, *size) for c, size in zip(corners, sizes, strict=True)]
    mesh = PatchCollection(squares, cmap="mako_r", norm=norm, linewidth=0)
    mesh.set_array(part.share.to_numpy())
    axes.add_collection(mesh)
    axes.autoscale_view()
    return mesh


def actions_table(found: Mapping[str, Dataset], start: int = 100, steps: int = 80) -> pd.DataFrame:
    """Logged and mean actions over ``steps`` steps of the longest episode, a row a joint."""
    rows = []
    for name, data in found.items():
        lengths = data.bounds[:, 1] - data.bounds[:, 0]
        first = int(data.bounds[int(lengths.argmax()), 0]) + start
        means = mean_actions(data)
        for t in range(min(steps, int(lengths.max()) - start)):
            for joint in range(data.actions.shape[1]):
                logged = float(data.actions[first + t, joint])
                rows.append((name, start + t, joint, logged, float(means[first + t, joint])))
    return pd.DataFrame(rows, columns=["task", "step", "joint", "logged", "mean"]).round(4)


@plotting.figure("dataset_actions")
def dataset_actions(table: pd.DataFrame) -> Figure:
    """Dots are what was done and logged; the line is what the policy meant."""
    names, joints = table.task.unique(), ("thigh", "leg", "foot")
    made, axes = plt.subplots(len(names), len(joints), figsize=(9.9, 2.1 * len(names)),
                              sharex="row", sharey=True, squeeze=False)  # fmt: skip
    for row, name in zip(axes, names, strict=True):
        for j, cell in enumerate(row):
            part = table[(table.task == name) & (table.joint == j)]
            colour = LEVEL_COLOURS[name.rpartition("-")[2]]
            cell.plot(part.step, part["mean"], color="0.2", linewidth=1.2, label="mean action")
            cell.scatter(part.step, part.logged, s=10, color=colour, label="logged", zorder=3)
            cell.set(title=f"{name}: {joints[j]}", ylim=(-1.08, 1.08))
        row[0].set_ylabel("torque (−1 to 1)")
        row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for cell in axes[-1]:
        cell.set_xlabel("step of an episode")
    return made


# ── whether the data is what it says ────────────────────────────────────────────────────────────


def replay_errors(data: Dataset, count: int, batch: int = 25) -> tuple[Tensor, Tensor]:
    """Put the simulator into ``count`` logged states and repeat the logged actions.

    Returns the largest difference between the observation reached and the logged one (count,), in
    standardised units, and whether termination came out as logged (count,) bool.
    """
    assert data.simulator_states is not None, "the dataset holds no simulator states"
    index = torch.linspace(0, len(data) - 1, count).long()
    simulator = DatasetSimulator(
        data.task.robot, data.simulator_states, data.states.unsqueeze(1), data.normaliser
    )
    errors, same = [], []
    for rows in index.split(batch):
        simulator.reset_to(rows)
        active = torch.ones(len(rows), dtype=torch.bool)
        reached, _, terminated = simulator.step(data.actions[rows], active)
        errors.append((reached - data.next_states[rows]).abs().amax(dim=1))
        same.append(terminated == data.terminated[rows])
    for env in simulator.envs:
        env.close()
    return torch.cat(errors), torch.cat(same)
