"""The identity of a run: all that determines its numbers, and nothing else.

That is the resolved configuration, the dataset, the runs it builds on, and an integer ``REVISION``
of each module it uses. The commit is recorded but is not identity, so refactoring keeps ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from uepo_lib.errors import check


@dataclass(frozen=True)
class DatasetKey:
    """A dataset: its Minari ``id``, the ``hash`` of its content, the hash of its ``recipe``."""

    id: str
    hash: str
    recipe: str


@dataclass(frozen=True)
class RunKey:
    """The two names of a run: ``id`` is exact, ``reading_key`` the same on every machine."""

    id: str
    reading_key: str


@dataclass(frozen=True)
class Spec:
    """All that determines a run's numbers.

    ``config`` holds plain values, lists and (nested) dataclasses; neither the order of its keys nor
    ``1`` against ``1.0`` matters. ``parents`` are the ``.key`` of runs or of specs, in order.
    """

    kind: str
    config: Mapping[str, Any]
    dataset: DatasetKey | None = None
    parents: tuple[RunKey, ...] = ()
    revisions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[a-z][a-z0-9_-]*", self.kind) is not None
        check(named, "kind", self.kind, "lower-case letters, digits, - and _")
        object.__setattr__(self, "config", _plain(self.config, "config"))
        object.__setattr__(self, "parents", tuple(self.parents))
        object.__setattr__(self, "revisions", dict(self.revisions))

    @property
    def id(self) -> str:
        """``kind-<12 hex digits>``: equal for specs that give equal numbers on one machine."""
        data = self.dataset
        dataset = {"id": data.id, "hash": data.hash} if data else None
        return self._name(dataset, [parent.id for parent in self.parents])

    @property
    def reading_key(self) -> str:
        """As ``id`` with the dataset's recipe for its content: names a run across machines.

        Collecting the same data on another processor may differ in the last bit, which changes the
        content's hash and every id after it; a committed run is still the right one to *read*.
        """
        data = self.dataset
        dataset = {"id": data.id, "recipe": data.recipe} if data else None
        return self._name(dataset, [parent.reading_key for parent in self.parents])

    @property
    def key(self) -> RunKey:
        """What another spec lists as a parent."""
        return RunKey(self.id, self.reading_key)

    def _name(self, dataset: dict[str, str] | None, parents: list[str]) -> str:
        identity = {**asdict(self), "dataset": dataset, "parents": parents}
        text = json.dumps(_integral(identity), sort_keys=True, separators=(",", ":"))
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Spec:
        """The spec that ``dataclasses.asdict`` and JSON made ``content`` of."""
        dataset = content["dataset"] and DatasetKey(**content["dataset"])
        parents = tuple(RunKey(**parent) for parent in content["parents"])
        return cls(content["kind"], content["config"], dataset, parents, content["revisions"])


def _plain(value: Any, name: str) -> Any:
    """``value`` as JSON would give it back."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    finite = not isinstance(value, float) or abs(value) < float("inf")
    plain = value is None or isinstance(value, str | bool | int | float)
    check(plain and finite, name, value, "a finite number, text, true, false, none or a list")
    return value


def _integral(value: Any) -> Any:
    """``value`` with 1.0 as 1: what is equal in Python gets an equal id."""
    if isinstance(value, Mapping):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
