"""Uni-O4's ensemble of cloned Gaussians, with its KL-style term in three forms (A5).

    J(π^i) = E_D[log p^i(a|s)] + α E_D[log( p^i(a|s) / max_j p^j(a|s) )]

is printed in UEPO (arXiv 2511.10087, contribution 2) and, for one action, in Uni-O4 (arXiv
2311.03351). Ascent on it with the other members held constant gives a sample the weight 1 where
member i explains it best and 1 + α elsewhere: :func:`printed_term` pulls members together. Uni-O4's
code detaches the maximum, so :func:`shipped_term` only scales the clone's gradient by 1 + α.
:func:`separating_term` is a form that separates: its mean on samples of the members is their
generalised Jensen-Shannon divergence, at most log n (Lin 1991).

Gaussians have a closed form for when it does. log p is linear in the natural parameters but for
the log-partition function, so that for equal members at the maximum of the likelihood the Hessians
of −E_D[log p] and of the divergence are the same Fisher information: equal members stop being a
local maximum at α = 1, whatever the data.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from uepo_lib.cloning import CloneConfig
from uepo_lib.diffusion import SequenceWindows
from uepo_lib.errors import check, unknown
from uepo_lib.networks import EnsembleLinear, ensemble_mlp
from uepo_lib.policies import GaussianConfig, GaussianPolicy, normal_log_prob
from uepo_lib.training import GeneratorState, Metrics, Recorder, descend, fit

REVISION = 1

Diversity = Literal["none", "printed", "shipped", "separating"]


# -- the three forms, over log-probabilities


def best_of_others(log_probs: Tensor) -> Tensor:
    """max_{j ≠ i} log p^j for n ≥ 2 members: (n, ...) -> (n, ...), in nats."""
    n = len(log_probs)
    check(n >= 2, "n", n, "at least 2 members to compare")
    itself = torch.eye(n, dtype=torch.bool, device=log_probs.device)
    itself = itself.view(n, n, *[1] * (log_probs.ndim - 1))
    return log_probs.expand(n, *log_probs.shape).masked_fill(itself, -math.inf).amax(dim=1)


def printed_term(log_probs: Tensor) -> Tensor:
    """log(p^i / max_j p^j) on data, j = i included: (n, B) -> (n, B), never positive.

    The gradient flows through the maximum; the other members are constants, as in maximising
    J(π^i) over π^i.
    """
    return log_probs - torch.maximum(log_probs, best_of_others(log_probs).detach())


def shipped_term(log_probs: Tensor) -> Tensor:
    """log p^i − max_{j ≠ i} log p^j on data, the maximum detached: (n, B) -> (n, B).

    As in ``BC_ensemble.py`` of Uni-O4's code. Its gradient is that of log p^i.
    """
    return log_probs - best_of_others(log_probs).detach()


def separating_term(own: Tensor, of_all: Tensor) -> Tensor:
    """log p^i(a) − log mean_j p^j(a) on samples a ~ π^i: (...), (n, ...) -> (...).

    ``of_all`` holds log p^j(a) of all members, ``own`` that of the one which a came from. Every
    entry is at most log n, since the mean holds p^i(a)/n.
    """
    return own - (of_all.logsumexp(dim=0) - math.log(len(of_all)))


ON_DATA = {"printed": printed_term, "shipped": shipped_term}
"""The forms that look at logged actions only."""


# -- n Gaussians in one batched network


class GaussianEnsemble(GaussianPolicy):
    """n Gaussian policies side by side; every method takes and gives (n, B, ...).

    Member 0 starts as ``GaussianPolicy(config, seed)``, the others from seeds of their own; the
    first m of n are those of m.
    """

    def __init__(self, config: GaussianConfig, n: int, seed: int = 0) -> None:
        check(n >= 1, "n", n, "a positive integer")
        super().__init__(config, seed)
        seeds = [zlib.crc32(f"member {i}/{seed}".encode()) for i in range(1, n)]
        members = [self.body, *(GaussianPolicy(config, s).body for s in seeds)]
        layers = [m for m in self.body if isinstance(m, nn.Linear)]
        sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        with torch.random.fork_rng(devices=[]):
            self.body = ensemble_mlp(n, sizes, config.activation)
        _stack(self.body, members)
        if not config.state_dependent_std:
            self.log_std = nn.Parameter(self.log_std.detach().repeat(n, 1, 1))
        self.n = n

    @classmethod
    def of(cls, policies: Sequence[GaussianPolicy]) -> GaussianEnsemble:
        """Ordinary policies of one configuration side by side; :meth:`select` gives them back."""
        check(len(policies) > 0, "policies", "none", "at least one")
        config = policies[0].config
        alike = all(p.config == config for p in policies)
        check(alike, "policies", "of several configurations", "of one configuration")
        made = cls(config, len(policies)).to(next(policies[0].parameters()))
        _stack(made.body, [p.body for p in policies])
        if not config.state_dependent_std:
            with torch.no_grad():
                made.log_std.copy_(torch.stack([p.log_std for p in policies])[:, None, None])
        return made

    def select(self, i: int) -> GaussianPolicy:
        """A copy of member i as an ordinary policy."""
        check(0 <= i < self.n, "i", i, f"in 0 .. {self.n - 1}")
        made = GaussianPolicy(self.config).to(next(self.parameters()))
        with torch.no_grad():
            for layer, plain in zip(self.body, made.body, strict=True):
                if isinstance(layer, EnsembleLinear) and isinstance(plain, nn.Linear):
                    plain.weight.copy_(layer.weight[i].T)
                    plain.bias.copy_(layer.bias[i, 0])
            if not self.config.state_dependent_std:
                made.log_std.copy_(self.log_std[i, 0])
        return made

    def log_prob_shared(self, states: Tensor, actions: Tensor) -> Tensor:
        """log p^i(a|s) of all members on the same (B, T_o, S), (B, T_a, A): (n, B), in nats."""
        return self.log_prob(states.expand(self.n, *states.shape), actions)

    def separation(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """:func:`separating_term` on one sample of each member a state (B, T_o, S): (n, B).

        The samples are reparameterised: the gradient flows through them too.
        """
        mean, log_std = self(states.expand(self.n, *states.shape))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        sampled = mean + log_std.exp() * noise
        of_all = normal_log_prob(sampled, mean[:, None], log_std[:, None]).sum((-2, -1))
        own = of_all.diagonal(dim1=0, dim2=1).movedim(-1, 0)  # of_all[j, i] is log p^j(a^i)
        return separating_term(own, of_all)

    @torch.no_grad()
    def js_divergence(
        self, states: Tensor, generator: torch.Generator, num_samples: int = 32
    ) -> Tensor:
        """Generalised Jensen-Shannon divergence in states (B, T_o, S): (B,) in nats.

        (1/n) Σ_i KL(p^i ‖ mean_j p^j) by Monte Carlo: 0 for equal members, at most log n.
        """
        check(num_samples >= 1, "num_samples", num_samples, "a positive integer")
        many = states.repeat(num_samples, 1, 1)
        terms = self.separation(many, generator)
        return terms.view(self.n, num_samples, len(states)).mean(dim=(0, 1))


@torch.no_grad()
def _stack(together: nn.Sequential, bodies: Sequence[nn.Sequential]) -> None:
    """Copy the weights of ordinary networks into one batched network."""
    for layer, *plain in zip(together, *bodies, strict=True):
        if isinstance(layer, EnsembleLinear):
            layer.weight.copy_(torch.stack([p.weight.T for p in plain]))
            layer.bias.copy_(torch.stack([p.bias[None] for p in plain]))


# -- training


@dataclass(frozen=True)
class EnsembleConfig(CloneConfig):
    """Uni-O4's behaviour-cloning ensemble (arXiv 2311.03351) but for number and size of updates."""

    num_members: int = 4  # n; with one member every form is plain cloning
    diversity: Diversity = "shipped"
    alpha: float = 0.1  # α, weight of the term
    adam_eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_members >= 1, "num_members", self.num_members, "a positive integer")
        if self.diversity not in get_args(Diversity):
            raise unknown("diversity", self.diversity, get_args(Diversity))
        check(self.alpha >= 0, "alpha", self.alpha, "not negative")
        check(self.adam_eps > 0, "adam_eps", self.adam_eps, "positive")


