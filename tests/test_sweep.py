from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from run_recipes import fail_at, square

from uepo_lib import preparation, sweep
from uepo_lib.errors import UsageError
from uepo_lib.sweep import METHOD, cores, run_all


@pytest.mark.parametrize("workers", [1, 2])
def test_results_in_order_with_one_thread_each(workers: int) -> None:
    torch.set_num_threads(2)
    jobs = [(square, (x,)) for x in range(4)]
    assert run_all(jobs, workers, progress=False) == [(x * x, 1) for x in range(4)]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_workers_are_those_that_are_chosen_else_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UEPO_WORKERS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 64
    monkeypatch.setenv("UEPO_WORKERS", "5")
    assert cores() == 5
    for text in ("0", "-1", "2.0", "two", "²"):
        monkeypatch.setenv("UEPO_WORKERS", text)
        message = f"UEPO_WORKERS={text!r}: must be a positive integer"
        with pytest.raises(UsageError, match=message):
            cores()


@pytest.mark.parametrize("given", [None, 2])
def test_what_runs_side_by_side_asks_for_them(
    given: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setenv("UEPO_WORKERS", "7")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(sweep, "run_all", lambda jobs, workers, **_: used.append(workers))
    preparation.prepare_experiment("latency", "smoke", given)
    assert used == [given or 7] * 2  # the data, then the runs


def test_a_temporary_folder_with_a_long_name_is_no_obstacle(tmp_path: Path) -> None:
    program = (
        "from run_recipes import square\n"
        "from uepo_lib import sweep\n"
        "if __name__ == '__main__':\n"
        "    sweep.import_early('uepo_lib.errors')\n"
        "    found = sweep.run_all([(square, (2,)), (square, (3,))], 2, progress=False)\n"
        "    print(sweep.METHOD, found)\n"
    )
    (tmp_path / "parent.py").write_text(program)
    for length in (sweep.SOCKET, sweep.SOCKET + 1):
        with tempfile.TemporaryDirectory(prefix="uepo-test-") as short:
            folder = Path(short, "x" * (length - len(short) - 1))
            folder.mkdir()
            done = subprocess.run(
                [sys.executable, tmp_path / "parent.py"], capture_output=True, text=True,
                env={**os.environ, "PYTHONPATH": ":".join(sys.path), "TMPDIR": str(folder)},
            )  # fmt: skip
        expected = "forkserver" if length == sweep.SOCKET and METHOD != "spawn" else "spawn"
        assert done.stdout == f"{expected} [(4, 1), (9, 1)]\n", done.stderr


def test_first_failure_stops_the_others() -> None:
    started = time.monotonic()
    jobs = [(fail_at, (1, x, 60.0)) for x in range(2)]
    with pytest.raises(UsageError, match="x=1: must be good") as error:
        run_all(jobs, workers=2, progress=False)
    assert time.monotonic() - started < 55, "it waited for the other job"
    assert error.value.__notes__ == ["in fail_at(1, 1, 60.0)"]
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not multiprocessing.active_children()


def test_failure_in_this_process() -> None:
    with pytest.raises(UsageError, match="must be good") as error:
        run_all([(fail_at, (0, x, 0.0)) for x in range(2)], progress=False)
    assert error.value.__notes__ == ["in fail_at(0, 0, 0.0)"]


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run_all([(square, (1,))], name="seeds")
    assert "seeds: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers_are_a_positive_number(workers: int) -> None:
    with pytest.raises(UsageError, match="workers="):
        run_all([], workers)


def test_nothing_to_do() -> None:
    assert run_all([], 4, progress=False) == []


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from run_recipes import note_pid_and_wait\n"
        "from uepo_lib.sweep import run_all\n"
        "if __name__ == '__main__':\n"
        "    run_all([(note_pid_and_wait, (sys.argv[1],))] * 2, 2, progress=False)\n"
    )
    (tmp_path / "parent.py").write_text(program)
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", tmp_path / "pids"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    _until(lambda: len(list((tmp_path / "pids").iterdir())) == 2, 60)
    workers = [psutil.Process(int(path.name)) for path in (tmp_path / "pids").iterdir()]
    parent.kill()
    parent.wait()
    _until(lambda: not any(alive(worker) for worker in workers), 15)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
