"""What one call asks a study for: it is refused where an override contradicts it, where its name is
not known, and where it would do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tiny_study import settled, tiny

from uepo_lib.errors import UsageError
from uepo_lib.experiments.tradeoffs import dial
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
