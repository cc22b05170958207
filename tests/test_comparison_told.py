"""What the notebook of E3 says in sentences, on tables whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from uepo_lib.experiments import comparison_told as tells
from uepo_lib.experiments import comparison_verdict as says
from uepo_lib.experiments.comparison_selection import judged, offline_phase

TASKS = ("hopper-medium", "pen-cloned")
LEVELS = {"uepo": 66.0, "uni_o4": 60.0, "uni_o4_select": 64.0, "bc": 59.0, "iql": 70.0}


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    facts = [
        {"task": task, "seed": seed, "row": row, "offline": level, "sampled": level, "auc": level,
         "end": level}
        for task in TASKS for seed in range(5) for row, level in LEVELS.items()
    ]  # fmt: skip
    table = pd.DataFrame(facts)
    return table.drop(columns=["auc", "end"]), table.drop(columns=["offline", "sampled"])


def known(**gains: float) -> pd.DataFrame:
    """Members 50, 60 and 70 after cloning, of which AM-Q takes the best; offline PPO adds ``gains``
    by task (underscores for hyphens), and AM-Q then takes the worst."""
    rows = [
        {"task": task, "seed": seed, "method": method, "dead_zero": sign * i,
         **dict.fromkeys(("score", "even", "odd"), 50.0 + 10 * i + gain * (sign < 0) + seed)}
        for task in TASKS
        for gain in (gains.get(task.replace("-", "_"), 0.0),)
        for seed in range(2)
        for method, sign in (("Uni-O4, clones", 1), ("Uni-O4", -1), ("UEPO", 1))
        for i in range(3)
    ]  # fmt: skip
    return judged(pd.DataFrame(rows))


def test_offline_ppo_and_the_choice_after_it_are_told_apart() -> None:
    found = offline_phase(known(hopper_medium=6.0, pen_cloned=2.0))
    assert found["members"].tolist() == [6.0, 2.0] and found["choice"].tolist() == [-20.0, -20.0]
    assert found["chosen"].tolist() == [56.5, 52.5] and found["mean"].tolist() == [66.5, 62.5]


def test_the_lead_is_split_by_what_offline_ppo_and_the_choice_did() -> None:
    """UEPO 6 ahead of Uni-O4, which lost 4 by its offline phase, though its members won."""
    headline = says.aggregates(says.gains(*tables(), says.PAIRS))
    text = tells.lead_told(headline, known(hopper_medium=6.0, pen_cloned=2.0))
    first, second = text.splitlines()
    assert first.startswith("- all tasks: ") and second.startswith("- without hopper-medium: ")
    assert "gain is +6.0 and +6.0 points" in first and "equal row, +2.0 and +2.0." in first
    assert "So -4.0 and -4.0 are what offline PPO and AM-Q's choice among its members did" in first
    assert "changed their mean by +4.0" in first and "changed their mean by +2.0" in second
    assert "adds to that mean changed by -20.0." in first
    assert first.endswith("UEPO's gain is +7.0 and +7.0, over IQL -4.0 and -4.0.")


def test_the_choice_inside_the_baseline_is_told_by_task() -> None:
    by_task = says.by_task(says.gains(*tables(), says.PAIRS))
    first, second = tells.choice_told(by_task, known(hopper_medium=6.0)).splitlines()
    assert first == (
        "- hopper-medium: UEPO's gain is +6.0 points. The improved member that AM-Q chooses scores "
        "56.5, their mean 66.5: a choice at random would change Uni-O4 by +10.0."
    )
    assert second.startswith("- pen-cloned: UEPO's gain is +6.0 points.")


def test_what_comes_with_the_policy_class_is_counted() -> None:
    text = tells.comes_with(candidates=25, members=4, chunk=4, single=1)
    assert "4 executed actions a decision against 1" in text
    assert "25 pairs (i, κ) against one among 4 members" in text


def one_swap(
    pair: str, gain: float, tasks: tuple[str, ...] = TASKS, measures: str = "offline end"
) -> list[tuple]:
    return [
        (pair, measure, task, seed, gain + seed - 1)
        for measure in measures.split() for task in tasks for seed in range(3)
    ]  # fmt: skip


def told(rows: list[tuple]) -> str:
    columns = ["pair", "measure", "task", "seed", "gain"]
    return tells.swaps_told(pd.DataFrame(rows, columns=columns))


def test_swaps_are_ranked_only_where_all_tasks_played_them() -> None:
    zero, random = tells.BY_AM_Q
    text = told([
        *one_swap(zero, 2.0), *one_swap(random, 15.0, TASKS[:1]), *one_swap("small", -3.0),
        *one_swap("elsewhere", 80.0, TASKS[1:]),
    ])  # fmt: skip
    assert "the 2 of 4 swaps" in text
    assert f"**{zero}** adds most (+2.0 points, ahead in 6 of 6 runs)" in text
    assert "and **small** least (-3.0 points, ahead in 0 of 6 runs)" in text
    assert "changes the offline score by +2.0 points against κ = 0 and by +15.0" in text
    assert f"against a random candidate (on {TASKS[0]} alone)." in text
    assert text.endswith("is -3.0 points, of *small*.")
    assert "elsewhere" not in text


@pytest.mark.parametrize(
    ("online", "said"),
    [(one_swap("fixed noise, not fresh, both κ = 1", -1.0, TASKS[:1], "end"),
      "swap is at -1.0 points, ahead in 0 of 3 runs, on hopper-medium alone."),
     ([], "; it was not played online here.")],
)  # fmt: skip
def test_the_largest_swap_is_told_with_what_speaks_against_it(online: list, said: str) -> None:
    fresh = "fixed noise, not fresh, both κ = 1"
    text = told([*one_swap(fresh, 21.0, measures="offline"), *one_swap("small", -3.0), *online])
    assert "The largest of 2 noisy means looks larger than it is" in text and said in text
    assert "this one sets a noise-free score beside a sampled one" in text
    plain = told([*one_swap("large", 21.0), *one_swap("small", -3.0)])
    assert "a sampled one" not in plain
    assert "After online learning the same swap is at +21.0 points, ahead in 6 of 6 runs." in plain
