"""E5: how good must T̂_init be? (Open question 2.)

T̂_init judges D_diff and, offline, makes it. Four of them, of 1 %, 10 % and all of what may be
learnt from, and one that is precise and wrong: it learnt from all of it, logged on a robot whose
motors gave 0.8 of today's torque (a wrong motor gain is what wear and a changed battery do; its
alternative, next states shifted along a fixed direction, has no physical cause). What T̂ itself
learns is the same for all: D, a tenth, and |D_diff| = 2 |D|; so T̂_init alone differs. Beside it
stands T̂ on T̂_init's *own* slice and D_diff. All models make equally many gradient steps.

**Expected** before any of it was computed: transitions of a poor T̂_init harm more than those of a
good one, and no D_diff from a model beats D alone. A filter keeps real transitions where T̂_init is
right, so it protects the bias; but D does not have it, so it shrinks from round to round.
Notebook 14 says what was added with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from uepo_lib import (
    augmentation,
    datasets,
    dynamics,
    environments,
    miscalibration,
    pools,
    profiles,
    robots,
    rollouts,
)
from uepo_lib.augmentation import AugmentationConfig
from uepo_lib.datasets import Batch, Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.experiments.discarded import mean_by_trajectory
from uepo_lib.miscalibration import Probe, WeakMotors, probe
from uepo_lib.pools import Choice, Pool
from uepo_lib.runs import Run
from uepo_lib.slices import SlicedStudy
from uepo_lib.stages import Product, Study

REVISION = 2
TASK = "hopper-medium"
DATA, WHOLE, BIASED = "10 %", "100 %", "biased"
SHARES = {"1 %": 0.01, DATA: 0.1, WHOLE: 1.0}
"""Of the transitions that are not held out. D, which every T̂ learns, is :data:`DATA`."""
EPSILON = 0.05
CHAINS = (("model", "kl"), ("simulator", "kl"), ("simulator", "random"))
"""What is repeated from the biased T̂_init: the source and the choice from it."""


@dataclass(frozen=True)
class InitialGrid:
    """How much E5 spends; one for each profile in :data:`GRIDS`.

    ``gain`` is today's motor gain as the biased T̂_init believes it; 1 is right.
    """

    updates: int
    hidden: tuple[int, ...]
    sequences: int
    probes: int
    ratio: float = 2.0
    attempts: float = 1.8
    gain: float = 0.8
    rounds: int = 3
    ahead: int = 10

    def __post_init__(self) -> None:
        for name in ("updates", "sequences", "probes", "ratio", "rounds", "ahead"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.attempts >= 1, "attempts", self.attempts, "≥ 1")
        check(0 < self.gain < 1, "gain", self.gain, "between 0 and 1")


GRIDS = {
    "smoke": InitialGrid(25, (32, 32), 128, 64, ratio=1.0, rounds=2),
    "laptop": InitialGrid(600, (64,) * 4, 2_048, 1_024, rounds=2),
    "full": InitialGrid(10_000, (200,) * 4, 2_048, 4_096),
    "paper": InitialGrid(50_000, (200,) * 4, 2_048, 4_096),
}


def grid_of(profile: str) -> InitialGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


class Bench(SlicedStudy):
    """A slice whose pools can be judged anew by another T̂."""

    def judged(self, pool: Pool, model: DynamicsModel, cfg: AugmentationConfig) -> Pool:
        """The pool with the excess that ``model`` would have given its trajectories (A6)."""
        real = self._real_sequences(cfg.horizon)
        reference = augmentation.reference_costs(model, real.past, real.actions, real.future, cfg)
        steps = pool.transitions
        costs = augmentation.step_costs(model, cfg, steps.states, steps.actions, steps.next_states)
        over = reference[pool.lengths.clamp(min=1) - 1]
        return replace(pool, excess=mean_by_trajectory(costs, pool.lengths) - over)


@dataclass(frozen=True)
class Fit:
    """One T̂ with D_diff, and what its D_diff came from."""

    init: str
    real: str
    """"D", or "own": the slice that T̂_init learnt from."""
    source: str
    acceptance: str
    round: int
    judge: Product[DynamicsModel]
    pool: Product[Pool]
    model: Product[DynamicsModel]


@dataclass(frozen=True)
class Cells:
    """One seed's models, none computed before it is asked for."""

    study: Bench
    initial: dict[str, Product[DynamicsModel]]
    fits: list[Fit]
    volume: int


