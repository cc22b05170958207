"""Trajectories in T̂ or in the simulator: under a policy, or along actions that were logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from uepo_lib.datasets import Batch, Dataset, Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check

if TYPE_CHECKING:
    from uepo_lib.policies import Policy

REVISION = 1


class Simulator(Protocol):
    """B copies of a world that can be put back into start states of D, and that counts its use."""

    steps: int
    """Steps made so far, active rows only."""
    resets: int
    """Rows reset so far."""

    def reset_to(self, indices: Tensor) -> Tensor:
        """Row b into start ``indices[b]``: (B,) -> what a policy has seen by then (B, T_o, S)."""

    def step(self, actions: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, A), (B,) bool -> next states (B, S), rewards (B,), terminated (B,) bool.

        Rows that are not active stay where they are, cost no step, and return their last state.
        """


class ModelSimulator:
    """T̂ as a world: ``starts`` (M, T_o, S), and the task's termination on standardised states."""

    def __init__(
        self,
        dynamics: DynamicsModel,
        starts: Tensor,
        terminated: Callable[[Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        self.dynamics, self.starts = dynamics, starts
        self.terminated, self.generator = terminated, generator
        self.steps = self.resets = 0

    def reset_to(self, indices: Tensor) -> Tensor:
        past = self.starts[indices]
        self.states = past[:, -1]
        self.resets += len(indices)
        return past

    def step(self, actions: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reached, rewards = self.dynamics.step(self.states, actions, self.generator)
        self.states = torch.where(active.unsqueeze(-1), reached, self.states)
        self.steps += int(active.sum())
        return self.states, rewards, self.terminated(self.states)


@dataclass(frozen=True)
class Trajectories:
    """R trajectories of at most H steps; ``valid`` (R, H) is false after a trajectory's end."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor
    terminated: Tensor
    valid: Tensor

    def lengths(self) -> Tensor:
        """Steps made, (R,) long, at least one each."""
        return self.valid.sum(1)

    def transitions(self, keep: Tensor) -> Transitions:
        """The steps of those trajectories that ``keep`` (R,) names, one after another."""
        rows = self.valid & keep.unsqueeze(1)
        columns = (self.states, self.actions, self.rewards, self.next_states, self.terminated)
        return Transitions(*(column[rows] for column in columns))


@torch.no_grad()
def rollout(
    policy: Policy,
    simulator: Simulator,
    indices: Tensor,
    horizon: int,
    generator: torch.Generator | None = None,
) -> Trajectories:
    """Every sub-policy from its own starts, in receding horizon: plan, execute T_a, plan again.

    ``indices`` (n, B) are starts; the trajectories come in the order of ``indices.T``, so that any
    prefix holds all sub-policies alike.
    """
    shape = indices.shape
    window = simulator.reset_to(indices.flatten()).unflatten(0, shape)
    active = torch.ones(indices.numel(), dtype=torch.bool, device=window.device)
    rows: list[tuple[Tensor, ...]] = []
    for t in range(horizon):
        phase = t % policy.action_horizon
        if phase == 0:
            plan = policy.act(window, generator).clamp(-1.0, 1.0)
        states, actions = window[:, :, -1].flatten(0, 1), plan[:, :, phase].flatten(0, 1)
        next_states, rewards, ended = simulator.step(actions, active)
        rows.append((states, actions, rewards, next_states, ended, active))
        active = active & ~ended
        if not active.any():
            break
        window = torch.cat([window[:, :, 1:], next_states.unflatten(0, shape).unsqueeze(2)], 2)
    columns = [torch.stack(column, 1) for column in zip(*rows, strict=True)]
    order = torch.arange(indices.numel(), device=window.device).view(shape).T.flatten()
    return Trajectories(*(column[order] for column in columns))


def logged_sequences(dataset: Dataset, steps: Tensor | None, count: int, ahead: int) -> Batch:
    """Real sequences with s_{t−1}, s_t and ``ahead`` states after: at most ``count`` of those that
    begin in ``steps`` (anywhere, if None) and not at an episode's first state."""
    windows = dataset.windows(2, ahead + 1)
    usable = windows.now > windows.first
    if steps is not None:
        usable &= torch.isin(windows.now, steps)
    index = usable.nonzero().flatten()
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    return windows.batch(index[order[:count]])


@dataclass(frozen=True)
class OpenLoopErrors:
    """Mean squared error in standardised units after 1 .. k steps, each (k,)."""

    model: Tensor
    persistence: Tensor
    constant_velocity: Tensor


@torch.no_grad()
def open_loop_errors(
    model: DynamicsModel, past: Tensor, actions: Tensor, future: Tensor
) -> OpenLoopErrors:
    """Feed T̂ its own predictions along logged actions, beside two predictors that know no physics.

    ``past`` (M, T_o ≥ 2, S) ends with s_t, ``actions`` (M, ≥ k, A) start at a_t, ``future``
    (M, k, S) starts at s_{t+1}. Persistence says s_{t+j} = s_t, constant velocity
    s_{t+j} = s_t + j (s_t − s_{t−1}). Index 0 is the one-step error.

    Raises ``UsageError`` if ``past`` has fewer than two states or ``actions`` fewer than k.
    """
    steps = future.shape[1]
    check(past.shape[1] >= 2, "past", tuple(past.shape), "(M, T_o, S) with T_o ≥ 2")
    check(actions.shape[1] >= steps, "actions", tuple(actions.shape), f"≥ {steps} steps long")
    now, velocity = past[:, -1], past[:, -1] - past[:, -2]
    state, rollout = now, []
    for j in range(steps):
        state, _ = model.predict(state, actions[:, j])
        rollout.append(state)
    ahead = torch.arange(1, steps + 1, device=now.device).view(1, -1, 1)

    def error(guess: Tensor) -> Tensor:
        return (guess - future).square().mean((0, 2))

    return OpenLoopErrors(
        model=error(torch.stack(rollout, 1)),
        persistence=error(now.unsqueeze(1).expand_as(future)),
        constant_velocity=error(now.unsqueeze(1) + ahead * velocity.unsqueeze(1)),
    )
