"""E4: late policies act on old states, times are those of the clock, rates follow from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from diffusion_toys import randn, small_model
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.delayed import Delayed
from uepo_lib.errors import UsageError
from uepo_lib.expectations import MET, OPEN, UNMET
from uepo_lib.experiments import latency
from uepo_lib.experiments import latency_verdict as says
from uepo_lib.figures import latency as _figures  # noqa: F401 - registers the figures
from uepo_lib.subpolicies import SubPolicies


class Echo:
    """Acts with the first coordinate of the newest state it is shown."""

    n, obs_horizon, action_horizon = 1, 1, 2

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return states[:, :, -1:, :1].expand(-1, -1, 2, -1)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_late_policy_acts_on_the_state_that_many_steps_ago(delay: int) -> None:
    late = Delayed(Echo(), delay)
    window = torch.arange(delay + 1.0).view(1, 1, -1, 1)  # oldest first: 0 is delay steps old
    assert late.obs_horizon == 1 + delay
    assert (late.act(window) == 0).all()


def planner(horizon_steps: int = 2) -> SubPolicies:
    return SubPolicies.from_seeds(small_model(), 1, 0, action_horizon=horizon_steps)


def test_ahead_skips_what_the_delay_has_overtaken() -> None:
    policy = planner()
    window = randn(1, 5, policy.obs_horizon + 1, 3, seed=3)
    plan = policy.plan(window[:, :, :-1])
    assert torch.equal(Delayed(policy, 1).act(window), plan[:, :, :2])
    assert torch.equal(Delayed(policy, 1, skip=1).act(window), plan[:, :, 1:3])
    newest = policy.plan(window[:, :, 1:])
    assert torch.equal(Delayed(policy, 0, skip=1).act(window[:, :, 1:]), newest[:, :, 1:3])


def test_what_cannot_be_planned_ahead_is_refused() -> None:
    policy = planner()
    horizon = policy.noise.shape[1]
    with pytest.raises(UsageError, match="skip"):
        Delayed(policy, 0, skip=horizon - 1)
    with pytest.raises(UsageError, match="skip"):
        Delayed(Echo(), 1, skip=1)
    with pytest.raises(UsageError, match="skip"):
        Delayed(policy, 1, skip=-1)
    with pytest.raises(UsageError, match="delay"):
        Delayed(Echo(), -1)


def test_times_are_the_clocks_and_leave_the_warm_up_out() -> None:
    ticks = iter(np.cumsum([0.0, 9.0, 0.0, 9.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0]))
    spent = latency.time_decisions(
        Echo(), torch.zeros(1, 1, 1, 1), 3, 2, lambda: float(next(ticks))
    )
    np.testing.assert_allclose(spent, [1, 2, 3])


def times() -> pd.DataFrame:
    rows = [("unet", 5, 1, 4, 8.0, 9.9), ("unet", 10, 1, 4, 30.0, 39.0),
            (latency.GAUSSIAN, 0, 1, 1, 0.1, 1.9), ("unet", 5, 8, 4, 90.0, 500.0)]  # fmt: skip
    columns = ["backbone", "steps", "n", "action_horizon", "median", "p99"]
    return pd.DataFrame(rows, columns=columns)


def test_rates_are_kept_at_each_decision_or_over_a_plan() -> None:
    found = latency.reached(times())
    assert found["100 Hz"].tolist() == ["each", "planned", "each", "no"]
    assert found["500 Hz"].tolist() == ["no", "no", "each", "no"]
    assert found["20 Hz"].tolist() == ["each", "each", "each", "no"]


def test_the_injected_delay_is_the_median_in_control_steps_rounded_up() -> None:
    found = latency.injected(times(), 0.008, 5).set_index("backbone")
    assert found.loc["unet", "delay"] == 1 and found.loc[latency.GAUSSIAN, "delay"] == 1
    assert latency.injected(times(), 0.008, 10).set_index("backbone").loc["unet", "delay"] == 4
    with pytest.raises(UsageError, match="steps"):
        latency.injected(times()[times()["backbone"] == "unet"], 0.008, 7)


def test_times_in_milliseconds_are_said_as_the_delays_that_they_come_to() -> None:
    table = times().replace({"backbone": {"unet": latency.BACKBONES[0]}})
    text, longest = latency.comes_to(latency.injected(table, 0.008, 10), 0.008, (0, 1, 4))
    assert longest == 4
    assert "30.00 ms are a delay of **4 steps**, the clone's 0.10 ms one of 1 step." in text
    assert "next shorter" not in text
    text, longest = latency.comes_to(latency.injected(table, 0.008, 10), 0.008, (0, 2))
    assert longest == 2 and text.endswith("the next shorter one is 2 steps.")


def test_each_number_that_was_timed_has_its_tick() -> None:
    figure = plotting.draw("13_times", times().replace({"backbone": {"unet": "mlp"}}))
    ticks = [[t.get_text() for t in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["5", "10"], ["1", "8"]]
    assert not any(axes.get_xminorticklabels() for axes in figure.axes)


def test_both_panels_of_times_have_one_scale_and_rates_are_named_once() -> None:
    left, right = plotting.draw("13_times", times().replace({"backbone": {"unet": "mlp"}})).axes
    assert left.get_ylim() == right.get_ylim()
    assert [len(axes.texts) for axes in (left, right)] == [0, len(latency.RATES)]


# ---- verdicts and expectations -------------------------------------------------------------------


def timings(median: float, tail: float = 1.2, by_step: float = 1.0) -> pd.DataFrame:
    """The default network takes ``median`` ms with five steps, in proportion to steps^by_step, and
    a tenth more for eight sub-policies; 99th percentiles are ``tail`` times medians."""
    name = latency.BACKBONES[0]
    rows = [(name, steps, 1, median * (steps / 5) ** by_step) for steps in (1, 5, 50)]
    rows += [(name, 5, 8, 1.1 * median), (latency.GAUSSIAN, 0, 1, 0.1)]
    table = pd.DataFrame(rows, columns=["backbone", "steps", "n", "median"])
    return table.assign(p99=tail * table["median"], action_horizon=4)


def lateness(lost: float, spread: float = 0.2, seeds: int = 6, delay: int = 1) -> pd.DataFrame:
    """Scores of 90 on time, and ``lost`` points less when late; seeds differ by ``spread``."""
    rows = [
        (seed, "stale", late, 90.0 - (lost + spread * (-1) ** seed if late else 0.0))
        for seed in range(seeds) for late in (0, delay)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "policy", "delay", "score"])


@pytest.mark.parametrize(
    ("times", "delays", "label", "rates"),
    [
        (timings(1.0), lateness(0.5), "supported", {"supported"}),
        (timings(60.0), lateness(40.0, delay=8), "not supported", {"not supported"}),
        (timings(1.5, tail=40.0), lateness(2.0, 30.0), "inconclusive", {"inconclusive"}),
    ],
)
def test_the_verdict_supports_opposes_and_leaves_open(
    times: pd.DataFrame, delays: pd.DataFrame, label: str, rates: set[str]
) -> None:
    found = says.verdict(times, delays, 0.008, 5).set_index("claim")["verdict"]
    assert len(found) == len(latency.RATES) + 3
    assert set(found.iloc[:-2]) == rates and found[says.LATE] == label == found[says.OVERALL]


def test_few_seeds_and_delays_that_were_not_played_decide_nothing() -> None:
    for delays in (lateness(0.0, 0.0, seeds=4), lateness(40.0, seeds=1), lateness(40.0, delay=2)):
        found = says.verdict(timings(1.0), delays, 0.008, 5).set_index("claim")["verdict"]
        assert found[says.LATE] == found[says.OVERALL] == "inconclusive"
    slow = says.verdict(timings(60.0), lateness(0.0, seeds=4, delay=8), 0.008, 5)
    assert slow["verdict"].tolist()[-2:] == ["inconclusive", "not supported"]


def test_being_fast_is_not_enough_where_being_late_costs() -> None:
    found = says.verdict(timings(1.0), lateness(40.0), 0.008, 5)["verdict"].tolist()
    assert found[-3:] == ["supported", "not supported", "not supported"]


@pytest.mark.parametrize(
    ("times", "delays", "words"),
    [
        (timings(3.0, 1.1), lateness(20.0), [MET] * 4),
        (timings(1.0, by_step=0.3), lateness(0.5), [UNMET, MET, UNMET, UNMET]),
        (timings(60.0, by_step=2.0), lateness(9.0, 2.0), [UNMET, MET, UNMET, OPEN]),
        (timings(3.0).query("steps == 1 or n > 1 or steps == 0"), lateness(9.0, delay=2),
         [OPEN, OPEN, OPEN, OPEN]),
    ],
)  # fmt: skip
def test_expectations_are_met_not_met_or_open(
    times: pd.DataFrame, delays: pd.DataFrame, words: list[str]
) -> None:
    lines = says.expected(times, delays, 5)
    assert [line.rpartition(": ")[2] for line in lines] == [f"{word}." for word in words]


def test_growth_with_n_is_read_from_its_ends() -> None:
    table = timings(3.0)
    table.loc[table["n"] == 8, "median"] = 24.0
    line = says.expected(table, lateness(0.0), 5)[1]
    assert "from 1 to 8 by a factor of 8.0, a power of 1.00" in line and line.endswith(f"{UNMET}.")


def test_returns_stand_beside_times_where_these_are_known() -> None:
    table = says.by_steps({5: [70.0, 80.0], 20: [60.0, 70.0]}, timings(3.0))
    assert table["score"].tolist() == [75.0, 65.0] and table["high"].tolist() == [80.0, 70.0]
    assert table["ms"].iloc[0] == 3.0 and np.isnan(table["ms"].iloc[1])
    assert "5 steps in place of 20" in says.fewer_says(table) and "+10.0" in says.fewer_says(table)


def played(ahead: float, fresh: float, longer: float) -> pd.DataFrame:
    late = {"clone": 30.0, "stale": 50.0, "ahead": ahead, "fresh": fresh, "longer": longer}
    rows = [
        (seed, name, delay, 100.0 + seed if delay == 0 else score + seed)
        for seed in range(3) for delay in (0, 1) for name, score in late.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "policy", "delay", "score"])


def test_a_remedy_that_hurts_is_called_so_and_its_cause_is_read_from_the_controls() -> None:
    text = latency.remedy(played(ahead=20, fresh=40, longer=95), 1)
    assert "-30.0 points" in text
    assert "worse in every seed" in text
    assert "changes it by -60.0 points" in text
    assert "into the plan by -5.0" in text
    assert "leaving them out hurts by itself" in text
    assert text.endswith("hurts less than half as much.")
    assert latency.remedy(played(20, 40, 105), 1).endswith("does not hurt.")
    other = latency.remedy(played(ahead=20, fresh=90, longer=95), 1)
    assert "explain" in other
    assert "hurts by itself" not in other


def test_a_remedy_that_helps_is_not_called_worse() -> None:
    text = latency.remedy(played(ahead=70, fresh=90, longer=95), 1)
    assert "+20.0 points" in text
    assert "worse" not in text
    assert "hurts" not in text
    assert "changes it by -10.0 points" in text and text.endswith("into the plan by -5.0.")
    short = played(70, 90, 95)
    short = short[(short["policy"] != "ahead") | (short["delay"] == 0)]
    assert latency.remedy(short, 1).startswith("No plan reaches")


def test_every_pair_is_timed_once() -> None:
    grid = latency.LatencyGrid((1, 5), (1, 2), decisions=1)
    rows = [(r["backbone"], r["steps"], r["n"]) for r in latency.candidates(grid, 3, 2)]
    assert len(rows) == len(set(rows)) == 3 * 3 + 1
    for row in latency.candidates(grid, 3, 2):
        assert row["policy"].n == row["n"]


def test_bad_grids_are_named() -> None:
    with pytest.raises(UsageError, match="delays"):
        latency.LatencyGrid(delays=(-1,))
    with pytest.raises(UsageError, match="decisions"):
        latency.LatencyGrid(decisions=0)
