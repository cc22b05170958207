"""A task of one's own: what is read from the environment, what is refused, and that it learns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import own_environment
import pandas as pd
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from matplotlib.colors import to_hex
from tiny_study import settle

from uepo_lib import dynamics_training, health, loading, own, plotting, tasks, values
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import UsageError
from uepo_lib.figures import your_task as views
from uepo_lib.locomotion import HOPPER
from uepo_lib.methods.uepo import uepo
from uepo_lib.own import PlainRobot
from uepo_lib.slices import SlicedStudy
from uepo_lib.stages import Study
from uepo_lib.tasks import Task

WALKS = {
    "Walk-v0": {}, "Stroll-v0": {}, "Unlimited-v0": {"max_episode_steps": None},
    "Wide-v0": {"limit": 2.0}, "Forgetful-v0": {"entry_point": "own_environment:Forgetful"},
    "Nameless-v0": {"entry_point": own_environment.Walk},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    for env_id, changes in WALKS.items():
        chosen: dict[str, Any] = {
            "entry_point": "own_environment:Walk", "max_episode_steps": 20, **changes
        }  # fmt: skip
        limit = chosen.pop("limit", 1.0)
        gymnasium.register(env_id, kwargs={"limit": limit}, **chosen)
    yield
    for env_id in WALKS:
        del gymnasium.registry[env_id]


def arrived(states: torch.Tensor) -> torch.Tensor:
    return states[..., 0] >= 3


def walk(**changes: Any) -> Any:
    given = {"random_return": 0.0, "expert_return": 3.0, "terminated": arrived, **changes}
    return own.robot(given.pop("env_id", "Walk-v0"), **given)


def act(observation: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.array([0.3 + 0.2 * generator.standard_normal()])


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Task]:
    settle(monkeypatch, tmp_path / "results", tmp_path / "data")
    yield tasks.register(Task("walk-noisy", walk(), "test/walk/noisy-v0", "a walk", "own"))
    tasks.TASKS.pop("walk-noisy", None)


def test_sizes_are_read_from_the_environment() -> None:
    made = walk()
    assert (made.state_dim, made.action_dim, made.max_episode_steps) == (2, 1, 20)
    assert (made.name, made.step_seconds) == ("walk", 0.05)
    assert made.normalised(1.5) == 50.0
    pendulum = own.robot(
        "InvertedPendulum-v5", random_return=5.0, expert_return=1000.0,
        wrapper=lambda env: RescaleAction(env, np.float32(-1), np.float32(1)),
    )  # fmt: skip
    assert not isinstance(pendulum, PlainRobot)
    assert (pendulum.state_dim, pendulum.action_dim, pendulum.step_seconds) == (4, 1, 0.04)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "Nowhere-v0"}, "Nowhere-v0.*not registered"),
        ({"expert_return": 0.0}, "expert_return=0.0"),
        ({"env_id": "Unlimited-v0"}, "max_episode_steps=None"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
        ({"env_id": "Wide-v0"}, "RescaleAction"),
        ({"env_id": "Forgetful-v0"}, "set_state"),
        ({"env_id": "Nameless-v0"}, "entry_point='Walk'.*module:Class"),
        ({"env_options": {"size": 0}}, "vector"),
        ({"wrapper": lambda env: gymnasium.wrappers.ReshapeObservation(env, (2, 1))}, "vector"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        walk(**changes)


def test_a_robot_without_mujoco_goes_back_to_where_it_was() -> None:
    envs = ChunkedEnvs(walk(), [0, 1])
    envs.step(torch.full((2, 2, 1), 0.5))
    kept = envs.state_dict()
    expected, _ = envs.step(torch.full((2, 1, 1), 0.25))
    again = ChunkedEnvs(walk(), [5, 6])
    again.load_state_dict(kept)
    found, _ = again.step(torch.full((2, 1, 1), 0.25))
    assert torch.equal(found.windows, expected.windows)


def test_registration_replaces_ones_own_and_nothing_else(task: Task) -> None:
    assert tasks.get("walk-noisy") is task
    newer = replace(task, description="again")
    assert tasks.get(tasks.register(newer).name) is newer
    for changes, message in (
        ({"name": "hopper-medium"}, "name='hopper-medium'"),
        ({"name": "walk@minari"}, "without @"),
        ({"source": "local"}, "source='local'"),
        ({"robot": replace(HOPPER, max_episode_steps=5)}, "robot.name='hopper'"),
    ):
        with pytest.raises(UsageError, match=message):
            tasks.register(replace(task, **changes))
    assert tasks.get("hopper-medium").robot is HOPPER
    assert "walk-noisy" not in tasks.LOCAL  # which `make data` collects


def test_a_dataset_that_is_missing_or_does_not_fit_is_named(task: Task) -> None:
    with pytest.raises(UsageError, match=r"own\.collect"):
        Study("walk-noisy", 0, "tiny").dataset  # noqa: B018
    own.collect(task, "tiny", act, 200)
    wrong = replace(task, robot=replace(task.robot, state_dim=3))
    with pytest.raises(UsageError, match="states of shape"):
        loading.load(wrong, loading.home(wrong, "tiny"))


@pytest.mark.parametrize(
    ("bad", "said"),
    [(np.zeros(3), r"actions of shape \(3,\)"), (np.array([np.nan]), "NaN or infinity")],
)
def test_what_does_not_fit_is_refused_before_it_is_written(
    task: Task, bad: np.ndarray, said: str
) -> None:
    other = replace(task, dataset_id="own/walk/bad-v0")
    with pytest.raises(UsageError, match=said):
        own.collect(other, "tiny", lambda state, generator: bad, 50)
    assert not (loading.home(other, "tiny") / other.dataset_id).exists()


def test_collected_episodes_are_whole_and_kept(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    place = own.collect(task, "tiny", act, 200)
    assert "kept" not in capsys.readouterr().out
    data = loading.load(task, loading.home(task, "tiny"))
    assert 200 <= len(data) < 220
    ends = data.bounds[:, 1] - 1
    lengths = data.bounds[:, 1] - data.bounds[:, 0]
    assert (data.terminated[ends] | (lengths == 20)).all()
    own.verify(data)
    before = (place / "data" / "main_data.hdf5").stat().st_mtime_ns
    own.collect(task, "tiny", act, 5_000)
    assert f"{task.dataset_id}: kept as it is" in capsys.readouterr().out
    assert (place / "data" / "main_data.hdf5").stat().st_mtime_ns == before
    never = replace(data, task=replace(task, robot=walk(terminated=own.never)))
    count = int(data.terminated.sum())
    with pytest.raises(UsageError, match=f"in {count} of {len(data)}"):
        own.verify(never)


def test_who_collects_second_waits_and_keeps_what_is_there(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[Path] = []
    second = threading.Thread(target=lambda: kept.append(own.collect(task, "tiny", act, 200)))

    def first(state: Any, generator: np.random.Generator) -> Any:
        if second.ident is None:
            second.start()
            second.join(1.0)  # time enough to collect, if it did not wait
        return act(state, generator)

    place = own.collect(task, "tiny", first, 200)
    second.join(60.0)
    assert kept == [place]
    assert capsys.readouterr().out.count("kept as it is") == 1
    metadata = json.loads((place / "data" / "metadata.json").read_text())
    assert metadata["algorithm_name"] == "first"


def test_a_rule_that_contradicts_the_data_is_refused_when_they_are_loaded(task: Task) -> None:
    """Nothing is computed with it, and once it is right the study goes on."""
    own.collect(task, "tiny", act, 200)
    tasks.register(replace(task, robot=walk(terminated=own.never)))
    for study in (Study("walk-noisy", 0, "tiny"), SlicedStudy("walk-noisy", 0, 50, "tiny")):
        with pytest.raises(UsageError, match="terminated: walk's rule differs from test/walk"):
            study.clone()
    tasks.register(task)
    assert Study("walk-noisy", 0, "tiny").clone().keys


def fell_too(states: torch.Tensor) -> torch.Tensor:
    """Of all that was collected it says what :func:`arrived` says."""
    return arrived(states) | (states[..., 0] < -2)


CHANGES: list[dict[str, Any]] = [
    {"env_id": "Stroll-v0"}, {"env_options": {"limit": 1.0}}, {"max_episode_steps": 15},
    {"terminated": fell_too},
]  # fmt: skip


def test_a_run_on_ones_own_task_is_named_by_its_robot(task: Task) -> None:
    own.collect(task, "tiny", act, 400)

    def key(**changes: Any) -> Any:
        tasks.register(replace(task, robot=walk(**changes)))
        (found,) = Study("walk-noisy", 0, "tiny", progress=False).clone().keys
        return found

    keys = [key(), *(key(**changes) for changes in CHANGES)]
    assert len({k.id for k in keys}) == len({k.reading_key for k in keys}) == len(keys)
    assert key() == keys[0] == key(terminated=lambda states: arrived(states))


def test_options_are_named_alike_in_every_process(task: Task) -> None:
    own.collect(task, "tiny", act, 60)
    data = loading.load(task, loading.home(task, "tiny"))
    options = {"range": (0.7, np.inf), "goal": np.ones(2), "kinds": {"b", "a"}, "rule": arrived}
    odd = replace(data, task=replace(task, robot=replace(task.robot, env_options=options)))
    assert own.identity(odd)["env_options"] == (
        '{"goal": [1.0, 1.0], "kinds": ["\'a\'", "\'b\'"], "range": [0.7, Infinity], '
        '"rule": "<function arrived>"}'
    )


def test_returns_to_go_are_the_discounted_sums(task: Task) -> None:
    own.collect(task, "tiny", act, 60)
    data = loading.load(task, loading.home(task, "tiny"))
    found = health.returns_to_go(data, 0.9)
    begin, end = data.bounds[1].tolist()
    powers = 0.9 ** torch.arange(end - begin, dtype=torch.float64)
    assert float(found[begin]) == pytest.approx(float((powers * data.rewards[begin:end]).sum()))
    assert float(found[end - 1]) == float(data.rewards[end - 1])


@pytest.mark.parametrize("obs_horizon", [1, 2])
def test_health_shows_a_policy_as_many_past_states_as_it_learnt_from(
    task: Task, obs_horizon: int
) -> None:
    own.collect(task, "tiny", act, 400)
    chosen = {"denoiser": {"obs_horizon": obs_horizon}}
    study = Study("walk-noisy", 0, "tiny", chosen, progress=False)
    begin, end = study.dataset.bounds[1].tolist()
    found = health.pasts(study, torch.tensor([begin, end - 1]))
    states = study.dataset.states
    first = states[[begin] * obs_horizon]  # before an episode nothing was seen but its start
    assert torch.equal(found, torch.stack([first, states[end - obs_horizon : end]]))
    checked = health.health(study, uepo(study))
    assert np.isfinite(checked["value"]).all()


def test_of_the_steps_that_health_looks_at_only_dynamics_models_saw_none(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For them it is a test; policies and critics were fitted to those steps."""
    own.collect(task, "tiny", act, 400)
    study, seen = Study("walk-noisy", 0, "tiny", progress=False), {}
    for module, name in ((dynamics_training, "train_dynamics"), (values, "train_iql")):
        train = getattr(module, name)

        def noted(*given: Any, train: Any = train, name: str = name, **rest: Any) -> Any:
            seen[name] = torch.cat([part.states for part in given if hasattr(part, "states")])
            return train(*given, **rest)

        monkeypatch.setattr(module, name, noted)
    _ = study.dynamics().run, study.critic().run
    tested = study.dataset.states[study.testing].unsqueeze(1)
    among = {name: (states == tested).all(-1).any(1) for name, states in seen.items()}
    assert among["train_iql"].all() and not among["train_dynamics"].any()
    assert torch.isin(study.testing, study.windows.now).any()


