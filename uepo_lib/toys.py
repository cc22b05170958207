"""A toy whose modes are known exactly: a point in the plane that leaves by one of several doors.

The point stands at s near the middle and walks to door m in T steps:

    a_t = w_t (door_m − s) + std · noise,    s_{t+1} = s_t + dt · a_t,    dt Σ_t w_t = 1

so p(a_{1:T} | s) is a mixture of Gaussians, one a door. Everything a diffusion model has to learn
is then a closed form: :func:`exact_model` is the network that training can only approach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uepo_lib.coverage import NO_MODE, null_coverage
from uepo_lib.datasets import Batch
from uepo_lib.denoisers import Context, DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel
from uepo_lib.errors import check
from uepo_lib.schedules import Schedule

__all__ = ["Doors", "exact_model", "four_modes", "gaussian_output_sd", "null_coverage", "two_modes"]

PEAK = 0.6
"""max_t w_t: with doors at (±1, ±1) every noise-free action lies within [−0.84, 0.84]."""
SPREAD = 0.4
"""States are uniform in [−SPREAD, SPREAD]², so that no door's direction leaves its quadrant."""


class Doors:
    """Logged walks to M doors, usable as diffusion windows: ``len(toy)``, ``toy.batch(index)``.

    ``modes`` (N,) says which door each walk took, ``states`` (N, 2) where it began, ``actions``
    (N, T, 2) what it did. S = A = 2; states are used as they are, without standardising.
    """

    def __init__(
        self,
        doors: Sequence[Sequence[float]],
        weights: Sequence[float] | None = None,
        *,
        std: float = 0.05,
        horizon: int = 8,
        obs_horizon: int = 2,
        size: int = 4096,
        seed: int = 0,
    ) -> None:
        self.doors = torch.tensor(doors, dtype=torch.float32)
        shares = torch.tensor([1.0] * len(doors) if weights is None else list(weights))
        check(len(doors) >= 1, "doors", len(doors), "at least one")
        check(len(shares) == len(doors), "weights", len(shares), f"one a door, {len(doors)}")
        check(bool((shares > 0).all()), "weights", weights, "positive")
        check(std > 0, "std", std, "positive")
        check(horizon >= 3, "horizon", horizon, "at least 3")
        self.weights = shares / shares.sum()
        self.std, self.horizon, self.obs_horizon = std, horizon, obs_horizon
        t = (torch.arange(horizon) + 0.5) / horizon
        self.profile = PEAK * torch.sin(math.pi * t)  # w_t: start slowly, stop slowly
        self.dt = 1 / float(self.profile.sum())
        generator = torch.Generator().manual_seed(seed)
        self.states = self.draw_states(size, generator)
        self.modes = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        self.actions = self.sample(self.states, self.modes, generator)

    @property
    def num_modes(self) -> int:
        return len(self.doors)

    def __len__(self) -> int:
        return len(self.states)

    def batch(self, index: Tensor) -> Batch:
        """Walks ``index`` (B,); the point stood still before it set out."""
        states, actions = self.states[index], self.actions[index]
        return Batch(self.past(states), actions, self.walk(states, actions)[:, 1:-1])

    def draw_states(self, count: int, generator: torch.Generator) -> Tensor:
        """Places to start from: (count, 2)."""
        return SPREAD * (2 * torch.rand(count, 2, generator=generator) - 1)

    def past(self, states: Tensor) -> Tensor:
        """What a policy sees at ``states`` (B, 2): (B, T_o, 2)."""
        return states[:, None].expand(-1, self.obs_horizon, -1)

    def means(self, states: Tensor) -> Tensor:
        """Each mode's noise-free actions at ``states`` (B, 2): (B, M, T, 2)."""
        way = self.doors - states[:, None]
        return self.profile[:, None] * way[:, :, None]

    def sample(self, states: Tensor, modes: Tensor, generator: torch.Generator) -> Tensor:
        """Actions (B, T, 2) of ``modes`` (B,) at ``states`` (B, 2), noise included."""
        mean = self.means(states)[torch.arange(len(states)), modes]
        return mean + self.std * torch.randn(mean.shape, generator=generator)

    def log_prob(self, actions: Tensor, states: Tensor) -> Tensor:
        """log Σ_m π_m N(a; μ_m(s), std² I), nats: two (B, T, 2) and (B, 2) -> (B,)."""
        gap = (actions[:, None] - self.means(states)) / self.std
        log_normal = -0.5 * gap.square() - math.log(self.std * math.sqrt(2 * math.pi))
        return (self.weights.log() + log_normal.sum(dim=(-2, -1))).logsumexp(dim=-1)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """The true dynamics s' = s + dt · a, any leading shape: two (..., 2) -> (..., 2)."""
        return states + self.dt * actions

    def walk(self, states: Tensor, actions: Tensor) -> Tensor:
        """All places of the way: (B, 2) and (..., B, T, 2) -> (..., B, T + 1, 2)."""
        way = states[:, None] + self.dt * actions.cumsum(dim=-2)
        start = states[:, None].expand(*way.shape[:-2], 1, 2)
        return torch.cat([start, way], dim=-2)

    def mode_of(self, actions: Tensor) -> Tensor:
        """The door that actions (..., T, 2) head for, by direction alone: (...) long."""
        directions = self.doors / self.doors.norm(dim=-1, keepdim=True)
        return (actions.sum(dim=-2) @ directions.T).argmax(dim=-1)

    def distance(self, actions: Tensor, states: Tensor) -> Tensor:
        """Root-mean-square distance to the nearest mode in units of ``std``: (..., B).

        Logged walks have about 1; ``actions`` (..., B, T, 2), ``states`` (B, 2).
        """
        gap = (actions.unsqueeze(-3) - self.means(states)) / self.std
        return gap.square().mean(dim=(-2, -1)).sqrt().amin(dim=-1)

    def in_support(self, actions: Tensor, states: Tensor, limit: float = 2.0) -> Tensor:
        """Whether actions are within ``limit`` standard deviations (RMS) of a mode: (..., B)."""
        return self.distance(actions, states) <= limit

    def headings(self, actions: Tensor, states: Tensor, limit: float = 2.0) -> Tensor:
        """The door of plans that are :meth:`in_support`, −1 of others: (..., B) long."""
        inside = self.in_support(actions, states, limit)
        return self.mode_of(actions).where(inside, torch.tensor(NO_MODE))


