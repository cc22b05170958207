"""What E3's tables say, on tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from uepo_lib.claims import LABELS
from uepo_lib.errors import UsageError
from uepo_lib.experiments import comparison_verdict as says
from uepo_lib.statistics import Interval, mean_interval

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


def two_tasks(**gains: tuple[float, ...]) -> pd.DataFrame:
    """A headline of five seeds with noise of 1 on tasks of level 100 and 40, ahead by ``gains`` in
    (Hopper-medium, pen)."""
    rows = [
        {"pair": "headline", "measure": measure, "task": task, "seed": seed, "theirs": level,
         "ours": level + gain + (seed - 2) / 2, "gain": gain + (seed - 2) / 2}
        for measure, both in gains.items()
        for task, level, gain in zip(("hopper-medium", "pen-cloned"), (100.0, 40.0), both,
                                     strict=True)
        for seed in range(5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_gain_of_the_tuning_task_alone_is_no_verdict() -> None:
    found = says.aggregate(two_tasks(offline=(30.0, -5.0), auc=(-30.0, 5.0), end=(30.0, 2.0)))
    assert (found["low"] * found["high"] > 0).all() and (found["t_low"] * found["t_high"] > 0).all()
    assert found["verdict"].tolist() == ["inconclusive", "inconclusive", "supported"]
    alone = says.aggregate(two_tasks(offline=(30.0, -5.0)).query("task == 'hopper-medium'"))
    assert alone["verdict"].tolist() == ["supported"]  # there is no other task to ask


def test_a_difference_between_two_tasks_alone_is_no_verdict() -> None:
    """Theirs lead by 15 where most is trimmed away, ours by 10 on the task in the middle."""
    rows = [
        {"pair": "headline", "measure": "end", "task": task, "seed": seed,
         "theirs": theirs + noise, "ours": ours - noise, "gain": ours - theirs - 2 * noise}
        for task, ours, theirs in zip(TASKS, (60.0, 10.0, 110.0), (50.0, 10.0, 125.0), strict=True)
        for seed, noise in enumerate((-0.2, -0.1, 0.0, 0.1, 0.2))
    ]  # fmt: skip
    row = says.aggregate(pd.DataFrame(rows)).iloc[0]
    assert row["low"] > 0 and row["paired_high"] < 0 and row["t_high"] < 0
    assert row["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("ways", "elsewhere", "label"),
    [([(1, 9), (2, 8)], np.nan, "supported"), ([(1, 9), (2, 8)], 0.5, "supported"),
     ([(1, 9), (2, 8)], -0.5, "inconclusive"), ([(1, 9), (-2, 8)], np.nan, "inconclusive"),
     ([(-9, -1), (-8, -2)], np.nan, "not supported"), ([(-9, -1), (-8, -2)], -1, "not supported"),
     ([(-9, -1), (-8, -2)], 0.5, "inconclusive"), ([(-9, -1), (2, 8)], np.nan, "inconclusive"),
     ([(-9, 1), (-8, 2)], -0.5, "inconclusive")],
)  # fmt: skip
def test_a_label_is_one_that_all_ways_agree_on(
    ways: list[tuple[float, float]], elsewhere: float, label: str
) -> None:
    intervals = [Interval((low + high) / 2, low, high) for low, high in ways]
    assert says.agreed(intervals, 5, elsewhere) == label
    assert says.agreed(intervals, 4, elsewhere) == "inconclusive"


def test_students_interval_is_over_seeds_of_the_mean_over_tasks() -> None:
    gains = np.array([[1.0, 3.0], [4.0, 6.0], [8.0, 8.0]])
    assert says.over_seeds(gains) == mean_interval([2.0, 5.0, 8.0])
    single = says.over_seeds(gains[:1])
    assert single.mean == 2 and np.isnan([single.low, single.high]).all()


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
