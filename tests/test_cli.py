"""The command line: help, JSON, and bad input as one line that says what would be valid."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from tiny_study import TASK, settle, tiny

from uepo_lib import (
    behaviors,
    cli,
    cli_runs,
    configs,
    datasets,
    facts,
    loading,
    methods,
    plotting,
    preparation,
    reproduce,
    tasks,
)
from uepo_lib.errors import LISTED, NEAREST, UsageError, unknown
from uepo_lib.preparation import EXPERIMENTS
from uepo_lib.provenance import record_output
from uepo_lib.runs import Spec, Store
from uepo_lib.stages import COMPONENTS, load_data

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One collected dataset, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder)
        load_data(TASK, "tiny", progress=False)
    return folder


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Empty folders for results and data."""
    settle(monkeypatch, tmp_path / "results", tmp_path / "data")
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)  # a command sets it to 1


@pytest.fixture
def uepo(capsys: pytest.CaptureFixture[str]) -> Command:
    """``uepo("tasks", "--json")`` -> exit code, stdout, stderr."""

    def command(*arguments: str) -> Outcome:
        capsys.readouterr()
        try:
            code = cli.main(arguments)
        except SystemExit as leaving:  # argparse, after --help
            code = int(leaving.code or 0)
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return command


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def refused(outcome: Outcome, *words: str) -> None:
    """One line on stderr that holds ``words``, nothing on stdout, exit code 2."""
    code, out, err = outcome
    assert code == 2
    assert out == ""
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
    for word in words:
        assert word in err


