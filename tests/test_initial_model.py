"""E5: the linear world against draws from it, a tiny grid end to end, and the verdict's labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import TINY_INITIAL as TINY
from tiny_study import settle

from uepo_lib import dynamics_training
from uepo_lib.datasets import Transitions
from uepo_lib.errors import UsageError
from uepo_lib.experiments import initial_model, initial_verdict
from uepo_lib.experiments.initial_model import BIASED, DATA
from uepo_lib.figures.initial_model import START, toy_table
from uepo_lib.filter_bias import LinearWorld
from uepo_lib.miscalibration import Probe, WeakMotors, probe
from uepo_lib.slices import SlicedStudy

WORLDS = [
    LinearWorld(),
    LinearWorld(horizon=4, epsilon=0.2),
    LinearWorld(median=False, epsilon=0.5),
    LinearWorld(action=0.7, noise=0.9, horizon=2, epsilon=0.0),
]
worlds = st.builds(
    LinearWorld, st.floats(0.2, 3), st.floats(0.1, 3), st.integers(1, 60), st.floats(0.01, 2),
    st.booleans(),
)  # fmt: skip


# ---- the linear world ----------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("source", ["model", "simulator", "unfiltered"])
@pytest.mark.parametrize("bias", [0.3, -1.2])
def test_the_closed_form_is_what_draws_and_least_squares_give(
    world: LinearWorld, source: Any, bias: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    kept, found = world.simulated(bias, 2.0, source, 200_000, generator)
    assert kept == pytest.approx(world.kept(bias) if source == "simulator" else 1, abs=0.006)
    # the real noise of least squares on 200,000 rows, several times over
    assert found == pytest.approx(world.next_bias(bias, 2.0, source), abs=0.012)


def test_the_picture_begins_its_rounds_where_the_page_does() -> None:
    world = LinearWorld()
    table = toy_table([world], [0.5, 2.0], 2.0, 3)  # the largest bias drawn is not the first
    rounds = table[(table["part"] == "round") & (table["source"] == "simulator")]
    assert rounds["value"].tolist() == pytest.approx(world.rounds(START, 2.0, "simulator", 3))


@pytest.mark.parametrize(("highest", "said"), [(0.74, "0.66 to 0.74"), (0.84, "0.66 to 0.84")])
def test_what_is_kept_is_held_against_what_was_expected(highest: float, said: str) -> None:
    rows = [
        ("model", "1 %", 0.5, None, None), ("model", "10 %", 0.55, None, None),
        ("simulator", "1 %", 0.66, 1.0, 2.0), ("simulator", "10 %", highest, 2.0, 1.0),
    ]  # fmt: skip
    columns = ["source", "init", "passing", "kept_error", "refused_error"]
    kept = pd.DataFrame(rows, columns=columns).set_index(["source", "init"])
    text = initial_verdict.kept_says(kept)
    met = "met" if highest < 0.76 else "not met"
    assert f"in the simulator {said} of them pass, by T̂_init: {met}." in text
    assert "in T̂_init 0.50 to 0.55 of them pass, by T̂_init: met;" in text
    assert "true of 1 of 2" in text


@settings(max_examples=60, deadline=None)
@given(worlds, st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5))
def test_no_round_leaves_more_bias_than_there_was(
    world: LinearWorld, bias: float, ratio: float, logged: float
) -> None:
    assert -1e-9 <= world.remaining(bias) <= 1 + 1e-9
    for source in ("model", "simulator", "unfiltered"):
        after = world.next_bias(bias, ratio, source, logged)  # type: ignore[arg-type]
        assert abs(after) <= max(abs(bias), abs(logged)) + 1e-9


def test_the_limits_of_the_filter() -> None:
    assert LinearWorld(epsilon=1e6).remaining(1.0) == pytest.approx(0, abs=1e-9)
    assert LinearWorld(epsilon=1e-9, median=False).remaining(1.0) == pytest.approx(1, abs=1e-6)
    assert LinearWorld(epsilon=0.0).kept(2.0) == pytest.approx(0.5)  # the median rule
    strict, loose = (LinearWorld(epsilon=0.05, median=m).remaining(0.3) for m in (False, True))
    assert strict > loose  # ε alone keeps more of the bias than ε over the median


def test_rounds_halve_a_models_bias_where_d_is_right() -> None:
    found = LinearWorld().rounds(0.8, 1.0, "model", 3)
    np.testing.assert_allclose(found, [0.8, 0.4, 0.2, 0.1])
    assert LinearWorld().rounds(0.8, 1.0, "unfiltered", 1)[1] == 0


@pytest.mark.parametrize("world", WORLDS)
def test_fixed_points_where_d_is_wrong(world: LinearWorld) -> None:
    model, real, all_real = (
        world.fixed_point(2.0, s, logged=0.6)  # type: ignore[arg-type]
        for s in ("model", "simulator", "unfiltered")
    )
    assert model == pytest.approx(0.6)  # nothing says otherwise
    assert all_real == pytest.approx(0.6 / 3)  # D's share
    assert all_real < real < model
    assert world.next_bias(real, 2.0, "simulator", 0.6) == pytest.approx(real, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "value"), [("noise", 0.0), ("horizon", 0), ("epsilon", -1.0), ("action", -1.0)]
)
def test_bad_worlds_are_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        replace(LinearWorld(), **{name: value})  # type: ignore[arg-type]


def test_a_bad_source_is_named() -> None:
    with pytest.raises(UsageError, match="simulator"):
        LinearWorld().next_bias(1.0, 1.0, "simulatr")  # type: ignore[arg-type]


# ---- the ruler -----------------------------------------------------------------------------------


def ruler(gain: float) -> Probe:
    generator = torch.Generator().manual_seed(0)
    states, actions = (
        torch.randn(50, 4, generator=generator),
        torch.randn(50, 2, generator=generator),
    )
    effect = torch.randn(2, 4, generator=generator)
    return Probe(states, actions, states + actions @ effect, states + gain * actions @ effect)


class Believes:
    """A linear T̂ with a gain of its own and an error that actions do not cause."""

    def __init__(self, probe: Probe, gain: float, error: float = 0.0) -> None:
        self.probe, self.gain, self.error = probe, gain, error

    def predict(self, states: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, None]:
        effect = self.probe.right - self.probe.states
        way = self.probe.wrong - self.probe.right
        other = torch.randn(way.shape, generator=torch.Generator().manual_seed(1))
        other -= way * (other * way).sum() / way.square().sum()  # at a right angle
        return states + self.gain * effect + self.error * other, None


@pytest.mark.parametrize(
    ("gain", "expected"), [(1.0, 0.0), (0.8, 1.0), (0.9, 0.5), (0.0, 5.0), (1.2, -1.0)]
)
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_bias_is_the_gain_that_is_believed(gain: float, expected: float, error: float) -> None:
    one = ruler(0.8)
    model: Any = Believes(one, gain, error)
    assert one.bias(model) == pytest.approx(expected, abs=1e-4)


# ---- verdicts ------------------------------------------------------------------------------------


def measured(gain: dict[str, float], noise: float, seeds: int = 6) -> pd.DataFrame:
    """One source's table: log2 gain over D alone by T̂_init; seeds differ by more than that."""
    rows = []
    for s in range(seeds):
        base = 2.0**s
        for init in ("1 %", DATA, "100 %", BIASED):
            rows.append((s, init, "own", "none", "none", 0, 1, base, 0.0))
            for i, how in enumerate(("kl", "random")):
                draw = float(np.random.default_rng([s, i]).normal(0, noise))
                error = base * 2.0 ** -(gain.get(init, 0.0) + draw * (1 if init == "1 %" else -1))
                rows.append((s, init, "D", "model", how, 1, 1, error, 0.0))
    columns = ["seed", "init", "real", "source", "acceptance", "round", "step", "error", "bias"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("worst", "noise", "expected"),
    [(-1.0, 0.02, "supported"), (0.0, 0.02, "not supported"), (-0.3, 2.0, "inconclusive")],
)
def test_does_a_better_initial_model_make_a_better_one(
    worst: float, noise: float, expected: str
) -> None:
    found = initial_verdict.quality(initial_verdict.gains(measured({"1 %": worst}, noise)))
    assert found["verdict"].tolist() == [expected] * 2
    if noise < 1:
        np.testing.assert_allclose(found["mean"], -worst, atol=0.1)


