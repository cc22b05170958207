"""Training the behaviour policies again: agents online, snapshots on the way, clones of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from uepo_lib import behaviors, cloning, collection, facts, loading, offpolicy, ppo
from uepo_lib.behavior_levels import AGENTS, LEVELS, BehaviourConfig, Clone, Replay, Snapshot
from uepo_lib.behaviors import BehaviourPolicy, behaviour_network, read_behaviour, write_behaviour
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.networks import StateValue, mlp, orthogonal_
from uepo_lib.offpolicy import TQCConfig
from uepo_lib.policies import GaussianPolicy
from uepo_lib.ppo import PPO, train_ppo
from uepo_lib.recipes import recipe_for
from uepo_lib.recording import Recording
from uepo_lib.robots import Robot
from uepo_lib.runs import Run, Spec, Store
from uepo_lib.tasks import ROBOTS
from uepo_lib.tasks import get as get_task
from uepo_lib.training import Recorder

REVISION = 1


def train_behaviour(
    robot: Robot,
    config: BehaviourConfig,
    seed: int,
    recorder: Recorder | None = None,
    keep: Recording | None = None,
    progress: bool = True,
) -> None:
    """PPO from scratch on ``robot``; snapshots go to ``keep`` as ``<env steps>.safetensors``."""
    trainer = ppo_trainer(robot, config, seed)
    actor, envs = trainer.actor, trainer.envs
    every = max(1, config.snapshot_every // config.ppo.steps_per_update)
    last = -(-config.ppo.num_env_steps // config.ppo.steps_per_update)

    def observe(update: int) -> dict[str, float]:
        if keep is not None and (update % every == 0 or update == last):
            mean, std = trainer.scale.mean_std()
            tensors = {**actor.state_dict(), "normaliser.mean": mean, "normaliser.std": std}
            keep.save_tensors(tensors, f"{envs.num_steps:08d}.safetensors")
        return {}

    train_ppo(
        trainer, recorder=recorder, observe=observe, name=f"PPO {robot.name}", progress=progress
    )
    envs.close()


def ppo_trainer(robot: Robot, config: BehaviourConfig, seed: int) -> PPO:
    """An untrained agent of ``robot``, its environments reset from seeds of its own."""
    network = behaviour_network(robot, config.hidden, initial_log_std=config.initial_log_std)
    actor = GaussianPolicy(network, seed)
    critic = _value_network(robot.state_dim, config.hidden, seed + 1)
    first = 1_000 * (seed + 1)
    envs = ChunkedEnvs(
        robot, range(first, first + config.ppo.num_envs), discount=config.ppo.discount
    )
    return PPO(config.ppo, actor, critic, envs, torch.Generator().manual_seed(seed))


def _value_network(state_dim: int, hidden: tuple[int, ...], seed: int) -> StateValue:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = mlp([state_dim, *hidden, 1], "tanh")
        orthogonal_(body, last_gain=1.0)
    return StateValue(body)


def train_all(store: Store, progress: bool = True) -> list[Path]:
    """Train whatever the levels of every robot need, and write the files that are committed."""
    written = []
    for name, levels in LEVELS.items():
        robot = ROBOTS[name]
        agents = {
            level.seed: train_agent(store, robot, level.seed, progress)
            for level in levels.values()
            if not isinstance(level, Clone)
        }
        for label, level in levels.items():
            if isinstance(level, Clone):
                written.append(_export_clone(robot, label, level, store.root / "data", progress))
            else:
                written.append(export(robot, label, level, agents[level.seed]))
    return written


@dataclass(frozen=True)
class Agent:
    """A finished training run: its snapshots' folder, and what its records say of it."""

    folder: Path
    facts: Mapping[str, Any]
    shape: Mapping[str, str] | None = None


def train_agent(store: Store, robot: Robot, seed: int, progress: bool = True) -> Agent:
    """The agent of ``robot`` and ``seed``: found in ``store``, or trained."""
    config = AGENTS[robot.name]
    if isinstance(config, TQCConfig):
        folder = store.root / "tqc" / f"{robot.name}-{seed}"
        offpolicy.train_tqc(robot, config, seed, folder)
        return Agent(folder, offpolicy.facts_of(folder, config, seed), offpolicy.SHAPE)
    spec = Spec(
        "behaviour",
        {"robot": robot.name, "seed": seed, **asdict(config)},
        revisions={"behaviors": REVISION, "ppo": ppo.REVISION},
    )
    produce = partial(_produce, robot, config, seed, progress)
    run = store.get_or_train(spec, produce, expect="about 20 min")
    return Agent(run.folder, ppo_facts(run, config, seed))


