"""All of the method in seconds: a budget below smoke, shared by tests and what they start."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from uepo_lib import ppo, profiles
from uepo_lib.evaluation import AMQConfig
from uepo_lib.experiments import (
    data_need,
    epsilon,
    failure_signatures,
    filming,
    initial_model,
    latency,
    model_selection,
    offline_to_online,
    ratios,
    seed_sets,
    tradeoffs,
)
from uepo_lib.latents import AutoencoderConfig
from uepo_lib.methods.uepo import uepo
from uepo_lib.mixture_density import MixtureConfig
from uepo_lib.stages import Study

TASK = "hopper-medium"
TINY = replace(
    profiles.SMOKE,
    num_transitions=2_000,
    seeds=(0,),
    diffusion_updates=12,
    diffusion_batch=32,
    denoising_steps=5,
    denoiser_channels=(32, 64),
    denoiser_layers=2,
    clone_updates=12,
    clone_batch=32,
    critic_updates=12,
    critic_batch=32,
    critic_polyak=0.2,
    q_hidden=(16, 16),
    v_hidden=(16, 16),
    dynamics_updates=12,
    dynamics_batch=64,
    dynamics_hidden=(16, 16),
    augmentation_ratio=0.2,
    augmentation_horizon=6,
    num_subpolicies=3,
    amq_starts=4,
    amq_horizon=8,
    offline_ppo_updates=6,
    offline_ppo_batch=32,
    offline_ppo_every=3,
    online_env_steps=1_024,
    env_steps_per_update=128,
    evaluation_episodes=2,
    curve_episodes=1,
    curve_points=2,
)
TINY_GRID = epsilon.EpsilonGrid(
    size=200, epochs=4, hidden=(8, 8), sequences=16, epsilons=(0.01, 1e6), controls=(0.01,), ahead=3
)
TINY_RATIOS = replace(
    TINY_GRID, epsilons=(1e6,), controls=(1e6,), ratios=(0.5, 1.0), unfiltered=False
)
TINY_INITIAL = initial_model.InitialGrid(
    8, (8, 8), 16, 16, ratio=0.5, attempts=2.0, rounds=2, ahead=3
)
TINY_LATENCY = latency.LatencyGrid((1,), (1, 2), decisions=2, warm_up=1, delays=(0, 1), episodes=1)
TINY_SEEDS = seed_sets.SeedGrid(
    (TASK,), TASK, n=3, sizes=(1, 2, 3), kappas=(0.5, 1.0), episodes=2, guided_episodes=2, starts=2,
    horizon=4, rival_share=0.5, mixture=MixtureConfig(num_updates=2, hidden=(8,)),
)  # fmt: skip
TINY_DIALS = tradeoffs.DialGrid((0.5, 1.6), (1.0, 2.0), episodes=1, starts=2, horizon=4)
TINY_DATA = data_need.DataGrid((0.5, 1.0), 3, 3, 3, 3, 1, 0.2)

TINY_FAILURES = failure_signatures.FailureGrid((0,), 64, 4, 2, 4, 2, 4, 3, 32, 4, env_steps=64)
TINY_FILM = filming.PixelGrid(2, 2, 20, (1.0,), AutoencoderConfig(2, (2, 2, 2), num_updates=2))


def settle(patch: pytest.MonkeyPatch, results: Path, data: Path) -> None:
    """The profile "tiny", and folders of the test's own, whatever the environment says."""
    patch.setitem(profiles.PROFILES, "tiny", TINY)
    patch.setitem(epsilon.GRIDS, "tiny", TINY_GRID)
    patch.setitem(ratios.GRIDS, "tiny", TINY_RATIOS)
    patch.setitem(initial_model.GRIDS, "tiny", TINY_INITIAL)
    patch.setitem(model_selection.AMQ, "tiny", AMQConfig(2, 4))
    patch.setitem(latency.GRIDS, "tiny", TINY_LATENCY)
    patch.setitem(seed_sets.GRIDS, "tiny", TINY_SEEDS)
    patch.setitem(tradeoffs.GRIDS, "tiny", TINY_DIALS)
    patch.setitem(data_need.GRIDS, "tiny", TINY_DATA)
    patch.setitem(failure_signatures.GRIDS, "tiny", TINY_FAILURES)
    patch.setitem(filming.GRIDS, "tiny", TINY_FILM)
    # what E3 compares is computed by its own tests
    patch.setitem(offline_to_online.COMPARISONS, "tiny", offline_to_online.Comparison(()))
    patch.setenv("UEPO_RESULTS", str(results))
    patch.setenv("MINARI_DATASETS_PATH", str(data))
    patch.setenv("UEPO_PRETRAINED", "0")
    for name in ("UEPO_PROFILE", "UEPO_NOTEBOOK", "UEPO_CHECKPOINT_SECONDS"):
        patch.delenv(name, raising=False)


@contextmanager
def settled(folder: Path) -> Iterator[Path]:
    """:func:`settle` for as long as it is open, one thread, results and data in ``folder``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder / "results", folder / "data")
        yield folder
    torch.set_num_threads(threads)


def tiny(seed: int = 0, overrides: dict[str, dict[str, Any]] | None = None) -> Study:
    """A study at that budget."""
    return Study(TASK, seed, "tiny", overrides, progress=False)


def _slowly(seconds: float) -> None:
    """Make online updates last, for a kill to hit one; the numbers stay."""
    iterate = ppo.PPO.iterate

    def slow(self: ppo.PPO, *arguments: Any) -> Any:
        time.sleep(seconds)
        return iterate(self, *arguments)

    ppo.PPO.iterate = slow  # type: ignore[method-assign]


if __name__ == "__main__":
    profiles.PROFILES["tiny"] = TINY
    _slowly(float(sys.argv[1]))
    _ = uepo(tiny()).online_dynamics.run
