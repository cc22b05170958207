"""Compute what is missing, then the table: ``python -m benchmarks.parity --help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.parity import jobs, records, settings, table
from benchmarks.parity.records import Key, Places
from benchmarks.parity.settings import PEERS, SIDES, Scale
from uepo_lib import facts
from uepo_lib.errors import UsageError, unknown


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; lists are separated by commas."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description="Our BC and IQL beside d3rlpy's, our PPO beside stable-baselines3's. What is "
        "finished is kept; the table is written at the end.",
    )
    every = ",".join(PEERS)
    parser.add_argument("--only", default=every, help=f"of {every} (default: all)")
    parser.add_argument("--side", default=",".join(SIDES), help="of ours,theirs (default: both)")
    parser.add_argument("--seeds", help="such as 0,1 (default: the scale's)")
    parser.add_argument("--scale", default="full", help="full (default), or smoke: a trial")
    parser.add_argument("--no-speed", action="store_true", help="leave the timing for later")
    parser.add_argument("--table", action="store_true", help="only write the table again")
    parser.add_argument(
        "--evidence", type=Path, help="folder of records and table in place of the usual one"
    )
    return parser.parse_args(arguments)


def _chosen(text: str, kind: str, valid: Sequence[str]) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in valid:
            raise unknown(kind, name, valid)
    return names


def _seeds(text: str | None, scale: Scale) -> list[int]:
    if text is None:
        return list(scale.seeds)
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(f"seeds={text!r}: must be whole numbers, such as 0,1") from None


def compute(where: Places, scale: Scale, keys: Sequence[Key]) -> None:
    """Every key whose record is missing, one after another."""
    missing = [key for key in keys if not records.finished(where, scale, key)]
    print(f"{len(keys) - len(missing)} of {len(keys)} are there")
    for i, key in enumerate(missing):
        started = time.monotonic()
        name = "{} of {}, seed {}".format(*key)
        done = jobs.compute(where, scale, key)
        minutes = (time.monotonic() - started) / 60
        said = f"{minutes:.1f} min" if done else "another process is at it: left to it"
        print(f"{i + 1}/{len(missing)} {name}: {said}", flush=True)


def write_table(where: Places, scale: Scale) -> str:
    """Write the table of all records that are there, and give it back as text."""
    found, speeds = records.read_all(where), records.read_speeds(where)
    if not found:
        raise UsageError("no record yet: nothing to write a table of")
    page = table.markdown(found, speeds, scale.name)
    facts.write_text(where.evidence / "parity.md", page)
    facts.write_text(where.evidence / "parity.csv", table.frame(found, speeds).to_csv(index=False))
    facts.write_text(where.evidence / "seeds.csv", table.seeds_frame(found).to_csv(index=False))
    return page


def main(arguments: Sequence[str]) -> int:
    """Everything that the command line asks for."""
    options = parse(arguments)
    torch.set_num_threads(1)
    scale = settings.scale(options.scale)
    where = records.places(scale, options.evidence)
    if not options.table:
        algorithms = _chosen(options.only, "algorithm", list(PEERS))
        sides = _chosen(options.side, "side", SIDES)
        seeds = _seeds(options.seeds, scale)
        compute(where, scale, [(a, s, n) for n in seeds for a in algorithms for s in sides])
        timed = () if options.no_speed or len(sides) < 2 else algorithms
        for algorithm in (name for name in timed if name in scale.speed_updates):
            jobs.measure_speed(where, scale, algorithm)
    print(write_table(where, scale))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
