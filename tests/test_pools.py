from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusion_toys import check_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uepo_lib import pools
from uepo_lib.datasets import Transitions
from uepo_lib.errors import UsageError
from uepo_lib.pools import Choice, Pool


def rows_numbered(count: int) -> Transitions:
    rows = torch.arange(float(count))
    return Transitions(rows[:, None], rows[:, None], rows, rows[:, None], torch.zeros(count).bool())


def pool(excess: list[float], lengths: list[int]) -> Pool:
    return Pool(rows_numbered(sum(lengths)), torch.tensor(excess), torch.tensor(lengths))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


FOUR = pool([0.02, 0.3, -0.1, 0.04], [2, 3, 1, 2])
"""Rows 0-1, 2-4, 5, 6-7."""

some_pools = st.lists(
    st.tuples(st.floats(-0.25, 0.5, width=32), st.integers(0, 6)), min_size=1, max_size=12
).filter(lambda rows: sum(length for _, length in rows) > 0)


def made(rows: list[tuple[float, int]]) -> Pool:
    excess, lengths = zip(*rows, strict=True)
    return pool(list(excess), list(lengths))


def test_whole_trajectories_below_epsilon_in_order() -> None:
    assert FOUR.rows(Choice(100, 0.05), generator()).tolist() == [0, 1, 5, 6, 7]
    assert FOUR.rows(Choice(100, None), generator()).tolist() == list(range(8))
    assert FOUR.rows(Choice(100, 0.0), generator()).tolist() == [5]
    assert FOUR.rows(Choice(4, 0.05), generator()).tolist() == [0, 1, 5, 6]


def test_the_share_below_epsilon_is_of_trajectories_and_of_all_tried() -> None:
    shares = [FOUR.share_below(e) for e in (0.0, 0.05, 0.3, 1.0, None)]
    assert shares == [0.25, 0.75, 0.75, 1.0, 1.0]
    runaway = pool([0.0, float("inf")], [3, 0])
    assert runaway.share_below(None) == runaway.share_below(0.1) == 0.5


@settings(max_examples=60, deadline=None)
@given(some_pools, st.floats(0, 0.5), st.integers(1, 40), st.integers(0, 5))
def test_random_takes_as_much_and_each_row_once(
    rows: list[tuple[float, int]], epsilon: float, volume: int, seed: int
) -> None:
    found = made(rows)
    kept = found.rows(Choice(volume, epsilon), generator(seed))
    drawn = found.rows(Choice(volume, epsilon, "random"), generator(seed))
    assert len(kept) == len(drawn) <= volume
    assert len(drawn.unique()) == len(drawn)
    trajectory = torch.arange(len(rows)).repeat_interleave(found.lengths)
    assert (found.excess[trajectory[kept]] < epsilon).all()


@settings(max_examples=60, deadline=None)
@given(some_pools, st.floats(0, 0.5), st.floats(0, 0.5))
def test_without_a_limit_a_larger_epsilon_takes_all_that_a_smaller_one_takes(
    rows: list[tuple[float, int]], a: float, b: float
) -> None:
    found, (low, high) = made(rows), sorted((a, b))
    few, many = (found.rows(Choice(1_000, e), generator()) for e in (low, high))
    assert torch.isin(few, many).all()


def test_random_rows_are_of_random_trajectories() -> None:
    """Half of 400 one-step trajectories pass; a random draw of as many takes half of those."""
    excess = [0.0, 1.0] * 200
    drawn = pool(excess, [1] * 400).rows(Choice(400, 0.5, "random"), generator())
    passing = (drawn % 2 == 0).float().mean().item()
    assert len(drawn) == 200
    assert passing == pytest.approx(0.5, abs=0.1)  # sd 0.025
    other = pool(excess, [1] * 400).rows(Choice(400, 0.5, "random"), generator(1))
    assert not torch.equal(drawn, other)


def record(
    excess: list[float], lengths: list[int], accepted: list[bool], stored: int
) -> tuple[Transitions, Tensor, Tensor, Tensor]:
    tensors = torch.tensor(excess), torch.tensor(lengths), torch.tensor(accepted)
    return rows_numbered(stored), *tensors


def test_a_trajectory_that_was_cut_is_left_out() -> None:
    inf = float("inf")
    recorded = record(
        [0.1, inf, 0.2, 0.3, 0.4], [3, 5, 2, 4, 1], [True, False, True, True, True], 7
    )
    found = Pool.of(*recorded)  # seven of the rows 3 + 2 + 4 + 1 were kept: 3, 2, and half of 4
    assert found.lengths.tolist() == [3, 0, 2]
    assert found.excess.tolist() == pytest.approx([0.1, inf, 0.2])
    assert len(found.transitions) == 5


def test_a_complete_record_is_taken_whole() -> None:
    found = Pool.of(*record([0.1, 0.2], [3, 2], [True, True], 5))
    assert found.lengths.tolist() == [3, 2]


def test_golden() -> None:
    drawn = FOUR.rows(Choice(6, None, "random"), generator())
    check_golden("pools", {"random": drawn.float()}, pools.REVISION)


@pytest.mark.parametrize(
    ("name", "value"), [("volume", 0), ("epsilon", -0.1), ("acceptance", "all")]
)
def test_bad_choices_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(Choice(1), **{name: value})  # type: ignore[arg-type]


def test_rows_and_lengths_belong_together() -> None:
    with pytest.raises(UsageError, match="lengths"):
        Pool(rows_numbered(4), torch.zeros(2), torch.tensor([1, 2]))
