"""The best plan in each state, by Q: argmax_i min Q(s, a^i), without any training (E3).

As in IDQL (arXiv 2304.10573): a generative model proposes, the critic chooses. Here the proposals
are the candidates (i, κ) that AM-Q chooses *one* of for good, so the two differ only by when the
choice is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.errors import check
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.values import Critic

REVISION = 1


class GreedyQ:
    """One policy out of n sub-policies and a critic; a ``Policy`` (see ``policies.py``).

    A plan is judged by the first of its actions, which is all that Q can judge in this state.
    """

    n = 1

    def __init__(self, proposals: SubPolicies, critic: Critic) -> None:
        check(proposals.guidance is None, "proposals", "a guided set", "unguided")
        self.proposals, self.critic = proposals, critic
        self.obs_horizon = proposals.obs_horizon
        self.action_horizon = proposals.action_horizon

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(1, B, T_o, S) -> (1, B, T_a, A)."""
        plans = self.proposals.plan_shared(states[0], generator)[:, :, : self.action_horizon]
        now = states[0, :, -1].expand(len(plans), -1, -1)
        best = self.critic.min_q(now, plans[:, :, 0].clamp(-1, 1)).argmax(0)
        return plans[best, torch.arange(len(best))].unsqueeze(0)
