"""E7 and E9: dials turn what they name, slices are what is learnt from, and what tables say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_study import settled, tiny

from uepo_lib import dynamics_training, extraction, plotting, preparation, profiles, values
from uepo_lib.errors import UsageError
from uepo_lib.experiments import data_need, seed_sets, tradeoffs
from uepo_lib.experiments.data_need import CLONE, SELECTED, ZERO, DataGrid
from uepo_lib.experiments.multi_seed_verdict import SEEDS
from uepo_lib.experiments.seed_sets import FRESH
from uepo_lib.experiments.tradeoffs import DialGrid, dial
from uepo_lib.figures import tradeoffs as drawn
from uepo_lib.methods.uepo import uepo
from uepo_lib.slices import SlicedStudy

NOISE = (1.0, -1.0, 0.7, -0.7, 0.0)
"""One a seed, of mean 0."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with settled(tmp_path_factory.mktemp("tradeoffs")) as place:
        yield place


def test_a_dial_changes_its_own_parameter_and_no_other(folder: Path) -> None:
    plain, turned = dial(tiny(), 0.5, 1.0).value, dial(tiny(), 0.5, 2.0).value
    assert plain.guidance is not None
    assert turned.guidance is not None
    before, after = plain.guidance.config, turned.guidance.config
    assert after.threshold == pytest.approx(2 * before.threshold)
    assert (after.eta, after.floor, after.eta_schedule) == (0.5, before.floor, "constant")
    assert torch.equal(plain.guidance.xi, turned.guidance.xi)
    assert torch.equal(plain.noise, turned.noise)


def test_the_perturbation_is_the_printed_one(folder: Path) -> None:
    """σ_div = η (τ − div)/τ, and its derivative in τ, η div/τ², by a finite difference."""
    guidance = dial(tiny(), 0.5, 2.0).value.guidance
    assert guidance is not None
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(3, 4, *guidance.xi.shape[2:], generator=generator).double()
    near, tau = guidance.distance(x0), 2 * float(guidance.distance(x0).max())
    sigma = []
    for step in (-1e-4, 0.0, 1e-4):
        config = replace(guidance.config, threshold=tau + step)
        sigma.append(replace(guidance, config=config).sigma(x0, 0))
    torch.testing.assert_close(sigma[1], 0.5 * (tau - near) / tau)
    slope = (sigma[2] - sigma[0]) / 2e-4
    torch.testing.assert_close(slope, 0.5 * near / tau**2, rtol=1e-6, atol=1e-9)
    assert (slope > 0).all()


def test_every_setting_once_and_the_unguided_set_at_zero(folder: Path) -> None:
    table, runs = tradeoffs.run("tiny")
    places = table[["dial", "value"]].apply(tuple, axis=1).tolist()
    assert places == [("eta", 0.0), ("eta", 0.5), ("eta", 1.6),
                      ("tau", 0.0), ("tau", 1.0), ("tau", 2.0)]  # fmt: skip
    assert len({run.record["id"] for run in runs}) == len(runs) == 2 * 4
    assert (table.loc[table["value"] == 0, "power"] == 0).all()
    same = table[table["value"].isin([0.5, 1.0])].drop(columns=["dial", "value"])
    assert (same.iloc[0] == same.iloc[1]).all()  # both are the default setting
    assert all("open" in one for one in tradeoffs.expected(table))  # one seed
    powers = table.set_index(["dial", "value"])["power"]
    assert powers["tau", 2.0] > powers["tau", 1.0]