def test_a_clone_of_ones_own_data_walks(task: Task) -> None:
    own.collect(task, "tiny", act, 400)
    study = Study("walk-noisy", 0, "tiny", {"clone": {"num_updates": 300, "learning_rate": 3e-3}},
                  progress=False)  # fmt: skip
    seen = study.evaluate(study.clone(), 3).value
    assert study.task.robot.normalised(float(seen.returns.mean())) > 80


def ways(**ends: list[tuple[float, float]]) -> pd.DataFrame:
    """A path a given end, past (0, y) with the sign of the end's y."""
    rows = []
    for name, places in ends.items():
        for episode, (x, y) in enumerate(places):
            between = [(0.0, 0.7 if y > 0 else -0.7)] if x > 0 else []
            rows += [(name.replace("_", "-"), episode, *at) for at in [(-1, 0), *between, (x, y)]]
    return pd.DataFrame(rows, columns=["policy", "episode", "x", "y"])


def test_an_episode_is_told_by_its_end() -> None:
    paths = ways(clone=[(0.85, 0.1), (0.85, -0.1), (-0.45, 0.0), (3.0, 0.1), (-0.9, 0.5)])
    row = views.outcomes(paths).loc["clone"]
    assert row.to_dict() == {
        "episodes": 5, "arrived": 2, "in the pillar": 1, "past the goal": 1, "elsewhere": 1,
        "left": 1, "right": 1,
    }  # fmt: skip


