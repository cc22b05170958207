"""The Adroit hand: pen, door, hammer, relocate, with D4RL's reward.

Pen is cut at 100 steps as in D4RL, but does not end when the pen drops (D4RL's does). In the other
three, gymnasium-robotics 1.4.2 *pays* 0.1 × the distance between the palm and the object; D4RL
charges it. :class:`DistanceCharge` turns the sign back.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from uepo_lib.locomotion import never
from uepo_lib.robots import Env, Robot, Scene, mujoco_of

_COLLECTED_HERE = "Datasets are collected here from policies trained here, not D4RL's files."
_CHARGED = (
    "gymnasium-robotics pays 0.1 × the distance between palm and object; here it is charged, as "
    "in D4RL."
)
_PEN = (
    "The pen is given 100 steps, as in D4RL, but the episode does not end when it drops: a random "
    "policy scores about −140 (mean return) here and +96 there."
)


class DistanceCharge(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Charge 0.1 × ‖palm − object‖ where the installed reward pays it."""

    def __init__(self, env: Env, palm: str, thing: str) -> None:
        """``palm`` and ``thing``: the environment's attributes that hold a site's or a body's
        number."""
        RecordConstructorArgs.__init__(self, palm=palm, thing=thing)
        super().__init__(env)
        self.palm, self.thing = palm, thing

    def step(self, action: Any) -> Any:
        state, reward, terminated, truncated, info = self.env.step(action)
        length = float(np.linalg.norm(self._place(self.palm) - self._place(self.thing)))
        return state, float(reward) - 0.2 * length, terminated, truncated, info

    def _place(self, name: str) -> NDArray[np.float64]:
        base: Any = self.env.unwrapped
        places = base.data.site_xpos if name.endswith("site_id") else base.data.xpos
        return np.asarray(places[getattr(base, name)])


def _model_rows(*places: tuple[str, str]) -> Scene:
    """A scene kept in rows of the model: (array of the model, the environment's id of the row)."""

    def rows(env: Env) -> list[NDArray[np.float64]]:
        base: Any = env.unwrapped
        return [getattr(base.model, array)[getattr(base, row)] for array, row in places]

    def write(env: Env, values: NDArray[np.float64]) -> None:
        targets = rows(env)
        ends = np.cumsum([len(t) for t in targets])[:-1]
        for target, part in zip(targets, np.split(values, ends), strict=True):
            target[:] = part

    size = sum(4 if array == "body_quat" else 3 for array, _ in places)
    return Scene(size, lambda env: np.concatenate(rows(env)), write)


def _warm(scene: Scene, num_velocities: int) -> Scene:
    """``scene`` and the solver's warm start.

    A hand that holds something has many contacts, and where their solver stops depends on where it
    began: without it one step in 500 differs by more than 1e-4.
    """

    def read(env: Env) -> NDArray[np.float64]:
        return np.concatenate([scene.read(env), mujoco_of(env)[1].qacc_warmstart])

    def write(env: Env, values: NDArray[np.float64]) -> None:
        scene.write(env, values[: scene.size])
        mujoco_of(env)[1].qacc_warmstart[:] = values[scene.size :]

    return Scene(scene.size + num_velocities, read, write)


def _pen_scene() -> Scene:
    """The target's orientation, and the lengths that the environment measured at its reset."""
    target = _model_rows(("body_quat", "target_obj_body_id"))

    def read(env: Env) -> NDArray[np.float64]:
        base: Any = env.unwrapped
        return np.append(target.read(env), [base.pen_length, base.tar_length])

    def write(env: Env, values: NDArray[np.float64]) -> None:
        base: Any = env.unwrapped
        target.write(env, values[:4])
        base.pen_length, base.tar_length = values[4:]

    return Scene(6, read, write)


PEN = Robot(
    name="pen",
    package="gymnasium_robotics",
    env_id="AdroitHandPen-v1",
    state_dim=45,
    action_dim=24,
    random_return=96.262799,
    expert_return=3076.8331,
    max_episode_steps=100,
    terminated=never,
    step_seconds=0.01,
    reusable=True,
    notes=(_PEN, _COLLECTED_HERE),
    scene=_warm(_pen_scene(), 30),
)

DOOR = Robot(
    name="door",
    package="gymnasium_robotics",
    env_id="AdroitHandDoor-v1",
    state_dim=39,
    action_dim=28,
    random_return=-56.512833,
    expert_return=2880.5693,
    max_episode_steps=200,
    terminated=never,
    step_seconds=0.01,
    reusable=True,
    notes=(_CHARGED, _COLLECTED_HERE),
    wrapper=lambda env: DistanceCharge(env, "grasp_site_id", "handle_site_id"),
    scene=_warm(_model_rows(("body_pos", "door_body_id")), 30),
)

HAMMER = Robot(
    name="hammer",
    package="gymnasium_robotics",
    env_id="AdroitHandHammer-v1",
    state_dim=46,
    action_dim=26,
    random_return=-274.856578,
    expert_return=12794.1348,
    max_episode_steps=200,
    terminated=never,
    step_seconds=0.01,
    reusable=True,
    notes=(_CHARGED,),
    wrapper=lambda env: DistanceCharge(env, "S_grasp_site_id", "obj_body_id"),
    scene=_warm(_model_rows(("body_pos", "target_body_id")), 33),
)

RELOCATE = Robot(
    name="relocate",
    package="gymnasium_robotics",
    env_id="AdroitHandRelocate-v1",
    state_dim=39,
    action_dim=30,
    random_return=-6.425911,
    expert_return=4233.8778,
    max_episode_steps=200,
    terminated=never,
    step_seconds=0.01,
    reusable=True,
    notes=(_CHARGED,),
    wrapper=lambda env: DistanceCharge(env, "S_grasp_site_id", "obj_body_id"),
    scene=_warm(_model_rows(("body_pos", "obj_body_id"), ("site_pos", "target_obj_site_id")), 36),
)