def test_a_slice_is_what_its_learners_learn_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    fits: list[tuple[int, int, int]] = []
    train, train_model = values.train_iql, dynamics_training.train_dynamics

    def trained(cfg: Any, steps: Any, **rest: Any) -> Any:
        rows.append(len(steps))
        return train(cfg, steps, **rest)

    def fitted(cfg: Any, steps: Any, chosen_by: Any, *, extra: Any, **rest: Any) -> Any:
        fits.append((len(steps), len(chosen_by), 0 if extra is None else len(extra)))
        return train_model(cfg, steps, chosen_by, extra=extra, **rest)

    monkeypatch.setattr(values, "train_iql", trained)
    monkeypatch.setattr(dynamics_training, "train_dynamics", fitted)
    table, _ = data_need.run("tiny")
    assert set(table["learner"]) == {CLONE, ZERO, SELECTED}
    assert all("open" in one for one in data_need.expected(table))  # one seed
    sizes = table.groupby("share")["transitions"].first()
    assert sizes[0.5] == pytest.approx(sizes[1.0] / 2, abs=1)
    found = list(data_need.evaluations(0, "tiny"))
    small = found[0][4]
    assert small.size == sizes[0.5] == sum(map(len, small.held_out))
    assert small.windows.now.max() < small.size
    assert len(small.dataset) > small.size  # what is held out is there, for tests alone
    assert rows == sizes.sort_index().tolist()  # the critics'
    assert found[0][4].critic().run.spec.config["rows"] == small.size
    for size, (initial, augmented) in zip(
        sizes.sort_index(), (fits[:2], fits[2:]), strict=True
    ):  # T̂_init and T̂ of each share: all that fits or chooses them is counted in it
        assert initial == (size - size // 10, size // 10, 0)
        assert augmented[:2] == initial[:2] and 0 < augmented[2] <= math.ceil(0.2 * size)


def test_d_diff_of_a_slice_is_its_own_and_as_large_as_it_says(folder: Path) -> None:
    *_, study = next(data_need.evaluations(0, "tiny"))
    made = uepo(study, data_need.method(study, 0.5))
    summary = made.synthetic.run.json("summary")
    assert summary["wanted"] == math.ceil(0.5 * study.size)
    assert made.model.keys[0] in made.synthetic.run.spec.parents
    assert made.synthetic.keys[0] in made.dynamics.run.spec.parents


def test_weights_of_a_slice_are_scaled_by_its_own_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = SlicedStudy("hopper-medium", 0, 1_500, "tiny", progress=False)
    mine, all_of_them = study.learnt.episode_returns(), study.dataset.episode_returns()
    assert 0 < len(mine) < len(all_of_them)
    given: list[int] = []

    def extracted(*arguments: Any, **_: Any) -> None:
        given.append(len(arguments[4]))
        raise InterruptedError

    monkeypatch.setattr(extraction, "extract_policy", extracted)
    with pytest.raises(InterruptedError):
        _ = study.iql_policy(study.critic()).run
    assert given == [len(mine)]


def dials_table(low: float, high: float, spread: float) -> pd.DataFrame:
    """Every measure goes from ``low`` to ``high``, the score from high to low, in five seeds."""
    rows = []
    for seed in range(5):
        for which in ("eta", "tau"):
            for value, y in ((0.0, 0.0), (1.0, low), (2.0, high)):
                seen = y + (spread * NOISE[seed] if value == 2 else 0.0)
                rows.append((seed, which, value, seen, seen, -seen))
    return pd.DataFrame(rows, columns=["seed", "dial", "value", "power", "executed_rms", "score"])


@pytest.mark.parametrize(
    ("high", "spread", "label"),
    [(1.0, 0.05, "supported"), (-1.0, 0.05, "not supported"), (0.0, 1.0, "inconclusive")],
)
def test_dials_get_their_three_labels(high: float, spread: float, label: str) -> None:
    said = tradeoffs.verdicts(dials_table(0.0, high, spread))
    assert said["verdict"].str.startswith(label).all()


def test_dials_are_told_a_line_a_claim() -> None:
    lines = tradeoffs.told(tradeoffs.verdicts(dials_table(0.0, 1.5, 0.0))).splitlines()
    assert len(lines) == len(tradeoffs.CLAIMS)
    first = "- a higher η moves what is done further apart: +1.5 standard deviations of a state, "
    assert lines[0].startswith(f"{first}supported (5 of 5 positive")
    assert lines[-1].startswith("- a higher τ costs return: +1.5 points, supported")


def needed(few: float, many: float, spread: float, zero: float = -20.0) -> pd.DataFrame:
    """What is said of leads ``few`` and ``many`` over the clone, in five seeds; zero noise scores
    ``zero`` more than what is selected."""
    rows = []
    for seed in range(5):
        for share, lead in ((0.1, few), (1.0, many)):
            mine = 50.0 + lead + spread * NOISE[seed] * (share < 1 or 0.5)
            scores = {CLONE: 50.0, SELECTED: mine, ZERO: mine + zero}
            rows += [(seed, share, name, score) for name, score in scores.items()]
    return data_need.needs_less(pd.DataFrame(rows, columns=["seed", "share", "learner", "score"]))


@pytest.mark.parametrize(
    ("few", "many", "spread", "label"),
    [(30.0, 5.0, 0.5, "supported"), (-30.0, -5.0, 0.5, "not supported"),
     (0.0, 0.0, 9.0, "inconclusive")],
)  # fmt: skip
def test_data_need_gets_its_three_labels(
    few: float, many: float, spread: float, label: str
) -> None:
    said = needed(few, many, spread)
    claimed = said[said["question"] != data_need.SELECTS]
    assert claimed["verdict"].str.startswith(label).all()
    assert said["question"].tolist().count("further ahead than with the most data") == 1
    assert data_need.label(said) == label


def test_data_need_is_told_with_both_of_its_questions() -> None:
    """Ahead with few data, but less than with many: the claim needs both."""
    said = needed(10.0, 30.0, 0.1)
    assert data_need.label(said) == "partly"
    assert data_need.told(said) == (
        "**Less data needed: partly.** The selected policy is, in points, "
        "ahead of the clone by +10.0 at 10% of D, +30.0 at 100% of D; "
        "further ahead than with the most data by -20.0 at 10% of D; "
        "ahead of zero noise by +20.0 at 10% of D, +20.0 at 100% of D."
    )


def test_a_selection_that_loses_to_its_own_candidate_tests_nothing() -> None:
    """However far it is ahead of the clone with few data."""
    kept, broken = needed(30.0, 5.0, 0.5, zero=1.9), needed(30.0, 5.0, 0.5, zero=2.1)
    assert data_need.label(kept) == "supported"
    assert data_need.label(broken) == "not testable here"
    said = "**Less data needed: not testable here: selection fails at these budgets.** The"
    assert data_need.told(broken).startswith(said)


@pytest.mark.parametrize(
    "wrong", [{"etas": ()}, {"eta": 3.0}, {"thresholds": (2.0,)}, {"episodes": 0}]
)
def test_a_grid_of_dials_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DialGrid(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"shares": (1.2,)}, {"shares": ()}, {"clone": 0}, {"ratio": 0.0}]
)
def test_a_grid_of_data_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DataGrid(**wrong)  # type: ignore[arg-type]


