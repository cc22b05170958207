"""One (algorithm, side, seed): trained in a process of its own, then played, then recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.parity import arrays, player, records, settings
from benchmarks.parity.records import Key, Places
from benchmarks.parity.settings import DIFFERENCES, ONLINE, PEERS, SIDES, Scale
from uepo_lib import facts, tasks
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.study import load_data

PEER_PYTHON = Path(".venv-parity-d3rlpy") / "bin" / "python"
PAIRS = 3
"""How often both sides are timed in turn."""


def trainer(root: Path, algorithm: str, side: str) -> list[str]:
    """The command that trains, less the job's file."""
    if algorithm == "lockstep":
        return [sys.executable, "-m", "benchmarks.parity.lockstep"]
    if side == "ours":
        return [sys.executable, "-m", "benchmarks.parity.train_ours"]
    if PEERS[algorithm] == "stable-baselines3":
        return [sys.executable, "-m", "benchmarks.parity.train_sb3"]
    if not (root / PEER_PYTHON).is_file():
        raise UsageError(f"{PEER_PYTHON} is missing: `make parity` creates it")
    return [str(root / PEER_PYTHON), "-m", "benchmarks.parity.train_d3rlpy"]


def prepare(where: Places, scale: Scale) -> tuple[Path, str]:
    """The arrays that both sides learn from, collected first if need be; and their hash."""
    return arrays.write_arrays(load_data(settings.TASK, scale.profile), where.work)


def train(out: Path, key: Key, given: dict[str, Any], data: Path | None) -> dict[str, Any]:
    """Train in a process of its own unless ``out`` holds it already; what it took.

    What ``out`` holds of other settings or of code with other revisions is thrown away.
    """
    algorithm, side, seed = key
    root = facts.repository()
    assert root is not None  # records.places has asked
    job = {
        "algorithm": algorithm, "side": side, "seed": seed, "settings": given,
        "arrays": str(data) if data else None, "out": str(out),
        "revisions": records.revisions(algorithm, side),
    }  # fmt: skip
    path = out / "job.json"
    if path.is_file() and facts.read_json(path) != job:
        shutil.rmtree(out)
    facts.write_json(path, job)
    if not (out / "facts.json").is_file():
        _run([*trainer(root, algorithm, side), str(path)], root, out / "log.txt")
    took: dict[str, Any] = facts.read_json(out / "facts.json")
    return took


def _run(command: list[str], root: Path, log: Path) -> None:
    """Run a trainer on one core; what it prints goes to ``log``, its last lines into the error."""
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command, cwd=root, env={**os.environ, **alone}, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        last = log.read_text(encoding="utf-8").splitlines()[-5:]
        raise RuntimeError(f"{command[2]} ended with {done.returncode}:\n" + "\n".join(last))


def compute(where: Places, scale: Scale, key: Key) -> bool:
    """Compute one record; False when another process is at it."""
    algorithm, side, seed = key
    folder = where.job(key)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_suffix(".lock"), blocking=False):
            if records.finished(where, scale, key):
                return True
            must = records.wanted(scale, key)
            data, name = (None, None) if algorithm in ONLINE else prepare(where, scale)
            took = train(folder, key, must["settings"], data)
            robot = HOPPER if algorithm in ONLINE else tasks.get(settings.TASK).robot
            played = player.play(folder / "policy.npz", robot, scale.episodes)
            record = {
                "algorithm": algorithm, "side": side, "seed": seed, "peer": PEERS[algorithm],
                "scale": scale.name, "data": f"{settings.TASK} {name}" if name else None,
                **must, "differences": DIFFERENCES[algorithm], **took,
                "evaluator": {**facts.versions(), **records.code(where)}, "cpu": facts.cpu(),
                **played,
            }  # fmt: skip
            facts.write_json(where.record(key), record)
    except Timeout:
        return False
    return True


def _timed(where: Places, scale: Scale, algorithm: str, side: str) -> float:
    """Seconds of a short training, alone in a fresh folder."""
    amount = scale.speed_updates[algorithm]
    data = None if algorithm in ONLINE else prepare(where, scale)[0]
    out = where.work / f"speed-{algorithm}-{side}"
    shutil.rmtree(out, ignore_errors=True)
    took = train(out, (algorithm, side, 0), settings.settings(algorithm, amount), data)
    shutil.rmtree(out)
    return float(took["seconds"])


def measure_speed(where: Places, scale: Scale, algorithm: str) -> None:
    """Time both sides in turns, in the same minutes, and keep the median ratio."""
    given = settings.settings(algorithm, scale.speed_updates[algorithm])
    path = where.speed(algorithm)
    if path.is_file() and facts.read_json(path)["settings"] == given:
        return
    pairs = [{side: _timed(where, scale, algorithm, side) for side in SIDES} for _ in range(PAIRS)]
    ratio = median(pair["ours"] / max(pair["theirs"], 1e-3) for pair in pairs)
    content = {
        "settings": given, "seconds": pairs, "ratio": round(ratio, 3), "cpu": facts.cpu(),
        **records.code(where),
    }  # fmt: skip
    facts.write_json(path, content)
