"""An old D4RL file -> a Minari dataset.

D4RL (arXiv 2004.07219) keeps one flat array for each quantity. Row i holds the observation before
step i, its action, its reward, and whether the task (``terminals``) or the clock (``timeouts``)
ended the episode with that step. What lies after an episode's last step is known only to files with
``next_observations``. Without them

* a step that the clock ended, or the file's end, is dropped, as in ``d4rl.qlearning_dataset``:
  where it led is unknown. The step before it becomes the cut one;
* a step that the task ended stays, with its reward, or the terminal would be lost. The observation
  before it stands in for the one after. A value function never looks there; D4RL's puts the next
  episode's first observation there, which is no better for a model of the dynamics.

How many steps were dropped and how many observations stand in is kept in the dataset's metadata.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uepo_lib import d4rl_file, facts, storage
from uepo_lib.d4rl_file import Flat
from uepo_lib.robots import Robot, mujoco_of, observation
from uepo_lib.storage import Trajectory
from uepo_lib.tasks import Task

REVISION = 1

ACTION_TOLERANCE = 1e-4
"""Actions at most this far outside [-1, 1] are rounding and are clipped."""
STATE_TOLERANCE = 1e-4
"""How well qpos and qvel must give back the observations, in their units."""

_UNUSABLE = {
    (60, 9): "a D4RL kitchen file observes 30 positions and the 30 numbers of the goal; "
    "FrankaKitchen-v1 observes velocities too, which the file does not hold: take "
    "kitchen-complete@minari, kitchen-partial@minari or kitchen-mixed@minari",
    (29, 8): "a D4RL antmaze file marks goals that did not end an episode as terminals, and "
    "v0's timeouts do not fall on the resets (Farama-Foundation/D4RL issues 77 and 199)",
    (4, 2): "a D4RL maze2d file is one long walk: its timeouts mark goals, not ends, and its "
    "rewards are one step late (Farama-Foundation/D4RL issues 85 and 194)",
}
"""Files that are known to need more than cutting, by the sizes of observation and action."""


def import_d4rl(file: Path, task: Task, folder: Path) -> Path:
    """Make ``task``'s dataset below ``folder`` from an old D4RL ``file``; returns where it lies.

    Raises ``UsageError``, with the reason and before anything is written, for a file that is
    missing, cut off, of another layout, or does not fit ``task.robot``, and where a dataset lies
    already.
    """
    flat = d4rl_file.read(file)
    trajectories, record = cut(flat, task.robot)
    recipe = {"source": "D4RL file", "sha256": facts.sha256(file), "revision": REVISION}
    return storage.write_dataset(
        task,
        trajectories,
        folder,
        metadata={"recipe": recipe, "imported": {"file": file.name, **record}},
        algorithm=flat.algorithm,
    )


def cut(flat: Flat, robot: Robot) -> tuple[list[Trajectory], dict[str, Any]]:
    """The episodes of a file, and the record of what was found, dropped and made up.

    Raises ``UsageError`` where ``flat`` does not fit ``robot`` or its ends cannot be told.
    """
    flat, fitted = _fitting(flat, robot)
    ends, counts = _ends(flat, robot)
    trajectories = _trajectories(flat, ends)
    return trajectories, {**fitted, **counts, **_lost(flat, ends, trajectories)}


def _fitting(flat: Flat, robot: Robot) -> tuple[Flat, dict[str, Any]]:
    """``flat`` with its actions in [-1, 1] and only a simulator state that ``robot`` can be put
    into; what was found and done."""
    found = (flat.observations.shape[1:], flat.actions.shape[1:])
    sizes = tuple(shape[0] if len(shape) == 1 else 0 for shape in found)
    if sizes in _UNUSABLE:
        flat.refuse(_UNUSABLE[sizes])
    if sizes != (robot.state_dim, robot.action_dim):
        flat.refuse(
            f"observations of shape {found[0]} and actions of shape {found[1]}; {robot.env_id} has "
            f"({robot.state_dim},) and ({robot.action_dim},)"
        )
    after = flat.next_observations
    if after is not None and after.shape != flat.observations.shape:
        flat.refuse(
            f"next_observations of shape {after.shape}; observations {flat.observations.shape}"
        )
    outside = np.abs(flat.actions).max(axis=1)
    if outside.max() > 1 + ACTION_TOLERANCE:
        row = int(outside.argmax())
        flat.refuse(f"an action of {outside[row]:.4g} at row {row}; must be in [-1, 1]")
    fault = _state_fault(flat, robot)
    record = {
        "rows": len(flat),
        "actions_clipped": int((outside > 1).sum()),
        "next_observations": after is not None,
        "simulator_state": fault or "kept",
    }
    actions, state = np.clip(flat.actions, -1.0, 1.0), {} if fault else flat.state
    return replace(flat, actions=actions, state=state), record


def _state_fault(flat: Flat, robot: Robot) -> str:
    """Why the file's qpos and qvel cannot be used; empty if they can."""
    if not flat.state:
        return "not in the file"
    if robot.scene.size:
        return "not kept: the file does not hold all of the scene"
    env = robot.make()
    try:
        env.reset(seed=0)
        model, _ = mujoco_of(env)
        shapes = {name: values.shape[1:] for name, values in flat.state.items()}
        if shapes != {"qpos": (model.nq,), "qvel": (model.nv,)}:
            return f"not kept: {shapes}, where the model has {model.nq} and {model.nv}"
        states = np.concatenate([flat.state["qpos"], flat.state["qvel"]], axis=1).astype(np.float64)
        bad = ~np.isfinite(states).all(axis=1)
        if bad.any():
            return f"not kept: qpos or qvel is NaN or infinite at row {int(bad.argmax())}"
        for row in np.unique(np.linspace(0, len(flat) - 1, 200).astype(int)).tolist():
            robot.restore_logged(env, states[row])
            if not np.allclose(observation(env), flat.observations[row], 0, STATE_TOLERANCE):
                return f"not kept: qpos and qvel do not give the observation at row {row}"
    finally:
        env.close()
    return ""


