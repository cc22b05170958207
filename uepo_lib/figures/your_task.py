"""Notebook 30: which ways policies go on a task of one's own, and what they earn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from uepo_lib import plotting
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.evaluation import EVALUATION_SEED
from uepo_lib.policies import Policy
from uepo_lib.stages import Study

LOGGED, CLONE, SETS = "logged", "clone", "sub-policies"
PILLAR, GOAL = (0.0, 0.0, 0.4), (1.0, 0.0, 0.2)
"""Of the notebook's task: x, y, radius."""
STEP = 0.1
"""The furthest that an action moves along either axis."""


def paths_table(study: Study, policies: Mapping[str, Policy], episodes: int) -> pd.DataFrame:
    """Columns policy, episode, x, y: the first two observed numbers along the first of the episodes
    that evaluations play, one member after another, and along as many logged ones."""
    data = study.dataset
    rows = []
    for episode, (begin, end) in enumerate(data.bounds[:episodes].tolist()):
        raw = data.normaliser.inverse(_with_end(data.states, data.next_states, begin, end))
        rows += [(LOGGED, episode, *state[:2]) for state in raw.tolist()]
    for name, policy in policies.items():
        for episode in range(episodes):
            played = _path(study, policy, episode % policy.n, EVALUATION_SEED + episode)
            rows += [(name, episode, *state[:2]) for state in played.tolist()]
    return pd.DataFrame(rows, columns=["policy", "episode", "x", "y"])


def _path(study: Study, policy: Policy, member: int, seed: int) -> torch.Tensor:
    """The raw states (L + 1, S) of one episode, the last one included."""
    robot, normaliser = study.task.robot, study.dataset.normaliser
    envs = ChunkedEnvs(
        robot, [seed], obs_horizon=policy.obs_horizon, auto_reset=False, keep_transitions=True
    )
    while envs.active[0]:
        seen = normaliser(envs.windows).expand(policy.n, -1, -1, -1)
        envs.step(policy.act(seen)[member])
    envs.close()
    steps = envs.transitions(lambda raw: raw)
    return _with_end(steps.states, steps.next_states, 0, len(steps))


def _with_end(
    states: torch.Tensor, next_states: torch.Tensor, begin: int, end: int
) -> torch.Tensor:
    return torch.cat([states[begin:end], next_states[end - 1 : end]])


def outcomes(paths: pd.DataFrame) -> pd.DataFrame:
    """How episodes of ``paths`` end, a row a policy: columns episodes, arrived, "in the pillar",
    "past the goal", elsewhere, and left and right (of the pillar, of those that arrived)."""
    rows = {}
    for name, part in paths.groupby("policy", sort=False):
        ends = [_outcome(way[["x", "y"]].to_numpy()) for _, way in part.groupby("episode")]
        kinds = ("arrived", "in the pillar", "past the goal", "elsewhere")
        counts = {kind: sum(end == kind for end, _ in ends) for kind in kinds}
        sides = [left for end, left in ends if end == "arrived"]
        rows[name] = {
            "episodes": len(ends), **counts, "left": sum(sides), "right": len(sides) - sum(sides)
        }  # fmt: skip
    return pd.DataFrame(rows).T


def _outcome(way: np.ndarray) -> tuple[str, bool]:
    """How one path (L, 2) ends, and whether it had the pillar on its right."""
    end, beside = way[-1], way[np.abs(way[:, 0] - PILLAR[0]).argmin()]
    left = bool(beside[1] > PILLAR[1])
    if np.linalg.norm(end - GOAL[:2]) < GOAL[2]:
        return "arrived", left
    # a step into the pillar is not made, so one who pushes against it stands a step away
    if np.linalg.norm(end - PILLAR[:2]) < PILLAR[2] + np.sqrt(2) * STEP:
        return "in the pillar", left
    return ("past the goal" if end[0] > GOAL[0] else "elsewhere"), left


