"""A card for each dataset: who made it, how good, how long, how noisy, how wide, how many modes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from uepo_lib import behaviors, episodes, modes, visits
from uepo_lib.datasets import Dataset
from uepo_lib.recipes import CONTROLLER, part_of_steps, parts_of
from uepo_lib.tasks import Task

LOOKED_AT = 5_000
"""How many steps, evenly spread, the behaviour policies are asked about again."""
SHOWN_PARTS = 3
"""A recipe of more parts is shown by the range of its noise."""


@dataclass(frozen=True)
class Card:
    """Facts of one dataset. Returns, scores and lengths are those of whole episodes (not cut), NaN
    where there is none."""

    task: str
    robot: str
    paper_row: str | None
    dataset: str
    hash: str
    transitions: int
    episodes: int
    whole: int
    return_mean: float
    return_std: float
    score: float
    """D4RL's normalised score of the mean return."""
    length_mean: float
    length_min: float
    length_max: float
    terminated: float
    """Shares of all episodes, as the next two; see ``episodes.ENDS``."""
    time_limit: float
    cut: float
    noise: str
    """Std of the Gaussian action noise of each part of the recipe, averaged over joints."""
    noise_share: float
    """Variance of (logged − mean action) over that of the logged ones; NaN without a policy."""
    clipped: float
    """Share of action entries at ±1."""
    squares: float
    """Effective number of visited squares of the robot's plane, of ``visits.BINS``²."""
    modes_known: int | None
    labelled_by: str
    modes_estimated: int | None
    agreement: float | None


def cards(found: Mapping[str, Dataset]) -> pd.DataFrame:
    """A row a dataset, the fields of :class:`Card`; planes are shared by a robot's datasets."""
    visited = visits.visits_table(found).groupby("task").steps
    squares = visited.apply(lambda steps: visits.effective_squares(steps.to_numpy()))
    return pd.DataFrame([asdict(card(data, float(squares[n]))) for n, data in found.items()])


def card(data: Dataset, squares: float) -> Card:
    """The facts of one dataset; ``squares`` is known only beside the robot's other datasets."""
    task, robot = data.task, data.task.robot
    table = episodes.episodes_table({task.name: data})
    whole = table[table.ended != "cut"]
    ends = table.ended.value_counts(normalize=True)
    mean_return = float(whole["return"].mean())
    counted = modes.modes(data)
    return Card(
        task=task.name, robot=robot.name, paper_row=task.paper_row, dataset=data.key.id,
        hash=data.key.hash, transitions=len(data), episodes=len(table), whole=len(whole),
        return_mean=round(mean_return, 1), return_std=round(float(whole["return"].std()), 1),
        score=round(robot.normalised(mean_return), 1),
        length_mean=round(float(whole.length.mean()), 1),
        length_min=float(whole.length.min()), length_max=float(whole.length.max()),
        terminated=float(ends.get("terminated", 0)), time_limit=float(ends.get("time limit", 0)),
        cut=float(ends.get("cut", 0)), noise=noise_of(parts_of(data.metadata)),
        noise_share=noise_share(data), clipped=float((data.actions.abs() >= 1).float().mean()),
        squares=round(squares, 1), modes_known=counted.known, labelled_by=counted.labelled_by,
        modes_estimated=counted.estimated, agreement=counted.agreement,
    )  # fmt: skip


def noise_of(parts: Sequence[Mapping[str, Any]] | None) -> str:
    """The noise of each part: ``medium 0.55; expert 0.31``; the range where there are many."""
    if parts is None:
        return "not known"
    sds = [
        (part["level"], float(np.mean(part.get("action_noise", part["noise"])))) for part in parts
    ]
    if len(sds) <= SHOWN_PARTS:
        return "; ".join(f"{level} {sd:.2f}" for level, sd in sds)
    values = [sd for _, sd in sds]
    return f"{len(sds)} parts, {min(values):.2f} to {max(values):.2f}"


def mean_actions(data: Dataset, steps: Tensor) -> Tensor | None:
    """What the behaviour policies would have done at ``steps`` (M,) without noise: (M, A), clipped.

    None where no committed policy made the data.
    """
    parts = parts_of(data.metadata)
    if parts is None or any(part["level"] == CONTROLLER for part in parts):
        return None
    raw = data.normaliser.inverse(data.states[steps])
    made_by = torch.from_numpy(part_of_steps(data.metadata["recipe"]))[steps]
    means = torch.empty_like(data.actions[steps])
    for number, part in enumerate(parts):
        chosen = made_by == number
        policy = behaviors.load_behaviour(data.task.robot, part["level"])
        means[chosen] = policy.mean_action(raw[chosen]).clamp(-1, 1)
    return means


def noise_share(data: Dataset) -> float:
    """Which share of the variance of the logged actions is noise, clipping included."""
    steps = torch.arange(0, len(data), max(1, len(data) // LOOKED_AT))
    means = mean_actions(data, steps)
    if means is None:
        return float("nan")
    logged = data.actions[steps]
    return float(((logged - means) ** 2).mean() / logged.var(dim=0).mean())


def sheet(table: pd.DataFrame, robot: str) -> pd.DataFrame:
    """The cards of one robot to be read: a column a dataset, a row a fact."""
    mine = table[table.robot == robot]
    columns = {str(row.task).removeprefix(f"{robot}-"): _lines(row) for row in mine.itertuples()}
    return pd.DataFrame(columns)


def _lines(c: Any) -> dict[str, str]:
    known = "nothing"
    if not pd.isna(c.modes_known):
        known = f"{c.modes_known:.0f} by {c.labelled_by}"
    estimated = "too few episodes"
    if not pd.isna(c.modes_estimated):
        estimated = f"{c.modes_estimated:.0f}"
        estimated += "" if pd.isna(c.agreement) else f", agreement {_rounded(c.agreement, '.2f')}"
    ends = (c.terminated, c.time_limit, c.cut)
    return {
        "row of the paper": c.paper_row if isinstance(c.paper_row, str) else "–",
        "steps, episodes (whole)": f"{c.transitions:,}, {c.episodes} ({c.whole})",
        "return, mean ± sd": f"{_rounded(c.return_mean)} ± {_rounded(c.return_std)}",
        "normalised score of the mean": _rounded(c.score),
        "length, mean (range)": f"{_rounded(c.length_mean, '.0f')} "
        f"({_rounded(c.length_min, '.0f')} to {_rounded(c.length_max, '.0f')})",
        "terminated / time limit / cut": " / ".join(f"{share:.0%}" for share in ends),
        "action noise (sd)": c.noise,
        "share of variance that is noise": _rounded(c.noise_share, ".0%"),
        "action entries at ±1": f"{c.clipped:.0%}",
        "coverage: effective squares": f"{c.squares:.0f} of {visits.BINS**2}",
        "modes, known": known,
        "modes, estimated": estimated,
        "content hash": c.hash,
    }


def _rounded(value: float, places: str = ",.1f") -> str:
    return "–" if pd.isna(value) else format(round(value, 2) + 0.0, places)


def notes(shown: Iterable[Task]) -> str:
    """How the scores of these tasks differ from D4RL's: what stands under each table of scores."""
    lines: dict[str, list[str]] = {}
    for robot in {task.robot.name: task.robot for task in shown}.values():
        for note in robot.notes:
            lines.setdefault(note, []).append(robot.name)
    return "\n".join(f"{', '.join(names)}: {note}" for note, names in lines.items())
