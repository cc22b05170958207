r"""Offline PPO: improve a policy on the states of D, and accept it only where AM-Q says so.

$$\max_\pi\; \mathbb{E}_{s \sim D,\, a \sim \pi_{old}}\big[\min(\rho A,\;
\mathrm{clip}(\rho, 1 - c, 1 + c)\, A)\big], \qquad \rho = \pi(a|s) / \pi_{old}(a|s)$$

π_old is the last policy that was accepted: every so often a policy whose AM-Q beats that of its
π_old takes its place. Source: Uni-O4 (arXiv 2311.03351, section 4) and Behaviour PPO (arXiv
2302.11312). Gaussians and denoising chains improve by the same lines (A13): all that PPO knows of
a policy is the likelihood of its path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from uepo_lib.datasets import Normaliser
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.policies import Policy, Together
from uepo_lib.ppo import Actor, clipped_objective
from uepo_lib.robots import Robot
from uepo_lib.training import (
    GeneratorState,
    Metrics,
    Recorder,
    Stateful,
    Value,
    descend_clipped,
    fit,
)
from uepo_lib.values import Critic

REVISION = 1

Advantage = Callable[[Tensor, Tensor], Tensor]
"""Standardised windows (B, T_o, S) and executed actions (B, T_a, A) -> (B,)."""
Scores = Callable[[Policy], Tensor]
"""A policy of n members -> what each is worth from each of the same starts, (n, starts)."""


@dataclass(frozen=True)
class OfflinePPOConfig:
    """Uni-O4's settings for the Gym tasks; Adroit has a learning rate of 1e-5.

    Uni-O4 lets the clip range fall for 200 updates of 10,000, from 0.25 to 0.245, and accepts any
    policy that scores higher. ``margin`` counts standard errors of the difference over paired
    starts: 0 is as published, and takes luck for progress every other time.
    """

    num_updates: int = 10_000
    batch_size: int = 512
    learning_rate: float = 1e-4  # falls to 0 linearly
    clip_range: float = 0.25
    max_grad_norm: float = 0.5
    evaluate_every: int = 100
    margin: float = 2.0

    def __post_init__(self) -> None:
        for name in ("num_updates", "batch_size", "evaluate_every"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.margin >= 0, "margin", self.margin, "0 or more standard errors")


class Improvable(Actor, Policy, Protocol):
    """One policy that acts noise-free, explores, and scores what it explored."""


class StartStates(Protocol):
    """The states of D that policies improve on; ``datasets.Windows`` holds them."""

    def __len__(self) -> int: ...

    def past(self, index: Tensor, /) -> Tensor:
        """Windows ``index`` (B,): (B, T_o, S)."""


@dataclass(frozen=True)
class Look:
    """One comparison by AM-Q, all by member."""

    update: int
    scores: list[float]
    accepted: list[bool]


def one_step_advantage(critic: Critic) -> Advantage:
    """min Q(s, a) − V(s) of the first action: what Uni-O4 climbs, for T_a = 1."""

    def advantage(windows: Tensor, actions: Tensor) -> Tensor:
        return critic.advantage(windows[:, -1], actions[:, 0].clamp(-1, 1))

    return advantage


def chunk_advantage(
    critic: Critic,
    dynamics: DynamicsModel,
    robot: Robot,
    normaliser: Normaliser,
    discount: float,
) -> Advantage:
    """Σ_{k<T_a} γ^k r̂_k + γ^{T_a} V(ŝ_{T_a}) − V(s), through the mean of T̂ (A13).

    ``discount`` γ is the one that V was learnt with. An imagined end stops both the rewards and the
    value behind it.
    """

    def advantage(windows: Tensor, actions: Tensor) -> Tensor:
        states, alive = windows[:, -1], torch.ones(len(windows), dtype=torch.bool)
        total = -critic.v(states)
        for k in range(actions.shape[1]):
            states, rewards = dynamics.predict(states, actions[:, k].clamp(-1, 1))
            total = total + discount**k * rewards.where(alive, 0.0)
            alive = alive & states.isfinite().all(-1)
            alive = alive & ~robot.terminated(normaliser.inverse(states))
        return total + discount ** actions.shape[1] * critic.v(states).where(alive, 0.0)

    return advantage


def accepted(new: Tensor, old: Tensor, margin: float) -> Tensor:
    """Which members are better by ``margin`` standard errors: two (n, starts) -> (n,) bool."""
    gain = new - old
    error = gain.std(dim=1, correction=min(1, gain.shape[1] - 1)) / gain.shape[1] ** 0.5
    return gain.mean(dim=1) > margin * error


class OfflinePPO:
    """n policies that improve side by side, each from its own π_old on the same states."""

    def __init__(
        self,
        config: OfflinePPOConfig,
        members: Sequence[nn.Module],
        states: StartStates,
        advantage: Advantage,
        scores: Scores,
        generator: torch.Generator,
    ) -> None:
        self.config, self.states = config, states
        self.advantage, self.scores, self.generator = advantage, scores, generator
        self.members = nn.ModuleList(deepcopy(m) for m in members)
        self.accepted = nn.ModuleList(deepcopy(m).requires_grad_(False) for m in members)
        self.optimisers = [_optimiser(m, config.learning_rate) for m in self.members]
        self.best = Value(None)
        self.looks = Value([])

    def parts(self) -> dict[str, Stateful]:
        """Everything that :func:`training.fit` must keep to resume bit for bit."""
        return {
            "members": self.members,
            "accepted": self.accepted,
            "best": self.best,
            "looks": self.looks,
            "generator": GeneratorState(self.generator),
            **{f"optimiser {i}": optimiser for i, optimiser in enumerate(self.optimisers)},
        }

    def update(self, step: int) -> Metrics:
        """One gradient step of every member, and a look where one is due."""
        if self.best.value is None:
            self.best.value = self._scores_of(self.accepted)
        left = 1 - step / self.config.num_updates
        size = (self.config.batch_size,)
        index = torch.randint(len(self.states), size, generator=self.generator)
        windows = self.states.past(index)
        kls = []
        for member, old, optimiser in zip(
            self.members, self.accepted, self.optimisers, strict=True
        ):
            optimiser.param_groups[0]["lr"] = left * self.config.learning_rate
            kls.append(self._improve(member, old, optimiser, windows))
        if (step + 1) % self.config.evaluate_every == 0:
            self._look(step + 1)
        replaced = sum(sum(look["accepted"]) for look in self.looks.value)
        return {"kl": torch.stack(kls).mean(), "replaced": float(replaced)}

    def _improve(
        self, member: Any, old: Any, optimiser: torch.optim.Optimizer, windows: Tensor
    ) -> Tensor:
        """One step up the clipped objective; returns the KL from π_old in nats a level."""
        with torch.no_grad():
            actions, path = old.sample_path(windows, self.generator)
            before = old.path_log_prob(windows, path)
            gain = self.advantage(windows, actions)
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        now = member.path_log_prob(windows, path)
        objective = clipped_objective(now, before, gain.unsqueeze(-1), self.config.clip_range)
        descend_clipped(-objective, optimiser, self.config.max_grad_norm)
        ratio = (now - before).detach()
        return (ratio.exp() - 1 - ratio).mean()

    def _look(self, update: int) -> None:
        found = self._scores_of(self.members)
        better = accepted(found, self.best.value, self.config.margin)
        for i in better.nonzero().flatten().tolist():
            self.accepted[i].load_state_dict(self.members[i].state_dict())
            self.best.value[i] = found[i]
        look = {"update": update, "scores": found.mean(1).tolist(), "accepted": better.tolist()}
        self.looks.value = [*self.looks.value, look]

    def _scores_of(self, members: nn.ModuleList) -> Tensor:
        return self.scores(Together(list(members)))  # type: ignore[arg-type]


def _optimiser(member: nn.Module, rate: float) -> torch.optim.Optimizer:
    learned = [p for p in member.parameters() if p.requires_grad]
    check(len(learned) > 0, "members", "a frozen policy", "policies with parameters to train")
    return torch.optim.Adam(learned, rate, fused=True)


def improve_offline(
    config: OfflinePPOConfig,
    members: Sequence[nn.Module],
    states: StartStates,
    advantage: Advantage,
    scores: Scores,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> tuple[list[nn.Module], list[Look]]:
    """The accepted policies, frozen, in the order of ``members``, and every comparison made.

    ``members`` are :class:`Improvable` modules; they are copied. Offline throughout: no
    environment is stepped. A member that was never beaten by its own successors comes back as it
    was, bit for bit.
    """
    check(len(members) > 0, "members", "none", "at least one policy")
    trainer = OfflinePPO(
        config, members, states, advantage, scores, torch.Generator().manual_seed(seed)
    )
    fit(
        config.num_updates, trainer.update, trainer.parts(), recorder=recorder,
        name="offline PPO", log_every=config.evaluate_every, progress=progress,
    )  # fmt: skip
    return [*trainer.accepted], [Look(**look) for look in trainer.looks.value]
