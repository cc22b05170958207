"""E8: what a cause changes and what it leaves alone; a tiny grid end to end; rules of verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import TINY_FAILURES, settle

from uepo_lib import plotting
from uepo_lib.diagnostics import (
    CALIBRATION_SEEDS,
    COLLAPSE,
    FAR_START,
    IMPLAUSIBLE,
    SIGNATURES,
    TEST_SEEDS,
    THRESHOLDS,
    WORSE_MODEL,
)
from uepo_lib.errors import UsageError
from uepo_lib.experiments import failure_signatures as e8
from uepo_lib.experiments import failure_verdict as verdicts
from uepo_lib.experiments import failure_worlds as worlds
from uepo_lib.figures import failure as _figures  # noqa: F401 - registers the figures
from uepo_lib.runs import Run

TINY = replace(TINY_FAILURES, seeds=(0, 5))


Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tables, list[Run]]]:
    folder, threads = tmp_path_factory.mktemp("failures"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder / "data")
        patch.setattr(worlds, "ENVIRONMENTS", 2)
        yield e8.run("tiny", TINY)
    torch.set_num_threads(threads)


@pytest.fixture
def tables(measured: tuple[Tables, list[Run]]) -> Tables:
    return measured[0]


def test_every_step_of_the_environment_is_counted(measured: tuple[Tables, list[Run]]) -> None:
    curves = measured[0]["pictures"].query("panel == @FAR_START")
    for run in measured[1]:
        spent = run.record["environment"]
        ends = curves[curves["seed"] == run.record["seed"]].groupby("cause")["x"].max()
        assert spent["online training"]["steps"] == ends.sum() >= 2 * TINY.env_steps
        assert spent["first steps online"]["steps"] >= len(e8.CAUSES) * 2 * TINY.probe


def test_a_run_is_another_one_with_other_settings(
    measured: tuple[Tables, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online settings and causes are looked up elsewhere, so the identity has to hold them."""

    def key() -> str:
        return e8.measure(0, "tiny", TINY).keys[0].id

    before = key()
    assert before in {run.id for run in measured[1]}
    with monkeypatch.context() as patch:
        patch.setitem(worlds.ONLINE["chain_ppo"], "learning_rate", 0.5)
        assert key() != before
    with monkeypatch.context() as patch:
        patch.setitem(e8.CAUSES, "no guidance", replace(e8.CAUSES["no guidance"], kappa=0.5))
        assert key() != before
    assert key() == before


def test_every_cause_is_read_by_every_diagnostic(tables: Tables) -> None:
    found = tables["findings"]
    assert (found["value"] > 0).all()
    wide = found.pivot_table(
        index=["seed", "setting", "cause"], columns="signature", values="value"
    )
    maze, toy = (wide.xs(setting, level="setting") for setting in (e8.MAZE, e8.TOY))
    assert len(maze) == 2 * len(e8.CAUSES) and maze.notna().all().all()
    assert len(toy) == 2 * (len(e8.CAUSES) - 1) and toy[WORSE_MODEL].isna().all()


def test_a_cause_changes_its_own_measure_and_not_what_it_does_not_touch(
    tables: Tables,
) -> None:
    wide = tables["findings"].pivot_table(
        index=["setting", "seed"], columns=["cause", "signature"], values="value"
    )
    for setting, cause, same in (
        (e8.MAZE, "weak T̂_init, no filter", (COLLAPSE, FAR_START, IMPLAUSIBLE)),
        (e8.MAZE, "no guidance", (FAR_START, IMPLAUSIBLE)),
        (e8.TOY, "far from D", (COLLAPSE, IMPLAUSIBLE)),
    ):
        part = wide.loc[setting]
        own = e8.CAUSES[cause].signature
        assert (part[cause, own] != part[e8.HEALTHY, own]).all()
        for name in same:
            assert (part[cause, name] == part[e8.HEALTHY, name]).all()
    assert (wide["no guidance, small κ", COLLAPSE] > wide[e8.HEALTHY, COLLAPSE]).all()
    assert (wide["far from D", FAR_START] > wide[e8.HEALTHY, FAR_START]).all()


def test_the_pictures_are_drawn_from_the_tables(tables: Tables) -> None:
    judged = verdicts.judged(tables["findings"], THRESHOLDS)
    values = plotting.draw("17_values", judged)
    named = {text.get_text() for text in values.legends[0].get_texts()}
    assert {"healthy", "provoked", "mild: no guidance, κ = 1", "threshold"} <= named
    plt.close(values)
    pictures = verdicts.pictured(tables["pictures"], tables["findings"])
    drawn = plotting.draw("17_pictures", pictures).axes[-1]
    assert f"1 of {pictures['seed'].nunique()} seeds" in drawn.get_title()
    walks = np.concatenate([line.get_xydata() for line in drawn.lines])
    assert np.abs(walks).max() <= drawn.get_xlim()[1]  # none leaves its picture
    assert [t.get_text() for t in drawn.get_legend().get_texts()].count("door") == 1
    assert set(pictures["panel"]) == set(SIGNATURES)
    sorted_lines = pictures[pictures["panel"].isin([COLLAPSE, WORSE_MODEL])]
    for _, line in sorted_lines.groupby(["panel", "seed", "cause", "line"]):
        assert line["x"].is_monotonic_increasing and line["y"].is_monotonic_increasing
    shown = verdicts.test_table(judged)
    assert set(shown["signature"]) == set(SIGNATURES) and (shown["runs"] == 1).all()
    assert set(verdicts.verdict(judged).values()) == {"inconclusive"}


