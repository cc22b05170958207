r"""E2: does the error of T̂ depend on ε, on where transitions come from, and on how many are added?

For each seed T̂_init is fitted to a slice of D, a pool of trajectories is generated once for each
source of transitions, and every ε takes its D_diff from that pool. Each cell then fits T̂ to the
slice and its D_diff with the same number of gradient steps as T̂_init, and is tested on real
transitions by which nothing was chosen (the paper's contribution 3; choices A6 to A8).

**Expected** before any of it was computed: trajectories in T̂_init add no information, so inside the
support the error hardly depends on ε and is no smaller than T̂_init's; real transitions may help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from uepo_lib import augmentation, datasets, dynamics, pools, profiles, rollouts
from uepo_lib.datasets import Batch, Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check, unknown
from uepo_lib.pools import Choice, Pool
from uepo_lib.runs import Run
from uepo_lib.slices import SlicedStudy
from uepo_lib.stages import Product, Study, load_data

REVISION = 2

TASK, ELSEWHERE = "hopper-medium", "hopper-expert"
INSIDE, OUTSIDE = "held-out medium", "expert (out of distribution)"


@dataclass(frozen=True)
class EpsilonGrid:
    """What E2 varies and how much it spends; one for each profile in :data:`GRIDS`.

    ``size`` real transitions are learnt from. |D_diff| is at most ``ratio`` times that; the pool
    holds ``attempts`` times the largest. ``controls`` are the ε whose volume is also filled with
    trajectories drawn at random; ``unfiltered`` adds the cell that refuses nothing. Every model
    makes ``epochs`` passes' worth of updates over the largest D ∪ D_diff.
    """

    size: int
    epochs: float
    hidden: tuple[int, ...]
    sequences: int
    epsilons: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2)
    sources: tuple[str, ...] = ("model", "simulator")
    ratios: tuple[float, ...] = (1.0,)
    controls: tuple[float, ...] = (0.01, 0.05)
    attempts: float = 2.4
    ahead: int = 10
    unfiltered: bool = True

    def __post_init__(self) -> None:
        for name in ("size", "epochs", "sequences", "ahead"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.attempts >= 1, "attempts", self.attempts, "≥ 1")
        for name in ("epsilons", "ratios"):
            values = getattr(self, name)
            valid = len(values) > 0 and min(values) > 0 and len(set(values)) == len(values)
            check(valid, name, values, "different positive numbers, at least one")
        known = set(self.controls) <= set(self.epsilons)
        check(known, "controls", self.controls, f"some of epsilons={self.epsilons}")
        check(len(self.sources) > 0, "sources", self.sources, "at least one")
        for source in self.sources:
            if source not in ("model", "simulator"):
                raise unknown("sources", source, ("model", "simulator"))

    def updates(self, batch_size: int) -> int:
        """Gradient steps of every model."""
        rows = self.size * (1 + max(self.ratios))
        return max(1, int(self.epochs * rows / batch_size))

    def choices(self) -> Iterator[tuple[float, Choice]]:
        """The D_diff of each cell with its ratio: every ε, none, and the controls."""
        for ratio in self.ratios:
            volume = int(ratio * self.size)
            for epsilon in (*self.epsilons, None) if self.unfiltered else self.epsilons:
                yield ratio, Choice(volume, epsilon)
            for epsilon in self.controls:
                yield ratio, Choice(volume, epsilon, "random")


GRIDS = {
    "smoke": EpsilonGrid(size=1_000, epochs=2, hidden=(32, 32), sequences=128),
    "laptop": EpsilonGrid(size=20_000, epochs=5, hidden=(128,) * 4, sequences=2_048),
    "full": EpsilonGrid(
        size=100_000, epochs=20, hidden=(200,) * 4, sequences=2_048, ratios=(1.0, 2.0),
        controls=(0.01, 0.05, 0.1, 0.2),
    ),
    "paper": EpsilonGrid(
        size=900_000, epochs=50, hidden=(200,) * 4, sequences=2_048, ratios=(1.0, 2.0, 3.0),
        controls=(0.01, 0.05, 0.1, 0.2),
    ),
}  # fmt: skip


def grid_of(profile: str) -> EpsilonGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


# -- what is computed


@dataclass(frozen=True)
class Cells:
    """One seed's models and pools, none computed before it is asked for."""

    study: SlicedStudy
    initial: Product[DynamicsModel]
    pools: dict[str, Product[Pool]]
    cells: dict[tuple[str, float, Choice], Product[DynamicsModel]]


