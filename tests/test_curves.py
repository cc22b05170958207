from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from uepo_lib.curves import area_under_curve, dip, regret, steps_to
from uepo_lib.errors import UsageError

curves = st.lists(st.floats(-50, 150), min_size=2, max_size=8)


def test_a_straight_line() -> None:
    steps, scores = [0, 50, 200], [20.0, 40.0, 100.0]
    assert area_under_curve(steps, scores) == pytest.approx((30 * 50 + 70 * 150) / 200)
    assert steps_to(steps, scores, 70) == (125.0, False)
    assert steps_to(steps, scores, 10) == (0.0, False)
    assert steps_to(steps, scores, 101) == (200.0, True)
    assert regret(steps, scores) == pytest.approx(70 * 50 + 30 * 150)


def test_what_is_above_the_reference_does_not_pay_for_what_was_below() -> None:
    assert regret([0, 10, 20], [50.0, 150.0, 150.0]) == pytest.approx(0.5 * 5 * 50)
    assert regret([0, 10], [120.0, 130.0]) == 0.0


@given(curves, st.floats(0, 120))
def test_against_numerical_integration(scores: list[float], reference: float) -> None:
    steps = np.cumsum([0.0, *range(1, len(scores))])

    def curve(x: float) -> float:
        return float(np.interp(x, steps, scores))

    def lost(x: float) -> float:
        return max(0.0, reference - curve(x))

    def integral(function: Callable[[float], float]) -> float:
        kinks = steps[1:-1].tolist() or None
        return float(quad(function, 0, float(steps[-1]), points=kinks, limit=400)[0])

    area = integral(curve) / steps[-1]
    assert area_under_curve(steps, scores) == pytest.approx(area, abs=1e-6)
    expected = integral(lost)
    assert regret(steps, scores, reference) == pytest.approx(expected, abs=1e-2, rel=1e-4)


@given(curves, st.floats(-60, 160))
def test_the_level_is_reached_there_and_not_before(scores: list[float], level: float) -> None:
    steps = list(range(len(scores)))
    found = steps_to(steps, scores, level)
    assert found.censored == (max(scores) < level)
    before = np.linspace(0, found.steps, 50)[:-1]
    if found.steps > 0:
        assert (np.interp(before, steps, scores) <= level + 1e-6).all()
    if not found.censored and found.steps > 0:
        assert np.interp(found.steps, steps, scores) == pytest.approx(level, abs=1e-6)


def test_the_dip_is_split() -> None:
    assert dip([90.0, 70.0, 95.0], 60.0) == (30.0, 20.0)
    assert dip([90.0, 92.0], 95.0) == (-5.0, 0.0)


@pytest.mark.parametrize(
    ("steps", "scores", "name"),
    [
        ([0], [1.0], "steps"),
        ([0, 1], [1.0], "scores"),
        ([0, 0], [1.0, 2.0], "steps"),
        ([0, 1], [1.0, float("nan")], "scores"),
    ],
)
def test_what_is_no_curve_is_refused(steps: list[float], scores: list[float], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        area_under_curve(steps, scores)
