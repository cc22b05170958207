"""Notebook 06: choosing π* without trying it. Tables, then figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import stats

from uepo_lib import plotting
from uepo_lib.datasets import Dataset
from uepo_lib.methods.uepo import UEPO
from uepo_lib.robots import Robot
from uepo_lib.runs import Run
from uepo_lib.stages import Study
from uepo_lib.values import Critic

SCORES = {
    "published": ("published mean", "mean Q before the end"),
    "dead_zero": ("0 after the end (default)", "mean Q, 0 after the end"),
    "model_return": ("return in T̂", r"$\sum_k \gamma^k \hat r_k + \gamma^H V$"),
}
"""The scores by their names in the library: how figures call them, and what they are."""
KAPPA_COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
MARKERS = "osD^v<>"


def expectile(values: Sequence[float], tau: float) -> float:
    """The τ-expectile: τ Σ (x − e)₊ = (1 − τ) Σ (e − x)₊, found between two neighbours."""
    x = np.sort(np.asarray(values, dtype=float))
    for k in range(1, len(x)):  # k values lie at or below it
        weights = np.where(np.arange(len(x)) < k, 1 - tau, tau)
        e = float((weights * x).sum() / weights.sum())
        if x[k - 1] <= e <= x[k]:
            return e
    return float(x[0])


def extrapolation_table(seed: int = 0, count: int = 30, degree: int = 5) -> pd.DataFrame:
    """One state, one action: returns seen for |a| ≤ ½ and a polynomial Q that was fitted to them.

    Columns what (seen, fit or true), action, value.
    """
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(count, generator=generator).numpy() - 0.5
    noise = 0.2 * torch.randn(count, generator=generator).numpy()
    grid = np.linspace(-1, 1, 101)
    columns = {
        "seen": (actions, 1 - actions**2 + noise),
        "true": (grid, 1 - grid**2),
        "fit": (grid, np.polyval(np.polyfit(actions, 1 - actions**2 + noise, degree), grid)),
    }
    parts = [pd.DataFrame({"what": k, "action": a, "value": v}) for k, (a, v) in columns.items()]
    return pd.concat(parts, ignore_index=True)


def values_table(
    data: Dataset, critics: Mapping[int, Critic], count: int = 400, discount: float = 0.99
) -> pd.DataFrame:
    """V beside the discounted return that followed in D: columns seed, index, followed, value.

    Only states of episodes that ended by a fall: what would have followed a cut is not known.
    """
    followed = _discounted_to_go(data, discount)
    ended = [range(a, b) for a, b in data.bounds.tolist() if bool(data.terminated[b - 1])]
    known = torch.tensor([i for steps in ended for i in steps])
    index = known[torch.linspace(0, len(known) - 1, min(count, len(known))).long()]
    rows = []
    for seed, critic in critics.items():
        with torch.no_grad():
            value = critic.v(data.states[index])
        rows.append(pd.DataFrame({"seed": seed, "index": index, "followed": followed[index],
                                  "value": value}))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _discounted_to_go(data: Dataset, discount: float) -> torch.Tensor:
    last = torch.zeros(len(data), dtype=torch.bool)
    last[data.bounds[:, 1] - 1] = True
    followed, carried = torch.empty(len(data)), 0.0
    for i in range(len(data) - 1, -1, -1):
        carried = float(data.rewards[i]) + (0.0 if last[i] else discount * carried)
        followed[i] = carried
    return followed


def candidates_table(
    studies: Iterable[Study], found: Mapping[int, UEPO], kappas: Sequence[float]
) -> tuple[pd.DataFrame, list[Run]]:
    """Every candidate (i, κ): its three scores, and its true return over two halves of episodes.

    All candidates are judged by the same reset seeds, those of ``budget.curve_episodes``. Columns
    seed, kappa, member, published, dead_zero, model_return, even, odd, return, chosen.
    """
    parts, runs = [], []
    for study in studies:
        made = found[study.seed]
        sets = []
        for kappa in kappas:
            zero = kappa == 0
            policies = study.zero_noise(made.model) if zero else study.sub_policies(
                made.model, kappa
            )  # fmt: skip
            scores = study.am_q(policies, made.dynamics, made.critic)
            judged = study.evaluate(policies, None if zero else study.budget.curve_episodes)
            returns = judged.value.returns[:, : study.budget.curve_episodes]
            row = {"seed": study.seed, "kappa": kappa, "member": range(len(returns)),
                   **{name: scores.value[name] for name in SCORES},
                   "even": returns[:, 0::2].mean(1), "odd": returns[:, 1::2].mean(1),
                   "return": returns.mean(1)}  # fmt: skip
            sets.append(pd.DataFrame(row))
            runs += [*scores.runs, *judged.runs]
        part = pd.concat(sets, ignore_index=True)
        score = study.config("amq").score
        part["chosen"] = part.index == part[score].idxmax()
        parts.append(part)
    return pd.concat(parts, ignore_index=True), runs


def correlation_table(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of each score with the true return: a row a seed, a column a score."""
    rows = [
        {"seed": seed, "candidates": len(part)}
        | {name: float(stats.spearmanr(part[name], part["return"]).statistic) for name in SCORES}
        for seed, part in table.groupby("seed")
    ]
    return pd.DataFrame(rows)