def test_gains_are_over_the_same_real_data() -> None:
    table = measured({"1 %": -1.0, DATA: 0.5}, 0.0)
    own = table[(table["init"] == "1 %") & (table["round"] == 1)].assign(real="own")
    table.loc[(table["init"] == "1 %") & (table["round"] == 0), "error"] *= 4  # a poor T̂_init
    gained = initial_verdict.gains(pd.concat([table, own]))
    by = initial_verdict.helps(gained).set_index(["init", "real", "acceptance"])["mean"]
    assert by["1 %", "D", "kl"] == pytest.approx(-1)
    assert by["1 %", "own", "kl"] == pytest.approx(1)  # 4 times less error at the start, two bits
    assert by[DATA, "D", "kl"] == pytest.approx(0.5)
    with pytest.raises(UsageError, match="T̂_init"):
        initial_verdict.gains(table[table["round"] > 0])


def by_round(end: float, chance: float, noise: float, seeds: int = 6) -> pd.DataFrame:
    rows = []
    for s in range(seeds):
        for how, value in (("kl", end), ("random", chance)):
            draw = float(np.random.default_rng([s, int(how == "kl")]).normal(0, noise))
            rows += [(s, "simulator", how, 0, 1.0), (s, "simulator", how, 1, value + draw)]
        rows += [(s, "D alone", "none", r, 0.0) for r in (0, 1)]
    return pd.DataFrame(rows, columns=["seed", "source", "acceptance", "round", "bias"])


