"""How each local dataset is made: which behaviour policies, in which shares, with which noise.

D4RL's recipe (arXiv 2004.07219, section 5): *medium* is one policy on the way to the expert,
*replay* what an agent saw until it was medium, *medium-expert* half and half; of the hand, *cloned*
is half expert and half its behaviour clone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uepo_lib import behaviors
from uepo_lib.errors import check
from uepo_lib.tasks import COLLECTED_HANDS, Task

CONTROLLER = "controller"
"""The level of the maze's waypoint controller, which is no trained policy."""


@dataclass(frozen=True)
class Part:
    """A share of a dataset that one behaviour policy collects."""

    level: str
    share: float = 1.0
    noise: float | None = None
    """Std of the Gaussian action noise; None: what the policy explored with when it was trained."""


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made; with the hashes of the policies it determines every byte."""

    parts: tuple[Part, ...]
    num_transitions: int
    seed: int = 0
    num_envs: int = 4

    def __post_init__(self) -> None:
        enough = self.num_transitions >= self.num_envs * len(self.parts)
        check(enough, "num_transitions", self.num_transitions, "at least one step an environment")


PARTS: dict[str, tuple[Part, ...]] = {
    "medium": (Part("medium"),),
    "medium-b": (Part("medium-b"),),
    "medium-c": (Part("medium-c"),),
    "medium-noise-0": (Part("medium", noise=0.0),),
    "medium-noise-10": (Part("medium", noise=0.1),),
    "medium-expert": (Part("medium", 0.5), Part("expert", 0.5)),
    "expert": (Part("expert"),),
    "routes": (Part(CONTROLLER, noise=0.1),),
}
"""Who collects, by the dataset's name after the robot's; a replay's parts are its snapshots."""

HAND_NOISE = 0.1
"""PPO explores the hand with 0.4 and more, which costs pen's expert a third of its score; its
record holds both returns. An expert's data should be quieter."""

HAND_PARTS: dict[str, tuple[Part, ...]] = {
    "expert": (Part("expert", noise=HAND_NOISE),),
    "cloned": (Part("expert", 0.5, HAND_NOISE), Part("clone", 0.5)),
    "mixed": tuple(
        Part(level, round(1 / 3, 6), HAND_NOISE) for level in ("early", "medium", "expert")
    ),
}
"""The same for the hand; a clone has the noise that it learnt from its data."""

SEEDS = {"medium-b": 1, "medium-c": 2}
"""Independently trained, and independently collected: their own reset seeds and noise."""


def recipe_for(task: Task, num_transitions: int) -> Recipe:
    """The recipe of a local task at a profile's size."""
    kind = task.name.removeprefix(f"{task.robot.name}-")
    if kind == "medium-replay":
        names = behaviors.replayed(task.robot)
        parts = tuple(Part(name, round(1 / len(names), 6)) for name in names)
    else:
        parts = (HAND_PARTS if task.robot in COLLECTED_HANDS else PARTS)[kind]
    return Recipe(parts, num_transitions, seed=SEEDS.get(kind, 0))


def parts_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Who made the steps of a dataset, in order; None if it was not collected by :class:`Recipe`.

    An imported file and one of ``own.collect`` have a recipe as well, which names no policy.
    """
    parts: list[dict[str, Any]] | None = metadata.get("recipe", {}).get("parts")
    return parts


def part_of_steps(record: Mapping[str, Any]) -> NDArray[np.int64]:
    """Which part of a recipe made each step of its dataset, (N,); ``record`` as it was stored."""
    steps = [round(record["num_transitions"] * part["share"]) for part in record["parts"]]
    return np.repeat(np.arange(len(steps)), [n - n % record["num_envs"] for n in steps])
