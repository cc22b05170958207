"""One run of UEPO's offline half on a small world, healthy or with one cause of failure (E8)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uepo_lib import diagnostics
from uepo_lib.augmentation import AugmentationConfig, Synthetic, reference_costs, synthesise
from uepo_lib.datasets import Transitions
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diagnostics import COLLAPSE, FAR_START, IMPLAUSIBLE, WORSE_MODEL, Finding
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel, train_diffusion
from uepo_lib.divergence import GuidanceConfig, calibrate_threshold, cosine_floor
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel
from uepo_lib.dynamics_training import train_dynamics
from uepo_lib.errors import check
from uepo_lib.experiments import failure_worlds as worlds
from uepo_lib.experiments.failure_worlds import MAZE, TOY, World
from uepo_lib.subpolicies import SubPolicies

SIMILAR = 32
"""Logged sequences that a plan is compared with."""
DRAWS = 16
"""Sub-policies whose plans are tested for plausibility: noises, so as not to judge a few."""
STARTS = 1_000
"""States of D that imagined trajectories start from."""


@dataclass(frozen=True)
class FailureGrid:
    """Sizes: of the data, of the networks' training, of what is looked at."""

    seeds: tuple[int, ...] = (*diagnostics.CALIBRATION_SEEDS, *diagnostics.TEST_SEEDS)
    walks: int = 2_048
    episodes: int = 40
    few: int = 10
    """Episodes that T̂ learns from; a weak T̂_init from the first of them."""
    updates: int = 1_000
    few_updates: int = 40
    """Of the undertrained policy."""
    dynamics_updates: int = 800
    members: int = 6
    probe: int = 128
    """States looked at; 4 of them a held-out walk, 8 environments' steps each."""
    ahead: int = 40
    """Steps of an imagined trajectory in the maze; on the toy it is the walk."""
    ratio: float = 2.0
    high_ratio: float = 8.0
    env_steps: int = 10_240
    """Of online fine-tuning, in the maze."""

    def __post_init__(self) -> None:
        check(len(self.seeds) > 0, "seeds", self.seeds, "at least one")
        check(self.few < self.episodes, "few", self.few, f"fewer than episodes={self.episodes}")
        check(self.probe >= SIMILAR, "probe", self.probe, f"at least {SIMILAR}")


@dataclass(frozen=True)
class Cause:
    """What is done wrong, and what that is said to lead to; by default nothing, a healthy run."""

    signature: str | None = None
    kappa: float = 1.0
    guided: bool = True
    loose: bool = False
    """A weak T̂_init of scarce data, a high ratio, no filter."""
    elsewhere: bool = False
    undertrained: bool = False
    shuffled: bool = False
    mild: bool = False
    """Looked at, and not counted: the cause alone need not lead to the failure."""

    def policy_of(self, setting: str) -> tuple[bool, ...]:
        """What a diffusion policy depends on: causes that agree in it share one. In the maze
        ``elsewhere`` changes the data, on the toy only where the point starts online."""
        return self.undertrained, self.shuffled, self.elsewhere and setting == MAZE


HEALTHY = "none"
CAUSES = {
    HEALTHY: Cause(),
    "no guidance, small κ": Cause(COLLAPSE, kappa=0.1, guided=False),
    "no guidance": Cause(COLLAPSE, guided=False, mild=True),
    "weak T̂_init, no filter": Cause(WORSE_MODEL, loose=True),
    "far from D": Cause(FAR_START, elsewhere=True),
    "undertrained": Cause(IMPLAUSIBLE, undertrained=True),
    "states shuffled": Cause(IMPLAUSIBLE, shuffled=True),
}


NETWORK = DenoiserConfig(
    backbone="mlp", horizon=worlds.HORIZON, obs_horizon=1, d_model=32, hidden=(128, 128)
)
GUIDANCE = GuidanceConfig(threshold=1.0, eta_schedule="constant")
"""τ and the floor of the divergence follow from D."""


def diffusion_config(grid: FailureGrid, cause: Cause) -> DiffusionConfig:
    """Few updates where the policy is to be undertrained."""
    return DiffusionConfig(
        num_updates=grid.few_updates if cause.undertrained else grid.updates,
        batch_size=128, warmup=50, lr=2e-3, ema_decay=0.98,
    )  # fmt: skip


