from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uepo_lib import coverage as cov
from uepo_lib import toys
from uepo_lib.errors import UsageError

UNEVEN = (0.4, 0.3, 0.2, 0.1)


def all_draws(n: int, shares: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Every outcome of n independent draws as a column, and its probability: the exact oracle."""
    draws = torch.tensor(list(itertools.product(range(len(shares)), repeat=n))).T
    return draws, torch.tensor(shares, dtype=torch.float64)[draws].prod(dim=0)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("shares", [(0.25,) * 4, UNEVEN, (0.5, 0.5)])
def test_nulls_are_the_expectation_over_all_draws(n: int, shares: tuple[float, ...]) -> None:
    draws, probability = all_draws(n, shares)
    size = len(shares)
    found = {
        f: sum(p * f(draws[:, b : b + 1], size) for b, p in enumerate(probability.tolist()))
        for f in (cov.coverage, cov.mode_entropy)
    }
    assert cov.null_coverage(n, shares) == pytest.approx(found[cov.coverage])
    assert cov.null_entropy(n, shares) == pytest.approx(found[cov.mode_entropy])


def test_the_null_of_four_equal_modes_is_the_papers_formula() -> None:
    for n in (1, 2, 4, 8, 16):
        assert cov.null_coverage(n) == pytest.approx(4 * (1 - 0.75**n))
        assert cov.null_coverage(n) == pytest.approx(cov.null_coverage(n, (0.25,) * 4))
    assert toys.null_coverage(3) == cov.null_coverage(3)


def test_by_hand() -> None:
    modes = torch.tensor([[0, 0, -1], [0, 1, -1], [2, 1, -1], [2, -1, 3]])  # (n=4, B=3)
    assert cov.counts(modes, 4).tolist() == [[2, 0, 2, 0], [1, 2, 0, 0], [0, 0, 0, 1]]
    assert cov.coverage(modes) == pytest.approx((2 + 2 + 1) / 3)
    thirds = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert cov.mode_entropy(modes) == pytest.approx((math.log(2) + thirds) / 3 / math.log(4))
    # pairs of states, both in a mode, in which each sub-policy agrees with itself:
    # 1 of 1, 0 of 1, 0 of 1, 0 of 1
    assert cov.persistence(modes) == pytest.approx(1 / 4)
    after = torch.tensor([[0, 1, 2], [0, 1, 1], [2, 1, 1], [0, 0, 0]])
    assert cov.kept(modes, after) == pytest.approx(5 / 8)
    assert math.isnan(cov.kept(torch.full((2, 2), -1), torch.zeros(2, 2, dtype=torch.long)))


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(2, 9))
def test_bounds_and_symmetries(seed: int, n: int, states: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    modes = torch.randint(-1, 4, (n, states), generator=generator)
    reached = cov.coverage(modes)
    assert 0 <= reached <= min(n, 4)
    assert -1e-9 <= cov.mode_entropy(modes) <= math.log(min(n, 4)) / math.log(4) + 1e-9
    assert cov.coverage(torch.cat([modes, modes])) == reached  # copies add nothing
    assert cov.mode_entropy(torch.cat([modes, modes])) == pytest.approx(cov.mode_entropy(modes))
    renamed = torch.where(modes >= 0, (modes + 1) % 4, modes)
    for measure in (cov.coverage, cov.mode_entropy, cov.persistence):
        assert measure(renamed) == pytest.approx(measure(modes), nan_ok=True)


def test_persistence_of_constant_and_of_independent_policies() -> None:
    fixed = torch.randint(4, (50, 1), generator=torch.Generator().manual_seed(0)).expand(-1, 30)
    assert cov.persistence(fixed) == cov.kept(fixed, fixed) == 1
    shares = torch.tensor(UNEVEN)
    draws = torch.multinomial(
        shares, 60_000, True, generator=torch.Generator().manual_seed(0)
    ).view(2, 300, 100)
    expected = cov.null_persistence(UNEVEN)
    assert expected == pytest.approx(0.3)
    assert cov.persistence(draws[0]) == pytest.approx(expected, abs=0.01)
    assert cov.kept(draws[0], draws[1]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("arriving", [1.0, 0.5, 0.2])
def test_persistence_does_not_depend_on_how_often_a_mode_is_reached(arriving: float) -> None:
    generator = torch.Generator().manual_seed(0)
    arrived = torch.rand(200, 60, generator=generator) < arriving
    keeping = torch.arange(200)[:, None].remainder(4).expand(-1, 60)
    drawing = torch.randint(4, (200, 60), generator=generator)
    assert cov.persistence(torch.where(arrived, keeping, cov.NO_MODE)) == 1
    found = cov.persistence(torch.where(arrived, drawing, cov.NO_MODE))
    assert found == pytest.approx(cov.null_persistence(), abs=0.02)


def test_persistence_leaves_out_who_has_no_two_states_to_compare() -> None:
    modes = torch.tensor([[2, 2, -1, 2], [1, -1, -1, -1], [-1, -1, -1, -1]])
    assert cov.persistence(modes) == 1
    assert math.isnan(cov.persistence(modes[1:]))


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="modes"):
        cov.coverage(torch.tensor([[4]]))
    with pytest.raises(UsageError, match=r"\(n, B\)"):
        cov.coverage(torch.zeros(3, dtype=torch.long))
    with pytest.raises(UsageError, match="B=1"):
        cov.persistence(torch.zeros(3, 1, dtype=torch.long))
    with pytest.raises(UsageError, match="sum to 1"):
        cov.null_coverage(2, (0.5, 0.6))
    with pytest.raises(UsageError, match="after"):
        cov.kept(torch.zeros(2, 2), torch.zeros(2, 3))
