from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uepo_lib import correlation
from uepo_lib.errors import UsageError

HORIZON = 30


def costs(coefficient: float, size: int = 8_000, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return correlation.ar1_costs(coefficient, size, HORIZON, generator)


def by_double_sum(rho: torch.Tensor) -> float:
    """Var of the mean of H terms of variance 1: (1/H²) Σ_t Σ_u ρ_|t−u|, term by term."""
    h = len(rho)
    return sum(float(rho[abs(t - u)]) for t in range(h) for u in range(h)) / h**2


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.95, 0.95), st.integers(1, 30))
def test_effective_steps_are_the_double_sum(coefficient: float, horizon: int) -> None:
    rho = correlation.ar1(coefficient, horizon)
    expected = 1 / by_double_sum(rho)
    assert correlation.effective_steps(rho) == pytest.approx(expected, rel=1e-9)


def test_two_ends() -> None:
    assert correlation.effective_steps(correlation.ar1(0.0, HORIZON)) == HORIZON
    assert correlation.effective_steps(torch.ones(HORIZON)) == pytest.approx(1.0)


def test_a_long_horizon_tends_to_the_textbook_ratio() -> None:
    """H_eff / H → (1 − φ) / (1 + φ)."""
    rho = correlation.ar1(0.8, 100_000)
    ratio = correlation.effective_steps(rho) / 100_000
    assert ratio == pytest.approx(0.2 / 1.8, rel=1e-3)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_ar1_costs_have_the_moments_they_promise(coefficient: float) -> None:
    found = correlation.autocovariance(costs(coefficient))
    expected = correlation.ar1(coefficient, HORIZON)
    torch.testing.assert_close(found[:20], expected[:20], atol=0.04, rtol=0)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_the_predicted_width_is_the_measured_one(coefficient: float) -> None:
    """Acceptance is the distribution function of the mean: its width against the closed form."""
    means = costs(coefficient).mean(1)
    low, high = means.quantile(torch.tensor([0.1587, 0.8413], dtype=torch.float64))
    exact = math.sqrt(1 / correlation.effective_steps(correlation.ar1(coefficient, HORIZON)))
    assert float(high - low) / 2 == pytest.approx(exact, rel=0.05)
    predicted = correlation.predicted_widths(costs(coefficient, seed=1))
    assert predicted["AR(1)"] == pytest.approx(exact, rel=0.05)
    assert predicted["independent"] == pytest.approx(1 / math.sqrt(HORIZON), rel=0.02)


def test_all_lags_are_an_identity_also_where_levels_differ() -> None:
    found = costs(0.3, size=40) + torch.linspace(-1, 1, 40).double().unsqueeze(1)
    predicted = correlation.predicted_widths(found)
    measured = float(found.mean(1).std(correction=0))
    assert predicted["all lags"] == pytest.approx(measured, rel=1e-9)
    assert predicted["independent"] < 0.5 * measured


def test_bad_input_is_named() -> None:
    with pytest.raises(UsageError, match="costs"):
        correlation.autocovariance(torch.zeros(5))
    with pytest.raises(UsageError, match="costs"):
        correlation.autocovariance(torch.ones(5, 5))
    with pytest.raises(UsageError, match="coefficient"):
        correlation.ar1(1.0, 5)
    with pytest.raises(UsageError, match="coefficient"):
        correlation.ar1_costs(-1.0, 5, 5, torch.Generator())
    with pytest.raises(UsageError, match="horizon"):
        correlation.ar1(0.5, 0)
    with pytest.raises(UsageError, match="correlation"):
        correlation.effective_steps(torch.ones(2, 2))
