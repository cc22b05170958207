from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import replace

import pytest
import torch
from diffusion_toys import check_golden
from episode_toys import hand_made
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import LinearGaussian, randn
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from uepo_lib import augmentation as aug
from uepo_lib.augmentation import AugmentationConfig, Synthetic, synthesise
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel, build
from uepo_lib.errors import UsageError
from uepo_lib.rollouts import Simulator, Trajectories

WORLD = LinearGaussian()
STARTS = randn(40, 2, 3)
CONFIG = AugmentationConfig(ratio=2.0, horizon=6, epsilon=0.01, starts_per_round=8)
DATASET_SIZE = 150


class RandomPolicy:
    """Three sub-policies that draw their actions."""

    n, obs_horizon, action_horizon = 3, 2, 4

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shape = (*states.shape[:2], self.action_horizon, 1)
        return torch.randn(shape, generator=generator)


class World:
    """The linear Gaussian system as the simulator, ``offset`` away from where it should be."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset, self.generator = offset, torch.Generator().manual_seed(3)
        self.steps = self.resets = 0

    def reset_to(self, indices: Tensor) -> Tensor:
        self.states = STARTS[indices, -1]
        self.resets += len(indices)
        return STARTS[indices]

    def step(self, actions: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = WORLD.mean(self.states, actions)
        noise = torch.randn(mean.shape, generator=self.generator)
        outcome = mean + self.offset + WORLD.noise * noise
        self.states = torch.where(active.unsqueeze(1), outcome[:, :3], self.states)
        self.steps += int(active.sum())
        return self.states, outcome[:, 3], never(self.states)


def never(states: Tensor) -> Tensor:
    return torch.zeros(len(states), dtype=torch.bool)


@functools.cache
def model() -> DynamicsModel:
    cfg = DynamicsConfig(num_members=4, num_elites=3, hidden=(16, 16), weight_decay=(0.0, 0.0, 0.0))
    return build(cfg, 3, 1).requires_grad_(False)


def reference(cfg: AugmentationConfig = CONFIG) -> Tensor:
    return aug.reference_costs(model(), *WORLD.sequences(30, cfg.horizon), cfg)


def run(cfg: AugmentationConfig = CONFIG, simulator: Simulator | None = None) -> Synthetic:
    return synthesise(
        RandomPolicy(),
        model(),
        STARTS,
        never,
        reference(cfg),
        cfg,
        torch.Generator().manual_seed(0),
        dataset_size=DATASET_SIZE,
        simulator=simulator,
        progress=False,
    )


# ---- costs ---------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-3, 3),
    st.floats(0.05, 5),
    st.floats(-3, 3),
    st.floats(0.05, 5),
)
def test_gaussian_kl_is_torchs(mean_p: float, sd_p: float, mean_q: float, sd_q: float) -> None:
    a, b, c, d = (torch.tensor(x, dtype=torch.float64) for x in (mean_p, sd_p, mean_q, sd_q))
    expected = kl_divergence(Normal(a, b), Normal(c, d))
    torch.testing.assert_close(aug.gaussian_kl(a, b**2, c, d**2), expected)


def test_moment_matching_has_the_moments_of_the_mixture() -> None:
    means, variances = randn(5, 7), randn(5, 7, seed=1).square()
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(7, 5)),
        Normal(means.T, variances.T.sqrt()),
    )
    mean, variance = aug.moment_matched(means, variances)
    torch.testing.assert_close(mean, mixture.mean)
    torch.testing.assert_close(variance, mixture.variance)


def test_a_model_step_costs_the_disagreement_of_the_elites() -> None:
    states, actions = randn(5, 3), randn(5, 1)
    means, variances = (x[..., :3] for x in model().moments(states, actions))
    mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
    kls = kl_divergence(Normal(means, variances.sqrt()), Normal(mean, variance.sqrt()))
    cost = aug.step_costs(model(), CONFIG, states, actions, states)
    torch.testing.assert_close(cost, kls.mean((0, 2)))
    unit = dataclasses.replace(CONFIG, covariance="unit")
    cost = aug.step_costs(model(), unit, states, actions, states)
    torch.testing.assert_close(cost, 0.5 * (means - mean).square().mean((0, 2)))


def test_a_simulator_step_costs_half_the_squared_error_in_sigmas() -> None:
    cfg = dataclasses.replace(CONFIG, transitions="simulator")
    states, actions, reached = randn(5, 3), randn(5, 1), randn(5, 3, seed=2)
    means, variances = (x[..., :3] for x in model().moments(states, actions))
    mean, variance = aug.moment_matched(means, variances)
    cost = aug.step_costs(model(), cfg, states, actions, reached)
    torch.testing.assert_close(cost, 0.5 * ((reached - mean).square() / variance).mean(1))
    unit = dataclasses.replace(cfg, covariance="unit")
    cost = aug.step_costs(model(), unit, states, actions, reached)
    torch.testing.assert_close(cost, 0.5 * (reached - mean).square().mean(1))


def test_agreeing_elites_cost_nothing() -> None:
    twins = build(model().cfg, 3, 1)
    twins.elites = torch.tensor([1, 1, 1])
    cost = aug.step_costs(twins, CONFIG, randn(5, 3), randn(5, 1), randn(5, 3))
    torch.testing.assert_close(cost, torch.zeros(5), atol=1e-6, rtol=0)


def test_reference_is_the_median_at_each_length() -> None:
    past, actions, future = WORLD.sequences(9, 6)
    states = torch.cat([past[:, -1:], future[:, :-1]], 1)
    cfg = dataclasses.replace(CONFIG, transitions="simulator")
    for length in (1, 4, 6):
        means = torch.stack(
            [
                aug.step_costs(model(), cfg, s[:length], a[:length], f[:length]).mean()
                for s, a, f in zip(states, actions, future, strict=True)
            ]
        )
        found = aug.reference_costs(model(), past, actions, future, cfg)[length - 1]
        torch.testing.assert_close(found, means.median())


def test_half_of_the_held_out_sequences_lie_below_their_own_median() -> None:
    past, actions, future = WORLD.sequences(31, 6)
    states = torch.cat([past[:, -1:], future[:, :-1]], 1)
    everything = torch.ones(31, 6, dtype=torch.bool)
    zeros = torch.zeros(31, 6)
    found = Trajectories(states, actions, zeros, future, ~everything, everything)
    cfg = dataclasses.replace(CONFIG, transitions="simulator")
    costs = aug.reference_costs(model(), past, actions, future, cfg)
    excess = aug.excess_costs(model(), found, costs, cfg)
    assert int((excess <= 1e-7).sum()) == 16


def test_a_short_trajectory_is_compared_at_its_own_length() -> None:
    valid = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    states, actions = randn(2, 6, 3), randn(2, 6, 1)
    states[1, 2:] = torch.nan  # what lies after the end must not matter
    ended = torch.zeros(2, 6, dtype=torch.bool)
    found = Trajectories(states, actions, ended.float(), states, ended, valid)
    levels = torch.arange(1.0, 7.0)
    excess = aug.excess_costs(model(), found, levels, CONFIG)
    cost = aug.step_costs(model(), CONFIG, states[1, :2], actions[1, :2], states[1, :2])
    torch.testing.assert_close(excess[1], cost.mean() - 2.0)


# ---- acceptance ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_epsilon_keeps_all_that_a_smaller_one_keeps(
    values: list[float], a: float, b: float
) -> None:
    excess, (low, high) = torch.tensor(values), sorted((a, b))
    few, many = (
        aug.accept(excess, AugmentationConfig(epsilon=e), torch.Generator()) for e in (low, high)
    )
    assert bool((many | ~few).all())


def test_random_acceptance_keeps_as_many_but_others() -> None:
    excess = randn(400) * 0.1
    kept, drawn = (
        aug.accept(excess, AugmentationConfig(acceptance=how), torch.Generator().manual_seed(0))
        for how in ("kl", "random")
    )
    assert kept.sum() == drawn.sum()
    assert excess[kept].max() < 0.05 < excess[drawn].max()


@pytest.mark.parametrize("how", ["kl", "random", "all"])
def test_a_runaway_is_never_kept(how: str) -> None:
    excess = torch.tensor([0.0, torch.nan, torch.inf, -torch.inf, 0.01] * 20)
    kept = aug.accept(excess, AugmentationConfig(acceptance=how), torch.Generator())
    assert kept.any()
    assert excess[kept].isfinite().all()


def test_the_summary_is_json_whatever_ran_away() -> None:
    found = run()
    wild = found.excess.clone()
    wild[0], wild[1] = torch.nan, torch.inf
    kept = float(wild[2:].median())
    assert replace(found, excess=wild).summary()["median_excess"] == kept
    nothing = replace(found, excess=wild * torch.nan).summary()
    assert json.dumps(nothing, allow_nan=False) and nothing["median_excess"] is None


@pytest.mark.parametrize("seed", range(5))
def test_random_acceptance_is_at_equal_volume_whatever_ran_away(seed: int) -> None:
    excess = randn(200, seed=seed) * 0.1
    settings = AugmentationConfig(acceptance="random")
    # nothing ran away: the filter's decisions in the order of the draw
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    drawn = aug.accept(excess, settings, torch.Generator().manual_seed(seed))
    assert torch.equal(drawn, (excess < settings.epsilon)[order])
    excess[randn(200, seed=9) > 0.3] = torch.inf
    used = torch.Generator().manual_seed(seed)
    drawn = aug.accept(excess, settings, used)
    assert drawn.sum() == (excess < settings.epsilon).sum()
    assert torch.equal(
        used.get_state(), _after_a_permutation(200, seed)
    )  # as much of the generator as before


def _after_a_permutation(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    torch.randperm(size, generator=generator)
    return generator.get_state()


# ---- D_diff --------------------------------------------------------------------------------------


def test_the_volume_is_exactly_what_was_asked_for() -> None:
    found = run(dataclasses.replace(CONFIG, epsilon=10.0))
    assert len(found.transitions) == 2 * DATASET_SIZE == found.summary()["wanted"]
    assert found.transitions.actions.abs().max() <= 1
    assert found.summary()["simulator_steps"] == 0


def test_what_is_kept_lies_below_epsilon() -> None:
    found = run()
    assert torch.equal(found.accepted, found.excess < CONFIG.epsilon)
    assert 0 < found.summary()["acceptance"] < 1


def test_modes_judge_the_same_trajectories() -> None:
    first, second = (
        run(dataclasses.replace(CONFIG, acceptance=how)).excess for how in ("kl", "random")
    )
    rounds = RandomPolicy.n * CONFIG.starts_per_round
    assert torch.equal(first[:rounds], second[:rounds])


def test_generation_gives_up() -> None:
    cfg = dataclasses.replace(CONFIG, epsilon=0.0, max_attempts=1.0)
    impossible = torch.full((6,), -1.0)
    found = synthesise(
        RandomPolicy(),
        model(),
        STARTS,
        never,
        impossible,
        cfg,
        torch.Generator().manual_seed(0),
        dataset_size=DATASET_SIZE,
        progress=False,
    )
    summary = found.summary()
    assert summary["transitions"] == summary["acceptance"] == 0
    assert summary["trajectories_tried"] * 6 >= summary["wanted"]


def test_simulator_transitions_are_real_and_counted() -> None:
    cfg = dataclasses.replace(CONFIG, transitions="simulator", epsilon=10.0)
    world = World()
    found = run(cfg, world)
    data, summary = found.transitions, found.summary()
    error = (data.next_states - WORLD.mean(data.states, data.actions)[:, :3]) / WORLD.noise[:3]
    assert error.std().item() == pytest.approx(1.0, abs=0.1)
    assert summary["simulator_steps"] == world.steps == summary["trajectories_tried"] * 6
    assert summary["simulator_resets"] == world.resets == summary["trajectories_tried"]


def test_a_world_unlike_the_model_is_filtered_out() -> None:
    cfg = dataclasses.replace(CONFIG, transitions="simulator", epsilon=0.05)
    near, far = run(cfg, World()).summary(), run(cfg, World(offset=2.0)).summary()
    assert near["acceptance"] > 0.3
    assert far["acceptance"] < 0.05


def test_the_same_generator_repeats() -> None:
    first, second = run(), run()
    for a, b in zip(first.transitions.tensors(), second.transitions.tensors(), strict=True):
        assert torch.equal(a, b)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ratio", 0.0),
        ("horizon", 0),
        ("epsilon", -0.1),
        ("transitions", "modle"),
        ("acceptance", "none"),
        ("covariance", "full"),
        ("starts_per_round", 0),
        ("max_attempts", 0.5),
    ],
)
def test_bad_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        AugmentationConfig(**{name: value})  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="simulator"):
        run(dataclasses.replace(CONFIG, transitions="simulator"))
    with pytest.raises(UsageError, match="horizon"):
        aug.reference_costs(model(), *WORLD.sequences(4, 3), CONFIG)
    arguments = (reference(), CONFIG, torch.Generator())
    with pytest.raises(UsageError, match="T_o"):
        synthesise(RandomPolicy(), model(), STARTS[:, :1], never, *arguments, dataset_size=10)
    with pytest.raises(UsageError, match="empty"):
        synthesise(RandomPolicy(), model(), STARTS[:0], never, *arguments, dataset_size=10)


def test_a_horizon_beyond_every_held_out_episode_is_refused() -> None:
    data = hand_made([5, 3, 4], [1.0, 1.0, 1.0])
    held = torch.arange(5, 12)  # the second and the third
    aug.check_horizon("horizon", 3, data, held)
    with pytest.raises(UsageError, match="horizon=4: must be at most 3"):
        aug.check_horizon("horizon", 4, data, held)


def test_golden() -> None:
    found = run()
    tensors = {"excess": found.excess, "reference": reference()}
    check_golden("augmentation", tensors, aug.REVISION)
