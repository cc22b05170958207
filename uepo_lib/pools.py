r"""One pool of synthetic trajectories, and any filter's choice from it.

Filters that each generate their own trajectories differ by the filter and by luck. Here they judge
the same ones: a pool is generated once, with nothing refused, and each ε takes from it

$$D_{diff}(\varepsilon) = \{\text{trajectories with excess} < \varepsilon\},$$

the first ones up to the wanted volume (arXiv 2511.10087, contribution 3; choices A6 and A8). A
filter that would need more trajectories than the pool holds stays below that volume. The control
takes as many transitions from trajectories drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uepo_lib.datasets import Transitions
from uepo_lib.errors import check, unknown

REVISION = 1

ACCEPTANCE = ("kl", "random")


@dataclass(frozen=True)
class Choice:
    """What is taken from a pool: at most ``volume`` transitions of trajectories below ``epsilon``.

    ``epsilon=None`` refuses nothing. ``acceptance="random"`` takes as many transitions as "kl"
    would, from trajectories in random order.
    """

    volume: int
    epsilon: float | None = 0.05
    acceptance: str = "kl"

    def __post_init__(self) -> None:
        check(self.volume > 0, "volume", self.volume, "a positive number of transitions")
        valid = self.epsilon is None or self.epsilon >= 0
        check(valid, "epsilon", self.epsilon, "≥ 0, or None for no filter")
        if self.acceptance not in ACCEPTANCE:
            raise unknown("acceptance", self.acceptance, ACCEPTANCE)


@dataclass(frozen=True)
class Pool:
    """R trajectories, N transitions, one trajectory after another.

    A trajectory that ran away to infinity has length 0: it was tried, and cannot be taken.
    """

    transitions: Transitions
    excess: Tensor
    """(R,) cost over the real median, nats a dimension; see ``augmentation.excess_costs``."""
    lengths: Tensor
    """(R,) steps."""

    def __post_init__(self) -> None:
        rows, listed = len(self.transitions), int(self.lengths.sum())
        check(rows == listed, "lengths", f"{listed} in all", f"the {rows} transitions")

    @classmethod
    def of(
        cls, transitions: Transitions, excess: Tensor, lengths: Tensor, accepted: Tensor
    ) -> Pool:
        """From what ``synthesise`` recorded with ``acceptance="all"``.

        It cuts ``transitions`` at the wanted number; a trajectory that was cut is left out.
        """
        lengths = torch.where(accepted, lengths, 0)
        whole = int((lengths.cumsum(0) <= len(transitions)).sum())
        lengths, excess = lengths[:whole], excess[:whole]
        return cls(transitions[: int(lengths.sum())], excess, lengths)

    def share_below(self, epsilon: float | None) -> float:
        """The share of trajectories that a filter lets pass, were there no limit to the volume."""
        return float(self._passing(epsilon).float().mean())

    def rows(self, choice: Choice, generator: torch.Generator) -> Tensor:
        """The transitions that ``choice`` takes: indices (V,), V ≤ ``choice.volume``."""
        passing = self._passing(choice.epsilon).nonzero().flatten()
        rows = self._rows_of(passing)[: choice.volume]
        if choice.acceptance == "kl":
            return rows
        order = torch.randperm(len(self.excess), generator=generator)
        return self._rows_of(order)[: len(rows)]

    def _passing(self, epsilon: float | None) -> Tensor:
        tried = self.lengths > 0
        return tried if epsilon is None else tried & (self.excess < epsilon)

    def _rows_of(self, trajectories: Tensor) -> Tensor:
        """Indices of all steps of ``trajectories`` (M,), in that order."""
        lengths = self.lengths[trajectories]
        begins = (self.lengths.cumsum(0) - self.lengths)[trajectories]
        within = torch.arange(int(lengths.sum()))
        within -= (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        return begins.repeat_interleave(lengths) + within
