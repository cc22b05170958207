from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from diffusion_toys import randn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from uepo_lib import denoisers, portable, tasks
from uepo_lib.chain import ChainActor
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, build_diffusion
from uepo_lib.divergence import GuidanceConfig
from uepo_lib.errors import UsageError
from uepo_lib.evaluation import evaluate
from uepo_lib.portable import PortablePolicy, load_policy, save_policy
from uepo_lib.specs import DatasetKey
from uepo_lib.subpolicies import SubPolicies

NETWORK = DenoiserConfig(
    channels=(8, 16), d_model=16, num_heads=2, num_layers=1, horizon=8, obs_horizon=2
)


def dataset(name: str = "hopper-medium") -> Dataset:
    """A dataset of one step, of which only the task, the key and the normaliser matter."""
    task = tasks.get(name)
    size = task.robot.state_dim
    row = torch.zeros(1)
    return Dataset(
        task, DatasetKey(task.dataset_id, "hash", "recipe"),
        Normaliser(randn(size, seed=1), randn(size, seed=2).exp()),
        torch.zeros(1, size), torch.zeros(1, task.robot.action_dim), row,
        torch.zeros(1, size), row > 0, torch.tensor([[0, 1]]), None, {},
    )  # fmt: skip


def sub_policies(data: Dataset, n: int = 3, **changes: Any) -> SubPolicies:
    """Of an untrained network: it moves, and falls."""
    robot = data.task.robot
    model = build_diffusion(DiffusionConfig(), NETWORK, robot.state_dim, robot.action_dim, seed=4)
    return SubPolicies.from_seeds(model.eval(), n, seed=5, action_horizon=3, **changes)


DATA = dataset()


class Watched:
    """A policy that keeps the actions that it gave."""

    def __init__(self, policy: SubPolicies) -> None:
        self.policy, self.actions = policy, []
        self.n, self.obs_horizon = policy.n, policy.obs_horizon
        self.action_horizon = policy.action_horizon

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chunk = self.policy.act(states, generator)
        self.actions += list(chunk[0, 0].clamp(-1, 1).numpy())
        return chunk


@pytest.mark.parametrize("kind", ["fixed", "fresh", "own"])
def test_plain_gymnasium_plays_the_librarys_episode_bit_for_bit(kind: str, tmp_path: Path) -> None:
    fresh = {"fresh_noise": kind != "fixed", "own_generators": kind == "own"}
    one = sub_policies(DATA, kappa=0.7, **fresh).select(1)
    watched = Watched(one)
    generator = None if kind == "fixed" else torch.Generator().manual_seed(3)
    seen = evaluate(watched, DATA.task.robot, DATA.normaliser, 1, first_seed=9, generator=generator)

    policy = load_policy(save_policy(tmp_path / "policy.safetensors", one, DATA))
    policy.reset(seed=3)
    env = gymnasium.make("Hopper-v5")
    observation, _ = env.reset(seed=9)
    actions, total, over = [], 0.0, False
    while not over:
        actions.append(policy.predict(observation))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        total, over = total + float(reward), terminated or truncated
    assert len(actions) == int(seen.lengths) > 5
    assert np.array_equal(np.array(actions), np.array(watched.actions)[: len(actions)])
    assert torch.equal(torch.tensor([[total]]), seen.returns)
    assert actions[0].dtype == np.float32 and env.action_space.contains(actions[0])


def test_the_file_says_where_it_came_from(tmp_path: Path) -> None:
    policy = load_policy(save_policy(tmp_path / "a", sub_policies(DATA, kappa=0.5).select(0), DATA))
    assert policy.kappa == 0.5
    assert policy.info["dataset"] == {
        "id": "uepo/hopper/medium-v0", "hash": "hash", "recipe": "recipe"
    }  # fmt: skip
    assert (policy.info["task"], policy.info["env_id"]) == ("hopper-medium", "Hopper-v5")
    assert policy.info["sub_policy"]["num_denoising_steps"] == 5
    assert policy.info["library"]["versions"]["torch"] == torch.__version__


def test_reset_forgets_and_without_it_the_plan_goes_on(tmp_path: Path) -> None:
    policy = load_policy(save_policy(tmp_path / "a", sub_policies(DATA).select(0), DATA))
    a, b = randn(2, 11, seed=8).numpy()
    first = [policy.predict(a) for _ in range(4)]
    policy.reset()
    again = [policy.predict(a) for _ in range(4)]
    assert np.array_equal(first, again)
    policy.reset()
    other = [policy.predict(a), *(policy.predict(b) for _ in range(3))]
    assert np.array_equal(first[:3], other[:3])  # the plan of T_a = 3 is executed open loop
    assert not np.array_equal(first[3], other[3])


