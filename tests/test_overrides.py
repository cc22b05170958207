"""What one call asks a study for: it is refused where an override contradicts it, where its name is
not known, and where it would do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_study import settled, tiny

from uepo_lib.errors import UsageError
from uepo_lib.experiments.contenders import greedy
from uepo_lib.experiments.online_summary import expert_level
from uepo_lib.experiments.tradeoffs import dial
from uepo_lib.extraction import advantage_scale
from uepo_lib.methods import METHODS
from uepo_lib.methods.uepo import UEPOConfig
from uepo_lib.selection import tuned
from uepo_lib.stages import ACTION_HORIZON, Study

Overrides = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def _settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with settled(tmp_path_factory.mktemp("overrides")):
        yield


def online(study: Study, **changes: Any) -> Any:
    return study.fine_tune(study.clone(), study.critic(), **changes)


def beside(study: Study, **changes: Any) -> Any:
    """Nothing of it is computed, so one model stands for all."""
    world: Any = study.dynamics()
    made = (study.clone(), study.critic(), world, study.synthesise(guided(study), world))
    return study.fine_tune_beside_model(*made, **changes)


def guided(study: Study, **changes: Any) -> Any:
    return study.sub_policies(study.diffusion_policy(), 1.0, guided=True, **changes)


@pytest.mark.parametrize(
    ("overrides", "ask", "message"),
    [
        ({"ensemble": {"num_members": 6}}, METHODS["bppo"], "ensemble.num_members=6: must be 1"),
        (
            {"gaussian_ppo": {"num_env_steps": 512}},
            lambda study: online(study, num_env_steps=2_048),
            "gaussian_ppo.num_env_steps=512: must be 2048",
        ),
        (
            {"online_model": {"model": "short"}},
            lambda study: beside(study, model="frozen"),
            "online_model.model='short': must be 'frozen'",
        ),
        (
            {"guidance": {"eta": 0.5}},
            lambda study: dial(study, 1.6, 1.0),
            r"guidance.eta=0.5: must be 1.6",
        ),
        (
            {"gaussian": {"action_horizon": 2}},
            lambda study: study.clone(ACTION_HORIZON),
            "gaussian.action_horizon=2: must be 4",
        ),
        (
            {"augmentation": {"transitions": "simulator"}},
            lambda study: study.synthesise(
                guided(study), study.dynamics(), **UEPOConfig(transitions="model").augmentation()
            ),
            "augmentation.transitions='simulator': must be 'model'",
        ),
    ],
)
def test_an_override_that_contradicts_a_call_is_refused(
    overrides: Overrides, ask: Callable[[Study], Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ask(tiny(overrides=overrides))
    assert "\n" not in str(caught.value) and "not overridden" in str(caught.value)


def test_saying_the_same_twice_changes_nothing() -> None:
    once = online(tiny(), num_env_steps=512)
    twice = online(tiny(overrides={"gaussian_ppo": {"num_env_steps": 512.0}}), num_env_steps=512)
    assert once.keys == twice.keys


def test_a_small_budget_has_a_short_warm_up() -> None:
    """The policy gets half of the updates at least, unless the warm-up is asked for."""

    def warm_up(changes: dict[str, Any], component: str = "gaussian_ppo") -> int:
        found: int = tiny(overrides={component: changes}).config(component).warmup_env_steps
        return found

    size = tiny().budget.env_steps_per_update
    assert warm_up({}) == 2 * size == warm_up({"num_env_steps": 4 * size})
    assert [warm_up({"num_env_steps": k * size}) for k in (3, 2, 1)] == [size, size, 0]
    assert warm_up({"num_env_steps": 2 * size}, "scratch_ppo") == 0
    assert warm_up({"steps_per_update": tiny().budget.online_env_steps}) == 0
    called = tiny().config("chain_ppo", num_env_steps=2 * size)
    assert called.warmup_env_steps == size
    with pytest.raises(UsageError, match=f"warmup_env_steps={2 * size}: must be at most {size}"):
        warm_up({"num_env_steps": 2 * size, "warmup_env_steps": 2 * size})


@pytest.mark.parametrize("profile", ["smoke", "laptop", "full", "paper"])
def test_no_profiles_own_warm_up_is_cut(profile: str) -> None:
    study = Study("hopper-medium", 0, profile)
    for component in ("chain_ppo", "gaussian_ppo", "steer_ppo"):
        found = study.config(component)
        assert found.warmup_env_steps == 2 * study.budget.env_steps_per_update


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"denoiser": {"obs_horizon": "two"}}, "obs_horizon='two': must be a whole number"),
        ({"denoiser": {"obs_horizon": None}}, "obs_horizon=None: must be a whole number"),
        ({"denoiser": {"obs_horizon": 0}}, "obs_horizon=0: must be a positive integer"),
        ({"gaussian": {"log_std_range": [1]}}, r"log_std_range=\[1\]: must be a list of 2"),
    ],
)
def test_a_bad_value_is_one_line(overrides: Overrides, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        tiny(overrides=overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 2**32, 99999999999999999999])
def test_a_seed_is_one_of_32_bits(seed: int) -> None:
    assert tiny(2**32 - 1).seed == 2**32 - 1
    with pytest.raises(UsageError, match=f"^seed={seed}: must be 0 or a positive integer below"):
        tiny(seed)


# -- what can be fine-tuned


def test_what_is_no_policy_with_a_likelihood_is_not_fine_tuned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """T_a in its configuration makes no chain of a policy; and nothing is computed before that is
    said."""
    study = tiny()
    model, critic = study.diffusion_policy(), study.critic()
    made: Any = SimpleNamespace(model=model, critic=critic)
    chosen = greedy(study, made)
    assert "action_horizon" in chosen.config and chosen.acts is None
    for policy in (chosen, model):
        for ask in (study.fine_tune, study.steer):
            with pytest.raises(UsageError, match=r"^policy='diffusion-.*': must be a Gaussian or"):
                ask(policy, critic)
    assert not capsys.readouterr().out


def test_how_a_policy_acts_is_kept_and_identifies_nothing() -> None:
    study = tiny()
    model, critic, world = study.diffusion_policy(), study.critic(), study.dynamics()
    sets, gaussians = study.sub_policies(model, 1.0), study.ensemble()
    chains = (
        sets, study.member(sets, 0), study.zero_noise(model), study.fresh(model),
        study.regression(), study.improve_chain(study.member(sets, 0), world, critic),
    )  # fmt: skip
    others = (
        study.clone(), study.clone(ACTION_HORIZON), gaussians, study.iql_policy(critic),
        study.improve_gaussians(gaussians, world, critic), study.from_scratch(),
    )  # fmt: skip
    assert {policy.acts for policy in chains} == {"chain"}
    assert {policy.acts for policy in others} == {"gaussian"}
    assert study.fine_tune(chains[1], critic).acts == "chain"
    assert study.steer(chains[1], critic).acts is None  # type: ignore[arg-type]
    for policy in (*chains, *others):
        assert "acts" not in policy.config


# -- the maze, where an end is success


def test_in_the_maze_to_arrive_is_worth_something() -> None:
    """All returns of its data are 1, and Q = 0 after an arrival would be a reason not to arrive."""
    maze = Study("maze-routes", 0, "tiny")
    assert maze.config("amq").score == "model_return"
    assert advantage_scale(maze.config("extraction"), torch.ones(9)) == 1
    assert tiny().config("amq").score == "dead_zero"
    assert expert_level(maze) == 90


def test_what_a_call_leaves_open_an_override_decides() -> None:
    six = tiny(overrides={"ensemble": {"num_members": 6}})
    assert six.ensemble().keys == tiny().ensemble(6).keys
    pairs = tiny(overrides={"gaussian": {"action_horizon": 2}})
    assert pairs.clone().keys == tiny().clone(2).keys
    assert tiny().clone().keys == tiny().clone(1).keys
    real = tiny(overrides={"augmentation": {"transitions": "simulator"}})
    made, told = (
        study.synthesise(guided(study), study.dynamics(), **config.augmentation())
        for study, config in ((real, UEPOConfig()), (tiny(), UEPOConfig(transitions="simulator")))
    )
    assert made.keys == told.keys


def test_an_override_stands_in_for_what_is_calibrated() -> None:
    found = guided(tiny(overrides={"guidance": {"threshold": 3.0}})).value.guidance.config
    plain = guided(tiny()).value.guidance.config
    assert found.threshold == 3.0 != plain.threshold
    assert found.floor == plain.floor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta": 1.6}, "guided=False: must be True where eta is chosen"),
        ({"num_denoising_step": 20}, "'num_denoising_step'; did you mean 'num_denoising_steps'"),
        ({"guided": True, "etta": 1.6}, "'etta'; did you mean 'eta'"),
        ({"n": 0}, "n=0: must be a positive"),
        ({"num_denoising_steps": 0}, "num_denoising_steps=0: must be positive"),
    ],
)
def test_sub_policies_ignore_no_argument(arguments: dict[str, Any], message: str) -> None:
    study = tiny()
    with pytest.raises(UsageError, match=message):
        study.sub_policies(study.diffusion_policy(), 1.0, **arguments)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda study, model: study.evaluate(study.zero_noise(model), 0), "episodes=0"),
        (lambda study, model: study.fresh(model, 0), "n=0"),
        (lambda study, model: tuned(study, model, study.dynamics(), study.critic(), n=0), "n=0"),
    ],
)
def test_zero_is_not_the_default(ask: Callable[[Study, Any], Any], message: str) -> None:
    study = tiny()
    with pytest.raises(UsageError, match=f"{message}: must be a positive integer"):
        ask(study, study.diffusion_policy())
