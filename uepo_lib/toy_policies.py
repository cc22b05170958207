"""Sets of n policies on the toy of known modes, made in every way that is compared (E1).

All learn from the same walks: diffusion models, Gaussian clones, mixture-density networks. A *kind*
is a way to make a set of n policies of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uepo_lib.cloning import CloneConfig, train_clone
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel, train_diffusion
from uepo_lib.divergence import GuidanceConfig, calibrate_threshold, cosine_floor
from uepo_lib.errors import unknown
from uepo_lib.mixture_density import MixtureConfig, MixtureDensity, train_mixture
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.subpolicies import SubPolicies, seeded_noise
from uepo_lib.toys import Doors

Planner = Callable[[Tensor, torch.Generator], Tensor]
"""n policies, each in its own states: (n, B, T_o, S), a generator -> (n, B, T, A)."""

FEW, MANY = 5, 50
"""Reverse steps: the library's default, and the longest chain."""
ETA = 0.5
"""η of the guided kinds, in action units."""

KINDS = (
    "one model, fixed noise",
    "one model, fresh noise",
    "one model, guided",
    "one model, guided, τ of D",
    f"one model, fixed noise, {FEW} steps",
    f"one model, guided, τ of D, {FEW} steps",
    "n models, one noise",
    "n models, zero noise",
    "mixture, fixed component",
    "mixture, drawn each call",
    "n Gaussians",
)
"""The diffusion kinds take :data:`MANY` reverse steps where nothing is said. τ is the median
nearest-neighbour div of the unguided set (A4) or, "of D", of sets of n logged walks from one place:
a network that has not learnt the modes' width finds its own sets closer than D's are."""


@dataclass(frozen=True)
class Trained:
    """What learnt from the same walks, one network a seed; ``seconds`` and ``updates`` are those
    of one training."""

    diffusions: list[DiffusionModel]
    gaussians: list[GaussianPolicy]
    mixtures: list[MixtureDensity]
    seconds: dict[str, float]
    updates: dict[str, int]


def train_all(toy: Doors, count: int, updates: int) -> Trained:
    """``count`` diffusion models and clones, some mixtures; both last get fewer ``updates``, enough
    to converge."""
    process = DiffusionConfig(
        num_updates=updates, batch_size=128, warmup=50, lr=2e-3, ema_decay=0.98
    )
    network = DenoiserConfig(
        backbone="mlp", horizon=toy.horizon, obs_horizon=toy.obs_horizon, d_model=32,
        hidden=(128, 128),
    )  # fmt: skip
    clone = CloneConfig(num_updates=min(updates, 300), batch_size=128, learning_rate=2e-3)
    gaussian = GaussianConfig(2, 2, toy.obs_horizon, toy.horizon, hidden=(64, 64))
    mixture = MixtureConfig(num_updates=min(updates, 300))
    makers: dict[str, Callable[[int], Any]] = {
        "diffusion": lambda s: train_diffusion(process, network, toy, s, progress=False),
        "Gaussian": lambda s: train_clone(clone, gaussian, toy, seed=s, progress=False),
        "mixture": lambda s: train_mixture(mixture, toy, seed=s, progress=False),
    }
    made: dict[str, list[Any]] = {}
    seconds = {}
    for name, make in makers.items():
        seeds = range(min(count, 4) if name == "mixture" else count)  # no set has n mixtures
        begin = time.perf_counter()
        made[name] = [make(seed) for seed in seeds]
        seconds[name] = (time.perf_counter() - begin) / len(seeds)
    counts = {
        "diffusion": process.num_updates,
        "Gaussian": clone.num_updates,
        "mixture": mixture.num_updates,
    }
    return Trained(made["diffusion"], made["Gaussian"], made["mixture"], seconds, counts)


def planner(kind: str, trained: Trained, toy: Doors, j: int, n: int) -> Planner:
    """Set ``j`` of ``kind``. Nested: the first m of a set of n are the set of m (but for guidance).

    One network makes set j, network j modulo their number; n networks are n of all, in an order
    that j decides. ``UsageError`` for a kind that is not one of :data:`KINDS`.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    order = torch.randperm(len(trained.diffusions), generator=torch.Generator().manual_seed(j))[:n]
    model = trained.diffusions[j % len(trained.diffusions)]
    steps = FEW if kind.endswith("steps") else MANY
    seeded = partial(SubPolicies.from_seeds, model, n, j, num_denoising_steps=steps)
    if kind == "one model, fresh noise":
        return seeded(fresh_noise=True, own_generators=True).plan
    if kind.startswith("one model, guided") and n > 1:
        plain = None if "τ of D" in kind else seeded()
        return seeded(guidance=_guidance(plain, n, toy)).plan
    if kind.startswith("one model"):
        return seeded().plan
    if kind.startswith("n models"):
        kappa = 1.0 if kind == "n models, one noise" else 0.0
        noise = seeded_noise(1, j, model.action_shape)
        members = [
            SubPolicies(trained.diffusions[i], noise, kappa, num_denoising_steps=steps)
            for i in order.tolist()
        ]
        return lambda past, _: torch.cat([m.plan(past[i : i + 1]) for i, m in enumerate(members)])
    if kind == "n Gaussians":
        clones = [trained.gaussians[i] for i in order.tolist()]
        return lambda past, _: torch.stack([c.act(p) for c, p in zip(clones, past, strict=True)])
    fixed = kind == "mixture, fixed component"
    return _mixture(trained.mixtures[j % len(trained.mixtures)], j, n, fixed)


def _guidance(plain: SubPolicies | None, n: int, toy: Doors) -> GuidanceConfig:
    """τ from the unguided set, or from D; η as printed, the same at every reverse step."""
    generator = torch.Generator().manual_seed(0)
    states = toy.draw_states(64, generator)
    if plain is not None:
        found = plain.plan_shared(toy.past(states))
    else:
        modes = torch.multinomial(toy.weights, n * len(states), True, generator=generator)
        found = toy.sample(states.repeat(n, 1), modes, generator).unflatten(0, (n, -1))
    floor = cosine_floor(toy.actions)
    return GuidanceConfig(calibrate_threshold(found, 0.5, floor), ETA, floor, "constant")


def _mixture(network: MixtureDensity, j: int, n: int, fixed: bool) -> Planner:
    once = torch.rand(n, 1, generator=torch.Generator().manual_seed(j))

    def plan(past: Tensor, generator: torch.Generator) -> Tensor:
        shape = past.shape[:2]
        quantile = once.expand(shape) if fixed else torch.rand(shape, generator=generator)
        chosen = network.plan(past.flatten(0, 1), quantile.reshape(1, -1))
        return chosen[0].unflatten(0, shape)

    return plan
