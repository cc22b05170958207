from __future__ import annotations

import numpy as np
import torch

from uepo_lib.contacts import touching
from uepo_lib.locomotion import HOPPER


def test_a_hopper_touches_the_ground_only_near_it() -> None:
    env = HOPPER.make()
    env.reset(seed=0)
    standing = HOPPER.logged_state(env)
    flying = standing.copy()
    flying[1] += 1.0  # the height of the torso
    sunk = standing.copy()
    sunk[1] -= 0.06  # at reset the sole is 0.04 ± 0.005 above the ground
    near = standing.copy()
    near[1] -= 0.02
    found = touching(HOPPER, torch.from_numpy(np.stack([sunk, flying, near, sunk])))
    assert found.tolist() == [True, False, False, True]
    env.close()
