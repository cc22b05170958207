"""One notebook executed by papermill, with what papermill only warns of refused."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from jupyter_core.utils import ensure_async, ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from uepo_lib import facts, pairs
from uepo_lib.errors import UsageError, check, unknown

ENGINE = "uepo"


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end, or did not write what it promised: one line, exit 1."""


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """``["n=3", "guided=true"]`` as ``{"n": 3, "guided": True}``: values are read as YAML."""
    parameters = {}
    for text in texts:
        name, equals, value = text.partition("=")
        check(bool(equals) and name.isidentifier(), "parameter", text, "name=value")
        parameters[name] = yaml.safe_load(value)
    return parameters


def validate(path: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse a pair whose halves differ, and parameters that a notebook does not have.

    Raises:
        UsageError: naming the cell, or the parameter and the valid ones.
    """
    script = path.with_suffix(".py")
    if script.is_file() and (differences := pairs.drift(script, path)):
        hint = "run python -m uepo_lib.pairs sync"
        raise UsageError(f"{differences[0]}; to take what the script says, {hint}")
    if not parameters:
        return
    cells = nbformat.read(path, as_version=4).cells
    if not any("parameters" in cell.metadata.get("tags", []) for cell in cells):
        raise UsageError(f"{path.name}: has no cell tagged 'parameters'")
    known = papermill.inspect_notebook(str(path))
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {path.stem}", name, known)


class _Client(PapermillNotebookClient):
    """papermill's own client, which does not outlive a Ctrl-C, nor does its kernel."""

    def execute(self, **options: Any) -> Any:
        with self._killed_when_interrupted():  # while the kernel starts
            return super().execute(**options)

    def papermill_execute_cells(self) -> None:
        with self._killed_when_interrupted():
            super().papermill_execute_cells()

    @contextlib.contextmanager
    def _killed_when_interrupted(self) -> Iterator[None]:
        """A kernel that is asked to end, as nbclient does, first prints a traceback, and so does
        what still waits for its answers."""
        try:
            yield
        except KeyboardInterrupt:
            loop = ensure_event_loop()
            waiting = asyncio.all_tasks(loop)
            for task in waiting:
                task.cancel()
            if waiting:  # what they raise now is that they were cancelled
                loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
            if self.km is not None and self.km.has_kernel:
                loop.run_until_complete(ensure_async(self.km.shutdown_kernel(now=True)))
            raise


class _Engine(NBClientEngine):
    """papermill's own engine, whose kernels nobody else on the machine can talk to."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, start_timeout: int = 60, **_: Any
    ) -> Any:
        # the port is local, but open to every user of the machine
        config = Config(KernelManager={"transport_encryption": "auto"})
        client = _Client(
            nb_man, kernel_name=kernel_name, startup_timeout=start_timeout, config=config
        )
        return client.execute()


papermill_engines.register(ENGINE, _Engine)


def execute(
    path: Path,
    target: Path,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Execute a notebook in its own folder; what was executed goes to ``target`` also on failure.

    ``target`` is written in one step; by an interruption it is not.

    Args:
        path: the notebook; :func:`validate` it first.
        target: where the executed one goes, each cell stamped with the source that was executed.
        parameters: values for its parameters cell.

    Raises:
        NotebookFailed: a cell raised, or the kernel died.
    """
    with _ended_by_parent(), tempfile.TemporaryDirectory(prefix="uepo-notebook-") as folder:
        working = Path(folder) / target.name
        try:
            _execute(path, working, parameters or {})
        except Exception:
            _keep(working, target)
            raise
        _keep(working, target)


def _keep(working: Path, target: Path) -> None:
    if working.is_file():
        notebook = nbformat.read(working, as_version=4)
        pairs.stamp(notebook)
        facts.write_text(target, nbformat.writes(notebook))


@contextlib.contextmanager
def _ended_by_parent() -> Iterator[None]:
    """In a worker: Ctrl-C is for its parent, whose SIGTERM ends the kernel and then the worker."""
    if multiprocessing.parent_process() is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for good: one that waits has nothing to say
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)  # or it would begin the next notebook
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _execute(path: Path, working: Path, parameters: Mapping[str, Any]) -> None:
    try:
        with facts.environment({"UEPO_NOTEBOOK": path.stem, "OMP_NUM_THREADS": "1"}):
            papermill.execute_notebook(
                path,
                working,
                parameters=dict(parameters),
                engine_name=ENGINE,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=path.parent,
            )
    except PapermillExecutionError as error:
        last = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
        raise NotebookFailed(f"{path.stem} failed in cell {error.cell_index}: {last}") from error
    except DeadKernelError as error:
        raise NotebookFailed(f"{path.stem} failed: its kernel died (out of memory?)") from error


@contextlib.contextmanager
def kernel_of_this_interpreter() -> Iterator[None]:
    """Make "python3" mean this interpreter, and keep Jupyter's own files out of the home."""
    with tempfile.TemporaryDirectory(prefix="uepo-jupyter-") as temporary:
        spec = Path(temporary) / "kernels" / "python3"
        spec.mkdir(parents=True)
        launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        metadata = {"supported_encryption": ["curve"]}
        content = {**pairs.KERNEL, "argv": launch, "metadata": metadata}
        facts.write_json(spec / "kernel.json", content)
        places = {
            "JUPYTER_PATH": temporary,
            "JUPYTER_RUNTIME_DIR": f"{temporary}/runtime",
            "IPYTHONDIR": f"{temporary}/ipython",
        }
        # a kernel chooses its own way to draw
        with facts.environment(places, without=("MPLBACKEND",)):
            yield
