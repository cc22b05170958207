"""Every robot: sizes, the clock, the state that can be put back, the end of an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

from uepo_lib import tasks
from uepo_lib.errors import UsageError
from uepo_lib.hand import DOOR, HAMMER, PEN, RELOCATE, DistanceCharge
from uepo_lib.locomotion import HALFCHEETAH, HOPPER, WALKER2D
from uepo_lib.robots import Robot, mujoco_of, observation

ROBOTS = list(tasks.ROBOTS.values())
HANDS = [PEN, DOOR, HAMMER, RELOCATE]
# d4rl/infos.py, REF_MIN_SCORE and REF_MAX_SCORE
REFERENCES = {
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "halfcheetah": (-280.178953, 12135.0),
    "pen": (96.262799, 3076.8331),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
}

each = pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)


def actions(robot: Robot, count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (count, robot.action_dim)).astype(np.float32)


@each
def test_sizes_are_the_environments_and_it_has_no_clock(robot: Robot) -> None:
    env = robot.make()
    state, _ = env.reset(seed=0)
    assert state.shape == (robot.state_dim,)
    assert env.action_space.shape == (robot.action_dim,)
    assert env.action_space.low.min() == -1 and env.action_space.high.max() == 1  # type: ignore[attr-defined]
    started = mujoco_of(env)[1].time
    env.step(actions(robot, 1)[0])
    assert mujoco_of(env)[1].time - started == pytest.approx(robot.step_seconds)
    wrapper: Any = env
    while wrapper is not env.unwrapped:
        assert not isinstance(wrapper, gymnasium.wrappers.TimeLimit)
        wrapper = wrapper.env
    env.close()


@each
def test_a_restored_copy_steps_bit_identically(robot: Robot) -> None:
    env, other = robot.make(), robot.make()
    env.reset(seed=3)
    other.reset(seed=99)
    for action in actions(robot, 15):
        env.step(action)
    robot.restore(other, robot.simulator_state(env))
    if robot not in HANDS:  # whose places lag behind the joints until the next step
        np.testing.assert_array_equal(observation(other), observation(env))
    for action in actions(robot, 15, seed=1):
        a, b = env.step(action), other.step(action)
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:3] == b[1:3]
    env.close()
    other.close()


@each
def test_termination_is_the_environments(robot: Robot) -> None:
    env = robot.make()
    env.reset(seed=0)
    reached, ended = [], []
    for action in actions(robot, 120):
        state, _, terminated, _, _ = env.step(action)
        reached.append(state)
        ended.append(terminated)
        if terminated:
            env.reset()
    found = robot.terminated(torch.as_tensor(np.stack(reached)))
    assert found.tolist() == ended
    env.close()


@pytest.mark.parametrize(
    ("height", "angle"),
    [(0.8, 0.0), (2.0, 0.0), (0.81, 0.99), (1.99, -0.99), (1.2, 1.0), (1.2, -1.0), (0.79, 0.0)],
)
def test_walker_ends_where_gymnasium_says(height: float, angle: float) -> None:
    env = WALKER2D.make()
    env.reset(seed=0)
    base: Any = env.unwrapped
    base.data.qpos[1:3] = height, angle
    state = torch.zeros(17, dtype=torch.float64)
    state[0], state[1] = height, angle
    assert bool(WALKER2D.terminated(state)) == (not base.is_healthy)
    assert bool(WALKER2D.terminated(state.fill_(float("nan"))))
    env.close()


def test_cheetah_and_hand_never_end() -> None:
    for robot in (HALFCHEETAH, *HANDS):
        states = 1e3 * torch.randn(5, 2, robot.state_dim)
        assert not robot.terminated(states).any()
        assert robot.terminated(states).shape == (5, 2)


@pytest.mark.parametrize("name", REFERENCES)
def test_score_is_d4rls_formula(name: str) -> None:
    robot, (low, high) = tasks.ROBOTS[name], REFERENCES[name]
    assert robot.normalised(low) == pytest.approx(0, abs=1e-3)
    assert robot.normalised(high) == pytest.approx(100, abs=1e-3)
    assert robot.normalised((low + high) / 2) == pytest.approx(50, abs=1e-3)


@each
def test_what_minari_stores_rebuilds_the_same_environment(robot: Robot) -> None:
    rebuilt = gymnasium.make(EnvSpec.from_json(robot.spec().to_json()))
    own = robot.make()
    state, mine = rebuilt.reset(seed=5)[0], own.reset(seed=5)[0]
    np.testing.assert_array_equal(np.asarray(state), mine)
    for action in actions(robot, 10):
        step, ours = rebuilt.step(action), own.step(action)
        np.testing.assert_array_equal(np.asarray(step[0]), ours[0])
        assert step[1] == ours[1]
    assert rebuilt.spec is not None and rebuilt.spec.max_episode_steps == robot.max_episode_steps
    rebuilt.close()
    own.close()


# ---- the hand's reward ---------------------------------------------------------------------------


def d4rls_reward(name: str, base: Any) -> float:
    """D4RL's dense rewards (hand_dapg's mj_envs), written down from the simulator's state."""
    sites, bodies, qvel = base.data.site_xpos, base.data.xpos, base.data.qvel
    if name == "door":
        opened = float(base.data.qpos[base.door_hinge_addrs])
        total = -0.1 * np.linalg.norm(sites[base.grasp_site_id] - sites[base.handle_site_id])
        total += -0.1 * (opened - 1.57) ** 2 - 1e-5 * np.sum(qvel**2)
        return float(total + 2 * (opened > 0.2) + 8 * (opened > 1.0) + 10 * (opened > 1.35))
    palm, thing = sites[base.S_grasp_site_id], bodies[base.obj_body_id]
    target = sites[base.target_obj_site_id]
    total = -0.1 * np.linalg.norm(palm - thing)
    if name == "hammer":
        head, goal = sites[base.tool_site_id], sites[base.goal_site_id]
        left = np.linalg.norm(target - goal)
        total -= np.linalg.norm(head - target) + 10 * left + 1e-2 * np.linalg.norm(qvel)
        total += 2 * (thing[2] > 0.04 and head[2] > 0.04)
        return float(total + 25 * (left < 0.02) + 75 * (left < 0.01))
    if thing[2] > 0.04:
        total += 1 - 0.5 * np.linalg.norm(palm - target) - 0.5 * np.linalg.norm(thing - target)
    near = np.linalg.norm(thing - target)
    return float(total + 10 * (near < 0.1) + 20 * (near < 0.05))


