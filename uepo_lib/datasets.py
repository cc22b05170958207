"""A Minari dataset as tensors: a normaliser, transitions, and sequence windows.

Everything that learns sees states standardised by the dataset's mean and std and actions in [-1,
1], both float32. Nothing here crosses the end of an episode; ``terminated`` (the task ended, no
future value) and ``truncated`` (the clock ran out) stay apart.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib import facts
from uepo_lib.errors import UsageError, check
from uepo_lib.specs import DatasetKey
from uepo_lib.tasks import Task

REVISION = 1


@dataclass(frozen=True)
class Normaliser:
    """Standardises states: (x − mean) / std. ``mean`` and ``std`` are (S,) float32."""

    mean: Tensor
    std: Tensor

    def __call__(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.std

    def inverse(self, states: Tensor) -> Tensor:
        return states * self.std + self.mean

    def tensors(self) -> dict[str, Tensor]:
        """For a run's artefact."""
        return {"normaliser.mean": self.mean, "normaliser.std": self.std}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Normaliser:
        return cls(tensors["normaliser.mean"], tensors["normaliser.std"])


@dataclass(frozen=True)
class Transitions:
    """N single steps, none across an episode's end."""

    states: Tensor
    """(N, S) standardised."""
    actions: Tensor
    """(N, A) in [-1, 1]."""
    rewards: Tensor
    """(N,) raw."""
    next_states: Tensor
    """(N, S) standardised; at an episode's last step the state it ended in."""
    terminated: Tensor
    """(N,) bool."""

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: Tensor | slice) -> Transitions:
        return Transitions(*(t[index] for t in self.tensors()))

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.states, self.actions, self.rewards, self.next_states, self.terminated)

    def named(self) -> dict[str, Tensor]:
        """For a run's artefact; ``Transitions(**named)`` reads it back."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def join(*parts: Transitions) -> Transitions:
        """All rows of all parts, in order."""
        columns = zip(*(part.tensors() for part in parts), strict=True)
        return Transitions(*(torch.cat(column) for column in columns))


class Batch(NamedTuple):
    """What a policy of action sequences learns from."""

    past: Tensor
    """(B, T_o, S) s_{t-T_o+1} .. s_t; before an episode's start its first state is repeated."""
    actions: Tensor
    """(B, T, A) a_t .. a_{t+T-1}."""
    future: Tensor
    """(B, T−1, S) s_{t+1} .. s_{t+T-1}."""


class Windows:
    """All windows of T actions that lie inside one episode, with the T_o states before them."""

    def __init__(self, dataset: Dataset, obs_horizon: int, horizon: int) -> None:
        check(obs_horizon > 0, "obs_horizon", obs_horizon, "a positive integer")
        check(horizon > 0, "horizon", horizon, "a positive integer")
        self.obs_horizon, self.horizon = obs_horizon, horizon
        self.states, self.actions = dataset.states, dataset.actions
        starts = [
            torch.arange(begin, end - horizon + 1)
            for begin, end in dataset.bounds.tolist()
            if end - begin >= horizon
        ]
        if not starts:
            raise UsageError(f"horizon={horizon}: must be at most the longest episode's length")
        self.now = torch.cat(starts)
        """(M,) index of s_t, a_t in the dataset's flat arrays."""
        self.first = dataset.first_step[self.now]

    def __len__(self) -> int:
        return len(self.now)

    def batch(self, index: Tensor) -> Batch:
        """Windows ``index`` (B,) long."""
        now, first = self.now[index, None], self.first[index, None]
        back = (now + torch.arange(1 - self.obs_horizon, 1)).maximum(first)
        ahead = now + torch.arange(self.horizon)
        return Batch(self.states[back], self.actions[ahead], self.states[ahead[:, 1:]])

    def past(self, index: Tensor) -> Tensor:
        """Only the states a policy sees: (B, T_o, S)."""
        now, first = self.now[index, None], self.first[index, None]
        return self.states[(now + torch.arange(1 - self.obs_horizon, 1)).maximum(first)]


