from __future__ import annotations

import pytest
import torch
from diffusion_toys import randn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from uepo_lib import toys
from uepo_lib.errors import UsageError
from uepo_lib.subpolicies import SubPolicies

WEIGHTS = (0.4, 0.3, 0.2, 0.1)


def test_batches_have_the_shapes_of_windows_and_follow_the_dynamics() -> None:
    toy = toys.four_modes(size=64)
    past, actions, future = toy.batch(torch.arange(64))
    assert past.shape == (64, 2, 2) and actions.shape == (64, 8, 2) and future.shape == (64, 7, 2)
    state = past[:, -1]
    for t in range(7):
        state = toy.step(state, actions[:, t])
        torch.testing.assert_close(state, future[:, t])


def test_noise_free_walks_end_at_their_doors_and_stay_within_the_action_range() -> None:
    toy = toys.four_modes(size=256)
    states = toy.states
    means = toy.means(states).movedim(1, 0)  # (M, B, T, A)
    ends = toy.walk(states, means)[:, :, -1]
    torch.testing.assert_close(ends, toy.doors[:, None].expand_as(ends))
    assert toy.actions.abs().max() <= 1.0


def test_the_classifier_knows_every_logged_walk_and_the_data_is_in_support() -> None:
    for toy in (toys.four_modes(WEIGHTS), toys.two_modes()):
        assert torch.equal(toy.mode_of(toy.actions), toy.modes)
        assert toy.in_support(toy.actions, toy.states).all()
        assert float(toy.distance(toy.actions, toy.states).mean()) == pytest.approx(1.0, abs=0.05)


def test_shares_of_the_modes_are_the_weights() -> None:
    toy = toys.four_modes(WEIGHTS, size=20_000)
    shares = torch.bincount(toy.modes, minlength=4) / len(toy)
    torch.testing.assert_close(shares, torch.tensor(WEIGHTS), atol=0.01, rtol=0)


def test_the_exact_network_is_the_posterior_mean() -> None:
    """Against importance sampling from the data's own distribution."""
    toy = toys.four_modes(WEIGHTS, std=0.2, horizon=3)
    model = toys.exact_model(toy, clip=10.0)
    state, k = torch.tensor([[0.1, -0.2]]), torch.tensor([35])
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(toy.weights, 400_000, True, generator=generator)
    x0 = toy.sample(state.expand(len(draws), 2), draws, generator)
    x = model.schedule.add_noise(x0[:1], randn(1, 3, 2), k)
    gap = (x - model.schedule.alpha(k) * x0) / model.schedule.sigma(k)
    posterior = (-0.5 * gap.square().sum(dim=(1, 2))).softmax(dim=0)
    expected = (posterior[:, None, None] * x0).sum(dim=0)
    found = model.predict_x0(x, k, toy.past(state))[0]
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_all_prediction_types_sample_the_same() -> None:
    toy = toys.four_modes()
    states = toy.draw_states(8, torch.Generator().manual_seed(1))
    noise = randn(8, 8, 2)
    samples = [
        toys.exact_model(toy, prediction=p).sample(noise, toy.past(states))
        for p in ("x0", "epsilon", "v")
    ]
    for other in samples[1:]:
        torch.testing.assert_close(samples[0], other, atol=1e-3, rtol=0)


def test_exact_sampling_reaches_the_modes_with_their_weights() -> None:
    toy = toys.four_modes(WEIGHTS)
    policies = SubPolicies.from_seeds(toys.exact_model(toy), 4_000, 0, num_denoising_steps=50)
    state = torch.zeros(1, 2)
    actions = policies.plan_shared(toy.past(state))
    shares = torch.bincount(toy.mode_of(actions)[:, 0], minlength=4) / 4_000
    torch.testing.assert_close(shares, torch.tensor(WEIGHTS), atol=0.02, rtol=0)
    assert toy.in_support(actions, state).float().mean() > 0.99


def test_headings_are_the_logged_doors_and_none_between_them() -> None:
    toy = toys.four_modes(WEIGHTS)
    assert torch.equal(toy.headings(toy.actions, toy.states), toy.modes)
    still = torch.zeros(3, 8, 2)
    assert toy.headings(still, torch.zeros(3, 2)).tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    "bad", [{"std": 0.0}, {"horizon": 2}, {"weights": (1.0, 1.0)}, {"weights": (1.0, 0, 1.0, 1.0)}]
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        toys.four_modes(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_steps", [1, 5, 50])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_closed_form_of_the_output_sd_is_what_sampling_gives(
    num_steps: int, eta: float
) -> None:
    toy = toys.Doors([(1, 0)], std=0.2)
    model = toys.exact_model(toy, clip=100.0)
    past, generator = toy.past(torch.zeros(4_000, 2)), torch.Generator().manual_seed(1)
    actions = model.sample(randn(4_000, 8, 2), past, num_steps, eta=eta, generator=generator)
    found = float(actions.std(dim=0).mean())
    expected = toys.gaussian_output_sd(model, 0.2, num_steps, eta)
    assert found == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_the_log_density_is_that_of_the_mixture() -> None:
    toy = toys.four_modes(WEIGHTS, std=0.3, horizon=3, size=32)
    means = toy.means(toy.states).flatten(2)
    each = MultivariateNormal(means, 0.3**2 * torch.eye(6))
    expected = MixtureSameFamily(Categorical(toy.weights.expand(32, 4)), each)
    found = toy.log_prob(toy.actions, toy.states)
    torch.testing.assert_close(found, expected.log_prob(toy.actions.flatten(1)))
