"""Pictures of a robot without a screen: by EGL, else OSMesa, else matplotlib.

Whether OpenGL works is tried once, in a process of its own: where it does not, drivers crash or
hang. ``UEPO_RENDERER=egl``, ``osmesa`` or ``matplotlib`` overrides the choice. All three draw the
same scene through the same camera; they differ in light, texture and speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from uepo_lib import rendering_fallback
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.rendering_scene import MODEL_POSES, Camera, Size
from uepo_lib.robots import Robot, mujoco_of

OPENGL = ("EGL", "OSMesa")
"""In the order in which they are tried; lower-case, what MuJoCo calls them."""
RENDERERS = {name.lower(): name for name in (*OPENGL, "matplotlib")}
VARIABLE = "UEPO_RENDERER"
WORKER = ("-m", "uepo_lib.rendering_gl")
PROBE_SECONDS = 60.0
"""How long a first picture may take: a graphics driver compiles its shaders then."""
BALL = "<mujoco><worldbody><body><geom size='1' rgba='1 0 0 1'/></body></worldbody></mujoco>"
HEIGHT = 240
LABEL_ROOM = 1 / 6
"""Height of what is written above a picture of a strip, as a share of the picture's width."""

CAMERAS = {
    "Hopper": Camera(90.0, 0.0, (0.0, 0.0, 0.85), (2.0, 1.4), follow=True),
    "Walker2d": Camera(90.0, 0.0, (0.0, 0.0, 0.85), (2.0, 1.5), follow=True),
    "HalfCheetah": Camera(90.0, 0.0, (0.0, 0.0, 0.55), (1.4, 2.0), follow=True),
    "AdroitHandPen": Camera(-45.0, -40.0, (0.07, -0.25, 0.2), (0.4, 0.5)),
    "AdroitHandDoor": Camera(60.0, -35.0, (0.0, 0.03, 0.28), (1.05, 1.05)),
    "AdroitHandHammer": Camera(60.0, -35.0, (0.0, -0.1, 0.1), (0.7, 0.9)),
    "AdroitHandRelocate": Camera(60.0, -35.0, (0.0, -0.1, 0.15), (0.8, 1.0)),
    "FrankaKitchen": Camera(70.0, -30.0, (-0.1, 0.4, 1.85), (2.2, 2.2)),
}
"""By the environment's name without its version; other robots are seen as a whole."""


@dataclass(frozen=True)
class Frames:
    """Pictures and what drew them."""

    images: NDArray[np.uint8]
    """(F, h, w, 3)."""
    renderer: str
    """EGL, OSMesa or matplotlib."""


def renderer() -> str:
    """The renderer of this machine, or the one that ``UEPO_RENDERER`` names.

    Raises ``UsageError`` if there is none of that name or it does not work here.
    """
    chosen = os.environ.get(VARIABLE, "").lower()
    if chosen and chosen not in RENDERERS:
        raise unknown(VARIABLE, chosen, RENDERERS)
    if not chosen:
        return next((name for name in OPENGL if works(name)), "matplotlib")
    name = RENDERERS[chosen]
    if name in OPENGL and not works(name):
        raise UsageError(f"{VARIABLE}={chosen!r}: does not work on this machine; matplotlib does")
    return name


@cache
def works(name: str) -> bool:
    """Does this OpenGL draw a red ball, in a process of its own? Tried once and remembered."""
    model = mujoco.MjModel.from_xml_string(BALL)
    poses = {key: getattr(model, key)[None] for key in MODEL_POSES}
    camera = Camera(azimuth=0.0, elevation=-45.0, lookat=(0, 0, 0), extent=(4.0, 4.0))
    try:
        images = _in_a_process(
            name, model, {"qpos": model.qpos0[None], **poses}, camera, (32, 32), PROBE_SECONDS
        )
    except subprocess.SubprocessError:  # it crashed, complained or hung: not here
        return False
    red, _, blue = (int(value) for value in images[0, 16, 16])
    return red > blue + 50


def frames(
    robot: Robot, states: NDArray[Any], size: Size | None = None, camera: Camera | None = None
) -> Frames:
    """Draw logged states (F, D), :meth:`Robot.logged_state`, in pictures of ``size`` (h, w).

    By default 240 pixels high, as wide as the robot's camera asks. Raises ``UsageError`` for states
    of another shape, a size that cannot be drawn, or a renderer that cannot be had.
    """
    name = renderer()
    states = np.asarray(states, dtype=np.float64)
    check(states.ndim == 2 and len(states) > 0, "states", states.shape, "of shape (F, D), F > 0")
    model, poses = _poses(robot, states)
    camera = camera or camera_for(robot, model)
    height, width = camera.extent
    size = size or (HEIGHT, round(HEIGHT * width / height))
    check(all(16 <= side <= 2048 for side in size), "size", size, "16 to 2048 pixels each way")
    if name == "matplotlib":
        return Frames(rendering_fallback.draw(model, poses, camera, size), name)
    try:
        return Frames(_in_a_process(name, model, poses, camera, size), name)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines() or [str(error)]
        instead = f"{VARIABLE}=matplotlib draws without it"
        raise RuntimeError(f"{name} stopped: {reason[-1]}; {instead}") from error


