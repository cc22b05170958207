"""What a call of ``reproduce`` did and what it took; one line of a log for each call."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uepo_lib import facts, sweep
from uepo_lib.errors import UsageError
from uepo_lib.runs import Store

LOG = "reproduced.log"
"""In a profile's results: the source of every time that the README speaks of."""


@dataclass(frozen=True)
class Summary:
    """What :func:`reproduce` did, and what it took."""

    runs_computed: int
    core_seconds: float
    """Work of these runs, all processes together."""
    by_purpose: Mapping[str, float]
    """The same by the job that computed a run first; what others load of it costs them nothing."""
    executed: tuple[str, ...]
    up_to_date: tuple[str, ...]
    wall_seconds: float
    peak_gigabytes: float
    """Of the largest process."""

    def __str__(self) -> str:
        return (
            f"{self.runs_computed} runs computed, {len(self.executed)} notebooks executed, "
            f"{len(self.up_to_date)} up to date: {self.wall_seconds / 60:.1f} min, "
            f"{self.core_seconds / 3600:.2f} core-hours of runs, largest process "
            f"{self.peak_gigabytes:.1f} GB"
        )


def note(
    store: Store,
    computed: Sequence[Mapping[str, Any]],
    executed: tuple[str, ...],
    up_to_date: tuple[str, ...],
    wall_seconds: float,
) -> Summary:
    """The summary of a call that ``computed`` these runs (``Store.computed``), appended to the log
    with the commit and the machine."""
    work: dict[str, float] = defaultdict(float)
    for row in computed:
        work[row.get("purpose", "")] += float(row["wall_s"])
    summary = Summary(
        len(computed), round(sum(work.values()), 1),
        {purpose: round(seconds, 1) for purpose, seconds in work.items()},
        executed, up_to_date, round(wall_seconds, 1), round(sweep.peak_bytes() / 1e9, 2),
    )  # fmt: skip
    machine = {"cpu": facts.cpu(), "cores": os.cpu_count()}
    row = {"finished": facts.now(), **facts.commit(), **machine, **asdict(summary)}
    store.root.mkdir(parents=True, exist_ok=True)
    try:
        with (store.root / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
    except PermissionError:
        raise UsageError(
            f"{store.root / LOG}: cannot be written; set UEPO_RESULTS to a folder that can"
        ) from None
    return summary
