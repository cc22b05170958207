"""E6's three tables of one seed: agreement with the states, camera motion, linear probes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from uepo_lib import executed, latents, pixels
from uepo_lib.divergence import cosine_floor, nearest
from uepo_lib.experiments.filming import (
    COMPONENTS,
    HORIZON,
    LATENT,
    POSITIONS,
    RANDOM,
    Filmed,
    photographed,
    poses,
)
from uepo_lib.latents import PCA, Encode
from uepo_lib.robots import Array
from uepo_lib.stages import Study

REVISION = 1


def distances(sequences: Tensor, floor: float) -> dict[str, Tensor]:
    """``executed.plan_distances`` of (n, B, T, d), start by start: d may be thousands."""
    parts = [executed.plan_distances(start, floor) for start in sequences.split(1, dim=1)]
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}


def own_floor(sequences: Tensor) -> float:
    """The cosine's floor of encoded films (n, B, T, d), 5 % of their median second difference."""
    return cosine_floor(sequences.flatten(0, 1))


def same_nearest(one: Tensor, other: Tensor) -> float:
    """Share of sub-policies whose nearest other is the same by both (n, n, B)."""
    return float((nearest(one)[1] == nearest(other)[1]).float().mean())


def with_change(codes: Tensor) -> Tensor:
    """Codes beside their change since the frame before, what stands for a velocity, in units of its
    own spread: (n, B, T, d) -> (n, B, T − 1, 2d)."""
    spread = codes.diff(dim=-2).flatten(0, -2).std(dim=0).clamp(min=1e-6)
    return _beside_change(codes, spread)


