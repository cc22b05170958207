from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import TINY, TINY_GRID, settle

from uepo_lib.errors import UsageError
from uepo_lib.experiments import epsilon, epsilon_verdict
from uepo_lib.experiments.epsilon_verdict import MARGIN
from uepo_lib.pools import Choice

# ---- the verdict, fed with tables whose answer is known ------------------------------------------

EPSILONS = (0.01, 0.05, 0.1, 0.2)
Effect = Callable[[float, int], float]
"""ε and seed to log2(error with no filter / error): the gain of filtering."""


def table(
    effect: Effect, seeds: int = 6, initial_gain: float = 0.5, chance: float = 0.0
) -> pd.DataFrame:
    """Every cell of one source and one test; no filter gains ``initial_gain`` over T̂_init, the
    random control ``chance`` less than that."""
    rows = []
    for seed in range(seeds):
        base = 2.0 ** (seed - 3)  # seeds differ by far more than any effect: pairing must remove it
        gains = {("none", math.nan, "none"): 0.0, ("model", math.nan, "kl"): initial_gain}
        for e in EPSILONS:
            gains["model", e, "kl"] = initial_gain + effect(e, seed)
        gains["model", 0.05, "random"] = initial_gain - chance
        for (source, e, how), gain in gains.items():
            for step in (1, 2, 10):
                error = base * step * 2.0**-gain
                rows.append((seed, source, 1.0, e, how, "held-out medium", step, error))
    columns = ["seed", "source", "ratio", "epsilon", "acceptance", "data", "step", "error"]
    return pd.DataFrame(rows, columns=columns)


def verdicts(effect: Effect, seeds: int = 6) -> pd.DataFrame:
    return epsilon_verdict.dependence(epsilon_verdict.gains(table(effect, seeds)))


def noise(scale: float) -> Effect:
    draws = np.random.default_rng(0).normal(0, scale, (20, len(EPSILONS)))
    return lambda e, seed: float(draws[seed, EPSILONS.index(e)])


def test_an_effect_of_epsilon_is_supported() -> None:
    small = noise(0.02)
    found = verdicts(lambda e, seed: (1.0 if e == 0.01 else 0.0) + small(e, seed))
    assert found["verdict"].tolist() == ["supported"] * 2
    assert found["step"].tolist() == [1, 10]
    assert (found["at"] == 0.01).all()
    assert found["largest"].to_numpy() == pytest.approx(1.0, abs=0.05)
    assert (found["low"] > 0).all()


def test_a_harm_counts_as_an_effect() -> None:
    small = noise(0.02)
    found = verdicts(lambda e, seed: (-1.0 if e == 0.2 else 0.0) + small(e, seed))
    assert found["verdict"].tolist() == ["supported"] * 2
    assert (found["high"] < 0).all()


def test_no_effect_is_not_supported() -> None:
    assert verdicts(noise(0.02))["verdict"].tolist() == ["not supported"] * 2


def test_a_sure_effect_within_the_margin_is_none() -> None:
    small = noise(0.005)
    found = verdicts(lambda e, seed: 0.4 * MARGIN + small(e, seed))
    assert (found["low"] > 0).all()
    assert found["verdict"].tolist() == ["not supported"] * 2


def test_noise_is_inconclusive() -> None:
    assert verdicts(noise(0.5))["verdict"].tolist() == ["inconclusive"] * 2


@pytest.mark.parametrize("seeds", [2, 3, 4])
@pytest.mark.parametrize("size", [0.0, 3.0])
def test_few_seeds_never_conclude(seeds: int, size: float) -> None:
    small = noise(0.001)
    found = verdicts(lambda e, seed: size + small(e, seed), seeds)
    assert found["verdict"].tolist() == ["inconclusive"] * 2
    assert (found["seeds"] == seeds).all()


def test_gains_are_paired_by_seed() -> None:
    gained = epsilon_verdict.gains(table(lambda e, seed: 10 * e))
    kl = gained[gained["acceptance"] == "kl"].dropna(subset="epsilon")
    np.testing.assert_allclose(kl["gain"], 0.5 + 10 * kl["epsilon"], atol=1e-9)
    assert set(gained["step"]) == {1, 10}
    assert set(epsilon_verdict.gains(table(lambda e, s: 0.0), (2,))["step"]) == {2}


def test_the_control_is_compared_at_its_own_epsilon() -> None:
    gained = epsilon_verdict.gains(table(lambda e, seed: 10 * e, chance=0.25))
    found = epsilon_verdict.against_random(gained)
    assert found["epsilon"].tolist() == [0.05, 0.05]
    np.testing.assert_allclose(found[list(range(6))], 0.75, atol=1e-9)
    assert found["verdict"].str.startswith("supported").all()


def test_the_gain_over_the_initial_model() -> None:
    gained = epsilon_verdict.gains(table(lambda e, seed: 0.0, initial_gain=-0.5))
    found = epsilon_verdict.against_initial(gained, 0.05)
    np.testing.assert_allclose(found[list(range(6))], -0.5, atol=1e-9)
    assert found["verdict"].str.startswith("not supported").all()
    with pytest.raises(UsageError, match="epsilon"):
        epsilon_verdict.against_initial(gained, 0.03)