# -- help


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and sub-command there is."""
    found = [path]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                found += commands(child, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(cli.parser()), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], uepo: Command) -> None:
    code, out, err = uepo(*path, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["usage: uepo", *path]))
    description = out.split("\n\n")[1]
    assert len(description) > 10


def test_every_experiment_is_listed_where_one_is_asked_for(uepo: Command) -> None:
    _, out, _ = uepo("experiment", "--help")
    listed = " ".join(out.split())
    assert all(f"{name} ({one.notebook})" in listed for name, one in EXPERIMENTS.items())
    told = (Path(__file__).parents[1] / "README.md").read_text()
    assert all(f"`{name}`" in told for name in EXPERIMENTS)


def test_every_method_is_listed_where_one_is_asked_for(
    uepo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(methods.METHODS, "another", None)  # type: ignore[arg-type]
    _, out, _ = uepo("run", "--help")
    listed = out.split("methods: ")[1].replace("\n", " ")
    assert listed.strip() == "uepo, uepo-ppo, uni-o4, bppo, iql, bc, another"
    refused(uepo("run", "uepo2"), "unknown method 'uepo2'", "another, bc, bppo, iql")


def test_all_commands_are_there() -> None:
    names = {path[0] for path in commands(cli.parser()) if path}
    expected = "tasks data run experiment runs figures prepare reproduce publish behaviors"
    assert names == set(expected.split())


@pytest.mark.parametrize(
    "name", ["multi_seed", "10", "10_multi_seed_ablation", "05", "5", "05_augmentation"]
)
def test_an_experiment_may_be_named_by_its_notebook(
    name: str, uepo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def reproduced(profile: str, notebooks: list[str], *, prepare: Callable[[str], object]) -> str:
        asked.extend([profile, notebooks, prepare(profile)])
        return "reproduced"

    monkeypatch.setattr(reproduce, "reproduce", reproduced)
    monkeypatch.setattr(preparation, "load_all", lambda *_: None)
    monkeypatch.setattr(
        preparation, "_run_all", lambda jobs, *_: asked.append({job for _, job, _ in jobs})
    )
    expected = ({"epsilon"}, "05") if "5" in name else ({"rival", "seeds"}, "10")
    assert uepo("experiment", name, "--profile", "tiny")[:2] == (0, "reproduced\n")
    assert asked == [expected[0], "tiny", [expected[1]], None]


def test_the_version_and_the_commit(uepo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    number = project["version"]
    known: dict[str, Any] = {"commit": "0123456789abcdef", "dirty": False}
    monkeypatch.setattr(facts, "commit", lambda folder: known)
    assert uepo("--version") == (0, f"uepo {number} (commit 0123456789)\n", "")
    known["dirty"] = True
    assert uepo("--version")[1].endswith("(commit 0123456789, with uncommitted changes)\n")
    known["commit"] = None
    assert uepo("--version")[1] == f"uepo {number}\n"
    monkeypatch.setattr(facts, "repository", lambda: None)
    monkeypatch.setattr(facts.metadata, "version", lambda name: f"of {name}")
    assert uepo("--version")[1] == "uepo of uepo\n"


@pytest.mark.parametrize(
    "line", ["-m uepo_lib tasks", "-u -m uepo_lib tasks", "-m uepo_lib --help"]
)
def test_a_reader_that_leaves_early_is_no_error(line: str, folders: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # as after `| head -1`, but surely before anything is written
    done = subprocess.run(
        [sys.executable, *line.split()],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_: argparse.Namespace) -> int:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr(cli_runs, "_runs_list", broken)
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with pytest.raises(BrokenPipeError, match="a worker's"):
            cli.main(["runs", "list"])


# -- JSON


def test_tasks_before_and_after_collecting(uepo: Command) -> None:
    code, out, err = uepo("tasks", "--profile", "tiny", "--json")
    rows = {row["task"]: row for row in json.loads(out)}
    assert (code, err) == (0, "")
    assert set(rows) == set(tasks.TASKS)
    assert not any(row["present"] for row in rows.values())
    assert {row["status"] for row in rows.values()} == {"local", "remote", "imported"}
    load_data(TASK, "tiny", progress=False)
    _, out, _ = uepo("tasks", "--profile", "tiny", "--json")
    row = {row["task"]: row for row in json.loads(out)}[TASK]
    assert row["present"] and row["transitions"] == 2_000
    assert isinstance(row["mean_normalised_return"], float)


def test_data_collects_once(uepo: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data))
    arguments = ("data", "--profile", "tiny", "--task", TASK)
    code, first, _ = uepo(*arguments, "--json")
    assert code == 0
    (row,) = json.loads(first)
    assert row["dataset"] == tasks.get(TASK).dataset_id
    assert row["transitions"] == 2_000 and row["episodes"] > 0
    before = {path: path.stat().st_mtime_ns for path in files(data)}
    assert uepo(*arguments, "--json")[1] == first
    assert {path: path.stat().st_mtime_ns for path in files(data)} == before
    assert f"MINARI_DATASETS_PATH={data}" in uepo(*arguments)[1]


def test_a_mean_over_no_whole_episode_is_null(
    uepo: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data))
    monkeypatch.setattr(datasets.Dataset, "episode_returns", lambda self: np.array([]))
    for command in (("tasks",), ("data", "--task", TASK)):
        _, out, _ = uepo(*command, "--profile", "tiny", "--json")
        row = {row.get("task", TASK): row for row in json.loads(out)}[TASK]
        assert row["mean_normalised_return"] is None


def test_run_then_look_at_its_runs(
    uepo: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data))
    change = ("--set", "gaussian_ppo.learning_rate=1e-4", "--set", "clone.num_updates=2")
    code, out, _ = uepo("run", "bc", "--profile", "tiny", *change, "--json")
    assert code == 0
    looks = json.loads(out)  # what is said of runs goes elsewhere
    assert looks[0]["env_steps"] == 0 and looks[-1]["env_steps"] > 0

    listed = json.loads(uepo("runs", "list", "--profile", "tiny", "--json")[1])
    assert {row["kind"] for row in listed} == {"clone", "critic", "online"}
    online = next(row["id"] for row in listed if row["kind"] == "online")
    shown = json.loads(uepo("runs", "show", online, "--profile", "tiny", "--json")[1])
    assert shown["config"]["ppo"]["learning_rate"] == 1e-4
    assert shown["environment"]["online training"]["steps"] == looks[-1]["env_steps"]
    clone = next(row["id"] for row in listed if row["kind"] == "clone")
    shown = json.loads(uepo("runs", "show", clone, "--profile", "tiny")[1])
    assert shown["config"]["clone"]["num_updates"] == 2

    code, out, _ = uepo("runs", "verify", "--profile", "tiny", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert (
        "3 runs, 0 figures and tables: no problems"
        in uepo("runs", "verify", "--profile", "tiny")[1]
    )

    code, out, _ = uepo("run", "bc", "--profile", "tiny", *change)
    assert code == 0 and f"run {online}" in out
    assert all(note in out for note in tasks.get(TASK).robot.notes)

    store = Store.open("tiny")
    (store.runs / online / "metrics.csv").write_text("step\n")
    code, out, _ = uepo("runs", "verify", "--profile", "tiny", "--json")
    assert code == 1
    (problem,) = json.loads(out)
    assert problem["subject"] == online and "metrics.csv" in problem["message"]
    refused(uepo("runs", "show", online[:-1], "--profile", "tiny"), online[:-1], online)


def test_a_task_of_ones_own_is_imported(
    uepo: Command, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders / "walking_task.py").write_text("""
