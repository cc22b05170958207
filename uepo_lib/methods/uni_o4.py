"""Uni-O4 (arXiv 2311.03351): cloned Gaussians, improved offline one by one, the best one online."""

from __future__ import annotations

from dataclasses import dataclass

from uepo_lib.diversity import GaussianEnsemble
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.finetuning import OnlineActor
from uepo_lib.policies import GaussianPolicy
from uepo_lib.selection import best_member
from uepo_lib.stages import Product, Study
from uepo_lib.values import Critic


@dataclass(frozen=True)
class UniO4:
    """What each step produced; ``improved`` is ``ensemble`` where PPO was left out."""

    ensemble: Product[GaussianEnsemble]
    dynamics: Product[DynamicsModel]
    critic: Product[Critic]
    improved: Product[GaussianEnsemble]
    best: Product[GaussianPolicy]
    online: Product[OnlineActor]


def uni_o4(study: Study, n: int | None = None, *, offline_improvement: str = "ppo") -> UniO4:
    """Uni-O4 with n policies, 4 by default. With one it is BPPO (arXiv 2302.11312).

    ``offline_improvement="none"`` leaves offline PPO out: cloning and selection alone, the equal of
    UEPO, which has none either.
    """
    # Offline: an ensemble of clones, IQL's critics, and a dynamics model to judge policies in.
    ensemble = study.ensemble(n)
    dynamics, critic = study.dynamics(), study.critic()

    # PPO on the states of D; a member replaces its behaviour policy where AM-Q says so.
    ppo = study.improvement(offline_improvement)
    improved = study.improve_gaussians(ensemble, dynamics, critic) if ppo else ensemble

    # The best by AM-Q goes online, as the paper says; the code asks the environment here.
    best = best_member(study, improved, dynamics, critic)
    online = study.fine_tune(best, critic)
    return UniO4(ensemble, dynamics, critic, improved, best, online)
