"""How much of everything: one table of budgets, equal for all methods.

| profile | for |
|---|---|
| smoke | every line of code runs; the numbers mean nothing |
| laptop | the default: local data, three seeds; 3¼ hours on two slow cores, some two on faster |
| full | five seeds, 5 times the data, 7.5 to 13 times the updates; some 90 core-hours, estimated |
| paper | the sizes that Uni-O4 published, not its learning rates; never run here |

The sizes were fixed before settings were tuned; those of laptop were cut once more afterwards, when
results had been seen, for time alone. What the paper (UEPO) leaves unsaid has Uni-O4's size under
``paper`` where Uni-O4 has one, and is marked as our choice in :data:`PUBLISHED` where it has none.
Sizes alone: learning rates are the same at every profile. Uni-O4 has 1e-4 for the critics and keeps
1e-3 for T̂; here they are 3e-4, and 5e-3 that falls to zero (``values.py``, ``dynamics.py``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

import pandas as pd

from uepo_lib.errors import unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """Sizes of data, training, selection, online fine-tuning and evaluation."""

    # data
    num_transitions: int
    seeds: tuple[int, ...]
    # diffusion policy
    diffusion_updates: int
    diffusion_batch: int
    denoising_steps: int
    """Of the reverse chain, of every model that is not asked for another number."""
    denoiser_channels: tuple[int, ...]
    """Of the U-Net's levels, finest first."""
    denoiser_layers: int
    """Of the Transformer over the states."""
    # Gaussian behaviour cloning
    clone_updates: int
    clone_batch: int
    # critics
    critic_updates: int
    critic_batch: int
    critic_polyak: float
    """Share of Q that its target takes every second update: value travels one step each
    2 / polyak updates, and γ = 0.99 looks a few hundred steps ahead."""
    q_hidden: tuple[int, ...]
    v_hidden: tuple[int, ...]
    # dynamics and augmentation
    dynamics_updates: int
    dynamics_batch: int
    dynamics_hidden: tuple[int, ...]
    augmentation_ratio: float
    augmentation_horizon: int
    # sub-policies and their selection
    num_subpolicies: int
    amq_starts: int
    amq_horizon: int
    # offline improvement
    offline_ppo_updates: int
    offline_ppo_batch: int
    offline_ppo_every: int
    """Updates between two comparisons by AM-Q."""
    # online
    online_env_steps: int
    env_steps_per_update: int
    # evaluation
    evaluation_episodes: int
    curve_episodes: int
    """Episodes of an evaluation between start and end, and of the exploring policy at both."""
    curve_points: int
    """How many evaluations there are between."""

    @property
    def watched(self) -> dict[str, int]:
        """The sizes of ``finetuning.Watch``, and their part of an online run's configuration."""
        return {
            "episodes": self.evaluation_episodes,
            "curve_episodes": self.curve_episodes,
            "curve_points": self.curve_points,
        }


SMOKE = Budget(
    num_transitions=4_000,
    seeds=(0, 1),
    diffusion_updates=40,
    diffusion_batch=64,
    denoising_steps=2,
    denoiser_channels=(32,),
    denoiser_layers=1,
    clone_updates=60,
    clone_batch=64,
    critic_updates=100,
    critic_batch=64,
    critic_polyak=0.2,
    q_hidden=(32, 32),
    v_hidden=(32, 32),
    dynamics_updates=100,
    dynamics_batch=64,
    dynamics_hidden=(32, 32),
    augmentation_ratio=0.5,
    augmentation_horizon=10,
    num_subpolicies=4,
    amq_starts=8,
    amq_horizon=20,
    offline_ppo_updates=20,
    offline_ppo_batch=64,
    offline_ppo_every=10,
    online_env_steps=512,
    env_steps_per_update=128,
    evaluation_episodes=3,
    curve_episodes=2,
    curve_points=1,
)

LAPTOP = Budget(
    num_transitions=100_000,
    seeds=(0, 1, 2),
    diffusion_updates=4_000,
    diffusion_batch=128,
    denoising_steps=5,
    denoiser_channels=(32, 64),
    denoiser_layers=2,
    clone_updates=5_000,
    clone_batch=128,
    critic_updates=15_000,
    critic_batch=128,
    critic_polyak=0.04,
    q_hidden=(256, 256),
    v_hidden=(256, 256),
    dynamics_updates=4_000,
    dynamics_batch=128,
    dynamics_hidden=(128, 128, 128, 128),
    augmentation_ratio=2.0,
    augmentation_horizon=50,
    num_subpolicies=8,
    amq_starts=64,
    amq_horizon=200,
    offline_ppo_updates=600,
    offline_ppo_batch=256,
    offline_ppo_every=100,
    online_env_steps=24_576,
    env_steps_per_update=2_048,
    evaluation_episodes=50,
    curve_episodes=8,
    curve_points=3,
)

