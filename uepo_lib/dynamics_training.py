"""Fitting T̂: bootstraps, held-out checks, the best weights of each member, its elites.

What it computes has the revision of ``dynamics``.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from uepo_lib.dynamics import ROWS_AT_ONCE, DynamicsConfig, DynamicsModel, build
from uepo_lib.errors import check
from uepo_lib.networks import EnsembleLinear
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, fit

if TYPE_CHECKING:
    from uepo_lib.datasets import Transitions


class _Table:
    """Transitions as inputs (N, S + A) and targets (N, D) = (Δs, r)."""

    def __init__(self, parts: list[Transitions], device: str) -> None:
        self.inputs = torch.cat([torch.cat([t.states, t.actions], -1) for t in parts]).to(device)
        self.targets = torch.cat(
            [torch.cat([t.next_states - t.states, t.rewards.unsqueeze(-1)], -1) for t in parts]
        ).to(device)
        check(len(self.inputs) > 0, "transitions", "empty", "at least one transition")
        finite = bool(self.inputs.isfinite().all() and self.targets.isfinite().all())
        check(finite, "transitions", "NaN or infinite", "finite numbers throughout")

    def scale(self, model: DynamicsModel) -> None:
        self.targets = (self.targets - model.target_shift) / model.target_scale


class _BestMembers:
    """Each member's weights at its lowest held-out error, and how long none has improved."""

    def __init__(self, model: DynamicsModel, min_improvement: float) -> None:
        self.model, self.min_improvement = model, min_improvement
        self.weights = {k: p.detach().clone() for k, p in model.named_parameters()}
        self.errors = next(model.parameters()).new_full((model.cfg.num_members,), torch.inf)
        self.checks_without_gain = 0

    def update(self, errors: Tensor) -> None:
        """Take the held-out errors (E,) of the weights as they are now."""
        improved = errors < self.errors * (1 - self.min_improvement)
        self.checks_without_gain = 0 if improved.any() else self.checks_without_gain + 1
        self.errors = torch.where(improved, errors, self.errors)
        for key, parameter in self.model.named_parameters():
            self.weights[key][improved] = parameter.detach()[improved]

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model these weights, and as elites the members with the lowest errors."""
        for key, parameter in self.model.named_parameters():
            parameter.copy_(self.weights[key])
        self.model.elites = self.errors.argsort(stable=True)[: self.model.cfg.num_elites]

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "errors": self.errors,
            "checks_without_gain": self.checks_without_gain,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = copy.deepcopy(state["weights"])
        self.errors = state["errors"].clone()
        self.checks_without_gain = state["checks_without_gain"]


def _optimiser(cfg: DynamicsConfig, model: DynamicsModel) -> torch.optim.Optimizer:
    linears = [m for m in model.network if isinstance(m, EnsembleLinear)]
    groups: list[dict[str, Any]] = [
        {"params": [linear.weight], "weight_decay": decay}
        for linear, decay in zip(linears, cfg.weight_decay, strict=True)
    ]
    free = [linear.bias for linear in linears] + [model.max_logvar, model.min_logvar]
    groups.append({"params": free, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=cfg.learning_rate, fused=True)


def _descend(
    model: DynamicsModel, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """One gradient step on the negative log-likelihood of y (E, B, D) given x (E, B, S + A)."""
    mean, logvar = model.scaled_moments(x)
    square = (mean - y).square()
    # Members share nothing: the sum of their losses trains each as if it were alone.
    nll = (square * (-logvar).exp() + logvar).mean((1, 2)).sum()
    width = (model.max_logvar - model.min_logvar).sum()
    optimiser.zero_grad()
    (nll + model.cfg.bound_coefficient * width).backward()
    optimiser.step()
    return {"nll": nll.detach() / (2 * len(x)), "train_error": square.detach().mean()}


def _scaled(
    cfg: DynamicsConfig, real: _Table, sizes: tuple[int, int], seed: int, device: str
) -> DynamicsModel:
    """An untrained model that is scaled to D.

    D alone sets the scale, so that errors with and without D_diff are in one unit. A coordinate
    that never changes in D keeps its own unit.
    """
    model = build(cfg, *sizes, seed, device)
    spread = real.targets.std(0, correction=0)
    model.target_shift = real.targets.mean(0)
    model.target_scale = torch.where(spread > 1e-6, spread, 1.0)
    return model


class _Bootstrap:
    """Each member's own resampling of N rows, and minibatches from it."""

    def __init__(self, cfg: DynamicsConfig, num_rows: int, generator: torch.Generator) -> None:
        self.num_rows, self.generator = num_rows, generator
        self.batch = (cfg.num_members, cfg.batch_size)
        self.rows = self._draw((cfg.num_members, num_rows))

    def _draw(self, shape: tuple[int, int]) -> Tensor:
        device = self.generator.device
        return torch.randint(self.num_rows, shape, generator=self.generator, device=device)

    def draw(self) -> Tensor:
        """Row numbers (E, B)."""
        return self.rows.gather(1, self._draw(self.batch))


