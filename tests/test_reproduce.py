"""The driver on a folder with two small notebooks, its stages replaced by a line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from uepo_lib import execution, facts, notebook, pairs, plotting, provenance, reproduce
from uepo_lib.effort import LOG
from uepo_lib.errors import UsageError
from uepo_lib.runs import Spec, Store

FIRST = """\
# %% tags=["parameters"]
profile = None
n = 3

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

from uepo_lib import notebook
from uepo_lib.specs import Spec

here = notebook.start("01_first", profile, ["figures/squares.png", "tables/squares.csv"])

# %%
run = here.store.get_or_train(
    Spec("toy", {"n": n, "seed": 0}), lambda run: run.save_json("n.json", {"n": n})
)

# %%
figure, axes = plt.subplots()
axes.plot([i**2 for i in range(n)])
here.figure(figure, "squares", [run], task="toy")
here.table(pd.DataFrame({"square": [i**2 for i in range(n)]}), "squares", [run], task="toy")

# %%
print(os.getcwd(), os.environ["UEPO_PRETRAINED"], os.environ["UEPO_NOTEBOOK"])
"""

SECOND = """\
# %%
from uepo_lib import notebook

here = notebook.start("02_second")

# %%
print("second")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two notebook pairs, and a results root beside them."""
    monkeypatch.setenv("UEPO_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("UEPO_NOTEBOOK", raising=False)
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "01_first.py").write_text(FIRST)
    (notebooks / "02_second.py").write_text(SECOND)
    pairs.sync(notebooks)
    return notebooks


def run(folder: Path, **options) -> reproduce.Summary:
    return reproduce.reproduce("smoke", folder=folder, prepare=lambda profile: None, **options)


def rewrite(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)
    pairs.sync(folder)


def test_second_call_computes_nothing(folder):
    """One long test: each execution starts a kernel."""
    environment = dict(os.environ)
    done = run(folder)
    assert str(done).startswith("1 runs computed, 2 notebooks executed, 0 up to date: ")
    assert dict(os.environ) == environment
    store = Store.open("smoke")
    files = {path.name for path in [*store.figures.iterdir(), *store.tables.iterdir()]}
    assert files == {"squares.png", "squares.pdf", "squares.csv", "squares.provenance.json"}
    assert provenance.verify(store) == []
    content = json.loads((store.figures / "squares.provenance.json").read_text())
    assert (content["notebook"], content["seeds"], content["profile"]) == ("01_first", [0], "smoke")

    executed = nbformat.read(store.notebooks / "01_first.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == f"{folder} 0 01_first\n"
    stamps = [cell.metadata["uepo"]["executed"] for cell in executed.cells]
    assert stamps == [pairs.digest(cell.source) for cell in executed.cells]

    assert str(run(folder)).startswith("0 runs computed, 0 notebooks executed, 2 up to date: ")
    done = run(folder, notebooks=["01"], parameters=execution.parse_parameters(["n=4"]))
    assert str(done).startswith("1 runs computed, 1 notebooks executed, 0 up to date: ")
    assert len(pd.read_csv(store.tables / "squares.csv")) == 4

    calls = [json.loads(line) for line in (store.root / LOG).read_text().splitlines()]
    assert [(c["runs_computed"], len(c["executed"])) for c in calls] == [(1, 2), (0, 0), (1, 1)]
    work = [row["wall_s"] for row in store.computed()]
    assert [c["core_seconds"] for c in calls] == pytest.approx([work[0], 0, work[1]], abs=0.06)
    # no job asked for them, so it was the notebook
    assert [list(c["by_purpose"]) for c in calls] == [["01_first"], [], ["01_first"]]
    assert [sum(c["by_purpose"].values()) for c in calls] == [c["core_seconds"] for c in calls]
    assert calls[0]["wall_seconds"] > calls[1]["wall_seconds"]
    assert 0.02 < calls[0]["peak_gigabytes"] < 50


def test_what_makes_a_notebook_out_of_date(folder):
    store = Store.open("smoke")
    store.figures.mkdir(parents=True)
    output, executed = store.figures / "a.png", store.notebooks / "01_first.ipynb"
    for path in (output, executed):
        facts.write_text(path, "as it was")
    state = {"key": "k", "seconds": 1, "outputs": {"figures/a.png": facts.sha256(output)}}
    facts.write_json(store.notebooks / "01_first.json", state)

    def current(key: str = "k") -> bool:
        return reproduce._up_to_date(store, "01_first", key)

    assert current() and not current("another source")
    for path in (output, executed):
        path.unlink()
        assert not current()
        facts.write_text(path, "as it was")
        assert current()
    facts.write_text(output, "altered")
    assert not current()


@pytest.fixture
def drawn(folder, monkeypatch, capsys):
    """A notebook's registered figure and its table, of one run, as a complete execution leaves
    them."""
    monkeypatch.setattr(facts, "commit", lambda: {"commit": "one", "dirty": False})
    monkeypatch.setattr(plotting, "FIGURES", {"squares": lambda table: line(table["square"])})
    here = notebook.start("01_first", "smoke", ["figures/squares.png", "tables/squares.csv"])
    spec = Spec("toy", {"n": 3, "seed": 0})
    made = here.store.get_or_train(spec, lambda run: run.save_json("n.json", {"n": 3}))
    here.draw("squares", pd.DataFrame({"square": [0, 1, 4]}), [made], task="toy")
    facts.write_text(here.store.notebooks / "01_first.ipynb", "executed")
    reproduce._finish(here.store, "01_first", "k", 0.0)
    return here.store


def line(values):
    figure, axes = plt.subplots()
    axes.plot(values)
    return figure


def test_drawing_the_same_figure_again_changes_no_record(drawn, monkeypatch):
    record = drawn.figures / "squares.provenance.json"
    before = record.read_bytes()
    monkeypatch.setattr(facts, "commit", lambda: {"commit": "two", "dirty": True})
    assert notebook.redraw("smoke") == ["squares"]
    assert record.read_bytes() == before
    assert reproduce._up_to_date(drawn, "01_first", "k")
    assert provenance.verify(drawn) == []

    monkeypatch.setitem(plotting.FIGURES, "squares", lambda table: line(-table["square"]))
    notebook.redraw("smoke")
    assert facts.read_json(record)["commit"] == "two"
    assert not reproduce._up_to_date(drawn, "01_first", "k")
    assert provenance.verify(drawn) == []


@pytest.mark.parametrize(
    "old", [{"dirty": True}, {"created": "2000-01-01T00:00:00.000+00:00"}, {"seeds": [1]}]
)
def test_a_record_that_should_be_another_is_not_kept(drawn, old):
    """Of uncommitted code, from before its run was computed, or of other seeds."""
    record = drawn.figures / "squares.provenance.json"
    facts.write_json(record, {**facts.read_json(record), **old})
    notebook.redraw("smoke")
    found = facts.read_json(record)
    assert all(found[name] != value for name, value in old.items())
    assert provenance.verify(drawn) == []


def test_the_key_follows_cells_profile_and_parameters(folder):
    path = folder / "01_first.ipynb"
    keys = {
        reproduce._key(path, "smoke", {}),
        reproduce._key(path, "laptop", {}),
        reproduce._key(path, "smoke", {"n": 4}),
    }
    rewrite(folder, "01_first", FIRST.replace("n = 3", "n = 5"))
    keys.add(reproduce._key(path, "smoke", {}))
    assert len(keys) == 4


def test_every_file_of_the_library_counts(tmp_path: Path) -> None:
    """What a notebook shows may come from a table or a policy that ships with the modules."""
    for name in ("a.py", "tuning.csv", "policies_data/hopper/medium.json", "__pycache__/a.pyc"):
        facts.write_text(tmp_path / name, "as it was")
    before = reproduce.library_files(tmp_path)
    assert list(before) == ["a.py", "policies_data/hopper/medium.json", "tuning.csv"]
    for name in before:
        facts.write_text(tmp_path / name, "altered")
        changed = reproduce.library_files(tmp_path)
        assert {key for key in before if before[key] != changed[key]} == {name}
        facts.write_text(tmp_path / name, "as it was")


def test_a_data_file_changes_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "01_first.ipynb"
    before = reproduce._key(path, "smoke", {})
    known = reproduce.library_files(Path(reproduce.__file__).parent)
    assert {"published.csv", "tuning_critic.csv", "policies_data/hopper/medium.json"} <= set(known)
    altered = {**known, "published.csv": "altered"}
    monkeypatch.setattr(reproduce, "library_files", lambda folder: altered)
    assert reproduce._key(path, "smoke", {}) != before


def test_a_failing_notebook_is_named_and_kept(folder):
    rewrite(folder, "02_second", "# %%\nprint(2)\n\n# %%\nraise ValueError('no data')\n")
    with pytest.raises(reproduce.NotebookFailed, match=r"02_second .* cell 1: ValueError: no data"):
        run(folder, notebooks=["02"])
    kept = nbformat.read(Store.open("smoke").notebooks / "02_second.ipynb", as_version=4)
    assert any(cell.get("outputs") for cell in kept.cells)


def test_a_notebook_whose_kernel_died_is_kept_as_far_as_it_came(folder):
    rewrite(folder, "02_second", "# %%\nprint(2)\n\n# %%\nimport os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(reproduce.NotebookFailed, match="02_second failed: its kernel died"):
        run(folder, notebooks=["02"])
    kept = nbformat.read(Store.open("smoke").notebooks / "02_second.ipynb", as_version=4)
    assert kept.cells[0].outputs[0].text == "2\n"


HELD = """\
# %%
from pathlib import Path
import tempfile
import time
from collections.abc import Iterator
Path("began-NAME").touch()
while Path("hold").exists():
    time.sleep(0.1)