def cells(seed: int, profile: str, grid: EpsilonGrid | None = None) -> Cells:
    """T̂_init on the slice, a pool a source, and T̂ for every choice from it.

    The policy is the shared one, learnt from all of D: what is scarce is the dynamics' data.
    """
    grid = grid or grid_of(profile)
    whole = Study(TASK, seed, profile, progress=False)
    fit = {
        "hidden": grid.hidden,
        "weight_decay": dynamics.decay_for(grid.hidden),
        "max_updates": grid.updates(whole.config("dynamics").batch_size),
    }
    study = SlicedStudy(TASK, seed, grid.size, profile, {"dynamics": fit}, progress=False)
    policy = whole.sub_policies(whole.diffusion_policy(), 1.0, guided=True)
    initial = study.dynamics()
    ratio = grid.attempts * max(grid.ratios) * grid.size / len(study.dataset)
    found = {
        source: _pool(
            study.synthesise(policy, initial, acceptance="all", transitions=source, ratio=ratio)
        )
        for source in grid.sources
    }
    fitted = {
        (source, ratio, choice): study.dynamics(_choose(study, found[source], choice))
        for source in grid.sources
        for ratio, choice in grid.choices()
    }
    return Cells(study, initial, found, fitted)


def sizes(profile: str, grid: EpsilonGrid) -> dict[str, str]:
    """What the models of ``grid`` learn from and for how long, as their runs are configured."""
    study = cells(profiles.budget(profile).seeds[0], profile, grid).study
    used = study.config("dynamics")
    return {
        "real transitions": f"{study.size:,}",
        "|D_diff| / |D|": ", ".join(f"{ratio:g}" for ratio in grid.ratios),
        "gradient steps of every model": f"{used.max_updates:,}",
        "network": " × ".join(map(str, used.hidden)),
    }


def _pool(synthetic: Product[Transitions]) -> Product[Pool]:
    return Product(
        synthetic.keys,
        lambda: synthetic.runs,
        lambda: Pool.of(synthetic.value, **synthetic.run.tensors("trajectories")),
    )


def _choose(study: Study, pool: Product[Pool], choice: Choice) -> Product[Transitions]:
    def take(found: Pool) -> Transitions:
        return found.transitions[found.rows(choice, study.generator("random acceptance"))]

    return pool.derive(take, {**asdict(choice), "pools": pools.REVISION})


# -- what is measured


def measure(seed: int, profile: str, grid: EpsilonGrid | None = None) -> Product[pd.DataFrame]:
    """One seed's table, a row a cell, test set and number of steps ahead.

    Columns: seed, source ("none" for T̂_init), ratio, epsilon (NaN: no filter), acceptance, passing
    (the share of the pool's trajectories that ε lets pass), volume (transitions in D_diff), wanted,
    simulator_steps and simulator_resets (of the whole pool), data, step, error (mean square in
    standardised units).
    """
    grid = grid or grid_of(profile)
    found = cells(seed, profile, grid)
    study = found.study
    elsewhere = load_data(ELSEWHERE, profile, False).restandardised(study.dataset.normaliser)

    def produce(run: Run) -> None:
        tests = {
            INSIDE: rollouts.logged_sequences(
                study.dataset, study.testing, grid.sequences, grid.ahead
            ),
            OUTSIDE: rollouts.logged_sequences(elsewhere, None, grid.sequences, grid.ahead),
        }
        for row in _rows(found, tests):
            run.table("cells").append({"seed": seed, **row})

    everything: tuple[Product[Any], ...] = (
        found.initial, *found.pools.values(), *found.cells.values()
    )  # fmt: skip
    config = {
        "sequences": grid.sequences, "ahead": grid.ahead, "elsewhere": asdict(elsewhere.key)
    }  # fmt: skip
    modules = (datasets, dynamics, augmentation, rollouts)
    return study.stage(
        "epsilon", {**config, "epsilon": REVISION}, produce,
        lambda run: run.table("cells").frame(), modules, everything, "seconds",
    )  # fmt: skip


def _rows(found: Cells, tests: dict[str, Batch]) -> Iterator[dict[str, Any]]:
    size = found.study.size
    nothing = {
        "source": "none", "ratio": 0.0, "epsilon": None, "acceptance": "none", "passing": 0.0,
        "volume": 0, "wanted": 0, "simulator_steps": 0, "simulator_resets": 0,
    }  # fmt: skip
    yield from _errors(nothing, found.initial.value, tests)
    for (source, ratio, choice), product in found.cells.items():
        pool, summary = found.pools[source].value, found.pools[source].run.json("summary")
        taken = pool.rows(choice, found.study.generator("random acceptance"))
        cell = {
            "source": source, "ratio": ratio, "epsilon": choice.epsilon,
            "acceptance": choice.acceptance, "passing": pool.share_below(choice.epsilon),
            "volume": len(taken), "wanted": int(ratio * size),
            "simulator_steps": summary["simulator_steps"],
            "simulator_resets": summary["simulator_resets"],
        }  # fmt: skip
        yield from _errors(cell, product.value, tests)


def _errors(
    cell: dict[str, Any], model: DynamicsModel, tests: dict[str, Batch]
) -> Iterator[dict[str, Any]]:
    for data, batch in tests.items():
        errors = rollouts.open_loop_errors(model, batch.past, batch.actions, batch.future).model
        for step, error in enumerate(errors.tolist(), 1):
            yield {**cell, "data": data, "step": step, "error": error}


def run(profile: str, grid: EpsilonGrid | None = None) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: the tidy table, and the runs it comes from."""
    products = [measure(seed, profile, grid) for seed in profiles.budget(profile).seeds]
    return pd.concat([p.value for p in products], ignore_index=True), [p.run for p in products]
