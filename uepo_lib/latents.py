"""What a picture is turned into before two films are compared: a learned latent, and its rivals.

A small convolutional autoencoder is trained here on frames of D. Beside it stand its own encoder
untrained, the principal components of the same frames, and the frames as they are. All but the last
are standardised by D's frames, coordinate by coordinate, as states are by D.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from uepo_lib.errors import check
from uepo_lib.pixels import SIDE
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, descend, fit

REVISION = 1
AT_ONCE = 512
"""Frames encoded at a time."""
PCA_FRAMES = 2_048
"""The most that principal components are taken from: their products are (F, F)."""
Encode = Callable[[Tensor], Tensor]
"""Frames (..., SIDE, SIDE) uint8 -> (..., d)."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes and training of the autoencoder; each layer of ``channels`` halves the picture."""

    latent_dim: int = 16
    channels: tuple[int, ...] = (8, 16, 32, 32)
    num_updates: int = 1_500
    batch_size: int = 64
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("latent_dim", "num_updates", "batch_size", "learning_rate"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        deepest = SIDE.bit_length() - 1
        within = 1 <= len(self.channels) <= deepest and min(self.channels) > 0
        check(within, "channels", self.channels, f"1 to {deepest} positive integers")


class Autoencoder(nn.Module):
    """Frames to d numbers and back; ``train`` (M, SIDE, SIDE) uint8 gives mean and scale."""

    mean: Tensor
    scale: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, cfg: AutoencoderConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = cfg
        side, sizes = SIDE >> len(cfg.channels), (1, *cfg.channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"autoencoder/{seed}".encode()))
            down: list[nn.Module] = []
            up: list[nn.Module] = []
            for i, o in pairwise(sizes):
                down += [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.SiLU()]
                up = [nn.SiLU(), nn.ConvTranspose2d(o, i, 4, stride=2, padding=1), *up]
            flat = sizes[-1] * side * side
            self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, cfg.latent_dim))
            self.decoder = nn.Sequential(
                nn.Linear(cfg.latent_dim, flat), nn.Unflatten(1, (sizes[-1], side, side)), *up
            )
        self.register_buffer("mean", torch.zeros(SIDE, SIDE))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("latent_mean", torch.zeros(cfg.latent_dim))
        self.register_buffer("latent_std", torch.ones(cfg.latent_dim))

    def centred(self, frames: Tensor) -> Tensor:
        """Away from the mean frame, in units of the frames' standard deviation: (B, 1, ...)."""
        return ((frames.float() - self.mean) / self.scale).unsqueeze(1)

    def standardise_frames(self, train: Tensor) -> None:
        """Take mean and scale of the pictures from these."""
        pixels = train.float()
        self.mean.copy_(pixels.mean(dim=0))
        self.scale.copy_((pixels - self.mean).square().mean().sqrt().clamp(min=1.0))

    def standardise_latents(self, train: Tensor) -> None:
        """Take mean and scale of the latents from these."""
        self.latent_mean.zero_()
        self.latent_std.fill_(1.0)
        latents = self.encode(train)
        self.latent_mean.copy_(latents.mean(dim=0))
        self.latent_std.copy_(latents.std(dim=0).clamp(min=1e-6))

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Standardised latents: (..., SIDE, SIDE) uint8 -> (..., d)."""
        flat = frames.reshape(-1, SIDE, SIDE).split(AT_ONCE)
        found = torch.cat([self.encoder(self.centred(part)) for part in flat])
        return ((found - self.latent_mean) / self.latent_std).view(*frames.shape[:-2], -1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames again, float32 from 0 to 255: (..., d) -> (..., SIDE, SIDE)."""
        flat = (latents * self.latent_std + self.latent_mean).flatten(0, -2).split(AT_ONCE)
        drawn = torch.cat([self.decoder(part)[:, 0] for part in flat]) * self.scale + self.mean
        return drawn.clamp(0, 255).view(*latents.shape[:-1], SIDE, SIDE)


def untrained(cfg: AutoencoderConfig, train: Tensor, seed: int) -> Autoencoder:
    """A random encoder that knows only the scale of ``train`` (M, SIDE, SIDE): the control."""
    made = Autoencoder(cfg, seed).eval()
    made.standardise_frames(train)
    made.standardise_latents(train)
    return made


