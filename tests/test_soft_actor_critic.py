"""Soft actor-critic with D in every batch: its data, its target, its critics, what it finds."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden
from env_toys import identity, scripted_robot
from model_toys import MemoryRecorder, randn
from tiny_study import settled, tiny
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from uepo_lib import recording, soft_actor_critic
from uepo_lib.datasets import Transitions
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError
from uepo_lib.experiments.online_summary import summary
from uepo_lib.locomotion import HOPPER
from uepo_lib.policies import SquashedGaussian
from uepo_lib.soft_actor_critic import SACConfig, Trainer
from uepo_lib.soft_actor_critic import soft_actor_critic as learnt
from uepo_lib.stages import Product, Study
from uepo_lib.training import fit

TARGET = 0.5
SMALL = SACConfig(
    num_env_steps=90, steps_per_update=30, learning_starts=30, batch_size=16, hidden=(16, 16)
)


def logged(size: int = 200, seed: int = 0) -> Transitions:
    """What a random policy logged in one-step episodes whose best action is ``TARGET``."""
    actions = 2 * torch.rand(size, 1, generator=torch.Generator().manual_seed(seed)) - 1
    rewards = -(actions[:, 0] - TARGET).square()
    states, ended = torch.zeros(size, 1), torch.ones(size, dtype=torch.bool)
    return Transitions(states, actions, rewards, states + 1, ended)


def trainer(config: SACConfig = SMALL, data: Transitions | None = None, **robot: Any) -> Trainer:
    made = scripted_robot(**{"last": 1, "target": TARGET, **robot})
    return on(made, config, data or logged())


def on(robot: Any, config: SACConfig, data: Transitions) -> Trainer:
    envs = ChunkedEnvs(robot, [0], keep_transitions=True)
    noise, batches = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    return Trainer(config, envs, data, identity(robot), noise, batches)


def policy_of(made: Trainer) -> SquashedGaussian:
    policy = SquashedGaussian(1, 1, made.config.hidden)
    policy.load_state_dict(made.agent.actor.state_dict())
    return policy


# ---- data ----------------------------------------------------------------------------------------


def test_half_of_every_batch_is_logged() -> None:
    """Logged actions are marked by a value that no agent can take."""
    data = logged()
    made = trainer(data=replace(data, actions=torch.full_like(data.actions, 9.0)))
    made.advance()
    for size in (2, 16, 64):
        batch = made.data.sample(size)
        marked = batch.actions[:, 0] == 9
        assert not marked[: size // 2].any() and marked[size // 2 :].all()
        assert all(len(column) == size for column in batch[:5])


def test_both_halves_are_whole_steps() -> None:
    """Every column of a row is of one step: r = −(a − target)² in both halves."""
    made = trainer()
    made.advance()
    batch = made.data.sample(64)
    torch.testing.assert_close(batch.rewards, -(batch.actions - TARGET).square())
    assert (batch.observations == 0).all() and (batch.next_observations == 1).all()


def test_only_the_seen_part_of_the_buffer_is_drawn() -> None:
    made = trainer()
    made.advance()
    drawn: set[float] = set()
    for _ in range(50):
        drawn |= set(made.data.sample(64).actions[:32, 0].tolist())
    taken = made.data.own.actions[: SMALL.steps_per_update, 0, 0].tolist()
    assert drawn == set(taken) and made.data.own.pos == SMALL.steps_per_update


@pytest.mark.parametrize(("robot", "ends"), [({"last": 3}, 1.0), ({"last": None}, 0.0)], ids=str)
def test_what_the_clock_ends_has_a_future(robot: dict[str, Any], ends: float) -> None:
    """Episodes of three steps: by the task, or by the clock."""
    made = trainer(max_episode_steps=3, **robot)
    made.advance()
    own = made.data.own._get_samples(torch.arange(SMALL.steps_per_update).numpy())
    last = own.next_observations[:, 0] == 3
    assert last.sum() == SMALL.steps_per_update // 3
    assert (own.dones[last] == ends).all() and (own.dones[~last] == 0).all()
    assert len(made.episodes.value) == SMALL.steps_per_update // 3


# ---- the target ----------------------------------------------------------------------------------


def constant_(critic: Any, value: float) -> None:
    with torch.no_grad():
        for network in critic.q_networks:
            network[-1].weight.zero_()
            network[-1].bias.fill_(value)


@pytest.mark.parametrize("logged_ends", [True, False])
def test_a_termination_ends_the_target(logged_ends: bool) -> None:
    """Q = 2, Q' = 5, no entropy: the target is r at a termination and r + γ 5 elsewhere."""
    data = logged()
    data = replace(data, terminated=torch.full((len(data),), logged_ends))
    made = trainer(data=data, last=None, max_episode_steps=3)
    made.advance()
    constant_(made.agent.critic, 2.0)
    constant_(made.agent.critic_target, 5.0)
    with torch.no_grad():
        made.agent.log_ent_coef.fill_(-50.0)
    before = made.data.generator.get_state()
    batch = made.data.sample(SMALL.batch_size)
    made.data.generator.set_state(before)
    ends = torch.tensor([0.0] * 8 + [float(logged_ends)] * 8).unsqueeze(1)
    assert torch.equal(batch.dones, ends)
    target = batch.rewards + SMALL.discount * (1 - ends) * 5.0
    made.agent.train(gradient_steps=1, batch_size=SMALL.batch_size)
    loss = made.agent.logger.name_to_value["train/critic_loss"]  # ½ a critic, and there are two
    assert loss == pytest.approx(float((2.0 - target).square().mean()), rel=1e-5)


