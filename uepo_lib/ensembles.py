"""What a set of policies is worth, from the returns of its members: spread, and best of n."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from uepo_lib.errors import check


def between_sd(returns: Tensor) -> float:
    """Standard deviation of the members' *true* means, from returns (n, episodes).

    Episode e begins alike for all members, as in every evaluation here: what a reset is worth to
    all of them shifts no member against another. So the variance of the observed means is lessened
    by that of the residuals of members and resets alone (two-way random effects, no interaction);
    0 where they explain it all.
    """
    _check_returns(returns)
    n, episodes = returns.shape
    by_member, by_reset = returns.mean(dim=1, keepdim=True), returns.mean(dim=0, keepdim=True)
    residual = returns - by_member - by_reset + returns.mean()
    chance = residual.square().sum() / ((n - 1) * (episodes - 1)) / episodes
    return float((by_member.var() - chance).clamp(min=0).sqrt())


class BestOfN(NamedTuple):
    """The chosen member's mean return on the episodes that chose it, and on others."""

    chosen: float
    fresh: float


def best_of_n(returns: Tensor, generator: torch.Generator, splits: int = 200) -> BestOfN:
    """Choose the best member on half of the episodes, report it on both halves.

    ``returns`` (n, episodes), where episode e begins alike for all members; the mean over
    ``splits`` random halves. Only ``fresh`` is an estimate of what the choice is worth.
    """
    _check_returns(returns)
    half = returns.shape[1] // 2
    seen, unseen = [], []
    for _ in range(splits):
        order = torch.randperm(returns.shape[1], generator=generator)
        first, second = returns[:, order[:half]].mean(1), returns[:, order[half:]].mean(1)
        best = int(first.argmax())
        seen.append(first[best])
        unseen.append(second[best])
    return BestOfN(float(torch.stack(seen).mean()), float(torch.stack(unseen).mean()))


def _check_returns(returns: Tensor) -> None:
    check(returns.ndim == 2, "returns", tuple(returns.shape), "(n, episodes)")
    check(min(returns.shape) >= 2, "returns", tuple(returns.shape), "at least 2 of each")
