"""E1's sets of policies: n seeds of one model in every way to use them, and n models beside.

A set is played and compared as a whole (``multi_seed.py``); here is only what it consists of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from uepo_lib import datasets, mixture_density, profiles
from uepo_lib.errors import check
from uepo_lib.guided_sets import STRONG
from uepo_lib.mixture_density import MixtureConfig, MixtureDensity, MixturePolicy, train_mixture
from uepo_lib.policies import Policy, Together
from uepo_lib.runs import Run
from uepo_lib.stages import ACTION_HORIZON, Product, Study
from uepo_lib.subpolicies import SubPolicies, equal_power_controls

ZERO, FRESH, GUIDED, UNGATED = "κ = 0", "fresh noise", "guided", "ungated noise"
NETWORKS, ONE_NOISE, MIXTURE, GAUSSIANS = (
    "n models, κ = 0", "n models, one noise", "mixture density", "n Gaussians",
)  # fmt: skip
RIVALS = (NETWORKS, ONE_NOISE, MIXTURE, GAUSSIANS)
"""What stands beside one diffusion model with n noises."""


def fixed(kappa: float) -> str:
    """The name of a set of fixed noises."""
    return f"κ = {kappa:g}"


@dataclass(frozen=True)
class SeedGrid:
    """What E1 varies; one for each profile in :data:`GRIDS`.

    ``rivals`` is the task on which n models stand beside one, each trained for ``rival_share`` of
    the one model's updates: at 1 / n they cost together what it costs. Guided sets pay n plans for
    one, so they play ``guided_episodes``, the first of the others'. What is done is compared from
    ``starts`` logged states for ``horizon`` steps.
    """

    tasks: tuple[str, ...] = ("hopper-medium-replay", "maze-routes")
    rivals: str = "maze-routes"
    n: int = 10
    sizes: tuple[int, ...] = (1, 2, 5, 10)
    kappas: tuple[float, ...] = (0.25, 0.5, 1.0)
    episodes: int = 16
    guided_episodes: int = 4
    starts: int = 32
    horizon: int = 16
    rival_share: float = 0.1
    mixture: MixtureConfig = field(
        default_factory=lambda: MixtureConfig(hidden=(256, 256), num_updates=3_000)
    )

    def __post_init__(self) -> None:
        for name in ("episodes", "guided_episodes"):
            check(getattr(self, name) >= 2, name, getattr(self, name), "at least 2, for two halves")
        check(self.n >= 3, "n", self.n, "at least 3, for pairs to rank")
        valid = len(self.sizes) > 0 and min(self.sizes) >= 1 and max(self.sizes) == self.n
        check(valid, "sizes", self.sizes, f"positive, the largest n={self.n}")
        valid = min(self.kappas) > 0 and max(self.kappas) == 1 and len(set(self.kappas)) > 1
        check(valid, "kappas", self.kappas, "several, positive, the largest 1")
        check(0 < self.rival_share <= 1, "rival_share", self.rival_share, "in (0, 1]")
        check(self.rivals in self.tasks, "rivals", self.rivals, f"one of tasks={self.tasks}")


ONE_MODE = ("hopper-medium", "hopper-medium-noise-0", "hopper-medium-noise-10")
"""The medium policy's data: with its own noise on the actions, with none, and with less."""
_LARGE = SeedGrid(
    (*SeedGrid().tasks, *ONE_MODE), episodes=50, guided_episodes=20,
    starts=64, rival_share=1.0,
)  # fmt: skip
GRIDS = {
    "smoke": SeedGrid(
        ("hopper-medium", "maze-routes"), n=3, sizes=(1, 3), kappas=(0.5, 1.0), episodes=2,
        guided_episodes=2, starts=4, horizon=8, rival_share=0.5,
        mixture=MixtureConfig(num_updates=30),
    ),
    "laptop": SeedGrid(),
    "full": _LARGE,
    "paper": _LARGE,
}  # fmt: skip


def grid_of(profile: str) -> SeedGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


@dataclass(frozen=True)
class Set:
    """Policies side by side, how many episodes each plays, and whether it draws noise there."""

    policy: Product[Any]
    episodes: int
    sampled: bool = False


