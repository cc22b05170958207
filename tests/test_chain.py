from __future__ import annotations

import copy

import pytest
import torch
from diffusion_toys import randn, small_model
from torch import Tensor
from torch.distributions import Normal

from uepo_lib import denoisers
from uepo_lib.chain import ChainActor
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.errors import UsageError
from uepo_lib.finetuning import policy_kl
from uepo_lib.ppo import clipped_objective
from uepo_lib.shift import displacement_in_sigmas, executed_actions
from uepo_lib.subpolicies import SubPolicies

STEPS, SIGMA, EXECUTED = 4, 0.2, 3
"""Any will do: the algebra does not depend on them."""


def model() -> DiffusionModel:
    """Untrained, but with a last layer large enough that its input matters."""
    made = small_model()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * randn(*parameter.shape, seed=parameter.numel()))
    return made


def sub_policies(n: int = 3) -> SubPolicies:
    return SubPolicies.from_seeds(
        model(), n, 0, 0.7, action_horizon=EXECUTED, num_denoising_steps=STEPS
    )


def actor(num_levels: int = 2, sigma: float = SIGMA) -> ChainActor:
    return ChainActor(sub_policies().select(1), sigma, num_levels)


def states(batch: int = 5) -> Tensor:
    return randn(batch, 2, 3, seed=20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_levels", range(1, STEPS + 1))
@pytest.mark.parametrize("batch", [1, 5])
def test_noise_free_actions_are_the_sub_policys_bit_for_bit(num_levels: int, batch: int) -> None:
    chosen = sub_policies().select(1)
    switched = ChainActor(chosen, SIGMA, num_levels)
    past = states(batch).unsqueeze(0)
    assert torch.equal(switched.act(past), chosen.act(past))
    assert (switched.n, switched.obs_horizon, switched.action_horizon) == (1, 2, EXECUTED)


def test_fine_tuning_copies_the_model() -> None:
    chosen = sub_policies().select(0)
    before = copy.deepcopy(chosen.model.state_dict())
    switched = ChainActor(chosen, SIGMA, 2)
    with torch.no_grad():
        for parameter in switched.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(v, before[k]) for k, v in chosen.model.state_dict().items())
    frozen = switched.frozen.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in frozen.items())


def test_saved_and_loaded_it_acts_alike() -> None:
    first, second = actor(), ChainActor(sub_policies().select(2), SIGMA, 2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.act(states().unsqueeze(0)), second.act(states().unsqueeze(0)))


# ---- the path ------------------------------------------------------------------------------------


def test_only_the_trained_steps_explore() -> None:
    """Before them the frozen chain runs; the path begins where it ends."""
    made, past = actor(2), states()
    _, path = made.sample_path(past, generator())
    assert path.shape == (5, 3, 8, 2)
    x, context = made.noise.expand(5, -1, -1), made.frozen.encode(past)
    for step in range(STEPS - 2):
        x = made.frozen.chain_mean(x, context, step, STEPS)
    torch.testing.assert_close(path[:, 0], x)


def test_exploration_is_gaussian_around_the_chains_mean() -> None:
    made, past = actor(1, 0.3), states(1).expand(5_000, -1, -1)
    _, path = made.sample_path(past, generator())
    with torch.no_grad():
        mean = made.model.chain_mean(path[:1, 0], past[:1], STEPS - 1, STEPS)
    residual = path[:, 1] - mean
    assert residual.mean(0).abs().max() < 5 * 0.3 / 5_000**0.5
    torch.testing.assert_close(residual.std(0), torch.full((8, 2), 0.3), rtol=0.03, atol=0)


@pytest.mark.parametrize("num_levels", [1, 2, STEPS])
def test_log_prob_level_by_level_is_torchs(num_levels: int) -> None:
    made, past = actor(num_levels), states()
    actions, path = made.sample_path(past, generator())
    assert torch.equal(actions, path[:, -1, :EXECUTED])
    found = made.path_log_prob(past, path)
    assert found.shape == (5, num_levels)
    for level in range(num_levels):
        step = STEPS - num_levels + level
        mean = made.model.chain_mean(path[:, level], past, step, STEPS)
        terms = Normal(mean, SIGMA).log_prob(path[:, level + 1])
        if level == num_levels - 1:
            terms = terms[:, :EXECUTED]
        torch.testing.assert_close(found[:, level], terms.sum((1, 2)), rtol=1e-4, atol=1e-3)


def test_actions_that_are_not_executed_do_not_count() -> None:
    made, past = actor(), states()
    _, path = made.sample_path(past, generator())
    other = path.clone()
    other[:, -1, EXECUTED:] += 5.0
    assert torch.equal(made.path_log_prob(past, other), made.path_log_prob(past, path))
    other = path.clone()
    other[:, -1, EXECUTED - 1] += 5.0
    changed = made.path_log_prob(past, other) != made.path_log_prob(past, path)
    assert changed.tolist() == [[False, True]] * 5
    other = path.clone()
    other[:, 1, EXECUTED:] += 5.0  # but half-way they matter to what is executed
    assert (made.path_log_prob(past, other) != made.path_log_prob(past, path)).all()


def test_entropy_of_a_fixed_sigma_gives_no_gradient() -> None:
    entropy = actor().entropy(states())
    assert entropy.shape == (5,)
    assert not entropy.any()
    assert not entropy.requires_grad


# ---- learning ------------------------------------------------------------------------------------