@pytest.mark.parametrize(
    ("end", "chance", "noise", "expected"),
    [
        (1.5, 0.0, 0.02, ["supported", "supported", "supported"]),
        (0.5, 0.5, 0.02, ["not supported", "supported", "not supported"]),
        (0.0, 0.0, 0.02, ["not supported"] * 3),
        (0.5, 0.5, 20.0, ["inconclusive"] * 3),
    ],
)
def test_growth_persistence_and_the_filters_part(
    end: float, chance: float, noise: float, expected: list[str]
) -> None:
    found = initial_verdict.reinforcement(by_round(end, chance, noise))
    filtered = found[found["acceptance"] == "kl"]
    assert filtered["claim"].tolist() == ["grows", "stays", "filter"]
    assert filtered["verdict"].tolist() == expected
    few = initial_verdict.reinforcement(by_round(end, chance, noise, seeds=3))
    assert set(few["verdict"]) == {"inconclusive"}


# ---- all of it, at a size of seconds -------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[pd.DataFrame, initial_model.Cells]]:
    folder = tmp_path_factory.mktemp("initial")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder / "data")
        found, _ = initial_model.run("tiny")
        yield found, initial_model.cells(0, "tiny")
    torch.set_num_threads(threads)


Ran = tuple[pd.DataFrame, initial_model.Cells]


class _Seen(Exception):
    pass