def four_modes(weights: Sequence[float] | None = None, **changes: Any) -> Doors:
    """Doors at the four corners (1, 1), (−1, 1), (−1, −1), (1, −1); equal shares by default."""
    return Doors([(1, 1), (-1, 1), (-1, -1), (1, -1)], weights, **changes)


def two_modes(weights: Sequence[float] | None = None, **changes: Any) -> Doors:
    """Two doors, left and right: opposite ways."""
    return Doors([(1, 0), (-1, 0)], weights, **changes)


class MixtureDenoiser(nn.Module):
    """The exact network: E[x_0 | x_k, s] of the toy's mixture, in the form a ``Denoiser`` has.

    x_0 | s ~ Σ_m π_m N(μ_m(s), std² I) and x_k = α x_0 + σ ε give, with v = α² std² + σ²,

        E[x_0 | x_k] = Σ_m r_m (μ_m + (α std² / v)(x_k − α μ_m)),   r_m ∝ π_m N(x_k; α μ_m, v I)
    """

    def __init__(self, toy: Doors, cfg: DiffusionConfig) -> None:
        super().__init__()
        self.config = DenoiserConfig(horizon=toy.horizon, obs_horizon=toy.obs_horizon)
        self.state_dim, self.action_dim = 2, 2
        self.toy, self.prediction = toy, cfg.prediction
        self.schedule = Schedule(cfg.schedule, cfg.num_train_steps)

    def encode(self, past: Tensor, future: Any = None, future_visible: Any = None) -> Context:
        """All there is to know is where the point stands."""
        return Context(past[:, -1])

    def responsibilities(self, x: Tensor, k: Tensor, states: Tensor) -> Tensor:
        """r_m, the posterior probability of each mode: (B, M)."""
        alpha, sigma = self.schedule.alpha(k), self.schedule.sigma(k)
        variance = (alpha**2 * self.toy.std**2 + sigma**2)[:, :, 0]
        gap = x[:, None] - alpha[:, None] * self.toy.means(states)
        log_density = -gap.square().sum(dim=(-2, -1)) / (2 * variance)
        return (self.toy.weights.log() + log_density).softmax(dim=-1)

    def denoise(self, x: Tensor, k: Tensor, context: Context) -> Tensor:
        """The exact prediction for x (B, T, 2) at steps k (B,)."""
        alpha, sigma = self.schedule.alpha(k), self.schedule.sigma(k)
        share = self.responsibilities(x, k, context.current)[:, :, None, None]
        mean = (share * self.toy.means(context.current)).sum(dim=1)
        gain = alpha * self.toy.std**2 / (alpha**2 * self.toy.std**2 + sigma**2)
        x0 = mean + gain * (x - alpha * mean)
        return self.schedule.target(x0, self.schedule.epsilon(x, x0, k), k, self.prediction)


