"""Claims: every verdict is the experiments' own, and each claim can get each label."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from uepo_lib import claims
from uepo_lib.claims import CLAIMS, Claim, Found, Results
from uepo_lib.errors import UsageError
from uepo_lib.experiments import comparison_verdict, epsilon, multi_seed_verdict
from uepo_lib.statistics import verdict, weakest

NOISE = (1.0, -1.0, 0.7, -0.7, 0.0)
"""One a seed, of mean 0."""


def results(gain: float, spread: float = 0.05, seeds: int = 5) -> Results:
    """Tables in which everything that is claimed is ahead by ``gain``."""
    made = Results("smoke")
    effects = [gain + spread * NOISE[seed] for seed in range(seeds)]
    said = verdict(effects)
    made.__dict__["seeds"] = pd.DataFrame([
        (claim.text, "maze-routes", gain, effects, said) for claim in multi_seed_verdict.CLAIMS
    ], columns=["claim", "task", "gain", "gains", "verdict"])  # fmt: skip
    made.__dict__["data_need"] = pd.DataFrame(
        [
            (question, 0.01, gain, effects, said)
            for question in ("ahead of the clone", "further ahead than with the most data")
        ],
        columns=["question", "share", "gain", "gains", "verdict"],
    )
    rows = [
        {"seed": seed, "source": source, "ratio": ratio, "epsilon": 0.05, "acceptance": kind,
         "data": data, "step": 1, "volume": 10, "wanted": 10,
         "gain": effect * ratio * (kind == "kl")}
        for seed, effect in enumerate(effects)
        for source in ("model", "simulator")
        for ratio in (1.0, 2.0)
        for kind in ("kl", "random")
        for data in (epsilon.INSIDE, epsilon.OUTSIDE)
    ]  # fmt: skip
    made.__dict__["ratios"] = pd.DataFrame(rows)
    made.__dict__["dynamics"] = made.__dict__["ratios"].query("ratio == 1")
    scores, online = [], []
    for task in ("hopper-medium", "pen-cloned"):
        for seed, effect in enumerate(effects):
            for row, lead in (
                ("uepo", 100 * effect),
                ("uni_o4", 0.0),
                ("uni_o4_select", 0.0),
                ("bc", 0.0),
                ("iql", 0.0),
            ):
                value = 100.0 + lead
                about = {"task": task, "seed": seed, "row": row}
                scores.append({**about, "offline": value, "sampled": value})
                online.append({**about, "auc": value, "end": value, "states_early": -lead})
    made.__dict__["comparison"] = {"scores": pd.DataFrame(scores), "online": pd.DataFrame(online)}
    return made


@pytest.mark.parametrize(
    ("gain", "spread", "label"),
    [(1.0, 0.05, "supported"), (-1.0, 0.05, "not supported"), (0.0, 1.0, "inconclusive")],
)
def test_each_claim_gets_its_three_labels(gain: float, spread: float, label: str) -> None:
    table = claims.judge(results(gain, spread)).set_index("claim")
    testable = table[table["verdict"] != "not testable here"]
    assert len(testable) == len(CLAIMS) - 1  # Franka kitchen has no data here
    assert set(testable["verdict"]) == {label}, testable["verdict"]
    assert (testable["seeds"] == 5).all()


def test_three_seeds_decide_nothing() -> None:
    table = claims.judge(results(1.0, seeds=3))
    assert set(table["verdict"]) == {"inconclusive", "not testable here"}


def test_a_gain_below_the_claimed_one_is_supported_in_part() -> None:
    table = claims.judge(results(0.03, 0.002)).set_index("claim")["verdict"]
    family = comparison_verdict.CLAIMED
    assert family["locomotion"] > 0.03
    name = "+5.9 % over Uni-O4 on locomotion, read as offline scores"
    assert table[name] == "partly"


def test_a_claim_about_several_tasks_needs_all_of_them() -> None:
    assert weakest(["supported", "supported"]) == "supported"
    assert weakest(["supported", "inconclusive"]) == "inconclusive"
    assert weakest(["supported", "not supported"]) == "partly"
    assert weakest(["not supported"]) == "not supported"


def test_a_claim_that_no_experiment_played_is_not_testable() -> None:
    empty = results(1.0)
    empty.__dict__["seeds"] = empty.__dict__["seeds"].iloc[:0]
    unheard = claims.judge(empty).query("verdict == 'not testable here'")
    assert len(unheard) == 1 + sum(claim.notebook == "10" for claim in CLAIMS)


def test_a_verdict_that_is_no_label_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Callable[[Results], Found] = lambda _: Found("", 5, "probably")  # noqa: E731
    monkeypatch.setattr(claims, "CLAIMS", (Claim("x", "y", "12", wrong),))
    with pytest.raises(UsageError, match="verdict"):
        claims.judge(results(1.0))


def beside_control(claim: str, control: str, gain: float) -> pd.Series:
    """What is said of ``claim`` when its control speaks against it by ``gain``."""
    made = results(1.0)
    table = made.__dict__["seeds"]
    against = table["claim"] == control
    table.loc[against, "verdict"] = "not supported"
    table["gains"] = [[gain, gain + 0.1, gain - 0.1] if told else gains
                      for told, gains in zip(against, table["gains"], strict=True)]  # fmt: skip
    return claims.judge(made).set_index("claim").loc[claim]


def test_guidance_is_told_beside_its_control_which_has_no_part_in_the_label() -> None:
    row = beside_control(
        "the guidance makes sub-policies act differently",
        "guidance moves it further apart than noise of equal power",
        -0.5,
    )
    assert row["verdict"] == "supported"
    measured = row["measured"]
    assert "RMS distance, more than unguided, at 5 steps, constant, η = 1.6" in measured
    assert "η = 0.5): +1.00 [" in measured  # what D_diff's sets have; the gain and its interval
    assert "More than noise of equal power: -0.50 [" in measured


def test_div_is_told_beside_what_any_distance_of_plans_can() -> None:
    row = beside_control(
        "divergence of velocities and accelerations measures what is done",
        "div ranks it better than plain distance of plans",
        -0.25,
    )
    assert row["verdict"] == "supported"
    assert "More than the plain distance of plans has: -0.25 [" in row["measured"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_claims_of_e1_are_told_with_intervals_from_two_seeds_on(seeds: int) -> None:
    made = results(1.0, seeds=3)
    made.__dict__["seeds"]["gains"] = [[1.0, 1.1, 0.9][:seeds]] * len(made.__dict__["seeds"])
    for claim in CLAIMS:
        if claim.notebook == "10":
            assert ("+1.00 [+0.75, +1.25] (" in claim.judge(made).measured) == (seeds > 1)


def test_an_effect_on_the_error_says_in_which_test_it_was_measured() -> None:
    table = claims.judge(results(1.0)).set_index("claim")["measured"]
    where = f"{epsilon.INSIDE}, 1 step, ratio"
    assert table["D_diff makes T̂ better where D is (transitions of T̂_init)"].endswith(f"{where} 1")
    assert (
        f"{epsilon.OUTSIDE}, 1 step" in table["D_diff makes T̂ generalise (transitions of T̂_init)"]
    )
    assert table["a ratio of 2 to 3 is better than less"].endswith(f"{where} 1, 2")
    assert table["the KL filter at ε = 0.05 chooses better than chance"].endswith(f"{where} 1")


def test_a_ratio_is_judged_within_a_filter() -> None:
    """The filter costs 0.3 at every ratio and fills none above 1; the ratio does nothing."""
    made = results(1.0)
    rows = [
        {"seed": seed, "source": "model", "ratio": ratio, "epsilon": kept, "acceptance": "kl",
         "data": epsilon.INSIDE, "step": 1, "wanted": 100,
         "volume": 50 if kept == 0.05 and ratio > 1 else 100,
         "gain": 0.01 * NOISE[seed] - (0.3 if kept == 0.05 else 0.0)}
        for seed in range(5)
        for ratio in (0.25, 0.5, 1.0, 2.0, 3.0)
        for kept in (0.05, float("nan"))
    ]  # fmt: skip
    made.__dict__["ratios"] = pd.DataFrame(rows)
    row = claims.judge(made).set_index("claim").loc["a ratio of 2 to 3 is better than less"]
    assert row["measured"].startswith(("+0.000", "-0.000")) and "(no filter)" in row["measured"]
    assert row["verdict"] == "inconclusive"
    one = pd.DataFrame(rows)  # a filter that one seed alone fills is not averaged with the others'
    one.loc[(one["seed"] == 0) & (one["epsilon"] == 0.05), ["volume", "gain"]] = [100, 9.0]
    made.__dict__["ratios"] = one
    again = claims.judge(made).set_index("claim").loc["a ratio of 2 to 3 is better than less"]
    assert again["measured"] == row["measured"]
    made.__dict__["ratios"] = pd.DataFrame(rows).query("epsilon == 0.05")
    row = claims.judge(made).set_index("claim").loc["a ratio of 2 to 3 is better than less"]
    assert row["verdict"] == "not testable here"


def test_state_shift_is_told_by_task_and_for_the_policies_that_explore() -> None:
    made = results(1.0)
    online = made.__dict__["comparison"]["online"]
    pen = (online["task"] == "pen-cloned") & (online["row"] == "uepo")
    online.loc[pen, "states_early"] = 7.0
    row = claims.judge(made).set_index("claim").loc["less distribution shift when it goes online"]
    assert "σ = 0.3" in row["measured"]
    assert (
        "+100.00 [+94.64, +105.36] (hopper-medium); -7.00 [-7.00, -7.00] (pen-cloned)"
        in (row["measured"])
    )
    assert row["verdict"] == "partly"


def test_intervals_stand_at_three_seeds_too() -> None:
    table = claims.judge(results(1.0, seeds=3)).query("verdict != 'not testable here'")
    assert table["measured"].str.contains(r"\[[+-][\d.]+%?, [+-][\d.]+%?\]").all()


def test_aggregates_are_told_without_the_tuning_task() -> None:
    table = claims.judge(results(1.0)).set_index("claim")["measured"]
    name = "UEPO over plain cloning, after the same online phase"
    assert "paired +100.0" in table[name] and "; without hopper-medium +" in table[name]
    assert ", t [+" in table[name]  # beside the bootstrap


def test_a_gain_that_is_the_tuning_tasks_alone_decides_nothing() -> None:
    made = results(1.0)
    for table in made.__dict__["comparison"].values():
        pen = (table["task"] == "pen-cloned") & (table["row"] == "iql")
        table.loc[pen, [name for name in ("offline", "auc", "end") if name in table]] += 110.0
    names = {claim.text: claim for claim in CLAIMS}
    iql = names["better than IQL, read as offline scores"].judge(made)
    cloning = names["UEPO over plain cloning, after the same online phase"].judge(made)
    assert (iql.verdict, cloning.verdict) == ("inconclusive", "supported")


def test_the_best_seed_is_told_at_other_kappas_which_are_not_counted() -> None:
    made = results(1.0)
    other = multi_seed_verdict.OTHER_KAPPA
    row = (other, "maze-routes, κ = 0.5", -3.0, [-3.1, -2.9], "not supported (…)")
    table = made.__dict__["seeds"]
    made.__dict__["seeds"] = pd.concat([table, pd.DataFrame([row], columns=table.columns)])
    (claim,) = (c for c in CLAIMS if c.text == "the best of the seeds is worth choosing")
    found = claim.judge(made)
    assert found.verdict == "supported" and found.seeds == 5
    assert found.measured.startswith("points over κ = 0, at κ = 1: +1.00 [")
    assert "At other κ, not counted: -3.00 [" in found.measured
    assert found.measured.endswith("(maze-routes, κ = 0.5)")
