"""What is said of runs that needed no computing: one line for all of them, not a line each.

Who shows output says it, a notebook after each cell and the command line at its end; a worker
beside others says nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

HERE, COMMITTED = "loaded", "read from the committed set:"
NAMED = 3
"""So many runs are named; of more it is said how many there are."""

_found: dict[str, list[str]] = {HERE: [], COMMITTED: []}


def note(how: str, run_id: str) -> None:
    """Remember until :func:`say` that a run was found :data:`HERE` or :data:`COMMITTED`."""
    if run_id not in _found[how]:
        _found[how].append(run_id)


def say(file: TextIO | None = None) -> None:
    """Print a line a place that runs came from, if any did since the last call."""
    for how, ids in _found.items():
        if ids:
            told = ", ".join(ids) if len(ids) <= NAMED else f"{len(ids)} runs"
            print(f"{how} {told}", file=file or sys.stdout, flush=True)
            ids.clear()


@contextmanager
def told(file: TextIO) -> Iterator[None]:
    """Say at the end what was found within."""
    for ids in _found.values():
        ids.clear()
    try:
        yield
    finally:
        say(file)
