"""The arrays beside a dataset: made once, found again, made anew when the dataset changes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from uepo_lib import loading, storage, tasks
from uepo_lib.errors import UsageError
from uepo_lib.storage import Trajectory

TASK = tasks.get("hopper-medium")


def trajectories(lengths: list[int], seed: int = 0) -> list[Trajectory]:
    generator = np.random.default_rng(seed)
    return [
        Trajectory(
            generator.normal(size=(n + 1, 11)),
            generator.uniform(-1, 1, (n, 3)).astype(np.float32),
            generator.normal(size=n),
            terminated=i % 2 == 0,
            truncated=i % 2 == 1,
            infos={
                "qpos": generator.normal(size=(n + 1, 6)),
                "qvel": generator.normal(size=(n + 1, 6)),
                "route": np.full(n + 1, i % 4),
            },
        )
        for i, n in enumerate(lengths)
    ]


def write(folder: Path, lengths: list[int], seed: int = 0) -> list[Trajectory]:
    made = trajectories(lengths, seed)
    storage.write_dataset(TASK, made, folder, metadata={"recipe": {"seed": seed}}, algorithm="none")
    return made


def converted(folder: Path) -> float:
    return (folder / ".arrays" / TASK.dataset_id / "about.json").stat().st_mtime_ns


def test_labels_and_simulator_states_are_those_written(tmp_path: Path) -> None:
    made = write(tmp_path, [5, 3, 4])
    data = loading.load(TASK, tmp_path)
    assert data.labels["route"].tolist() == [0, 1, 2]
    full = [np.concatenate([t.infos["qpos"], t.infos["qvel"]], 1)[:-1] for t in made]
    assert data.simulator_states is not None
    np.testing.assert_array_equal(data.simulator_states.numpy(), np.concatenate(full))
    raw = np.concatenate([t.observations[:-1] for t in made])
    standardised = (raw - raw.mean(0)) / raw.std(0)
    np.testing.assert_allclose(data.states.numpy(), standardised, atol=1e-5)


def test_the_second_load_reads_only_the_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [5, 3])
    first = loading.load(TASK, tmp_path)

    def never(*arguments: Any) -> None:
        raise AssertionError("the dataset was read again")

    monkeypatch.setattr(loading, "read", never)
    again = loading.load(TASK, tmp_path)
    assert again.key == first.key
    assert torch.equal(again.states, first.states)


def test_writing_to_a_tensor_leaves_the_arrays_alone(tmp_path: Path) -> None:
    write(tmp_path, [5, 3])
    loading.load(TASK, tmp_path).states.zero_()
    assert loading.load(TASK, tmp_path).states.abs().sum() > 0


def test_another_dataset_in_its_place_is_converted_anew(tmp_path: Path) -> None:
    write(tmp_path, [5, 3])
    first = loading.load(TASK, tmp_path)
    storage.remove(TASK, tmp_path)
    write(tmp_path, [5, 3], seed=1)
    second = loading.load(TASK, tmp_path)
    assert second.key.hash != first.key.hash and second.key.recipe != first.key.recipe
    assert not torch.equal(second.states, first.states)


def test_where_an_episode_ends_is_part_of_the_hash(tmp_path: Path) -> None:
    """Equal steps cut into other episodes are another dataset."""
    whole = trajectories([8])[0]
    for cut, terminated in ((8, False), (4, False), (8, True)):
        folder = tmp_path / f"{cut}{terminated}"
        folder.mkdir()
        parts = [(a, min(a + cut, 8)) for a in range(0, 8, cut)]
        pieces = [
            Trajectory(
                whole.observations[a : b + 1], whole.actions[a:b], whole.rewards[a:b],
                terminated, not terminated,
            )
            for a, b in parts
        ]  # fmt: skip
        storage.write_dataset(TASK, pieces, folder, metadata={}, algorithm="none")
    hashes = {loading.load(TASK, folder).key.hash for folder in tmp_path.iterdir()}
    assert len(hashes) == 3


def test_a_folder_that_cannot_be_written_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [5, 3])

    def refused(*arguments: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / ".arrays"))

    with monkeypatch.context() as patch:
        patch.setattr(loading.tempfile, "TemporaryDirectory", refused)
        with pytest.raises(UsageError, match="UEPO_ARRAYS") as caught:
            loading.load(TASK, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("UEPO_ARRAYS", str(tmp_path / "elsewhere"))
    assert len(loading.load(TASK, tmp_path)) == 8
    assert (tmp_path / "elsewhere" / TASK.dataset_id / "states.npy").is_file()


def test_a_million_transitions_are_served_quickly(tmp_path: Path) -> None:
    """Under 2 s and less than three times the arrays' size, once they are there."""
    count, robot = 1_000_000, TASK.robot
    home = tmp_path / ".arrays" / TASK.dataset_id
    source = tmp_path / TASK.dataset_id / "data"
    home.mkdir(parents=True)
    source.mkdir(parents=True)
    shapes = {"states": (count, robot.state_dim), "next_states": (count, robot.state_dim),
              "actions": (count, robot.action_dim), "rewards": (count,)}  # fmt: skip
    for name, shape in shapes.items():
        np.save(home / f"{name}.npy", np.zeros(shape, dtype=np.float32))
    np.save(home / "terminated.npy", np.zeros(count, dtype=bool))
    np.save(home / "bounds.npy", np.array([(i, i + 1000) for i in range(0, count, 1000)]))
    for name in ("mean", "std"):
        np.save(home / f"{name}.npy", np.ones(robot.state_dim, dtype=np.float32))
    about = {"format": loading.FORMAT, "files": {}, "hash": "0", "recipe_hash": "0", "metadata": {}}
    loading.facts.write_json(home / "about.json", about)
    size = sum(path.stat().st_size for path in home.glob("*.npy"))
    process = psutil.Process(os.getpid())
    before, started = process.memory_info().rss, time.perf_counter()
    data = loading.load(TASK, tmp_path)
    seconds = time.perf_counter() - started
    total = sum(float(t.sum()) for t in data.transitions().tensors())
    assert len(data) == count and total == 0
    assert data.states.dtype == torch.float32
    assert seconds < 2
    assert process.memory_info().rss - before < 3 * size


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: made[1].infos.pop("qpos"), "simulator_states in 2 of 3 episodes"),
        (lambda made: made[1].infos.pop("route"), "route in 2 of 3 episodes"),
        (lambda made: made[2].infos.update(qvel=np.zeros((4, 6))), r"infos\['qvel'\]=4: must be 5"),
    ],
)
def test_what_would_belong_to_other_steps_is_refused(spoil: Any, said: str, tmp_path: Path) -> None:
    made = trajectories([5, 3, 4])
    spoil(made)
    storage.write_dataset(TASK, made, tmp_path, metadata={}, algorithm="none")
    with pytest.raises(UsageError, match=said) as caught:
        loading.load(TASK, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_normaliser_is_summed_in_double_precision() -> None:
    """Of float32 rows as of float64 ones; of the latter, which local data have, byte by byte what
    their own mean and spread give."""
    rows = np.random.default_rng(0).normal([1e3, 0.0, 5.0], [1.0, 1e-6, 2.0], (200_000, 3))
    mean, std = loading.moments(rows)
    assert mean.tobytes() == rows.mean(axis=0).astype(np.float32).tobytes()
    spread = np.maximum(rows.std(axis=0).astype(np.float32), np.float32(1e-3))
    assert std.tobytes() == spread.tobytes() and std[1] == np.float32(1e-3)
    single = rows.astype(np.float32)
    exact = single.astype(np.float64)
    mean, std = loading.moments(single)
    assert mean.tobytes() == exact.mean(axis=0).astype(np.float32).tobytes()
    np.testing.assert_allclose(std[::2], exact.std(axis=0)[::2], rtol=1e-6)
    assert abs(single.std(axis=0)[0] / exact.std(axis=0)[0] - 1) > 1e-5  # what float32 sums give


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    write(tmp_path, [5, 3])
    file = tmp_path / TASK.dataset_id / "data" / "main_data.hdf5"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UsageError, match=r"hopper/medium-v0: cannot be read .*remove") as caught:
        loading.load(TASK, tmp_path)
    assert "\n" not in str(caught.value)
