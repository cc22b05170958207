"""One loop for everything that is trained: logged, checkpointed, resumed bit for bit.

A trainer hands :func:`fit` its update and the *parts* whose state the update changes. The loop
knows nothing of runs on disk; whoever records (``runs.Run``) is passed in.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from uepo_lib.errors import check

Metrics = Mapping[str, "Tensor | float"]
CHECKPOINT_SECONDS = 60.0
"""How often :func:`fit` writes a checkpoint; ``$UEPO_CHECKPOINT_SECONDS`` in its place if set."""


class Stateful(Protocol):
    """Anything whose whole state fits in a dictionary of tensors, numbers, strings and lists."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Recorder(Protocol):
    """Where metrics and checkpoints go; ``runs.Run`` is the one that writes to disk."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row."""

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep ``state`` as reached after ``step`` updates, replacing the one before."""

    def load_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """The last checkpoint, with rows logged after it dropped; None if there is none."""


class GeneratorState:
    """A ``torch.Generator`` as a part of a checkpoint."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["state"].cpu())


class Value:
    """A plain value (a counter, a best score, a list of floats) as a part of a checkpoint."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def fit(
    num_steps: int,
    update: Callable[[int], Metrics],
    parts: Mapping[str, Stateful],
    *,
    recorder: Recorder | None = None,
    name: str = "training",
    log_every: int = 100,
    checkpoint_seconds: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> int:
    """Call ``update(step)`` for step = 0 .. num_steps − 1 and return the number of updates made.

    A checkpoint only observes the parts, so when it is written does not change any number; a
    resumed loop continues at the step after the checkpoint and gives the same metrics as an
    unbroken one. ``checkpoint_seconds`` lie between two; None is :data:`CHECKPOINT_SECONDS`.
    """
    every = _checkpoint_seconds() if checkpoint_seconds is None else checkpoint_seconds
    start = 0
    saved = recorder.load_checkpoint() if recorder else None
    if saved is not None:
        start, state = saved
        for key, part in parts.items():
            part.load_state_dict(state[key])
    last_save = time.monotonic()
    done = start
    steps = tqdm(
        range(start, num_steps),
        desc=name,
        initial=start,
        total=num_steps,
        disable=not progress,
        mininterval=2.0,
        leave=False,
    )
    for step in steps:
        if should_stop():
            break
        metrics = update(step)
        done = step + 1
        if recorder and (done % log_every == 0 or done == num_steps):
            recorder.log(done, {k: float(v) for k, v in metrics.items()})
        if recorder and time.monotonic() - last_save > every:
            recorder.save_checkpoint(done, {k: part.state_dict() for k, part in parts.items()})
            last_save = time.monotonic()
    return done


def descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One step of ``optimiser`` down ``loss``."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def descend_clipped(loss: Tensor, optimiser: torch.optim.Optimizer, max_grad_norm: float) -> Tensor:
    """:func:`descend` with the gradient's norm kept below a bound; the norm it had."""
    optimiser.zero_grad()
    loss.backward()
    learned = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(learned, max_grad_norm)
    optimiser.step()
    return norm


def _checkpoint_seconds() -> float:
    text = os.environ.get("UEPO_CHECKPOINT_SECONDS") or str(CHECKPOINT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # with NaN or infinity no checkpoint would ever be written
    valid = "a finite number, 0 or positive"
    check(math.isfinite(seconds) and seconds >= 0, "UEPO_CHECKPOINT_SECONDS", text, valid)
    return seconds
