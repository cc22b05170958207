"""When a robot touches something: what a smooth model of its dynamics finds hard."""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.robots import Robot, mujoco_of


def touching(robot: Robot, simulator_states: Tensor) -> Tensor:
    """Whether MuJoCo finds a contact in each logged state: (N, nq + nv + scene) -> (N,) bool.

    States are only looked at; no step is made, so nothing counts as interaction.
    """
    env = robot.make()
    env.reset(seed=0)
    found = torch.zeros(len(simulator_states), dtype=torch.bool)
    for i, state in enumerate(simulator_states.numpy()):
        robot.restore_logged(env, state)
        found[i] = mujoco_of(env)[1].ncon > 0
    env.close()
    return found
