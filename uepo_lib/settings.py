"""What differs by task, with its source, and the online settings, with every one that was tried.

Settings by task are applied to every method alike; everything else is equal for all tasks.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uepo_lib.robots import Robot

HANDS = ("pen", "door", "hammer", "relocate")
TUNED_ON = "hopper-medium"
"""The task on which every method's online settings were chosen, with seed 100."""


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
    Setting(
        ("maze",), "amq", "score", "model_return",
        "A9: its end is success, and dead_zero counts nothing after it: not to arrive scores more",
    ),
    Setting(
        ("maze",), "extraction", "scale_by_returns", False,
        "every episode of its data arrives: all returns are 1 and have no range",
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


def warm_up(ppo: Mapping[str, Any]) -> int:
    """The warm-up of these values of ``PPOConfig``, at most half of the updates: else a budget that
    was made small would train the critic alone."""
    size = max(1, ppo["steps_per_update"])  # its class refuses what is no size
    updates = -(-ppo["num_env_steps"] // size)
    return min(ppo["warmup_env_steps"], updates // 2 * size)


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

First those of "prototype", throw-away programs that came before this library: of each what was
written down, the noise-free return at the start and the end and what ``note`` says. Which steps of
the ``chain`` were trained is "not said" of two; those repeat σ and rate of others and are not
counted as settings. Of "this library" the column is empty.

The committed medium policy was chosen while tuning too; the rows say which agent's data they used.
``critic_lag`` is how many updates the target of Q lagged behind: 400, then 50, after which the
rates were chosen anew among four settings for each method, by ``mean_return``: the noise-free
return, averaged over the looks after the first and over the starts. The last five of "BC" came
after E3 had been computed, so that Gaussians have as many as chains: from a clone of a later state
of the code, whose return is another, with the setting in use among them; none was better.
"""

KNOBS = (
    "chain", "behaviour", "critic_lag", "learning_rate", "target_kl", "num_epochs",
    "warmup_env_steps", "sigma", "action_horizon", "minibatch_size",
)  # fmt: skip
"""What tells two settings of :data:`TRIED` apart; a start does not, it is tried several times."""
COMPONENT = {"UEPO": "chain_ppo", "BC": "gaussian_ppo"}


def num_tried(source: str | None = None) -> dict[str, int]:
    """How many online settings were tried for each component of PPO, in all or by one source."""
    found = {
        (row["method"], *(row[knob] for knob in KNOBS))
        for row in TRIED
        if source in (None, row["source"]) and row["chain"] != "not said"
    }
    return {
        component: sum(first == method for first, *_ in found)
        for method, component in COMPONENT.items()
    }


def parity() -> str:
    """Were as many online settings tried for chains as for Gaussians? In words."""
    chain, gaussian = num_tried().values()
    apart = chain - gaussian
    more = f"{abs(apart)} more for {'chains' if apart > 0 else 'Gaussians'}"
    return (
        f"{chain} settings of online PPO were tried for denoising chains, "
        f"{num_tried('prototype')['chain_ppo']} of them with prototypes before this library, and "
        f"{gaussian} for Gaussians: {more if apart else 'equally many'}."
    )


def attempts(task: str) -> str:
    """What was tried for UEPO's online phase: on :data:`TUNED_ON`, and elsewhere nothing."""
    runs = [row for row in TRIED if row["method"] == "UEPO" and row["last_return"]]
    rose = sum(float(row["last_return"]) > float(row["first_return"]) for row in runs)
    told = (
        f"{num_tried()['chain_ppo']} settings on {TUNED_ON}, {rose} of {len(runs)} runs with an "
        "end above their start"
    )
    return told if task == TUNED_ON else f"{told}; none on {task}"


@dataclass(frozen=True)
class Offline:
    """An offline choice between ``tried`` settings, on seeds that no result uses."""

    choice: str
    tried: int
    kept: str
    tasks: str
    table: str
    """Where all of them stand."""
    rows: tuple[str, ...] = ()
    """Of E3, which it was made for; (): all that learn offline."""


DIFFUSION = (
    "uepo", "uepo_printed", "uepo_ppo", "uepo_simulator", "greedy", "random", "fresh", "kappa_1",
    "kappa_0", "distilled",
)  # fmt: skip
"""Rows of E3 that act by the diffusion policy, or learn from what it does."""
PROTOTYPES = 10
"""Offline trials of a diffusion policy with throw-away programs, each scored by its return. With
ε-prediction fresh noise, fixed noise at κ = 1, 0.5 and 0.25, at κ = 1 with T_a = 1 too, and κ = 0;
with x0-prediction fresh noise, κ = 1, 0.5 and 0. Their data, of two agents of their own, are in no
result."""

OFFLINE = (
    Offline(
        "prediction, initial noise, T_a of a prototype", PROTOTYPES,
        "x0-prediction; κ left to AM-Q", "a mixture of Hopper's, not kept", "not kept", DIFFUSION,
    ),
    Offline("past states that a policy sees (T_o)", 2, "1", TUNED_ON, "not kept"),
    Offline(
        "unit of the critics", len({row["scale_rewards"] for row in TRIED_CRITIC}),
        "mean |r| / (1 − γ)", ", ".join(dict.fromkeys(row["task"] for row in TRIED_CRITIC)),
        "tuning_critic.csv",
    ),
    Offline(
        "rate and number of the critics' updates", 5, "a constant rate; 20,000, laptop's of then",
        TUNED_ON, "not kept",
    ),
    Offline(
        "offline PPO: its updates, how often AM-Q checks", 3, "1,000 and 100, laptop's of then",
        "hopper-medium-replay", "not kept", ("uepo_ppo", "uni_o4", "uni_o4_more", "bppo"),
    ),
    Offline(
        "β of IQL", len({row["beta"] for row in TRIED_IQL}), f"{IQL_BETA:g}", TUNED_ON,
        "tuning_iql.csv", ("iql",),
    ),
)  # fmt: skip
"""What was chosen offline by returns: of policies, of what offline PPO makes of Uni-O4's clones, or
of IQL's policy."""


def parity_offline() -> str:
    """How many offline settings the methods had, in words."""
    ours, others = tried_offline("uepo"), ("uni_o4", "iql", "bc")
    theirs, iql, bc = map(tried_offline, others)
    return (
        f"{ours} offline settings were tried by returns for UEPO, {PROTOTYPES} of them with "
        f"prototypes before this library, {theirs} for Uni-O4, {iql} for IQL and {bc} for cloning."
    )


def tried_offline(row: str) -> int:
    """How many offline settings were tried for ``row`` of E3, one choice after another; none for
    what learns online alone."""
    mine = [c.tried for c in OFFLINE if not c.rows or row in c.rows]
    return sum(mine) if row not in ("scratch", "sac") else 0
