"""PointMaze with known modes: two loops in series, four congruent routes to one goal.

A ball is pushed from the left cell to the right one. Each of the two blocks on its way can be
passed above or below (north or south), and by the map's symmetry none of the 2 × 2 routes is
shorter than another: whoever clones the controller's data must find all four.

A state is (x, y, vx, vy, goal x, goal y), in metres and m/s: the environment's ``observation``,
then its ``desired_goal``; ``achieved_goal`` repeats x, y and is dropped. The reward is 1 at the
step that brings the ball within 0.45 m of the goal, which ends the episode, and 0 before.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uepo_lib.errors import check
from uepo_lib.robots import Array, Env, FlattenedKeys, Robot, Scene, mujoco_of

MAP = (
    "#########",
    "#...#...#",
    "#r#...#g#",
    "#...#...#",
    "#########",
)
"""One letter a cell of 1 m: # wall, r where the ball starts, g the goal's cell."""
GOAL_RADIUS = 0.45
"""The environment's own: at this distance from the goal or nearer the ball has arrived."""
NOISE_RANGE = 0.25
"""Likewise: start and goal lie at most this far from their cell's centre, in x and in y."""


def centre(row: int, column: int) -> tuple[float, float]:
    """World coordinates of a cell's centre; the origin is the middle of the map."""
    return column + 0.5 - len(MAP[0]) / 2, len(MAP) / 2 - row - 0.5


GOAL_CENTRE = centre(2, 7)
BLOCKS = (centre(2, 2), centre(2, 6))
"""The two blocks to be passed, from left to right."""


@dataclass(frozen=True)
class Route:
    """One way to the goal: the ``corners`` (W, 2) at which to turn, before the goal itself."""

    name: str
    corners: Array


def _route(sides: tuple[int, ...]) -> Route:
    """``sides``, one a block: 0 passes it north of it, 1 south."""
    first, second = (1 if side == 0 else 3 for side in sides)
    cells = [(first, 1), (first, 3), (2, 3), (2, 5), (second, 5), (second, 7)]
    names = ("north", "south")
    return Route("-".join(names[s] for s in sides), np.array([centre(*cell) for cell in cells]))


ROUTES = tuple(_route(sides) for sides in itertools.product((0, 1), repeat=2))
"""north-north, north-south, south-north, south-south: route r passes the first block on side
r // 2 and the second on side r % 2."""


def route_past(path: NDArray[Any]) -> int | None:
    """Which of :data:`ROUTES` a path (L, 2) took past both blocks; None if it did not pass them.

    A block was passed on the side on which the path last crossed the line through its centre from
    wall to wall: who goes round a block and comes back is labelled by how the path went on. Raises
    ``UsageError`` for another shape.
    """
    points = np.asarray(path, dtype=np.float64)
    check(points.ndim == 2 and points.shape[1] == 2, "path", points.shape, "of shape (L, 2)")
    first, second = (_side(points, block) for block in BLOCKS)
    return None if first is None or second is None else 2 * first + second


def route_taken(path: NDArray[Any], goal: NDArray[Any] | None = None) -> int | None:
    """:func:`route_past` of a path that ends at the goal; None for any other.

    It does if it ends within :data:`GOAL_RADIUS` of ``goal`` (2,), by default of any goal that the
    environment draws. Raises ``UsageError`` for another shape.
    """
    if goal is not None:
        check(np.shape(goal) == (2,), "goal", np.shape(goal), "of shape (2,)")
    route = route_past(path)
    if route is None or not _at_goal(np.asarray(path, dtype=np.float64)[-1], goal):
        return None
    return route


def _side(path: Array, block: tuple[float, float]) -> int | None:
    """0 north, 1 south, None where the path never comes past ``block`` from the left."""
    before, after = path[:-1, 0] - block[0], path[1:, 0] - block[0]
    crossings = np.flatnonzero((before < 0) & (after >= 0))
    if not len(crossings):
        return None
    k = crossings[-1]
    share = before[k] / (before[k] - after[k])
    height = (1 - share) * path[k, 1] + share * path[k + 1, 1]
    return int(height < block[1])


def _at_goal(position: Array, goal: NDArray[Any] | None) -> bool:
    nearest = np.clip(position, *(np.array(GOAL_CENTRE) + n for n in (-NOISE_RANGE, NOISE_RANGE)))
    return bool(np.linalg.norm(position - (nearest if goal is None else goal)) <= GOAL_RADIUS)


SPEED = 4.0
"""m/s at which the controller goes straight on."""
STIFFNESS, DAMPING = 3.0, 0.3
"""Action per metre to the waypoint and per m/s of velocity."""
TURNING_RADIUS = 0.35
"""A corner nearer than this is done: the controller turns to the next one."""


