from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden, randn, random_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import MemoryRecorder
from torch import Tensor
from torch.distributions import Normal

from uepo_lib import diversity as dy
from uepo_lib import policies
from uepo_lib.cloning import CloneConfig, train_clone
from uepo_lib.diversity import EnsembleConfig, GaussianEnsemble, train_ensemble
from uepo_lib.errors import UsageError
from uepo_lib.figures.diversity import adam_table, doors_reached, js_of_two, objective_table
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.toys import two_modes
from uepo_lib.training import fit

SMALL = GaussianConfig(3, 2, obs_horizon=2, action_horizon=4, hidden=(16,))
FREE = dataclasses.replace(SMALL, state_dependent_std=False, initial_log_std=-0.7)
QUICK = EnsembleConfig(num_members=3, num_updates=40, batch_size=64, learning_rate=1e-2)
WINDOWS = random_windows(300, 3, 8, 2)


def ensemble(n: int = 3, config: GaussianConfig = SMALL) -> GaussianEnsemble:
    """In float64, with weights far from their tiny start, so that states and members matter."""
    made = GaussianEnsemble(config, n).double()
    with torch.no_grad():
        made.body[-1].weight.mul_(50)
    return made


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- the three forms -----------------------------------------------------------------------------


def test_terms_by_hand() -> None:
    log_probs = torch.tensor([[0.0, -3.0], [-1.0, -2.0], [-5.0, -2.5]])
    assert dy.best_of_others(log_probs).tolist() == [[-1.0, -2.0], [0.0, -2.5], [0.0, -2.0]]
    assert dy.shipped_term(log_probs).tolist() == [[1.0, -1.0], [-1.0, 0.5], [-5.0, -0.5]]
    assert dy.printed_term(log_probs).tolist() == [[0.0, -1.0], [-1.0, 0.0], [-5.0, -0.5]]
    own, of_all = torch.tensor(0.0), torch.tensor([0.0, math.log(0.2), math.log(0.3)])
    assert float(dy.separating_term(own, of_all)) == pytest.approx(-math.log(0.5))
    with pytest.raises(UsageError, match="n=1"):
        dy.best_of_others(log_probs[:1])


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_weights_of_the_samples(alpha: float) -> None:
    """shipped: 1 + α for all; printed: 1 where the member explains best, 1 + α elsewhere."""
    log_probs = randn(4, 50).double().requires_grad_()
    best = log_probs.argmax(dim=0) == torch.arange(4)[:, None]
    for form, weight in (
        (dy.shipped_term, torch.full((4, 50), 1 + alpha)),
        (dy.printed_term, torch.where(best, 1.0, 1 + alpha)),
    ):
        objective = (log_probs + alpha * form(log_probs)).sum()
        (gradient,) = torch.autograd.grad(objective, log_probs)
        torch.testing.assert_close(gradient, weight.double())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.floats(0, 60), st.integers(0, 2**31))
