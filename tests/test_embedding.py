from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusion_toys import check_golden, randn, random_windows, small_model
from model_toys import MemoryRecorder
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from uepo_lib import embedding as em
from uepo_lib import toys
from uepo_lib.divergence import GuidanceConfig
from uepo_lib.embedding import (
    Draws,
    EmbeddedModel,
    EmbeddedPolicies,
    EmbeddingConfig,
    member_log_likelihood,
    train_embedding,
)
from uepo_lib.errors import UsageError
from uepo_lib.figures.embedding import describe_embedding, plain_model
from uepo_lib.likelihood import log_likelihood_bound
from uepo_lib.subpolicies import SubPolicies, equal_power_controls
from uepo_lib.training import fit

MODEL = small_model(num_train_steps=10, num_denoising_steps=3, ema_decay=0.9)
PAST = randn(6, 2, 3, seed=5)  # (B, T_o, S)
NOISE = randn(3, 8, 2, seed=6)
WINDOWS = random_windows(200, 3, 8, 2)
QUICK = EmbeddingConfig(num_members=3, num_updates=4, batch_size=16, num_terms=3, alpha=1.5)


def embedded(n: int = 3, scale: float = 1.0) -> EmbeddedModel:
    made = EmbeddedModel(MODEL, n).eval()
    with torch.no_grad():
        made.embedding.copy_(scale * randn(n, 16, seed=7))
    return made


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(model: EmbeddedModel, rows: int = 6, terms: int = 4, seed: int = 0) -> Draws:
    return Draws(model, rows, terms, seeded(seed))


# ---- the model -----------------------------------------------------------------------------------


def test_zero_embeddings_are_the_plain_model_bit_for_bit() -> None:
    made = EmbeddedModel(MODEL, 3).eval()
    states = randn(3, 6, 2, 3)
    plain, policies = SubPolicies(MODEL, NOISE), EmbeddedPolicies(made, NOISE)
    assert torch.equal(policies.plan(states), plain.plan(states))
    assert torch.equal(policies.act(states), plain.act(states))
    assert torch.equal(policies.plan_shared(PAST), plain.plan_shared(PAST))
    actions = torch.tanh(randn(6, 8, 2))
    expected = log_likelihood_bound(MODEL, actions, PAST, seeded())
    for found in member_log_likelihood(made, actions, PAST, seed=0, num_draws=1):
        assert torch.equal(found, expected)


def test_the_weights_are_copied() -> None:
    made, before = EmbeddedModel(MODEL, 2), parameters_to_vector(MODEL.parameters()).clone()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    assert torch.equal(parameters_to_vector(MODEL.parameters()), before)


def test_an_embedding_enters_by_scale_and_shift() -> None:
    """c = silu(step + states + e): to add e is to move the states' vector by e."""
    made = embedded()
    context = made.encode(PAST)
    index = torch.tensor([0, 1, 2, 2, 1, 0])
    moved = context._replace(current=context.current + made.embedding[index])
    x, k = randn(6, 8, 2), torch.arange(6)
    found = made.predict_x0(x, k, made.member(context, index))
    assert torch.equal(found, MODEL.predict_x0(x, k, moved))
    assert not torch.allclose(found, MODEL.predict_x0(x, k, context))


def test_a_chain_with_gradient_is_the_chain() -> None:
    made, start = embedded(), randn(6, 8, 2)
    context = made.member(made.encode(PAST), torch.tensor([0, 1, 2, 0, 1, 2]))
    with torch.no_grad():
        assert torch.equal(made.sample_through(start, context), made.sample(start, context))
    made.sample_through(start, context).sum().backward()
    assert made.embedding.grad is not None
    assert made.embedding.grad.abs().sum() > 0


def test_the_bound_with_gradient_is_that_of_likelihood_but_for_a_constant() -> None:
    """On the same noise, and where the decoder's bins are thin and away from the box's ends."""
    made, actions = embedded(), 0.8 * torch.tanh(randn(6, 8, 2))
    context = made.member(made.encode(PAST), torch.full((6,), 1))
    generator = seeded(3)
    epsilon = torch.stack([torch.randn(6, 8, 2, generator=generator) for _ in range(10)])
    found = made.bound(actions, context, torch.arange(10), epsilon)
    expected = log_likelihood_bound(made, actions, context, seeded(3), bin_width=1e-3)
    alpha_bar = made.schedule.alpha_bar[-1]
    prior = 0.5 * (alpha_bar * (actions**2 - 1) - torch.log1p(-alpha_bar)).sum(dim=(1, 2))
    constant = expected - found + prior
    torch.testing.assert_close(constant, constant.mean().expand(6), atol=0.02, rtol=0)


