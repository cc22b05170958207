"""Which states a dataset visits, seen in one plane of two measured quantities a robot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib.datasets import Dataset
from uepo_lib.robots import Robot

BINS = 24
"""Squares along each side of a plane."""


@dataclass(frozen=True)
class Plane:
    """Two quantities of a state that a person can picture."""

    across: str
    up: str
    points: Callable[[Tensor], Tensor]
    """Raw states (N, S) -> (N, 2)."""
    turns: bool = False
    """``across`` is an angle of which the simulator counts whole turns."""

    def places(self, raw: Tensor) -> Tensor:
        """``points``, where an attitude is one place whatever turns led to it: angles from −π/2 to
        3π/2, so that neither standing nor lying on the back is cut in two."""
        xy = self.points(raw)
        if not self.turns:
            return xy
        angle = (xy[:, 0] + math.pi / 2).remainder(2 * math.pi) - math.pi / 2
        return torch.stack([angle, xy[:, 1]], dim=1)


def _columns(*which: int) -> Callable[[Tensor], Tensor]:
    return lambda raw: raw[:, list(which)]


def _pen(raw: Tensor) -> Tensor:
    held, wanted = raw[:, 33:36], raw[:, 36:39]
    return torch.stack([torch.cosine_similarity(held, wanted, dim=1), raw[:, 26]], dim=1)


def _hammer(raw: Tensor) -> Tensor:
    return torch.stack([(raw[:, 33:36] - raw[:, 36:39]).norm(dim=1), raw[:, 26]], dim=1)


def _door(raw: Tensor) -> Tensor:
    return torch.stack([raw[:, 35:38].norm(dim=1), raw[:, 28]], dim=1)


_GAIT = ("torso height (m)", "forward velocity (m/s)")
PLANES = {
    "hopper": Plane(*_GAIT, _columns(0, 5)),
    "walker2d": Plane(*_GAIT, _columns(0, 8)),
    "halfcheetah": Plane("torso angle (rad)", _GAIT[1], _columns(1, 8), turns=True),
    "pen": Plane("cosine of pen and target", "pen's height (m)", _pen),
    "door": Plane("palm to handle (m)", "door's angle (rad)", _door),
    "hammer": Plane("palm to hammer (m)", "nail driven in (m)", _hammer),
    "maze": Plane("x (m)", "y (m)", _columns(0, 1)),
}


def plane_of(robot: Robot) -> Plane:
    """The robot's plane; of a robot without one, the first two numbers of its state."""
    return PLANES.get(robot.name, Plane("state 0", "state 1", _columns(0, 1)))


def visits_table(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """How many of each dataset's steps lie in each square of its robot's plane; no empty squares.

    A robot's datasets share its squares, which end at the 0.05 % and 99.95 % quantiles of all their
    steps; steps beyond are left out.
    """
    points = {
        name: plane_of(data.task.robot).places(data.normaliser.inverse(data.states)).numpy()
        for name, data in found.items()
    }
    robots = {name: data.task.robot.name for name, data in found.items()}
    parts = []
    for robot in dict.fromkeys(robots.values()):
        mine = {name: xy for name, xy in points.items() if robots[name] == robot}
        edges = _edges(np.concatenate(list(mine.values())))
        parts += [_squares(robot, name, xy, edges) for name, xy in mine.items()]
    return pd.concat(parts, ignore_index=True).round(4)


def _edges(xy: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    low, high = np.quantile(xy.astype(np.float64), [0.0005, 0.9995], axis=0)
    high = np.maximum(high, low + 1e-9)
    return [np.linspace(low[k], high[k], BINS + 1) for k in range(2)]


def _squares(
    robot: str, name: str, xy: NDArray[np.float32], edges: list[NDArray[np.float64]]
) -> pd.DataFrame:
    count = np.histogram2d(xy[:, 0], xy[:, 1], bins=edges)[0]
    i, j = np.nonzero(count)
    middle = [(edge[:-1] + edge[1:]) / 2 for edge in edges]
    return pd.DataFrame(
        {
            "robot": robot, "task": name, "x": middle[0][i], "y": middle[1][j],
            "width": edges[0][1] - edges[0][0], "height": edges[1][1] - edges[1][0],
            "steps": count[i, j].astype(int),
        }
    )  # fmt: skip


def lying(table: pd.DataFrame, robot: str = "halfcheetah") -> pd.Series:
    """The share of its steps in which a robot of counted turns lies on its back, by dataset."""
    mine = table[table.robot == robot]
    back = mine.steps.where(np.cos(mine.x) < 0, 0)
    return back.groupby(mine.task, sort=False).sum() / mine.groupby("task", sort=False).steps.sum()


def effective_squares(steps: NDArray[np.integer]) -> float:
    """exp(−Σ p log p): how many equally visited squares would spread the steps as widely."""
    p = steps[steps > 0] / steps.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def overlap(table: pd.DataFrame, one: str, other: str) -> float:
    """Σ min(p, q) over the squares of a plane: 0 if two datasets share none, 1 if they agree."""
    chosen = table[table.task.isin([one, other])]
    wide = chosen.pivot_table(index=["x", "y"], columns="task", values="steps", fill_value=0)
    shares = wide[[one, other]] / wide[[one, other]].sum()
    return float(shares.min(axis=1).sum())


def narrower(squares: pd.Series, robot: str) -> pd.Series:
    """The datasets of ``robot`` with fewer effective squares than its expert: squares, by task."""
    own = squares[squares.index.str.startswith(f"{robot}-")]
    return own[own < own[f"{robot}-expert"]].sort_values()


def mixtures(table: pd.DataFrame) -> pd.DataFrame:
    """Of each robot with a medium, an expert and their mixture: how far each pair overlaps."""
    present, rows = set(table.task), {}
    for robot in table.robot.unique():
        medium, expert, both = (f"{robot}-{kind}" for kind in ("medium", "expert", "medium-expert"))
        if {medium, expert, both} <= present:
            rows[robot] = {
                "medium with expert": overlap(table, medium, expert),
                "medium with their mixture": overlap(table, medium, both),
                "expert with their mixture": overlap(table, expert, both),
            }
    return pd.DataFrame(rows).T
