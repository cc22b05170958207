"""A dataset by its episodes: how good, how long, how they ended."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uepo_lib.datasets import Dataset

ENDS = ("terminated", "time limit", "cut")
"""How an episode ends. ``terminated``: the task ended it (a walker fell, the ball arrived); ``time
limit``: the clock did; ``cut``: it is the last of its stream, and only the collection ended."""


def lengths_of(data: Dataset) -> NDArray[np.int64]:
    """(episodes,) steps of each."""
    return (data.bounds[:, 1] - data.bounds[:, 0]).numpy()


def ends_of(data: Dataset) -> NDArray[np.str_]:
    """(episodes,) one of :data:`ENDS` each."""
    terminated = data.terminated[data.bounds[:, 1] - 1].numpy()
    late = lengths_of(data) >= data.task.robot.max_episode_steps
    return np.select([terminated, late], ENDS[:2], ENDS[2])


def whole(data: Dataset) -> NDArray[np.int64]:
    """The numbers of the episodes that were played to their end."""
    return np.flatnonzero(ends_of(data) != "cut")


def episodes_table(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """A row an episode: undiscounted return, normalised score, length in steps, how it ended."""
    return pd.concat([_episodes(name, data) for name, data in found.items()], ignore_index=True)


def _episodes(name: str, data: Dataset) -> pd.DataFrame:
    robot, first = data.task.robot, data.bounds[:, 0].numpy()
    returns = np.add.reduceat(data.rewards.numpy().astype(np.float64), first)
    table = {
        "robot": robot.name, "task": name, "return": returns.round(2),
        "score": np.array([robot.normalised(value) for value in returns]).round(2),
        "length": lengths_of(data), "ended": ends_of(data),
    }  # fmt: skip
    return pd.DataFrame(table)


def falls(table: pd.DataFrame) -> pd.DataFrame:
    """Of datasets whose episodes differ in length: the correlation of return with length, and the
    share that was terminated; whole episodes only."""
    rows = {}
    for name, mine in table[table.ended != "cut"].groupby("task", sort=False):
        if mine.length.nunique() > 1 and mine["return"].nunique() > 1:
            rows[name] = {
                "correlation of return with length": mine["return"].corr(mine.length),
                "share terminated": (mine.ended == "terminated").mean(),
            }
    return pd.DataFrame(rows).T
