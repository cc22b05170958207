"""What both sides are given, what still differs, and how much of it each scale computes.

Settings are the peer's published ones where it publishes any: d3rlpy's defaults for BC and IQL
(with the schedule and the reward scale of its own IQL script), stable-baselines3's defaults for PPO
(with eight environments of 256 steps in place of one of 2048, and VecNormalize).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from uepo_lib.errors import unknown

TASK = "halfcheetah-medium"
"""What BC and IQL learn from: a robot that cannot fall. On Hopper-medium, where one fall decides an
episode, five clones a side differ by a half of their mean, and nothing within 5 % can be shown
(``results/reference/parity/hopper-medium``)."""
SIDES = ("ours", "theirs")
PEERS = {
    "bc": "d3rlpy",
    "iql": "d3rlpy",
    "ppo": "stable-baselines3",
    "lockstep": "stable-baselines3",
}
"""``lockstep`` is PPO with both sides on the same random numbers."""
ONLINE = ("ppo", "lockstep")
"""Learn from a simulator; the others from :data:`TASK`'s dataset."""

BC: dict[str, Any] = {
    "dataset": TASK,
    "hidden": [256, 256],
    "activation": "relu",
    "learning_rate": 1e-3,
    "batch_size": 100,
}
IQL: dict[str, Any] = {
    "dataset": TASK,
    "hidden": [256, 256],
    "activation": "relu",
    "learning_rate": 3e-4,
    "actor_schedule": "half a cosine down to 0",
    "batch_size": 256,
    "discount": 0.99,
    "expectile": 0.7,
    "polyak": 0.005,
    "target_every": 1,
    "beta": 3.0,
    "max_weight": 100.0,
    "rewards": "times 1000 / (highest - lowest return of an episode)",
}
PPO: dict[str, Any] = {
    "environment": "Hopper-v5",
    "hidden": [64, 64],
    "activation": "tanh",
    "initial_log_std": 0.0,
    "num_envs": 8,
    "steps_per_update": 2048,
    "minibatch_size": 64,
    "num_epochs": 10,
    "learning_rate": 3e-4,
    "anneal": False,
    "clip_range": 0.2,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "entropy_coefficient": 0.0,
    "max_grad_norm": 0.5,
    "adam_eps": 1e-5,
    "normalise_states": True,
    "normalise_rewards": True,
}

DIFFERENCES = {
    "bc": [
        "ours: Gaussian, std depends on the state, maximum likelihood; theirs: deterministic, mean "
        "squared error; both play the tanh of the last layer",
        "start: ours orthogonal, biases zero, last layer small; theirs torch's default",
    ],
    "iql": [
        "order: ours Q and V for all updates, then the policy for as many with the finished ones; "
        "theirs all three in every update",
        "std: ours depends on the state, in [e^-5, 1]; theirs one an action, in [e^-5, e^2]",
        "start of the policy: ours orthogonal, biases zero, last layer small; theirs torch's "
        "default (Q and V start as torch's default on both sides)",
    ],
    "ppo": [
        "gradients are clipped: ours policy and value each by its own norm; theirs both by one",
        "the state's running mean and std: ours see every state before acting; theirs every state "
        "after a step",
        "a time limit: ours uses the value of the state reached in the advantage; theirs adds it, "
        "discounted, to the reward: the same sum",
    ],
    "lockstep": [
        "made alike in ours: the first weights are theirs; gradients are clipped by one norm; a "
        "state counts in the running mean and std when it is reached; these, rewards and states "
        "are scaled in double precision; the density's operations have torch.distributions' order",
        "made alike in theirs: states are rounded to float32; batches follow torch's generator; a "
        "value at a time limit is computed as one of eight rows; the optimiser is fused",
    ],
}


@dataclass(frozen=True)
class Scale:
    """How much is computed."""

    name: str
    profile: str
    """Whose dataset both sides learn from."""
    updates: dict[str, int]
    """Gradient steps of BC and of IQL, environment steps of PPO; of each seed."""
    speed_updates: dict[str, int] = field(default_factory=dict)
    """The same of one timing; what is not in it has none."""
    episodes: int = 50
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SCALES = {
    "smoke": Scale(
        "smoke",
        "smoke",
        {"bc": 200, "iql": 200, "ppo": 4_096, "lockstep": 4_096},
        {"bc": 100, "iql": 100, "ppo": 2_048},
        episodes=3,
        seeds=(0,),
    ),
    "full": Scale(
        "full",
        "laptop",
        {"bc": 50_000, "iql": 50_000, "ppo": 1_000_000, "lockstep": 1_000_000},
        {"bc": 5_000, "iql": 1_000, "ppo": 40_960},
    ),
}


def scale(name: str) -> Scale:
    """The scale called ``name``; ``UsageError`` for another name."""
    if name not in SCALES:
        raise unknown("scale", name, SCALES)
    return SCALES[name]


def settings(algorithm: str, amount: int) -> dict[str, Any]:
    """All that a trainer of ``algorithm`` is told, for ``amount`` updates or environment steps."""
    if algorithm not in PEERS:
        raise unknown("algorithm", algorithm, PEERS)
    common = {"bc": BC, "iql": IQL}.get(algorithm, PPO)
    return {**common, "num_env_steps" if algorithm in ONLINE else "updates": amount}
