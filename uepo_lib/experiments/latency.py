"""E4: how long does a decision take, and what does a late one cost? (Open question 1.)

Times are of ``policy.act`` itself, the code that acts everywhere here: one state (batch 1), one
thread, median and 99th percentile of many decisions after a warm-up. A policy that executes T_a
actions a plan may take T_a control periods for it if it plans ahead, but its first action is as
late as the whole decision. The price of being late is measured by playing with stale states
(``delayed.py``).

**Expected** before any of it was computed: time grows linearly with the number of denoising steps
and far less than linearly with n; five steps reach 20 and 50 Hz, not 500; the delay costs more on a
fast walker than its milliseconds suggest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from uepo_lib import (
    delayed,
    denoisers,
    diffusion,
    policies,
    profiles,
    schedules,
    statistics,
    subpolicies,
)
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, build_diffusion
from uepo_lib.errors import check
from uepo_lib.evaluation import evaluate
from uepo_lib.policies import GaussianConfig, GaussianPolicy, Policy
from uepo_lib.runs import Run
from uepo_lib.stages import ACTING, ACTION_HORIZON, Product, Study
from uepo_lib.subpolicies import SubPolicies

REVISION = 1
TASK = "hopper-medium"
RATES = (20, 50, 100, 500)
"""Control frequencies that are asked for, in Hz."""
GAUSSIAN = "Gaussian MLP"
BACKBONES = ("unet_transformer", "unet", "mlp")


@dataclass(frozen=True)
class LatencyGrid:
    """What is timed, and which delays are played."""

    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    members: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    decisions: int = 300
    warm_up: int = 30
    delays: tuple[int, ...] = (0, 1, 2, 3, 4)
    """In control steps."""
    episodes: int = 20

    def __post_init__(self) -> None:
        for name in ("decisions", "episodes"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        for name in ("steps", "members", "delays"):
            values = getattr(self, name)
            valid = len(values) > 0 and min(values) >= (0 if name == "delays" else 1)
            check(valid, name, values, "at least one, none negative")


GRIDS = {
    "smoke": LatencyGrid((1, 5), (1, 4), decisions=20, warm_up=3, delays=(0, 2), episodes=2),
    "laptop": LatencyGrid(),
    "full": LatencyGrid(decisions=1_000, delays=(0, 1, 2, 3, 4, 6, 8), episodes=50),
    "paper": LatencyGrid(decisions=1_000, delays=(0, 1, 2, 3, 4, 6, 8), episodes=50),
}


def grid_of(profile: str) -> LatencyGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


# -- times


def time_decisions(
    policy: Policy,
    states: torch.Tensor,
    decisions: int,
    warm_up: int,
    clock: Callable[[], float] = time.perf_counter,
) -> np.ndarray:
    """Seconds of each of ``decisions`` calls of ``policy.act`` on (n, 1, T_o, S), one at a time.

    The calls before them, ``warm_up`` many, are not kept: the first ones allocate.
    """
    check(warm_up >= 0, "warm_up", warm_up, "0 or more decisions")
    spent = []
    for _ in range(warm_up + decisions):
        begun = clock()
        policy.act(states)
        spent.append(clock() - begun)
    return np.array(spent[warm_up:])


def candidates(grid: LatencyGrid, state_dim: int, action_dim: int) -> Iterator[dict[str, Any]]:
    """Every policy that is timed, untrained: weights do not change the time.

    Keys backbone, steps, n, policy. The number of members varies at the default number of steps,
    and the number of steps at n = 1.
    """
    usual = DiffusionConfig().num_denoising_steps
    pairs = [(steps, 1) for steps in grid.steps]
    pairs += [(usual, n) for n in grid.members if (usual, n) not in pairs]
    for backbone in BACKBONES:
        network = DenoiserConfig(backbone=backbone, obs_horizon=1)  # type: ignore[arg-type]
        model = build_diffusion(DiffusionConfig(), network, state_dim, action_dim).eval()
        for steps, n in pairs:
            policy = SubPolicies.from_seeds(
                model, n, 0, action_horizon=ACTION_HORIZON, num_denoising_steps=steps
            )
            yield {"backbone": backbone, "steps": steps, "n": n, "policy": policy}
    gaussian = GaussianPolicy(GaussianConfig(state_dim, action_dim))
    yield {"backbone": GAUSSIAN, "steps": 0, "n": 1, "policy": gaussian}


def measure_times(study: Study, grid: LatencyGrid | None = None) -> Product[pd.DataFrame]:
    """Columns backbone, steps, n, action_horizon, median and p99 in milliseconds.

    A run like any other, so the times are those of one moment on one machine; its record says on
    which. Nothing else should run meanwhile.
    """
    grid = grid or grid_of(study.profile)
    robot = study.task.robot

    def produce(run: Run) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for row in candidates(grid, robot.state_dim, robot.action_dim):
            policy = row.pop("policy")
            states = torch.randn(row["n"], 1, 1, robot.state_dim)
            spent = 1_000 * time_decisions(policy, states, grid.decisions, grid.warm_up)
            run.table("times").append(
                {**row, "action_horizon": policy.action_horizon,
                 "median": float(np.median(spent)), "p99": float(np.percentile(spent, 99))}
            )  # fmt: skip
        torch.set_num_threads(threads)

    modules = (policies, schedules, denoisers, diffusion, subpolicies)
    config = {"grid": asdict(grid), "latency": REVISION}
    return study.stage(
        "latency",
        config,
        produce,
        lambda run: run.table("times").frame(),
        modules,
        expect="a minute",
    )


def reached(times: pd.DataFrame) -> pd.DataFrame:
    """Which rates a policy keeps at its 99th percentile, if every decision must be made within one
    control period ("each"), or within the T_a periods that its plan lasts ("planned")."""
    found = times.copy()
    for rate in RATES:
        period = 1_000 / rate
        found[f"{rate} Hz"] = np.select(
            [found["p99"] <= period, found["p99"] <= period * found["action_horizon"]],
            ["each", "planned"],
            "no",
        )
    return found


# -- the price of being late


def measure_delay(study: Study, grid: LatencyGrid | None = None) -> Product[pd.DataFrame]:
    """Normalised scores of late policies: columns seed, policy, delay, score (mean of episodes).

    "clone": the Gaussian clone, which decides at every step. The others are the zero-noise
    diffusion policy: "stale" begins its late plans with their first action, "ahead" with the one
    that was meant for now. Two controls see the present state and so are never late: "fresh" skips
    as many actions as "ahead", and "longer" executes T_a + d, as far into its plan as "ahead".
    """
    grid = grid or grid_of(study.profile)
    model, clone = study.diffusion_policy(), study.clone()
    horizon, robot = study.config("denoiser").horizon, study.task.robot

    def produce(run: Run) -> None:
        zero = SubPolicies.zero_noise(model.value, action_horizon=ACTION_HORIZON)
        for delay in grid.delays:
            late: dict[str, Policy] = {
                "clone": delayed.Delayed(clone.value, delay), "stale": delayed.Delayed(zero, delay)
            }  # fmt: skip
            if delay + ACTION_HORIZON <= horizon:
                late["ahead"] = delayed.Delayed(zero, delay, skip=delay)
                late["fresh"] = delayed.Delayed(zero, 0, skip=delay)
                late["longer"] = SubPolicies.zero_noise(
                    model.value, action_horizon=ACTION_HORIZON + delay
                )
            for name, policy in late.items():
                seen = evaluate(policy, robot, study.dataset.normaliser, grid.episodes)
                run.account("evaluation", seen.num_steps, seen.returns.numel())
                score = robot.normalised(float(seen.returns.mean()))
                run.table("delays").append(
                    {"seed": study.seed, "policy": name, "delay": delay, "score": score}
                )

    config = {"delays": grid.delays, "episodes": grid.episodes, "delayed": delayed.REVISION}
    return study.stage(
        "delay", config, produce, lambda run: run.table("delays").frame(), ACTING, (model, clone),
        "a minute",
    )  # fmt: skip


def remedy(delays: pd.DataFrame, delay: int) -> str:
    """What skipping overtaken actions does at ``delay``, and what the two controls say of why.

    The missing actions are blamed where "fresh" loses at least half of what "ahead" loses, and more
    than twice what "longer" does.
    """
    wide = delays.pivot(index="seed", columns=["policy", "delay"], values="score")
    if ("ahead", delay) not in wide:
        return "No plan reaches far enough to skip what such a delay overtakes."
    gains = (wide["ahead", delay] - wide["stale", delay]).to_numpy()
    said = (
        f"Skipping the overtaken actions changes it by a further {gains.mean():+.1f} points: "
        f"{statistics.verdict(gains.tolist())}."
    )
    if delay == 0:
        return said
    lost = {name: float((wide["stale", 0] - wide[name, delay]).mean())
            for name in ("ahead", "fresh", "longer")}  # fmt: skip
    controls = (
        f"Two controls without delay: to skip as many first actions of a plan from the present "
        f"state changes it by {-lost['fresh']:+.1f} points; to execute the first ones and go on as "
        f"far into the plan by {-lost['longer']:+.1f}."
    )
    if (gains >= 0).any():
        return f"{said} {controls}"
    missing = lost["fresh"] >= lost["ahead"] / 2 and lost["fresh"] > 2 * lost["longer"]
    return (
        f"{said} **Here the remedy is worse in every seed.** {controls} "
        + (f"So leaving them out hurts by itself, with nothing being late; to go as far into the "
           f"plan {'hurts less than half as much' if lost['longer'] > 0 else 'does not hurt'}."
           if missing else "They do not explain it.")
    )  # fmt: skip


def control_period(study: Study) -> float:
    """Seconds between two actions of the task's robot."""
    env = study.task.robot.make()
    period = float(env.unwrapped.dt)  # type: ignore[attr-defined]
    env.close()
    return period