def test_layer_norm_bounds_what_critics_say() -> None:
    """|Q| ≤ ‖w‖ √H + |b|, however far away the action is; the actor has no such layer."""
    made = trainer()
    for critic in (made.agent.critic, made.agent.critic_target):
        far = 1e4 * randn(512, 1), 1e4 * randn(512, 1, seed=1)
        for network, values in zip(critic.q_networks, critic(*far), strict=True):
            assert sum(isinstance(m, torch.nn.LayerNorm) for m in network) == 2
            last = network[-1]
            bound = last.weight.norm() * SMALL.hidden[-1] ** 0.5 + last.bias.abs()
            assert float(values.detach().abs().max()) <= float(bound.detach())
    online, target = (c.state_dict() for c in (made.agent.critic, made.agent.critic_target))
    assert all(torch.equal(value, target[name]) for name, value in online.items())
    optimised = {id(p) for g in made.agent.critic.optimizer.param_groups for p in g["params"]}
    assert optimised == {id(p) for p in made.agent.critic.parameters()}
    assert not any(isinstance(m, torch.nn.LayerNorm) for m in made.agent.actor.modules())


@pytest.mark.parametrize("ratio", [1, 3])
def test_updates_follow_the_ratio(ratio: int) -> None:
    made = trainer(replace(SMALL, utd_ratio=ratio))
    made.advance()
    assert made.agent._n_updates == 0  # at random so far
    made.advance()
    assert made.agent._n_updates == ratio * SMALL.steps_per_update
    assert made.envs.num_steps == made.agent.num_timesteps == 2 * SMALL.steps_per_update


# ---- the whole -----------------------------------------------------------------------------------


def test_it_finds_the_best_action() -> None:
    config = replace(
        SMALL, num_env_steps=400, steps_per_update=400, learning_rate=1e-2, batch_size=32
    )
    made = trainer(config)
    state = torch.zeros(1, 1, 1, 1)
    assert abs(policy_of(made).act(state).item() - TARGET) > 0.25
    made.advance()
    assert policy_of(made).act(state).item() == pytest.approx(TARGET, abs=0.15)


def test_the_process_keeps_its_generator() -> None:
    before = torch.get_rng_state()
    trainer().advance()
    assert torch.equal(torch.get_rng_state(), before)


def hopping() -> Trainer:
    data = Transitions(
        randn(64, 11), randn(64, 3).clamp(-1, 1), randn(64), randn(64, 11), randn(64) > 1
    )
    return on(HOPPER, SMALL, data)


def run(made: Trainer, recorder: MemoryRecorder) -> None:
    fit(3, lambda _: made.advance(), made.parts(), recorder=recorder, log_every=1,
        checkpoint_seconds=0.0, progress=False)  # fmt: skip


@pytest.mark.parametrize("at", [1, 2])
def test_resumed_it_goes_on_to_the_same_bits(at: int) -> None:
    """Interrupted inside an episode, at random and learning: networks, optimisers, buffer, episode
    and draws go on."""
    whole, recorder = hopping(), MemoryRecorder()
    run(whole, recorder)
    broken = MemoryRecorder(stop_after=at)
    with pytest.raises(KeyboardInterrupt):
        run(hopping(), broken)
    broken.stop_after = None
    torch.manual_seed(123)  # another process has another state
    resumed = hopping()
    run(resumed, broken)
    assert broken.rows == recorder.rows
    ours, theirs = (_tensors(made.state_dict()) for made in (resumed, whole))
    assert ours.keys() == theirs.keys() and len(ours) > 60
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert resumed.episodes.value == whole.episodes.value


