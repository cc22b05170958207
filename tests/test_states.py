from __future__ import annotations

import numpy as np
import pytest
import torch

from uepo_lib import tasks
from uepo_lib.errors import UsageError
from uepo_lib.kitchen import KITCHEN
from uepo_lib.robots import Robot, mujoco_of, observation
from uepo_lib.states import determines, refused, state_from_observation

# relative to 1 + |observation|. An observation is float32, exact to 6e-8 of its size, and contacts
# magnify that: over these steps the worst is about a third of this
TOLERANCES = {"hopper": 2e-6, "walker2d": 2e-5, "halfcheetah": 1e-4}


def play(robot: Robot, steps: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Observations (float32), actions, next observations, and the true velocities.

    Now and then a joint is kicked, to about as often beyond what is observed as not.
    """
    env, generator = robot.make(), np.random.default_rng(seed)
    model, data = mujoco_of(env)
    state, _ = env.reset(seed=seed)
    rows: list[tuple[np.ndarray, ...]] = []
    for _ in range(steps):
        action = generator.uniform(-0.3, 0.3, robot.action_dim)
        if generator.random() < 0.2:
            data.qvel[generator.integers(3, model.nv)] = generator.uniform(-20, 20)
            env.unwrapped.set_state(data.qpos.copy(), data.qvel.copy())
            state = observation(env)
        velocities = data.qvel.copy()
        after, _, terminated, *_ = env.step(action)
        rows.append((state.astype(np.float32), action, after, velocities))
        state = env.reset()[0] if terminated else after
    env.close()
    assert model.nq + model.nv == robot.state_dim + 1
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def errors(robot: Robot, states: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N,) by how much, relative to its size, a step from a restored state misses the logged next
    observation."""
    env = robot.make()
    env.reset(seed=1)
    missed = []
    for state, action, expected in zip(states, actions, after, strict=True):
        robot.restore_logged(env, state)
        missed.append((np.abs(env.step(action)[0] - expected) / (1 + np.abs(expected))).max())
    env.close()
    return np.array(missed)


@pytest.mark.parametrize("version", ["v4", "v5"])
@pytest.mark.parametrize("name", sorted(TOLERANCES))
def test_a_restored_state_goes_where_the_logged_one_went(name: str, version: str) -> None:
    task = tasks.get(f"{name}-medium" + {"v4": "@d4rl", "v5": "@minari"}[version])
    assert task.robot.env_id.endswith(version)
    observations, actions, after, velocities = play(task.robot, 1000)
    states, usable = state_from_observation(task.robot, observations)
    assert states.dtype == np.float64
    missed = errors(task.robot, states, actions, after)
    assert missed[usable].max() < TOLERANCES[name]
    if name == "halfcheetah":
        assert usable.all()
        assert (np.abs(velocities) > 10).any(), "fast joints are observed as they are"
        return
    np.testing.assert_array_equal(usable, (np.abs(velocities) < 10).all(axis=1))
    assert 0.05 < np.mean(usable) < 0.95
    assert (missed[~usable] > TOLERANCES[name]).mean() > 0.99, "what is refused is lost"


def test_a_velocity_at_the_clip_is_refused_and_one_below_it_is_not() -> None:
    robot = tasks.get("walker2d-medium@d4rl").robot
    rows = np.zeros((6, 17), dtype=np.float32)
    rows[1, 8], rows[2, 16], rows[3, 16] = 10.0, -10.0, np.nextafter(np.float32(10), 0)
    rows[4, 7], rows[5, 12] = 12.0, np.nan  # an angle may be anything but not NaN
    states, usable = state_from_observation(robot, rows)
    assert usable.tolist() == [True, False, False, True, True, False]
    assert states[3, -1] == rows[3, -1]
    assert (states[:, 0] == 0).all()
    assert refused(usable) == "3 of 6 states refused (50.00%), first at step 1"
    assert refused(usable[3:5]) == "none of 2 states refused"


@pytest.mark.parametrize("robot", [tasks.get("pen-human@minari").robot, KITCHEN])
def test_a_robot_that_shows_too_little_is_refused_by_name(robot: Robot) -> None:
    assert not determines(robot)
    with pytest.raises(UsageError, match=robot.env_id):
        state_from_observation(robot, torch.zeros(3, robot.state_dim).numpy())


def test_observations_of_another_size_are_refused() -> None:
    robot = tasks.get("hopper-medium@d4rl").robot
    with pytest.raises(UsageError, match=r"\(3, 17\)"):
        state_from_observation(robot, np.zeros((3, 17)))
