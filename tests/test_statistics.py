from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uepo_lib.errors import UsageError
from uepo_lib.statistics import (
    Interval,
    interquartile_mean,
    mean_band,
    mean_interval,
    performance_profile,
    pooled_interval,
    probability_of_improvement,
    stratified_bootstrap,
    verdict,
    verdict_on_gain,
    with_intervals,
)

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


def test_interquartile_mean_cuts_a_quarter_at_each_end() -> None:
    assert interquartile_mean([[1.0, 2.0], [3.0, 1e6]]) == 2.5
    assert interquartile_mean([[1.0], [2.0], [6.0]]) == 3.0  # nothing to cut among three


@given(st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=40), st.floats(0.1, 5.0))
def test_interquartile_mean_is_a_location(values: list[float], scale: float) -> None:
    x = np.array(values)[:, None]
    found = interquartile_mean(x)
    assert found == pytest.approx(stats.trim_mean(x, 0.25, axis=None), abs=1e-9)
    low, high = np.percentile(x, [20, 80], method="inverted_cdf")
    assert x.min() - 1e-9 <= found <= x.max() + 1e-9
    assert low - 1e-6 <= found <= high + 1e-6 or len(values) < 12
    assert interquartile_mean(scale * x + 7) == pytest.approx(scale * found + 7, abs=1e-6)
    assert interquartile_mean(-x) == pytest.approx(-found, abs=1e-9)


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=8),
    st.lists(st.integers(-5, 5), min_size=1, max_size=8),
)
def test_improvement_is_mann_whitneys_u(x: list[int], y: list[int]) -> None:
    ours, theirs = np.array(x, float)[:, None], np.array(y, float)[:, None]
    u = stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
    assert probability_of_improvement(ours, theirs) == pytest.approx(u)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - u)


def test_improvement_compares_within_a_task_and_averages() -> None:
    ours, theirs = [[1.0, 50.0], [3.0, 60.0]], [[2.0, 10.0]]
    assert probability_of_improvement(ours, theirs) == (0.5 + 1.0) / 2
    with pytest.raises(UsageError, match="theirs"):
        probability_of_improvement(ours, [[1.0]])


def test_profile_is_one_minus_the_distribution_function() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 4))
    levels = np.linspace(-3, 3, 50)
    empirical = stats.ecdf(scores.ravel()).cdf.evaluate(levels)
    np.testing.assert_allclose(performance_profile(scores, levels), 1 - empirical)


def test_bootstrap_of_a_mean_has_the_width_of_the_normal() -> None:
    scores = np.random.default_rng(0).normal(10, 2, (400, 1))
    found = stratified_bootstrap(
        scores, statistic=lambda x: float(x.mean()), generator=np.random.default_rng(1)
    )
    half = 1.96 * scores.std() / np.sqrt(400)
    assert found.mean == pytest.approx(scores.mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_strata_are_kept_apart() -> None:
    """Tasks of very different level and no spread of seeds: nothing is uncertain."""
    scores = np.tile([0.0, 100.0, 1000.0], (4, 1))
    found = stratified_bootstrap(scores, generator=np.random.default_rng(0), repeats=200)
    assert found.low == found.high == found.mean


def test_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        found = stratified_bootstrap(
            rng.normal(0, 1, (20, 3)), generator=rng, repeats=200, confidence=0.9
        )
        hits += found.low <= 0 <= found.high
    assert hits / 200 == pytest.approx(0.9, abs=0.06)


def test_a_bootstrap_of_three_seeds_is_too_narrow_and_students_t_is_not() -> None:
    """How often 95 % intervals of the mean of three tasks hold the truth, at E3's three seeds."""
    rng = np.random.default_rng(0)
    hits = np.zeros(3)
    for _ in range(200):
        gains = rng.normal(0, [1.0, 3.0, 10.0], (3, 3))
        middles = (rng.normal(0, 1, (3, 3)), rng.normal(0, 1, (3, 3)))
        found = (
            stratified_bootstrap(gains, statistic=np.mean, generator=rng, repeats=100),
            stratified_bootstrap(
                *middles, statistic=lambda x, y: interquartile_mean(x) - interquartile_mean(y),
                generator=rng, repeats=100,
            ),
            mean_interval(gains.mean(axis=1)),
        )  # fmt: skip
        hits += [one.low <= 0 <= one.high for one in found]
    bootstrap, of_middles, students = hits / 200
    assert bootstrap < 0.85 and of_middles < 0.93
    assert students == pytest.approx(0.95, abs=0.03)


def test_bootstrap_of_two_tables_draws_them_apart() -> None:
    ours, theirs = np.array([[2.0], [3.0], [4.0]]), np.array([[0.0], [1.0]])
    found = stratified_bootstrap(
        ours, theirs, statistic=probability_of_improvement, generator=np.random.default_rng(0)
    )
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("gain", "seeds", "label"),
    [
        (Interval(6, 4, 8), 5, "supported"),
        (Interval(3, 1, 5), 5, "partly"),
        (Interval(1, -2, 4), 5, "not supported"),
        (Interval(-3, -5, -1), 5, "not supported"),
        (Interval(3, -2, 8), 5, "inconclusive"),
        (Interval(6, 4, 8), 3, "inconclusive"),
        (Interval(-3, -5, -1), 3, "inconclusive"),
    ],
)
def test_labels_of_a_claimed_gain_of_six(gain: Interval, seeds: int, label: str) -> None:
    assert verdict_on_gain(gain, seeds, claimed=6) == label


