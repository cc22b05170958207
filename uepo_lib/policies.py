"""What can act: one ``act`` for every policy, and the Gaussian policy.

A policy maps standardised state windows (n, B, T_o, S) to action chunks (n, B, T_a, A) in [-1, 1];
n counts the members that a policy runs side by side, 1 for an ordinary one.

    past states          now
    s_{t-T_o+1} ... s_t   |  a_t  a_{t+1} ... a_{t+T_a-1} | replan
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from uepo_lib.errors import check
from uepo_lib.networks import ACTIVATIONS, mlp, orthogonal_

REVISION = 1
LOG_2PI = math.log(2 * math.pi)
SQUASHED_LOG_STD = (-20.0, 2.0)
"""stable-baselines3's bounds of the log standard deviation before a tanh."""


class Policy(Protocol):
    """What evaluation, AM-Q and data collection need of a policy."""

    @property
    def n(self) -> int: ...
    @property
    def obs_horizon(self) -> int: ...
    @property
    def action_horizon(self) -> int: ...

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standardised windows (n, B, T_o, S) -> actions (n, B, T_a, A) in [-1, 1]."""
        ...


@dataclass(frozen=True)
class GaussianConfig:
    """A diagonal Gaussian over a chunk of actions."""

    state_dim: int
    action_dim: int
    obs_horizon: int = 1
    action_horizon: int = 1
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "relu"
    state_dependent_std: bool = True
    """True: Uni-O4's network, mean and log-std through a tanh; False: PPO's usual free log-std."""
    log_std_range: tuple[float, float] = (-5.0, 0.0)
    initial_log_std: float = 0.0

    def __post_init__(self) -> None:
        for name in ("state_dim", "action_dim", "obs_horizon", "action_horizon"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        widths = all(width > 0 for width in self.hidden)
        check(widths, "hidden", self.hidden, "positive layer widths")
        known = self.activation in ACTIVATIONS
        check(known, "activation", self.activation, f"one of {sorted(ACTIVATIONS)}")
        low, high = self.log_std_range
        check(low < high, "log_std_range", self.log_std_range, "(low, high) with low < high")


class GaussianPolicy(nn.Module):
    """N(μ(s), diag σ²): plain normal, no squashing; actions are clipped where they are executed.

    The same object serves cloning, offline and online PPO, so nothing changes at a switch.
    """

    n = 1

    def __init__(self, config: GaussianConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        outputs = config.action_horizon * config.action_dim
        heads = 2 * outputs if config.state_dependent_std else outputs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inputs = config.obs_horizon * config.state_dim
            self.body = mlp([inputs, *config.hidden, heads], config.activation)
            orthogonal_(self.body)
        if not config.state_dependent_std:
            self.log_std = nn.Parameter(torch.full((outputs,), config.initial_log_std))

    @property
    def obs_horizon(self) -> int:
        return self.config.obs_horizon

    @property
    def action_horizon(self) -> int:
        return self.config.action_horizon

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (..., T_o, S) -> mean and log-std, each (..., T_a, A)."""
        shape = (*states.shape[:-2], self.config.action_horizon, self.config.action_dim)
        out = self.body(states.flatten(-2))
        if not self.config.state_dependent_std:
            return out.reshape(shape), self.log_std.expand_as(out).reshape(shape)
        mean, squashed = out.tanh().chunk(2, dim=-1)
        low, high = self.config.log_std_range
        log_std = low + 0.5 * (squashed + 1) * (high - low)
        return mean.reshape(shape), log_std.reshape(shape)

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean without a generator, a sample with one."""
        with torch.no_grad():
            if generator is None:
                return self(states)[0].clamp(-1, 1)
            return self.sample(states, generator).clamp(-1, 1)

    def sample(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """An unclipped sample (..., T_a, A): the *path* that :meth:`path_log_prob` scores."""
        mean, log_std = self(states)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + log_std.exp() * noise

    def log_prob(self, states: Tensor, actions: Tensor) -> Tensor:
        """log π(a|s) summed over the chunk, in nats: (...)."""
        mean, log_std = self(states)
        return normal_log_prob(actions, mean, log_std).sum((-2, -1))

    # What ppo.py asks of an actor: a path (here, the unclipped action) and its log-probability
    # per level (here, one). The denoising chain has one level per reverse step.

    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions = self.sample(states, generator)
        return actions, actions

    def path_log_prob(self, states: Tensor, path: Tensor) -> Tensor:
        """(N, T_o, S), (N, T_a, A) -> (N, 1)."""
        return self.log_prob(states, path).unsqueeze(-1)

    def path_kl(self, other: GaussianPolicy, states: Tensor, path: Tensor) -> Tensor:
        """KL(self ‖ other) in nats: (N, 1); ``path`` is for policies of several levels."""
        terms = normal_kl(*self(states), *other(states))
        return terms.sum((-2, -1)).unsqueeze(-1)

    def entropy(self, states: Tensor) -> Tensor:
        """Entropy in nats of the chunk's distribution: (...)."""
        log_std = self(states)[1]
        return (log_std + 0.5 * (1 + LOG_2PI)).sum((-2, -1))


