"""A dataset in memory: a normaliser, transitions, and sequence windows.

Everything that learns sees states standardised by the dataset's mean and std and actions in [-1,
1], both float32. Nothing here crosses the end of an episode; ``terminated`` (the task ended, no
future value) and ``truncated`` (the clock ran out) stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib.errors import UsageError, check
from uepo_lib.specs import DatasetKey
from uepo_lib.tasks import Task

REVISION = 1


@dataclass(frozen=True)
class Normaliser:
    """Standardises states: (x − mean) / std. ``mean`` and ``std`` are (S,) float32."""

    mean: Tensor
    std: Tensor

    def __call__(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.std

    def inverse(self, states: Tensor) -> Tensor:
        return states * self.std + self.mean

    def tensors(self) -> dict[str, Tensor]:
        """For a run's artefact."""
        return {"normaliser.mean": self.mean, "normaliser.std": self.std}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Normaliser:
        return cls(tensors["normaliser.mean"], tensors["normaliser.std"])


@dataclass(frozen=True)
class Transitions:
    """N single steps, none across an episode's end."""

    states: Tensor
    """(N, S) standardised."""
    actions: Tensor
    """(N, A) in [-1, 1]."""
    rewards: Tensor
    """(N,) raw."""
    next_states: Tensor
    """(N, S) standardised; at an episode's last step the state it ended in."""
    terminated: Tensor
    """(N,) bool."""

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: Tensor | slice) -> Transitions:
        return Transitions(*(t[index] for t in self.tensors()))

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.states, self.actions, self.rewards, self.next_states, self.terminated)

    def named(self) -> dict[str, Tensor]:
        """For a run's artefact; ``Transitions(**named)`` reads it back."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def join(*parts: Transitions) -> Transitions:
        """All rows of all parts, in order."""
        columns = zip(*(part.tensors() for part in parts), strict=True)
        return Transitions(*(torch.cat(column) for column in columns))


class Batch(NamedTuple):
    """What a policy of action sequences learns from."""

    past: Tensor
    """(B, T_o, S) s_{t-T_o+1} .. s_t; before an episode's start its first state is repeated."""
    actions: Tensor
    """(B, T, A) a_t .. a_{t+T-1}."""
    future: Tensor
    """(B, T−1, S) s_{t+1} .. s_{t+T-1}."""


class Windows:
    """All windows of T actions that lie inside one episode, with the T_o states before them."""

    def __init__(self, dataset: Dataset, obs_horizon: int, horizon: int) -> None:
        check(obs_horizon > 0, "obs_horizon", obs_horizon, "a positive integer")
        check(horizon > 0, "horizon", horizon, "a positive integer")
        self.obs_horizon, self.horizon = obs_horizon, horizon
        self.states, self.actions = dataset.states, dataset.actions
        starts = [
            torch.arange(begin, end - horizon + 1)
            for begin, end in dataset.bounds.tolist()
            if end - begin >= horizon
        ]
        if not starts:
            longest = int((dataset.bounds[:, 1] - dataset.bounds[:, 0]).max())
            valid = f"at most {longest}, the longest episode's length"
            raise UsageError(f"horizon={horizon}: must be {valid}")
        self.now = torch.cat(starts)
        """(M,) index of s_t, a_t in the dataset's flat arrays."""
        self.first = dataset.first_step[self.now]

    def __len__(self) -> int:
        return len(self.now)

    def batch(self, index: Tensor) -> Batch:
        """Windows ``index`` (B,) long."""
        now, first = self.now[index, None], self.first[index, None]
        back = (now + torch.arange(1 - self.obs_horizon, 1)).maximum(first)
        ahead = now + torch.arange(self.horizon)
        return Batch(self.states[back], self.actions[ahead], self.states[ahead[:, 1:]])

    def past(self, index: Tensor) -> Tensor:
        """Only the states a policy sees: (B, T_o, S)."""
        now, first = self.now[index, None], self.first[index, None]
        return self.states[(now + torch.arange(1 - self.obs_horizon, 1)).maximum(first)]


