"""Data and shared models for all notebooks, before the first of them opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uepo_lib import facts, profiles, sweep, tasks
from uepo_lib.errors import unknown
from uepo_lib.experiments import (
    data_need,
    epsilon,
    failure_signatures,
    filming,
    latency,
    offline_to_online,
    seed_sets,
    three_datasets,
    tradeoffs,
)
from uepo_lib.experiments.online_alternatives import TITLES, seeds_for
from uepo_lib.jobs import METHODS, MODELS, ONE_SEED, compute
from uepo_lib.stages import Product, Study, load_all

TASK = "hopper-medium"
QUIET = "pen-expert"
"""Expert data with little action noise, beside a medium policy's with much (02)."""
Job = tuple[str, str, int]
"""A task, what to do (``jobs.JOBS``), and a seed."""


def prepare(profile: str, workers: int | None = None) -> None:
    """Collect every local dataset and compute what the notebooks share; finished runs are loaded.

    ``workers`` processes side by side, by default :func:`sweep.cores`; the numbers do not depend on
    it. The jobs of a wave are independent of each other, the longest first.
    """
    load_all(list(tasks.LOCAL), profile, workers)
    seeds = profiles.budget(profile).seeds
    waves: dict[str, list[Job]] = {
        "models": [(QUIET, "diffusion_policy", seed) for seed in seeds]
        + [(TASK, name, seed) for name in MODELS for seed in seeds],
        "methods": [(TASK, name, seed) for name in METHODS for seed in seeds]
        + [(task, "ranking", seed) for task in (TASK, QUIET) for seed in seeds]
        + [(TASK, name, seeds[0]) for name in ONE_SEED]
        + EXPERIMENTS["latency"].jobs(profile),
        "experiments": _experiment_jobs(profile),
        "alternatives": [
            (TASK, f"online {name}", seed)
            for name in TITLES
            for seed in seeds_for(name, seeds)
            if name != "chain"
        ],
    }
    for title, jobs in waves.items():
        _run_all(jobs, profile, workers, f"shared {title}")


def _run_all(jobs: list[Job], profile: str, workers: int | None, name: str) -> None:
    calls = [(compute, (*job, profile)) for job in jobs]
    sweep.run_all(calls, workers or sweep.cores(), name=name)


def prepare_experiment(name: str, profile: str, workers: int | None = None) -> None:
    """The data and the runs of one experiment alone; see :data:`EXPERIMENTS`."""
    chosen = experiment(name)
    load_all(list(chosen.data(profile)), profile, workers)
    _run_all(chosen.jobs(profile), profile, workers, name)


def experiment(name: str) -> Experiment:
    """The experiment called ``name``, or whose notebook is: "epsilon", "05", "05_augmentation".

    ``UsageError`` with the nearest valid name otherwise.
    """
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    number, _, title = name.partition("_")
    folder = (facts.repository() or Path.cwd()) / "notebooks"
    matching = [chosen for chosen in EXPERIMENTS.values() if chosen.notebook == number.zfill(2)]
    if len(matching) != 1 or (title and not (folder / f"{name}.ipynb").is_file()):
        numbers = [chosen.notebook for chosen in EXPERIMENTS.values()]
        raise unknown("experiment", name, [*EXPERIMENTS, *numbers])
    return matching[0]


@dataclass(frozen=True)
class Experiment:
    """What ``python -m uepo_lib experiment`` needs: the notebook that shows it, its data, its
    jobs."""

    notebook: str
    data: Callable[[str], Sequence[str]]
    jobs: Callable[[str], list[Job]]


def _each_seed(job: str, names: Callable[[str], Sequence[str]]) -> Callable[[str], list[Job]]:
    return lambda profile: [
        (task, job, seed) for task in names(profile) for seed in profiles.budget(profile).seeds
    ]


def _of(*names: str) -> Callable[[str], Sequence[str]]:
    return lambda _: names


