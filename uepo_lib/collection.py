"""Local datasets by D4RL's recipe: behaviour policies of this project -> Minari.

Seeded and exactly repeatable. The simulator's state before every step is kept in the infos
(``qpos``, ``qvel``, float64), so that "the real dynamics" can be asked what would have happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from uepo_lib import behaviors, facts
from uepo_lib.behaviors import BehaviourPolicy
from uepo_lib.errors import UsageError, check
from uepo_lib.robots import Robot
from uepo_lib.tasks import Task

REVISION = 1


@dataclass(frozen=True)
class Part:
    """A share of a dataset that one behaviour policy collects."""

    level: str
    share: float = 1.0
    noise: float | None = None
    """Std of the Gaussian action noise; None: what the policy explored with when it was trained."""


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made; with the hashes of the policies it determines every byte."""

    parts: tuple[Part, ...]
    num_transitions: int
    seed: int = 0
    num_envs: int = 4

    def __post_init__(self) -> None:
        enough = self.num_transitions >= self.num_envs * len(self.parts)
        check(enough, "num_transitions", self.num_transitions, "at least one step an environment")


PARTS: dict[str, tuple[Part, ...]] = {
    "hopper-medium": (Part("medium"),),
    "hopper-expert": (Part("expert"),),
    "hopper-medium-expert": (Part("medium", 0.5), Part("expert", 0.5)),
}


def recipe_for(task: Task, num_transitions: int) -> Recipe:
    """The recipe of a local task at a profile's size."""
    return Recipe(PARTS[task.name], num_transitions)


def collect(task: Task, recipe: Recipe, folder: Path, progress: bool = True) -> str:
    """Make ``task``'s dataset below ``folder`` unless it is there: ``"collected"`` or
    ``"present"``.

    Built in a temporary folder and renamed, so an interruption leaves nothing half-written.
    Raises ``UsageError`` if a dataset of another recipe lies in its place.
    """
    record = full_recipe(task, recipe)
    target = folder / task.dataset_id
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{task.name}.lock"):  # a second process waits, then finds it
        if target.exists():
            _same_recipe(task, target, record)
            return "present"
        _collect(task, recipe, record, folder, progress)
    return "collected"


def _collect(
    task: Task, recipe: Recipe, record: dict[str, Any], folder: Path, progress: bool
) -> None:
    episodes: list[Any] = []
    for number, part in enumerate(recipe.parts):
        policy = behaviors.load_behaviour(task.robot, part.level)
        seed = 10_000 * recipe.seed + 1_000 * number
        steps = round(recipe.num_transitions * part.share)
        episodes += play(task.robot, policy, part, steps, recipe.num_envs, seed, progress)
    target = folder / task.dataset_id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".collecting-") as temporary:
        _write(task, episodes, record, Path(temporary))
        os.replace(Path(temporary) / task.dataset_id, target)


