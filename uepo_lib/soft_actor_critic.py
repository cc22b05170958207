"""Online learning with D in every batch, and nothing offline: RLPD's recipe (arXiv 2302.02948).

The agent is stable-baselines3's soft actor-critic (arXiv 1812.05905). Half of every batch is drawn
from D and half from the agent's own steps; a layer norm before each activation of the critics
bounds what they say of actions that nobody has taken; ``utd_ratio`` updates are made a step.

RLPD has ten critics, takes the smaller of a random two as its target, and its policy climbs the
mean of all, once in ``utd_ratio`` updates. Here there are two critics, target and policy take the
smaller one, and the policy learns in every update, as the library has it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

from uepo_lib import datasets, environments, evaluation, finetuning, policies, robots, shift
from uepo_lib.datasets import Normaliser, Transitions
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError, check
from uepo_lib.finetuning import Observer, Watch, training_seeds
from uepo_lib.policies import SquashedGaussian
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study
from uepo_lib.training import GeneratorState, Metrics, Stateful, Value, fit

REVISION = 1
PUBLISHED_UTD = 20
"""RLPD's updates an environment step; at the profile ``paper``."""


@dataclass(frozen=True)
class SACConfig:
    """RLPD's settings on locomotion; none was tuned here."""

    num_env_steps: int
    """The budget, rounded up to whole ``steps_per_update``."""
    steps_per_update: int = 2048
    """Environment steps between two moments at which the agent can be looked at."""
    utd_ratio: int = 1
    """Updates an environment step; RLPD has 20, at twenty times the price."""
    learning_starts: int = 5_000
    """First steps, at random; they count, and nothing is learnt until they are made."""
    batch_size: int = 256
    """Even: half logged, half the agent's own."""
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    polyak: float = 0.005
    discount: float = 0.99
    entropy_per_action: float = -0.5
    """The entropy that the temperature is tuned to, in nats an action."""

    def __post_init__(self) -> None:
        for name in ("num_env_steps", "steps_per_update", "utd_ratio"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        even = self.batch_size > 0 and self.batch_size % 2 == 0
        check(even, "batch_size", self.batch_size, "a positive even integer")
        begins = 0 < self.learning_starts < self.num_env_steps
        check(begins, "learning_starts", self.learning_starts, "positive and below num_env_steps")


class Halves:
    """What the agent learns from: half of a batch its own steps, half logged ones.

    Of its own, kept by stable-baselines3's buffer, and of D alike ``dones`` are terminations: what
    the clock ended has a future value.
    """

    def __init__(self, own: Any, logged: Transitions, generator: torch.Generator) -> None:
        self.own, self.logged, self.generator = own, logged, generator

    def add(self, *step: Any) -> None:
        self.own.add(*step)

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """A batch as the agent takes it: its own steps first, then the logged ones."""
        shape = (batch_size // 2,)
        mine = torch.randint(self.own.pos, shape, generator=self.generator)
        own = self.own._get_samples(mine.numpy(), env)
        some = self.logged[torch.randint(len(self.logged), shape, generator=self.generator)]
        ends, rewards = some.terminated.float().unsqueeze(1), some.rewards.unsqueeze(1)
        columns = (some.states, some.actions, some.next_states, ends, rewards)
        return type(own)(*(torch.cat(pair) for pair in zip(own, columns, strict=False)))


class _Episodes(gymnasium.Env[Any, Any]):
    """One environment of ``ChunkedEnvs`` as the agent wants it: counted and resumed as for all."""

    def __init__(self, envs: ChunkedEnvs, normaliser: Normaliser, ended: Value) -> None:
        robot = envs.robot
        self.envs, self.normaliser, self.ended = envs, normaliser, ended
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (robot.state_dim,))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (robot.action_dim,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Where the episode stands: ``ChunkedEnvs`` has begun it."""
        return self.normaliser(self.envs.windows[0, -1]).numpy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chunk, ended = self.envs.step(torch.as_tensor(action)[None, None])
        taken = self.envs.num_steps
        self.ended.value += [[taken, e.undiscounted_return, e.length] for e in ended]
        state = self.normaliser(chunk.windows[0, -1]).numpy()
        return state, float(chunk.reward), bool(chunk.terminated), bool(chunk.truncated), {}


class Trainer:
    """The agent, its environment and both halves of its data, all of it resumable to the bit."""

    def __init__(
        self, config: SACConfig, envs: ChunkedEnvs, logged: Transitions, normaliser: Normaliser,
        noise: torch.Generator, batches: torch.Generator,
    ) -> None:  # fmt: skip
        self.config, self.envs, self.noise = config, envs, noise
        self.episodes = Value([])
        """Every finished training episode: (environment steps so far, return, length)."""
        with self._alone():
            self.agent = _agent(config, _Episodes(envs, normaliser, self.episodes))
        self.agent.action_space.seed(int(torch.randint(2**31, (), generator=noise)))
        self.data = self.agent.replay_buffer = Halves(self.agent.replay_buffer, logged, batches)

    def parts(self) -> dict[str, Stateful]:
        """Everything that the next step depends on."""
        return {
            "agent": self, "envs": self.envs, "noise": GeneratorState(self.noise),
            "batches": GeneratorState(self.data.generator), "episodes": self.episodes,
        }  # fmt: skip

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The library draws from the process's generator: put ``noise`` in its place meanwhile."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.noise.get_state())
            yield
            self.noise.set_state(torch.get_rng_state())

    def advance(self) -> Metrics:
        """The next ``steps_per_update`` steps, with what is learnt on the way."""
        with self._alone():
            self.agent.learn(
                self.config.steps_per_update, reset_num_timesteps=False, log_interval=None
            )
        said = self.agent.logger.name_to_value
        recent = [e[1] for e in self.episodes.value[-20:]] or self.envs.returns
        return {
            "critic_loss": said.get("train/critic_loss", 0.0),
            "temperature": said.get("train/ent_coef", 1.0),
            "env_steps": float(self.envs.num_steps),
            "training_return": sum(recent) / len(recent),
        }

    def state_dict(self) -> dict[str, Any]:
        agent, own = self.agent, self.data.own
        kept = {name: torch.from_numpy(getattr(own, name)[: own.pos]) for name in _COLUMNS}
        return {
            "parameters": agent.get_parameters(), "steps": agent.num_timesteps, "own": kept,
            "temperature": agent.log_ent_coef.detach(),
            "at_random": json.dumps(agent.action_space.np_random.bit_generator.state),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        agent, own = self.agent, self.data.own
        agent.set_parameters(state["parameters"])
        agent.num_timesteps = state["steps"]
        agent.log_ent_coef.data.copy_(state["temperature"])
        agent.action_space.np_random.bit_generator.state = json.loads(state["at_random"])
        for name, column in state["own"].items():
            getattr(own, name)[: len(column)] = column.numpy()
            own.pos = len(column)


_COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Of stable-baselines3's buffer, which is never full: its size is the budget's and one more."""


def _agent(config: SACConfig, world: _Episodes) -> Any:
    try:
        from stable_baselines3 import SAC
        from stable_baselines3.common.logger import Logger
        from stable_baselines3.common.torch_layers import create_mlp
        from stable_baselines3.common.vec_env import DummyVecEnv
        from stable_baselines3.sac.policies import SACPolicy
    except ImportError:
        raise UsageError(
            "soft actor-critic needs the 'behaviors' extra: pip install -e '.[behaviors]'"
        ) from None
    robot, rounds = world.envs.robot, -(-config.num_env_steps // config.steps_per_update)

    class WithLayerNorm(SACPolicy):
        def make_critic(self, features_extractor: Any = None) -> Any:
            critic = super().make_critic(features_extractor)
            for i in range(critic.n_critics):
                layers = create_mlp(
                    robot.state_dim + robot.action_dim, 1, list(config.hidden),
                    post_linear_modules=[nn.LayerNorm],
                )  # fmt: skip
                critic.q_networks[i] = nn.Sequential(*layers)
                setattr(critic, f"qf{i}", critic.q_networks[i])
            return critic

    agent = SAC(
        WithLayerNorm, DummyVecEnv([lambda: world]), learning_rate=config.learning_rate,
        buffer_size=rounds * config.steps_per_update + 1, learning_starts=config.learning_starts,
        batch_size=config.batch_size, tau=config.polyak, gamma=config.discount,
        gradient_steps=config.utd_ratio, policy_kwargs={"net_arch": list(config.hidden)},
        target_entropy=config.entropy_per_action * robot.action_dim, device="cpu",
    )  # fmt: skip
    agent.set_logger(Logger(folder=None, output_formats=[]))  # its own would make a folder a call
    return agent


def learn_online(config: SACConfig, study: Study, watch: Watch, run: Run) -> None:
    """From nothing to the last policy; ``run`` gets what :meth:`Observer.write` says."""
    robot, normaliser = study.task.robot, study.dataset.normaliser
    first = training_seeds(study.seed, 1, max(watch.episodes, watch.curve_episodes))
    envs = ChunkedEnvs(robot, first, keep_transitions=True)
    noise, batches = (study.generator(f"soft actor-critic {name}") for name in ("noise", "batches"))
    trainer = Trainer(config, envs, study.dataset.transitions(), normaliser, noise, batches)
    policy = SquashedGaussian(robot.state_dim, robot.action_dim, config.hidden)
    policy.load_state_dict(trainer.agent.actor.state_dict())
    observer = Observer(policy, robot, normaliser, watch, trainer, run, study.seed)
    if run.resumed_at is None:
        observer.before()

    def update(step: int) -> Metrics:
        metrics = trainer.advance()
        policy.load_state_dict(trainer.agent.actor.state_dict())
        return {**metrics, **observer.after(step + 1)}

    fit(
        observer.last, update, {**trainer.parts(), "observer": observer}, recorder=run,
        name="soft actor-critic", log_every=1, progress=study.progress,
    )  # fmt: skip
    observer.write()
    run.save_json("library", {"stable-baselines3": version("stable-baselines3")})


def soft_actor_critic(study: Study, **changes: Any) -> Product[Any]:
    """Its last policy, learnt in as many online steps as everybody's; ``changes`` are of
    :class:`SACConfig`."""
    budget = study.budget
    config = SACConfig(**{
        "num_env_steps": budget.online_env_steps,
        "steps_per_update": budget.env_steps_per_update,
        "utd_ratio": PUBLISHED_UTD if study.profile == "paper" else 1,
        **changes,
    })  # fmt: skip
    watched = budget.watched

    def produce(run: Run) -> None:
        probe = study.starts(256, "probe")[:, -1:]
        learn_online(config, study, Watch(**watched, probe=probe), run)

    def read(run: Run) -> SquashedGaussian:
        robot = study.task.robot
        policy = SquashedGaussian(robot.state_dim, robot.action_dim, config.hidden)
        policy.load_state_dict(run.tensors())
        return policy

    modules = (
        robots, environments, evaluation, policies, datasets, finetuning, shift,
        sys.modules[__name__],
    )  # fmt: skip
    made = {"sac": asdict(config), "watch": watched}
    return study.stage("online", made, produce, read, modules, expect="an hour or more")