def _compared(profile: str) -> Sequence[str]:
    return offline_to_online.comparison_of(profile).tasks


def _comparison_data(profile: str) -> Sequence[str]:
    return [*offline_to_online.data_of(profile), *three_datasets.datasets_of(profile)[1:]]


def _comparison_jobs(profile: str) -> list[Job]:
    others = _each_seed("another dataset", lambda name: three_datasets.datasets_of(name)[1:])
    return _each_seed("comparison", _compared)(profile) + others(profile)


def _seed_tasks(profile: str) -> Sequence[str]:
    return seed_sets.grid_of(profile).tasks


def _seed_jobs(profile: str) -> list[Job]:
    grid = seed_sets.grid_of(profile)
    networks: list[Job] = [(grid.rivals, "rival", i) for i in range(grid.n)]
    return networks + _each_seed("seeds", _seed_tasks)(profile)


def _dial_jobs(profile: str) -> list[Job]:
    """E7's and E9's own; and those of E1 and E2 that the page of all dials shows beside them."""
    needs = _each_seed("data need", _of(data_need.TASK))(profile)
    own = needs + _each_seed("dials", _of(tradeoffs.TASK))(profile)
    n, ratio = _of(_seed_tasks(profile)[0]), _of(epsilon.TASK)
    return own + _each_seed("seeds", n)(profile) + _each_seed("sensitivity", ratio)(profile)


def _dial_data(profile: str) -> Sequence[str]:
    return list(dict.fromkeys((tradeoffs.TASK, _seed_tasks(profile)[0], *_E2_DATA(profile))))


def _failure_jobs(profile: str) -> list[Job]:
    seeds = failure_signatures.grid_of(profile).seeds
    return [(failure_signatures.TASK, "failures", seed) for seed in seeds]


_E2_DATA = _of(epsilon.TASK, epsilon.ELSEWHERE)
EXPERIMENTS = {
    "multi_seed": Experiment("10", _seed_tasks, _seed_jobs),
    "epsilon": Experiment("05", _E2_DATA, _each_seed("epsilon", _of(epsilon.TASK))),
    "epsilon_sensitivity": Experiment("11", _E2_DATA, _each_seed("sensitivity", _of(epsilon.TASK))),
    "offline_to_online": Experiment("12", _comparison_data, _comparison_jobs),
    "latency": Experiment("13", _of(latency.TASK), _each_seed("delay", _of(latency.TASK))),
    "initial_model": Experiment(
        "14", _of(epsilon.TASK), _each_seed("initial_model", _of(epsilon.TASK))
    ),
    "pixels": Experiment("15", _of(filming.TASK), _each_seed("pixels", _of(filming.TASK))),
    "tradeoffs": Experiment("16", _dial_data, _dial_jobs),
    "failure_signatures": Experiment("17", _of(failure_signatures.TASK), _failure_jobs),
}
LONGEST_FIRST = (
    "offline_to_online", "multi_seed", "initial_model", "epsilon_sensitivity", "tradeoffs",
    "pixels", "failure_signatures",
)  # fmt: skip
"""The experiments that need nothing of each other, in the order in which they begin."""


def _experiment_jobs(profile: str) -> list[Job]:
    """Of all of these, each job once: a page may show another experiment's runs."""
    return list(dict.fromkeys(j for name in LONGEST_FIRST for j in EXPERIMENTS[name].jobs(profile)))


def reading_set(profile: str) -> list[str]:
    """The ids of the small models that are committed for readers: seed 0's policies, Q, V and T̂."""
    study = Study(TASK, 0, profile, progress=False)
    model, initial = study.diffusion_policy(), study.dynamics()
    synthetic = study.synthesise(study.sub_policies(model, 1.0, guided=True), initial)
    products: list[Product[Any]] = [model, study.dynamics(synthetic), study.critic(), study.clone()]
    return [product.keys[0].id for product in products]
