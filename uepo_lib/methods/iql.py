"""IQL (arXiv 2110.06169): a clone weighted by advantage, then the same online PPO as everyone."""

from __future__ import annotations

from dataclasses import dataclass

from uepo_lib.finetuning import OnlineActor
from uepo_lib.policies import GaussianPolicy
from uepo_lib.stages import Product, Study
from uepo_lib.values import Critic


@dataclass(frozen=True)
class IQL:
    """The critics, the extracted policy, and what became of it online."""

    critic: Product[Critic]
    policy: Product[GaussianPolicy]
    online: Product[OnlineActor]


def iql(study: Study) -> IQL:
    """Q and V on D, the policy from them. IQL's own fine-tuning would go on with all three; here
    the initialisation is compared, and the optimiser is everyone's."""
    critic = study.critic()
    policy = study.iql_policy(critic)
    return IQL(critic, policy, study.fine_tune(policy, critic))
