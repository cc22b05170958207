"""E2, continued: does AM-Q choose better in T̂ than in T̂_init? (A14)

Offline, T̂ touches the policy only by what it makes AM-Q choose. Here every dynamics model of E2
judges the same candidates, sub-policies at κ from 0 to 1 whose true returns are known from played
episodes; what its choice loses to the best of them is its regret.

**Expected** before any of it was computed: candidates differ by far more than one-step errors do,
so all models rank them nearly alike, and no ε changes the choice by more than noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch

from uepo_lib import dynamics, evaluation, profiles, selection
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.evaluation import AMQConfig, Evaluation
from uepo_lib.experiments import epsilon
from uepo_lib.experiments.comparison_selection import halves, judged
from uepo_lib.experiments.ratios import EPSILON
from uepo_lib.runs import Run
from uepo_lib.selection import KAPPAS
from uepo_lib.stages import ACTING, ACTION_HORIZON, Product, Study
from uepo_lib.subpolicies import SubPolicies

REVISION = 1
SCORES = ("published", "dead_zero", "model_return")
AMQ = {
    "smoke": AMQConfig(4, 12), "laptop": AMQConfig(16, 200), "full": AMQConfig(64, 1_000),
    "paper": AMQConfig(512, 1_000),
}  # fmt: skip
"""As far as where AM-Q's choice is acted on, from fewer starts: it is asked for every model."""
NEARLY_ALL = 0.9
"""So large a share of models that choose alike would be what was expected."""
CELL = ["source", "epsilon", "acceptance"]
CHANCE, INITIAL, ALL = "a candidate at random", "T̂_init", "all T̂"
"""Kinds of choosing, one of them by nothing."""


def amq_of(profile: str) -> AMQConfig:
    """How AM-Q is asked at ``profile``; ``UsageError`` for a profile without an answer."""
    return profiles.entry(AMQ, profile)


def measure(seed: int, profile: str) -> Product[pd.DataFrame]:
    """One seed's table, a row a model and candidate.

    Columns seed, source ("none" for T̂_init), epsilon (NaN: no filter), acceptance, member, kappa,
    published, dead_zero, model_return (AM-Q's scores), score (normalised true return, points).
    """
    found, cfg = epsilon.cells(seed, profile), amq_of(profile)
    whole = Study(epsilon.TASK, seed, profile, progress=False)
    trained, critic = whole.diffusion_policy(), whole.critic()
    played = [_played(whole, kappa) for kappa in KAPPAS]
    models = {("none", None, "none"): found.initial, **{
        (source, choice.epsilon, choice.acceptance): product
        for (source, ratio, choice), product in found.cells.items() if ratio == 1
    }}  # fmt: skip

    def produce(run: Run) -> None:
        plain = SubPolicies.from_seeds(
            trained.value, whole.budget.num_subpolicies, seed, action_horizon=ACTION_HORIZON
        )
        policies = selection.candidates(plain)
        known = _known(whole, [product.value for product in played])
        for cell, product in models.items():
            scores = _judge(found.study, policies, product.value, critic.value, cfg)
            for row in _rows(cell, scores, known):
                run.table("candidates").append({"seed": seed, **row})

    parents: tuple[Product[Any], ...] = (trained, critic, *played, *models.values())
    config = {"model_selection": REVISION, "amq": asdict(cfg), "kappas": list(KAPPAS)}
    return found.study.stage(
        "model_selection", config, produce, lambda run: run.table("candidates").frame(),
        (*ACTING, dynamics), parents, "about a minute",
    )  # fmt: skip


def run(profile: str) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: the tidy table, with true scores by half of the episodes besides
    (even, odd), and the runs it comes from."""
    products = {seed: measure(seed, profile) for seed in profiles.budget(profile).seeds}
    tables = [
        product.value.merge(_halves(seed, profile), on=["member", "kappa"])
        for seed, product in products.items()
    ]
    return pd.concat(tables, ignore_index=True), [product.run for product in products.values()]


def _halves(seed: int, profile: str) -> pd.DataFrame:
    """True scores of the candidates by half of the episodes: member, kappa, even, odd."""
    study = Study(epsilon.TASK, seed, profile, progress=False)
    count, normalised = study.budget.curve_episodes, study.task.robot.normalised
    parts = [halves(_played(study, kappa).value.returns[:, :count]) for kappa in KAPPAS]
    table = pd.DataFrame(selection.pairs(study.budget.num_subpolicies), columns=["member", "kappa"])
    for name in ("even", "odd"):
        table[name] = [normalised(float(x)) for part in parts for x in part[name]]
    return table


def _played(study: Study, kappa: float) -> Product[Evaluation]:
    """Returns that other notebooks have played: with κ = 0 once, from the same reset seeds."""
    model = study.diffusion_policy()
    if kappa == 0:
        return study.evaluate(study.zero_noise(model))
    return study.evaluate(study.sub_policies(model, kappa), study.budget.curve_episodes)


def _known(study: Study, played: list[Evaluation]) -> list[tuple[int, float, float]]:
    """Candidates (member, κ, score) in :func:`selection.pairs`' order, over equal episodes."""
    count = study.budget.curve_episodes
    means = torch.cat([seen.returns[:, :count].mean(1) for seen in played]).tolist()
    pairs = selection.pairs(study.budget.num_subpolicies)
    scores = [study.task.robot.normalised(value) for value in means]
    return [(*pair, score) for pair, score in zip(pairs, scores, strict=True)]