def _tensors(state: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor of a nested state, by its place."""
    if isinstance(state, Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    nested = [_tensors(v, f"{name}/{k}") for k, v in items if isinstance(v, dict | list | Tensor)]
    return {key: value for part in nested for key, value in part.items()}


# ---- its policy ----------------------------------------------------------------------------------


def test_the_policy_acts_as_the_agent() -> None:
    made = trainer()
    made.advance()
    states = randn(20, 1)
    expected, _ = made.agent.predict(states.numpy(), deterministic=True)
    found = policy_of(made).act(states.view(1, 20, 1, 1))
    torch.testing.assert_close(found[0, :, 0], torch.from_numpy(expected))


def test_the_tanh_leaves_the_divergence_as_it_is() -> None:
    """Closed form before the tanh, against the mean log-ratio of the actions themselves."""
    old, new = (copy.deepcopy(policy_of(trainer())) for _ in range(2))
    with torch.no_grad():
        new.mu.bias += 0.4
        new.log_std.bias -= 0.3
    states = randn(1, 1, 1).expand(40_000, 1, 1)
    actions, path = old.sample_path(states, torch.Generator().manual_seed(0))
    ours, theirs = (_of_actions(policy, states).log_prob(actions) for policy in (old, new))
    kl = old.path_kl(new, states[:1], path[:1])
    assert kl.shape == (1, 1) and float(old.path_kl(old, states[:1], path[:1]).detach()) == 0
    assert float((ours - theirs).mean().detach()) == pytest.approx(float(kl.detach()), abs=0.02)


def _of_actions(policy: SquashedGaussian, states: Tensor) -> Independent:
    mean, log_std = policy(states)
    return Independent(
        TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1)), 2
    )


# ---- as a run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with settled(tmp_path_factory.mktemp("soft")):
        yield tiny()


def online(study: Study) -> Product[Any]:
    return learnt(study, learning_starts=256, batch_size=16, hidden=(16, 16))


def test_it_is_watched_as_the_other_rows_are(study: Study) -> None:
    ours, theirs = online(study).run, study.from_scratch().run
    looks = [run.table("evaluations").frame() for run in (ours, theirs)]
    assert looks[0]["env_steps"].tolist() == looks[1]["env_steps"].tolist()
    assert looks[0].columns.tolist() == looks[1].columns.tolist()
    found, beside = (summary(run, study) for run in (ours, theirs))
    assert found.keys() == beside.keys() and found["settings"] == "sac"
    assert found["training_steps"] == study.budget.online_env_steps == beside["training_steps"]
    assert found["evaluation_steps"] > 0 and found["shift"] > 0
    data = ours.tensors("online")
    assert len(data["states"]) == study.budget.online_env_steps
    assert data["actions"].abs().max() <= 1
    assert ours.json("library").keys() == {"stable-baselines3"}
    assert ours.spec.revisions["soft_actor_critic"] == soft_actor_critic.REVISION


@pytest.mark.slow
def test_interrupted_and_resumed_it_gives_the_same_run(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = online(study).run
    whole.folder.rename(study.store.root / whole.id)
    save = recording.Recording.save_checkpoint

    def interrupt(self: Any, step: int, state: Any) -> None:
        save(self, step, state)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setenv("UEPO_CHECKPOINT_SECONDS", "0")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recording.Recording, "save_checkpoint", interrupt)
        _ = online(study).run
    resumed = online(study).run
    assert resumed.record["resumes"] == 1
    assert resumed.record["artefacts"] == whole.record["artefacts"]


def test_every_setting_is_part_of_its_identity(study: Study) -> None:
    plain, other = (
        learnt(study, learning_starts=256),
        learnt(study, learning_starts=256, hidden=(8,)),
    )
    assert plain.keys != other.keys


def test_bad_settings_are_refused_by_name(study: Study) -> None:
    for changes, name in (
        ({"batch_size": 15}, "batch_size"),
        ({"utd_ratio": 0}, "utd_ratio"),
        ({"learning_starts": 90}, "learning_starts"),
    ):
        with pytest.raises(UsageError, match=name):
            replace(SMALL, **changes)  # type: ignore[arg-type]


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UsageError, match="behaviors"):
        trainer()


def test_golden() -> None:
    made = trainer(last=None, max_episode_steps=7)
    for _ in range(2):
        made.advance()
    states = torch.linspace(-1, 1, 5).view(1, 5, 1, 1)
    found = {
        "actions": policy_of(made).act(states),
        "q": made.agent.critic(states[0, :, 0], states[0, :, 0])[0],
    }
    found["drawn"] = made.data.sample(8).actions
    check_golden("soft_actor_critic", found, soft_actor_critic.REVISION, atol=1e-3)
