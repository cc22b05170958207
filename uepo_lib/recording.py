"""What a run's folder holds while it is written: streamed tables, artefacts, one checkpoint."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uepo_lib import facts
from uepo_lib.errors import UsageError

RECORD = "run.json"
CONFIG = "config.json"
CHECKPOINT = "checkpoint.pt"


class TrainingDiverged(UsageError):
    """A logged metric is NaN or infinite: the settings do not train."""


class Table:
    """A CSV file that grows row by row; the first row fixes its columns."""

    def __init__(self, path: Path, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self._columns: list[str] | None = None  # not looked up yet

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row in one write, numbers in full precision; ``ValueError`` on other columns."""
        if not self.writable:
            raise RuntimeError(
                f"{self.path.parent.name} is finished: {self.path.name} is read only"
            )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self._columns is None:
            self._columns = self._header()
        if not self._columns:
            self._columns = list(row)
            writer.writerow(self._columns)
        if set(row) != set(self._columns):
            raise ValueError(f"{self.path.name}: columns {list(row)} after {self._columns}")
        writer.writerow([_scalar(row[column]) for column in self._columns])
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())

    def frame(self) -> pd.DataFrame:
        """The whole table; an empty one if nothing was appended."""
        if not self._header():
            return pd.DataFrame()
        return pd.read_csv(self.path)

    def _header(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])


def _scalar(value: Any) -> Any:
    """A zero-dimensional tensor or array as the number it holds."""
    return value.item() if hasattr(value, "item") else value


