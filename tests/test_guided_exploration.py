from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusion_toys import check_golden, randn
from test_chain import EXECUTED, STEPS, generator, model, states
from torch.distributions import Normal, kl_divergence

from uepo_lib import divergence, guided_exploration
from uepo_lib.chain import ChainActor
from uepo_lib.divergence import GuidanceConfig
from uepo_lib.errors import UsageError
from uepo_lib.guided_exploration import GuidedActor, KLGuidance, guidance_by, pairwise_kl
from uepo_lib.subpolicies import SubPolicies

SIGMA, MEMBER = 0.2, 1


def guided_set(threshold: float = 5.0, eta: float = 0.5) -> SubPolicies:
    return SubPolicies.from_seeds(
        model(), 4, 0, action_horizon=EXECUTED, num_denoising_steps=STEPS,
        guidance=GuidanceConfig(threshold, eta),
    )  # fmt: skip


def actor(guided: SubPolicies, num_levels: int = 2) -> GuidedActor:
    assert guided.guidance is not None
    one = guided.select(MEMBER)
    return GuidedActor(one, guided, MEMBER, guided.guidance, SIGMA, num_levels)


@pytest.mark.parametrize("batch", [1, 5])
def test_noise_free_actions_are_unguided_bit_for_bit(batch: int) -> None:
    guided, past = guided_set(), states(batch).unsqueeze(0)
    assert torch.equal(actor(guided).act(past), guided.select(MEMBER).act(past))


def test_exploring_starts_from_the_guided_latent_of_the_member() -> None:
    """Step by step: the whole guided chain, stopped before the trained steps."""
    guided, past = guided_set(), states()
    made = actor(guided)
    _, path = made.sample_path(past, generator())
    seen: list[torch.Tensor] = []
    rule = guided.guidance
    assert rule is not None
    x, context = guided._start(5, None), guided.model.encode(past).repeat(4)
    for step, (k, k_prev) in enumerate(guided.model.timesteps(STEPS)[: STEPS - 2]):
        at, after = torch.tensor([k]), torch.tensor([k_prev])
        with torch.no_grad():
            x0 = guided.model.predict_x0(x, at, context)
        epsilon = guided.model.schedule.epsilon(x, x0, at)
        x = guided.model.schedule.step(rule(x0, k, step).clamp(-1, 1), epsilon, at, after)[0]
        seen.append(x)
    torch.testing.assert_close(path[:, 0], seen[-1].unflatten(0, (4, 5))[MEMBER])
    plain = ChainActor(guided.select(MEMBER), SIGMA, 2).sample_path(past, generator())[1]
    assert (path[:, 0] - plain[:, 0]).abs().max() > 1e-3


def test_equal_states_get_equal_latents() -> None:
    made, past = actor(guided_set()), states(3).repeat_interleave(4, dim=0)
    _, path = made.sample_path(past, generator())
    _, alone = made.sample_path(states(3), generator())
    torch.testing.assert_close(path[::4, 0], alone[:, 0])
    assert torch.equal(path[:4, 0], path[:1, 0].expand(4, -1, -1))


def test_without_a_push_it_is_the_plain_chain() -> None:
    guided, past = guided_set(eta=0.0), states()
    plain = ChainActor(guided.select(MEMBER), SIGMA, 2)
    found, expected = (a.sample_path(past, generator())[1] for a in (actor(guided), plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_likelihood_of_the_trained_steps_is_as_before() -> None:
    guided, past = guided_set(), states()
    made, plain = actor(guided), ChainActor(guided.select(MEMBER), SIGMA, 2)
    _, path = made.sample_path(past, generator())
    assert torch.equal(made.path_log_prob(past, path), plain.path_log_prob(past, path))
    made.path_log_prob(past, path).sum().backward()
    assert all(p.grad is None for p in made.frozen.parameters())
    assert any(p.grad is not None for p in made.model.parameters())


def test_zero_noise_takes_its_seeds_place_among_the_others() -> None:
    guided = guided_set()
    zero = SubPolicies.zero_noise(model(), action_horizon=EXECUTED, num_denoising_steps=STEPS)
    assert guided.guidance is not None
    made = GuidedActor(zero, guided, 0, guided.guidance, SIGMA)
    assert not made.starts[0].any()
    assert torch.equal(made.starts[1:], guided.noise[1:])
    assert torch.equal(made.act(states()[None]), zero.act(states()[None]))


# ---- by KL ---------------------------------------------------------------------------------------


def test_pairwise_kl_is_torchs() -> None:
    plans, sigma = randn(3, 2, 6, 4), 0.3
    found = pairwise_kl(plans, sigma)
    for i in range(3):
        for j in range(3):
            terms = kl_divergence(Normal(plans[i], sigma), Normal(plans[j], sigma))
            torch.testing.assert_close(found[i, j], terms.sum(-1).mean(-1))


def test_kl_sees_an_offset_and_div_does_not() -> None:
    one = randn(1, 2, 6, 4)
    moved = torch.cat([one, one + 0.5])
    assert divergence.pairwise(moved)[0, 1].abs().max() < 1e-4
    torch.testing.assert_close(pairwise_kl(moved, 0.5)[0, 1], torch.full((2,), 2.0))


def test_the_threshold_by_kl_is_a_quantile_of_the_unguided_set() -> None:
    guided, past = guided_set(), states(64)
    rule = guidance_by("kl", guided, SIGMA, past, 0.5)
    assert isinstance(rule, KLGuidance)
    plans = guided.with_guidance(None).plan_shared(past)
    below = rule.distance(plans) < rule.config.threshold
    assert float(below.float().mean()) == pytest.approx(0.5, abs=0.01)
    assert guidance_by("dynamic", guided, SIGMA, past, 0.5) is guided.guidance
    pushed = rule.sigma(plans, 0) > 0
    assert torch.equal(pushed, below)


def test_bad_arguments_are_refused_by_name() -> None:
    guided = guided_set()
    rule = guided.guidance
    assert rule is not None
    one = guided.select(0)
    with pytest.raises(UsageError, match="i=9"):
        GuidedActor(one, guided, 9, rule)
    with pytest.raises(UsageError, match="num_levels"):
        GuidedActor(one, guided, 0, rule, SIGMA, STEPS)
    with pytest.raises(UsageError, match="rule"):
        GuidedActor(one, guided, 0, replace(rule, xi=rule.xi[:2]))
    with pytest.raises(UsageError, match="measure"):
        guidance_by("mmd", guided, SIGMA, states(), 0.5)  # type: ignore[arg-type]


def test_golden() -> None:
    guided, past = guided_set(), states(3)
    found = {"div": actor(guided).latent(past, generator())}
    rule = guidance_by("kl", guided, SIGMA, states(64), 0.5)
    by_kl = GuidedActor(guided.select(MEMBER), guided, MEMBER, rule, SIGMA, 2)
    found["kl"] = by_kl.latent(past, generator())
    check_golden("guided_exploration", found, guided_exploration.REVISION, atol=1e-3)
