"""Notebook 01: who collected the local datasets, how noisily, and what an episode looks like."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from uepo_lib import behaviors, cards, episodes, plotting, rendering, tasks
from uepo_lib.datasets import Dataset
from uepo_lib.robots import Robot

LEVEL_COLOURS = {
    "early": plotting.COLOURS["control"],
    "medium": plotting.COLOURS["UEPO"],
    "expert": plotting.COLOURS["highlight"],
}
JOINTS = ("thigh", "leg", "foot")
"""Hopper's."""
ROBOTS_A_ROW = 4
AGENT_GREYS = ("0.25", "0.5", "0.72")

# ── who collected the data ──────────────────────────────────────────────────────────────────────


def behaviour_table(robots: Iterable[Robot]) -> pd.DataFrame:
    """The training curves of the agents, in scores, and the step that each level was taken at.

    An attempt of which nothing was taken has neither.
    """
    rows = []
    for robot in robots:
        names = [name for name in behaviors.levels(robot) if "/" not in name]
        records = {name: behaviors.load_behaviour(robot, name).record for name in names}
        if failed := behaviors.attempt(robot):
            records["attempt"] = failed
        for level, record in records.items():
            if "training_curve" not in record:  # a clone
                continue
            curve = pd.DataFrame(record["training_curve"], columns=["env_steps", "score"])
            curve["score"] = curve.score.map(robot.normalised).round(2)
            taken = {"snapshot": float("nan"), "snapshot_score": float("nan")}
            if level != "attempt":
                noisy = record["returns"]["with_noise"]["normalised"]
                taken = {"snapshot": record["env_steps"], "snapshot_score": noisy}
            rows.append(curve.assign(robot=robot.name, level=level, seed=record["seed"], **taken))
    return pd.concat(rows, ignore_index=True)


