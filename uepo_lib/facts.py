"""Facts that a record of work needs: the commit, the machine, the versions, the hash of a file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from uepo_lib.errors import UsageError

PACKAGES = ("torch", "numpy", "scipy", "pandas", "safetensors", "gymnasium", "mujoco", "minari")


def repository() -> Path | None:
    """The checkout that this library is imported from; None when it is installed as a package."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def version() -> str:
    """One line: the version, in a checkout with the commit and whether files have changed since."""
    folder = repository()
    if folder is None:
        return f"uepo {metadata.version('uepo')}"
    number = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    found = commit(folder)
    if found["commit"] is None:
        return f"uepo {number}"
    changes = ", with uncommitted changes" if found["dirty"] else ""
    return f"uepo {number} (commit {found['commit'][:10]}{changes})"


def changed_files(folder: Path) -> list[str] | None:
    """Files that differ from the last commit, untracked ones too; None outside a git checkout."""
    status = _git(folder, "status", "--porcelain")
    return None if status is None else [line[3:] for line in status.splitlines()]


def commit(folder: Path | None = None) -> dict[str, Any]:
    """``{"commit": hash, "dirty": bool}`` of a checkout, by default the library's own."""
    folder = folder or repository()
    head = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD") if folder else None
    changed = changed_files(folder) if folder else None
    return {
        "commit": head.strip() if head else None,
        "dirty": None if changed is None else bool(changed),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # git is not installed: the facts are unknown, not wrong
        return None
    return done.stdout if done.returncode == 0 else None


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    return {name: found for name in PACKAGES if (found := _version(name)) is not None}


def cpu() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def command() -> str:
    """What was typed to get here, without the folders of this machine; a notebook by its name."""
    program = Path(sys.argv[0])
    if "ipykernel" in str(program):
        return f"notebook {notebook() or ''}".strip()
    name = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return f"{name} {shlex.join(sys.argv[1:])}".strip()


def notebook() -> str | None:
    """The notebook that is being executed, as its setup cell or the driver announced it."""
    return os.environ.get("UEPO_NOTEBOOK") or None


def now() -> str:
    """The time in UTC, written so that the order of the texts is the order of the times."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have a file on the disk, so that a power cut does not take it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, then put it at ``path`` in one step.

    Whoever reads ``path`` sees the old file or the new one, also after a kill or a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(path: Path, folder: Path) -> None:
    """Put ``folder`` at ``path`` in place of what is there, which is deleted last.

    Whoever reads ``path`` may miss a file between two renames, never for as long as deleting takes.
    """
    old = path.with_name(f".{path.name}.old")
    if old.exists():  # a kill left it
        shutil.rmtree(old)
    if path.exists():
        os.replace(path, old)
    os.replace(folder, path)
    if old.exists():
        shutil.rmtree(old)


def write_json(path: Path, content: Any) -> None:
    """Write strict, readable JSON in one step (NaN has no place in it: ``ValueError``)."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Write a text file, ended by a newline, in one step."""
    content = text if text.endswith("\n") else text + "\n"
    replace_file(path, lambda partial: partial.write_text(content, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read what :func:`write_json` wrote; ``UsageError``, which names it, where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path.name} is not JSON: {error} (in {path.parent})") from None


@contextlib.contextmanager
def environment(variables: Mapping[str, str], without: Sequence[str] = ()) -> Iterator[None]:
    """Set and remove environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(variables)
    for name in without:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
