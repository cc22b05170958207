"""From Minari's files to a :class:`~uepo_lib.datasets.Dataset`, through arrays on disk.

Iterating over a Minari dataset costs about a millisecond an episode, so it is done once: the arrays
that the library wants lie in ``.arrays`` beside the datasets (or in ``UEPO_ARRAYS``) and are mapped
into memory. They are made anew when a file of the dataset has another size or time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from uepo_lib import facts, remote
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.errors import UsageError, check
from uepo_lib.robots import Robot
from uepo_lib.specs import DatasetKey
from uepo_lib.tasks import Task

FORMAT = 1
"""Counts the layout of the arrays on disk: another one is converted anew."""
LABELS = ("route",)
"""Infos that say one thing of a whole episode."""

Arrays = dict[str, NDArray[Any]]


def root(profile: str) -> Path:
    """Where datasets lie: ``MINARI_DATASETS_PATH`` if set, else ``data/<profile>`` of the
    checkout."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    home = (facts.repository() or Path.cwd()) / "data" / profile
    folder = Path(chosen).expanduser().resolve() if chosen else home
    check(folder.is_dir() or not folder.exists(), "MINARI_DATASETS_PATH", str(folder), "a folder")
    return folder


def home(task: Task, profile: str) -> Path:
    """Where ``task``'s dataset lies: one collected here depends on the profile's size."""
    return root(profile if task.source in ("local", "own") else "remote")


def load(task: Task, folder: Path) -> Dataset:
    """Read ``task``'s dataset below ``folder``; ``UsageError`` if it is missing or unusable.

    The tensors are maps of files: pages are read when they are touched, and writing to them changes
    only this process's copy.
    """
    source = folder / task.dataset_id / "data"
    if not source.is_dir():
        base = task.name.partition("@")[0]
        how = {
            "local": "collect it with `make data`",
            "remote": f"download it with `make data SOURCE=minari TASK={base}`",
            "imported": f"import it with `uepo data import-d4rl FILE --task {base}`",
            "own": "collect it with `own.collect` or minari.DataCollector",
        }
        raise UsageError(
            f"dataset {task.dataset_id!r} is not in {folder}: {how[task.source]}, "
            "or set MINARI_DATASETS_PATH to where it lies"
        )
    arrays = Path(os.environ.get("UEPO_ARRAYS") or folder / ".arrays") / task.dataset_id
    about = _ready(task, source, arrays) or _convert(task, source, arrays)
    mapped = {
        path.stem: torch.from_numpy(np.load(path, mmap_mode="c")) for path in arrays.glob("*.npy")
    }
    _check_sizes(task, {name: mapped[name].shape[1:] for name in ("states", "actions")})
    normaliser = Normaliser(mapped.pop("mean"), mapped.pop("std"))
    labels = {name: mapped.pop(name) for name in LABELS if name in mapped}
    simulator_states = mapped.pop("simulator_states", None)
    return Dataset(
        task=task,
        key=DatasetKey(task.dataset_id, about["hash"], about["recipe_hash"]),
        normaliser=normaliser,
        simulator_states=simulator_states,
        metadata=about["metadata"],
        labels=labels,
        **mapped,
    )


def _ready(task: Task, source: Path, home: Path) -> dict[str, Any] | None:
    """What is known of the arrays in ``home``; None if they are not those of ``source``, or were
    made of other keys of its observations."""
    if not (home / "about.json").is_file():
        return None
    about: dict[str, Any] = facts.read_json(home / "about.json")
    current = about["format"] == FORMAT and about["files"] == _fingerprint(source)
    alike = about.get("observation_keys", []) == _keys(task)
    return about if current and alike else None


def _keys(task: Task) -> list[str]:
    """What one's own robot says of a dictionary; of this project's it never changes."""
    return list(task.robot.observation_keys) if task.source == "own" else []


def _fingerprint(source: Path) -> dict[str, list[int]]:
    """Size and time of each file of a dataset."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return {
        str(path.relative_to(source)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
    }


def _convert(task: Task, source: Path, home: Path) -> dict[str, Any]:
    """Make the arrays of ``source`` in ``home``, whole or not at all."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home.with_name(f".{home.name}.lock"))
        with lock, tempfile.TemporaryDirectory(dir=home.parent, prefix=".arrays-") as temporary:
            if about := _ready(task, source, home):  # another process has made them meanwhile
                return about
            about = _write_arrays(task, source, Path(temporary) / home.name)
            if home.exists():
                shutil.rmtree(home)
            os.replace(Path(temporary) / home.name, home)
    except PermissionError as error:
        raise UsageError(
            f"{error.filename}: cannot be written; set UEPO_ARRAYS to a folder for the arrays of "
            "the datasets"
        ) from None
    return about