def _beside_change(codes: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    return torch.cat([codes[..., 1:, :], codes.diff(dim=-2) / unit], dim=-1)


def truths(found: Filmed) -> dict[str, dict[str, Tensor]]:
    """Distances (n, n, B) of executed "states", and of their observed "positions" alone."""
    seen = found.seen()
    place = seen.states[..., : _positions(found.study)]
    return {
        "states": executed.distances(seen, executed.state_floor(found.study, HORIZON)),
        "positions": distances(place, own_floor(place)),
    }


def agreement(found: Filmed) -> Iterator[dict[str, Any]]:
    """Rows representation, frames (1, or 2: :func:`with_change`), distance, of ("states" or
    "positions"), truth ("div" or "rms" of these), rho with low and high over starts, nearest
    (share who agree on the nearest), chance (of that)."""
    true, still = truths(found), found.frames.value["still"]
    place = found.seen().states[..., : _positions(found.study)]
    encoders: dict[str, Encode | None] = {POSITIONS: None, **found.encoders()}
    for name, encode in encoders.items():
        one = encode(still) if encode else place
        for frames, sequences in ((1, one), (2, with_change(one))):
            for distance, values in distances(sequences, own_floor(sequences)).items():
                about = {"representation": name, "frames": frames, "distance": distance}
                for of in ("states",) if not encode else tuple(true):
                    for kind, reached in true[of].items():
                        yield {**about, "of": of, "truth": kind, **_compared(values, reached)}


def _compared(values: Tensor, reached: Tensor) -> dict[str, float]:
    rho = executed.rank_correlation(values, reached)
    return {
        "rho": rho.mean, "low": rho.low, "high": rho.high,
        "nearest": same_nearest(values, reached), "chance": 1 / (len(values) - 1),
    }  # fmt: skip


def _positions(study: Study) -> int:
    """How many observed coordinates are positions; x is not, the velocities come after."""
    return (study.task.robot.state_dim - 1) // 2


def motions(found: Filmed, travelled: Array, again: bool) -> dict[str, Tensor]:
    """Every camera's motion along trajectories (n, B, T), each (n, B, T, 4); ``again`` draws the
    random ones anew."""
    shape, scale = travelled.shape[:-1], pixels.pixels_per_metre(found.study.task.robot)
    generator = found.study.generator(f"shake {again}")
    return {
        "still": pixels.constant(shape),
        "shifted 3 px": pixels.constant(shape, (3.0, 0.0, 1.0, 0.0)),
        "zoomed 10 %": pixels.constant(shape, (0.0, 0.0, 1.1, 0.0)),
        "rolled 5°": pixels.constant(shape, (0.0, 0.0, 1.0, 5.0)),
        "panning 0.25 px": pixels.pan(shape, 0.25),
        "tracking": pixels.track(travelled, scale),
        **{f"shaking {s:g} px": pixels.shake(shape, s, generator) for s in found.grid.shakes},
    }


def cameras(found: Filmed) -> Iterator[dict[str, Any]]:
    """Rows representation, motion, distance, ratio, rho, floor.

    ``ratio``: mean distance of pairs over that with a still camera; ``rho``: rank correlation with
    the states' same distance; ``floor``: mean distance between two films of the *same* trajectory,
    each with its own motion, over the still camera's distance between different ones.
    """
    study, seen, encoders = found.study, found.seen(found.grid.camera_starts), found.encoders()
    truth = executed.distances(seen, executed.state_floor(study, HORIZON))
    wide, travelled = photographed(study, seen, pixels.WIDE), poses(study, seen)
    one, other = (motions(found, travelled, again) for again in (False, True))
    base: dict[str, tuple[float, dict[str, float]]] = {}
    for motion in one:  # the still camera first
        films = [_moved(wide, drawn[motion]) for drawn in (one, other)]
        for name, encode in encoders.items():
            codes, repeated = (encode(frames) for frames in films)
            if name not in base:
                floor = own_floor(codes)
                base[name] = floor, _means(distances(codes, floor))
            floor, still = base[name]
            far, equal = distances(codes, floor), _repeats(codes, repeated, floor)
            for distance, values in far.items():
                rho = executed.rank_correlation(values, truth[distance])
                yield {
                    "representation": name, "motion": motion, "distance": distance,
                    "ratio": _means(far)[distance] / still[distance], "rho": rho.mean,
                    "floor": equal[distance] / still[distance],
                }  # fmt: skip


def _moved(wide: Tensor, motion: Tensor) -> Tensor:
    frames = pixels.look(wide.flatten(0, 2), motion.flatten(0, 2))
    return frames.unflatten(0, wide.shape[:3])


def _means(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean over pairs and starts."""
    n = len(next(iter(values.values())))
    i, j = torch.triu_indices(n, n, 1)
    return {name: float(found[i, j].mean()) for name, found in values.items()}


def _repeats(one: Tensor, other: Tensor, floor: float) -> dict[str, float]:
    """Mean distances between two films of each trajectory (n, B, T, d)."""
    both = torch.stack([one.flatten(0, 1), other.flatten(0, 1)])
    return _means(distances(both, floor))


def probes(found: Filmed) -> Iterator[dict[str, Any]]:
    """Rows representation, frames (1, or 2: the code and its change since the frame before),
    positions and velocities (mean R² of a linear map to them, learnt on D, on what was executed),
    unexplained (share of the filmed pictures; NaN where nothing is drawn again)."""
    film, split = found.frames.value, _positions(found.study)
    states = found.seen().states[:, :, 1:].flatten(0, 2)
    drawn, encoders = reconstructions(found), found.encoders()
    mean = found.train.float().mean(dim=0)
    for name in (LATENT, RANDOM, COMPONENTS):
        learnt, filmed = (
            _beside_change(encoders[name](film[key])).flatten(0, -2) for key in ("train", "still")
        )
        error = latents.unexplained(film["still"], drawn[name], mean) if name in drawn else math.nan
        for count in (1, 2):
            width = count * learnt.shape[-1] // 2
            r2 = latents.probe((learnt[:, :width], film["states"]), (filmed[:, :width], states))
            yield {
                "representation": name, "frames": count,
                "positions": float(r2[:split].mean()), "velocities": float(r2[split:].mean()),
                "unexplained": error,
            }  # fmt: skip


def reconstructions(found: Filmed) -> dict[str, Tensor]:
    """The filmed trajectories drawn again from as many numbers by the autoencoder and by PCA."""
    still, cfg = found.frames.value["still"], found.grid.autoencoder
    model, pca = found.autoencoder.value, PCA.of(found.train, cfg.latent_dim)
    return {LATENT: model.decode(model.encode(still)), COMPONENTS: pca.decode(pca.encode(still))}
