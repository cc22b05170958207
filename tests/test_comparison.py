"""Every contender of E3 on a tiny budget: one object offline and online, equal budgets, tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import settled, tiny

from uepo_lib import learners, shift, stages
from uepo_lib.chain import ChainActor
from uepo_lib.experiments import contenders as contending
from uepo_lib.experiments import offline_to_online, three_datasets
from uepo_lib.experiments.comparison_verdict import ONLINE_ONLY
from uepo_lib.experiments.contenders import (
    Contender,
    contenders,
    online_only,
    privileged,
    simulator_steps,
)
from uepo_lib.experiments.offline_to_online import COMPARISONS, Comparison, Measured
from uepo_lib.experiments.online_summary import efficiency, expert_level, summary
from uepo_lib.figures.comparison import NAMES
from uepo_lib.methods.uepo import UEPOConfig, uepo
from uepo_lib.methods.uni_o4 import uni_o4
from uepo_lib.soft_actor_critic import soft_actor_critic
from uepo_lib.stages import Study
from uepo_lib.subpolicies import SubPolicies

LEAST = ("scratch", "bc", "uni_o4", "uepo_ppo", "mse", "fresh")
ACTING = ("bc", "bc_chunk", "mse", "iql", "uni_o4", "distilled", "kappa_0", "uepo",
          "uepo_printed", "uepo_ppo")  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with settled(tmp_path_factory.mktemp("comparison")):
        yield tiny()


@pytest.fixture(scope="module")
def rows(study: Study) -> dict[str, Contender]:
    return contenders(study)


@pytest.fixture(scope="module")
def measured(study: Study) -> Measured:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline_to_online, "TUNING_TASK", "none")
        return offline_to_online.measure(study, Comparison((study.task.name,), LEAST))


def policy_of(rows: dict[str, Contender], name: str) -> Any:
    product = rows[name].policy
    assert product is not None
    return product.value


@pytest.mark.parametrize("name", ACTING)
def test_one_object_acts_offline_and_online(
    study: Study, rows: dict[str, Contender], name: str
) -> None:
    """Noise-free actions bit-equal across the switch; what explores has the same mean and σ."""
    offline = policy_of(rows, name)
    online = stages._online_actor(offline)
    states = study.starts(32, "test")
    assert torch.equal(online.act(states[None]), offline.act(states[None]))
    again = learners.chain_actor(offline) if isinstance(offline, SubPolicies) else offline
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    (a, path), (b, other) = (
        each.sample_path(states, g) for each, g in zip((again, online), generators, strict=True)
    )
    assert torch.equal(a, b) and torch.equal(path, other)
    kl = again.path_kl(online, states, path)  # the closed form of means and stds, by level
    assert float(kl.detach().abs().max()) < 1e-5
    assert any(p.requires_grad for p in online.parameters())


def test_the_improved_chain_goes_online_as_it_is(rows: dict[str, Contender]) -> None:
    improved = policy_of(rows, "uepo_ppo")
    online = stages._online_actor(improved)
    assert isinstance(online, ChainActor)
    assert all(torch.equal(v, improved.state_dict()[k]) for k, v in online.state_dict().items())
    assert not any(p.requires_grad for p in online.frozen.parameters())
    assert all(p.requires_grad for p in online.model.parameters())


def test_a_random_candidate_scores_the_mean_over_all_that_am_q_chooses_from(
    measured: Measured, rows: dict[str, Contender]
) -> None:
    assert rows["random"].policy is None and len(rows["random"].sets) == len(UEPOConfig().kappas)
    scores = measured.scores.set_index("row")
    candidates = measured.selection.query("method == 'UEPO'")
    assert scores.loc["random", "offline"] == pytest.approx(candidates["score"].mean(), rel=1e-5)
    best = candidates.loc[candidates["dead_zero"].idxmax(), "score"]
    assert scores.loc["uepo", "few"] == best  # on the episodes of the candidates
    assert scores.loc["kappa_1", "few"] == scores.loc["kappa_1", "offline"]


def test_the_papers_selection_is_among_kappa_1_alone(
    study: Study, measured: Measured, rows: dict[str, Contender]
) -> None:
    chosen = rows["uepo_printed"].policy
    assert chosen is not None and chosen.config["kappa"] == 1
    ones = measured.selection.query("method == 'UEPO, κ = 1'").reset_index()
    assert chosen.config["member"] == int(ones["dead_zero"].idxmax())
    again = measured.selection.query("method == 'UEPO' and kappa == 1").reset_index()
    assert (ones["dead_zero"] == again["dead_zero"]).all()  # no AM-Q of its own
    initial = measured.selection.query("method == 'UEPO, κ = 1, by T̂_init'")
    assert initial["score"].tolist() == ones["score"].tolist()  # the same candidates


def test_greedy_takes_the_plan_with_the_largest_q(study: Study, rows: dict[str, Contender]) -> None:
    policy = policy_of(rows, "greedy")
    states = study.starts(16, "test")
    plans = policy.proposals.plan_shared(states)
    q = torch.stack([policy.critic.min_q(states[:, -1], plan[:, 0].clamp(-1, 1)) for plan in plans])
    acted = policy.act(states[None])[0]
    for b in range(len(states)):
        assert torch.equal(acted[b], plans[int(q[:, b].argmax()), b, : policy.action_horizon])
    assert len(plans) == 1 + 3 * study.budget.num_subpolicies


def test_bppo_is_uni_o4_with_one_member_and_no_choice(study: Study) -> None:
    single = uni_o4(study, 1)
    assert single.ensemble.value.n == single.best.value.n == 1
    assert uni_o4(study).ensemble.value.n == 4


def test_improving_leaves_the_clones_as_they_were(study: Study) -> None:
    made = uni_o4(study)
    clones = made.ensemble.value
    before = {name: value.clone() for name, value in clones.state_dict().items()}
    improved = made.improved.value
    for parameter in improved.parameters():
        parameter.data.add_(1.0)  # were it one object with the clones, they would move
    assert all(torch.equal(before[name], value) for name, value in clones.state_dict().items())


def test_offline_improvement_is_named(study: Study) -> None:
    from uepo_lib.errors import UsageError

    with pytest.raises(UsageError, match="offline_improvement"):
        uepo(study, UEPOConfig(offline_improvement="pop"))


def test_every_row_has_the_same_budget(measured: Measured, study: Study) -> None:
    online = measured.online
    assert set(online["row"]) == set(LEAST)
    chunk = 8 * 4  # a whole round of chunks of all environments
    spent = online["training_steps"] - study.budget.online_env_steps
    assert (spent >= 0).all() and (spent <= chunk).all()
    played, replayed = online["evaluation_episodes"], study.budget.evaluation_episodes
    assert set(played.max() - played) <= {0, replayed}  # where the best policy is the last one


def test_scores_are_of_every_row(
    measured: Measured, rows: dict[str, Contender], study: Study
) -> None:
    scores = measured.scores.set_index("row")
    assert set(scores.index) == set(rows)
    assert set(scores.index[scores["offline"].isna()]) == {"fresh"}
    assert np.isfinite(
        measured.online.drop(columns=["task", "row", "settings"]).to_numpy(float)
    ).all()


def test_fresh_noise_is_scored_by_itself_and_not_by_its_online_start(
    measured: Measured, rows: dict[str, Contender], study: Study
) -> None:
    """Its first look is from zero noise and its exploration has σ besides: neither is its score."""
    policy = rows["fresh"].policy
    assert policy is not None
    played = study.evaluate(policy, sampled=True).value.returns
    assert played.shape == (1, study.budget.evaluation_episodes)
    score = measured.scores.set_index("row").loc["fresh", "sampled"]
    assert score == study.task.robot.normalised(float(played.mean()))
    assert score != pytest.approx(measured.online.set_index("row").loc["fresh", "start"])


def test_the_privileged_pair_takes_equal_steps(study: Study) -> None:
    """Every step of the simulator is paid back, dropped trajectories' included."""
    pair = privileged(study)
    made, more = pair["uepo_simulator"], pair["uni_o4_more"]
    assert made.privileged is not None and made.online is not None and more.online is not None
    taken = simulator_steps(made.privileged)
    kept = len(made.privileged.value)
    assert taken == made.privileged.run.record["environment"]["augmentation"]["steps"] > kept
    assert more.online.run.spec.config["ppo"]["num_env_steps"] == (
        study.budget.online_env_steps + taken
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no episode of the expert's was played to its end
        ours = summary(made.online.run, study, taken)
    assert ours["censored"] and np.isnan(expert_level(study))
    theirs = summary(more.online.run, study)
    assert (ours["simulator_steps"], theirs["simulator_steps"]) == (taken, 0)
    apart = ours["training_steps"] + taken - theirs["training_steps"]
    assert abs(apart) <= study.budget.env_steps_per_update + 8 * 4


def test_what_learns_online_alone_is_played_on_one_task_of_full_and_paper() -> None:
    played = {name: c for name, c in COMPARISONS.items() if c.online_only is not None}
    assert set(played) == {"full", "paper"}
    assert all(c.online_only in c.tasks for c in played.values())


def test_what_learns_online_alone_is_a_row_with_nothing_offline(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        contending, "soft_actor_critic", partial(soft_actor_critic, learning_starts=256)
    )
    (name,) = online_only(study)
    for played in (None, study.task.name):
        comparison = Comparison((study.task.name,), online_only=played)
        assert (name in offline_to_online._rows(study, comparison)) == (played is not None)
    row = online_only(study)[name]
    assert row.policy is None and row.online is not None
    assert {name, "scratch"} == set(ONLINE_ONLY) and name in NAMES


def test_another_dataset_is_measured_as_e3_measures(
    study: Study, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(three_datasets.DATASETS, study.profile, (study.task.name,))
    table, runs = three_datasets.run(study.profile)
    online = measured.online.set_index("row")
    assert table["row"].tolist() == ["bc", "uni_o4", "uepo"] and len(runs) == 3
    for row, name in (("bc", "bc"), ("uni_o4", "uni_o4")):
        found = table.set_index("row").loc[row]
        assert (found["offline"], found["end"]) == tuple(online.loc[name, ["start", "end"]])


def test_steps_before_the_first_look_count() -> None:
    """50 points for 100 steps of the simulator, then from 50 to 100 in 100 steps."""
    found = efficiency([0, 100], [50.0, 100.0], 75.0, before=100)
    assert found == {"auc": 62.5, "regret": 7_500.0, "to_expert": 150.0, "censored": False}
    plain = efficiency([0, 100], [50.0, 100.0], 75.0)
    assert plain == {"auc": 75.0, "regret": 2_500.0, "to_expert": 50.0, "censored": False}


def test_no_level_is_reached_before_the_simulator_is_paid() -> None:
    assert efficiency([0, 100], [80.0, 90.0], 75.0, before=100)["to_expert"] == 100
    never = efficiency([0, 100], [80.0, 90.0], 95.0, before=100)
    assert never["censored"] and never["to_expert"] == 200


def test_the_summary_is_that_of_the_looks(measured: Measured) -> None:
    for row, looks in measured.curves.groupby("row"):
        summary = measured.online.set_index("row").loc[row]
        assert summary["highest"] == pytest.approx(looks["score"].max())
        assert summary["first_look"] == pytest.approx(looks["score"].iloc[0])
        assert summary["gain"] == pytest.approx(summary["end"] - summary["start"])
        assert looks["score"].min() <= summary["auc"] <= looks["score"].max()
        assert summary["dip_updates"] >= 0
        assert summary["shift"] == looks["shift"].iloc[-1]


def test_am_q_judges_what_it_chose_from(measured: Measured, study: Study) -> None:
    counts = measured.selection.groupby("method").size().to_dict()
    n = study.budget.num_subpolicies
    assert counts == {
        "UEPO": 1 + 3 * n, "UEPO, κ = 1": n, "UEPO, κ = 1, by T̂_init": n, "Uni-O4": 4,
        "Uni-O4, clones": 4,
    }  # fmt: skip


def test_moment_matched_states() -> None:
    """The state shift of data from itself is nothing, and of moved data the closed form."""
    cloud = torch.randn(1, 4_000, 3, generator=torch.Generator().manual_seed(0))
    assert float(shift.moment_matched_kl(cloud, cloud)) == 0
    moved = float(shift.moment_matched_kl(cloud + 1, cloud))
    expected = 0.5 * float((1 / cloud.std(1).square()).sum())
    assert moved == pytest.approx(expected, rel=1e-4)
