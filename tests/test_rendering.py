from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from uepo_lib import rendering, rendering_fallback
from uepo_lib.errors import UsageError
from uepo_lib.hand import DOOR, PEN
from uepo_lib.locomotion import HALFCHEETAH, HOPPER, WALKER2D
from uepo_lib.maze import MAZE
from uepo_lib.rendering_scene import MODEL_POSES, Camera, scenes
from uepo_lib.robots import Robot

ROBOTS = {robot.name: robot for robot in (HOPPER, WALKER2D, HALFCHEETAH, PEN, DOOR, MAZE)}
SIDE = Camera(azimuth=90.0, elevation=-1e-9, lookat=(0, 0, 0), extent=(2.0, 2.0))
"""Level, and without the floor that a camera of elevation 0 has."""


@pytest.fixture(autouse=True)
def _chosen_by_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rendering.VARIABLE, raising=False)


@pytest.fixture
def no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "works", lambda name: False)


def logged(robot: Robot, steps: int = 12) -> NDArray[np.float64]:
    """States on a path of random actions: (steps, D)."""
    env = robot.make()
    env.reset(seed=3)
    env.action_space.seed(3)
    states = []
    for _ in range(steps):
        states.append(robot.logged_state(env))
        env.step(env.action_space.sample())
    env.close()
    return np.array(states)


