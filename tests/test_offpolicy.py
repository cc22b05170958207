"""TQC's agent, kept as a behaviour policy: its mean actions, the noise that it explored with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import TQC

from uepo_lib import facts, offpolicy
from uepo_lib.behaviors import read_behaviour, write_behaviour
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.offpolicy import SHAPE, TQCConfig, actor_tensors, facts_of, train_tqc

SMALL = TQCConfig(
    num_env_steps=300, hidden=(16, 16), learning_starts=100, buffer_size=1_000, snapshot_every=150
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tqc")
    train_tqc(HOPPER, SMALL, 0, made)
    return made


def test_snapshots_and_curve_are_kept(folder: Path) -> None:
    snapshots = sorted(path.name for path in folder.glob("*.safetensors"))
    assert snapshots == ["00000150.safetensors", "00000300.safetensors"]
    record = facts_of(folder, SMALL, 0)
    assert record["algorithm"] == "TQC" and record["env_steps_of_whole_run"] == 300
    assert [steps for steps, _ in record["training_curve"]] == [150, 300]
    assert {"stable-baselines3", "sb3-contrib"} <= set(record["versions"])


def test_the_kept_policy_acts_as_the_agent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = TQC.load(folder / "agent.zip")
    agent.load_replay_buffer(folder / "buffer.pkl")
    monkeypatch.setattr("uepo_lib.behaviors.FOLDER", tmp_path)
    path = write_behaviour(HOPPER, "made", actor_tensors(agent, recent=200), {}, SHAPE)
    policy = read_behaviour(path, HOPPER, {})
    states = np.random.default_rng(0).normal(size=(20, 11)).astype(np.float32)
    expected, _ = agent.predict(states, deterministic=True)
    found = policy.mean_action(torch.from_numpy(states))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_noise_is_that_of_the_sampled_actions(folder: Path) -> None:
    agent = TQC.load(folder / "agent.zip")
    agent.load_replay_buffer(folder / "buffer.pkl")
    std = actor_tensors(agent, recent=200)["log_std"].exp()
    states = agent.replay_buffer.observations[agent.replay_buffer.pos - 200 : 300, 0]
    mean, _ = agent.predict(states, deterministic=True)
    torch.manual_seed(1)
    sampled = np.stack([agent.predict(states)[0] for _ in range(50)])
    np.testing.assert_allclose(std.numpy(), np.sqrt(((sampled - mean) ** 2).mean((0, 1))), rtol=0.1)


def test_it_goes_on_from_what_is_there(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    more = TQCConfig(**{**vars(SMALL), "num_env_steps": 450})
    train_tqc(HOPPER, more, 0, tmp_path)
    assert (tmp_path / "00000450.safetensors").exists()
    assert [int(row[0]) for row in facts_of(tmp_path, more, 0)["training_curve"]] == [150, 300, 450]
    before = (folder / "00000300.safetensors").read_bytes()
    assert (tmp_path / "00000300.safetensors").read_bytes() == before


def test_a_kill_before_the_agent_is_kept_leaves_one_row_a_snapshot(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    more = TQCConfig(**{**vars(SMALL), "num_env_steps": 450})
    replace = facts.replace_file

    def killed(path: Path, write: Any) -> None:
        if path.name == "agent.zip":
            raise KeyboardInterrupt
        replace(path, write)

    monkeypatch.setattr(facts, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        train_tqc(HOPPER, more, 0, tmp_path)
    monkeypatch.undo()
    train_tqc(HOPPER, more, 0, tmp_path)
    assert [int(row[0]) for row in facts_of(tmp_path, more, 0)["training_curve"]] == [150, 300, 450]


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UsageError, match="behaviors") as caught:
        offpolicy.train_tqc(HOPPER, SMALL, 0, tmp_path / "new")
    assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()
