"""Is the spread the dataset's or the seed's? On tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from uepo_lib import profiles, tasks
from uepo_lib.errors import UsageError
from uepo_lib.experiments import offline_to_online, three_datasets
from uepo_lib.experiments.three_datasets import GAIN, ROWS, spread, told
from uepo_lib.preparation import EXPERIMENTS

NAMES = three_datasets.DATASETS["full"]


def table(
    shifts: tuple[float, ...], noise: float, gains: tuple[float, ...] = (0.0, 0.0, 0.0),
    seeds: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """Scores of 60, moved by ``shifts`` of the dataset; UEPO's are ``gains`` higher."""
    draw = np.random.default_rng(0)
    rows = [
        {"dataset": name, "seed": seed, "row": row,
         **{m: 60 + shift + gain * (row == "uepo") + noise * draw.standard_normal()
            for m in ("offline", "end")}}
        for name, shift, gain in zip(NAMES, shifts, gains, strict=True)
        for seed in range(seeds)
        for row in ROWS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_what_is_planted_is_found() -> None:
    found = spread(table((-10.0, 0.0, 10.0), 0.0)).set_index(["row", "measure"])
    assert set(found.index) == {(row, m) for row in (*ROWS, GAIN) for m in ("offline", "end")}
    for row in ROWS:
        one = found.loc[(row, "end")]
        assert one["between datasets"] == pytest.approx(10) and one["mean"] == pytest.approx(60)
        assert one["between seeds"] == one["by chance"] == 0
        assert (one["datasets"], one["seeds"]) == (3, 5)
    assert found.loc[(GAIN, "end"), "between datasets"] == pytest.approx(0, abs=1e-9)


def test_seeds_alone_make_datasets_differ_by_chance() -> None:
    found = spread(table((0.0, 0.0, 0.0), 4.0, seeds=400)).set_index(["row", "measure"])
    one = found.loc[("bc", "offline")]
    assert one["between seeds"] == pytest.approx(4, rel=0.1)
    assert one["by chance"] == pytest.approx(4 / 20, rel=0.1)
    assert one["between datasets"] < 3 * one["by chance"]
    # a difference of two scores has the noise of both
    assert found.loc[(GAIN, "end"), "between seeds"] == pytest.approx(4 * 2**0.5, rel=0.1)


def test_a_gain_that_only_one_dataset_shows_is_spread() -> None:
    found = spread(table((0.0, 0.0, 0.0), 0.0, (9.0, 0.0, 0.0))).set_index(["row", "measure"])
    assert found.loc[(GAIN, "end"), "mean"] == pytest.approx(3)
    assert found.loc[(GAIN, "end"), "between datasets"] == pytest.approx(9 / 3**0.5)


@pytest.mark.parametrize(
    ("gains", "said"), [((3.0, 1.0, 2.0), "The same sign"), ((3.0, -1.0, 2.0), "Not one sign")]
)
def test_the_sign_of_the_headline_is_told(gains: tuple[float, ...], said: str) -> None:
    words = told(table((0.0, 5.0, 9.0), 0.0, gains))
    assert said in words and f"{gains[1]:+.1f} on hopper-medium-b" in words


def test_a_seed_that_is_missing_on_a_dataset_is_refused() -> None:
    whole = table((0.0, 0.0, 0.0), 1.0)
    lacking = whole[(whole["dataset"] != NAMES[2]) | (whole["seed"] != 4)]
    with pytest.raises(UsageError, match="every seed on every dataset"):
        spread(lacking)
    with pytest.raises(UsageError, match="two or more"):
        spread(whole[whole["seed"] == 0])


def test_only_full_plays_them() -> None:
    assert [name for name in profiles.PROFILES if three_datasets.datasets_of(name)] == ["full"]
    one, others = EXPERIMENTS["offline_to_online"], set(NAMES[1:])
    for profile in ("smoke", "laptop"):
        assert {job for _, job, _ in one.jobs(profile)} == {"comparison"}
        assert others.isdisjoint(one.data(profile))
    more = [(task, seed) for task, job, seed in one.jobs("full") if job == "another dataset"]
    assert more == [(task, seed) for task in NAMES[1:] for seed in range(5)]
    assert others <= set(one.data("full"))
    assert NAMES[0] in offline_to_online.comparison_of("full").tasks
    assert all(tasks.get(name).robot.name == "hopper" for name in NAMES)