def test_what_tests_a_model_neither_taught_nor_chose_it(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = SlicedStudy(
        initial_model.TASK, 5, ran[1].study.size, "tiny", ran[1].study.overrides, progress=False
    )

    def spy(cfg: Any, learnt: Transitions, chosen_by: Transitions, **_: Any) -> None:
        for part, rows in ((learnt, study.held_out[0]), (chosen_by, study.choosing)):
            assert torch.equal(part.states, study.dataset.states[rows])
            assert not torch.isin(rows, study.testing).any()
        raise _Seen

    monkeypatch.setattr(dynamics_training, "train_dynamics", spy)
    with pytest.raises(_Seen):
        _ = study.dynamics().run
    assert len(study.testing) > 0
    real = study._real_sequences(4)  # the filter's reference
    assert len(real.past) > 0
    begun = study.dataset.windows(study.obs_horizon, 5)
    held = torch.isin(begun.now, study.choosing).nonzero().flatten()
    known = {tuple(row) for row in begun.past(held)[:, -1].tolist()}
    assert {tuple(row) for row in real.past[:, -1].tolist()} <= known


def test_all_models_make_equally_many_updates(ran: Ran) -> None:
    _, cells = ran
    products = [*cells.initial.values(), *(fit.model for fit in cells.fits)]
    assert {int(p.run.metrics["step"].iloc[-1]) for p in products} == {TINY.updates}
    assert len({p.run.id for p in products}) == 4 + 4 * 2 * 2 + 2 * 2 + 3 * (TINY.rounds - 1)


def test_the_simulator_is_asked_once(ran: Ran) -> None:
    found, cells = ran
    pools = {fit.pool.keys[0] for fit in cells.fits if fit.source == "simulator"}
    assert len(pools) == 1
    assert (found["volume"] <= found["wanted"]).all()
    kept = found[(found["source"] == "simulator") & (found["step"] == 1)]
    pairs = kept.pivot_table(index=["init", "real", "round"], columns="acceptance", values="volume")
    both = pairs.dropna()
    assert (
        len(both) >= 4 and (both["kl"] == both["random"])[both.index.get_level_values(2) == 1].all()
    )


def test_its_own_judge_gives_a_pool_the_excess_it_had(ran: Ran) -> None:
    _, cells = ran
    fit = next(f for f in cells.fits if f.init == DATA and f.source == "simulator")
    made = next(f.pool for f in cells.fits if f.source == "simulator")
    recorded = made.runs[-1].tensors("trajectories")["excess"][: len(fit.pool.value.excess)]
    np.testing.assert_allclose(fit.pool.value.excess, recorded, rtol=1e-3, atol=1e-4)


def test_rounds_are_judged_by_the_round_before(ran: Ran) -> None:
    found, cells = ran
    for source, how in initial_model.CHAINS:
        chain = [f for f in cells.fits if (f.init, f.source, f.acceptance) == (BIASED, source, how)]
        assert [f.round for f in chain] == [1, 2]
        assert chain[0].judge is cells.initial[BIASED]
        assert chain[1].judge is chain[0].model
    followed = initial_verdict.chains(found)
    assert set(zip(followed["source"], followed["acceptance"], strict=True)) == {
        *initial_model.CHAINS, ("D alone", "none")
    }  # fmt: skip
    assert (followed.groupby(["source", "acceptance"]).size() == TINY.rounds + 1).all()


def test_weak_motors_change_the_actions_and_nothing_else(ran: Ran) -> None:
    _, cells = ran
    size = cells.study.size
    right = SlicedStudy(initial_model.TASK, 0, size, "tiny", progress=False)
    weak = WeakMotors(0.5, initial_model.TASK, 0, size, "tiny", progress=False)
    torch.testing.assert_close(weak.dataset.actions, 2 * right.dataset.actions)
    assert torch.equal(weak.dataset.next_states, right.dataset.next_states)
    assert torch.equal(weak.windows.actions, 2 * right.windows.actions)
    assert weak.dynamics().keys != right.dynamics().keys
    assert torch.equal(weak.held_out[1], right.held_out[1])


def test_the_ruler_steps_the_logged_states(ran: Ran) -> None:
    _, cells = ran
    same, weaker = (probe(cells.study, gain, 8) for gain in (1.0, 0.8))
    torch.testing.assert_close(same.wrong, same.right, atol=1e-4, rtol=1e-4)
    assert (weaker.wrong - weaker.right).abs().max() > 1e-3
    assert math.isfinite(weaker.bias(cells.initial[DATA].value))


def test_profiles_have_grids() -> None:
    for name in ("smoke", "laptop", "full", "paper"):
        assert 0 < initial_model.grid_of(name).gain < 1
    with pytest.raises(UsageError, match="laptop"):
        initial_model.grid_of("latop")
    with pytest.raises(UsageError, match="gain"):
        replace(TINY, gain=1.0)
