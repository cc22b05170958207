"""Notebook 02: what the likelihood of a sequence is, and what it can tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats
from torch import Tensor

from uepo_lib import plotting, ranking
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.likelihood import estimation_errors, log_likelihood_bound
from uepo_lib.probability_flow import flow_log_likelihood
from uepo_lib.toys import Doors

JUDGES = {
    "past": ("bound, given $s_t$", plotting.COLOURS["UEPO"]),
    "whole": ("bound, given $s_{1:T}$", plotting.COLOURS["model"]),
    "flow": ("flow, given $s_{1:T}$", plotting.COLOURS["control"]),
    "behaviour": ("the policy that acted", plotting.COLOURS["data"]),
}
COPIES = {
    "logged": plotting.COLOURS["data"],
    "shuffled": plotting.COLOURS["highlight"],
    "noise 0.5": plotting.COLOURS["BC"],
}

# -- tables


def toy_likelihood_table(
    models: Mapping[str, DiffusionModel], toy: Doors, count: int = 48, num_draws: int = 2
) -> pd.DataFrame:
    """Nats a dimension of ``count`` new walks: columns model, estimator, nats, gap, error.

    ``gap`` is to the closed form, walk by walk, and ``error`` its standard error. Bounds are means
    of ``num_draws`` calls; the noise is the same for all models.
    """
    generator = torch.Generator().manual_seed(0)
    states = toy.draw_states(count, generator)
    modes = torch.multinomial(toy.weights, count, replacement=True, generator=generator)
    actions, past = toy.sample(states, modes, generator), toy.past(states)
    exact = toy.log_prob(actions, states)
    found = {("closed form", "exact"): exact}
    for name, model in models.items():
        known = toy.batch(torch.arange(1024))
        errors = estimation_errors(model, known.actions, known.past, _seeded(1))
        for estimator, calibrated in (("calibrated bound", errors), ("DDPM's bound", None)):
            found[name, estimator] = torch.stack([
                log_likelihood_bound(model, actions, past, _seeded(2 + i), errors=calibrated)
                for i in range(num_draws)
            ]).mean(dim=0)  # fmt: skip
        found[name, "flow"] = flow_log_likelihood(
            model, actions, past, _seeded(2), errors=errors, num_draws=num_draws
        )
    size, rows = actions[0].numel(), []
    for (name, estimator), values in found.items():
        gaps = (values - exact) / size
        error = float(gaps.std()) / count**0.5
        rows.append((name, estimator, float(values.mean()) / size, float(gaps.mean()), error))
    return pd.DataFrame(rows, columns=["model", "estimator", "nats", "gap", "error"])


def ranking_table(scored: Iterable[tuple[str, int, Mapping[str, Tensor]]]) -> pd.DataFrame:
    """What every judge told apart, of (task, seed, scores of ``judging.rank_sequences``).

    Columns task, seed, judge, copy, scale (of the noise; NaN for shuffled), pairs, won, auc.
    """
    rows = []
    for task, seed, scores in scored:
        for name, values in scores.items():
            judge, _, copy = name.partition(".")
            if copy == "logged":
                continue
            logged = scores[f"{judge}.logged"]
            scale = float(copy.partition(" ")[2]) if copy.startswith("noise") else float("nan")
            won, auc = ranking.pairs_won(logged, values), ranking.auc(logged, values)
            rows.append((task, seed, judge, copy, scale, len(values), won, auc))
    columns = ["task", "seed", "judge", "copy", "scale", "pairs", "won", "auc"]
    table = pd.DataFrame(rows, columns=columns)
    table["judge"] = pd.Categorical(table.judge, list(JUDGES))
    return table.sort_values(["judge", "scale"], kind="stable").reset_index(drop=True)


def scores_table(
    scored: Iterable[tuple[str, int, Mapping[str, Tensor]]], sizes: Mapping[str, int]
) -> pd.DataFrame:
    """Every sequence's score given s_{1:T}, in nats a dimension (``sizes``: T·A of each task).

    Columns task, seed, copy, sequence, nats.
    """
    parts = []
    for task, seed, scores in scored:
        for copy in COPIES:
            nats = (scores[f"whole.{copy}"] / sizes[task]).tolist()
            labels = {"task": task, "seed": seed, "copy": copy, "sequence": range(len(nats))}
            parts.append(pd.DataFrame({**labels, "nats": nats}))
    return pd.concat(parts)


def flow_agreement(scores: Mapping[str, Tensor]) -> float:
    """Spearman's rank correlation of bound and flow over logged sequences, given s_{1:T}."""
    bound, flow = scores["whole.logged"][:: ranking.FLOW_EVERY], scores["flow.logged"]
    return float(stats.spearmanr(bound, flow).statistic)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- figures


@plotting.figure("likelihood_ranking")
def likelihood_ranking(table: pd.DataFrame) -> Figure:
    """AUC against the size of the perturbation: a panel a task, a colour a judge. The flow judges
    one size alone: an open mark, through which another judge's can be seen."""
    tasks = list(dict.fromkeys(table.task))
    figure, axes = plotting.panels(len(tasks), height=3.0)
    noised = table[table.scale.notna()]
    for axis, task in zip(axes, tasks, strict=True):
        for judge, (label, colour) in JUDGES.items():
            part = noised[(noised.task == task) & (noised.judge == judge)]
            if part.scale.nunique() == 1:
                means = part.groupby("scale").auc.mean()
                axis.plot(means.index, means, "D", color=colour, markersize=9, zorder=1.5,
                          markerfacecolor="none", markeredgewidth=1.4, label=label)  # fmt: skip
            elif len(part):
                plotting.seed_lines(axis, part, "scale", "auc", colour, label)
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        axis.set_xscale("log", base=2)
        ticks = sorted(noised.scale.unique())
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set(title=task, xlabel=r"sd of the perturbation / $\sigma_a$", ylim=(0.45, 1.02))
    axes[0].set_ylabel("AUC over all pairs (not within pairs),\nlogged against perturbed")
    handles = {  # every judge once, whichever panels it is in
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    return figure


@plotting.figure("likelihood_histogram")
def likelihood_histogram(table: pd.DataFrame) -> Figure:
    """How the scores of logged and spoilt sequences are distributed: a panel a task."""
    tasks = list(dict.fromkeys(table.task))
    figure, axes = plotting.panels(len(tasks), height=2.8)
    labels = {"noise 0.5": r"noise $0.5\,\sigma_a$"}
    for axis, task in zip(axes, tasks, strict=True):
        part = table[table.task == task]
        low, high = part.nats.quantile([0.02, 1.0])
        bins = [low + (high - low) * i / 40 for i in range(41)]
        for copy, colour in COPIES.items():
            values = part[part["copy"] == copy].nats.clip(lower=low)
            axis.hist(values, bins, histtype="stepfilled", density=True, facecolor=(colour, 0.3),
                      edgecolor=colour, label=labels.get(copy, copy))  # fmt: skip
        axis.set(title=task, xlabel="score given $s_{1:T}$ (nats a dimension)")
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel("density")
    axes[0].legend(loc="upper left")
    return figure