def _produce(robot: Robot, config: BehaviourConfig, seed: int, progress: bool, run: Run) -> None:
    train_behaviour(robot, config, seed, run, run, progress)


def ppo_facts(run: Run, config: BehaviourConfig, seed: int) -> dict[str, Any]:
    """What the record of every level of one PPO run says."""
    curve = run.metrics.iloc[::10][["env_steps", "training_return"]].round(1)
    return {
        "algorithm": "PPO",
        "seed": seed,
        "env_steps_of_whole_run": config.ppo.num_env_steps,
        "minutes_of_whole_run": round(run.record["wall_s"] / 60, 1),
        "config": asdict(config),
        "versions": run.record["versions"],
        "training_curve": curve.to_numpy().tolist(),
    }


def export(robot: Robot, label: str, level: Snapshot | Replay, agent: Agent) -> Path:
    """Write the committed file and record of ``label`` from a finished agent."""
    moments = level.moments() if isinstance(level, Replay) else [level.env_steps]
    tensors: dict[str, Tensor] = {}
    played = []
    for i, moment in enumerate(moments):
        path = agent.folder / f"{moment:08d}.safetensors"
        content = load_file(path)
        prefix = f"{i}." if isinstance(level, Replay) else ""
        tensors |= {f"{prefix}{name}": value for name, value in content.items()}
        played.append(_returns(robot, read_behaviour(path, robot, {})))
    record = {"robot": robot.name, "env_id": robot.env_id, **agent.facts}
    if isinstance(level, Replay):
        record |= {"env_steps": moments, "returns": played}
    else:
        record |= {"env_steps": moments[0], **played[0]}
    return write_behaviour(robot, label, tensors, record, agent.shape)


def _export_clone(robot: Robot, label: str, clone: Clone, folder: Path, progress: bool) -> Path:
    """Clone the dataset of ``clone.of`` and write the committed file and record of ``label``."""
    task = get_task(f"{robot.name}-{clone.of}")
    folder.mkdir(parents=True, exist_ok=True)
    collection.collect(task, recipe_for(task, clone.num_transitions), folder, progress)
    data = loading.load(task, folder)
    expert = behaviors.load_behaviour(robot, clone.of)
    network = behaviour_network(robot, expert.policy.config.hidden, initial_log_std=-1.0)
    settings = cloning.CloneConfig(clone.num_updates, learning_rate=3e-4)
    policy = cloning.train_clone(
        settings, network, data.windows(1, 1), seed=clone.seed, progress=progress
    )
    tensors = {**policy.state_dict(), **data.normaliser.tensors()}
    record = {
        "robot": robot.name, "env_id": robot.env_id, "algorithm": "behaviour cloning",
        "seed": clone.seed, "config": asdict(settings), "dataset": asdict(data.key),
        "versions": facts.versions(),
    }  # fmt: skip
    path = write_behaviour(robot, label, tensors, record)
    played = _returns(robot, read_behaviour(path, robot, record))
    return write_behaviour(robot, label, tensors, {**record, **played})


def _returns(robot: Robot, policy: BehaviourPolicy) -> dict[str, Any]:
    played = {
        name: _play(robot, policy, scale) for name, scale in (("mean_action", 0), ("with_noise", 1))
    }
    return {"returns": played, "action_noise": [round(s, 4) for s in policy.action_noise.tolist()]}


def _play(
    robot: Robot, policy: BehaviourPolicy, scale: float, episodes: int = 50
) -> dict[str, Any]:
    """Mean and std of the return over ``episodes`` episodes, with ``scale`` × its own noise."""
    envs = ChunkedEnvs(robot, range(500_000, 500_000 + episodes), auto_reset=False)
    generator = torch.Generator().manual_seed(0)
    returns: list[float] = []
    while any(envs.active):
        mean = policy.mean_action(envs.windows[:, -1])
        noise = torch.randn(mean.shape, generator=generator)
        _, ended = envs.step((mean + scale * policy.action_noise * noise).unsqueeze(1))
        returns += [episode.undiscounted_return for episode in ended]
    envs.close()
    values: Tensor = torch.tensor(returns)
    return {
        "mean": round(float(values.mean()), 1),
        "std": round(float(values.std()), 1),
        "normalised": round(robot.normalised(float(values.mean())), 1),
        "episodes": episodes,
    }
