"""Pictures without OpenGL: the surfaces of the scene's shapes as shaded polygons, by matplotlib.

Where two shapes pass through each other their edge is as rough as their faces are large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uepo_lib.errors import UsageError
from uepo_lib.rendering_scene import Array, Camera, Size, scenes

SIDES = 24
"""Of the polygon that stands for a circle."""
GRAINS = 32
"""Flat faces longer than this share of the picture are cut: the painter sorts small ones better."""
SAMPLES = 3
"""Points a pixel's side: polygons end at such points, so that neighbours leave no gap."""
TOLERANCE = 1e-5
"""Metres; deeper than this in a box, a face is hidden by it."""
AMBIENT, DIFFUSE = 0.5, 0.6
"""The share of its colour that a face shows in the dark, and what full light adds, up to 1."""


def draw(
    model: Any, poses: Mapping[str, NDArray[Any]], camera: Camera, size: Size
) -> NDArray[np.uint8]:
    """The scenes on white: (F, h, w, 3)."""
    tints = texture_colours(model)
    drawn = [
        _paint(*_faces(scene, model, here, tints), here, size)
        for scene, here in scenes(model, poses, camera, size)
    ]
    return np.stack(drawn)


def _faces(scene: Any, model: Any, camera: Camera, tints: Array) -> tuple[Array, Array]:
    """The faces turned to the camera: corners (N, 4, 3) in the world, shaded colours (N, 4)."""
    right, up, forward = camera.axes()
    light = 0.5 * up - forward - 0.3 * right
    light /= np.linalg.norm(light)
    grain = max(camera.extent) / GRAINS
    corners, colours = [np.empty((0, 4, 3))], [np.empty((0, 4))]
    shapes = scene.geoms[: scene.ngeom]
    boxes = [s for s in shapes if s.type == mujoco.mjtGeom.mjGEOM_BOX and s.rgba[3] == 1]
    for shape in shapes:
        faces = surface(shape, model, grain) @ shape.mat.T + shape.pos
        normals = np.cross(faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1])
        seen = normals @ forward < 0
        reach = np.linalg.norm(faces - shape.pos, axis=-1).max()
        for box in boxes:
            if np.linalg.norm(box.pos - shape.pos) < reach + np.linalg.norm(box.size):
                inside = np.abs((faces - box.pos) @ box.mat) < box.size - TOLERANCE
                seen &= ~inside.all(axis=(1, 2))
        faces, normals = faces[seen], normals[seen]
        lit = (normals @ light).clip(0) / np.linalg.norm(normals, axis=1)
        shade = (AMBIENT + DIFFUSE * lit).clip(max=1)
        opaque = shape.rgba[:3] * (tints[shape.matid] if shape.matid >= 0 else 1.0)
        alpha = np.full(len(faces), shape.rgba[3])
        corners.append(faces)
        colours.append(np.column_stack([shade[:, None] * opaque, alpha]))
    return np.concatenate(corners), np.concatenate(colours)


def _paint(corners: Array, colours: Array, camera: Camera, size: Size) -> NDArray[np.uint8]:
    """The painter's algorithm: the farthest face first. (h, w, 3)."""
    fine = (SAMPLES * size[0], SAMPLES * size[1])
    polygons = camera.pixels(corners, fine).round()
    first, second = polygons[:, 2] - polygons[:, 0], polygons[:, 3] - polygons[:, 1]
    kept = first[:, 0] * second[:, 1] != first[:, 1] * second[:, 0]  # it has an area ...
    kept &= (polygons.max(axis=1) > 0).all(axis=1)  # ... and reaches into the picture
    kept &= (polygons.min(axis=1) < (fine[1], fine[0])).all(axis=1)
    depth = (corners @ camera.axes()[2]).mean(axis=1)
    order = np.argsort(-depth, kind="stable")
    order = order[kept[order]]
    figure = Figure(figsize=(fine[1] / 100, fine[0] / 100), dpi=100, facecolor="white")
    figure.set_layout_engine("none")  # whatever the style of figures asks for
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, fine[1]), ylim=(fine[0], 0))
    axes.set_axis_off()
    axes.add_collection(
        PolyCollection(polygons[order], facecolors=colours[order], antialiased=False, linewidths=0)
    )
    canvas.draw()
    points = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32)
    pixels = points.reshape(size[0], SAMPLES, size[1], SAMPLES, 3).mean(axis=(1, 3))
    return pixels.round().astype(np.uint8)


