"""What a job computes: by its name, for one task and seed; finished runs are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uepo_lib import guided_sets, judging
from uepo_lib import pixels as camera
from uepo_lib.errors import unknown
from uepo_lib.experiments import (
    data_need,
    discarded,
    epsilon,
    failure_signatures,
    initial_model,
    latency,
    model_selection,
    multi_seed,
    offline_to_online,
    pixels,
    ratios,
    seed_sets,
    three_datasets,
    tradeoffs,
)
from uepo_lib.experiments.online_alternatives import TITLES, alternatives
from uepo_lib.guided_sets import GuidedRobot
from uepo_lib.methods.bc import bc
from uepo_lib.methods.uepo import uepo
from uepo_lib.runs import PURPOSE
from uepo_lib.stages import Product, Study

KAPPAS = (0.25, 0.5, 1.0)
Compute = Callable[[Study], None]


def compute(task: str, name: str, seed: int, profile: str) -> None:
    """The job ``name`` of one task and seed; ``UsageError`` for a name that is none."""
    if name not in JOBS:
        raise unknown("job", name, JOBS)
    token = PURPOSE.set(name)
    try:
        JOBS[name](Study(task, seed, profile, progress=False))
    finally:
        PURPOSE.reset(token)


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


def _sensitivity(study: Study) -> None:
    """E2's remainder: the ratio, what is thrown away, what AM-Q makes of it (11)."""
    for measure in (discarded.measure, model_selection.measure, ratios.measure_ratios):
        _ = measure(study.seed, study.profile).run


def _initial_model(study: Study) -> None:
    """E5: T̂_init of every quality, and one with a wrong gain (14)."""
    _ = initial_model.measure(study.seed, study.profile).run


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


def _comparison(study: Study) -> None:
    """E3: every contender on one task and seed (12)."""
    offline_to_online.measure(study)


def _another_dataset(study: Study) -> None:
    """E3's headline on another dataset of the same task (12)."""
    three_datasets.measure(study)


def _delay(study: Study) -> None:
    """E4: scores of late policies (13); times are measured in the notebook, where all is quiet."""
    _ = latency.measure_delay(study).run


def _seeds(study: Study) -> None:
    """E1: every set of one task and seed (10)."""
    multi_seed.compute(study)


def _rival(study: Study) -> None:
    """One of the n networks that E1 sets beside n seeds of one (10)."""
    beside = seed_sets.network(seed_sets.grid_of(study.profile), study.seed, study.profile)
    _ = beside.diffusion_policy().run, beside.clone().run


def _pixels(study: Study) -> None:
    """E6: executed trajectories, filmed (15); nothing where no frames can be drawn."""
    if camera.missing() is None:
        _ = pixels.measure(study).run


def _failures(study: Study) -> None:
    """E8: every cause of failure for one seed (17)."""
    _ = failure_signatures.measure(study.seed, study.profile).run


def _dials(study: Study) -> None:
    """E7: every dial of the guidance for one seed (16)."""
    tradeoffs.compute(study)


def _data_need(study: Study) -> None:
    """E9: every share of D for one seed (16)."""
    data_need.compute(study.seed, study.profile)


MODELS = {name: _models(name) for name in ("diffusion_policy", "dynamics", "critic", "clone")}
METHODS = {
    "uepo": _uepo,
    "epsilon": _epsilon,
    "sub_policies": _sub_policies,
    "executed": _executed,
    "bc": _bc,
}
ONE_SEED = {"guided": _guided, "simulated": _simulated}
ALTERNATIVES = {f"online {name}": _alternative(name) for name in TITLES if name != "chain"}
MORE = {
    "ranking": _ranking,
    "comparison": _comparison,
    "another dataset": _another_dataset,
    "delay": _delay,
    "sensitivity": _sensitivity,
    "initial_model": _initial_model,
    "seeds": _seeds,
    "rival": _rival,
    "pixels": _pixels,
    "failures": _failures,
    "dials": _dials,
    "data need": _data_need,
}
JOBS: dict[str, Compute] = {**MODELS, **METHODS, **ONE_SEED, **ALTERNATIVES, **MORE}
"""Every job by its name."""
