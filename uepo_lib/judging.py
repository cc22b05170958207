"""The stage behind the likelihood ranking: episodes that no model saw, and every judge's scores."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from uepo_lib import (
    behaviors,
    collection,
    datasets,
    denoisers,
    diffusion,
    likelihood,
    loading,
    probability_flow,
    ranking,
    recipes,
    robots,
    schedules,
)
from uepo_lib.datasets import Batch, Dataset
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.errors import check
from uepo_lib.products import Product
from uepo_lib.runs import Run
from uepo_lib.stages import Study

HELD_OUT_SEED = 900
"""Of the recipe that plays the held-out episodes; the datasets have 0, 1 and 2."""
STEPS_PER_SEQUENCE = 10
"""More than T = 8, so that sequences hardly overlap."""


def rank_sequences(study: Study, model: Product[DiffusionModel]) -> Product[dict[str, Tensor]]:
    """Scores of held-out sequences and of their spoilt copies, "judge.copy" -> (N,) nats.

    The judges of :func:`ranking.by_model`, and "behaviour" where one policy collected D.
    """
    count = min(ranking.MAX_SEQUENCES, study.budget.num_transitions // 200)

    def produce(run: Run) -> None:
        fresh = held_out_episodes(study, STEPS_PER_SEQUENCE * count)
        run.account("evaluation", len(fresh), len(fresh.bounds))
        windows = fresh.windows(study.obs_horizon, study.windows.horizon)
        batch = windows.batch(torch.linspace(0, len(windows) - 1, count).long())
        known = torch.linspace(0, len(study.windows) - 1, 4 * count).long()
        sigma = study.dataset.actions.std(dim=0)
        copies = ranking.spoilt(batch.actions, sigma, study.generator("spoilt copies"))
        scores = ranking.by_model(
            model.value, batch, copies, study.windows.batch(known), study.seed
        )
        run.save_tensors({**scores, **_by_behaviour(study, batch, copies)}, "scores")

    config = {
        "sequences": count, "flow_every": ranking.FLOW_EVERY, "flow_size": ranking.FLOW_SIZE,
        "scales": ranking.SCALES, "held_out_seed": HELD_OUT_SEED,
    }  # fmt: skip
    modules = (
        robots, datasets, collection, schedules, denoisers, diffusion, likelihood, probability_flow,
        ranking,
    )  # fmt: skip
    return study.stage(
        "ranking", config, produce, lambda run: run.tensors("scores"), modules, (model,),
        "about 1 min",
    )  # fmt: skip


def held_out_episodes(study: Study, num_steps: int) -> Dataset:
    """``num_steps`` new steps of the policies that collected D: no model has learnt from them.

    Other resets and other noise; states are standardised as D's. ``UsageError`` if D was not
    collected here.
    """
    task = study.task
    check(task.source == "local", "task", task.name, "one whose data is collected here")
    other = replace(task, dataset_id=task.dataset_id.replace("-v0", "-held-out-v0"))
    recipe = replace(recipes.recipe_for(task, num_steps), seed=HELD_OUT_SEED, num_envs=8)
    with tempfile.TemporaryDirectory() as folder:
        collection.collect(other, recipe, Path(folder), progress=False)
        return loading.load(other, Path(folder)).restandardised(study.dataset.normaliser)


def _by_behaviour(study: Study, batch: Batch, copies: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = recipes.recipe_for(study.task, study.budget.num_transitions).parts
    if len(parts) > 1 or parts[0].level == recipes.CONTROLLER:
        return {}
    policy = behaviors.load_behaviour(study.task.robot, parts[0].level)
    std = policy.action_noise if parts[0].noise is None else torch.tensor(parts[0].noise)
    states = torch.cat([batch.past[:, -1:], batch.future], dim=1)
    raw = study.dataset.normaliser.inverse(states)
    return ranking.by_behaviour(policy, std, raw, copies)
