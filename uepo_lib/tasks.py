"""What a task is: a robot and one dataset of it, from one source.

A local dataset is collected here from committed policies (``hopper-medium``). ``@minari`` is one of
Minari's remote datasets (``pen-human@minari``), ``@d4rl`` an old D4RL file that was imported
(``hopper-medium@d4rl``); both are loaded by the same code once they are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.hand import DOOR, HAMMER, PEN, RELOCATE
from uepo_lib.kitchen import REMOTE_DATASETS as KITCHEN_DATASETS
from uepo_lib.kitchen import ROBOTS as KITCHEN_ROBOTS
from uepo_lib.locomotion import HALFCHEETAH, HOPPER, WALKER2D
from uepo_lib.maze import MAZE
from uepo_lib.robots import Robot

Source = Literal["local", "remote", "imported", "own"]

DATASET_ID = re.compile(r"(?:[-\w][-\w/]*[-\w]/)?[-\w]+-v\d+")
"""Minari's own pattern, except that the version must be there: Minari fails without it, too."""


@dataclass(frozen=True)
class Task:
    """A robot and the Minari dataset that policies for it are learnt from."""

    name: str
    robot: Robot
    dataset_id: str
    description: str
    source: Source = "local"
    paper_row: str | None = None
    """The row of the paper's tables that this dataset stands for."""

    def __post_init__(self) -> None:
        valid = isinstance(self.dataset_id, str) and DATASET_ID.fullmatch(self.dataset_id)
        expected = (
            "namespace/name-vNUMBER, such as 'me/mine/noisy-v0', of letters, digits, - and _; "
            "a namespace has at least two of them"
        )
        check(bool(valid), "dataset_id", self.dataset_id, expected)


LOCOMOTION = {
    "medium": "one policy on the way to the expert, with its own exploration noise",
    "medium-replay": "what an agent saw until it was medium: its snapshots in equal shares",
    "medium-expert": "half medium, half expert: data with two behaviours",
    "expert": "the best policy trained here",
}
HAND = {
    "expert": "the best policy trained here",
    "cloned": "half expert, half a behaviour clone of it",
    "mixed": "an early, a medium and the best policy in equal shares",
}
VARIANTS = {
    "medium-b": "medium again: another agent, other noise, other resets",
    "medium-c": "medium again: a third agent, other noise, other resets",
    "medium-noise-0": "medium without action noise",
    "medium-noise-10": "medium with action noise of std 0.1, a tenth of the largest action",
}
PAPER_LOCOMOTION = ("medium", "medium-replay", "medium-expert")
COLLECTED_HANDS = (PEN, DOOR, HAMMER)
"""Relocate was not learnt here; its record is ``policies_data/relocate/attempt.json``."""


def _local(robot: Robot, kind: str, description: str) -> Task:
    row = f"{robot.name}-{kind}-v2" if kind in PAPER_LOCOMOTION else None
    if robot in COLLECTED_HANDS and kind == "cloned":
        row = f"{robot.name}-cloned-v1"
    return Task(
        f"{robot.name}-{kind}", robot, f"uepo/{robot.name}/{kind}-v0", description, "local", row
    )


def _remote(robot: Robot, kind: str, dataset_id: str) -> Task:
    shown = kind in ("human", "cloned") and robot in (PEN, DOOR, HAMMER, RELOCATE)
    row = f"{robot.name}-{kind}-v1" if shown else None
    if robot.name == "kitchen":
        row = f"kitchen-{kind}-v0"
    return Task(
        f"{robot.name}-{kind}@minari", robot, dataset_id, "Minari's remote dataset", "remote", row
    )


def _imported(robot: Robot, kind: str) -> Task:
    """D4RL's v2 files, evaluated in the v4 environment, the closest there is."""
    note = (
        f"{robot.env_id.replace('v5', 'v4')} runs another MuJoCo than D4RL's v2; otherwise alike."
    )
    old = replace(robot, env_id=robot.env_id.replace("v5", "v4"), notes=(note,))
    return Task(
        f"{robot.name}-{kind}@d4rl", old, f"d4rl/{robot.name}/{kind}-v2",
        "D4RL's own file, imported", "imported",
        f"{robot.name}-{kind}-v2" if kind in PAPER_LOCOMOTION else None,
    )  # fmt: skip


_LOCAL = [
    *(_local(HOPPER, *kind) for kind in LOCOMOTION.items()),
    *(_local(HOPPER, *kind) for kind in VARIANTS.items()),
    *(_local(WALKER2D, *kind) for kind in LOCOMOTION.items()),
    *(_local(HALFCHEETAH, *kind) for kind in LOCOMOTION.items()),
    *(_local(robot, *kind) for robot in COLLECTED_HANDS for kind in HAND.items()),
    _local(MAZE, "routes", "a controller takes each of four routes to one goal equally often"),
]
_REMOTE = [
    *(
        _remote(robot, kind, f"mujoco/{robot.name}/{kind}-v0")
        for robot in (HOPPER, WALKER2D, HALFCHEETAH)
        for kind in ("simple", "medium", "expert")
    ),
    *(
        _remote(robot, kind, f"D4RL/{robot.name}/{kind}-v2")
        for robot in (PEN, HAMMER, DOOR, RELOCATE)
        for kind in ("human", "cloned", "expert")
    ),
    *(_remote(KITCHEN_ROBOTS[kind], kind, id) for kind, id in KITCHEN_DATASETS),
]
_IMPORTED = [
    _imported(robot, kind) for robot in (HOPPER, WALKER2D, HALFCHEETAH) for kind in LOCOMOTION
]

ROBOTS = {
    robot.name: robot
    for robot in (HOPPER, WALKER2D, HALFCHEETAH, PEN, DOOR, HAMMER, RELOCATE, MAZE)
}
"""Every robot that policies are trained for here."""

TASKS = {task.name: task for task in (*_LOCAL, *_REMOTE, *_IMPORTED)}
LOCAL = {name: task for name, task in TASKS.items() if task.source == "local"}


def get(name: str) -> Task:
    """The task called ``name``; ``UsageError`` with the nearest valid name otherwise."""
    if name not in TASKS:
        others = [known for known in TASKS if known.partition("@")[0] == name]
        if others:
            raise UsageError(f"task={name!r} is not collected here; there is {', '.join(others)}")
        raise unknown("task", name, TASKS if "@" in name else LOCAL, "uepo tasks")
    return TASKS[name]


def register(task: Task) -> Task:
    """Let :func:`get`, and so ``Study``, find a task of your own, in this process; see ``own.py``.

    Registering the name again replaces it. Raises ``UsageError`` if ``task`` is not marked as
    "own", or if its name or its robot's belongs to this project.
    """
    check(task.source == "own", "source", task.source, "'own'")
    valid = bool(task.name) and "@" not in task.name
    check(valid, "name", task.name, "a name without @, which stands before a source")
    known = TASKS.get(task.name)
    ours = known is not None and known.source != "own"
    check(not ours, "name", task.name, "another: this project has a task of that name")
    theirs = task.robot.name in ROBOTS and task.robot is not ROBOTS[task.robot.name]
    check(not theirs, "robot.name", task.robot.name, "another: this project has such a robot")
    TASKS[task.name] = task
    return task


def from_source(name: str, source: str) -> Task:
    """The task called ``name`` from ``source``: local, minari or d4rl."""
    suffix = {"local": "", "minari": "@minari", "d4rl": "@d4rl"}
    if source not in suffix:
        raise unknown("source", source, suffix)
    return get(name.partition("@")[0] + suffix[source])