def test_the_separating_term_is_at_most_log_n(n: int, scale: float, seed: int) -> None:
    of_all = scale * randn(n, 20, seed=seed).double()
    for own in of_all:
        assert (dy.separating_term(own, of_all) <= math.log(n) + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_the_estimate_lies_between_zero_and_log_n(n: int, seed: int) -> None:
    made = ensemble(n)
    with torch.no_grad():
        made.body[-1].bias.add_(2 * randn(*made.body[-1].bias.shape, seed=seed))
    found = made.js_divergence(randn(5, 2, 3, seed=seed).double(), seeded(seed), 64)
    assert found.shape == (5,)
    assert (found <= math.log(n) + 1e-9).all()
    assert found.mean() > -0.1  # a Monte Carlo mean may fall below 0, not far
    if n == 1:
        assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("delta", [0.0, 0.3, 1.0, 3.0])
def test_the_estimate_is_the_integral_for_two_gaussians_in_one_dimension(delta: float) -> None:
    config = GaussianConfig(1, 1, hidden=(2,), state_dependent_std=False, initial_log_std=-1.0)
    made, std = GaussianEnsemble(config, 2).double(), math.exp(-1.0)
    with torch.no_grad():
        made.body[-1].weight.zero_()
        made.body[-1].bias.copy_(std * torch.tensor([[[-delta]], [[delta]]]))
    found = float(made.js_divergence(torch.zeros(1, 1, 1).double(), seeded(), 200_000))
    x = torch.linspace(-9, 9, 40_001, dtype=torch.float64)
    p, q = (Normal(m * std, std).log_prob(x).exp() for m in (-delta, delta))
    mean = (p + q) / 2
    kl = sum(torch.trapezoid(torch.special.xlogy(d, d / mean.clamp(min=1e-300)), x) for d in (p, q))
    assert found == pytest.approx(float(kl) / 2, abs=3e-3)
    assert js_of_two(delta) == pytest.approx(float(kl) / 2, abs=1e-6)


# ---- gradients -----------------------------------------------------------------------------------


def finite_difference(value: Callable[[], Tensor], parameter: Tensor, place: int) -> float:
    flat, step, ends = parameter.data.view(-1), 1e-5, []
    for sign in (1, -1):
        flat[place] += sign * step
        ends.append(float(value().detach()))
        flat[place] -= sign * step
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("config", [SMALL, FREE])
@pytest.mark.parametrize("diversity", ["none", "separating"])
def test_gradients_are_finite_differences(config: GaussianConfig, diversity: Any) -> None:
    """The samples move with the parameters, and so does their density under every member."""
    made, states, actions = ensemble(3, config), randn(6, 2, 3).double(), randn(6, 4, 2).double()

    def value() -> Tensor:
        return torch.stack(dy.objective(diversity, made, states, actions, seeded())).sum()

    gradients = torch.autograd.grad(value(), list(made.parameters()))
    for parameter, gradient in zip(made.parameters(), gradients, strict=True):
        for place in {0, parameter.numel() // 2, parameter.numel() - 1}:
            expected = finite_difference(value, parameter, place)
            assert float(gradient.view(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("diversity", ["printed", "shipped"])
def test_gradients_of_the_forms_on_data(diversity: Any) -> None:
    """Against finite differences of member 0's J with the other members as they are."""
    made, states, actions = ensemble(), randn(6, 2, 3).double(), randn(6, 4, 2).double()
    log_probs = made.log_prob_shared(states, actions).detach()
    behind = (log_probs[0] < log_probs[1:].amax(dim=0)).double()
    assert 0 < behind.sum() < len(behind)
    weight = 1 + 0.7 * (behind if diversity == "printed" else torch.ones(6))
    likelihood, term = dy.objective(diversity, made, states, actions, seeded())
    last = made.body[-1].weight
    (gradient,) = torch.autograd.grad((likelihood + 0.7 * term).sum(), last)

    def value() -> Tensor:
        return (weight * made.log_prob_shared(states, actions)[0]).mean()

    for place in range(0, last[0].numel(), 37):
        expected = finite_difference(value, last, place)
        assert float(gradient.view(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_equal_members_stop_being_a_maximum_at_alpha_one() -> None:
    """Exact by integration: the curvature of the mean J at δ = 0 is α − 1."""
    step = 0.05
    for alpha in (0.0, 0.5, 1.0, 2.0):
        gain = -0.5 * step**2 + alpha * js_of_two(step)
        assert 2 * gain / step**2 == pytest.approx(alpha - 1, abs=5e-3)
    table = objective_table((0.5, 1.0, 2.0))
    best = table.loc[table.groupby(["form", "alpha"])["gain"].idxmax()]
    best = best.set_index(["form", "alpha"])["delta"]
    assert (best["printed"] == 0).all()
    assert best["separating", 0.5] == best["separating", 1.0] == 0
    assert best["separating", 2.0] > 0.5


def test_the_closed_form_of_the_printed_objective() -> None:
    data = randn(400_000).double()
    for delta in (0.25, 1.0):
        log_probs = Normal(torch.tensor([[-delta], [delta]]), 1.0).log_prob(data)
        alone = Normal(0.0, 1.0).log_prob(data).mean()
        found = (log_probs + 0.5 * dy.printed_term(log_probs)).mean() - alone
        table = objective_table((0.5,))
        row = table[(table["form"] == "printed") & ((table["delta"] - delta).abs() < 1e-6)]
        assert float(found) == pytest.approx(float(row["gain"].iloc[0]), abs=5e-3)


# ---- the ensemble --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, FREE])
def test_members_are_ordinary_policies(config: GaussianConfig) -> None:
    made, states, actions = ensemble(3, config), randn(3, 5, 2, 3).double(), randn(5, 4, 2).double()
    assert made.act(states).shape == made.act(states, seeded()).shape == (3, 5, 4, 2)
    for i in range(3):
        one = made.select(i)
        torch.testing.assert_close(made.act(states)[i], one.act(states[i]))
        torch.testing.assert_close(
            made.log_prob_shared(states[0], actions)[i], one.log_prob(states[0], actions)
        )
    with pytest.raises(UsageError, match="i=3"):
        made.select(3)


def test_members_start_as_policies_of_their_own_and_sets_are_nested() -> None:
    before = torch.random.get_rng_state()
    two, four, states = GaussianEnsemble(SMALL, 2, 7), GaussianEnsemble(SMALL, 4, 7), randn(5, 2, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(two.select(0).act(states), GaussianPolicy(SMALL, 7).act(states))
    for i in range(2):
        assert torch.equal(two.select(i).act(states), four.select(i).act(states))
    plans = four.act(states.expand(4, -1, -1, -1))
    assert torch.pdist(plans.flatten(1)).min() > 1e-4


# ---- training ------------------------------------------------------------------------------------


def parameters(made: torch.nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(made.parameters()).detach()


@pytest.mark.parametrize("diversity", ["none", "printed", "shipped", "separating"])
def test_one_member_is_the_clone(diversity: Any) -> None:
    cfg = dataclasses.replace(QUICK, num_members=1, diversity=diversity, alpha=5.0)
    found = train_ensemble(cfg, SMALL, WINDOWS, seed=3, progress=False).select(0)
    plain = CloneConfig(QUICK.num_updates, QUICK.batch_size, QUICK.learning_rate)
    clone = train_clone(plain, SMALL, WINDOWS, seed=3, progress=False)
    torch.testing.assert_close(parameters(found), parameters(clone), atol=2e-3, rtol=1e-3)


def test_adam_does_not_see_the_shipped_form_and_sees_the_printed_one() -> None:
    table = adam_table(two_modes(size=512), (0.1, 10.0), num_updates=40)
    of = table.set_index(["form", "alpha"])["difference"]
    assert table["moved"].iloc[0] > 1e-2
    assert of["shipped"].max() < 1e-12
    assert of["printed"].min() > 1e-4


def test_the_separating_form_separates_beyond_alpha_one_and_the_others_do_not() -> None:
    toy, gaussian = two_modes(size=1024), GaussianConfig(2, 2, 2, 8, hidden=(16,))
    past, found = toy.past(toy.draw_states(64, seeded(1))), {}
    cfg = EnsembleConfig(150, 64, 1e-2, num_members=2)
    for form, alpha in (("none", 0.0), ("printed", 3.0), ("separating", 0.5), ("separating", 3.0)):
        changed = dataclasses.replace(cfg, diversity=form, alpha=alpha)
        made = train_ensemble(changed, gaussian, toy, seed=0, progress=False)
        found[form, alpha] = float(made.js_divergence(past, seeded()).mean())
    assert found.pop(("separating", 3.0)) > 0.4
    assert max(found.values()) < 0.1


def test_training_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(*args: Any, **kwargs: Any) -> int:
        return fit(*args, **{**kwargs, "checkpoint_seconds": -1, "log_every": 1})

    monkeypatch.setattr(dy, "fit", eager)
    cfg, whole, broken = (
        dataclasses.replace(QUICK, diversity="separating"),
        *(MemoryRecorder(stop) for stop in (None, 17)),
    )
    expected = train_ensemble(cfg, SMALL, WINDOWS, seed=0, recorder=whole, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(cfg, SMALL, WINDOWS, seed=0, recorder=broken, progress=False)
    broken.stop_after = None
    resumed = train_ensemble(cfg, SMALL, WINDOWS, seed=0, recorder=broken, progress=False)
    assert broken.rows == whole.rows
    assert torch.equal(parameters(resumed), parameters(expected))


@pytest.mark.parametrize(
    "change",
    [{"num_members": 0}, {"diversity": "seperating"}, {"alpha": -1.0}, {"batch_size": 0}],
)
def test_bad_configs_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        EnsembleConfig(**change)


def test_doors_count_only_where_a_walk_comes_near() -> None:
    toy, states = two_modes(), torch.zeros(3, 2)
    plans = toy.means(states).movedim(1, 0)
    assert doors_reached(toy, plans, states) == 2
    assert doors_reached(toy, plans[:1].repeat(2, 1, 1, 1), states) == 1
    assert doors_reached(toy, 0.4 * plans, states) == 0


def test_golden() -> None:
    states, tensors = randn(3, 6, 2, 3, seed=8), {}
    for diversity in ("none", "printed", "shipped", "separating"):
        cfg = dataclasses.replace(QUICK, diversity=diversity, alpha=1.5)
        made = train_ensemble(cfg, SMALL, WINDOWS, seed=0, progress=False)
        with torch.no_grad():
            tensors[diversity] = torch.stack(made(states))
    assert policies.REVISION == 1, "a golden file is kept by diversity.REVISION: bump both"
    check_golden("diversity", tensors, dy.REVISION, atol=1e-3)
