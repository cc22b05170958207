"""Dynamic divergence of action sequences, and the guidance it drives (the paper's contribution 2).

    div(a_i, a_j) = (1/T) Σ_t ( ‖ȧ_{i,t} − ȧ_{j,t}‖₂ + (1 − cos(ä_{i,t}, ä_{j,t})) )

with first and second differences per control step, each term a mean over its valid t (A4). A
constant offset scores 0; what scores high is being out of phase, and noise. So a divergence is read
beside its :func:`noise_floor` and beside that of :func:`low_pass`-ed sequences.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor

from uepo_lib.errors import check, unknown

REVISION = 1


def velocity(a: Tensor) -> Tensor:
    """ȧ: (..., T, A) -> (..., T − 1, A)."""
    return a[..., 1:, :] - a[..., :-1, :]


def acceleration(a: Tensor) -> Tensor:
    """ä: (..., T, A) -> (..., T − 2, A)."""
    return velocity(velocity(a))


def _direction(a: Tensor, floor: float) -> Tensor:
    """ä/‖ä‖ with one coordinate more: (..., T, A) -> (..., T − 2, A + 1).

    A sequence that is still (‖ä‖ ≤ floor) points along the extra axis. Then ½‖û − ŵ‖² is 1 − cos
    between two that move, 0 between two that are still and 1 between one and the other, as A4 asks.
    """
    acc = acceleration(a)
    norm = acc.norm(dim=-1, keepdim=True)
    still = norm <= floor
    moving = torch.where(still, 0.0, acc / norm.clamp(min=torch.finfo(a.dtype).tiny))
    return torch.cat([moving, still.to(a.dtype)], dim=-1)


def velocity_term(a: Tensor, b: Tensor) -> Tensor:
    """Mean over t of ‖ȧ − ḃ‖₂: two (..., T, A) -> (...). In action units per control step."""
    _check_sequences(a)
    return (velocity(a) - velocity(b)).norm(dim=-1).mean(dim=-1)


def acceleration_term(a: Tensor, b: Tensor, floor: float = 0.0) -> Tensor:
    """Mean over t of 1 − cos(ä, b̈), in [0, 2]: two (..., T, A) -> (...).

    Norms up to ``floor`` have no direction: two of them score 0, one scores 1.
    """
    _check_sequences(a)
    difference = _direction(a, floor) - _direction(b, floor)
    return 0.5 * difference.square().sum(dim=-1).mean(dim=-1)


def divergence(a: Tensor, b: Tensor, floor: float = 0.0) -> Tensor:
    """div(a, b) for two (..., T, A), which may broadcast: (...)."""
    return velocity_term(a, b) + acceleration_term(a, b, floor)


def pairwise(a: Tensor, floor: float = 0.0) -> Tensor:
    """div of all pairs among n sub-policies: (n, B, T, A) -> (n, n, B), 0 on the diagonal."""
    _check_sequences(a)
    v, u = velocity(a).permute(1, 2, 0, 3), _direction(a, floor).permute(1, 2, 0, 3)
    exact = "donot_use_mm_for_euclid_dist"  # the product form loses small distances to cancellation
    speed = torch.cdist(v, v, compute_mode=exact).mean(dim=1)
    turn = torch.cdist(u, u, compute_mode=exact).square().mean(dim=1) / 2
    return (speed + turn).permute(1, 2, 0)


def nearest_neighbour(a: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """div to the nearest other sub-policy, and which one that is: (n, B, T, A) -> two (n, B)."""
    check(len(a) >= 2, "n", len(a), "at least 2 sub-policies to compare")
    return nearest(pairwise(a, floor))


def nearest(distances: Tensor) -> tuple[Tensor, Tensor]:
    """The least distance to another, and whose it is: (n, n, B) -> two (n, B)."""
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)[:, :, None]
    distance, index = distances.masked_fill(itself, torch.inf).min(dim=1)
    return distance, index


def mean_pairwise(a: Tensor, floor: float = 0.0) -> Tensor:
    """Mean div over the n(n − 1)/2 pairs and over B: (n, B, T, A) -> scalar."""
    check(len(a) >= 2, "n", len(a), "at least 2 sequences to compare")
    return pairwise(a, floor).mean(dim=-1).sum() / (len(a) * (len(a) - 1))


def noise_floor(repeats: Tensor, floor: float = 0.0) -> float:
    """What div measures when nothing differs but noise: mean div between ``repeats`` (R, B, T, A)
    of one behaviour in the same B states."""
    return float(mean_pairwise(repeats, floor))


def cosine_floor(actions: Tensor, share: float = 0.05) -> float:
    """Below what ‖ä‖ a direction means nothing: 5 % of the median over the data (M, T, A)."""
    _check_sequences(actions)
    return share * float(acceleration(actions).norm(dim=-1).median())


def calibrate_threshold(unguided: Tensor, quantile: float, floor: float = 0.0) -> float:
    """τ as a quantile of the nearest-neighbour div of the *unguided* ensemble (n, B, T, A) (A4)."""
    check(0 < quantile < 1, "quantile", quantile, "strictly between 0 and 1")
    return float(nearest_neighbour(unguided, floor)[0].quantile(quantile))


def low_pass(a: Tensor, width: int = 3) -> Tensor:
    """Centred moving average over ``width`` (odd) control steps, the ends repeated: (..., T, A)."""
    check(width >= 1 and width % 2 == 1, "width", width, "a positive odd integer")
    half = width // 2
    ends = [a[..., :1, :]] * half + [a] + [a[..., -1:, :]] * half
    return torch.cat(ends, dim=-2).unfold(-2, width, 1).mean(dim=-1)


def _check_sequences(a: Tensor) -> None:
    check(a.shape[-2] >= 3, "T", a.shape[-2], "at least 3, for a second difference")


EtaSchedule = Literal["linear", "constant"]


@dataclass(frozen=True)
class GuidanceConfig:
    """σ_div = η (τ − div)/τ where div < τ, else 0."""

    threshold: float  # τ; see `calibrate_threshold`
    eta: float = 0.5  # η, in action units
    floor: float = 0.0  # see `cosine_floor`
    eta_schedule: EtaSchedule = "linear"  # over reverse steps, η to 0 at the last; or as printed

    def __post_init__(self) -> None:
        check(self.threshold > 0, "threshold", self.threshold, "positive")
        check(self.eta >= 0, "eta", self.eta, "not negative")
        check(self.floor >= 0, "floor", self.floor, "not negative")
        if self.eta_schedule not in get_args(EtaSchedule):
            raise unknown("eta_schedule", self.eta_schedule, get_args(EtaSchedule))


def check_chosen(guided: bool, chosen: Collection[str], others: Collection[str]) -> None:
    """``UsageError`` if what is ``chosen`` by name beside the arguments ``others`` is no field of
    :class:`GuidanceConfig`, or is chosen where nothing is guided."""
    valid = [field.name for field in fields(GuidanceConfig)]
    for name in chosen:
        if name not in valid:
            raise unknown("argument of sub-policies", name, [*valid, *others])
    check(guided or not chosen, "guided", guided, f"True where {', '.join(chosen)} is chosen")


@dataclass(frozen=True)
class Guidance:
    """A hook for :meth:`DiffusionModel.sample` that pushes close sub-policies apart (A3).

    On every reverse step but the last, all pairs at once, each sub-policy against its nearest
    neighbour: x̂_0 ← x̂_0 + σ_div ξ_{i,k}. The ξ are fixed, so the guided ensemble is still a
    function of the state. ``control`` replaces the rule by one σ a step, whatever the divergence:
    noise of equal power without the gate, or (all but its last entry 0) white noise on the final
    actions; ``subpolicies.equal_power_controls`` makes both.
    """

    config: GuidanceConfig
    xi: Tensor  # (n, num_denoising_steps, T, A) standard normal
    control: Tensor | None = None  # (num_denoising_steps,)

    @property
    def num_steps(self) -> int:
        return self.xi.shape[1]

    def distance(self, x0: Tensor) -> Tensor:
        """What is compared with τ, for estimates (n, B, T, A): (n, B)."""
        return nearest_neighbour(x0, self.config.floor)[0]

    def sigma(self, x0: Tensor, step_index: int) -> Tensor:
        """σ of the perturbation at this step for estimates (n, B, T, A): (n, B)."""
        if self.control is not None:
            return self.control[step_index].expand(x0.shape[:2])
        if step_index == self.num_steps - 1:
            return x0.new_zeros(x0.shape[:2])
        cfg = self.config
        distance = self.distance(x0)
        left = 1 - step_index / (self.num_steps - 1) if cfg.eta_schedule == "linear" else 1.0
        return left * cfg.eta * ((cfg.threshold - distance) / cfg.threshold).clamp(min=0)

    def __call__(self, x0: Tensor, k: int, step_index: int) -> Tensor:
        """``x0`` (n·B, T, A), sub-policy by sub-policy."""
        grouped = x0.unflatten(0, (len(self.xi), -1))
        sigma = self.sigma(grouped, step_index)[:, :, None, None]
        return (grouped + sigma * self.xi[:, None, step_index]).flatten(0, 1)
