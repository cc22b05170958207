from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uepo_lib import slices, tasks
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.errors import UsageError
from uepo_lib.rollouts import logged_sequences
from uepo_lib.slices import LoneSlice, SlicedStudy, draw_pieces, subset
from uepo_lib.specs import DatasetKey
from uepo_lib.stages import Study

LENGTHS = [30, 12, 25, 40, 18, 33, 22, 20]


def numbered(lengths: list[int]) -> Dataset:
    """Row i holds the number i everywhere, episode e the label e."""
    total = sum(lengths)
    rows = torch.arange(float(total))
    ends = torch.tensor(lengths).cumsum(0)
    over = torch.zeros(total, dtype=torch.bool)
    over[ends - 1] = True
    return Dataset(
        task=tasks.get("hopper-medium"),
        key=DatasetKey("made-up", "hash", "recipe"),
        normaliser=Normaliser(torch.zeros(11), torch.ones(11)),
        states=rows.unsqueeze(1).expand(-1, 11),
        actions=rows.unsqueeze(1).expand(-1, 3),
        rewards=rows,
        next_states=rows.unsqueeze(1).expand(-1, 11) + 0.5,
        terminated=over,
        bounds=torch.stack([ends - torch.tensor(lengths), ends], 1),
        simulator_states=rows.double().unsqueeze(1),
        metadata={},
        labels={"route": torch.arange(len(lengths))},
    )


def test_pieces_keep_their_steps_together() -> None:
    data = numbered([4, 3, 5])
    part = subset(data, torch.tensor([[7, 10], [1, 3]]))
    expected = torch.tensor([7.0, 8, 9, 1, 2])
    for column in (
        part.states[:, 0],
        part.actions[:, 0],
        part.rewards,
        part.next_states[:, 0] - 0.5,
    ):
        assert torch.equal(column, expected)
    assert part.simulator_states is not None
    assert torch.equal(part.simulator_states[:, 0], expected.double())
    assert part.bounds.tolist() == [[0, 3], [3, 5]]
    assert part.labels["route"].tolist() == [2, 0]
    assert not part.terminated.any()  # both were cut before their episode's end
    assert part.first_step.tolist() == [0, 0, 0, 3, 3]


@pytest.mark.parametrize("piece", [[3, 5], [2, 2], [11, 13], [-1, 2]])
def test_a_piece_lies_within_one_episode(piece: list[int]) -> None:
    with pytest.raises(UsageError, match="pieces"):
        subset(numbered([4, 3, 5]), torch.tensor([piece]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.data())
def test_the_pieces_are_whole_episodes_but_the_last(
    lengths: list[int], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, sum(lengths)))
    bounds = numbered(lengths).bounds
    pieces = draw_pieces(bounds, size)
    assert int((pieces[:, 1] - pieces[:, 0]).sum()) == size
    whole = {tuple(b) for b in bounds.tolist()}
    assert {tuple(p) for p in pieces[:-1].tolist()} <= whole
    begin, end = pieces[-1].tolist()
    assert any(b == begin and end <= e for b, e in whole)
    larger = draw_pieces(bounds, sum(lengths))
    assert torch.equal(larger[: len(pieces) - 1], pieces[:-1])  # a larger slice holds the smaller


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(UsageError, match="size"):
        draw_pieces(numbered([4, 3]).bounds, 8)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    data = numbered(LENGTHS)
    monkeypatch.setattr(slices, "load_data", lambda *_: data)
    yield data


def test_what_the_whole_study_holds_out_stays_held_out(whole: Dataset) -> None:
    study = SlicedStudy("hopper-medium", 0, 60, "smoke", {"denoiser": {"horizon": 4}})
    kept, held = study.held_out
    expected_kept, expected_held = whole.split(0.1)
    rows = study.dataset.rewards.long()
    assert torch.equal(rows[held], expected_held)
    assert len(kept) == 60
    assert torch.isin(rows[kept], expected_kept).all()


