"""Many policies from one model: sub-policy π^i starts its reverse process at its own noise ε_i.

    π^i(s) = DDIM(κ ε_i, s),   ε_i ~ N(0, I) drawn once,   i = 1 .. n        (contribution 1; A2)

A function of the state, n of them in one batched forward pass. κ = 1 is the paper. κ = 0 is the
zero-noise policy, the same for every i. Sets are nested: the first two of ten are the set of two.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uepo_lib.denoisers import Context
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.divergence import Guidance, GuidanceConfig
from uepo_lib.errors import UsageError, check

REVISION = 2
SEQUENCES_AT_ONCE = 512
"""Of a guided set, which denoises n sequences for each that is asked for: as many as stay in a
core's cache. Thousands at once took 1.4 to 2.7 times as long."""


def seeded_noise(n: int, seed: int, shape: Sequence[int]) -> Tensor:
    """n standard-normal tensors from one generator, one after another: (n, \\*shape).

    Drawn one by one, since the values of a larger draw depend on its size.
    """
    check(n >= 1, "n", n, "a positive integer")
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(tuple(shape), generator=generator) for _ in range(n)])


def own_noise(seeds: Sequence[int], clock: int, shape: Sequence[int]) -> Tensor:
    """Standard-normal noise of call ``clock``, member i from a generator of its own: (n, \\*shape).

    A member's draw depends on its seed, the call and the shape alone, not on who is drawn beside
    it.
    """
    words = (np.random.SeedSequence((seed, clock)).generate_state(1) for seed in seeds)
    own = [torch.Generator().manual_seed(int(word[0])) for word in words]
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in own])


