"""Behaviour cloning of a Gaussian policy: maximum likelihood, −E_D[log π(a|s)]."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uepo_lib.diffusion import SequenceWindows
from uepo_lib.errors import check
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.training import GeneratorState, Metrics, Recorder, descend, fit

REVISION = 1


@dataclass(frozen=True)
class CloneConfig:
    """Uni-O4's settings (arXiv 2311.03351) but for the number and size of updates."""

    num_updates: int = 10_000
    batch_size: int = 256
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check(self.num_updates > 0, "num_updates", self.num_updates, "a positive integer")
        check(self.batch_size > 0, "batch_size", self.batch_size, "a positive integer")
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")


def train_clone(
    cfg: CloneConfig,
    gaussian: GaussianConfig,
    windows: SequenceWindows,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> GaussianPolicy:
    """Clone the windows' first T_a actions; T_o and T_a are the Gaussian's."""
    policy = GaussianPolicy(gaussian, seed)
    optimiser = torch.optim.Adam(policy.parameters(), lr=cfg.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(seed)

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (cfg.batch_size,), generator=generator)
        batch = windows.batch(index)
        actions = batch.actions[:, : gaussian.action_horizon]
        loss = -policy.log_prob(batch.past, actions).mean()
        descend(loss, optimiser)
        return {"nll": loss.detach()}

    parts = {"policy": policy, "optimiser": optimiser, "generator": GeneratorState(generator)}
    fit(cfg.num_updates, update, parts, recorder=recorder, name="cloning", progress=progress)  # type: ignore[arg-type]
    return policy