def ink(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the picture is not white: (h, w)."""
    return (image < 235).any(axis=-1)


def above_floor(robot: Robot, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The ink of the rows above z = 0.03 in a level picture."""
    camera = rendering.CAMERAS[robot.env_id.split("-")[0]]
    row = camera.pixels(np.array([0.0, 0.0, 0.03]), images.shape[1:3])[1]
    return ink(images[:, : int(row)])


def outline(robot: Robot, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the robot is, without the floor or the table: (F, h, w)."""
    if robot in (HOPPER, WALKER2D, HALFCHEETAH):
        return above_floor(robot, images)
    if robot in (PEN, DOOR):  # of skin and of wood; the table is grey
        return images[..., 0] > images[..., 2].astype(int) + 30
    return ink(images)


def draw_shapes(body: str, camera: Camera, pixels: int = 200) -> NDArray[np.uint8]:
    """A picture of the shapes in a world of MuJoCo's XML, by matplotlib."""
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    return rendering_fallback.draw(model, at_rest(model), camera, (pixels, pixels))[0]


def at_rest(model: Any) -> dict[str, NDArray[Any]]:
    places = {name: getattr(model, name)[None].copy() for name in MODEL_POSES}
    return {"qpos": model.qpos0[None], **places}


# ---- the camera ----------------------------------------------------------------------------------


def test_known_points_fall_on_known_pixels() -> None:
    level = Camera(azimuth=90, elevation=0, lookat=(1.0, 5.0, 2.0), extent=(4.0, 2.0))
    points = np.array([[1, 5, 2], [2, 5, 2], [1, 5, 4], [1, -7, 2]], dtype=float)
    expected = [[50, 100], [100, 100], [50, 0], [50, 100]]  # 4 m in 200 rows; y is not seen
    np.testing.assert_allclose(level.pixels(points, (200, 100)), expected, atol=1e-9)
    above = Camera(azimuth=90, elevation=-90, lookat=(1.0, 5.0, 2.0), extent=(2.0, 4.0))
    points = np.array([[2, 5, 0], [1, 6, 9]], dtype=float)
    np.testing.assert_allclose(above.pixels(points, (100, 200)), [[150, 50], [100, 0]], atol=1e-9)


def test_the_extent_is_in_the_picture_whatever_its_shape() -> None:
    camera = Camera(azimuth=90, elevation=0, lookat=(0, 0, 0), extent=(2.0, 3.0))
    corners = np.array([[-1.5, 0, 1.0], [1.5, 0, -1.0]])
    for size in [(100, 100), (100, 400), (400, 100)]:
        (left, top), (right, bottom) = camera.pixels(corners, size)
        assert min(left, top) >= -1e-9 and right <= size[1] + 1e-9 and bottom <= size[0] + 1e-9
        assert min(left, top) == pytest.approx(0), "and no larger than needed"


@pytest.mark.parametrize(("azimuth", "elevation"), [(90, 0), (-45, -40), (60, -35), (90, -90)])
def test_the_camera_is_mujocos_own(azimuth: float, elevation: float) -> None:
    camera = Camera(azimuth, elevation, (0.3, -0.2, 0.1), (1.5, 1.0))
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    scene, _ = next(scenes(model, at_rest(model), camera, (90, 60)))
    theirs = scene.camera[0]
    right, up, forward = camera.axes()
    np.testing.assert_allclose(np.cross(right, up), -forward, atol=1e-12)
    np.testing.assert_allclose(theirs.forward, forward, atol=1e-6)
    np.testing.assert_allclose(theirs.up, up, atol=1e-6)
    np.testing.assert_allclose(np.cross(theirs.pos - camera.lookat, forward), 0, atol=1e-5)
    assert theirs.frustum_top - theirs.frustum_bottom == pytest.approx(1.5)
    assert theirs.orthographic


# ---- shapes by matplotlib ------------------------------------------------------------------------

AREAS = {
    "sphere": ('type="sphere" size="0.5"', math.pi * 0.25),
    "ellipsoid": ('type="ellipsoid" size="0.3 0.1 0.6"', math.pi * 0.18),
    "capsule": ('type="capsule" size="0.2 0.4"', math.pi * 0.04 + 0.4 * 0.8),
    "cylinder": ('type="cylinder" size="0.3 0.5"', 0.6 * 1.0),
    "box": ('type="box" size="0.3 0.9 0.4"', 0.6 * 0.8),
    "turned box": ('type="box" size="0.3 0.3 0.4" euler="0 0 45"', 0.6 * math.sqrt(2) * 0.8),
}


@pytest.mark.parametrize("name", AREAS)
def test_the_outline_has_the_area_of_the_shape(name: str) -> None:
    geom, area = AREAS[name]
    image = draw_shapes(f'<geom {geom} rgba="0 0 0 1"/>', SIDE)
    drawn = (255.0 - image[..., 0]).sum() / 255 * (2.0 / 200) ** 2
    assert drawn == pytest.approx(area, rel=0.02)


def test_a_mesh_is_drawn_by_its_triangles() -> None:
    corners = "-0.5 0 -0.5  0.5 0 -0.5  -0.5 0 0.5  -0.5 0.5 -0.5"
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><asset><mesh name="corner" vertex="{corners}"/></asset><worldbody>'
        '<geom type="mesh" mesh="corner" rgba="0 0 0 1"/></worldbody></mujoco>'
    )
    image = rendering_fallback.draw(model, at_rest(model), SIDE, (200, 200))[0]
    drawn = ink(image)
    assert drawn.mean() * 4 == pytest.approx(0.5, rel=0.02)  # half a square metre of four
    rows, columns = np.nonzero(drawn)
    assert (rows.mean(), columns.mean()) == pytest.approx((100 + 100 / 6, 100 - 100 / 6), abs=1)


def test_the_nearer_shape_hides_the_farther() -> None:
    near = '<geom type="sphere" pos="0 -0.6 0" size="0.2" rgba="1 0 0 1"/>'
    far = '<geom type="box" size="0.8 0.1 0.8" rgba="0 0 1 1"/>'
    front = draw_shapes(near + far, SIDE)
    behind = draw_shapes(near + far, Camera(-90.0, -1e-9, (0, 0, 0), (2.0, 2.0)))
    assert front[100, 100, 0] > 100 and front[100, 100, 2] == 0
    assert behind[100, 100, 2] > 100 and behind[100, 100, 0] == 0
    assert front[60, 60, 2] > 100, "the box beside the ball"


def test_what_lies_in_a_box_is_not_seen() -> None:
    box = '<geom type="box" size="0.8 0.8 0.8" rgba="0 0 1 1"/>'
    inside = '<geom type="cylinder" size="0.3 0.799" rgba="1 0 0 1"/>'
    above = Camera(60.0, -45.0, (0, 0, 0), (3.0, 3.0))
    assert np.array_equal(draw_shapes(box + inside, above), draw_shapes(box, above))


def test_the_sides_turned_to_the_camera_are_seen_and_lit_from_it() -> None:
    camera = Camera(60.0, -35.0, (0, 0, 0), (2.0, 2.0))
    image = draw_shapes('<geom type="box" size="0.5 0.5 0.5" rgba="0 0 1 1"/>', camera)
    centres = np.array([[0, 0, 0.5], [0, -0.5, 0], [-0.5, 0, 0]])  # the top, two near sides
    top, left, right = (
        int(image[int(row), int(column), 2]) for column, row in camera.pixels(centres, (200, 200))
    )
    assert top == 255, "in full light: the colour itself"
    assert 255 * rendering_fallback.AMBIENT + 10 < min(left, right) < max(left, right) < 255


def test_what_cannot_be_drawn_is_refused() -> None:
    shape = mujoco.MjvGeom()
    shape.type = mujoco.mjtGeom.mjGEOM_HFIELD
    with pytest.raises(UsageError, match="HFIELD"):
        rendering_fallback.surface(shape, None, 0.1)


# ---- robots by matplotlib ------------------------------------------------------------------------


@pytest.mark.usefixtures("no_opengl")
@pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
def test_without_opengl_every_robot_is_drawn_and_moves(robot: Robot) -> None:
    states = logged(robot)[[0, 11]]
    drawn = rendering.frames(robot, states)
    assert drawn.renderer == "matplotlib"
    assert drawn.images.shape[0] == 2 and drawn.images.dtype == np.uint8
    assert 0.02 < ink(drawn.images[0]).mean() < 0.98
    assert (drawn.images[0] != drawn.images[1]).any()
    again = rendering.frames(robot, states[::-1]).images
    assert np.array_equal(again, drawn.images[::-1]), "a picture is of its state alone"


@pytest.mark.usefixtures("no_opengl")
def test_the_torso_is_where_the_state_says() -> None:
    """The standing hopper's highest point is its torso's end: 0.2 m and a radius above its
    centre."""
    standing = logged(HOPPER, 1)[0]
    standing[1:6] = [1.25, 0, 0, 0, 0]
    raised = standing + np.eye(len(standing))[1] * 0.2
    images = rendering.frames(HOPPER, np.stack([standing, raised]), size=(400, 300)).images
    for image, height in zip(images, (1.25, 1.45), strict=True):
        top = np.nonzero(ink(image).any(axis=1))[0][0]
        head = np.array([0.0, 0.0, height + 0.2 + 0.05])
        assert top == pytest.approx(rendering.CAMERAS["Hopper"].pixels(head, (400, 300))[1], abs=1)


@pytest.mark.usefixtures("no_opengl")
def test_the_camera_travels_and_the_floor_stays() -> None:
    state = logged(HOPPER)[5]
    ahead = state + np.eye(len(state))[0] * 0.25  # half a tile
    images = rendering.frames(HOPPER, np.stack([state, ahead])).images
    robot = above_floor(HOPPER, images)
    assert (robot[0] ^ robot[1]).sum() <= 0.05 * robot[0].sum(), "the robot is in the same place"
    floor = images[:, -5].astype(int)
    shift = round(0.25 / rendering.CAMERAS["Hopper"].metres_per_pixel(images.shape[1:3]))
    assert (floor[0] != floor[1]).any()
    assert np.abs(floor[0, shift:] - floor[1, :-shift]).mean() < 3, "the tiles went by"


@pytest.mark.usefixtures("no_opengl")
def test_the_scene_of_the_episode_is_in_the_picture() -> None:
    """A door is hung elsewhere by its place in the model, which is not in qpos."""
    state = logged(DOOR, 1)[0]
    shift = np.array([0.06, 0.0, 0.0])
    moved = state.copy()
    place = len(state) - DOOR.scene.size  # the scene begins with it
    moved[place : place + 3] += shift
    images = rendering.frames(DOOR, np.stack([state, moved]), size=(400, 400)).images.astype(int)
    posts = (images[..., 0] > 60) & (images[..., 1] < 10) & (images[..., 2] < 10)  # red
    first, second = (np.argwhere(post).mean(axis=0)[::-1] for post in posts)
    camera = rendering.CAMERAS["AdroitHandDoor"]
    expected = camera.pixels(shift, (400, 400)) - camera.pixels(np.zeros(3), (400, 400))
    np.testing.assert_allclose(second - first, expected, atol=1.5)


@pytest.mark.usefixtures("no_opengl")
def test_a_maze_is_seen_from_above_as_a_whole() -> None:
    state = logged(MAZE, 1)[0]
    state[:2] = [1.0, -1.0]
    image = rendering.frames(MAZE, state[None], size=(250, 450)).images[0].astype(int)
    green = (image[..., 1] > image[..., 0] + 30) & (image[..., 1] > image[..., 2] + 30)
    red = image[..., 0] > 2 * np.maximum(image[..., 1], image[..., 2])
    per_metre = 450 / (9 * 1.02)  # nine cells and a margin
    for seen, (x, y) in ((green, state[:2]), (red, state[-2:])):
        row, column = np.argwhere(seen).mean(axis=0)
        assert (column - 225, 125 - row) == pytest.approx((x * per_metre, y * per_metre), abs=2)


# ---- which renderer ------------------------------------------------------------------------------


@pytest.fixture
def fresh_probes() -> Iterator[None]:
    """What was found out before the test is set aside, and what the test found is forgotten."""
    rendering.works.cache_clear()
    yield
    rendering.works.cache_clear()


WORKERS = {
    "crashes": "import os; os.abort()",
    "hangs": "import time; time.sleep(60)",
    "complains": "raise ImportError('no such library')",
    "draws nothing": (
        "import sys, numpy;"
        "numpy.save(sys.argv[1] + '/images.npy', numpy.zeros((1, 32, 32, 3), 'B'))"
    ),
}


@pytest.mark.usefixtures("fresh_probes")
@pytest.mark.parametrize("what", WORKERS)
def test_an_opengl_that_fails_is_not_there(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "WORKER", ("-c", WORKERS[what]))
    monkeypatch.setattr(rendering, "PROBE_SECONDS", 2.0 if what == "hangs" else 60.0)
    assert rendering.works("EGL") is False
    assert rendering.renderer() == "matplotlib"


@pytest.mark.usefixtures("fresh_probes")
def test_each_opengl_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(*arguments: Any, env: dict[str, str], **options: Any) -> None:
        tried.append(env["MUJOCO_GL"])
        raise subprocess.CalledProcessError(-6, "python")

    monkeypatch.setattr(rendering.subprocess, "run", run)
    assert [rendering.renderer() for _ in range(3)] == ["matplotlib"] * 3
    assert tried == ["egl", "osmesa"]


def test_the_first_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in (({"EGL", "OSMesa"}, "EGL"), ({"OSMesa"}, "OSMesa")):
        monkeypatch.setattr(rendering, "works", there.__contains__)
        assert rendering.renderer() == expected


def test_the_variable_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "works", {"OSMesa", "EGL"}.__contains__)
    for value, name in (("osmesa", "OSMesa"), ("egl", "EGL"), ("Matplotlib", "matplotlib")):
        monkeypatch.setenv(rendering.VARIABLE, value)
        assert rendering.renderer() == name
    monkeypatch.setenv(rendering.VARIABLE, "elg")
    with pytest.raises(UsageError, match="UEPO_RENDERER 'elg'; did you mean 'egl'"):
        rendering.renderer()


