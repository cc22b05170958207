"""What the tests of dynamics, augmentation and values share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from uepo_lib.datasets import Transitions


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class LinearGaussian:
    """s' = s + A s + B a + noise, r = ⟨w, s⟩ + noise: everything about it is known."""

    A = torch.tensor([[-0.1, 0.3, 0.0], [-0.3, -0.1, 0.0], [0.0, 0.2, -0.2]])
    B = torch.tensor([[0.2], [0.0], [-0.3]])
    w = torch.tensor([1.0, -0.5, 0.2])
    noise = torch.tensor([0.05, 0.1, 0.02, 0.2])
    """Standard deviations of s' and, last, r."""

    def mean(self, states: Tensor, actions: Tensor) -> Tensor:
        """E[(s', r)]: (N, 3), (N, 1) -> (N, 4)."""
        reached = states + states @ self.A.T + actions @ self.B.T
        return torch.cat([reached, (states @ self.w).unsqueeze(-1)], -1)

    def transitions(self, size: int, seed: int = 0) -> Transitions:
        states, noise = randn(size, 3, seed=seed), randn(size, 4, seed=seed + 1)
        actions = randn(size, 1, seed=seed + 2).clamp(-1, 1)
        outcome = self.mean(states, actions) + self.noise * noise
        ended = torch.zeros(size, dtype=torch.bool)
        return Transitions(states, actions, outcome[:, 3], outcome[:, :3], ended)

    def sequences(self, size: int, steps: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Past (M, 2, 3), actions (M, steps, 1), future (M, steps, 3) of one process."""
        states = [randn(size, 3, seed=seed)]
        actions = randn(size, steps + 1, 1, seed=seed + 1).clamp(-1, 1)
        noise = randn(size, steps + 1, 3, seed=seed + 2) * self.noise[:3]
        for t in range(steps + 1):
            states.append(self.mean(states[-1], actions[:, t])[:, :3] + noise[:, t])
        path = torch.stack(states, 1)
        return path[:, :2], actions[:, 1:], path[:, 2:]


class MemoryRecorder:
    """Rows and checkpoints in memory; a checkpoint passes through ``torch.save`` as on disk."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.saved: tuple[int, bytes] | None = None
        self.stop_after = stop_after

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.saved = (step, buffer.getvalue())
        if step == self.stop_after:
            raise KeyboardInterrupt

    def load_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        if self.saved is None:
            return None
        step, data = self.saved
        self.rows = [row for row in self.rows if row[0] <= step]
        return step, torch.load(io.BytesIO(data), weights_only=True)
