"""What the tests of denoisers, diffusion, sub-policies and divergence share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from uepo_lib.denoisers import Context, DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel, build_diffusion
from uepo_lib.schedules import Schedule

GOLDEN = Path(__file__).parent / "golden"


def check_golden(
    name: str, tensors: Mapping[str, Tensor], revision: int, *, atol: float = 1e-4
) -> None:
    """Compare with the committed values of this revision; UPDATE_GOLDEN=1 writes them anew."""
    path = GOLDEN / f"{name}.safetensors"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        contiguous = {key: value.detach().contiguous() for key, value in tensors.items()}
        save_file(contiguous, path, metadata={"revision": str(revision)})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["revision"] == str(revision), f"regenerate {path.name}"
        assert set(file.keys()) == set(tensors)
        for key, value in tensors.items():
            torch.testing.assert_close(
                value,
                file.get_tensor(key),
                atol=atol,
                rtol=1e-4,
                msg=lambda m, key=key: f"{key}: numbers changed, so REVISION must too\n{m}",
            )


class ToyBatch(NamedTuple):
    past: Tensor
    actions: Tensor
    future: Tensor


class ToyWindows:
    """Windows held in memory."""

    def __init__(self, past: Tensor, actions: Tensor, future: Tensor) -> None:
        self.data = ToyBatch(past, actions, future)

    def __len__(self) -> int:
        return len(self.data.past)

    def batch(self, index: Tensor) -> ToyBatch:
        return ToyBatch(*(t[index] for t in self.data))


class MemoryRecorder:
    """A recorder that keeps everything in memory and checkpoints whenever asked."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.checkpoint: tuple[int, dict[str, Any]] | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        self.checkpoint = (step, dict(state))

    def load_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        return self.checkpoint


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_windows(size: int, state_dim: int, horizon: int, action_dim: int) -> ToyWindows:
    return ToyWindows(
        randn(size, 2, state_dim, seed=1),
        torch.tanh(randn(size, horizon, action_dim, seed=2)),
        randn(size, horizon - 1, state_dim, seed=3),
    )


def small_model(seed: int = 0, **changes: Any) -> DiffusionModel:
    """An untrained U-Net + Transformer for S = 3, A = 2, T = 8, T_o = 2."""
    denoiser = DenoiserConfig(channels=(8, 16), d_model=16, num_heads=2, num_layers=1)
    return build_diffusion(DiffusionConfig(**changes), denoiser, 3, 2, seed).eval()


class GaussianDenoiser(nn.Module):
    """The exact network for data N(mean, std² I): no training between the test and the algebra."""

    def __init__(self, cfg: DiffusionConfig, mean: float, std: float, horizon: int = 4) -> None:
        super().__init__()
        self.config = DenoiserConfig(horizon=horizon, obs_horizon=1)
        self.state_dim, self.action_dim = 1, 2
        self.mean, self.std, self.prediction = mean, std, cfg.prediction
        self.schedule = Schedule(cfg.schedule, cfg.num_train_steps)

    def encode(self, past: Tensor, future: Any = None, future_visible: Any = None) -> Context:
        return Context(past[:, -1])

    def denoise(self, x: Tensor, k: Tensor, context: Context) -> Tensor:
        alpha, sigma = self.schedule.alpha(k), self.schedule.sigma(k)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x0 = self.mean + gain * (x - alpha * self.mean)
        epsilon = self.schedule.epsilon(x, x0, k)
        return self.schedule.target(x0, epsilon, k, self.prediction)


def gaussian_model(mean: float, std: float, horizon: int = 4, **changes: Any) -> DiffusionModel:
    """The exact diffusion model of N(mean, std² I) with A = 2, unclipped unless told."""
    cfg = DiffusionConfig(**{"clip": 100.0, **changes})
    denoiser: Any = GaussianDenoiser(cfg, mean, std, horizon)
    return DiffusionModel(cfg, denoiser)
