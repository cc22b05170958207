"""Everything in order: data, shared models, then every notebook by papermill.

What is finished is not done again: a notebook is up to date when its source, the library, the
parameters and all that it wrote are as they were when it was last executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from tqdm.auto import tqdm

from uepo_lib import execution, facts, profiles
from uepo_lib.errors import check, unknown
from uepo_lib.execution import NotebookFailed
from uepo_lib.notebook import promised_files, promises
from uepo_lib.provenance import SUFFIX
from uepo_lib.runs import Store

BAR = "{percentage:3.0f}%|{bar:30}| {elapsed} passed, {remaining} left · {desc}"


@dataclass(frozen=True)
class Summary:
    """What :func:`reproduce` did."""

    runs_computed: int
    executed: tuple[str, ...]
    up_to_date: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.runs_computed} runs computed, {len(self.executed)} notebooks executed, "
            f"{len(self.up_to_date)} up to date"
        )


def reproduce(
    profile: str,
    notebooks: Sequence[str] | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    prepare: Callable[[str], object] | None = None,
) -> Summary:
    """Prepare what the notebooks share, execute those that are not up to date, check their outputs.

    Args:
        profile: a budget's name.
        notebooks: names or numbers ("07"); None means all in ``folder``.
        parameters: values for the notebooks' parameters cell, see ``execution.parse_parameters``.
        folder: where the notebooks are; by default the project's ``notebooks/``.
        prepare: makes the data and shared models; by default ``preparation.prepare``.

    Raises:
        UsageError: an unknown profile, notebook or parameter; a pair whose halves differ.
        NotebookFailed: a notebook failed, or lacks an output.
    """
    profile = profiles.current(profile)
    folder = folder or (facts.repository() or Path.cwd()) / "notebooks"
    paths = _select(folder, notebooks)
    parameters = dict(parameters or {})
    for path in paths:
        execution.validate(path, parameters)
    if prepare is None:
        # only here: a test of this driver needs none of the library's stages
        from uepo_lib import preparation

        prepare = preparation.prepare
    store = Store.open(profile)
    computed_before = len(store.computed())
    # evidence is computed, never read from what was committed
    with execution.environment({"UEPO_PROFILE": profile, "UEPO_PRETRAINED": "0"}):
        prepare(profile)
        keys = {path: _key(path, profile, parameters) for path in paths}
        waiting = [path for path in paths if not _up_to_date(store, path.stem, keys[path])]
        if waiting:
            _execute_all(store, waiting, keys, parameters)
    current = tuple(path.stem for path in paths if path not in waiting)
    computed = len(store.computed()) - computed_before
    return Summary(computed, tuple(path.stem for path in waiting), current)


def _select(folder: Path, names: Sequence[str] | None) -> list[Path]:
    paths = sorted(path for path in folder.glob("*.ipynb") if re.match(r"\d\d_", path.name))
    check(bool(paths), "folder", folder.name, "a folder of notebooks NN_name.ipynb")
    if names is None:
        return paths
    chosen = set()
    for name in names:
        matching = [path for path in paths if name in (path.stem, path.stem[:2])]
        if not matching:
            raise unknown("notebook", name, [path.stem for path in paths])
        chosen.update(matching)
    return sorted(chosen)


def _key(path: Path, profile: str, parameters: Mapping[str, Any]) -> str:
    """A hash of all that decides what executing a notebook gives."""
    cells = nbformat.read(path, as_version=4).cells
    content = {
        "cells": [(cell.cell_type, cell.source) for cell in cells],
        "library": library_files(Path(__file__).parent),
        "profile": profile,
        "parameters": parameters,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def library_files(folder: Path) -> dict[str, str]:
    """Every file of the library and its hash: modules, and the tables and policies they read."""
    found = (path for path in folder.rglob("*") if path.is_file())
    kept = sorted(path for path in found if "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): facts.sha256(path) for path in kept}


def _state_file(store: Store, name: str) -> Path:
    return store.notebooks / f"{name}.json"


def _state(store: Store, name: str) -> dict[str, Any] | None:
    """What the last complete execution left beside the executed notebook."""
    path = _state_file(store, name)
    return facts.read_json(path) if path.is_file() else None


def _up_to_date(store: Store, name: str, key: str) -> bool:
    state = _state(store, name)
    if state is None or state["key"] != key or not (store.notebooks / f"{name}.ipynb").is_file():
        return False
    for output, digest in state["outputs"].items():
        path = store.root / output
        if not path.is_file() or facts.sha256(path) != digest:
            return False
        if path.name.endswith(SUFFIX):
            runs = facts.read_json(path)["runs"]
            if not all((store.runs / run / "run.json").is_file() for run in runs):
                return False
    return True


def _execute_all(
    store: Store, paths: Sequence[Path], keys: Mapping[Path, str], parameters: Mapping[str, Any]
) -> None:
    weights = _weights(store, paths)
    store.notebooks.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=sum(weights.values()), bar_format=BAR, mininterval=0)
    with execution.kernel_of_this_interpreter(), bar:
        reached = 0.0
        for path in paths:
            advance = _advance(bar, path.stem, reached, weights[path])
            advance(0, 1)
            for old in (_state_file(store, path.stem), promises(store, path.stem)):
                old.unlink(missing_ok=True)
            started = time.time()
            execution.execute(path, store.notebooks / path.name, parameters, advance)
            _finish(store, path.stem, keys[path], started)
            reached += weights[path]


def _advance(bar: Any, name: str, reached: float, weight: float) -> Callable[[int, int], None]:
    """Move the bar to where ``cell`` of ``cells`` is within a notebook's share."""

    def advance(cell: int, cells: int) -> None:
        bar.set_description_str(name, refresh=False)
        bar.update(reached + weight * cell / cells - bar.n)

    return advance


def _weights(store: Store, paths: Sequence[Path]) -> dict[Path, float]:
    """Seconds a notebook took last time; where unknown, the mean of the others, else equal."""
    states = {path: _state(store, path.stem) for path in paths}
    known = [state["seconds"] for state in states.values() if state]
    usual = sum(known) / len(known) if known else 1.0
    return {path: state["seconds"] if state else usual for path, state in states.items()}


def _finish(store: Store, name: str, key: str, started: float) -> None:
    """Check that a notebook wrote its outputs just now, and note that it is done."""
    files = {file.relative_to(store.root).as_posix(): file for file in promised_files(store, name)}
    # a second of grace: some file systems keep no finer times
    absent = [
        output
        for output, file in files.items()
        if not file.is_file() or file.stat().st_mtime < started - 1
    ]
    if absent:
        raise NotebookFailed(f"{name} did not write {', '.join(absent)}")
    content = {
        "key": key,
        "seconds": round(time.time() - started, 1),
        "outputs": {output: facts.sha256(file) for output, file in files.items()},
    }
    facts.write_json(_state_file(store, name), content)
