"""The committed behaviour policies, and how they are made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from uepo_lib import behavior_training, behaviors, tasks
from uepo_lib.behavior_levels import LEVELS, BehaviourConfig, Clone, Replay
from uepo_lib.behavior_training import train_behaviour
from uepo_lib.behaviors import PolicyDriver, load_behaviour, read_behaviour
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.ppo import PPOConfig
from uepo_lib.robots import Robot

COMMITTED = [
    pytest.param(tasks.ROBOTS[name], level, id=f"{name}-{level}")
    for name in LEVELS
    for level in LEVELS[name]
]


@pytest.mark.parametrize(("robot", "level"), COMMITTED)
def test_every_level_is_committed_with_its_record(robot: Robot, level: str) -> None:
    path = behaviors.policy_file(robot, level)
    assert path.stat().st_size < 1_000_000
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["robot"] == robot.name and record["env_id"] == robot.env_id
    stated = LEVELS[robot.name][level]
    assert record["seed"] == stated.seed
    if not isinstance(stated, Clone):
        moments = stated.moments() if isinstance(stated, Replay) else stated.env_steps
        assert record["env_steps"] == moments
        steps, returns = np.array(record["training_curve"]).T
        assert (np.diff(steps) > 0).all() and np.isfinite(returns).all()
    names = [n for n in behaviors.levels(robot) if n.partition("/")[0] == level]
    assert len(names) == (stated.count if isinstance(stated, Replay) else 1)
    for name in names:
        policy = load_behaviour(robot, name)
        states = torch.randn(4, robot.state_dim)
        assert policy.mean_action(states).shape == (4, robot.action_dim)
        assert policy.action_noise.shape == (robot.action_dim,)
        assert bool((policy.action_noise > 0).all())


@pytest.mark.parametrize("name", LEVELS)
def test_the_last_of_the_replay_is_medium(name: str) -> None:
    robot = tasks.ROBOTS[name]
    if "replay" not in LEVELS[name]:
        pytest.skip("no replay of this robot")
    last = load_behaviour(robot, behaviors.replayed(robot)[-1])
    medium, states = load_behaviour(robot, "medium"), torch.randn(8, robot.state_dim)
    torch.testing.assert_close(last.mean_action(states), medium.mean_action(states))


def test_a_committed_policy_plays_as_its_record_says() -> None:
    """The first three of the fifty episodes of the record, and their order of magnitude."""
    policy = load_behaviour(HOPPER, "expert")
    stated = policy.record["returns"]["mean_action"]
    played = behavior_training._play(HOPPER, policy, 0, episodes=3)
    assert abs(played["mean"] - stated["mean"]) < 3 * stated["std"] + 50


def test_noise_of_the_driver_is_the_stated_one() -> None:
    policy = load_behaviour(HOPPER, "medium")
    state = torch.zeros(1, 11).expand(20_000, -1)
    mean = policy.mean_action(state[:1])
    for noise, expected in ((None, policy.action_noise), (0.05, torch.full((3,), 0.05))):
        driver = PolicyDriver(policy, noise, torch.Generator().manual_seed(0))
        inside = mean.abs().squeeze() < 0.5  # far from where actions are clipped
        spread = (driver.actions(state) - mean).std(0)
        if noise is not None:
            torch.testing.assert_close(spread[inside], expected[inside], rtol=0.03, atol=0)
        else:
            assert bool((spread <= 1.03 * expected).all())
    still = PolicyDriver(policy, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(still.actions(state[:1]), mean.clamp(-1, 1))


def test_a_squashed_policy_goes_through_tanh(tmp_path: Path) -> None:
    """A file of TQC's shape: ReLU layers, a tanh at the end."""
    generator = torch.Generator().manual_seed(0)
    w1, w2 = (torch.randn(s, generator=generator) for s in ((16, 11), (3, 16)))
    b1, b2 = torch.randn(16, generator=generator), torch.randn(3, generator=generator)
    tensors = {
        "body.0.weight": w1, "body.0.bias": b1, "body.2.weight": w2, "body.2.bias": b2,
        "log_std": torch.tensor([-1.0, -2.0, 0.0]),
        "normaliser.mean": torch.zeros(11), "normaliser.std": torch.ones(11),
    }  # fmt: skip
    save_file(tensors, tmp_path / "p.safetensors", {"activation": "relu", "squash": "true"})
    policy = read_behaviour(tmp_path / "p.safetensors", HOPPER, {})
    states = torch.randn(5, 11, generator=generator)
    expected = ((states @ w1.T + b1).relu() @ w2.T + b2).tanh()
    torch.testing.assert_close(policy.mean_action(states), expected)
    torch.testing.assert_close(policy.action_noise, torch.tensor([-1.0, -2.0, 0.0]).exp())


def test_a_file_of_another_robot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"states of size 11; walker2d has 17"):
        read_behaviour(behaviors.policy_file(HOPPER, "medium"), tasks.ROBOTS["walker2d"], {})


def test_replay_is_equal_shares_of_the_way() -> None:
    moments = Replay(0, 294_912).moments()
    assert len(moments) == 12 and moments[-1] == 294_912
    assert set(np.diff([0, *moments])) == {24_576}


class Keep:
    """A recording that only counts what it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_tensors(self, tensors: dict[str, torch.Tensor], name: str) -> None:
        save_file({k: v.detach().clone() for k, v in tensors.items()}, self.folder / name)


def test_training_keeps_its_snapshots_and_repeats_itself(tmp_path: Path) -> None:
    small = PPOConfig(
        num_env_steps=512, num_envs=2, steps_per_update=128, num_epochs=1,
        normalise_states=True, normalise_rewards=True,
    )  # fmt: skip
    config = BehaviourConfig(small, hidden=(8,), snapshot_every=256)
    found = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        train_behaviour(HOPPER, config, 3, keep=Keep(tmp_path / name), progress=False)  # type: ignore[arg-type]
        files = sorted((tmp_path / name).iterdir())
        assert [path.name[:8] for path in files] == ["00000256", "00000512"]
        found.append([load_file(path) for path in files])
    for first, second in zip(*found, strict=True):
        assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(found[0][0]["body.0.weight"], found[0][1]["body.0.weight"])
