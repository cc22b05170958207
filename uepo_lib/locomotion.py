"""Hopper, Walker2d and HalfCheetah: Gymnasium's v5, scored by D4RL's references."""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.robots import Robot

_COLLECTED_HERE = "Datasets are collected here from policies trained here, not D4RL's files."


def _hopper_terminated(states: Tensor) -> Tensor:
    """Healthy while z > 0.7, |torso angle| < 0.2 and every other coordinate below 100."""
    height, angle, rest = states[..., 0], states[..., 1], states[..., 1:]
    upright = (height > 0.7) & (height < float("inf")) & (angle.abs() < 0.2)
    healthy = upright & (rest.abs() < 100.0).all(-1)
    return ~healthy  # a NaN compares false: it is never healthy


def _walker2d_terminated(states: Tensor) -> Tensor:
    """Healthy while 0.8 < z < 2 and |torso angle| < 1."""
    height, angle = states[..., 0], states[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (angle.abs() < 1.0))


def never(states: Tensor) -> Tensor:
    """An environment that only its clock ends."""
    return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)


HOPPER = Robot(
    name="hopper",
    env_id="Hopper-v5",
    state_dim=11,
    action_dim=3,
    random_return=-20.272305,
    expert_return=3234.3,
    max_episode_steps=1000,
    terminated=_hopper_terminated,
    step_seconds=0.008,
    reusable=True,
    notes=(
        "Hopper-v5 pays the healthy reward only while healthy; D4RL's v2 scores are comparable "
        "in kind, not cell by cell.",
        _COLLECTED_HERE,
    ),
)

WALKER2D = Robot(
    name="walker2d",
    env_id="Walker2d-v5",
    state_dim=17,
    action_dim=6,
    random_return=1.629008,
    expert_return=4592.3,
    max_episode_steps=1000,
    terminated=_walker2d_terminated,
    step_seconds=0.008,
    reusable=True,
    notes=(
        "Walker2d-v5 pays the healthy reward only while healthy and gives both feet the same "
        "friction; D4RL's v2 scores are comparable in kind, not cell by cell.",
        _COLLECTED_HERE,
    ),
)

HALFCHEETAH = Robot(
    name="halfcheetah",
    env_id="HalfCheetah-v5",
    state_dim=17,
    action_dim=6,
    random_return=-280.178953,
    expert_return=12135.0,
    max_episode_steps=1000,
    terminated=never,
    step_seconds=0.05,
    reusable=True,
    notes=(
        "HalfCheetah-v5 is D4RL's v2 with another simulator: scores are comparable in kind.",
        _COLLECTED_HERE,
    ),
)