def _judge(
    study: Study, policies: SubPolicies, model: DynamicsModel, critic: Any, cfg: AMQConfig
) -> dict[str, torch.Tensor]:
    return evaluation.am_q(
        policies, model, critic, study.starts(cfg.num_starts, "am_q"), study.task.robot,
        study.dataset.normaliser, cfg, study.generator("am_q elites"),
    )  # fmt: skip


def _rows(
    cell: tuple[str, float | None, str],
    scores: dict[str, torch.Tensor],
    known: list[tuple[int, float, float]],
) -> Iterator[dict[str, Any]]:
    for c, (member, kappa, score) in enumerate(known):
        told = {name: float(scores[name][c]) for name in SCORES}
        yield {**dict(zip(CELL, cell, strict=True)), "member": member, "kappa": kappa, **told,
               "score": score}  # fmt: skip


# -- what the table says


def distinct(table: pd.DataFrame, score: str = "dead_zero") -> pd.DataFrame:
    """``table`` with each model once. Two ε that both fill the wanted volume at random are given
    the same draw, so theirs is one T̂ under two names: equal in every score. The later name, that
    of the larger ε, is kept."""
    cells = table.groupby(CELL, sort=False, dropna=False)
    models = {tuple(part[score]): part for _, part in cells}
    return pd.concat(models.values())


def regrets(table: pd.DataFrame, score: str = "dead_zero") -> pd.DataFrame:
    """Each distinct model's Spearman correlation with the true score, and its regret in points, the
    best found by one half of the episodes and scored by the other.

    Columns seed, source, epsilon, acceptance, correlation, chosen, best, regret, and random: what a
    candidate drawn at random loses to the same best on average, which needs no model.
    """
    parts = []
    for _, part in distinct(table, score).groupby(CELL, sort=False, dropna=False):
        found = judged(part.assign(task=epsilon.TASK, method=part["acceptance"]), score)
        parts.append(found.join(part.groupby("seed")[CELL].first(), on="seed"))
    columns = ["seed", *CELL, "correlation", "chosen", "best", "regret", "random"]
    found = pd.concat(parts, ignore_index=True)
    return found.assign(random=found["best"] - found["mean"])[columns]


def against_chance(regrets: pd.DataFrame) -> pd.DataFrame:
    """What choosing in each kind of model is worth beside not choosing at all: means over seeds of
    correlation and regret, a row a kind. A draw at random has the correlation 0."""
    kl = (regrets["acceptance"] == "kl") & (regrets["epsilon"] == EPSILON)
    kinds = {INITIAL: regrets["source"] == "none"} | {
        f"T̂, ε = {EPSILON:g}, {name}": kl & (regrets["source"] == source)
        for source, name in (("model", "T̂_init's transitions"), ("simulator", "the simulator's"))
    }
    kinds[ALL] = regrets["source"] != "none"
    rows = {CHANCE: (0.0, regrets.groupby("seed")["random"].first().mean())} | {
        kind: tuple(regrets.loc[mine, ["correlation", "regret"]].mean())
        for kind, mine in kinds.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["correlation", "regret"])


def chance_told(found: pd.DataFrame) -> str:
    """What :func:`against_chance` means for this comparison, in words."""
    regret = found["regret"].to_dict()
    worse = [name for name in (INITIAL, ALL) if regret[name] > regret[CHANCE]]
    if not worse:
        return "On average AM-Q chooses better than chance, in T̂_init and in T̂."
    return (
        f"**On average AM-Q chooses worse than chance here** ({' and '.join(worse)}): which of two "
        "such models loses less says nothing of what augmentation is worth where AM-Q works."
    )


def alike(regrets: pd.DataFrame) -> str:
    """Do all models choose alike? How many choose what T̂_init of their seed does, in words."""
    initial = regrets[regrets["source"] == "none"].set_index("seed")["chosen"]
    others = regrets[regrets["source"] != "none"]
    same = others["chosen"] == others["seed"].map(initial)
    ends = others.groupby("seed")["chosen"].agg(["min", "max"])
    apart = "; ".join(
        f"seed {seed}: {low:.1f} to {high:.1f}" for seed, low, high in ends.itertuples()
    )
    met = "as expected" if same.mean() >= NEARLY_ALL else "expected were nearly all"
    return (
        f"{same.sum()} of {len(same)} models choose the candidate that T̂_init does: {met}. True "
        f"scores of what they choose, {apart}."
    )
