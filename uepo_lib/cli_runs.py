"""The commands about runs: ``uepo runs list``, ``uepo runs show``, ``uepo runs verify``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from uepo_lib import profiles
from uepo_lib.cli_data import print_rows


def add_commands(add: Any, with_profile: Any) -> None:
    """Put the commands into the parser of :mod:`uepo_lib.cli`."""
    made = add("runs", _runs_list, "list, show and verify runs")
    actions = made.add_subparsers(required=True, metavar="ACTION", parser_class=type(made))
    for name, command, text in (
        ("list", _runs_list, "every run of the profile that was computed here"),
        ("show", _runs_show, "one run: configuration, provenance, artefacts"),
        ("verify", _runs_verify, "check every run, figure and table against its record"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(command=command)
        if name == "show":
            action.add_argument("id", help="of a run computed here, or a committed one")
        if name == "list":
            told = "the committed runs, not those computed here"
            action.add_argument("--reference", action="store_true", help=told)
        with_profile(action)
        action.add_argument("--json", action="store_true")


def _store(options: argparse.Namespace) -> Any:
    from uepo_lib.runs import Store

    return Store.open(profiles.current(options.profile))


def _runs_list(options: argparse.Namespace) -> int:
    from uepo_lib.provenance import list_committed, list_runs

    store = _store(options)
    rows = list_committed(store) if options.reference else list_runs(store)
    print_rows(rows, options.json)
    if not rows and not options.json:
        if options.reference:
            print(f"no runs of profile {store.root.name} are committed; --profile laptop has some")
        else:
            print(f"no runs in {store.runs} yet; `uepo runs list --reference` lists the committed")
    return 0


def _runs_show(options: argparse.Namespace) -> int:
    from uepo_lib.provenance import show

    print(json.dumps(show(_store(options), options.id), indent=2))
    return 0


def _runs_verify(options: argparse.Namespace) -> int:
    from uepo_lib.provenance import outputs, verify

    store = _store(options)
    problems = verify(store)
    if options.json:
        print(json.dumps([{"subject": p.subject, "message": p.message} for p in problems]))
    else:
        for problem in problems:
            print(problem)
        checked = f"{len(store.finished())} runs, {len(outputs(store))} figures and tables"
        print(f"{checked}: {len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''}")
    return 1 if problems else 0