def test_a_table_must_hold_what_is_compared() -> None:
    whole = table(lambda e, seed: 0.0)
    with pytest.raises(UsageError, match="T̂_init"):
        epsilon_verdict.gains(whole[whole["source"] != "none"])
    filtered = whole[whole["epsilon"].notna() | (whole["source"] == "none")]
    with pytest.raises(UsageError, match="epsilon"):
        epsilon_verdict.dependence(epsilon_verdict.gains(filtered))


# ---- the grid ------------------------------------------------------------------------------------


def test_every_cell_once() -> None:
    choices = list(dataclasses.replace(TINY_GRID, ratios=(0.5, 1.0)).choices())
    assert len(choices) == len(set(choices)) == 2 * 4
    assert (0.5, Choice(100, None)) in choices
    assert (1.0, Choice(200, 0.01, "random")) in choices


def test_updates_are_passes_over_the_largest_set() -> None:
    assert TINY_GRID.updates(batch_size=100) == 16  # 4 passes over 200 + 200 rows
    assert dataclasses.replace(TINY_GRID, ratios=(1.0, 3.0)).updates(100) == 32
    assert epsilon.GRIDS["laptop"].updates(256) == 781


def test_every_profile_has_a_grid() -> None:
    sizes = [epsilon.grid_of(name).size for name in ("smoke", "laptop", "full", "paper")]
    assert sizes == sorted(sizes)
    with pytest.raises(UsageError, match="laptop"):
        epsilon.grid_of("latop")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0),
        ("epochs", 0),
        ("sequences", 0),
        ("ahead", 0),
        ("attempts", 0.5),
        ("epsilons", ()),
        ("epsilons", (0.1, 0.1)),
        ("epsilons", (-0.1,)),
        ("ratios", (0.0,)),
        ("controls", (0.5,)),
        ("sources", ()),
        ("sources", ("modle",)),
    ],
)
def test_bad_grids_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(TINY_GRID, **{name: value})  # type: ignore[arg-type]


# ---- all of it, at a size of seconds -------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[pd.DataFrame, epsilon.Cells]]:
    folder = tmp_path_factory.mktemp("epsilon")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder / "data")
        found, runs = epsilon.run("tiny")
        assert [run.spec.kind for run in runs] == ["epsilon"]
        yield found, epsilon.cells(0, "tiny")
    torch.set_num_threads(threads)


def test_all_cells_make_equally_many_updates(measured: tuple[pd.DataFrame, epsilon.Cells]) -> None:
    _, cells = measured
    products = [cells.initial, *cells.cells.values()]
    last = {int(product.run.metrics["step"].iloc[-1]) for product in products}
    assert last == {TINY_GRID.updates(TINY.dynamics_batch)}
    assert len({product.run.id for product in products}) == 1 + 2 * 4


def test_cells_of_one_source_share_one_pool(measured: tuple[pd.DataFrame, epsilon.Cells]) -> None:
    _, cells = measured
    for (source, _, _), product in cells.cells.items():
        assert product.run.spec.parents == cells.pools[source].keys
    assert len({key for pool in cells.pools.values() for key in pool.keys}) == 2


def test_no_filter_is_a_filter_that_lets_all_pass(
    measured: tuple[pd.DataFrame, epsilon.Cells],
) -> None:
    found, _ = measured
    last = found[(found["step"] == 3) & (found["acceptance"] == "kl")]
    wide = last.assign(epsilon=last["epsilon"].fillna(-1.0)).pivot_table(
        index=["source", "data"], columns="epsilon", values="error"
    )
    np.testing.assert_array_equal(wide[-1.0], wide[1e6])


def test_the_table_says_what_was_kept_and_what_it_cost(
    measured: tuple[pd.DataFrame, epsilon.Cells],
) -> None:
    found, cells = measured
    assert (found["volume"] <= found["wanted"]).all()
    open_cells = found[found["epsilon"].isna() & (found["source"] != "none")]
    assert (open_cells["passing"] == 1).all()
    assert (open_cells["volume"] == TINY_GRID.size).all()
    spent = cells.pools["simulator"].run.record["environment"]["augmentation"]
    paid = found[found["source"] == "simulator"]
    assert set(paid["simulator_steps"]) == {spent["steps"]}
    assert set(paid["simulator_resets"]) == {spent["episodes"]}
    assert (found.loc[found["source"] != "simulator", "simulator_steps"] == 0).all()
    control = found[found["acceptance"] == "random"].set_index(["source", "data", "step"])
    kl = found[(found["acceptance"] == "kl") & (found["epsilon"] == 0.01)]
    volume = kl.set_index(["source", "data", "step"])["volume"]
    assert control["volume"].equals(volume)


def test_pools_start_in_the_slice_and_hold_the_policys_actions(
    measured: tuple[pd.DataFrame, epsilon.Cells],
) -> None:
    _, cells = measured
    begins = cells.study.windows.past(torch.arange(len(cells.study.windows)))[:, -1]
    for pool in (product.value for product in cells.pools.values()):
        firsts = (pool.lengths.cumsum(0) - pool.lengths)[pool.lengths > 0]
        starts = pool.transitions.states[firsts]
        nearest = torch.cdist(starts.double(), begins.double()).min(1).values
        assert nearest.max() < 1e-5
        assert pool.transitions.actions.abs().max() <= 1


def test_a_second_call_computes_nothing(measured: tuple[pd.DataFrame, epsilon.Cells]) -> None:
    found, cells = measured
    before = len(cells.study.store.computed())
    again, _ = epsilon.run("tiny")
    pd.testing.assert_frame_equal(again, found)
    assert len(cells.study.store.computed()) == before
