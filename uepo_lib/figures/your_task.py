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
EXAMPLE = "Pillar-v0"
"""The notebook's own environment; of any other, figures and sentences show no landmarks."""
PILLAR, GOAL = (0.0, 0.0, 0.4), (1.0, 0.0, 0.2)
"""Of the notebook's task: x, y, radius."""
STEP = 0.1
"""The furthest that an action moves along either axis."""


def paths_table(study: Study, policies: Mapping[str, Policy], episodes: int) -> pd.DataFrame:
    """Columns policy, episode and two that are drawn: the first two observed numbers along the
    first of the episodes that evaluations play, one member after another, and along as many logged
    ones. The example's are called x and y; where one number is observed, the first is the step."""
    data, drawn = study.dataset, _drawn(study)
    rows = []
    for episode, (begin, end) in enumerate(data.bounds[:episodes].tolist()):
        raw = data.normaliser.inverse(_with_end(data.states, data.next_states, begin, end))
        rows += [(LOGGED, episode, *at) for at in _places(raw)]
    for name, policy in policies.items():
        for episode in range(episodes):
            played = _path(study, policy, episode % policy.n, EVALUATION_SEED + episode)
            rows += [(name, episode, *at) for at in _places(played)]
    return pd.DataFrame(rows, columns=["policy", "episode", *drawn])


def _drawn(study: Study) -> tuple[str, str]:
    """What a figure writes at its two axes."""
    robot = study.task.robot
    if robot.env_id == EXAMPLE:
        return "x", "y"
    return ("observation 0", "observation 1") if robot.state_dim > 1 else ("step", "observation 0")


def _places(states: torch.Tensor) -> list[tuple[float, float]]:
    """Where raw states (L + 1, S) are drawn."""
    if states.shape[1] > 1:
        return [(state[0], state[1]) for state in states.tolist()]
    return [(float(step), state[0]) for step, state in enumerate(states.tolist())]


def is_example(paths: pd.DataFrame) -> bool:
    """Is this :func:`paths_table` of the notebook's own task, whose landmarks are known?"""
    return {"x", "y"} <= set(paths.columns)


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
    """What was expected of the clone and of sub-policies, and how their episodes ended; of another
    task than the example, of which nothing is known, how long its episodes were."""
    if not is_example(paths):
        return _lasted(paths)
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


def _lasted(paths: pd.DataFrame) -> str:
    steps = paths.groupby(["policy", "episode"], sort=False).size() - 1  # the first state is none
    told = []
    for name, part in steps.groupby("policy", sort=False):
        low, high = part.min(), part.max()
        length = f"{low}" if low == high else f"{low} to {high}"
        told.append(f"- {name}: **{len(part)} episodes** of {length} steps")
    return "\n".join(told)


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
    """As :func:`paths_table` makes it: a panel a policy, a line an episode, a dot its end. The
    example has both axes to one scale, with the pillar and the goal."""
    names, example = list(table["policy"].unique()), is_example(table)
    x, y = table.columns[2:]
    limits = {"xlim": _around(table[x]), "ylim": _around(table[y])}
    figure, panels = _grid(len(names), x, y, _height(*limits.values()) if example else 2.0)
    for axes, name in zip(panels.flat, names, strict=False):
        if example:
            _landmarks(axes)
        colour = _colour(name)
        for _, path in table[table["policy"] == name].groupby("episode"):
            axes.plot(path[x], path[y], color=colour, alpha=0.5, linewidth=0.9)
            axes.plot(*path[[x, y]].iloc[-1], "o", color=colour, markersize=2.5)
        axes.set(title=name, aspect="equal" if example else "auto", **limits)
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "color": "0.3", "linewidth": 0.9}
    end = Line2D([], [], label="an episode, to its end", **style)
    handles = [*panels.flat[0].patches, end]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _height(xlim: tuple[float, float], ylim: tuple[float, float]) -> float:
    """Of a panel 2.6 inches wide whose axes have one scale."""
    return 2.6 * (ylim[1] - ylim[0]) / (xlim[1] - xlim[0]) + 0.55


def _grid(count: int, x: str, y: str, height: float) -> tuple[Figure, Any]:
    """``count`` panels in rows of three, named at the left and wherever nothing is below."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(2.6 * columns, height * rows + 0.3), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    for place, axes in enumerate(panels.flat[:count]):
        if place % columns == 0:
            axes.set_ylabel(y)
        if place + columns >= count:
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
    return figure, panels


def _colour(name: str) -> str:
    return plotting.COLOURS[
        "data" if name == LOGGED else "BC" if name.startswith(CLONE) else "UEPO"
    ]


def _landmarks(axes: Axes) -> None:
    marks = (("pillar", PILLAR, "0.75"), ("goal", GOAL, plotting.COLOURS["model"]))
    for name, (x, y, radius), colour in marks:
        axes.add_patch(Circle((x, y), radius, color=colour, alpha=0.6, linewidth=0, label=name))


def _around(values: pd.Series[float]) -> tuple[float, float]:
    room = 0.05 * (values.max() - values.min()) or 0.5  # of what does not vary, too
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
