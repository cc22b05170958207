"""A part of D: a study that learns from fewer transitions and is tested on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uepo_lib.datasets import Dataset, Windows
from uepo_lib.errors import check
from uepo_lib.stages import Study, load_data

REVISION = 1
"""Counts the rule by which episodes are chosen; it is part of the data's identity."""


def subset(dataset: Dataset, pieces: Tensor) -> Dataset:
    """The steps of ``pieces`` (M, 2), each [begin, end) within one episode, in that order.

    Every piece becomes an episode. States stay standardised as they are, and so does the key.
    Raises ``UsageError`` for an empty piece, or one that leaves its episode.
    """
    begins, ends = pieces.T.contiguous()
    episodes = torch.searchsorted(dataset.bounds[:, 0].contiguous(), begins, right=True) - 1
    inside = (begins < ends) & (ends <= dataset.bounds[episodes.clamp(min=0), 1])
    check(bool((inside & (episodes >= 0)).all()), "pieces", pieces.tolist(), "within episodes")
    rows = torch.cat([torch.arange(begin, end) for begin, end in pieces.tolist()])
    stops = (ends - begins).cumsum(0)
    known = dataset.simulator_states
    return replace(
        dataset,
        states=dataset.states[rows],
        actions=dataset.actions[rows],
        rewards=dataset.rewards[rows],
        next_states=dataset.next_states[rows],
        terminated=dataset.terminated[rows],
        bounds=torch.stack([stops - (ends - begins), stops], 1),
        simulator_states=None if known is None else known[rows],
        labels={name: values[episodes] for name, values in dataset.labels.items()},
    )


def draw_pieces(bounds: Tensor, size: int) -> Tensor:
    """Random whole episodes of ``bounds`` (M, 2), the last one cut so that ``size`` steps remain.

    The same for every seed of a study: seeds repeat the learning, not the data, so an interval over
    seeds does not hold the luck of this draw. Raises ``UsageError`` if the episodes have fewer
    steps.
    """
    order = torch.randperm(len(bounds), generator=torch.Generator().manual_seed(0))
    begins, lengths = bounds[order, 0], (bounds[:, 1] - bounds[:, 0])[order]
    check(0 < size <= int(lengths.sum()), "size", size, f"from 1 to {int(lengths.sum())} steps")
    left = size - (lengths.cumsum(0) - lengths)
    taken = left > 0
    return torch.stack([begins, begins + lengths.minimum(left)], 1)[taken]


class SlicedStudy(Study):
    """A study of ``size`` transitions of D in place of all of them.

    The episodes that the whole study holds out are held out here too, so models of any size are
    tested on the same ones; what learns, and where rollouts start, is the slice alone. States are
    standardised by all of D.
    """

    def __init__(
        self,
        task: str,
        seed: int,
        size: int,
        profile: str | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        progress: bool = True,
    ) -> None:
        check(size > 0, "size", size, "a positive number of transitions")
        super().__init__(task, seed, profile, overrides, progress)
        self.size = size

    @cached_property
    def _slice(self) -> tuple[Dataset, Dataset]:
        """The slice alone, and the slice followed by what is held out."""
        whole = load_data(self.task.name, self.profile, self.progress)
        _, held = whole.split(0.1)
        unseen = torch.isin(whole.bounds[:, 0], held)
        pieces = draw_pieces(whole.bounds[~unseen], self.size)
        chosen = f"{self.size} steps by rule {REVISION}"
        key = replace(
            whole.key, hash=f"{whole.key.hash}, {chosen}", recipe=f"{whole.key.recipe}, {chosen}"
        )
        both = torch.cat([pieces, whole.bounds[unseen]])
        alone, followed = subset(whole, pieces), subset(whole, both)
        return replace(alone, key=key), replace(followed, key=key)

    @cached_property
    def dataset(self) -> Dataset:
        """The slice, then the held-out episodes."""
        return self._slice[1]

    @property
    def learnt(self) -> Dataset:
        """The slice alone."""
        return self._slice[0]

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Step indices (the slice, held out)."""
        return torch.arange(self.size), torch.arange(self.size, len(self.dataset))

    @cached_property
    def windows(self) -> Windows:
        """Windows of the slice; their indices are also those of :attr:`dataset`."""
        return self.learnt.windows(self.obs_horizon, self.config("denoiser").horizon)


class LoneSlice(SlicedStudy):
    """A slice beside which nothing else is learnt from: the last tenth of its own steps chooses the
    weights and elites of every T̂ and sets the KL filter's reference, and the rest fits it.

    Policies and critics learn from all of the slice, as they do from all of D. So small a slice has
    no episodes to spare: where the tenth begins, one is cut.
    """

    @property
    def dynamics_rows(self) -> dict[str, Any]:
        return {"chosen_by": "the last tenth of the slice"}

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Step indices (fitting, choosing) of the slice."""
        fitting = self.size - max(1, self.size // 10)
        return torch.arange(fitting), torch.arange(fitting, self.size)

    @property
    def choosing(self) -> Tensor:
        """All of what is held out of the slice."""
        return self.held_out[1]

    @property
    def testing(self) -> Tensor:
        """The episodes that the whole study holds out, from which nothing is learnt here."""
        return torch.arange(self.size, len(self.dataset))
