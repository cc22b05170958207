from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from uepo_lib.environments import ChunkedEnvs
from uepo_lib.kitchen import GOALS, GOALS_MIXED, KITCHEN, KITCHEN_MIXED
from uepo_lib.robots import Env, observation


@pytest.fixture(scope="module")
def kitchens() -> Any:
    """Two copies of the kitchen, built once: building one reads a hundred meshes."""
    copies = [KITCHEN.make(), KITCHEN.make()]
    yield copies
    for env in copies:
        env.close()


def generator(env: Env) -> str:
    return json.dumps(env.unwrapped.np_random.bit_generator.state)


def put_in_order(env: Env, *goals: str) -> None:
    """Move objects to where they are wanted, by hand."""
    from gymnasium_robotics.envs.franka_kitchen import kitchen_env

    base: Any = env.unwrapped
    for goal in goals:
        base.data.qpos[kitchen_env.OBS_ELEMENT_INDICES[goal]] = base.goal[goal]


def test_the_state_is_what_the_dictionary_calls_observation(kitchens: Any) -> None:
    env = kitchens[0]
    base: Any = env.unwrapped
    state, _ = env.reset(seed=3)
    assert state.shape == (KITCHEN.state_dim,) == env.observation_space.shape
    assert env.action_space.shape == (KITCHEN.action_dim,)
    assert base.robot_env.dt == pytest.approx(KITCHEN.step_seconds)
    # the objects' noise is 0.0005 × an amplitude of at most 0.1, the robot's 0.01 × 0.1
    parts = (base.data.qpos[:9], base.data.qvel[:9], base.data.qpos[9:], base.data.qvel[9:])
    np.testing.assert_allclose(state, np.concatenate(parts), rtol=0, atol=1e-2)
    raw, *_ = env.env.step(np.zeros(9))
    np.testing.assert_array_equal(KITCHEN.flatten(raw), env.observation(raw))


def test_mixed_asks_for_the_burner_in_place_of_the_cabinet() -> None:
    env = KITCHEN_MIXED.make()
    assert set(env.unwrapped.goal) == set(GOALS_MIXED)
    assert set(GOALS_MIXED) ^ set(GOALS) == {"bottom burner", "slide cabinet"}
    assert env.reset(seed=0)[0].shape == (59,)
    assert env.step(env.action_space.sample())[0].shape == (59,)
    env.close()


def test_each_thing_is_paid_once_and_nothing_ends_the_episode(kitchens: Any) -> None:
    env = kitchens[0]
    env.reset(seed=0)
    rewards, goals = [], ["microwave", "slide cabinet"]
    for wanted in (goals, goals, GOALS, GOALS):
        put_in_order(env, *wanted)
        state, reward, terminated, truncated, _ = env.step(np.zeros(9))
        rewards.append(reward)
        assert not terminated
        assert not truncated
        assert not KITCHEN.terminated(torch.from_numpy(state))
    assert rewards == [2, 0, 2, 0]
    assert KITCHEN.normalised(sum(rewards)) == 100.0


def test_what_was_paid_before_is_not_paid_again_after_a_restore(kitchens: Any) -> None:
    first, second = kitchens
    first.reset(seed=0)
    put_in_order(first, "kettle")
    assert first.step(np.zeros(9))[1] == 1
    for name in ("simulator_state", "logged_state"):
        second.reset(seed=1)
        put_in_order(second, "microwave", "slide cabinet")
        assert second.step(np.zeros(9))[1] == 2
        restore = KITCHEN.restore if name == "simulator_state" else KITCHEN.restore_logged
        restore(second, getattr(KITCHEN, name)(first))
        put_in_order(second, "kettle", "microwave", "slide cabinet")
        assert second.step(np.zeros(9))[1] == 2, "only the kettle was done in this episode"


def test_observing_again_draws_no_noise(kitchens: Any) -> None:
    first, second = kitchens
    first.reset(seed=0)
    state = first.step(np.full(9, 0.5))[0]
    before = generator(first)
    np.testing.assert_array_equal(observation(first), state)
    assert generator(first) == before
    second.reset(seed=1)
    KITCHEN.restore_logged(second, KITCHEN.logged_state(first))
    np.testing.assert_array_equal(observation(second), state)


def test_a_restored_copy_goes_on_bit_for_bit_noise_included() -> None:
    torch.manual_seed(0)
    actions = torch.rand(6, 1, 2, 9) * 2 - 1
    envs = ChunkedEnvs(KITCHEN, seeds=[5])
    for chunk in actions[:3]:
        envs.step(chunk)
    saved = envs.state_dict()
    expected = [envs.step(chunk)[0].windows for chunk in actions[3:]]
    copy = ChunkedEnvs(KITCHEN, seeds=[6])
    copy.load_state_dict(saved)
    for chunk, windows in zip(actions[3:], expected, strict=True):
        assert torch.equal(copy.step(chunk)[0].windows, windows)
    envs.close()
    copy.close()


def test_the_specification_rebuilds_the_environment() -> None:
    env = gymnasium.make(KITCHEN.spec())
    assert env.reset(seed=0)[0].shape == (59,)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 280
    assert set(env.unwrapped.goal) == set(GOALS)
    env.close()
