"""Many runs on this machine: one process a job, one torch thread a process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import resource
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from uepo_lib.errors import check

Job = tuple[Callable[..., Any], tuple[Any, ...]]
SOCKET = 107 - len("/pymp-12345678/listener-12345678")
"""How long a temporary folder's name may be, in bytes, for Linux to take a socket in it."""


def _method() -> str:
    """How workers begin. A fork of this process would inherit torch's threads in an unknown state;
    a server has none: it only imports, once for all workers. macOS' own libraries do not survive
    even that fork, and the server needs a socket in the temporary folder."""
    fits = len(os.fsencode(tempfile.gettempdir())) <= SOCKET
    return "forkserver" if fits and sys.platform != "darwin" else "spawn"


METHOD = _method()
_peak = 0


def import_early(*modules: str) -> None:
    """Begin to import what jobs need, beside this process, before there are any.

    Without effect on workers of an earlier call, and where each worker imports for itself.
    """
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload([*modules])
        multiprocessing.forkserver.ensure_running()


def peak_bytes() -> int:
    """Resident memory of the largest of this process, all its workers, and what they started."""
    return max(_peak, _largest())


def _largest() -> int:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return max(resource.getrusage(each).ru_maxrss for each in who) * unit


def cores() -> int:
    """How many processes compute side by side: ``$UEPO_WORKERS``, else the cores that this process
    may use; ``UsageError`` if the variable is no positive integer."""
    if text := os.environ.get("UEPO_WORKERS"):
        good = text.isascii() and text.isdigit() and int(text) > 0
        check(good, "UEPO_WORKERS", text, "a positive integer")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(
    jobs: Sequence[Job],
    workers: int = 1,
    *,
    name: str = "runs",
    unit: str = "run",
    progress: bool = True,
) -> list[Any]:
    """Call ``function(*arguments)`` for every job and return the results in the jobs' order.

    A bar shows what is done and how long the rest will take. The first failure ends all: the other
    workers are stopped (their runs can be resumed) and that job's error is raised, naming the job.
    Every job computes with one torch thread, so the numbers do not depend on ``workers``.

    Args:
        jobs: functions of an importable module with arguments that can be pickled.
        workers: processes; with 1 the jobs run in this process.
        name: the bar's label.
        unit: what it counts.
        progress: show the bar.
    """
    check(isinstance(workers, int) and workers >= 1, "workers", workers, "a positive integer")
    bar = tqdm(total=len(jobs), desc=name, unit=unit, disable=not progress)
    with bar:
        if workers == 1 or len(jobs) < 2:
            return _in_process(jobs, bar)
        return _in_workers(jobs, min(workers, len(jobs)), bar)


def _in_process(jobs: Sequence[Job], bar: tqdm[Any]) -> list[Any]:
    results = []
    with _one_thread():
        for job in jobs:
            with _named(job):
                results.append(job[0](*job[1]))
            bar.update()
    return results


def _in_workers(jobs: Sequence[Job], workers: int, bar: tqdm[Any]) -> list[Any]:
    global _peak
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers,
        multiprocessing.get_context(METHOD),
        initializer=_start_worker,
        initargs=(dict(os.environ),),
    )
    futures = {executor.submit(_call, *job): i for i, job in enumerate(jobs)}
    results: list[Any] = [None] * len(jobs)
    try:
        for future in as_completed(futures):
            with _named(jobs[futures[future]]):
                results[futures[future]], peak = future.result()
            _peak = max(_peak, peak)
            bar.update()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    executor.shutdown()
    return results


def _start_worker(environment: Mapping[str, str]) -> None:
    os.environ.clear()  # a server's is as old as the server
    os.environ.update(environment)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its workers: they look for it themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """What a worker hands back of a job: its result, and the largest memory so far."""
    return function(*arguments), _largest()


@contextmanager
def _named(job: Job) -> Iterator[None]:
    """Say which job an error comes from."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {getattr(job[0], '__name__', job[0])}{job[1]!r}")
        raise


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