def full_recipe(task: Task, recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON, with the hash of each policy file and the noise it stands for."""
    parts = []
    for part in recipe.parts:
        path = behaviors.FOLDER / task.robot.name / f"{part.level}.safetensors"
        policy = behaviors.load_behaviour(task.robot, part.level)
        noise = policy.action_noise.tolist() if part.noise is None else part.noise
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        parts.append({**asdict(part), "action_noise": noise, "policy": digest})
    shape = {"num_transitions": recipe.num_transitions, "num_envs": recipe.num_envs}
    return {
        "parts": parts, **shape, "seed": recipe.seed, "env_id": task.robot.env_id,
        "revision": REVISION,
    }  # fmt: skip


def play(
    robot: Robot,
    policy: BehaviourPolicy,
    part: Part,
    num_steps: int,
    num_envs: int,
    seed: int,
    progress: bool,
) -> list[Any]:
    """``num_steps`` transitions from ``num_envs`` environments, each an unbroken stream of
    episodes.

    Every stream is cut at the same number of steps, so short episodes are not favoured; the cut
    episode is marked truncated.
    """
    envs = [robot.make() for _ in range(num_envs)]
    streams = [_Stream(robot, env, seed + i) for i, env in enumerate(envs)]
    std = policy.action_noise if part.noise is None else torch.tensor(part.noise)
    generator = torch.Generator().manual_seed(seed)
    rounds = num_steps // num_envs
    bar = tqdm(range(rounds), desc=f"collecting {robot.name} {part.level}", disable=not progress,
               mininterval=2.0, leave=False)  # fmt: skip
    for round_number in bar:
        states = torch.from_numpy(np.stack([s.state for s in streams]).astype(np.float32))
        mean = policy.mean_action(states)
        noise = torch.randn(mean.shape, generator=generator)
        actions = (mean + std * noise).clamp(-1, 1).numpy()
        for stream, action in zip(streams, actions, strict=True):
            stream.step(action, last=round_number == rounds - 1)
    for env in envs:
        env.close()
    return [episode for stream in streams for episode in stream.episodes]


class _Stream:
    """One environment and the episodes it has played."""

    def __init__(self, robot: Robot, env: Any, seed: int) -> None:
        self.robot, self.env = robot, env
        self.episodes: list[Any] = []
        self._begin(env.reset(seed=seed)[0])

    def _begin(self, state: np.ndarray) -> None:
        self.state = state
        self.columns: dict[str, list[Any]] = {"observations": [state], "actions": [], "rewards": []}
        self.infos: dict[str, list[Any]] = {"qpos": [], "qvel": []}
        self._keep_simulator()

    def _keep_simulator(self) -> None:
        data = self.env.unwrapped.data
        self.infos["qpos"].append(data.qpos.copy())
        self.infos["qvel"].append(data.qvel.copy())

    def step(self, action: np.ndarray, last: bool) -> None:
        self.state, reward, terminated, _, _ = self.env.step(action)
        self.columns["observations"].append(self.state)
        self.columns["actions"].append(action)
        self.columns["rewards"].append(reward)
        self._keep_simulator()
        timeout = len(self.columns["actions"]) >= self.robot.max_episode_steps
        if terminated or timeout or last:
            self._end(bool(terminated))
            if not last:
                self._begin(self.env.reset()[0])

    def _end(self, terminated: bool) -> None:
        from minari.data_collector import EpisodeBuffer

        steps = len(self.columns["actions"])
        ends = np.zeros((2, steps), dtype=bool)
        ends[0 if terminated else 1, -1] = True
        arrays = {k: np.stack(v) for k, v in self.columns.items()}
        infos = {k: np.stack(v) for k, v in self.infos.items()}
        self.episodes.append(
            EpisodeBuffer(
                terminations=list(ends[0]), truncations=list(ends[1]), infos=infos, **arrays
            )
        )


def _write(task: Task, episodes: list[Any], record: dict[str, Any], folder: Path) -> None:
    import gymnasium
    import minari

    robot = task.robot
    with _minari_root(folder), warnings.catch_warnings():
        # Minari asks for an address and a link that a local dataset does not have
        warnings.filterwarnings("ignore", r"`(code_permalink|author_email)` is set to None")
        dataset = minari.create_dataset_from_buffers(
            task.dataset_id,
            buffer=episodes,
            env=gymnasium.spec(robot.env_id),
            eval_env=gymnasium.spec(robot.env_id),
            algorithm_name="PPO",
            author={"The UEPO companion authors"},
            ref_min_score=robot.random_return,
            ref_max_score=robot.expert_return,
            num_episodes_average_score=1,
            description=task.description,
            requirements=[f"mujoco=={facts.versions()['mujoco']}"],
        )
        dataset.storage.update_metadata(
            {"recipe": record, "versions": facts.versions(), "notes": list(robot.notes)}
        )


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


@contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Minari reads its root from the environment at every call."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def remove(task: Task, folder: Path) -> None:
    """Delete ``task``'s dataset below ``folder``."""
    shutil.rmtree(folder / task.dataset_id)
