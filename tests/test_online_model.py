from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden
from env_toys import identity, scripted_robot
from model_toys import randn
from tiny_study import settled, tiny
from torch import Tensor

from uepo_lib import online_model, recording, stages
from uepo_lib.datasets import Batch, Transitions
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel, build
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError
from uepo_lib.evaluation import AMQConfig
from uepo_lib.methods.uepo import UEPO, uepo
from uepo_lib.networks import StateValue, mlp
from uepo_lib.online_model import Known, OnlineModel, OnlineModelConfig, imagined_values
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.ppo import PPO, PPOConfig
from uepo_lib.stages import Product, Study

BEST, LAST = 0.5, 30
"""The toy world: s' = s + 1 until LAST, reward −(a − BEST)²."""


def world_transitions(size: int, seed: int = 0, shift: float = 0.0) -> Transitions:
    states = (randn(size, 1, seed=seed) * 3 + 10).round()
    actions = randn(size, 1, seed=seed + 1).clamp(-1, 1)
    noise = 0.1 * randn(size, 1, seed=seed + 2)
    rewards = -(actions - BEST).square()[:, 0]
    ended = torch.zeros(size, dtype=torch.bool)
    return Transitions(states, actions, rewards, states + 1 + shift + noise, ended)


class ToyCritic:
    """Q is the reward at once; V is 0."""

    def min_q(self, states: Tensor, actions: Tensor) -> Tensor:
        return -(actions - BEST).square()[:, 0]

    def v(self, states: Tensor) -> Tensor:
        return torch.zeros(len(states))


def dynamics() -> DynamicsModel:
    cfg = DynamicsConfig(
        num_members=3, num_elites=2, hidden=(16,), weight_decay=(0.0, 0.0), batch_size=32
    )
    made = build(cfg, 1, 1)
    made.target_scale.fill_(0.3)
    made.target_shift.copy_(torch.tensor([1.0, -0.5]))
    return made.requires_grad_(False)


def known() -> Known:
    data = world_transitions(300)
    real = Batch(data.states[:40, None], randn(40, 4, 1, seed=5), randn(40, 4, 1, seed=6) + 10)
    return Known(
        dynamics(), ToyCritic(), data, world_transitions(60, 10), 360,  # type: ignore[arg-type]
        world_transitions(100, 20), real, data.states[:16, None], AMQConfig(16, 4),
        scripted_robot(LAST), identity(scripted_robot()), seed=3,
    )  # fmt: skip