@pytest.mark.parametrize(
    ("gains", "label"),
    [
        ([1.0, 1.1, 0.9, 1.2, 1.0], "supported"),
        ([-1.0, -1.1, -0.9, -1.2, -1.0], "not supported"),
        ([1.0, -1.0, 2.0, -2.0, 0.1], "inconclusive"),
        ([1.0, 1.0, 1.0], "inconclusive"),
    ],
)
def test_verdicts(gains: list[float], label: str) -> None:
    assert verdict(gains).startswith(label)


@pytest.mark.parametrize("scores", [[1.0, 2.0], [], [[1.0, float("nan")]]])
def test_a_table_of_scores_is_asked_for(scores: list[Any]) -> None:
    with pytest.raises(UsageError, match="scores"):
        interquartile_mean(scores)


@pytest.mark.parametrize(
    ("gains", "label"),
    [([0.0] * 5, "supported (5 of 5 above −2,"),  # a tie that is known loses nothing
     ([-1.9, -1.8, -1.7, -1.8, -1.6], "supported"),
     ([3.0, 4.0, 3.5, 5.0, 4.0], "supported"),
     ([-2.5, -2.4, -2.6, -3.0, -2.7], "not supported (0 of 5 above −2,"),
     ([-1.0, -3.0, -2.5, -1.5, -2.2], "inconclusive (2 of 5 above −2,"),
     ([0.0] * 4, "inconclusive")],
)  # fmt: skip
def test_that_nothing_is_lost_is_judged_with_a_margin(gains: list[float], label: str) -> None:
    assert verdict(gains, margin=2.0).startswith(label)


def test_a_shown_table_has_intervals_in_place_of_gains() -> None:
    table = pd.DataFrame({"claim": ["a", "b"], "gains": [[1.0, 2.0, 3.0], [4.0]], "verdict": "x"})
    shown = with_intervals(table)
    assert list(shown) == ["claim", "low", "high", "seeds", "verdict"]
    found = mean_interval([1, 2, 3])
    assert shown.loc[0, ["low", "high", "seeds"]].tolist() == [found.low, found.high, 3]
    assert shown.loc[1, ["low", "high"]].isna().all() and shown.loc[1, "seeds"] == 1


def test_a_band_of_three_curves_reaches_from_the_lowest_to_the_highest() -> None:
    curves = [[1.0, 9.0], [4.0, 5.0], [2.0, 7.0]]
    np.testing.assert_array_equal(mean_band(curves), [[1.0, 5.0], [4.0, 9.0]])


def test_a_band_of_many_curves_is_that_of_their_mean() -> None:
    curves = np.random.default_rng(0).normal(0, [1.0, 3.0], (400, 2))
    low, high = mean_band(curves)
    np.testing.assert_allclose(high - low, [2 * 1.96 / 20, 2 * 3 * 1.96 / 20], rtol=0.15)
    np.testing.assert_array_equal(low, mean_band(curves)[0])  # no new draws