def cells(seed: int, profile: str, grid: InitialGrid | None = None) -> Cells:
    """Every T̂_init, every T̂ from it, and the rounds that begin with the biased one."""
    return _Maker(seed, profile, grid or grid_of(profile)).cells()


class _Maker:
    def __init__(self, seed: int, profile: str, grid: InitialGrid) -> None:
        whole = Study(TASK, seed, profile, progress=False)
        fit = {"hidden": grid.hidden, "max_updates": grid.updates,
               "weight_decay": dynamics.decay_for(grid.hidden)}  # fmt: skip
        known = len(whole.held_out[0])
        sizes = {name: max(1, int(share * known)) for name, share in SHARES.items()}
        rest: tuple[Any, ...] = (profile, {"dynamics": fit}, False)
        self.grid = grid
        self.study = Bench(TASK, seed, sizes[DATA], *rest)
        self.own = {n: SlicedStudy(TASK, seed, size, *rest) for n, size in sizes.items()}
        wrong = WeakMotors(grid.gain, TASK, seed, sizes[WHOLE], *rest)
        self.initial = {n: s.dynamics() for n, s in self.own.items()} | {BIASED: wrong.dynamics()}
        self.policy = whole.sub_policies(whole.diffusion_policy(), 1.0, guided=True)
        self.volume = int(grid.ratio * sizes[DATA])
        self.simulated = self._generate(self.initial[DATA], "simulator")

    def cells(self) -> Cells:
        fits = []
        for init, judge in self.initial.items():
            for source in ("model", "simulator"):
                first = [self._fit(init, "D", source, how, 1, judge) for how in ("kl", "random")]
                fits += first
                if init not in (DATA, BIASED):
                    fits.append(self._fit(init, "own", source, "kl", 1, judge))
                for last in first if init == BIASED else []:
                    fits += self._repeat(last)
        return Cells(self.study, self.initial, fits, self.volume)

    def _repeat(self, last: Fit) -> Iterator[Fit]:
        if (last.source, last.acceptance) not in CHAINS:
            return
        for r in range(2, self.grid.rounds + 1):
            last = self._fit(last.init, last.real, last.source, last.acceptance, r, last.model)
            yield last

    def _fit(
        self, init: str, real: str, source: str, how: str, r: int, judge: Product[DynamicsModel]
    ) -> Fit:
        pool = self._generate(judge, source) if source == "model" else self._judged(judge)
        choice = Choice(self.volume, EPSILON, how)
        study = self.study if real == "D" else self.own[init]
        return Fit(
            init, real, source, how, r, judge, pool, study.dynamics(self._take(pool, choice))
        )

    def _generate(self, model: Product[DynamicsModel], source: str) -> Product[Pool]:
        """As many trajectories from each T̂; those of the simulator do not depend on it."""
        wanted = self.grid.attempts * self.volume
        made = self.study.synthesise(
            self.policy, model, acceptance="all", transitions=source,
            ratio=wanted / len(self.study.dataset),
        )  # fmt: skip
        return Product(
            made.keys, lambda: made.runs,
            lambda: Pool.of(made.value, **made.run.tensors("trajectories")),
        )  # fmt: skip

    def _judged(self, judge: Product[DynamicsModel]) -> Product[Pool]:
        cfg = self.study.config("augmentation", transitions="simulator")
        pool, study = self.simulated, self.study
        return Product(
            (*pool.keys, *judge.keys), lambda: (*judge.runs, *pool.runs),
            lambda: study.judged(pool.value, judge.value, cfg), {"judged": REVISION},
        )  # fmt: skip

    def _take(self, pool: Product[Pool], choice: Choice) -> Product[Transitions]:
        study = self.study

        def take(found: Pool) -> Transitions:
            return found.transitions[found.rows(choice, study.generator("random acceptance"))]

        return pool.derive(take, {**asdict(choice), "pools": pools.REVISION})


