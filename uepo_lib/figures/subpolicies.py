"""Notebook 03: many policies from one model, on the toy and on the robot. Tables, then figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting, selection
from uepo_lib.coverage import coverage, null_coverage
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.ensembles import best_of_n, between_sd
from uepo_lib.figures.policy import MODE_COLOURS
from uepo_lib.runs import Run
from uepo_lib.stages import Study
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.toys import Doors

ZERO, FRESH, NULL = "κ = 0", "fresh", "n × fresh"
"""Zero noise; κ = 1 with fresh noise; n of those, each with a generator of its own: the null."""

SEED_COLOURS = [plotting.COLOURS[c] for c in ("UEPO", "BC", "model", "control", "highlight")]
"""Of the seeds, in the figures of this notebook that draw each on its own."""


# -- tables


def coverage_table(toy: Doors, modes: Tensor, sizes: Sequence[int]) -> pd.DataFrame:
    """Distinct modes in sets of n sub-policies, beside n independent draws: columns n, found, null.

    ``modes`` (N,) are those of N sub-policies in one state, cut into sets of n.
    """
    m = toy.num_modes
    sets = {n: modes[: len(modes) // n * n].view(-1, n).T for n in sizes}
    rows = [(n, coverage(together, m), null_coverage(n, m)) for n, together in sets.items()]
    return pd.DataFrame(rows, columns=["n", "found", "null"])


def mode_shares(
    model: DiffusionModel, toy: Doors, noise: Tensor, kappas: Sequence[float], num_steps: int
) -> pd.DataFrame:
    """Which share of the seeds reaches each door, by κ, in the middle: kappa, mode, share, data."""
    middle = torch.zeros(1, 2)
    rows = []
    for kappa in kappas:
        policies = SubPolicies(model, noise, kappa, num_denoising_steps=num_steps)
        modes = toy.mode_of(policies.plan_shared(toy.past(middle)))[:, 0]
        for m, data in enumerate(toy.weights.tolist()):
            rows.append((kappa, m, float((modes == m).float().mean()), data))
    return pd.DataFrame(rows, columns=["kappa", "mode", "share", "data"])


def returns_table(studies: Sequence[Study], kappas: Sequence[float]) -> tuple[Any, list[Run]]:
    """Every episode's return: columns policy, kappa, seed, member, episode, return; and the runs.

    Zero noise and fresh noise play the profile's evaluation, each set of n its shorter one.
    """
    parts: list[pd.DataFrame] = []
    runs: list[Run] = []
    for study in studies:
        model, short = study.diffusion_policy(), study.budget.curve_episodes
        played = [(ZERO, 0.0, study.evaluate(study.zero_noise(model)))]
        for kappa in kappas:
            together = study.sub_policies(model, kappa)
            played.append((f"κ = {kappa:g}", kappa, study.evaluate(together, short)))
        played.append((FRESH, 1.0, study.evaluate(study.fresh(model), sampled=True)))
        null = study.fresh(model, study.budget.num_subpolicies)
        played.append((NULL, 1.0, study.evaluate(null, short, sampled=True)))
        for name, kappa, evaluation in played:
            returns = evaluation.value.returns.numpy()
            member, episode = np.indices(returns.shape).reshape(2, -1)
            parts.append(
                pd.DataFrame(
                    {
                        "policy": name,
                        "kappa": kappa,
                        "seed": study.seed,
                        "member": member,
                        "episode": episode,
                        "return": returns.ravel(),
                    }
                )
            )
            runs += evaluation.runs
    return pd.concat(parts, ignore_index=True), runs


def matrix(part: pd.DataFrame) -> Tensor:
    """One set of one seed as returns (n, episodes)."""
    wide = part.pivot(index="member", columns="episode", values="return")
    return torch.tensor(wide.to_numpy())


def spread_of_sets(table: pd.DataFrame) -> pd.DataFrame:
    """Of each set of each seed: mean, worst and best member, and the between-member sd."""
    rows = []
    for (name, seed), part in table.groupby(["policy", "seed"], sort=False):
        returns = matrix(part)
        if len(returns) < 2:
            continue
        means = returns.mean(1)
        found = [float(means.mean()), float(means.min()), float(means.max()), between_sd(returns)]
        rows.append((name, seed, *found))
    return pd.DataFrame(rows, columns=["policy", "seed", "mean", "worst", "best", "between_sd"])


def scale_or_seed(means: pd.Series, between: pd.Series) -> str:
    """Which moves a set's return more, its κ or its seeds? Both as a standard deviation.

    ``means`` are the mean returns of the sets, a κ each, zero noise among them; ``between`` the sd
    of the true means within a set, of the same κ without zero noise, and :data:`NULL`.
    """
    of_scale, seeds = float(means.std()), between.drop(NULL)
    of_seed = float(np.sqrt((seeds**2).mean()))
    larger = "the scale" if of_scale > of_seed else "the seed"
    met = "as expected" if of_scale > of_seed else "against the expectation"
    return (
        f"Over κ from 0 to 1 the means of the sets have a standard deviation of {of_scale:.0f} (a "
        f"range of {means.max() - means.min():.0f}). Between the seeds of one set the true means "
        f"have one of {seeds.min():.0f} to {seeds.max():.0f}, by κ, {of_seed:.0f} in root mean "
        f"square; the null shows {between[NULL]:.0f}. "
        f"Like for like **{larger}** matters more, {met}."
    )


SMALL, LITTLE = 0.5, 0.1
"""A κ below this is small; a loss of at most this share of zero noise's return is little."""


