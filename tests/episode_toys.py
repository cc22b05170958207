"""Datasets made by hand, whose cards are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from uepo_lib import tasks
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.specs import DatasetKey


def hand_made(lengths: list[int], rewards: list[float], **changed: Any) -> Dataset:
    """Hopper with a clock of 6 steps; every step of episode i pays ``rewards[i]``."""
    task = replace(
        tasks.get("hopper-medium"), robot=replace(tasks.ROBOTS["hopper"], max_episode_steps=6)
    )
    ends = torch.tensor(lengths).cumsum(0)
    total = int(ends[-1])
    terminated = torch.zeros(total, dtype=torch.bool)
    terminated[ends[0] - 1] = True  # the first episode ends in a fall
    states = torch.randn(total, 11, generator=torch.Generator().manual_seed(0))
    content = {
        "task": task,
        "key": DatasetKey("toy", "hash", "recipe"),
        "normaliser": Normaliser(torch.zeros(11), torch.ones(11)),
        "states": states,
        "actions": torch.zeros(total, 3),
        "rewards": torch.tensor(rewards).repeat_interleave(torch.tensor(lengths)),
        "next_states": states,
        "terminated": terminated,
        "bounds": torch.stack([ends - torch.tensor(lengths), ends], dim=1),
        "simulator_states": None,
        "metadata": {},
    }
    return Dataset(**(content | changed))
