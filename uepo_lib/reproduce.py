"""Everything in order: data, shared models, then every notebook by papermill.

What is finished is not done again: a notebook is up to date when its source, the library, the
parameters and all that it wrote are as they were when it was last executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from uepo_lib import effort, execution, facts, profiles, sweep
from uepo_lib.effort import Summary
from uepo_lib.errors import check, unknown
from uepo_lib.execution import NotebookFailed
from uepo_lib.notebook import promised_files, promises
from uepo_lib.provenance import SUFFIX
from uepo_lib.runs import Store

PATIENCE = 20.0
"""Seconds that a worker has to end, once it was told."""


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
    started, computed_before = time.monotonic(), len(store.computed())
    # evidence is computed, never read from what was committed
    with facts.environment({"UEPO_PROFILE": profile, "UEPO_PRETRAINED": "0"}):
        prepare(profile)
        keys = {path: _key(path, profile, parameters) for path in paths}
        waiting = [path for path in paths if not _up_to_date(store, path.stem, keys[path])]
        if waiting:
            _execute_all(store, waiting, keys, parameters)
    done = store.computed()[computed_before:]
    executed = tuple(path.stem for path in waiting)
    current = tuple(path.stem for path in paths if path not in waiting)
    return effort.note(store, done, executed, current, time.monotonic() - started)


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


def executed_as_is(store: Store, path: Path, profile: str) -> bool:
    """Whether :func:`reproduce` with no parameters last executed the notebook ``path`` to its end
    with the cells and the library that there are now; its outputs are not looked at."""
    state = _state(store, path.stem)
    return state is not None and bool(state["key"] == _key(path, profile, {}))


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
    """One notebook a core, the longest first; none needs what another writes.

    A notebook whose parameters cell is tagged ``alone`` measures times, and has the machine to
    itself; one that is tagged ``long`` trains something of its own.
    """
    tags = {path: _tags(path) for path in paths}
    seconds = {path: _seconds(store, path.stem, "long" in tags[path]) for path in paths}
    quiet = [path for path in paths if "alone" in tags[path]]
    together = sorted(set(paths) - set(quiet), key=lambda path: (-seconds[path], path))
    store.notebooks.mkdir(parents=True, exist_ok=True)
    with execution.kernel_of_this_interpreter(), _workers_end():
        for chosen, workers in ((together, sweep.cores()), (quiet, 1)):
            jobs = [(_execute, (store, path, keys[path], parameters)) for path in chosen]
            if min(workers, len(jobs)) > 1:
                _await_server()
            if jobs:
                sweep.run_all(jobs, workers, name="notebooks", unit="notebook")


def _await_server() -> None:
    """Have what workers are forked from do its imports first: a worker that begins when a Ctrl-C
    has ended this process prints a traceback; this one misses nothing."""
    if sweep.METHOD == "forkserver":
        first = multiprocessing.get_context("forkserver").Process(target=int)
        first.start()
        first.join()


@contextlib.contextmanager
def _workers_end() -> Iterator[None]:
    """Wait for workers that were told to end: they remove their kernels' files and their own."""
    others = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.join(PATIENCE)


def _tags(path: Path) -> set[str]:
    """Those of the parameters cell."""
    cells = nbformat.read(path, as_version=4).cells
    found = (set(cell.metadata.get("tags", [])) for cell in cells)
    return next((tags for tags in found if "parameters" in tags), set())


def _seconds(store: Store, name: str, long: bool) -> float:
    """What a notebook took last time; before that, the long ones come first."""
    state = _state(store, name)
    if state is None:
        return math.inf if long else 0.0
    return float(state["seconds"])


def _execute(store: Store, path: Path, key: str, parameters: Mapping[str, Any]) -> None:
    target = store.notebooks / path.name
    for old in (_state_file(store, path.stem), promises(store, path.stem), target):
        old.unlink(missing_ok=True)
    started = time.time()
    execution.execute(path, target, parameters)
    _finish(store, path.stem, key, started)


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