def of_one_model(study: Study, grid: SeedGrid) -> dict[str, Set]:
    """Name -> set: zero noise, fixed noises at each κ, fresh ones, guided ones and their control.

    Fresh noise is the null: n policies equal in distribution, each with a generator of its own.
    "guided" is at the strongest η of notebook 04, "ungated noise" of the same power wherever the
    plans are.
    """
    model = study.diffusion_policy()
    found = {ZERO: Set(study.zero_noise(model), grid.episodes)}
    for kappa in grid.kappas:
        together = study.sub_policies(model, kappa, n=grid.n)
        found[fixed(kappa)] = Set(together, grid.episodes)
    found[FRESH] = Set(study.fresh(model, grid.n), grid.episodes, sampled=True)
    guided = study.sub_policies(
        model, 1.0, n=grid.n, guided=True, eta=STRONG.eta, eta_schedule=STRONG.schedule
    )
    past = study.starts(256, "calibration")
    ungated = guided.derive(
        lambda policies: equal_power_controls(policies, past)["ungated"], {"control": "ungated"}
    )
    found[GUIDED] = Set(guided, grid.guided_episodes)
    found[UNGATED] = Set(ungated, grid.guided_episodes)
    return found


def rivals(grid: SeedGrid, seed: int, profile: str) -> dict[str, Set]:
    """Name -> set of n networks, and one mixture density, on ``grid.rivals``."""
    models = [network(grid, i, profile).diffusion_policy() for i in range(grid.n)]
    clones = [network(grid, i, profile).clone() for i in range(grid.n)]
    study = Study(grid.rivals, seed, profile, progress=False)
    zero = {"kappa": 0.0, "action_horizon": ACTION_HORIZON}
    one = {"kappa": 1.0, "action_horizon": ACTION_HORIZON, "noise": seed}

    def noisy(model: Any) -> SubPolicies:
        return SubPolicies.from_seeds(model, 1, seed, action_horizon=ACTION_HORIZON)

    def still(model: Any) -> SubPolicies:
        return SubPolicies.zero_noise(model, action_horizon=ACTION_HORIZON)

    found = {
        NETWORKS: together([m.derive(still, zero) for m in models]),
        ONE_NOISE: together([m.derive(noisy, one) for m in models]),
        MIXTURE: mixture(study, grid),
        GAUSSIANS: together(clones),
    }
    return {name: Set(policy, grid.episodes) for name, policy in found.items()}


def network(grid: SeedGrid, i: int, profile: str) -> Study:
    """The study that trains network ``i`` of the n, for ``grid.rival_share`` of the updates."""
    plain = Study(grid.rivals, i, profile, progress=False)
    shorter = {
        name: {"num_updates": max(1, round(grid.rival_share * plain.config(name).num_updates))}
        for name in ("diffusion", "clone")
    }
    whole = grid.rival_share == 1
    return plain if whole else Study(grid.rivals, i, profile, shorter, progress=False)


def together(members: Sequence[Product[Any]]) -> Product[Policy]:
    """Policies of several runs as one set."""
    return Product(
        tuple(key for member in members for key in member.keys),
        lambda: tuple(run for member in members for run in member.runs),
        lambda: Together([member.value for member in members]),
        {"together": [dict(member.config) for member in members]},
    )


def mixture(study: Study, grid: SeedGrid) -> Product[Policy]:
    """n quantiles of one mixture density: each keeps to what its quantile chooses."""
    config, windows = grid.mixture, study.windows
    shapes: tuple[Any, Any] = (
        (study.obs_horizon, study.task.robot.state_dim),
        (windows.horizon, study.task.robot.action_dim),
    )

    def produce(run: Run) -> None:
        network = train_mixture(config, windows, seed=study.seed, recorder=run, progress=False)
        run.save_tensors(network.state_dict())

    def read(run: Run) -> MixtureDensity:
        network = MixtureDensity(config, *shapes)
        network.load_state_dict(run.tensors())
        return network.requires_grad_(False)

    modules = (datasets, mixture_density)
    trained = study.stage("mixture", asdict(config), produce, read, modules, expect="a minute")

    def members(found: MixtureDensity) -> Policy:
        quantiles = torch.rand(grid.n, generator=study.generator("quantiles of a mixture"))
        return MixturePolicy(found, quantiles, study.obs_horizon, ACTION_HORIZON)

    return trained.derive(members, {"members": grid.n, "action_horizon": ACTION_HORIZON})
