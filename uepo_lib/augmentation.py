r"""Synthetic trajectories for the dynamics model, and the KL filter that admits them to D_diff.

From start states of D every sub-policy acts for H steps; a trajectory is kept if

$$\mathrm{KL}(\text{real dynamics} \,\|\, \hat T_{init}) < \varepsilon$$

(the paper's contribution 3: ε = 0.05, |D_diff| = 2 to 3 times |D|). What "real dynamics" can
mean offline, and what the unit of ε is, the paper leaves open (choices A6 to A8):

* ``transitions="model"``: T̂_init itself is rolled out. There is no real s', so a step costs the
  mean KL of each elite to the moment-matched ensemble: how far the elites disagree.
* ``transitions="simulator"``: the environment is stepped, and counted. A step costs the KL of
  N(s', Σ̂) to N(ŝ, Σ̂), which is ½ mean_d (Δ_d / σ̂_d)².

Costs are nats per state dimension. A trajectory's value is its mean over steps, and ε bounds its
*excess* over the median of the same number on held-out real sequences of the same length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from uepo_lib.datasets import Dataset, Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check, unknown
from uepo_lib.rollouts import ModelSimulator, Simulator, Trajectories, rollout

if TYPE_CHECKING:
    from uepo_lib.policies import Policy

REVISION = 1

_CHOICES = {
    "transitions": ("model", "simulator"),
    "acceptance": ("kl", "random", "all"),
    "covariance": ("predicted", "unit"),
}


@dataclass(frozen=True)
class AugmentationConfig:
    """How much is generated, from where, and what is kept.

    ``ratio`` is |D_diff| / |D|, ``horizon`` H. ``acceptance="random"`` is the control at equal
    volume: each round keeps as many trajectories as the KL filter would, drawn at random.
    ``covariance="unit"`` measures costs with unit variance on standardised states (A6's
    alternative: ε = 0.05 then accepts almost everything). Generation gives up after
    ``max_attempts`` times the wanted number of transitions.
    """

    ratio: float = 2.0
    horizon: int = 50
    epsilon: float = 0.05
    transitions: str = "model"
    acceptance: str = "kl"
    covariance: str = "predicted"
    starts_per_round: int = 64
    max_attempts: float = 4.0

    def __post_init__(self) -> None:
        for name in ("ratio", "horizon", "starts_per_round"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.epsilon >= 0, "epsilon", self.epsilon, "≥ 0")
        check(self.max_attempts >= 1, "max_attempts", self.max_attempts, "≥ 1")
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise unknown(name, getattr(self, name), valid)


def gaussian_kl(mean_p: Tensor, var_p: Tensor, mean_q: Tensor, var_q: Tensor) -> Tensor:
    """KL(N(mean_p, var_p) ‖ N(mean_q, var_q)) of scalars, elementwise, in nats."""
    square = (mean_p - mean_q).square()
    return 0.5 * (torch.log(var_q / var_p) + (var_p + square) / var_q - 1)


def moment_matched(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the equal mixture of E Gaussians: two (E, ...) to two (...)."""
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def step_costs(
    dynamics: DynamicsModel,
    cfg: AugmentationConfig,
    states: Tensor,
    actions: Tensor,
    next_states: Tensor,
) -> Tensor:
    """What one step costs under the filter, in nats per state dimension: (N, ·) -> (N,).

    With ``transitions="model"`` it depends on (s, a) alone. Rewards do not count.
    """
    means, variances = (x[..., :-1] for x in dynamics.moments(states, actions))
    mean, variance = moment_matched(means, variances)
    if cfg.covariance == "unit":
        variances, variance = torch.ones_like(variances), torch.ones_like(variance)
    if cfg.transitions == "model":
        return gaussian_kl(means, variances, mean, variance).mean((0, -1))
    return gaussian_kl(next_states, variance, mean, variance).mean(-1)


def reference_costs(
    dynamics: DynamicsModel,
    past: Tensor,
    actions: Tensor,
    future: Tensor,
    cfg: AugmentationConfig,
) -> Tensor:
    """The median cost of held-out real sequences by their length 1 .. H, (H,).

    ``past`` (M, T_o, S) ends with s_t, ``actions`` (M, ≥ H, A) start at a_t, ``future``
    (M, ≥ H, S) starts at s_{t+1}. Raises ``UsageError`` if they are empty or shorter than H.
    """
    steps = min(actions.shape[1], future.shape[1])
    check(steps >= cfg.horizon, "horizon", cfg.horizon, f"at most the held-out {steps} steps")
    check(len(past) > 0, "past", "empty", "at least one held-out sequence")
    future, actions = future[:, : cfg.horizon], actions[:, : cfg.horizon]
    states = torch.cat([past[:, -1:], future[:, :-1]], 1)
    flat = (x.flatten(0, 1) for x in (states, actions, future))
    costs = step_costs(dynamics, cfg, *flat).view(actions.shape[:2])
    lengths = torch.arange(1, cfg.horizon + 1, device=costs.device)
    return (costs.cumsum(1) / lengths).median(0).values


def check_horizon(parameter: str, horizon: int, data: Dataset, held: Tensor) -> None:
    """``UsageError`` unless a held-out episode is long enough for a reference of H steps.

    ``held`` are the held-out steps of ``data``, whole episodes; a sequence ends in a state.
    """
    lengths = data.first_step[held].unique(return_counts=True)[1]
    longest = int(lengths.max()) - 1
    valid = f"at most {longest}, one less than the longest held-out episode"
    check(horizon <= longest, parameter, horizon, valid)