def test_the_collapse_that_is_drawn_is_the_median_one() -> None:
    values = {0: 9.0, 1: 2.0, 2: 5.0}
    common = {"setting": e8.TOY, "signature": COLLAPSE}
    findings = pd.DataFrame(
        [{**common, "cause": "no guidance, small κ", "seed": s, "value": v}
         for s, v in values.items()]
        + [{**common, "cause": e8.HEALTHY, "seed": s, "value": s} for s in values]
        + [{**common, "cause": "no guidance, small κ", "seed": 1, "value": 6.0,
            "setting": "maze"}]
    )  # fmt: skip
    pictures = pd.DataFrame(
        [{"seed": s, "panel": panel} for s in values for panel in (COLLAPSE, FAR_START)]
    )
    kept = verdicts.pictured(pictures, findings)
    assert kept[kept["panel"] == COLLAPSE]["seed"].tolist() == [2]
    assert kept[kept["panel"] == FAR_START]["seed"].tolist() == [0, 1, 2]


def test_the_toys_dynamics_and_walks_agree() -> None:
    world = worlds.toy_world(0, 32, 32)
    steps = world.transitions
    toy = worlds.four_doors(0, 32)
    torch.testing.assert_close(toy.step(steps.states, steps.actions), steps.next_states)
    assert len(steps) == 32 * worlds.HORIZON
    mine, other = (
        world.explore(_Still(), 0) for world in (world, worlds.toy_world(0, 32, 32, True))
    )
    torch.testing.assert_close(other - mine, worlds.ELSEWHERE.expand_as(mine))


