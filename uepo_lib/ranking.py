"""Likelihood as a ranking: does what was done score above spoilt copies of it? (A5)

A *pair* is a sequence and a copy of it, its steps shuffled in time or N(0, (c σ_a)²) added, σ_a
being the dataset's standard deviation of each action. Both are scored in the same states with the
same noise draws (common random numbers), so that what differs between the scores is the actions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uepo_lib.behaviors import BehaviourPolicy
from uepo_lib.datasets import Batch
from uepo_lib.denoisers import Context
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.likelihood import BIN_WIDTH, estimation_errors, log_decoder, log_likelihood_bound
from uepo_lib.probability_flow import flow_log_likelihood

REVISION = 1

SCALES = (0.0625, 0.125, 0.25, 0.5)
"""c: the standard deviation of the perturbation over σ_a."""
MAX_SEQUENCES = 512
FLOW_EVERY = 10
"""The flow scores one sequence in so many."""
FLOW_SIZE = 32
"""T·A up to which the flow's exact trace is computed: 24 for Hopper."""


def spoilt(actions: Tensor, sigma: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Copies of ``actions`` (B, T, A): "logged", "shuffled", "noise 0.5", ...; ``sigma`` (A,).

    Each row has its own order of steps. The noises are multiples of one draw, and what leaves the
    box [−1, 1] is clipped, as the logged actions were.
    """
    order = torch.rand(actions.shape[:2], generator=generator).argsort(dim=1)
    noise = torch.randn(actions.shape, generator=generator)
    copies = {"logged": actions, "shuffled": actions.take_along_dim(order[..., None], dim=1)}
    for scale in SCALES:
        copies[f"noise {scale:g}"] = (actions + scale * sigma * noise).clamp(-1, 1)
    return copies


def by_model(
    model: DiffusionModel, batch: Batch, copies: Mapping[str, Tensor], known: Batch, seed: int
) -> dict[str, Tensor]:
    """Log-likelihoods (B,) of every copy in the states of ``batch``, as "judge.copy".

    Judges: "past" and "whole", the calibrated bound given s_t, or the paper's s_{1:T}; "flow", the
    probability flow given s_{1:T}, where T·A is small, for one row in ``FLOW_EVERY`` and without
    the smaller noises. ``known`` are training data, which the bound is calibrated on.
    """
    scores = {}
    for judge, whole in (("past", False), ("whole", True)):
        context, errors = _seen(model, batch, whole), _errors(model, known, whole, seed)
        for name, actions in copies.items():
            draws = torch.Generator().manual_seed(seed)
            scores[f"{judge}.{name}"] = log_likelihood_bound(
                model, actions, context, draws, errors=errors
            )
    if batch.actions[0].numel() <= FLOW_SIZE:
        rows = slice(None, None, FLOW_EVERY)
        context = _seen(model, Batch(*(part[rows] for part in batch)), whole=True)
        for name in ("logged", "shuffled", f"noise {max(SCALES):g}"):
            draws = torch.Generator().manual_seed(seed)
            scores[f"flow.{name}"] = flow_log_likelihood(
                model, copies[name][rows], context, draws, errors=errors
            )
    return scores


def by_behaviour(
    policy: BehaviourPolicy, std: Tensor, raw_states: Tensor, copies: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The exact likelihood under the policy that acted, Π_t N(a_t; μ(s_t), std²) clipped to the
    box: ``raw_states`` (B, T, S), copies (B, T, A) -> "behaviour.copy" (B,).

    What a model could know at best from states alone.
    """
    mean = policy.mean_action(raw_states.flatten(0, 1)).unflatten(0, raw_states.shape[:2])
    return {
        f"behaviour.{name}": log_decoder(actions, mean, std, BIN_WIDTH)
        for name, actions in copies.items()
    }


def pairs_won(logged: Tensor, copy: Tensor) -> float:
    """Share of pairs in which the logged sequence scores higher, a tie counting half."""
    return float((logged > copy).float().mean() + (logged == copy).float().mean() / 2)


def auc(logged: Tensor, copy: Tensor) -> float:
    """The same over all pairs of any logged with any spoilt sequence, two (N,): the area under the
    ROC curve of a threshold on the score, Mann and Whitney's U / N²."""
    return pairs_won(logged[:, None], copy[None])


def _seen(model: DiffusionModel, batch: Batch, whole: bool) -> Context:
    return model.encode(batch.past, batch.future if whole else None)


def _errors(model: DiffusionModel, known: Batch, whole: bool, seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return estimation_errors(model, known.actions, _seen(model, known, whole), draws)
