"""The comparison with peers: verdicts on known tables, one set of arrays, one evaluator."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.parity import __main__ as command
from benchmarks.parity import exchange, jobs, player, records, settings, table, train_ours
from benchmarks.parity.arrays import dataset_of, export_arrays, write_arrays
from benchmarks.parity.exchange import Network
from benchmarks.parity.records import Key, Places
from uepo_lib import facts, tasks
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.errors import UsageError
from uepo_lib.evaluation import evaluate
from uepo_lib.locomotion import HOPPER
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.specs import DatasetKey

# -- interval and verdict


def test_the_interval_is_welchs() -> None:
    ours, theirs = [100.0, 104.0, 99.0, 101.0, 96.0], [90.0, 130.0, 100.0, 70.0, 110.0]
    a, b = np.var(ours, ddof=1) / 5, np.var(theirs, ddof=1) / 5
    freedom = (a + b) ** 2 / (a**2 / 4 + b**2 / 4)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(a + b)
    found = table.welch_interval(ours, theirs)
    assert found.mean == pytest.approx(0)
    assert (found.low, found.high) == pytest.approx((-half, half))
    assert freedom < 5  # by the wider side, not by all ten values


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = table.welch_interval(generator.normal(3, 1, 5), generator.normal(1, 4, 5))
        covered += found.low < 2 < found.high
    assert 0.92 < covered / 400 < 0.98


STEADY = [1000.0, 1010.0, 990.0, 1005.0, 995.0]


@pytest.mark.parametrize(
    ("ours", "theirs", "label"),
    [
        (STEADY, STEADY, "at least at par (5 seeds)"),
        ([x * 2 for x in STEADY], STEADY, "at least at par (5 seeds)"),
        ([x * 0.97 for x in STEADY], STEADY, "at least at par (5 seeds)"),
        ([x * 0.94 for x in STEADY], STEADY, "not shown (5 seeds)"),
        # as good in the mean, but who knows
        ([500.0, 1500.0, 1000.0, 700.0, 1300.0], STEADY, "not shown (5 seeds)"),
        # better in the mean, and still not shown
        ([500.0, 2500.0, 1000.0, 700.0, 1300.0], STEADY, "not shown (5 seeds)"),
        ([960.0] * 5, [1000.0] * 5, "at least at par (5 seeds)"),
        ([940.0] * 5, [1000.0] * 5, "not shown (5 seeds)"),
        ([x * 2 for x in STEADY[:3]], STEADY, "not shown yet (3 of 5 seeds)"),
        ([], STEADY, "not shown yet (0 of 5 seeds)"),
        (STEADY * 2, STEADY * 2, "at least at par (10 seeds)"),
    ],
)
def test_verdicts_of_known_tables(ours: list[float], theirs: list[float], label: str) -> None:
    assert table.verdict(ours, theirs) == label


def test_pairs_that_share_their_luck_are_told_apart_from_pairs_that_do_not() -> None:
    theirs = [500.0, 1500.0, 1000.0, 700.0, 1300.0]
    ours = [x + d for x, d in zip(theirs, (-10, 20, 0, -5, 5), strict=True)]
    spread = np.std([-10, 20, 0, -5, 5], ddof=1) / 5**0.5
    found = table.paired_interval(ours, theirs)
    assert found.mean == pytest.approx(2)
    assert found.high - 2 == pytest.approx(stats.t.ppf(0.975, 4) * spread)
    assert table.verdict(ours, theirs, paired=True) == "at least at par (5 seeds)"
    assert table.verdict(ours, theirs) == "not shown (5 seeds)"
    assert table.verdict([x - 60 for x in ours], theirs, paired=True) == "not shown (5 seeds)"
    with pytest.raises(UsageError, match="equally many"):
        table.paired_interval(ours, theirs[:4])


def test_only_seeds_of_both_sides_make_pairs() -> None:
    found = {
        ("lockstep", side, seed): _record(("lockstep", side, seed), value, returns=[value])
        for side, seeds in (("ours", range(6)), ("theirs", range(1, 7)))
        for seed, value in ((seed, 1000.0 + 100 * seed) for seed in seeds)
    }
    line = table.row(found, "lockstep")
    assert (line["seeds_ours"], line["low"], line["high"]) == (5, 0.0, 0.0)
    assert line["verdict"] == "at least at par (5 seeds)"
    found["lockstep", "ours", 3]["returns"] = [1300.01]
    assert "to the cent: 4 of 5 seeds" in table.markdown(found, {}, "full")


def test_a_margin_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="positive mean"):
        table.verdict(STEADY, [-x for x in STEADY])


def test_with_the_seeds_needed_half_the_interval_is_the_margin() -> None:
    ours, theirs = [600.0, 1400.0], [1400.0, 600.0]
    count = table.seeds_needed(ours, theirs)
    gap = table.welch_interval(ours * (count // 2), theirs * (count // 2))
    assert gap.high == pytest.approx(50 * 2**-0.5, rel=0.02)  # of two seeds, the variance doubles
    page = table.markdown(_records(ours * 3, theirs * 3), {}, "full")
    assert "about 591 seeds" in page and "438 (ours)" in page


def _record(key: Key, value: float, **other: Any) -> dict[str, Any]:
    name, side, seed = key
    return {
        "algorithm": name, "side": side, "seed": seed, "settings": {"updates": 7}, "data": None,
        "episodes": 3, "differences": ["none that is known"], "mean_return": value,
        "normalised": 1.0, "seconds": 2.0, "steps": 7, **other,
    }  # fmt: skip


def _records(ours: list[float], theirs: list[float]) -> dict[Key, dict[str, Any]]:
    sides = (("ours", ours), ("theirs", theirs))
    return {
        ("ppo", side, seed): _record(("ppo", side, seed), value)
        for side, values in sides
        for seed, value in enumerate(values)
    }


def test_the_table_shows_every_seed_and_what_differs() -> None:
    found = _records(STEADY, STEADY)
    page = table.markdown(found, {"ppo": {"ratio": 0.5}}, "full")
    assert "at least at par (5 seeds)" in page and "| 0.50 |" in page
    assert "4: 995" in page and "none that is known" in page and "updates 7" in page
    line = table.row(found, "ppo")
    assert line["bound"] == -50.0 and line["low"] < 0 < line["high"]


def test_with_one_seed_there_is_no_interval() -> None:
    found = _records([900.0], [])
    page = table.markdown(found, {}, "smoke")
    assert "not shown yet (0 of 5 seeds)" in page and "mean nothing" in page


def test_records_of_different_settings_make_no_table() -> None:
    found = _records(STEADY, STEADY)
    found["ppo", "ours", 3]["settings"] = {"updates": 8}
    with pytest.raises(UsageError, match="settings"):
        table.row(found, "ppo")


# -- one set of arrays


@pytest.fixture
def data() -> Dataset:
    """Three episodes: terminated after 4 steps, cut off after 3, terminated after 2."""
    task = tasks.get(settings.TASK)
    sizes = task.robot.state_dim, task.robot.action_dim
    raw = torch.randn(12, sizes[0], generator=torch.Generator().manual_seed(0))
    now = [0, 1, 2, 3, 5, 6, 7, 9, 10]
    normaliser = Normaliser(raw.mean(0), raw.std(0))
    return Dataset(
        task=task,
        key=DatasetKey("toy", "0", "0"),
        normaliser=normaliser,
        states=normaliser(raw[now]),
        actions=torch.linspace(-1, 1, 9 * sizes[1]).view(9, -1),
        rewards=torch.arange(9.0),
        next_states=normaliser(raw[[i + 1 for i in now]]),
        terminated=torch.tensor([0, 0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.bool),
        bounds=torch.tensor([[0, 4], [4, 7], [7, 9]]),
        simulator_states=None,
        metadata={},
    )


def test_arrays_come_back_as_the_transitions_that_both_sides_use(
    data: Dataset, tmp_path: Path
) -> None:
    path, name = write_arrays(data, tmp_path)
    assert write_arrays(data, tmp_path) == (path, name)
    arrays = exchange.read_npz(path)
    assert set(arrays) == set(exchange.ARRAYS)
    assert arrays["timeouts"].nonzero()[0].tolist() == [6]
    assert not (arrays["timeouts"] & arrays["terminals"]).any()

    again = dataset_of(arrays, reward_scale=2.0)
    kept = [0, 1, 2, 3, 4, 5, 7, 8]  # without the step after which nothing is stored
    torch.testing.assert_close(again.states, data.states[kept])
    torch.testing.assert_close(again.actions, data.actions[kept])
    torch.testing.assert_close(again.rewards, 2 * data.rewards[kept])
    assert again.terminated.tolist() == data.terminated[kept].tolist()
    assert again.bounds.tolist() == [[0, 4], [4, 6], [6, 8]]
    alive = ~again.terminated
    torch.testing.assert_close(again.next_states[alive], data.next_states[kept][alive])
    assert len(again.windows(1, 1)) == len(again)


def test_rewards_are_scaled_by_the_range_of_returns(data: Dataset) -> None:
    # returns 0+1+2+3 = 6, 4+5+6 = 15, 7+8 = 15
    assert exchange.reward_scale(export_arrays(data)) == pytest.approx(1000 / 9)


# -- one evaluator


def _gaussian(two_heads: bool, activation: str) -> GaussianPolicy:
    config = GaussianConfig(
        11, 3, hidden=(16, 16), activation=activation, state_dependent_std=two_heads
    )
    policy = GaussianPolicy(config, seed=3)
    with torch.no_grad():
        for parameter in policy.parameters():  # actions of all sizes, some beyond the bounds
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=_generator()))
    return policy


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize(("two_heads", "activation"), [(True, "relu"), (False, "tanh")])
def test_an_exported_policy_acts_and_plays_as_the_original(
    two_heads: bool, activation: str, tmp_path: Path
) -> None:
    policy = _gaussian(two_heads, activation)
    mean, std = torch.full((11,), 0.5), torch.linspace(0.5, 2, 11)
    network = player.network_of(policy, mean.numpy(), std.numpy())
    network.save(tmp_path / "policy.npz")
    loaded = Network.load(tmp_path / "policy.npz")

    raw = torch.randn(1, 64, 1, 11, generator=_generator()) * 2
    expected = policy.act((raw - mean) / std)
    assert expected.std() > 0.1
    torch.testing.assert_close(player.ExportedPolicy(loaded).act(raw), expected)
    by_numpy = loaded.actions(raw[0, :, 0].numpy())
    np.testing.assert_allclose(by_numpy, expected[0, :, 0].numpy(), atol=1e-5)

    original = evaluate(policy, HOPPER, Normaliser(mean, std), 3)
    played = player.play(tmp_path / "policy.npz", HOPPER, 3)
    assert played["lengths"] == original.lengths[0].tolist()
    assert played["returns"] == pytest.approx(original.returns[0].tolist(), abs=0.01)


def _ppo_settings(**changes: Any) -> dict[str, Any]:
    small = {"num_envs": 2, "steps_per_update": 64, "num_epochs": 1, "minibatch_size": 32}
    return {**settings.settings("ppo", 128), **small, **changes}


def test_the_peers_ppo_is_exported_with_its_statistics(tmp_path: Path) -> None:
    train_sb3 = pytest.importorskip("benchmarks.parity.train_sb3")
    job = {"seed": 0, "settings": _ppo_settings(), "out": str(tmp_path)}
    train_sb3.train(job)  # compares its actions with its own policy's
    took = facts.read_json(tmp_path / "facts.json")
    assert took["steps"] == 128 and took["export_gap"] < 1e-4
    assert "stable-baselines3" in took["versions"]
    assert Network.load(tmp_path / "policy.npz").clip == 10


def test_both_sides_of_ppo_are_told_the_same() -> None:
    train_sb3 = pytest.importorskip("benchmarks.parity.train_sb3")
    given = settings.settings("ppo", 1_000_000)
    ours, theirs = train_ours.online_config(given), train_sb3.agent(given, seed=0)
    assert theirs.n_steps * theirs.n_envs == ours.ppo.steps_per_update
    assert theirs.batch_size == ours.ppo.minibatch_size
    assert theirs.learning_rate == ours.ppo.learning_rate and not ours.ppo.anneal
    assert (theirs.gamma, theirs.gae_lambda) == (ours.ppo.discount, ours.ppo.gae_lambda)
    assert theirs.vf_coef == 0.5  # ours: half the mean squared error


def test_a_wrong_export_is_an_error(tmp_path: Path) -> None:
    policy = _gaussian(True, "relu")
    network = player.network_of(policy, np.zeros(11, np.float32), np.ones(11, np.float32))
    states = train_ours.probe_states(8)
    wrong = network.actions(states) + 0.1
    with pytest.raises(RuntimeError, match="acts differently"):
        exchange.finish({"out": str(tmp_path)}, network, 1.0, 1, wrong.clip(-1, 1), states, ())
    assert not (tmp_path / "facts.json").exists()


# -- our trainers, and what is finished


@pytest.mark.parametrize("algorithm", ["bc", "iql"])
def test_our_trainers_leave_a_policy(algorithm: str, data: Dataset, tmp_path: Path) -> None:
    path, _ = write_arrays(data, tmp_path)
    given = {**settings.settings(algorithm, 3), "hidden": [8, 8], "batch_size": 4}
    job = {
        "algorithm": algorithm, "seed": 0, "settings": given, "arrays": str(path),
        "out": str(tmp_path / "job"),
    }  # fmt: skip
    train_ours.train(job)
    assert facts.read_json(tmp_path / "job" / "facts.json")["steps"] == 3
    assert player.play(tmp_path / "job" / "policy.npz", data.task.robot, 1)["lengths"][0] > 0


def test_our_ppo_leaves_a_policy(tmp_path: Path) -> None:
    job = {"algorithm": "ppo", "seed": 0, "settings": _ppo_settings(), "out": str(tmp_path)}
    train_ours.train(job)
    assert facts.read_json(tmp_path / "facts.json")["steps"] == 128
    assert Network.load(tmp_path / "policy.npz").activation == "tanh"


def _instead_of_training(command: list[str], root: Path, log: Path) -> None:
    job = exchange.read_job(command[-1])
    network = player.network_of(
        _gaussian(True, "relu"), np.zeros(11, np.float32), np.ones(11, np.float32)
    )
    states = train_ours.probe_states(8)
    exchange.finish(job, network, 1.0, 5, network.actions(states), states, ("numpy",))


def test_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = Places(tmp_path / "evidence", tmp_path / "work")
    monkeypatch.setattr(records, "places", lambda scale, elsewhere: where)
    monkeypatch.setattr(jobs, "_run", _instead_of_training)
    asked = ["--scale", "smoke", "--only", "ppo", "--seeds", "0,1"]
    assert command.main(asked) == 0
    assert "0 of 4 are there" in capsys.readouterr().out
    record = facts.read_json(where.record(("ppo", "theirs", 1)))
    assert len(record["returns"]) == record["episodes"] == 3
    assert record["settings"]["num_env_steps"] == 4_096
    assert str(tmp_path) not in where.record(("ppo", "theirs", 1)).read_text(encoding="utf-8")

    monkeypatch.setattr(jobs, "_run", lambda *_: pytest.fail("nothing is missing"))
    assert command.main(asked) == 0
    out = capsys.readouterr().out
    assert "4 of 4 are there" in out and "not shown yet (2 of 5 seeds)" in out
    assert (where.evidence / "parity.md").is_file() and (where.evidence / "seeds.csv").is_file()

    stale = copy.deepcopy(record)
    stale["revisions"]["evaluation"] = -1
    facts.write_json(where.record(("ppo", "theirs", 1)), stale)
    assert not records.finished(where, settings.scale("smoke"), ("ppo", "theirs", 1))


def test_a_trial_stays_out_of_what_is_committed() -> None:
    root = facts.repository()
    assert root is not None
    trial, real = (records.places(settings.scale(name)) for name in ("smoke", "full"))
    assert trial.evidence.is_relative_to(root / "results" / "local")
    assert real.evidence == root / "results" / "reference" / "parity"
    assert real.work.is_relative_to(root / "results" / "local")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--scale", "smok"], "did you mean 'smoke'"),
        (["--scale", "smoke", "--only", "sac"], "unknown algorithm"),
        (["--scale", "smoke", "--seeds", "one"], "whole numbers"),
    ],
)
def test_wrong_options_are_answered(asked: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        command.main(asked)


@pytest.mark.parametrize(("changed", "dirty"), [([], False), (["README.md"], True)])
def test_evidence_does_not_make_itself_dirty(
    changed: list[str], dirty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = records.places(settings.scale("full"))
    own = ["results/reference/parity/", "results/reference/parity/records/bc-ours-0.json"]
    monkeypatch.setattr(facts, "changed_files", lambda _: [*own, *changed])
    assert records.code(where)["dirty"] is dirty
