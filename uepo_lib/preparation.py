"""Data and shared models for all notebooks, before the first of them opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from uepo_lib import guided_sets, judging, profiles, sweep, tasks
from uepo_lib.errors import unknown
from uepo_lib.experiments import epsilon, failure_signatures, latency, offline_to_online
from uepo_lib.experiments.online_alternatives import TITLES, alternatives, seeds_for
from uepo_lib.guided_sets import GuidedRobot
from uepo_lib.methods.bc import bc
from uepo_lib.methods.uepo import uepo
from uepo_lib.stages import Product, Study, load_all

TASK = "hopper-medium"
QUIET = "pen-expert"
"""Expert data with little action noise, beside a medium policy's with much (02)."""
KAPPAS = (0.25, 0.5, 1.0)
Job = tuple[str, str, int]
"""A task, what to do, and a seed."""


def prepare(profile: str, workers: int | None = None) -> None:
    """Collect every local dataset and compute what the notebooks share; finished runs are loaded.

    ``workers`` processes side by side, by default one a core; the numbers do not depend on it. The
    jobs of a wave are independent of each other, the longest first.
    """
    load_all(list(tasks.LOCAL), profile, workers)
    seeds = profiles.budget(profile).seeds
    waves: dict[str, list[Job]] = {
        "models": [(TASK, name, seed) for name in MODELS for seed in seeds]
        + [(QUIET, "diffusion_policy", seed) for seed in seeds],
        "methods": [(TASK, name, seed) for name in METHODS for seed in seeds]
        + [(task, "ranking", seed) for task in (TASK, QUIET) for seed in seeds]
        + [(TASK, name, seeds[0]) for name in ONE_SEED]
        + EXPERIMENTS["latency"].jobs(profile),
        "comparisons": EXPERIMENTS["offline_to_online"].jobs(profile)
        + EXPERIMENTS["failure_signatures"].jobs(profile),
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
    calls = [(_do, (*job, profile)) for job in jobs]
    sweep.run_all(calls, workers or os.cpu_count() or 1, name=name)


def prepare_experiment(name: str, profile: str, workers: int | None = None) -> None:
    """The data and the runs of one experiment alone; see :data:`EXPERIMENTS`."""
    chosen = experiment(name)
    load_all(list(chosen.data(profile)), profile, workers)
    _run_all(chosen.jobs(profile), profile, workers, name)


def experiment(name: str) -> Experiment:
    """The experiment called ``name``; ``UsageError`` with the nearest valid name otherwise."""
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


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


def _models(stage: str) -> Callable[[Study], None]:
    def compute(study: Study) -> None:
        product: Product[Any] = getattr(study, stage)()
        _ = product.run

    return compute


def _sub_policies(study: Study) -> None:
    """Zero noise, the κ sweep, and online PPO from the median sub-policy at κ = 0.5 (03, 07)."""
    model = study.diffusion_policy()
    _ = study.evaluate(study.zero_noise(model)).run
    _ = study.evaluate(study.fresh(model), sampled=True).run
    for kappa in KAPPAS:
        _ = study.evaluate(study.sub_policies(model, kappa), study.budget.curve_episodes).run
    median = study.median_member(study.sub_policies(model, 0.5))
    _ = study.fine_tune(median, study.critic()).run


def _guided(study: Study) -> None:
    """What guidance costs in return (04)."""
    for robot in _guided_robots(study):
        for played in robot.returns().values():
            _ = played.run


def _executed(study: Study) -> None:
    """What sub-policies do from the same logged states (04)."""
    for robot in _guided_robots(study):
        for product in robot.trajectories().values():
            _ = product.run


def _guided_robots(study: Study) -> list[GuidedRobot]:
    return [
        GuidedRobot(Study(task, study.seed, study.profile, progress=False))
        for task in guided_sets.TASKS
    ]


def _simulated(study: Study) -> None:
    """A small D_diff with the simulator's transitions, steps and resets counted (05)."""
    guided = study.sub_policies(study.diffusion_policy(), 1.0, guided=True)
    _ = study.synthesise(guided, study.dynamics(), transitions="simulator", ratio=0.1).run


def _epsilon(study: Study) -> None:
    """E2: every ε on one pool of trajectories (05)."""
    _ = epsilon.measure(study.seed, study.profile).run


def _ranking(study: Study) -> None:
    """What likelihood ranks above what (02)."""
    _ = judging.rank_sequences(study, study.diffusion_policy()).run


def _uepo(study: Study) -> None:
    made = uepo(study)
    _ = made.online.run, made.online_dynamics.run


def _bc(study: Study) -> None:
    _ = bc(study).online.run


def _alternative(name: str) -> Callable[[Study], None]:
    """One other way to go online from π*, once the method itself has (07)."""

    def compute(study: Study) -> None:
        _ = alternatives(study, uepo(study))[name].run

    return compute


MODELS = {name: _models(name) for name in ("dynamics", "diffusion_policy", "critic", "clone")}
METHODS = {
    "uepo": _uepo,
    "epsilon": _epsilon,
    "sub_policies": _sub_policies,
    "executed": _executed,
    "bc": _bc,
}
ONE_SEED = {"guided": _guided, "simulated": _simulated}
ALTERNATIVES = {f"online {name}": _alternative(name) for name in TITLES if name != "chain"}


def _comparison(study: Study) -> None:
    """E3: every contender on one task and seed (12)."""
    offline_to_online.measure(study)


def _compared(profile: str) -> Sequence[str]:
    return offline_to_online.comparison_of(profile).tasks


def _delay(study: Study) -> None:
    """E4: scores of late policies (13); times are measured in the notebook, where all is quiet."""
    _ = latency.measure_delay(study).run


def _failures(study: Study) -> None:
    """E8: every cause of failure for one seed (17)."""
    _ = failure_signatures.measure(study.seed, study.profile).run


def _failing(profile: str) -> list[Job]:
    grid = failure_signatures.grid_of(profile)
    return [(failure_signatures.TASK, "failures", seed) for seed in grid.seeds]


EXPERIMENTS = {
    "latency": Experiment(
        "13", lambda _: (latency.TASK,), _each_seed("delay", lambda _: (latency.TASK,))
    ),
    "epsilon": Experiment(
        "05", lambda _: (epsilon.TASK, epsilon.ELSEWHERE), _each_seed("epsilon", lambda _: (TASK,))
    ),
    "offline_to_online": Experiment(
        "12", offline_to_online.data_of, _each_seed("comparison", _compared)
    ),
    "failure_signatures": Experiment("17", lambda _: (failure_signatures.TASK,), _failing),
}


def _do(task: str, name: str, seed: int, profile: str) -> None:
    study = Study(task, seed, profile, progress=False)
    more = {"ranking": _ranking, "comparison": _comparison, "delay": _delay, "failures": _failures}
    {**MODELS, **METHODS, **ONE_SEED, **ALTERNATIVES, **more}[name](study)


def reading_set(profile: str) -> list[str]:
    """The ids of the small models that are committed for readers: seed 0's policies, Q, V and T̂."""
    study = Study(TASK, 0, profile, progress=False)
    model, initial = study.diffusion_policy(), study.dynamics()
    synthetic = study.synthesise(study.sub_policies(model, 1.0, guided=True), initial)
    products: list[Product[Any]] = [model, study.dynamics(synthetic), study.critic(), study.clone()]
    return [product.keys[0].id for product in products]