# %%
from uepo_lib import notebook
notebook.start("NAME")
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Sockets need a short name; pytest's folders have long ones."""
    with tempfile.TemporaryDirectory(prefix="t") as name:
        yield Path(name)


def interrupt(folder: Path, places: dict[str, str], begun: str, count: int) -> str:
    """Ctrl-C, as a terminal sends it to every process, to a reproduction of ``folder`` once
    ``count`` files ``begun`` are there; what it printed to stderr."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("reproduce_folder.py")), str(folder)],
        env={**os.environ, **places, "OMP_NUM_THREADS": "1", "UEPO_WORKERS": "2"},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    where, pattern = begun.split("/")
    inside = folder if where == "notebooks" else Path(places["TMPDIR"])
    while len(list(inside.glob(pattern))) < count:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    return err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "begun"),
    [
        (["01_first"], "notebooks/began-*"),
        (["01_first", "02_second"], "notebooks/began-*"),
        (["01_first"], "temporary/uepo-notebook-*"),  # while its kernel starts
        (["01_first", "02_second"], "temporary/uepo-jupyter-*"),  # while what forks them imports
    ],
    ids=["in this process", "in workers", "before the first cell", "before the first worker"],
)
def test_an_interrupted_notebook_is_said_in_one_line_and_leaves_nothing(
    folder, short_folder, names, begun
):
    for name in ("01_first", "02_second"):
        rewrite(folder, name, HELD.replace("NAME", name))
        if name not in names:
            (folder / f"{name}.ipynb").unlink()
    (folder / "hold").touch()
    store, temporary = Store.open("smoke"), short_folder
    facts.write_text(store.notebooks / "01_first.ipynb", "of an earlier call")
    err = interrupt(
        folder, {"TMPDIR": str(temporary)}, begun, 1 if "jupyter" in begun else len(names)
    )
    said = [line for line in err.splitlines() if line and not line.startswith("notebooks: ")]
    assert said == ["interrupted: the same command continues from the last checkpoint"]
    left = [] if "jupyter" not in begun else ["01_first.ipynb"]  # nothing has begun
    assert [path.name for path in store.notebooks.iterdir()] == left
    assert [path.name for path in temporary.iterdir() if path.name.startswith("uepo-")] == []

    (folder / "hold").unlink()
    assert run(folder).executed == tuple(names)


def test_a_broken_promise_is_an_error(folder):
    promise = '("02_second", outputs=["figures/a.png"])'
    rewrite(folder, "02_second", SECOND.replace('("02_second")', promise))
    with pytest.raises(reproduce.NotebookFailed, match=r"did not write figures/a.png"):
        run(folder, notebooks=["02"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"notebooks": ["07"]}, "unknown notebook '07'"),
        ({"parameters": {"m": 1}, "notebooks": ["01"]}, "unknown parameter of 01_first 'm'"),
        ({"parameters": {"n": 1}, "notebooks": ["02"]}, "no cell tagged 'parameters'"),
    ],
)
def test_bad_input_ends_before_anything_runs(folder, options, message):
    with pytest.raises(UsageError, match=message):
        run(folder, **options)
    assert not Path(os.environ["UEPO_RESULTS"]).exists()


def test_unknown_profile(folder):
    with pytest.raises(UsageError, match="unknown profile 'smok'; did you mean 'smoke'"):
        reproduce.reproduce("smok", folder=folder)


def test_a_pair_that_differs_is_refused(folder):
    (folder / "01_first.py").write_text(FIRST.replace("n = 3", "n = 5"))
    with pytest.raises(UsageError, match=r"01_first.ipynb cell 0: source differs .*pairs sync"):
        run(folder)


def test_parameters_are_read_as_yaml():
    texts = ["a=3", "b=true", "c=null", "d=[1, 2.5]", "e=x=y"]
    expected = {"a": 3, "b": True, "c": None, "d": [1, 2.5], "e": "x=y"}
    assert execution.parse_parameters(texts) == expected
    with pytest.raises(UsageError, match="name=value"):
        execution.parse_parameters(["a"])


def test_start_refuses_what_it_cannot_keep(folder, capsys):
    here = notebook.start("01_first", "smoke", ["figures/a.png"])
    assert "01_first: profile smoke, results in " in capsys.readouterr().out
    with pytest.raises(UsageError, match="'01_first'"):
        notebook.start("02_second", "smoke")
    with pytest.raises(UsageError, match=r"figures/<name>.png"):
        notebook.start("01_first", "smoke", ["a.png"])
    figure, axes = plt.subplots()
    with pytest.raises(UsageError, match="axes 0"):
        here.figure(figure, "a", task="toy")
    axes.plot([1, 2])
    with pytest.raises(UsageError, match=r"did you mean 'figures/a.png'"):
        here.figure(figure, "b", task="toy")
    here.figure(figure, "a", task="toy")
    first = (here.store.figures / "a.pdf").read_bytes()
    here.figure(figure, "a", task="toy")
    assert (here.store.figures / "a.pdf").read_bytes() == first
    plt.close(figure)


def test_a_caption_names_no_profile_where_nothing_was_measured():
    printed = notebook.EXACT[-1]
    assert notebook._about(printed, "smoke", [], measured=False) == printed
    assert notebook._about("formula", "smoke", [], measured=True).endswith("no seeds")
    assert notebook._about("22 datasets", "smoke", [], False) == (
        "22 datasets · profile smoke · no seeds"  # their size is the profile's
    )
    assert notebook._about("pen", "smoke", [3], True) == "pen · profile smoke · 1 seed"


def test_what_measures_times_has_the_machine_to_itself(folder, monkeypatch):
    rewrite(folder, "01_first", FIRST.replace('"parameters"', '"parameters", "alone"'))
    batches = []
    monkeypatch.setenv("UEPO_WORKERS", "3")
    monkeypatch.setattr(
        reproduce.sweep, "run_all",
        lambda jobs, workers, **_: batches.append(([job[1][1].stem for job in jobs], workers)),
    )  # fmt: skip
    run(folder)
    assert batches == [(["02_second"], 3), (["01_first"], 1)]


def test_the_long_ones_begin(folder, monkeypatch):
    rewrite(folder, "02_second", f'# %% tags=["parameters", "long"]\nprofile = None\n\n{SECOND}')
    order = []
    monkeypatch.setattr(
        reproduce.sweep, "run_all",
        lambda jobs, workers, **_: order.extend(job[1][1].stem for job in jobs),
    )  # fmt: skip
    run(folder)
    assert order == ["02_second", "01_first"]
