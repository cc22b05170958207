"""What one online phase comes to: its row in E3's tables, and its curve."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from uepo_lib import settings
from uepo_lib.curves import area_under_curve, dip, regret, steps_to
from uepo_lib.errors import check
from uepo_lib.robots import Robot
from uepo_lib.runs import Run
from uepo_lib.shift import moment_matched_kl
from uepo_lib.stages import Study, load_data
from uepo_lib.tasks import LOCAL

EXPERT_SHARE = 0.9


def summary(run: Run, study: Study, before: int = 0) -> dict[str, Any]:
    """Scores, sample efficiency, price of the switch, shift, steps; ``before`` of them were taken
    in the simulator before the online phase.

    ``start``, ``end`` and ``best`` are the first, the last and the best-looking policy on the same
    episodes, which no look has used; ``first_look``, ``last_three`` and ``highest`` are of the
    looks, and ``dip_exploring`` of their episodes; ``to_expert`` are the steps to 90 % of the
    expert's mean return, unless ``censored``. ``noise`` is the standard error of a look, and
    ``stopped`` the share of updates that the KL target cut short.
    """
    robot = study.task.robot
    looks, seen = run.table("evaluations").frame(), run.tensors("returns")
    scores = looks["return"].map(robot.normalised)
    score = {name: robot.normalised(float(values.mean())) for name, values in seen.items()}
    exploring, spent = score["start_exploring"], run.record["environment"]
    price = dip(scores, exploring)
    return {
        "start": score["start"], "end": score["end"], "gain": score["end"] - score["start"],
        "best": score["best"],
        "best_at": run.json("best")["env_steps"] + before,
        "first_look": float(scores.iloc[0]), "last_three": float(scores.iloc[-3:].mean()),
        "highest": float(scores.max()),
        **efficiency(looks["env_steps"], scores, expert_level(study), before),
        "dip_exploring": price.exploring, "dip_updates": price.updates,
        "policy_kl": float(looks["policy_kl"].iloc[-1]), "shift": float(looks["shift"].iloc[-1]),
        "shift_early": float(looks["shift"].iloc[1]),
        "noise": robot.normalised(_standard_error(seen)) - robot.normalised(0.0),
        "stopped": _stopped(run),
        "displacement": float(looks["displacement"].iloc[-1]), **_state_shift(run, study),
        "settings": settings_of(run), "simulator_steps": before,
        "training_steps": spent["online training"]["steps"],
        "training_episodes": spent["online training"]["episodes"],
        "evaluation_steps": spent["evaluation"]["steps"],
        "evaluation_episodes": spent["evaluation"]["episodes"],
    }  # fmt: skip


def _standard_error(seen: dict[str, Tensor]) -> float:
    """Of the mean return of a look, by the spread of the last policy's episodes."""
    spread = float(seen["end"].std()) if len(seen["end"]) > 1 else 0.0
    return spread / len(seen["end_exploring"]) ** 0.5


def _stopped(run: Run) -> float:
    """Share of the policy's updates that ended with a step beyond the KL target, if it has one."""
    target = run.spec.config.get("ppo", {}).get("target_kl")
    if target is None:
        return 0.0
    updates = run.metrics
    learning = updates[updates["policy_updates"] > 0]
    if learning.empty:
        return 0.0
    return float((learning["kl"] > target).mean())


def efficiency(
    steps: ArrayLike, scores: ArrayLike, level: float, before: int = 0
) -> dict[str, Any]:
    """Mean score, regret and steps to ``level``, over all steps in an environment.

    ``before`` of them were taken before the first look. While they are taken there is no policy yet
    that could score more than the first look's, so its score counts for them; and no level is
    reached before they are paid.
    """
    looks = pd.DataFrame({"steps": steps, "score": scores})
    looks["steps"] += before
    goal = steps_to(looks["steps"], looks["score"], level)
    if before > 0:
        first = looks.iloc[[0]].assign(steps=0)
        looks = pd.concat([first, looks], ignore_index=True)
    return {
        "auc": area_under_curve(looks["steps"], looks["score"]),
        "regret": regret(looks["steps"], looks["score"]),
        "to_expert": goal.steps, "censored": goal.censored,
    }  # fmt: skip


def settings_of(run: Run) -> str:
    """Which online settings a run used; those of soft actor-critic are its own."""
    if "sac" in run.spec.config:
        return "sac"
    ppo = run.spec.config["ppo"]
    found = [
        name
        for name, chosen in settings.ONLINE.items()
        if all(ppo[key] == value for key, value in chosen.items())
    ]
    check(len(found) == 1, "ppo", found, "the settings of one component")
    return found[0]


def _state_shift(run: Run, study: Study) -> dict[str, float]:
    """KL(visited ‖ D) of moment-matched Gaussians over standardised states, in nats: of the first
    states of the online phase, as many as two updates have, and of as many last ones."""
    visited, data = run.tensors("online")["states"], study.dataset.states
    size = min(2 * study.budget.env_steps_per_update, len(visited) // 2)
    parts = {"states_early": visited[:size], "states_late": visited[-size:]}
    return {
        name: float(moment_matched_kl(part.unsqueeze(0), data.unsqueeze(0)))
        for name, part in parts.items()
    }


def expert_level(study: Study) -> float:
    """90 % of the mean return of the robot's expert dataset, normalised; 90 where there is none,
    as in the maze or of data that were not collected here.

    NaN, a level that no curve reaches, if no episode of it was played to its end, as on budgets
    that log fewer steps than an episode has.
    """
    robot, name = study.task.robot, f"{study.task.robot.name}-expert"
    if study.task.source != "local" or name not in LOCAL:
        return 100 * EXPERT_SHARE
    expert = load_data(name, study.profile, False)
    returns = expert.episode_returns()
    return EXPERT_SHARE * robot.normalised(float(returns.mean()) if len(returns) else math.nan)


def curve(run: Run, robot: Robot, facts: dict[str, Any], before: int = 0) -> pd.DataFrame:
    """A row a look: its environment steps, those ``before`` included, its score, and ``facts``."""
    looks = run.table("evaluations").frame()
    looks["env_steps"] += before
    looks["look"], looks["score"] = range(len(looks)), looks["return"].map(robot.normalised)
    for name, value in facts.items():
        looks[name] = value
    return looks
