"""Algorithm 1 from data to online fine-tuning, at a budget of seconds."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_study
import torch
from tiny_study import TINY, settle, settled, tiny

from uepo_lib import diffusion, offline_ppo, preparation, profiles, stages, tasks, training
from uepo_lib.errors import UsageError
from uepo_lib.guided_sets import GuidedRobot
from uepo_lib.methods.bc import BC, bc
from uepo_lib.methods.uepo import UEPO, UEPOConfig, uepo
from uepo_lib.provenance import verify
from uepo_lib.recording import CHECKPOINT
from uepo_lib.runs import Run, Store
from uepo_lib.stages import ACTION_HORIZON, Product, Study
from uepo_lib.training import fit

ORDER = ("smoke", "laptop", "full", "paper")


@dataclass(frozen=True)
class World:
    """Both methods, computed once for all tests that only look."""

    folder: Path
    study: Study
    uepo: UEPO
    bc: BC

    @property
    def data(self) -> Path:
        return self.folder / "data"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with settled(tmp_path_factory.mktemp("world")) as folder:
        study = tiny()
        found = World(folder, study, uepo(study), bc(study))
        _ = found.uepo.online_dynamics.run, found.bc.online.run
        yield found


@pytest.fixture
def elsewhere(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another, empty root for results, with the same data."""
    settle(monkeypatch, tmp_path, world.data)
    return tmp_path


def products(study: Study) -> dict[str, Product[Any]]:
    """Everything that a study can be asked for, before any of it is computed."""
    model, clone, critic = study.diffusion_policy(), study.clone(), study.critic()
    guided = study.sub_policies(model, 1.0, guided=True)
    initial = study.dynamics()
    synthetic = study.synthesise(guided, initial)
    joint = study.dynamics(synthetic)
    plain = study.sub_policies(model, 0.5)
    return {
        "diffusion": model,
        "clone": clone,
        "critic": critic,
        "initial": initial,
        "synthetic": synthetic,
        "joint": joint,
        "am_q": study.am_q(plain, joint, critic),
        "returns": study.evaluate(plain),
        "chain online": study.fine_tune(study.member(plain, 0), critic),
        "clone online": study.fine_tune(clone, critic),
    }


def ids(study: Study) -> dict[str, str]:
    return {name: product.keys[-1].id for name, product in products(study).items()}


def borrow(world: World, *but: str) -> Store:
    """A store that holds the runs of ``world``, all ``but`` some ids."""
    here = Store.open("tiny")
    for run in world.study.store.finished():
        if run.id not in but:
            shutil.copytree(run.folder, here.runs / run.id)
    return here


def environment(run: Run) -> dict[str, dict[str, int]]:
    spent: dict[str, dict[str, int]] = run.record["environment"]
    return spent


# -- Algorithm 1


def test_every_step_of_the_algorithm_leaves_a_run(world: World) -> None:
    kinds = [run.spec.kind for run in world.study.store.finished()]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {
        "diffusion": 1,
        "dynamics": 3,  # T̂_init, T̂ and T̂ after the online phase
        "augmentation": 1,
        "critic": 1,
        "clone": 1,
        "amq": len(UEPOConfig().kappas),
        "online": 2,
    }
    assert verify(world.study.store) == []
    assert len(world.uepo.synthetic.value) > 0
    for run in world.study.store.finished():
        assert run.record["seed"] == 0
        assert run.record["dataset"]["id"] == world.study.task.dataset_id


def test_a_second_call_computes_nothing(world: World) -> None:
    before = world.study.store.computed()
    again = tiny()
    assert uepo(again).online.run.id == world.uepo.online.run.id
    assert bc(again).online.run.id == world.bc.online.run.id
    assert again.store.computed() == before


def test_the_log_of_what_was_computed_says_it_once(world: World) -> None:
    logged = [entry["id"] for entry in world.study.store.computed()]
    assert sorted(logged) == [run.id for run in world.study.store.finished()]


def test_a_run_is_not_charged_for_its_parents(world: World) -> None:
    """The first asked for is the last to begin: wall times add up to what was really spent."""
    for run in world.study.store.finished():
        for parent in run.spec.parents:
            earlier = world.study.store.find(parent.id).record["created"]
            assert earlier <= run.record["created"]
    entries = world.study.store.computed()
    for before, after in itertools.pairwise(entries):
        assert after["wall_s"] <= after["time"] - before["time"] + 0.05


