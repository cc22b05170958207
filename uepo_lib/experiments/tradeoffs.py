"""E7: what η and τ buy and cost, one of them at a time. (n is E1's, the ratio is E2's.)

Every setting guides the same n sub-policies of the same model: κ = 1, η as printed (the same at
every reverse step). τ is given in units of its calibrated value, the median nearest-neighbour div
of the unguided set (A4). Printed, σ_div = η (τ − div)/τ, so ∂σ_div/∂τ = η div/τ² > 0: a higher τ
perturbs more, where one reading of the paper says less.

**Expected** before any of it was computed: the perturbation grows with η and with τ, plans move
apart, what is done moves less, and return falls on a robot that has to keep its balance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from uepo_lib import divergence, executed, profiles, statistics
from uepo_lib.divergence import EtaSchedule, nearest_neighbour
from uepo_lib.errors import check
from uepo_lib.evaluation import Evaluation
from uepo_lib.executed import Executed
from uepo_lib.expectations import line
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study
from uepo_lib.subpolicies import SubPolicies, equal_power_controls

TASK = "hopper-medium"
SCHEDULE: EtaSchedule = "constant"
NONE = "unguided"


@dataclass(frozen=True)
class DialGrid:
    """Which values each dial takes while the other stands at its default."""

    etas: tuple[float, ...] = (0.16, 0.5, 1.6)
    """A decade around the standard deviation of logged actions."""
    thresholds: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """τ in units of the calibrated one."""
    eta: float = 0.5
    episodes: int = 4
    starts: int = 16
    horizon: int = 16

    def __post_init__(self) -> None:
        for name in ("etas", "thresholds"):
            values = getattr(self, name)
            check(len(values) > 0 and min(values) > 0, name, values, "one or more, positive")
        check(self.eta in self.etas, "eta", self.eta, f"one of etas={self.etas}")
        check(1.0 in self.thresholds, "thresholds", self.thresholds, "1 among them")
        for name in ("episodes", "starts"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")

    def settings(self) -> list[tuple[float, float]]:
        """(η, τ in units of the calibrated one), each once."""
        found = [(eta, 1.0) for eta in self.etas] + [(self.eta, t) for t in self.thresholds]
        return list(dict.fromkeys(found))


GRIDS = {
    "smoke": DialGrid((0.5, 1.6), (1.0, 2.0), episodes=1, starts=4, horizon=8),
    "laptop": DialGrid(),
    "full": DialGrid((0.05, 0.16, 0.5, 1.6, 5.0), (0.25, 0.5, 1, 1.5, 2, 4), 0.5, 20, 64),
    "paper": DialGrid((0.05, 0.16, 0.5, 1.6, 5.0), (0.25, 0.5, 1, 1.5, 2, 4), 0.5, 20, 64),
}


def grid_of(profile: str) -> DialGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


def dial(study: Study, eta: float, threshold: float) -> Product[SubPolicies]:
    """The set guided with η and with τ at ``threshold`` times its calibrated value."""
    guided = study.sub_policies(
        study.diffusion_policy(), 1.0, guided=True, eta=eta, eta_schedule=SCHEDULE
    )
    if threshold == 1:
        return guided

    def turned(policies: SubPolicies) -> SubPolicies:
        guidance = policies.guidance
        assert guidance is not None
        config = replace(guidance.config, threshold=threshold * guidance.config.threshold)
        return policies.with_guidance(replace(guidance, config=config))

    return guided.derive(turned, {"threshold_factor": threshold})


def _studied(
    study: Study, grid: DialGrid
) -> dict[tuple[float, float] | str, tuple[Product[SubPolicies], Product[Evaluation], Any]]:
    sets: dict[tuple[float, float] | str, Product[SubPolicies]] = {
        NONE: study.sub_policies(study.diffusion_policy(), 1.0)
    }
    sets |= {setting: dial(study, *setting) for setting in grid.settings()}
    return {
        name: (
            policy,
            study.evaluate(policy, grid.episodes),
            executed.from_data(study, policy, grid.starts, grid.horizon),
        )
        for name, policy in sets.items()
    }


def compute(study: Study, grid: DialGrid | None = None) -> None:
    """Every run of one seed."""
    for _, played, done in _studied(study, grid or grid_of(study.profile)).values():
        _ = played.run, done.run


def dials_table(study: Study, grid: DialGrid | None = None) -> tuple[pd.DataFrame, list[Run]]:
    """A row a dial and value; the unguided set is each dial's 0.

    Columns seed, dial ("eta", "tau"), value, power (root-mean-square perturbation of x̂_0, over
    reverse steps, in action units), reached (share of calls with min div ≥ the calibrated τ), div
    (to the nearest plan), executed_rms (what is done, mean over pairs), score (normalised, mean of
    members).
    """
    grid = grid or grid_of(study.profile)
    found = _studied(study, grid)
    past = study.starts(256, "calibration")
    guidance = found[grid.eta, 1.0][0].value.guidance
    assert guidance is not None
    rule = guidance.config
    rows, runs = [], []
    for name, (policy, played, done) in found.items():
        runs += [*played.runs, *done.runs]
        measured = {
            "power": _power(policy.value, past),
            **_plans(policy.value.plan_shared(past), rule),
            "executed_rms": _apart(done.value),
            "score": study.task.robot.normalised(float(played.value.returns.mean())),
        }
        places = [("eta", 0.0), ("tau", 0.0)] if isinstance(name, str) else _places(name, grid)
        rows += [
            {"seed": study.seed, "dial": which, "value": value, **measured}
            for which, value in places
        ]
    return pd.DataFrame(rows).sort_values(["dial", "value"], ignore_index=True), runs


def _places(setting: tuple[float, float], grid: DialGrid) -> list[tuple[str, float]]:
    eta, threshold = setting
    places = [("eta", eta)] if threshold == 1 else []
    return places + ([("tau", threshold)] if eta == grid.eta else [])


def _power(policies: SubPolicies, past: torch.Tensor) -> float:
    if policies.guidance is None:
        return 0.0
    control = equal_power_controls(policies, past)["ungated"].guidance
    assert control is not None and control.control is not None
    return float(control.control.square().mean().sqrt())


def _plans(plans: torch.Tensor, rule: divergence.GuidanceConfig) -> dict[str, float]:
    nearest = nearest_neighbour(plans, rule.floor)[0]
    reached = (nearest.min(dim=0).values >= rule.threshold).float().mean()
    return {"reached": float(reached), "div": float(nearest.mean())}


def _apart(done: Executed) -> float:
    i, j = torch.triu_indices(len(done.plans), len(done.plans), 1)
    return float(executed.distances(done)["rms"][i, j].mean())


def run(profile: str, grid: DialGrid | None = None) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: the tidy table, and the runs it comes from."""
    parts = [
        dials_table(Study(TASK, seed, profile, progress=False), grid)
        for seed in profiles.budget(profile).seeds
    ]
    tables = pd.concat([table for table, _ in parts], ignore_index=True)
    return tables, [run for _, runs in parts for run in runs]