def excess_costs(
    dynamics: DynamicsModel, found: Trajectories, reference: Tensor, cfg: AugmentationConfig
) -> Tensor:
    """Each trajectory's mean cost over the real median at its length: (R,) nats per dimension."""
    costs = torch.zeros(found.valid.shape, device=reference.device)
    costs[found.valid] = step_costs(
        dynamics,
        cfg,
        found.states[found.valid],
        found.actions[found.valid],
        found.next_states[found.valid],
    )
    lengths = found.lengths()
    return costs.sum(1) / lengths - reference[lengths - 1]


def accept(excess: Tensor, cfg: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Which trajectories of a round are kept: excess (R,) -> bool (R,).

    A trajectory in which T̂ ran away to infinity is never kept. The generator is used alike in
    every mode, so that the modes judge the same trajectories.
    """
    finite = excess.isfinite()
    order = torch.randperm(len(excess), generator=generator, device=excess.device)
    if cfg.acceptance == "all":
        return finite
    below = finite & (excess < cfg.epsilon)
    if cfg.acceptance == "kl":
        return below
    drawn = torch.zeros_like(below)
    drawn[finite] = below[order[finite[order]]]  # shuffled among the finite: none is lost
    return drawn


@dataclass(frozen=True)
class Synthetic:
    """D_diff and how it came about; the tensors (R,) are of all trajectories tried, kept or not."""

    transitions: Transitions
    excess: Tensor
    lengths: Tensor
    accepted: Tensor
    wanted: int
    simulator_steps: int
    simulator_resets: int

    def summary(self) -> dict[str, float | None]:
        """Numbers for the record of a run. Simulator steps and resets are real interaction.

        The median is over finite excesses, None without one: JSON has no other numbers.
        """
        finite = self.excess[self.excess.isfinite()]
        return {
            "transitions": len(self.transitions.rewards),
            "wanted": self.wanted,
            "trajectories_tried": len(self.excess),
            "trajectories_kept": int(self.accepted.sum()),
            "acceptance": float(self.accepted.float().mean()),
            "mean_length": float(self.lengths.float().mean()),
            "median_excess": float(finite.median()) if len(finite) else None,
            "simulator_steps": self.simulator_steps,
            "simulator_resets": self.simulator_resets,
        }


def synthesise(
    policy: Policy,
    dynamics: DynamicsModel,
    starts: Tensor,
    terminated: Callable[[Tensor], Tensor],
    reference: Tensor,
    cfg: AugmentationConfig,
    generator: torch.Generator,
    *,
    dataset_size: int,
    simulator: Simulator | None = None,
    progress: bool = True,
) -> Synthetic:
    """Fill D_diff with ``cfg.ratio · dataset_size`` transitions, all sub-policies alike.

    ``starts`` (M, T_o, S) are windows of D, ``terminated`` takes standardised states (B, S),
    ``reference`` (H,) comes from ``reference_costs``. With ``transitions="simulator"`` the world is
    ``simulator``, whose starts must be the same M. Fewer transitions than wanted come back when
    ``max_attempts`` ran out: compare ``summary()["transitions"]`` with ``["wanted"]``.

    Raises ``UsageError`` when starts, reference or simulator do not fit policy and config.
    """
    _check_inputs(policy, starts, reference, cfg, simulator)
    world = simulator or ModelSimulator(dynamics, starts, terminated, generator)
    wanted = math.ceil(cfg.ratio * dataset_size)
    kept: list[Transitions] = []
    tried: list[tuple[Tensor, Tensor, Tensor]] = []
    volume = attempted = 0
    enough = math.ceil(wanted / (policy.n * cfg.horizon))
    shape = (policy.n, min(cfg.starts_per_round, enough))
    with tqdm(total=wanted, desc="augmentation", disable=not progress, leave=False) as bar:
        while volume < wanted and attempted < cfg.max_attempts * wanted:
            indices = torch.randint(len(starts), shape, generator=generator, device=starts.device)
            found = rollout(policy, world, indices, cfg.horizon, generator)
            excess = excess_costs(dynamics, found, reference, cfg)
            accepted = accept(excess, cfg, generator)
            kept.append(found.transitions(accepted))
            tried.append((excess, found.lengths(), accepted))
            volume += len(kept[-1])
            attempted += int(found.valid.sum())
            bar.update(len(kept[-1]))
    excess, lengths, accepted = (torch.cat(column) for column in zip(*tried, strict=True))
    spent = (simulator.steps, simulator.resets) if simulator else (0, 0)
    return Synthetic(_first(kept, wanted), excess, lengths, accepted, wanted, *spent)


def _first(parts: list[Transitions], count: int) -> Transitions:
    """The first ``count`` rows of all parts together."""
    columns = zip(*(part.tensors() for part in parts), strict=True)
    return Transitions(*(torch.cat(column)[:count] for column in columns))


def _check_inputs(
    policy: Policy,
    starts: Tensor,
    reference: Tensor,
    cfg: AugmentationConfig,
    simulator: Simulator | None,
) -> None:
    check(len(starts) > 0, "starts", "empty", "at least one window of states")
    check(
        starts.shape[1] == policy.obs_horizon,
        "starts",
        tuple(starts.shape),
        f"(M, T_o, S) with the policy's T_o={policy.obs_horizon}",
    )
    check(
        reference.shape == (cfg.horizon,),
        "reference",
        tuple(reference.shape),
        f"({cfg.horizon},), from reference_costs with the same horizon",
    )
    check(
        (simulator is not None) == (cfg.transitions == "simulator"),
        "transitions",
        cfg.transitions,
        "'simulator' exactly when a simulator is given",
    )
