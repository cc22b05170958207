"""Episodes on disk: trajectories in, a Minari dataset out, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uepo_lib import facts
from uepo_lib.errors import UsageError, check
from uepo_lib.tasks import Task


@dataclass(frozen=True)
class Trajectory:
    """One episode of L steps: L + 1 observations, L actions in [-1, 1], L rewards."""

    observations: NDArray[Any]
    """(L + 1, S) raw; the last one is what the last step led to."""
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminated: bool
    """The task ended it: there is no future value."""
    truncated: bool
    """It was cut off."""
    infos: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What else was logged, each (L + 1, ...): qpos, qvel, scene, labels."""

    def __len__(self) -> int:
        return len(self.actions)


def writable(folder: Path) -> Path:
    """``folder``, made if it is missing; ``UsageError`` where no file can be made in it.

    Asked before data is collected, which takes longer than to find out.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"{folder}: cannot be written ({reason}); set MINARI_DATASETS_PATH to a folder that can"
        ) from None


def write_dataset(
    task: Task,
    trajectories: Sequence[Trajectory],
    folder: Path,
    *,
    metadata: Mapping[str, Any],
    algorithm: str,
) -> Path:
    """Write ``trajectories`` as ``task``'s dataset below ``folder``; returns where it lies.

    Built in a temporary folder and renamed, so that an interruption leaves nothing half-written.
    ``metadata`` goes beside Minari's own, with the versions and the notes of the robot.
    Raises ``UsageError`` for no trajectories, where a dataset lies already, and where nothing can
    be written.
    """
    check(len(trajectories) > 0, "trajectories", "none", "at least one episode")
    target = folder / task.dataset_id
    if target.exists():
        raise UsageError(f"{task.dataset_id!r} is in {folder} already: remove it first")
    writable(target.parent)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        _write(task, trajectories, metadata, algorithm, Path(temporary))
        os.replace(Path(temporary) / task.dataset_id, target)
    return target


def _write(
    task: Task,
    trajectories: Sequence[Trajectory],
    metadata: Mapping[str, Any],
    algorithm: str,
    root: Path,
) -> None:
    import minari

    robot, spec = task.robot, task.robot.spec()
    with minari_root(root), warnings.catch_warnings():
        # Minari asks for an address and a link that a local dataset does not have
        warnings.filterwarnings("ignore", r"`(code_permalink|author_email)` is set to None")
        # it makes the environment from its spec, whose bounds are no float32 any more
        warnings.filterwarnings("ignore", r".*Box (low|high)'s precision lowered")
        dataset = minari.create_dataset_from_buffers(
            task.dataset_id,
            buffer=[_buffer(trajectory) for trajectory in trajectories],
            env=spec,
            eval_env=spec,
            algorithm_name=algorithm,
            author={"The UEPO companion authors"},
            ref_min_score=robot.random_return,
            ref_max_score=robot.expert_return,
            num_episodes_average_score=1,
            description=task.description,
            requirements=[f"mujoco=={facts.versions()['mujoco']}"],
        )
        dataset.storage.update_metadata(
            {**metadata, "versions": facts.versions(), "notes": list(robot.notes)}
        )


def _buffer(trajectory: Trajectory) -> Any:
    from minari.data_collector import EpisodeBuffer

    ends = np.zeros((2, len(trajectory)), dtype=bool)
    ends[0, -1], ends[1, -1] = trajectory.terminated, trajectory.truncated
    return EpisodeBuffer(
        observations=trajectory.observations,
        actions=trajectory.actions,
        rewards=trajectory.rewards,
        terminations=list(ends[0]),
        truncations=list(ends[1]),
        infos=dict(trajectory.infos),
    )


@contextmanager
def minari_root(folder: Path) -> Iterator[None]:
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