def test_gradients_reach_the_trained_model_and_nothing_else() -> None:
    made, past = actor(), states()
    _, path = made.sample_path(past, generator())
    assert not path.requires_grad
    made.path_log_prob(past, path).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in made.frozen.parameters())
    used = [p.grad is not None and bool(p.grad.any()) for p in made.model.parameters()]
    assert sum(used) > 0.8 * len(used)
    assert made.noise.grad is None
    assert {"frozen", "model"} == {name.split(".")[0] for name, _ in made.named_parameters()}


def test_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    single = denoisers.step_embedding
    monkeypatch.setattr(denoisers, "step_embedding", lambda k, size: single(k, size).double())
    made = actor().double()
    past = states().double()
    made.noise = made.noise.double()
    path = made._path(past, None)
    stacked = torch.stack(path, 1)
    stacked[:, 1:] += 0.05 * randn(*stacked[:, 1:].shape, seed=3).double()
    parameter = max(made.model.parameters(), key=torch.numel)
    direction = randn(*parameter.shape, seed=4).double()
    made.path_log_prob(past, stacked).sum().backward()
    assert parameter.grad is not None
    slope, eps = float((parameter.grad * direction).sum()), 1e-6
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.add_(sign * eps * direction)
            values.append(float(made.path_log_prob(past, stacked).sum()))
            parameter.sub_(sign * eps * direction)
    assert slope == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-3, abs=1e-3)


def test_the_first_update_leaves_the_old_policy_by_a_bounded_kl() -> None:
    """One step at a usual rate: below 0.05 nats a decision, and in the direction asked for."""
    made, past = actor(), states(64)
    old = copy.deepcopy(made)
    explored = executed_actions(old, past, 16, generator(2))
    actions, path = made.sample_path(past, generator())
    log_prob = made.path_log_prob(past, path)
    torch.testing.assert_close(log_prob, old.path_log_prob(past, path))
    assert policy_kl(old, made, past, generator(1)) == 0
    assert displacement_in_sigmas(old, made, past, explored).max() == 0
    advantage = actions[:, 0, :1] - actions[:, 0, :1].mean()  # "a larger first action, please"
    optimiser = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=1e-5)
    (-clipped_objective(log_prob, log_prob.detach(), advantage, 0.2)).backward()
    optimiser.step()
    with torch.no_grad():
        log_ratio = (made.path_log_prob(past, path) - log_prob).sum(-1)
    kl = float((log_ratio.exp() - 1 - log_ratio).mean())  # never negative, and less noisy
    assert 0 < kl < 0.05
    assert policy_kl(old, made, past, generator()) == pytest.approx(kl, rel=0.5)
    assert 0 < displacement_in_sigmas(old, made, past, explored).mean() < 0.25
    mean_change = (made.act(past[None]) - old.act(past[None]))[0, :, 0, 0].mean()
    assert mean_change > 0


def test_policy_kl_is_the_closed_form_for_one_level() -> None:
    """KL of two Gaussians of one σ: |μ − μ'|² / 2σ², over the executed actions."""
    old = actor(1, 0.5)
    new = copy.deepcopy(old)
    with torch.no_grad():
        for parameter in new.model.parameters():
            parameter.mul_(1.1)
    past = states(1)
    mean = old.act(past[None]), new.act(past[None])
    expected = float((mean[0] - mean[1]).square().sum() / (2 * 0.5**2))
    assert expected > 1e-4
    assert policy_kl(old, new, past, generator()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("levels", [1, 2])
def test_policy_kl_is_the_mean_log_ratio(levels: int) -> None:
    """Over paths of the old policy, all levels together."""
    old = actor(levels, 0.5)
    new = copy.deepcopy(old)
    with torch.no_grad():
        for parameter in new.model.parameters():
            parameter.mul_(1.1)
    past = states(1).expand(20_000, -1, -1)
    _, path = old.sample_path(past, generator())
    with torch.no_grad():
        ratios = (old.path_log_prob(past, path) - new.path_log_prob(past, path)).sum(-1)
    found = policy_kl(old, new, past, generator(1))
    assert found > 1e-3
    error = float(ratios.std()) / len(past) ** 0.5
    assert found == pytest.approx(float(ratios.mean()), abs=5 * error)


def test_fresh_noise_explores_from_new_starts_and_acts_from_the_centre() -> None:
    """With σ → 0 what it explores is the sub-policy of fresh noise; noise-free it is κ = 0."""
    kappa = 0.7
    fresh = SubPolicies.from_seeds(
        model(), 1, 0, kappa, action_horizon=EXECUTED, num_denoising_steps=STEPS, fresh_noise=True
    )
    made, past = ChainActor(fresh, 1e-9, 2), states(6)
    zero = SubPolicies.zero_noise(model(), action_horizon=EXECUTED, num_denoising_steps=STEPS)
    assert torch.equal(made.act(past[None]), zero.act(past[None]))
    actions, path = made.sample_path(past, generator(3))
    expected = fresh.act(past[None], generator(3))[0]
    torch.testing.assert_close(actions.clamp(-1, 1), expected, atol=1e-6, rtol=0)
    again, _ = made.sample_path(past, generator(4))
    assert (actions - again).abs().amax((1, 2)).min() > 1e-4  # new starts at every decision
    assert path.shape == (6, 3, *made.model.action_shape)


# ---- what is refused -----------------------------------------------------------------------------


def test_bad_arguments_are_refused_by_name() -> None:
    one = sub_policies().select(0)
    for arguments, name in (
        ((sub_policies(), SIGMA, 2), "sub_policy"),
        ((one, 0.0, 2), "sigma"),
        ((one, SIGMA, 0), "num_levels"),
        ((one, SIGMA, STEPS + 1), "num_levels"),
    ):
        with pytest.raises(UsageError, match=name) as caught:
            ChainActor(*arguments)
        assert "\n" not in str(caught.value)