def test_terms_of_the_bound_are_unbiased() -> None:
    made, actions = embedded(), torch.tanh(randn(6, 8, 2))
    context, epsilon = made.encode(PAST), randn(10, 6, 8, 2)
    whole = made.bound(actions, context, torch.arange(10), epsilon)
    single = [
        made.bound(actions, context, torch.tensor([k]), epsilon[k : k + 1]) for k in range(10)
    ]
    torch.testing.assert_close(torch.stack(single).mean(dim=0), whole, rtol=1e-4, atol=1e-3)


def test_members_are_compared_with_common_random_numbers() -> None:
    made, actions, d = embedded(), torch.tanh(randn(6, 8, 2)), draws(embedded())
    of_all = made.bound_of_all(actions, made.encode(PAST), d.steps, d.epsilon)
    for i in range(3):
        context = made.member(made.encode(PAST), torch.full((6,), i))
        torch.testing.assert_close(of_all[i], made.bound(actions, context, d.steps, d.epsilon))
    same = embedded(scale=0.0).bound_of_all(actions, made.encode(PAST), d.steps, d.epsilon)
    torch.testing.assert_close(same, same[:1].expand(3, -1))


# ---- the objective -------------------------------------------------------------------------------


def gradients(diversity: Any, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of all weights and, apart, of the embeddings; and each row's term."""
    made = embedded(scale=0.3)
    actions = torch.tanh(randn(6, 8, 2))
    likelihood, term = em.objective(
        diversity, made, actions, made.encode(PAST), draws(made, seed=2)
    )
    (likelihood + alpha * term).mean().backward()
    whole = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
    assert made.embedding.grad is not None
    return torch.cat(whole), made.embedding.grad, term.detach()


def test_the_shipped_form_scales_the_gradient() -> None:
    clone, shipped = gradients("none", 0.0)[0], gradients("shipped", 3.0)[0]
    torch.testing.assert_close(shipped, 4 * clone, rtol=1e-3, atol=1e-4 * float(clone.abs().max()))


def test_the_printed_form_weighs_the_rows_that_others_explain_better() -> None:
    made, actions = embedded(scale=0.3), torch.tanh(randn(6, 8, 2))
    d, context = draws(made, seed=2), made.encode(PAST)
    likelihood, term = em.objective("printed", made, actions, context, d)
    behind = (term < 0).float()
    assert 0 < behind.sum() < 6
    ((1 + 3.0 * behind) * likelihood).mean().backward()
    assert made.embedding.grad is not None
    found = gradients("printed", 3.0)
    torch.testing.assert_close(found[1], made.embedding.grad, rtol=1e-3, atol=1e-3)


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
def test_the_separating_form_is_at_most_log_n_and_its_gradient_a_finite_difference() -> None:
    made, actions = embedded(scale=0.3).double(), torch.tanh(randn(6, 8, 2)).double()
    d, past = draws(made, seed=2), PAST.double()
    d.epsilon, d.start = d.epsilon.double(), d.start.double()

    def value() -> Tensor:
        term = em.objective("separating", made, actions, made.encode(past), d)[1]
        assert (term <= math.log(3) + 1e-6).all()
        return term.mean()

    (gradient,) = torch.autograd.grad(value(), made.embedding)
    place = divmod(int(gradient.abs().argmax()), 16)
    ends = []
    for sign in (1, -2):
        made.embedding.data[place] += sign * 1e-6
        ends.append(float(value().detach()))
    difference = (ends[0] - ends[1]) / 2e-6
    assert float(gradient[place]) == pytest.approx(difference, rel=1e-3)


# ---- training ------------------------------------------------------------------------------------


def trained(**changes: Any) -> Tensor:
    extra = {key: changes.pop(key) for key in ("recorder", "assigned") if key in changes}
    cfg = EmbeddingConfig(**{**QUICK.__dict__, **changes})
    made = train_embedding(cfg, MODEL, WINDOWS, seed=0, progress=False, **extra)
    return parameters_to_vector(made.parameters()).detach()


def test_one_member_learns_as_a_clone() -> None:
    clone = trained(num_members=1, diversity="none")
    for diversity in ("printed", "shipped", "separating"):
        assert torch.equal(trained(num_members=1, diversity=diversity), clone)


def test_windows_may_be_assigned() -> None:
    """Members that learn from nothing keep their zero embedding."""
    made = train_embedding(
        EmbeddingConfig(3, "none", num_updates=4, batch_size=16, num_terms=3),
        MODEL, WINDOWS, seed=0, progress=False,
        assigned=torch.ones(len(WINDOWS), dtype=torch.long),
    )  # fmt: skip
    moved = made.embedding.abs().sum(dim=1) > 0
    assert moved.tolist() == [False, True, False]


def test_training_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(*args: Any, **kwargs: Any) -> int:
        return fit(*args, **{**kwargs, "checkpoint_seconds": -1, "log_every": 1})

    monkeypatch.setattr(em, "fit", eager)
    whole, broken = MemoryRecorder(), MemoryRecorder(2)
    expected = trained(recorder=whole)
    with pytest.raises(KeyboardInterrupt):
        trained(recorder=broken)
    broken.stop_after = None
    assert torch.equal(trained(recorder=broken), expected)
    assert broken.rows == whole.rows


@pytest.mark.parametrize(
    "change", [{"num_members": 0}, {"diversity": "kl"}, {"alpha": -1}, {"embedding_lr": 0.0}]
)
def test_bad_configs_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        EmbeddingConfig(**change)


def test_more_terms_than_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="num_terms"):
        trained(num_terms=11)
    with pytest.raises(UsageError, match="assigned"):
        trained(assigned=torch.zeros(3, dtype=torch.long))


