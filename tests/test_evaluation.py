from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_toys import check_golden
from env_toys import ConstantPolicy, identity, scripted_robot
from model_toys import randn
from torch import Tensor

from uepo_lib import dynamics, evaluation, finetuning, profiles, values
from uepo_lib.errors import UsageError
from uepo_lib.evaluation import EVALUATION_SEED, AMQConfig, am_q, evaluate
from uepo_lib.finetuning import Watch, fine_tune
from uepo_lib.locomotion import HOPPER
from uepo_lib.networks import StateValue, mlp
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.ppo import PPOConfig
from uepo_lib.recording import Recording

# ---- in the environment --------------------------------------------------------------------------

CHUNKS = torch.tensor([[[0.3, 0.1, 0.0], [0.0, -0.2, 0.5]], [[1.0, 1.0, 1.0], [-1.0, 0.0, 0.0]]])


def plain_episode(chunk: Tensor, seed: int) -> tuple[float, int]:
    env = HOPPER.make()
    env.reset(seed=seed)
    total, length, terminated = 0.0, 0, False
    while not terminated:
        _, reward, terminated, _, _ = env.step(chunk[length % len(chunk)].numpy())
        total, length = total + float(reward), length + 1
    env.close()
    return total, length


def test_returns_are_those_of_a_plain_loop_from_the_stated_seeds() -> None:
    seen = evaluate(ConstantPolicy(CHUNKS), HOPPER, identity(HOPPER), 3)
    assert seen.returns.shape == seen.lengths.shape == (2, 3)
    for member in range(2):
        for episode in range(3):
            total, length = plain_episode(CHUNKS[member], EVALUATION_SEED + episode)
            assert seen.returns[member, episode].item() == pytest.approx(total, rel=1e-5)
            assert seen.lengths[member, episode] == length
    assert seen.num_steps == int(seen.lengths.sum())


def test_waves_do_not_change_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = ConstantPolicy(CHUNKS)
    at_once = evaluate(policy, HOPPER, identity(HOPPER), 5, first_seed=7)
    monkeypatch.setattr(evaluation, "ENVIRONMENTS_AT_ONCE", 4)
    in_waves = evaluate(policy, HOPPER, identity(HOPPER), 5, first_seed=7)
    assert torch.equal(at_once.returns, in_waves.returns)
    assert torch.equal(at_once.lengths, in_waves.lengths)


def test_the_clock_ends_an_episode() -> None:
    robot = scripted_robot(max_episode_steps=7)
    seen = evaluate(ConstantPolicy(torch.full((1, 3, 1), 0.5)), robot, identity(robot), 2)
    assert seen.lengths.tolist() == [[7, 7]]
    assert seen.returns.tolist() == [[-1.75, -1.75]]


def test_policies_see_standardised_windows() -> None:
    robot, seen = scripted_robot(max_episode_steps=3), []

    class Watching(ConstantPolicy):
        def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
            seen.append(states[0, 0, :, 0].tolist())
            return super().act(states, generator)

    normaliser = identity(robot)
    normaliser.mean.fill_(1.0)
    normaliser.std.fill_(2.0)
    evaluate(Watching(torch.zeros(1, 1, 1), obs_horizon=2), robot, normaliser, 1)
    assert seen == [[-0.5, -0.5], [-0.5, 0.0], [0.0, 0.5]]


def test_no_episodes_is_refused() -> None:
    with pytest.raises(UsageError, match="num_episodes"):
        evaluate(ConstantPolicy(CHUNKS), HOPPER, identity(HOPPER), 0)


# ---- AM-Q on a world whose answers are known -----------------------------------------------------

RECKLESS, CAREFUL = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)


