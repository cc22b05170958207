"""The process that draws with OpenGL: ``python -m uepo_lib.rendering_gl FOLDER``.

MuJoCo chooses its OpenGL once, when it is imported, and a driver that fails may take its process
along; so pictures are drawn in a process of their own, with ``MUJOCO_GL`` set from its start. It
reads what :func:`uepo_lib.rendering.frames` wrote to FOLDER and leaves ``images.npy`` there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from uepo_lib.rendering_scene import Camera, Size, add_box, scenes


def main(folder: Path) -> None:
    """``model.mjb``, ``poses.npz`` and ``picture.json`` (camera, size) -> ``images.npy``."""
    model = mujoco.MjModel.from_binary_path(str(folder / "model.mjb"))
    asked = json.loads((folder / "picture.json").read_text(encoding="utf-8"))
    with np.load(folder / "poses.npz") as file:
        poses = dict(file)
    np.save(folder / "images.npy", draw(model, poses, Camera(**asked["camera"]), asked["size"]))


def draw(model: Any, poses: dict[str, NDArray[Any]], camera: Camera, size: Size) -> NDArray[Any]:
    """The scenes in OpenGL, without shadows, on white: (F, h, w, 3) uint8."""
    height, width = size
    model.light_active[:] = 0  # one light for every robot, from the camera
    model.vis.headlight.active = 1
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.4, 0.6
    model.vis.headlight.specular[:] = 0.2
    model.vis.global_.offheight, model.vis.global_.offwidth = height, width
    context = mujoco.GLContext(width, height)
    context.make_current()
    renderer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, renderer)
    viewport = mujoco.MjrRect(0, 0, width, height)
    images = np.empty((len(poses["qpos"]), height, width, 3), dtype=np.uint8)
    for image, (scene, here) in zip(images, scenes(model, poses, camera, size), strict=True):
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        _add_backdrop(scene, here)
        mujoco.mjr_render(viewport, scene, renderer)
        upside_down = np.empty_like(image)
        mujoco.mjr_readPixels(upside_down, None, viewport, renderer)
        image[:] = upside_down[::-1]
    renderer.free()
    context.free()
    return images


def _add_backdrop(scene: Any, camera: Camera) -> None:
    """A white wall that shines, behind everything: what OpenGL leaves empty is black."""
    right, up, forward = camera.axes()
    far = 20 * max(camera.extent)
    half_sizes = np.array([far, far, 0.01])
    axes = np.stack([right, up, -forward], axis=1)
    wall = add_box(scene, camera.lookat + far * forward, half_sizes, axes, (1.0, 1.0, 1.0, 1.0))
    wall.emission = 1.0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