def train_autoencoder(
    cfg: AutoencoderConfig,
    train: Tensor,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> Autoencoder:
    """Mean squared error of the pixels of ``train`` (M, SIDE, SIDE) uint8, by Adam, its step
    falling to 0 as a cosine."""
    shape = train.dim() == 3 and train.shape[1:] == (SIDE, SIDE) and len(train) >= 2
    check(shape, "train", tuple(train.shape), f"(M, {SIDE}, {SIDE}) with M ≥ 2")
    model = Autoencoder(cfg, seed)
    model.standardise_frames(train)
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cfg.num_updates)
    generator = torch.Generator().manual_seed(zlib.crc32(f"frames/{seed}".encode()))

    def update(step: int) -> Metrics:
        index = torch.randint(len(train), (cfg.batch_size,), generator=generator)
        wanted = model.centred(train[index])
        loss = (model.decoder(model.encoder(wanted)) - wanted).square().mean()
        descend(loss, optimiser)
        schedule.step()
        return {"unexplained": loss.detach()}

    parts: dict[str, Stateful] = {
        "model": model, "optimiser": optimiser, "schedule": schedule,
        "generator": GeneratorState(generator),
    }  # fmt: skip
    fit(cfg.num_updates, update, parts, recorder=recorder, name="autoencoder", progress=progress)
    model.eval().standardise_latents(train)
    return model


@dataclass(frozen=True)
class PCA:
    """The d principal components of frames, as many as the latent has numbers."""

    mean: Tensor
    """(SIDE²,)."""
    components: Tensor
    """(d, SIDE²), orthonormal, the largest variance first."""
    std: Tensor
    """(d,) of the scores on the frames that they were taken from."""

    @classmethod
    def of(cls, train: Tensor, dim: int) -> PCA:
        """From ``train`` (M, SIDE, SIDE), at most :data:`PCA_FRAMES` of it, by the eigenvectors of
        the frames' products."""
        frames = train[:PCA_FRAMES].flatten(1).double()
        check(0 < dim < len(frames), "dim", dim, f"from 1 to {len(frames) - 1} for these frames")
        mean = frames.mean(dim=0)
        centred = frames - mean
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        top = vectors[:, -dim:].flip(1)
        components = nn.functional.normalize(top.T @ centred, dim=1)
        std = (values[-dim:].flip(0).clamp(min=0) / (len(frames) - 1)).sqrt().clamp(min=1e-6)
        return cls(mean.float(), components.float(), std.float())

    def encode(self, frames: Tensor) -> Tensor:
        """Standardised scores: (..., SIDE, SIDE) -> (..., d)."""
        return (frames.flatten(-2).float() - self.mean) @ self.components.T / self.std

    def decode(self, scores: Tensor) -> Tensor:
        """(..., d) -> (..., SIDE, SIDE), float32."""
        flat = scores * self.std @ self.components + self.mean
        return flat.clamp(0, 255).unflatten(-1, (SIDE, SIDE))


def as_pixels(frames: Tensor) -> Tensor:
    """The frames as they are, from 0 to 1: (..., SIDE, SIDE) -> (..., SIDE²)."""
    return frames.flatten(-2).float() / 255


def unexplained(frames: Tensor, drawn: Tensor, mean: Tensor) -> float:
    """Squared error of ``drawn`` over that of the ``mean`` frame: 0 is perfect, 1 learnt nothing.

    ``frames`` and ``drawn`` are (..., SIDE, SIDE), ``mean`` (SIDE, SIDE).
    """
    wanted = frames.float()
    return float((drawn - wanted).square().sum() / (wanted - mean).square().sum())


def probe(fit: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], ridge: float = 1e-3) -> Tensor:
    """R² of a linear map from features (N, F) to targets (N, G), for each target: (G,).

    Fitted on one pair of features and targets, tested on the other; below 0 it is worse than their
    mean. ``ridge`` is added to the variance of standardised features.
    """
    (x, y), (test_x, test_y) = ((a.double(), b.double()) for a, b in (fit, test))
    check(len(x) >= 2, "N", len(x), "at least 2 to fit")
    middle, scale, level = x.mean(dim=0), x.std(dim=0).clamp(min=1e-9), y.mean(dim=0)
    x = (x - middle) / scale
    product = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(product, x.T @ (y - level))
    error = (test_x - middle) / scale @ weights + level - test_y
    spread = (test_y - test_y.mean(dim=0)).square().sum(dim=0)
    return 1 - error.square().sum(dim=0) / spread