def injected(times: pd.DataFrame, period: float, steps: int) -> pd.DataFrame:
    """The delay that each backbone's measured time comes to, at ``steps`` denoising steps and
    n = 1: columns backbone, median, delay (control steps, rounded up)."""
    chosen = times[
        ((times["steps"] == steps) | (times["backbone"] == GAUSSIAN)) & (times["n"] == 1)
    ]
    check(len(chosen) > 0, "steps", steps, f"one of {sorted(set(times['steps']))}")
    delays = np.ceil(chosen["median"] / (1_000 * period)).astype(int)
    return chosen[["backbone", "median"]].assign(delay=delays.to_numpy())


def comes_to(delays: pd.DataFrame, period: float, played: Sequence[int]) -> tuple[str, int]:
    """What :func:`injected`'s times come to, in words, and the longest delay of ``played`` that is
    no longer than the default network's."""
    median, late = (delays.set_index("backbone")[name].to_dict() for name in ("median", "delay"))
    ours = int(late[BACKBONES[0]])
    longest = max(delay for delay in played if delay <= ours)
    text = (
        f"Hopper is controlled every {1_000 * period:.0f} ms. Rounded up to whole control steps, "
        f"the diffusion policy's {median[BACKBONES[0]]:.2f} ms are a delay of **{_steps(ours)}**, "
        f"the clone's {median[GAUSSIAN]:.2f} ms one of {_steps(int(late[GAUSSIAN]))}."
    )
    if longest != ours:
        text += f" Of that length none was played; the next shorter one is {_steps(longest)}."
    return text, longest


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"