def exact_model(toy: Doors, **changes: Any) -> DiffusionModel:
    """The diffusion model that knows the toy's score exactly; ``changes`` to its process."""
    cfg = DiffusionConfig(**changes)
    denoiser: Any = MixtureDenoiser(toy, cfg)
    return DiffusionModel(cfg, denoiser)


def gaussian_steps(
    model: DiffusionModel, std: float, num_steps: int, eta: float = 0.0
) -> list[tuple[float, float]]:
    """Slope and noise of each reverse step of an exact chain on data N(μ, std²), noisiest first.

    With the gain g = α_k std² / (α_k² std² + σ_k²) of x̂_0 every step is linear in x − α μ; the
    slope d x_{k'} / d x_k of DDIM is α_{k'} g + σ_{k'} (1 − α_k g) / σ_k.
    """
    steps = []
    for pair in model.timesteps(num_steps):
        k, k_prev = torch.tensor(pair)[:, None]
        alpha, sigma = model.schedule.alpha(k), model.schedule.sigma(k)
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        slope, noise = model.schedule.step(gain, (1 - alpha * gain) / sigma, k, k_prev, eta)
        steps.append((float(slope), float(noise)))
    return steps


def gaussian_output_sd(
    model: DiffusionModel, std: float, num_steps: int, eta: float = 0.0
) -> float:
    """Standard deviation of the outputs of an exact chain on data N(μ, std²), in closed form.

    From sd 1, the slope of each step squares into the variance and its noise adds to it. ``eta`` 0
    is DDIM, 1 is DDPM.
    """
    variance = 1.0
    for slope, noise in gaussian_steps(model, std, num_steps, eta):
        variance = slope**2 * variance + noise**2
    return math.sqrt(variance)


def gaussian_survival(model: DiffusionModel, std: float, num_steps: int) -> list[float]:
    """What is left in the actions of a δ added to x̂_0 at each DDIM step, in closed form.

    On data N(μ, std²) the exact chain is linear. With ε̂ kept, δ at step j moves x_{k'_j} by
    α_{k'_j} δ, and each later step m multiplies that by its slope s_m (:func:`gaussian_steps`):

        survival_j = α_{k'_j} Π_{m > j} s_m   →   √(α² std² / (α² std² + σ²))  at k'_j

    for a chain of many steps: the root of the data's share in the variance of x. It is 1 at the
    last step and falls to 0 where x is noise.
    """
    slopes = [slope for slope, _ in gaussian_steps(model, std, num_steps)]
    after = [float(model.schedule.alpha(torch.tensor([k]))) for _, k in model.timesteps(num_steps)]
    return [alpha * math.prod(slopes[j + 1 :]) for j, alpha in enumerate(after)]
