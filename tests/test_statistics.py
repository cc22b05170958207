from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uepo_lib.errors import UsageError
from uepo_lib.statistics import mean_interval, pooled_interval

numbers = st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=30)


@given(numbers, st.floats(0.5, 0.999))
def test_interval_is_students(values: list[float], confidence: float) -> None:
    interval = mean_interval(values, confidence)
    assert interval.mean == pytest.approx(np.mean(values), abs=1e-9)
    scale = stats.sem(values)
    if scale == 0:
        assert interval.low == interval.high == interval.mean
        return
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), scale)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)


def test_textbook_value() -> None:
    """Three values 1, 2, 3: t_{0.975, 2} = 4.3027, s = 1."""
    interval = mean_interval([1, 2, 3])
    assert interval.high - 2 == pytest.approx(4.30265 / np.sqrt(3), rel=1e-5)
    assert interval.high - 2 == pytest.approx(2 - interval.low)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (1000, 5))
    intervals = [mean_interval(row, 0.9) for row in draws]
    covered = np.mean([i.low <= 3.0 <= i.high for i in intervals])
    assert covered == pytest.approx(0.9, abs=0.03)


def test_the_seed_is_the_unit_and_not_the_episode() -> None:
    table = np.array([[1.0, 3.0], [4.0, 6.0], [8.0, 8.0]])
    assert pooled_interval(table) == mean_interval([2.0, 5.0, 8.0])
    more_episodes = np.repeat(table, 50, axis=1)
    assert pooled_interval(more_episodes) == pooled_interval(table)


def test_printed_in_whole_numbers() -> None:
    assert str(mean_interval([1.0, 1.0])) == "1 [1, 1]"


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values: list[float]) -> None:
    with pytest.raises(UsageError, match="values"):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(UsageError, match="confidence"):
        mean_interval([1.0, 2.0], confidence)


def test_pooling_needs_seeds_and_episodes() -> None:
    with pytest.raises(UsageError, match="groups"):
        pooled_interval([1.0, 2.0, 3.0])