class ClockWorld:
    """States (time, last action); a reckless one dies at 60. Q is 100 up to 50, then 80."""

    terminated = staticmethod(lambda s: (s[..., 0] >= 60) & (s[..., 1] > 0) | s.isnan().any(-1))
    state_dim = 2

    def __init__(self, beyond: float = 0.0) -> None:
        self.beyond = beyond

    def draw_elites(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(count, dtype=torch.long)

    def step(
        self, states: Tensor, actions: Tensor, *, member: Tensor, sample: bool
    ) -> tuple[Tensor, Tensor]:
        assert not sample
        after = torch.cat([states[:, :1] + 1, actions], 1)
        dead = (states[:, :1] >= 60) & (states[:, 1:] > 0)
        return torch.where(dead, after + self.beyond, after), 1 + 0 * states[:, 0]

    def min_q(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.where(states[:, 0] < 50, 100.0, 80.0) + 0 * states[:, 1]

    def v(self, states: Tensor) -> Tensor:
        return 30.0 + 0 * states[:, 1]


def score(
    policies: list[Tensor], world: ClockWorld | None = None, **config: Any
) -> dict[str, list[float]]:
    toy: Any = world or ClockWorld()
    settings = AMQConfig(**{"horizon": 1000, **config})
    policy = ConstantPolicy(torch.cat(policies))
    found = am_q(
        policy, toy, toy, torch.zeros(3, 1, 2), toy, identity(toy), settings, torch.Generator()
    )
    return {name: values.tolist() for name, values in found.items()}


def test_the_published_form_prefers_to_die_early_and_dead_zero_does_not() -> None:
    found = score([RECKLESS, CAREFUL])
    assert found["published"] == pytest.approx([(50 * 100 + 10 * 80) / 60, 81.0])
    assert found["published"][0] == pytest.approx(96.7, abs=0.05)
    assert found["dead_zero"] == pytest.approx([5.8, 81.0])
    assert found["published"][0] > found["published"][1]
    assert found["dead_zero"][0] < found["dead_zero"][1]


def test_model_return_is_the_discounted_sum_with_the_value_behind_it() -> None:
    gamma, horizon = 0.9, 80
    found = score([RECKLESS, CAREFUL], horizon=horizon, discount=gamma)["model_return"]
    assert found[0] == pytest.approx((1 - gamma**60) / (1 - gamma))
    assert found[1] == pytest.approx(
        (1 - gamma**horizon) / (1 - gamma) + gamma**horizon * 30, rel=1e-5
    )


class EndingWorld(ClockWorld):
    """Action 1 ends at once, which pays ``end``; action 0 pays ``stay`` a step, for ever. Q and V
    are the true values."""

    terminated = staticmethod(lambda s: s[..., 1] > 0)

    def __init__(self, end: float, stay: float) -> None:
        super().__init__()
        self.end, self.stay = end, stay

    def step(self, states: Tensor, actions: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        after = torch.cat([states[:, :1] + 1, actions], 1)
        return after, self.end * actions[:, 0] + self.stay * (1 - actions[:, 0])

    def min_q(self, states: Tensor, actions: Tensor) -> Tensor:
        return self.end * actions[:, 0] + self.stay / (1 - 0.99) * (1 - actions[:, 0])

    def v(self, states: Tensor) -> Tensor:
        return self.stay / (1 - 0.99) + 0 * states[:, 0]


@pytest.mark.parametrize(
    ("end", "stay", "ending_is_right"), [(1.0, 0.002, True), (-300.0, -1.0, False)]
)
def test_dead_zero_errs_where_an_end_is_success_or_values_are_negative(
    end: float, stay: float, ending_is_right: bool
) -> None:
    """To arrive is worth 1 and to linger 0.2; to fall costs 300 and to live on 100."""
    found = score([RECKLESS, CAREFUL], EndingWorld(end, stay), horizon=100)
    assert found["model_return"] == pytest.approx([end, 100 * stay], rel=1e-4)
    ends, stays = found["model_return"]
    assert (ends > stays) == ending_is_right
    ends, stays = found["dead_zero"]
    assert (ends > stays) != ending_is_right


@pytest.mark.parametrize("beyond", [float("inf"), float("nan")])
def test_what_the_model_dreams_after_an_end_does_not_count(beyond: float) -> None:
    assert score([RECKLESS], ClockWorld(beyond)) == score([RECKLESS])


class RunawayWorld(ClockWorld):
    """Action 1 multiplies the state by 1e20 a step, which no rule of the robot ends."""

    terminated = staticmethod(lambda s: torch.zeros(s.shape[:-1], dtype=torch.bool))

    def step(self, states: Tensor, actions: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        after = states * (1 + 1e20 * actions) + 1
        return after, 1 + 0 * states[:, 0]


def test_to_run_off_to_infinity_is_an_end_and_wins_nothing() -> None:
    found = score([RECKLESS, CAREFUL], RunawayWorld(), horizon=10)
    # states 0, 1, 1e20, and then past the largest float
    assert found["dead_zero"] == pytest.approx([28.0, 100.0])
    assert found["model_return"][0] == pytest.approx(1 + 0.99 + 0.99**2)
    assert found["model_return"][1] > 30


def test_what_cannot_be_compared_start_by_start_is_refused() -> None:
    AMQConfig().check_by_start()
    with pytest.raises(UsageError, match=r"amq\.score='published'"):
        AMQConfig(score="published").check_by_start()


def test_a_plan_is_executed_open_loop_for_its_whole_length() -> None:
    """Reckless only in the second half of a chunk of 2: dead on an odd step."""
    policy = torch.tensor([[[0.0], [1.0]]])
    found = score([policy], horizon=100)
    assert found["dead_zero"][0] == pytest.approx((50 * 100 + 10 * 80) / 100)
    with pytest.raises(UsageError, match="action_horizon=2"):
        score([policy], horizon=99)


# ---- AM-Q with learned parts ---------------------------------------------------------------------


def learned(policy: Any, seed: int = 0) -> dict[str, Tensor]:
    cfg = dynamics.DynamicsConfig(
        num_members=3, num_elites=2, hidden=(16, 16), weight_decay=(0.0,) * 3
    )
    robot: Any = SimpleNamespace(
        state_dim=3, terminated=lambda states: states[..., 0].abs() > 2, max_episode_steps=10
    )
    return am_q(
        policy,
        dynamics.build(cfg, 3, 1, 0).requires_grad_(False),
        values.build(values.IQLConfig(hidden_q=(16,), hidden_v=(16,)), 3, 1, 0),
        0.3 * randn(6, 2, 3, seed=1),
        robot,
        identity(robot),
        AMQConfig(horizon=20),
        torch.Generator().manual_seed(seed),
    )


def test_identical_members_get_identical_scores_and_others_do_not() -> None:
    a, b = torch.full((1, 4, 1), 0.5), torch.full((1, 4, 1), -0.5)
    for found in learned(ConstantPolicy(torch.cat([a, a, b]), obs_horizon=2)).values():
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
        assert (found[0] - found[2]).abs() > 1e-4


def test_a_members_score_does_not_depend_on_the_others() -> None:
    a, b = torch.full((1, 4, 1), 0.5), torch.full((1, 4, 1), -0.5)
    alone = learned(ConstantPolicy(b, obs_horizon=2))
    among = learned(ConstantPolicy(torch.cat([a, b]), obs_horizon=2))
    for name, value in alone.items():
        torch.testing.assert_close(among[name][1:], value, rtol=1e-5, atol=1e-6)


def test_scores_repeat_with_the_seed() -> None:
    policy = ConstantPolicy(torch.full((1, 4, 1), 0.5), obs_horizon=2)
    first, again, other = learned(policy), learned(policy), learned(policy, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["dead_zero"], other["dead_zero"])  # other elites were drawn


def test_golden() -> None:
    played = evaluate(ConstantPolicy(CHUNKS), HOPPER, identity(HOPPER), 2)
    judged = learned(ConstantPolicy(0.5 * randn(2, 4, 1), obs_horizon=2))
    found = {"returns": played.returns, "lengths": played.lengths, **judged}
    check_golden("evaluation", found, evaluation.REVISION, atol=1e-3)


@pytest.mark.parametrize(("name", "value"), [("discount", 7.0), ("discount", -0.1), ("horizon", 0)])
def test_bad_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name}={value}"):
        AMQConfig(**{name: value})


# ---- watching an online phase --------------------------------------------------------------------


def watched(
    folder: Path, seed: int = 0, learning_rate: float = 1e-2
) -> tuple[GaussianPolicy, Recording]:
    """The policy and the run that fine-tuning filled."""
    robot = scripted_robot(max_episode_steps=5, target=0.5)
    actor = GaussianPolicy(
        GaussianConfig(1, 1, action_horizon=2, hidden=(8,), state_dependent_std=False)
    )
    config = PPOConfig(
        num_env_steps=60,
        num_envs=2,
        steps_per_update=20,
        minibatch_size=8,
        num_epochs=2,
        learning_rate=learning_rate,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value = StateValue(mlp([1, 8, 1]))
    run = Recording(folder, {"status": "running"})
    watch = Watch(episodes=4, curve_episodes=2, curve_points=2, probe=randn(8, 1, 1))
    fine_tune(
        actor, value, robot, identity(robot), config, watch,
        seed=seed, run=run, progress=False,
    )  # fmt: skip
    return actor, run


@pytest.mark.parametrize("seed", [99, 199])
def test_training_may_not_begin_on_the_episodes_of_a_look(tmp_path: Path, seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed={seed}: must be another"):
        watched(tmp_path, seed)


@pytest.mark.parametrize("seed", [0, 98, 100, 200, 299])
def test_other_seeds_keep_their_training_resets(seed: int) -> None:
    assert finetuning.training_seeds(seed, 3, 50) == range(
        10_000 * (seed + 1), 10_000 * (seed + 1) + 3
    )


def test_as_many_episodes_as_lie_between_reach_the_next_seed() -> None:
    assert finetuning.training_seeds(100, 8, 10_000)
    with pytest.raises(UsageError, match="seed=100"):
        finetuning.training_seeds(100, 8, 10_001)
    with pytest.raises(UsageError, match="seed=98"):
        finetuning.training_seeds(98, 10_001, 1)


def test_golden_of_fine_tuning(tmp_path: Path) -> None:
    actor, run = watched(tmp_path)
    looks = run.table("evaluations").frame()
    names = ("env_steps", "return", "policy_kl", "shift", "displacement")
    found = {name: torch.tensor(looks[name].to_numpy(dtype=np.float32)) for name in names}
    found["act"] = actor.act(torch.arange(5.0).view(1, 5, 1, 1))
    found["rewards"] = run.tensors("online.safetensors")["rewards"]
    check_golden("finetuning", found, finetuning.REVISION, atol=1e-3)


def test_an_online_phase_is_watched_and_every_step_is_counted(tmp_path: Path) -> None:
    _, run = watched(tmp_path)
    looks = run.table("evaluations").frame()
    assert looks["episodes"].tolist() == [2, 2, 2, 2]
    assert (looks[["policy_kl", "shift", "displacement"]].iloc[0] == 0).all()
    assert (looks["displacement"].iloc[1:] > 0).all()
    assert np.isfinite(looks["policy_kl"]).all()
    returns = run.tensors("returns.safetensors")
    assert {name: len(values) for name, values in returns.items()} == {
        "start": 4, "end": 4, "best": 4, "start_exploring": 2, "end_exploring": 2
    }  # fmt: skip
    best = looks.iloc[looks["return"].argmax()]
    assert run.json("best") == {
        "env_steps": best.env_steps,
        "return": pytest.approx(best["return"]),
    }
    spent = run.progress()["environment"]
    steps = int(looks["env_steps"].iloc[-1])
    assert spent["online training"]["steps"] == steps
    assert len(run.tensors("online.safetensors")["rewards"]) == steps
    looked = looks["episodes"].sum() + 2 * 2  # exploring at both ends
    scored = 2 * 4 if best.env_steps in (0, steps) else 3 * 4
    assert spent["evaluation"] == {"steps": 5 * (looked + scored), "episodes": looked + scored}
    if best.env_steps == steps:
        assert torch.equal(returns["best"], returns["end"])


def test_a_policy_that_is_best_as_it_began_is_not_played_again(tmp_path: Path) -> None:
    _, run = watched(tmp_path, learning_rate=1e-30)
    assert run.json("best")["env_steps"] == 0
    returns = run.tensors("returns.safetensors")
    assert torch.equal(returns["best"], returns["start"])
    looked, scored = 4 * 2 + 2 * 2, 2 * 4
    assert run.progress()["environment"]["evaluation"]["episodes"] == looked + scored


def test_a_budget_says_how_an_online_phase_is_watched() -> None:
    """All of it but the probe; part of the configuration that names a run."""
    watched = profiles.SMOKE.watched
    assert {*watched, "probe"} == {field.name for field in fields(Watch)}
    assert watched == {"episodes": 3, "curve_episodes": 2, "curve_points": 1}