# ---- the policies --------------------------------------------------------------------------------


def test_sub_policy_i_is_embedding_i() -> None:
    made, states = embedded(), randn(3, 6, 2, 3)
    policies = EmbeddedPolicies(made, NOISE, action_horizon=3)
    plan = policies.plan(states)
    assert plan.shape == (3, 6, 8, 2)
    assert torch.equal(policies.act(states), plan[:, :, :3])
    for i in range(3):
        context = made.member(made.encode(states[i]), torch.full((6,), i))
        by_hand = made.sample(NOISE[i].expand(6, -1, -1), context)
        torch.testing.assert_close(plan[i], by_hand, atol=1e-5, rtol=1e-5)
        alone = policies.select(i)
        assert alone.n == 1
        torch.testing.assert_close(
            alone.plan(states[i : i + 1]), plan[i : i + 1], atol=1e-5, rtol=1e-5
        )
    shared = policies.plan_shared(PAST)
    torch.testing.assert_close(shared, policies.plan(PAST.expand(3, -1, -1, -1)))


def test_embedded_policies_can_be_guided_and_saved() -> None:
    made, guidance = embedded(), GuidanceConfig(threshold=2.0, eta=0.5)
    policies = EmbeddedPolicies.from_seeds(made, 3, seed=1, guidance=guidance)
    plain = policies.with_guidance(None)
    assert isinstance(plain, EmbeddedPolicies)
    assert not torch.allclose(policies.plan_shared(PAST), plain.plan_shared(PAST))
    for name, control in equal_power_controls(policies, PAST).items():
        assert isinstance(control, EmbeddedPolicies), name
    one = plain.select(2)
    tensors, rest = one.state()
    again = EmbeddedPolicies.from_state(made, tensors, json.loads(json.dumps(rest)))
    assert torch.equal(again.plan_shared(PAST), one.plan_shared(PAST))
    with pytest.raises(UsageError, match="members"):
        EmbeddedPolicies(made, NOISE[:2])


def test_a_selected_policy_draws_alone_as_among_the_others() -> None:
    together = EmbeddedPolicies.from_seeds(
        embedded(), 3, seed=1, fresh_noise=True, own_generators=True
    )
    among = together.plan(PAST.expand(3, -1, -1, -1), seeded(4))
    for i in range(3):
        alone = together.select(i)
        assert alone.noise_seeds == [(1 << 16) + i]
        torch.testing.assert_close(alone.plan(PAST[None], seeded(4))[0], among[i])


def test_told_their_doors_embeddings_hold_modes() -> None:
    """The control that shows what the network can do, and that the measures see it."""
    toy = toys.four_modes(size=1024)
    plain = plain_model(toy, 0, 150)
    cfg = EmbeddingConfig(4, "none", num_updates=100, learning_rate=1e-3, num_terms=4)
    model = train_embedding(cfg, plain, toy, seed=0, progress=False, assigned=toy.modes)
    before, after = (describe_embedding(m, toy, 1.0) for m in (EmbeddedModel(plain, 4), model))
    assert before["constancy"] < 0.4 < 0.9 < after["constancy"]
    assert before["mode_js"] < 0.05 < 1.1 < after["mode_js"] < math.log(4) + 1e-5
    assert before["js"] == pytest.approx(0, abs=1e-4) and 1.1 < after["js"] < math.log(4) + 1e-5
    assert after["objective"] < before["objective"]  # each gave up three doors of the data


def test_golden() -> None:
    tensors = {}
    for diversity in ("none", "printed", "shipped", "separating"):
        cfg = EmbeddingConfig(**{**QUICK.__dict__, "diversity": diversity})
        made = train_embedding(cfg, MODEL, WINDOWS, seed=0, progress=False)
        tensors[diversity] = EmbeddedPolicies(made, NOISE).plan_shared(PAST)
    check_golden("embedding", tensors, em.REVISION, atol=2e-3)
