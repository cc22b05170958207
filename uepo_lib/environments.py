"""Many copies of a robot, stepped in chunks of actions, resumable to the bit.

A policy with action horizon T_a plans once and executes T_a actions open loop; an episode may end
inside a chunk. Gymnasium's vector environments reset on their own and would play the rest of a
chunk into the next episode, so the loop over copies is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib.datasets import Normaliser, Transitions
from uepo_lib.errors import check
from uepo_lib.robots import Env, Robot, observation

REVISION = 1


class Chunk(NamedTuple):
    """What N environments returned for N chunks of actions."""

    reward: Tensor
    """(N,) Σ_k γ^k r_k over the executed steps."""
    steps: Tensor
    """(N,) how many of the T_a actions were executed; fewer when the episode ended."""
    terminated: Tensor
    """(N,) bool; the task ended: there is no future value."""
    truncated: Tensor
    """(N,) bool; the clock ran out: the state reached still has a value."""
    windows: Tensor
    """(N, T_o, S) raw states after the chunk, before any reset."""


@dataclass(frozen=True)
class Episode:
    """One finished episode: which environment, its undiscounted return, its length in steps."""

    env: int
    undiscounted_return: float
    length: int


class _Idle:
    """Copies that were given back, of the robot that was played last, to be reset and used again.

    To build one takes as long as hundreds of steps: MuJoCo compiles the maze in 70 ms.
    """

    MOST = 128

    def __init__(self) -> None:
        self.robot: Robot | None = None
        self.envs: list[Env] = []

    def take(self, robot: Robot) -> Env:
        return self.envs.pop() if self.robot is robot and self.envs else robot.make()

    def give_back(self, robot: Robot, envs: list[Env]) -> None:
        """``envs`` is emptied, so that none of them is used any longer, nor given back twice."""
        if robot.reusable:
            if self.robot is not robot:
                self._close(self.envs)
                self.robot = robot
            while envs and len(self.envs) < self.MOST:
                self.envs.append(envs.pop())
        self._close(envs)

    @staticmethod
    def _close(envs: list[Env]) -> None:
        while envs:
            envs.pop().close()


_IDLE = _Idle()


class ChunkedEnvs:
    """N environments; the state is what a policy sees, (N, T_o, S) raw windows.

    Environment i is first reset with ``seeds[i]`` and draws its later resets from that stream. With
    ``auto_reset=False`` each plays one episode and then rests.
    """

    def __init__(
        self,
        robot: Robot,
        seeds: Sequence[int],
        *,
        obs_horizon: int = 1,
        discount: float = 1.0,
        auto_reset: bool = True,
        keep_transitions: bool = False,
    ) -> None:
        check(len(seeds) > 0, "seeds", seeds, "one integer an environment, at least one")
        self.robot, self.discount, self.auto_reset = robot, discount, auto_reset
        self.envs = [_IDLE.take(robot) for _ in seeds]
        self.active = [True] * len(seeds)
        self.elapsed = [0] * len(seeds)
        self.returns = [0.0] * len(seeds)
        self.num_steps = 0
        self.keep_transitions = keep_transitions
        self._kept: list[NDArray[np.float32]] = []
        self._rows = np.empty((len(seeds), obs_horizon, robot.state_dim), dtype=np.float32)
        self.windows = torch.from_numpy(self._rows)  # the same memory
        for i, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            self._begin(i, env.reset(seed=seed)[0])

    def step(self, actions: Tensor) -> tuple[Chunk, list[Episode]]:
        """Execute ``actions`` (N, T_a, A) in [-1, 1]; an environment that ends plays no further."""
        num_envs = len(self.envs)
        # numpy's scalars: a tensor's would cost as much as a fifth of MuJoCo's step
        reward, steps = np.zeros((2, num_envs), dtype=np.float32)
        ends = np.zeros((2, num_envs), dtype=bool)
        commands = actions.clamp(-1.0, 1.0).cpu().numpy()
        episodes: list[Episode] = []
        for i in range(num_envs):
            if not self.active[i]:
                continue
            total, over = 0.0, (False, False)
            for k, action in enumerate(commands[i]):
                r, over = self._step_one(i, action)
                total += self.discount**k * r
                if any(over):
                    episodes.append(Episode(i, self.returns[i], self.elapsed[i]))
                    break
            reward[i], steps[i], ends[:, i] = total, k + 1, over
        after = self.windows.clone()
        for episode in episodes:
            self._finish(episode.env)
        gained, executed = torch.from_numpy(reward), torch.from_numpy(steps)
        terminated, truncated = torch.from_numpy(ends)
        return Chunk(gained, executed, terminated, truncated, after), episodes

    def _step_one(self, i: int, action: NDArray[np.float32]) -> tuple[float, tuple[bool, bool]]:
        window = self._rows[i]
        before = window[-1].copy() if self.keep_transitions else None
        state, r, terminated, truncated, _ = self.envs[i].step(action)
        if before is not None:
            ends = np.array([float(r), float(terminated)])
            row = np.concatenate([before, action, ends[:1], np.asarray(state), ends[1:]])
            self._kept.append(row.astype(np.float32))
        self.elapsed[i] += 1
        self.returns[i] += float(r)
        self.num_steps += 1
        window[:-1] = window[1:]
        window[-1] = state
        late = bool(truncated) or self.elapsed[i] >= self.robot.max_episode_steps
        return float(r), (bool(terminated), late and not terminated)

    def _finish(self, i: int) -> None:
        if self.auto_reset:
            self._begin(i, self.envs[i].reset()[0])
        else:
            self.active[i] = False

    def _begin(self, i: int, state: NDArray[np.float64]) -> None:
        self.elapsed[i], self.returns[i] = 0, 0.0
        self._rows[i] = state

    def transitions(self, standardise: Callable[[Tensor], Tensor]) -> Transitions:
        """Every step made so far (``keep_transitions``), states through ``standardise``."""
        sizes = (self.robot.state_dim, self.robot.action_dim, 1, self.robot.state_dim, 1)
        columns = torch.from_numpy(np.stack(self._kept)).split(sizes, dim=1)
        states, actions, rewards, next_states, terminated = columns
        return Transitions(
            standardise(states), actions, rewards[:, 0], standardise(next_states),
            terminated[:, 0] > 0,
        )  # fmt: skip

    def close(self) -> None:
        """No more steps; what was seen stays."""
        _IDLE.give_back(self.robot, self.envs)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, simulator and generators included."""
        generators = [json.dumps(e.unwrapped.np_random.bit_generator.state) for e in self.envs]
        return {
            "simulators": torch.from_numpy(
                np.stack([self.robot.simulator_state(e) for e in self.envs])
            ),
            "generators": generators,
            "windows": self.windows.clone(),
            "active": list(self.active),
            "elapsed": list(self.elapsed),
            "returns": list(self.returns),
            "num_steps": self.num_steps,
            "kept": torch.from_numpy(np.array(self._kept)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for env, simulator, generator in zip(
            self.envs, state["simulators"].numpy(), state["generators"], strict=True
        ):
            self.robot.restore(env, simulator)
            env.unwrapped.np_random.bit_generator.state = json.loads(generator)
        self.windows[:] = state["windows"]
        self.active = list(state["active"])
        self.elapsed, self.returns = list(state["elapsed"]), list(state["returns"])
        self.num_steps = state["num_steps"]
        self._kept = list(state["kept"].numpy())


class DatasetSimulator:
    """The real dynamics started from logged states: ``rollouts.Simulator`` on MuJoCo (A7).

    Privileged: a robot in the world cannot be put back into a logged state, so steps and resets
    count as interaction. ``past`` (M, T_o, S) are the standardised windows that belong to the M
    ``simulator_states`` (M, ...), the robot's logged states in float64.
    """

    def __init__(
        self, robot: Robot, simulator_states: Tensor, past: Tensor, normaliser: Normaliser
    ) -> None:
        matching = len(simulator_states) == len(past)
        check(
            matching, "simulator_states", len(simulator_states), f"as many as windows, {len(past)}"
        )
        self.robot, self.normaliser = robot, normaliser
        self.simulator_states, self.past = simulator_states, past
        self.envs: list[Env] = []
        self.steps = self.resets = 0

    def reset_to(self, indices: Tensor) -> Tensor:
        """Copy b of the simulator into logged state ``indices[b]``: (B,) -> windows (B, T_o, S)."""
        while len(self.envs) < len(indices):
            self.envs.append(_IDLE.take(self.robot))
            self.envs[-1].reset(seed=0)
        for env, full in zip(self.envs, self.simulator_states[indices].numpy(), strict=False):
            self.robot.restore_logged(env, full)
        self.resets += len(indices)
        self._states = self._observe(len(indices))
        return self.past[indices]

    def step(self, actions: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, A), (B,) bool -> standardised next states (B, S), rewards (B,), terminated (B,)."""
        rewards, terminated = torch.zeros(len(actions)), torch.zeros(len(actions), dtype=torch.bool)
        states, commands = self._states.clone(), actions.clamp(-1, 1).cpu().numpy()
        for b in active.nonzero().flatten().tolist():
            state, rewards[b], terminated[b], _, _ = self.envs[b].step(commands[b])
            states[b] = self.normaliser(torch.from_numpy(state.astype(np.float32)))
        self.steps += int(active.sum())
        self._states = states
        return states, rewards, terminated

    def close(self) -> None:
        """Give the copies back: each of the hand takes 10 MB."""
        _IDLE.give_back(self.robot, self.envs)

    def _observe(self, count: int) -> Tensor:
        raw = np.stack([observation(env) for env in self.envs[:count]]).astype(np.float32)
        return self.normaliser(torch.from_numpy(raw))
