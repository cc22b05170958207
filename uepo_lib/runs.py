"""Runs: computed once, found again by what determines their numbers.

While it is computed a run lives in ``runs/.<id>.partial``; only when everything is written is that
folder renamed to ``runs/<id>``, the id being that of its :class:`~uepo_lib.specs.Spec`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from uepo_lib import facts, loads
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.recording import CHECKPOINT, CONFIG, RECORD, Recording
from uepo_lib.specs import DatasetKey, RunKey, Spec

__all__ = ["PURPOSE", "DatasetKey", "Run", "RunKey", "Spec", "Store", "problems"]

PURPOSE: ContextVar[str] = ContextVar("purpose", default="")
"""The job that runs are computed for; outside of jobs it is the notebook, if any. It is noted in
the log, and no part of a run: the next job may load what this one computed."""


class Run(Recording):
    """One run: written as a :class:`Recording` while it is computed, then read.

    ``folder`` is where it lies, ``record`` the content of its ``run.json``.
    """

    def __init__(self, folder: Path, spec: Spec, record: dict[str, Any]) -> None:
        super().__init__(folder, record)
        self.spec = spec
        self.id = spec.id

    @property
    def key(self) -> RunKey:
        """What the spec of a run built on this one lists as a parent."""
        return self.spec.key

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a finished run; :func:`problems` says whether it can be trusted."""
        spec = Spec.from_json(facts.read_json(folder / CONFIG))
        return cls(folder, spec, facts.read_json(folder / RECORD))

    @classmethod
    def start(cls, folder: Path, spec: Spec, read: Sequence[str] = ()) -> Run:
        """Open the working folder of ``spec``, at its checkpoint if there is one.

        ``read`` are the ids of the committed runs that it builds on, see :meth:`Store.read`.
        """
        run = cls(folder, spec, {"status": "running"})
        run.restore(read)
        facts.write_json(folder / CONFIG, asdict(spec))
        return run

    def finish(self, destination: Path, device: str) -> Run:
        """Write the record and move the folder to ``destination``, replacing what was there."""
        dataset = self.spec.dataset
        self.record = {
            "id": self.spec.id,
            "reading_key": self.spec.reading_key,
            "kind": self.spec.kind,
            "status": "finished",
            **facts.commit(),
            "command": facts.command(),
            "seed": self.spec.config.get("seed"),
            "dataset": asdict(dataset) if dataset else None,
            "parents": [asdict(parent) for parent in self.spec.parents],
            "revisions": dict(self.spec.revisions),
            "versions": facts.versions(),
            "python": platform.python_version(),
            "device": device,
            "cpu": facts.cpu(),
            "created": facts.now(),
            **self.progress(),
            "artefacts": {path.name: facts.sha256(path) for path in _artefacts(self.folder)},
        }
        facts.write_json(self.folder / RECORD, self.record)
        facts.replace_folder(destination, self.folder)
        # only now: a kill before the rename resumes, a kill after it leaves a harmless file
        (destination / CHECKPOINT).unlink(missing_ok=True)
        return Run.load(destination)


def _artefacts(folder: Path) -> list[Path]:
    """The files that a record vouches for."""
    return sorted(path for path in folder.iterdir() if path.name not in (RECORD, CHECKPOINT))


def problems(folder: Path) -> list[str]:
    """Why the run in ``folder`` does not count as finished; empty if it does."""
    try:
        return _problems(folder)
    except FileNotFoundError as error:  # another process replaces the run just now
        return [f"{Path(error.filename).name} is missing"]


def _problems(folder: Path) -> list[str]:
    if not (folder / RECORD).is_file():
        return [f"{RECORD} is missing"]
    try:
        record = facts.read_json(folder / RECORD)
    except ValueError as error:
        return [str(error)]
    declared = record["artefacts"]
    found = [] if record["status"] == "finished" else [f"its status is {record['status']!r}"]
    found += [f"{name} is missing" for name in declared if not (folder / name).is_file()]
    for path in _artefacts(folder):
        if path.name not in declared:
            found.append(f"{path.name} is not in its record")
        elif facts.sha256(path) != declared[path.name]:
            found.append(f"{path.name} does not match its hash")
    try:
        if not found and Spec.from_json(facts.read_json(folder / CONFIG)).id != folder.name:
            found.append(f"{CONFIG} has another id")
    except ValueError as error:
        found.append(str(error))
    return found


def _refused(folder: Path) -> list[str]:
    """Why the run in ``folder`` is not loaded: its problems, or what it was computed from."""
    found = problems(folder)
    if not found and os.environ.get("UEPO_PRETRAINED") == "0":
        read = facts.read_json(folder / RECORD).get("read", [])
        found = [f"computed from {name}, which was read, not computed" for name in read]
    return found


