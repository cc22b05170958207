"""A task of one's own: what is read from the environment, what is refused, and that it learns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import minari
import numpy as np
import own_environment
import pandas as pd
import pytest
import torch
from gymnasium.wrappers import RescaleAction, TransformObservation
from matplotlib.colors import to_hex
from minari.dataset.minari_dataset import parse_dataset_id
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
    for env_id in ("Keyed", "Choosing"):
        point = f"own_environment:{env_id}"
        gymnasium.register(f"{env_id}-v0", entry_point=point, max_episode_steps=20)
    for env_id, changes in WALKS.items():
        chosen: dict[str, Any] = {
            "entry_point": "own_environment:Walk", "max_episode_steps": 20, **changes
        }  # fmt: skip
        limit = chosen.pop("limit", 1.0)
        gymnasium.register(env_id, kwargs={"limit": limit}, **chosen)
    yield
    for env_id in (*WALKS, "Keyed-v0", "Choosing-v0"):
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
        ({"expert_return": 0.0}, "expert_return=0.0: must be above random_return=0.0"),
        ({"random_return": np.nan}, "random_return=nan: must be a finite number"),
        ({"random_return": "0"}, "random_return='0': must be a finite number"),
        ({"expert_return": np.inf}, "expert_return=inf: must be a finite number"),
        (
            {"env_id": "Unlimited-v0"},
            r"=None: Unlimited-v0.*max_episode_steps=200",
        ),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
        ({"max_episode_steps": 2.5}, "max_episode_steps=2.5: must be a positive integer"),
        ({"env_id": "Choosing-v0"}, r"action space Discrete\(2\).*Box\(-1, 1.*only continuous"),
        ({"env_id": "Keyed-v0"}, r"give observation_keys=\('at', 'begun'\)"),
        ({"env_id": "Keyed-v0", "observation_keys": ("att",)}, "'att'.*did you mean 'at'"),
        ({"observation_keys": ("at",)}, "must be a dictionary"),
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


@pytest.mark.parametrize(
    "dataset_id",
    ["own/walk/noisy", "own/my walk/noisy-v0", "../walk/noisy-v0", "/walk/noisy-v0", "o/noisy-v0",
     "own/walk/noisy-v0.1", "own\\walk-v0", "", None],
)  # fmt: skip
def test_a_dataset_id_that_minari_would_refuse_is_refused_at_once(dataset_id: Any) -> None:
    with pytest.raises(UsageError, match=r"dataset_id=.*namespace/name-vNUMBER.*me/mine/noisy-v0"):
        Task("walk-noisy", walk(), dataset_id, "a walk", "own")


@pytest.mark.parametrize("dataset_id", ["me/mine/noisy-v0", "D4RL/pen/human-v2", "x-v0", "me/x-v1"])
def test_minari_takes_what_is_taken_here(dataset_id: str) -> None:
    assert Task("walk-noisy", walk(), dataset_id, "a walk", "own").dataset_id == dataset_id
    assert parse_dataset_id(dataset_id)[2] == int(dataset_id.rpartition("-v")[2])


def test_a_dictionary_is_one_vector_in_the_environment_and_in_datasets(task: Task) -> None:
    """In the order of the keys that were given, whoever flattens it."""
    keyed = walk(env_id="Keyed-v0", observation_keys=("begun", "at"))
    mine = replace(task, robot=keyed, dataset_id="own/keyed/noisy-v0")
    own.collect(mine, "tiny", act, 100)
    data = loading.load(mine, loading.home(mine, "tiny"))
    states = data.normaliser.inverse(data.states)
    first = states[: int(data.bounds[0, 1])]
    assert (first[:, 0] - first[0, 0]).abs().max() < 1e-5 < (first[:, 1] - first[0, 1]).abs().max()
    found = keyed.flatten({"at": np.array([[1.0]]), "begun": np.array([[2.0]])})
    assert found.tolist() == [[2.0, 1.0]]


def test_other_keys_of_a_dataset_make_other_arrays(task: Task) -> None:
    """Of one dataset of dictionaries, read by two robots one after the other."""
    own.collect(task, "tiny", act, 100)
    data = loading.home(task, "tiny")
    two = replace(task, robot=replace(task.robot, observation_keys=("at", "begun")))
    episode = SimpleNamespace(observations={"at": np.ones((3, 1)), "begun": np.zeros((3, 1))},
                              actions=np.zeros((2, 1)), rewards=np.zeros(2), infos={},
                              terminations=np.zeros(2), truncations=np.array([0, 1]))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minari.MinariDataset, "iterate_episodes", lambda self: iter([episode] * 2))
        assert loading.load(two, data).normaliser.mean.tolist() == [1, 0]
        turned = replace(two, robot=replace(two.robot, observation_keys=("begun", "at")))
        assert loading.load(turned, data).normaliser.mean.tolist() == [0, 1]
        one = replace(two, robot=replace(two.robot, observation_keys=("at",)))
        with pytest.raises(UsageError, match=r"states of shape \(1,\); Walk-v0 has \(2,\)"):
            loading.load(one, data)


def test_a_dataset_without_an_episode_is_refused(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.collect(task, "tiny", act, 100)
    monkeypatch.setattr(minari.MinariDataset, "iterate_episodes", lambda self: iter([]))
    with pytest.raises(UsageError, match="test/walk/noisy-v0: episodes=0: must be at least 1"):
        loading.load(task, loading.home(task, "tiny"))


def test_arrays_made_earlier_must_fit_the_robot_too(task: Task) -> None:
    own.collect(task, "tiny", act, 100)
    folder = loading.home(task, "tiny")
    loading.load(task, folder)
    wrong = replace(task, robot=replace(task.robot, action_dim=2))
    with pytest.raises(UsageError, match=r"actions of shape \(1,\); Walk-v0 has \(2,\)"):
        loading.load(wrong, folder)


def test_an_environment_rescaled_as_advised_can_be_collected(task: Task) -> None:
    def rescaled(env: Any) -> Any:
        return RescaleAction(env, np.float32(-1), np.float32(1))

    wide = replace(task, robot=walk(env_id="Wide-v0", wrapper=rescaled), dataset_id="own/wide-v0")
    place = own.collect(wide, "tiny", act, 60)
    spec = json.loads(json.loads((place / "data" / "metadata.json").read_text())["env_spec"])
    assert spec["additional_wrappers"][0]["kwargs"] == {"min_action": -1.0, "max_action": 1.0}


def test_a_wrapper_that_a_dataset_cannot_name_is_refused_before_an_episode(task: Task) -> None:
    def shifted(env: Any) -> Any:
        return TransformObservation(env, lambda seen: seen + 1, env.observation_space)

    other = replace(task, robot=walk(wrapper=shifted), dataset_id="own/shifted-v0")
    with pytest.raises(UsageError, match=r"TransformObservation.*as JSON, and .*function"):
        own.collect(other, "tiny", lambda state, generator: pytest.fail("played"), 60)


def test_episodes_that_are_too_short_are_counted_or_refused(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sprint(state: Any, generator: Any) -> Any:
        """A goal in 4 steps, or a stroll of 20."""
        return np.array([1.0 if state[1] > 0 else 0.1])

    mixed = tasks.register(replace(task, dataset_id="own/walk/mixed-v0"))
    own.collect(mixed, "tiny", sprint, 200)
    said = capsys.readouterr().out
    data = Study("walk-noisy", 0, "tiny").dataset
    lengths = data.bounds[:, 1] - data.bounds[:, 0]
    short = int((lengths < 8).sum())
    assert 0 < short < len(lengths)
    assert f"{short} of {len(lengths)} episodes are shorter than T = 8 steps" in said
    assert "shorter" not in capsys.readouterr().out  # it was said

    single = replace(task, dataset_id="own/walk/single-v0")
    with pytest.raises(UsageError, match="1 episode of 20 steps; must be at least 2"):
        own.collect(single, "tiny", lambda state, generator: np.zeros(1), 5)
    assert not (loading.home(single, "tiny") / single.dataset_id).exists()

    brief = tasks.register(
        replace(task, robot=walk(max_episode_steps=5), dataset_id="own/brief-v0")
    )
    own.collect(brief, "tiny", act, 100)
    with pytest.raises(UsageError, match="horizon=8: must be at most 5, the longest episode"):
        _ = Study("walk-noisy", 0, "tiny", progress=False).windows
    with pytest.raises(UsageError, match="horizon=6: must be at most 4"):
        uepo(Study("walk-noisy", 0, "tiny", progress=False))
    assert not list((tmp_path / "results").rglob("*diffusion-*"))  # nothing was trained


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


def test_another_task_than_the_example_is_shown_without_its_landmarks(task: Task) -> None:
    """Of one observed number, too, which is drawn over steps."""
    for size, x, y in ((1, "step", "observation 0"), (2, "observation 0", "observation 1")):
        robot = walk(env_options={"size": size})
        mine = tasks.register(replace(task, robot=robot, dataset_id=f"own/walk/size{size}-v0"))
        own.collect(mine, "tiny", act, 200)
        study = Study("walk-noisy", 0, "tiny", progress=False)
        paths = views.paths_table(study, {"clone": study.clone().value}, 2)
        assert list(paths.columns) == ["policy", "episode", x, y]
        logged = paths[(paths["policy"] == "logged") & (paths["episode"] == 0)]
        end = int(study.dataset.bounds[0, 1])
        seen = study.dataset.normaliser.inverse(study.dataset.states[:end])[:, size - 1]
        np.testing.assert_allclose(logged[y][:-1], seen, rtol=1e-5)
        steps = paths[paths["policy"] == "logged"].groupby("episode").size() - 1
        low, high = min(steps), max(steps)
        length = f"{low} to {high}" if low < high else low
        assert f"- logged: **2 episodes** of {length} steps\n" in views.came_to(paths)
        drawn = plotting.draw("30_paths", paths)
        (key,) = drawn.legends
        assert [text.get_text() for text in key.get_texts()] == ["an episode, to its end"]
        assert (drawn.axes[0].get_xlabel(), drawn.axes[0].get_ylabel()) == (x, y)


def test_the_example_is_what_the_page_registers() -> None:
    page = (Path(__file__).parents[1] / "notebooks" / "30_your_task.py").read_text("utf-8")
    assert f'gymnasium.register("{views.EXAMPLE}"' in page


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
