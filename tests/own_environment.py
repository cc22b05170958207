"""A point that walks to the right, without MuJoCo: what the tests of ``own.py`` bring."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Walk(gymnasium.Env):
    """x from 0; a step adds the action; 3 is the goal; the reward is the distance won."""

    metadata = {"render_modes": [], "render_fps": 20}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, size: int = 2, limit: float = 1.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = gymnasium.spaces.Box(-limit, limit, (1,), np.float32)

    def _get_obs(self) -> np.ndarray:
        return np.array([self.x, self.start])[: self.observation_space.shape[0]]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = self.start = float(self.np_random.uniform(-0.1, 0.1))
        return self._get_obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.x += float(action[0])
        return self._get_obs(), float(action[0]), self.x >= 3, False, {}

    def get_state(self) -> np.ndarray:
        return np.array([self.x, self.start])

    def set_state(self, values: np.ndarray) -> None:
        self.x, self.start = map(float, values)


class Keyed(Walk):
    """Observes a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        part = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.observation_space = gymnasium.spaces.Dict({"at": part, "begun": part})

    def _get_obs(self) -> Any:
        return {"at": np.array([self.x]), "begun": np.array([self.start])}


class Choosing(Walk):
    """Left or right."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(2)


class Forgetful(Walk):
    """It cannot be put back."""

    set_state = None  # type: ignore[assignment]