FULL = Budget(
    num_transitions=500_000,
    seeds=(0, 1, 2, 3, 4),
    diffusion_updates=50_000,
    diffusion_batch=256,
    denoising_steps=5,
    denoiser_channels=(32, 64),
    denoiser_layers=2,
    clone_updates=50_000,
    clone_batch=256,
    critic_updates=200_000,
    critic_batch=256,
    critic_polyak=0.005,
    q_hidden=(256, 256),
    v_hidden=(256, 256),
    dynamics_updates=30_000,
    dynamics_batch=256,
    dynamics_hidden=(200, 200, 200, 200),
    augmentation_ratio=2.0,
    augmentation_horizon=50,
    num_subpolicies=10,
    amq_starts=256,
    amq_horizon=1_000,
    offline_ppo_updates=5_000,
    offline_ppo_batch=256,
    offline_ppo_every=100,
    online_env_steps=250_000,
    env_steps_per_update=2_048,
    evaluation_episodes=50,
    curve_episodes=10,
    curve_points=10,
)

PAPER = Budget(
    num_transitions=1_000_000,
    seeds=(0, 1, 2, 3, 4),
    diffusion_updates=500_000,
    diffusion_batch=256,
    denoising_steps=5,
    denoiser_channels=(32, 64),
    denoiser_layers=2,
    clone_updates=400_000,
    clone_batch=512,
    critic_updates=2_000_000,
    critic_batch=512,
    critic_polyak=0.005,
    q_hidden=(1024, 1024),
    v_hidden=(512, 512, 512),
    dynamics_updates=200_000,
    dynamics_batch=256,
    dynamics_hidden=(200, 200, 200, 200),
    augmentation_ratio=2.0,
    augmentation_horizon=50,
    num_subpolicies=10,
    amq_starts=512,
    amq_horizon=1_000,
    offline_ppo_updates=10_000,
    offline_ppo_batch=512,
    offline_ppo_every=100,
    online_env_steps=1_000_000,
    env_steps_per_update=2_048,
    evaluation_episodes=50,
    curve_episodes=10,
    curve_points=20,
)

PROFILES = {"smoke": SMOKE, "laptop": LAPTOP, "full": FULL, "paper": PAPER}

PUBLISHED = {
    "num_transitions": "1M to 2M (D4RL)",
    "seeds": "5",
    "diffusion_updates": "not said",
    "diffusion_batch": "not said",
    "denoising_steps": "not said",
    "denoiser_channels": "not said",
    "denoiser_layers": "not said",
    "clone_updates": "400k (Uni-O4)",
    "clone_batch": "512 (Uni-O4)",
    "critic_updates": "2M (Uni-O4)",
    "critic_batch": "512 (Uni-O4)",
    "critic_polyak": "0.005 (Uni-O4)",
    "q_hidden": "2 × 1024 (Uni-O4)",
    "v_hidden": "3 × 512 (Uni-O4)",
    "dynamics_updates": "until no member improves (Uni-O4)",
    "dynamics_batch": "256 (Uni-O4)",
    "dynamics_hidden": "4 × 200 (Uni-O4)",
    "augmentation_ratio": "2 to 3 (UEPO)",
    "augmentation_horizon": "not said",
    "num_subpolicies": "not said; 4 policies in Uni-O4",
    "amq_starts": "512 (Uni-O4)",
    "amq_horizon": "1000 (Uni-O4)",
    "offline_ppo_updates": "10k (Uni-O4)",
    "offline_ppo_batch": "512 (Uni-O4)",
    "offline_ppo_every": "100 (Uni-O4)",
    "online_env_steps": "1M (Uni-O4)",
    "env_steps_per_update": "2048 (Uni-O4)",
    "evaluation_episodes": "10 (Uni-O4)",
    "curve_episodes": "10 (Uni-O4)",
    "curve_points": "not said",
}
"""What was published for each row; UEPO where it says, else Uni-O4. There is no row of rates: those
of ``paper`` are not the published ones."""


def budget(profile: str) -> Budget:
    """The budget called ``profile``; ``UsageError`` for another name."""
    return entry(PROFILES, profile)


def entry(sizes: Mapping[str, T], profile: str) -> T:
    """The entry of ``sizes`` for ``profile``; ``UsageError`` for a profile without one."""
    if profile not in sizes:
        raise unknown("profile", profile, sizes)
    return sizes[profile]


def current(profile: str | None = None) -> str:
    """``profile``, else ``$UEPO_PROFILE``, else laptop; a name that exists."""
    name = profile or os.environ.get("UEPO_PROFILE") or "laptop"
    budget(name)
    return name


def table() -> pd.DataFrame:
    """The whole budget table: a row a size, a column a profile, the published size last."""
    rows = {
        field.name: {name: _plain(getattr(b, field.name)) for name, b in PROFILES.items()}
        | {"published": PUBLISHED[field.name]}
        for field in fields(Budget)
    }
    rows["seeds"] |= {name: str(len(b.seeds)) for name, b in PROFILES.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