class Tables:
    """The part of a run that a look writes to."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def table(self, name: str) -> Any:
        assert name == "model_looks"
        return SimpleNamespace(append=self.rows.append)


def trainer(chunk: int = 1) -> PPO:
    config = PPOConfig(num_env_steps=320, num_envs=2, steps_per_update=64, minibatch_size=16)
    actor = GaussianPolicy(
        GaussianConfig(1, 1, action_horizon=chunk, hidden=(8,), log_std_range=(-3.0, -1.0))
    )
    envs = ChunkedEnvs(scripted_robot(LAST, target=BEST), [0, 1], keep_transitions=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = StateValue(mlp([1, 8, 1], "tanh"))
    return PPO(config, actor, critic, envs, torch.Generator().manual_seed(0))


def beside(**changes: Any) -> OnlineModel:
    """After one update of PPO, which it has not seen yet."""
    ppo = trainer()
    made = OnlineModel(
        OnlineModelConfig(**{"model": "refitted", "every": 64, "updates": 40, **changes}),
        known(), ppo, Tables(),  # type: ignore[arg-type]
    )  # fmt: skip
    ppo.iterate(0.0)
    return made


def rows(made: OnlineModel) -> list[dict[str, Any]]:
    tables: Any = made.run
    return tables.rows


def constant_(actor: Any, action: float) -> None:
    """The mean of ``actor`` is ``action`` in every state, its log-std the least."""
    with torch.no_grad():
        for parameter in actor.body.parameters():
            parameter.zero_()
        actor.body[-1].bias.copy_(torch.tensor([action, -5.0]).atanh_().nan_to_num(nan=-5.0))


# ---- looks ---------------------------------------------------------------------------------------


def test_a_look_is_due_every_so_many_steps() -> None:
    made = beside(every=128, model="frozen")
    for update in range(1, 6):
        made.after(update)
        made.trainer.iterate(0.0)
    assert [row["env_steps"] for row in rows(made)] == [128, 256]
    assert made.next == 384


def test_a_refit_lowers_the_nll_of_what_is_new_and_copies_the_model() -> None:
    made = beside(learning_rate=1e-2, updates=200)
    before = {k: v.clone() for k, v in made.known.dynamics.state_dict().items()}
    made.after(1)
    (row,) = rows(made)
    assert row["nll_after"] < row["nll_before"]
    new = made.trainer.envs.transitions(made.known.normaliser)
    assert row["nll_before"] == pytest.approx(float(made.known.dynamics.nll(new).mean()))
    assert row["nll_after"] == pytest.approx(float(made.dynamics.nll(new).mean()))
    assert all(torch.equal(v, before[k]) for k, v in made.known.dynamics.state_dict().items())


def test_only_what_is_new_since_the_last_look_is_judged() -> None:
    made = beside(model="frozen")
    made.after(1)
    made.trainer.iterate(0.0)
    made.after(2)
    steps = made.trainer.envs.transitions(made.known.normaliser)
    assert rows(made)[1]["nll_before"] == pytest.approx(float(made.dynamics.nll(steps[64:]).mean()))


def test_a_frozen_model_stays() -> None:
    made = beside(model="frozen")
    made.after(1)
    expected = made.known.dynamics.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in made.dynamics.state_dict().items())
    assert rows(made)[0]["nll_before"] == rows(made)[0]["nll_after"]


# ---- the gate ------------------------------------------------------------------------------------


def test_a_worse_policy_goes_back_and_adam_forgets_it() -> None:
    made = beside(model="frozen")
    constant_(made.actor, 0.4)
    made.kept = made._policy()
    constant_(made.actor, -0.9)
    values = [p.clone() for p in made.trainer.critic.parameters()]
    assert made.trainer.optimiser.state[made.actor.body[0].weight]
    made.after(1)
    (row,) = rows(made)
    # Q is the reward, so AM-Q is its mean, whatever T̂ says
    assert row["amq_now"] == pytest.approx(-(1.4**2), rel=1e-3)
    assert row["amq_kept"] == pytest.approx(-(0.1**2), rel=1e-3)
    assert row["rolled_back"] == 1
    assert all(torch.equal(v, made.kept[k]) for k, v in made.actor.state_dict().items())
    assert made.actor.body[0].weight not in made.trainer.optimiser.state
    after = list(made.trainer.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, values, strict=True))
    assert made.trainer.optimiser.state[after[0]]


@pytest.mark.parametrize("now", [0.4, 0.45])
def test_a_policy_that_is_not_worse_is_kept(now: float) -> None:
    made = beside(model="frozen")
    constant_(made.actor, 0.4)
    made.kept = made._policy()
    constant_(made.actor, now)
    expected = made._policy()
    made.after(1)
    assert rows(made)[0]["rolled_back"] == 0
    assert all(torch.equal(v, expected[k]) for k, v in made.kept.items())
    assert all(torch.equal(v, expected[k]) for k, v in made.actor.state_dict().items())


def test_the_margin_decides_what_counts_as_worse() -> None:
    """A loss whose size depends on the start: a policy that is worse only in some of them."""
    backs = []
    for margin in (0.0, 50.0):
        made = beside(model="frozen", margin=margin)
        constant_(made.actor, 0.4)
        made.kept = made._policy()
        with torch.no_grad():  # a mean that depends on the state
            made.actor.body[0].weight[0].fill_(0.05)
            made.actor.body[-1].weight[0, 0] = -0.3
        made.after(1)
        backs.append(rows(made)[0]["rolled_back"])
    assert backs == [1, 0]


# ---- short value targets -------------------------------------------------------------------------


class Counting:
    """T̂ in closed form: s' = s + 1, reward −(a − BEST)²."""

    def predict(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return states + 1, -(actions - BEST).square()[:, 0]


class Planner:
    """Plans T_a = 2 actions, 0.1 times the state and 0.1 more."""

    action_horizon = 2

    def sample_path(self, windows: Tensor, generator: Any) -> tuple[Tensor, Tensor]:
        first = 0.1 * windows[:, -1:]
        return torch.cat([first, first + 0.1], 1), first


def test_imagined_values_are_the_sum_that_the_equation_says() -> None:
    toy: Any = replace(known(), robot=scripted_robot(4))
    windows = torch.tensor([1.0, 2.0]).view(2, 1, 1)
    planner: Any = Planner()
    counting: Any = Counting()
    found = imagined_values(
        planner, lambda s: 10 * s[:, 0], counting, toy, windows, 2, 0.5, torch.Generator()
    )
    # from 1: actions 0.1, 0.2, reaches 3; from 2: actions 0.2, 0.3, ends in 4
    alive = -(0.4**2) - 0.5 * 0.3**2 + 0.25 * 30
    ended = -(0.3**2) - 0.5 * 0.2**2
    assert found.tolist() == pytest.approx([alive, ended])
    longer = imagined_values(
        planner, lambda s: 10 * s[:, 0], counting, toy, windows, 4, 0.5, torch.Generator()
    )
    # from 1 it plans again at 3: action 0.3, ends in 4; after an end nothing is earned
    assert longer.tolist() == pytest.approx(
        [-(0.4**2) - 0.5 * 0.3**2 - 0.25 * 0.2**2, ended], rel=1e-5
    )


def test_the_critic_learns_from_imagined_steps_and_the_policy_does_not() -> None:
    made = beside(model="short", every=10_000)
    policy, ppo = made._policy(), made.trainer
    assert ppo.rollout is not None
    windows = ppo.rollout.states.flatten(0, 1)

    with torch.no_grad():
        target = imagined_values(
            made.actor, ppo.critic, made.dynamics, made.known, windows, 5, ppo.config.discount,
            made._stream("short", 1),
        )  # fmt: skip

    def error() -> float:
        return float((ppo.critic(windows[:, -1]) - target).square().mean().detach())

    first = error()
    ppo.optimiser.state.clear()  # what PPO's own targets have left in Adam
    for group in ppo.optimiser.param_groups:
        group["lr"] = 1e-2
    made.after(1)
    assert error() < first
    assert all(torch.equal(v, policy[k]) for k, v in made.actor.state_dict().items())
    assert rows(made) == []


def test_h_is_whole_chunks() -> None:
    for chunk, steps in ((1, 5), (2, 4), (4, 4)):
        short = OnlineModelConfig(model="short")
        assert OnlineModel(short, known(), trainer(chunk), Tables()).imagined_steps == steps  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="imagined_steps"):
        OnlineModel(OnlineModelConfig(model="short"), known(), trainer(6), Tables())  # type: ignore[arg-type]


