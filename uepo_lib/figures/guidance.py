"""Notebook 04: guidance on the toy. Many sets of sub-policies at once; tables, then figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.divergence import (
    EtaSchedule,
    Guidance,
    GuidanceConfig,
    calibrate_threshold,
    cosine_floor,
    low_pass,
    nearest_neighbour,
)
from uepo_lib.subpolicies import SubPolicies, equal_power_controls
from uepo_lib.toys import Doors

SETS = {"unguided": "data", "guided": "UEPO", "ungated": "highlight", "final": "control"}
"""The sets that are compared, and their colours."""
NAMES = {"ungated": "ungated noise", "final": "white noise on the final actions"}
"""How figures name the controls; tables keep their short names."""
SUPPORT, MARGIN = 0.95, 0.05
"""The rule that chooses a setting: plans that stay within a mode, and how near to the best is as
good."""


# -- many sets at once


@dataclass(frozen=True)
class SetsApart(Guidance):
    """Guidance of several sets side by side: each sub-policy sees only its own set's.

    ``xi`` (sets·n, K, T, A), set by set.
    """

    num_sets: int = 1

    def sigma(self, x0: Tensor, step_index: int) -> Tensor:
        """(sets·n, B, T, A) -> (sets·n, B)."""
        folded = super().sigma(fold(x0, self.num_sets), step_index)
        return folded.unflatten(1, (self.num_sets, -1)).transpose(0, 1).flatten(0, 1)


def fold(actions: Tensor, num_sets: int) -> Tensor:
    """Sets as more states: (sets·n, B, T, A) -> (n, sets·B, T, A)."""
    return actions.unflatten(0, (num_sets, -1)).transpose(0, 1).flatten(1, 2)


def stacked(
    model: DiffusionModel, n: int, seeds: Sequence[int], num_steps: int, config: GuidanceConfig
) -> SubPolicies:
    """The guided sets of n of all ``seeds`` as one, each as ``SubPolicies.from_seeds`` draws it."""
    each = [
        SubPolicies.from_seeds(model, n, seed, num_denoising_steps=num_steps, guidance=config)
        for seed in seeds
    ]
    xi = torch.cat([one.guidance.xi for one in each if one.guidance])
    guidance = SetsApart(config, xi, None, len(seeds))
    noise = torch.cat([one.noise for one in each])
    return SubPolicies(model, noise, num_denoising_steps=num_steps, guidance=guidance)


def four_sets(guided: SubPolicies, past: Tensor) -> dict[str, SubPolicies]:
    """A guided set, the same without guidance, and the two controls of equal power on ``past``."""
    plain = guided.with_guidance(None)
    return {"unguided": plain, "guided": guided, **equal_power_controls(guided, past)}


# -- what is measured


def reached(actions: Tensor, threshold: float, floor: float) -> dict[str, float]:
    """How far apart sub-policies (n, B, T, A) are, beside τ; div to the nearest neighbour.

    ``member_share`` counts every sub-policy in every state; ``call_share`` counts a state (a call
    of the whole set) only if its closest pair is at least τ apart.
    """
    nearest = nearest_neighbour(actions, floor)[0]
    return {
        "div": float(nearest.mean()),
        "low_passed": float(nearest_neighbour(low_pass(actions), floor)[0].mean()),
        "member_share": float((nearest >= threshold).float().mean()),
        "call_share": float((nearest.amin(0) >= threshold).float().mean()),
    }


@dataclass(frozen=True)
class ToyStudy:
    """Sets of n sub-policies of one model of the toy, in the same states.

    τ is one number a chain length: a quantile of the nearest-neighbour div over the unguided sets
    of ``tuning`` seeds, from which no result is reported.
    """

    toy: Doors
    model: DiffusionModel
    tuning: Sequence[int]
    n: int = 4
    num_states: int = 4
    quantile: float = 0.5

    @property
    def states(self) -> Tensor:
        """Where the sets act: (B, 2), the same for all."""
        return self.toy.draw_states(self.num_states, torch.Generator().manual_seed(1))

    @property
    def floor(self) -> float:
        return cosine_floor(self.toy.actions)

    def threshold(self, num_steps: int) -> float:
        """τ for a chain of that many steps."""
        unguided = stacked(
            self.model, self.n, self.tuning, num_steps, GuidanceConfig(1.0)
        ).with_guidance(None)
        plans = fold(unguided.plan_shared(self.toy.past(self.states)), len(self.tuning))
        return calibrate_threshold(plans, self.quantile, self.floor)

    def guided(
        self, seeds: Sequence[int], num_steps: int, eta: float, schedule: EtaSchedule, tau: float
    ) -> SubPolicies:
        """The guided sets of all seeds as one."""
        config = GuidanceConfig(tau, eta, self.floor, schedule)
        return stacked(self.model, self.n, seeds, num_steps, config)

    def measure(
        self, policies: SubPolicies, seeds: Sequence[int], tau: float
    ) -> list[dict[str, float]]:
        """One row a seed: :func:`reached`, ``modes`` that a set heads for, ``in_support``."""
        states = self.states
        plans = policies.plan_shared(self.toy.past(states)).unflatten(0, (len(seeds), -1))
        doors, inside = self.toy.mode_of(plans), self.toy.in_support(plans, states).float()
        return [
            {"seed": seed, **reached(plans[s], tau, self.floor)}
            | {
                "modes": float(np.mean([len(set(d)) for d in doors[s].T.tolist()])),
                "in_support": float(inside[s].mean()),
            }
            for s, seed in enumerate(seeds)
        ]


# -- tables


def perturbation_table(thresholds: Sequence[float], eta: float) -> pd.DataFrame:
    """σ_div = η (τ − div)⁺/τ over a grid of div: columns threshold, div, sigma."""
    grid = np.linspace(0, 1.2 * max(thresholds), 121)
    rows = [(tau, d, eta * max(tau - d, 0) / tau) for tau in thresholds for d in grid]
    return pd.DataFrame(rows, columns=["threshold", "div", "sigma"])


def tuning_table(
    study: ToyStudy,
    steps: Sequence[int],
    etas: Sequence[float],
    schedules: Sequence[EtaSchedule] = ("linear", "constant"),
) -> pd.DataFrame:
    """Every setting on the tuning seeds, means over sets; schedule "none" is the unguided set.

    Columns steps, schedule, eta, tau, those of :meth:`ToyStudy.measure`.
    """
    rows = []
    for num_steps in steps:
        tau = study.threshold(num_steps)
        for schedule, eta in [(schedules[0], 0.0), *itertools.product(schedules, etas)]:
            policies = study.guided(study.tuning, num_steps, eta, schedule, tau)
            seen = pd.DataFrame(study.measure(policies, study.tuning, tau)).drop(columns="seed")
            named = schedule if eta > 0 else "none"
            setting = {"steps": num_steps, "schedule": named, "eta": eta, "tau": tau}
            rows.append(setting | seen.mean().to_dict())
    return pd.DataFrame(rows)


def near_best(
    tuned: pd.DataFrame, support: float = SUPPORT, margin: float = MARGIN
) -> pd.DataFrame:
    """Those settings of :func:`tuning_table` that keep ``support`` of the plans within a mode and
    reach τ in a share of calls within ``margin`` of the highest among them; the weakest η first."""
    kept = tuned[(tuned["eta"] > 0) & (tuned["in_support"] >= support)]
    best = kept[kept["call_share"] >= kept["call_share"].max() - margin]
    return best.sort_values(["eta", "call_share"], ascending=[True, False])


def choose(tuned: pd.DataFrame, support: float = SUPPORT, margin: float = MARGIN) -> pd.Series:
    """The first of :func:`near_best`."""
    return near_best(tuned, support, margin).iloc[0]


def report_table(
    study: ToyStudy, seeds: Sequence[int], setting: pd.Series, etas: Sequence[float]
) -> pd.DataFrame:
    """The four sets on seeds that tuned nothing, by η at the chosen steps and schedule.

    Columns set, eta, chosen (whether η is the setting's), tau, those of :meth:`ToyStudy.measure`.
    """
    rows = []
    steps, schedule = int(setting["steps"]), setting["schedule"]
    tau = study.threshold(steps)
    for eta in etas:
        guided = study.guided(seeds, steps, eta, schedule, tau)
        for name, policies in four_sets(guided, study.toy.past(study.states)).items():
            about = {"set": name, "eta": eta, "chosen": eta == setting["eta"], "tau": tau}
            rows += [about | row for row in study.measure(policies, seeds, tau)]
    return pd.DataFrame(rows)


def paired(table: pd.DataFrame, column: str, one: str, other: str) -> list[float]:
    """``one`` minus ``other`` by seed, both names in the column "set"."""
    wide = table.pivot_table(index="seed", columns="set", values=column)
    return (wide[one] - wide[other]).tolist()


def own_thresholds_table(study: ToyStudy, seeds: Sequence[int], setting: pd.Series) -> pd.DataFrame:
    """The stricter reading: each set's τ is the median of its own unguided members.

    Columns as :func:`report_table` has them.
    """
    eta = float(setting["eta"])
    parts = [report_table(replace(study, tuning=(s,)), (s,), setting, (eta,)) for s in seeds]
    return pd.concat(parts, ignore_index=True)


# -- figures


@plotting.figure("04_perturbation")
def draw_perturbation(table: pd.DataFrame) -> Figure:
    """σ_div against div, one line a threshold."""
    figure, (axes,) = plotting.panels(1, 4.2)
    thresholds = sorted(table["threshold"].unique())
    for i, tau in enumerate(thresholds):
        part = table[table["threshold"] == tau]
        shade = 0.35 + 0.65 * i / max(len(thresholds) - 1, 1)
        axes.plot(
            part["div"], part["sigma"], color=plotting.COLOURS["UEPO"], alpha=shade,
            label=f"τ = {tau:g}",
        )  # fmt: skip
    axes.set(
        xlabel="div to the nearest neighbour (no unit)",
        ylabel=r"$\sigma_{\mathrm{div}}$ (action units)",
    )
    axes.legend()
    return figure
