r"""What a KL filter does to a wrong gain: a linear world in which all of it is known.

$$s' = a s + g u + w, \qquad u \sim \mathcal N(0, \tau^2),\ w \sim \mathcal N(0, \sigma^2),$$

and T̂ believes the gain $\hat g = g + b$. On a real step its residual is $e = w - b u$ with variance
$v = b^2\tau^2 + \sigma^2$; the filter keeps H steps if their mean cost $\tfrac12 e^2/\sigma^2$ is
below ε plus a reference (choice A6). That truncates $(e_1, \ldots, e_H)$ to a ball, so with
$K$ its squared radius over $v$ and $F_k$ the distribution function of $\chi^2_k$

$$q = \frac{\mathbb E[e^2 \mid \text{kept}]}{v} = \frac{F_{H+2}(K)}{F_H(K)}.$$

Least squares on kept steps alone leaves the share $\lambda$ of the bias, for
$\mathbb E[u e \mid \text{kept}] = -b\tau^2 q$:

$$\lambda = \frac{(1 - q)(1 - \rho^2)}{1 - (1 - q)\rho^2}, \qquad
\rho^2 = \frac{b^2\tau^2}{v}.$$
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

from uepo_lib.errors import check, unknown

Source = Literal["model", "simulator", "unfiltered"]
SOURCES = ("model", "simulator", "unfiltered")


@dataclass(frozen=True)
class LinearWorld:
    """The world's spreads and the filter's rule; T̂'s predicted standard deviation is ``noise``.

    ``median`` measures ε from the median of the cost on real sequences under T̂ itself (A6);
    without it a cost is bounded by ε alone, as the paper's text reads.
    """

    action: float = 1.0
    noise: float = 0.5
    horizon: int = 1
    epsilon: float = 0.05
    median: bool = True

    def __post_init__(self) -> None:
        for name in ("action", "noise", "horizon"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.epsilon >= 0, "epsilon", self.epsilon, "≥ 0")
        check(self.epsilon > 0 or self.median, "epsilon", self.epsilon, "positive without a median")

    def residual_variance(self, bias: float) -> float:
        """v, what T̂ with this bias meets on real steps."""
        return bias**2 * self.action**2 + self.noise**2

    def radius(self, bias: float) -> float:
        """K: kept are H residuals whose sum of squares is below K v."""
        reference = float(stats.chi2.median(self.horizon)) if self.median else 0.0
        bound = 2 * self.noise**2 * self.epsilon * self.horizon
        return reference + bound / self.residual_variance(bias)

    def kept(self, bias: float) -> float:
        """The share of real trajectories that the filter lets pass."""
        return float(stats.chi2.cdf(self.radius(bias), self.horizon))

    def kept_variance(self, bias: float) -> float:
        """q: the variance of a kept residual over that of any."""
        radius, h = self.radius(bias), self.horizon
        return float(stats.chi2.cdf(radius, h + 2) / stats.chi2.cdf(radius, h))

    def remaining(self, bias: float) -> float:
        """λ: the share of the bias that a fit to kept real steps alone still has."""
        refused, told = 1 - self.kept_variance(bias), self._told(bias)
        return refused * (1 - told) / (1 - refused * told)

    def _told(self, bias: float) -> float:
        """ρ²: how much of the residual is the bias."""
        return bias**2 * self.action**2 / self.residual_variance(bias)

    def _information(self, bias: float) -> float:
        """E[u² | kept]: what a kept step says of the gain."""
        refused = 1 - self.kept_variance(bias)
        return self.action**2 * (1 - refused * self._told(bias))

    def next_bias(self, bias: float, ratio: float, source: Source, logged: float = 0.0) -> float:
        """The bias after one round: least squares on D, whose own is ``logged``, and D_diff.

        |D_diff| = ``ratio`` |D| after filtering. "model": next states are T̂'s own, and the elites'
        disagreement, which filters them, does not know the bias.
        """
        check(ratio >= 0, "ratio", ratio, "≥ 0")
        if source not in SOURCES:
            raise unknown("source", source, SOURCES)
        if source == "simulator":
            told, left = self._information(bias), self.remaining(bias) * bias
        else:
            told, left = self.action**2, bias if source == "model" else 0.0
        known = self.action**2
        return (known * logged + ratio * told * left) / (known + ratio * told)

    def rounds(
        self, bias: float, ratio: float, source: Source, count: int, logged: float = 0.0
    ) -> list[float]:
        """The bias before and after each of ``count`` rounds: count + 1 numbers."""
        found = [bias]
        for _ in range(count):
            found.append(self.next_bias(found[-1], ratio, source, logged))
        return found

    def fixed_point(self, ratio: float, source: Source, logged: float) -> float:
        """The bias that a round does not change, if D itself has the bias ``logged``.

        Reached from ``logged``, T̂_init's own: rounds only ever lower it from there.
        """
        found = self.rounds(logged, ratio, source, 2_000, logged)
        close = math.isclose(found[-1], found[-2], abs_tol=1e-12)
        check(close, "ratio", ratio, "one at which rounds settle")
        return found[-1]

    def simulated(
        self, bias: float, ratio: float, source: Source, size: int, generator: torch.Generator
    ) -> tuple[float, float]:
        """(share kept, bias after a round) by drawing ``size`` trajectories and least squares.

        D is unbiased. Rows are weighted to the ratio, however many the filter lets pass.
        """
        u, w = self._draw((size, 1), generator)  # D: w is what the right gain leaves
        information, found = u.square().mean(), (u * w).mean()
        u, w = self._draw((size, self.horizon), generator)
        cost = ((w - bias * u).square() / (2 * self.noise**2)).mean(1)
        passing = torch.ones(size, dtype=torch.bool)
        if source == "simulator":
            reference = float(cost.median()) if self.median else 0.0
            passing = cost < self.epsilon + reference
        left = (w + bias * u if source == "model" else w)[passing]
        information += ratio * u[passing].square().mean()
        found += ratio * (u[passing] * left).mean()
        return float(passing.double().mean()), float(found / information)

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        u, w = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        return self.action * u, self.noise * w