STUCK, LEFT, RIGHT = (-0.45, 0.0), (0.9, 0.1), (0.9, -0.1)


@pytest.mark.parametrize(
    ("clone", "sets", "met"),
    [([STUCK, STUCK, LEFT], [LEFT, RIGHT, STUCK], [True, True]),
     ([STUCK, LEFT, RIGHT], [LEFT, LEFT, STUCK], [False, False]),
     ([STUCK] * 3, [LEFT, RIGHT, STUCK, STUCK], [True, False])],
)  # fmt: skip
def test_what_was_expected_of_the_paths_is_answered(
    clone: list[tuple[float, float]], sets: list[tuple[float, float]], met: list[bool]
) -> None:
    said = views.came_to(ways(clone=clone, sub_policies=sets))
    told = said.partition("\n\nThat most")[2].split(";")
    assert ["what was expected" in part for part in told] == met
    assert ["expected and not seen" in part for part in told] == [not m for m in met]
    arrived_there = sum(end != STUCK for end in clone)
    assert f"clone: arrived **{arrived_there} of {len(clone)}**" in said


def test_the_paths_drawn_are_those_that_are_scored(task: Task) -> None:
    own.collect(task, "tiny", act, 200)
    study = Study("walk-noisy", 0, "tiny", progress=False)
    seen = study.evaluate(study.clone(), 2).value
    paths = views.paths_table(study, {"clone": study.clone().value}, 2)
    mine = paths[paths["policy"] == "clone"].groupby("episode").size()
    assert mine.tolist() == [int(length) + 1 for length in seen.lengths[0]]