@pytest.mark.parametrize("robot", [DOOR, HAMMER, RELOCATE], ids=lambda robot: robot.name)
def test_the_distance_is_charged_as_d4rl_charges_it(robot: Robot) -> None:
    env = robot.make()
    env.reset(seed=1)
    for action in actions(robot, 60):
        _, reward, _, _, _ = env.step(action)
        assert reward == pytest.approx(d4rls_reward(robot.name, env.unwrapped), abs=1e-9)
    env.close()


def test_an_opened_door_is_paid_as_d4rl_pays_it() -> None:
    env = DOOR.make()
    env.reset(seed=1)
    base: Any = env.unwrapped
    paid = []
    for opened in (0.1, 0.3, 1.1, 1.4):
        base.data.qpos[base.door_hinge_addrs] = opened
        _, reward, _, _, _ = env.step(np.zeros(DOOR.action_dim, dtype=np.float32))
        assert reward == pytest.approx(d4rls_reward("door", base), abs=1e-9)
        paid.append(reward)
    assert paid[0] < 0 and paid[1] > 1 and paid[2] > 9 and paid[3] > 19
    env.close()


def test_pen_is_left_as_it_is() -> None:
    env: Any = PEN.make()
    while env is not env.unwrapped:
        assert not isinstance(env, DistanceCharge)
        env = env.env


# ---- observations that are dictionaries ----------------------------------------------------------


def test_a_dictionary_without_a_rule_is_refused_in_one_line() -> None:
    logged = {"observation": np.zeros((3, 4)), "desired_goal": np.ones((3, 2))}
    with pytest.raises(UsageError, match="no rule to flatten") as caught:
        HOPPER.flatten(logged)
    assert "observation, desired_goal" in str(caught.value) and "\n" not in str(caught.value)
    vectors = np.zeros((3, 11))
    assert HOPPER.flatten(vectors) is vectors
