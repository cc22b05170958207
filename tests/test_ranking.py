"""Copies are what they are called, shares equal their definitions, judges who know are right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusion_toys import check_golden, randn, small_model
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_study import settle, tiny
from torch.distributions import Normal

from uepo_lib import behaviors, judging, ranking, toys
from uepo_lib.datasets import Batch
from uepo_lib.errors import UsageError
from uepo_lib.locomotion import HOPPER
from uepo_lib.stages import Study

SIGMA = torch.tensor([0.5, 0.1])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_shuffled_copy_has_the_same_steps_in_another_order() -> None:
    actions = torch.tanh(randn(200, 8, 2))
    copy = ranking.spoilt(actions, SIGMA, seeded(0))["shuffled"]
    torch.testing.assert_close(copy.sort(dim=1)[0], actions.sort(dim=1)[0])
    assert (copy != actions).any(dim=(1, 2)).all()
    order = (copy[:, :, None] == actions[:, None]).all(dim=-1).float().argmax(dim=-1)
    torch.testing.assert_close(copy, actions.take_along_dim(order[..., None], dim=1))
    assert len(order.unique(dim=0)) > 190  # each row its own


def test_noises_are_multiples_of_one_draw_and_stay_in_the_box() -> None:
    actions = torch.tanh(3 * randn(500, 8, 2))
    copies = ranking.spoilt(actions, SIGMA, seeded(0))
    small, large = (copies[f"noise {scale:g}"] for scale in (0.125, 0.5))
    inside = (large.abs() < 1) & (small.abs() < 1)
    torch.testing.assert_close(
        (large - actions)[inside], 4 * (small - actions)[inside], atol=1e-6, rtol=0
    )
    assert large.abs().max() == 1
    middle = ranking.spoilt(torch.zeros(500, 8, 2), SIGMA, seeded(0))["noise 0.5"]
    torch.testing.assert_close(middle.std(dim=(0, 1)), 0.5 * SIGMA, atol=0, rtol=0.05)


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=12), st.data())
def test_auc_is_mann_and_whitneys(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(-4, 4), min_size=len(first), max_size=len(first)))
    x, y = torch.tensor(first).float(), torch.tensor(second).float()
    expected = stats.mannwhitneyu(first, second).statistic / len(first) ** 2
    assert ranking.auc(x, y) == pytest.approx(expected)
    wins = [(a > b) + (a == b) / 2 for a, b in zip(first, second, strict=True)]
    assert ranking.pairs_won(x, y) == pytest.approx(sum(wins) / len(wins), abs=1e-6)


def test_a_model_that_knows_ranks_as_it_should() -> None:
    toy = toys.four_modes(size=600)
    model = toys.exact_model(toy, num_train_steps=20)
    batch = toy.batch(torch.arange(100))
    copies = ranking.spoilt(batch.actions, toy.actions.std(dim=(0, 1)), seeded(0))
    scores = ranking.by_model(model, batch, copies, toy.batch(torch.arange(100, 600)), 0)
    for judge in ("past", "whole", "flow"):
        logged = scores[f"{judge}.logged"]
        assert ranking.pairs_won(logged, scores[f"{judge}.shuffled"]) > 0.98
        assert ranking.pairs_won(logged, scores[f"{judge}.noise 0.5"]) == 1
    assert len(scores["flow.logged"]) == 10
    areas = [
        ranking.auc(scores["past.logged"], scores[f"past.noise {c:g}"]) for c in ranking.SCALES
    ]
    assert areas == sorted(areas) and areas[0] < 0.9 < areas[-1]


def test_copies_share_their_noise_and_the_future_counts_where_it_is_shown() -> None:
    model, actions = small_model(), torch.tanh(randn(6, 8, 2))
    batch = Batch(randn(6, 2, 3, seed=1), actions, randn(6, 7, 3, seed=2))
    copies = {name: actions for name in ("logged", "shuffled", f"noise {max(ranking.SCALES):g}")}
    scores = ranking.by_model(model, batch, copies, batch, 3)
    for judge in ("past", "whole", "flow"):
        assert torch.equal(scores[f"{judge}.logged"], scores[f"{judge}.shuffled"])
    other = ranking.by_model(model, batch._replace(future=-batch.future), copies, batch, 3)
    assert torch.equal(scores["past.logged"], other["past.logged"])
    assert not torch.allclose(scores["whole.logged"], other["whole.logged"], atol=1e-4)


def test_the_policy_that_acted_scores_with_its_own_density() -> None:
    policy = behaviors.load_behaviour(HOPPER, "expert")
    states = randn(5, 8, HOPPER.state_dim)
    mean = policy.mean_action(states.flatten(0, 1)).view(5, 8, -1)
    std = torch.tensor([0.1, 0.2, 0.3])
    inside = mean.clamp(-0.5, 0.5)
    found = ranking.by_behaviour(policy, std, states, {"logged": inside})["behaviour.logged"]
    expected = Normal(mean, std).log_prob(inside).sum(dim=(1, 2))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=1e-3)


def test_the_stage_scores_episodes_that_the_dataset_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch, tmp_path / "results", tmp_path / "data")
    study = tiny()
    product = judging.rank_sequences(study, study.diffusion_policy())
    scores, names = product.value, {"past", "whole", "flow", "behaviour"}
    assert {name.partition(".")[0] for name in scores} == names
    assert all(bool(values.isfinite().all()) for values in scores.values())
    assert len(scores["past.logged"]) == 10 and len(scores["flow.logged"]) == 1
    assert product.run.record["environment"]["evaluation"]["steps"] > 0

    fresh = judging.held_out_episodes(study, 80)
    assert fresh.normaliser is study.dataset.normaliser
    known = {tuple(row) for row in study.dataset.states.tolist()}
    assert not any(tuple(row) in known for row in fresh.states.tolist())
    with pytest.raises(UsageError, match="task='pen-human@minari'"):
        judging.held_out_episodes(Study("pen-human@minari", 0, "tiny", progress=False), 80)


def test_golden() -> None:
    model, actions = small_model(), torch.tanh(randn(4, 8, 2))
    batch = Batch(randn(4, 2, 3, seed=1), actions, randn(4, 7, 3, seed=2))
    copies = ranking.spoilt(actions, SIGMA, seeded(0))
    chosen = {name: copies[name] for name in ("logged", "shuffled", "noise 0.5")}
    scores = ranking.by_model(model, batch, chosen, batch, 0)
    check_golden("ranking", {**chosen, **scores}, ranking.REVISION, atol=2e-2)
