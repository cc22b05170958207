"""Notebook 04: do embeddings of one diffusion model specialise on modes? Tables, then a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.coverage import null_coverage
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel, train_diffusion
from uepo_lib.diversity import printed_term, separating_term
from uepo_lib.embedding import (
    EmbeddedModel,
    EmbeddedPolicies,
    EmbeddingConfig,
    member_log_likelihood,
    train_embedding,
)
from uepo_lib.figures.diversity import FORMS, MEMBERS, doors_reached, probe_states
from uepo_lib.toys import Doors

ORACLE = "told its door"
"""The control: each member learns from the walks to one door only."""


# -- tables


def plain_model(toy: Doors, seed: int, num_updates: int) -> DiffusionModel:
    """A small diffusion model of the toy, from which embeddings start."""
    cfg = DiffusionConfig(
        num_train_steps=20, num_updates=num_updates, batch_size=128, lr=3e-3, warmup=50,
        ema_decay=0.99, future_prob=0.0,
    )  # fmt: skip
    denoiser = DenoiserConfig("mlp", toy.horizon, toy.obs_horizon, d_model=32, hidden=(64, 64))
    return train_diffusion(cfg, denoiser, toy, seed, progress=False)


def _entropy(shares: Tensor) -> Tensor:
    return -torch.special.xlogy(shares, shares).sum(dim=-1)


@torch.no_grad()
def describe_embedding(model: EmbeddedModel, toy: Doors, alpha: float) -> dict[str, float]:
    """What n embeddings do on the toy; every plan from fresh noise.

    ``constancy`` is the share of states in which a member heads for its own most frequent door;
    ``mode_js`` the divergence of the members' shares of doors, ``js`` that of whole sequences by
    the bound, both at most log n; ``offset`` the distance of two members' mean plans around a mode,
    in standard deviations of the data; ``objective`` the printed J on new data.
    """
    n, (states, past) = model.n, probe_states(toy, 256)
    policies = EmbeddedPolicies(model, torch.zeros(n, *model.action_shape), fresh_noise=True)
    plans = policies.plan_shared(past, torch.Generator().manual_seed(2))
    heading = toy.mode_of(plans)
    shares = torch.nn.functional.one_hot(heading, toy.num_modes).float().mean(dim=1)
    around = plans - toy.means(states)[torch.arange(len(states)), heading]
    middle = around.mean(dim=1).flatten(1) / toy.std
    cross = member_log_likelihood(
        model, plans.flatten(0, 1), past.repeat(n, 1, 1), seed=3, num_draws=2
    )
    cross = cross.unflatten(1, (n, -1))  # [j, i, b]
    new = toy.sample(states, toy.modes[: len(states)], torch.Generator().manual_seed(4))
    log_probs = member_log_likelihood(model, new, past, seed=5, num_draws=2)
    return {
        "doors": doors_reached(toy, plans, states),
        "constancy": float(shares.amax(dim=1).mean()),
        "in_support": float(toy.in_support(plans, states).float().mean()),
        "mode_js": float(_entropy(shares.mean(dim=0)) - _entropy(shares).mean()),
        "js": float(separating_term(cross.diagonal().T, cross).mean()),
        "offset": float(torch.cdist(middle, middle).sum() / (n * (n - 1))),
        "nll": -float(log_probs.mean()),
        "objective": float((log_probs + alpha * printed_term(log_probs)).mean()),
    }


def embedding_table(
    toy: Doors,
    settings: Sequence[tuple[str, float]],
    seeds: Sequence[int],
    plain_updates: int,
    num_updates: int,
) -> pd.DataFrame:
    """n embeddings on a trained model, under (form, α); form :data:`ORACLE` is the control.

    Columns form, alpha, seed, then what :func:`describe_embedding` gives; J is at the largest α.
    """
    judged, rows = max(alpha for _, alpha in settings), []
    for seed in seeds:
        plain = plain_model(toy, seed, plain_updates)
        for form, alpha in settings:
            diversity: Any = "none" if form == ORACLE else form
            cfg = EmbeddingConfig(
                num_members=MEMBERS, diversity=diversity, alpha=alpha, num_updates=num_updates,
                batch_size=48, learning_rate=1e-3, num_terms=6,
            )  # fmt: skip
            model = train_embedding(
                cfg, plain, toy, seed=seed, progress=False,
                assigned=toy.modes if form == ORACLE else None,
            )  # fmt: skip
            found = describe_embedding(model, toy, judged)
            rows.append({"form": form, "alpha": alpha, "seed": seed} | found)
    return pd.DataFrame(rows)


# -- figure


@plotting.figure("04_diversity_embedding")
def draw_embedding(table: pd.DataFrame) -> Figure:
    """Each setting a row, each seed a dot: divergence of plans, of doors, what a set reaches."""
    figure, panels = plotting.panels(4, 2.5, 3.0)
    settings = list(dict.fromkeys(zip(table["form"], table["alpha"], strict=True)))
    columns = {
        "js": "divergence of plans (nats)",
        "mode_js": "divergence of doors (nats)",
        "doors": "doors that a set reaches",
        "in_support": "plans within a mode (share)",
    }
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for row, (form, alpha) in enumerate(settings):
            part = table[(table["form"] == form) & (table["alpha"] == alpha)][column]
            colour = plotting.COLOURS[FORMS.get(form, "model")]
            axes.plot(part, [row] * len(part), "o", color=colour, markersize=5, alpha=0.6)
            axes.vlines(part.mean(), row - 0.3, row + 0.3, color=colour, linewidth=2)
        axes.set(xlabel=label, ylim=(len(settings) - 0.5, -0.5))
        axes.set_yticks(range(len(settings)), [] if axes is not panels[0] else _names(settings))
    for axes in panels[:2]:
        axes.axvline(math.log(MEMBERS), color="black", linestyle=":", label="log n")
        axes.set_xlim(-0.15, 1.1 * math.log(MEMBERS))
    null = null_coverage(MEMBERS)
    panels[2].axvline(null, color="black", linestyle="--", label="independent draws")
    panels[2].set_xlim(0, 4.2)
    panels[3].set_xlim(-0.05, 1.05)
    handles = [axes.get_legend_handles_labels() for axes in (panels[0], panels[2])]
    figure.legend(
        [h for pair in handles for h in pair[0]], [name for pair in handles for name in pair[1]],
        loc="outside upper center", ncols=2,
    )  # fmt: skip
    return figure


def _names(settings: Sequence[tuple[str, float]]) -> list[str]:
    """Without a term a model is cloned, and so are its embeddings."""
    named = [(form if form != "none" else "cloning", alpha) for form, alpha in settings]
    return [f"{form}, α = {alpha:g}" if alpha else form for form, alpha in named]
