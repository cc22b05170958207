from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium_robotics.envs.maze import maze_v4
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from uepo_lib import maze
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError
from uepo_lib.maze import MAZE, ROUTES, WaypointDriver, route_taken
from uepo_lib.robots import FlattenedKeys, observation


@dataclass(frozen=True)
class Play:
    """One episode, L steps, and the simulator before each of them."""

    route: int | None
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    full: np.ndarray
    logged: np.ndarray
    at_wall: np.ndarray

    @property
    def path(self) -> np.ndarray:
        return self.states[:, :2]

    @property
    def goal(self) -> np.ndarray:
        return self.states[-1, 4:]


class Rammer:
    """Keeps one random direction for 50 steps at full force: most of its steps touch a wall."""

    def __init__(self, num_streams: int, seed: int) -> None:
        self.generator, self.steps = torch.Generator().manual_seed(seed), 0
        self.force = torch.zeros(num_streams, 2)

    def begin(self, i: int, state: np.ndarray) -> dict[str, int]:
        return {}

    def actions(self, states: torch.Tensor) -> torch.Tensor:
        if self.steps % 50 == 0:
            self.force = 3 * torch.rand(self.force.shape, generator=self.generator) - 1.5
        self.steps += 1
        return self.force.clamp(-1, 1)


def play(driver: Any, num_streams: int, rounds: int, seed: int) -> list[Play]:
    """``rounds`` episodes of each stream, one begun as soon as the last has ended."""
    envs, plays = [MAZE.make() for _ in range(num_streams)], []
    states = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
    routes = [driver.begin(i, state).get("route") for i, state in enumerate(states)]
    left, rows = [rounds] * num_streams, [[] for _ in envs]  # type: ignore[var-annotated]
    while any(left):
        actions = driver.actions(torch.from_numpy(states)).double().numpy()
        for i, env in enumerate(envs):
            if not left[i]:
                continue
            before = states[i].copy(), MAZE.simulator_state(env), MAZE.logged_state(env)
            states[i], reward, terminated, truncated, _ = env.step(actions[i])
            assert not truncated
            at_wall = env.unwrapped.data.ncon > 1  # type: ignore[attr-defined]  # one is the floor
            rows[i].append((*before, actions[i], reward, terminated, at_wall))
            if terminated or len(rows[i]) == MAZE.max_episode_steps:
                past, full, logged, *others, walls = map(np.stack, zip(*rows[i], strict=True))
                path = np.concatenate([past, states[i][None]])
                plays.append(Play(routes[i], path, *others, full, logged, walls))
                left[i], rows[i] = left[i] - 1, []
                states[i] = env.reset()[0]
                routes[i] = driver.begin(i, states[i]).get("route")
    for env in envs:
        env.close()
    return plays


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = MAZE.make()
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture(scope="module")
def driven() -> list[Play]:
    """Two seeds, little and much noise: 40 episodes."""
    return [
        one
        for seed, noise in ((0, 0.1), (1, 0.4))
        for one in play(
            WaypointDriver(10, torch.Generator().manual_seed(seed), noise), 10, 2, 100 * seed
        )
    ]


@pytest.fixture(scope="module")
def rammed() -> list[Play]:
    return play(Rammer(4, 0), 4, 1, 7)


# ---- the map -------------------------------------------------------------------------------------


