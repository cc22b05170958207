"""From a figure or a table back to its runs, and whether all of it still holds together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from uepo_lib import facts
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.recording import CONFIG, RECORD
from uepo_lib.runs import Run, Spec, Store, problems

SUFFIX = ".provenance.json"
FIELDS = ("runs", "profile", "seeds", "task", "commit", "dirty", "notebook", "created", "outputs")
MADE = ("commit", "dirty", "created")
"""The fields that say when and at which commit, not what."""


@dataclass(frozen=True)
class Problem:
    """One thing that :func:`verify` found: ``subject`` is a run id or a file."""

    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}"


def record_output(
    paths: Path | Sequence[Path],
    runs: Iterable[Run],
    *,
    profile: str,
    seeds: Sequence[int],
    task: str,
) -> Path:
    """Write beside a figure or table where it comes from; call it after the files are written.

    Args:
        paths: one output in one or more formats: ``[a/hopper.png, a/hopper.pdf]``.
        runs: the runs it shows; none for what is drawn from a dataset or a closed form.
        profile: the budget it was made with.
        seeds: the seeds it shows.
        task: the task's name, or what stands in its place ("toy").

    Returns:
        The path of ``<stem>.provenance.json``.
    """
    outputs = [paths] if isinstance(paths, Path) else list(paths)
    stems = {path.with_suffix("") for path in outputs}
    check(len(stems) == 1, "paths", [p.name for p in outputs], "files that differ in suffix only")
    content = {
        "runs": sorted({run.id for run in runs}),
        "profile": profile,
        "seeds": [int(seed) for seed in seeds],
        "task": task,
        **facts.commit(),
        "notebook": facts.notebook(),
        "created": facts.now(),
        "outputs": {path.name: facts.sha256(path) for path in sorted(outputs)},
    }
    target = outputs[0].with_name(outputs[0].stem + SUFFIX)
    facts.write_json(target, content)
    return target


@contextmanager
def keeping(path: Path, runs: Iterable[Run]) -> Iterator[None]:
    """Put the provenance at ``path`` back as it was, if what is written within says the same.

    The same are files, runs and labels; when and at which commit may differ. One that is older than
    a run of ``runs``, or of uncommitted code where the new one is not, is not put back.
    """
    before = facts.read_json(path) if path.is_file() else None
    yield
    after = facts.read_json(path)
    if before is None or {**after, **{name: before.get(name) for name in MADE}} != before:
        return
    outdated = any(run.record["created"] > before["created"] for run in runs)
    if not outdated and (after["dirty"] or not before["dirty"]):
        facts.write_json(path, before)


def verify(store: Store) -> list[Problem]:
    """All that does not hold in a store; an empty list is good news.

    Every finished run matches its record; every figure and table has a complete provenance, is the
    file that was recorded, and is newer than its runs, which exist and are finished.
    """
    found = []
    for folder in sorted(store.runs.glob("[!.]*")):
        found += [Problem(folder.name, message) for message in problems(folder)]
    for path in outputs(store):
        if not _provenance_of(path).is_file():
            found.append(Problem(_name(store, path), "has no provenance"))
    for path in provenances(store):
        found += [Problem(_name(store, path), message) for message in _check(store, path)]
    return found


def outputs(store: Store) -> list[Path]:
    """The figures and tables of a store, without their provenance."""
    return [path for path in _files(store) if not path.name.endswith(SUFFIX)]


def provenances(store: Store) -> list[Path]:
    """The provenance files of a store's figures and tables."""
    return [path for path in _files(store) if path.name.endswith(SUFFIX)]


def _files(store: Store) -> Iterator[Path]:
    for folder in (store.figures, store.tables):
        yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _provenance_of(path: Path) -> Path:
    return path.with_name(path.stem + SUFFIX)


def _name(store: Store, path: Path) -> str:
    return path.relative_to(store.root).as_posix()


def _check(store: Store, path: Path) -> Iterator[str]:
    content = facts.read_json(path)
    missing = [field for field in FIELDS if field not in content]
    if missing:
        yield f"lacks {', '.join(missing)}"
        return
    recorded = content["outputs"]
    for name, digest in recorded.items():
        if not (path.parent / name).is_file():
            yield f"{name} is missing"
        elif facts.sha256(path.parent / name) != digest:
            yield f"{name} is not the file that was recorded"
    stem = path.name.removesuffix(SUFFIX)
    for other in path.parent.glob(f"{stem}.*"):
        if other != path and other.stem == stem and other.name not in recorded:
            yield f"{other.name} is not in it"
    for run_id in content["runs"]:
        try:
            run = store.find(run_id)
        except UsageError:
            yield f"run {run_id} does not exist"
            continue
        if run.record["created"] > content["created"]:
            yield f"is older than run {run_id}"


def list_committed(store: Store) -> list[dict[str, Any]]:
    """As :func:`list_runs`, of the profile's committed runs: most are records without weights."""
    if store.reference is None:
        return []
    folders = _run_folders(store.reference / store.root.name / "runs")
    return [_summary(Run.load(folder)) for folder in folders.values()]


def _run_folders(place: Path) -> dict[str, Path]:
    """The finished runs in a folder, by id; working folders start with a dot."""
    return {path.parent.name: path.parent for path in sorted(place.glob(f"[!.]*/{RECORD}"))}


def list_runs(store: Store) -> list[dict[str, Any]]:
    """One plain dictionary a run, finished, running or interrupted, by id."""
    rows = [_summary(run) for run in store.finished()]
    for config in store.runs.glob(f".*.partial/{CONFIG}"):
        rows.append(_unfinished(store, Spec.from_json(facts.read_json(config))))
    return sorted(rows, key=lambda row: row["id"])


def _summary(run: Run) -> dict[str, Any]:
    record = run.record
    dataset = record["dataset"]["id"] if record["dataset"] else None
    row = {key: record[key] for key in ("id", "kind", "status", "seed")}
    return {**row, "dataset": dataset, "wall_s": record["wall_s"], "created": record["created"]}


def _unfinished(store: Store, spec: Spec) -> dict[str, Any]:
    lock = store.lock(spec.id)
    try:
        lock.acquire(blocking=False)
        lock.release()
        status = "interrupted"
    except Timeout:
        status = "running"
    dataset = spec.dataset.id if spec.dataset else None
    row = {"id": spec.id, "kind": spec.kind, "status": status, "seed": spec.config.get("seed")}
    return {**row, "dataset": dataset, "wall_s": None, "created": None}


def show(store: Store, run_id: str) -> dict[str, Any]:
    """Everything known of one finished run: its record, its configuration, its folder.

    ``found`` says whether that is a run computed here ("local") or a committed one. Raises
    ``UsageError`` if there is neither.
    """
    places = {"local": _run_folders(store.runs)}
    if store.reference is not None:
        records = _run_folders(store.reference / store.root.name / "runs")
        places["committed"] = records | _run_folders(store.reference / "runs")  # with weights
    for found, folders in places.items():
        if run_id in folders:
            run = Run.load(folders[run_id])
            place = {"found": found, "folder": str(run.folder)}
            return {**run.record, "config": asdict(run.spec)["config"], **place}
    known = {name for folders in places.values() for name in folders}
    raise unknown("run", run_id, known, "uepo runs list [--reference]")