class SubPolicies:
    """n sub-policies of one diffusion model; a ``Policy`` (see ``policies.py``).

    ``noise`` (n, T, A) holds ε_i; ``kappa`` is one temperature or n of them. ``guidance`` sets
    them against each other (A3): each then needs its n − 1 neighbours at its own states, and pays
    for them. With ``fresh_noise`` every call draws new noise in place of ε_i, which makes all n
    equal in distribution: the null against which fixed noise is judged. It comes from the generator
    that :meth:`act` is given or, with ``noise_seeds``, n of them, from a generator of each
    sub-policy's own: then a sub-policy draws the same alone as among others in as many states, and
    the given generator only says which call it is.
    """

    def __init__(
        self,
        model: DiffusionModel,
        noise: Tensor,
        kappa: float | Tensor = 1.0,
        *,
        action_horizon: int = 4,
        num_denoising_steps: int | None = None,
        guidance: Guidance | None = None,
        fresh_noise: bool = False,
        noise_seeds: Sequence[int] | None = None,
    ) -> None:
        n, shape = len(noise), model.action_shape
        check(tuple(noise.shape[1:]) == shape, "noise", tuple(noise.shape), f"n times {shape}")
        within = 1 <= action_horizon <= shape[0]
        check(within, "action_horizon", action_horizon, f"in 1 .. T={shape[0]}")
        self.kappa = torch.as_tensor(kappa, dtype=torch.float32).expand(n).to(model.device)
        check(bool((self.kappa >= 0).all()), "kappa", kappa, "not negative")
        steps = len(model.timesteps(num_denoising_steps))  # refuses a number that it does not have
        if guidance is not None:
            expected = (n, steps, *model.action_shape)
            check(guidance.xi.shape == expected, "xi", tuple(guidance.xi.shape), f"{expected}")
            check(n >= 2, "n", n, "at least 2 for guidance")
        if noise_seeds is not None:
            check(fresh_noise, "fresh_noise", fresh_noise, "True where noise_seeds are given")
            valid = len(noise_seeds) == n and min(noise_seeds) >= 0
            check(valid, "noise_seeds", list(noise_seeds), f"n={n} integers, none negative")
        self.model = model
        self.noise = noise.to(model.device)
        self.n = n
        self.obs_horizon, self.action_horizon = model.obs_horizon, action_horizon
        self.num_denoising_steps = steps
        self.guidance = guidance
        self.fresh_noise = fresh_noise
        self.noise_seeds = noise_seeds

    @classmethod
    def from_seeds(
        cls,
        model: DiffusionModel,
        n: int,
        seed: int,
        kappa: float | Tensor = 1.0,
        *,
        action_horizon: int = 4,
        num_denoising_steps: int | None = None,
        guidance: GuidanceConfig | None = None,
        fresh_noise: bool = False,
        own_generators: bool = False,
    ) -> SubPolicies:
        """Draw ε_i, and ξ_{i,k} if guided, from ``seed``; the first m of n are those of m.

        ``own_generators``, with fresh noise, gives sub-policy i a generator of its own (A2).
        """
        steps = len(model.timesteps(num_denoising_steps))
        hook = None
        if guidance is not None:
            # Its own stream: whether a set is guided does not change its ε_i. (A seed above 2³²
            # would not be one: torch keeps the lower 32 bits.)
            stream = zlib.crc32(f"xi/{seed}".encode())
            xi = seeded_noise(n, stream, (steps, *model.action_shape)).to(model.device)
            hook = Guidance(guidance, xi)
        return cls(
            model,
            seeded_noise(n, seed, model.action_shape),
            kappa,
            action_horizon=action_horizon,
            num_denoising_steps=steps,
            guidance=hook,
            fresh_noise=fresh_noise,
            noise_seeds=[(seed << 16) + i for i in range(n)] if own_generators else None,
        )

    @classmethod
    def zero_noise(
        cls,
        model: DiffusionModel,
        *,
        action_horizon: int = 4,
        num_denoising_steps: int | None = None,
    ) -> SubPolicies:
        """The control that every seed has to beat: κ = 0, n = 1."""
        noise = torch.zeros(1, *model.action_shape)
        return cls(
            model,
            noise,
            0.0,
            action_horizon=action_horizon,
            num_denoising_steps=num_denoising_steps,
        )

    def select(self, i: int) -> SubPolicies:
        """Sub-policy i alone; guidance is off from here on, having no neighbours (A3)."""
        check(0 <= i < self.n, "i", i, f"in 0 .. {self.n - 1}")
        return self._take(slice(i, i + 1), None)

    def with_guidance(self, guidance: Guidance | None) -> SubPolicies:
        """The same sub-policies, guided otherwise."""
        return self._take(slice(None), guidance)

    def _take(self, which: slice, guidance: Guidance | None) -> SubPolicies:
        return SubPolicies(
            self.model,
            self.noise[which],
            self.kappa[which],
            action_horizon=self.action_horizon,
            num_denoising_steps=self.num_denoising_steps,
            guidance=guidance,
            fresh_noise=self.fresh_noise,
            noise_seeds=self.noise_seeds and self.noise_seeds[which],
        )

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Next actions, one state each: (n, B, T_o, S) -> (n, B, T_a, A)."""
        return self.plan(states, generator)[:, :, : self.action_horizon]

    @torch.no_grad()
    def plan(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Whole sequences, every sub-policy in its own states: (n, B, T_o, S) -> (n, B, T, A)."""
        check(len(states) == self.n, "states", tuple(states.shape), f"(n={self.n}, B, T_o, S)")
        if self.guidance is not None:
            few = states.flatten(0, 1).split(max(1, SEQUENCES_AT_ONCE // self.n))
            shared = torch.cat([self.plan_shared(past, generator) for past in few], dim=1)
            own = shared.unflatten(1, (self.n, -1)).diagonal(dim1=0, dim2=1)
            return own.movedim(-1, 0)
        batch = states.shape[1]
        x = self._start(batch, generator)
        context = self._contexts(self.model.encode(states.flatten(0, 1)))
        actions = self.model.sample(x, context, self.num_denoising_steps)
        return actions.unflatten(0, (self.n, batch))

    @torch.no_grad()
    def plan_shared(self, past: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Whole sequences, all sub-policies in the same states: (B, T_o, S) -> (n, B, T, A)."""
        context = self._contexts(self.model.encode(past).repeat(self.n))
        x = self._start(len(past), generator)
        actions = self.model.sample(x, context, self.num_denoising_steps, self.guidance)
        return actions.unflatten(0, (self.n, len(past)))

    def _contexts(self, context: Context) -> Context:
        """What the sub-policies see of n·B states, one after another; here all see alike."""
        return context

    def _start(self, batch: int, generator: torch.Generator | None) -> Tensor:
        """κ ε_i for every row: (n·B, T, A)."""
        noise = self.noise[:, None].expand(-1, batch, -1, -1)
        if self.fresh_noise:
            check(generator is not None, "generator", generator, "given when the noise is fresh")
            noise = self._fresh(noise.shape, generator)
        return (self.kappa[:, None, None, None] * noise).flatten(0, 1)

    def _fresh(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        device = self.noise.device
        if self.noise_seeds is None:
            return torch.randn(shape, generator=generator, device=device)
        clock = int(torch.randint(2**62, (), generator=generator, device=device))
        return own_noise(self.noise_seeds, clock, shape[1:]).to(device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What :meth:`from_state` needs beside the model: tensors, and a JSON-able rest."""
        tensors = {"noise": self.noise.contiguous(), "kappa": self.kappa.contiguous()}
        rest: dict[str, Any] = {
            "action_horizon": self.action_horizon,
            "num_denoising_steps": self.num_denoising_steps,
            "fresh_noise": self.fresh_noise,
        }
        if self.noise_seeds is not None:
            rest["noise_seeds"] = list(self.noise_seeds)
        if self.guidance is not None:
            tensors["xi"] = self.guidance.xi
            rest["guidance"] = asdict(self.guidance.config)
            if self.guidance.control is not None:
                tensors["control"] = self.guidance.control
        return tensors, rest

    @classmethod
    def from_state(
        cls, model: DiffusionModel, tensors: dict[str, Tensor], rest: dict[str, Any]
    ) -> SubPolicies:
        """The set that :meth:`state` described, on ``model``."""
        rest, device = dict(rest), model.device
        config = rest.pop("guidance", None)
        guidance = None
        if config is not None:
            control = tensors.get("control")
            guidance = Guidance(
                GuidanceConfig(**config),
                tensors["xi"].to(device),
                None if control is None else control.to(device),
            )
        return cls(model, tensors["noise"], tensors["kappa"], guidance=guidance, **rest)


def equal_power_controls(guided: SubPolicies, past: Tensor) -> dict[str, SubPolicies]:
    """The two controls of a guided set, of the same root-mean-square power on states (B, T_o, S).

    "ungated": at each step the guided set's σ, whatever the divergence. "final": white noise on the
    finished actions, as large as what guidance made of them once both are clipped.
    """
    guidance = guided.guidance
    if guidance is None:
        raise UsageError("guidance=None: must be given, for there to be a power to match")
    sigmas: list[Tensor] = []

    def record(x0: Tensor, k: int, step_index: int) -> Tensor:
        sigmas.append(guidance.sigma(x0.unflatten(0, (guided.n, -1)), step_index))
        return guidance(x0, k, step_index)

    context = guided._contexts(guided.model.encode(past).repeat(guided.n))
    start = guided._start(len(past), None)
    actions = guided.model.sample(start, context, guided.num_denoising_steps, record)
    plain = guided.model.sample(start, context, guided.num_denoising_steps)
    power = torch.stack([s.square().mean().sqrt() for s in sigmas])
    final = torch.zeros_like(power)
    wanted = (actions - plain).square().mean().sqrt()
    grouped = plain.unflatten(0, (guided.n, -1))
    final[-1] = _arriving(grouped, guidance.xi[:, None, -1], wanted, guided.model.config.clip)
    return {
        name: guided.with_guidance(replace(guidance, control=control))
        for name, control in (("ungated", power), ("final", final))
    }


def _arriving(plain: Tensor, xi: Tensor, wanted: Tensor, clip: float) -> Tensor:
    """σ such that clip(plain + σ ξ) − plain has the root mean square ``wanted``.

    ξ is one fixed draw, so its power is not exactly 1, and the box swallows some of it.
    """
    sigma = wanted
    for _ in range(20):  # a fixed point: each round leaves a fraction of what was missing
        arrived = ((plain + sigma * xi).clamp(-clip, clip) - plain).square().mean().sqrt()
        sigma = sigma * wanted / arrived.clamp(min=1e-12)
    return sigma