def test_same_seed_same_bits(world: World, elsewhere: Path) -> None:
    study = tiny()
    _ = uepo(study).online_dynamics.run, bc(study).online.run
    first = {run.id: run.record["artefacts"] for run in world.study.store.finished()}
    second = {run.id: run.record["artefacts"] for run in study.store.finished()}
    assert study.store.root.is_relative_to(elsewhere)
    assert first == second  # file names and hashes: metrics, evaluations, tensors, JSON
    artefacts = first[world.uepo.online.run.id]
    assert {"metrics.csv", "evaluations.csv", "model.safetensors", "online.safetensors"} <= set(
        artefacts
    )


def test_another_seed_is_another_model(world: World) -> None:
    zero, one = ids(tiny(seed=0)), ids(tiny(seed=1))
    assert all(zero[name] != one[name] for name in zero)


# -- interruption


def test_killed_online_and_resumed_gives_the_same_bits(world: World, elsewhere: Path) -> None:
    expected = world.uepo.online.run
    here = borrow(world, expected.id, world.uepo.online_dynamics.run.id)
    partial = here.partial(expected.id)
    process = subprocess.Popen(
        [sys.executable, str(Path(tiny_study.__file__)), "0.25"],
        env={**os.environ, "UEPO_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    try:
        metrics, deadline = partial / "metrics.csv", time.monotonic() + 300
        while not (metrics.is_file() and metrics.read_text().count("\n") > 4):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    saved = torch.load(partial / CHECKPOINT, weights_only=True)["step"]
    updates = len(expected.metrics)
    assert 3 <= saved < updates
    assert not (here.runs / expected.id).exists()

    result = uepo(tiny())
    _ = result.online_dynamics.run
    assert [entry["id"] for entry in here.computed()] == [
        expected.id,
        world.uepo.online_dynamics.run.id,
    ]
    resumed = result.online.run
    assert resumed.record["resumes"] == 1
    assert resumed.record["artefacts"] == expected.record["artefacts"]
    assert environment(resumed) == environment(expected)
    continued = result.online_dynamics.run.record["artefacts"]
    assert continued == world.uepo.online_dynamics.run.record["artefacts"]


@pytest.mark.parametrize(("text", "checkpoints"), [("0", 3), ("1000", 0), ("", 0)])
def test_checkpoint_seconds_come_from_the_environment(
    text: str, checkpoints: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder:
        saved: list[int]

        def __init__(self) -> None:
            self.saved = []

        def log(self, step: int, metrics: Any) -> None: ...

        def save_checkpoint(self, step: int, state: Any) -> None:
            self.saved.append(step)

        def load_checkpoint(self) -> None:
            return None

    monkeypatch.setenv("UEPO_CHECKPOINT_SECONDS", text)
    recorder = Recorder()

    def update(step: int) -> dict[str, float]:
        time.sleep(0.002)
        return {}

    fit(3, update, {}, recorder=recorder, progress=False)
    assert len(recorder.saved) == checkpoints


@pytest.mark.parametrize("text", ["often", "nan", "inf", "-1"])
def test_checkpoint_seconds_must_be_a_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEPO_CHECKPOINT_SECONDS", text)
    with pytest.raises(UsageError, match=f"UEPO_CHECKPOINT_SECONDS='{text}': must be a finite"):
        fit(1, lambda step: {}, {}, progress=False)
    assert training.CHECKPOINT_SECONDS > 0


# -- the switch from offline to online


@pytest.mark.parametrize("count", [1, 7, 64])
def test_noise_free_actions_are_equal_across_the_switch(world: World, count: int) -> None:
    states = world.study.starts(count, "test").unsqueeze(0)
    for policy in (world.uepo.best.value, world.bc.clone.value):
        online = stages._online_actor(policy)
        assert torch.equal(online.act(states), policy.act(states))


def test_the_online_run_starts_with_the_offline_returns(world: World) -> None:
    for policy, online in (
        (world.uepo.best, world.uepo.online),
        (world.bc.clone, world.bc.online),
    ):
        offline = world.study.evaluate(policy).value.returns[0]
        seen = online.run.tensors("returns")
        assert torch.equal(seen["start"], offline)
        first = online.run.table("evaluations").frame().iloc[0]
        assert first.env_steps == first.policy_kl == first.displacement == 0


def test_the_fine_tuned_policy_is_read_back_as_it_was(world: World) -> None:
    for online in (world.uepo.online, world.bc.online):
        again = world.study.evaluate(online).value.returns[0]
        assert torch.equal(again, online.run.tensors("returns")["end"])


def test_fine_tuning_leaves_the_offline_policy_alone(world: World) -> None:
    read = tiny().diffusion_policy().value.state_dict()
    kept = world.uepo.model.value.state_dict()
    assert all(torch.equal(read[name], kept[name]) for name in read)


# -- budgets


def test_both_methods_get_the_same_environment_steps(world: World) -> None:
    spent = [
        environment(online.run)["online training"]["steps"]
        for online in (world.uepo.online, world.bc.online)
    ]
    # whole updates, and at most one round of chunks more: all environments, T_a steps each
    whole = -(-TINY.online_env_steps // TINY.env_steps_per_update) * TINY.env_steps_per_update
    for steps in spent:
        assert whole <= steps < whole + 8 * ACTION_HORIZON


def test_environment_steps_are_recorded_by_purpose(world: World) -> None:
    for online in (world.uepo.online, world.bc.online):
        spent, seen = environment(online.run), online.run.table("evaluations").frame()
        # first and last are scored, and the best where it is neither
        scored = 2 if seen["return"].idxmax() in (0, len(seen) - 1) else 3
        looks = seen["episodes"].sum() + 2 * TINY.curve_episodes + scored * TINY.evaluation_episodes
        assert set(spent) == {"online training", "evaluation"}
        assert spent["evaluation"]["episodes"] == looks
        assert spent["evaluation"]["steps"] >= looks
        assert spent["online training"]["episodes"] == len(online.run.json("training_episodes"))
        collected = world.study.online_data(online).value
        assert len(collected) == spent["online training"]["steps"]
        assert seen["env_steps"].iloc[-1] == spent["online training"]["steps"]
    for offline in (world.uepo.model, world.uepo.dynamics, world.uepo.synthetic, world.bc.clone):
        assert environment(offline.run) == {}


def test_the_curve_has_as_many_points_as_the_budget_says(world: World) -> None:
    for online in (world.uepo.online, world.bc.online):
        assert len(online.run.table("evaluations").frame()) == TINY.curve_points + 2


def test_the_privileged_simulator_is_counted(world: World, elsewhere: Path) -> None:
    borrow(world)
    study = tiny()
    guided = study.sub_policies(study.diffusion_policy(), 1.0, guided=True)
    synthetic = study.synthesise(
        guided, study.dynamics(), transitions="simulator", acceptance="all"
    )
    spent = environment(synthetic.run)["augmentation"]
    assert spent["steps"] >= len(synthetic.value) > 0
    assert spent["episodes"] > 0
    assert synthetic.run.id != world.uepo.synthetic.run.id


def test_without_simulator_states_the_observation_stands_in(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for imported data: equal first steps, and where it determines nothing it is refused."""
    study, bare = tiny(), tiny()
    bare.dataset = replace(study.dataset, simulator_states=None)  # type: ignore[misc]
    logged, guessed = study.simulator(), bare.simulator()
    raw = study.dataset.normaliser.inverse(study.windows.past(torch.arange(len(study.windows))))
    usable = (raw[:, -1, 5:].abs() < 10).all(1).nonzero().flatten()
    assert len(guessed.past) == len(usable) < len(logged.past)
    assert "states refused" in capsys.readouterr().out
    few = torch.arange(0, len(usable), 50)
    actions = study.windows.batch(usable[few]).actions[:, 0]
    steps = []
    for simulator, index in ((logged, usable[few]), (guessed, few)):
        simulator.reset_to(index)
        steps.append(simulator.step(actions, torch.ones(len(few), dtype=torch.bool)))
    torch.testing.assert_close(steps[1][0], steps[0][0], atol=1e-3, rtol=1e-3)
    assert torch.equal(steps[1][2], steps[0][2])
    pen = replace(study.task, robot=tasks.ROBOTS["pen"])
    bare.dataset = replace(bare.dataset, task=pen)  # type: ignore[misc]
    bare.task = pen
    with pytest.raises(UsageError, match="does not determine"):
        bare.simulator()


# -- identity


CHANGES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("critic", {"expectile": 0.8}, {"critic", "am_q", "chain online", "clone online"}),
    ("critic", {"discount": 0.9}, {"critic", "am_q", "chain online", "clone online"}),
    ("clone", {"learning_rate": 1e-5}, {"clone", "clone online"}),
    ("gaussian", {"hidden": [8, 8]}, {"clone", "clone online"}),
    ("guidance", {"eta": 0.01}, {"synthetic", "joint", "am_q"}),
    ("guidance", {"threshold": 0.5}, {"synthetic", "joint", "am_q"}),
    ("augmentation", {"epsilon": 0.01}, {"synthetic", "joint", "am_q"}),
    ("amq", {"discount": 0.5}, {"am_q"}),
    ("chain_ppo", {"learning_rate": 7e-4}, {"chain online"}),
    ("gaussian_ppo", {"learning_rate": 7e-4}, {"clone online"}),
    ("dynamics", {"batch_size": 8}, {"initial", "synthetic", "joint", "am_q"}),
    (
        "diffusion",
        {"lr": 7e-4},
        {"diffusion", "synthetic", "joint", "am_q", "returns", "chain online"},
    ),
    (
        "denoiser",
        {"d_model": 16},
        {"diffusion", "synthetic", "joint", "am_q", "returns", "chain online"},
    ),
]


@pytest.mark.parametrize(("component", "change", "expected"), CHANGES)
def test_an_override_changes_what_depends_on_it(
    component: str, change: dict[str, Any], expected: set[str], world: World, elsewhere: Path
) -> None:
    before, after = ids(tiny()), ids(tiny(overrides={component: change}))
    assert {name for name in before if before[name] != after[name]} == expected
    assert Store.open("tiny").computed() == []  # identities are known before anything is computed


def test_the_critics_discount_is_everyones(world: World) -> None:
    everyone = ("amq", "chain_ppo", "gaussian_ppo", "steer_ppo")
    plain, far = tiny(), tiny(overrides={"critic": {"discount": 0.9}})
    for component in everyone:
        assert plain.config(component).discount == 0.99
        assert far.config(component).discount == 0.9
    assert far.config("scratch_ppo").discount == 0.99  # its V is its own
    told = tiny(overrides={"critic": {"discount": 0.9}, "amq": {"discount": 0.8}})
    assert told.config("amq").discount == 0.8


def test_a_chunks_advantage_discounts_as_its_critic(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, seen = tiny(overrides={"critic": {"discount": 0.9}}), []
    plain = offline_ppo.chunk_advantage

    def noted(critic: Any, dynamics: Any, robot: Any, normaliser: Any, discount: float) -> Any:
        seen.append(discount)
        return plain(critic, dynamics, robot, normaliser, discount)

    monkeypatch.setattr(offline_ppo, "chunk_advantage", noted)
    policy = study.zero_noise(study.diffusion_policy())
    _ = study.improve_chain(policy, study.dynamics(), study.critic()).run
    assert seen == [0.9]


def test_what_is_needed_late_is_refused_first(elsewhere: Path) -> None:
    longest = int(tiny().dataset.bounds.diff(dim=1).max())
    for component, horizon in (("amq", 30), ("augmentation", longest)):
        study = tiny(overrides={component: {"horizon": horizon}})
        with pytest.raises(UsageError, match=f"horizon={horizon}: must be"):
            uepo(study)
    study = tiny(overrides={"online_model": {"augmentation_horizon": longest, "model": "short"}})
    found = products(study)
    policy = study.zero_noise(found["diffusion"])
    made = (policy, found["critic"], found["joint"], found["synthetic"])
    with pytest.raises(UsageError, match=f"augmentation_horizon={longest}: must be at most"):
        study.fine_tune_beside_model(*made)
    assert Store.open("tiny").computed() == []


def test_the_window_length_is_part_of_the_clone(world: World) -> None:
    """The clone learns from the diffusion policy's windows, so that both see the same data."""
    longer = world.study.windows.horizon * 2
    before, after = ids(tiny()), ids(tiny(overrides={"denoiser": {"horizon": longer}}))
    changed = {name for name in before if before[name] != after[name]}
    assert {"clone", "diffusion", "chain online", "clone online"} <= changed
    assert not {"critic", "initial"} & changed


def test_what_changes_nothing_keeps_the_ids(world: World) -> None:
    defaults = tiny().config("diffusion")
    overrides = {"diffusion": {"lr": defaults.lr, "num_updates": float(defaults.num_updates)}}
    assert ids(tiny(overrides=overrides)) == ids(tiny())
    for run in world.study.store.finished():
        assert run.spec.id == run.id


def test_a_revision_changes_the_ids_that_build_on_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ids(tiny())
    monkeypatch.setattr(diffusion, "REVISION", diffusion.REVISION + 1)
    after = ids(tiny())
    same = {name for name in before if before[name] == after[name]}
    assert same == {"clone", "critic", "initial", "clone online"}


# -- laziness


def test_a_committed_product_does_not_compute_its_parents(world: World, elsewhere: Path) -> None:
    reference = elsewhere / "reference"
    joint = world.uepo.dynamics.run
    shutil.copytree(joint.folder, reference / "runs" / joint.id)
    study = tiny()
    study.store = Store(study.store.root, reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UEPO_PRETRAINED")
        read = products(study)["joint"]
        assert read.run.folder.is_relative_to(reference)
        assert len(read.value.state_dict()) > 0
    assert study.store.computed() == []
    assert study.store.finished() == []


def test_a_product_says_which_committed_run_it_was_computed_from(
    world: World, elsewhere: Path
) -> None:
    reference = elsewhere / "reference"
    clone = world.bc.clone.run
    shutil.copytree(clone.folder, reference / "runs" / clone.id)
    study = tiny()
    study.store = Store(study.store.root, reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UEPO_PRETRAINED")
        online = bc(study).online
        assert online.run.record["read"] == [clone.id]
    assert online.run.record["artefacts"] == world.bc.online.run.record["artefacts"]


def test_simple_products_are_lazy(world: World, elsewhere: Path) -> None:
    study = tiny()
    assert study.diffusion_policy().value is not None
    assert [entry["kind"] for entry in study.store.computed()] == ["diffusion"]


# -- preparation


def test_prepare_computes_what_is_committed_for_readers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(jobs: Any, workers: int, *, name: str) -> list[Any]:
        return [function(*arguments) for function, arguments in jobs]

    monkeypatch.setattr(preparation.sweep, "run_all", in_this_process)
    preparation.prepare("tiny")
    finished = {run.id for run in world.study.store.finished()}
    assert set(preparation.reading_set("tiny")) <= finished
    by_steps = GuidedRobot(world.study).by_steps().values()  # 13 shows what 04 has played
    assert {product.keys[0].id for product in by_steps} <= finished
    for task in tasks.LOCAL.values():
        assert (world.data / task.dataset_id / "data").is_dir()
    before = world.study.store.computed()
    preparation.prepare("tiny")
    assert world.study.store.computed() == before


def test_executed_trajectories_are_counted_in_their_run(elsewhere: Path) -> None:
    product = GuidedRobot(tiny()).trajectories(horizon=4)["unguided"]
    n, count = product.value.lengths.shape
    spent = product.run.record["environment"]["executed trajectories"]
    assert spent == {"steps": int(product.value.lengths.sum()), "episodes": (n + 1) * count}
    assert product.value.states.shape[:3] == (n, count, 5)


# -- profiles


def test_the_table_has_every_size_and_what_was_published() -> None:
    table = profiles.table()
    names = [field.name for field in fields(profiles.Budget)]
    assert list(table.index) == names == list(profiles.PUBLISHED)
    assert list(table.columns) == [*profiles.PROFILES, "published"]
    assert bool((table.map(lambda cell: isinstance(cell, str) and cell != "")).all(axis=None))


@pytest.mark.parametrize("name", [field.name for field in fields(profiles.Budget)])
def test_a_larger_profile_is_larger(name: str) -> None:
    def size(value: Any) -> Any:
        if name == "seeds":
            return len(value)
        if name == "critic_polyak":  # a smaller share: more updates for the target to follow
            return 1 / value
        return sum(value) if isinstance(value, tuple) else value

    sizes = [size(getattr(profiles.PROFILES[profile], name)) for profile in ORDER]
    assert sizes == sorted(sizes)


def test_the_profile_is_the_argument_then_the_environment_then_laptop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UEPO_PROFILE", raising=False)
    assert profiles.current() == "laptop"
    monkeypatch.setenv("UEPO_PROFILE", "smoke")
    assert profiles.current() == "smoke"
    assert profiles.current("full") == "full"
