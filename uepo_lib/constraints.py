"""When a robot touches something or a joint is at its limit: where its dynamics are not smooth."""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.robots import Robot, mujoco_of


def active_constraints(robot: Robot, simulator_states: Tensor) -> tuple[Tensor, Tensor]:
    """Contacts and joint limits that MuJoCo finds in logged states: (N, nq + nv + scene) -> two
    (N,) bool, whether anything touches and whether any joint is at its limit.

    States are only looked at; no step is made, so nothing counts as interaction.
    """
    env = robot.make()
    env.reset(seed=0)
    found = torch.zeros(2, len(simulator_states), dtype=torch.bool)
    for i, state in enumerate(simulator_states.numpy()):
        robot.restore_logged(env, state)
        _, data = mujoco_of(env)
        found[0, i], found[1, i] = data.ncon > 0, data.nl > 0
    env.close()
    return found[0], found[1]
