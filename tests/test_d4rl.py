from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepo_lib import d4rl, facts, loading, tasks
from uepo_lib.d4rl_file import Flat, read
from uepo_lib.errors import UsageError
from uepo_lib.robots import Robot, mujoco_of
from uepo_lib.tasks import Task

TASK = tasks.get("hopper-medium@d4rl")
ROBOT = TASK.robot
CLOCK = dataclasses.replace(ROBOT, max_episode_steps=7)
"""A hopper whose clock stops it early."""

Ends = list[tuple[int, str]]
"""Of each episode: how many steps, and what ended it."""
Arrays = dict[str, Any]


def numbered(ends: Ends) -> Arrays:
    """A file whose numbers say where they are from: (episode, step) observed, the row paid."""
    rows = [(e, t, *np.zeros(9)) for e, (n, _) in enumerate(ends) for t in range(n)]
    observations = np.array(rows, dtype=np.float32)
    flags = {name: np.zeros(len(rows), dtype=bool) for name in ("terminal", "timeout")}
    for row, (_, kind) in zip(np.cumsum([n for n, _ in ends]) - 1, ends, strict=True):
        for name, flag in flags.items():
            flag[row] = name in kind
    after = observations.copy()
    after[:, 1] += 1
    return {
        "observations": observations,
        "actions": np.linspace(-1, 1, 3 * len(rows), dtype=np.float32).reshape(-1, 3),
        "rewards": np.arange(len(rows), dtype=np.float32),
        "terminals": flags["terminal"],
        "timeouts": flags["timeout"],
        "next_observations": after,
    }


def without(arrays: Arrays, *names: str) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in names}


def flat(arrays: Arrays) -> Flat:
    optional = {"timeouts": None, "next_observations": None}
    return Flat(file=Path("made-up.hdf5"), state={}, algorithm="", **{**optional, **arrays})


def save(path: Path, arrays: Arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def cut(arrays: Arrays, robot: Robot = ROBOT) -> tuple[Ends, list[float], dict[str, Any]]:
    """Each episode's length and end, the step it says it ended in, and the record.

    Every row must stand where it stood, beside its own action and reward.
    """
    parts, record = d4rl.cut(flat(arrays), robot)
    ends, last = [], []
    for part in parts:
        kinds = {"terminal": part.terminated, "timeout": part.truncated}
        ends.append((len(part), "+".join(kind for kind, is_so in kinds.items() if is_so)))
        rows = part.rewards.astype(int)
        np.testing.assert_array_equal(rows, rows[0] + np.arange(len(rows)))
        np.testing.assert_array_equal(part.actions, arrays["actions"][rows])
        np.testing.assert_array_equal(part.observations[:-1], arrays["observations"][rows])
        assert len(part.observations) == len(part) + 1
        assert part.observations[-1, 0] == part.observations[0, 0], "of another episode"
        last.append(float(part.observations[-1, 1]))
    return ends, last, record


KINDS = ("terminal", "timeout", "terminal+timeout")
episodes = st.lists(
    st.tuples(st.integers(1, 7), st.sampled_from(KINDS)), min_size=1, max_size=8
)  # fmt: skip

# ---- where episodes end --------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(episodes, st.booleans())
def test_with_next_observations_every_step_and_every_end_comes_back(
    ends: Ends, finished: bool
) -> None:
    if not finished:
        ends = [*ends[:-1], (ends[-1][0], "")]
    found, last, record = cut(numbered(ends))
    assert found == [(n, kind or "timeout") for n, kind in ends], "unfinished is cut off"
    assert last == [n for n, _ in ends]
    assert record["terminals"] == sum("terminal" in kind for _, kind in ends)
    assert record["timeouts"] == sum("timeout" in kind for _, kind in ends)
    assert record["unfinished"] == (not finished)
    assert record["steps_lost"] == record["stand_ins"] == record["unmarked_resets"] == 0


@settings(max_examples=100, deadline=None)
@given(episodes, st.booleans())
def test_without_them_a_step_into_the_unknown_is_dropped_unless_it_is_terminal(
    ends: Ends, finished: bool
) -> None:
    if not finished:
        ends = [*ends[:-1], (ends[-1][0], "")]
    kept = [(n if "terminal" in kind else n - 1, kind or "timeout") for n, kind in ends]
    if not any(n for n, _ in kept):
        return
    found, last, record = cut(without(numbered(ends), "next_observations"))
    assert found == [(n, kind) for n, kind in kept if n]
    # the state a terminal led to is not known: the one before it stands in
    assert last == [n - ("terminal" in kind) for n, kind in kept if n]
    assert record["steps_lost"] == sum("terminal" not in kind for _, kind in ends)
    assert record["episodes_lost"] == sum(n == 0 for n, _ in kept)
    assert record["stand_ins"] == record["terminals"] == sum("terminal" in k for _, k in ends)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 7), st.just("terminal")), min_size=1, max_size=8))
