"""The pair check sees every way in which a notebook and its script can part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from uepo_lib import execution, pairs

SCRIPT = """\
# %% [markdown]
# # Squares

# %% tags=["parameters"]
n = 3

# %% tags=["nbval-check-output"]
print(n**2)

# %%
root = n**0.5
"""


def read(path: Path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """A folder with one pair, its notebook executed as ``make reproduce`` does."""
    folder = tmp_path_factory.mktemp("executed")
    (folder / "01_squares.py").write_text(SCRIPT)
    assert pairs.sync(folder) == [folder / "01_squares.ipynb"]
    with execution.kernel_of_this_interpreter():
        execution.execute(folder / "01_squares.ipynb", folder / "out.ipynb")
    notebook = read(folder / "out.ipynb")
    notebook.metadata.pop("papermill")
    for cell in notebook.cells:
        cell.metadata.pop("papermill")
        cell.metadata.pop("execution", None)
        if not cell.metadata["tags"]:
            del cell.metadata["tags"]
    (folder / "out.ipynb").unlink()
    nbformat.write(notebook, folder / "01_squares.ipynb")
    return folder


@pytest.fixture
def pair(executed: Path, tmp_path: Path) -> Path:
    """A copy of the executed pair to spoil."""
    for path in executed.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


def spoil(folder: Path, change: Callable) -> list[str]:
    path = folder / "01_squares.ipynb"
    notebook = read(path)
    change(notebook)
    nbformat.write(notebook, path)
    return pairs.check(folder)


def set_source(notebook):
    notebook.cells[3].source = "root = n**0.25"


def set_tag(notebook):
    notebook.cells[2].metadata["tags"] = []


def set_type(notebook):
    notebook.cells[0] = nbformat.v4.new_raw_cell("# Squares")


def drop_cell(notebook):
    notebook.cells.pop()


def drop_count(notebook):
    notebook.cells[2].execution_count = None


def drop_output(notebook):
    notebook.cells[2].outputs = []


def drop_stamp(notebook):
    del notebook.cells[3].metadata["uepo"]


def inject(notebook):
    notebook.cells[3].metadata["tags"] = ["injected-parameters"]


def papermill(notebook):
    notebook.metadata["papermill"] = {"duration": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_source, "cell 3: source differs"),
        (set_source, "cell 3: its output is not from this source"),
        (set_tag, "cell 2: tags differs"),
        (set_type, "cell 0: type differs"),
        (drop_cell, "3 cells, the script has 4"),
        (drop_count, "cell 2: has outputs but was not executed"),
        (drop_count, "cell 2: its output is to be checked, but it has none"),
        (drop_output, "cell 2: its output is to be checked, but it has none"),
        (drop_stamp, "cell 3: its output is not from this source"),
        (inject, "cell 3: holds injected parameters"),
        (papermill, "holds papermill metadata"),
    ],
)
def test_check_sees(pair, change, message):
    assert pairs.check(pair) == []
    assert any(message in problem for problem in spoil(pair, change))


def test_check_sees_a_changed_script(pair):
    script = pair / "01_squares.py"
    script.write_text(SCRIPT.replace("n = 3", "n = 4"))
    assert pairs.check(pair) == ["01_squares.ipynb cell 1: source differs from the script"]


@pytest.mark.parametrize("half", ["01_squares.py", "01_squares.ipynb"])
def test_check_sees_a_missing_half(pair, half):
    (pair / half).unlink()
    assert pairs.check(pair) == [f"{half}: is missing, its other half is there"]


def test_an_output_cannot_follow_its_cell_to_another_source(pair):
    """Both halves changed alike still leave the old output: the stamp tells."""
    (pair / "01_squares.py").write_text(SCRIPT.replace("n**2", "n**3"))

    def change(notebook):
        notebook.cells[2].source = "print(n**3)"

    problems = spoil(pair, change)
    assert problems == [
        "01_squares.ipynb cell 2: its output is not from this source: execute it again"
    ]


def test_sync_keeps_only_outputs_of_unchanged_cells(pair):
    path = pair / "01_squares.ipynb"
    before = read(path)
    assert pairs.sync(pair) in ([], [path])  # the text may be laid out anew, once
    assert pairs.sync(pair) == []
    assert read(path).cells == before.cells

    changed = SCRIPT.replace("n**0.5", "n**0.25").replace("# # Squares", "# # Powers")
    (pair / "01_squares.py").write_text(changed + "\n# %%\nn + 1\n")
    assert pairs.sync(pair) == [path]
    assert pairs.sync(pair) == []
    cells = read(path).cells
    assert cells[2] == before.cells[2] and cells[2].outputs
    assert cells[3].execution_count is None and "uepo" not in cells[3].metadata
    assert pairs.check(pair) == []


def test_command(pair, capsys):
    assert pairs.main(["check", str(pair)]) == 0
    assert "1 notebook pairs agree" in capsys.readouterr().out
    (pair / "01_squares.py").write_text(SCRIPT + "\n# %%\nn\n")
    assert pairs.main(["check", str(pair)]) == 1
    assert pairs.main(["sync", str(pair)]) == 0
    assert "wrote 01_squares.ipynb" in capsys.readouterr().out


def nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["--nbval-lax", "--nbval-current-env", "-q", "-c", os.devnull]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder / "01_squares.ipynb")],
        cwd=folder,
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nbval_compares_tagged_outputs(pair):
    """What ``make test`` relies on: an altered output of a tagged cell fails."""
    done = nbval(pair)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout

    def alter(notebook):
        notebook.cells[2].outputs[0].text = "10\n"

    assert spoil(pair, alter) == []
    done = nbval(pair)
    assert done.returncode == 1 and "1 failed, 2 passed" in done.stdout, done.stdout