def test_rows_of_a_vector_environment_are_separate(tmp_path: Path) -> None:
    one = sub_policies(DATA).select(2)
    path = save_policy(tmp_path / "a", one, DATA)
    together, alone = load_policy(path), [load_policy(path) for _ in range(3)]
    seen = randn(7, 3, 11, seed=6).numpy()
    for t, observations in enumerate(seen):
        begins = np.array([False, t == 2, t == 5])  # as an environment that was reset
        for i in begins.nonzero()[0]:
            alone[i].reset()
        expected = [policy.predict(o) for policy, o in zip(alone, observations, strict=True)]
        found = together.predict(observations, episode_start=begins)
        assert found.shape == (3, 3)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UsageError, match="since the last reset"):
        together.predict(seen[0, :2])


def test_a_dictionary_is_flattened_by_the_robots_rule(tmp_path: Path) -> None:
    data = dataset("maze-routes")
    robot = data.task.robot
    policy = load_policy(save_policy(tmp_path / "a", sub_policies(data).select(0), data))
    plain, flat = gymnasium.make(robot.env_id, **robot.env_options), robot.make()
    seen, same = plain.reset(seed=1)[0], flat.reset(seed=1)[0]
    assert isinstance(seen, dict)
    action = policy.predict(seen)
    policy.reset()
    assert np.array_equal(action, policy.predict(same))
    assert plain.action_space.contains(action)
    with pytest.raises(UsageError, match="observation"):
        policy.predict(np.zeros(3))


def test_actions_come_in_the_environments_units(tmp_path: Path) -> None:
    path = save_policy(tmp_path / "a", sub_policies(DATA).select(0), DATA)
    policy, tensors = load_policy(path), load_file(path)
    unit = policy.predict(np.zeros(11))
    scaled = {"action.low": torch.tensor([0.0, -2, -1]), "action.high": torch.tensor([4.0, 2, 5])}
    stretched = PortablePolicy(policy.info, {**tensors, **scaled}).predict(np.zeros(11))
    np.testing.assert_allclose(stretched, [2, 0, 2] + np.array([2, 2, 3]) * unit, atol=1e-6)


def test_what_cannot_be_saved_alone(tmp_path: Path) -> None:
    guided = sub_policies(DATA, guidance=GuidanceConfig(threshold=1.0))
    with pytest.raises(UsageError, match="its 2 neighbours"):
        save_policy(tmp_path / "a", guided, DATA)
    with pytest.raises(UsageError, match="3 sub-policies"):
        save_policy(tmp_path / "a", sub_policies(DATA), DATA)
    assert not list(tmp_path.iterdir())
    save_policy(tmp_path / "a", guided.select(1), DATA)


def test_another_policy_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    improved: Any = ChainActor(sub_policies(DATA).select(0))
    with pytest.raises(UsageError, match="policy='ChainActor'"):
        save_policy(tmp_path / "a", improved, DATA)
    assert not list(tmp_path.iterdir())


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        load_policy(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_broken_and_foreign_files_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_policy(tmp_path / "policy.safetensors", sub_policies(DATA).select(0), DATA)
    whole, broken = path.read_bytes(), tmp_path / "broken.safetensors"
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:size])
        assert "not a whole safetensors file" in refused(broken)
    broken.write_text("a model? no, a letter to whom it may concern")
    assert "not a whole safetensors file" in refused(broken)
    save_file({"x": torch.zeros(1)}, broken)
    assert "not a policy" in refused(broken)
    assert "save_policy wrote" in refused(tmp_path / "absent")
    monkeypatch.setattr(denoisers, "REVISION", denoisers.REVISION + 1)
    assert "another revision of denoisers" in refused(path)


def test_the_metadata_is_json_that_other_tools_read(tmp_path: Path) -> None:
    path = save_policy(tmp_path / "a", sub_policies(DATA).select(0), DATA)
    with safe_open(path, framework="np") as file:
        content = {name: json.loads(value) for name, value in file.metadata().items()}
    assert content["format"] == portable.FORMAT
    assert DenoiserConfig(**{
        k: tuple(v) if isinstance(v, list) else v for k, v in content["denoiser"].items()
    }) == NETWORK  # fmt: skip