@dataclass(frozen=True)
class Dataset:
    """One dataset in memory: flat arrays over all episodes, in the dataset's order."""

    task: Task
    key: DatasetKey
    normaliser: Normaliser
    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor
    terminated: Tensor
    bounds: Tensor
    """(episodes, 2): first step and one past the last step of each."""
    simulator_states: Tensor | None
    """(N, nq + nv) float64 qpos and qvel before each step, where the dataset holds them."""
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.states)

    @property
    def first_step(self) -> Tensor:
        """(N,) index of the first step of each step's episode."""
        lengths = self.bounds[:, 1] - self.bounds[:, 0]
        return self.bounds[:, 0].repeat_interleave(lengths)

    def episode_returns(self, complete_only: bool = True) -> NDArray[np.float64]:
        """Undiscounted returns; by default of the episodes that were played to their end."""
        limit = self.task.robot.max_episode_steps
        kept = []
        for begin, end in self.bounds.tolist():
            if not complete_only or bool(self.terminated[end - 1]) or end - begin >= limit:
                kept.append(float(self.rewards[begin:end].double().sum()))
        return np.array(kept)

    def transitions(self) -> Transitions:
        return Transitions(
            self.states, self.actions, self.rewards, self.next_states, self.terminated
        )

    def restandardised(self, normaliser: Normaliser) -> Dataset:
        """The same data, its states standardised as those of another."""
        states, next_states = (
            normaliser(self.normaliser.inverse(x)) for x in (self.states, self.next_states)
        )
        return replace(self, normaliser=normaliser, states=states, next_states=next_states)

    def windows(self, obs_horizon: int, horizon: int) -> Windows:
        return Windows(self, obs_horizon, horizon)

    def split(self, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Indices of steps (kept, held out); whole episodes are held out, about ``fraction``."""
        check(0 < fraction < 1, "fraction", fraction, "between 0 and 1")
        check(len(self.bounds) > 1, "episodes", len(self.bounds), "at least 2, to hold one out")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.bounds), generator=generator)
        lengths = (self.bounds[:, 1] - self.bounds[:, 0])[order]
        held = order[: max(1, int((lengths.cumsum(0) <= fraction * len(self)).sum()))]
        mask = torch.zeros(len(self.bounds), dtype=torch.bool)
        mask[held] = True
        steps = mask.repeat_interleave(self.bounds[:, 1] - self.bounds[:, 0])
        return (~steps).nonzero().flatten(), steps.nonzero().flatten()


def root(profile: str) -> Path:
    """Where datasets lie: ``MINARI_DATASETS_PATH`` if set, else ``data/<profile>`` of the
    checkout."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    home = (facts.repository() or Path.cwd()) / "data" / profile
    folder = Path(chosen).expanduser().resolve() if chosen else home
    check(folder.is_dir() or not folder.exists(), "MINARI_DATASETS_PATH", str(folder), "a folder")
    return folder


def load(task: Task, folder: Path) -> Dataset:
    """Read ``task``'s dataset below ``folder``; ``UsageError`` if it is missing or unusable."""
    import minari  # slow to import, and only needed here

    path = folder / task.dataset_id / "data"
    if not path.is_dir():
        raise UsageError(
            f"dataset {task.dataset_id!r} is not in {folder}: collect it with `make data`, "
            "or set MINARI_DATASETS_PATH to where it lies"
        )
    source = minari.MinariDataset(path)
    columns: dict[str, list[NDArray[Any]]] = {}
    bounds, total = [], 0
    for episode in source.iterate_episodes():
        steps = len(episode.actions)
        bounds.append((total, total + steps))
        total += steps
        for name, values in _episode_arrays(episode).items():
            columns.setdefault(name, []).append(values)
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    _validate(task, arrays)
    return _assemble(task, arrays, np.array(bounds), dict(source.storage.metadata))


def _episode_arrays(episode: Any) -> dict[str, NDArray[Any]]:
    observations = np.asarray(episode.observations)
    arrays = {
        "states": observations[:-1],
        "next_states": observations[1:],
        "actions": np.asarray(episode.actions),
        "rewards": np.asarray(episode.rewards),
        "terminated": np.asarray(episode.terminations),
        "truncated": np.asarray(episode.truncations),
    }
    infos = episode.infos or {}
    if "qpos" in infos and "qvel" in infos:
        full = np.concatenate([infos["qpos"], infos["qvel"]], axis=-1)
        arrays["simulator_states"] = full[:-1]
    return arrays


def _validate(task: Task, arrays: dict[str, NDArray[Any]]) -> None:
    robot, name = task.robot, task.dataset_id
    for column, size in (("states", robot.state_dim), ("actions", robot.action_dim)):
        if arrays[column].ndim != 2 or arrays[column].shape[1] != size:
            found = arrays[column].shape[1:]
            raise UsageError(f"{name}: {column} of shape {found}; {robot.env_id} has ({size},)")
    for column, values in arrays.items():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            raise UsageError(
                f"{name}: {column} has NaN or infinity at step {int(bad.argmax())} "
                f"and {int(bad.sum()) - 1} more; every value must be finite"
            )
    if np.abs(arrays["actions"]).max() > 1 + 1e-6:
        raise UsageError(
            f"{name}: actions up to {np.abs(arrays['actions']).max():.3g}; must be in [-1, 1]"
        )


def _assemble(
    task: Task, arrays: dict[str, NDArray[Any]], bounds: NDArray[Any], metadata: dict[str, Any]
) -> Dataset:
    raw = torch.from_numpy(arrays["states"].astype(np.float32))
    mean = torch.from_numpy(arrays["states"].mean(axis=0).astype(np.float32))
    std = torch.from_numpy(arrays["states"].std(axis=0).astype(np.float32)).clamp_min(1e-3)
    normaliser = Normaliser(mean, std)
    simulator = arrays.get("simulator_states")
    recipe = json.dumps(metadata.get("recipe", {}), sort_keys=True)
    key = DatasetKey(
        task.dataset_id,
        content_hash({**arrays, "bounds": bounds}),
        hashlib.sha256(recipe.encode()).hexdigest()[:16],
    )
    return Dataset(
        task=task,
        key=key,
        normaliser=normaliser,
        states=normaliser(raw),
        actions=torch.from_numpy(arrays["actions"].astype(np.float32)),
        rewards=torch.from_numpy(arrays["rewards"].astype(np.float32)),
        next_states=normaliser(torch.from_numpy(arrays["next_states"].astype(np.float32))),
        terminated=torch.from_numpy(arrays["terminated"].astype(bool)),
        bounds=torch.from_numpy(bounds),
        simulator_states=None if simulator is None else torch.from_numpy(simulator),
        metadata=metadata,
    )


def content_hash(arrays: dict[str, NDArray[Any]]) -> str:
    """sha256 over names, types, shapes and bytes of the arrays: equal data, equal hash."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]