# -- what the table says

CLAIMS = (
    ("a higher η moves what is done further apart", "eta", "executed_rms", 1),
    ("a higher τ moves what is done further apart", "tau", "executed_rms", 1),
    ("a higher η costs return", "eta", "score", -1),
    ("a higher τ costs return", "tau", "score", -1),
)
"""What is said, the dial, the measure, and the sign of its change. That a higher τ perturbs more
is the formula itself: an assertion, and no claim."""
UNITS = {"executed_rms": "standard deviations of a state", "score": "points"}
"""Of each measure."""


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Each claim from the lowest value of its dial (not 0) to the highest: columns claim, gain
    (mean, positive where the claim holds), gains (one a seed), verdict."""
    rows = []
    for text, dial_name, measure, sign in CLAIMS:
        part = table[(table["dial"] == dial_name) & (table["value"] > 0)]
        wide = part.pivot(index="seed", columns="value", values=measure)
        check(wide.shape[1] > 1, "table", f"one value of {dial_name}", "two or more")
        gains = sign * (wide[wide.columns.max()] - wide[wide.columns.min()])
        label = statistics.verdict(gains.tolist())
        rows.append((text, float(gains.mean()), gains.tolist(), label))
    return pd.DataFrame(rows, columns=["claim", "gain", "gains", "verdict"])


def told(said: pd.DataFrame) -> str:
    """:func:`verdicts` in words, a line a claim; its gain is positive where the claim holds."""
    units = {text: UNITS[measure] for text, _, measure, _ in CLAIMS}
    lines = [f"- {row.claim}: {row.gain:+.3g} {units[str(row.claim)]}, {row.verdict}"
             for row in said.itertuples()]  # fmt: skip
    return "\n".join(lines)


DIALS = {"eta": "η", "tau": "τ"}


def expected(table: pd.DataFrame) -> list[str]:
    """Was what was expected found? From the unguided set to the highest value of each dial; what
    is perturbed, from the lowest value. Distances of plans (div) and of what is done have no common
    unit, so the factors by which they grow are compared."""
    highest = table.groupby(["dial", "seed"], sort=False)["value"].transform("max")
    part = table.assign(dial=table["dial"].map(DIALS)).set_index(["dial", "seed"])
    last = part[(table["value"] == highest).to_numpy()]
    none = part[(table["value"] == 0).to_numpy()]
    some = part[(table["value"] > 0).to_numpy()].sort_values("value", kind="stable")
    lowest = some[~some.index.duplicated()]
    factors = (last["div"] / none["div"]) / (last["executed_rms"] / none["executed_rms"])
    return [
        line("The perturbation grows with both dials, with τ by the formula (in action units)",
             last["power"] - lowest["power"], shown="{:+.3f}"),
        line("Plans move apart (div, more than unguided)", last["div"] - none["div"]),
        line("What is done moves less (log₂ of the factor of div over that of its distance)",
             factors.map(np.log2)),
        line("Return falls (points below the unguided set)", none["score"] - last["score"],
             shown="{:+.1f}"),
    ]  # fmt: skip
