"""Every local dataset: collected small, repeated to the bit, replayed in its simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from uepo_lib import loading, tasks
from uepo_lib.collection import collect
from uepo_lib.datasets import Dataset
from uepo_lib.hand import DOOR, HAMMER, PEN, RELOCATE
from uepo_lib.maze import MAZE, ROUTES, route_taken
from uepo_lib.recipes import recipe_for
from uepo_lib.tasks import Task

SIZE = 1_200


@pytest.fixture(scope="module", params=tasks.LOCAL.values(), ids=lambda task: task.name)
def task(request: pytest.FixtureRequest) -> Task:
    chosen: Task = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    assert collect(task, recipe_for(task, SIZE), made, progress=False) == "collected"
    return made


@pytest.fixture(scope="module")
def data(task: Task, folder: Path) -> Dataset:
    return loading.load(task, folder)


def test_it_has_the_asked_size_and_the_robots_shapes(task: Task, data: Dataset) -> None:
    assert SIZE - 4 * len(recipe_for(task, SIZE).parts) <= len(data) <= SIZE
    assert data.states.shape[1] == task.robot.state_dim
    assert data.actions.shape[1] == task.robot.action_dim
    reached = data.normaliser.inverse(data.next_states)
    ended = task.robot.terminated(reached)
    # at the border of the rule the float32 of a state may fall on the other side
    assert int((ended != data.terminated).sum()) <= 1


def test_logged_states_step_to_the_logged_next_ones(
    task: Task, data: Dataset, folder: Path
) -> None:
    """1,000 logged states (of a small dataset: nearly all), each put back and stepped once."""
    assert data.simulator_states is not None
    robot, env = task.robot, task.robot.make()
    env.reset(seed=0)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:1_000]
    found, rewards = np.empty((len(chosen), robot.state_dim)), np.empty(len(chosen))
    for row, i in enumerate(chosen.tolist()):
        robot.restore_logged(env, data.simulator_states[i].numpy())
        found[row], rewards[row], *_ = env.step(data.actions[i].numpy())
    env.close()
    tolerance = 1e-4 if robot in (PEN, DOOR, HAMMER, RELOCATE) else 1e-6
    arrays, _ = loading.read(task, folder / task.dataset_id / "data")  # as logged, in float64
    logged = arrays["next_states"][chosen.numpy()]
    assert np.abs(found - logged).max() <= tolerance
    np.testing.assert_allclose(rewards, data.rewards[chosen].numpy(), rtol=1e-4, atol=1e-4)


def test_collecting_again_changes_no_byte(task: Task, folder: Path, tmp_path: Path) -> None:
    collect(task, recipe_for(task, SIZE), tmp_path, progress=False)
    again, first = (loading.load(task, f) for f in (tmp_path, folder))
    assert again.key == first.key


def test_minari_loads_it_alone(task: Task, folder: Path) -> None:
    """Nothing of this project imported: plain Minari, and the environment it recovers steps."""
    program = f"""
import json, minari
dataset = minari.load_dataset({task.dataset_id!r})
env = dataset.recover_environment()
state, _ = env.reset(seed=0)
step = env.step(env.action_space.sample())
print(json.dumps([int(dataset.total_steps), len(step), env.spec.max_episode_steps]))
"""
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    steps, parts, limit = json.loads(done.stdout.splitlines()[-1])
    assert steps <= SIZE and parts == 5 and limit == task.robot.max_episode_steps


def test_the_maze_knows_its_routes(tmp_path: Path) -> None:
    task = tasks.get("maze-routes")
    collect(task, recipe_for(task, 6_000), tmp_path, progress=False)
    data = loading.load(task, tmp_path)
    raw = data.normaliser.inverse(data.next_states)
    seen = set()
    for (begin, end), route in zip(
        data.bounds.tolist(), data.labels["route"].tolist(), strict=True
    ):
        if bool(data.terminated[end - 1]):
            path = raw[begin:end, :2].numpy()
            assert route_taken(path) == route
            seen.add(route)
    assert seen == set(range(len(ROUTES))) and MAZE is task.robot
