"""The four diagnostics: closed forms, properties, and thresholds that follow from the record."""

from __future__ import annotations

import math

import pytest
import torch
from episode_toys import hand_made
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uepo_lib import diagnostics as d
from uepo_lib import toys
from uepo_lib.divergence import divergence
from uepo_lib.errors import UsageError


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- collapse


def test_collapse_of_two_plans_is_the_ratio_of_two_divs() -> None:
    plans, logged = randn(2, 1, 6, 3), randn(1, 2, 6, 3, seed=1)
    by_hand = divergence(logged[:, 0], logged[:, 1]) / divergence(plans[0], plans[1])
    assert d.collapse(plans, logged).value == pytest.approx(float(by_hand), rel=1e-5)


def test_logged_behaviour_itself_has_not_collapsed_and_equal_plans_have() -> None:
    logged = randn(9, 5, 6, 3)
    assert d.collapse(logged.transpose(0, 1), logged).value == pytest.approx(1)
    equal = logged[:, :1].transpose(0, 1).repeat(5, 1, 1, 1)
    found = d.collapse(equal, logged)
    assert found.value == d.MOST and found.fired and found.advice


def test_only_as_many_logged_sequences_as_plans_are_compared() -> None:
    plans, logged = randn(3, 7, 6, 2), randn(7, 9, 6, 2, seed=1)
    assert d.collapse(plans, logged).value == d.collapse(plans, logged[:, :3]).value
    with pytest.raises(UsageError, match="similar"):
        d.collapse(plans, logged[:, :2])


# -- T̂


@given(st.floats(0.01, 100), st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_the_ratio_of_errors_is_the_factor_between_them(factor: float, count: int) -> None:
    errors = randn(count).abs() + 0.1
    assert d.worse_model(errors, factor * errors).value == pytest.approx(factor, rel=1e-4)
    there, back = d.worse_model(errors, errors.flip(0) ** 2), d.worse_model(
        errors.flip(0) ** 2, errors
    )  # fmt: skip
    assert there.value * back.value == pytest.approx(1, rel=1e-4)


def test_errors_that_have_no_logarithm_are_refused() -> None:
    with pytest.raises(UsageError, match="final"):
        d.worse_model(torch.ones(3), torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(UsageError, match="final"):
        d.worse_model(torch.ones(3), torch.ones(2))


# -- the start


def test_the_distance_to_the_nearest_is_that_of_all_pairs() -> None:
    points, others = randn(150, 4), randn(70, 4, seed=1)
    brute = torch.stack([(others - p).norm(dim=-1).min() for p in points])
    torch.testing.assert_close(d.nearest_distance(points, others), brute, atol=1e-4, rtol=1e-4)


def test_a_start_on_a_lattice_is_as_many_spacings_away_as_it_is() -> None:
    lattice = torch.arange(10.0)[:, None]
    held = lattice[:-1] + 0.5  # half a spacing from the next logged state
    for away in (0.5, 2.0, 30.0):
        online = torch.full((4, 1), 9 + away)
        assert d.far_start(online, lattice, held).value == pytest.approx(away / 0.5)
    with pytest.raises(UsageError, match="held_out"):
        d.far_start(online, lattice, lattice[:3])


@given(st.floats(0.1, 10), st.integers(0, 1_000))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_states_does_not_matter(scale: float, seed: int) -> None:
    parts = [randn(n, 3, seed=seed + n) for n in (20, 40, 30)]
    value = d.far_start(*parts).value
    assert d.far_start(*(scale * x for x in parts)).value == pytest.approx(value, rel=1e-3)


# -- plans


def test_plans_drawn_as_the_data_are_plausible_and_noise_is_not() -> None:
    toy, unseen = toys.four_modes(obs_horizon=1), toys.four_modes(obs_horizon=1, size=64, seed=1)
    held = unseen.batch(torch.arange(64))
    similar = d.similar_sequences(held.past, toy, 32)
    dice = torch.Generator().manual_seed(2)
    modes = torch.randint(4, (64,), generator=dice)
    again = toy.sample(unseen.states, modes, dice)[None]
    assert d.implausible(again, held.actions, similar).value == pytest.approx(1, abs=0.15)
    assert d.implausible(again.flip(1), held.actions, similar).value > 1.5  # of other states
    assert d.implausible(randn(1, 64, 8, 2), held.actions, similar).value > 5


def test_similar_sequences_are_those_of_the_nearest_states() -> None:
    toy = toys.four_modes(obs_horizon=1, size=50)
    past = toy.past(torch.tensor([[0.1, 0.2], [-0.3, 0.0]]))
    found = d.similar_sequences(past, toy, 3)
    for row, place in zip(found, past[:, 0], strict=True):
        order = (toy.states - place).norm(dim=-1).argsort()[:3]
        assert torch.equal(row, toy.actions[order])
    with pytest.raises(UsageError, match="k"):
        d.similar_sequences(past, toy, 51)


def test_held_out_windows_and_the_others_are_all_and_share_no_episode() -> None:
    data = hand_made([6, 5, 6, 4], [1.0] * 4)
    windows = data.windows(1, 3)
    held, known = d.apart(windows, torch.arange(6, 11), count=2)  # the second episode's steps
    first, last = data.states[6], data.states[8]  # of its three windows the ends are drawn
    torch.testing.assert_close(held.past[:, 0], torch.stack([first, last]))
    assert len(known) == len(windows) - 3
    begun = windows.now[known.index]
    assert not ((begun >= 6) & (begun < 11)).any()
    rest = known.batch(torch.arange(len(known)))
    torch.testing.assert_close(rest.past[:, 0], data.states[begun])
    with pytest.raises(UsageError, match="held"):
        d.apart(windows, torch.tensor([99]))


# -- findings and thresholds


def test_a_finding_fires_above_its_threshold_only() -> None:
    for name, threshold in d.THRESHOLDS.items():
        assert not d.finding(name, threshold).fired and not d.finding(name, threshold).advice
        fired = d.finding(name, threshold * 1.001)
        assert fired.fired and fired.advice == d.ADVICE[name]
    with pytest.raises(UsageError, match="name"):
        d.finding("fatigue", 1.0)
    with pytest.raises(UsageError, match="value"):
        d.finding(d.COLLAPSE, math.nan)


def test_the_panel_is_a_row_a_finding() -> None:
    shown = d.panel([d.finding(name, 1e9) for name in d.SIGNATURES])
    assert list(shown.index) == list(d.SIGNATURES)
    assert shown["fired"].all() and (shown["value"] == d.MOST).all()


def test_a_threshold_is_the_geometric_middle_to_the_weakest_cause() -> None:
    assert d.calibrate([1, 2], [[3, 4.5, 1e9], [20, 30]]) == pytest.approx(3)
    assert d.calibrate([1, 2], [[1e6]]) == d.MARGIN * 2
    for healthy, provoked in (([1, 5], [[2, 4, 100], [900]]), ([], [[1]]), ([1], [[]])):
        with pytest.raises(UsageError):
            d.calibrate(healthy, provoked)


def test_the_frozen_thresholds_are_those_of_the_recorded_values() -> None:
    rows = d.recorded()
    assert {int(row["seed"]) for row in rows} == set(d.CALIBRATION_SEEDS)
    for name, value in d.calibrate_all(rows).items():
        assert d.THRESHOLDS[name] == float(f"{value:.3g}")
