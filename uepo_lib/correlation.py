r"""How sharp a bound on a mean of correlated terms is.

The filter bounds a trajectory's mean cost over H steps. With autocorrelation $\rho_k$ of the cost
of a step, and variance $\sigma^2$, that mean has

$$\mathrm{Var}(\bar c) = \frac{\sigma^2}{H_{eff}}, \qquad
H_{eff} = \frac{H}{1 + 2 \sum_{k=1}^{H-1} (1 - k/H)\,\rho_k},$$

so errors that persist leave fewer independent steps, and acceptance as a function of ε is flatter
(choice A6).
"""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.errors import check


def autocovariance(costs: Tensor) -> Tensor:
    """Autocovariance at lags 0 .. H − 1 of M sequences (M, H) about their common mean: (H,).

    Sequences whose levels differ count as correlated, which they are for a mean over steps.
    Raises ``UsageError`` for other shapes, or costs that never vary.
    """
    check(costs.dim() == 2 and costs.numel() > 0, "costs", tuple(costs.shape), "(M, H), not empty")
    centred = costs - costs.mean()
    horizon = costs.shape[1]
    found = [(centred[:, k:] * centred[:, : horizon - k]).mean() for k in range(horizon)]
    check(bool(found[0] > 0), "costs", "all equal", "costs that vary")
    return torch.stack(found)


def effective_steps(correlation: Tensor) -> float:
    """H_eff of autocorrelations ρ_0 = 1 .. ρ_{H−1}: (H,) -> a number, H if only ρ_0 is not 0."""
    check(correlation.dim() == 1, "correlation", tuple(correlation.shape), "(H,)")
    horizon = len(correlation)
    weight = 1 - torch.arange(1, horizon, dtype=correlation.dtype) / horizon
    return horizon / float(1 + 2 * (weight * correlation[1:]).sum())


def ar1(coefficient: float, horizon: int) -> Tensor:
    """Autocorrelations of a first-order autoregressive process, ρ_k = φ^k: (H,) float64."""
    check(-1 < coefficient < 1, "coefficient", coefficient, "between −1 and 1")
    check(horizon > 0, "horizon", horizon, "positive")
    return coefficient ** torch.arange(horizon, dtype=torch.float64)


def ar1_costs(coefficient: float, size: int, horizon: int, generator: torch.Generator) -> Tensor:
    """Stationary AR(1) sequences with mean 0 and variance 1: (size, H) float64."""
    check(-1 < coefficient < 1, "coefficient", coefficient, "between −1 and 1")
    noise = torch.randn(size, horizon, generator=generator, dtype=torch.float64)
    costs = noise.clone()
    for t in range(1, horizon):
        fresh = (1 - coefficient**2) ** 0.5 * noise[:, t]
        costs[:, t] = coefficient * costs[:, t - 1] + fresh
    return costs


def predicted_widths(costs: Tensor) -> dict[str, float]:
    """Standard deviations of a sequence's mean cost, (M, H) -> by what is assumed of its steps.

    "independent" takes the H steps for independent, "AR(1)" takes ρ_k = ρ_1^k, "all lags" takes
    every estimated ρ_k: an identity on these sequences, and so the measured value.
    """
    covariance = autocovariance(costs.double())
    correlation = covariance / covariance[0]
    horizon, spread = costs.shape[1], float(covariance[0].sqrt())
    models = {
        "independent": ar1(0.0, horizon),
        "AR(1)": ar1(float(correlation[1]) if horizon > 1 else 0.0, horizon),
        "all lags": correlation,
    }
    return {name: spread / effective_steps(rho) ** 0.5 for name, rho in models.items()}
