from __future__ import annotations

import numpy as np
import torch

from uepo_lib.constraints import active_constraints
from uepo_lib.locomotion import HOPPER


def test_a_hopper_touches_the_ground_only_near_it_and_its_knee_does_not_bend_back() -> None:
    env = HOPPER.make()
    env.reset(seed=0)
    bent = HOPPER.logged_state(env)
    env.close()
    bent[3:6] = -0.3, -0.3, 0.0  # thigh, leg, foot: within their limits, the sole still level
    bent[1] = 1.6
    low, straight = bent.copy(), bent.copy()
    low[1] = 1.0
    straight[4] = 0.05  # the leg's upper limit is 0
    contact, limit = active_constraints(HOPPER, torch.from_numpy(np.stack([bent, low, straight])))
    assert contact.tolist() == [False, True, False]
    assert limit.tolist() == [False, False, True]
