"""What a task is: a robot in Gymnasium, a dataset of it, and the scores that its returns are read
by.

A :class:`Robot` is the environment with what the method must know of it beyond ``step``: when a
state ends the episode, how long an episode may be, how to put the simulator back into a logged
state. A :class:`Task` is a robot with one dataset. Scores are D4RL's normalised ones (arXiv
2004.07219): 0 is a random policy, 100 its expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib.errors import unknown

REVISION = 1


@dataclass(frozen=True)
class Robot:
    """One environment: identifiers, sizes, D4RL's reference returns, and its known termination
    rule."""

    name: str
    env_id: str
    state_dim: int
    action_dim: int
    random_return: float
    expert_return: float
    max_episode_steps: int
    terminated: Callable[[Tensor], Tensor]
    """Raw states (..., S) reached by a step -> bool (...): did that step end the episode?"""
    notes: tuple[str, ...] = ()
    """How scores here differ from D4RL's; printed under every table of normalised scores."""

    def make(self) -> gymnasium.Env[Any, Any]:
        """A fresh environment without a time limit: whoever steps it counts the steps."""
        return gymnasium.make(self.env_id, max_episode_steps=-1, disable_env_checker=True)

    def normalised(self, undiscounted_return: float) -> float:
        """D4RL's normalised score in percent."""
        span = self.expert_return - self.random_return
        return 100.0 * (undiscounted_return - self.random_return) / span


@dataclass(frozen=True)
class Task:
    """A robot and the Minari dataset that policies for it are learnt from."""

    name: str
    robot: Robot
    dataset_id: str
    description: str


def _hopper_terminated(states: Tensor) -> Tensor:
    """Gymnasium's Hopper: healthy while z > 0.7, |torso angle| < 0.2 and |rest| < 100."""
    height, angle, rest = states[..., 0], states[..., 1], states[..., 1:]
    upright = (height > 0.7) & (height < float("inf")) & (angle.abs() < 0.2)
    healthy = upright & (rest.abs() < 100.0).all(-1)
    return ~healthy  # a NaN compares false: it is never healthy


HOPPER = Robot(
    name="hopper",
    env_id="Hopper-v5",
    state_dim=11,
    action_dim=3,
    random_return=-20.272305,
    expert_return=3234.3,
    max_episode_steps=1000,
    terminated=_hopper_terminated,
    notes=(
        "Hopper-v5 pays the healthy reward only while healthy; D4RL's v2 scores are comparable "
        "in kind, not cell by cell.",
        "Datasets are collected here from policies trained here, not D4RL's files.",
    ),
)

ROBOTS = {robot.name: robot for robot in (HOPPER,)}

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


def simulator_state(env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
    """MuJoCo's whole integration state: time, qpos, qvel, actuators, and the solver's warm start.

    The warm start matters: without it the next step differs in the last bits.
    """
    model, data = _simulator(env)
    state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    return state


def restore_simulator(env: gymnasium.Env[Any, Any], state: NDArray[np.float64]) -> None:
    """Put ``env`` into a :func:`simulator_state`; the next step is then bit-identical."""
    model, data = _simulator(env)
    mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(model, data)  # derived quantities, at the price of a new warm start ...
    mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)  # ... so once more


def observation(env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
    """The observation of the simulator's present state, without a step."""
    base: Any = env.unwrapped
    return np.asarray(base._get_obs())


def _simulator(env: gymnasium.Env[Any, Any]) -> tuple[Any, Any]:
    base: Any = env.unwrapped
    return base.model, base.data
