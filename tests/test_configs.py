from __future__ import annotations

import doctest
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from uepo_lib import configs, errors
from uepo_lib.cloning import CloneConfig
from uepo_lib.configs import build, parse_overrides
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig
from uepo_lib.dynamics import DynamicsConfig
from uepo_lib.errors import UsageError
from uepo_lib.evaluation import AMQConfig
from uepo_lib.policies import GaussianConfig
from uepo_lib.ppo import PPOConfig
from uepo_lib.values import IQLConfig


@dataclass(frozen=True)
class Sample:
    """A field of every type that a config has."""

    count: int = 1
    rate: float = 0.1
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[int, ...] = (1,)
    limit: float | None = None
    range: tuple[float, float] = (0.0, 1.0)


def one_line(*arguments: Any, **defaults: Any) -> str:
    with pytest.raises(UsageError) as caught:
        build(*arguments, **defaults)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("module", [configs, errors])
def test_documented_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_overrides_win_over_defaults_and_those_over_the_class() -> None:
    built = build(AMQConfig, {"horizon": 100}, horizon=50, num_starts=8)
    assert built == AMQConfig(num_starts=8, horizon=100)


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        ({"count": 7}, "count", 7),
        ({"count": 1e4}, "count", 10_000),
        ({"rate": 1}, "rate", 1),
        ({"flag": True}, "flag", True),
        ({"mode": "slow"}, "mode", "slow"),
        ({"sizes": [3, 4]}, "sizes", (3, 4)),
        ({"range": [2, 3.5]}, "range", (2, 3.5)),
        ({"limit": None}, "limit", None),
        ({"limit": 0.5}, "limit", 0.5),
    ],
)
def test_values_of_the_right_type(overrides: dict[str, Any], field: str, value: Any) -> None:
    found = getattr(build(Sample, overrides), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"count": 1.5},
        {"count": "many"},
        {"count": True},
        {"count": float("inf")},
        {"rate": "fast"},
        {"rate": float("nan")},
        {"flag": 1},
        {"mode": "slwo"},
        {"sizes": 3},
        {"sizes": [1, "x"]},
        {"range": [1]},
        {"range": [1, 2, 3]},
        {"range": []},
        {"limit": "none at all"},
    ],
)
def test_values_of_a_wrong_type_are_refused_by_name(overrides: dict[str, Any]) -> None:
    assert next(iter(overrides)) in one_line(Sample, overrides)


@pytest.mark.parametrize(
    ("cls", "typo", "meant"),
    [
        (AMQConfig, "horizn", "horizon"),
        (PPOConfig, "clip_rnage", "clip_range"),
        (CloneConfig, "batchsize", "batch_size"),
        (DiffusionConfig, "predicton", "prediction"),
        (DenoiserConfig, "d_modle", "d_model"),
        (DynamicsConfig, "num_elite", "num_elites"),
        (IQLConfig, "expectil", "expectile"),
        (GaussianConfig, "hiden", "hidden"),
    ],
)
def test_unknown_parameter_names_the_nearest(cls: Any, typo: str, meant: str) -> None:
    message = one_line(cls, {typo: 1})
    assert f"did you mean {meant!r}?" in message
    assert cls.__name__ in message


def test_unknown_choice_names_the_nearest() -> None:
    assert "did you mean 'published'?" in one_line(AMQConfig, {"score": "publishd"})


def test_a_class_checks_its_own_ranges() -> None:
    assert one_line(AMQConfig, {"horizon": 0}) == "horizon=0: must be a positive integer"
    assert "discount" in one_line(PPOConfig, {"discount": 1.5}, num_env_steps=1)
    assert "gae_lambda" in one_line(PPOConfig, {"gae_lambda": -0.1}, num_env_steps=1)
    assert "clip_range" in one_line(PPOConfig, {"clip_range": 0.0}, num_env_steps=1)
    assert "learning_rate" in one_line(CloneConfig, {"learning_rate": 0.0})


def test_assignments_become_nested_values() -> None:
    texts = ["a.lr=3e-4", "a.mode=slow", "b.sizes=[1, 2]", "a.flag=true", "b.limit=null"]
    assert parse_overrides(texts, ["a", "b"]) == {
        "a": {"lr": 3e-4, "mode": "slow", "flag": True},
        "b": {"sizes": [1, 2], "limit": None},
    }


def test_the_last_assignment_wins() -> None:
    assert parse_overrides(["a.x=1", "a.x=2"], ["a"]) == {"a": {"x": 2}}


@pytest.mark.parametrize("text", ["a", "a.x", "x=1", "a.=1", "=", "a.x=[1", "a.x=", "a.x= "])
def test_malformed_assignments_are_quoted_back(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_overrides([text], ["a"])
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value) or "unknown component" in str(caught.value)


def test_unknown_component_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'diffusion'"):
        parse_overrides(["difusion.lr=1"], ["diffusion", "ppo"])
