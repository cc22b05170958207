"""From our dataset to the arrays that both sides learn from, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.parity import exchange
from benchmarks.parity.exchange import Array
from benchmarks.parity.settings import TASK
from uepo_lib import tasks
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.loading import content_hash
from uepo_lib.specs import DatasetKey


def export_arrays(data: Dataset) -> dict[str, Array]:
    """Raw observations, actions, rewards, ends of episodes, and the normaliser of ``data``.

    Where an episode neither terminated nor ran out of time, collection stopped: a timeout as well.
    """
    terminals = data.terminated.numpy().copy()
    ends = np.zeros(len(data), dtype=bool)
    ends[data.bounds[:, 1].numpy() - 1] = True
    return {
        "observations": data.normaliser.inverse(data.states).numpy(),
        "actions": data.actions.numpy().copy(),
        "rewards": data.rewards.numpy().copy(),
        "terminals": terminals,
        "timeouts": ends & ~terminals,
        "mean": data.normaliser.mean.numpy().copy(),
        "std": data.normaliser.std.numpy().copy(),
    }


def write_arrays(data: Dataset, folder: Path) -> tuple[Path, str]:
    """Write the arrays once; where they are, and the hash of their content."""
    arrays = export_arrays(data)
    name = content_hash(arrays)
    path = folder / f"{TASK}-{name}.npz"
    if not path.is_file():
        exchange.write_npz(path, arrays)
    return path, name


def dataset_of(arrays: Mapping[str, Array], reward_scale: float = 1.0) -> Dataset:
    """Our dataset of exactly the transitions that d3rlpy makes of these arrays.

    The arrays hold no state after an episode's last step. A terminated one needs none; any other
    last step is left out, as d3rlpy does.
    """
    terminals, timeouts = arrays["terminals"], arrays["timeouts"]
    ends = np.flatnonzero(terminals | timeouts) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts - timeouts[ends - 1]
    kept = np.flatnonzero(~timeouts)
    states = exchange.standardised(arrays)
    after = np.where(terminals[:, None], states, np.roll(states, -1, axis=0))
    stops = lengths.cumsum()
    bounds = np.stack([stops - lengths, stops], axis=1)[lengths > 0]
    return Dataset(
        task=tasks.get(TASK),
        key=DatasetKey(TASK, content_hash(dict(arrays)), ""),
        normaliser=Normaliser(torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["std"])),
        states=torch.from_numpy(states[kept]),
        actions=torch.from_numpy(arrays["actions"][kept]),
        rewards=torch.from_numpy(arrays["rewards"][kept] * np.float32(reward_scale)),
        next_states=torch.from_numpy(after[kept]),
        terminated=torch.from_numpy(terminals[kept]),
        bounds=torch.from_numpy(bounds),
        simulator_states=None,
        metadata={},
    )