def dynamics_config(grid: FailureGrid) -> DynamicsConfig:
    """Of T̂_init and T̂ alike."""
    updates = grid.dynamics_updates
    return DynamicsConfig(
        num_members=3, num_elites=2, hidden=(64, 64), weight_decay=(2.5e-5, 5e-5, 1e-4),
        learning_rate=1e-3, max_updates=updates, check_every=max(1, updates // 8), patience=None,
    )  # fmt: skip


def augmentation_config(grid: FailureGrid, cause: Cause, horizon: int) -> AugmentationConfig:
    """``horizon`` is as long as the real sequences of the world."""
    return AugmentationConfig(
        ratio=grid.high_ratio if cause.loose else grid.ratio, horizon=horizon,
        acceptance="all" if cause.loose else "kl",
    )  # fmt: skip


def resolved(grid: FailureGrid) -> dict[str, Any]:
    """Every cause and every setting that a run uses, for its identity."""
    causes = {
        name: {
            **asdict(cause),
            "diffusion": asdict(diffusion_config(grid, cause)),
            "augmentation": asdict(augmentation_config(grid, cause, grid.ahead)),
        }
        for name, cause in CAUSES.items()
    }
    return {
        "causes": causes, "denoiser": asdict(NETWORK), "guidance": asdict(GUIDANCE),
        "dynamics": asdict(dynamics_config(grid)),
        "online": asdict(worlds.online_config(grid.env_steps)),
    }  # fmt: skip


class Pipeline:
    """UEPO's offline half on one world, with one cause; each part is made when asked for.

    ``like``, if there is one, has the same policy and T̂_init.
    """

    def __init__(
        self, world: World, cause: Cause, seed: int, grid: FailureGrid,
        like: Pipeline | None = None,
    ) -> None:  # fmt: skip
        self.world, self.cause, self.seed, self.grid = world, cause, seed, grid
        self.like = like
        self.model: DiffusionModel = like.model if like else self._train()

    def _train(self) -> DiffusionModel:
        known = self.world.windows
        windows = worlds.Shuffled(known) if self.cause.shuffled else known
        process = diffusion_config(self.grid, self.cause)
        return train_diffusion(process, NETWORK, windows, self.seed, progress=False)

    @cached_property
    def similar(self) -> Tensor:
        """What D holds near the held-out states: (B, k, T, A)."""
        return diagnostics.similar_sequences(self.world.held.past, self.world.windows, SIMILAR)

    def sub_policies(self, n: int, guidance: GuidanceConfig | None = None) -> SubPolicies:
        """n of the model; on the toy a walk is played as it was planned."""
        return SubPolicies.from_seeds(
            self.model, n, self.seed, self.cause.kappa, guidance=guidance,
            action_horizon=worlds.HORIZON if self.world.name == TOY else 4,
        )  # fmt: skip

    @cached_property
    def floor(self) -> float:
        """Of the divergence, from D."""
        return cosine_floor(self.similar.flatten(0, 1))

    @cached_property
    def together(self) -> SubPolicies:
        """The n sub-policies; τ is the median nearest-neighbour div of n logged sequences."""
        n = self.grid.members
        if not self.cause.guided:
            return self.sub_policies(n)
        tau = calibrate_threshold(self.similar[:, :n].transpose(0, 1), 0.5, self.floor)
        return self.sub_policies(n, replace(GUIDANCE, threshold=tau, floor=self.floor))

    @cached_property
    def online(self) -> SubPolicies:
        """Who goes online: the first on the toy, zero noise in the maze, where it arrives more."""
        if self.world.name == TOY:
            return self.sub_policies(1)
        return SubPolicies.zero_noise(self.model)

    @cached_property
    def alone(self) -> DynamicsModel:
        """The model of D alone: T̂_init, unless that is a weak one."""
        return self.like.alone if self.like else self._fit(self.world.modelled)

    @cached_property
    def initial(self) -> DynamicsModel:
        """T̂_init, in which trajectories are imagined."""
        return self._fit(self.world.scarce) if self.cause.loose else self.alone

    @cached_property
    def final(self) -> DynamicsModel:
        """T̂ on D ∪ D_diff, with as many updates."""
        return self._fit(self.world.modelled, self._imagined().transitions)

    def _fit(self, data: Transitions, imagined: Transitions | None = None) -> DynamicsModel:
        return train_dynamics(
            dynamics_config(self.grid), data, self.world.choosing, seed=self.seed, extra=imagined,
            progress=False,
        )  # fmt: skip

    def _imagined(self) -> Synthetic:
        real = self.world.sequences
        config = augmentation_config(self.grid, self.cause, real.future.shape[1])
        reference = reference_costs(self.initial, real.past, real.actions, real.future, config)
        known = self.world.windows
        starts = known.batch(torch.linspace(0, len(known) - 1, STARTS).long()).past
        return synthesise(
            self.together, self.initial, starts, self.world.terminated, reference, config,
            torch.Generator().manual_seed(self.seed), dataset_size=len(self.world.modelled),
            progress=False,
        )  # fmt: skip

    def errors(self, model: DynamicsModel) -> Tensor:
        """Squared error of each held-out real transition, in standardised units: (N,)."""
        test = self.world.testing
        reached, _ = model.predict(test.states, test.actions)
        return (reached - test.next_states).square().mean(-1)

    @cached_property
    def met(self) -> Tensor:
        """The first states online: walks (B, L, S), in the maze one of every step that was made."""
        walks = self.world.explore(self.online, self.seed)
        return walks[:, : worlds.MET] if self.world.name == TOY else walks

    def findings(self) -> list[Finding]:
        """What each diagnostic says of this run."""
        world, past = self.world, self.world.held.past
        found = [
            diagnostics.collapse(self.together.plan_shared(past), self.similar, self.floor),
            diagnostics.far_start(
                self.met.flatten(0, 1), world.transitions.states, world.testing.states
            ),
            diagnostics.implausible(
                self.sub_policies(DRAWS).plan_shared(past), world.held.actions, self.similar
            ),
        ]  # fmt: skip
        if world.name == MAZE:
            found.append(diagnostics.worse_model(self.errors(self.alone), self.errors(self.final)))
        return found
