"""E3 on three datasets of one task: how much of a score belongs to the dataset?

Seeds do not replicate a dataset: all seeds of a task learn from the same logged episodes. So, at
the profiles below, Hopper-medium has three, each collected by another agent, which was trained from
a seed of its own until it was *medium*, from other resets and with other noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from uepo_lib import profiles
from uepo_lib.errors import check
from uepo_lib.methods.bc import bc
from uepo_lib.methods.uepo import uepo
from uepo_lib.methods.uni_o4 import uni_o4
from uepo_lib.runs import Run
from uepo_lib.stages import Study

DATASETS = {"full": ("hopper-medium", "hopper-medium-b", "hopper-medium-c")}
"""By profile; the first one is played by E3 itself."""
ROWS: dict[str, Callable[[Study], Any]] = {"bc": bc, "uni_o4": uni_o4, "uepo": uepo}
GAIN = "UEPO − Uni-O4"
"""The headline as a row of its own: differences on the same dataset and seed."""


def datasets_of(profile: str) -> tuple[str, ...]:
    """The datasets that ``profile`` plays; at most profiles none."""
    return DATASETS.get(profile, ())


def measure(study: Study) -> tuple[pd.DataFrame, list[Run]]:
    """One dataset and seed: dataset, seed, row, offline and end, both on the same episodes."""
    rows, runs = [], []
    for row, method in ROWS.items():
        run = method(study).online.run
        seen = {name: float(values.mean()) for name, values in run.tensors("returns").items()}
        offline, end = (study.task.robot.normalised(seen[name]) for name in ("start", "end"))
        rows.append((study.task.name, study.seed, row, offline, end))
        runs.append(run)
    return pd.DataFrame(rows, columns=["dataset", "seed", "row", "offline", "end"]), runs


def run(profile: str) -> tuple[pd.DataFrame, list[Run]]:
    """Every dataset and seed of ``profile``, which must have some: their table, and their runs."""
    found = [
        measure(Study(name, seed, profile, progress=False))
        for name in datasets_of(profile)
        for seed in profiles.budget(profile).seeds
    ]
    tables, runs = [table for table, _ in found], [each for _, runs in found for each in runs]
    return pd.concat(tables, ignore_index=True), runs


def with_gain(table: pd.DataFrame) -> pd.DataFrame:
    """The table of :func:`run` in long form, with :data:`GAIN` as one more row: dataset, seed,
    measure, row, score."""
    keys = ["dataset", "seed", "row"]
    long = table.melt(keys, ["offline", "end"], "measure", "score")
    wide = long.pivot(index=["measure", "dataset", "seed"], columns="row", values="score")
    wide[GAIN] = wide["uepo"] - wide["uni_o4"]
    return wide.melt(ignore_index=False, value_name="score").reset_index()


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """What varies more, the dataset or the seed? A row a contender and measure, in points: the
    mean; ``between datasets``, the standard deviation of their means; ``between seeds``, that of
    the seeds on one dataset, pooled; ``by chance``, what seeds alone would make of the first, were
    the datasets alike: between seeds / √seeds."""
    rows = []
    for (row, name), part in with_gain(table).groupby(["row", "measure"], sort=False):
        scores = part.pivot(index="dataset", columns="seed", values="score")
        whole = not scores.isna().any(axis=None) and min(scores.shape) > 1
        check(whole, "table", scores.shape, "every seed on every dataset, two or more of each")
        count, seeds = len(scores.columns), float(np.sqrt(scores.var(axis=1).mean()))
        rows.append(
            {"row": row, "measure": name, "mean": scores.to_numpy().mean(),
             "between datasets": scores.mean(axis=1).std(), "between seeds": seeds,
             "by chance": seeds / np.sqrt(count), "datasets": len(scores), "seeds": count}
        )  # fmt: skip
    return pd.DataFrame(rows)


def told(table: pd.DataFrame) -> str:
    """The headline by dataset, in words: has it one sign?"""
    gains = with_gain(table)
    gains = gains[(gains["row"] == GAIN) & (gains["measure"] == "end")]
    means = gains.groupby("dataset", sort=False)["score"].mean()
    said = ", ".join(f"{gain:+.1f} on {name}" for name, gain in means.items())
    one = "The same sign on all of them" if len(set(np.sign(means))) == 1 else "**Not one sign**"
    return f"UEPO over Uni-O4 at the end, in the mean over seeds: {said}. {one}."
