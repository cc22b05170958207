"""What an environment of one's own must be; whatever is not gets one line that says what would do.

All of it is asked when ``own.robot`` is called, before an episode is played.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from uepo_lib.errors import UsageError, check
from uepo_lib.robots import Env, Robot

Space = gymnasium.Space[Any]


def references(random_return: Any, expert_return: Any) -> None:
    """The returns that score 0 and 100: both finite, the second above the first."""
    for name, value in (("random_return", random_return), ("expert_return", expert_return)):
        finite = isinstance(value, Real) and math.isfinite(value)
        check(finite, name, value, "a finite number")
    above = expert_return > random_return
    check(above, "expert_return", expert_return, f"above random_return={random_return!r}")


def entry_point(env: Env) -> None:
    """Minari keeps how an environment is made as text."""
    point = None if env.spec is None else env.spec.entry_point
    if callable(point):
        raise UsageError(
            f"entry_point={getattr(point, '__name__', point)!r}: a dataset cannot name it; "
            "register the environment with text, 'module:Class'"
        )


def resumable(env: Env) -> bool:
    """Whether MuJoCo knows the state; ``UsageError`` where nobody does."""
    base: Any = env.unwrapped
    if isinstance(getattr(base, "model", None), mujoco.MjModel):
        return True
    for method in ("get_state", "set_state"):
        if not callable(getattr(base, method, None)):
            raise UsageError(
                f"{type(base).__name__}: is no MuJoCo environment and has no {method}(); a run "
                "could not be resumed"
            )
    return False


def observation_size(space: Space) -> int:
    """S, the length of an observation."""
    if isinstance(space, gymnasium.spaces.Dict):
        raise UsageError(
            f"observation space {space}: must be a vector; give observation_keys="
            f"{tuple(space.spaces)!r}, or those of them that it is made of"
        )
    if not _is_vector(space):
        raise UsageError(
            f"observation space {space}: must be a vector, Box(low, high, (S,)); "
            "wrapper=gymnasium.wrappers.FlattenObservation makes one of a Box"
        )
    return int(space.shape[0])  # type: ignore[index]


def action_size(space: Space) -> int:
    """A, the length of an action in [-1, 1]."""
    if not _is_vector(space):
        raise UsageError(
            f"action space {space}: must be a vector, Box(-1, 1, (A,)); only continuous actions "
            "are supported, as the divergence needs velocities of actions"
        )
    assert isinstance(space, gymnasium.spaces.Box)
    if not (np.all(space.low == -1) and np.all(space.high == 1)):
        raise UsageError(
            f"action space {space}: must be [-1, 1]; pass wrapper=lambda env: "
            "RescaleAction(env, np.float32(-1), np.float32(1)) and collect through it"
        )
    return int(space.shape[0])


def _is_vector(space: Space) -> bool:
    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 and space.shape[0] > 0


def time_limit(env_id: str, steps: int | None) -> int:
    """How many steps an episode may have; ``steps`` is what was given, or what is registered."""
    if steps is None:
        raise UsageError(
            f"max_episode_steps=None: {env_id} is registered without a time limit; pass "
            "own.robot(..., max_episode_steps=200), or whatever suits it"
        )
    whole = isinstance(steps, int | np.integer) and steps > 0
    check(bool(whole), "max_episode_steps", steps, "a positive integer")
    return int(steps)


def recordable(robot: Robot) -> None:
    """Can a dataset say how ``robot``'s environment is made? Asked before one is collected."""
    try:
        robot.spec().to_json()
    except (TypeError, ValueError) as error:
        names = [wrapper.name for wrapper in robot.spec().additional_wrappers]
        raise UsageError(
            f"{robot.env_id}: a dataset keeps its options and the arguments of its wrappers "
            f"({', '.join(names) or 'none'}) as JSON, and {error}; a wrapper class of your own "
            "without such an argument will do"
        ) from None


def actions(chosen: NDArray[Any], space: Space, dataset_id: str) -> None:
    """Has an action that a script chose the shape that the environment asks for?"""
    if chosen.shape != space.shape:
        raise UsageError(
            f"{dataset_id}: actions of shape {chosen.shape}; the environment has {space.shape}"
        )
