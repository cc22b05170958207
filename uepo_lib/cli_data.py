"""The commands about data: ``uepo tasks``, ``uepo data``, ``uepo data import-d4rl``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from uepo_lib import loading, profiles, tasks
from uepo_lib.datasets import Dataset
from uepo_lib.errors import UsageError

SOURCES = {"local": "collected here", "remote": "Minari", "imported": "D4RL's file", "own": "yours"}


def add_commands(add: Any, with_profile: Any) -> None:
    """Put the commands into the parser of :mod:`uepo_lib.cli`."""
    listing = add("tasks", _tasks, "every task: environment, dataset, source, size, mean score")
    with_profile(listing)
    listing.add_argument("--json", action="store_true")

    data = add("data", _data, "collect the local datasets, or get one from elsewhere")
    with_profile(data)
    data.add_argument("--task", help="one task; all local ones by default")
    data.add_argument("--source", default="local", help="local (default) or minari")
    data.add_argument("--json", action="store_true")
    actions = data.add_subparsers(metavar="import-d4rl", parser_class=type(data))
    text = "turn an old D4RL file (HDF5) into a Minari dataset"
    imported = actions.add_parser("import-d4rl", help=text, description=text)
    imported.set_defaults(command=_import_d4rl)
    imported.add_argument("file", type=Path)
    imported.add_argument("--task", required=True, help="such as hopper-medium")
    imported.add_argument("--json", action="store_true")


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Facts as JSON, or as an aligned table."""
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        import pandas as pd

        print(pd.DataFrame(rows).to_string(index=False, na_rep=""))


def _tasks(options: argparse.Namespace) -> int:
    rows = []
    profile = profiles.current(options.profile)
    for task in tasks.TASKS.values():
        folder = loading.home(task, profile)
        there = (folder / task.dataset_id / "data").is_dir()
        row: dict[str, Any] = {
            "task": task.name,
            "paper_row": task.paper_row,
            "environment": task.robot.env_id,
            "dataset": task.dataset_id,
            "source": SOURCES[task.source],
            "status": task.source,
            "present": there,
            "transitions": None,
            "mean_normalised_return": None,
        }
        if there:
            row |= _size(loading.load(task, folder))
        rows.append(row)
    print_rows(rows, options.json)
    return 0


def _data(options: argparse.Namespace) -> int:
    from uepo_lib.stages import load_all, load_data

    profile = profiles.current(options.profile)
    if options.source == "local":
        names = [tasks.get(options.task).name] if options.task else list(tasks.LOCAL)
        load_all(names, profile)
    else:
        if options.task is None:
            raise UsageError(f"--source {options.source}: needs --task; `uepo tasks` lists them")
        task = tasks.from_source(options.task, options.source)
        if task.source == "imported":
            raise UsageError("--source d4rl: import a file with `uepo data import-d4rl FILE`")
        from uepo_lib import remote

        remote.download(task, loading.home(task, profile))
        names = [task.name]
    _report([load_data(name, profile) for name in names], options.json)
    folder = loading.home(tasks.get(names[0]), profile)
    if not options.json:
        print(f"MINARI_DATASETS_PATH={folder}")
    return 0


def _import_d4rl(options: argparse.Namespace) -> int:
    from uepo_lib import d4rl

    task = tasks.from_source(options.task, "d4rl")
    folder = loading.home(task, profiles.current(None))
    folder.mkdir(parents=True, exist_ok=True)
    d4rl.import_d4rl(options.file, task, folder)
    _report([loading.load(task, folder)], options.json)
    return 0


def _report(found: list[Dataset], as_json: bool) -> None:
    rows = [
        {"task": data.task.name, "dataset": data.key.id, "episodes": len(data.bounds)}
        | _size(data)
        | {"hash": data.key.hash}
        for data in found
    ]
    print_rows(rows, as_json)


def _size(data: Dataset) -> dict[str, Any]:
    returns = data.episode_returns()
    score = round(data.task.robot.normalised(float(returns.mean())), 1) if len(returns) else None
    return {"transitions": len(data), "mean_normalised_return": score}
