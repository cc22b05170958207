"""Local datasets: behaviour policies of this project drive the robots, Minari keeps what happened.

Seeded and exactly repeatable. What determines the simulator (``qpos``, ``qvel``, the episode's
scene; float64) is kept before every step, so that "the real dynamics" can be asked what would have
happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from uepo_lib import behaviors, facts, robots
from uepo_lib.behaviors import PolicyDriver
from uepo_lib.errors import UsageError
from uepo_lib.maze import WaypointDriver
from uepo_lib.recipes import CONTROLLER, Part, Recipe
from uepo_lib.robots import Env, Robot, mujoco_of
from uepo_lib.storage import Trajectory, writable, write_dataset
from uepo_lib.tasks import Task

REVISION = 1


class Driver(Protocol):
    """What chooses the actions of a dataset."""

    def begin(self, i: int, state: NDArray[np.float64]) -> Mapping[str, int]:
        """Stream i starts an episode in raw ``state``: labels that are kept with the episode."""
        ...

    def actions(self, states: Tensor) -> Tensor:
        """Raw states (B, S), one a stream -> actions (B, A) in [-1, 1]."""
        ...


def collect(task: Task, recipe: Recipe, folder: Path, progress: bool = True) -> str:
    """Make ``task``'s dataset below ``folder`` unless it is there: ``"collected"`` or
    ``"present"``.

    Raises ``UsageError`` if a dataset of another recipe lies in its place, or nothing can be
    written there.
    """
    record = full_recipe(task, recipe)
    target = folder / task.dataset_id
    if not target.exists():
        with FileLock(writable(folder) / f".{task.name}.lock"):
            if not target.exists():  # a second process has waited, and finds it
                _collect(task, recipe, folder, record, progress)
                return "collected"
    _same_recipe(task, target, record)
    return "present"


def _collect(
    task: Task, recipe: Recipe, folder: Path, record: dict[str, Any], progress: bool
) -> None:
    trajectories: list[Trajectory] = []
    for number, part in enumerate(recipe.parts):
        seed = 10_000 * recipe.seed + 1_000 * number
        steps = round(recipe.num_transitions * part.share)
        trajectories += play(task.robot, part, steps, recipe.num_envs, seed, progress)
    write_dataset(
        task,
        trajectories,
        folder,
        metadata={"recipe": record},
        algorithm=_algorithm(task, recipe),
    )


def _algorithm(task: Task, recipe: Recipe) -> str:
    if recipe.parts[0].level == CONTROLLER:
        return "waypoint controller"
    return str(behaviors.load_behaviour(task.robot, recipe.parts[0].level).record["algorithm"])


def full_recipe(task: Task, recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON, with the hash of each policy file and the noise it stands for."""
    parts = [{**asdict(part), **_player(task.robot, part)} for part in recipe.parts]
    shape = {"num_transitions": recipe.num_transitions, "num_envs": recipe.num_envs}
    return {
        "parts": parts, **shape, "seed": recipe.seed, "env_id": task.robot.env_id,
        "revision": REVISION, "robots": robots.REVISION,
    }  # fmt: skip


def _player(robot: Robot, part: Part) -> dict[str, Any]:
    """What identifies who plays ``part``."""
    if part.level == CONTROLLER:
        return {"controller": WaypointDriver.settings()}
    path = behaviors.policy_file(robot, part.level)
    policy = behaviors.load_behaviour(robot, part.level)
    noise = policy.action_noise.tolist() if part.noise is None else part.noise
    return {"action_noise": noise, "policy": facts.sha256(path)[:16]}


