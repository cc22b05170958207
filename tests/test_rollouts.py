from __future__ import annotations

import pytest
import torch
from diffusion_toys import check_golden
from model_toys import LinearGaussian, randn
from torch import Tensor

from uepo_lib import rollouts
from uepo_lib.dynamics import DynamicsConfig, build
from uepo_lib.errors import UsageError
from uepo_lib.rollouts import ModelSimulator, open_loop_errors, rollout

CONFIG = DynamicsConfig(num_members=2, num_elites=1, hidden=(8,), weight_decay=(0.0, 0.0))


class Counting:
    """State (start, steps made); ends once ``start`` steps are made, so start 0 never does."""

    def __init__(self) -> None:
        self.steps = self.resets = 0

    def reset_to(self, indices: Tensor) -> Tensor:
        self.states = torch.stack([indices.float(), torch.zeros(len(indices))], 1)
        self.resets += len(indices)
        return self.states.unsqueeze(1).repeat(1, 2, 1)

    def step(self, actions: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made = self.states + torch.tensor([0.0, 1.0])
        self.states = torch.where(active.unsqueeze(1), made, self.states)
        self.steps += int(active.sum())
        return self.states, actions[:, 0], self.states[:, 0] == self.states[:, 1]


class Planner:
    """Action j of a plan is (member + phase j / 10) / 10; remembers what it was shown."""

    n, obs_horizon, action_horizon = 2, 2, 3

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.shown.append(states)
        member = torch.arange(2.0).view(2, 1, 1, 1)
        phase = torch.arange(3.0).view(1, 1, 3, 1)
        return ((member + phase / 10) / 10).expand(2, states.shape[1], 3, 1)


def test_plans_are_executed_in_receding_horizon() -> None:
    policy, world = Planner(), Counting()
    found = rollout(policy, world, torch.zeros(2, 1, dtype=torch.long), horizon=7)
    torch.testing.assert_close(
        found.actions[:, :, 0],
        torch.tensor([[0, 1, 2, 0, 1, 2, 0], [10, 11, 12, 10, 11, 12, 10]]) / 100,
    )
    assert [int(window[0, 0, -1, 1]) for window in policy.shown] == [0, 3, 6]
    assert [int(window[0, 0, 0, 1]) for window in policy.shown] == [0, 2, 5]
    assert torch.equal(found.states[0, :, 1], torch.arange(7.0))
    assert torch.equal(found.next_states[0, :, 1], torch.arange(1.0, 8.0))


def test_a_trajectory_ends_where_the_world_says_and_costs_no_more() -> None:
    world = Counting()
    found = rollout(Planner(), world, torch.tensor([[4, 0], [2, 1]]), horizon=5)
    # in the order of starts, members within: start 4 of member 0, start 2 of member 1, 0, 1
    assert found.lengths().tolist() == [4, 2, 5, 1]
    assert world.steps == 12
    assert world.resets == 4
    kept = found.transitions(torch.tensor([True, True, False, True]))
    assert kept.terminated.tolist() == [False, False, False, True, False, True, True]
    assert kept.next_states[:, 1].tolist() == [1, 2, 3, 4, 1, 2, 1]
    assert kept.actions[4:6, 0].tolist() == pytest.approx([0.1, 0.11])


def test_a_rollout_stops_when_all_have_ended() -> None:
    found = rollout(Planner(), Counting(), torch.tensor([[2], [1]]), horizon=50)
    assert found.valid.shape == (2, 2)


def test_the_model_as_a_world() -> None:
    dynamics, starts = build(CONFIG, 3, 1), randn(5, 2, 3)
    world = ModelSimulator(
        dynamics, starts, lambda s: s[:, 0] > 100, torch.Generator().manual_seed(1)
    )
    past = world.reset_to(torch.tensor([3, 1]))
    assert torch.equal(past, starts[[3, 1]])
    actions = randn(2, 1)
    reached, _, ended = world.step(actions, torch.tensor([True, False]))
    expected, _ = dynamics.step(past[:, -1], actions, torch.Generator().manual_seed(1))
    assert torch.equal(reached[0], expected[0])
    assert torch.equal(reached[1], past[1, -1])
    assert not ended.any()
    assert (world.steps, world.resets) == (1, 2)


def test_open_loop_errors_of_the_simple_predictors() -> None:
    """On straight lines constant velocity is exact and persistence is off by j steps."""
    start, velocity = randn(6, 1, 3), randn(6, 1, 3, seed=1)
    times = torch.arange(-1.0, 5.0).view(1, -1, 1)
    path = start + velocity * times
    errors = open_loop_errors(build(CONFIG, 3, 1), path[:, :2], randn(6, 4, 1), path[:, 2:])
    torch.testing.assert_close(errors.constant_velocity, torch.zeros(4), atol=1e-6, rtol=0)
    expected = velocity.square().mean() * torch.arange(1.0, 5.0).square()
    torch.testing.assert_close(errors.persistence, expected)


def test_open_loop_error_feeds_predictions_back() -> None:
    model = build(CONFIG, 3, 1)
    past, actions, future = LinearGaussian().sequences(8, 3)
    first, _ = model.predict(past[:, -1], actions[:, 0])
    second, _ = model.predict(first, actions[:, 1])
    errors = open_loop_errors(model, past, actions, future[:, :2]).model
    torch.testing.assert_close(errors[0], (first - future[:, 0]).square().mean())
    torch.testing.assert_close(errors[1], (second - future[:, 1]).square().mean())


def test_open_loop_error_needs_two_states_and_all_actions() -> None:
    model = build(CONFIG, 3, 1)
    past, actions, future = LinearGaussian().sequences(8, 3)
    with pytest.raises(UsageError, match="T_o"):
        open_loop_errors(model, past[:, 1:], actions, future)
    with pytest.raises(UsageError, match="actions"):
        open_loop_errors(model, past, actions[:, :2], future)


def test_golden() -> None:
    dynamics, generator = build(CONFIG, 3, 1), torch.Generator().manual_seed(0)
    world = ModelSimulator(dynamics, randn(4, 2, 3), lambda s: s[:, 0] > 0.3, generator)
    found = rollout(Planner(), world, torch.tensor([[0, 1, 2], [3, 1, 0]]), 5, generator)
    errors = open_loop_errors(dynamics, *LinearGaussian().sequences(20, 3))
    tensors = {
        "next_states": found.next_states.where(found.valid.unsqueeze(-1), 0.0),
        "rewards": found.rewards.where(found.valid, 0.0), "lengths": found.lengths(),
        "model": errors.model, "persistence": errors.persistence,
        "constant_velocity": errors.constant_velocity,
    }  # fmt: skip
    check_golden("rollouts", tensors, rollouts.REVISION)
