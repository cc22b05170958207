"""The kitchen: a Franka arm, four things to do, 0 to 4 points.

Of the dictionary that FrankaKitchen-v1 observes, a state is ``observation`` (59): the robot's 9
joint positions and 9 velocities, then the objects' 21 positions and 20 velocities, each with the
environment's noise. ``desired_goal`` never changes, and ``achieved_goal`` repeats the objects'
positions: both are dropped.

Each thing is paid once, when it is first done. Whether one was done earlier is not in the state, so
neither is whether all four are: the environment is built to go on for its 280 steps, where D4RL's
stops. Nothing is paid after the fourth, so the score is the same and the termination rule exact.

``complete`` and ``partial`` ask for one set of four, ``mixed`` for another (D4RL, arXiv
2004.07219).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from uepo_lib.locomotion import never
from uepo_lib.robots import Array, Env, FlattenedKeys, Robot, Scene

KEYS = ("observation",)
STATE_DIM = 59
GOALS = ("microwave", "kettle", "light switch", "slide cabinet")
GOALS_MIXED = ("microwave", "kettle", "bottom burner", "light switch")


class KitchenKeys(FlattenedKeys):
    """The state as one vector, repeatable: what the simulator leaves out is kept here.

    The observed joint positions steer the next step, so a restored copy must have *seen* what the
    original saw. Noise comes from a second generator that nobody saves; here both are one.
    """

    def __init__(self, env: Env, keys: Sequence[str]) -> None:
        super().__init__(env, keys)
        self.seen = np.zeros(STATE_DIM)

    def reset(self, **arguments: Any) -> tuple[Array, dict[str, Any]]:
        state, info = super().reset(**arguments)
        base: Any = self.unwrapped
        base.np_random = base.robot_env.np_random  # this one has drawn the reset's noise
        return state, info

    def observation(self, observation: Any) -> Array:
        self.seen = super().observation(observation)
        return self.seen.copy()

    def present_observation(self) -> Array:
        """What was observed last: to observe again would draw other noise."""
        return self.seen.copy()


def _scene(goals: tuple[str, ...]) -> Scene:
    """What was observed last (59), and for each goal whether it was paid (1 or 0)."""

    def read(env: Env) -> Array:
        base: Any = env.unwrapped
        paid = [goal not in base.tasks_to_complete for goal in goals]
        return np.append(env.get_wrapper_attr("seen"), paid)

    def write(env: Env, values: Array) -> None:
        base: Any = env.unwrapped
        seen, paid = values[:STATE_DIM].copy(), values[STATE_DIM:] > 0
        env.set_wrapper_attr("seen", seen)
        base.robot_env._last_robot_qpos = seen[:9].copy()
        base.episode_task_completions = [g for g, p in zip(goals, paid, strict=True) if p]
        base.tasks_to_complete = {g for g, p in zip(goals, paid, strict=True) if not p}

    return Scene(STATE_DIM + len(goals), read, write)


def _robot(goals: tuple[str, ...]) -> Robot:
    return Robot(
        name="kitchen",
        package="gymnasium_robotics",
        env_id="FrankaKitchen-v1",
        env_options={"tasks_to_complete": list(goals), "terminate_on_tasks_completed": False},
        observation_keys=KEYS,
        wrapper=lambda env: KitchenKeys(env, KEYS),
        state_dim=STATE_DIM,
        action_dim=9,
        random_return=0.0,
        expert_return=4.0,
        max_episode_steps=280,
        terminated=never,
        step_seconds=0.08,
        scene=_scene(goals),
        notes=(
            "FrankaKitchen-v1 observes positions and velocities (59 numbers), D4RL's v0 positions "
            "and the goal (60); the score, one point for each of four things done, is the same.",
            "Rewards in the datasets count the things that stand done at every step, as in D4RL: "
            "their returns are on another scale than the score.",
            "An episode goes on for 280 steps where D4RL's stops after the fourth point; nothing "
            "more is paid.",
        ),
    )


KITCHEN = _robot(GOALS)
KITCHEN_MIXED = _robot(GOALS_MIXED)
ROBOTS = {"complete": KITCHEN, "partial": KITCHEN, "mixed": KITCHEN_MIXED}
REMOTE_DATASETS = tuple((kind, f"D4RL/kitchen/{kind}-v2") for kind in ROBOTS)
"""What D4RL calls each dataset, and its id on Minari's remote."""