def tuned_says(tuned: pd.DataFrame) -> str:
    """What became of the expectation that AM-Q picks a small κ and loses little to κ = 0."""
    chosen = tuned[tuned["choice"] == "AM-Q"].set_index("seed")
    zero = tuned[tuned["choice"] == ZERO].set_index("seed")["return"]
    loss = (zero - chosen["return"]) / zero
    small, little, count = (chosen["kappa"] < SMALL).sum(), (loss <= LITTLE).sum(), len(chosen)
    on_mean = float((zero - chosen["return"]).mean() / zero.mean())
    return (
        f"**The expectation:** a small κ, below {SMALL:g}, was picked in {small} of {count} seeds: "
        f"{'met' if small > count / 2 else 'not met'}. A little loss, at most {LITTLE:.0%} of the "
        f"return of κ = 0, came in {little} of {count}; on the mean it is {on_mean:.0%} (below 0: "
        f"a gain): {'met' if on_mean <= LITTLE else 'not met'}. No verdict, at {count} seeds."
    )


def tuned_table(
    studies: Sequence[Study], table: pd.DataFrame, kappas: Sequence[float]
) -> tuple[pd.DataFrame, list[Run]]:
    """What AM-Q chooses among all (i, κ), and its true return beside what else could be chosen.

    ``table`` holds every candidate's returns (:func:`returns_table`); all are judged by the
    episodes of the shorter evaluation. ``episodes`` counts what a choice costs in the environment.
    "best" is chosen by half of the episodes and judged by the rest. Columns seed, choice, kappa,
    member, return, episodes.
    """
    rows, runs = [], []
    for study in studies:
        short, n = study.budget.curve_episodes, study.budget.num_subpolicies
        played = table[(table.seed == study.seed) & (table.episode < short)]
        sets = {0.0: matrix(played[played.policy == ZERO])}
        sets |= {k: matrix(played[played.policy == f"κ = {k:g}"]) for k in kappas}
        model, judge = study.diffusion_policy(), (study.dynamics(), study.critic())
        chosen = selection.tuned(study, model, *judge, tuple(sets))
        runs.append(chosen.run)
        median = int(sets[1.0].mean(1).argsort()[(n - 1) // 2])
        everyone = torch.cat(list(sets.values()))
        best = best_of_n(everyone, torch.Generator().manual_seed(0)).fresh
        picked = [("AM-Q", chosen.kappa, chosen.member, 0), (ZERO, 0.0, 0, 0),
                  ("median seed", 1.0, median, n * short)]  # fmt: skip
        for name, kappa, member, cost in picked:
            value = float(sets[kappa][member].mean())
            rows.append((study.seed, name, kappa, member, value, cost))
        rows.append((study.seed, "best", float("nan"), -1, best, everyone.numel()))
    return pd.DataFrame(
        rows, columns=["seed", "choice", "kappa", "member", "return", "episodes"]
    ), runs


def best_of_n_table(table: pd.DataFrame) -> pd.DataFrame:
    """Best member chosen on half of the episodes, of each set and seed.

    Columns policy, seed, set_mean, same_half, other_half, zero_noise.
    """
    zero = table[table.policy == ZERO].groupby("seed")["return"].mean().to_dict()
    rows = []
    for (name, seed), part in table.groupby(["policy", "seed"], sort=False):
        returns = matrix(part)
        if len(returns) < 2:
            continue
        found = best_of_n(returns, torch.Generator().manual_seed(0))
        rows.append((name, seed, float(returns.mean()), *found, zero[seed]))
    columns = ["policy", "seed", "set_mean", "same_half", "other_half", "zero_noise"]
    return pd.DataFrame(rows, columns=columns)


# -- figures


@plotting.figure("mode_coverage")
def mode_coverage(table: pd.DataFrame) -> Figure:
    """Mean number of modes that n seeds reach, on the curve of n independent draws."""
    figure, (axis,) = plotting.panels(1, width=4.4)
    colours = plotting.COLOURS
    axis.plot(table.n, table.null, "--", color=colours["data"], label="null $4(1 - 0.75^n)$")
    axis.plot(table.n, table.found, "o", color=colours["UEPO"], label="n sub-policies, exact model")
    axis.set(xlabel="n, number of seeds", ylabel="modes reached (of 4)", ylim=(0, 4.2))
    axis.legend(loc="lower right")
    return figure


@plotting.figure("kappa_modes")
def kappa_modes(table: pd.DataFrame) -> Figure:
    """Mode weights against κ; dashed: the data's."""
    figure, (axis,) = plotting.panels(1, width=4.8)
    for (mode, part), colour in zip(table.groupby("mode"), MODE_COLOURS, strict=False):
        label = f"door {mode}, data {part.data.iloc[0]:.0%}"
        axis.plot(part.kappa, part.share, marker="o", markersize=3, color=colour, label=label)
        axis.axhline(part.data.iloc[0], color=colour, linestyle="--", linewidth=0.8)
    axis.plot([], [], "--", color="0.5", linewidth=0.8, label="the data's share")
    axis.set(xlabel=r"$\kappa$, scale of the initial noise", ylabel="share of the initial noises")
    axis.set_ylim(-0.03, 1.03)
    axis.legend()
    return figure


@plotting.figure("subpolicy_returns")
def subpolicy_returns(table: pd.DataFrame) -> Figure:
    """Every sub-policy a dot, one colour a seed; the behaviour's episodes as a line."""
    names = [name for name in dict.fromkeys(table.policy) if name != "data"]
    seeds = sorted(table[table.policy != "data"].seed.unique())
    figure, (axis,) = plotting.panels(1, width=6.4, height=3.2)
    means = table.groupby(["policy", "seed", "member"], as_index=False)["return"].mean()
    for s, seed in enumerate(seeds):
        for place, name in enumerate(names):
            values = means[(means.policy == name) & (means.seed == seed)]["return"].to_numpy()
            x = place + 0.2 * (s - (len(seeds) - 1) / 2)
            colour = SEED_COLOURS[s % len(SEED_COLOURS)]
            axis.scatter(np.full(len(values), x), values, color=colour, s=16, alpha=0.75, zorder=3)
            axis.hlines(values.mean(), x - 0.09, x + 0.09, color=colour, linewidth=2)
        axis.plot([], [], "o", color=colour, markersize=4, label=f"seed {seed}")
    axis.plot([], [], color="0.5", linewidth=2, label="mean of the set")
    data = float(table[table.policy == "data"]["return"].mean())
    axis.axhline(data, color=plotting.COLOURS["data"], linestyle="--", label="episodes of D, mean")
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="return of a sub-policy (mean)", ylim=(0, None))
    axis.grid(visible=False, axis="x")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@plotting.figure("best_of_n")
def best_of_n_figure(table: pd.DataFrame) -> Figure:
    """The chosen member on the episodes that chose it, and on others, a colour a seed; dashed: what
    zero noise earns."""
    seeds = sorted(table.seed.unique())
    names = list(dict.fromkeys(table.policy))
    figure, axes = plotting.panels(len(names), width=2.6)
    columns = ["set_mean", "same_half", "other_half"]
    for axis, name in zip(axes, names, strict=True):
        part = table[table.policy == name]
        for _, row in part.iterrows():
            colour = SEED_COLOURS[seeds.index(row["seed"]) % len(SEED_COLOURS)]
            axis.axhline(row["zero_noise"], color=colour, linestyle="--", linewidth=0.9, zorder=1)
            axis.plot(range(3), row[columns].astype(float), "o-", color=colour, markersize=4)
        axis.set_xticks(range(3), ["mean of\nthe set", "chosen,\nsame half", "chosen,\nother half"])
        axis.set(title=name, xlim=(-0.3, 2.3))
        axis.sharey(axes[0])
    axes[0].set_ylabel("return (mean of episodes)")
    highest = table[[*columns, "zero_noise"]].to_numpy().max()
    axes[0].set_ylim(0, 1.08 * highest)
    for s, seed in enumerate(seeds):
        colour = SEED_COLOURS[s % len(SEED_COLOURS)]
        axes[0].plot([], [], "o-", color=colour, markersize=4, label=f"seed {seed}")
    axes[0].plot([], [], "--", color="0.5", linewidth=0.9, label="zero noise, same seed")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=5)
    return figure
