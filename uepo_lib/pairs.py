"""Notebook pairs: ``NN_name.py`` is what one edits, ``NN_name.ipynb`` carries its outputs.

``python -m uepo_lib.pairs check`` says where the two differ, or where an output is older than its
cell; ``python -m uepo_lib.pairs sync`` writes the notebooks from the scripts, and never the other
way, keeping the outputs of the cells that did not change. Whoever executes a notebook calls
:func:`stamp`, so that each output knows the source it came from.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from uepo_lib import facts
from uepo_lib.errors import UsageError

STRICT_TAG = "nbval-check-output"
STRICT_MARKER = "NBVAL_CHECK_OUTPUT"
INJECTED_TAG = "injected-parameters"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

Notebook = Any  # nbformat and jupytext are untyped
Cell = Any


def digest(source: str) -> str:
    """A short hash of a cell's source, blind to blank lines at its end."""
    return hashlib.sha256(source.rstrip().encode()).hexdigest()[:16]


def stamp(notebook: Notebook) -> None:
    """Note in every code cell that was executed which source gave its outputs."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.execution_count is not None:
            cell.metadata["uepo"] = {"executed": digest(cell.source)}


def drift(script: Path, notebook: Path) -> list[str]:
    """Where the cells of a pair differ in type, source or tags, one line each."""
    return _differences(_read_script(script), nbformat.read(notebook, as_version=4), notebook.name)


def check(folder: Path) -> list[str]:
    """All that is wrong with the pairs in ``folder``, one line each; empty if nothing is."""
    problems = []
    names = {path.stem for pattern in ("*.py", "*.ipynb") for path in folder.glob(pattern)}
    for name in sorted(names):
        script, path = folder / f"{name}.py", folder / f"{name}.ipynb"
        if absent := [half.name for half in (script, path) if not half.is_file()]:
            problems.append(f"{absent[0]}: is missing, its other half is there")
            continue
        notebook = nbformat.read(path, as_version=4)
        problems += _differences(_read_script(script), notebook, path.name)
        if "papermill" in notebook.metadata:
            problems.append(f"{path.name}: holds papermill metadata")
        for i, cell in enumerate(notebook.cells):
            problems += [f"{path.name} cell {i}: {message}" for message in _faults(cell)]
    return problems


def sync(folder: Path) -> list[Path]:
    """Write each ``.ipynb`` from its ``.py``; return those that changed.

    A code cell whose source is unchanged keeps its outputs, wherever it moved; others have none.
    """
    written = []
    for script in sorted(folder.glob("*.py")):
        path = script.with_suffix(".ipynb")
        old = nbformat.read(path, as_version=4) if path.is_file() else nbformat.v4.new_notebook()
        text = nbformat.writes(_updated(_read_script(script), old)) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            facts.write_text(path, text)
            written.append(path)
    return written


def _read_script(path: Path) -> Notebook:
    return jupytext.read(path, fmt="py:percent")


def _tags(cell: Cell) -> list[str]:
    return sorted(cell.metadata.get("tags", []))


def _differences(script: Notebook, notebook: Notebook, name: str) -> list[str]:
    ours, theirs = script.cells, notebook.cells
    found = []
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        differs = {
            "type": a.cell_type != b.cell_type,
            "source": a.source.rstrip() != b.source.rstrip(),
            "tags": _tags(a) != _tags(b),
        }
        found += [
            f"{name} cell {i}: {what} differs from the script" for what in differs if differs[what]
        ]
    if len(ours) != len(theirs):
        found.append(f"{name}: {len(theirs)} cells, the script has {len(ours)}")
    return found


def _faults(cell: Cell) -> list[str]:
    """What is wrong with a cell by itself."""
    faults = []
    if INJECTED_TAG in _tags(cell):
        faults.append("holds injected parameters")
    if "papermill" in cell.metadata:
        faults.append("holds papermill metadata")
    if cell.cell_type != "code":
        return faults
    executed = cell.metadata.get("uepo", {}).get("executed")
    if (cell.outputs or cell.execution_count is not None) and executed != digest(cell.source):
        faults.append("its output is not from this source: execute it again")
    if cell.outputs and cell.execution_count is None:
        faults.append("has outputs but was not executed")
    # nbval passes a cell without an execution count unchecked
    strict = STRICT_TAG in _tags(cell) or STRICT_MARKER in cell.source
    if strict and (cell.execution_count is None or not cell.outputs):
        faults.append("its output is to be checked, but it has none")
    return faults


def _updated(script: Notebook, old: Notebook) -> Notebook:
    """``script`` as a notebook, with the ids, outputs and stamps of ``old``'s unchanged cells."""
    before: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in old.cells:
        before[cell.cell_type, cell.source.rstrip()].append(cell)
    new = nbformat.v4.new_notebook(metadata={**old.metadata, "kernelspec": KERNEL})
    new.metadata.pop("papermill", None)
    for i, cell in enumerate(script.cells):
        same = before[cell.cell_type, cell.source.rstrip()]
        kept = same.pop(0) if same else None
        # a fresh id that depends on nothing but the content, so that two syncs agree
        cell.id = kept.id if kept and "id" in kept else digest(f"{i} {cell.source}")
        cell.metadata = nbformat.from_dict({"tags": _tags(cell)} if _tags(cell) else {})
        if kept and cell.cell_type == "code":
            cell.outputs, cell.execution_count = kept.outputs, kept.execution_count
            if "uepo" in kept.metadata:
                cell.metadata["uepo"] = kept.metadata["uepo"]
        new.cells.append(cell)
    return new


def main(arguments: Sequence[str] | None = None) -> int:
    """``check`` exits 1 when something is wrong; ``sync`` prints what it wrote."""
    parser = argparse.ArgumentParser(prog="python -m uepo_lib.pairs", description=__doc__)
    parser.add_argument("action", choices=["check", "sync"])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the project's notebooks/")
    options = parser.parse_args(arguments)
    folder = options.folder or (facts.repository() or Path.cwd()) / "notebooks"
    if not folder.is_dir():
        parser.error(str(UsageError(f"folder={str(folder)!r}: must exist")))
    if options.action == "sync":
        for path in sync(folder):
            print(f"wrote {path.name}")
        return 0
    problems = check(folder)
    print("\n".join(problems) or f"{len(list(folder.glob('*.py')))} notebook pairs agree")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
