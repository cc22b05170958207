r"""The dynamics model T̂: an ensemble of Gaussian networks fitted by maximum likelihood.

$$\hat T_e(s', r \mid s, a) = \mathcal{N}\big((s + \Delta s, r);\ \mu_e(s, a),\ \Sigma_e(s, a)\big),
\qquad L(\hat T) = -\mathbb{E}\,[\log \hat T(s', r \mid s, a)]$$

T̂_init is fitted to D, and T̂ to D ∪ D_diff (the paper's contribution 3). Architecture and
stopping rule are Uni-O4's (arXiv 2311.03351): probabilistic networks with learned log-variance
bounds (PETS, arXiv 1805.12114), the best of them, the *elites*, kept for prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from uepo_lib.errors import check
from uepo_lib.networks import EnsembleLinear, ensemble_mlp

if TYPE_CHECKING:
    from uepo_lib.datasets import Transitions

REVISION = 2

ROWS_AT_ONCE = 4096
"""Bounds the memory of a pass over a whole dataset."""


@dataclass(frozen=True)
class DynamicsConfig:
    """The ensemble and its training; sizes, decay and stopping rule are Uni-O4's for the Gym tasks.

    ``learning_rate`` falls to zero along a cosine over ``max_updates``. Uni-O4 keeps 1e-3 for many
    more updates; within 6,000 updates the larger rate left a sixth of the one-step error on Hopper,
    and every profile keeps it, ``paper`` too.
    ``weight_decay`` goes from the first layer to the last. Uni-O4 adds λ/2 ‖W‖² to the loss under
    Adam; here the same λ is decoupled (AdamW) and by itself takes 0.15 % off a weight at most over
    these 6,000 updates: hardly a decay. Every ``check_every`` updates the held-out error of each
    member is measured; training stops when no member has improved by the fraction
    ``min_improvement`` for ``patience`` checks (``None``: never, which gives models that are
    compared the same number of gradient steps).
    """

    num_members: int = 7
    num_elites: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    learning_rate: float = 5e-3
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    bound_coefficient: float = 0.01
    batch_size: int = 256
    max_updates: int = 6_000
    check_every: int = 300
    patience: int | None = 5
    min_improvement: float = 0.01

    def __post_init__(self) -> None:
        for name in ("num_members", "learning_rate", "batch_size", "max_updates", "check_every"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        elites, layers, patience = self.num_elites, len(self.hidden) + 1, self.patience
        valid = f"from 1 to num_members={self.num_members}"
        check(0 < elites <= self.num_members, "num_elites", elites, valid)
        check(layers > 1 and min(self.hidden) > 0, "hidden", self.hidden, "positive layer widths")
        valid = f"{layers} values ≥ 0, one a layer for hidden={self.hidden}"
        fits = len(self.weight_decay) == layers and min(self.weight_decay) >= 0
        check(fits, "weight_decay", self.weight_decay, valid)
        check(self.bound_coefficient >= 0, "bound_coefficient", self.bound_coefficient, "≥ 0")
        check(patience is None or patience > 0, "patience", patience, "positive, or None for never")
        check(0 <= self.min_improvement < 1, "min_improvement", self.min_improvement, "in [0, 1)")


def decay_for(hidden: Sequence[int]) -> tuple[float, ...]:
    """``weight_decay`` for these layer widths: from Uni-O4's of the first layer to Uni-O4's of the
    last in even steps, whatever the number of layers."""
    return tuple(round(d, 7) for d in torch.linspace(2.5e-5, 1e-4, len(hidden) + 1).tolist())


class DynamicsModel(nn.Module):
    """E Gaussian networks over (Δs, r), the state change in standardised units and the raw reward.

    Inside, targets are divided by their spread in D, so that slow and fast coordinates weigh the
    same; everything public is in the units of the data. D = S + 1, the reward last.
    """

    target_shift: Tensor
    target_scale: Tensor
    elites: Tensor

    def __init__(self, cfg: DynamicsConfig, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.cfg, self.state_dim, self.action_dim = cfg, state_dim, action_dim
        members, outputs = cfg.num_members, state_dim + 1
        sizes = (state_dim + action_dim, *cfg.hidden, 2 * outputs)
        self.network = ensemble_mlp(members, sizes, "silu")
        self.max_logvar = nn.Parameter(torch.full((members, 1, outputs), 0.5))
        self.min_logvar = nn.Parameter(torch.full((members, 1, outputs), -10.0))
        self.register_buffer("target_shift", torch.zeros(outputs))
        self.register_buffer("target_scale", torch.ones(outputs))
        self.register_buffer("elites", torch.arange(cfg.num_elites))

    def forward(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of (Δs, r) by every member, in the units of the data.

        (E, B, S) and (E, B, A), or (B, S) and (B, A) for the same rows in all: two (E, B, D).
        """
        x = torch.cat([states, actions], -1)
        if x.dim() == 2:
            x = x.expand(self.cfg.num_members, -1, -1)
        return self._in_data_units(*self.scaled_moments(x))

    def scaled_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(E, B, S + A) to mean and bounded log-variance of the *scaled* target, (E, B, D) each."""
        mean, logvar = self.network(x).chunk(2, -1)
        return mean, _bounded(logvar, self.min_logvar, self.max_logvar)

    def _in_data_units(self, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.target_scale
        return mean * scale + self.target_shift, logvar + 2 * scale.log()

    def _one_member(self, member: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S + A) through one member only, (B, D) each: a rollout needs no more than that."""
        for layer in self.network:
            if isinstance(layer, EnsembleLinear):
                x = torch.addmm(layer.bias[member], x, layer.weight[member])
            else:
                x = layer(x)
        mean, logvar = x.chunk(2, -1)
        logvar = _bounded(logvar, self.min_logvar[member], self.max_logvar[member])
        return self._in_data_units(mean, logvar)

    def draw_elites(self, num_rows: int, generator: torch.Generator | None = None) -> Tensor:
        """A random elite for each row, (B,) long: what ``step`` takes as ``member``."""
        device = self.elites.device
        draw = torch.randint(len(self.elites), (num_rows,), generator=generator, device=device)
        return self.elites[draw]

    @torch.no_grad()
    def step(
        self,
        states: Tensor,
        actions: Tensor,
        generator: torch.Generator | None = None,
        member: Tensor | None = None,
        sample: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """One imagined step: (B, S), (B, A) -> next states (B, S), rewards (B,).

        ``member`` (B,) says which network moves which row; by default a random elite for each.
        ``sample=False`` takes its mean in place of a draw from its Gaussian.
        """
        x = torch.cat([states, actions], -1)
        if member is None:
            member = self.draw_elites(len(x), generator)
        change = x.new_empty(len(x), self.state_dim + 1)
        logvar = torch.empty_like(change)
        for e in member.unique().tolist():
            rows = (member == e).nonzero().squeeze(-1)
            change[rows], logvar[rows] = self._one_member(e, x[rows])
        if sample:
            noise = torch.randn(change.shape, generator=generator, device=change.device)
            change = change + (0.5 * logvar).exp() * noise
        return states + change[:, :-1], change[:, -1]

    @torch.no_grad()
    def moments(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Means and *variances* of (s', r) by each elite: (B, S), (B, A) -> two (elites, B, D)."""
        means, variances = [], []
        for s, a in zip(states.split(ROWS_AT_ONCE), actions.split(ROWS_AT_ONCE), strict=True):
            mean, logvar = self(s, a)
            mean = mean[self.elites]
            mean[..., :-1] += s
            means.append(mean)
            variances.append(logvar[self.elites].exp())
        return torch.cat(means, 1), torch.cat(variances, 1)

    @torch.no_grad()
    def predict(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over elites, the least-squares guess: next states (B, S), rewards (B,)."""
        mean = self.moments(states, actions)[0].mean(0)
        return mean[:, :-1], mean[:, -1]

    @torch.no_grad()
    def nll(self, transitions: Transitions) -> Tensor:
        """−log T̂(s', r | s, a) in nats, (N,): T̂ is the equal mixture that rollouts sample from."""
        mean, variance = self.moments(transitions.states, transitions.actions)
        target = torch.cat([transitions.next_states, transitions.rewards.unsqueeze(-1)], -1)
        log_prob = torch.distributions.Normal(mean, variance.sqrt()).log_prob(target).sum(-1)
        return math.log(len(mean)) - log_prob.logsumexp(0)


def _bounded(logvar: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Softly between two learned bounds, so that the variance stays sane off the data (PETS)."""
    logvar = high - softplus(high - logvar)
    return low + softplus(logvar - low)


def build(
    cfg: DynamicsConfig, state_dim: int, action_dim: int, seed: int = 0, device: str = "cpu"
) -> DynamicsModel:
    """An untrained ensemble, the same for the same seed; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DynamicsModel(cfg, state_dim, action_dim).to(device)
