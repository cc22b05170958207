"""A policy that is late: what it plans from is some control steps old (E4, open question 1).

While a policy computes, the robot moves on with what it was told before. So with a delay of d
control steps the plan that begins now was made from the state d steps ago.

    state    s_{t-d} ........ s_t
    plan     made from here   begins here, with its first action (skip = 0)
                              or with its action d, which was meant for now (skip = d)
"""

from __future__ import annotations

import torch
from torch import Tensor

from uepo_lib.errors import check
from uepo_lib.policies import Policy
from uepo_lib.subpolicies import SubPolicies

REVISION = 2


class Delayed:
    """``policy`` with a delay of ``delay`` control steps; a ``Policy`` (see ``policies.py``).

    Before an episode is that old, its first state stands for the missing ones. The first ``skip``
    actions of every plan are not executed: with skip = d those that the delay has overtaken. A
    planner can, where its horizon T is at least T_a + skip.
    """

    def __init__(self, policy: Policy, delay: int, *, skip: int = 0) -> None:
        check(delay >= 0, "delay", delay, "0 or more control steps")
        check(skip >= 0, "skip", skip, "0 or more actions")
        self.policy, self.delay, self.skip = policy, delay, skip
        self.n, self.action_horizon = policy.n, policy.action_horizon
        self.obs_horizon = policy.obs_horizon + delay
        if skip:
            can = isinstance(policy, SubPolicies)
            check(can, "skip", skip, "0 for a policy that plans no further than it acts")
            horizon = policy.noise.shape[1] if isinstance(policy, SubPolicies) else 0
            valid = f"at most T - T_a = {horizon - policy.action_horizon}"
            check(skip + policy.action_horizon <= horizon, "skip", skip, valid)

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, B, T_o + d, S) -> (n, B, T_a, A)."""
        seen = states[:, :, : self.policy.obs_horizon]
        if self.skip and isinstance(self.policy, SubPolicies):
            plan = self.policy.plan(seen, generator)
            return plan[:, :, self.skip : self.skip + self.action_horizon]
        return self.policy.act(seen, generator)
