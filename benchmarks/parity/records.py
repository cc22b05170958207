"""A finished (algorithm, side, seed) is one JSON record; where they lie, and which still count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.parity import settings
from benchmarks.parity.settings import Scale
from uepo_lib import (
    cloning,
    environments,
    evaluation,
    extraction,
    facts,
    policies,
    ppo,
    robots,
    values,
)
from uepo_lib.errors import UsageError

MODULES = {
    "bc": (cloning, policies),
    "iql": (values, extraction, policies),
    "ppo": (ppo, policies),
    "lockstep": (ppo, policies),
}
ACTING = (robots, environments, evaluation)

Key = tuple[str, str, int]


def revisions(algorithm: str, side: str) -> dict[str, int]:
    """The revisions of our code that a record's numbers depend on."""
    modules = (*ACTING, *(MODULES[algorithm] if side == "ours" else ()))
    return {module.__name__.rpartition(".")[2]: module.REVISION for module in modules}


@dataclass(frozen=True)
class Places:
    """Where a scale's evidence and its intermediate files lie."""

    evidence: Path
    """The records and the table: committed at the scale ``full``, and only there."""
    work: Path
    """Arrays, checkpoints and exported policies."""

    def record(self, key: Key) -> Path:
        algorithm, side, seed = key
        return self.evidence / "records" / f"{algorithm}-{side}-{seed}.json"

    def speed(self, algorithm: str) -> Path:
        return self.evidence / "records" / f"speed-{algorithm}.json"

    def job(self, key: Key) -> Path:
        algorithm, side, seed = key
        return self.work / f"{algorithm}-{side}-{seed}"


def places(scale: Scale, elsewhere: Path | None = None) -> Places:
    """``elsewhere`` takes the evidence in place of the folder that is committed."""
    root = facts.repository()
    if root is None:
        raise UsageError("parity: needs a git checkout of the project")
    work = root / "results" / "local" / "parity" / scale.name
    full = root / "results" / "reference" / "parity"
    return Places(elsewhere or (full if scale.name == "full" else work / "evidence"), work)


def code(where: Places) -> dict[str, Any]:
    """The commit, and whether anything but the evidence itself differs from it."""
    root = facts.repository()
    assert root is not None  # places has asked
    own = where.evidence.relative_to(root).as_posix() if where.evidence.is_relative_to(root) else ""
    changed = [f for f in facts.changed_files(root) or () if not (own and f.startswith(own))]
    return {"commit": facts.commit(root)["commit"], "dirty": bool(changed)}


def wanted(scale: Scale, key: Key) -> dict[str, Any]:
    """What a record of ``key`` must say to count."""
    algorithm, side, _ = key
    return {
        "settings": settings.settings(algorithm, scale.updates[algorithm]),
        "episodes": scale.episodes,
        "revisions": revisions(algorithm, side),
    }


def finished(where: Places, scale: Scale, key: Key) -> bool:
    """Whether the record of ``key`` is there and of the present settings and code."""
    path = where.record(key)
    if not path.is_file():
        return False
    record = facts.read_json(path)
    return all(record.get(name) == value for name, value in wanted(scale, key).items())


def read_all(where: Places) -> dict[Key, Mapping[str, Any]]:
    """Every record that is there."""
    found = {}
    for path in sorted((where.evidence / "records").glob("*-*-*.json")):
        record = facts.read_json(path)
        found[record["algorithm"], record["side"], record["seed"]] = record
    return found


def read_speeds(where: Places) -> dict[str, Mapping[str, Any]]:
    """Every timing that is there, by algorithm."""
    paths = {name: where.speed(name) for name in settings.PEERS}
    return {name: facts.read_json(path) for name, path in paths.items() if path.is_file()}