def _write_arrays(task: Task, source: Path, home: Path) -> dict[str, Any]:
    started = time.monotonic()
    if (source.parent / remote.RECORD).is_file():
        remote.verify(source.parent)
    arrays, metadata = read(task, source)
    labels = {name: arrays.pop(name) for name in LABELS if name in arrays}
    bounds = arrays.pop("bounds")
    mean, std = moments(arrays["states"])
    recipe = json.dumps(metadata.get("recipe", {}), sort_keys=True)
    about: dict[str, Any] = {
        "format": FORMAT,
        "files": _fingerprint(source),
        "observation_keys": _keys(task),
        "hash": content_hash({**arrays, **labels, "bounds": bounds}),
        "recipe_hash": hashlib.sha256(recipe.encode()).hexdigest()[:16],
        "metadata": metadata,
    }
    kept: Arrays = {
        "states": (arrays["states"].astype(np.float32) - mean) / std,
        "next_states": (arrays["next_states"].astype(np.float32) - mean) / std,
        "actions": arrays["actions"].astype(np.float32),
        "rewards": arrays["rewards"].astype(np.float32),
        "terminated": arrays["terminated"].astype(bool),
        "bounds": bounds,
        "mean": mean,
        "std": std,
        **labels,
    }
    if "simulator_states" in arrays:
        kept["simulator_states"] = arrays["simulator_states"].astype(np.float64)
    home.mkdir()
    for name, values in kept.items():
        np.save(home / f"{name}.npy", np.ascontiguousarray(values))
    about["seconds"] = round(time.monotonic() - started, 2)
    facts.write_json(home / "about.json", about)
    steps = len(arrays["states"])
    if about["seconds"] > 1:
        print(f"{task.dataset_id}: {steps:,} steps into arrays, once: {about['seconds']} s")
    return about


def moments(states: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each column, the latter 1e-3 at least.

    Summed in float64: a million float32 rows, as remote data have, lose digits in their own type.
    """
    mean = states.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = states.std(axis=0, dtype=np.float64).astype(np.float32)
    return mean, np.maximum(std, np.float32(1e-3))


def read(task: Task, source: Path) -> tuple[Arrays, dict[str, Any]]:
    """A Minari dataset's flat arrays as they are stored, validated, and its metadata as JSON."""
    import minari  # slow to import, and only needed here

    try:
        episodes = list(minari.MinariDataset(source).iterate_episodes())
    except (OSError, ValueError) as error:  # h5py's, of a file that is missing or cut short
        raise UsageError(
            f"{task.dataset_id}: cannot be read ({error}); remove {source.parent}, then get it anew"
        ) from None
    check(bool(episodes), f"{task.dataset_id}: episodes", len(episodes), "at least 1")
    columns: dict[str, list[NDArray[Any]]] = {}
    bounds, total = [], 0
    for episode in episodes:
        steps = len(episode.actions)
        bounds.append((total, total + steps))
        total += steps
        for name, values in _episode_arrays(task.robot, episode).items():
            columns.setdefault(name, []).append(values)
    for name, parts in columns.items():
        if len(parts) < len(bounds):  # the rows after a gap would belong to other steps
            raise UsageError(
                f"{task.dataset_id}: {name} in {len(parts)} of {len(bounds)} episodes: log what it "
                "is made of in the infos of all of them or of none"
            )
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    validate(task, arrays)
    metadata = json.loads((source / "metadata.json").read_text(encoding="utf-8"))
    return {**arrays, "bounds": np.array(bounds)}, metadata


def _episode_arrays(robot: Robot, episode: Any) -> Arrays:
    observations = robot.flatten(episode.observations)
    arrays = {
        "states": observations[:-1],
        "next_states": observations[1:],
        "actions": np.asarray(episode.actions),
        "rewards": np.asarray(episode.rewards),
        "terminated": np.asarray(episode.terminations),
        "truncated": np.asarray(episode.truncations),
    }
    infos = episode.infos or {}
    logged = {name: infos[name] for name in ("qpos", "qvel", "scene") if name in infos}
    complete = len(logged) == (3 if robot.scene.size else 2)
    if complete:
        for name, values in logged.items():
            valid = f"{len(observations)}: the reset and every step"
            check(len(values) == len(observations), f"infos[{name!r}]", len(values), valid)
        arrays["simulator_states"] = np.concatenate(list(logged.values()), axis=-1)[:-1]
    arrays |= {name: np.asarray(infos[name])[:1] for name in LABELS if name in infos}
    return arrays


def validate(task: Task, arrays: Arrays) -> None:
    """``UsageError`` where the sizes are not the robot's, a value is not finite or an action is out
    of [-1, 1]."""
    name = task.dataset_id
    _check_sizes(task, {column: arrays[column].shape[1:] for column in ("states", "actions")})
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


def _check_sizes(task: Task, found: dict[str, tuple[int, ...]]) -> None:
    """``found`` are the shapes of one step's states and actions, of arrays made earlier too."""
    robot = task.robot
    for column, size in (("states", robot.state_dim), ("actions", robot.action_dim)):
        if found[column] != (size,):
            shape = tuple(found[column])
            raise UsageError(
                f"{task.dataset_id}: {column} of shape {shape}; {robot.env_id} has ({size},)"
            )


def content_hash(arrays: Arrays) -> str:
    """sha256 over names, types, shapes and bytes of the arrays: equal data, equal hash."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]
