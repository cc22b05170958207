from __future__ import annotations

import pytest
import torch

from uepo_lib.ensembles import best_of_n, between_sd
from uepo_lib.errors import UsageError


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_between_sd_recovers_the_spread_of_the_true_means() -> None:
    generator = _generator()
    means = 3.0 * torch.randn(2_000, 1, generator=generator)
    returns = means + 5.0 * torch.randn(2_000, 10, generator=generator)
    assert between_sd(returns) == pytest.approx(3.0, rel=0.05)


def test_equal_members_have_almost_no_spread_though_their_means_differ() -> None:
    returns = torch.randn(2_000, 10, generator=_generator())
    assert between_sd(returns) < 0.08 < float(returns.mean(1).std())


def test_luck_that_all_members_share_hides_no_difference() -> None:
    """Resets are worth ± 10 to all members alike: member means keep their spread, which a one-way
    estimator, that takes the resets for chance within a member, would call nothing."""
    generator = _generator()
    resets = 10.0 * torch.randn(200, 1, 20, generator=generator)
    means = torch.linspace(-1.5, 1.5, 10)[:, None]
    for noise in (0.0, 1.0):
        sets = means + resets + noise * torch.randn(200, 10, 20, generator=generator)
        found = torch.tensor([between_sd(one) for one in sets])
        assert found.mean() == pytest.approx(float(means.std()), rel=0.03)
        one_way = sets.mean(2).var(1) - sets.var(2).mean(1) / 20
        assert (one_way.clamp(min=0) == 0).float().mean() > 0.95


def test_equal_members_that_share_resets_have_no_spread() -> None:
    generator = _generator()
    sets = 10.0 * torch.randn(200, 1, 20, generator=generator) + torch.randn(
        200, 10, 20, generator=generator
    )
    assert sum(between_sd(one) for one in sets) / 200 < 0.12


def test_what_resets_are_worth_to_each_member_alone_is_chance() -> None:
    """An interaction of members and resets averages out over resets, and is no true mean's."""
    generator = _generator()
    returns = 3.0 * torch.randn(500, 1, generator=generator)
    returns = returns + 5.0 * torch.randn(500, 10, generator=generator)
    assert between_sd(returns + 100 * torch.arange(10.0)) == pytest.approx(3.0, rel=0.1)


def test_the_choice_among_equals_looks_good_only_on_its_own_episodes() -> None:
    found = best_of_n(torch.randn(8, 1_000, generator=_generator()), _generator())
    assert found.chosen > 0.03
    assert found.fresh == pytest.approx(0.0, abs=0.04)


def test_a_truly_better_member_is_found_and_stays_better() -> None:
    returns = torch.zeros(4, 6)
    returns[2] = 1.0
    assert best_of_n(returns, _generator()) == (1.0, 1.0)


@pytest.mark.parametrize("shape", [(4,), (1, 5), (5, 1)])
def test_too_few_returns_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        between_sd(torch.zeros(shape))
