"""TQC where PPO is not enough: sb3-contrib's agent, kept as the same small files.

Truncated quantile critics: arXiv 2005.04269. HalfCheetah's expert is out of PPO's reach here; the
``behaviors`` extra brings stable-baselines3 and sb3-contrib, which only ``soft_actor_critic``
imports besides. The agent's actor is the tanh of a Gaussian whose width depends on the state; what
is kept is the mean network and one standard deviation an action, that of the actions it explored
with.
"""

from __future__ import annotations

import csv
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from uepo_lib import facts
from uepo_lib.errors import UsageError
from uepo_lib.robots import Robot

SHAPE = {"activation": "relu", "squash": "true"}
"""How the exported network differs from PPO's."""
PACKAGES = ("stable-baselines3", "sb3-contrib")


@dataclass(frozen=True)
class TQCConfig:
    """sb3-contrib's defaults, but for what is named here."""

    num_env_steps: int = 1_000_000
    hidden: tuple[int, ...] = (256, 256)
    learning_starts: int = 10_000
    buffer_size: int = 1_000_000
    snapshot_every: int = 20_000


def train_tqc(robot: Robot, config: TQCConfig, seed: int, folder: Path) -> None:
    """Train up to ``config.num_env_steps``; continues from what ``folder`` holds.

    ``folder`` gets ``<env steps>.safetensors`` at every snapshot, ``curve.csv`` (environment steps,
    mean return of the training episodes since the last row, minutes so far), the agent and its
    buffer. A resumed training is not bit-identical: live episodes begin anew.
    """
    agent = _open(robot, config, seed, folder)
    minutes = _minutes(folder)
    while agent.num_timesteps < config.num_env_steps:
        started, known = time.monotonic(), agent._episode_num
        agent.learn(config.snapshot_every, reset_num_timesteps=False, log_interval=None)
        minutes += (time.monotonic() - started) / 60
        returns = [e["r"] for e in list(agent.ep_info_buffer)[-(agent._episode_num - known) :]]
        save_file(actor_tensors(agent), folder / f"{agent.num_timesteps:08d}.safetensors", SHAPE)
        row = (agent.num_timesteps, round(float(np.mean(returns)), 1), round(minutes, 2))
        _keep(agent, folder, row)


def _keep(agent: Any, folder: Path, row: tuple[int, float, float]) -> None:
    """Buffer, curve and agent, each whole or as it was; the agent last, since it says how far the
    training is: what a kill left beyond it is written again."""

    def write_curve(path: Path) -> None:
        kept = [known for known in _rows(folder) if int(known.split(",")[0]) < row[0]]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([*(known.split(",") for known in kept), row])

    def write_buffer(path: Path) -> None:
        with path.open("wb") as file:  # a path would get a suffix of its own
            agent.save_replay_buffer(file)

    def write_agent(path: Path) -> None:
        with path.open("wb") as file:
            agent.save(file)

    facts.replace_file(folder / "buffer.pkl", write_buffer)
    facts.replace_file(folder / "curve.csv", write_curve)
    facts.replace_file(folder / "agent.zip", write_agent)


def _open(robot: Robot, config: TQCConfig, seed: int, folder: Path) -> Any:
    try:
        from sb3_contrib import TQC
    except ImportError:
        raise UsageError(
            "training this behaviour needs the 'behaviors' extra: pip install -e '.[behaviors]'"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    env = gymnasium.wrappers.TimeLimit(robot.make(), robot.max_episode_steps)
    if (folder / "agent.zip").exists():
        agent = TQC.load(folder / "agent.zip", env=env, device="cpu")
        agent.load_replay_buffer(folder / "buffer.pkl")
        return agent
    return TQC(
        "MlpPolicy",
        env,
        learning_starts=config.learning_starts,
        buffer_size=config.buffer_size,
        policy_kwargs={"net_arch": list(config.hidden)},
        seed=seed,
        device="cpu",
    )


def _rows(folder: Path) -> list[str]:
    path = folder / "curve.csv"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def _minutes(folder: Path) -> float:
    rows = _rows(folder)
    return float(rows[-1].split(",")[-1]) if rows else 0.0


def actor_tensors(agent: Any, recent: int = 5_000) -> dict[str, Tensor]:
    """The mean network as ``body.*``, a state scale of one, and ``log_std`` (A,): of the explored
    actions around the mean ones, over the ``recent`` last states of the buffer."""
    actor = agent.actor
    layers = [m for m in actor.latent_pi if isinstance(m, torch.nn.Linear)] + [actor.mu]
    tensors = {}
    for i, layer in enumerate(layers):
        tensors[f"body.{2 * i}.weight"] = layer.weight.detach().clone()
        tensors[f"body.{2 * i}.bias"] = layer.bias.detach().clone()
    unit = torch.ones(layers[0].in_features)
    tensors |= {"normaliser.mean": torch.zeros_like(unit), "normaliser.std": unit}
    buffer = agent.replay_buffer
    last = np.arange(buffer.pos - recent, buffer.pos) % max(1, buffer.size())
    states = torch.as_tensor(buffer.observations[last, 0], dtype=torch.float32)
    with torch.no_grad():
        mean, log_std, _ = actor.get_action_dist_params(states)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
        explored = (mean + log_std.exp() * noise).tanh() - mean.tanh()
    tensors["log_std"] = explored.square().mean(0).sqrt().log()
    return tensors


def facts_of(folder: Path, config: TQCConfig, seed: int) -> dict[str, Any]:
    """What the record of every level of one training says."""
    curve = [[float(x) for x in line.split(",")] for line in _rows(folder)]
    return {
        "algorithm": "TQC",
        "seed": seed,
        "env_steps_of_whole_run": int(curve[-1][0]),
        "minutes_of_whole_run": round(curve[-1][2], 1),
        "config": asdict(config),
        "versions": facts.versions() | {name: version(name) for name in PACKAGES},
        "training_curve": [row[:2] for row in curve],
    }