def regret_table(table: pd.DataFrame, robot: Robot) -> pd.DataFrame:
    """True return of three alternatives minus the chosen candidate's, in points of score.

    The best candidate is found on one half of the episodes and judged on the other, both ways:
    found and judged on the same ones it would look better than it is. Columns seed, against,
    regret.
    """
    rows = []
    for seed, part in table.groupby("seed"):
        chosen = part[part.chosen].iloc[0]
        best = [
            float(part[other].to_numpy()[int(part[one].to_numpy().argmax())] - chosen[other])
            for one, other in (("even", "odd"), ("odd", "even"))
        ]
        zero = float(part.loc[part.kappa == 0, "return"].iloc[0])
        against = {
            "best candidate": float(np.mean(best)),
            "κ = 0": zero - float(chosen["return"]),
            "random candidate": float(part["return"].mean() - chosen["return"]),
        }
        rows += [(seed, name, value) for name, value in against.items()]
    frame = pd.DataFrame(rows, columns=["seed", "against", "regret"])
    frame["regret"] *= robot.normalised(1.0) - robot.normalised(0.0)
    return frame


def regret_says(regret: pd.DataFrame) -> str:
    """What became of the expectation of no regret but some against the best, on the means.

    ``regret`` as from :func:`regret_table`.
    """
    mean = regret.groupby("against", sort=False)["regret"].mean().round(1) + 0.0  # no "-0.0"
    parts = [
        f"none against {name}: {mean[name]:+.1f}, {'met' if mean[name] <= 0 else 'not met'}"
        for name in ("random candidate", "κ = 0")
    ]
    best = mean["best candidate"]
    parts.append(f"some against the best: {best:+.1f}, {'met' if best > 0 else 'not met'}")
    noise = (
        "" if best > 0 else " No choice is better than the best; that this one seems so is noise of"
        " the episodes, half of which name the best and half of which judge it."
    )  # fmt: skip
    return f"Mean regret in points, beside what was expected: {'; '.join(parts)}.{noise}"


def spent(runs: Iterable[Run]) -> dict[str, int]:
    """Steps and episodes in the environment that ``runs`` paid for, each run counted once."""
    once = {run.id: run for run in runs}.values()
    paid = [part for run in once for part in run.record["environment"].values()]
    return {key: sum(part[key] for part in paid) for key in ("steps", "episodes")}


