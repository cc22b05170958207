"""Is the online phase stable, and if not, why: on tables whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from uepo_lib.experiments import comparison_stability as says


def online_row(**changes: float) -> dict[str, float]:
    sound = {"start": 60.0, "end": 70.0, "gain": 10.0, "first_look": 50.0, "last_three": 68.0,
             "highest": 70.0, "shift": 0.5, "to_expert": 100.0, "noise": 1.0, "stopped": 0.1,
             "dip_exploring": 5.0}  # fmt: skip
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


@pytest.mark.parametrize("level", [-20.0, 0.0])
def test_to_hold_is_not_defined_where_nothing_scores_above_0(level: float) -> None:
    """The last three evaluations are the highest one: 0.9 of −20 is a level above it."""
    changes = {"start": level - 5, "end": level, "gain": 5.0, "first_look": level - 5,
               "last_three": level, "highest": level}  # fmt: skip
    online = table(**changes)
    stable = says.stability(online).set_index("task")
    assert stable["holds"].isna().to_dict() == {"pen-cloned": False, "hopper-medium": True}
    assert (stable[["not_below_start", "moved"]] == 1).all(axis=None)
    found = explained(online).loc["hopper-medium"]
    assert found["cause"].startswith(
        "to hold is not defined: the highest evaluation of 3 of 3 seeds is not positive; "
    )
    assert "points are lost" not in found["cause"] and found["attempts"]


def test_one_seed_below_0_leaves_its_task_without_a_share() -> None:
    online = table(gain=10.0)
    online.loc[online.index[-1], ["last_three", "highest"]] = [-2.0, -1.0]
    assert says.stability(online)["holds"].isna().tolist() == [False, True]


def table(**changes: float) -> pd.DataFrame:
    """Three seeds of a task that gains, and of one with ``changes``."""
    rows = [
        {"row": "uepo", "task": task, "seed": seed, **online_row(**made)}
        for task, made in (("pen-cloned", {}), ("hopper-medium", changes))
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def explained(online: pd.DataFrame) -> pd.DataFrame:
    return says.explained(says.stability(online), online).set_index("task")


def test_where_every_line_is_met_nothing_is_explained() -> None:
    found = explained(table())
    assert (found[["cause", "attempts"]] == "").all(axis=None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"to_expert": 0.0},
            "no room: by the first evaluation 3 of 3 seeds are at 90 % of the expert or above",
        ),
        ({"noise": 20.0}, "noise of the evaluations: 22.0 points at most are lost"),
        ({"dip_exploring": 40.0}, "exploring costs 40 points"),
        ({"stopped": 0.8}, "the KL target cut 80% of the updates short"),
        ({}, "not explained: 22.0 points are lost in the worst seed, with room left"),
    ],
)
def test_a_cause_is_what_was_measured(changes: dict[str, float], told: str) -> None:
    found = explained(table(highest=90.0, **changes))
    assert found.loc["hopper-medium", "cause"].endswith(told)
    assert "settings on hopper-medium" in found.loc["hopper-medium", "attempts"]
    assert found.loc["pen-cloned", "cause"] == ""


def test_causes_add_up() -> None:
    both = explained(table(highest=90.0, to_expert=0.0, stopped=0.8)).loc["hopper-medium", "cause"]
    assert both.startswith("no room") and "; small steps" in both and "not explained" not in both


def test_a_fall_below_the_start_counts_as_lost() -> None:
    cause = explained(table(last_three=49.0, highest=51.0)).loc["hopper-medium", "cause"]
    assert cause == "noise of the evaluations: 1.0 points at most are lost"


def test_no_gain_anywhere_is_a_line_that_fails_everywhere() -> None:
    found = explained(table().assign(gain=[-1.0, 0.0, 1.0] * 2))
    assert (found["cause"] == "not explained: none lost, with room left").all()
    assert found.loc["pen-cloned", "attempts"].endswith("none on pen-cloned")
