"""What every notebook's first cell calls: the profile, the store, and where outputs go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats

import uepo_lib.figures  # noqa: F401 - registers every figure
from uepo_lib import facts, loads, plotting, profiles
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.profiles import Budget
from uepo_lib.provenance import SUFFIX, keeping, record_output
from uepo_lib.runs import Run, Store

EXACT = ("closed form", "formula", "the method", "the paper's Table 1 †")
"""What stands in place of a task where nothing was measured: such a figure has no profile."""
OUTPUT = re.compile(r"figures/[\w-]+\.png|tables/[\w-]+\.csv")


@dataclass(frozen=True)
class Context:
    """One notebook's surroundings, as :func:`start` found them.

    ``budget`` is the profile's row of the budget table, ``store`` where its runs lie, ``outputs``
    the figures and tables that the notebook promised to write.
    """

    name: str
    profile: str
    budget: Budget
    store: Store
    outputs: tuple[str, ...]

    def figure(
        self,
        figure: Figure,
        name: str,
        runs: Iterable[Run] = (),
        *,
        task: str,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Save ``figures/<name>.png`` and ``.pdf`` with a caption line and their provenance.

        Args:
            figure: what to save; it stays open, so the notebook shows it, caption included.
            name: as promised in ``start(outputs=["figures/<name>.png"])``.
            runs: the runs it shows; none for what is drawn from a dataset or a closed form.
            task: the task's name, or what stands in its place ("toy").
            seeds: the seeds it shows; by default those of ``runs``.

        Raises:
            UsageError: the output was not promised, or an axes is empty.
        """
        path = self._promised(f"figures/{name}.png")
        for i, axes in enumerate(figure.axes):
            check(axes.has_data() or not axes.axison, "figure", f"{name}, axes {i}", "not empty")
        runs = list(runs)
        seeds = _seeds(runs) if seeds is None else seeds
        _caption(figure, _about(task, self.profile, seeds, bool(runs)))
        paths = [path, path.with_suffix(".pdf")]
        for target in paths:
            _save(figure, target)
            figure.set_layout_engine("none")  # laid out once: a third of the time of each drawing
        record_output(paths, runs, profile=self.profile, seeds=seeds, task=task)

    def table(
        self,
        frame: pd.DataFrame,
        name: str,
        runs: Iterable[Run] = (),
        *,
        task: str,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Save ``tables/<name>.csv``, without the index, and its provenance; see :meth:`figure`."""
        path = self._promised(f"tables/{name}.csv")
        runs = list(runs)
        seeds = _seeds(runs) if seeds is None else seeds
        facts.write_text(path, frame.to_csv(index=False, lineterminator="\n"))
        record_output(path, runs, profile=self.profile, seeds=seeds, task=task)

    def draw(
        self,
        name: str,
        frame: pd.DataFrame,
        runs: Iterable[Run] = (),
        *,
        task: str,
        seeds: Sequence[int] | None = None,
    ) -> Figure:
        """Write ``tables/<name>.csv`` and the figure that ``plotting`` registers for it.

        The figure is drawn from the table as it stands in the file, so ``make figures`` draws the
        same one. Arguments and errors as in :meth:`figure`.
        """
        runs = list(runs)
        self.table(frame, name, runs, task=task, seeds=seeds)
        drawn = plotting.draw(name, pd.read_csv(self.store.tables / f"{name}.csv"))
        self.figure(drawn, name, runs, task=task, seeds=seeds)
        return drawn

    def _promised(self, output: str) -> Path:
        if output not in self.outputs:
            raise unknown("output", output, self.outputs)
        path = self.store.root / output
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def start(name: str, profile: str | None = None, outputs: Sequence[str] = ()) -> Context:
    """Set a notebook up and print one line that says how.

    Args:
        name: the notebook's file name without its suffix.
        profile: a budget's name; None takes ``$UEPO_PROFILE``, else "laptop".
        outputs: what the notebook will write: ``figures/<name>.png`` (a PDF goes with it) and
            ``tables/<name>.csv``. ``make reproduce`` checks that it did.

    Raises:
        UsageError: an unknown profile, a misspelt output, another notebook's name.
    """
    profile = profiles.current(profile)
    for output in outputs:
        valid = OUTPUT.fullmatch(output) is not None
        check(valid, "outputs", output, "figures/<name>.png or tables/<name>.csv")
    announced = facts.notebook() or name
    check(name == announced, "name", name, f"the notebook's file name, {announced!r}")
    os.environ["UEPO_NOTEBOOK"] = name

    torch.set_num_threads(1)
    pd.set_option("display.max_colwidth", None)  # a verdict is read to its end
    if (shell := get_ipython()) is not None:
        set_matplotlib_formats("png")  # nbval fails on SVG
        shell.events.register("post_run_cell", _say_loaded)
    store = Store.open(profile)
    store.notebooks.mkdir(parents=True, exist_ok=True)
    facts.write_json(promises(store, name), list(outputs))
    print(f"{name}: profile {profile}, results in {_shown(store.root)}")
    return Context(name, profile, profiles.budget(profile), store, tuple(outputs))


def _say_loaded(_: object) -> None:
    """After each cell: which runs it found, or how many."""
    loads.say()


def redraw(profile: str) -> list[str]:
    """Draw every figure of ``profile`` again from its table; the names of those drawn.

    What a figure says of its runs, seeds and task is read from its table's provenance. A figure
    that comes out as it was keeps its own, so the notebook that made it stays up to date.
    """
    store, done = Store.open(profile), []
    for name in plotting.FIGURES:
        table = store.tables / f"{name}.csv"
        if not table.is_file():
            continue
        if not table.with_name(name + SUFFIX).is_file():
            raise UsageError(f"tables/{name}.csv: has no provenance; its notebook writes both")
        origin = facts.read_json(table.with_name(name + SUFFIX))
        runs = [store.find(run_id) for run_id in origin["runs"]]
        outputs = (f"figures/{name}.png",)
        here = Context("", profile, profiles.budget(profile), store, outputs)
        drawn = plotting.draw(name, pd.read_csv(table))
        with (
            keeping(store.figures / (name + SUFFIX), runs),
            facts.environment({"UEPO_NOTEBOOK": origin["notebook"] or ""}),
        ):
            here.figure(drawn, name, runs, task=origin["task"], seeds=origin["seeds"])
        done.append(name)
    return done


def promises(store: Store, name: str) -> Path:
    """Where :func:`start` leaves a notebook's list of outputs."""
    return store.notebooks / f"{name}.outputs.json"


def promised_files(store: Store, name: str) -> list[Path]:
    """All the files that a notebook's outputs consist of, provenance included.

    Raises:
        UsageError: the notebook never called :func:`start`.
    """
    if not promises(store, name).is_file():
        raise UsageError(f"{name}: does not call notebook.start({name!r}, ...)")
    files = []
    for output in facts.read_json(promises(store, name)):
        path = store.root / output
        files += [path, path.with_name(path.stem + SUFFIX)]
        if path.suffix == ".png":
            files.append(path.with_suffix(".pdf"))
    return files


def _about(task: str, profile: str, seeds: Sequence[int], measured: bool) -> str:
    """The caption of a figure that was drawn from runs or, if not ``measured``, without one."""
    if task in EXACT and not measured and not seeds:
        return task
    counted = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}" if seeds else "no seeds"
    return f"{task} · profile {profile} · {counted}"


def _caption(figure: Figure, text: str) -> None:
    """Put ``text`` under a figure, in place of the caption it may have from before."""
    for old in [old for old in figure.texts if old.get_gid() == "caption"]:
        old.remove()
    figure.text(0.5, -0.01, text, gid="caption", ha="center", va="top", size="x-small", color="0.4")


def _save(figure: Figure, path: Path) -> None:
    kind = path.suffix[1:]
    # without the time it was written, the same figure is the same file
    undated: dict[str, Any] | None = {"CreationDate": None} if kind == "pdf" else None
    facts.replace_file(
        path,
        lambda partial: figure.savefig(
            partial, format=kind, dpi=150, bbox_inches="tight", metadata=undated
        ),
    )


def _seeds(runs: Iterable[Run]) -> list[int]:
    found = {run.record["seed"] for run in runs}
    return sorted(seed for seed in found if seed is not None)


def _shown(root: Path) -> str:
    """A folder from where the project lies, so that committed notebooks name no machine."""
    home = facts.repository()
    inside = home is not None and root.is_relative_to(home)
    return root.relative_to(home).as_posix() if home and inside else root.name
