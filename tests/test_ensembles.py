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