@dataclass(frozen=True)
class Dataset:
    """One dataset in memory: flat arrays over all episodes, in the dataset's order."""

    task: Task
    key: DatasetKey
    normaliser: Normaliser
    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor
    terminated: Tensor
    bounds: Tensor
    """(episodes, 2): first step and one past the last step of each."""
    simulator_states: Tensor | None
    """(N, nq + nv + scene) float64 before each step, as :meth:`Robot.restore_logged` takes them;
    None where the dataset does not hold them."""
    metadata: dict[str, Any]
    """The recipe, the versions, and whatever else was written beside the data."""
    labels: dict[str, Tensor] = field(default_factory=dict)
    """(episodes,) integers that an episode was labelled with, as a maze's route."""

    def __len__(self) -> int:
        return len(self.states)

    @property
    def first_step(self) -> Tensor:
        """(N,) index of the first step of each step's episode."""
        lengths = self.bounds[:, 1] - self.bounds[:, 0]
        return self.bounds[:, 0].repeat_interleave(lengths)

    def episode_returns(self, complete_only: bool = True) -> NDArray[np.float64]:
        """Undiscounted returns; by default of the episodes that were played to their end."""
        limit = self.task.robot.max_episode_steps
        kept = []
        for begin, end in self.bounds.tolist():
            if not complete_only or bool(self.terminated[end - 1]) or end - begin >= limit:
                kept.append(float(self.rewards[begin:end].double().sum()))
        return np.array(kept)

    def transitions(self) -> Transitions:
        return Transitions(
            self.states, self.actions, self.rewards, self.next_states, self.terminated
        )

    def restandardised(self, normaliser: Normaliser) -> Dataset:
        """The same data, its states standardised as those of another."""
        states, next_states = (
            normaliser(self.normaliser.inverse(x)) for x in (self.states, self.next_states)
        )
        return replace(self, normaliser=normaliser, states=states, next_states=next_states)

    def windows(self, obs_horizon: int, horizon: int) -> Windows:
        return Windows(self, obs_horizon, horizon)

    def split(self, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Indices of steps (kept, held out); whole episodes are held out, about ``fraction``."""
        check(0 < fraction < 1, "fraction", fraction, "between 0 and 1")
        check(len(self.bounds) > 1, "episodes", len(self.bounds), "at least 2, to hold one out")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.bounds), generator=generator)
        lengths = (self.bounds[:, 1] - self.bounds[:, 0])[order]
        held = order[: max(1, int((lengths.cumsum(0) <= fraction * len(self)).sum()))]
        mask = torch.zeros(len(self.bounds), dtype=torch.bool)
        mask[held] = True
        steps = mask.repeat_interleave(self.bounds[:, 1] - self.bounds[:, 0])
        return (~steps).nonzero().flatten(), steps.nonzero().flatten()

    def halve(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """``steps`` of whole episodes as two halves, (choosing, testing), that share no episode.

        In the data's order every episode goes to the half that has fewer steps so far, so that both
        hold early and late ones. Of a single episode the first half of its steps chooses and the
        second tests. Raises ``UsageError`` for less than two steps.
        """
        check(len(steps) > 1, "steps", len(steps), "at least 2, to halve them")
        held = torch.isin(self.bounds[:, 0], steps).nonzero().flatten().tolist()
        if len(held) == 1:
            return steps[: len(steps) // 2], steps[len(steps) // 2 :]
        halves: tuple[list[Tensor], list[Tensor]] = [], []
        sizes = [0, 0]
        for episode in held:
            begin, end = self.bounds[episode].tolist()
            smaller = int(sizes[1] < sizes[0])
            halves[smaller].append(torch.arange(begin, end))
            sizes[smaller] += end - begin
        return torch.cat(halves[0]), torch.cat(halves[1])
