"""Behaviour policies: PPO from scratch, its snapshots, and the small files they are kept in.

D4RL's recipe (arXiv 2004.07219, section 5): train an agent online, keep it on the way, and let the
snapshots collect the datasets. The committed files under ``policies_data/`` hold the mean network,
the state statistics it was trained with and its exploration noise; ``make behaviors`` trains them
again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from uepo_lib import facts, ppo
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError, unknown
from uepo_lib.networks import StateValue, mlp, orthogonal_
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.ppo import PPO, PPOConfig, train_ppo
from uepo_lib.recording import Recording
from uepo_lib.robots import Robot
from uepo_lib.runs import Run, Spec, Store
from uepo_lib.tasks import ROBOTS
from uepo_lib.training import Recorder

REVISION = 1
FOLDER = Path(__file__).parent / "policies_data"


@dataclass(frozen=True)
class BehaviourConfig:
    """PPO's settings for one robot, and when to keep a snapshot."""

    ppo: PPOConfig
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0
    snapshot_every: int = 100_000
    """Environment steps between two snapshots."""


_SCALED: dict[str, Any] = {"normalise_states": True, "normalise_rewards": True}
_HAND: dict[str, Any] = {
    **_SCALED,
    "num_envs": 16,
    "steps_per_update": 6400,
    "minibatch_size": 400,
    "num_epochs": 8,
    "discount": 0.98,
    "target_kl": 0.05,
}

BEHAVIOURS = {
    "hopper": BehaviourConfig(PPOConfig(num_env_steps=1_500_000, **_SCALED)),
    "walker2d": BehaviourConfig(PPOConfig(num_env_steps=3_000_000, **_SCALED)),
    "pen": BehaviourConfig(
        PPOConfig(num_env_steps=2_500_000, **_HAND), hidden=(128, 128), initial_log_std=-0.7
    ),
    "door": BehaviourConfig(
        PPOConfig(num_env_steps=3_000_000, **_HAND), hidden=(128, 128), initial_log_std=-0.7
    ),
}


@dataclass(frozen=True)
class Snapshot:
    """Which moment of which training run a level stands for."""

    seed: int
    env_steps: int


LEVELS = {
    "hopper": {"medium": Snapshot(1, 294_912), "expert": Snapshot(1, 1_501_184)},
}
"""Medium: on the way to the expert, 30 to 60 normalised with its noise. Expert: the end of a run.

Two agents were trained, seeds 0 and 1. Medium was first seed 0's snapshot (36 with its noise), and
became seed 1's while the online settings were being tried: ``tuning.csv`` holds runs on both.
"""


@dataclass(frozen=True)
class BehaviourPolicy:
    """A trained policy on raw states, with the exploration noise it was trained with."""

    policy: GaussianPolicy
    mean: Tensor
    std: Tensor
    record: Mapping[str, Any]

    @property
    def action_noise(self) -> Tensor:
        """Standard deviation of each action: (A,)."""
        return self.policy.log_std.detach().exp()

    @torch.no_grad()
    def mean_action(self, raw_states: Tensor) -> Tensor:
        """Raw states (B, S) -> unclipped mean actions (B, A)."""
        states = ((raw_states - self.mean) / self.std).clamp(-10, 10)
        return self.policy(states.unsqueeze(-2))[0].squeeze(-2)


def train_behaviour(
    robot: Robot,
    config: BehaviourConfig,
    seed: int,
    recorder: Recorder | None = None,
    keep: Recording | None = None,
    progress: bool = True,
) -> None:
    """PPO from scratch on ``robot``; snapshots go to ``keep`` as ``<env steps>.safetensors``."""
    gaussian = GaussianConfig(
        robot.state_dim,
        robot.action_dim,
        hidden=config.hidden,
        activation="tanh",
        state_dependent_std=False,
        initial_log_std=config.initial_log_std,
    )
    actor = GaussianPolicy(gaussian, seed)
    critic = _value_network(robot.state_dim, config.hidden, seed + 1)
    first = 1_000 * (seed + 1)
    envs = ChunkedEnvs(
        robot, range(first, first + config.ppo.num_envs), discount=config.ppo.discount
    )
    trainer = PPO(config.ppo, actor, critic, envs, torch.Generator().manual_seed(seed))
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


