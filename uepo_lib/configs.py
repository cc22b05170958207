"""From names and values to a component's frozen dataclass, refusing what it does not know."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from uepo_lib.errors import UsageError, check, unknown

C = TypeVar("C")


def build(cls: type[C], overrides: Mapping[str, Any], **defaults: Any) -> C:
    """``cls(**defaults)`` with ``overrides`` on top; an unknown name names the nearest valid one.

    >>> from uepo_lib.evaluation import AMQConfig
    >>> build(AMQConfig, {"horizon": 100}, num_starts=8).horizon
    100
    """
    return cls(**{**_known(cls, defaults), **typed(cls, overrides)})


def typed(cls: type[Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``overrides`` as the types of ``cls``'s fields, before the class checks their ranges."""
    hints = get_type_hints(cls)
    return {
        k: _typed(f"{cls.__name__}.{k}", v, hints[k]) for k, v in _known(cls, overrides).items()
    }


def _known(cls: type[Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """``given``; ``UsageError`` for a name that is no field of ``cls``."""
    valid = [field.name for field in fields(cls)]
    for name in given:
        if name not in valid:
            raise unknown(f"parameter of {cls.__name__}", name, valid)
    return given


def _typed(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the type that ``hint`` asks for; ``UsageError`` if it is of another."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown(name, value, get_args(hint))
        return value
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is tuple:
        check(isinstance(value, list | tuple), name, value, "a list: [1, 2]")
        kinds = get_args(hint)
        if Ellipsis not in kinds:  # as many as the hint says
            check(len(value) == len(kinds), name, value, f"a list of {len(kinds)}")
        return tuple(_typed(name, item, kinds[0]) for item in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float:
        check(number and math.isfinite(value), name, value, "a finite number")
    elif hint is int:
        check(number and value == value // 1, name, value, "a whole number")
        return int(value)
    elif hint in (bool, str):
        check(isinstance(value, hint), name, value, "true or false" if hint is bool else "a word")
    return value


def parse_overrides(assignments: list[str], components: list[str]) -> dict[str, dict[str, Any]]:
    """``["diffusion.lr=3e-4"]`` -> ``{"diffusion": {"lr": 3e-4}}``; values are read as YAML."""
    found: dict[str, dict[str, Any]] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        component, dot, name = path.partition(".")
        if not (equals and dot and name):
            raise UsageError(f"--set {text!r}: must be component.parameter=value")
        if component not in components:
            raise unknown("component", component, components)
        found.setdefault(component, {})[name] = _value(text, value)
    return found


def _value(assignment: str, text: str) -> Any:
    if not text.strip():
        raise UsageError(f"--set {assignment!r}: must have a value after =")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {assignment!r}: its value is not YAML") from None
    if isinstance(value, str):  # YAML reads 3e-4, without a point, as a string
        try:
            return float(value)
        except ValueError:
            return value
    return value