def test_the_best_of_n_costs_the_episodes_that_choose_it() -> None:
    rows = [(name, n, 40.0, 50.0) for name in (SEEDS, FRESH, "guided") for n in (1, 2, 10)]
    returns = pd.DataFrame(rows, columns=["set", "n", "mean", "other_half"])
    page = drawn._of_n(returns.assign(task="hopper-medium-replay", seed=0), half=10)
    assert set(page["line"]) == {SEEDS, FRESH} and set(page["task"]) == {"hopper-medium-replay"}
    shown = page[page["line"] == SEEDS].pivot(index="value", columns="row", values="y")
    assert shown["costs"].tolist() == [0, 20, 100]
    assert shown["buys"].tolist() == [40, 50, 50]


def test_counted_costs_stand_below_values_and_measured_dials_start_at_zero() -> None:
    lines = {"n": SEEDS, "eta": "guided", "tau": "guided", "ratio": "model", "data": "zero noise"}
    rows = [
        ("hopper-medium", which, value, row, f"{row} of {which}", line, seed, 10.0 + y)
        for which, line in lines.items()
        for value in (0.0 if line == "guided" else 0.5, 1.0, 2.0)
        for row, y in (("buys", value), ("costs", 1000 * value))
        for seed in (0, 1)
    ]
    columns = ["task", "dial", "value", "row", "measure", "line", "seed", "y"]
    figure = plotting.draw("16_dials", pd.DataFrame(rows, columns=columns))
    panels = {axes.get_label(): axes for axes in figure.axes}
    assert [text.get_text() for text in panels["n"].get_xticklabels()][1:] == [
        "1\n1,010",
        "2\n2,010",
    ]
    assert panels["n"].get_xlabel().endswith("below: costs of n")
    for kind in ("buys", "costs"):
        low, high = panels[f"{kind} eta"].get_ylim()
        assert (low, high) == panels[f"{kind} tau"].get_ylim() and low == 0 and high > 12


@pytest.mark.parametrize("profile", ["smoke", "laptop", "full", "paper"])
def test_the_page_of_dials_shows_only_what_is_prepared(profile: str) -> None:
    """Its n is E1's on a task that E1 has at this profile, its ratio E2's."""
    jobs = preparation.EXPERIMENTS["tradeoffs"].jobs(profile)
    task = seed_sets.grid_of(profile).tasks[0]
    for seed in profiles.budget(profile).seeds:
        assert (task, "seeds", seed) in preparation.EXPERIMENTS["multi_seed"].jobs(profile)
        assert {(task, "seeds", seed), ("hopper-medium", "sensitivity", seed)} <= set(jobs)
    everything = preparation._experiment_jobs(profile)
    assert set(jobs) <= set(everything) and len(everything) == len(set(everything))
    assert task in preparation.EXPERIMENTS["tradeoffs"].data(profile)
