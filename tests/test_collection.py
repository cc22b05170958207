from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_toys import check_golden

from uepo_lib import behaviors, collection, loading, storage, tasks
from uepo_lib.collection import collect, play
from uepo_lib.datasets import Dataset
from uepo_lib.environments import DatasetSimulator
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.recipes import Part, Recipe, recipe_for

MEDIUM, BOTH = tasks.get("hopper-medium"), tasks.get("hopper-medium-expert")
SMALL = Recipe((Part("medium"),), 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    assert collect(MEDIUM, SMALL, made, progress=False) == "collected"
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return loading.load(MEDIUM, folder)


def raw(dataset: Dataset) -> torch.Tensor:
    return dataset.normaliser.inverse(dataset.states)


# ---- what is collected ---------------------------------------------------------------------------


def test_steps_are_counted_and_ends_are_the_tasks(data: Dataset) -> None:
    assert len(data) == 400
    reached = data.normaliser.inverse(data.next_states)
    assert torch.equal(HOPPER.terminated(reached), data.terminated)
    lasts = data.bounds[:, 1] - 1
    inside = torch.ones(400, dtype=torch.bool)
    inside[lasts] = False
    assert not data.terminated[inside].any()
    assert data.actions.abs().max() <= 1


def test_every_stream_is_cut_at_the_same_step(data: Dataset) -> None:
    """Four environments of 100 steps: an episode ends at each multiple of 100."""
    assert {100, 200, 300, 400} <= set(data.bounds[:, 1].tolist())


def test_the_behaviour_policy_and_its_noise_are_found_again(data: Dataset) -> None:
    policy = behaviors.load_behaviour(HOPPER, "medium")
    residual = data.actions - policy.mean_action(raw(data)).clamp(-1, 1)
    free = data.actions.abs() < 0.9  # elsewhere clipping hides the noise
    spread = (residual / policy.action_noise)[free].std()
    assert spread.item() == pytest.approx(1.0, abs=0.25)


def test_logged_states_can_be_restored_and_stepped_again(data: Dataset) -> None:
    assert data.simulator_states is not None
    windows = data.windows(2, 1)
    simulator = DatasetSimulator(
        HOPPER, data.simulator_states, windows.past(torch.arange(len(windows))), data.normaliser
    )
    index = torch.arange(0, 400, 13)
    simulator.reset_to(index)
    torch.testing.assert_close(simulator._states, data.states[index], atol=1e-5, rtol=0)
    everyone = torch.ones(len(index), dtype=torch.bool)
    reached, rewards, terminated = simulator.step(data.actions[index], everyone)
    found, logged = (data.normaliser.inverse(s) for s in (reached, data.next_states[index]))
    torch.testing.assert_close(found, logged, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(rewards, data.rewards[index], atol=1e-5, rtol=1e-5)
    assert torch.equal(terminated, data.terminated[index])


def test_medium_expert_is_both_parts(data: Dataset, tmp_path: Path) -> None:
    assert recipe_for(BOTH, 1000).parts == (Part("medium", 0.5), Part("expert", 0.5))
    recipe = dataclasses.replace(recipe_for(BOTH, 800), num_envs=SMALL.num_envs)
    collect(BOTH, recipe, tmp_path, progress=False)
    both = loading.load(BOTH, tmp_path)
    assert len(both) == 800
    assert torch.equal(both.actions[:400], data.actions)
    assert torch.equal(both.rewards[:400], data.rewards)
    episodes = play(HOPPER, Part("expert"), 400, SMALL.num_envs, 1_000, progress=False)
    actions = np.concatenate([np.asarray(episode.actions) for episode in episodes])
    np.testing.assert_array_equal(both.actions[400:].numpy(), actions)


def test_noise_of_the_recipe_takes_the_place_of_the_policys() -> None:
    policy = behaviors.load_behaviour(HOPPER, "medium")
    episodes = play(HOPPER, Part("medium", noise=0.0), 40, 2, 0, progress=False)
    states = np.concatenate([np.asarray(e.observations)[:-1] for e in episodes])
    actions = np.concatenate([np.asarray(e.actions) for e in episodes])
    mean = policy.mean_action(torch.from_numpy(states.astype(np.float32))).clamp(-1, 1)
    np.testing.assert_allclose(actions, mean.numpy(), atol=1e-5)


# ---- repeatable, never mixed, never half-written -------------------------------------------------


def test_collecting_twice_gives_equal_content(data: Dataset, tmp_path: Path) -> None:
    collect(MEDIUM, SMALL, tmp_path, progress=False)
    assert loading.load(MEDIUM, tmp_path).key == data.key
    other = dataclasses.replace(SMALL, seed=1)
    collect(MEDIUM, other, tmp_path / "other", progress=False)
    key = loading.load(MEDIUM, tmp_path / "other").key
    assert key.hash != data.key.hash
    assert key.recipe != data.key.recipe


def test_what_is_there_is_left_alone(folder: Path) -> None:
    def times() -> dict[str, int]:
        files = (folder / MEDIUM.dataset_id).rglob("*")
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = times()
    assert collect(MEDIUM, SMALL, folder, progress=False) == "present"
    assert times() == before


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "play", None)  # not callable: collecting would fail
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file" / "data", Path("/proc/nowhere")):
        with pytest.raises(UsageError, match=r"cannot be written .*; set MINARI_") as error:
            collect(MEDIUM, SMALL, folder, progress=False)
        assert str(error.value).startswith(f"{folder}: ")


def test_what_is_there_needs_no_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "writable", None)
    assert collect(MEDIUM, SMALL, folder, progress=False) == "present"


def test_another_recipe_in_its_place_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="num_transitions differ") as caught:
        collect(MEDIUM, dataclasses.replace(SMALL, num_transitions=404), folder, progress=False)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(loading.load(MEDIUM, folder)) == 400


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, recipe = storage._write, dataclasses.replace(SMALL, num_transitions=40)

    def interrupted(*arguments: Any) -> None:
        whole(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(MEDIUM, recipe, tmp_path, progress=False)
    assert not (tmp_path / MEDIUM.dataset_id).exists()
    assert not list(tmp_path.glob(".writing-*"))
    assert collect(MEDIUM, recipe, tmp_path, progress=False) == "collected"
    assert len(loading.load(MEDIUM, tmp_path)) == 40


def test_collecting_leaves_the_environment_variable_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(SMALL, num_transitions=8)
    for value in ("/some/where", None):
        if value is None:
            monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
        else:
            monkeypatch.setenv("MINARI_DATASETS_PATH", value)
        collect(MEDIUM, recipe, tmp_path / str(value is None), progress=False)
        assert os.environ.get("MINARI_DATASETS_PATH") == value


def test_too_few_steps_for_every_environment_are_refused() -> None:
    with pytest.raises(UsageError, match="num_transitions=7"):
        Recipe((Part("medium", 0.5), Part("expert", 0.5)), 7, num_envs=4)


def test_unknown_level_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'medium'"):
        behaviors.load_behaviour(HOPPER, "medum")


def test_golden(data: Dataset) -> None:
    """A few early steps, before rounding on another processor has grown."""
    early = torch.tensor([0, 5, 10, 20])
    tensors = {
        "states": raw(data)[early],
        "actions": data.actions[early],
        "rewards": data.rewards[early],
    }
    check_golden("collection", tensors, collection.REVISION, atol=1e-3)