def test_a_file_older_than_timeouts_is_cut_by_the_clock(ends: Ends) -> None:
    ends = [part for end in ends for part in [(7, "timeout")] * (end[0] % 3) + [end]]
    arrays = without(numbered(ends), "next_observations", "timeouts")
    found, _, record = cut(arrays, CLOCK)
    assert found == [(n - (kind == "timeout"), kind) for n, kind in ends]
    assert record["by_the_clock"] == sum(kind == "timeout" for _, kind in ends)
    assert record["timeouts"] == 0, "none is in the file"


def test_a_terminal_at_the_last_allowed_step_stays_terminal() -> None:
    for ends in ([(7, "terminal"), (7, "timeout")], [(7, "terminal+timeout"), (2, "terminal")]):
        arrays = numbered(ends)
        assert cut(arrays, CLOCK)[0] == ends
        found = cut(without(arrays, "next_observations", "timeouts"), CLOCK)[0]
        assert found[0] == (7, "terminal")


def test_a_reset_that_nobody_marked_is_seen_in_the_next_observations() -> None:
    ends = [(90, "timeout"), (150, ""), (60, "terminal")]
    found, last, record = cut(numbered(ends))
    assert found == [(90, "timeout"), (150, "timeout"), (60, "terminal")]
    assert last == [90, 150, 60]
    assert record["unmarked_resets"] == 1
    assert record["timeouts"] == 1


def test_next_observations_of_other_rows_are_refused() -> None:
    arrays = numbered([(90, "timeout"), (60, "terminal")])
    arrays["next_observations"] = np.roll(arrays["next_observations"], 1, axis=0)
    with pytest.raises(UsageError, match=r"made-up.hdf5: next_observations .* first at row 0"):
        cut(arrays)


def test_missing_timeouts_are_refused_where_nothing_tells_of_resets() -> None:
    arrays = numbered([(5, "terminal"), (6, ""), (6, "timeout")])
    with pytest.raises(UsageError, match=r"no end among the 7 rows before row 12.*timeouts"):
        cut(without(arrays, "next_observations"), CLOCK)
    assert cut(arrays, CLOCK)[0] == [(5, "terminal"), (6, "timeout"), (6, "timeout")]


def test_a_person_may_take_longer_than_the_clock() -> None:
    hand = dataclasses.replace(CLOCK, package="gymnasium_robotics")
    arrays = without(numbered([(12, "timeout"), (3, "timeout")]), "next_observations")
    assert cut(arrays, hand)[0] == [(11, "timeout"), (2, "timeout")]


def test_rounding_outside_the_range_of_actions_is_clipped_and_counted() -> None:
    arrays = numbered([(4, "timeout")])
    arrays["actions"][2] = 1 + 5e-5
    parts, record = d4rl.cut(flat(arrays), ROBOT)
    assert parts[0].actions.max() == 1
    assert record["actions_clipped"] == 1


# ---- a file as D4RL wrote it ---------------------------------------------------------------------


def rollout(robot: Robot, steps: int, limit: int) -> Arrays:
    """D4RL's own recording loop: a clock at ``limit``, float32, qpos and qvel before each step."""
    env, generator = robot.make(), np.random.default_rng(0)
    _, data = mujoco_of(env)
    state, age = env.reset(seed=0)[0], 0
    rows: list[tuple[Any, ...]] = []
    for _ in range(steps):
        action, age = generator.uniform(-1, 1, robot.action_dim), age + 1
        before = (data.qpos.copy(), data.qvel.copy())
        after, reward, done, *_ = env.step(action)
        rows.append((state, action, reward, done, age == limit, after, *before))
        if done or age == limit:
            after, age = env.reset()[0], 0
        state = after
    env.close()
    names = (*numbered([(1, "")]), "infos/qpos", "infos/qvel")
    order = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    assert names[:6] == order
    columns = (np.stack(column) for column in zip(*rows, strict=True))
    arrays = dict(zip(names, columns, strict=True))
    return {n: a if a.dtype == bool else a.astype(np.float32) for n, a in arrays.items()}


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    return rollout(ROBOT, 600, limit=25)


