"""What a task is: a robot and one dataset of it."""

from __future__ import annotations

from dataclasses import dataclass

from uepo_lib.errors import unknown
from uepo_lib.hand import DOOR, PEN
from uepo_lib.locomotion import HALFCHEETAH, HOPPER, WALKER2D
from uepo_lib.robots import Robot


@dataclass(frozen=True)
class Task:
    """A robot and the Minari dataset that policies for it are learnt from."""

    name: str
    robot: Robot
    dataset_id: str
    description: str


ROBOTS = {robot.name: robot for robot in (HOPPER, WALKER2D, HALFCHEETAH, PEN, DOOR)}

TASKS = {
    task.name: task
    for task in (
        Task(
            "hopper-medium",
            HOPPER,
            "uepo/hopper/medium-v0",
            "one policy about half-way to the expert, with its own exploration noise",
        ),
        Task("hopper-expert", HOPPER, "uepo/hopper/expert-v0", "the best policy trained here"),
        Task(
            "hopper-medium-expert",
            HOPPER,
            "uepo/hopper/medium-expert-v0",
            "half medium, half expert: data with two behaviours",
        ),
    )
}


def get(name: str) -> Task:
    """The task called ``name``; ``UsageError`` with the nearest valid name otherwise."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