def train_dynamics(
    cfg: DynamicsConfig,
    transitions: Transitions,
    holdout: Transitions,
    *,
    seed: int,
    extra: Transitions | None = None,
    start: DynamicsModel | None = None,
    recorder: Recorder | None = None,
    device: str = "cpu",
    progress: bool = True,
    name: str = "dynamics",
) -> DynamicsModel:
    """Fit T̂ to ``transitions`` (D), or with ``extra`` (D_diff) to their union, each row alike.

    Every member sees its own bootstrap of the rows. ``holdout`` must be real and from other
    episodes: it decides when to stop, which weights of each member are kept, and the elites.
    ``start``, with the same config, is refitted in place of a new model (A14). Logs once a check;
    errors are mean squares of scaled targets.

    Raises ``UsageError`` for empty data, and for NaN or infinite values.
    """
    real, unseen = _Table([transitions], device), _Table([holdout], device)
    data = real if extra is None else _Table([transitions, extra], device)
    sizes = transitions.states.shape[-1], transitions.actions.shape[-1]
    model = _scaled(cfg, real, sizes, seed, device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    data.scale(model)
    unseen.scale(model)
    optimiser, best = _optimiser(cfg, model), _BestMembers(model, cfg.min_improvement)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cfg.max_updates)
    generator = torch.Generator(device).manual_seed(seed)
    bootstrap = _Bootstrap(cfg, len(data.inputs), generator)

    def update(step: int) -> Metrics:
        rows = bootstrap.draw()
        metrics = _descend(model, optimiser, data.inputs[rows], data.targets[rows])
        schedule.step()
        if (step + 1) % cfg.check_every == 0 or step + 1 == cfg.max_updates:
            errors = scaled_errors(model, unseen.inputs, unseen.targets)
            best.update(errors)
            metrics |= {"holdout_error": errors.mean(), "best_error": best.errors.mean()}
        return metrics

    parts: dict[str, Stateful] = {
        "model": model,
        "optimiser": optimiser,
        "schedule": schedule,
        "generator": GeneratorState(generator),
        "best": best,
    }
    fit(
        cfg.max_updates,
        update,
        parts,
        recorder=recorder,
        name=name,
        log_every=cfg.check_every,
        should_stop=lambda: cfg.patience is not None and best.checks_without_gain >= cfg.patience,
        progress=progress,
    )
    best.restore()
    return model.requires_grad_(False)


@torch.no_grad()
def scaled_errors(model: DynamicsModel, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each member on scaled targets: (N, S + A), (N, D) -> (E,)."""
    total = torch.zeros(model.cfg.num_members, device=inputs.device)
    for x, y in zip(inputs.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE), strict=True):
        mean, _ = model.scaled_moments(x.expand(model.cfg.num_members, -1, -1))
        total += (mean - y).square().sum((1, 2))
    return total / targets.numel()
