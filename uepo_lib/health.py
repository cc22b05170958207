"""Does each part work? One number a part, beside the number that it must beat.

Before believing a score on a task of your own, look at what produced it: a critic that ranks
nothing, or a T̂ that is worse than standing still, makes a selection by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from uepo_lib import rollouts
from uepo_lib.datasets import Dataset
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.methods.uepo import UEPO
from uepo_lib.stages import Study

ROWS = 2_000
"""Steps of D that a part is judged on."""


def health(study: Study, made: UEPO) -> pd.DataFrame:
    """Columns part, measure, value, reference, well (is value on the right side of reference?).

    All but the last row look at episodes that no dynamics model learnt from or was chosen by, so
    they test T̂_init and T̂. The clone, the diffusion policy and Q learnt from those episodes too,
    as from all of D: of them ``well`` says that training fitted, not how they generalise.
    The last row costs episodes in the environment, which its evaluation counts.
    """
    rows = list(_rows(study, made))
    table = pd.DataFrame(rows, columns=["part", "measure", "value", "reference", "more"])
    better = (table["value"] > table["reference"]) == table["more"]
    return table.drop(columns="more").assign(well=better)


def _rows(study: Study, made: UEPO) -> Iterator[tuple[Any, ...]]:
    data, held = study.dataset, study.testing
    sample = held[torch.linspace(0, len(held) - 1, min(ROWS, len(held))).long()]
    states, actions = data.states[sample], data.actions[sample]
    seen = pasts(study, sample)
    spread = float(actions.std(dim=0).square().mean().sqrt())
    zero = study.zero_noise(made.model).value
    for name, policy in (("clone", study.clone().value), ("diffusion policy", zero)):
        wanted = policy.act(seen[None])[0, :, 0]
        error = float((wanted - actions).square().mean().sqrt())
        yield name, "RMS error of its action; the actions' own spread", error, spread, False
    plans = study.sub_policies(made.model, 1.0).value.plan_shared(seen[:256])
    yield "sub-policies", "RMS spread of their plans", float(plans.std(dim=0).mean()), 0.01, True
    for name, model in (("T̂_init", made.initial_dynamics), ("T̂", made.dynamics)):
        value, still = one_step(model.value, data, held)
        yield name, "one-step error; that of standing still", value, still, False
    q = made.critic.value.min_q(states, actions)
    after = returns_to_go(data, made.critic.value.cfg.discount)[sample]
    yield "Q", "rank correlation with the return that followed", _rank(q, after), 0.0, True
    sets = study.sub_policies(made.model, 1.0)
    judged = study.am_q(sets, made.dynamics, made.critic).value[study.config("amq").score]
    true = study.evaluate(sets, study.budget.curve_episodes).value.returns.mean(dim=1)
    told = "rank correlation with true returns of sub-policies; chance's once in twenty"
    yield "AM-Q", told, _rank(judged, true), by_chance(len(true)), True


def pasts(study: Study, steps: Tensor) -> Tensor:
    """What a policy sees at ``steps`` (N,) of D: the last T_o states, (N, T_o, S)."""
    return study.dataset.windows(study.obs_horizon, 1).past(steps)  # every step begins one of these


def one_step(model: DynamicsModel, data: Dataset, steps: Tensor) -> tuple[float, float]:
    """Squared error of one step on ``steps`` of D, by the model and by staying where one is."""
    found = rollouts.logged_sequences(data, steps, ROWS, 1)
    errors = rollouts.open_loop_errors(model, found.past, found.actions, found.future)
    return float(errors.model[0]), float(errors.persistence[0])


def returns_to_go(data: Dataset, discount: float) -> Tensor:
    """Σ_k γ^k r_{t+k} to the end of the logged episode, for every step of D: (N,)."""
    found = data.rewards.double().clone()
    for begin, end in data.bounds.tolist():
        for t in range(end - 2, begin - 1, -1):
            found[t] += discount * found[t + 1]
    return found


def by_chance(count: int) -> float:
    """The rank correlation that ``count`` pairs without any relation exceed once in twenty, by the
    normal approximation; above 1, which nothing can beat, where there are few."""
    return float(stats.norm.ppf(0.95)) / max(count - 1, 1) ** 0.5


def _rank(a: Tensor, b: Tensor) -> float:
    """Spearman's ρ; 0 where either is constant, which ranks nothing."""
    if len(a) < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return 0.0
    return float(stats.spearmanr(a.detach().numpy(), b.numpy()).statistic)
