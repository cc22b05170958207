"""E2, continued: how much D_diff for how much D, at one ε?

The cells of :mod:`epsilon` at the paper's ε and without a filter, for several |D_diff| / |D|, and
as many transitions as the filter takes drawn at random. Updates and pool follow from the largest
ratio, so this grid has a T̂_init and pools of its own; all of its models make equally many gradient
steps (A8).

**Expected** before any of it was computed: in T̂_init's own transitions more is never better, since
each takes the place of a real row; real transitions help the more the more there are, and the
filter, which refuses the surprising ones, helps less than chance.
"""

from __future__ import annotations

import pandas as pd

from uepo_lib import profiles
from uepo_lib.experiments import epsilon
from uepo_lib.experiments.epsilon import EpsilonGrid
from uepo_lib.runs import Run
from uepo_lib.stages import Product

EPSILON = 0.05
"""The paper's."""


def _grid(size: int, epochs: float, hidden: tuple[int, ...], sequences: int, *ratios: float,
          attempts: float = 2.4) -> EpsilonGrid:  # fmt: skip
    return EpsilonGrid(
        size, epochs, hidden, sequences, epsilons=(EPSILON,), controls=(EPSILON,), ratios=ratios,
        attempts=attempts,
    )  # fmt: skip


GRIDS = {
    "smoke": _grid(500, 2, (32, 32), 128, 0.5, 1.0, 3.0, attempts=1.5),
    "laptop": _grid(8_000, 5, (64,) * 4, 2_048, 0.25, 0.5, 1.0, 2.0, 3.0),
    "full": _grid(100_000, 20, (200,) * 4, 2_048, 0.25, 0.5, 1.0, 2.0, 3.0),
    "paper": _grid(300_000, 50, (200,) * 4, 2_048, 0.25, 0.5, 1.0, 2.0, 3.0),
}


def grid_of(profile: str) -> EpsilonGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


def measure_ratios(seed: int, profile: str) -> Product[pd.DataFrame]:
    """One seed's table; columns as in :func:`epsilon.measure`."""
    return epsilon.measure(seed, profile, grid_of(profile))


def run(profile: str) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: the tidy table, and the runs it comes from."""
    products = [measure_ratios(seed, profile) for seed in profiles.budget(profile).seeds]
    return pd.concat([p.value for p in products], ignore_index=True), [p.run for p in products]
