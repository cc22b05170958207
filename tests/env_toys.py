"""What the tests of environments, policies in them, PPO and evaluation share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uepo_lib.datasets import Normaliser
from uepo_lib.robots import Robot


class ScriptedEnv:
    """One number as a state: 0 at a reset, then one more each step; ends at ``last``.

    The reward is −(a − target)²: what PPO must find is ``target``.
    """

    def __init__(self, last: int | None, target: float) -> None:
        self.last, self.target = last, target
        self.np_random = np.random.default_rng(0)

    @property
    def unwrapped(self) -> Any:
        return self

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        reward = -float(np.square(action - self.target).sum())
        return np.array([float(self.time)]), reward, self.time == self.last, False, {}

    def close(self) -> None:
        pass


def scripted_robot(
    last: int | None = None, max_episode_steps: int = 1000, target: float = 0.0
) -> Any:
    """A ``Robot`` in all that ``ChunkedEnvs`` asks of one, on :class:`ScriptedEnv`."""

    def terminated(states: Tensor) -> Tensor:
        return states[..., 0] == (-1 if last is None else last)

    return SimpleNamespace(
        name="scripted", state_dim=1, action_dim=1, max_episode_steps=max_episode_steps,
        terminated=terminated, make=lambda: ScriptedEnv(last, target), reusable=False,
    )  # fmt: skip


def identity(robot: Robot) -> Normaliser:
    return Normaliser(torch.zeros(robot.state_dim), torch.ones(robot.state_dim))


class ConstantPolicy:
    """Member i always does ``actions[i]``, (n, T_a, A)."""

    def __init__(self, actions: Tensor, obs_horizon: int = 1) -> None:
        self.actions = actions
        self.n, self.action_horizon = actions.shape[:2]
        self.obs_horizon = obs_horizon

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.actions.unsqueeze(1).expand(-1, states.shape[1], -1, -1)
