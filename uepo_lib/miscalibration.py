"""A robot whose motors are not what the model believes: data logged with a wrong gain, and a ruler.

Of all systematic errors of a dynamics model a wrong gain is one that wear, heat or another battery
do cause, and that is known exactly when it is made on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uepo_lib import environments
from uepo_lib.datasets import Dataset
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.runs import Run
from uepo_lib.slices import SlicedStudy

REVISION = 2


class WeakMotors(SlicedStudy):
    """A slice that was logged with motors that gave ``gain`` of today's torque.

    There the action a / gain did what a does today, so T̂ learns that today's a does what gain · a
    does. The division, not a multiplication, keeps all of today's actions inside what is learnt.
    """

    def __init__(self, gain: float, *args: Any, **kwargs: Any) -> None:
        check(gain > 0, "gain", gain, "positive")
        self.gain = gain
        super().__init__(*args, **kwargs)

    @cached_property
    def _slice(self) -> tuple[Dataset, Dataset]:
        alone, followed = super()._slice
        told = f", actions / {self.gain:g}"
        key = replace(alone.key, hash=f"{alone.key.hash}{told}", recipe=f"{alone.key.recipe}{told}")
        wrong = (replace(part, actions=part.actions / self.gain, key=key)
                 for part in (alone, followed))  # fmt: skip
        first, second = wrong
        return first, second


@dataclass(frozen=True)
class Probe:
    """Held-out steps, and where they would have led with weaker motors: each (P, ·)."""

    states: Tensor
    actions: Tensor
    right: Tensor
    wrong: Tensor

    def bias(self, model: DynamicsModel) -> float:
        """How far T̂'s prediction lies from right (0) to wrong (1), by least squares.

        Errors in other directions do not count. A model that has not learnt what actions do
        believes in motors without effect, which lies further along the same way, at 1/(1 − gain).
        """
        guess, _ = model.predict(self.states, self.actions)
        way = self.wrong - self.right
        return float(((guess - self.right) * way).sum() / way.square().sum())


def probe(study: SlicedStudy, gain: float, count: int, run: Run | None = None) -> Probe:
    """``count`` held-out steps, each made again with ``gain`` times its action.

    Only the ruler needs this: the steps are recorded as interaction, and no model sees them.
    """
    data, held = study.dataset, study.testing
    known = data.simulator_states
    check(known is not None, "task", study.task.name, "one whose data holds simulator states")
    assert known is not None
    chosen = held[torch.randperm(len(held), generator=torch.Generator().manual_seed(0))[:count]]
    past = data.states[chosen].unsqueeze(1)
    world = environments.DatasetSimulator(study.task.robot, known[chosen], past, data.normaliser)
    world.reset_to(torch.arange(len(chosen)))
    wrong, _, _ = world.step(gain * data.actions[chosen], torch.ones(len(chosen), dtype=torch.bool))
    if run is not None:
        run.account("probe", world.steps, world.resets)
    return Probe(data.states[chosen], data.actions[chosen], data.next_states[chosen], wrong)
