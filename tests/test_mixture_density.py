from __future__ import annotations

import pytest
import torch
from diffusion_toys import check_golden, randn, random_windows
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from uepo_lib import mixture_density, toys
from uepo_lib.errors import UsageError
from uepo_lib.mixture_density import MixtureConfig, MixtureDensity, train_mixture

WEIGHTS = (0.4, 0.3, 0.2, 0.1)
TOY = toys.four_modes(WEIGHTS)
TRAINED = train_mixture(MixtureConfig(), TOY, seed=0, progress=False)


def test_the_likelihood_is_that_of_torch() -> None:
    model = MixtureDensity(MixtureConfig(num_components=5, hidden=(16,)), (2, 3), (4, 2), seed=1)
    past, actions = randn(7, 2, 3), randn(7, 4, 2, seed=1)
    log_weight, mean, log_std = model(past)
    oracle = MixtureSameFamily(
        Categorical(logits=log_weight), Independent(Normal(mean, log_std.exp()), 2)
    )
    torch.testing.assert_close(model.log_prob(past, actions), oracle.log_prob(actions))
    low, high = model.config.log_std_range
    assert (log_std > low).all() and (log_std < high).all()


def test_training_recovers_the_doors_with_their_weights() -> None:
    states = TOY.draw_states(100, torch.Generator().manual_seed(1))
    log_weight, mean, log_std = TRAINED(TOY.past(states))
    heading = TOY.headings(mean.movedim(1, 0), states)  # (M, B)
    share = [float((log_weight.exp().T * (heading == m)).sum(dim=0).mean()) for m in range(4)]
    assert share == pytest.approx(WEIGHTS, abs=0.03)
    assert log_std.exp().median() == pytest.approx(TOY.std, rel=0.3)


def test_training_comes_near_the_best_possible_likelihood() -> None:
    """Under the truth, log p = log w + log N: only the entropy of mode and noise is left."""
    held = toys.four_modes(WEIGHTS, seed=5, size=1000)
    noise = Normal(0.0, TOY.std).log_prob(
        held.actions - held.means(held.states)[torch.arange(1000), held.modes]
    )
    best = (TOY.weights[held.modes].log() + noise.sum(dim=(-2, -1))).mean()
    found = TRAINED.log_prob(held.past(held.states), held.actions).mean()
    assert best - 1.5 < found < best + 0.05


def test_quantiles_draw_from_the_weights() -> None:
    state = torch.zeros(1, 2)
    drawn = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0))
    plans = TRAINED.plan(TOY.past(state), drawn)
    assert plans.shape == (20_000, 1, 8, 2)
    share = torch.bincount(TOY.mode_of(plans)[:, 0], minlength=4) / 20_000
    weights, mean, _ = TRAINED(TOY.past(state))
    by_door = [float(weights.exp()[0, TOY.mode_of(mean)[0] == m].sum()) for m in range(4)]
    torch.testing.assert_close(share, torch.tensor(by_door), atol=0.01, rtol=0)
    ends = TRAINED.plan(TOY.past(state), torch.tensor([[0.0], [1.0]]))
    assert torch.equal(ends[:, 0], mean[0, [0, -1]].clamp(-1, 1))


def test_the_same_seed_trains_the_same_network() -> None:
    short = MixtureConfig(num_updates=5)
    one, again, other = (train_mixture(short, TOY, seed=s, progress=False) for s in (0, 0, 1))
    past, actions = TOY.past(TOY.states[:5]), TOY.actions[:5]
    assert torch.equal(one.log_prob(past, actions), again.log_prob(past, actions))
    assert not torch.equal(one.log_prob(past, actions), other.log_prob(past, actions))


def test_golden() -> None:
    cfg = MixtureConfig(num_components=3, hidden=(16,), num_updates=6, batch_size=16)
    windows = random_windows(200, 3, 8, 2)
    model, some = train_mixture(cfg, windows, seed=0, progress=False), torch.arange(6)
    past, actions, _ = windows.batch(some)
    plans = model.plan(past, torch.tensor([[0.2], [0.8]]).expand(2, 6))
    found = {"log_prob": model.log_prob(past, actions), "plans": plans}
    check_golden("mixture_density", found, mixture_density.REVISION, atol=1e-3)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="num_components=0"):
        MixtureConfig(num_components=0)
    with pytest.raises(UsageError, match="log_std_range"):
        MixtureConfig(log_std_range=(0.0, -1.0))
    with pytest.raises(UsageError, match="centres"):
        MixtureDensity(MixtureConfig(), (2, 2), (8, 2)).start_from(torch.zeros(3, 8, 2))
