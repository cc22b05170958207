"""What a picture shows, whoever draws it: MuJoCo's own list of visible shapes, and a camera.

Every renderer draws :func:`scenes`, so their pictures agree pixel by pixel in where things are.
Nothing but MuJoCo and numpy is imported: the process that draws with OpenGL starts quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Size = tuple[int, int]
"""Height and width in pixels."""

MODEL_POSES = ("body_pos", "body_quat", "site_pos")
"""The parts of a model that episodes move: a door's place, a goal."""
TILE = 0.5
"""Length in metres of the tiles that the floor of a side view is made of."""
TILES = ((0.62, 0.66, 0.7, 1.0), (0.8, 0.83, 0.86, 1.0))
"""Their colours in turn."""
HIDDEN_GROUP = 5
MAX_SHAPES = 5000


@dataclass(frozen=True)
class Camera:
    """An orthographic camera: every metre is as long in the picture, near or far."""

    azimuth: float
    """Degrees; 90 looks along +y, with +x to the right."""
    elevation: float
    """Degrees; 0 looks level, −90 straight down."""
    lookat: tuple[float, float, float]
    """The world's point in the middle of the picture."""
    extent: tuple[float, float]
    """(height, width) in metres that are in the picture whatever its shape."""
    follow: bool = False
    """Count ``lookat``'s x from the robot's centre of mass: the camera travels with it."""

    def axes(self) -> Array:
        """The directions right, up and forward in the world: (3, 3), a row each."""
        a, e = math.radians(self.azimuth), math.radians(self.elevation)
        right = (math.sin(a), -math.cos(a), 0.0)
        up = (-math.sin(e) * math.cos(a), -math.sin(e) * math.sin(a), math.cos(e))
        forward = (math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e))
        return np.array([right, up, forward])

    def metres_per_pixel(self, size: Size) -> float:
        """The length of a pixel's side, as small as the extent allows."""
        return max(self.extent[0] / size[0], self.extent[1] / size[1])

    def pixels(self, points: Array, size: Size) -> Array:
        """World points (..., 3) -> (..., 2) column and row, (0, 0) the upper left corner.

        With ``follow``, ask the camera of that moment (:func:`scenes`).
        """
        offset = (np.asarray(points) - self.lookat) @ self.axes()[:2].T
        middle = np.array([size[1], size[0]]) / 2
        return middle + offset * (1.0, -1.0) / self.metres_per_pixel(size)


def scenes(
    model: Any, poses: Mapping[str, NDArray[Any]], camera: Camera, size: Size
) -> Iterator[tuple[Any, Camera]]:
    """For each of F poses the ``mujoco.MjvScene`` and where the camera stands then.

    ``poses``: "qpos" (F, nq), and each of :data:`MODEL_POSES` (F, ...). The model's planes are not
    in the scene; a side view has a floor of tiles in their place, whose upper edge is z = 0.
    """
    model.geom_group[model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE] = HIDDEN_GROUP
    model.vis.global_.ipd = 0.0  # one eye
    model.vis.global_.orthographic = 1
    model.vis.global_.fovy = camera.metres_per_pixel(size) * size[0]
    data = mujoco.MjData(model)
    scene = mujoco.MjvScene(model, maxgeom=MAX_SHAPES)
    for f in range(len(poses["qpos"])):
        for name in MODEL_POSES:
            getattr(model, name)[:] = poses[name][f]
        data.qpos[:] = poses["qpos"][f]
        mujoco.mj_fwdPosition(model, data)
        here = _moved(camera, data)
        _update(scene, model, data, here)
        if camera.elevation == 0:
            _add_tiles(scene, here, size)
        yield scene, here


def _moved(camera: Camera, data: Any) -> Camera:
    if not camera.follow:
        return camera
    x, y, z = camera.lookat
    return replace(camera, lookat=(x + float(data.subtree_com[1, 0]), y, z), follow=False)


def _update(scene: Any, model: Any, data: Any, camera: Camera) -> None:
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FREE
    view.azimuth, view.elevation, view.orthographic = camera.azimuth, camera.elevation, 1
    view.lookat[:], view.distance = camera.lookat, 4 * max(camera.extent)  # in front of everything
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, view, everything, scene)


def _add_tiles(scene: Any, camera: Camera, size: Size) -> None:
    """Tiles that lie still in the world, from z = 0 to the picture's lower edge and below."""
    half = camera.metres_per_pixel(size) * size[1] / 2
    first, last = (math.floor((camera.lookat[0] + side * half) / TILE) for side in (-1, 1))
    for number in range(first, last + 1):
        centre = np.array([(number + 0.5) * TILE, camera.lookat[1], -TILE])
        half_sizes = np.array([TILE / 2, TILE, TILE])
        add_box(scene, centre, half_sizes, np.eye(3), TILES[number % 2])


def add_box(
    scene: Any, centre: Array, half_sizes: Array, axes: Array, rgba: tuple[float, ...]
) -> Any:
    """Append a box to the scene; ``axes`` (3, 3) holds its directions as columns."""
    if scene.ngeom == scene.maxgeom:
        raise RuntimeError(f"more than {scene.maxgeom} shapes in one picture")
    shape = scene.geoms[scene.ngeom]
    box = mujoco.mjtGeom.mjGEOM_BOX
    colour = np.array(rgba, dtype=np.float32)
    mujoco.mjv_initGeom(shape, box, half_sizes, centre, axes.flatten(), colour)
    shape.specular = shape.shininess = 0.0
    scene.ngeom += 1
    return shape
