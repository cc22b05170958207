from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from run_recipes import SPEC, train

from uepo_lib import facts, loads, notebook
from uepo_lib.errors import UsageError
from uepo_lib.provenance import list_runs, record_output, show, verify
from uepo_lib.recording import TrainingDiverged
from uepo_lib.runs import DatasetKey, Run, RunKey, Spec, Store, problems

DATASET = DatasetKey("uepo/hopper/medium-v0", hash="aaaa", recipe="rrrr")
RECIPES = Path(__file__).with_name("run_recipes.py")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "local" / "smoke", tmp_path / "reference")


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was loaded before a test began."""
    monkeypatch.setattr(loads, "_found", {loads.HERE: [], loads.COMMITTED: []})


def said(capsys: pytest.CaptureFixture[str]) -> str:
    loads.say()
    return capsys.readouterr().out


def never(run: Run) -> None:
    raise AssertionError(f"{run.id} was computed")


def start_process(store: Store, seconds: float, every: float = 60.0) -> subprocess.Popen[str]:
    command = [sys.executable, str(RECIPES), str(store.root), str(seconds), str(every)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(RECIPES.parents[1])},
    )


# -- identity


def test_golden_ids() -> None:
    """These strings name committed runs: a change of the hash would orphan all of them."""
    parent = RunKey("diffusion-000000000000", "diffusion-111111111111")
    spec = Spec("critic", {"seed": 1, "lr": 3e-4}, DATASET, (parent,), {"values": 1})
    assert spec.id == "critic-010a5dfba218"
    assert spec.reading_key == "critic-a0d720a9e88d"


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_order_and_number_type_do_not_matter(config: dict[str, object]) -> None:
    backwards = dict(reversed(config.items()))
    assert Spec("a", config).id == Spec("a", backwards).id
    assert Spec("a", {"n": 1.0, "x": (1, 2)}).id == Spec("a", {"x": [1.0, 2.0], "n": 1}).id


def test_everything_that_determines_numbers_changes_the_id() -> None:
    parent = RunKey("a-1", "a-2")
    base = Spec("critic", {"seed": 1}, DATASET, (parent,), {"values": 1})
    others = [
        dataclasses.replace(base, kind="value"),
        dataclasses.replace(base, config={"seed": 2}),
        dataclasses.replace(base, dataset=None),
        dataclasses.replace(base, dataset=dataclasses.replace(DATASET, hash="bbbb")),
        dataclasses.replace(base, parents=(RunKey("b-1", "a-2"),)),
        dataclasses.replace(base, revisions={"values": 2}),
    ]
    assert len({spec.id for spec in [base, *others]}) == len(others) + 1


def test_reading_key_ignores_the_content_hash_all_the_way_up() -> None:
    def chain(dataset: DatasetKey) -> Spec:
        diffusion = Spec("diffusion", {"seed": 1}, dataset)
        return Spec("uepo", {"seed": 1}, dataset, (diffusion.key,))

    here, there = chain(DATASET), chain(dataclasses.replace(DATASET, hash="bbbb"))
    assert here.id != there.id
    assert here.reading_key == there.reading_key
    other = chain(dataclasses.replace(DATASET, recipe="ssss"))
    assert here.reading_key != other.reading_key


def test_spec_survives_json() -> None:
    spec = Spec("critic", {"hidden": (256, 256)}, DATASET, (RunKey("a-1", "a-2"),), {"values": 1})
    again = Spec.from_json(json.loads(json.dumps(dataclasses.asdict(spec))))
    assert again == spec
    assert again.id == spec.id


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, torch.zeros(1)])
def test_config_refuses_what_is_not_plain(value: object) -> None:
    with pytest.raises(UsageError, match=r"config\.x="):
        Spec("a", {"x": value})


def test_kind_is_a_plain_name() -> None:
    with pytest.raises(UsageError, match=r"kind='\.\./a'"):
        Spec("../a", {})


# -- a run's life


def test_computed_once_then_loaded(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = store.get_or_train(SPEC, train, expect="about 1 s")
    assert capsys.readouterr().out == f"training {SPEC.id}: about 1 s\n"
    again = store.get_or_train(SPEC, never)
    assert said(capsys) == f"loaded {SPEC.id}\n"
    assert not said(capsys)  # once
    assert again.folder == run.folder == store.runs / SPEC.id
    assert {path.name for path in run.folder.iterdir()} == {
        *("config.json", "metrics.csv", "parity.csv", "note.json", "model.safetensors", "run.json")
    }
    assert [entry["id"] for entry in store.computed()] == [SPEC.id]
    assert list(again.metrics.columns) == ["step", "loss"]
    assert again.metrics["step"].tolist() == list(range(1, 61))
    assert again.json("note") == {"steps": 60}
    assert again.tensors()["0.weight"].shape == (16, 3)


def test_record(store: Store) -> None:
    parent = Spec("a", {}, DATASET)
    spec = Spec("toy", {"seed": 3, "lr": 0.1}, DATASET, (parent.key,), {"toy": 2})
    record = store.get_or_train(spec, train, device="cpu").record
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["dataset"] == dataclasses.asdict(DATASET)
    assert record["parents"] == [dataclasses.asdict(parent.key)]
    assert record["revisions"] == {"toy": 2}
    assert record["environment"] == {"training": {"steps": 120, "episodes": 60}}
    assert record["versions"]["torch"] == torch.__version__
    assert record["wall_s"] > 0
    assert {"commit", "dirty", "command", "python", "cpu", "device", "created"} <= set(record)
    assert str(Path.home()) not in record["command"]


def test_finished_run_cannot_be_changed(store: Store) -> None:
    run = store.get_or_train(SPEC, train)
    for change in (
        lambda: run.save_json("note", {}),
        lambda: run.save_tensors({}),
        lambda: run.log(1, {"loss": 1.0}),
        lambda: run.account("training", 1),
        lambda: run.save_checkpoint(1, {}),
    ):
        with pytest.raises(RuntimeError, match="finished"):
            change()
    assert not problems(run.folder)


def test_failure_leaves_nothing_finished(store: Store) -> None:
    def broken(run: Run) -> None:
        run.log(1, {"loss": 1.0})
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.get_or_train(SPEC, broken)
    assert not store.finished()
    assert not store.computed()
    # without a checkpoint the next attempt starts with an empty folder
    run = store.get_or_train(SPEC, train)
    assert run.metrics["step"].tolist() == list(range(1, 61))


def test_nan_ends_training(store: Store) -> None:
    with pytest.raises(TrainingDiverged, match=rf"{SPEC.id}: loss is nan at step 7"):
        store.get_or_train(SPEC, lambda run: run.log(7, {"loss": float("nan")}))
    assert not store.finished()


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.csv", "note.json", "config.json"])
def test_artefact_that_changed_is_computed_again(
    store: Store, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store.get_or_train(SPEC, train)
    good = (run.folder / name).read_bytes()
    (run.folder / name).write_bytes(good + b" ")
    assert problems(run.folder) == [f"{name} does not match its hash"]
    again = store.get_or_train(SPEC, train)
    assert f"{name} does not match its hash; computing it again" in capsys.readouterr().out
    assert (again.folder / name).read_bytes() == good
    assert len(store.computed()) == 2


def damage(store: Store) -> Run:
    run = store.get_or_train(SPEC, train)
    (run.folder / "note.json").write_text("{}")
    return run


@pytest.mark.parametrize("reading", ["sha256", "read_json"])
def test_a_run_that_is_replaced_while_it_is_read_is_not_finished(
    store: Store, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.get_or_train(SPEC, train).folder
    aside = folder.with_name(".aside")
    calls = {"sha256": 1, "read_json": 3}  # the third JSON file read is that of a run found whole
    read = getattr(facts, reading)
    seen: list[Path] = []

    def while_replaced(path: Path) -> Any:
        seen.append(path)
        if len(seen) == calls[reading]:
            folder.rename(aside)
        return read(path)

    def not_allowed(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(facts, reading, not_allowed)
    with pytest.raises(PermissionError):  # which says nothing of being finished
        store.get_or_train(SPEC, never)
    monkeypatch.setattr(facts, reading, while_replaced)
    assert store.get_or_train(SPEC, train).folder == folder
    assert len(store.computed()) == 2
    assert not problems(folder)


def test_the_new_run_is_in_place_before_the_old_one_is_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, delete = damage(store).folder, shutil.rmtree
    left = folder.with_name(f".{SPEC.id}.old")
    (left / "from a kill").mkdir(parents=True)
    while_deleting: list[list[str]] = []

    def deleting(path: Path) -> None:
        while_deleting.append(problems(folder))
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", deleting)
    store.get_or_train(SPEC, train)
    assert while_deleting == [["note.json does not match its hash"], []]
    assert not left.exists()
    assert [run.id for run in store.finished()] == [SPEC.id]


def test_missing_and_extra_files_are_problems(store: Store) -> None:
    run = store.get_or_train(SPEC, train)
    (run.folder / "model.safetensors").rename(run.folder / "other.safetensors")
    assert problems(run.folder) == [
        "model.safetensors is missing",
        "other.safetensors is not in its record",
    ]
    (run.folder / "run.json").write_text("{")
    assert problems(run.folder)[0].startswith("run.json is not JSON")
    (run.folder / "run.json").unlink()
    assert problems(run.folder) == ["run.json is missing"]


def test_renamed_run_is_another_run(store: Store) -> None:
    run = store.get_or_train(SPEC, train)
    folder = run.folder.rename(store.runs / "toy-000000000000")
    assert problems(folder) == ["config.json has another id"]


def test_columns_are_fixed_by_the_first_row(store: Store) -> None:
    def change_columns(run: Run) -> None:
        run.log(1, {"loss": 1.0})
        run.log(2, {"return": 1.0})

    with pytest.raises(ValueError, match=r"metrics\.csv: columns"):
        store.get_or_train(SPEC, change_columns)


def test_numbers_keep_full_precision(store: Store) -> None:
    values = [0.1 + 0.2, 1e-300, 2**53 + 0.0, torch.tensor(0.1).item()]

    def produce(run: Run) -> None:
        for value in values:
            run.table("values").append({"value": torch.tensor(value, dtype=torch.float64)})

    run = store.get_or_train(SPEC, produce)
    assert run.table("values").frame()["value"].tolist() == values
    assert run.table("nothing").frame().empty


def test_shared_tensors_are_saved(store: Store) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    run = store.get_or_train(SPEC, lambda run: run.save_tensors({"a": weight, "b": weight.T}))
    assert torch.equal(run.tensors()["b"], weight.T)


@pytest.mark.parametrize("name", ["run.json", "config", "../x", ".x"])
def test_names_that_a_run_uses_are_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="name="):
        store.get_or_train(SPEC, lambda run: run.save_json(name, {}))


def test_checkpoint_that_cannot_be_read_fails_when_it_is_written(store: Store) -> None:
    with pytest.raises(Exception, match=r"[Ww]eights"):
        store.get_or_train(SPEC, lambda run: run.save_checkpoint(1, {"x": Path("x")}))


def test_second_training_loop_is_refused(store: Store) -> None:
    def twice(run: Run) -> None:
        train(run)
        train(run)

    with pytest.raises(RuntimeError, match="one training loop a run"):
        store.get_or_train(SPEC, twice)


# -- interrupted


class Interrupted(Exception):
    pass


def interrupted_at(checkpoint: int, last: int) -> object:
    """A recipe that dies at step ``last``, its checkpoint being older."""

    def produce(run: Run) -> None:
        start, _ = run.load_checkpoint() or (0, {})
        for step in range(start + 1, 10):
            run.log(step, {"loss": step / 2})
            run.account("training", steps=1)
            if step == checkpoint:
                run.save_json("snapshot", {"step": step})
                run.save_checkpoint(step, {})
            if step == last and start == 0:
                run.table("late").append({"step": step})
                run.save_json("late", {})
                raise Interrupted

    return produce


def test_resume_drops_what_the_checkpoint_did_not_see(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = interrupted_at(checkpoint=4, last=7)
    with pytest.raises(Interrupted):
        store.get_or_train(SPEC, recipe)  # type: ignore[arg-type]
    assert (store.partial(SPEC.id) / "metrics.csv").read_text().count("\n") == 8
    run = store.get_or_train(SPEC, recipe)  # type: ignore[arg-type]
    assert f"training {SPEC.id} from step 4" in capsys.readouterr().out
    assert run.metrics["step"].tolist() == list(range(1, 10))
    assert run.record["environment"]["training"]["steps"] == 9
    assert run.record["resumes"] == 1
    assert run.json("snapshot") == {"step": 4}
    assert not (run.folder / "late.csv").exists()
    assert not (run.folder / "late.json").exists()
    assert not (run.folder / "checkpoint.pt").exists()


@pytest.mark.parametrize("loss", ["rows", "table", "artefact"])
def test_what_lost_what_its_checkpoint_counts_on_starts_over(
    store: Store, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe: Any = interrupted_at(checkpoint=4, last=7)
    with pytest.raises(Interrupted):
        store.get_or_train(SPEC, recipe)
    path = store.partial(SPEC.id) / ("snapshot.json" if loss == "artefact" else "metrics.csv")
    if loss == "rows":
        os.truncate(path, 15)  # as after a power cut: the header, and a row of four
    else:
        path.unlink()
    with pytest.raises(Interrupted):  # as it begins at the first step
        store.get_or_train(SPEC, recipe)
    assert f"{SPEC.id}: {path.name} cut short; starting over" in capsys.readouterr().out


def test_a_checkpoint_that_lost_its_end_is_started_over(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe: Any = interrupted_at(checkpoint=4, last=7)
    with pytest.raises(Interrupted):
        store.get_or_train(SPEC, recipe)
    path = store.partial(SPEC.id) / "checkpoint.pt"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(Interrupted):  # as it begins at the first step
        store.get_or_train(SPEC, recipe)
    assert f"{SPEC.id}: checkpoint.pt is not readable; starting over" in capsys.readouterr().out
    run = store.get_or_train(SPEC, recipe)
    assert run.metrics["step"].tolist() == list(range(1, 10))
    assert run.record["resumes"] == 1


def test_rows_are_on_the_disk_before_the_checkpoint_that_counts_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(facts, "flush", lambda path: flushed.append(path.name))
    recipe: Any = interrupted_at(checkpoint=4, last=7)
    with pytest.raises(Interrupted):
        store.get_or_train(SPEC, recipe)
    checkpoint = next(i for i, name in enumerate(flushed) if "checkpoint.pt" in name)
    assert "metrics.csv" in flushed[:checkpoint]


def test_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    unbroken, killed = Store(tmp_path / "unbroken"), Store(tmp_path / "killed")
    steady = start_process(unbroken, seconds=0)
    # checkpoints every 0.5 s, steps every 0.15 s: the kill finds rows beyond the checkpoint
    process = start_process(killed, seconds=0.15, every=0.5)
    metrics = killed.partial(SPEC.id) / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 12):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not killed.finished()
    assert [row["status"] for row in list_runs(killed)] == ["interrupted"]

    resumed = start_process(killed, seconds=0)
    assert f"training {SPEC.id} from step" in resumed.communicate()[0]
    steady.communicate()
    (one,), (two,) = unbroken.finished(), killed.finished()
    assert two.record["resumes"] == 1
    assert one.record["artefacts"] == two.record["artefacts"]
    assert one.record["environment"] == two.record["environment"]
    assert len(killed.computed()) == 1


def test_many_loaded_runs_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        for _ in range(2):  # asked for twice, found once
            loads.note(loads.HERE, f"a-{i}")
    assert said(capsys) == "loaded 5 runs\n"
    for i in range(loads.NAMED):
        loads.note(loads.COMMITTED, f"a-{i}")
    assert said(capsys) == "read from the committed set: a-0, a-1, a-2\n"
    loads.note(loads.HERE, "before")
    with loads.told(sys.stderr):  # a command speaks of itself
        loads.note(loads.HERE, "a")
    assert capsys.readouterr() == ("", "loaded a\n")


def test_a_notebook_says_it_after_each_cell(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = InteractiveShell()
    monkeypatch.setattr(notebook, "get_ipython", lambda: shell)
    monkeypatch.setattr(notebook, "set_matplotlib_formats", lambda _: None)
    monkeypatch.setenv("UEPO_RESULTS", str(store.root))
    monkeypatch.delenv("UEPO_NOTEBOOK", raising=False)
    for _ in range(2):  # a setup cell that is run again does not say it twice
        notebook.start("00_any", "smoke")
    store.get_or_train(SPEC, train)
    capsys.readouterr()
    shell.user_ns.update(find=lambda: [store.get_or_train(SPEC, never) for _ in range(2)])
    shell.run_cell("_ = find(), print('a cell')")
    shell.run_cell("one = 1")
    assert capsys.readouterr().out.splitlines() == ["a cell", f"loaded {SPEC.id}"]
    assert pd.get_option("display.max_colwidth") is None


def test_second_process_waits_and_loads(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    process = start_process(store, seconds=0.06)
    deadline = time.monotonic() + 120
    while not store.partial(SPEC.id).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [row["status"] for row in list_runs(store)] in (["running"], [])
    store.get_or_train(SPEC, never)
    assert said(capsys).splitlines() == [
        f"waiting for {SPEC.id}: another process computes it",
        f"loaded {SPEC.id}",
    ]
    process.communicate()
    assert len(store.computed()) == 1


# -- the committed set


def test_committed_run_is_read_by_its_reading_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UEPO_PRETRAINED", raising=False)
    there = Spec("toy", SPEC.config, DATASET)
    here = Spec("toy", SPEC.config, dataclasses.replace(DATASET, hash="bbbb"))
    reference = tmp_path / "reference"
    committed = Store(reference).get_or_train(there, train)
    store = Store(tmp_path / "local", reference)

    run = store.get_or_train(here, never)
    assert f"read from the committed set: {there.id}" in said(capsys)
    assert run.id == there.id
    assert run.key.reading_key == here.reading_key
    assert store.find(there.id).folder == committed.folder
    assert not store.finished()

    monkeypatch.setenv("UEPO_PRETRAINED", "0")
    assert store.get_or_train(here, train).id == here.id
    monkeypatch.delenv("UEPO_PRETRAINED")
    assert store.get_or_train(here, never).id == here.id

    (committed.folder / "note.json").write_text("{}")
    with pytest.raises(
        UsageError, match=r"note\.json does not match its hash; .*UEPO_PRETRAINED=0"
    ):
        Store(tmp_path / "fresh", reference).get_or_train(here, never)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store without runs, beside a committed one of SPEC."""
    monkeypatch.delenv("UEPO_PRETRAINED", raising=False)
    reference = tmp_path / "reference"
    Store(reference).get_or_train(SPEC, train)
    return Store(tmp_path / "local", reference)


