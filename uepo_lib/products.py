"""What stages give: a policy, a model or data, with the runs that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from uepo_lib.runs import Run, RunKey

T = TypeVar("T")
U = TypeVar("U")
Acts = Literal["gaussian", "chain"]
"""How a policy explores, which decides what PPO does with it: a density over actions, or steps that
end in a chunk of T_a actions and have noise of a fixed σ."""


class Product(Generic[T]):
    """Something that is computed, or loaded, when it is first asked for.

    ``keys`` identify the runs it comes from and ``config`` what was chosen besides; both are known
    before anything is computed, so a product can be the parent of another without its value.
    ``acts`` None: nothing that PPO can fine-tune. It follows from the rest, so it is no part of an
    identity.
    """

    def __init__(
        self,
        keys: tuple[RunKey, ...],
        runs: Callable[[], tuple[Run, ...]],
        value: Callable[[], T],
        config: Mapping[str, Any] | None = None,
        acts: Acts | None = None,
    ) -> None:
        self.keys = keys
        self.config: Mapping[str, Any] = config or {}
        self.acts = acts
        self._runs, self._value = runs, value

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The finished runs it comes from."""
        return self._runs()

    @property
    def run(self) -> Run:
        """The run that made it."""
        return self.runs[-1]

    @cached_property
    def value(self) -> T:
        """The thing itself."""
        return self._value()

    def derive(
        self, make: Callable[[T], U], config: Mapping[str, Any], acts: Acts | None = None
    ) -> Product[U]:
        """Something that follows from this one without a run of its own; it acts as this one does
        unless ``acts`` says otherwise."""
        merged, how = {**self.config, **config}, acts or self.acts
        return Product(self.keys, lambda: self.runs, lambda: make(self.value), merged, how)