# -- what is measured


def measure(seed: int, profile: str, grid: InitialGrid | None = None) -> Product[pd.DataFrame]:
    """One seed's table, a row a model and number of steps ahead (1 and the largest).

    Columns: seed, init, real, source ("none" for T̂_init itself), acceptance, round (0: T̂_init),
    passing, volume, wanted, kept_error and refused_error (the judge's mean squared one-step error
    on trajectories below and above ε; simulator only), step, error (on held-out real transitions,
    standardised units), bias (:meth:`Probe.bias`).
    """
    grid = grid or grid_of(profile)
    found = cells(seed, profile, grid)
    study = found.study

    def produce(run: Run) -> None:
        ruler = probe(study, grid.gain, grid.probes, run)
        test = rollouts.logged_sequences(study.dataset, study.testing, grid.sequences, grid.ahead)
        for row in _rows(found, test, ruler):
            run.table("cells").append({"seed": seed, **row})

    parents: list[Product[Any]] = [*found.initial.values()]
    for fit in found.fits:
        parents += [fit.pool, fit.model]
    config = {key: getattr(grid, key) for key in ("sequences", "probes", "gain", "ahead")}
    modules = (datasets, dynamics, augmentation, rollouts, robots, environments, miscalibration)
    return study.stage(
        "initial_model", {**config, "initial_model": REVISION}, produce,
        lambda run: run.table("cells").frame(), modules, tuple(parents), "seconds",
    )  # fmt: skip


def run(profile: str) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: the tidy table, and the runs it comes from."""
    products = [measure(seed, profile) for seed in profiles.budget(profile).seeds]
    return pd.concat([p.value for p in products], ignore_index=True), [p.run for p in products]


def _rows(found: Cells, test: Batch, ruler: Probe) -> Iterator[dict[str, Any]]:
    nothing = {"source": "none", "acceptance": "none", "round": 0, "passing": 0.0, "volume": 0,
               "wanted": 0, "kept_error": None, "refused_error": None}  # fmt: skip
    for init, product in found.initial.items():
        row = {"init": init, "real": "own", **nothing}
        yield from _errors(row, product.value, test, ruler)
    for fit in found.fits:
        row = {"init": fit.init, "real": fit.real, "source": fit.source,
               "acceptance": fit.acceptance, "round": fit.round, **_taken(found, fit)}  # fmt: skip
        yield from _errors(row, fit.model.value, test, ruler)


def _taken(found: Cells, fit: Fit) -> dict[str, Any]:
    pool = fit.pool.value
    choice = Choice(found.volume, EPSILON, fit.acceptance)
    rows = pool.rows(choice, found.study.generator("random acceptance"))
    row = {"passing": pool.share_below(EPSILON), "volume": len(rows), "wanted": found.volume,
           "kept_error": None, "refused_error": None}  # fmt: skip
    if fit.source == "simulator":
        steps, passing = pool.transitions, (pool.excess < EPSILON) & (pool.lengths > 0)
        guess, _ = fit.judge.value.predict(steps.states, steps.actions)
        error = (guess - steps.next_states).square().mean(-1)
        below = passing.repeat_interleave(pool.lengths)
        row["kept_error"] = float(error[below].mean())
        row["refused_error"] = float(error[~below].mean())
    return row


def _errors(
    row: dict[str, Any], model: DynamicsModel, test: Batch, ruler: Probe
) -> Iterator[dict[str, Any]]:
    errors = rollouts.open_loop_errors(model, test.past, test.actions, test.future).model.tolist()
    bias = ruler.bias(model)
    for step in dict.fromkeys((1, len(errors))):
        yield {**row, "step": step, "error": errors[step - 1], "bias": bias}
