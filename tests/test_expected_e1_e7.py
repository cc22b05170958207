"""Lines "met", "not met", "open" of E1, E7 and E9, on tables whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from uepo_lib.expectations import MET, OPEN, UNMET, answer, line, listed
from uepo_lib.experiments import data_need, tradeoffs
from uepo_lib.experiments import multi_seed_expected as e1
from uepo_lib.experiments.data_need import CLONE, SELECTED
from uepo_lib.experiments.multi_seed_verdict import SEEDS
from uepo_lib.experiments.seed_sets import FRESH, GUIDED, ONE_NOISE, ZERO, fixed

ONE, MANY = "hopper-medium", "maze-routes"


@pytest.mark.parametrize(
    ("values", "said"),
    [([1, 2, 3], MET), ([-1, -2, -3], UNMET), ([1, -2, 3], OPEN), ([1], OPEN), ([], OPEN),
     ([0, 0], UNMET)],
)  # fmt: skip
def test_seeds_have_to_agree(values: list[float], said: str) -> None:
    assert answer(pd.Series(values, dtype=float)) == said


def test_a_tie_is_right_where_nothing_more_is_expected() -> None:
    assert answer(pd.Series([0.0, 0.0]), ties=True) == MET
    assert answer(pd.Series([0.0, -1.0]), ties=True) == OPEN


def series(**values: list[float]) -> pd.Series:
    return pd.Series({(name, i): x for name, each in values.items() for i, x in enumerate(each)})


def test_a_line_tells_means_and_where_answers_differ() -> None:
    assert line("It grows", series(a=[1.0, 3.0], b=[1.0, 1.0])) == (
        f"It grows: +2.00 (a); +1.00 (b): {MET}."
    )
    found = line("It grows", series(a=[1.0, 3.0], b=[1.0, -2.0]), shown="{:+.0f}")
    assert found == f"It grows: +2 (a); -0 (b): {MET} (a); {OPEN} (b)."
    assert line("Most", series(a=[0.4, 0.3]), above=0.5).endswith(f"{UNMET}.")
    assert line("It grows", pd.Series(dtype=float)).endswith(f"can say: {OPEN}.")
    assert listed(["x", "y"]).endswith("- x\n- y")


# -- E1


def returns(**changes: float) -> pd.DataFrame:
    """Seeds that are ahead of every other set by what ``changes`` says, else level with them."""
    rows = []
    for task in (ONE, MANY):
        for seed in range(3):
            for name in (ZERO, fixed(0.25), SEEDS, FRESH, GUIDED, ONE_NOISE):
                if name == ONE_NOISE and (seed > 0 or task == ONE):
                    continue
                ours = name == SEEDS
                row = {"task": task, "seed": seed, "set": name, "n": 1 if name == ZERO else 10}
                for column in ("between", "persistence", "coverage"):
                    row[column] = 2.0 + 0.1 * seed + ours * changes.get(column, 0.0)
                rows.append(row)
    return pd.DataFrame(rows)


def members(worse: int) -> pd.DataFrame:
    """Of ten seeds ``worse`` score below zero noise."""
    rows = [
        (task, seed, name, i, 50.0 - (1 if name == SEEDS and i < worse else -1) * (name == SEEDS))
        for task in (ONE, MANY)
        for seed in range(3)
        for name in (ZERO, SEEDS, FRESH)
        for i in range(1 if name == ZERO else 10)
    ]
    return pd.DataFrame(rows, columns=["task", "seed", "set", "member", "score"])


@pytest.mark.parametrize(("ahead", "said"), [(1.0, MET), (-1.0, UNMET), (0.0, UNMET)])
def test_seeds_differ_beyond_chance_where_there_is_one_mode(ahead: float, said: str) -> None:
    differ, _, smaller = e1.of_returns(returns(between=ahead), members(9))
    assert differ.endswith(f"{ahead:+.2f} ({ONE}): {said}.") and MANY not in differ
    assert smaller.endswith(f"{said}.") and MANY in smaller and "κ = 0.25" in smaller
    manyfold = returns(between=ahead).query("task == @MANY")
    assert e1.of_returns(manyfold, members(9).query("task == @MANY"))[0].endswith(f"{OPEN}.")


@pytest.mark.parametrize(("worse", "said"), [(9, MET), (6, MET), (5, UNMET), (1, UNMET)])
def test_most_seeds_is_more_than_half(worse: int, said: str) -> None:
    found = e1.of_returns(returns(), members(worse))[1]
    assert found.endswith(f"{10 * worse}% ({ONE}): {said}.") and MANY not in found


@pytest.mark.parametrize(
    ("ahead", "keeps", "no_more"), [(0.5, MET, UNMET), (0.0, UNMET, MET), (-0.5, UNMET, MET)]
)
def test_routes(ahead: float, keeps: str, no_more: str) -> None:
    table = returns(persistence=ahead, coverage=ahead).query("task == @MANY")
    kept, reached, models = e1.of_routes(table)
    assert kept.endswith(f"{keeps}.") and reached.endswith(f"{no_more}.")
    assert models.endswith(f"{OPEN}.") and f"{ahead:+.2f}" in models  # one seed
    nowhere = returns().query("task == @ONE").drop(columns=["persistence", "coverage"])
    assert all(found.endswith(f"can say: {OPEN}.") for found in e1.of_routes(nowhere))


def distances(plans: float, ways: float, rho: float = 0.3, floor: float = 0.8) -> pd.DataFrame:
    """Guidance multiplies the distance of plans, and of what is done; div of seeds is 1."""
    rows = [
        {"task": task, "seed": seed, "set": name, "div": 1.0, "rho": rho, "rho_rms": 0.3,
         "floor": floor if task == ONE else float("nan"),
         "plan_rms": (1 + seed) * (plans if name == GUIDED else 1.0),
         "executed_rms": (2 + seed) * (ways if name == GUIDED else 1.0)}
        for task in (ONE, MANY) for seed in range(3) for name in (SEEDS, FRESH, GUIDED)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_distances_are_compared_by_their_factors() -> None:
    assert e1.of_distances(distances(4.0, 2.0))[0].endswith(f"+1.00 ({MANY}): {MET}.")
    assert e1.of_distances(distances(2.0, 4.0))[0].endswith(f"{UNMET}.")
    without = distances(4.0, 2.0).query("set != @GUIDED")
    assert e1.of_distances(without)[0].endswith(f"{OPEN}.")


def test_div_is_no_better_than_plain_distance_and_mostly_floor() -> None:
    _, level, floor = e1.of_distances(distances(1.0, 1.0))
    assert level.endswith(f"{MET}.") and floor.endswith(f"80% ({ONE}): {MET}.")
    _, better, little = e1.of_distances(distances(1.0, 1.0, rho=0.4, floor=0.4))
    assert better.endswith(f"{UNMET}.") and little.endswith(f"{UNMET}.")
    assert e1.of_distances(distances(1.0, 1.0, floor=0.0))[2].endswith(f"{OPEN}.")  # no noise


def test_all_of_e1_is_told() -> None:
    lines = e1.expected(returns(), distances(1.0, 1.0), members(5))
    assert len(lines) == 9 and len(set(lines)) == 9


# -- E7


def dials(power: float, div: float, ways: float, score: float) -> pd.DataFrame:
    """Both dials at 0, 1 and 2; each measure begins at 1 and grows by its share a step."""
    rows = [
        (seed, name, value, 0.0 if value == 0 else 1 + power * value, 1 + div * value,
         1 + ways * value, 60 + seed + score * value)
        for seed in range(3) for name in ("eta", "tau") for value in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    columns = ["seed", "dial", "value", "power", "div", "executed_rms", "score"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("table", "said"),
    [(dials(1.0, 1.0, 0.5, -5.0), MET), (dials(-1.0, -0.2, 0.5, 5.0), UNMET)],
)
def test_dials_do_what_was_expected_or_not(table: pd.DataFrame, said: str) -> None:
    lines = tradeoffs.expected(table)
    assert len(lines) == 4 and all(one.endswith(f"{said}.") for one in lines), lines


def test_dials_are_open_where_seeds_disagree_and_named_where_they_differ() -> None:
    table = dials(1.0, 1.0, 0.5, -5.0)
    table.loc[(table["dial"] == "tau") & (table["seed"] == 0), "score"] = 60.0
    *rest, falls = tradeoffs.expected(table)
    assert falls.endswith(f"{MET} (η); {OPEN} (τ).") and "+10.0 (η)" in falls
    assert all(one.endswith(f"{MET}.") for one in rest)
    assert "+1.000 (η)" in rest[0]  # from the lowest value of the dial, not from 0


# -- E9


def scores(fewest: dict[str, float]) -> pd.DataFrame:
    """All learners have 80 points with all data, π* 90, and with few what ``fewest`` says."""
    rows = [
        (seed, share, name, seed + (fewest[name] if share < 1 else 80.0 + 10 * (name == SELECTED)))
        for seed in range(3)
        for share in (0.01, 0.1, 1.0)
        for name in (CLONE, data_need.ZERO, SELECTED)
    ]
    return pd.DataFrame(rows, columns=["seed", "share", "learner", "score"])


@pytest.mark.parametrize(
    ("fewest", "lose", "no_help"),
    [((40.0, 40.0, 50.0), MET, MET), ((40.0, 40.0, 45.0), MET, MET),
     ((40.0, 40.0, 70.0), MET, UNMET), ((85.0, 85.0, 95.0), UNMET, MET)],
)  # fmt: skip
def test_fewer_data_and_what_choosing_makes_of_it(
    fewest: tuple[float, ...], lose: str, no_help: str
) -> None:
    names = (CLONE, data_need.ZERO, SELECTED)
    lost, lead = data_need.expected(scores(dict(zip(names, fewest, strict=True))))
    assert lost.endswith(f"{lose}.") and f"({CLONE})" in lost
    few = fewest[2] - fewest[1]
    assert f"(points: {few:+.1f} at 1%, +10.0 at 100%): {no_help}." in lead.replace(
        f"{few:+.1f} at 10%, ", ""
    )
    assert lead.endswith("larger.") == (no_help == UNMET)


def test_what_was_chosen_badly_with_all_data_is_said() -> None:
    table = scores({CLONE: 40.0, data_need.ZERO: 40.0, SELECTED: 50.0})
    table.loc[(table["share"] == 1) & (table["learner"] == SELECTED), "score"] -= 30
    lead = data_need.expected(table)[1]
    assert "-20.0 at 100%" in lead and UNMET in lead and "worse than zero noise" in lead


def test_a_learner_that_loses_nothing_is_named() -> None:
    lost, _ = data_need.expected(scores({CLONE: 90.0, data_need.ZERO: 40.0, SELECTED: 50.0}))
    assert f"{UNMET} ({CLONE})" in lost and f"{MET} ({SELECTED})" in lost
