"""Notebook 30: which ways policies go on a task of one's own, and what they earn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from uepo_lib import plotting
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.policies import Policy
from uepo_lib.stages import Study

LOGGED = "logged"


def paths_table(study: Study, policies: Mapping[str, Policy], episodes: int) -> pd.DataFrame:
    """Columns policy, episode, x, y: the first two observed numbers along episodes from fixed
    seeds, one member after another, and along as many logged ones."""
    data = study.dataset
    rows = []
    for episode, (begin, end) in enumerate(data.bounds[:episodes].tolist()):
        raw = data.normaliser.inverse(data.states[begin:end])
        rows += [(LOGGED, episode, *state[:2]) for state in raw.tolist()]
    for name, policy in policies.items():
        for episode in range(episodes):
            played = _path(study, policy, episode % policy.n, seed=episode)
            rows += [(name, episode, *state[:2]) for state in played.tolist()]
    return pd.DataFrame(rows, columns=["policy", "episode", "x", "y"])


def _path(study: Study, policy: Policy, member: int, seed: int) -> torch.Tensor:
    """The raw states (L, S) of one episode."""
    robot, normaliser = study.task.robot, study.dataset.normaliser
    envs = ChunkedEnvs(
        robot, [seed], obs_horizon=policy.obs_horizon, auto_reset=False, keep_transitions=True
    )
    while envs.active[0]:
        seen = normaliser(envs.windows).expand(policy.n, -1, -1, -1)
        envs.step(policy.act(seen)[member])
    envs.close()
    return envs.transitions(lambda raw: raw).states


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
    """Columns policy, episode, x, y: a panel a policy, a line an episode."""
    names = list(table["policy"].unique())
    figure, panels = plotting.panels(len(names), 2.3, 2.5)
    for axes, name in zip(panels, names, strict=True):
        colour = plotting.COLOURS["data" if name == LOGGED else "UEPO"]
        for _, path in table[table["policy"] == name].groupby("episode"):
            axes.plot(path["x"], path["y"], color=colour, alpha=0.5, linewidth=0.9)
        axes.set(title=name, xlabel="x", xlim=_around(table["x"]), ylim=_around(table["y"]))
    panels[0].set_ylabel("y")
    return figure


def _around(values: pd.Series[float]) -> tuple[float, float]:
    room = 0.05 * (values.max() - values.min())
    return values.min() - room, values.max() + room


@plotting.figure("30_scores")
def draw_scores(table: pd.DataFrame) -> Figure:
    """Columns policy, member, score: a dot a member."""
    names = list(table["policy"].unique())
    figure, (axes,) = plotting.panels(1, 5.2, 2.8)
    values = [table.loc[table["policy"] == name, "score"].tolist() for name in names]
    plotting.dots(axes, names, values, plotting.COLOURS["UEPO"])
    axes.set_ylabel("normalised score")
    return figure