@pytest.mark.usefixtures("no_opengl")
def test_a_renderer_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rendering.VARIABLE, "osmesa")
    with pytest.raises(UsageError, match="does not work on this machine"):
        rendering.frames(HOPPER, logged(HOPPER, 1))


def test_an_opengl_that_stops_later_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "works", lambda name: True)
    monkeypatch.setattr(rendering, "WORKER", ("-c", WORKERS["complains"]))
    with pytest.raises(RuntimeError, match=r"EGL stopped: .*no such library.*matplotlib"):
        rendering.frames(HOPPER, logged(HOPPER, 1))


# ---- OpenGL and matplotlib agree -----------------------------------------------------------------


@pytest.fixture(params=rendering.OPENGL)
def opengl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if not rendering.works(request.param):
        pytest.skip(f"{request.param} does not work on this machine")
    monkeypatch.setenv(rendering.VARIABLE, request.param)
    return str(request.param)


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
def test_opengl_and_matplotlib_draw_the_same_outline(
    robot: Robot, opengl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = logged(robot)[[0, 11]]
    theirs = rendering.frames(robot, states)
    monkeypatch.setenv(rendering.VARIABLE, "matplotlib")
    ours = rendering.frames(robot, states)
    assert theirs.renderer == opengl and theirs.images.shape == ours.images.shape
    first, second = (outline(robot, images) for images in (theirs.images, ours.images))
    overlap = (first & second).sum((1, 2)) / (first | second).sum((1, 2))
    assert overlap.min() > 0.93, overlap
    assert first.any(axis=(1, 2)).all()


# ---- the figure ----------------------------------------------------------------------------------


def test_a_film_strip_names_its_renderer_and_holds_every_picture() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 120, 80, 3), np.uint8)
    figure, axes = plt.subplots()
    rendering.film_strip(axes, rendering.Frames(images, "OSMesa"), list("abcde"), columns=3)
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (2 * (13 + 120) + 2, 3 * 80 + 4, 3)  # a sixth of the width for labels
    assert (shown[23, 10, 0], shown[23, 10 + 82, 0], shown[23 + 135, 10 + 82, 0]) == (0, 1, 4)
    assert (shown[:13] == 255).all(), "labels stand above the pictures"
    assert (shown[158, -10] == 255).all(), "an empty place is white"
    texts = [text.get_text() for text in axes.texts]
    assert texts == [*"abcde", "drawn by OSMesa"]
    axes.clear()
    rendering.film_strip(axes, rendering.Frames(images, "OSMesa"), named=False)
    assert not axes.texts
    assert np.asarray(axes.images[0].get_array()).shape[0] == 120, "no labels, no room for them"
    with pytest.raises(UsageError, match="labels"):
        rendering.film_strip(axes, rendering.Frames(images, "OSMesa"), ["one"])
    plt.close(figure)


@pytest.mark.usefixtures("no_opengl")
def test_wrong_states_and_sizes_are_refused() -> None:
    states = logged(HOPPER, 1)
    for wrong in (states[0], states[:, :-1], states[:0]):
        with pytest.raises(UsageError, match="states="):
            rendering.frames(HOPPER, wrong)
    with pytest.raises(UsageError, match="size="):
        rendering.frames(HOPPER, states, size=(4, 100))
