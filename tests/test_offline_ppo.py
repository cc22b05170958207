"""Offline PPO on a world whose best action is known: reward −(a − 0.5)², nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusion_toys import check_golden
from env_toys import identity
from model_toys import MemoryRecorder, randn
from torch import Tensor

from uepo_lib import denoisers, diffusion, offline_ppo
from uepo_lib.chain import ChainActor
from uepo_lib.errors import UsageError
from uepo_lib.offline_ppo import (
    OfflinePPOConfig,
    accepted,
    chunk_advantage,
    improve_offline,
    one_step_advantage,
)
from uepo_lib.policies import GaussianConfig, GaussianPolicy, Policy, Together
from uepo_lib.subpolicies import SubPolicies

BEST = 0.5


class States:
    """What improves is asked on: states that do not matter."""

    def __len__(self) -> int:
        return 64

    def past(self, index: Tensor) -> Tensor:
        return randn(64, 1, 2)[index]


def advantage(windows: Tensor, actions: Tensor) -> Tensor:
    return -(actions.clamp(-1, 1) - BEST).square().sum((1, 2))


def true_scores(policy: Policy) -> Tensor:
    """Exactly what each start is worth: no luck is left."""
    windows = States().past(torch.arange(64)).expand(policy.n, -1, -1, -1)
    return -(policy.act(windows) - BEST).square().sum((2, 3))


def gaussian(seed: int = 0, action_horizon: int = 1) -> GaussianPolicy:
    return GaussianPolicy(
        GaussianConfig(
            2, 1, hidden=(16,), state_dependent_std=False, initial_log_std=-1.0,
            action_horizon=action_horizon,
        ),
        seed,
    )  # fmt: skip


def settings(**changes: Any) -> OfflinePPOConfig:
    defaults = {
        "num_updates": 200, "batch_size": 128, "learning_rate": 3e-3, "evaluate_every": 20,
    }  # fmt: skip
    return OfflinePPOConfig(**{**defaults, **changes})


def improve(members: list[Any], scores: Any = true_scores, **changes: Any) -> Any:
    recorder = changes.pop("recorder", None)
    return improve_offline(
        settings(**changes), members, States(), advantage, scores,
        seed=0, progress=False, recorder=recorder,
    )  # fmt: skip


def distance(policy: Any) -> float:
    return float(true_scores(Together([policy])).mean().neg().sqrt())


def test_every_member_climbs_to_the_known_best_action() -> None:
    members: list[Any] = [gaussian(seed) for seed in range(3)]
    found, looks = improve(members)
    for before, after in zip(members, found, strict=True):
        assert distance(before) > 0.4 and distance(after) < 0.1
    assert len(looks) == 10 and all(len(look.scores) == 3 for look in looks)
    assert sum(sum(look.accepted) for look in looks) >= 6


def test_scores_of_what_is_accepted_only_rise() -> None:
    seen: list[float] = []

    def watching(policy: Policy) -> Tensor:
        found = true_scores(policy)
        seen.append(float(found.mean()))
        return found

    _, looks = improve([gaussian()], watching)
    kept = [seen[0]]
    for look, score in zip(looks, seen[1:], strict=True):
        assert look.scores[0] == pytest.approx(score)
        if look.accepted[0]:
            assert score > kept[-1]
            kept.append(score)
    assert len(kept) > 2


def test_a_denoising_chain_improves_by_the_same_lines() -> None:
    cfg = diffusion.DiffusionConfig(num_train_steps=10, num_denoising_steps=3)
    network = denoisers.DenoiserConfig(backbone="mlp", horizon=4, obs_horizon=1, hidden=(16,))
    model = diffusion.build_diffusion(cfg, network, 2, 1)
    member = ChainActor(SubPolicies.from_seeds(model, 1, 0, action_horizon=2), sigma=0.3)
    frozen = {k: v.clone() for k, v in member.frozen.state_dict().items()}
    (found,), _ = improve([member], num_updates=300)
    assert distance(found) < 0.5 * distance(member)
    assert all(torch.equal(v, found.frozen.state_dict()[k]) for k, v in frozen.items())


def test_where_nothing_is_better_the_policy_comes_back_bit_for_bit() -> None:
    first = gaussian()
    (found,), looks = improve([first], lambda p: torch.zeros(p.n, 8))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), found.parameters(), strict=True)
    )
    assert not any(look.accepted[0] for look in looks)


def test_a_member_does_not_depend_on_how_the_others_score() -> None:
    """The same draws are used; only member 0 may be replaced."""

    def only_first(policy: Policy) -> Tensor:
        found = true_scores(policy)
        found[1:] = -100.0
        return found

    found, _ = improve([gaussian(0), gaussian(1)], only_first)
    assert distance(found[0]) < 0.1
    unchanged = zip(gaussian(1).parameters(), found[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in unchanged)


def test_training_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEPO_CHECKPOINT_SECONDS", "0")
    whole, looks = improve([gaussian()], num_updates=60)
    recorder = MemoryRecorder(stop_after=30)
    with pytest.raises(KeyboardInterrupt):
        improve([gaussian()], num_updates=60, recorder=recorder)
    recorder.stop_after = None
    resumed, again = improve([gaussian()], num_updates=60, recorder=recorder)
    assert looks == again
    pairs = zip(whole[0].parameters(), resumed[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_luck_is_not_taken_for_progress() -> None:
    """Equal policies under noisy scores: accepted as often as two standard errors allow."""
    old, new = randn(4000, 64, seed=1), randn(4000, 64, seed=2)
    assert float(accepted(new, old, 0.0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(accepted(new, old, 2.0).float().mean()) == pytest.approx(0.025, abs=0.01)
    assert accepted(old + 1e-3, old, 2.0).all()  # paired: a small gain at every start is no luck


# ---- advantages ----------------------------------------------------------------------------------


class World:
    """s' = s + a, r = s' (one state, one action); dead above 2. V(s) = 10 s, min Q = 3 a."""

    state_dim = 1
    terminated = staticmethod(lambda states: states[..., 0] > 2)

    def predict(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        after = states + actions
        return after, after[:, 0]

    def v(self, states: Tensor) -> Tensor:
        return 10 * states[..., 0]

    def advantage(self, states: Tensor, actions: Tensor) -> Tensor:
        return 3 * actions[..., 0] - self.v(states)


def test_one_step_advantage_is_that_of_the_critic() -> None:
    world: Any = World()
    found = one_step_advantage(world)(torch.tensor([[[9.0], [1.0]]]), torch.tensor([[[0.5]]]))
    assert found.tolist() == [3 * 0.5 - 10 * 1.0]


def test_chunk_advantage_by_hand_and_across_an_end() -> None:
    world: Any = World()
    by_model = chunk_advantage(world, world, world, identity(world), discount=0.9)
    windows = torch.tensor([[[0.0]], [[1.5]]])
    actions = torch.tensor([[[0.5], [0.5]], [[1.0], [-1.0]]])
    lives = 0.5 + 0.9 * 1.0 + 0.9**2 * 10 * 1.0 - 0.0
    dies = 2.5 - 15.0  # the reward of the step that ends it, nothing behind
    assert by_model(windows, actions).tolist() == pytest.approx([lives, dies])


def test_of_one_action_both_agree_when_q_is_consistent() -> None:
    """Q(s, a) = r + γ V(s') by definition, so both are the same number."""
    world: Any = World()
    world.advantage = lambda s, a: (s + a)[:, 0] * (1 + 0.9 * 10) - 10 * s[:, 0]
    windows, actions = 0.3 * randn(32, 1, 1), 0.3 * randn(32, 1, 1, seed=1)
    chunk = chunk_advantage(world, world, world, identity(world), discount=0.9)
    torch.testing.assert_close(chunk(windows, actions), one_step_advantage(world)(windows, actions))


def test_golden() -> None:
    (found,), _ = improve([gaussian()], num_updates=40)
    check_golden("offline_ppo", {"actions": found(randn(6, 1, 2))[0]}, offline_ppo.REVISION)


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_updates", 0), ("evaluate_every", 0), ("clip_range", 0.0), ("margin", -1.0)],
)
def test_bad_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        OfflinePPOConfig(**{name: value})  # type: ignore[arg-type]


def test_nobody_and_the_frozen_are_refused() -> None:
    with pytest.raises(UsageError, match="members"):
        improve([])
    with pytest.raises(UsageError, match="frozen"):
        improve([gaussian().requires_grad_(False)])
    mixed: list[Any] = [gaussian(), gaussian(action_horizon=2)]
    with pytest.raises(UsageError, match="equal T_o and T_a"):
        Together(mixed)


def test_together_is_each_in_its_own_states() -> None:
    members: list[Any] = [gaussian(0), gaussian(1)]
    states = randn(2, 5, 1, 2)
    found = Together(members).act(states)
    assert found.shape == (2, 5, 1, 1)
    for i, member in enumerate(members):
        assert torch.equal(found[i], member.act(states[i : i + 1])[0])