@plotting.figure("value_extrapolation")
def value_extrapolation(table: pd.DataFrame) -> Figure:
    """A fitted Q leaves the data; expectiles of what was seen do not."""
    figure, (axis,) = plotting.panels(1, width=5.4, height=3.2)
    part = {what: rows for what, rows in table.groupby("what")}
    seen, colours = part["seen"], plotting.COLOURS
    axis.axvspan(seen.action.min(), seen.action.max(), color="0.94", label="actions in the data")
    axis.plot(part["true"].action, part["true"].value, "--", color=colours["data"], label="true")
    axis.plot(part["fit"].action, part["fit"].value, color=colours["model"], label="fitted Q")
    axis.plot(seen.action, seen.value, ".", color=colours["data"], label="seen")
    for tau, line in ((0.5, ":"), (0.7, "-."), (0.9, "-")):
        level = expectile(seen.value.tolist(), tau)
        axis.axhline(level, color=colours["UEPO"], linestyle=line, linewidth=1, label=f"V, τ={tau}")
    axis.set(xlabel="action", ylabel="return", ylim=(-1, 3))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@plotting.figure("critic_values")
def critic_values(table: pd.DataFrame) -> Figure:
    """V against what followed in the log, a panel a seed."""
    seeds = sorted(table.seed.unique())
    figure, axes = plotting.panels(len(seeds), width=2.6, height=2.6)
    limits = (min(0.0, table.value.min()), 1.05 * table[["value", "followed"]].to_numpy().max())
    for axis, seed in zip(axes, seeds, strict=True):
        part = table[table.seed == seed]
        axis.plot(limits, limits, "--", color=plotting.COLOURS["data"], linewidth=1)
        axis.scatter(part.followed, part.value, s=6, alpha=0.5, color=plotting.COLOURS["model"])
        axis.set(title=f"seed {seed}", xlabel="discounted return that followed")
        axis.set(xlim=limits, ylim=limits)
    axes[0].set_ylabel("V (IQL)")
    return figure


@plotting.figure("selection")
def selection(table: pd.DataFrame) -> Figure:
    """True return against each of the three scores; colour is κ, marker is the seed."""
    figure, axes = plotting.panels(len(SCORES), width=3.1, height=3.0)
    kappas, seeds = sorted(table.kappa.unique()), sorted(table.seed.unique())
    for axis, (name, (title, label)) in zip(axes, SCORES.items(), strict=True):
        for (kappa, seed), part in table.groupby(["kappa", "seed"]):
            colour = KAPPA_COLOURS[kappas.index(kappa) % len(KAPPA_COLOURS)]
            marker = MARKERS[seeds.index(seed) % len(MARKERS)]
            axis.scatter(part[name], part["return"], s=16, color=colour, marker=marker, alpha=0.8)
        chosen = table[table.chosen]
        axis.scatter(chosen[name], chosen["return"], s=90, facecolors="none", edgecolors="k")
        axis.set(title=title, xlabel=label)
    axes[0].set_ylabel("true return (undiscounted)")
    last = axes[-1]
    for kappa, colour in zip(kappas, KAPPA_COLOURS, strict=False):
        last.plot([], [], "o", color=colour, label=f"κ = {kappa:g}")
    for seed, marker in zip(seeds, MARKERS, strict=False):
        last.plot([], [], marker, color="0.5", label=f"seed {seed}")
    last.plot([], [], "o", markersize=9, color="none", markeredgecolor="k", label="chosen")
    last.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@plotting.figure("selection_regret")
def selection_regret(table: pd.DataFrame) -> Figure:
    """Regret against three alternatives, a dot a seed."""
    figure, (axis,) = plotting.panels(1, width=4.6)
    groups = list(dict.fromkeys(table.against))
    values = [table[table.against == name].regret.tolist() for name in groups]
    plotting.dots(axis, groups, values, plotting.COLOURS["UEPO"])
    axis.axhline(0, color="0.5", linewidth=0.8)
    axis.set(ylabel="regret of AM-Q's choice\n(points of score)", xlabel="compared with")
    return figure
