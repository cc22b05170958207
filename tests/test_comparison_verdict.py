"""What E3's tables say, on tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from uepo_lib.claims import LABELS
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


def test_a_share_of_a_base_that_is_not_positive_is_not_defined() -> None:
    """Theirs are −40 a task: divided by their total, 10 points gained would read as a loss."""
    scores, online = tables(10.0, 0.2)
    gained = says.gains(scores.assign(offline=scores["offline"] - 100),
                        online.assign(end=online["end"] - 100), says.PAIRS)  # fmt: skip
    assert (gained.loc[gained["measure"] == "end", "gain"] > 0).all()
    for measure in ("offline", "end"):
        found, verdict = says.relative_claim(gained, measure, "locomotion")
        assert np.isnan([found.mean, found.low, found.high]).all()
        assert verdict == says.UNTESTABLE and verdict in LABELS
    text, verdict = says.relative_told(gained, "end", "hand") or ("", "")
    assert text == "not defined (the base is not positive) on pen-cloned"
    assert verdict == says.UNTESTABLE


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


def test_aggregates_stand_beside_those_without_the_tuning_task() -> None:
    gained = says.gains(*tables(1.0, 1.0), says.PAIRS)
    found = says.aggregates(gained).set_index("over")
    assert (found.loc["all tasks", "tasks"] == 3).all()
    assert (found.loc["without hopper-medium", "tasks"] == 2).all()
    alone = says.aggregates(gained[gained["task"] == TASKS[0]])
    assert set(alone["over"]) == {"all tasks"}
    imported = gained.replace({"task": {TASKS[0]: "hopper-medium@d4rl"}})
    assert set(says.untuned(imported)["task"]) == set(TASKS[1:])


@pytest.mark.parametrize(
    ("task", "between_means"),
    [("hopper-medium-replay", 60 / 9), ("hopper-medium", 150 / 9), ("pen-cloned", 60 / 9)],
)
def test_interquartile_means_weigh_the_middle_task_and_paired_gains_do_not(
    task: str, between_means: float
) -> None:
    levels = dict(zip(TASKS, (100.0, 45.0, 140.0), strict=True))
    gained = pd.DataFrame(
        [
            {"pair": "headline", "measure": "end", "task": name, "seed": seed,
             "theirs": level + seed / 100, "ours": level + seed / 100 + 30 * (name == task)}
            for name, level in levels.items() for seed in range(5)
        ]
    )  # fmt: skip
    row = says.aggregate(gained.assign(gain=gained["ours"] - gained["theirs"])).iloc[0]
    assert row["paired"] == pytest.approx(10.0)
    assert row["paired_low"] == pytest.approx(row["paired_high"])  # equal on every seed
    assert row["gain"] == pytest.approx(between_means, abs=0.01)  # 2, 5 and 2 runs of a task count


def test_the_hand_is_every_task_of_its_robots() -> None:
    names = ["pen-cloned", "hammer-human@minari", "door-human@minari", "relocate-human@minari",
             "hopper-medium", "walker2d-medium@d4rl"]  # fmt: skip
    table = pd.DataFrame({"task": names})
    assert says.of_family(table, "hand")["task"].tolist() == names[:4]
    assert says.of_family(table, "locomotion")["task"].tolist() == names[4:]


def test_the_relative_claim_is_told_without_the_tuning_task_and_with_kappa_1() -> None:
    scores, online = tables(6.0, 0.0)
    printed = [t[t["row"] == "uni_o4"].assign(row="uepo_printed") for t in (scores, online)]
    online_printed = printed[1][printed[1]["task"] == TASKS[0]]
    gained = says.gains(
        pd.concat([scores, printed[0]]), pd.concat([online, online_printed]), says.PAIRS
    )
    ten = "[+10.0%, +10.0%]"
    both = "hopper-medium, hopper-medium-replay"
    text, verdict = says.relative_told(gained, "end", "locomotion") or ("", "")
    assert text == (
        f"+10.0% {ten} on {both}; without hopper-medium +10.0% {ten}; "
        "with κ = 1 alone +0.0% [+0.0%, +0.0%] on hopper-medium"
    )
    assert verdict == "supported"
    hand, _ = says.relative_told(gained, "end", "hand") or ("", "")
    assert hand == f"+10.0% {ten} on pen-cloned"
    assert says.relative_told(gained[gained["task"] == TASKS[0]], "end", "hand") is None


def test_the_lead_is_split_by_what_offline_ppo_did() -> None:
    """UEPO 6 ahead of Uni-O4, which lost 4 by its offline PPO, and 6 ahead of cloning."""
    scores, online = tables(6.0, 0.0)
    for row, less in (("uni_o4_select", 2.0), ("bc", 6.0)):
        scores, online = (
            pd.concat([t, t[t["row"] == "uepo"].assign(row=row)]) for t in (scores, online)
        )
        for table, columns in ((scores, ["offline"]), (online, ["auc", "end"])):
            table.loc[table["row"] == row, columns] -= less
    text = says.lead_told(says.aggregates(says.gains(scores, online, says.PAIRS)))
    first, second = text.splitlines()
    assert first.startswith("- all tasks: ") and second.startswith("- without hopper-medium: ")
    assert "leads by +6.0 and +6.0 points" in first and "equal row, by +2.0 and +2.0" in first
    assert "So -4.0 and -4.0 are" in first and first.endswith("UEPO leads by +6.0 and +6.0.")


def test_a_mean_over_many_policies_is_compared_over_the_same_episodes() -> None:
    rows = [
        {"task": "t", "seed": seed, "row": row, "offline": full, "sampled": full, "few": few}
        for seed in range(2)
        for row, full, few in (("kappa_1", 50.0, 50.0), ("fresh", 90.0, 44.0),
                               ("random", 60.0, 60.0), ("uepo", 90.0, 63.0))
    ]  # fmt: skip
    online = pd.DataFrame({"task": [], "seed": [], "row": [], "auc": [], "end": []})
    gained = says.gains(pd.DataFrame(rows), online, says.SWAPS)
    means = gained.groupby("pair")["gain"].mean()
    assert means["fixed noise, not fresh, both κ = 1"] == 6.0
    assert means["(i, κ) by AM-Q, not at random"] == 3.0
    assert means["(i, κ) by AM-Q, not fresh noise (also κ against 1)"] == 0.0


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
