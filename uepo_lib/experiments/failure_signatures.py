"""E8: four failures of UEPO, each provoked through its named cause, and what sees them coming.

A healthy run makes a diffusion policy, n guided sub-policies (τ of D), T̂_init, a filtered D_diff
of twice the size, T̂ on both, and goes online where D began. A provoked run changes the cause alone.
Every run is read by all diagnostics (``diagnostics.py``), so that it is also seen where they fire
though another failure was provoked. The toy's exact, linear dynamics are no test of T̂: what is left
there to be wrong about is rounding, and T̂ is judged in the maze only.

**Expected** before the final runs. *Collapse* and *far start* are told from healthy runs without
error, by a factor of three or more: the distances that they measure are what the cause changes. So
are the plans of an undertrained policy; shuffled states are harder, as each plan is one that was
logged somewhere. *T̂ worse* is the weakest: imagined steps change a model little. Undertraining
also fires other diagnostics, since everything is built on the policy. On seeds 0 to 2, while the
causes were settled, ratio 8 without a filter from a good T̂_init moved T̂'s error by no more than
seeds do, and T̂_init was made a weak one there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from uepo_lib import (
    augmentation,
    chain,
    datasets,
    denoisers,
    diagnostics,
    diffusion,
    divergence,
    dynamics,
    environments,
    ppo,
    rollouts,
    schedules,
    slices,
    subpolicies,
)
from uepo_lib.augmentation import AugmentationConfig, Synthetic, reference_costs, synthesise
from uepo_lib.coverage import coverage
from uepo_lib.datasets import Transitions
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diagnostics import COLLAPSE, FAR_START, IMPLAUSIBLE, WORSE_MODEL, Finding
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel, train_diffusion
from uepo_lib.divergence import GuidanceConfig, calibrate_threshold, cosine_floor
from uepo_lib.dynamics import DynamicsConfig, DynamicsModel
from uepo_lib.dynamics_training import train_dynamics
from uepo_lib.errors import check, unknown
from uepo_lib.experiments import failure_worlds as worlds
from uepo_lib.experiments.failure_worlds import MAZE, TOY, World
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study
from uepo_lib.subpolicies import SubPolicies

REVISION = 1
TASK = "maze-routes"
SETTINGS = (TOY, MAZE)
SIMILAR = 32
"""Logged sequences that a plan is compared with."""
DRAWS = 16
"""Sub-policies whose plans are tested for plausibility: noises, so as not to judge a few."""
STARTS = 1_000
"""States of D that imagined trajectories start from."""
LIMIT = 3.0
"""A plan within this many standard deviations of a mode is in it, as in notebook 03."""
AT_DOOR = 0.3
"""A walk that ends this near a door has reached it."""
MODULES = (
    datasets, slices, schedules, denoisers, diffusion, divergence, subpolicies, dynamics,
    rollouts, augmentation, environments, chain, ppo, diagnostics,
)  # fmt: skip


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


GRIDS = {
    "smoke": FailureGrid((0, 5), 256, 6, 2, 20, 2, 20, 4, 32, 8, env_steps=512),
    "laptop": FailureGrid(),
    "full": FailureGrid(),
    "paper": FailureGrid(),
}
"""The thresholds belong to one size, so larger profiles repeat it."""


def grid_of(profile: str) -> FailureGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    if profile not in GRIDS:
        raise unknown("profile", profile, GRIDS)
    return GRIDS[profile]


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
        grid, cause = self.grid, self.cause
        process = DiffusionConfig(
            num_updates=grid.few_updates if cause.undertrained else grid.updates,
            batch_size=128, warmup=50, lr=2e-3, ema_decay=0.98,
        )  # fmt: skip
        network = DenoiserConfig(
            backbone="mlp", horizon=worlds.HORIZON, obs_horizon=1, d_model=32, hidden=(128, 128)
        )
        windows = worlds.Shuffled(self.world.windows) if cause.shuffled else self.world.windows
        return train_diffusion(process, network, windows, self.seed, progress=False)

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
        rule = GuidanceConfig(tau, floor=self.floor, eta_schedule="constant")
        return self.sub_policies(n, rule)

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
        updates = self.grid.dynamics_updates
        config = DynamicsConfig(
            num_members=3, num_elites=2, hidden=(64, 64), weight_decay=(2.5e-5, 5e-5, 1e-4),
            learning_rate=1e-3, max_updates=updates, check_every=max(1, updates // 8),
            patience=None,
        )  # fmt: skip
        return train_dynamics(
            config, data, self.world.choosing, seed=self.seed, extra=imagined, progress=False
        )

    def _imagined(self) -> Synthetic:
        grid, real, loose = self.grid, self.world.sequences, self.cause.loose
        config = AugmentationConfig(
            ratio=grid.high_ratio if loose else grid.ratio, horizon=real.future.shape[1],
            acceptance="all" if loose else "kl",
        )  # fmt: skip
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

    def findings(self) -> list[Finding]:
        """What each diagnostic says of this run."""
        world, past = self.world, self.world.held.past
        met = world.explore(self.online, self.seed)[:, : worlds.MET if world.name == TOY else None]
        found = [
            diagnostics.collapse(self.together.plan_shared(past), self.similar, self.floor),
            diagnostics.far_start(
                met.flatten(0, 1), world.transitions.states, world.testing.states
            ),
            diagnostics.implausible(
                self.sub_policies(DRAWS).plan_shared(past), world.held.actions, self.similar
            ),
        ]  # fmt: skip
        if world.name == MAZE:
            found.append(diagnostics.worse_model(self.errors(self.alone), self.errors(self.final)))
        return found


# -- one seed


def measure(
    seed: int, profile: str, grid: FailureGrid | None = None
) -> Product[dict[str, pd.DataFrame]]:
    """Every cause in both settings, as three tables.

    ``findings``: seed, setting, cause, signature, value. ``outcomes``, what the failure came to:
    seed, setting, cause, outcome, value. ``pictures``: seed, panel, cause, line, x, y.
    """
    grid = grid or grid_of(profile)
    study = Study(TASK, seed, profile, progress=False)

    def produce(run: Run) -> None:
        first: dict[tuple[Any, ...], Pipeline] = {}
        for setting, (name, cause) in product(SETTINGS, CAUSES.items()):
            if cause.loose and setting == TOY:
                continue
            key = (setting, *cause.policy_of(setting))
            world = _world(setting, study, grid, cause.elsewhere)
            made = Pipeline(world, cause, seed, grid, first.get(key))
            first.setdefault(key, made)
            about = {"seed": seed, "setting": setting, "cause": name}
            for found in made.findings():
                run.table("findings").append(
                    {**about, "signature": found.name, "value": found.value}
                )
            look = _on_toy if setting == TOY else _in_maze
            outcomes, pictures = look(made, name, study)
            for outcome, value in outcomes.items():
                run.table("outcomes").append({**about, "outcome": outcome, "value": value})
            for row in pictures:
                run.table("pictures").append({"seed": seed, "cause": name, **row})

    def read(run: Run) -> dict[str, pd.DataFrame]:
        return {name: run.table(name).frame() for name in ("findings", "outcomes", "pictures")}

    config = {"failure": REVISION, "grid": {**asdict(grid), "seeds": None}}
    return study.stage("failure", config, produce, read, MODULES, expect="a minute")


def _world(setting: str, study: Study, grid: FailureGrid, elsewhere: bool) -> World:
    if setting == TOY:
        return worlds.toy_world(study.seed, grid.walks, grid.probe, elsewhere)
    return worlds.maze_world(
        study.dataset, study.seed, grid.episodes, grid.few, grid.probe, grid.ahead, elsewhere
    )


Rows = list[dict[str, Any]]


def _on_toy(made: Pipeline, name: str, study: Study) -> tuple[dict[str, float], Rows]:
    """Doors reached by the n, plans in no mode, and walks that end at no door; walks to draw."""
    toy = worlds.four_doors(study.seed, made.grid.walks)
    states = made.world.held.past[:, -1]
    plans = made.together.plan_shared(made.world.held.past)
    single = made.sub_policies(DRAWS).plan_shared(made.world.held.past)
    doors = toy.headings(plans, states, LIMIT)
    ends = made.world.explore(made.online, study.seed)[:, -1]
    missed = torch.cdist(ends, toy.doors).amin(-1) > AT_DOOR
    outcomes = {
        "doors reached": coverage(doors, toy.num_modes),
        "plans at no door": float((toy.headings(single, states, LIMIT) < 0).float().mean()),
        "walks that miss": float(missed.float().mean()),
    }
    drawn = {COLLAPSE: plans[:, :1], IMPLAUSIBLE: single[:, :1]}
    rows: Rows = []
    for panel, actions in drawn.items():
        for line, walk in enumerate(toy.walk(states[:1], actions)[:, 0].tolist()):
            rows += [{"panel": panel, "line": line, "x": x, "y": y} for x, y in walk]
    return outcomes, rows


def _in_maze(made: Pipeline, name: str, study: Study) -> tuple[dict[str, float], Rows]:
    """Arrivals while PPO learns, where that is asked; errors of T̂_init and T̂ to draw."""
    rows: Rows = []
    if name in (HEALTHY, "weak T̂_init, no filter"):
        levels = torch.linspace(0.01, 0.99, 50)
        for line, model in enumerate((made.alone, made.final)):
            errors = made.errors(model).sqrt().quantile(levels).tolist()
            rows += [
                {"panel": WORSE_MODEL, "line": line, "x": x, "y": y}
                for x, y in zip(levels.tolist(), errors, strict=True)
            ]
    if made.cause.elsewhere or name == HEALTHY:
        curve = worlds.fine_tune(study.dataset, made.online, made.grid.env_steps, study.seed)
        rows += [
            {"panel": FAR_START, "line": study.seed, "x": c.env_steps, "y": c.arrivals}
            for c in curve
        ]
        moved = max(c.kl for c in curve)
        return {"arrivals": curve[-1].arrivals, "largest KL of an update": moved}, rows
    return {}, rows


def run(profile: str, grid: FailureGrid | None = None) -> tuple[dict[str, pd.DataFrame], list[Run]]:
    """Every seed of the grid: the three tables, and the runs that they come from."""
    grid = grid or grid_of(profile)
    products = [measure(seed, profile, grid) for seed in grid.seeds]
    names = products[0].value
    return {
        name: pd.concat([p.value[name] for p in products], ignore_index=True) for name in names
    }, [p.run for p in products]
