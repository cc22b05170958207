from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import randn

from uepo_lib import facts, loading, storage, tasks
from uepo_lib.datasets import Dataset, Normaliser, Transitions
from uepo_lib.errors import UsageError
from uepo_lib.loading import content_hash
from uepo_lib.specs import DatasetKey
from uepo_lib.storage import Trajectory

TASK = tasks.get("hopper-medium")


def fabricated(lengths: list[int], terminated: bool = True) -> Dataset:
    """States (episode, step), actions the step's running number: where a row is from can be read
    off it."""
    ends = np.cumsum(lengths)
    rows = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    states = torch.tensor(rows, dtype=torch.float32)
    over = torch.zeros(len(rows), dtype=torch.bool)
    over[ends - 1] = terminated
    return Dataset(
        task=TASK,
        key=DatasetKey("made-up", "0", "0"),
        normaliser=Normaliser(torch.zeros(2), torch.ones(2)),
        states=states,
        actions=torch.arange(float(len(rows))).unsqueeze(1),
        rewards=torch.ones(len(rows)),
        next_states=states + torch.tensor([0.0, 1.0]),
        terminated=over,
        bounds=torch.tensor([(end - n, end) for end, n in zip(ends, lengths, strict=True)]),
        simulator_states=None,
        metadata={},
    )


many_lengths = st.lists(st.integers(1, 12), min_size=1, max_size=6)

# ---- windows -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(many_lengths, st.integers(1, 4), st.integers(1, 6))
def test_windows_never_cross_an_end(lengths: list[int], obs_horizon: int, horizon: int) -> None:
    data = fabricated(lengths)
    expected = [(e, t) for e, n in enumerate(lengths) for t in range(n - horizon + 1)]
    if not expected:
        with pytest.raises(UsageError, match="horizon"):
            data.windows(obs_horizon, horizon)
        return
    windows = data.windows(obs_horizon, horizon)
    assert len(windows) == len(expected)
    index = torch.arange(len(windows))
    past, actions, future = windows.batch(index)
    assert torch.equal(windows.past(index), past)
    assert past.shape == (len(expected), obs_horizon, 2)
    assert actions.shape == (len(expected), horizon, 1)
    assert future.shape == (len(expected), horizon - 1, 2)
    begins = data.bounds[:, 0].tolist()
    for m, (e, t) in enumerate(expected):
        back = [[e, max(0, t - obs_horizon + 1 + j)] for j in range(obs_horizon)]
        assert past[m].tolist() == back
        assert future[m].tolist() == [[e, t + 1 + j] for j in range(horizon - 1)]
        assert actions[m, :, 0].tolist() == [begins[e] + t + j for j in range(horizon)]


@pytest.mark.parametrize("name", ["obs_horizon", "horizon"])
def test_windows_of_no_length_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}=0"):
        fabricated([5]).windows(**{"obs_horizon": 1, "horizon": 1, name: 0})


# ---- splitting and returns -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=8), st.floats(0.05, 0.6), st.integers(0, 9)
)
def test_whole_episodes_are_held_out(lengths: list[int], fraction: float, seed: int) -> None:
    data = fabricated(lengths)
    kept, held = data.split(fraction, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(data)))
    assert len(kept) > 0
    assert len(held) > 0
    of = data.states[:, 0]
    assert not set(of[kept].tolist()) & set(of[held].tolist())
    # at most the fraction, or the one episode without which nothing would be held out
    assert len(held) <= fraction * len(data) or len(set(of[held].tolist())) == 1
    assert torch.equal(data.split(fraction, seed)[1], held)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=3, max_size=12), st.floats(0.05, 0.6))
def test_what_is_held_out_is_halved_by_whole_episodes(lengths: list[int], fraction: float) -> None:
    data = fabricated(lengths)
    _, held = data.split(fraction)
    if len(held) < 2:
        return
    choosing, testing = data.halve(held)
    assert sorted([*choosing.tolist(), *testing.tolist()]) == held.tolist()
    assert len(choosing) > 0
    assert len(testing) > 0
    of = data.states[:, 0]
    if len(set(of[held].tolist())) == 1:  # the one episode is cut in the middle
        assert len(choosing) == len(held) // 2
        assert int(choosing.max()) < int(testing.min())
        return
    assert not set(of[choosing].tolist()) & set(of[testing].tolist())
    assert abs(len(choosing) - len(testing)) <= max(lengths)


def test_halves_take_turns_along_the_data() -> None:
    data = fabricated([5, 5, 5, 5, 2])
    choosing, testing = data.halve(torch.arange(5, 22))
    assert choosing.tolist() == [*range(5, 10), *range(15, 20)]
    assert testing.tolist() == [*range(10, 15), 20, 21]
    with pytest.raises(UsageError, match="steps=1"):
        data.halve(torch.tensor([4]))