import gymnasium
from uepo_lib import own, tasks

gymnasium.register("Walking-v0", entry_point="own_environment:Walk", max_episode_steps=20)
robot = own.robot(
    "Walking-v0", random_return=0.0, expert_return=3.0, terminated=lambda s: s[..., 0] >= 3
)
task = tasks.register(tasks.Task("walking", robot, "test/walking/steady-v0", "a walk", "own"))
own.collect(task, "tiny", lambda observation, generator: [0.3], 200)
print("collected")
""")
    monkeypatch.setattr(tasks, "TASKS", {**tasks.TASKS})
    monkeypatch.syspath_prepend(folders)
    about = ("run", "bc", "--task", "walking", "--profile", "tiny", "--json")
    refused(uepo(*about), "unknown task 'walking'")
    code, out, err = uepo(*about, "--import", "walking_task")
    assert (code, err.splitlines()[0]) == (0, "collected")  # not a part of the JSON
    assert json.loads(out)[-1]["env_steps"] > 0
    del gymnasium.registry["Walking-v0"]


def committed_runs(home: Path, profile: str) -> dict[str, Any]:
    """A checkout with one run as it is published: a record without weights. Its id and seed."""
    store = Store(home / "made")
    made = store.get_or_train(Spec("toy", {"seed": 7}), lambda run: run.save_json("n.json", 1))
    folder = home / "results" / "reference" / profile / "runs" / made.id
    folder.mkdir(parents=True)
    for name in ("config.json", "run.json"):
        (made.folder / name).rename(folder / name)
    return {"id": made.id, "seed": 7}


def test_committed_runs_are_listed_and_shown(
    uepo: Command, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "repository", lambda: folders)
    there = committed_runs(folders, "tiny")
    here = Store.open("tiny").get_or_train(Spec("toy", {"seed": 8}), lambda run: None)

    def listed(*options: str) -> list[tuple[str, int]]:
        rows = json.loads(uepo("runs", "list", "--profile", "tiny", "--json", *options)[1])
        return [(row["id"], row["seed"]) for row in rows]

    assert listed("--reference") == [(there["id"], 7)]
    assert listed() == [(here.id, 8)]
    for run_id, found, seed in ((there["id"], "committed", 7), (here.id, "local", 8)):
        shown = json.loads(uepo("runs", "show", run_id, "--profile", "tiny")[1])
        assert (shown["found"], shown["config"]["seed"]) == (found, seed)
        assert Path(shown["folder"]).name == run_id
    refused(uepo("runs", "show", there["id"][:-1], "--profile", "tiny"), "mean", there["id"])
    # it has no weights: nothing may be computed from it
    with pytest.raises(UsageError, match="unknown run"):
        Store.open("tiny").find(there["id"])


def test_where_there_are_no_runs_the_next_place_to_look_is_said(uepo: Command) -> None:
    assert "`uepo runs list --reference`" in uepo("runs", "list", "--profile", "tiny")[1]
    told = uepo("runs", "list", "--profile", "tiny", "--reference")[1]
    assert told == "no runs of profile tiny are committed; --profile laptop has some\n"
    rows = json.loads(uepo("runs", "list", "--profile", "laptop", "--reference", "--json")[1])
    assert len(rows) > 100 and {row["status"] for row in rows} == {"finished"}


def test_an_empty_store_is_empty(uepo: Command, folders: Path) -> None:
    assert json.loads(uepo("runs", "list", "--profile", "tiny", "--json")[1]) == []
    assert uepo("runs", "verify", "--profile", "tiny")[0] == 0
    code, out, _ = uepo("figures", "--profile", "tiny")
    assert code == 0 and out.startswith("0 figures")
    assert files(folders) == []


# -- bad input


BAD: list[tuple[str, tuple[str, ...]]] = [
    ("run uepo --task hoper-medium", ("hoper-medium", "did you mean 'hopper-medium'")),
    ("data --task walker", ("unknown task 'walker'", "walker2d-medium", "`uepo tasks` lists all")),
    ("tasks --profile smok", ("unknown profile 'smok'", "did you mean 'smoke'", "laptop")),
    ("run uepa", ("unknown method 'uepa'", "did you mean 'uepo'", "bc, bppo, iql")),
    ("experiment epsilom", ("unknown experiment 'epsilom'", "did you mean 'epsilon'", "latency")),
    ("run uepo --set diffusion.leraning=1", ("'leraning'", "lr", "num_updates")),
    ("run uepo --set difusion.lr=1", ("'difusion'", "did you mean 'diffusion'", "critic")),
    ("run uepo --set diffusion.lr", ("diffusion.lr", "component.parameter=value")),
    ("run uepo --set diffusion.lr=", ("diffusion.lr=", "a value")),
    ("run uepo --set diffusion.lr=[", ("diffusion.lr=[", "YAML")),
    ("run uepo --set diffusion.lr=fast", ("lr", "'fast'", "a finite number")),
    ("run uepo --set diffusion.lr=.nan", ("lr", "nan", "a finite number")),
    ("run uepo --set diffusion.lr=true", ("lr", "True", "a finite number")),
    ("run uepo --set clone.num_updates=1.5", ("num_updates", "1.5", "a whole number")),
    ("run uepo --set clone.num_updates=0", ("num_updates", "0", "positive")),
    ("run uepo --set diffusion.schedule=cosin", ("'cosin'", "cosine, linear")),
    ("run uepo --set critic.hidden_q=32", ("hidden_q", "32", "a list")),
    ("run uepo --set amq.horizon=30", ("amq.horizon=30", "a multiple of T_a=4")),
    ("run uepo --set amq.discount=7", ("discount=7", "in [0, 1]")),
    ("run uepo --set chain_ppo.num_epochs=0", ("num_epochs=0", "positive")),
    ("run uepo --set gaussian.hidden=[-3]", ("hidden=(-3,)", "positive layer widths")),
    ("run uepo --set chain_ppo.anneal=often", ("anneal", "'often'", "true or false")),
    ("run uepo --set gaussian.state_dim=5", ("gaussian.state_dim", "follows from the task")),
    ("run uepo --set gaussian.obs_horizon=2", ("gaussian.obs_horizon", "cannot be changed")),
    ("run bppo --set ensemble.num_members=6", ("ensemble.num_members=6", "must be 1")),
    ("run uepo --import ./my_task.py", ("--import", "'./my_task.py'", "a module's name")),
    ("run uepo --import no_task", ("--import no_task", "No module named 'no_task'")),
    ("run uepo --seed one", ("--seed", "'one'")),
    ("run uepo --seed -1", ("seed", "-1", "0 or a positive integer")),
    ("run uepo --seed 99", ("seed=99", "another", "1000000")),
    ("run uepo --seed", ("--seed", "expected one argument")),
    ("run", ("method",)),
    ("run uepo --sead 1", ("--sead",)),
    ("runs", ("ACTION",)),
    ("runs show", ("id",)),
    ("runs show online-000000000000", ("unknown run 'online-000000000000'",)),
    ("reprodoce", ("unknown uepo command 'reprodoce'; did you mean 'reproduce'?", "data, exper")),
    (
        "runs lisst",
        ("unknown uepo runs command 'lisst'; did you mean 'list'? valid: list, s",),
    ),
    ("data import", ("unknown uepo data command 'import'", "import-d4rl")),
    ("experiment 07", ("unknown experiment '07'", "05, 10", "epsilon, ")),
    ("experiment 10_multi", ("unknown experiment '10_multi'", "multi_seed")),
    ("experiment _10", ("unknown experiment '_10'",)),
    ("", ("COMMAND",)),
]


def test_of_many_valid_names_the_nearest_are_said() -> None:
    names = [f"name-{i:03}" for i in range(LISTED + 1)]
    assert str(unknown("thing", "nam-007", names[:-1])).endswith(", ".join(names[:-1]))
    said = str(unknown("thing", "nam-007", names, "uepo things"))
    assert said.startswith("unknown thing 'nam-007'; did you mean 'name-007'? valid: name-007, ")
    assert said.endswith(f" and {LISTED + 1 - NEAREST} more (`uepo things` lists all)")
    assert said.count("name-") == NEAREST + 1
    assert str(unknown("thing", "?", names)).endswith(f" and {LISTED + 1 - NEAREST} more")


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line or "nothing" for line, _ in BAD])
def test_bad_input_is_one_line(
    line: str, words: tuple[str, ...], uepo: Command, folders: Path
) -> None:
    arguments = line.split()
    if arguments[:1] in (["run"], ["runs"]) and len(arguments) > 1:
        arguments += ["--profile", "tiny"] if not line.endswith("--seed") else []
    refused(uepo(*arguments), *words)
    assert files(folders) == []


def test_the_profile_may_come_from_the_environment(
    uepo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEPO_PROFILE", "huge")
    refused(uepo("tasks"), "unknown profile 'huge'", "laptop")


def test_a_process_says_it_in_one_line_too(folders: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uepo_lib", "run", "uepo", "--task", "hoper-medium"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    refused((done.returncode, done.stdout, done.stderr), "hoper-medium", "hopper-medium")
    assert files(folders) == []


def test_every_parameter_of_every_component_is_typed() -> None:
    for component, cls in COMPONENTS.items():
        config = tiny().config(component)
        for name in cls.__dataclass_fields__:
            change = {} if name in ("num_env_steps",) else {name: getattr(config, name)}
            assert configs.build(cls, change, **vars(config)) == config


def test_a_misspelt_keyword_is_refused_in_python_too() -> None:
    with pytest.raises(UsageError, match="'ratoi'; did you mean 'ratio'"):
        tiny().config("augmentation", ratoi=2.0)


# -- bad data


def spoil(folder: Path, change: Callable[[Any], None]) -> None:
    """Collect the dataset into ``folder`` and ``change`` its first episode."""
    load_data(TASK, "tiny", progress=False)
    (path,) = folder.rglob("*.hdf5")
    with h5py.File(path, "r+") as file:
        change(file["episode_0"])


def test_nan_in_a_dataset(uepo: Command, folders: Path) -> None:
    def change(episode: Any) -> None:
        episode["observations"][3, 2] = np.nan

    spoil(folders / "data", change)
    for line in ("run uepo", "run bc", f"data --task {TASK}", "tasks"):
        outcome = uepo(*line.split(), "--profile", "tiny")
        refused(outcome, tasks.get(TASK).dataset_id, "states", "NaN", "step 3")
    assert not (folders / "results").exists()


def test_infinite_reward_in_a_dataset(uepo: Command, folders: Path) -> None:
    def change(episode: Any) -> None:
        episode["rewards"][0] = np.inf

    spoil(folders / "data", change)
    refused(uepo("run", "uepo", "--profile", "tiny"), "rewards", "finite", "step 0")


def test_wrong_action_size_in_a_dataset(uepo: Command, folders: Path) -> None:
    def change(episode: Any) -> None:
        actions = episode["actions"][:, :2]
        del episode["actions"]
        episode["actions"] = actions

    (folders / "data").mkdir()
    spoil(folders / "data", change)
    with h5py.File(next((folders / "data").rglob("*.hdf5")), "r+") as file:
        for name in file:
            if file[name]["actions"].shape[1] == 3:
                change(file[name])
    refused(uepo("run", "uepo", "--profile", "tiny"), "actions", "(2,)", "Hopper-v5", "(3,)")
    assert not (folders / "results").exists()


def test_actions_out_of_range_in_a_dataset(uepo: Command, folders: Path) -> None:
    def change(episode: Any) -> None:
        episode["actions"][0, 0] = 3.0

    spoil(folders / "data", change)
    refused(uepo("run", "uepo", "--profile", "tiny"), "actions", "3", "[-1, 1]")


def test_a_dataset_of_another_size_is_not_taken(uepo: Command, folders: Path) -> None:
    load_data(TASK, "tiny", progress=False)
    before = {path: path.read_bytes() for path in files(folders)}
    refused(
        uepo("run", "uepo", "--profile", "smoke"),
        tasks.get(TASK).dataset_id, "num_transitions", "MINARI_DATASETS_PATH",
    )  # fmt: skip
    assert {path: path.read_bytes() for path in files(folders)} == before


def test_a_missing_dataset_is_named(folders: Path) -> None:
    with pytest.raises(UsageError, match=r"uepo/hopper/medium-v0.*make data"):
        loading.load(tasks.get(TASK), folders)


def test_the_data_folder_is_a_folder(
    uepo: Command, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folders / "file"))
    refused(uepo("data", "--profile", "tiny"), "MINARI_DATASETS_PATH", "a folder")


def test_missing_behaviour_policies_are_named(
    uepo: Command, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behaviors, "FOLDER", folders / "nowhere")
    refused(uepo("data", "--profile", "tiny"), "medium")
    assert files(folders) == []


# -- figures


def test_figures_are_drawn_from_their_tables(
    uepo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(table: pd.DataFrame) -> Figure:
        figure, (axes,) = plotting.panels(1)
        plotting.seed_lines(axes, table, "x", "y", plotting.COLOURS["UEPO"], "UEPO")
        return figure

    monkeypatch.setitem(plotting.FIGURES, "tiny_line", line)
    store = Store.open("tiny")
    table = store.tables / "tiny_line.csv"
    table.parent.mkdir(parents=True)
    frame = pd.DataFrame({"x": [0, 1, 0, 1], "y": [0.0, 1.0, 1.0, 2.0], "seed": [0, 0, 1, 1]})
    frame.to_csv(table, index=False)
    refused(uepo("figures", "--profile", "tiny"), "tables/tiny_line.csv", "provenance")
    assert not store.figures.exists()

    record_output(table, [], profile="tiny", seeds=[0, 1], task=TASK)
    code, out, _ = uepo("figures", "--profile", "tiny")
    assert code == 0 and "tiny_line" in out
    first = {path.name: path.read_bytes() for path in store.figures.glob("tiny_line.p[nd][gf]")}
    assert set(first) == {"tiny_line.png", "tiny_line.pdf"}
    uepo("figures", "--profile", "tiny")
    assert {name: (store.figures / name).read_bytes() for name in first} == first
    assert uepo("runs", "verify", "--profile", "tiny")[0] == 0


def test_an_unknown_figure_is_named() -> None:
    with pytest.raises(UsageError, match="unknown figure 'no_such'"):
        plotting.draw("no_such", pd.DataFrame())


def test_dots_and_panels_draw_every_value() -> None:
    _, axes = plotting.panels(2)
    assert len(axes) == 2
    plotting.dots(axes[0], ["a", "b"], [[1.0, 2.0, 3.0], [4.0]], "k")
    drawn = np.concatenate([np.asarray(c.get_offsets())[:, 1] for c in axes[0].collections])
    assert {1.0, 2.0, 3.0, 4.0} <= set(drawn[~np.isnan(drawn)])


# -- data from elsewhere


def test_a_d4rl_file_becomes_a_task(uepo: Command, tmp_path: Path, data: Path) -> None:
    file, steps = tmp_path / "hopper.hdf5", 40
    generator = np.random.default_rng(0)
    with h5py.File(file, "w") as written:
        written["observations"] = generator.normal(size=(steps, 11)).astype(np.float32)
        written["actions"] = generator.uniform(-1, 1, (steps, 3)).astype(np.float32)
        written["rewards"] = generator.normal(size=steps).astype(np.float32)
        ends = np.zeros((2, steps), dtype=bool)
        ends[0, 19] = ends[1, 39] = True
        written["terminals"], written["timeouts"] = ends
    code, out, _ = uepo("data", "import-d4rl", str(file), "--task", "hopper-medium", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["task"] == "hopper-medium@d4rl" and row["episodes"] == 2
    listed = json.loads(uepo("tasks", "--profile", "tiny", "--json")[1])
    there = {row["task"]: row for row in listed}["hopper-medium@d4rl"]
    assert there["present"] and there["status"] == "imported"
    assert there["environment"] == "Hopper-v4"
    code, out, err = uepo("data", "import-d4rl", str(file), "--task", "hopper-medium")
    assert code == 2 and "already" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import-d4rl", "nothing.hdf5", "--task", "hopper-medium"), "nothing.hdf5"),
        (("import-d4rl", "nothing.hdf5", "--task", "hopper-medum"), "did you mean"),
        (("--source", "minari"), "needs --task"),
        (("--source", "minari", "--task", "pen-human"), "HF_HUB_OFFLINE"),
        (("--source", "d4rl", "--task", "hopper-medium"), "import-d4rl"),
        (("--source", "minarii", "--task", "pen-human"), "did you mean 'minari'"),
        (("--task", "pen-human"), "pen-human@minari"),
    ],
)
def test_what_cannot_be_got_is_said_in_one_line(
    uepo: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = uepo("data", *arguments)
    assert code == 2 and out == ""
    assert said in err and err.count("\n") == 1


def test_a_remote_task_that_is_not_there_says_how_to_get_it(uepo: Command) -> None:
    code, _, err = uepo("run", "bc", "--task", "pen-human@minari", "--profile", "tiny")
    assert code == 2 and "SOURCE=minari TASK=pen-human" in err and err.count("\n") == 1
    code, _, err = uepo("data", "--task", "pen-human@minari", "--profile", "tiny")
    assert code == 2 and "SOURCE=minari TASK=pen-human" in err and err.count("\n") == 1
    code, _, err = uepo("data", "--task", "hopper-medium@d4rl", "--profile", "tiny")
    assert code == 2 and "import-d4rl FILE --task hopper-medium" in err and err.count("\n") == 1
