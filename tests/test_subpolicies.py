from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import torch
from diffusion_toys import check_golden, gaussian_model, randn, small_model
from torch import Tensor

from uepo_lib.divergence import GuidanceConfig, mean_pairwise
from uepo_lib.errors import UsageError
from uepo_lib.figures import subpolicies as views
from uepo_lib.subpolicies import (
    REVISION,
    SEQUENCES_AT_ONCE,
    SubPolicies,
    _arriving,
    equal_power_controls,
    own_noise,
    seeded_noise,
)

MODEL = small_model()
PAST = randn(6, 2, 3, seed=5)  # (B, T_o, S)
GUIDED = GuidanceConfig(threshold=2.0, eta=0.5, floor=0.01)


def build(n: int = 4, **changes: Any) -> SubPolicies:
    return SubPolicies.from_seeds(MODEL, n, seed=3, **changes)


def shared(n: int) -> Tensor:
    return PAST.expand(n, -1, -1, -1)


def test_sets_are_nested() -> None:
    two, ten = build(2), build(10)
    assert torch.equal(two.noise, ten.noise[:2])
    assert not torch.equal(ten.noise[0], ten.noise[1])
    torch.testing.assert_close(two.act(shared(2)), ten.act(shared(10))[:2], atol=1e-5, rtol=1e-5)
    assert torch.equal(seeded_noise(3, 1, (5, 7)), seeded_noise(9, 1, (5, 7))[:3])
    xi_two, xi_ten = (build(n, guidance=GUIDED).guidance for n in (2, 10))
    assert xi_two is not None
    assert xi_ten is not None
    assert torch.equal(xi_two.xi, xi_ten.xi[:2])


def test_shapes_and_horizons() -> None:
    policies = build(4, action_horizon=3)
    assert policies.act(shared(4)).shape == (4, 6, 3, 2)
    assert policies.plan(shared(4)).shape == (4, 6, 8, 2)
    assert torch.equal(policies.act(shared(4)), policies.plan(shared(4))[:, :, :3])
    assert (policies.n, policies.obs_horizon, policies.action_horizon) == (4, 2, 3)


def test_a_sub_policy_is_a_function_of_its_own_state() -> None:
    policies, states = build(), randn(4, 6, 2, 3)
    plan = policies.plan(states)
    assert torch.equal(plan, policies.plan(states))
    for i in range(4):
        alone = policies.select(i).plan(states[i : i + 1])
        torch.testing.assert_close(plan[i : i + 1], alone, atol=1e-5, rtol=1e-5)
        by_hand = MODEL.sample(policies.noise[i].expand(6, -1, -1), states[i], 5)
        torch.testing.assert_close(plan[i], by_hand, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        policies.plan_shared(PAST), policies.plan(shared(4)), atol=1e-5, rtol=1e-5
    )


def test_zero_temperature_is_one_policy() -> None:
    plan = build(kappa=0.0).plan(shared(4))
    zero = SubPolicies.zero_noise(MODEL)
    assert zero.n == 1
    for i in range(4):
        torch.testing.assert_close(plan[i : i + 1], zero.plan(shared(1)), atol=1e-5, rtol=1e-5)


def test_a_fixed_noise_is_a_bias_on_unimodal_data() -> None:
    """A2: the output is μ + c κ σ ε_i, with the same c for every κ and i."""
    model = gaussian_model(0.1, 0.3)
    past = torch.zeros(3, 1, 1, 1)
    for kappa in (0.25, 0.5, 1.0):
        policies = SubPolicies.from_seeds(model, 3, 0, kappa)
        # The residual α μ of the start, ᾱ_{K−1} being small but not 0, moves the mean a little.
        ratio = (policies.plan(past)[:, 0] - 0.1) / (kappa * policies.noise)
        assert ratio.median().item() == pytest.approx(0.18, rel=0.1)