# ---- augmentation --------------------------------------------------------------------------------


def test_generated_transitions_are_the_present_policys_own() -> None:
    made = beside(augmented=True, augmentation_horizon=3, augmentation_ratio=0.1)
    made.known = replace(made.known, robot=scripted_robot(10_000))
    constant_(made.actor, 0.3)
    found = made._generate()
    assert 0 < len(found) <= 0.1 * made.known.dataset_size + 1
    assert float((found.actions - 0.3).abs().mean()) < 3 * 0.05 + 0.1
    made.after(1)
    assert len(rows(made)) == 1


def test_golden() -> None:
    made = beside(model="short", augmented=True, augmentation_horizon=3, learning_rate=5e-3)
    made.known = replace(made.known, robot=scripted_robot(10_000))
    made.after(1)
    found = {name: torch.tensor(value) for name, value in rows(made)[0].items()}
    found["critic"] = next(iter(made.trainer.critic.parameters())).detach()
    check_golden("online_model", found, online_model.REVISION, atol=1e-3)


# ---- what is refused -----------------------------------------------------------------------------


def test_bad_arguments_are_refused_by_name() -> None:
    for changes, name in (
        ({"model": "refited"}, "model"),
        ({"every": 0}, "every"),
        ({"imagined_steps": 6}, "imagined_steps"),
        ({"margin": -1.0}, "margin"),
        ({"model": "frozen", "augmented": True}, "augmented"),
    ):
        with pytest.raises(UsageError, match=name):
            OnlineModelConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model"):
        OnlineModel(OnlineModelConfig(), known(), trainer(), Tables())  # type: ignore[arg-type]
    scaled = trainer()
    scaled.config = replace(scaled.config, normalise_rewards=True)
    with pytest.raises(UsageError, match="normalise_rewards"):
        OnlineModel(OnlineModelConfig(model="short"), known(), scaled, Tables())  # type: ignore[arg-type]


# ---- as a run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with settled(tmp_path_factory.mktemp("online-model")):
        yield tiny()


@pytest.fixture(scope="module")
def found(study: Study) -> UEPO:
    return uepo(study)


def online(study: Study, found: UEPO, **changes: Any) -> Product[Any]:
    return study.fine_tune_beside_model(
        found.best, found.critic, found.dynamics, found.synthetic, **changes
    )


def test_without_a_model_it_is_the_same_run(study: Study, found: UEPO) -> None:
    assert online(study, found, model="none").keys == found.online.keys
    others = [online(study, found, model=m).keys for m in ("frozen", "refitted", "short")]
    assert len({*found.online.keys, *(key for keys in others for key in keys)}) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"model": "short"}, {"model": "refitted", "augmented": True}], ids=str
)
def test_interrupted_and_resumed_it_gives_the_same_bits(
    study: Study, found: UEPO, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole = online(study, found, **changes).run
    looks = whole.table("model_looks").frame()
    assert len(looks) == 5 and looks.notna().all().all()
    whole.folder.rename(study.store.root / whole.id)
    save = recording.Recording.save_checkpoint

    def interrupt(self: Any, step: int, state: Any) -> None:
        save(self, step, state)
        if step == 5:  # after two looks
            raise KeyboardInterrupt

    monkeypatch.setenv("UEPO_CHECKPOINT_SECONDS", "0")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recording.Recording, "save_checkpoint", interrupt)
        _ = online(study, found, **changes).run
    resumed = online(study, found, **changes).run
    assert resumed.record["resumes"] == 1
    assert resumed.record["artefacts"] == whole.record["artefacts"]


def test_gaussians_go_online_beside_it_too(study: Study, found: UEPO) -> None:
    cloned = study.clone()
    made = study.fine_tune_beside_model(
        cloned, found.critic, found.dynamics, found.synthetic, model="refitted"
    )
    assert len(made.run.table("model_looks").frame()) == 5
    assert isinstance(stages._online_actor(cloned.value), GaussianPolicy)