def test_one_episode_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="episodes=1"):
        fabricated([9]).split(0.1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_fraction_is_a_fraction(fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction"):
        fabricated([3, 3]).split(fraction)


def test_returns_count_episodes_that_were_played_to_their_end() -> None:
    assert fabricated([3, 5]).episode_returns().tolist() == [3, 5]
    cut = fabricated([3, 1000, 5], terminated=False)
    assert cut.episode_returns().tolist() == [1000]  # the clock is an end, being cut is not
    assert cut.episode_returns(complete_only=False).tolist() == [3, 1000, 5]


# ---- transitions and normaliser ------------------------------------------------------------------


def test_transitions_join_index_and_name() -> None:
    data = fabricated([3, 2]).transitions()
    both = Transitions.join(data, data[torch.tensor([4, 0])])
    assert both.actions[:, 0].tolist() == [0, 1, 2, 3, 4, 4, 0]
    assert both.terminated.tolist() == [False, False, True, False, True, True, False]
    again = Transitions(**both.named())
    assert all(torch.equal(a, b) for a, b in zip(again.tensors(), both.tensors(), strict=True))
    assert len(both[1:3]) == 2


def test_normaliser_goes_there_and_back() -> None:
    normaliser = Normaliser(randn(4), randn(4, seed=1).exp())
    raw = 10 * randn(5, 3, 4, seed=2)
    torch.testing.assert_close(normaliser.inverse(normaliser(raw)), raw)
    again = Normaliser.from_tensors(normaliser.tensors())
    assert torch.equal(again(raw), normaliser(raw))


# ---- content hash --------------------------------------------------------------------------------


def test_hash_sees_bytes_names_types_and_shapes_but_not_order_or_layout() -> None:
    x = np.arange(6.0).reshape(2, 3)
    base = content_hash({"a": x, "b": x + 1})
    assert content_hash({"b": x + 1, "a": np.asfortranarray(x)}) == base
    for other in (
        {"a": x, "c": x + 1},
        {"a": x + 1, "b": x},
        {"a": x.reshape(3, 2), "b": x + 1},
        {"a": x.astype(np.float32), "b": x + 1},
        {"a": np.nextafter(x, 9), "b": x + 1},
    ):
        assert content_hash(other) != base


# ---- reading -------------------------------------------------------------------------------------


def write(folder: Path, **changes: Any) -> None:
    """A Minari dataset of two short episodes on disk, with a fault or without."""
    generator, episodes = np.random.default_rng(0), []
    for steps in (6, 4):
        columns: dict[str, Any] = {
            "observations": generator.normal(size=(steps + 1, 11)),
            "actions": generator.uniform(-1, 1, (steps, 3)).astype(np.float32),
            "rewards": generator.normal(size=steps),
            "infos": {
                "qpos": generator.normal(size=(steps + 1, 6)),
                "qvel": generator.normal(size=(steps + 1, 6)),
            },
        }
        for name, change in changes.items():
            columns[name] = change(columns[name])
        episodes.append(Trajectory(**columns, terminated=steps == 6, truncated=steps == 4))
    storage.write_dataset(
        TASK, episodes, folder, metadata={"recipe": {"made": "up"}}, algorithm="none"
    )


def spoiled(value: float, *place: int) -> Any:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[place] = value
        return values

    return change


def test_a_dataset_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path)
    data = loading.load(TASK, tmp_path)
    assert len(data) == 10
    assert data.bounds.tolist() == [[0, 6], [6, 10]]
    assert data.terminated.nonzero().flatten().tolist() == [5], "the cut episode did not end"
    torch.testing.assert_close(data.states.mean(0), torch.zeros(11), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.states.std(0, correction=0), torch.ones(11))
    for begin, end in data.bounds.tolist():
        torch.testing.assert_close(data.next_states[begin : end - 1], data.states[begin + 1 : end])
    assert data.simulator_states is not None
    assert data.simulator_states.shape == (10, 12)
    assert data.simulator_states.dtype == torch.float64
    assert data.states.dtype == data.actions.dtype == data.rewards.dtype == torch.float32


def test_simulator_states_are_optional(tmp_path: Path) -> None:
    write(tmp_path, infos=lambda infos: {})
    assert loading.load(TASK, tmp_path).simulator_states is None


def test_a_coordinate_that_never_changes_is_not_blown_up(tmp_path: Path) -> None:
    def still(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[:, 2] = 0.5
        return values

    write(tmp_path, observations=still)
    assert loading.load(TASK, tmp_path).states.abs().max() < 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"observations": spoiled(np.nan, 2, 4)}, "states has NaN or infinity at step 2"),
        ({"rewards": spoiled(np.inf, 3)}, "rewards has NaN or infinity at step 3"),
        ({"actions": spoiled(np.nan, 1, 1)}, "actions has NaN or infinity at step 1"),
        ({"actions": spoiled(1.5, 0, 2)}, r"actions up to 1.5; must be in \[-1, 1\]"),
        ({"actions": lambda a: a[:, :2]}, r"actions of shape \(2,\); Hopper-v5 has \(3,\)"),
        ({"observations": lambda s: s[:, :7]}, r"states of shape \(7,\)"),
    ],
    ids=["nan state", "infinite reward", "nan action", "large action", "few actions", "few states"],
)
def test_a_fault_is_named_in_one_line(tmp_path: Path, changes: Any, said: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(UsageError, match=said) as caught:
        loading.load(TASK, tmp_path)
    assert "\n" not in str(caught.value)
    assert TASK.dataset_id in str(caught.value)


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make data") as caught:
        loading.load(TASK, tmp_path)
    assert "\n" not in str(caught.value)


# ---- where they lie ------------------------------------------------------------------------------


def test_root_is_the_chosen_folder_or_the_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert loading.root("smoke") == tmp_path
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    repository = facts.repository()
    assert repository is not None
    assert loading.root("smoke") == repository / "data" / "smoke"


def test_root_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="MINARI_DATASETS_PATH"):
        loading.root("smoke")