def simple_paths(cells: Any, at: tuple[int, int], before: tuple[Any, ...] = ()) -> list[Any]:
    """Every way through free cells to "g" that enters no cell twice."""
    walked = (*before, at)
    if cells[at[0]][at[1]] == "g":
        return [walked]
    steps = [(at[0] + i, at[1] + j) for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    free = [cell for cell in steps if cells[cell[0]][cell[1]] != 1 and cell not in walked]
    return [path for cell in free for path in simple_paths(cells, cell, walked)]


def cells_of(env: Any, points: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(env.unwrapped.maze.cell_xy_to_rowcol(p).tolist()) for p in points]


def test_the_map_has_four_routes_of_one_length_and_they_are_the_named_ones(env: Any) -> None:
    cells = env.unwrapped.maze.maze_map
    starts = [(i, j) for i, row in enumerate(cells) for j, c in enumerate(row) if c == "r"]
    assert len(starts) == 1
    paths = simple_paths(cells, starts[0])
    assert [len(path) for path in paths] == [11] * 4
    found = []
    for route in ROUTES:
        corners = [maze.centre(*starts[0]), *route.corners, maze.GOAL_CENTRE]
        lines = [np.linspace(a, b, 9) for a, b in itertools.pairwise(corners)]
        found.append(tuple(dict.fromkeys(cells_of(env, np.concatenate(lines)))))
    assert set(found) == set(paths)


def test_the_geometry_is_the_environments(env: Any) -> None:
    base = env.unwrapped
    np.testing.assert_array_equal(base.maze.unique_goal_locations, [maze.GOAL_CENTRE])
    assert base.position_noise_range == maze.NOISE_RANGE
    for block in maze.BLOCKS:
        row, column = base.maze.cell_xy_to_rowcol(block)
        assert base.maze.maze_map[row][column] == 1
        np.testing.assert_array_equal(base.maze.cell_rowcol_to_xy((row, column)), block)


# ---- the controller ------------------------------------------------------------------------------


def test_every_route_reaches_the_goal_in_time_and_is_labelled_as_driven(
    env: Any, driven: list[Play]
) -> None:
    for one in driven:
        assert one.terminated[-1] and one.rewards.sum() == 1
        assert route_taken(one.path) == route_taken(one.path, one.goal) == one.route
        visited = set(cells_of(env, one.path))
        sides = [int((3, column) in visited) for column in (2, 6)]
        assert [(1, c) in visited for c in (2, 6)] == [side == 0 for side in sides]
        assert one.route == 2 * sides[0] + sides[1]
    assert {one.route for one in driven} == {0, 1, 2, 3}


def test_the_limit_leaves_room_for_a_slower_policy(driven: list[Play]) -> None:
    assert 1.25 * max(len(one.actions) for one in driven) < MAZE.max_episode_steps


def test_routes_are_uniform_and_follow_from_the_seed() -> None:
    def drawn(seed: int) -> list[int]:
        driver = WaypointDriver(2, torch.Generator().manual_seed(seed))
        return [driver.begin(k % 2, np.zeros(6))["route"] for k in range(2000)]

    routes = drawn(3)
    assert routes == drawn(3) != drawn(4)
    assert stats.chisquare(np.bincount(routes, minlength=4)).pvalue > 1e-3
    pairs = np.bincount(4 * np.array(routes[:-1]) + routes[1:], minlength=16)
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_the_law_holds_the_speed_far_off_and_rests_at_the_goal() -> None:
    driver = WaypointDriver(2, torch.Generator().manual_seed(0), noise=0.0)
    corner = torch.from_numpy(ROUTES[driver.begin(0, np.zeros(6))["route"]].corners[0])
    away = torch.tensor([0.6, -0.8], dtype=torch.float64)
    far = torch.cat([corner + 2 * away, -maze.SPEED * away, torch.zeros(2)])
    driver.done[1] = len(ROUTES[0].corners)
    there = torch.tensor([3.0, 0.1, 0.0, 0.0, 3.0, 0.1], dtype=torch.float64)
    torch.testing.assert_close(
        driver.actions(torch.stack([far, there])), torch.zeros(2, 2).double(), atol=1e-12, rtol=0
    )


def test_noise_has_the_stated_std() -> None:
    driver = WaypointDriver(20_000, torch.Generator().manual_seed(0), noise=0.2)
    driver.done[:] = len(ROUTES[0].corners)
    at_rest = torch.tensor([3.0, 0.1, 0.0, 0.0, 3.0, 0.1]).expand(20_000, 6)
    actions = driver.actions(at_rest)
    assert actions.dtype == torch.float32
    torch.testing.assert_close(actions.std(0), torch.full((2,), 0.2), atol=0.004, rtol=0)
    torch.testing.assert_close(actions.mean(0), torch.zeros(2), atol=0.006, rtol=0)


def test_actions_stay_in_range() -> None:
    driver = WaypointDriver(64, torch.Generator().manual_seed(0), noise=3.0)
    assert driver.actions(torch.randn(64, 6)).abs().max() == 1


@pytest.mark.parametrize(("streams", "noise", "named"), [(0, 0.1, "num_streams=0"),
                         (2, -0.1, "noise=-0.1"), (2, float("nan"), "noise=nan")])  # fmt: skip
def test_a_driver_of_nothing_or_of_no_std_is_refused(
    streams: int, noise: float, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        WaypointDriver(streams, torch.Generator(), noise)


# ---- labels of any path --------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_path_that_stops_short_has_a_route(driven: list[Play], data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(driven))
    length = data.draw(st.integers(0, len(one.actions)))  # of L + 1 states all but the last
    assert route_taken(one.path[:length], one.goal) is None
    if length <= 200:  # in the second loop at most
        assert route_taken(one.path[:length]) is None


def test_a_path_that_does_not_come_from_the_start_has_no_route(driven: list[Play]) -> None:
    for one in driven:
        late = one.path[one.path[:, 0].searchsorted(0.0) :]
        assert late[0, 0] < 1 and route_taken(late) is None


def test_a_ball_that_rams_walls_takes_no_route(rammed: list[Play]) -> None:
    assert [route_taken(one.path) for one in rammed] == [None] * len(rammed)


@pytest.mark.parametrize(("distance", "reached"), [(0.45 - 1e-9, True), (0.45 + 1e-9, False)])
def test_arrival_is_at_the_radius_of_the_goal_or_of_any_goal(
    distance: float, reached: bool
) -> None:
    corners, top = ROUTES[0].corners, np.array([3.0, 0.25])
    end = top + np.array([0.0, distance])
    path = np.concatenate([[maze.centre(2, 1)], corners, [end]])
    assert (route_taken(path) == 0) is reached
    assert (route_taken(path, top) == 0) is reached
    assert route_taken(path, top - np.array([0.0, 0.1])) is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_labels_survive_coarse_steps_and_mirror_with_the_map(
    driven: list[Play], data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(driven))
    every = data.draw(st.integers(1, 16))
    coarse = one.path[::-every][::-1]  # ends where the episode did
    assert route_taken(coarse, one.goal) == one.route
    assert one.route is not None
    assert route_taken(coarse * [1, -1], one.goal * [1, -1]) == 3 - one.route


def test_who_goes_round_a_block_is_labelled_by_how_the_path_went_on() -> None:
    start, goal = [maze.centre(2, 1)], [maze.GOAL_CENTRE]
    north, south = ROUTES[0].corners, ROUTES[3].corners
    back = south[1::-1]  # from the first loop's end, by the south, to its beginning
    assert route_taken(np.concatenate([start, north[:3], back, start, north, goal])) == 0
    assert route_taken(np.concatenate([start, north[:3], back, start, south, goal])) == 3
    assert route_taken(np.concatenate([start, south[:3], south[1::-1], start, north, goal])) == 0


def test_states_in_place_of_a_path_are_refused() -> None:
    with pytest.raises(UsageError, match=r"path=\(9, 6\)"):
        route_taken(np.zeros((9, 6)))
    with pytest.raises(UsageError, match=r"goal=\(9, 2\)"):
        route_taken(np.zeros((9, 2)), np.zeros((9, 2)))


# ---- the state and its end -----------------------------------------------------------------------


def test_the_rule_agrees_with_every_step(driven: list[Play], rammed: list[Play]) -> None:
    assert not any(one.terminated.any() for one in rammed)
    for one in driven + rammed:
        reached = torch.from_numpy(one.states[1:])
        assert MAZE.terminated(reached).tolist() == one.terminated.tolist()
        assert MAZE.terminated(reached.float()).tolist() == one.terminated.tolist()


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0, 7),
    st.sampled_from([0.0, 0.45 - 1e-9, 0.45 + 1e-9]) | st.floats(0, 1),
    st.tuples(st.floats(2.75, 3.25), st.floats(-0.25, 0.25)),
)
def test_the_rule_is_the_environments_at_the_edge(
    env: Any, angle: float, distance: float, goal: tuple[float, float]
) -> None:
    target = np.array(goal)
    position = target + distance * np.array([np.cos(angle), np.sin(angle)])
    state = torch.from_numpy(np.concatenate([position, [5.0, -5.0], target]))
    there = env.unwrapped.compute_terminated(position, target, {})
    assert bool(MAZE.terminated(state.expand(2, 3, 6))[1, 2]) is there