def test_the_pillar_and_the_goal_are_named() -> None:
    drawn = plotting.draw("30_paths", ways(clone=[LEFT, STUCK], sub_policies=[RIGHT]))
    (key,) = drawn.legends
    assert [text.get_text() for text in key.get_texts()][:2] == ["pillar", "goal"]


def test_clones_have_the_colour_of_clones() -> None:
    names = [views.CLONE, f"{views.CLONE}, online", views.SETS, views.SETS]
    table = pd.DataFrame({"policy": names, "member": [0, 0, 0, 1], "score": [1.0, 2.0, 3.0, 4.0]})
    marks = plotting.draw("30_scores", table).axes[0].collections[::2]  # a bar after each
    drawn = [to_hex(mark.get_facecolor()[0]) for mark in marks]
    assert drawn == [plotting.COLOURS[c].lower() for c in ("BC", "BC", "UEPO")]


def test_few_sub_policies_rank_well_only_beyond_chance() -> None:
    """Of 8 drawn at random, one in twenty correlates by more than the reference, or so."""
    draw = np.random.default_rng(0)
    found = [
        health._rank(torch.from_numpy(draw.random(8)), torch.from_numpy(draw.random(8)))
        for _ in range(2_000)
    ]
    assert 0.03 < np.mean(np.array(found) > health.by_chance(8)) < 0.08
    assert health.by_chance(2) > 1 and health.by_chance(1) > 1