CHILD = Spec("child", {"seed": 3, "lr": 0.05}, parents=(SPEC.key,))


def child_of(store: Store, produce: Callable[[Run], None] = train) -> Run:
    return store.get_or_train(CHILD, produce, needs=lambda: [store.get_or_train(SPEC, train)])


def test_what_was_computed_from_a_committed_run_says_so_and_is_computed_again(
    reader: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grandchild = Spec("grandchild", {"seed": 3, "lr": 0.05}, parents=(CHILD.key,))

    def last(produce: Callable[[Run], None]) -> Run:
        return reader.get_or_train(grandchild, produce, needs=lambda: [child_of(reader, produce)])

    run = last(train)
    assert run.record["read"] == child_of(reader, never).record["read"] == [SPEC.id]
    assert last(never).folder == run.folder  # where it may be read, it is finished
    assert [run.id for run in reader.finished()] == [CHILD.id, grandchild.id]
    assert verify(reader) == []  # each is what its record says

    monkeypatch.setenv("UEPO_PRETRAINED", "0")
    capsys.readouterr()
    again = last(train)
    assert f"{CHILD.id}: computed from {SPEC.id}, which was read" in capsys.readouterr().out
    computed = [again.id, CHILD.id, SPEC.id]
    assert [entry["id"] for entry in reader.computed()[2:]] == computed[::-1]
    assert all("read" not in reader.find(run_id).record for run_id in computed)
    assert last(never).folder == again.folder


def test_a_checkpoint_from_a_committed_run_is_not_gone_on_with(
    reader: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe: Any = interrupted_at(checkpoint=4, last=7)
    with pytest.raises(Interrupted):
        child_of(reader, recipe)
    resumed = Run.start(reader.partial(CHILD.id), CHILD, [SPEC.id])
    assert (resumed.resumed_at, resumed.progress()["read"]) == (4, [SPEC.id])

    monkeypatch.setenv("UEPO_PRETRAINED", "0")
    with pytest.raises(Interrupted):  # as it begins at the first step
        child_of(reader, recipe)
    run = child_of(reader, recipe)
    assert (run.record["resumes"], "read" in run.record) == (1, False)
    assert f"training {CHILD.id} from step 4" in capsys.readouterr().out


def test_results_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEPO_RESULTS", str(tmp_path))
    store = Store.open("smoke")
    assert store.root == tmp_path / "local" / "smoke"
    assert store.reference is not None
    assert store.reference.parts[-2:] == ("results", "reference")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="profile="):
        Store.open("../smoke")


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file" / "smoke", Path("/proc/nowhere")):
        with pytest.raises(UsageError, match=r"cannot be written .*; set UEPO_RESULTS") as error:
            Store(root).get_or_train(SPEC, never)
        assert str(error.value).startswith(f"{root}: ")


# -- provenance


@pytest.fixture
def figure(store: Store) -> Path:
    run = store.get_or_train(SPEC, train)
    store.figures.mkdir(parents=True)
    paths = [store.figures / "curve_0.5.png", store.figures / "curve_0.5.pdf"]
    for path in paths:
        path.write_bytes(path.suffix.encode())
    record_output(paths, [run, run], profile="smoke", seeds=[3], task="toy")
    return paths[0]


def found(store: Store) -> list[str]:
    return [str(problem) for problem in verify(store)]


def test_provenance(store: Store, figure: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(store) == []
    content = facts.read_json(figure.with_name("curve_0.5.provenance.json"))
    assert content["runs"] == [SPEC.id]
    assert (content["profile"], content["seeds"], content["task"]) == ("smoke", [3], "toy")
    assert set(content["outputs"]) == {"curve_0.5.png", "curve_0.5.pdf"}
    monkeypatch.setenv("UEPO_NOTEBOOK", "03_subpolicies")
    path = record_output(figure, [], profile="smoke", seeds=[], task="toy")
    assert facts.read_json(path)["notebook"] == "03_subpolicies"
    assert found(store) == [
        "figures/curve_0.5.provenance.json: curve_0.5.pdf is not in it",
    ]


def test_verify_sees_a_changed_figure(store: Store, figure: Path) -> None:
    figure.write_bytes(b"another")
    assert found(store) == [
        "figures/curve_0.5.provenance.json: curve_0.5.png is not the file that was recorded"
    ]
    figure.unlink()
    assert found(store) == ["figures/curve_0.5.provenance.json: curve_0.5.png is missing"]


def test_verify_sees_a_figure_without_provenance(store: Store, figure: Path) -> None:
    store.tables.mkdir()
    (store.tables / "scores.csv").write_text("a\n")
    assert found(store) == ["tables/scores.csv: has no provenance"]


def test_verify_sees_incomplete_provenance(store: Store, figure: Path) -> None:
    path = figure.with_name("curve_0.5.provenance.json")
    content = facts.read_json(path)
    del content["seeds"]
    facts.write_json(path, content)
    assert found(store) == ["figures/curve_0.5.provenance.json: lacks seeds"]


def test_verify_sees_a_missing_run(store: Store, figure: Path) -> None:
    (store.runs / SPEC.id).rename(store.runs / f".{SPEC.id}")
    assert found(store) == [
        f"figures/curve_0.5.provenance.json: run {SPEC.id} does not exist",
    ]


def test_verify_sees_a_changed_run(store: Store, figure: Path) -> None:
    (store.runs / SPEC.id / "metrics.csv").write_text("step\n")
    assert found(store) == [f"{SPEC.id}: metrics.csv does not match its hash"]


def test_verify_sees_a_figure_older_than_its_run(store: Store, figure: Path) -> None:
    (store.runs / SPEC.id / "metrics.csv").write_text("step\n")
    time.sleep(0.002)  # times are kept in milliseconds
    store.get_or_train(SPEC, train)
    assert found(store) == [f"figures/curve_0.5.provenance.json: is older than run {SPEC.id}"]


def test_outputs_of_one_provenance_share_a_stem(store: Store) -> None:
    with pytest.raises(UsageError, match="paths="):
        record_output([Path("a.png"), Path("b.png")], [], profile="smoke", seeds=[], task="toy")


def test_list_and_show(store: Store) -> None:
    store.get_or_train(SPEC, train)
    (row,) = list_runs(store)
    assert row["id"] == SPEC.id
    assert row["status"] == "finished"
    assert json.loads(json.dumps(show(store, SPEC.id)))["config"] == {"seed": 3, "lr": 0.05}
    with pytest.raises(UsageError, match=f"unknown run 'toy-1'.*{SPEC.id}"):
        show(store, "toy-1")
