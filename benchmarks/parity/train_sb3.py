"""stable-baselines3's PPO: one job, with VecNormalize around Hopper."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from benchmarks.parity import exchange
from benchmarks.parity.exchange import Network
from benchmarks.parity.train_ours import probe_states
from uepo_lib.locomotion import HOPPER

Wrapper = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]

PACKAGES = ("stable-baselines3", "torch", "numpy", "gymnasium", "mujoco")


def _hopper() -> gymnasium.Env[Any, Any]:
    return gymnasium.wrappers.TimeLimit(HOPPER.make(), HOPPER.max_episode_steps)


def environments(given: Mapping[str, Any], wrap: Wrapper = lambda env: env) -> VecNormalize:
    """The same environments as ours, in one process as ours, states and rewards normalised."""
    return VecNormalize(
        DummyVecEnv([lambda: wrap(_hopper())] * given["num_envs"]),
        norm_obs=given["normalise_states"],
        norm_reward=given["normalise_rewards"],
        gamma=given["discount"],
    )


def agent(
    given: Mapping[str, Any],
    seed: int,
    policy: str | type[ActorCriticPolicy] = "MlpPolicy",
    wrap: Wrapper = lambda env: env,
    optimizer_kwargs: Mapping[str, Any] | None = None,
    **more: Any,
) -> PPO:
    """An untrained agent; its environments are first reset from the seeds that ours are."""
    venv = environments(given, wrap)
    hidden = list(given["hidden"])
    made = PPO(
        policy,
        venv,
        learning_rate=given["learning_rate"],
        n_steps=given["steps_per_update"] // given["num_envs"],
        batch_size=given["minibatch_size"],
        n_epochs=given["num_epochs"],
        gamma=given["discount"],
        gae_lambda=given["gae_lambda"],
        clip_range=given["clip_range"],
        ent_coef=given["entropy_coefficient"],
        max_grad_norm=given["max_grad_norm"],
        policy_kwargs={
            "net_arch": {"pi": hidden, "vf": hidden},
            "activation_fn": {"tanh": nn.Tanh, "relu": nn.ReLU}[given["activation"]],
            "log_std_init": given["initial_log_std"],
            "optimizer_kwargs": {"eps": given["adam_eps"], **(optimizer_kwargs or {})},
        },
        seed=seed,
        device="cpu",
        **more,
    )
    venv.seed(1_000 * (seed + 1))
    return made


def network_of(trained: PPO) -> Network:
    """The mean network, with VecNormalize's statistics."""
    venv = trained.get_vec_normalize_env()
    assert isinstance(venv, VecNormalize)
    statistics: Any = venv.obs_rms
    inner = trained.policy.mlp_extractor.policy_net
    layers = [layer for layer in inner if isinstance(layer, nn.Linear)]
    layers.append(trained.policy.action_net)  # type: ignore[arg-type]
    return Network(
        [layer.weight.detach().numpy().copy() for layer in layers],
        [layer.bias.detach().numpy().copy() for layer in layers],
        statistics.mean.astype(np.float32),
        np.sqrt(statistics.var + venv.epsilon).astype(np.float32),
        float(venv.clip_obs),
        "tanh" if isinstance(inner[1], nn.Tanh) else "relu",
    )


def train(job: Mapping[str, Any]) -> None:
    """Train, export, and say what it took."""
    torch.set_num_threads(1)
    finish(job, agent(job["settings"], job["seed"]))


def finish(job: Mapping[str, Any], trained: PPO) -> None:
    """Train an untrained agent for the job's budget, export it, and say what it took."""
    started = time.monotonic()
    trained.learn(job["settings"]["num_env_steps"], log_interval=None)  # type: ignore[arg-type]
    seconds = time.monotonic() - started
    venv = trained.get_vec_normalize_env()
    assert isinstance(venv, VecNormalize)
    states = probe_states()
    seen: Any = venv.normalize_obs(states)
    expected, _ = trained.predict(seen, deterministic=True)
    steps, network = int(trained.num_timesteps), network_of(trained)
    exchange.finish(job, network, seconds, steps, expected, states, PACKAGES)


if __name__ == "__main__":
    train(exchange.main_job())