def surface(shape: Any, model: Any, grain: float) -> Array:
    """The surface of a ``mujoco.MjvGeom`` in its own frame: faces (N, 4, 3) in metres, their
    corners anticlockwise as seen from outside; a triangle repeats its last corner.

    Flat and straight parts are cut into pieces of at most ``grain`` metres. Raises ``UsageError``
    for a type that has no surface here.
    """
    kind, size = mujoco.mjtGeom(shape.type), np.asarray(shape.size, dtype=np.float64)
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = shape.dataid // 2  # odd numbers are the meshes' convex hulls
        vertices = _part(model.mesh_vert, model.mesh_vertadr, model.mesh_vertnum, mesh)
        triangles = _part(model.mesh_face, model.mesh_faceadr, model.mesh_facenum, mesh)
        return np.asarray(vertices[triangles[:, [0, 1, 2, 2]]], dtype=np.float64)
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return _box(size, grain)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        side = [(size[0], z) for z in _ticks(size[2], grain)]
        return _turned(np.array([(0.0, size[2]), *side, (0.0, -size[2])]))
    if kind in (mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_ELLIPSOID):
        angles = np.linspace(0, np.pi, SIDES // 2 + 1)
        return size * _turned(np.stack([np.sin(angles), np.cos(angles)], axis=1))
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        angles = np.linspace(0, np.pi / 2, SIDES // 4 + 1)
        cap = size[0] * np.stack([np.sin(angles), np.cos(angles)], axis=1) + [0, size[2]]
        side = [(size[0], z) for z in _ticks(size[2], grain)]
        return _turned(np.array([*cap[:-1], *side, *(cap[-2::-1] * [1, -1])]))
    raise UsageError(f"matplotlib cannot draw {kind.name}: it takes EGL or OSMesa")


def _part(values: Any, starts: Any, counts: Any, number: int) -> Any:
    return values[starts[number] : starts[number] + counts[number]]


def _ticks(first: float, grain: float) -> Array:
    """From ``first`` to its negative in steps of at most ``grain``."""
    return np.linspace(first, -first, 1 + max(1, math.ceil(2 * abs(first) / grain)))


def _turned(profile: Array) -> Array:
    """The surface swept by a line of (radius, z) from top to bottom, turned about the z axis."""
    angles = np.linspace(0, 2 * np.pi, SIDES + 1)
    circle = np.stack([np.cos(angles), np.sin(angles), np.ones(SIDES + 1)], axis=1)
    points = profile[:, None, [0, 0, 1]] * circle
    corners = (points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:])
    return np.stack(corners, axis=2).reshape(-1, 4, 3)


def _box(half_sizes: Array, grain: float) -> Array:
    """Six sides, each a grid: the top of three boxes with their axes in turn, and the bottom."""
    sides = []
    for k in range(3):
        a, b, c = np.roll(half_sizes, -k)
        x, y = np.meshgrid(_ticks(-a, grain), _ticks(-b, grain), indexing="ij")
        grid = np.stack([x, y, np.full_like(x, c)], axis=-1)
        corners = (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:])
        top = np.stack(corners, axis=2).reshape(-1, 4, 3)
        sides += [np.roll(side, k, axis=-1) for side in (top, top * [1, -1, -1])]
    return np.concatenate(sides)


def texture_colours(model: Any) -> Array:
    """The mean colour of each material's texture, white where it has none: (materials, 3)."""
    colours = np.ones((model.nmat, 3))
    for material, images in enumerate(model.mat_texid):
        image = images[mujoco.mjtTextureRole.mjTEXROLE_RGB]
        if image >= 0:
            start, channels = model.tex_adr[image], model.tex_nchannel[image]
            count = model.tex_height[image] * model.tex_width[image] * channels
            pixels = model.tex_data[start : start + count].reshape(-1, channels)
            colours[material] = pixels[:, :3].mean(axis=0) / 255
    return colours
