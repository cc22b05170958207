from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from run_recipes import SPEC, train

from uepo_lib import facts, reproduce
from uepo_lib.errors import UsageError
from uepo_lib.provenance import record_output, verify
from uepo_lib.publish import publish
from uepo_lib.runs import Spec, Store

CHILD = Spec("curve", {"seed": 3, "lr": 0.05}, parents=(SPEC.key,))


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def notebook(executed: bool) -> nbformat.NotebookNode:
    tags = {"tags": ["parameters"]}
    cells = [
        new_markdown_cell("# Title", id="a"),
        new_code_cell("profile = None", id="b", metadata=tags),
        new_code_cell("1 + 1", id="c"),
    ]
    book = new_notebook(cells=cells)
    if executed:
        book.metadata["papermill"] = {"start_time": "now", "input_path": "/home/me/x.ipynb"}
        injected = {"tags": ["injected-parameters"]}
        book.cells.insert(2, new_code_cell("profile = 'smoke'", id="d", metadata=injected))
        for count, cell in enumerate(book.cells[1:], 1):
            cell.execution_count = count
            cell.metadata.setdefault("tags", [])
            cell.metadata["papermill"] = {"duration": 0.1}
            cell.metadata["execution"] = {"iopub.execute_input": "now"}
        output = new_output("execute_result", {"text/plain": "2"}, execution_count=3)
        book.cells[-1].outputs = [output]
    return book


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    nbformat.write(notebook(executed=False), root / "notebooks" / "01_data.ipynb")
    (root / ".gitignore").write_text("results/local/\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@pytest.fixture
def store(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("UEPO_RESULTS", str(repository / "results"))
    # results of this checkout, whatever the state of the one that the library lies in
    monkeypatch.setattr(facts, "commit", lambda: {"commit": "c0ffee", "dirty": False})
    store = Store.open("smoke")
    store.reference = None
    store.get_or_train(SPEC, train)
    run = store.get_or_train(CHILD, train)
    store.get_or_train(Spec("stray", {"seed": 0, "lr": 0.1}), train)
    for folder, name in ((store.figures, "curve.png"), (store.tables, "curve.csv")):
        folder.mkdir(parents=True)
        (folder / name).write_text("x")
        record_output(folder / name, [run], profile="smoke", seeds=[3], task="toy")
    store.notebooks.mkdir()
    nbformat.write(notebook(executed=True), store.notebooks / "01_data.ipynb")
    note_execution(repository, store)
    return store


def note_execution(repository: Path, store: Store, **parameters: object) -> None:
    """What ``reproduce`` leaves beside the executed notebook."""
    key = reproduce._key(repository / "notebooks" / "01_data.ipynb", "smoke", parameters)
    state = {"key": key, "seconds": 1.0, "outputs": {}}
    facts.write_json(store.notebooks / "01_data.json", state)


def test_publishes_evidence_and_reading_set(
    repository: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UEPO_PRETRAINED", raising=False)
    publish("smoke", reading=["toy"], repository=repository)
    reference = repository / "results" / "reference"
    files = {p.relative_to(reference).as_posix() for p in reference.rglob("*") if p.is_file()}
    records = {
        f"smoke/runs/{run_id}/{name}"
        for run_id in (SPEC.id, CHILD.id)  # what is shown and what it was built on, no more
        for name in ("config.json", "run.json", "metrics.csv")
    }
    whole = {f"runs/{SPEC.id}/{path.name}" for path in (store.runs / SPEC.id).iterdir()}
    outputs = {
        *("smoke/figures/curve.png", "smoke/figures/curve.provenance.json"),
        *("smoke/tables/curve.csv", "smoke/tables/curve.provenance.json"),
    }
    assert files == records | whole | outputs
    assert f"runs/{SPEC.id}/model.safetensors" in files

    fresh = Store(repository / "results" / "elsewhere", reference)
    assert fresh.get_or_train(SPEC, train).folder == reference / "runs" / SPEC.id
    assert verify(fresh) == []


def test_publishing_again_replaces(repository: Path, store: Store) -> None:
    publish("smoke", reading=["toy"], repository=repository)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "publish")
    (store.figures / "curve.png").unlink()
    (store.figures / "curve.provenance.json").unlink()
    publish("smoke", repository=repository)
    reference = repository / "results" / "reference"
    assert not list((reference / "smoke" / "figures").iterdir())
    assert (reference / "runs" / SPEC.id).is_dir()  # the reading set stays as it was


def test_notebooks_are_stripped(repository: Path, store: Store) -> None:
    publish("smoke", repository=repository)
    text = (repository / "notebooks" / "01_data.ipynb").read_text()
    for trace in ("papermill", "injected-parameters", "iopub", "/home/me", '"tags": []'):
        assert trace not in text
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    assert [cell.id for cell in book.cells] == ["a", "b", "c"]
    assert book.cells[1].metadata.tags == ["parameters"]
    assert book.cells[2].outputs[0].data["text/plain"] == "2"
    # one beside the other, only outputs differ: nothing else is in git's eyes
    assert git(repository, "status", "--porcelain").split() == [
        *("M", "notebooks/01_data.ipynb", "??", "results/")
    ]


def refused(repository: Path, message: str, **arguments: object) -> None:
    """Refused with ``message``, and nothing written."""
    before = git(repository, "status", "--porcelain", "--untracked-files=all")
    with pytest.raises(UsageError, match=message):
        publish("smoke", repository=repository, **arguments)  # type: ignore[arg-type]
    assert git(repository, "status", "--porcelain", "--untracked-files=all") == before


def test_refuses_a_dirty_tree(repository: Path, store: Store) -> None:
    (repository / "new.py").write_text("")
    refused(repository, r"uncommitted changes in new\.py")
    (repository / "new.py").unlink()
    (repository / ".gitignore").write_text("results/local/\n# more\n")
    refused(repository, r"uncommitted changes in \.gitignore")


def test_refuses_what_is_not_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a git checkout"):
        publish("smoke", repository=tmp_path)


def test_refuses_results_that_do_not_hold_together(repository: Path, store: Store) -> None:
    (store.figures / "curve.png").write_text("y")
    refused(repository, "1 problems, the first: figures/curve")


def test_refuses_what_builds_on_a_run_that_was_read(
    repository: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UEPO_PRETRAINED", raising=False)
    reader = Store(store.root, repository.parent / "reference")
    shutil.copytree(store.runs / SPEC.id, repository.parent / "reference" / "runs" / SPEC.id)
    for run_id in (SPEC.id, CHILD.id):
        shutil.rmtree(store.runs / run_id)
    run = reader.get_or_train(CHILD, train, needs=lambda: [reader.get_or_train(SPEC, train)])
    for folder, name in ((store.figures, "curve.png"), (store.tables, "curve.csv")):
        record_output(folder / name, [run], profile="smoke", seeds=[3], task="toy")
    for reading in (None, ["stray"]):
        refused(repository, f"builds on {SPEC.id} of the committed set; .*=0", reading=reading)
    store.get_or_train(SPEC, train)  # the parent alone does not help
    refused(repository, f"builds on {SPEC.id} of the committed set; .*=0")


def test_refuses_nothing_to_publish(repository: Path, store: Store) -> None:
    for path in [*store.figures.iterdir(), *store.tables.iterdir()]:
        path.unlink()
    refused(repository, "no figures or tables")


def test_refuses_unknown_or_large_runs(repository: Path, store: Store) -> None:
    refused(repository, "unknown run or kind 'tory'; did you mean 'toy'", reading=["tory"])
    refused(repository, "MB, more than 0.001 MB", reading=["toy"], max_megabytes=0.001)


def test_refuses_notebooks_that_are_not_the_committed_ones(repository: Path, store: Store) -> None:
    path = store.notebooks / "01_data.ipynb"
    changes = {
        "its cells changed": lambda book: book.cells[-1].update(source="1 + 2"),
        "was not executed": lambda book: book.cells[-1].update(execution_count=None),
        "failed": lambda book: book.cells[-1].outputs.append(new_output("error")),
    }
    for message, change in changes.items():
        book = notebook(executed=True)
        change(book)
        nbformat.write(book, path)
        refused(repository, message)
    path.rename(store.notebooks / "09_other.ipynb")
    refused(repository, "not in notebooks/")


def test_refuses_notebooks_that_other_code_executed(
    repository: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"01_data.ipynb: not executed .* run make reproduce PROFILE=smoke"
    with monkeypatch.context() as patch:
        patch.setattr(reproduce, "library_files", lambda folder: {"profiles.py": "since edited"})
        refused(repository, message)
    note_execution(repository, store, n=4)
    refused(repository, message)
    (store.notebooks / "01_data.json").unlink()  # it was interrupted
    refused(repository, message)
    note_execution(repository, store)
    publish("smoke", repository=repository)


@pytest.mark.parametrize("where", ["figures", "tables", SPEC.id, CHILD.id])
def test_refuses_what_uncommitted_code_made(repository: Path, store: Store, where: str) -> None:
    """The figure, the table, the run that they show, and the one that this was built on."""
    shown = where in ("figures", "tables")
    name = f"{where}/curve.provenance.json" if shown else f"runs/{where}"
    path = store.root / name if shown else store.root / name / "run.json"
    facts.write_json(path, {**json.loads(path.read_text()), "dirty": True})
    refused(repository, f"uncommitted changes: {name}; remove .* and run make reproduce")


def test_what_is_not_shown_may_be_of_uncommitted_code(repository: Path, store: Store) -> None:
    path = store.runs / Spec("stray", {"seed": 0, "lr": 0.1}).id / "run.json"
    facts.write_json(path, {**json.loads(path.read_text()), "dirty": True})
    refused(repository, "uncommitted changes: runs/stray-", reading=["stray"])
    publish("smoke", repository=repository)
