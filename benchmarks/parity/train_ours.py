"""Our side: one job by ``uepo_lib``. It continues from its last checkpoint when it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parity import exchange
from benchmarks.parity.arrays import dataset_of
from benchmarks.parity.exchange import Array
from benchmarks.parity.player import network_of
from uepo_lib.behavior_training import BehaviourConfig, train_behaviour
from uepo_lib.behaviors import read_behaviour
from uepo_lib.cloning import CloneConfig, train_clone
from uepo_lib.datasets import Dataset
from uepo_lib.extraction import ExtractionConfig, extract_policy
from uepo_lib.locomotion import HOPPER
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.ppo import PPOConfig
from uepo_lib.recording import Recording
from uepo_lib.values import IQLConfig, train_iql

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco")

Job = Mapping[str, Any]


def recording_of(job: Job, name: str) -> Recording:
    """A folder of the job that a training loop continues in."""
    recording = Recording(Path(job["out"]) / name, {"status": "running"})
    recording.restore()
    return recording


def seconds_of(recording: Recording) -> float:
    """What its training took, all its sessions together."""
    return float(recording.progress()["wall_s"])


def _gaussian(job: Job, data: Dataset) -> GaussianConfig:
    robot, given = data.task.robot, job["settings"]
    return GaussianConfig(
        robot.state_dim,
        robot.action_dim,
        hidden=tuple(given["hidden"]),
        activation=given["activation"],
    )


def clone(job: Job, data: Dataset) -> tuple[GaussianPolicy, float]:
    """Behaviour cloning: the policy, and the seconds it took."""
    given, recording = job["settings"], recording_of(job, "bc")
    config = CloneConfig(given["updates"], given["batch_size"], given["learning_rate"])
    policy = train_clone(
        config, _gaussian(job, data), data.windows(1, 1), seed=job["seed"], recorder=recording,
        progress=False,
    )  # fmt: skip
    return policy, seconds_of(recording)


def implicit_q(job: Job, data: Dataset) -> tuple[GaussianPolicy, float]:
    """IQL: Q and V, then the policy. The rewards of ``data`` are scaled already."""
    given, seed = job["settings"], job["seed"]
    hidden, amount, rate = tuple(given["hidden"]), given["updates"], given["learning_rate"]
    values = IQLConfig(
        hidden, hidden, rate, given["batch_size"], amount, given["discount"], given["expectile"],
        given["polyak"], given["target_every"], scale_rewards=False,
    )  # fmt: skip
    first = recording_of(job, "critic")
    critic = train_iql(values, data.transitions(), seed=seed, recorder=first, progress=False)
    seconds = seconds_of(first)
    second = recording_of(job, "policy")
    weighted = ExtractionConfig(
        amount, given["batch_size"], rate, given["beta"], given["max_weight"], False
    )
    returns = torch.as_tensor(data.episode_returns(complete_only=False))
    policy = extract_policy(
        weighted, _gaussian(job, data), data.windows(1, 1), critic, returns, seed=seed,
        recorder=second, progress=False,
    )  # fmt: skip
    return policy, seconds + seconds_of(second)


def _offline(job: Job) -> None:
    arrays = exchange.read_npz(Path(job["arrays"]))
    iql = job["algorithm"] == "iql"
    data = dataset_of(arrays, exchange.reward_scale(arrays) if iql else 1.0)
    policy, seconds = (implicit_q if iql else clone)(job, data)
    mean, std = data.normaliser.mean.numpy(), data.normaliser.std.numpy()
    states = arrays["observations"][:512]
    standardised = torch.from_numpy(exchange.standardised(arrays)[:512])
    expected = policy.act(standardised[:, None])[:, 0].numpy()
    network = network_of(policy, mean, std)
    exchange.finish(job, network, seconds, job["settings"]["updates"], expected, states, PACKAGES)


def online_config(given: Mapping[str, Any]) -> BehaviourConfig:
    """PPO's settings as the library takes them; the last moment is the only snapshot."""
    names = (
        "num_env_steps", "num_envs", "steps_per_update", "minibatch_size", "num_epochs",
        "learning_rate", "anneal", "clip_range", "discount", "gae_lambda", "entropy_coefficient",
        "max_grad_norm", "normalise_states", "normalise_rewards",
    )  # fmt: skip
    config = PPOConfig(**{name: given[name] for name in names})
    never = 10 * config.num_env_steps
    return BehaviourConfig(config, tuple(given["hidden"]), given["initial_log_std"], never)


def _online(job: Job) -> None:
    recording = recording_of(job, "ppo")
    config = online_config(job["settings"])
    train_behaviour(HOPPER, config, job["seed"], recording, recording, progress=False)
    seconds = seconds_of(recording)
    [snapshot] = recording.folder.glob("*.safetensors")
    trained = read_behaviour(snapshot, HOPPER, {})
    network = network_of(trained.policy, trained.mean.numpy(), trained.std.numpy(), clip=10.0)
    states = probe_states()
    expected = trained.mean_action(torch.from_numpy(states)).numpy()
    exchange.finish(job, network, seconds, int(snapshot.stem), expected, states, PACKAGES)


def probe_states(count: int = 256) -> Array:
    """Raw states (count, S) to compare an exported policy in: resets of Hopper, spread out."""
    generator = np.random.default_rng(0)
    env = HOPPER.make()
    first = np.asarray(env.reset(seed=0)[0])
    env.close()
    spread = generator.normal(size=(count, len(first)))
    states: Array = (first + spread).astype(np.float32)
    return states


def train(job: Job) -> None:
    """Train, export, and say what it took."""
    torch.set_num_threads(1)
    # torch imports much with its first optimiser: the peers' clocks start after that
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    (_online if job["algorithm"] == "ppo" else _offline)(job)


if __name__ == "__main__":
    train(exchange.main_job())