class Store:
    """The runs, tables and figures of one profile, and the committed runs that may be read.

    ``root`` is ``results/local/<profile>``; ``reference``, if given, ``results/reference``.
    """

    def __init__(self, root: Path, reference: Path | None = None) -> None:
        self.root = Path(root)
        self.reference = reference
        self.runs = self.root / "runs"
        self.figures = self.root / "figures"
        self.tables = self.root / "tables"
        self.notebooks = self.root / "notebooks"

    @classmethod
    def open(cls, profile: str) -> Store:
        """The store of ``profile``: in the checkout's ``results/``, or in ``$UEPO_RESULTS``.

        Outside a checkout, in ``results/`` of the current folder. Nothing is created yet.
        """
        check(re.fullmatch(r"\w[\w.-]*", profile) is not None, "profile", profile, "a plain name")
        home = (facts.repository() or Path.cwd()) / "results"
        results = Path(os.environ.get("UEPO_RESULTS") or home).expanduser().resolve()
        return cls(results / "local" / profile, home / "reference")

    def get_or_train(
        self,
        spec: Spec,
        produce: Callable[[Run], None],
        *,
        expect: str = "a moment",
        device: str = "cpu",
        needs: Callable[[], Iterable[Run]] = tuple,
    ) -> Run:
        """The run of ``spec``: loaded if it is finished, else computed by ``produce(run)``.

        A printed line says that one is computed; of those found :mod:`loads` tells. A finished run
        is one whose artefacts match their hashes. With no finished run here, a committed one with
        the same reading key is read, unless ``UEPO_PRETRAINED=0``; what is computed from one keeps
        so in its record, and is computed again where nothing committed may be read. ``produce``
        writes into the run; if it is interrupted, the next call continues from the checkpoint. A
        second process waits for the first and loads its result.

        Args:
            spec: what to compute.
            produce: fills the run: logs, tables, tensors, JSON.
            expect: how long that takes, for the reader: "about 3 min".
            device: where ``produce`` computes, for the record.
            needs: called before computing: gets the parents, so that their time is not this run's,
                and the record can say which were read.
        """
        run = self._finished(spec) or self._committed(spec)
        if run:
            return run
        read = self.read(needs())
        with self._locked(spec.id):
            # another process may have finished it while this one waited
            return self._finished(spec) or self._train(spec, produce, expect, device, read)

    def read(self, runs: Iterable[Run]) -> list[str]:
        """The ids of the committed runs among ``runs``, and of those that they were computed from
        when these were read."""
        found: set[str] = set()
        for run in runs:
            found.update(run.record.get("read", ()))
            if self.reference is not None and run.folder.parent == self.reference / "runs":
                found.add(run.id)
        return sorted(found)

    def find(self, run_id: str) -> Run:
        """The finished run with this id, here or in the committed set; ``UsageError`` if none."""
        for folder in self._folders():
            if folder.name == run_id:
                return Run.load(folder)
        raise unknown("run", run_id, [folder.name for folder in self._folders()], "uepo runs list")

    def finished(self) -> list[Run]:
        """The finished runs of this store (not the committed ones), by id."""
        return [Run.load(folder) for folder in _visible(self.runs)]

    def computed(self) -> list[dict[str, Any]]:
        """One entry (id, kind, purpose, wall_s, time) for each run that was computed, not loaded,
        here."""
        log = self.root / "computed.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def partial(self, run_id: str) -> Path:
        """The working folder of a run."""
        return self.runs / f".{run_id}.partial"

    def lock(self, run_id: str) -> FileLock:
        """The lock that whoever computes a run holds; the system frees it when a process dies."""
        return FileLock(self.runs / f".{run_id}.lock")

    def _folders(self) -> list[Path]:
        committed = _visible(self.reference / "runs") if self.reference else []
        return [*_visible(self.runs), *committed]

    def _finished(self, spec: Spec) -> Run | None:
        folder = self.runs / spec.id
        try:
            run = None if _refused(folder) else Run.load(folder)
        except FileNotFoundError:  # another process replaces it just now
            return None
        if run:
            loads.note(loads.HERE, spec.id)
        return run

    def _committed(self, spec: Spec) -> Run | None:
        if self.reference is None or os.environ.get("UEPO_PRETRAINED") == "0":
            return None
        for folder in _visible(self.reference / "runs"):
            if facts.read_json(folder / RECORD)["reading_key"] != spec.reading_key:
                continue
            if found := problems(folder):
                found.append("restore it, or compute all with UEPO_PRETRAINED=0")
                raise UsageError(f"committed run {folder.name}: {'; '.join(found)}")
            loads.note(loads.COMMITTED, folder.name)
            return Run.load(folder)
        return None

    def _train(
        self, spec: Spec, produce: Callable[[Run], None], expect: str, device: str, read: list[str]
    ) -> Run:
        destination = self.runs / spec.id
        if destination.is_dir():
            print(f"{spec.id}: {'; '.join(_refused(destination))}; computing it again", flush=True)
        run = Run.start(self.partial(spec.id), spec, read)
        resumed = f" from step {run.resumed_at}" if run.resumed_at else ""
        print(f"training {spec.id}{resumed}: {expect}", flush=True)
        produce(run)
        run = run.finish(destination, device)
        purpose = PURPOSE.get() or facts.notebook() or ""
        entry = {
            "id": run.id, "kind": spec.kind, "purpose": purpose, "wall_s": run.record["wall_s"]
        }  # fmt: skip
        with (self.root / "computed.log").open("a") as log:
            log.write(json.dumps({**entry, "time": time.time()}) + "\n")
        return run

    @contextmanager
    def _locked(self, run_id: str) -> Iterator[None]:
        lock = self.lock(run_id)
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:  # an OSError too
            print(f"waiting for {run_id}: another process computes it", flush=True)
            lock.acquire()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UsageError(
                f"{self.root}: cannot be written ({reason}); set UEPO_RESULTS to a folder that can"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _visible(folder: Path) -> list[Path]:
    """The run folders in ``folder``; working folders and locks start with a dot."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in paths if (p / RECORD).is_file() and not p.name.startswith("."))
