"""What installed packages say at every start and this project has dealt with.

Such a notice is kept out of notebooks by its own text; whatever else is said passes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

PRINTED = ("AdroitHandRelocateDense-v1, AdroitHandHammerDense-v1, AdroitHandDoorDense-v1",)
"""How notices begin that a package prints when it is imported. This one: the hand's reward changed
without a new version. ``hand.DistanceCharge`` turns that change back, into D4RL's reward."""

OUTDATED = r".*The environment (Hopper|Walker2d|HalfCheetah)-v4 is out of date"
"""Gymnasium's advice to take v5. Imported D4RL files are evaluated in v4 on purpose: it is closer
to the v2 that they come from."""


def imported(package: str) -> ModuleType:
    """``package``, imported; of what that prints, the known notices are dropped."""
    if package in sys.modules:
        return sys.modules[package]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return importlib.import_module(package)
    finally:
        for line in said.getvalue().splitlines():
            if not line.startswith(PRINTED):
                print(line, file=sys.stderr)


@contextlib.contextmanager
def without_known_warnings() -> Iterator[None]:
    """Drop the warnings of :data:`OUTDATED`, and no other."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", OUTDATED, DeprecationWarning)
        yield