@pytest.fixture(scope="module")
def imported(recorded: Arrays, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The file and the folder of datasets it was imported into."""
    folder = tmp_path_factory.mktemp("data")
    file = folder / "hopper_medium-v2.hdf5"
    policy = {"metadata/algorithm": np.bytes_("SAC"), "metadata/policy/fc0/bias": np.zeros(3)}
    save(file, recorded | policy)
    target = d4rl.import_d4rl(file, TASK, folder)
    assert target == folder / TASK.dataset_id
    return file, folder


def test_the_file_comes_back_as_a_dataset(recorded: Arrays, imported: tuple[Path, Path]) -> None:
    assert recorded["terminals"].sum() > 3, "the rollout must show both ends"
    assert (recorded["timeouts"] & ~recorded["terminals"]).sum() > 3
    data = loading.load(TASK, imported[1])
    assert len(data) == 600
    over = recorded["terminals"] | recorded["timeouts"]
    over[-1] = True
    assert (data.bounds[:, 1] - 1).tolist() == np.flatnonzero(over).tolist()
    np.testing.assert_array_equal(data.terminated.numpy(), recorded["terminals"])
    for name, mine in (("observations", data.states), ("next_observations", data.next_states)):
        raw = data.normaliser.inverse(mine).numpy()
        np.testing.assert_allclose(raw, recorded[name], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(data.actions.numpy(), recorded["actions"])
    np.testing.assert_array_equal(data.rewards.numpy(), recorded["rewards"])


def test_its_simulator_states_lead_to_its_next_observations(
    recorded: Arrays, imported: tuple[Path, Path]
) -> None:
    states = loading.load(TASK, imported[1]).simulator_states
    assert states is not None
    env = ROBOT.make()
    env.reset(seed=1)
    for row in range(0, 600, 7):
        ROBOT.restore_logged(env, states[row].numpy())
        after = env.step(recorded["actions"][row])[0]
        np.testing.assert_allclose(after, recorded["next_observations"][row], rtol=0, atol=1e-5)
    env.close()


def test_it_says_where_it_is_from_and_plain_minari_reads_it(
    imported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = imported
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    dataset = minari.load_dataset(TASK.dataset_id)
    metadata = dataset.storage.metadata
    assert metadata["recipe"]["sha256"] == facts.sha256(file)
    assert metadata["imported"]["file"] == file.name
    assert metadata["imported"]["simulator_state"] == "kept"
    assert metadata["algorithm_name"] == "SAC"
    assert dataset.env_spec.id == "Hopper-v4"
    env = dataset.recover_environment()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    with pytest.raises(UsageError, match="already"):
        d4rl.import_d4rl(file, TASK, folder)


def test_a_simulator_state_that_is_not_the_observations_is_not_kept(recorded: Arrays) -> None:
    columns = without(recorded, "infos/qpos", "infos/qvel")
    state = {"qpos": recorded["infos/qpos"], "qvel": recorded["infos/qvel"]}
    moved = {**state, "qpos": np.roll(state["qpos"], 1, axis=0)}
    narrow = {**state, "qvel": state["qvel"][:, :5]}
    spoiled = {**state, "qvel": np.where(np.arange(600)[:, None] == 599, np.nan, state["qvel"])}
    for kept, said in (
        (state, "kept"),
        (moved, "not kept: qpos and qvel do not give the observation at row 0"),
        (narrow, r"not kept: .*'qvel': \(5,\).*"),
        (spoiled, "not kept: .*NaN or infinite at row 599"),
        ({}, "not in the file"),
    ):
        parts, record = d4rl.cut(dataclasses.replace(flat(columns), state=kept), ROBOT)
        assert re.fullmatch(said, record["simulator_state"])
        assert all(bool(part.infos) == (said == "kept") for part in parts)


# ---- what is refused -----------------------------------------------------------------------------


def kitchen() -> Arrays:
    """As D4RL's kitchen: no timeouts, flags as floats, an array called infos."""
    arrays = without(numbered([(5, "terminal")]), "timeouts", "next_observations")
    arrays |= {"observations": np.zeros((5, 60), np.float32), "actions": np.zeros((5, 9))}
    return arrays | {"terminals": arrays["terminals"].astype(np.float32), "infos": np.zeros(5)}


def spoiled(name: str, change: Any) -> Arrays:
    arrays = numbered([(5, "timeout"), (4, "terminal")])
    return arrays | {name: change(arrays[name].copy())}


def at(row: int, value: float) -> Any:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        values[row] = value
        return values

    return change


def sized(observation: int, action: int) -> Arrays:
    arrays = numbered([(5, "timeout")])
    wide = {"observations": observation, "next_observations": observation, "actions": action}
    return arrays | {name: np.zeros((5, size)) for name, size in wide.items()}


FAULTS: dict[str, tuple[Arrays, str]] = {
    "no rewards": (without(numbered([(5, "")]), "rewards"), "no rewards: not D4RL's layout"),
    "empty": ({}, "no observations.*holds nothing"),
    "minari": ({"episode_0/rewards": np.zeros(3)}, "not D4RL's layout; the file holds episode_0"),
    "a row less": (spoiled("actions", lambda a: a[1:]), r"actions of shape \(8, 3\)"),
    "no rows": ({n: a[:0] for n, a in numbered([(5, "")]).items()}, "at least one"),
    "two rewards": (spoiled("rewards", lambda r: np.stack([r, r], 1)), r"rewards .* \(9, 2\)"),
    "a scalar": (spoiled("rewards", lambda r: np.float32(1)), r"rewards of shape \(\)"),
    "nan state": (spoiled("observations", at(3, np.nan)), "observations is NaN .* row 3"),
    "nan next": (spoiled("next_observations", at(2, np.inf)), "next_observations is .* row 2"),
    "half a flag": (spoiled("terminals", at(1, 0.5)), "terminals is neither 0 nor 1 at row 1"),
    "large action": (spoiled("actions", at(6, -1.2)), "an action of 1.2 at row 6; must be in"),
    "walker": (sized(17, 6), r"shape \(17,\) and actions of shape \(6,\); Hopper-v4 has \(11,\)"),
    "images": (spoiled("observations", lambda o: o.reshape(9, 11, 1)), r"of shape \(11, 1\)"),
    "next of another size": (
        spoiled("next_observations", lambda o: o[:, :7]), r"next_observations of shape \(9, 7\)"
    ),
    "kitchen": (kitchen(), "D4RL kitchen file.*velocities.*kitchen-complete@minari"),
    "antmaze": (sized(29, 8), "antmaze.*goals that did not end.*timeouts do not fall"),
    "maze2d": (sized(4, 2), "maze2d.*timeouts mark goals"),
    "one step": (without(numbered([(1, "timeout")]), "next_observations"), "trajectories"),
}  # fmt: skip


def refuse(file: Path, said: str, task: Task = TASK) -> None:
    folder = file.parent / "datasets"
    folder.mkdir()
    with pytest.raises(UsageError, match=said) as caught:
        d4rl.import_d4rl(file, task, folder)
    assert "\n" not in str(caught.value)
    assert list(folder.rglob("*")) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_file_is_refused_in_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    arrays, said = FAULTS[name]
    refuse(save(tmp_path / "file.hdf5", arrays), said)


def test_a_kitchen_file_is_refused_for_a_kitchen_too(tmp_path: Path) -> None:
    refuse(save(tmp_path / "f.hdf5", kitchen()), "velocities", tasks.get("kitchen-mixed@minari"))


def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, recorded: Arrays) -> None:
    whole = save(tmp_path / "whole.hdf5", recorded).read_bytes()
    for name, content, said in (
        ("truncated", whole[: len(whole) // 2], "truncated.hdf5: cannot be read.*truncated file"),
        ("text", b"no such dataset", "text.hdf5: cannot be read as HDF5.*signature not found"),
        ("nothing", b"", "nothing.hdf5: cannot be read"),
    ):
        (tmp_path / name).mkdir()
        file = tmp_path / name / f"{name}.hdf5"
        file.write_bytes(content)
        refuse(file, said)
    refuse(tmp_path / "none.hdf5", "none.hdf5.*there is none")


def test_a_column_for_a_vector_is_a_vector(tmp_path: Path) -> None:
    arrays = numbered([(5, "terminal"), (4, "timeout")])
    tall = {name: arrays[name][:, None] for name in ("rewards", "terminals", "timeouts")}
    found = read(save(tmp_path / "replay.hdf5", arrays | tall))
    np.testing.assert_array_equal(found.rewards, arrays["rewards"])
    np.testing.assert_array_equal(found.terminals, arrays["terminals"])
    np.testing.assert_array_equal(found.timeouts, arrays["timeouts"])
