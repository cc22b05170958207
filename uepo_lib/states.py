"""The simulator's state from what was observed of it, where that is possible at all.

HalfCheetah, Hopper and Walker2d observe all of their state but the distance travelled x, which
changes nothing: (qpos[1:], qvel). Hopper's and Walker2d's velocities are clipped to ±10, and a
clipped one is lost. Other robots observe too little, or observe noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uepo_lib.errors import UsageError
from uepo_lib.robots import Array, Robot

VELOCITY_CLIP = 10.0
"""What Hopper and Walker2d observe of a faster joint, rad/s (m/s for the torso)."""

_VELOCITIES = {"HalfCheetah": 9, "Hopper": 6, "Walker2d": 9}
_CLIPPED = ("Hopper", "Walker2d")


def determines(robot: Robot) -> bool:
    """Whether an observation of ``robot`` determines its simulator's state, up to x."""
    return robot.env_id.partition("-")[0] in _VELOCITIES


def state_from_observation(
    robot: Robot, observations: NDArray[np.floating]
) -> tuple[Array, NDArray[np.bool_]]:
    """Raw observations (N, S) -> simulator states (N, nq + nv) with x = 0, and which are usable.

    A usable one is as exact as the observation is: :meth:`Robot.restore_logged` takes it. The
    others have a velocity at the clip, or a number that is not finite. Raises ``UsageError`` for a
    robot whose observation does not determine its state.
    """
    kind = robot.env_id.partition("-")[0]
    if not determines(robot):
        raise UsageError(
            f"{robot.env_id}: an observation does not determine the simulator's state; it does for "
            f"{', '.join(_VELOCITIES)}"
        )
    if observations.ndim != 2 or observations.shape[1] != robot.state_dim:
        raise UsageError(
            f"observations of shape {observations.shape}: must be (N, {robot.state_dim})"
        )
    rows = observations.astype(np.float64)
    usable = np.asarray(np.isfinite(rows).all(axis=1))
    if kind in _CLIPPED:
        velocities = np.abs(rows[:, -_VELOCITIES[kind] :])
        usable &= np.asarray((velocities < VELOCITY_CLIP).all(axis=1))
    return np.concatenate([np.zeros((len(rows), 1)), rows], axis=1), usable


def refused(usable: NDArray[np.bool_]) -> str:
    """How many states were refused, in words: ``"12 of 400 states refused (3.0 %), first at step
    7"``."""
    count, total = int((~usable).sum()), len(usable)
    if not count:
        return f"none of {total:,} states refused"
    first = int((~usable).argmax())
    return f"{count:,} of {total:,} states refused ({count / total:.2%}), first at step {first:,}"