def _value_network(state_dim: int, hidden: tuple[int, ...], seed: int) -> StateValue:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = mlp([state_dim, *hidden, 1], "tanh")
        orthogonal_(body, last_gain=1.0)
    return StateValue(body)


def load_behaviour(robot: Robot, level: str) -> BehaviourPolicy:
    """The committed policy of ``robot`` called ``level`` (medium, expert)."""
    folder = FOLDER / robot.name
    levels = [path.stem for path in folder.glob("*.safetensors")]
    if level not in levels:
        raise unknown(f"behaviour policy of {robot.name}", level, levels)
    record = json.loads((folder / f"{level}.json").read_text(encoding="utf-8"))
    return read_behaviour(folder / f"{level}.safetensors", robot, record)


def read_behaviour(path: Path, robot: Robot, record: Mapping[str, Any]) -> BehaviourPolicy:
    """A snapshot file as a policy; ``UsageError`` if it does not fit ``robot``."""
    tensors = load_file(path)
    mean, std = tensors.pop("normaliser.mean"), tensors.pop("normaliser.std")
    if mean.shape != (robot.state_dim,):
        raise UsageError(
            f"{path.name}: states of size {len(mean)}; {robot.name} has {robot.state_dim}"
        )
    hidden = tuple(v.shape[0] for k, v in tensors.items() if k.endswith("bias"))[:-1]
    config = GaussianConfig(
        robot.state_dim,
        robot.action_dim,
        hidden=hidden,
        activation="tanh",
        state_dependent_std=False,
    )
    policy = GaussianPolicy(config)
    policy.load_state_dict(tensors)
    return BehaviourPolicy(policy.requires_grad_(False), mean, std, record)


def train_all(store: Store, progress: bool = True) -> list[Path]:
    """Train whatever the levels of every robot need, and write the files that are committed."""
    written = []
    for name, levels in LEVELS.items():
        robot, config = ROBOTS[name], BEHAVIOURS[name]
        runs: dict[int, Run] = {}
        for level, snapshot in levels.items():
            seed = snapshot.seed
            if seed not in runs:
                spec = Spec(
                    "behaviour",
                    {"robot": name, "seed": seed, **asdict(config)},
                    revisions={"behaviors": REVISION, "ppo": ppo.REVISION},
                )
                produce = partial(_produce, robot, config, seed, progress)
                runs[seed] = store.get_or_train(spec, produce, expect="about 15 min")
            written.append(export(robot, level, runs[seed], config, seed))
    return written


def _produce(robot: Robot, config: BehaviourConfig, seed: int, progress: bool, run: Run) -> None:
    train_behaviour(robot, config, seed, run, run, progress)


def export(robot: Robot, level: str, run: Run, config: BehaviourConfig, seed: int) -> Path:
    """Copy the snapshot of a finished run that ``level`` stands for, with its training record."""
    snapshot = LEVELS[robot.name][level]
    source = run.folder / f"{snapshot.env_steps:08d}.safetensors"
    policy = read_behaviour(source, robot, {})
    curve = run.metrics.iloc[::10][["env_steps", "training_return"]].round(1)
    played = {
        name: _play(robot, policy, scale) for name, scale in (("mean_action", 0), ("with_noise", 1))
    }
    record = {
        "robot": robot.name,
        "env_id": robot.env_id,
        "algorithm": "PPO",
        "seed": seed,
        "env_steps": snapshot.env_steps,
        "env_steps_of_whole_run": config.ppo.num_env_steps,
        "minutes_of_whole_run": round(run.record["wall_s"] / 60, 1),
        "config": asdict(config),
        "returns": played,
        "action_noise": [round(s, 4) for s in policy.action_noise.tolist()],
        "versions": run.record["versions"],
        "training_curve": curve.to_numpy().tolist(),
    }
    folder = FOLDER / robot.name
    folder.mkdir(parents=True, exist_ok=True)
    facts.replace_file(folder / f"{level}.safetensors", lambda p: _copy(source, p))
    facts.write_json(folder / f"{level}.json", record)
    return folder / f"{level}.safetensors"


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


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
    values = torch.tensor(returns)
    return {
        "mean": round(float(values.mean()), 1),
        "std": round(float(values.std()), 1),
        "normalised": round(robot.normalised(float(values.mean())), 1),
        "episodes": episodes,
    }