def _ends(flat: Flat, robot: Robot) -> tuple[NDArray[np.int_], dict[str, int]]:
    """Rows at which an episode ends, the last row always, and how many of which kind.

    Marked by the file; else, where ``next_observations`` tell of a reset that nobody marked; else,
    in files of a time before ``timeouts``, by the environment's clock, as D4RL did then.
    """
    over, limit = flat.terminals.copy(), robot.max_episode_steps
    counts = {"terminals": int(over.sum()), "timeouts": 0, "unmarked_resets": 0, "by_the_clock": 0}
    if flat.timeouts is not None:
        over |= flat.timeouts
        counts["timeouts"] = int(flat.timeouts.sum())
    if flat.next_observations is not None:
        jumps = _jumps(flat) & ~over
        counts["unmarked_resets"] = int(jumps.sum())
        if jumps.sum() > 0.1 * len(flat):  # no robot is reset that often
            flat.refuse(
                f"next_observations are not the next rows' observations at {jumps.sum():,} of "
                f"{len(flat):,} rows, first at row {int(jumps.argmax())}, where no episode ends"
            )
        over |= jumps
    elif flat.timeouts is None:
        late = (_steps_so_far(over) % limit == 0) & ~over
        counts["by_the_clock"] = int(late.sum())
        over |= late
    elif robot.package is None and (long := _steps_so_far(over) > limit).any():
        # the hand's files hold people's demonstrations, longer than the limit: not so here
        flat.refuse(
            f"no end among the {limit} rows before row {int(long.argmax())}, where {robot.env_id} "
            "stops: timeouts are missing, and there are no next_observations to tell"
        )
    counts["unfinished"] = int(not over[-1])
    over[-1] = True
    return np.flatnonzero(over), counts


def _jumps(flat: Flat) -> NDArray[np.bool_]:
    """(N,) rows whose next observation is not the observation of the next row."""
    after, following = flat.next_observations, flat.observations[1:]
    assert after is not None
    near = np.isclose(after[:-1], following, rtol=1e-5, atol=1e-6).all(axis=1)
    return np.append(~near, False)


def _steps_so_far(over: NDArray[np.bool_]) -> NDArray[np.int_]:
    """(N,) which step of its episode a row is, from 1."""
    rows = np.arange(len(over))
    begins = np.append(True, over[:-1])
    return rows - np.maximum.accumulate(np.where(begins, rows, 0)) + 1


def _trajectories(flat: Flat, ends: NDArray[np.int_]) -> list[Trajectory]:
    """The episodes that end at rows ``ends``; one of a single step with an unknown outcome is
    none."""
    begins = np.append(0, ends[:-1] + 1)
    parts = (_trajectory(flat, b, e) for b, e in zip(begins.tolist(), ends.tolist(), strict=True))
    return [part for part in parts if len(part)]


def _trajectory(flat: Flat, begin: int, end: int) -> Trajectory:
    """Rows ``begin`` to ``end``, both included."""
    terminated = bool(flat.terminals[end])
    known = flat.next_observations is not None
    rows = slice(begin, end + 1)
    steps = rows if known or terminated else slice(begin, end)
    observations = flat.observations[rows]
    infos = {name: values[rows].astype(np.float64) for name, values in flat.state.items()}
    if known or terminated:
        after = flat.next_observations if known else flat.observations
        assert after is not None
        observations = np.concatenate([observations, after[end : end + 1]])
        unknown = {name: np.full_like(values[:1], np.nan) for name, values in infos.items()}
        infos = {name: np.concatenate([values, unknown[name]]) for name, values in infos.items()}
    timeout = flat.timeouts is not None and bool(flat.timeouts[end])
    return Trajectory(
        observations=observations,
        actions=flat.actions[steps],
        rewards=flat.rewards[steps],
        terminated=terminated,
        truncated=timeout or not terminated,
        infos=infos,
    )


def _lost(
    flat: Flat, ends: NDArray[np.int_], trajectories: list[Trajectory]
) -> dict[str, int | bool]:
    """What the dataset lacks of the file, counted."""
    unknown = flat.next_observations is None
    return {
        "steps_lost": len(flat) - sum(len(part) for part in trajectories),
        "episodes_lost": len(ends) - len(trajectories),
        "stand_ins": int(flat.terminals[ends].sum()) if unknown else 0,
    }
