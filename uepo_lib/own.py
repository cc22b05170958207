"""Bring your own: a Gymnasium environment and a Minari dataset become a task of this library.

    robot = own.robot("MyEnv-v0", random_return=0.0, expert_return=100.0, terminated=rule)
    tasks.register(Task("mine", robot, "me/mine/noisy-v0", "what it is", "own"))
    Study("mine", seed=0)

A module that does the first two makes the task known to the command line: ``python -m uepo_lib run
uepo --import MODULE --task mine``.
An environment needs a vector observation, or a dictionary of vectors, and continuous actions in
[-1, 1]; ``own_checks.py`` says what is refused. Without MuJoCo it also needs ``get_state()`` and
``set_state(values)``, by which interrupted online runs are resumed.
A study that loads the data has :func:`verify` compare the termination rule with them. Its runs are
named by what :func:`identity` says of the robot too; what they cannot see is code: if ``step`` or a
wrapper changes, give the dataset another id.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib import loading, own_checks
from uepo_lib.datasets import Dataset
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.errors import UsageError, check
from uepo_lib.locomotion import never
from uepo_lib.robots import Array, Env, FlattenedKeys, Robot
from uepo_lib.storage import Trajectory, writable, write_dataset
from uepo_lib.tasks import Task


class PlainRobot(Robot):
    """A robot without MuJoCo, whose environment says itself where it is and goes there."""

    def simulator_state(self, env: Env) -> Array:
        base: Any = env.unwrapped
        return np.asarray(base.get_state(), dtype=np.float64)

    def restore(self, env: Env, state: Array) -> None:
        base: Any = env.unwrapped
        base.set_state(state)

    def logged_state(self, env: Env) -> Array:
        return self.simulator_state(env)

    def restore_logged(self, env: Env, state: Array) -> None:
        self.restore(env, state)


def robot(
    env_id: str,
    *,
    random_return: float,
    expert_return: float,
    terminated: Callable[[Tensor], Tensor] = never,
    name: str | None = None,
    max_episode_steps: int | None = None,
    package: str | None = None,
    env_options: Mapping[str, Any] | None = None,
    wrapper: Callable[[Env], Env] = lambda env: env,
    observation_keys: Sequence[str] = (),
) -> Robot:
    """A :class:`Robot` for the environment ``env_id``, its sizes read from it.

    Args:
        env_id: as registered with Gymnasium.
        random_return: the undiscounted return that scores 0.
        expert_return: the one that scores 100.
        terminated: raw states (..., S) that a step reached -> bool (...): did it end the episode?
            T̂ needs it, as imagined episodes have no environment to ask. By default nothing does.
        name: by default ``env_id`` in lower case, without its version.
        max_episode_steps: by default the registered one; needed where none is registered.
        package: what registers ``env_id`` when it is imported.
        env_options: for ``gymnasium.make``.
        wrapper: put around every copy, to flatten observations or rescale actions.
        observation_keys: of a dictionary observation, the keys whose vectors make the state, in
            this order; a dataset's dictionaries are flattened by them too.

    Raises:
        UsageError: no such environment, no vector observation, actions that are discrete or not in
            [-1, 1], no time limit, references that are not finite or in the wrong order, or a state
            that cannot be kept.
    """
    if package is None and env_id not in gymnasium.registry:
        raise UsageError(
            f"env_id={env_id!r}: not registered with Gymnasium; register it, or give the package "
            "that does"
        )
    own_checks.references(random_return, expert_return)
    keys = (observation_keys,) if isinstance(observation_keys, str) else tuple(observation_keys)
    label = name or re.sub(r"-v\d+$", "", env_id).rpartition("/")[2].lower()
    common: dict[str, Any] = {
        "name": label, "env_id": env_id, "random_return": random_return,
        "expert_return": expert_return, "terminated": terminated,
        "package": package, "env_options": env_options or {}, "observation_keys": keys,
        "wrapper": (lambda env: FlattenedKeys(wrapper(env), keys)) if keys else wrapper,
    }  # fmt: skip
    unknown: dict[str, Any] = {
        "state_dim": 1, "action_dim": 1, "max_episode_steps": 1, "step_seconds": 1.0
    }  # fmt: skip
    env = Robot(**common, **unknown).make()
    try:
        own_checks.entry_point(env)
        kind = Robot if own_checks.resumable(env) else PlainRobot
        sizes = _sizes(env, env_id, max_episode_steps)
    finally:
        env.close()
    return kind(**common, **sizes)


def _sizes(env: Env, env_id: str, max_episode_steps: int | None) -> dict[str, Any]:
    base: Any = env.unwrapped
    rate = base.metadata.get("render_fps")
    steps = max_episode_steps
    if steps is None:
        steps = gymnasium.spec(env_id).max_episode_steps
    return {
        "state_dim": own_checks.observation_size(env.observation_space),
        "action_dim": own_checks.action_size(env.action_space),
        "max_episode_steps": own_checks.time_limit(env_id, steps),
        "step_seconds": float(getattr(base, "dt", 1 / rate if rate else 1.0)),
    }


Act = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
"""An observation and a generator -> an action in [-1, 1]."""


def collect(task: Task, profile: str, act: Act, num_steps: int, seed: int = 0) -> Path:
    """At least ``num_steps`` steps of ``act`` as ``task``'s Minari dataset, in whole episodes.

    One that is there is kept, and a line says so: neither it nor the runs on it know that the code
    of an environment or a script has changed. A second process waits for the first, and keeps what
    it collected. Returns where it lies. ``minari.DataCollector``, which needs Minari's ``create``
    extra, writes the same files.
    """
    check(num_steps > 0, "num_steps", num_steps, "a positive integer")
    own_checks.recordable(task.robot)
    folder = loading.home(task, profile)
    target = folder / task.dataset_id
    if not target.exists():
        with FileLock(writable(folder) / f".{task.dataset_id.replace('/', '-')}.lock"):
            if not target.exists():  # a second process has waited, and finds it
                return _collect(task, folder, act, num_steps, seed)
    print(
        f"{task.dataset_id}: kept as it is. If the environment or the script has changed, "
        "give the dataset another id"
    )
    return target


def _collect(task: Task, folder: Path, act: Act, num_steps: int, seed: int) -> Path:
    env, generator = task.robot.make(), np.random.default_rng(seed)
    episodes: list[Trajectory] = []
    try:
        while sum(map(len, episodes)) < num_steps:
            played = _play(task, env, act, generator, seed + len(episodes))
            columns = {"states": played.observations, "actions": played.actions}
            loading.validate(task, {**columns, "rewards": played.rewards})  # before it is written
            episodes.append(played)
    finally:
        env.close()
    _check_episodes(task.dataset_id, np.array([len(played) for played in episodes]))
    recipe = {"seed": seed, "num_steps": num_steps, "env_id": task.robot.env_id}
    return write_dataset(
        task, episodes, folder, metadata={"recipe": recipe}, algorithm=getattr(act, "__name__", "?")
    )


def _play(task: Task, env: Env, act: Act, generator: np.random.Generator, seed: int) -> Trajectory:
    observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        chosen = np.asarray(act(observations[-1], generator), dtype=np.float32)
        own_checks.actions(chosen, env.action_space, task.dataset_id)
        actions.append(np.clip(chosen, -1.0, 1.0))
        state, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(state)
        rewards.append(float(reward))
        truncated = truncated or len(actions) >= task.robot.max_episode_steps
    columns = np.stack(observations), np.stack(actions), np.array(rewards)
    return Trajectory(*columns, bool(terminated), not terminated)


def verify(dataset: Dataset) -> None:
    """Does the termination rule say of D's states what D says? A study asks when it loads D.

    Raises ``UsageError`` with the number of steps where it does not. A rule that is wrong makes T̂
    imagine episodes that go on after their end, or end early. Raises it for less than two episodes
    too, and says once how many are shorter than T, of which the diffusion policy learns nothing.
    """
    lengths = dataset.bounds[:, 1] - dataset.bounds[:, 0]
    _check_episodes(dataset.key.id, lengths.numpy())
    reached = dataset.normaliser.inverse(dataset.next_states)
    said, logged = dataset.task.robot.terminated(reached), dataset.terminated
    tensor = isinstance(said, Tensor)
    check(tensor, "terminated", type(said).__name__, "a tensor of bool, one a state")
    check(said.shape == logged.shape, "terminated", tuple(said.shape), f"{tuple(logged.shape)}")
    wrong = said != logged
    if wrong.any():
        raise UsageError(
            f"terminated: {dataset.task.robot.name}'s rule differs from {dataset.key.id} in "
            f"{int(wrong.sum()):,} of {len(wrong):,} steps, the first: {int(wrong.int().argmax())}"
        )


def _check_episodes(dataset_id: str, lengths: NDArray[np.int64]) -> None:
    count, horizon = len(lengths), DenoiserConfig.horizon
    if count < 2:
        raise UsageError(
            f"{dataset_id}: {count} episode of {int(lengths.sum())} steps; must be at least 2, "
            "as whole episodes are held out to test T̂ on"
        )
    if short := int((lengths < horizon).sum()):
        _say_once(
            f"{dataset_id}: {short:,} of {count:,} episodes are shorter than T = {horizon} steps; "
            "the diffusion policy learns nothing from them, unless denoiser.horizon is smaller"
        )


@functools.cache
def _say_once(line: str) -> None:
    """Every study of a process loads its data, and asks."""
    print(line)


FAR = (1, 2, 4)
"""D's states, and places so many times as far from their mean."""


def identity(dataset: Dataset) -> dict[str, Any]:
    """What names a run on a task of one's own beside the data and the settings: the environment,
    its options, the step limit, and a hash of what the termination rule answers.

    The rule is asked about D's next states and about places farther out, where imagined episodes
    go: two rules that agree on all of D, as where nothing in it ends early, may differ there.
    """
    robot, digest = dataset.task.robot, hashlib.sha256()
    for far in FAR:
        said = robot.terminated(dataset.normaliser.inverse(far * dataset.next_states))
        digest.update(said.bool().numpy().tobytes())
    return {
        "env_id": robot.env_id,
        "env_options": json.dumps(dict(robot.env_options), sort_keys=True, default=_told),
        "max_episode_steps": robot.max_episode_steps,
        "terminated": digest.hexdigest()[:16],
    }


def _told(option: Any) -> Any:
    """What JSON does not know, equal for equal options in every process: no address is part of
    it."""
    if isinstance(option, np.ndarray | np.generic):
        return option.tolist()
    if isinstance(option, set | frozenset):
        return sorted(map(repr, option))
    return re.sub(r" at 0x[0-9a-f]+", "", repr(option))