def test_the_state_is_the_observation_then_the_goal(env: Any) -> None:
    state = env.reset(seed=5)[0]
    inner = env.unwrapped.point_env.data
    expected = np.concatenate([inner.qpos, inner.qvel, env.unwrapped.goal])
    np.testing.assert_array_equal(state, expected)
    assert env.observation_space.shape == (MAZE.state_dim,) and state in env.observation_space
    assert env.action_space.shape == (MAZE.action_dim,)
    assert env.unwrapped.point_env.dt == MAZE.step_seconds


def test_observation_is_what_the_last_step_returned_and_changes_nothing() -> None:
    asked, other = MAZE.make(), MAZE.make()
    state = asked.reset(seed=1)[0]
    other.reset(seed=1)
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 2)):
        np.testing.assert_array_equal(observation(asked), state)
        state = asked.step(action)[0]
        np.testing.assert_array_equal(state, other.step(action)[0])
    asked.close()
    other.close()


class Dictionary(gymnasium.Env[Any, Any]):
    """Keys that are not in alphabetical order, one of them no vector."""

    observation_space = gymnasium.spaces.Dict(
        zebra=gymnasium.spaces.Box(-1, 1, (2,)),
        ape=gymnasium.spaces.Box(np.arange(3.0), np.arange(3.0, 6.0), dtype=np.float64),
        image=gymnasium.spaces.Box(0, 1, (2, 2)),
        many=gymnasium.spaces.Discrete(3),
    )

    def _get_obs(self) -> dict[str, Any]:
        return {"zebra": np.array([0.5, -0.5]), "ape": np.array([1.0, 2.0, 3.0]), "many": 2}

    def reset(self, **options: Any) -> Any:
        return self._get_obs(), {}