class Recording:
    """The folder of a run as a :class:`~uepo_lib.training.Recorder`, with named artefacts.

    A run that is being computed may be killed at any moment: all that it wrote after its last
    checkpoint is dropped when it is opened again, so it repeats nothing and skips nothing.
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder = folder
        self.record = record
        self.resumed_at: int | None = None
        self._checkpoint: dict[str, Any] | None = None
        self._readable = False
        self._loops = 0
        self._tables: dict[str, Table] = {}
        self._progress: dict[str, Any] = {"wall_s": 0.0, "resumes": 0, "environment": {}}
        self._started = time.monotonic()

    # -- training.Recorder

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row to ``metrics.csv``; :class:`TrainingDiverged` if a value is not finite."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"{self._name}: {name} is {value} at step {step}: it diverged"
                )
        self.table("metrics").append({"step": step, **metrics})

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep ``state`` and how far every table has come, in one atomic file."""
        self._require_open()
        path = self.folder / CHECKPOINT
        for table in self.folder.glob("*.csv"):  # on the disk before the checkpoint counts on them
            facts.flush(table)
        content = {
            "step": step,
            "state": dict(state),
            "progress": self.progress(),
            "sizes": {file.name: file.stat().st_size for file in self._written()},
        }
        facts.replace_file(path, lambda partial: torch.save(content, partial))
        if not self._readable:  # a state that cannot be read back must fail now, not after a kill
            torch.load(path, map_location="cpu", weights_only=True)
            self._readable = True

    def load_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """The checkpoint this run was opened at. One run holds one training loop."""
        self._loops += 1
        if self._loops > 1:
            raise RuntimeError(f"{self.folder.name}: one training loop a run; give each its own")
        saved, self._checkpoint = self._checkpoint, None  # large, and needed once
        return (saved["step"], saved["state"]) if saved else None

    # -- tables and artefacts

    def table(self, name: str) -> Table:
        """The table ``<name>.csv`` of this run, to append to or to read."""
        if name not in self._tables:
            writable = self.record["status"] == "running"
            self._tables[name] = Table(self._path(name, ".csv"), writable)
        return self._tables[name]

    @property
    def metrics(self) -> pd.DataFrame:
        """What was logged: ``step`` and a column a metric."""
        return self.table("metrics").frame()

    def save_tensors(self, tensors: Mapping[str, Tensor], name: str = "model.safetensors") -> None:
        """Write tensors by name, as they are on the CPU."""
        self._require_open()
        # safetensors refuses views of one storage: write a copy of each
        content = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        content = {key: tensor.contiguous() for key, tensor in content.items()}
        path = self._path(name, ".safetensors")
        facts.replace_file(path, lambda partial: save_file(content, partial))

    def tensors(self, name: str = "model.safetensors", device: str = "cpu") -> dict[str, Tensor]:
        """Read what :meth:`save_tensors` wrote."""
        return load_file(self._path(name, ".safetensors"), device=device)

    def save_json(self, name: str, content: Any) -> None:
        """Write ``<name>.json``; ``ValueError`` if it holds NaN or an infinity."""
        self._require_open()
        facts.write_json(self._path(name, ".json"), content)

    def json(self, name: str) -> Any:
        """Read what :meth:`save_json` wrote."""
        return facts.read_json(self._path(name, ".json"))

    def account(self, purpose: str, steps: int, episodes: int = 0) -> None:
        """Count environment steps and episodes that were spent on ``purpose``."""
        self._require_open()
        spent = self._progress["environment"].setdefault(purpose, {"steps": 0, "episodes": 0})
        spent["steps"] += int(steps)
        spent["episodes"] += int(episodes)

    # -- life

    def progress(self) -> dict[str, Any]:
        """Wall time in seconds over all resumes, their number, environment steps by purpose; and
        the committed runs that it builds on, if any."""
        seconds = self._progress["wall_s"] + time.monotonic() - self._started
        return {**self._progress, "wall_s": round(seconds, 3)}

    def restore(self, read: Sequence[str] = ()) -> None:
        """Bring the folder back to its checkpoint; without one, start with an empty folder.

        ``read`` are the committed runs that it builds on, and part of the record. A checkpoint of
        a run that built on others is not gone on with.
        """
        path = self.folder / CHECKPOINT
        saved = self._read_checkpoint(path) if path.is_file() else None
        if saved and (lost := self._lost(saved["sizes"])):
            print(f"{self._name}: {', '.join(lost)} cut short; starting over", flush=True)
            saved = None
        if saved is None or saved["progress"].get("read", []) != list(read):
            self._progress |= {"read": list(read)} if read else {}
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            return
        for file in self._written():
            if file.name not in saved["sizes"]:
                file.unlink()
            elif file.suffix == ".csv":
                os.truncate(file, saved["sizes"][file.name])
        self._progress = {**saved["progress"], "resumes": saved["progress"]["resumes"] + 1}
        self._checkpoint = saved
        self.resumed_at = saved["step"]

    def _read_checkpoint(self, path: Path) -> dict[str, Any] | None:
        """What ``path`` holds; None, said in a line, where a disk has lost part of it."""
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError):
            print(f"{self._name}: {CHECKPOINT} is not readable; starting over", flush=True)
            return None
        return saved

    @property
    def _name(self) -> str:
        """The run's id, of its working folder too."""
        return self.folder.name.removeprefix(".").removesuffix(".partial")

    def _lost(self, sizes: Mapping[str, int]) -> list[str]:
        """What a power cut took of the files that a checkpoint counts on: a whole one, or rows."""
        here = {file.name: file.stat().st_size for file in self._written()}
        least = {name: size if name.endswith(".csv") else 0 for name, size in sizes.items()}
        return [name for name, size in least.items() if here.get(name, -1) < size]

    def _written(self) -> list[Path]:
        """Tables, artefacts, and what a kill left of a file that was being replaced."""
        return [path for path in self.folder.iterdir() if path.name not in (CONFIG, CHECKPOINT)]

    def _path(self, name: str, suffix: str) -> Path:
        name = name if name.endswith(suffix) else name + suffix
        if Path(name).name != name or name in (RECORD, CONFIG) or name.startswith("."):
            raise UsageError(f"name={name!r}: must be a plain file name that a run does not use")
        return self.folder / name

    def _require_open(self) -> None:
        if self.record["status"] != "running":
            raise RuntimeError(f"{self.folder.name} is finished: it cannot be changed")