def objective(
    diversity: Diversity,
    ensemble: GaussianEnsemble,
    states: Tensor,
    actions: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """E_D[log p^i] and the diversity term of each member, two (n,), in nats; J is first + α second.

    (B, T_o, S) and (B, T_a, A) are logged data; "separating" samples actions in the same states.
    """
    log_probs = ensemble.log_prob_shared(states, actions)
    if diversity == "none" or ensemble.n == 1:
        term = torch.zeros_like(log_probs)
    elif diversity == "separating":
        term = ensemble.separation(states, generator)
    else:
        term = ON_DATA[diversity](log_probs)
    return log_probs.mean(dim=-1), term.mean(dim=-1)


def train_ensemble(
    cfg: EnsembleConfig,
    gaussian: GaussianConfig,
    windows: SequenceWindows,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> GaussianEnsemble:
    """Maximise Σ_i J(π^i) on the windows' first T_a actions, in the windows' own precision.

    All members see the same minibatches, as in Uni-O4's code, and the minibatches are the same for
    every form: members and forms differ by their initial weights and by the term alone.
    """
    ensemble = GaussianEnsemble(gaussian, cfg.num_members, seed)
    ensemble.to(windows.batch(torch.zeros(1, dtype=torch.long)).actions.dtype)
    optimiser = torch.optim.Adam(
        ensemble.parameters(), lr=cfg.learning_rate, eps=cfg.adam_eps, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    sampling = torch.Generator().manual_seed(zlib.crc32(f"samples/{seed}".encode()))

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (cfg.batch_size,), generator=generator)
        batch = windows.batch(index)
        actions = batch.actions[:, : gaussian.action_horizon]
        likelihood, term = objective(cfg.diversity, ensemble, batch.past, actions, sampling)
        loss = -(likelihood + cfg.alpha * term).sum()
        descend(loss, optimiser)
        return {"nll": -likelihood.detach().mean(), "diversity": term.detach().mean()}

    parts = {
        "policy": ensemble,
        "optimiser": optimiser,
        "generator": GeneratorState(generator),
        "sampling": GeneratorState(sampling),
    }
    fit(cfg.num_updates, update, parts, recorder=recorder, name="ensemble", progress=progress)  # type: ignore[arg-type]
    return ensemble