def camera_for(robot: Robot, model: Any) -> Camera:
    """Level from the side, following, for locomotion; oblique for the hand; mazes from above."""
    kind = robot.env_id.split("-")[0].split("_")[0]
    if kind in CAMERAS:
        return CAMERAS[kind]
    if kind == "PointMaze":
        walls = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
        low = (model.geom_pos - model.geom_size)[walls].min(axis=0)
        high = (model.geom_pos + model.geom_size)[walls].max(axis=0)
        width, height, _ = 1.02 * (high - low)
        return Camera(90.0, -90.0, tuple((low + high) / 2), (height, width))
    extent = 1.2 * model.stat.extent
    return Camera(120.0, -30.0, tuple(model.stat.center), (extent, extent))


def film_strip(
    axes: Axes,
    pictures: Frames,
    labels: Sequence[str] = (),
    columns: int = 0,
    *,
    named: bool = True,
) -> None:
    """Put pictures side by side, in rows of ``columns`` (0: one row).

    ``labels``: none, or one a picture, written above its upper left corner. ``named``: the renderer
    is named below; of several strips of one figure the last may do it.
    """
    count, height, width, _ = pictures.images.shape
    expected = f"none or one for each of {count} pictures"
    check(len(labels) in (0, count), "labels", len(labels), expected)
    columns = columns or count
    rows = -(-count // columns)
    gap, room = max(2, height // 60), round(LABEL_ROOM * width) if labels else 0
    tall, wide = height + room + gap, width + gap
    strip = np.full((rows * tall - gap, columns * wide - gap, 3), 255, np.uint8)
    for i, image in enumerate(pictures.images):
        top, left = (i // columns) * tall + room, (i % columns) * wide
        strip[top : top + height, left : left + width] = image
        if labels:
            axes.text(left, top - 1, labels[i], fontsize=7, va="bottom")
    axes.imshow(strip)
    axes.set_axis_off()
    if named:
        axes.text(
            1.0, 0.0, f"drawn by {pictures.renderer}", transform=axes.transAxes, fontsize=6,
            color="0.4", ha="right", va="top",
        )  # fmt: skip


def _poses(robot: Robot, states: NDArray[np.float64]) -> tuple[Any, dict[str, Any]]:
    """The robot's model, and where everything is in each state, as ``scenes`` wants it."""
    env = robot.make()
    try:
        env.reset(seed=0)  # some robots can be restored only after a reset
        length = len(robot.logged_state(env))
        check(states.shape[1] == length, "states", states.shape, f"of shape (F, {length})")
        model, data = mujoco_of(env)
        rows = []
        for state in states:
            robot.restore_logged(env, state)
            rows.append([data.qpos.copy(), *(getattr(model, name).copy() for name in MODEL_POSES)])
    finally:
        env.close()
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return model, dict(zip(("qpos", *MODEL_POSES), columns, strict=True))


def _in_a_process(
    name: str, model: Any, poses: dict[str, Any], camera: Camera, size: Size,
    timeout: float | None = None,
) -> NDArray[np.uint8]:  # fmt: skip
    """:func:`uepo_lib.rendering_gl.draw` elsewhere; ``SubprocessError`` if that process fails."""
    libraries = {"MUJOCO_GL": name.lower(), "PYOPENGL_PLATFORM": name.lower()}
    places = os.pathsep.join(filter(None, [_library(), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="frames-") as temporary:
        folder = Path(temporary)
        mujoco.mj_saveModel(model, str(folder / "model.mjb"))
        np.savez(folder / "poses.npz", allow_pickle=False, **poses)
        asked = json.dumps({"camera": asdict(camera), "size": size})
        (folder / "picture.json").write_text(asked, encoding="utf-8")
        subprocess.run(
            [sys.executable, *WORKER, str(folder)], check=True, capture_output=True,
            timeout=timeout, env={**os.environ, **libraries, "PYTHONPATH": places},
        )  # fmt: skip
        images: NDArray[np.uint8] = np.load(folder / "images.npy")
    return images


def _library() -> str:
    """Where the new process finds this library, installed or not."""
    return str(Path(__file__).resolve().parents[1])
