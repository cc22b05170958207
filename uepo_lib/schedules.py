"""How noise is added to action sequences, and the algebra of taking it off again.

Notation: steps k = 0 .. K − 1 from the least to the most noise; ᾱ_k falls from near 1 to near 0;
α_k = sqrt(ᾱ_k), σ_k = sqrt(1 − ᾱ_k). The forward process is

    q(x_k | x_0) = N(α_k x_0, σ_k² I),      x_0 = a_{t:t+T-1} in [−1, 1].

k = −1 stands for no noise at all: ᾱ_{−1} = 1. Equations are those of DDPM (Ho et al. 2020,
arXiv 2006.11239) and DDIM (Song et al. 2021, arXiv 2010.02502); the cosine schedule is Nichol and
Dhariwal's (arXiv 2102.09672) and v is Salimans and Ho's (arXiv 2202.00512).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

REVISION = 1

Prediction = Literal["x0", "epsilon", "v"]
NoiseSchedule = Literal["cosine", "linear"]


def alpha_bars(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """ᾱ_0 .. ᾱ_{K−1} as float64 (K,).

    "linear" is DDPM's 1e-4 .. 0.02 for 1000 steps, scaled to K so that the end is as noisy.
    """
    if schedule == "linear":
        betas = torch.linspace(0.1, 20.0, num_steps, dtype=torch.float64) / num_steps
        betas = betas.clamp(max=0.999)
    else:
        t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, dim=0)


class Schedule(nn.Module):
    """α_k and σ_k and the algebra between x_k, x_0, ε and v.

    Every ``k`` is a long tensor (B,) or (1,) with entries in −1 .. K − 1; tensors are (B, T, A).
    """

    alpha_bar: Tensor  # (K + 1,): entry 0 is ᾱ_{−1} = 1
    _alpha: Tensor
    _sigma: Tensor

    def __init__(self, kind: NoiseSchedule, num_steps: int) -> None:
        super().__init__()
        bar = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars(kind, num_steps)])
        self.num_steps = num_steps
        # From float64, since 1 − ᾱ loses its digits in float32 where there is little noise.
        tables = {"alpha_bar": bar, "_alpha": bar.sqrt(), "_sigma": (1 - bar).sqrt()}
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def alpha(self, k: Tensor) -> Tensor:
        return self._alpha[k + 1, None, None]

    def sigma(self, k: Tensor) -> Tensor:
        return self._sigma[k + 1, None, None]

    def add_noise(self, x0: Tensor, epsilon: Tensor, k: Tensor) -> Tensor:
        """x_k = α_k x_0 + σ_k ε."""
        return self.alpha(k) * x0 + self.sigma(k) * epsilon

    def x0(self, prediction: Tensor, x: Tensor, k: Tensor, kind: Prediction) -> Tensor:
        """x̂_0 from a network that predicts ``kind``; v = α ε − σ x_0."""
        if kind == "x0":
            return prediction
        if kind == "epsilon":
            return (x - self.sigma(k) * prediction) / self.alpha(k)
        return self.alpha(k) * x - self.sigma(k) * prediction

    def epsilon(self, x: Tensor, x0: Tensor, k: Tensor) -> Tensor:
        """ε̂ = (x_k − α_k x̂_0) / σ_k; k ≥ 0."""
        return (x - self.alpha(k) * x0) / self.sigma(k)

    def target(self, x0: Tensor, epsilon: Tensor, k: Tensor, kind: Prediction) -> Tensor:
        """What a network that predicts ``kind`` should say."""
        if kind == "v":
            return self.alpha(k) * epsilon - self.sigma(k) * x0
        return x0 if kind == "x0" else epsilon

    def step(
        self, x0: Tensor, epsilon: Tensor, k: Tensor, k_prev: Tensor, eta: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Mean (B, T, A) and standard deviation of x_{k_prev} (DDIM eq. 12 and 16).

        eta = 0 is deterministic DDIM and eta = 1 is DDPM's posterior, for any k_prev < k.
        At k_prev = −1 the mean is x̂_0 and the deviation 0.
        """
        alpha, sigma = self.alpha(k_prev), self.sigma(k_prev)
        if eta == 0:
            return alpha * x0 + sigma * epsilon, torch.zeros_like(sigma)
        shrink = (self.alpha(k) / alpha) ** 2  # ᾱ_k / ᾱ_{k_prev}
        ratio = sigma / self.sigma(k)
        std = eta * ratio * (1 - shrink).sqrt()
        # sqrt(σ_{k_prev}² − std²), written without the difference, which cancels where x is noise.
        kept = (1 - eta**2) * self.sigma(k) ** 2 + eta**2 * shrink * sigma**2
        direction = ratio * kept.sqrt()
        return alpha * x0 + direction * epsilon, std