class SquashedGaussian(nn.Module):
    """tanh of N(μ(s), diag σ(s)²), one action a decision; noise-free it is the tanh of the mean.

    Its parts have the names of those of stable-baselines3's actor, whose weights it takes.
    """

    n = obs_horizon = action_horizon = 1

    def __init__(self, state_dim: int, action_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.latent_pi = mlp([state_dim, *hidden]).append(nn.ReLU())
        self.mu, self.log_std = (nn.Linear(hidden[-1], action_dim) for _ in range(2))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (..., T_o, S) -> mean and log-std before the tanh, each (..., 1, A)."""
        features = self.latent_pi(states[..., -1:, :])
        return self.mu(features), self.log_std(features).clamp(*SQUASHED_LOG_STD)

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The tanh of the mean without a generator, of a sample with one."""
        if generator is None:
            return self(states)[0].tanh()
        return self.sample_path(states, generator)[0]

    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """-> actions, and as the path what they were before the tanh."""
        mean, log_std = self(states)
        path = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
        return path.tanh(), path

    def path_kl(self, other: SquashedGaussian, states: Tensor, path: Tensor) -> Tensor:
        """KL(self ‖ other) in nats, (N, 1): the tanh is one to one, so it changes nothing."""
        return normal_kl(*self(states), *other(states)).sum((-2, -1)).unsqueeze(-1)


class Together:
    """Policies of one kind side by side, member i in its own states: what AM-Q takes for n."""

    def __init__(self, members: Sequence[Policy]) -> None:
        check(len(members) > 0, "members", "none", "at least one policy")
        alike = {(m.n, m.obs_horizon, m.action_horizon) for m in members}
        valid = "policies of one member, with equal T_o and T_a"
        check(len(alike) == 1 and members[0].n == 1, "members", sorted(alike), valid)
        self.members = list(members)
        self.n = len(self.members)
        self.obs_horizon = members[0].obs_horizon
        self.action_horizon = members[0].action_horizon

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, B, T_o, S) -> (n, B, T_a, A)."""
        parts = zip(self.members, states.split(1), strict=True)
        return torch.cat([member.act(own, generator) for member, own in parts])


def normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Elementwise log N(x; mean, exp(log_std)²)."""
    return -0.5 * ((x - mean) * (-log_std).exp()).square() - log_std - 0.5 * LOG_2PI


def normal_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """Elementwise KL(N(mean, exp(log_std)²) ‖ N(other_mean, exp(other_log_std)²))."""
    spread = (2 * (log_std - other_log_std)).exp()
    shift = ((mean - other_mean) * (-other_log_std).exp()).square()
    return 0.5 * (spread + shift - 1) + other_log_std - log_std
