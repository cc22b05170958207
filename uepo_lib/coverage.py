"""Which modes a set of policies reaches, how evenly, and whether a policy keeps to its mode.

Everything is computed from ``modes`` (n, B) long: the mode that sub-policy i heads for in state b,
or :data:`NO_MODE` where its plan is no mode's. Beside each number stands what n independent draws
would give (the *null*), where that has a closed form: a set is diverse by what lies beyond it (E1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from uepo_lib.errors import check

NO_MODE = -1


def counts(modes: Tensor, num_modes: int) -> Tensor:
    """How many of the n sub-policies head for each mode: (n, B) -> (B, M)."""
    check(modes.ndim == 2 and len(modes) >= 1, "modes", tuple(modes.shape), "of shape (n, B)")
    within = bool(((modes >= NO_MODE) & (modes < num_modes)).all())
    check(within, "modes", sorted(set(modes.flatten().tolist())), f"in -1 .. {num_modes - 1}")
    return torch.stack([(modes == m).sum(dim=0) for m in range(num_modes)], dim=1)


def coverage(modes: Tensor, num_modes: int = 4) -> float:
    """Distinct modes among n sub-policies in the same state, averaged over states: in [0, M]."""
    return float((counts(modes, num_modes) > 0).sum(dim=1).float().mean())


def null_coverage(n: int, modes: int | Sequence[float] = 4) -> float:
    """Modes that n independent draws reach on average: Σ_m 1 − (1 − p_m)^n.

    ``modes`` is their number, all equally likely, or their probabilities. For four equal modes the
    sum is 4 (1 − 0.75^n).
    """
    return sum(1 - (1 - p) ** n for p in _probabilities(modes))


def mode_entropy(modes: Tensor, num_modes: int = 4) -> float:
    """Entropy of the n sub-policies' distribution over modes in one state, averaged over states.

    In units of log M: 0 when all head for one mode, 1 when they are spread evenly. Plans in no mode
    are left out; a state where all are has 0. n sub-policies cannot have more than log n / log M.
    """
    found = counts(modes, num_modes).double()
    share = found / found.sum(dim=1, keepdim=True).clamp(min=1)
    return float(-torch.special.xlogy(share, share).sum(dim=1).mean()) / math.log(num_modes)


def null_entropy(n: int, modes: int | Sequence[float] = 4) -> float:
    """Expected :func:`mode_entropy` of n independent draws.

    The entropy is a sum over modes, and the count of each is binomial:
    −Σ_m Σ_c Binomial(c; n, p_m) (c/n) log(c/n), over log M.
    """
    shares = _probabilities(modes)
    total = sum(
        math.comb(n, c) * p**c * (1 - p) ** (n - c) * (c / n) * math.log(c / n)
        for p in shares
        for c in range(1, n + 1)
    )
    return -total / math.log(len(shares))


def persistence(modes: Tensor, num_modes: int = 4) -> float:
    """Probability that a sub-policy heads for the same mode in two states where it heads for one.

    Over all such pairs of the B states, averaged over the sub-policies that have one; nan if none
    has. 1 for a policy that has a mode, :func:`null_persistence` for one that draws anew, however
    often either is in no mode: report that share beside it.
    """
    check(modes.shape[1] >= 2, "B", modes.shape[1], "at least 2 states to compare")
    same = counts(modes.T, num_modes).double()  # of each sub-policy: states by mode, (n, M)
    in_one = same.sum(dim=1)
    share = (same * (same - 1)).sum(dim=1) / (in_one * (in_one - 1))
    return float(share[in_one >= 2].mean())


def kept(before: Tensor, after: Tensor) -> float:
    """Share of sub-policies and states where replanning kept the mode: two (n, B).

    ``before`` are the modes of the first plans, ``after`` those of the plans made where each
    sub-policy had come to by executing its first T_a actions. Only plans that were in a mode count;
    nan if none was.
    """
    check(before.shape == after.shape, "after", tuple(after.shape), f"{tuple(before.shape)}")
    started = before != NO_MODE
    return float((before == after)[started].double().mean())


def null_persistence(modes: int | Sequence[float] = 4) -> float:
    """Probability that two independent draws are of one mode, Σ_m p_m²: the null of both
    :func:`persistence` and :func:`kept`."""
    return sum(p**2 for p in _probabilities(modes))


def _probabilities(modes: int | Sequence[float]) -> list[float]:
    if isinstance(modes, int):
        check(modes >= 1, "modes", modes, "a positive integer, or probabilities")
        return [1 / modes] * modes
    valid = min(modes) >= 0 and math.isclose(sum(modes), 1, rel_tol=1e-6)
    check(valid, "modes", list(modes), "probabilities that sum to 1")
    return list(modes)
