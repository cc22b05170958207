r"""Steering a frozen chain by its initial noise: what DSRL learns (arXiv 2506.15799; A10).

$$w \sim N\big(\kappa\,\varepsilon_i + f_\phi(s),\ \sigma_w^2 I\big), \qquad
a = \mathrm{DDIM}_\theta(w, s), \quad \theta \text{ frozen}$$

The chain is a deterministic decoder, so the policy acts in the space of noise and its density there
is a plain Gaussian. It can reach only what the model already does from *some* noise: that tests
whether the seeds matter. f_φ starts at zero, so the noise-free actions are the sub-policy's, bit
for bit. DSRL itself improves such a policy by SAC; here the optimiser is everyone's PPO, so that
what is compared is the parametrisation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uepo_lib.errors import check
from uepo_lib.networks import ACTIVATIONS, mlp
from uepo_lib.policies import normal_kl, normal_log_prob
from uepo_lib.subpolicies import SubPolicies

REVISION = 1


@dataclass(frozen=True)
class SteeringConfig:
    """The shift f_φ of the initial noise, and how the noise explores."""

    hidden: tuple[int, ...] = (128, 128)
    activation: str = "tanh"
    sigma: float = 0.5
    """Std of the exploration, in units of the noise: 1 would be that of the model's training."""

    def __post_init__(self) -> None:
        known = self.activation in ACTIVATIONS
        check(known, "activation", self.activation, f"one of {sorted(ACTIVATIONS)}")
        positive = len(self.hidden) > 0 and min(self.hidden) > 0
        check(positive, "hidden", self.hidden, "positive layer widths")
        check(self.sigma > 0, "sigma", self.sigma, "positive")


class NoiseActor(nn.Module):
    """One sub-policy (n = 1) whose initial noise is learned; its chain stays as it is.

    The path is the initial noise w (N, T, A) itself, one level of T·A numbers: each of them
    reaches the executed actions through the chain, so all of them count in the likelihood.
    """

    start: Tensor
    n = 1

    def __init__(
        self, sub_policy: SubPolicies, config: SteeringConfig | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        check(sub_policy.n == 1, "sub_policy", f"{sub_policy.n} members", "one: use select(i)")
        fixed = not sub_policy.fresh_noise
        check(fixed, "sub_policy", "fresh noise", "a fixed start, for there to be one to steer")
        self.config = config or SteeringConfig()
        self.model = copy.deepcopy(sub_policy.model).requires_grad_(False)
        self.register_buffer("start", sub_policy.kappa[0] * sub_policy.noise[0])
        self.num_steps = sub_policy.num_denoising_steps
        self.obs_horizon, self.action_horizon = sub_policy.obs_horizon, sub_policy.action_horizon
        inputs = self.obs_horizon * self.model.denoiser.state_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (inputs, *self.config.hidden, self.start.numel())
            self.shift = mlp(sizes, self.config.activation).to(self.start.device)
        for parameter in self.shift[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (N, T_o, S) -> mean of the initial noise (N, T, A) and its log-std, a scalar."""
        mean = self.start + self.shift(states.flatten(1)).unflatten(-1, self.start.shape)
        return mean, torch.tensor(self.config.sigma, device=mean.device).log()

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(1, B, T_o, S) -> (1, B, T_a, A): noise-free without a generator, else sampled."""
        noise = self(states[0])[0] if generator is None else self._explore(states[0], generator)
        return self.decode(states[0], noise).clamp(-1, 1).unsqueeze(0)

    @torch.no_grad()
    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows (N, T_o, S) -> actions (N, T_a, A), path (N, T, A): the noise they come from."""
        noise = self._explore(states, generator)
        return self.decode(states, noise), noise

    def decode(self, states: Tensor, noise: Tensor) -> Tensor:
        """The frozen chain from ``noise`` (N, T, A): executed actions (N, T_a, A)."""
        return self.model.sample(noise, states, self.num_steps)[:, : self.action_horizon]

    def _explore(self, states: Tensor, generator: torch.Generator) -> Tensor:
        mean, log_std = self(states)
        z = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + log_std.exp() * z

    def path_log_prob(self, states: Tensor, path: Tensor) -> Tensor:
        """log-probability of the initial noise in nats: (N, T_o, S), (N, T, A) -> (N, 1)."""
        return normal_log_prob(path, *self(states)).sum((-2, -1)).unsqueeze(-1)

    def path_kl(self, other: NoiseActor, states: Tensor, path: Tensor) -> Tensor:
        """KL(self ‖ other) of the initial noise in nats: (N, 1), an upper bound on the actions'."""
        return normal_kl(*self(states), *other(states)).sum((-2, -1)).unsqueeze(-1)

    def entropy(self, states: Tensor) -> Tensor:
        """σ_w is fixed, so the entropy of the noise is a constant: zero is returned."""
        return states.new_zeros(len(states))
