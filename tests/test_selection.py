from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from env_toys import identity
from tiny_study import settle, tiny
from torch import Tensor

from uepo_lib import toys
from uepo_lib.divergence import GuidanceConfig
from uepo_lib.errors import UsageError
from uepo_lib.evaluation import AMQConfig, am_q
from uepo_lib.methods.uepo import select
from uepo_lib.selection import KAPPAS, candidates, pairs, tuned
from uepo_lib.stages import Study
from uepo_lib.subpolicies import SubPolicies

TOY = toys.four_modes(obs_horizon=1)
POLICIES = SubPolicies.from_seeds(toys.exact_model(TOY), 6, seed=0, action_horizon=4)
STEPS = 8


def nearer(door: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """The reward: by how much a step brings the point nearer to ``door``."""
    return (states - door).norm(dim=-1) - (TOY.step(states, actions) - door).norm(dim=-1)


def judge(door: Tensor) -> Any:
    """AM-Q in the toy's true dynamics, where Q is the reward of the step."""
    world: Any = SimpleNamespace(
        state_dim=2,
        terminated=lambda states: torch.zeros(states.shape[:-1], dtype=torch.bool),
        draw_elites=lambda count, generator: torch.zeros(count, dtype=torch.long),
        step=lambda s, a, member, sample: (TOY.step(s, a), nearer(door, s, a)),
        min_q=lambda s, a: nearer(door, s, a),
        v=lambda s: 0 * s[:, 0],
    )
    starts = TOY.past(TOY.draw_states(16, torch.Generator().manual_seed(1)))
    config = AMQConfig(num_starts=16, horizon=STEPS)

    def score(policies: SubPolicies) -> Tensor:
        found = am_q(
            policies, world, world, starts, world, identity(world), config, torch.Generator()
        )
        return found["dead_zero"]

    return score


def true_return(i: int, kappa: float, door: Tensor) -> float:
    """A plain loop: plan, execute T_a actions, plan again; from the same places."""
    model = POLICIES.model
    states = TOY.draw_states(16, torch.Generator().manual_seed(1))
    total = torch.zeros(16)
    for _ in range(STEPS // 4):
        start = kappa * POLICIES.noise[i].expand(16, -1, -1)
        plan = model.sample(start, TOY.past(states)).clamp(-1, 1)
        for t in range(4):
            total += nearer(door, states, plan[:, t])
            states = TOY.step(states, plan[:, t])
    return float(total.mean())


@pytest.mark.parametrize("m", range(4))
def test_the_choice_is_the_truly_best_pair(m: int) -> None:
    door = TOY.doors[m]
    truth = {pair: true_return(*pair, door) for pair in pairs(POLICIES.n)}
    best = max(truth, key=lambda pair: truth[pair])
    scores = judge(door)(candidates(POLICIES))
    chosen = pairs(POLICIES.n)[int(scores.argmax())]
    assert truth[chosen] == pytest.approx(truth[best], abs=1e-4)
    # κ = 0 stands still between four equal doors: the best only where no noise goes to the door
    at_centre = POLICIES.plan_shared(TOY.past(torch.zeros(1, 2)))
    reached = m in TOY.mode_of(at_centre)
    assert (truth[chosen] > truth[0, 0.0] + 0.5) == reached
    assert (chosen == (0, 0.0)) == (not reached)
    assert pairs(POLICIES.n)[int(scores.argmin())] != chosen


def test_scores_are_those_of_each_pair_alone() -> None:
    """The same starts for all: a candidate's score does not depend on its company."""
    score = judge(TOY.doors[0])
    together = score(candidates(POLICIES))
    for c, (i, kappa) in enumerate(pairs(POLICIES.n)):
        alone = SubPolicies(POLICIES.model, POLICIES.noise[i : i + 1], kappa, action_horizon=4)
        torch.testing.assert_close(together[c : c + 1], score(alone), atol=1e-4, rtol=1e-4)


def test_zero_noise_counts_once() -> None:
    assert len(pairs(6)) == 1 + 3 * 6
    assert pairs(2, (0.0, 1.0)) == [(0, 0.0), (0, 1.0), (1, 1.0)]
    grid = candidates(POLICIES)
    assert (grid.kappa == 0).sum() == 1
    assert (grid.n, grid.action_horizon, grid.num_denoising_steps) == (19, 4, 5)
    assert [pairs(6)[c][1] for c in range(19)] == grid.kappa.tolist()


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="kappas"):
        pairs(2, (0.5, 0.5))
    with pytest.raises(UsageError, match="kappas"):
        pairs(2, ())
    with pytest.raises(UsageError, match="n=0"):
        pairs(0)
    for changes in ({"fresh_noise": True}, {"guidance": GuidanceConfig(1.0)}):
        with pytest.raises(UsageError, match="policies"):
            candidates(SubPolicies.from_seeds(POLICIES.model, 2, 0, **changes))


# ---- as a stage ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder: Path = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder / "data")
        yield tiny()


def test_the_stage_chooses_what_algorithm_1_chooses(study: Study) -> None:
    model, dynamics, critic = study.diffusion_policy(), study.dynamics(), study.critic()
    found = tuned(study, model, dynamics, critic)
    assert len(found.scores) == 1 + 3 * study.budget.num_subpolicies
    assert found.run.spec.kind == "amq"
    best = found.scores.loc[found.scores["score"].idxmax()]
    assert (found.member, found.kappa) == (best["member"], best["kappa"])
    same = select(study, model, dynamics, critic, KAPPAS)
    assert found.policy.config == same.config and found.policy.keys == same.keys
    states = torch.randn(1, 4, 1, 11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.policy.value.act(states), same.value.act(states))
    assert found.policy.value.kappa == found.kappa
