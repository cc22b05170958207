"""Is the log what happened? Logged states put back into the simulator and stepped again."""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib import collection
from uepo_lib.datasets import Dataset
from uepo_lib.environments import DatasetSimulator
from uepo_lib.errors import UsageError
from uepo_lib.recipes import Part

TOLERANCE = 1e-6
"""Of every number of an observation, in its own unit."""
HAND_TOLERANCE = 1e-4
"""The hand's: its many contacts are solved by an iteration that stops before it has converged."""


def tolerance(data: Dataset) -> float:
    """How exactly a logged step of ``data`` must come out again."""
    return HAND_TOLERANCE if data.task.robot.env_id.startswith("Adroit") else TOLERANCE


def replay_errors(data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """Put the simulator into ``count`` logged states, evenly spread, and repeat the logged actions.

    Returns the largest difference between the observation reached and the logged one (count,), in
    the observation's units, and whether termination came out as logged (count,) bool. Raises
    ``UsageError`` for data without simulator states.
    """
    if data.simulator_states is None:
        raise UsageError(f"{data.key.id}: holds no simulator states, so it cannot be replayed")
    simulator = DatasetSimulator(
        data.task.robot, data.simulator_states, data.states.unsqueeze(1), data.normaliser
    )
    rows = torch.linspace(0, len(data) - 1, count).long()
    errors, same = torch.empty(count), torch.empty(count, dtype=torch.bool)
    for i, row in enumerate(rows):
        simulator.reset_to(row[None])
        reached, _, terminated = simulator.step(data.actions[row][None], torch.tensor([True]))
        off = (reached[0] - data.next_states[row]) * data.normaliser.std
        errors[i], same[i] = off.abs().max(), terminated[0] == data.terminated[row]
    simulator.close()
    return errors, same


def play_again(data: Dataset, steps: int) -> tuple[Tensor, Tensor]:
    """Collect the beginning of ``data``'s first part anew, ``steps`` steps a stream.

    Returns the actions of its first episode, then and now, (L, A) each, L ≤ ``steps``.
    """
    recipe = data.metadata["recipe"]
    envs, first = recipe["num_envs"], recipe["parts"][0]
    part = Part(first["level"], first["share"], first["noise"])
    robot, seed = data.task.robot, 10_000 * recipe["seed"]
    again = collection.play(robot, part, steps * envs, envs, seed, progress=False)[0]
    return data.actions[: len(again)], torch.from_numpy(again.actions)
