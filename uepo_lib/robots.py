"""A robot: an environment, and what the method must know of it beyond ``step``.

When a state ends the episode, how long an episode may be, how to put the simulator back into a
logged state. Scores are D4RL's normalised ones (arXiv 2004.07219): 0 is a random policy, 100 its
expert.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib import notices
from uepo_lib.errors import UsageError, unknown

REVISION = 1
"""Counts every robot: bump it when what an environment does, or a termination rule, changes."""

Env = gymnasium.Env[Any, Any]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What the next step depends on beyond positions and velocities: a goal, the place of a
    door, where the solver begins."""

    size: int
    """How many numbers it takes."""
    read: Callable[[Env], Array]
    write: Callable[[Env, Array], None]


EMPTY_SCENE = Scene(0, lambda env: np.empty(0), lambda env, values: None)


@dataclass(frozen=True)
class Robot:
    """One environment: identifiers, sizes, D4RL's reference returns, and its known termination
    rule."""

    name: str
    env_id: str
    state_dim: int
    action_dim: int
    random_return: float
    expert_return: float
    max_episode_steps: int
    terminated: Callable[[Tensor], Tensor]
    """Raw states (..., S) reached by a step -> bool (...): did that step end the episode?"""
    step_seconds: float
    """Simulated time of one step."""
    notes: tuple[str, ...] = ()
    """How scores here differ from D4RL's; printed under every table of normalised scores."""
    package: str | None = None
    """What registers ``env_id`` when it is imported, if not Gymnasium itself."""
    observation_keys: tuple[str, ...] = ()
    """Of a dictionary observation: the keys whose values make the state, in this order."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    wrapper: Callable[[Env], Env] = lambda env: env
    """What this project changes in the installed environment, put around every copy."""
    scene: Scene = EMPTY_SCENE
    reusable: bool = False
    """A copy that is reset is as if new, bit for bit, so it may serve again."""

    def make(self) -> Env:
        """A fresh environment without a time limit: whoever steps it counts the steps."""
        if self.package:
            gymnasium.register_envs(notices.imported(self.package))
        options = {**self.env_options, "max_episode_steps": -1, "disable_env_checker": True}
        with notices.without_known_warnings():
            return self.wrapper(gymnasium.make(self.env_id, **options))

    def spec(self) -> gymnasium.envs.registration.EnvSpec:
        """What rebuilds this environment elsewhere, its clock and its wrappers included."""
        env = self.make()
        spec = copy.deepcopy(env.spec)
        env.close()
        assert spec is not None  # gymnasium.make sets it
        spec.max_episode_steps, spec.disable_env_checker = self.max_episode_steps, False
        spec.kwargs = _plain(spec.kwargs)
        spec.additional_wrappers = tuple(
            replace(wrapper, kwargs=_plain(wrapper.kwargs)) for wrapper in spec.additional_wrappers
        )
        return spec

    def flatten(self, observations: Array | Mapping[str, Array]) -> Array:
        """Logged observations (L, S); dictionaries by ``observation_keys``, one after another.

        Raises ``UsageError`` for a dictionary where the robot has no rule for it.
        """
        if not isinstance(observations, Mapping):
            return np.asarray(observations)
        if not self.observation_keys:
            raise UsageError(
                f"{self.env_id}: dictionary observations ({', '.join(observations)}) and no rule "
                "to flatten them; give own.robot(..., observation_keys=...)"
            )
        return np.concatenate([observations[key] for key in self.observation_keys], axis=-1)

    def normalised(self, undiscounted_return: float) -> float:
        """D4RL's normalised score in percent."""
        span = self.expert_return - self.random_return
        return 100.0 * (undiscounted_return - self.random_return) / span

    def simulator_state(self, env: Env) -> Array:
        """MuJoCo's whole integration state (time, qpos, qvel, actuators, the solver's warm start),
        then the scene.

        The warm start matters: without it the next step differs in the last bits.
        """
        model, data = mujoco_of(env)
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return np.concatenate([state, self.scene.read(env)])

    def restore(self, env: Env, state: Array) -> None:
        """Put ``env`` into a :meth:`simulator_state`; the next step is then bit-identical."""
        model, data = mujoco_of(env)
        integration = state[: len(state) - self.scene.size]
        self.scene.write(env, state[len(integration) :])
        mujoco.mj_setState(model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)  # derived quantities, at the price of a new warm start ...
        mujoco.mj_setState(model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)  # ... so

    def logged_state(self, env: Env) -> Array:
        """What datasets keep of every step: qpos, qvel, the scene."""
        _, data = mujoco_of(env)
        return np.concatenate([data.qpos, data.qvel, self.scene.read(env)])

    def restore_logged(self, env: Env, state: Array) -> None:
        """Put ``env`` into a :meth:`logged_state`: equal up to the solver's tolerance."""
        model, data = mujoco_of(env)
        positions, velocities, scene = np.split(state, [model.nq, model.nq + model.nv])
        self.scene.write(env, scene)
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = positions, velocities
        mujoco.mj_forward(model, data)
        self.scene.write(env, scene)  # what belongs to the solver, mj_forward has overwritten


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: Minari keeps a spec as JSON, without such."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


class FlattenedKeys(gymnasium.ObservationWrapper[Array, Any, Any], RecordConstructorArgs):
    """A dictionary observation as one vector: the values of ``keys`` one after another, in that
    order; other keys are dropped.

    Raises ``UsageError`` where there is no dictionary, no such key, or no vector under it.
    """

    def __init__(self, env: Env, keys: Sequence[str]) -> None:
        RecordConstructorArgs.__init__(self, keys=keys)
        super().__init__(env)
        self.keys = tuple(keys)
        parts = [_vector_space(env.observation_space, key) for key in self.keys]
        low, high = (
            np.concatenate([getattr(part, bound) for part in parts], dtype=np.float64)
            for bound in ("low", "high")
        )
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float64)

    def observation(self, observation: Mapping[str, Array]) -> Array:
        return np.concatenate([observation[key] for key in self.keys])

    def present(self) -> Mapping[str, Array]:
        """The dictionary of the simulator's present state, without a step."""
        base: Any = self.unwrapped
        return base._get_obs()

    def present_observation(self) -> Array:
        return self.observation(self.present())


def _vector_space(space: gymnasium.Space[Any], key: str) -> gymnasium.spaces.Box:
    if not isinstance(space, gymnasium.spaces.Dict):
        raise UsageError(f"observation_space={space}: must be a dictionary to be flattened")
    if key not in space.spaces:
        raise unknown("observation key", key, space.spaces)
    part = space[key]
    if not isinstance(part, gymnasium.spaces.Box) or len(part.shape) != 1:
        raise UsageError(f"observation key {key!r} holds {part}: must be a vector")
    return part


def mujoco_of(env: Env) -> tuple[Any, Any]:
    """The model and data of an environment's simulator."""
    base: Any = env.unwrapped
    return base.model, base.data


def observation(env: Env) -> Array:
    """The observation of the simulator's present state, without a step.

    After a step, MuJoCo's places of bodies and sites are those of the last substep's beginning;
    once a state was restored they are those of the state itself. Only the hand observes them.
    """
    if env.has_wrapper_attr("present_observation"):
        return np.asarray(env.get_wrapper_attr("present_observation")())
    base: Any = env.unwrapped
    return np.asarray(base._get_obs())
