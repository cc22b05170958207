"""What differs by task, with its source, and the online settings, with every one that was tried.

Settings by task are applied to every method alike; everything else is equal for all tasks.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uepo_lib.robots import Robot

HANDS = ("pen", "door", "hammer", "relocate")


@dataclass(frozen=True)
class Setting:
    """``component.parameter`` is ``value`` on ``robots``."""

    robots: tuple[str, ...]
    component: str
    parameter: str
    value: Any
    source: str


SETTINGS = (
    Setting(
        HANDS, "offline_ppo", "learning_rate", 1e-5,
        "Uni-O4's code: 1e-5 on Adroit, 1e-4 on locomotion",
    ),
    Setting(
        HANDS, "amq", "horizon", 40,
        "Uni-O4's code: 5 to 100 steps on Adroit, up to 1,000 on locomotion",
    ),
    Setting(
        HANDS, "extraction", "beta", 0.5, "IQL (arXiv 2110.06169), appendix B: 0.5 on Adroit"
    ),
    Setting(
        HANDS, "extraction", "scale_by_returns", False, "IQL: Adroit's rewards are left as they are"
    ),
    Setting(
        ("halfcheetah", "hammer"), "gaussian", "activation", "tanh",
        "Uni-O4's code: tanh on these two, ReLU elsewhere",
    ),
)  # fmt: skip


def of(robot: Robot, component: str) -> dict[str, Any]:
    """What ``robot`` changes in the defaults of ``component``."""
    return {
        s.parameter: s.value
        for s in SETTINGS
        if s.component == component and robot.name in s.robots
    }


ONLINE: dict[str, dict[str, Any]] = {
    "chain_ppo": {
        "learning_rate": 2e-5,
        "critic_learning_rate": 1e-3,
        "clip_range": 0.1,
        "num_epochs": 5,
        "minibatch_size": 32,
        "target_kl": 0.05,
    },
    "gaussian_ppo": {
        "learning_rate": 5e-5,
        "critic_learning_rate": 1e-3,
        "clip_range": 0.1,
        "num_epochs": 5,
        "target_kl": 0.1,
    },
    "scratch_ppo": {"warmup_env_steps": 0, "normalise_rewards": True},
    "steer_ppo": {
        "learning_rate": 3e-4,
        "critic_learning_rate": 1e-3,
        "clip_range": 0.1,
        "num_epochs": 5,
        "minibatch_size": 32,
        "target_kl": 0.05,
    },
}
"""Online PPO; from scratch with the defaults. Minibatches are smaller for the chain, which decides
once in T_a steps. Steering the noise takes the chain's settings with PPO's usual rate, its network
being a small one that starts at zero; neither was tuned."""

IQL_BETA = 1.0
"""Chosen among the four of ``tuning_iql.csv``, by the noise-free score; IQL has 3 on locomotion,
with critics of a million updates. A weight is as good as the critic: while they learnt raw rewards,
0.5 was best."""


def _read(name: str) -> tuple[dict[str, str], ...]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


TRIED_IQL = _read("tuning_iql.csv")
"""β of IQL's extraction on Hopper, seed 100, which no result reports: scores noise-free and
sampled, 50 episodes each; with critics that learnt raw rewards and with those of now."""
TRIED_CRITIC = _read("tuning_critic.csv")
"""Values learnt in units of the rewards and raw, on seed 100, which no result reports: what offline
PPO makes of Uni-O4's clones, mean score of four members over 10 episodes each."""
TRIED = _read("tuning.csv")
"""Every online run that these settings were chosen by: Hopper, seed 100, which no result reports.

The committed medium policy was chosen while tuning too; the rows say which agent's data they used.
``critic_lag`` is how many updates the target of Q lagged behind: 400, then 50, after which the
rates were chosen anew among four settings for each method, by ``mean_return``: the noise-free
return, averaged over the looks after the first and over the starts.
"""

KNOBS = (
    "behaviour", "critic_lag", "learning_rate", "target_kl", "num_epochs", "warmup_env_steps",
    "sigma", "action_horizon", "minibatch_size",
)  # fmt: skip
"""What tells two settings of :data:`TRIED` apart; a start does not, it is tried several times."""


def num_tried() -> dict[str, int]:
    """How many online settings were tried for each component of PPO."""
    component = {"UEPO": "chain_ppo", "BC": "gaussian_ppo"}
    found = {(row["method"], *(row[knob] for knob in KNOBS)) for row in TRIED}
    return {component[method]: sum(first == method for first, *_ in found) for method in component}
