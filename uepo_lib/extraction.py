r"""IQL's policy: clone the actions of D, weighted by how much better than usual they are.

$$L(\pi) = -\mathbb{E}_D\big[\min(e^{\beta c\,(\bar Q(s, a) - V(s))}, w_{max}) \log \pi(a|s)\big]$$

with the lower of both target Qs. Advantage-weighted regression (arXiv 1910.00177) as IQL uses it
(arXiv 2110.06169, section 4.2): β = 3 and w_max = 100 on locomotion, whose rewards IQL divides by
the range of D's returns over 1000; β = 0.5 on Adroit, whose rewards it leaves alone. Rewards are
raw here, so the same c scales the advantage: 1000 / (max − min return), or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uepo_lib.datasets import Batch
from uepo_lib.diffusion import SequenceWindows
from uepo_lib.errors import check
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, descend, fit
from uepo_lib.values import Critic

REVISION = 1


@dataclass(frozen=True)
class ExtractionConfig:
    """IQL's settings for locomotion but for the number of updates."""

    num_updates: int = 10_000
    batch_size: int = 256
    learning_rate: float = 3e-4  # half a cosine down to 0, as in IQL's code
    beta: float = 3.0
    max_weight: float = 100.0
    scale_by_returns: bool = True
    """Divide the advantage by the range of D's returns over 1000."""

    def __post_init__(self) -> None:
        for name in ("num_updates", "batch_size"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("learning_rate", "max_weight"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.beta >= 0, "beta", self.beta, "0 (plain cloning) or positive")


def advantage_scale(cfg: ExtractionConfig, returns: Tensor) -> float:
    """c of the formula above, from the returns of D's episodes (M,)."""
    if not cfg.scale_by_returns:
        return 1.0
    whole = "of one whole episode at least, to scale by their range"
    check(len(returns) > 0, "returns", "none", whole)
    span = float(returns.max() - returns.min())
    check(span > 0, "returns", f"all {float(returns[0]):.1f}", "different, to scale by their range")
    return 1000 / span


def weights(cfg: ExtractionConfig, critic: Critic, batch: Batch, scale: float) -> Tensor:
    """min(exp(β c A), w_max) of the logged first actions: (B,)."""
    states, actions = batch.past[:, -1], batch.actions[:, 0]
    gain = critic.target_q(states, actions).amin(0) - critic.v(states)
    return (cfg.beta * scale * gain).exp().clamp(max=cfg.max_weight)


def extract_policy(
    cfg: ExtractionConfig,
    gaussian: GaussianConfig,
    windows: SequenceWindows,
    critic: Critic,
    returns: Tensor,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> GaussianPolicy:
    """The weighted clone of the windows' first actions; ``returns`` (M,) are D's episodes'.

    Raises ``UsageError`` for a policy of chunks: Q judges one action.
    """
    check(gaussian.action_horizon == 1, "action_horizon", gaussian.action_horizon, "1")
    scale = advantage_scale(cfg, returns)
    policy = GaussianPolicy(gaussian, seed)
    optimiser = torch.optim.Adam(policy.parameters(), lr=cfg.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cfg.num_updates)
    generator = torch.Generator().manual_seed(seed)

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (cfg.batch_size,), generator=generator)
        batch = windows.batch(index)
        with torch.no_grad():
            weight = weights(cfg, critic, batch, scale)
        log_prob = policy.log_prob(batch.past, batch.actions[:, :1])
        loss = -(weight * log_prob).mean()
        descend(loss, optimiser)
        schedule.step()
        return {"nll": -log_prob.detach().mean(), "weight": weight.mean()}

    parts: dict[str, Stateful] = {
        "policy": policy, "optimiser": optimiser, "schedule": schedule,
        "generator": GeneratorState(generator),
    }  # fmt: skip
    fit(cfg.num_updates, update, parts, recorder=recorder, name="IQL policy", progress=progress)
    return policy
