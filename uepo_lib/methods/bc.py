"""BC: a Gaussian clone of the data, then the same online PPO as everyone else."""

from __future__ import annotations

from dataclasses import dataclass

from uepo_lib.finetuning import OnlineActor
from uepo_lib.policies import GaussianPolicy
from uepo_lib.stages import Product, Study


@dataclass(frozen=True)
class BC:
    """The clone and what became of it online."""

    clone: Product[GaussianPolicy]
    online: Product[OnlineActor]


def bc(study: Study) -> BC:
    """Maximise E_D[log π(a|s)], then fine-tune online from there; V starts as IQL's, as in UEPO."""
    clone = study.clone()
    online = study.fine_tune(clone, study.critic())
    _ = online.run
    return BC(clone, online)
