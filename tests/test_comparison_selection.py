"""What E3's table of candidates says, on tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from uepo_lib.experiments import comparison_selection as says


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


@pytest.mark.parametrize("before", [-100.0, 0.0])
def test_a_gain_by_am_q_has_no_share_of_what_is_not_positive(before: float) -> None:
    """Half of the loss is gone: by division the second seed's AM-Q would fall by 50 %."""
    rows = [
        {"task": "t", "seed": seed, "method": method, "score": 1.0, "sampled": 1.0,
         "dead_zero": (100.0, before)[seed] + bonus}
        for seed in range(2)
        for method, bonus in (("Uni-O4", 50.0), ("Uni-O4, clones", 0.0))
    ]  # fmt: skip
    found = says.offline_improvement(pd.DataFrame(rows))
    assert found["judged"].isna().all() and (found["gain"] == 0).all()


def test_am_q_is_judged_by_rank_and_by_what_its_choice_loses() -> None:
    truth = [10.0, 40.0, 30.0, 20.0]
    rows = [
        {"task": "t", "seed": 0, "method": method, "dead_zero": judge[i],
         **dict.fromkeys(("score", "even", "odd"), truth[i])}
        for method, judge in (("knows", truth), ("reversed", [-x for x in truth]),
                              ("silent", [1.0] * 4))
        for i in range(4)
    ]  # fmt: skip
    found = says.judged(pd.DataFrame(rows)).set_index("method")
    assert found.loc["knows", "correlation"] == 1 and found.loc["knows", "regret"] == 0
    assert found.loc["reversed", "correlation"] == -1 and found.loc["reversed", "regret"] == 30
    assert np.isnan(found.loc["silent", "correlation"])
    assert (found["mean"] == 25).all() and (found["best"] == 40).all()


def test_the_best_is_found_by_one_half_and_scored_by_the_other() -> None:
    """Three equal candidates, each lucky in one half: the best of noisy means would be 20."""
    rows = [{"task": "t", "seed": 0, "method": "m", "dead_zero": judge, "even": even, "odd": odd,
             "score": (even + odd) / 2}
            for judge, even, odd in ((3.0, 10.0, 10.0), (2.0, 30.0, 4.0), (1.0, 6.0, 30.0))
            ]  # fmt: skip
    found = says.judged(pd.DataFrame(rows)).iloc[0]
    assert found["best"] == (4.0 + 6.0) / 2 and found["chosen"] == 10
    assert found["regret"] == -5


def test_halves_are_every_other_episode() -> None:
    found = says.halves(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert (float(found["even"]), float(found["odd"])) == (2.0, 3.0)
    single = says.halves(torch.tensor([[7.0]]))
    assert float(single["even"]) == float(single["odd"]) == 7.0


def test_it_is_counted_how_often_no_seed_was_chosen() -> None:
    rows = [
        {"task": task, "seed": seed, "method": method, "kappa": kappa, "dead_zero": score}
        for task, seed, best in (("a", 0, 0.0), ("a", 1, 0.5), ("b", 0, 1.0))
        for method in ("UEPO", "UEPO, κ = 1")
        for kappa in (0.0, 0.5, 1.0)
        for score in (float(kappa == best),)
    ]
    text = says.kappas_told(pd.DataFrame(rows))
    assert "**1 of 3** cases" in text and "(κ by seed: 0, 0.5 on a; 1 on b)" in text


def test_what_choosing_is_worth_is_told_in_both_models() -> None:
    columns = ["method", "correlation", "chosen", "best", "mean"]
    rows = [("UEPO", 0.5, 90.0, 95.0, 80.0), ("UEPO", 0.7, 92.0, 97.0, 82.0),
            (says.AT_ONE, 0.1, 70.0, 75.0, 60.0),
            (says.AT_ONE_INITIAL, 0.1, 65.0, 75.0, 60.0)]  # fmt: skip
    text = says.choices_told(pd.DataFrame(rows, columns=columns))
    assert "scores **91.0**, a random one 81.0, the best 96.0" in text and "is 0.60." in text
    assert text.endswith("scores 70.0 in T̂ and 65.0 in T̂_init, a random one 60.0.")