def test_a_slice_and_the_whole_choose_and_test_on_the_same_episodes(whole: Dataset) -> None:
    study = SlicedStudy("hopper-medium", 0, 60, "smoke", {"denoiser": {"horizon": 4}})
    rows = study.dataset.rewards.long()
    choosing, testing = whole.halve(whole.split(0.1)[1])
    assert torch.equal(rows[study.choosing], choosing)
    assert torch.equal(rows[study.testing], testing)
    assert len(testing) > 0
    assert not torch.isin(rows[study.held_out[0]], torch.cat([choosing, testing])).any()


def test_a_lone_slice_learns_and_chooses_from_its_own_steps_alone(whole: Dataset) -> None:
    lone = LoneSlice("hopper-medium", 0, 60, "smoke", {"denoiser": {"horizon": 4}})
    plain = SlicedStudy("hopper-medium", 0, 60, "smoke", {"denoiser": {"horizon": 4}})
    fitting, choosing = lone.held_out
    assert torch.equal(torch.cat([fitting, choosing]), torch.arange(60))
    assert torch.equal(lone.choosing, choosing) and len(choosing) == 6
    assert torch.equal(lone.dataset.rewards, plain.dataset.rewards)
    beside = whole.split(0.1)[1]
    rows = lone.dataset.rewards.long()
    assert not torch.isin(rows[:60], beside).any()
    assert torch.equal(rows[lone.testing], beside)
    real = lone._real_sequences(3)  # the filter's reference
    assert set(real.future[:, :, 0].flatten().tolist()) <= set(rows[choosing].tolist())


def test_a_lone_slice_shares_every_run_but_those_of_its_models(whole: Dataset) -> None:
    lone, plain = (kind("hopper-medium", 0, 60, "smoke") for kind in (LoneSlice, SlicedStudy))
    for stage in ("diffusion_policy", "clone", "critic"):
        assert getattr(lone, stage)().keys == getattr(plain, stage)().keys
    assert lone.dynamics().keys[0].id != plain.dynamics().keys[0].id


def test_starts_come_from_the_slice_alone(whole: Dataset) -> None:
    study = SlicedStudy("hopper-medium", 0, 60, "smoke", {"denoiser": {"horizon": 4}})
    kept, _ = study.held_out
    assert len(study.windows) > 0
    assert study.windows.now.max() < 60
    starts = study.windows.past(torch.arange(len(study.windows)))[:, -1, 0]
    assert torch.equal(starts, study.dataset.rewards[study.windows.now])
    assert torch.isin(starts, study.dataset.rewards[kept]).all()


def test_logged_sequences_begin_where_they_may_and_stay_in_their_episode(whole: Dataset) -> None:
    steps = torch.arange(30, 60)
    batch = logged_sequences(whole, steps, count=1_000, ahead=5)
    begin = batch.past[:, -1, 0]
    assert torch.isin(begin.long(), steps).all()
    assert torch.equal(batch.past[:, 0, 0], begin - 1)
    assert torch.equal(batch.future[:, -1, 0], begin + 5)
    assert torch.equal(batch.actions[:, 0, 0], begin)
    episode = torch.searchsorted(whole.bounds[:, 1].contiguous(), begin.long(), right=True)
    for edge in (batch.past[:, 0, 0], batch.future[:, -1, 0]):
        same = torch.searchsorted(whole.bounds[:, 1].contiguous(), edge.long(), right=True)
        assert torch.equal(same, episode)
    assert len(logged_sequences(whole, steps, count=4, ahead=5).past) == 4


def test_each_size_has_its_own_runs(whole: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    small, same, large = (SlicedStudy("hopper-medium", 0, n, "smoke") for n in (40, 40, 60))
    assert small.dynamics().keys == same.dynamics().keys
    full = Study("hopper-medium", 0, "smoke")
    full.__dict__["dataset"] = whole
    ids = {s.dynamics().keys[0].id for s in (small, large, full)}
    readable = {s.dynamics().keys[0].reading_key for s in (small, large, full)}
    assert len(ids) == len(readable) == 3


def test_a_size_is_positive() -> None:
    with pytest.raises(UsageError, match="size"):
        SlicedStudy("hopper-medium", 0, 0, "smoke")
