"""The flow's likelihood against closed forms, against its own normalisation, against the bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusion_toys import check_golden, gaussian_model, randn, small_model
from torch import Tensor
from torch.distributions import Normal

from uepo_lib import toys
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, build_diffusion, train_diffusion
from uepo_lib.errors import UsageError
from uepo_lib.likelihood import estimation_errors, log_likelihood_bound
from uepo_lib.probability_flow import (
    REVISION,
    estimate_and_trace,
    flow_log_likelihood,
)

CLIP = 0.3
PAST = torch.zeros(48, 1, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posterior_variance(model: Any, std: float) -> Tensor:
    """e_k² of the exact network of N(μ, std²): (K,)."""
    k = torch.arange(model.config.num_train_steps)
    rho = (model.schedule.sigma(k) / model.schedule.alpha(k)).flatten()
    return 1 / (std**-2 + rho**-2)


@pytest.mark.parametrize("std", [0.1, 0.2])
@pytest.mark.parametrize("kind", ["x0", "epsilon", "v"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_gaussian_data_has_its_closed_form(std: float, kind: Any, schedule: Any) -> None:
    actions = 0.1 + std * randn(48, 4, 2, seed=11)
    exact = Normal(0.1, std).log_prob(actions).sum(dim=(1, 2))
    model = gaussian_model(0.1, std, prediction=kind, schedule=schedule, num_train_steps=100)
    errors = posterior_variance(model, std)
    found = flow_log_likelihood(model, actions, PAST, seeded(0), errors=errors)
    assert ((found - exact) / 8).mean().item() == pytest.approx(0, abs=0.02)
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.99


def test_the_error_falls_with_the_square_of_the_levels_distance() -> None:
    actions = 0.1 + 0.2 * randn(48, 4, 2, seed=11)
    exact = Normal(0.1, 0.2).log_prob(actions).sum(dim=(1, 2))

    def gap(steps: int) -> float:
        model = gaussian_model(0.1, 0.2, num_train_steps=steps)
        errors = posterior_variance(model, 0.2)
        found = flow_log_likelihood(model, actions, PAST, seeded(0), errors=errors, bin_width=1e-3)
        return float((found - exact).abs().mean())

    assert gap(160) < gap(40) / 4


def test_with_the_true_posterior_as_decoder_every_draw_says_the_same() -> None:
    """p(a | z) p(z) / q(z | a) is p(a), whatever z: dequantising adds no noise of its own."""
    actions = 0.1 + 0.2 * randn(48, 4, 2, seed=11)
    model = gaussian_model(0.1, 0.2, num_train_steps=200)
    errors = posterior_variance(model, 0.2)
    draws = torch.stack([
        flow_log_likelihood(model, actions, PAST, seeded(seed), errors=errors, bin_width=1e-3)
        for seed in range(4)
    ])  # fmt: skip
    assert draws.std(dim=0).max() < 0.05 < 0.2 * draws.mean(dim=0).std()


@pytest.mark.parametrize("weights", [None, (0.4, 0.3, 0.2, 0.1)])
def test_the_four_doors_have_their_closed_form(weights: Any) -> None:
    toy = toys.four_modes(weights, size=32)
    model = toys.exact_model(toy, num_train_steps=100)
    past = toy.past(toy.states)
    errors = posterior_variance(model, toy.std)
    found = flow_log_likelihood(model, toy.actions, past, seeded(0), errors=errors)
    gap = (found - toy.log_prob(toy.actions, toy.states)) / toy.actions[0].numel()
    assert gap.abs().max() < 0.03
    assert gap.mean().item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("backbone", ["unet_transformer", "unet", "mlp"])
def test_the_trace_is_that_of_the_jacobian(backbone: Any) -> None:
    net = DenoiserConfig(backbone, horizon=3, channels=(8, 16), d_model=16, hidden=(16,))
    model = build_diffusion(DiffusionConfig(clip=CLIP), net, 3, 2).eval()
    z, context = randn(2, 3, 2), model.encode(randn(2, 2, 3, seed=1))

    def flat(row: Tensor) -> Tensor:
        level = torch.tensor([20])
        x = model.schedule.alpha(level) * row.view(2, 3, 2)
        return model.predict_x0(x, level, context).flatten()

    x0, trace = estimate_and_trace(model, z, context, 20)
    full: Any = torch.autograd.functional.jacobian(flat, z.flatten())
    torch.testing.assert_close(x0.flatten(), flat(z.flatten()).detach())
    torch.testing.assert_close(trace, full.diagonal().view(2, 6).sum(dim=1), atol=1e-5, rtol=1e-4)
    assert (x0.abs() == CLIP).any() and (x0.abs() < CLIP).any()  # clamped and not: both are right
    assert trace.abs().max() > 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_flow_without_any_training_is_a_density(seed: int) -> None:
    """∫ p(a) da = 1 for a random network in one dimension: trace, step and decoder agree."""
    net = DenoiserConfig("mlp", horizon=1, obs_horizon=1, d_model=32, hidden=(64, 64))
    cfg = DiffusionConfig(num_train_steps=100, prediction="v")
    model = build_diffusion(cfg, net, 1, 1, seed).eval()
    width, errors, draws = 0.02, torch.full((100,), 0.05**2), 60
    grid = torch.linspace(-1, 1, 101).repeat(draws)[:, None, None]
    past = torch.zeros(len(grid), 1, 1)
    found = flow_log_likelihood(model, grid, past, seeded(0), errors=errors, bin_width=width)
    mass = found.exp().view(draws, -1).mean(dim=0) * width
    assert mass.sum().item() == pytest.approx(1, abs=0.08)
    assert mass.max() < 0.5  # of many bins


def test_a_trained_toy() -> None:
    """Closed form ≥ flow ≥ DDPM's bound. The calibrated bound is that of a stochastic chain, a
    slightly other model than the flow where the network is not exact: the two are close."""
    toy = toys.two_modes(std=0.1, horizon=3, obs_horizon=1)
    net = DenoiserConfig("mlp", horizon=3, obs_horizon=1, d_model=32, hidden=(64, 64))
    cfg = DiffusionConfig(
        prediction="v", num_updates=700, batch_size=128, lr=3e-3, warmup=50, ema_decay=0.98
    )
    model = train_diffusion(cfg, net, toy, 0, progress=False)
    new = toys.two_modes(std=0.1, horizon=3, obs_horizon=1, size=100, seed=1)
    actions, past = new.actions, new.past(new.states)
    known = toy.batch(torch.arange(2048))
    errors = estimation_errors(model, known.actions, known.past, seeded(9))
    flow = flow_log_likelihood(model, actions, past, seeded(0), errors=errors, num_draws=2)
    ddpm, calibrated = (
        torch.stack([
            log_likelihood_bound(model, actions, past, seeded(seed), errors=chosen)
            for seed in range(4)
        ]).mean(dim=0)
        for chosen in (None, errors)
    )  # fmt: skip
    exact = new.log_prob(actions, new.states)
    sampling = 2 * float((flow - exact).std()) / 10  # two standard errors
    assert ddpm.mean() < flow.mean() < exact.mean() + sampling
    assert (exact - flow).mean().item() / 6 == pytest.approx(0, abs=0.15)
    assert (calibrated - flow).mean().item() / 6 == pytest.approx(0, abs=0.05)
    assert torch.corrcoef(torch.stack([flow, exact]))[0, 1] > 0.85


def test_future_states_count_and_draws_must_be_positive() -> None:
    model, actions = small_model(), torch.tanh(randn(3, 8, 2))
    past, future = randn(3, 2, 3, seed=1), randn(3, 7, 3, seed=2)
    errors = torch.full((50,), 0.1)

    def score(condition: Any, **more: Any) -> Tensor:
        return flow_log_likelihood(model, actions, condition, seeded(0), errors=errors, **more)

    assert score(past).shape == (3,)
    assert torch.equal(score(past), score(model.encode(past)))
    assert not torch.allclose(score(past), score(model.encode(past, future)), atol=1e-4)
    with pytest.raises(UsageError, match="num_draws=0"):
        score(past, num_draws=0)


def test_golden() -> None:
    model, actions, past = small_model(), torch.tanh(randn(4, 8, 2)), randn(4, 2, 3, seed=1)
    errors = torch.full((50,), 0.1)
    found = flow_log_likelihood(model, actions, past, seeded(0), errors=errors, num_draws=2)
    check_golden("probability_flow", {"log_likelihood": found}, REVISION, atol=1e-2)
