from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uepo_lib import tasks
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.robots import observation


@pytest.fixture(scope="module")
def hopper() -> Any:
    env = HOPPER.make()
    env.reset(seed=0)
    yield env
    env.close()


# ---- the termination rule ------------------------------------------------------------------------

EDGE = 1e-9
heights = st.sampled_from([0.7, 0.7 + EDGE, 0.7 - EDGE, np.inf, np.nan]) | st.floats(0.0, 2.0)
angles = st.sampled_from([0.2, -0.2, 0.2 - EDGE, EDGE - 0.2, np.nan]) | st.floats(-0.5, 0.5)
joints = (
    st.sampled_from([100.0, -100.0, 100 - EDGE, EDGE - 100, 101.0, np.inf, np.nan])
    | st.floats(-3.0, 3.0)
)  # fmt: skip


class Unclipped:
    """Gymnasium's own rule asked about any numbers, MuJoCo left out."""

    def __init__(self, env: Any, state: list[float]) -> None:
        self.base, self.state = env.unwrapped, np.array(state)
        self.before = self.base.data.qpos.copy(), self.base.data.qvel.copy()

    def healthy(self) -> bool:
        base = self.base
        base.data.qpos[1:], base.data.qvel[:] = self.state[:5], self.state[5:]
        try:
            return bool(base.is_healthy)
        finally:
            base.data.qpos[:], base.data.qvel[:] = self.before


@settings(max_examples=150, deadline=None)
@given(heights, angles, st.lists(joints, min_size=9, max_size=9))
@example(np.inf, 0.0, [0.0] * 9)
@example(0.7, 0.0, [0.0] * 9)
@example(1.25, 0.2, [0.0] * 9)
@example(1.25, 0.0, [0.0] * 8 + [100.0])
@example(1.25, 0.0, [0.0] * 8 + [-100.0])
def test_hopper_ends_where_gymnasium_says(
    hopper: Any, height: float, angle: float, rest: list[float]
) -> None:
    state = [height, angle, *rest]
    ours = HOPPER.terminated(torch.tensor(state, dtype=torch.float64))
    assert bool(ours) is not Unclipped(hopper, state).healthy()


def test_the_rule_agrees_with_every_step_of_a_random_hopper() -> None:
    env = HOPPER.make()
    env.action_space.seed(0)
    env.reset(seed=0)
    reached, ended = [], []
    for _ in range(400):
        state, _, terminated, _, _ = env.step(env.action_space.sample())
        reached.append(torch.from_numpy(state.astype(np.float32)))
        ended.append(terminated)
        if terminated:
            env.reset()
    env.close()
    assert 5 < sum(ended) < 100
    assert HOPPER.terminated(torch.stack(reached)).tolist() == ended


def test_the_rule_keeps_leading_shape() -> None:
    states = torch.zeros(2, 3, 4, 11)
    states[..., 0] = 1.25
    states[1, 2, 3, 0] = 0.5
    ended = HOPPER.terminated(states)
    assert ended.shape == (2, 3, 4)
    assert ended.nonzero().tolist() == [[1, 2, 3]]


# ---- scores --------------------------------------------------------------------------------------


def test_score_is_0_for_random_and_100_for_the_expert() -> None:
    assert HOPPER.normalised(HOPPER.random_return) == 0
    assert HOPPER.normalised(HOPPER.expert_return) == 100


def test_score_is_d4rls_formula_with_d4rls_references() -> None:
    # d4rl/infos.py: REF_MIN_SCORE and REF_MAX_SCORE of hopper
    low, high = -20.272305, 3234.3
    for total in (-100.0, 0.0, 1500.0, 4000.0):
        assert HOPPER.normalised(total) == pytest.approx(100 * (total - low) / (high - low))


# ---- environments --------------------------------------------------------------------------------


def test_made_environment_has_the_stated_sizes_and_no_clock(hopper: Any) -> None:
    assert hopper.observation_space.shape == (HOPPER.state_dim,)
    assert hopper.action_space.shape == (HOPPER.action_dim,)
    wrapper = hopper
    while wrapper is not hopper.unwrapped:
        assert not isinstance(wrapper, gymnasium.wrappers.TimeLimit)
        wrapper = wrapper.env


def test_a_restored_simulator_steps_bit_identically() -> None:
    env, other = HOPPER.make(), HOPPER.make()
    env.reset(seed=3)
    other.reset(seed=99)
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 3))
    for action in actions[:20]:
        env.step(action)
    HOPPER.restore(other, HOPPER.simulator_state(env))
    np.testing.assert_array_equal(observation(other), observation(env))
    for action in actions[20:]:
        a, b = env.step(action), other.step(action)
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:3] == b[1:3]
    env.close()
    other.close()


def test_observation_is_what_the_last_step_returned(hopper: Any) -> None:
    state = hopper.step(np.array([0.3, -0.2, 0.1]))[0]
    np.testing.assert_array_equal(observation(hopper), state)


# ---- names ---------------------------------------------------------------------------------------


def test_every_task_is_found_by_its_own_name() -> None:
    for name, task in tasks.TASKS.items():
        assert tasks.get(name) is task
        assert task.name == name
        assert (task.source != "local") == ("@" in name)
        if task.source == "local":
            assert tasks.ROBOTS[task.robot.name] is task.robot


def test_every_row_of_the_papers_tables_has_a_dataset() -> None:
    locomotion = {
        f"{robot}-{kind}-v2"
        for robot in ("halfcheetah", "hopper", "walker2d")
        for kind in ("medium", "medium-replay", "medium-expert")
    }
    hand = {f"{task}-human-v1" for task in ("pen", "hammer", "door", "relocate")}
    kitchen = {f"kitchen-{kind}-v0" for kind in ("complete", "partial", "mixed")}
    rows = {task.paper_row for task in tasks.TASKS.values()}
    assert locomotion | hand | {"pen-cloned-v1"} | kitchen <= rows


def test_a_task_of_another_source_says_its_name() -> None:
    with pytest.raises(UsageError, match="there is pen-human@minari"):
        tasks.get("pen-human")
    assert tasks.from_source("pen-human", "minari").dataset_id == "D4RL/pen/human-v2"
    assert tasks.from_source("hopper-medium", "d4rl").robot.env_id == "Hopper-v4"
    with pytest.raises(UsageError, match="did you mean 'minari'"):
        tasks.from_source("pen-human", "minarii")


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'hopper-medium'") as caught:
        tasks.get("hoper-medium")
    assert "\n" not in str(caught.value)
