"""Minari's remote datasets: fetched whole or not at all, checked, remembered by their hashes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import numpy as np
from filelock import FileLock

from uepo_lib import facts
from uepo_lib.errors import UsageError
from uepo_lib.robots import Robot
from uepo_lib.storage import minari_root, writable
from uepo_lib.tasks import Task

PATIENCE = 1.5
"""Seconds within which the remote must answer; Minari alone tries for half a minute."""
RECORD = "arrived.json"
"""Beside a downloaded dataset's ``data``: where it is from, and the sha256 of each file."""


def download(task: Task, folder: Path) -> Path:
    """Fetch ``task``'s dataset from Minari's remote below ``folder``; returns where it lies.

    One that is there already is verified instead. The remote is Minari's own unless
    ``MINARI_REMOTE`` says otherwise; progress is shown on standard error. Raises ``UsageError``,
    and leaves nothing behind, where the ``remote`` extra is missing, the remote does not answer
    (within 2 seconds) or does not hold the dataset, ``task`` cannot use what arrived, or ``folder``
    cannot be written.
    """
    target = folder / task.dataset_id
    with FileLock(writable(folder) / f".{task.name}.lock"):  # a second process waits, then finds it
        if not target.exists():
            _need_remote(task)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".downloading-") as temporary:
                arrived = _fetch(task, Path(temporary))
                _accept(task, arrived)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(arrived, target)
        elif not (target / RECORD).is_file():  # fetched by Minari's own command line
            _accept(task, target)
        else:
            verify(target)
    return target


def verify(dataset: Path) -> None:
    """Compare a downloaded dataset's files with the hashes of when it arrived.

    Raises ``UsageError`` naming the first file that differs or is missing.
    """
    for name, expected in facts.read_json(dataset / RECORD)["files"].items():
        path = dataset / name
        if not path.is_file() or facts.sha256(path) != expected:
            state = "has changed since it was downloaded" if path.is_file() else "is missing"
            raise UsageError(f"{path} {state}: remove {dataset} and download it again")


def check_spaces(task: Task, dataset: Any) -> None:
    """Raise ``UsageError`` unless ``task.robot`` can learn from a ``minari.MinariDataset``.

    Actions must be a box of the robot's size within [-1, 1]; observations a vector of its state's
    size, or a dictionary that ``robot.observation_keys`` make into one.
    """
    robot = task.robot
    actions, observations = dataset.action_space, dataset.observation_space
    if not isinstance(actions, gymnasium.spaces.Box):
        raise UsageError(f"{task.dataset_id}: actions in {_short(actions)}; must be a box")
    if actions.shape != (robot.action_dim,) or not _within_one(actions):
        raise UsageError(
            f"{task.dataset_id}: actions in {_short(actions)}; must be ({robot.action_dim},) "
            f"within [-1, 1], as {robot.env_id} has it"
        )
    size = _state_size(task, observations)
    if size != robot.state_dim:
        raise UsageError(
            f"{task.dataset_id}: {size} numbers a state; {robot.env_id} has {robot.state_dim}"
        )


def _within_one(space: gymnasium.spaces.Box) -> bool:
    return bool(np.all(space.low >= -1 - 1e-6) and np.all(space.high <= 1 + 1e-6))


def _state_size(task: Task, space: gymnasium.Space[Any]) -> int:
    """How many numbers ``task.robot`` makes of one observation in ``space``."""
    robot: Robot = task.robot
    if isinstance(space, gymnasium.spaces.Dict):
        parts = [space.spaces.get(key) for key in robot.observation_keys or space.spaces]
        if not robot.observation_keys or None in parts:
            rule = ", ".join(robot.observation_keys) or "none"
            raise UsageError(
                f"{task.dataset_id}: dictionary observations ({', '.join(space.spaces)}), of which "
                f"{robot.env_id}'s rule takes {rule}"
            )
    else:
        parts = [space]
    if not all(isinstance(p, gymnasium.spaces.Box) and len(p.shape) == 1 for p in parts):
        raise UsageError(f"{task.dataset_id}: observations in {_short(space)}; must be a vector")
    return sum(part.shape[0] for part in parts if part is not None and part.shape)


def _short(space: gymnasium.Space[Any]) -> str:
    """A space in one line, without the bounds of every number."""
    if isinstance(space, gymnasium.spaces.Box):
        return f"Box({space.low.min():g}, {space.high.max():g}, {space.shape})"
    return " ".join(str(space).split())[:80]


def _accept(task: Task, dataset: Path) -> None:
    """Check what arrived in ``dataset`` and write its record."""
    import minari

    check_spaces(task, minari.MinariDataset(dataset / "data"))
    files = sorted(path for path in (dataset / "data").rglob("*") if path.is_file())
    content = {
        "dataset_id": task.dataset_id,
        "remote": os.environ.get("MINARI_REMOTE", "Minari's default"),
        "arrived": facts.now(),
        "bytes": sum(path.stat().st_size for path in files),
        "files": {str(path.relative_to(dataset)): facts.sha256(path) for path in files},
    }
    facts.write_json(dataset / RECORD, content)


def _need_remote(task: Task) -> None:
    """Raise ``UsageError`` unless the remote can be talked to: client, permission, network."""
    if not os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://"):
        return  # another client than Minari's default says itself what it lacks
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError(
            f"{task.name}: downloading needs the `remote` extra: pip install 'uepo[remote]'"
        )
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UsageError(f"{task.name}: downloading is forbidden by HF_HUB_OFFLINE: unset it")
    from huggingface_hub import constants

    if not _answers(constants.ENDPOINT):
        raise UsageError(
            f"{task.name}: no network: {urlsplit(constants.ENDPOINT).hostname} does not answer "
            f"within {PATIENCE} s; local tasks need none"
        )


def _answers(url: str) -> bool:
    """Is there anybody at ``url``, or at the proxy on the way there? Asked for ``PATIENCE``."""
    target = urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.hostname or ""):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = target.port or {"https": 443}.get(target.scheme, 80)
    answered = threading.Event()

    def knock() -> None:
        # a refusal, an unknown name, a silent network: not answered
        with contextlib.suppress(OSError):
            socket.create_connection((target.hostname or "", port), timeout=PATIENCE).close()
            answered.set()

    # in a thread, because looking a name up has no time limit of its own
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def _fetch(task: Task, root: Path) -> Path:
    """Let Minari download into ``root``; whatever its client fails with becomes one line."""
    import minari

    try:
        with minari_root(root), _no_cache_at_home(root), contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(task.dataset_id)
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(f"{task.dataset_id}: download failed: {said}") from error
    arrived = root / task.dataset_id
    if not (arrived / "data" / "metadata.json").is_file():
        raise UsageError(f"{task.dataset_id}: download failed: no metadata.json arrived")
    return arrived


@contextlib.contextmanager
def _no_cache_at_home(root: Path) -> Iterator[None]:
    """Keep the client's cache in ``root`` too; it goes with it."""
    if importlib.util.find_spec("huggingface_hub") is None:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = str(root / ".cache")
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before
