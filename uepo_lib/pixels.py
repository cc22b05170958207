"""Small grey pictures of trajectories, and what a camera that is not still makes of them.

Every trajectory begins where its camera stands; the camera then stays, unless a motion says
otherwise. The cameras here are orthographic, so a shift, a zoom or a roll of the camera is exactly
an affine map of the picture: one wide picture, drawn once, is looked at from all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from uepo_lib import rendering
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.errors import UsageError, check
from uepo_lib.rendering_scene import Camera
from uepo_lib.robots import Array, Robot, mujoco_of
from uepo_lib.states import state_from_observation

REVISION = 1
SIDE = 64
"""Height and width of a frame in pixels."""
SAMPLES = 2
"""Points a pixel's side that are averaged, as a sensor does: OpenGL gives one colour a point."""
WIDE = 1.75
"""How much more than a frame the wide picture shows: room for the camera to move in."""
AT_ONCE = 1_000
"""Pictures drawn by one process."""
STILL = (0.0, 0.0, 1.0, 0.0)
"""A motion is (..., 4): pixels to the right, pixels down, zoom factor, roll in degrees."""


# -- is there a camera?


def missing() -> str | None:
    """Why no frames can be drawn here, in a line; None if they can.

    Thousands are needed, so matplotlib, some 50 ms a picture, does not count as a camera.
    """
    try:
        name = rendering.renderer()
    except UsageError as error:
        return str(error)
    if name in rendering.OPENGL:
        return None
    tried = " nor ".join(rendering.OPENGL)
    return f"frames are drawn by OpenGL, and neither {tried} is in use here, but {name}"


def renderer() -> str:
    """EGL or OSMesa, whose pixels differ; ``UsageError`` where there is neither."""
    reason = missing()
    if reason:
        raise UsageError(reason)
    return rendering.renderer()


# -- what stands in front of it


