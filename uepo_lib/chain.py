r"""The denoising chain as a policy that PPO can improve (A10; DPPO, arXiv 2409.00588).

$$x_{k-1} = \mu_\theta(x_k, s) + \sigma z, \quad x_K = \kappa\,\varepsilon_i, \quad z \sim N(0, I)$$

μ_θ is the very step that the sub-policy takes without noise, so the noise-free actions are equal
bit for bit before and after the switch to online learning. Only the last steps of the chain explore
and learn; those before them are played by a frozen copy, as in DPPO. Each of these last steps is
one *level* of the path.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from uepo_lib.errors import check
from uepo_lib.policies import normal_kl, normal_log_prob
from uepo_lib.subpolicies import SubPolicies

REVISION = 2


class ChainActor(nn.Module):
    """One sub-policy (n = 1) with Gaussian noise of std ``sigma`` on its last reverse steps.

    ``num_levels`` of the chain's steps are trained. The model is copied: fine-tuning one sub-policy
    leaves the others as they were. Only the T_a actions that are executed count in the likelihood
    of the last step.

    A sub-policy of fresh noise explores from κ ε with a new ε at every decision; noise-free it
    starts at 0, the centre of its starts.
    """

    noise: Tensor
    n = 1

    def __init__(self, sub_policy: SubPolicies, sigma: float = 0.3, num_levels: int = 1) -> None:
        super().__init__()
        steps = sub_policy.num_denoising_steps
        check(sub_policy.n == 1, "sub_policy", f"{sub_policy.n} members", "one: use select(i)")
        check(sigma > 0, "sigma", sigma, "positive")
        check(1 <= num_levels <= steps, "num_levels", num_levels, f"in 1 .. {steps}")
        self.frozen = copy.deepcopy(sub_policy.model).requires_grad_(False)
        self.model = copy.deepcopy(sub_policy.model)
        start = sub_policy.kappa[0] * sub_policy.noise[0]
        self.fresh_kappa = float(sub_policy.kappa[0]) if sub_policy.fresh_noise else None
        self.register_buffer("noise", torch.zeros_like(start) if sub_policy.fresh_noise else start)
        self.sigma, self.num_steps, self.num_levels = sigma, steps, num_levels
        self.action_horizon = sub_policy.action_horizon
        self.obs_horizon = sub_policy.obs_horizon
        self.train_last()

    def train_last(self) -> ChainActor:
        """Let gradients reach the fine-tuned steps' network, and no other."""
        self.requires_grad_(False).model.requires_grad_(True)
        return self

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(1, B, T_o, S) -> (1, B, T_a, A): noise-free without a generator, else sampled."""
        path = self._path(states[0], generator)
        return path[-1][:, : self.action_horizon].clamp(-1, 1).unsqueeze(0)

    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows (N, T_o, S) -> actions (N, T_a, A), path (N, L + 1, T, A) of the last L steps."""
        path = self._path(states, generator)
        return path[-1][:, : self.action_horizon], torch.stack(path, dim=1)

    @torch.no_grad()
    def _path(self, states: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        x = self.latent(states, generator)
        path, context = [x], self.model.encode(states)
        for step in range(self.num_steps - self.num_levels, self.num_steps):
            x = self.model.chain_mean(x, context, step, self.num_steps)
            if generator is not None:
                z = torch.randn(x.shape, generator=generator, device=x.device)
                x = x + self.sigma * z
            path.append(x)
        return path

    def latent(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """Where the frozen first steps lead, and the trained ones begin: (N, T, A)."""
        x = self.noise.expand(len(states), -1, -1)
        if self.fresh_kappa is not None and generator is not None:
            x = self.fresh_kappa * torch.randn(x.shape, generator=generator, device=x.device)
        first = self.num_steps - self.num_levels
        if first:
            context = self.frozen.encode(states)
            for step in range(first):
                x = self.frozen.chain_mean(x, context, step, self.num_steps)
        return x

    def path_log_prob(self, states: Tensor, path: Tensor) -> Tensor:
        """log-probability of each level, all levels in one forward: -> (N, L)."""
        mean, log_std = self._moments(states, path)
        return self._executed(normal_log_prob(path[:, 1:].transpose(0, 1), mean, log_std))

    def path_kl(self, other: ChainActor, states: Tensor, path: Tensor) -> Tensor:
        """KL(self ‖ other) of each level at the latents of ``path``, in nats: -> (N, L)."""
        return self._executed(
            normal_kl(*self._moments(states, path), *other._moments(states, path))
        )

    def _moments(self, states: Tensor, path: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (L, N, T, A) of each trained step's result, and its log-std."""
        levels, before = self.num_levels, path[:, :-1].transpose(0, 1)
        context = self.model.encode(states).repeat(levels)
        steps = torch.arange(self.num_steps - levels, self.num_steps, device=path.device)
        index = steps.repeat_interleave(len(states))
        mean = self.model.chain_mean(before.flatten(0, 1), context, index, self.num_steps)
        log_std = torch.tensor(self.sigma, device=path.device).log()
        return mean.unflatten(0, (levels, -1)), log_std

    def _executed(self, terms: Tensor) -> Tensor:
        """Sum (L, N, T, A) over actions; of the last level only the T_a that are executed."""
        last = terms[-1:, :, : self.action_horizon].sum((-2, -1))
        return torch.cat([terms[:-1].sum((-2, -1)), last]).T

    def entropy(self, states: Tensor) -> Tensor:
        """σ is fixed, so the entropy of the noise is a constant: zero is returned."""
        return states.new_zeros(len(states))
