from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden, gaussian_model, randn, small_model
from torch import Tensor
from torch.distributions import Normal

from uepo_lib.errors import UsageError
from uepo_lib.likelihood import (
    REVISION,
    estimation_errors,
    log_decoder,
    log_likelihood_bound,
)

PAST = torch.zeros(2000, 1, 1)


def data(std: float) -> tuple[Tensor, Tensor]:
    """A = 2, T = 4 sequences of N(0.1, std²), and their exact log-density."""
    actions = 0.1 + std * randn(2000, 4, 2, seed=11)
    return actions, Normal(0.1, std).log_prob(actions).sum(dim=(1, 2))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("std", [0.1, 0.2])
@pytest.mark.parametrize("kind", ["x0", "epsilon", "v"])
def test_calibrated_bound_is_exact_for_gaussian_data(std: float, kind: Any) -> None:
    actions, exact = data(std)
    model = gaussian_model(0.1, std, prediction=kind)
    errors = estimation_errors(model, actions, PAST, seeded(99))
    assert errors.shape == (50,)
    draws = [
        log_likelihood_bound(model, actions, PAST, seeded(seed), errors=errors)
        for seed in range(100, 120)
    ]
    found = torch.stack(draws).mean(dim=0)
    assert found.mean().item() == pytest.approx(exact.mean().item(), abs=0.1)
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.9  # it ranks sequences as well


def test_ddpm_bound_lies_below_and_tightens_with_more_steps() -> None:
    actions, exact = data(0.2)
    coarse, fine = (
        log_likelihood_bound(
            gaussian_model(0.1, 0.2, num_train_steps=steps), actions, PAST, seeded(0)
        ).mean()
        for steps in (50, 500)
    )
    assert coarse + 1 < fine < exact.mean()


def test_sampled_terms_are_unbiased() -> None:
    actions, _ = data(0.3)
    model = gaussian_model(0.1, 0.3)

    def mean_bound(seed: int, num_terms: int | None) -> float:
        found = log_likelihood_bound(model, actions, PAST, seeded(seed), num_terms=num_terms)
        return found.mean().item()

    some = torch.tensor([mean_bound(seed, 10) for seed in range(60)])
    error = some.std().item() / math.sqrt(len(some))
    assert some.mean().item() == pytest.approx(mean_bound(0, None), abs=4 * error)


def test_common_random_numbers() -> None:
    model, actions, past = small_model(), torch.tanh(randn(6, 8, 2)), randn(6, 2, 3, seed=1)

    def score(seed: int) -> Tensor:
        return log_likelihood_bound(model, actions, past, seeded(seed))

    assert score(0).shape == (6,)
    assert torch.equal(score(0), score(0))
    assert not torch.equal(score(0), score(1))


def test_decoder_is_a_density_over_the_box() -> None:
    """Bin masses add up to 1, the end bins included, wherever the mean is."""
    width = 0.01
    centres = torch.linspace(-1, 1, 201)[:, None, None]
    for mean in (-1.2, -1.0, 0.0, 0.7):
        log_density = log_decoder(centres, torch.tensor(mean), torch.full((1, 1, 1), 0.05), width)
        assert log_density.exp().mul(width).sum().item() == pytest.approx(1, abs=1e-4)


def test_decoder_is_gaussian_inside_and_finite_far_away() -> None:
    x0 = torch.linspace(-0.9, 0.9, 50)[:, None, None]
    std = torch.full((1, 1, 1), 0.3)
    expected = Normal(0.0, 0.3).log_prob(x0).flatten()
    found = log_decoder(x0, torch.zeros(()), std, 2 / 255)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    for far in (-0.99, 0.99):
        value = log_decoder(torch.full((1, 1, 1), far), torch.tensor(-far), std / 10, 2 / 255)
        assert value.isfinite().all()
        assert value.item() < -1000


def test_bad_number_of_terms() -> None:
    with pytest.raises(UsageError, match="num_terms=50"):
        log_likelihood_bound(gaussian_model(0.1, 0.3), data(0.3)[0], PAST, seeded(0), num_terms=50)


def test_golden() -> None:
    model, actions, past = small_model(), torch.tanh(randn(6, 8, 2)), randn(6, 2, 3, seed=1)
    found = log_likelihood_bound(model, actions, past, seeded(0))
    check_golden("likelihood", {"bound": found}, REVISION, atol=1e-2)