def simulator_states(
    robot: Robot, normaliser: Normaliser, states: Tensor, lengths: Tensor
) -> Array:
    """Standardised states (..., T, S) as logged ones (..., T, nq + nv), travelling from x = 0.

    x is not observed; it is the integral of the observed forward velocity by the trapezoid rule
    (within a millimetre over 16 steps of Hopper), and stays after ``lengths`` (...) steps. Raises
    ``UsageError`` for a robot whose observation does not determine its state.
    """
    raw = normaliser.inverse(states)
    rows = raw.reshape(-1, raw.shape[-1]).numpy()
    full = state_from_observation(robot, rows)[0].reshape(*raw.shape[:-1], -1)
    speed = full[..., full.shape[-1] // 2]  # of the root's slide along x
    step = (speed[..., 1:] + speed[..., :-1]) / 2 * robot.step_seconds
    moving = np.arange(step.shape[-1]) < lengths.numpy()[..., None]
    full[..., 1:, 0] = (step * moving).cumsum(axis=-1)
    return full


@dataclass(frozen=True)
class Logged:
    """M pairs of neighbouring steps of D, to learn pictures from."""

    poses: Array
    """(M, 2, nq + nv) simulator states, x counted from a step up to H before."""
    states: Tensor
    """(M, S) standardised, of the second step."""


def logged_pairs(dataset: Dataset, count: int, horizon: int, generator: torch.Generator) -> Logged:
    """``count`` pairs, where trajectories of ``horizon`` steps from D's states may bring the robot.

    Raises ``UsageError`` if D does not hold the simulator's states.
    """
    kept = dataset.simulator_states
    if kept is None:
        raise UsageError(f"{dataset.key.id}: holds no simulator states, so nothing can be drawn")
    starts = dataset.windows(1, horizon + 1).now
    begin = starts[torch.randint(len(starts), (count,), generator=generator)]
    ahead = torch.randint(horizon, (count,), generator=generator)
    both = torch.stack([begin + ahead, begin + ahead + 1], dim=1)
    poses: Array = kept[both].numpy().copy()
    poses[..., 0] -= kept[begin, 0].numpy()[:, None]
    return Logged(poses, dataset.states[both[:, 1]])


# -- pictures


def photograph(robot: Robot, states: Array, wide: float = 1.0) -> Tensor:
    """Grey pictures of logged states (F, D), before sampling: (F, w, w) uint8.

    w = SAMPLES · SIDE · ``wide``. The same renderer draws the same bits every time.
    """
    width = _width(wide)
    camera = standing_camera(robot, width / _width(1.0))
    images = [
        rendering.frames(robot, part, (width, width), camera).images.mean(axis=-1).round()
        for part in np.array_split(states, -(-len(states) // AT_ONCE))
    ]
    return torch.from_numpy(np.concatenate(images).astype(np.uint8))


def frames(robot: Robot, states: Array, wide: float = 1.0) -> Tensor:
    """:func:`photograph` of logged states (..., D): frames (..., SIDE, SIDE) uint8 of a still
    camera, or the pictures themselves if they are wider."""
    drawn = photograph(robot, states.reshape(-1, states.shape[-1]), wide)
    if wide == 1:
        drawn = look(drawn, constant((len(drawn),)))
    return drawn.unflatten(0, states.shape[:-1])


def _width(wide: float) -> int:
    check(wide >= 1, "wide", wide, "at least 1")
    return 2 * round(SAMPLES * SIDE * wide / 2)  # even: the middle stays between two points


def standing_camera(robot: Robot, wide: float = 1.0) -> Camera:
    """The robot's camera with a square picture, which stays where it is."""
    env = robot.make()
    camera = rendering.camera_for(robot, mujoco_of(env)[0])
    env.close()
    side = wide * max(camera.extent)
    return replace(camera, follow=False, extent=(side, side))


def pixels_per_metre(robot: Robot) -> float:
    """Of a frame."""
    return SIDE / standing_camera(robot).extent[0]


def look(pictures: Tensor, motion: Tensor) -> Tensor:
    """Frames as a moved camera takes them: (F, w, w) uint8, (F, 4) -> (F, SIDE, SIDE) uint8.

    A point at p from the picture's middle is taken to R(roll)ᵀ (p − shift) · zoom. What lies
    outside of the picture repeats its edge.
    """
    expected = f"({len(pictures)}, 4)"
    check(motion.shape == (len(pictures), 4), "motion", tuple(motion.shape), expected)
    parts = zip(pictures.split(AT_ONCE // 4), motion.float().split(AT_ONCE // 4), strict=True)
    return torch.cat([_look(*part) for part in parts])


def _look(pictures: Tensor, motion: Tensor) -> Tensor:
    width, shown = pictures.shape[-1], SAMPLES * SIDE
    right, down, zoom, roll = motion.unbind(dim=1)
    angle = torch.deg2rad(roll)
    size = shown / width / zoom
    rows = [
        torch.stack([size * angle.cos(), -size * angle.sin(), 2 * right * SAMPLES / width], dim=1),
        torch.stack([size * angle.sin(), size * angle.cos(), 2 * down * SAMPLES / width], dim=1),
    ]
    grid = functional.affine_grid(
        torch.stack(rows, dim=1), [len(pictures), 1, shown, shown], align_corners=False
    )
    seen = functional.grid_sample(
        pictures[:, None].float(), grid, padding_mode="border", align_corners=False
    )
    return functional.avg_pool2d(seen, SAMPLES)[:, 0].round().to(torch.uint8)


# -- how a camera moves


def constant(shape: tuple[int, ...], motion: tuple[float, float, float, float] = STILL) -> Tensor:
    """The same place in every frame: ``shape`` + (4,)."""
    return torch.tensor(motion).expand(*shape, 4).clone()


def pan(shape: tuple[int, ...], speed: float) -> Tensor:
    """Travelling right by ``speed`` pixels a frame, alike in every trajectory (..., T)."""
    moved = constant(shape)
    moved[..., 0] = speed * torch.arange(shape[-1])
    return moved


def shake(shape: tuple[int, ...], size: float, generator: torch.Generator) -> Tensor:
    """Away from its place by N(0, size²) pixels each way, anew in every frame (..., T)."""
    check(size > 0, "size", size, "positive")
    moved = constant(shape)
    moved[..., :2] = size * torch.randn(*shape, 2, generator=generator)
    return moved


def track(states: NDArray[np.float64], scale: float) -> Tensor:
    """Travelling with the robot's x in ``states`` (..., T, D), ``scale`` pixels a metre."""
    moved = constant(states.shape[:-1])
    moved[..., 0] = scale * torch.from_numpy(states[..., 0]).float()
    return moved