def play(
    robot: Robot, part: Part, num_steps: int, num_envs: int, seed: int, progress: bool
) -> list[Trajectory]:
    """``num_steps`` transitions from ``num_envs`` environments, each an unbroken stream of
    episodes.

    Every stream is cut at the same number of steps, so short episodes are not favoured; the cut
    episode is marked truncated.
    """
    driver = driver_of(robot, part, num_envs, torch.Generator().manual_seed(seed))
    envs = [robot.make() for _ in range(num_envs)]
    streams = [_Stream(robot, env, driver, i, seed) for i, env in enumerate(envs)]
    rounds = num_steps // num_envs
    bar = tqdm(range(rounds), desc=f"collecting {robot.name} {part.level}", disable=not progress,
               mininterval=2.0, leave=False)  # fmt: skip
    for round_number in bar:
        states = torch.from_numpy(np.stack([s.state for s in streams]).astype(np.float32))
        actions = driver.actions(states).numpy()
        for stream, action in zip(streams, actions, strict=True):
            stream.step(action, last=round_number == rounds - 1)
    for env in envs:
        env.close()
    return [episode for stream in streams for episode in stream.episodes]


def driver_of(robot: Robot, part: Part, num_envs: int, generator: torch.Generator) -> Driver:
    """Who plays ``part`` of a dataset of ``robot`` in ``num_envs`` streams."""
    if part.level == CONTROLLER:
        return WaypointDriver(num_envs, generator, part.noise or 0.0)
    return PolicyDriver(behaviors.load_behaviour(robot, part.level), part.noise, generator)


class _Stream:
    """One environment and the episodes it has played."""

    def __init__(self, robot: Robot, env: Env, driver: Driver, i: int, seed: int) -> None:
        self.robot, self.env, self.driver, self.i = robot, env, driver, i
        self.episodes: list[Trajectory] = []
        self._begin(env.reset(seed=seed + i)[0])

    def _begin(self, state: NDArray[np.float64]) -> None:
        self.state = state
        self.labels = self.driver.begin(self.i, state)
        self.observations, self.actions, self.rewards = [state], [], []  # type: ignore[var-annotated]
        self.infos: dict[str, list[NDArray[np.float64]]] = {}
        self._keep_simulator()

    def _keep_simulator(self) -> None:
        _, data = mujoco_of(self.env)
        kept = {"qpos": data.qpos, "qvel": data.qvel}
        if self.robot.scene.size:
            kept["scene"] = self.robot.scene.read(self.env)
        for name, values in kept.items():
            self.infos.setdefault(name, []).append(np.array(values))

    def step(self, action: NDArray[np.float32], last: bool) -> None:
        self.state, reward, terminated, _, _ = self.env.step(action)
        self.observations.append(self.state)
        self.actions.append(action)
        self.rewards.append(reward)
        self._keep_simulator()
        timeout = len(self.actions) >= self.robot.max_episode_steps
        if terminated or timeout or last:
            self._end(bool(terminated))
            if not last:
                self._begin(self.env.reset()[0])

    def _end(self, terminated: bool) -> None:
        infos = {name: np.stack(values) for name, values in self.infos.items()}
        rows = len(self.observations)
        infos |= {name: np.full(rows, label) for name, label in self.labels.items()}
        self.episodes.append(
            Trajectory(
                np.stack(self.observations), np.stack(self.actions), np.stack(self.rewards),
                terminated, not terminated, infos,
            )
        )  # fmt: skip


def _same_recipe(task: Task, target: Path, record: dict[str, Any]) -> None:
    described = target / "data" / "metadata.json"
    if not described.is_file():
        raise UsageError(
            f"{target} is no Minari dataset ({described.name} is missing): remove it or set "
            "MINARI_DATASETS_PATH elsewhere"
        )
    metadata = json.loads(described.read_text(encoding="utf-8"))
    found = metadata.get("recipe", {})
    if found != json.loads(json.dumps(record)):
        differing = [k for k in record if found.get(k) != json.loads(json.dumps(record[k]))]
        raise UsageError(
            f"{task.dataset_id!r} in {target.parents[2]} was collected by another recipe "
            f"({', '.join(differing)} differ): remove it or set MINARI_DATASETS_PATH elsewhere"
        )