class _Still:
    n, obs_horizon, action_horizon = 1, 1, worlds.HORIZON

    def act(self, states: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return states.new_zeros(1, states.shape[1], worlds.HORIZON, 2)


def test_shuffled_windows_hold_the_same_states_with_the_actions_of_others() -> None:
    toy = worlds.four_doors(0, 64)
    index = torch.arange(64)
    plain, shuffled = toy.batch(index), worlds.Shuffled(toy).batch(index)
    assert torch.equal(plain.past, shuffled.past)
    assert not torch.equal(plain.actions, shuffled.actions)
    key = lambda a: sorted(a.flatten(1).sum(-1).tolist())  # noqa: E731
    assert key(plain.actions) == key(shuffled.actions)


def test_bad_grids_are_named() -> None:
    for change, name in (({"seeds": ()}, "seeds"), ({"few": 40}, "few"), ({"probe": 8}, "probe")):
        with pytest.raises(UsageError, match=name):
            replace(e8.FailureGrid(), **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="profile"):
        e8.grid_of("huge")


# -- verdicts on made-up tables


def made_up(provoked: float, healthy: float, seeds: tuple[int, ...] = TEST_SEEDS) -> pd.DataFrame:
    """Values as multiples of the threshold: of the diagnostic a cause is meant for, and of all
    others."""
    rows = [
        (seed, setting, cause, name, THRESHOLDS[name] * value)
        for seed in (*CALIBRATION_SEEDS, *seeds)
        for setting in e8.SETTINGS
        for cause, what in e8.CAUSES.items()
        for name in SIGNATURES
        for value in [provoked if what.signature == name and not what.mild else healthy]
    ]
    columns = ["seed", "setting", "cause", "signature", "value"]
    return verdicts.judged(pd.DataFrame(rows, columns=columns), THRESHOLDS)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """As many test seeds as it takes for an interval to decide."""
    seeds = tuple(range(5, 5 + verdicts.runs_needed(0.8)))
    monkeypatch.setattr(verdicts, "TEST_SEEDS", seeds)
    return seeds


def test_a_panel_that_fires_there_and_is_quiet_elsewhere_passes() -> None:
    """With five runs a cause that is all: no interval lies above four in five."""
    table = made_up(2.0, 0.5)
    assert set(verdicts.passed(table).values()) == {True}
    assert set(verdicts.verdict(table).values()) == {"inconclusive"}
    assert (verdicts.test_table(table)["fired"] == len(TEST_SEEDS)).all()
    assert verdicts.alarms(table) | {"low": 0, "high": 0} == {
        "runs": 10, "fired": 0, "low": 0, "high": 0
    }  # fmt: skip
    lines = verdicts.told(table)
    assert len(lines) == 5 and all("criterion passed" in one for one in lines)
    assert "5 of 5 (maze, weak T̂_init, no filter)" in lines[1]
    assert lines[-1].endswith("any in 0 of 10 healthy runs; by its interval **inconclusive**")


def test_intervals_need_so_many_runs() -> None:
    for rate in (verdicts.FIRES, 1 - verdicts.ALARMS):
        n = verdicts.runs_needed(rate)
        assert 0.025 ** (1 / n) > rate >= 0.025 ** (1 / (n - 1))


def test_with_enough_runs_a_panel_is_supported_or_not(many: tuple[int, ...]) -> None:
    loud = verdicts.verdict(made_up(2.0, 0.5, many))
    assert {loud[name] for name in SIGNATURES} == {"supported"}
    quiet, always = (verdicts.verdict(made_up(v, v, many)) for v in (0.5, 2.0))
    assert {quiet[name] for name in SIGNATURES} == {"not supported"}
    assert always[verdicts.QUIET] == "not supported"
    assert not verdicts.passed(made_up(2.0, 2.0))[verdicts.QUIET]


def test_few_false_alarms_are_supported_by_enough_healthy_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for enough in (True, False):
        count = -(-verdicts.runs_needed(0.9) // 2) - (not enough)  # two settings a seed
        seeds = tuple(range(5, 5 + count))
        monkeypatch.setattr(verdicts, "TEST_SEEDS", seeds)
        label = verdicts.verdict(made_up(2.0, 0.5, seeds))[verdicts.QUIET]
        assert label == ("supported" if enough else "inconclusive")


def test_a_cause_that_is_not_seen_makes_partly(many: tuple[int, ...]) -> None:
    table = made_up(2.0, 0.5, many)
    one = (table["setting"] == e8.MAZE) & (table["cause"] == "far from D")
    one &= table["signature"] == FAR_START
    for seeds, label in ((many, "partly"), (many[:3], "inconclusive")):
        weaker = table.copy()
        weaker.loc[one & weaker["seed"].isin(seeds), "fired"] = False
        assert verdicts.verdict(weaker)[FAR_START] == label
        assert verdicts.passed(weaker)[FAR_START] == (label != "partly")


def test_four_of_five_pass_three_do_not_and_four_runs_say_nothing() -> None:
    table = made_up(2.0, 0.5)
    one = (table["setting"] == e8.MAZE) & (table["cause"] == "far from D")
    one &= table["signature"] == FAR_START
    for seeds, met in (((5,), True), ((5, 6), False)):
        weaker = table.copy()
        weaker.loc[one & weaker["seed"].isin(seeds), "fired"] = False
        assert verdicts.passed(weaker)[FAR_START] == met
    fewer = made_up(0.5, 0.5, TEST_SEEDS[:4])
    assert set(verdicts.verdict(fewer).values()) == {"inconclusive"}


def test_one_alarm_in_ten_healthy_runs_is_allowed_and_two_diagnostics_are_one_alarm() -> None:
    table = made_up(2.0, 0.5)
    healthy = (table["cause"] == e8.HEALTHY) & (table["setting"] == e8.TOY)
    table.loc[healthy & (table["seed"] == 5), "fired"] = True
    assert verdicts.alarms(table)["fired"] == 1
    assert verdicts.passed(table)[verdicts.QUIET]
    table.loc[healthy & (table["seed"] == 6) & (table["signature"] == COLLAPSE), "fired"] = True
    assert not verdicts.passed(table)[verdicts.QUIET]


@pytest.mark.parametrize(("mild", "through"), [(0.5, False), (2.0, True)])
def test_a_collapse_that_its_named_cause_does_not_lead_to_is_said(
    mild: float, through: bool
) -> None:
    table = made_up(2.0, 0.5)
    alone = (table["cause"] == "no guidance") & (table["signature"] == COLLAPSE)
    table.loc[alone, "fired"] = mild > 1
    doors = {e8.HEALTHY: 3.0, "no guidance": 2.9, "no guidance, small κ": 1.5}
    outcomes = pd.DataFrame(
        [(seed, cause, "doors reached", n) for seed in TEST_SEEDS for cause, n in doors.items()],
        columns=["seed", "cause", "outcome", "value"],
    )
    said = verdicts.named_cause(table, outcomes)
    assert f"fires in {10 if through else 0} of 10 test runs" in said
    assert "reaches 2.9 doors on average, a healthy one 3.0" in said and "small κ 1.5" in said
    assert ("not through its named cause" in said) == (not through)


def test_the_record_holds_the_calibration_seeds_and_no_mild_cause() -> None:
    kept = verdicts.to_record(made_up(2.0, 0.5))
    assert set(kept["seed"]) == set(CALIBRATION_SEEDS)
    assert {cause for cause in kept["cause"] if e8.CAUSES[cause].mild} == set()
    below = kept["value"] < kept["signature"].map(THRESHOLDS)
    assert (below == (kept["provoked"] == 0)).all() and below.any() and not below.all()


def test_intervals_are_clopper_pearsons() -> None:
    shown = verdicts.test_table(made_up(2.0, 0.5))
    # 5 of 5: the lower end solves p^5 = 0.025
    assert shown["low"].iloc[0] == pytest.approx(0.025 ** (1 / 5))
    assert shown["high"].iloc[0] == 1
