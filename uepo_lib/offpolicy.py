"""TQC where PPO is not enough: sb3-contrib's agent, kept as the same small files.

Truncated quantile critics: arXiv 2005.04269. HalfCheetah's expert is out of PPO's reach here; the
``behaviors`` extra brings stable-baselines3 and sb3-contrib, and nothing else in the library
imports them. The agent's actor is a tanh of a Gaussian whose width depends on the state; what is
exported is the mean network and one standard deviation an action.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from uepo_lib.errors import UsageError
from uepo_lib.robots import Robot


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
        save_file(actor_tensors(agent), folder / f"{agent.num_timesteps:08d}.safetensors")
        with (folder / "curve.csv").open("a", newline="") as file:
            row = [agent.num_timesteps, round(float(np.mean(returns)), 1), round(minutes, 2)]
            csv.writer(file).writerow(row)
        agent.save_replay_buffer(folder / "buffer.pkl")
        agent.save(folder / "agent.zip")


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


def _minutes(folder: Path) -> float:
    path = folder / "curve.csv"
    return float(path.read_text().split()[-1].split(",")[-1]) if path.exists() else 0.0


def actor_tensors(agent: Any) -> dict[str, Tensor]:
    """The mean network as ``body.*`` in order, and the width head, by name."""
    actor = agent.actor
    layers = [m for m in actor.latent_pi if isinstance(m, torch.nn.Linear)] + [actor.mu]
    tensors = {}
    for i, layer in enumerate(layers):
        tensors[f"body.{2 * i}.weight"] = layer.weight.detach().clone()
        tensors[f"body.{2 * i}.bias"] = layer.bias.detach().clone()
    tensors["width.weight"] = actor.log_std.weight.detach().clone()
    tensors["width.bias"] = actor.log_std.bias.detach().clone()
    return tensors