def test_temperatures_may_differ() -> None:
    policies = build(2, kappa=torch.tensor([0.0, 1.0]))
    plan = policies.plan(shared(2))
    torch.testing.assert_close(plan[:1], build(1, kappa=0.0).plan(shared(1)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(policies.select(1).kappa, torch.ones(1))


def test_fresh_noise_needs_and_follows_a_generator() -> None:
    policies = build(fresh_noise=True)
    first, again, other = (
        policies.act(shared(4), torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.allclose(first[0, 0], policies.act(shared(4), torch.Generator())[0, 1])
    with pytest.raises(UsageError, match="generator"):
        policies.act(shared(4))


def test_own_generators_draw_alone_as_among_others() -> None:
    two, ten = (build(n, fresh_noise=True, own_generators=True) for n in (2, 10))
    among = ten.act(shared(10), torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        two.act(shared(2), torch.Generator().manual_seed(0)), among[:2], atol=1e-5, rtol=1e-5
    )
    alone = ten.select(7).act(shared(1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone, among[7:8], atol=1e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(0)
    calls = torch.stack([ten.act(shared(10), generator) for _ in range(2)])
    assert torch.equal(calls[0], among) and not torch.allclose(calls[0], calls[1])
    tensors, rest = ten.state()
    again = SubPolicies.from_state(MODEL, tensors, json.loads(json.dumps(rest)))
    assert torch.equal(again.act(shared(10), torch.Generator().manual_seed(0)), among)


def test_own_noise_is_white_and_its_members_and_calls_are_independent() -> None:
    draws = torch.stack([own_noise((3, 4, 5), clock, (40, 8, 2)) for clock in range(50)])
    assert draws.mean() == pytest.approx(0, abs=0.01) and draws.std() == pytest.approx(1, abs=0.01)
    rows = draws.flatten(2).flatten(0, 1)  # one a call and member
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 5 / rows.shape[1] ** 0.5  # five sigma of 0


@pytest.mark.parametrize("batch", [6, SEQUENCES_AT_ONCE // 16 + 1])  # at once, and in parts
def test_guidance_is_a_function_of_the_state(batch: int) -> None:
    policies, states = build(guidance=GUIDED), randn(4, batch, 2, 3)
    plan = policies.plan(states)
    assert torch.equal(plan, policies.plan(states))
    for i in range(4):  # each against its neighbours in its own states
        torch.testing.assert_close(
            plan[i], policies.plan_shared(states[i])[i], atol=1e-5, rtol=1e-5
        )
    reordered = policies.plan(states.flip(1)).flip(1)
    torch.testing.assert_close(plan, reordered, atol=1e-5, rtol=1e-5)


def test_guidance_raises_divergence_and_ends_with_selection() -> None:
    plain, guided = build(kappa=0.1), build(kappa=0.1, guidance=GUIDED)
    assert torch.equal(plain.noise, guided.noise)
    before, after = mean_pairwise(plain.plan_shared(PAST)), mean_pairwise(guided.plan_shared(PAST))
    assert after > before
    assert guided.select(0).guidance is None
    torch.testing.assert_close(
        guided.with_guidance(None).plan(shared(4)), plain.plan(shared(4)), atol=0, rtol=0
    )


def test_controls_have_equal_power() -> None:
    guided = build(guidance=GUIDED)
    controls = equal_power_controls(guided, PAST)
    assert set(controls) == {"ungated", "final"}
    ungated, final = controls["ungated"].guidance, controls["final"].guidance
    assert ungated is not None
    assert final is not None
    assert ungated.control is not None
    assert final.control is not None
    assert ungated.control[-1] == 0
    assert (ungated.control[:-1] > 0).all()
    assert final.control.nonzero().tolist() == [[4]]
    plain = build().plan_shared(PAST)
    for policies in controls.values():
        plan = policies.plan_shared(PAST)
        assert not torch.allclose(plan, plain)
        assert plan.abs().max() <= 1
        if policies is controls["final"]:  # as large as what guidance made of them
            sizes = [(p - plain).square().mean().sqrt() for p in (plan, guided.plan_shared(PAST))]
            assert sizes[0].item() == pytest.approx(sizes[1].item(), rel=0.01)
    with pytest.raises(UsageError, match="guidance"):
        equal_power_controls(build(), PAST)


@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.4])
def test_noise_is_scaled_until_it_arrives_through_the_box(wanted: float) -> None:
    plain, xi = (1.5 * randn(4, 6, 8, 2)).clamp(-1, 1), randn(4, 1, 8, 2, seed=1)
    sigma = _arriving(plain, xi, torch.tensor(wanted), clip=1.0)
    arrived = (plain + sigma * xi).clamp(-1, 1) - plain
    assert arrived.square().mean().sqrt().item() == pytest.approx(wanted, rel=1e-3)
    assert sigma >= wanted  # half of the plans are at the box, which swallows every other push


@pytest.mark.parametrize("kind", ["plain", "guided", "control"])
def test_state_round_trip(kind: str) -> None:
    policies = build(kappa=0.5, action_horizon=2, guidance=None if kind == "plain" else GUIDED)
    if kind == "control":
        policies = equal_power_controls(policies, PAST)["ungated"]
    tensors, rest = policies.state()
    again = SubPolicies.from_state(MODEL, tensors, json.loads(json.dumps(rest)))
    assert torch.equal(policies.act(shared(4)), again.act(shared(4)))
    assert again.action_horizon == 2


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="action_horizon=9"):
        build(action_horizon=9)
    for steps in (0, 51):
        with pytest.raises(UsageError, match=f"num_denoising_steps={steps}"):
            build(num_denoising_steps=steps)
    with pytest.raises(UsageError, match="num_denoising_steps=0"):
        SubPolicies(MODEL, torch.zeros(2, 8, 2), num_denoising_steps=0)
    with pytest.raises(UsageError, match="kappa=-1"):
        build(kappa=-1.0)
    with pytest.raises(UsageError, match="noise"):
        SubPolicies(MODEL, torch.zeros(2, 7, 2))
    with pytest.raises(UsageError, match="states"):
        build(4).act(shared(3))
    with pytest.raises(UsageError, match="n=1"):
        build(1, guidance=GUIDED)
    with pytest.raises(UsageError, match="fresh_noise=False"):
        build(own_generators=True)
    with pytest.raises(UsageError, match="noise_seeds"):
        SubPolicies(MODEL, torch.zeros(2, 8, 2), fresh_noise=True, noise_seeds=[1])
    with pytest.raises(UsageError, match="i=4"):
        build(4).select(4)


def test_perturbations_and_starts_are_different_draws() -> None:
    for seed in range(20):
        policies = SubPolicies.from_seeds(MODEL, 2, seed, guidance=GUIDED)
        assert policies.guidance is not None
        xi = policies.guidance.xi.flatten(0, 1)
        assert not any(torch.equal(x, start) for x in xi for start in policies.noise)


def test_golden() -> None:
    found = {
        "plain": build(3).plan(shared(3)),
        "guided": build(3, guidance=GUIDED).plan(shared(3)),
    }
    check_golden("subpolicies", found, REVISION)


# ---- what notebook 03 says -----------------------------------------------------------------------


def test_scale_and_seed_are_compared_in_one_unit() -> None:
    means = pd.Series({"κ = 0": 300.0, "κ = 0.5": 200.0, "κ = 1": 100.0})
    # the range, 200, is above what the seeds do, and the standard deviation, 100, below it
    between = pd.Series({"κ = 0.5": 120.0, "κ = 1": 160.0, views.NULL: 9.0})
    text = views.scale_or_seed(means, between)
    assert "deviation of 100 (a range of 200)" in text
    assert "120 to 160, by κ, 141 in root mean square" in text
    assert "**the seed** matters more, against the expectation" in text
    assert "**the scale** matters more, as expected" in views.scale_or_seed(means, between / 2)


@pytest.mark.parametrize(
    ("kappas", "returns", "small", "little"),
    [((0.25, 0.25, 0.5), (95, 50, 95), "in 2 of 3 seeds: met", "20% (below 0: a gain): not met"),
     ((0.5, 1.0, 0.25), (95, 110, 95), "in 1 of 3 seeds: not met", "is 0% (below 0: a gain): met")],
)  # fmt: skip
def test_the_tuned_choice_is_held_against_what_was_expected(
    kappas: tuple[float, ...], returns: tuple[float, ...], small: str, little: str
) -> None:
    rows = [(s, "AM-Q", k, r) for s, (k, r) in enumerate(zip(kappas, returns, strict=True))]
    rows += [(s, views.ZERO, 0.0, 100.0) for s in range(3)]
    tuned = pd.DataFrame(rows, columns=["seed", "choice", "kappa", "return"])
    text = views.tuned_says(tuned)
    assert small in text
    assert little in text