@plotting.figure("behaviour_training")
def behaviour_training(table: pd.DataFrame) -> Figure:
    """Score while an agent trains, a line an agent; a star where a level was taken, named where
    several agents were taken at one level."""
    count = table.robot.nunique()
    lines = -(-count // ROBOTS_A_ROW)
    made, grid = plt.subplots(lines, ROBOTS_A_ROW, figsize=(9.6, 2.4 * lines), squeeze=False)
    panels = list(grid.flatten())
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes, (robot, mine) in zip(panels, table.groupby("robot", sort=False), strict=False):
        agents = dict(zip(mine.seed.unique(), itertools.cycle(AGENT_GREYS)))
        for seed, curve in mine.drop_duplicates(["seed", "env_steps"]).groupby("seed"):
            axes.plot(curve.env_steps / 1e6, curve.score, color=agents[seed], linewidth=1.1)
        _levels(axes, mine, agents)
        for value in (0, 100):
            axes.axhline(value, color="0.5", linewidth=0.8, linestyle=":")
        title = f"{robot}, {len(agents)} agents" if len(agents) > 1 else str(robot)
        axes.set(xlabel="steps (million)", title=title)
    for row in grid:
        row[0].set_ylabel("score while training")
    stars = [Line2D([], [], color=colour, marker="*", linestyle="", markersize=9, label=name)
             for name, colour in LEVEL_COLOURS.items()]  # fmt: skip
    if panels[count:]:
        panels[-1].legend(handles=stars, loc="center", title="taken as")
    else:
        made.legend(handles=stars, loc="outside right center", title="taken as")
    return made


def _levels(axes: Axes, mine: pd.DataFrame, agents: Mapping[int, str]) -> None:
    """A robot's stars. Those of one level stand close together, so their names stand aside, below
    the curves, each at the end of a line in its agent's grey."""
    stars = mine.dropna().groupby("level", sort=False).first()
    stars = stars.sort_values("snapshot_score", ascending=False)
    stars["kind"] = [str(level).partition("-")[0] for level in stars.index]
    stars["place"] = stars.groupby("kind").cumcount()
    alike = stars["kind"].value_counts()
    for level, star in stars.iterrows():
        at = (star.snapshot / 1e6, star.snapshot_score)
        axes.plot(*at, "*", color=LEVEL_COLOURS[star.kind], markersize=8, markeredgecolor="white",
                  markeredgewidth=0.4, zorder=4)  # fmt: skip
        if alike[star.kind] > 1:
            aside = {"arrowstyle": "-", "color": agents[star.seed], "linewidth": 0.8}
            axes.annotate(str(level), at, (0.52, 0.36 - 0.12 * star.place), size=7.5, va="center",
                          textcoords="axes fraction", arrowprops=aside)  # fmt: skip


def policies_table(robots: Iterable[Robot]) -> pd.DataFrame:
    """Score ± sd over fresh episodes of each committed policy, without and with its noise; what it
    was learnt by, and the minutes of the whole training that it is a snapshot of."""
    rows = []
    for robot in robots:
        for level in [name for name in behaviors.levels(robot) if "/" not in name]:
            record = behaviors.load_behaviour(robot, level).record
            spread = {
                name.replace("_", " "): f"{seen['normalised']:.1f} ± "
                f"{100 * seen['std'] / (robot.expert_return - robot.random_return):.1f}"
                for name, seen in record["returns"].items()
            }
            noise = f"{np.mean(record['action_noise']):.2f}"
            minutes = record.get("minutes_of_whole_run", record.get("minutes"))
            learnt = {
                "learnt by": record["algorithm"],
                "minutes": "–" if minutes is None else f"{minutes:.0f}",
            }
            about = {"robot": robot.name, "policy": level, **learnt}
            rows.append({**about, **spread, "noise (sd)": noise})
    return pd.DataFrame(rows).set_index(["robot", "policy"])


# ── what was meant and what was done ────────────────────────────────────────────────────────────


def actions_table(found: Mapping[str, Dataset], start: int = 100, steps: int = 60) -> pd.DataFrame:
    """Logged and mean actions over ``steps`` steps of the longest episode, a row a joint."""
    parts = []
    for name, data in found.items():
        length = episodes.lengths_of(data)
        count = min(steps, int(length.max()) - start)
        first = int(data.bounds[int(length.argmax()), 0]) + start
        chosen = torch.arange(first, first + count)
        means = cards.mean_actions(data, chosen)
        assert means is not None, f"{name}: no committed policy made it"
        joints = means.shape[1]
        columns = {
            "task": name,
            "step": np.repeat(np.arange(start, start + count), joints),
            "joint": np.tile(np.arange(joints), count),
            "logged": data.actions[chosen].flatten().numpy(),
            "mean": means.flatten().numpy(),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True).round(4)


@plotting.figure("dataset_actions")
def dataset_actions(table: pd.DataFrame) -> Figure:
    """Dots are what was done and logged; the line is what the policy meant."""
    names = list(table.task.unique())
    made, axes = plt.subplots(len(names), len(JOINTS), figsize=(7.8, 1.45 * len(names)),
                              sharex="row", sharey=True, squeeze=False)  # fmt: skip
    for row, name in zip(axes, names, strict=True):
        for j, cell in enumerate(row):
            part = table[(table.task == name) & (table.joint == j)]
            cell.plot(part.step, part["mean"], color="0.2", linewidth=1.2, label="mean action")
            cell.scatter(part.step, part.logged, s=6, color=LEVEL_COLOURS["medium"],
                         label="logged", zorder=3)  # fmt: skip
            cell.set(ylim=(-1.08, 1.08))
            cell.set_title(f"{name}: {JOINTS[j]}", size=8)
        row[0].set_ylabel("action (share\nof full torque)")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for cell in axes[-1]:
        cell.set_xlabel("step of an episode")
    return made


def differences_table(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """Mean ‖a_{t+1} − a_t‖ in the log, and of the mean actions along the same states."""
    rows = {}
    for name, data in found.items():
        means = cards.mean_actions(data, torch.arange(len(data)))
        assert means is not None, f"{name}: no committed policy made it"
        within = data.first_step[1:] == data.first_step[:-1]
        sizes = [float(a.diff(dim=0)[within].norm(dim=1).mean()) for a in (data.actions, means)]
        off = float((data.actions - means).abs().max())
        rows[name] = dict(
            zip(("|Δa| logged", "|Δa| meant", "furthest"), (*sizes, off), strict=True)
        )
    return pd.DataFrame(rows).T


# ── what an episode looks like ──────────────────────────────────────────────────────────────────

FRAMES = 4
GAIT_START, GAIT_SECONDS = 100, 0.12
"""Of an episode of a thousand steps a gait is shown: from this step on, one frame in so long."""
MOMENTS = {"door": (0.0, 0.2, 0.4, 0.7)}
"""In seconds: of a task that is done early, what follows would be one picture many times."""
FRAME_SIDE = 160
"""Pixels: small enough to be committed."""
STRIPS_A_ROW = 2


def film_table(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """The simulator's state in :data:`FRAMES` steps of the longest episode, a row a number."""
    parts = []
    for name, data in found.items():
        assert data.simulator_states is not None, f"{name} holds no simulator states"
        length = episodes.lengths_of(data)
        begin, most = int(data.bounds[int(length.argmax()), 0]), int(length.max())
        steps = _filmed(data.task.robot, most)
        states = data.simulator_states[begin + steps].numpy()
        columns = {
            "task": name,
            "step": steps.repeat(states.shape[1]),
            "seconds": (steps * data.task.robot.step_seconds).round(3).repeat(states.shape[1]),
            "number": np.tile(np.arange(states.shape[1]), len(steps)),
            "value": states.flatten().round(6),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _filmed(robot: Robot, most: int) -> NDArray[np.int_]:
    """The steps that are drawn of an episode of ``most``."""
    if robot.max_episode_steps >= 1000:
        every = max(1, round(GAIT_SECONDS / robot.step_seconds))
        steps = GAIT_START + every * np.arange(FRAMES)
    elif robot.name in MOMENTS:
        steps = np.rint(np.array(MOMENTS[robot.name]) / robot.step_seconds).astype(int)
    else:
        steps = np.linspace(0, most - 1, FRAMES).round().astype(int)
    return steps[steps < most]


@plotting.figure("film_strips")
def film_strips(table: pd.DataFrame) -> Figure:
    """One episode of each robot, drawn again from the simulator's logged states."""
    strips = []
    for name, rows in table.groupby("task", sort=False):
        states = rows.pivot_table(index="step", columns="number", values="value")
        robot = tasks.get(str(name)).robot
        pictures = rendering.frames(robot, states.to_numpy(), size=_frame_size(robot))
        strips.append((str(name), rows.seconds.unique(), pictures))
    columns = min(STRIPS_A_ROW, len(strips))
    shapes = [pictures.images.shape[1:3] for *_, pictures in strips]
    shares = [height / width + rendering.LABEL_ROOM for height, width in shapes]
    heights = [max(shares[i : i + columns]) for i in range(0, len(shares), columns)]
    size = (4.3 * columns, 4.3 / FRAMES * sum(heights) + 0.25 * len(heights) + 0.1)
    made, grid = plt.subplots(len(heights), columns, figsize=size, height_ratios=heights,
                              squeeze=False)  # fmt: skip
    panels = list(grid.flatten())
    for axes in panels[len(strips) :]:
        axes.set_axis_off()
    for axes, (name, seconds, pictures) in zip(panels, strips, strict=False):
        last = axes is panels[len(strips) - 1]  # one renderer draws them all
        rendering.film_strip(axes, pictures, [f"{t:.2f} s" for t in seconds], named=last)
        axes.set_title(name, loc="left", size=9)
        axes.set_anchor("NW")
    return made


def _frame_size(robot: Robot) -> tuple[int, int]:
    wide = robot.name == "maze"
    return FRAME_SIDE * 5 // 8 if wide else FRAME_SIDE, FRAME_SIDE
