from __future__ import annotations

import copy

import pytest
import torch
from diffusion_toys import check_golden, randn
from test_chain import EXECUTED, STEPS, generator, model, states, sub_policies
from torch import Tensor
from torch.distributions import Normal

from uepo_lib import noise_steering
from uepo_lib.errors import UsageError
from uepo_lib.finetuning import policy_kl
from uepo_lib.noise_steering import NoiseActor, SteeringConfig
from uepo_lib.ppo import clipped_objective
from uepo_lib.shift import displacement_in_sigmas, executed_actions
from uepo_lib.subpolicies import SubPolicies

SIGMA = 0.4


def actor(sigma: float = SIGMA, moved: bool = False) -> NoiseActor:
    """``moved``: with an f_φ that is no longer zero."""
    made = NoiseActor(sub_policies().select(1), SteeringConfig(hidden=(16,), sigma=sigma))
    if moved:
        with torch.no_grad():
            last = made.shift[-1].weight
            last.copy_(0.3 * randn(*last.shape, seed=9))
    return made


# ---- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5])
def test_noise_free_actions_are_the_sub_policys_bit_for_bit(batch: int) -> None:
    chosen = sub_policies().select(1)
    switched, past = NoiseActor(chosen), states(batch).unsqueeze(0)
    assert torch.equal(switched.act(past), chosen.act(past))
    assert (switched.n, switched.obs_horizon, switched.action_horizon) == (1, 2, EXECUTED)


def test_it_starts_from_zero_noise_as_well() -> None:
    zero = SubPolicies.zero_noise(model(), action_horizon=EXECUTED, num_denoising_steps=STEPS)
    switched, past = NoiseActor(zero), states()
    assert torch.equal(switched.act(past[None]), zero.act(past[None]))
    assert not switched.start.any()
    _, path = switched.sample_path(past, generator())
    switched.path_log_prob(past, path).sum().backward()
    assert switched.shift[-1].weight.grad.any()  # type: ignore[union-attr]


def test_exploring_without_a_shift_is_the_sub_policy_of_fresh_noise() -> None:
    """σ_w = 1 around 0 draws what fresh noise at κ = 1 draws."""
    zero = SubPolicies.zero_noise(model(), action_horizon=EXECUTED, num_denoising_steps=STEPS)
    fresh = SubPolicies.from_seeds(
        model(), 1, 0, action_horizon=EXECUTED, num_denoising_steps=STEPS, fresh_noise=True
    )
    made, past = NoiseActor(zero, SteeringConfig(sigma=1.0)), states()
    expected = fresh.act(past[None], generator(3))
    assert torch.equal(made.act(past[None], generator(3)), expected)


def test_saved_and_loaded_it_acts_alike() -> None:
    first, second = actor(moved=True), NoiseActor(sub_policies().select(2), actor().config, seed=4)
    second.load_state_dict(first.state_dict())
    past = states().unsqueeze(0)
    assert torch.equal(first.act(past), second.act(past))


# ---- the path ------------------------------------------------------------------------------------


def test_log_prob_is_the_closed_form() -> None:
    made, past = actor(moved=True), states()
    actions, path = made.sample_path(past, generator())
    assert path.shape == (5, *made.model.action_shape)
    assert torch.equal(actions, made.model.sample(path, past, STEPS)[:, :EXECUTED])
    mean = made.start + made.shift(past.flatten(1)).view(path.shape)
    expected = Normal(mean, SIGMA).log_prob(path).sum((1, 2))
    found = made.path_log_prob(past, path)
    assert found.shape == (5, 1)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-5, atol=1e-4)


def test_exploration_is_gaussian_around_the_shifted_start() -> None:
    made, past = actor(moved=True), states(1).expand(5_000, -1, -1)
    _, path = made.sample_path(past, generator())
    with torch.no_grad():
        residual = path - made(past[:1])[0]
    assert residual.mean(0).abs().max() < 5 * SIGMA / 5_000**0.5
    torch.testing.assert_close(
        residual.std(0), torch.full(residual.shape[1:], SIGMA), rtol=0.05, atol=0
    )


def test_kl_is_the_closed_form_and_the_mean_log_ratio() -> None:
    """|f − f'|² / 2σ_w², over all T·A numbers."""
    old, new = actor(), actor(moved=True)
    past = states(1)
    with torch.no_grad():
        gap = new.shift(past.flatten(1)) - old.shift(past.flatten(1))
    expected = float(gap.square().sum() / (2 * SIGMA**2))
    assert expected > 1e-3
    assert policy_kl(old, new, past, generator()) == pytest.approx(expected, rel=1e-4)
    many = past.expand(20_000, -1, -1)
    _, path = old.sample_path(many, generator(1))
    with torch.no_grad():
        ratios = (old.path_log_prob(many, path) - new.path_log_prob(many, path))[:, 0]
    error = float(ratios.std()) / len(many) ** 0.5
    assert float(ratios.mean()) == pytest.approx(expected, abs=5 * error)


# ---- learning ------------------------------------------------------------------------------------


def test_gradients_reach_the_shift_and_nothing_else() -> None:
    made, past = actor(moved=True), states()
    _, path = made.sample_path(past, generator())
    assert not path.requires_grad
    made.path_log_prob(past, path).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.shift.parameters())
    assert all(p.grad is None and not p.requires_grad for p in made.model.parameters())
    trained = {name.split(".")[0] for name, p in made.named_parameters() if p.requires_grad}
    assert trained == {"shift"}


def test_an_update_moves_the_actions_and_leaves_the_chain() -> None:
    made, past = actor(), states(64)
    old, chain = copy.deepcopy(made), copy.deepcopy(made.model.state_dict())
    explored = executed_actions(old, past, 8, generator(2))
    assert displacement_in_sigmas(old, made, past, explored).max() == 0
    optimiser = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for seed in range(20):
        actions, path = made.sample_path(past, generator(seed))
        before = made.path_log_prob(past, path).detach()
        wish = actions[:, 0, :1] - actions[:, 0, :1].mean()  # "a larger first action, please"
        optimiser.zero_grad()
        (-clipped_objective(made.path_log_prob(past, path), before, wish, 0.2)).backward()
        optimiser.step()
    assert (made.act(past[None]) - old.act(past[None]))[0, :, 0, 0].mean() > 0
    assert all(torch.equal(v, chain[k]) for k, v in made.model.state_dict().items())


def test_entropy_of_a_fixed_sigma_gives_no_gradient() -> None:
    entropy = actor().entropy(states())
    assert entropy.shape == (5,) and not entropy.any() and not entropy.requires_grad


# ---- what is refused -----------------------------------------------------------------------------


def test_bad_arguments_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="sub_policy"):
        NoiseActor(sub_policies())
    fresh = SubPolicies.from_seeds(model(), 1, 0, action_horizon=EXECUTED, fresh_noise=True)
    with pytest.raises(UsageError, match="fresh noise"):
        NoiseActor(fresh)
    for name, value in (("hidden", ()), ("sigma", 0.0), ("activation", "step")):
        with pytest.raises(UsageError, match=name):
            SteeringConfig(**{name: value})


def test_golden() -> None:
    made, past = actor(moved=True), states(3)
    found: dict[str, Tensor] = {"act": made.act(past[None]).clone()}
    found["explored"], path = made.sample_path(past, generator())
    found["log_prob"] = made.path_log_prob(past, path).detach()
    check_golden("noise_steering", found, noise_steering.REVISION, atol=1e-3)