def came_to(paths: pd.DataFrame) -> str:
    """What was expected of the clone and of sub-policies, and how their episodes ended."""
    found = outcomes(paths)
    clone, sets = found.loc[CLONE], found.loc[SETS]
    stuck = clone["in the pillar"] > clone["episodes"] / 2
    round_it = sets["arrived"] > sets["episodes"] / 2 and min(sets["left"], sets["right"]) > 0
    told = "\n".join(
        f"- {name}: arrived **{row['arrived']} of {row['episodes']}** (left {row['left']}, right "
        f"{row['right']}), in the pillar {row['in the pillar']}, past the goal "
        f"{row['past the goal']}, elsewhere {row['elsewhere']}"
        for name, row in found.iterrows()
    )
    return (
        f"{told}\n\nThat most of the clone's episodes end at the pillar is {_seen(bool(stuck))}; "
        f"that most sub-policies go round it, on either side, is {_seen(bool(round_it))}. One seed."
    )


def _seen(met: bool) -> str:
    return "what was expected" if met else "expected and not seen"


def scores_table(study: Study, returns: Mapping[str, Any]) -> pd.DataFrame:
    """Columns policy, member, score: normalised, the mean of a member's episodes, from
    ``Evaluation`` by name."""
    rows = [
        (name, member, study.task.robot.normalised(float(earned.mean())))
        for name, seen in returns.items()
        for member, earned in enumerate(seen.returns)
    ]
    return pd.DataFrame(rows, columns=["policy", "member", "score"])


@plotting.figure("30_paths")
def draw_paths(table: pd.DataFrame) -> Figure:
    """Columns policy, episode, x, y: a panel a policy, a line an episode, a dot its end; x and y to
    one scale, with the pillar and the goal."""
    names = list(table["policy"].unique())
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    xlim, ylim = _around(table["x"]), _around(table["y"])
    height = 2.6 * (ylim[1] - ylim[0]) / (xlim[1] - xlim[0]) + 0.55
    figure, panels = plt.subplots(
        rows, columns, figsize=(2.6 * columns, height * rows + 0.3), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for place, axes in enumerate(panels.flat[: len(names)]):
        if place % columns == 0:
            axes.set_ylabel("y")
        if place + columns >= len(names):  # nothing below it
            axes.set_xlabel("x")
            axes.tick_params(labelbottom=True)
    for axes, name in zip(panels.flat, names, strict=False):
        _landmarks(axes)
        colour = _colour(name)
        for _, path in table[table["policy"] == name].groupby("episode"):
            axes.plot(path["x"], path["y"], color=colour, alpha=0.5, linewidth=0.9)
            axes.plot(*path[["x", "y"]].iloc[-1], "o", color=colour, markersize=2.5)
        axes.set(title=name, xlim=xlim, ylim=ylim, aspect="equal")
    end = Line2D(
        [],
        [],
        marker="o",
        markersize=3.5,
        color="0.3",
        linewidth=0.9,
        label="an episode, to its end",
    )
    handles = [*panels.flat[0].patches, end]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _colour(name: str) -> str:
    return plotting.COLOURS[
        "data" if name == LOGGED else "BC" if name.startswith(CLONE) else "UEPO"
    ]


def _landmarks(axes: Axes) -> None:
    marks = (("pillar", PILLAR, "0.75"), ("goal", GOAL, plotting.COLOURS["model"]))
    for name, (x, y, radius), colour in marks:
        axes.add_patch(Circle((x, y), radius, color=colour, alpha=0.6, linewidth=0, label=name))


def _around(values: pd.Series[float]) -> tuple[float, float]:
    room = 0.05 * (values.max() - values.min())
    return values.min() - room, values.max() + room


@plotting.figure("30_scores")
def draw_scores(table: pd.DataFrame) -> Figure:
    """Columns policy, member, score: a dot a member, the mean a bar."""
    names = list(table["policy"].unique())
    figure, (axes,) = plotting.panels(1, 5.2, 2.8)
    scores = [table.loc[table["policy"] == name, "score"].tolist() for name in names]
    plotting.dots(axes, names, scores, [_colour(name) for name in names])
    axes.set_ylabel("normalised score")
    return figure