def test_keys_are_joined_in_the_stated_order_and_the_others_dropped() -> None:
    flat = FlattenedKeys(Dictionary(), ("zebra", "ape"))
    assert flat.reset()[0].tolist() == observation(flat).tolist() == [0.5, -0.5, 1, 2, 3]
    space: Any = flat.observation_space
    assert space.low.tolist() == [-1, -1, 0, 1, 2] and space.high.tolist() == [1, 1, 3, 4, 5]
    swapped = FlattenedKeys(Dictionary(), ("ape", "zebra"))
    assert swapped.reset()[0].tolist() == [1, 2, 3, 0.5, -0.5]


@pytest.mark.parametrize(
    ("key", "message"),
    [("zebar", "did you mean 'zebra'"), ("image", "holds Box"), ("many", "holds Discrete")],
)
def test_a_key_that_is_no_vector_is_refused(key: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        FlattenedKeys(Dictionary(), (key,))
    assert "\n" not in str(caught.value)


def test_what_is_no_dictionary_is_refused(env: Any) -> None:
    with pytest.raises(UsageError, match="must be a dictionary"):
        FlattenedKeys(env, ("observation",))


# ---- restoring -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps(driven: list[Play], rammed: list[Play]) -> list[tuple[Play, int]]:
    return [(one, k) for one in driven + rammed for k in range(len(one.actions))]


def test_walls_are_among_the_logged_states(rammed: list[Play]) -> None:
    """Where restoring is hardest: the solver is at work."""
    assert np.concatenate([one.at_wall for one in rammed]).mean() > 0.2


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_restored_simulator_steps_bit_identically(
    env: Any, steps: list[tuple[Play, int]], data: st.DataObject
) -> None:
    one, k = data.draw(st.sampled_from(steps))
    MAZE.restore(env, one.full[k])
    np.testing.assert_array_equal(observation(env), one.states[k])
    np.testing.assert_array_equal(MAZE.simulator_state(env), one.full[k])
    for t in range(k, min(k + 5, len(one.actions))):
        state, reward, terminated, _, _ = env.step(one.actions[t])
        np.testing.assert_array_equal(state, one.states[t + 1])
        assert (reward, terminated) == (one.rewards[t], one.terminated[t])


def test_every_logged_step_is_repeated_from_what_datasets_keep(
    env: Any, steps: list[tuple[Play, int]]
) -> None:
    for one, k in steps[::2]:
        MAZE.restore_logged(env, one.logged[k])
        state, reward, terminated, _, _ = env.step(one.actions[k])
        np.testing.assert_allclose(state, one.states[k + 1], atol=1e-9, rtol=0)
        assert (reward, terminated) == (one.rewards[k], one.terminated[k])


@settings(max_examples=150, deadline=None)
@given(st.data(), st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_any_action_does_the_same_after_either_restore(
    env: Any, steps: list[tuple[Play, int]], data: st.DataObject, action: tuple[float, float]
) -> None:
    one, k = data.draw(st.sampled_from(steps))
    MAZE.restore(env, one.full[k])
    exact = env.step(np.array(action))[0]
    assert len(one.logged[k]) == 2 + 2 + MAZE.scene.size
    MAZE.restore_logged(env, one.logged[k])
    np.testing.assert_array_equal(observation(env), one.states[k])
    np.testing.assert_allclose(env.step(np.array(action))[0], exact, atol=1e-9, rtol=0)


def test_the_drawn_target_moves_with_the_goal(env: Any, driven: list[Play]) -> None:
    for one in driven[:3]:
        for restore, saved in ((MAZE.restore, one.full), (MAZE.restore_logged, one.logged)):
            env.reset()
            restore(env, saved[0])
            target = env.unwrapped.data.site("target").xpos
            np.testing.assert_array_equal(target[:2], one.goal)


def test_a_restored_goal_is_a_copy(env: Any, driven: list[Play]) -> None:
    saved = driven[0].full[0].copy()
    MAZE.restore(env, saved)
    saved[-2:] = 0.0
    np.testing.assert_array_equal(observation(env)[4:], driven[0].goal)


def test_a_saved_set_of_mazes_goes_on_bit_for_bit_through_resets() -> None:
    """The goals of later episodes come from the environment's own generator."""
    short = dataclasses.replace(MAZE, max_episode_steps=4)
    one, other = ChunkedEnvs(short, [0, 1]), ChunkedEnvs(short, [8, 9])
    actions = torch.rand(6, 2, 3, 2, generator=torch.Generator().manual_seed(0))
    for chunk in actions[:3]:
        one.step(chunk)
    other.load_state_dict(one.state_dict())
    goals = set()
    for chunk in actions[3:]:
        one.step(chunk)
        other.step(chunk)
        assert torch.equal(one.windows, other.windows)
        goals.add(one.windows[0, 0, 4].item())
    assert len(goals) > 1
    one.close()
    other.close()


# ---- the environment elsewhere, and its file -----------------------------------------------------


def test_the_recorded_spec_rebuilds_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rebuilt = gymnasium.make(EnvSpec.from_json(MAZE.spec().to_json()))
    ours = MAZE.make()
    np.testing.assert_array_equal(rebuilt.reset(seed=3)[0], ours.reset(seed=3)[0])
    action = np.array([0.3, -0.8])
    np.testing.assert_array_equal(rebuilt.step(action)[0], ours.step(action)[0])
    rebuilt.close()
    ours.close()


def test_copies_made_at_one_moment_share_no_file_and_leave_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(maze_v4, "time", SimpleNamespace(time=lambda: 1.0))
    envs = [MAZE.make() for _ in range(3)]
    assert len({env.unwrapped.tmp_xml_file_path for env in envs}) == 3  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
    assert tempfile.tempdir == str(tmp_path)
    for env in envs:
        env.reset(seed=0)
        env.close()


def test_a_failed_construction_leaves_the_temporary_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(maze_v4.Maze, "make_maze", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        MAZE.make()
    assert tempfile.tempdir == str(tmp_path) and not list(tmp_path.iterdir())
