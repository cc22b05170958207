"""What E3's tables say, on tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from uepo_lib.errors import UsageError
from uepo_lib.experiments import comparison_verdict as says

TASKS = ("hopper-medium", "hopper-medium-replay", "pen-cloned")


def tables(
    gain: float, spread: float, seeds: int = 5, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """UEPO's scores are Uni-O4's plus ``gain``, with noise of ``spread`` on each."""
    draw = np.random.default_rng(seed)
    scores, online = [], []
    for task in TASKS:
        for s in range(seeds):
            for row, mean in (("uni_o4", 60.0), ("uepo", 60.0 + gain), ("fresh", 40.0)):
                value = mean + spread * draw.standard_normal()
                facts = {"task": task, "seed": s, "row": row}
                known = np.nan if row == "fresh" else value
                scores.append({**facts, "offline": known, "sampled": value})
                online.append({**facts, "auc": value, "end": value})
    return pd.DataFrame(scores), pd.DataFrame(online)


def aggregate(gain: float, spread: float, seeds: int = 5) -> pd.DataFrame:
    return says.aggregate(says.gains(*tables(gain, spread, seeds), says.PAIRS))


@pytest.mark.parametrize(
    ("gain", "spread", "label"),
    [(10.0, 1.0, "supported"), (-10.0, 1.0, "not supported"), (0.5, 20.0, "inconclusive")],
)
def test_supporting_opposing_and_unclear_tables_get_their_labels(
    gain: float, spread: float, label: str
) -> None:
    found = aggregate(gain, spread)
    assert set(found["pair"]) == {"headline"} and len(found) == len(says.MEASURES)
    assert set(found["verdict"]) == {label}
    assert (found["low"] <= found["gain"]).all() and (found["gain"] <= found["high"]).all()


def test_three_seeds_never_pass_inconclusive() -> None:
    assert set(aggregate(50.0, 0.1, seeds=3)["verdict"]) == {"inconclusive"}


def test_probability_of_improvement_is_that_of_the_gain() -> None:
    assert (aggregate(30.0, 1.0)["probability"] == 1).all()
    assert (aggregate(-30.0, 1.0)["probability"] == 0).all()


@pytest.mark.parametrize(
    ("gain", "label"), [(6.0, "supported"), (1.0, "partly"), (-3.0, "not supported")]
)
def test_the_claim_is_relative_to_their_total(gain: float, label: str) -> None:
    """5.9 % of 60 points are 3.5: a gain of 6 reaches it, one of 1 is real but short of it."""
    gained = says.gains(*tables(gain, 0.2), says.PAIRS)
    found, verdict = says.relative_claim(gained, "end", "locomotion")
    assert found.mean == pytest.approx(gain / 60, abs=0.01)
    assert verdict == label


def test_gains_are_paired_and_the_mean_of_tasks() -> None:
    scores, online = tables(7.0, 0.0)
    gained = says.gains(scores, online, says.PAIRS)
    np.testing.assert_allclose(gained["gain"], 7.0)
    by_task = says.by_task(says.gains(*tables(7.0, 1.0), says.PAIRS))
    assert set(by_task["task"]) == set(TASKS) and (by_task["seeds"] == 5).all()
    assert ((by_task["low"] < 7.5) & (by_task["high"] > 6.5)).all()


def test_fresh_noise_has_its_sampled_score_and_online_rows_no_offline_one() -> None:
    scores, online = tables(0.0, 0.0)
    extra = pd.DataFrame([{"task": TASKS[0], "seed": 0, "row": row, "offline": 3.0, "sampled": 1.0}
                          for row in ("scratch", "sac")])  # fmt: skip
    offline = says.wide(pd.concat([scores, extra]), online, "offline")
    assert not {"scratch", "sac"} & set(offline) and (offline["fresh"] == 40).all()


def test_a_task_with_fewer_seeds_is_refused() -> None:
    gained = says.gains(*tables(1.0, 1.0), says.PAIRS)
    lacking = gained[(gained["task"] != TASKS[0]) | (gained["seed"] != 0)]
    with pytest.raises(UsageError, match="seeds"):
        says.aggregate(lacking)


def test_the_tuning_task_can_be_left_out() -> None:
    gained = says.gains(*tables(1.0, 1.0), says.PAIRS)
    assert set(says.aggregate(gained, (TASKS[0],))["tasks"]) == {2}


def online_row(**changes: float) -> dict[str, float]:
    sound = {"start": 60.0, "end": 70.0, "gain": 10.0, "first_look": 50.0, "last_three": 68.0,
             "highest": 70.0, "shift": 0.5}  # fmt: skip
    return {**sound, **changes}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, None),
        ({"highest": 90.0}, "holds"),
        ({"last_three": 49.0, "highest": 51.0}, "not_below_start"),
        ({"shift": 0.001}, "moved"),
    ],
)
def test_each_rule_of_stability_fails_by_itself(
    changes: dict[str, float], failed: str | None
) -> None:
    rows = [{"row": "uepo", "task": "t", "seed": s, **online_row(**changes)} for s in range(3)]
    found = says.stability(pd.DataFrame(rows)).iloc[0]
    for rule in ("holds", "not_below_start", "moved"):
        assert found[rule] == (0 if rule == failed else 1), rule


def test_offline_improvement_compares_the_same_members() -> None:
    rows = [
        {
            "task": "t",
            "seed": s,
            "method": method,
            "member": i,
            "score": 10.0 * i + bonus + s,
            "sampled": 10.0 * i - 2 * bonus + s,
            "dead_zero": 200.0 if method == "Uni-O4" else 100.0,
        }
        for s in range(3)
        for i in range(4)
        for method, bonus in (("Uni-O4, clones", 0.0), ("Uni-O4", 5.0), ("UEPO", 99.0))
    ]
    table = says.offline_improvement(pd.DataFrame(rows)).set_index("actions")
    for actions, gain in (("noise-free", 5.0), ("sampled", -10.0)):
        found = table.loc[actions]
        assert found["gain"] == found["low"] == found["high"] == pytest.approx(gain)
        assert found["after"] - found["before"] == pytest.approx(gain)
        assert found["judged"] == pytest.approx(100.0)


def test_am_q_is_judged_by_rank_and_by_what_its_choice_loses() -> None:
    truth = [10.0, 40.0, 30.0, 20.0]
    rows = [
        {"task": "t", "seed": 0, "method": method, "dead_zero": judge[i], "score": truth[i]}
        for method, judge in (("knows", truth), ("reversed", [-x for x in truth]),
                              ("silent", [1.0] * 4))
        for i in range(4)
    ]  # fmt: skip
    found = says.judged(pd.DataFrame(rows)).set_index("method")
    assert found.loc["knows", "correlation"] == 1 and found.loc["knows", "regret"] == 0
    assert found.loc["reversed", "correlation"] == -1 and found.loc["reversed", "regret"] == 30
    assert np.isnan(found.loc["silent", "correlation"])
    assert (found["mean"] == 25).all() and (found["best"] == 40).all()


def test_every_swap_names_rows_that_exist() -> None:
    from uepo_lib.figures.comparison import NAMES

    rows = {row for pair in (*says.PAIRS.values(), *says.SWAPS.values()) for row in pair}
    assert rows <= set(NAMES)


def test_privileged_rows_are_compared_with_each_other_alone() -> None:
    swapped = {row for pair in says.SWAPS.values() for row in pair}
    assert not swapped & {"uepo_simulator", "uni_o4_more"}
    assert says.PAIRS["privileged, equal steps"] == ("uepo_simulator", "uni_o4_more")


def test_what_comes_with_the_policy_class_is_counted() -> None:
    text = says.comes_with(candidates=25, members=4, chunk=4, single=1)
    assert "4 executed actions a decision against 1" in text
    assert "25 pairs (i, κ) against one among 4 members" in text


def one_swap(pair: str, gain: float, tasks: tuple[str, ...] = TASKS) -> list[tuple]:
    return [
        (pair, measure, task, seed, gain + seed - 1)
        for measure in ("offline", "end") for task in tasks for seed in range(3)
    ]  # fmt: skip


def test_swaps_are_ranked_only_where_all_tasks_played_them() -> None:
    zero, random = says.BY_AM_Q
    rows = [
        *one_swap(zero, 2.0), *one_swap(random, 15.0, TASKS[:1]), *one_swap("small", -3.0),
        *one_swap("elsewhere", 80.0, TASKS[1:]),
    ]  # fmt: skip
    text = says.swaps_told(pd.DataFrame(rows, columns=["pair", "measure", "task", "seed", "gain"]))
    assert "the 2 of 4 swaps" in text
    assert f"**{zero}** adds most (+2.0 points) and **small** least (-3.0)" in text
    assert "changes the offline score by +2.0 points against κ = 0 and by +15.0" in text
    assert f"against a random candidate (on {TASKS[0]} alone)." in text
    assert text.endswith("is -3.0 points, of *small*.")
    assert "elsewhere" not in text
