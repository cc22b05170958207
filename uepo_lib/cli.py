"""The command line: ``python -m uepo_lib COMMAND``. Bad input is one line and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from uepo_lib import cli_data, cli_runs, facts, loads, profiles, sweep
from uepo_lib.cli_data import print_rows
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.recording import TrainingDiverged

WORKERS_NEED = ("uepo_lib.jobs", "torch._dynamo")
"""The second is what torch imports for its first optimiser: another second and a half."""


class _Parser(argparse.ArgumentParser):
    """argparse, with every mistake as one line."""

    more: Callable[[], str] | None = None
    """What ``--help`` says besides; made only when asked for, as it may import much."""

    def format_help(self) -> str:
        if self.more is not None:
            self.epilog = self.more()
        return super().format_help()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A mistyped command, with the nearest one."""
        if action.choices is not None and value not in action.choices:
            raise unknown(f"{self.prog} command", value, action.choices)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


class _Version(argparse.Action):
    """Asks git only where ``--version`` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(facts.version())
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (it failed), 2 (bad input), 130 (it was interrupted)
    or 141 (nobody reads what it prints)."""
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _unread(sys.stdout.fileno()):
            raise
        # Python flushes once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _unread(file: int) -> bool:
    """Whether whoever read a pipe has left, as ``head`` does after its lines."""
    poll = select.poll()
    poll.register(file, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _main(arguments: Sequence[str] | None) -> int:
    torch.set_num_threads(1)
    with loads.told(sys.stderr):
        try:
            options = parser().parse_args(arguments)
            command: Callable[[argparse.Namespace], int] = options.command
            return command(options)
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1 if isinstance(error, TrainingDiverged) else 2
        except KeyboardInterrupt:
            print(
                "interrupted: the same command continues from the last checkpoint", file=sys.stderr
            )
            return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(prog="uepo", description="A companion to UEPO (arXiv 2511.10087).")
    top.add_argument("--version", action=_Version, nargs=0, help="the version and the commit")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        made: _Parser = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        return made

    def with_profile(made: argparse.ArgumentParser) -> None:
        made.add_argument("--profile", help="smoke, laptop (default), full or paper")

    cli_data.add_commands(add, with_profile)
    _add_run(add, with_profile)
    _add_experiment(add, with_profile)
    cli_runs.add_commands(add, with_profile)
    for name, command, text in (
        ("figures", _figures, "draw every figure again from its table"),
        ("prepare", _prepare, "data and shared models, without the notebooks"),
        ("reproduce", _reproduce, "data, models, notebooks, figures; what is finished is kept"),
        ("publish", _publish, "copy results and executed notebooks to where they are committed"),
    ):
        with_profile(add(name, command, text))
    add("behaviors", _behaviors, "train the behaviour policies again")
    return top


def _add_run(add: Any, with_profile: Any) -> None:
    run = add("run", _run, "train one method on one task and seed, offline and online")
    run.add_argument("method", help="which one; they are listed below")
    run.more = _methods_listed
    run.add_argument("--task", default="hopper-medium")
    run.add_argument("--seed", type=int, default=0)
    with_profile(run)
    run.add_argument(
        "--set", action="append", default=[], metavar="COMPONENT.PARAMETER=VALUE",
        help="change a default: --set diffusion.lr=3e-4 (may be repeated)",
    )  # fmt: skip
    run.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE",
        help="import it first: a module that registers a task of your own (may be repeated)",
    )  # fmt: skip
    run.add_argument("--json", action="store_true")


def _add_experiment(add: Any, with_profile: Any) -> None:
    chosen = add("experiment", _experiment, "one experiment: its runs, then the page that shows it")
    chosen.add_argument("name", help="which one, or its notebook; they are listed below")
    chosen.more = _experiments_listed
    with_profile(chosen)


def _run(options: argparse.Namespace) -> int:
    from uepo_lib import configs
    from uepo_lib.methods import METHODS
    from uepo_lib.stages import COMPONENTS, Study

    if options.method not in METHODS:
        raise unknown("method", options.method, METHODS)
    overrides = configs.parse_overrides(options.set, list(COMPONENTS))
    # what a module or the store says is not part of the JSON
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        for module in options.imports:
            _import(module)
        study = Study(options.task, options.seed, options.profile, overrides)
        online = METHODS[options.method](study).online
        _ = online.run
    looks = online.run.table("evaluations").frame()
    robot = study.task.robot
    rows = [
        {
            "env_steps": int(look.env_steps),
            "return": round(float(look["return"]), 1),
            "normalised": round(robot.normalised(float(look["return"])), 1),
            "episodes": int(look.episodes),
            "policy_kl": round(float(look.policy_kl), 4),
        }
        for _, look in looks.iterrows()
    ]
    print_rows(rows, options.json)
    if not options.json:
        print("\n".join([f"run {online.run.id}", *robot.notes]))
    return 0


def _methods_listed() -> str:
    from uepo_lib.methods import METHODS

    return f"methods: {', '.join(METHODS)}"


def _import(module: str) -> None:
    """A mistake within the module keeps its traceback: that is for its author."""
    named = all(part.isidentifier() for part in module.split("."))
    check(named, "--import", module, "a module's name, as in import my_task")
    if "" not in sys.path:  # as `python -m` has it, and a console script has not
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"--import {module}: {error} (looked in {os.getcwd()} too)") from None


def _figures(options: argparse.Namespace) -> int:
    from uepo_lib.notebook import redraw

    profile = profiles.current(options.profile)
    names = redraw(profile)
    print(f"{len(names)} figures drawn from their tables: {', '.join(names) or 'none yet'}")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    _start_workers()
    from uepo_lib.preparation import prepare

    prepare(profiles.current(options.profile))
    return 0


def _start_workers() -> None:
    """Have what workers are forked from; by it they leave Ctrl-C to this process, which ends
    them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sweep.import_early(*WORKERS_NEED)
    finally:
        signal.signal(signal.SIGINT, before)


def _experiments_listed() -> str:
    from uepo_lib.preparation import EXPERIMENTS

    listed = ", ".join(f"{name} ({chosen.notebook})" for name, chosen in EXPERIMENTS.items())
    return f"experiments, with the notebook that shows each: {listed}"


def _experiment(options: argparse.Namespace) -> int:
    _start_workers()
    from uepo_lib import preparation

    name = options.name
    chosen = preparation.experiment(name)
    return _execute(
        options, [chosen.notebook], lambda profile: preparation.prepare_experiment(name, profile)
    )


def _reproduce(options: argparse.Namespace) -> int:
    _start_workers()
    return _execute(options)


def _execute(
    options: argparse.Namespace,
    notebooks: Sequence[str] | None = None,
    prepare: Callable[[str], object] | None = None,
) -> int:
    from uepo_lib.execution import NotebookFailed
    from uepo_lib.reproduce import reproduce

    try:
        print(reproduce(profiles.current(options.profile), notebooks, prepare=prepare))
    except NotebookFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _publish(options: argparse.Namespace) -> int:
    from uepo_lib.preparation import reading_set
    from uepo_lib.publish import publish, require_clean

    profile = profiles.current(options.profile)
    require_clean()
    for path in publish(profile, reading=reading_set(profile)):
        print(path)
    return 0


def _behaviors(_: argparse.Namespace) -> int:
    from uepo_lib.behavior_training import train_all
    from uepo_lib.runs import Store

    for path in train_all(Store.open("behaviors")):
        print(path.name)
    return 0