class WaypointDriver:
    """Drives ``num_streams`` balls, each along a route drawn uniformly when its episode begins.

    A PD law on (x, y, vx, vy) towards the next corner w, the last corner followed by the goal,

        a = STIFFNESS · e − DAMPING · v + noise · N(0, 1),

    where e = w − (x, y), shortened so that the ball goes at ``SPEED`` while w is far. Clipped to
    [−1, 1]. Routes and noise come from ``generator``.
    """

    def __init__(self, num_streams: int, generator: torch.Generator, noise: float = 0.1) -> None:
        check(num_streams > 0, "num_streams", num_streams, "a positive integer")
        check(0 <= noise < math.inf, "noise", noise, "a std, 0 or more")
        self.generator, self.noise = generator, noise
        self.routes = torch.zeros(num_streams, dtype=torch.long)
        self.done = torch.zeros(num_streams, dtype=torch.long)
        """How many corners each ball has passed."""
        self.corners = torch.from_numpy(np.stack([route.corners for route in ROUTES]))

    @staticmethod
    def settings() -> dict[str, float]:
        """What determines the controller beside its noise and its generator."""
        return {
            "speed": SPEED, "stiffness": STIFFNESS, "damping": DAMPING,
            "turning_radius": TURNING_RADIUS,
        }  # fmt: skip

    def begin(self, i: int, state: NDArray[Any]) -> dict[str, int]:
        """Stream i starts an episode: ``{"route": r}``, an index into :data:`ROUTES`."""
        route = int(torch.randint(len(ROUTES), (), generator=self.generator))
        self.routes[i], self.done[i] = route, 0
        return {"route": route}

    def actions(self, states: Tensor) -> Tensor:
        """(B, 6) raw, one a stream -> (B, 2) in [−1, 1]."""
        position, velocity, goal = states.split(2, dim=-1)
        path = torch.cat([self.corners[self.routes].to(states), goal[:, None]], dim=1)
        stream = torch.arange(len(states))
        near = (path[stream, self.done] - position).norm(dim=-1) < TURNING_RADIUS
        self.done = (self.done + near).clamp_max(path.shape[1] - 1)
        error = path[stream, self.done] - position
        reach = SPEED * DAMPING / STIFFNESS
        error = error * (reach / error.norm(dim=-1, keepdim=True)).clamp_max(1.0)
        noise = torch.randn(velocity.shape, generator=self.generator, dtype=states.dtype)
        return (STIFFNESS * error - DAMPING * velocity + self.noise * noise).clamp(-1.0, 1.0)


class PointMazeState(FlattenedKeys):
    """The maze's dictionary as one vector, its contacts solved to convergence.

    As installed, the solver stops 1e-8 short of it, and where depends on the step before: from the
    same position and velocity, a ball at a wall may leave up to 7e-6 m/s faster or slower.
    """

    def __init__(self, env: Env, keys: Sequence[str]) -> None:
        super().__init__(env, keys)
        model, _ = mujoco_of(self)
        model.opt.tolerance = 0.0

    def present(self) -> Mapping[str, Array]:
        base: Any = self.unwrapped
        return base._get_obs(base.point_env._get_obs()[0])


def _write_goal(env: Env, goal: Array) -> None:
    base: Any = env.unwrapped
    base.goal = goal.copy()
    base.update_target_site_pos()  # the sphere that is drawn


def _goal(env: Env) -> Array:
    base: Any = env.unwrapped
    return np.asarray(base.goal)


def _terminated(states: Tensor) -> Tensor:
    """Within 0.45 m of the goal; in float64, as the environment computes it from its own state."""
    offset = states[..., :2].double() - states[..., 4:6].double()
    return offset.norm(dim=-1) <= GOAL_RADIUS


_BUILDING = threading.Lock()


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    with _BUILDING, tempfile.TemporaryDirectory(prefix="maze-") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


class MazeRobot(Robot):
    """A robot whose model is written to a file before it is read.

    gymnasium-robotics calls it ``<temporary folder>/ant_maze<time>.xml`` and never removes it: a
    file would stay behind for every copy, and two processes at the same moment share one.
    """

    def make(self) -> Env:
        with _own_temporary_folder():
            return super().make()


MAZE = MazeRobot(
    name="maze",
    package="gymnasium_robotics",
    env_id="PointMaze_UMaze-v3",
    env_options={
        "maze_map": [[{"#": 1, ".": 0}.get(cell, cell) for cell in row] for row in MAP],
        "reward_type": "sparse",
        "continuing_task": False,
    },
    wrapper=lambda env: PointMazeState(env, ("observation", "desired_goal")),
    state_dim=6,
    action_dim=2,
    random_return=0.0,
    expert_return=1.0,
    max_episode_steps=400,
    terminated=_terminated,
    step_seconds=0.01,
    reusable=True,
    scene=Scene(2, _goal, _write_goal),
    notes=(
        "A map of this project: no published score belongs to it. Contacts are solved to "
        "convergence, so that a step follows from position, velocity and goal alone.",
        "0 is a random policy (no arrival in 200 episodes), 100 the controller that collects the "
        "data (200 in 200): the score is the percentage of episodes that arrive in 400 steps.",
    ),
)
