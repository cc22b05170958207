"""The one way from ``results/local`` to what is committed: checked first, then copied.

``results/reference/<profile>`` gets the figures, the tables, their provenance, the records of
their runs and the log of what computing them took; ``results/reference/runs`` the few runs with
weights that a reader may load; and ``notebooks/`` the executed notebooks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat

from uepo_lib import facts, provenance
from uepo_lib.effort import LOG
from uepo_lib.errors import UsageError, unknown
from uepo_lib.recording import CONFIG, RECORD
from uepo_lib.reproduce import executed_as_is
from uepo_lib.runs import Run, Store, problems

RECORD_FILES = (CONFIG, RECORD, "metrics.csv")
# what executing writes into a cell or a notebook, beside its outputs
EXECUTION_METADATA = ("papermill", "execution")


def publish(
    profile: str,
    *,
    reading: Sequence[str] | None = None,
    max_megabytes: float = 10.0,
    repository: Path | None = None,
) -> list[Path]:
    """Copy a profile's evidence to where it is committed; nothing is written unless all is well.

    Args:
        profile: whose results; they must pass :func:`provenance.verify`.
        reading: ids or kinds of the runs that are committed whole, in place of the present set;
            None keeps the present set.
        max_megabytes: how large that set may be.
        repository: the checkout; by default the library's own.

    Returns:
        The folders and notebooks that were written.

    Raises:
        UsageError: a dirty tree, nothing to publish, a result that does not hold together, an
            executed notebook that failed, is not the one in ``notebooks/`` or was executed with
            another library, a record of uncommitted code, a run that is read from the committed set
            or builds on one that was, too large a set.
    """
    root = require_clean(repository)
    store = Store.open(profile)
    if found := provenance.verify(store):
        raise UsageError(f"profile {profile!r}: {len(found)} problems, the first: {found[0]}")
    if not provenance.outputs(store):
        raise UsageError(f"profile {profile!r}: no figures or tables in {store.root}")
    notebooks = _executed(store, root / "notebooks", profile)
    kept = _select(store, reading, max_megabytes) if reading is not None else None
    if read := store.read([*map(store.find, _shown(store)), *(kept or ())]):
        raise UsageError(
            f"profile {profile!r}: builds on {', '.join(read)} of the committed set; compute it "
            "with UEPO_PRETRAINED=0"
        )
    shown = _with_ancestors(store, _shown(store))
    _require_committed_code(store, [*shown, *(kept or [])])

    reference = root / "results" / "reference"
    written = [_write_evidence(store, shown, reference / profile)]
    if kept is not None:
        written.append(_write_runs(kept, reference / "runs"))
    for path, notebook in notebooks.items():
        facts.write_text(path, nbformat.writes(notebook))
        written.append(path)
    return written


def require_clean(repository: Path | None = None) -> Path:
    """The checkout that is published to; ``UsageError`` if there is none or it has changes."""
    root = repository or facts.repository()
    if root is None:
        raise UsageError("publish: needs a git checkout of the project")
    changed = facts.changed_files(root)
    if changed is None:
        raise UsageError(f"publish: {root} is not a git checkout")
    if changed:
        raise UsageError(f"publish: uncommitted changes in {_first(changed)}")
    return root


def _first(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{', '.join(names[:count])}{more}"


def _require_committed_code(store: Store, runs: Iterable[Run]) -> None:
    """A commit that is not the code which computed a result says nothing about the result."""
    outputs = [
        path.relative_to(store.root).as_posix()
        for path in provenance.provenances(store)
        if facts.read_json(path)["dirty"]
    ]
    dirty = [*outputs, *sorted({f"runs/{run.id}" for run in runs if run.record["dirty"]})]
    if dirty:
        raise UsageError(
            f"publish: made while there were uncommitted changes: {_first(dirty)}; remove them "
            f"from {store.root} and run make reproduce"
        )


def _shown(store: Store) -> set[str]:
    """The ids of the runs that figures and tables show."""
    return {
        run_id for path in provenance.provenances(store) for run_id in facts.read_json(path)["runs"]
    }


def _with_ancestors(store: Store, ids: Iterable[str]) -> list[Run]:
    found: dict[str, Run] = {}
    waiting = list(ids)
    while waiting:
        run_id = waiting.pop()
        if run_id not in found:
            found[run_id] = store.find(run_id)
            waiting += [parent.id for parent in found[run_id].spec.parents]
    return [found[run_id] for run_id in sorted(found)]


def _select(store: Store, names: Iterable[str], max_megabytes: float) -> list[Run]:
    """The runs of ``names``, whole."""
    runs = store.finished()
    chosen: dict[str, Run] = {}
    for name in names:
        matching = [run for run in runs if name in (run.id, run.spec.kind)]
        if not matching:
            raise unknown(
                "run or kind", name, {label for r in runs for label in (r.id, r.spec.kind)}
            )
        chosen |= {run.id: run for run in matching}
    size = sum(file.stat().st_size for run in chosen.values() for file in run.folder.iterdir())
    if size > max_megabytes * 1e6:
        raise UsageError(f"reading: {size / 1e6:.1f} MB, more than {max_megabytes:g} MB")
    return list(chosen.values())


def _write_evidence(store: Store, runs: Iterable[Run], destination: Path) -> Path:
    partial = _fresh(destination)
    for folder in (store.figures, store.tables):
        if folder.is_dir():
            shutil.copytree(folder, partial / folder.name)
    if (log := store.root / LOG).is_file():
        shutil.copy2(log, partial / LOG)
    for run in runs:
        (partial / "runs" / run.id).mkdir(parents=True)
        for name in RECORD_FILES:
            if (run.folder / name).is_file():
                shutil.copy2(run.folder / name, partial / "runs" / run.id / name)
    return _swap(partial, destination)


def _write_runs(runs: Iterable[Run], destination: Path) -> Path:
    partial = _fresh(destination)
    for run in runs:
        shutil.copytree(run.folder, partial / run.id)
        if found := problems(partial / run.id):
            raise UsageError(f"run {run.id}: {'; '.join(found)}")
    return _swap(partial, destination)


def _fresh(destination: Path) -> Path:
    partial = destination.with_name(f".{destination.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    return partial


def _swap(partial: Path, destination: Path) -> Path:
    if destination.exists():
        shutil.rmtree(destination)
    os.replace(partial, destination)
    return destination


def _executed(store: Store, committed: Path, profile: str) -> dict[Path, Any]:
    """The stripped executed notebooks, by the committed path that each will replace."""
    found: dict[Path, Any] = {}
    for path in sorted(store.notebooks.glob("*.ipynb")):
        target = committed / path.name
        if not target.is_file():
            raise UsageError(f"{path.name}: executed, but not in {committed.name}/")
        notebook = strip(nbformat.read(path, as_version=4))
        source = nbformat.read(target, as_version=4)
        if [(c.cell_type, c.source) for c in notebook.cells] != [
            (c.cell_type, c.source) for c in source.cells
        ]:
            raise UsageError(
                f"{path.name}: its cells changed since it was executed; execute it again"
            )
        if not executed_as_is(store, target, profile):
            raise UsageError(
                f"{path.name}: not executed to its end with the library as it is now and the "
                f"defaults of its parameters; run make reproduce PROFILE={profile}"
            )
        found[target] = notebook
    return found


def strip(notebook: Any) -> Any:
    """A notebook as it is committed: outputs, but no trace of who executed it when.

    Raises:
        UsageError: a cell failed or was not executed.
    """
    for key in EXECUTION_METADATA:
        notebook.metadata.pop(key, None)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for i, cell in enumerate(notebook.cells):
        for key in EXECUTION_METADATA:
            cell.metadata.pop(key, None)
        if cell.metadata.get("tags") == []:  # papermill gives every cell a list of tags
            del cell.metadata["tags"]
        if cell.cell_type != "code":
            continue
        if any(output.output_type == "error" for output in cell.outputs):
            raise UsageError(f"cell {i} of the executed notebook failed")
        if cell.source.strip() and cell.execution_count is None:
            raise UsageError(f"cell {i} of the executed notebook was not executed")
    return notebook
