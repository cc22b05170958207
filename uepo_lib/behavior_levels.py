"""Which agents the behaviour policies are: their settings, and the moments that are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from uepo_lib.offpolicy import TQCConfig
from uepo_lib.ppo import PPOConfig


@dataclass(frozen=True)
class BehaviourConfig:
    """PPO's settings for one robot, and when to keep a snapshot."""

    ppo: PPOConfig
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0
    snapshot_every: int = 24_576
    """Environment steps between two snapshots."""


_SCALED: dict[str, Any] = {"normalise_states": True, "normalise_rewards": True}
_HAND = BehaviourConfig(
    PPOConfig(
        num_env_steps=2_500_000,
        num_envs=16,
        steps_per_update=6400,
        minibatch_size=400,
        num_epochs=8,
        discount=0.98,
        target_kl=0.05,
        **_SCALED,
    ),
    hidden=(128, 128),
    initial_log_std=-0.7,
    snapshot_every=96_000,
)

_LONG_HAND = replace(_HAND, ppo=replace(_HAND.ppo, num_env_steps=3_000_000))

AGENTS: dict[str, BehaviourConfig | TQCConfig] = {
    "hopper": BehaviourConfig(PPOConfig(num_env_steps=1_500_000, **_SCALED)),
    "walker2d": BehaviourConfig(PPOConfig(num_env_steps=3_000_000, **_SCALED)),
    "halfcheetah": TQCConfig(),
    "pen": _HAND,
    "door": _HAND,
    "hammer": _LONG_HAND,
    "relocate": _LONG_HAND,
}


@dataclass(frozen=True)
class Snapshot:
    """One moment of one training run."""

    seed: int
    env_steps: int


@dataclass(frozen=True)
class Replay:
    """What a training run had seen until then, as equally spaced snapshots."""

    seed: int
    until: int
    count: int = 12

    def moments(self) -> list[int]:
        """The environment steps of its snapshots: the last of each equal share."""
        return [self.until * (i + 1) // self.count for i in range(self.count)]


@dataclass(frozen=True)
class Clone:
    """A behaviour clone of another level's dataset."""

    of: str
    num_updates: int = 20_000
    num_transitions: int = 100_000
    seed: int = 0


Level = Snapshot | Replay | Clone

LEVELS: dict[str, dict[str, Level]] = {
    "hopper": {
        "medium": Snapshot(1, 294_912),
        "expert": Snapshot(1, 1_501_184),
        "replay": Replay(1, 294_912),
        "medium-b": Snapshot(0, 294_912),
        "medium-c": Snapshot(2, 294_912),
    },
    "walker2d": {
        "medium": Snapshot(0, 294_912),
        "expert": Snapshot(0, 3_000_320),
        "replay": Replay(0, 294_912),
    },
    "halfcheetah": {
        "medium": Snapshot(0, 40_000),
        "expert": Snapshot(0, 240_000),
        "replay": Replay(0, 40_000, count=2),
    },
    "pen": {
        "early": Snapshot(0, 288_000),
        "medium": Snapshot(0, 672_000),
        "expert": Snapshot(0, 2_502_400),
        "clone": Clone("expert"),
    },
    "door": {
        "early": Snapshot(0, 288_000),
        "medium": Snapshot(0, 480_000),
        "expert": Snapshot(0, 2_502_400),
        "clone": Clone("expert"),
    },
    "hammer": {
        "early": Snapshot(0, 384_000),
        "medium": Snapshot(0, 480_000),
        "expert": Snapshot(0, 1_440_000),
        "clone": Clone("expert"),
    },
}
"""Which moment of which agent a level stands for.

Expert is the end of a run; medium lies about a third of the way to it, as returned with its noise,
or by the mean action for the hand, whose data has less noise than the agent explored with.
Hopper's medium was first seed 0's snapshot (36 normalised with its noise), and became seed 1's (52)
while the online settings were being tried: ``tuning.csv`` holds runs on both. The three agents'
snapshots of that one moment make three datasets, since data is a source of variance as well.
"""
