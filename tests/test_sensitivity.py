"""E2's remainder: verdicts on tables whose answer is known, and all of it at a size of seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import TINY, TINY_RATIOS, settle

from uepo_lib import plotting
from uepo_lib.errors import UsageError
from uepo_lib.experiments import discarded, epsilon, model_selection, ratios
from uepo_lib.experiments import sensitivity_verdict as verdict
from uepo_lib.experiments.epsilon_verdict import MARGIN
from uepo_lib.figures import sensitivity as shown
from uepo_lib.stages import Study

LABELS = ("supported", "not supported", "inconclusive")


def spread(scale: float, seed: int, place: int) -> float:
    """The same draw for the same seed and place."""
    return float(np.random.default_rng([seed, place]).normal(0, scale))


# ---- a label -------------------------------------------------------------------------------------


def test_a_label_needs_seeds_size_and_certainty() -> None:
    assert verdict.label([1.0, 1.1, 0.9, 1.0, 1.05], 0.1)["verdict"] == "supported"
    assert verdict.label([0.05, 0.06, 0.04, 0.05, 0.05], 0.1)["verdict"] == "not supported"
    assert verdict.label([-1.0, 2.0, -2.0, 1.0, 0.5], 0.1)["verdict"] == "inconclusive"
    assert verdict.label([1.0, 1.1, 0.9, 1.0], 0.1)["verdict"] == "inconclusive"
    assert verdict.label([], 0.1)["verdict"] == "not reached"
    alone = verdict.label([3.0], 0.1)
    assert alone["mean"] == 3 and math.isnan(alone["low"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4), st.floats(0, 1))
def test_few_seeds_never_conclude(values: list[float], margin: float) -> None:
    assert verdict.label(values, margin)["verdict"] == "inconclusive"


# ---- a sweet spot --------------------------------------------------------------------------------


def filtered(gain: Callable[[float], float], noise: float, seeds: int = 6) -> pd.DataFrame:
    rows = [
        ("model", 1.0, e, "kl", s, "held-out", 1, s + gain(e) + spread(noise, s, i))
        for s in range(seeds)  # seeds differ by more than any effect: pairing must remove it
        for i, e in enumerate((0.01, 0.05, 0.1, math.nan))
    ]
    columns = ["source", "ratio", "epsilon", "acceptance", "seed", "data", "step", "gain"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("gain", "noise", "expected"),
    [
        (lambda e: float(e == 0.05), 0.02, "supported"),
        (lambda e: 0.0 if math.isnan(e) else -e, 0.01, "not supported"),  # none is best
        (lambda e: 1.0 if e == 0.01 else 0.0, 0.01, "not supported"),  # the tightest is best
        (lambda e: 0.0, 1.0, "inconclusive"),
    ],
)
def test_a_sweet_spot_beats_both_ends(
    gain: Callable[[float], float], noise: float, expected: str
) -> None:
    found = verdict.sweet_spot(filtered(gain, noise))
    assert found["verdict"].tolist() == [expected]
    if expected == "supported":
        assert found["at"].tolist() == [0.05]
        assert found["mean"].iloc[0] == pytest.approx(1, abs=0.05)


def test_a_spot_needs_two_ends_and_something_between() -> None:
    part = filtered(lambda e: 0.0, 0.1)
    found = verdict.sweet_spot(part[part["epsilon"] != 0.05].dropna())
    assert found["verdict"].tolist() == ["not reached"] and found["at"].isna().all()


def test_a_filter_that_one_seed_could_not_fill_is_no_end_of_the_sweep() -> None:
    table = filtered(lambda e: 0.0 if math.isnan(e) else -e, 0.0).assign(volume=100, wanted=100)
    short = (table["epsilon"] == 0.01) & (table["seed"] == 4)
    table.loc[short, "volume"] = 89
    assert verdict.sweet_spot(table)["at"].tolist() == [0.05]
    assert verdict.sweet_spot(verdict.reached(table))["at"].tolist() == [0.1]
    assert verdict.left_out(table) == "model, ratio 1, ε = 0.01 (1 of 6 seeds)"
    assert verdict.left_out(verdict.reached(table)) == "none"


# ---- the ratio, chance, selection ----------------------------------------------------------------


def by_ratio(large: float, small: float, noise: float, chance: float = 0.0) -> pd.DataFrame:
    rows = []
    for s in range(6):
        for i, ratio in enumerate((0.5, 1.0, 2.0, 3.0)):
            gain = (large if ratio >= 2 else small) + spread(noise, s, i)
            for how, lost in (("kl", 0.0), ("random", chance + spread(noise, s, 10 + i))):
                rows.append(("model", ratio, 0.05, how, s, "held-out", 1, gain - lost))
    columns = ["source", "ratio", "epsilon", "acceptance", "seed", "data", "step", "gain"]
    return pd.DataFrame(rows, columns=columns).assign(volume=100, wanted=100)


@pytest.mark.parametrize(
    ("large", "small", "noise", "expected"),
    [
        (1.0, 0.2, 0.02, ["supported", "supported"]),
        (1.0, 1.0, 0.01, ["supported", "not supported"]),
        (-0.5, 0.2, 0.01, ["not supported", "not supported"]),
        (0.0, 0.0, 2.0, ["inconclusive", "inconclusive"]),
    ],
)
def test_large_ratios_against_none_and_against_small_ones(
    large: float, small: float, noise: float, expected: list[str]
) -> None:
    found = verdict.large_ratio(by_ratio(large, small, noise))
    assert found["against"].tolist() == ["T̂_init", "ratios up to 1"]
    assert found["verdict"].tolist() == expected
    if noise < 1:
        assert found["mean"].tolist() == pytest.approx([large, large - small], abs=0.05)


def test_a_ratio_that_the_filter_cannot_fill_is_not_reached() -> None:
    table = by_ratio(1.0, 0.2, 0.02)
    everything = table[table["acceptance"] == "kl"].assign(epsilon=math.nan)
    table.loc[table["ratio"] >= 2, "volume"] = 89
    found = verdict.large_ratio(verdict.reached(pd.concat([table, everything], ignore_index=True)))
    assert found["filter"].tolist() == ["ε", "ε", "none", "none"]
    assert found["verdict"].tolist() == ["not reached"] * 2 + ["supported"] * 2


def test_the_ratios_and_seeds_behind_a_mean_are_told() -> None:
    table = by_ratio(1.0, 0.2, 0.0)
    large = verdict.large_ratio(table[(table["ratio"] < 3) | (table["seed"] == 0)])
    assert set(large["ratios"]) == {"2 (6 seeds), 3 (1 seed)"}
    assert verdict.large_told(large) == (
        "model, ε = 0.05: +1.00, from ratio 2 (6 seeds), 3 (1 seed)"
    )
    none = verdict.large_ratio(table[table["ratio"] < 2])
    assert verdict.large_told(none) == "model, ε = 0.05: not reached"


@pytest.mark.parametrize(
    ("chance", "noise", "expected"),
    [(1.0, 0.02, "supported"), (-0.5, 0.02, "not supported"), (0.2, 2.0, "inconclusive")],
)
def test_the_filter_against_chance_at_each_ratio(
    chance: float, noise: float, expected: str
) -> None:
    found = verdict.filter_over_chance(by_ratio(0.0, 0.0, noise, chance))
    assert found["ratio"].tolist() == [0.5, 1.0, 2.0, 3.0]
    assert expected in set(found["verdict"])
    if noise < 1:
        assert set(found["verdict"]) == {expected}
        np.testing.assert_allclose(found["mean"], chance, atol=0.05)


def chosen_in(saved: float, noise: float) -> pd.DataFrame:
    rows = []
    for s in range(6):
        rows.append((s, "none", math.nan, "none", 20.0 + s))
        for i, e in enumerate((0.05, math.nan)):
            rows.append((s, "model", e, "kl", 20.0 + s - saved + spread(noise, s, i)))
    return pd.DataFrame(rows, columns=["seed", "source", "epsilon", "acceptance", "regret"])


@pytest.mark.parametrize(
    ("saved", "noise", "expected"),
    [(10.0, 0.5, "supported"), (0.0, 0.2, "not supported"), (3.0, 30.0, "inconclusive")],
)
def test_a_model_that_selects_better_saves_regret(
    saved: float, noise: float, expected: str
) -> None:
    found = verdict.selects_better(chosen_in(saved, noise))
    assert found["verdict"].tolist() == [expected] * 2
    assert verdict.counted(found) == f"{expected} (2 of 2)"


def test_advice_is_the_cell_with_the_largest_mean_gain() -> None:
    found = verdict.advice(by_ratio(0.5, 0.1, 0.0, chance=0.3))
    assert found[["ratio", "acceptance"]].iloc[0].tolist() == [2.0, "kl"]
    assert found["gain"].iloc[0] == pytest.approx(0.5)
    assert abs(MARGIN - math.log2(1.1)) < 1e-12  # a tenth of the squared error


def test_advice_is_of_one_sweep() -> None:
    table = by_ratio(0.5, 0.1, 0.0)
    with pytest.raises(UsageError, match="one sweep"):
        verdict.advice(pd.concat([table, table[table["ratio"] == 1]]))


def test_a_cell_that_one_seed_lacks_is_not_advised() -> None:
    table = by_ratio(0.5, 0.1, 0.0)
    some = table[(table["ratio"] != 3) | (table["seed"] == 0)]
    lucky = some.assign(gain=some["gain"].where(some["ratio"] != 3, 9.0))
    best = verdict.advice(lucky).iloc[0]
    assert best["ratio"] == 2 and best["seeds"] == 6
    assert best["cells"] == 2 * 3  # filtered and random, ratios ½, 1 and 2


@pytest.mark.parametrize(
    ("gain", "seeds", "words"),
    [(0.5, 3, "above 0, 3 seeds: inconclusive"), (0.5, 5, "above 0, 5 seeds: supported"),
     (0.0, 5, "not above 0, 5 seeds: ")],
)  # fmt: skip
def test_the_best_of_many_cells_is_told_with_its_label(gain: float, seeds: int, words: str) -> None:
    table = by_ratio(gain, 0.0, 0.0, chance=0.0)
    best = verdict.advice(table[table["seed"] < seeds])
    said = verdict.advised(best)
    assert words in said
    assert "for sure" not in said
    cells = table.drop_duplicates(["source", "ratio", "epsilon", "acceptance"]).groupby("source")
    assert best.set_index("source")["cells"].to_dict() == cells.size().to_dict()
    ours = table.groupby(["source", "ratio", "epsilon", "acceptance", "seed"], dropna=False)
    alone = ours["gain"].mean().groupby(level=[0, 1, 2, 3], dropna=False)
    lows = [verdict.label(g.tolist(), MARGIN)["low"] for _, g in alone]
    assert best["low"].max() <= max(lows)  # the best of many is less sure than one cell


# ---- what is thrown away -------------------------------------------------------------------------


def test_separation_is_a_probability() -> None:
    assert discarded.separation([1, 2], [3, 4]) == 1
    assert discarded.separation([3, 4], [1, 2]) == 0
    assert discarded.separation([1, 1], [1]) == 0.5
    assert discarded.separation([1, 3], [2]) == 0.5
    with pytest.raises(UsageError, match="refused"):
        discarded.separation([1], [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 1_000))
def test_means_of_trajectories_are_those_of_a_plain_loop(lengths: list[int], seed: int) -> None:
    counts = torch.tensor(lengths)
    values = torch.randn(int(counts.sum()), generator=torch.Generator().manual_seed(seed))
    found = discarded.mean_by_trajectory(values, counts)
    for mean, part in zip(found, values.split(lengths), strict=True):
        assert (mean.isnan() and not len(part)) or torch.isclose(mean, part.mean(), atol=1e-6)


def trajectories() -> pd.DataFrame:
    """The filter's value ranks T̂_init's error, and the random control learns most where it errs."""
    value = np.arange(1.0, 11.0)
    same = {"disagreement": 1.0, "length": 5.0, "reward": 0.0, "speed": 1.0}
    return pd.DataFrame({
        "seed": 0, "source": "simulator", "trajectory": range(10), "excess": value / 10,
        "error": value**2, "error_random": value, "error_kl": value**2, "unseen": value > 2,
        "distance": -value, **same,
    })  # fmt: skip


def test_accepted_and_rejected_are_compared_quantity_by_quantity() -> None:
    found = discarded.compare(trajectories(), (0.35, 5.0)).set_index("quantity")
    assert set(found["epsilon"]) == {0.35}  # 5 keeps all: nothing to compare
    assert found.loc["error", "accepted"] == pytest.approx((1 + 4 + 9) / 3)
    assert found.loc["error", "separation"] == 1 and found.loc["distance", "separation"] == 0
    assert found.loc["length", "separation"] == 0.5
    assert (found["share"] == 0.3).all()


def test_what_was_expected_of_refused_trajectories_is_answered() -> None:
    rows = [(source, seed, 0.05, name, 0.9 if name != "speed" else value)
            for source, value in (("model", 0.7), ("simulator", 0.4)) for seed in range(3)
            for name in ("distance", "speed", "length")]  # fmt: skip
    columns = ["source", "seed", "epsilon", "quantity", "separation"]
    said = discarded.expected(pd.DataFrame(rows, columns=columns))
    seen, _, against = said.partition("**Not seen**")
    assert "faster (model, 0.70)" in seen and "further from D (simulator, 0.90)" in seen
    assert "faster (simulator, 0.40)" in against and "3 seeds" in against
    assert "length" not in said
    nowhere = discarded.expected(pd.DataFrame(rows, columns=columns), epsilon=9.0)
    assert "nothing to compare" in nowhere


@pytest.mark.parametrize(
    ("others", "words"),
    [((80.0,) * 10, "as expected"), ((80.0,) * 5 + (40.0,) * 5, "expected were")],
)
def test_whether_models_choose_alike_is_answered(others: tuple[float, ...], words: str) -> None:
    rows = [(seed, "none" if i == 0 else "model", chosen)
            for seed in range(2) for i, chosen in enumerate((80.0, *others))]  # fmt: skip
    said = model_selection.alike(pd.DataFrame(rows, columns=["seed", "source", "chosen"]))
    assert words in said
    assert f"{2 * others.count(80.0)} of 20 models" in said
    assert f"seed 0: {min(others):.1f} to 80.0" in said


def test_what_is_learnt_is_measured_on_unseen_trajectories() -> None:
    new = discarded.learnt(trajectories())
    assert len(new) == 8 and (new["excess"] > 0.2).all()
    np.testing.assert_allclose(new["random"], np.log2(10 * new["excess"]))
    np.testing.assert_array_equal(new["filtered"], 0)
    rank = discarded.ranks(trajectories()).iloc[0]
    assert rank["error"] == pytest.approx(1) and rank["random"] == pytest.approx(1)
    assert math.isnan(rank["filtered"]) and rank["unseen"] == 8


# ---- regret --------------------------------------------------------------------------------------


def test_regret_is_what_the_choice_loses_to_the_best() -> None:
    rows = [
        (0, source, e, how, told, score)
        for source, e, how, scores in (
            ("none", math.nan, "none", (1.0, 2.0, 3.0)),
            ("model", math.nan, "kl", (3.0, 2.0, 1.0)),
            ("model", 0.05, "kl", (1.0, 3.0, 2.0)),
        )
        for told, score in zip(scores, (10.0, 30.0, 70.0), strict=True)
    ]
    columns = ["seed", "source", "epsilon", "acceptance", "dead_zero", "score"]
    table = pd.DataFrame(rows, columns=columns)
    found = model_selection.regrets(table.assign(even=table["score"], odd=table["score"]))
    assert found["regret"].tolist() == [0.0, 60.0, 40.0]
    assert found["correlation"].tolist() == pytest.approx([1.0, -1.0, 0.5])
    assert found["source"].tolist() == ["none", "model", "model"]
    assert found["epsilon"].isna().tolist() == [True, True, False]
    assert found["random"].tolist() == pytest.approx([70 - 110 / 3] * 3)  # a mean candidate's
    assert "worse than chance" not in model_selection.chance_told(
        model_selection.against_chance(found.assign(regret=0.0))
    )


def test_one_model_under_two_names_is_counted_once() -> None:
    cells = [("none", math.nan, "none"), ("model", 0.01, "random"), ("model", 0.05, "random"),
             ("simulator", 0.01, "random"), ("simulator", 0.05, "random")]  # fmt: skip
    rows = [
        (seed, *cell, i, told * (seed + 1) * i, float(i))
        for cell, told in zip(cells, (1.0, 2.0, 3.0, 4.0, 4.0), strict=True)
        for seed in (0, 1)
        for i in range(3)
    ]
    columns = ["seed", *model_selection.CELL, "member", "dead_zero", "score"]
    table = pd.DataFrame(rows, columns=columns)
    kept = model_selection.distinct(table)[model_selection.CELL].drop_duplicates()
    assert list(zip(kept["source"], kept["epsilon"].fillna(0), strict=True)) == [
        ("none", 0), ("model", 0.01), ("model", 0.05), ("simulator", 0.05)
    ]  # fmt: skip


def test_models_that_choose_worse_than_a_draw_are_named() -> None:
    rows = [(seed, source, epsilon, how, -0.1, regret, 30.0)
            for seed in range(2)
            for source, epsilon, how, regret in (("none", math.nan, "none", 50.0),
                                                 ("model", 0.05, "kl", 80.0),
                                                 ("simulator", 0.05, "kl", -10.0))]  # fmt: skip
    columns = ["seed", *model_selection.CELL, "correlation", "regret", "random"]
    found = model_selection.against_chance(pd.DataFrame(rows, columns=columns))
    assert found["regret"].tolist() == [30, 50, 80, -10, 35]
    assert "worse than chance here** (T̂_init and all T̂)" in model_selection.chance_told(found)
    found.loc["all T̂", "regret"] = 29.0
    assert "worse than chance here** (T̂_init)" in model_selection.chance_told(found)


# ---- all of it, at a size of seconds -------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("sensitivity")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder / "data")
        yield
    torch.set_num_threads(threads)


def test_ratios_share_a_pool_and_the_number_of_updates(world: None) -> None:
    found, runs = ratios.run("tiny")
    cells = epsilon.cells(0, "tiny", TINY_RATIOS)
    assert runs[0].id != epsilon.measure(0, "tiny").run.id
    assert set(found["epsilon"].dropna()) == {1e6}
    last = {int(p.run.metrics["step"].iloc[-1]) for p in (cells.initial, *cells.cells.values())}
    assert last == {TINY_RATIOS.updates(TINY.dynamics_batch)}
    told = epsilon.sizes("tiny", TINY_RATIOS)
    assert told["gradient steps of every model"] == str(*last)
    assert told["real transitions"] == str(TINY_RATIOS.size) and told["network"] == "8 × 8"
    filled = found[found["step"] == 1].groupby(["source", "ratio", "acceptance"])["volume"].first()
    for source in ("model", "simulator"):
        for ratio in TINY_RATIOS.ratios:
            one = filled[source, ratio]
            assert one["kl"] == one["random"] == ratio * TINY_RATIOS.size


def test_every_trajectory_of_the_pools_is_described(world: None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discarded, "EPSILON", 0.01)  # the control that the tiny grid has
        found = discarded.measure(0, "tiny").value
    cells = epsilon.cells(0, "tiny")
    for source, part in found.groupby("source"):
        pool = cells.pools[str(source)].value
        assert len(part) == int((pool.lengths > 0).sum())
        np.testing.assert_allclose(part["excess"], pool.excess[pool.lengths > 0], rtol=1e-5)
        assert part["length"].sum() == len(pool.transitions)
        assert (part["distance"] >= 0).all()
    real = found[found["source"] == "simulator"]
    assert (real[["error", "error_kl", "error_random"]] > 0).all().all()
    assert found.loc[found["source"] == "model", "error"].isna().all()


def test_all_models_judge_the_same_candidates_in_the_units_they_learnt(world: None) -> None:
    found, _ = model_selection.run("tiny")
    cells = epsilon.cells(0, "tiny")
    np.testing.assert_allclose(found["even"], found["score"], rtol=1e-5)  # of a single episode
    assert len(found) == (1 + len(cells.cells)) * (1 + 3 * TINY.num_subpolicies)
    per_model = found.groupby(model_selection.CELL, dropna=False)["score"].apply(tuple)
    assert len(per_model) == 1 + len(cells.cells) and per_model.nunique() == 1
    whole = Study(epsilon.TASK, 0, "tiny", progress=False).dataset.normaliser  # policy and critic
    for name, value in whole.tensors().items():
        assert torch.equal(value, cells.study.dataset.normaliser.tensors()[name])


def test_profiles_have_grids() -> None:
    for name in ("smoke", "laptop", "full", "paper"):
        assert max(ratios.grid_of(name).ratios) == 3 and ratios.grid_of(name).controls
        assert model_selection.amq_of(name).horizon % 4 == 0
    for grid in (ratios.grid_of, model_selection.amq_of):
        with pytest.raises(UsageError, match="laptop"):
            grid("latop")


# ---- figures -------------------------------------------------------------------------------------


def test_the_figure_of_selection_shows_chance() -> None:
    rows = [("none", math.nan, "none", 0.1), ("model", 0.01, "kl", 0.2)]
    rows += [("model", 0.01, "random", 0.3), ("simulator", 0.05, "random", 0.5)]
    table = pd.DataFrame(rows, columns=["source", "epsilon", "acceptance", "correlation"])
    parts = [table.assign(seed=seed, chosen=9.0, regret=1.0, random=2.0) for seed in (0, 1)]
    whole = pd.concat(parts, ignore_index=True)
    regret = plotting.draw("11_selection", whole).axes[1]
    chance = [line for line in regret.lines if line.get_label() == "a candidate at random"]
    assert [float(np.ravel(line.get_ydata())[0]) for line in chance] == [2.0]


def test_a_mean_of_the_ratio_is_one_of_all_seeds() -> None:
    """A seed that does not fill ratio 2 must not look like an effect of the ratio."""
    rows = [("model", r, 0.05, how, seed, "held-out medium", step, gain)
            for seed, gain in ((0, 1.0), (1, 3.0)) for r in (1.0, 2.0) for how in ("kl", "random")
            for step in (1, 10) if (seed, r) != (1, 2.0)]  # fmt: skip
    columns = ["source", "ratio", "epsilon", "acceptance", "seed", "data", "step", "gain"]
    table = pd.DataFrame(rows, columns=columns)
    one = table[(table["acceptance"] == "kl") & (table["step"] == 1)]
    whole, some = shown.means_of_all(one, "ratio", "gain", seeds=2)
    assert whole.to_dict() == {1.0: 2.0} and some.to_dict() == {2.0: 1.0}
    figure = plotting.draw("11_ratio", table)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["D_diff from T̂_init, filtered"].get_xdata()) == [1.0]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(text.startswith("open: ") for text in said)
    everyone = plotting.draw("11_ratio", table[table["ratio"] == 1.0])
    said = [text.get_text() for text in everyone.legends[0].get_texts()]
    assert not any(text.startswith("open: ") for text in said)
