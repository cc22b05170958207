"""Notebook 03: which sets of policies reach the toy's modes, and at what price.

All learn from the same walks: diffusion models, Gaussian clones, mixture-density networks. A *kind*
is a way to make a set of n policies of them. Tables, then figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.cloning import CloneConfig, train_clone
from uepo_lib.coverage import coverage, kept, mode_entropy, null_coverage, persistence
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, DiffusionModel, train_diffusion
from uepo_lib.divergence import (
    GuidanceConfig,
    calibrate_threshold,
    cosine_floor,
    nearest_neighbour,
)
from uepo_lib.mixture_density import MixtureConfig, MixtureDensity, train_mixture
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.statistics import mean_interval
from uepo_lib.subpolicies import SubPolicies, seeded_noise
from uepo_lib.toys import Doors

Planner = Callable[[Tensor, torch.Generator], Tensor]
"""n policies, each in its own states: (n, B, T_o, S), a generator -> (n, B, T, A)."""

FEW, MANY = 5, 50
"""Reverse steps: the library's default, and the longest chain."""
LIMIT = 3.0
"""A plan within this many standard deviations (RMS) of a mode is in it; a trained network is not
as near as the logged walks."""
EXECUTED = 2
"""T_a on the toy: replanning after it finds the point where training has seen it start."""
REPLANNED = 4
"""The n at which replanning is tried."""
ETA = 0.5

STYLES: dict[str, tuple[str, str]] = {
    "one model, fixed noise": ("UEPO", "-"),
    "one model, fresh noise": ("UEPO", ":"),
    "one model, guided": ("highlight", "-"),
    f"one model, fixed noise, {FEW} steps": ("UEPO", "--"),
    f"one model, guided, {FEW} steps": ("highlight", "--"),
    "n models, one noise": ("model", "-"),
    "n models, zero noise": ("model", "--"),
    "mixture, fixed component": ("control", "-"),
    "mixture, drawn each call": ("control", ":"),
    "n Gaussians": ("BC", "-"),
}
"""Every kind: colour and line. Diffusion kinds take 50 reverse steps where nothing is said."""


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
    """``count`` networks of each kind; Gaussians and mixtures get fewer ``updates``, enough to
    converge."""
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
        begin = time.perf_counter()
        made[name] = [make(seed) for seed in range(count)]
        seconds[name] = (time.perf_counter() - begin) / count
    counts = {"diffusion": process, "Gaussian": clone, "mixture": mixture}
    return Trained(
        made["diffusion"], made["Gaussian"], made["mixture"], seconds,
        {name: config.num_updates for name, config in counts.items()},
    )  # fmt: skip


# -- kinds: each makes set number ``j`` of n policies


def planner(kind: str, trained: Trained, toy: Doors, j: int, n: int) -> Planner:
    """Set ``j`` of ``kind``. Nested: the first m of a set of n are the set of m (but for guidance).

    One network makes set j, network j modulo their number; n networks are n of all, in an order
    that j decides.
    """
    order = torch.randperm(len(trained.diffusions), generator=torch.Generator().manual_seed(j))[:n]
    model = trained.diffusions[j % len(trained.diffusions)]
    steps = FEW if kind.endswith("steps") else MANY
    seeded = partial(SubPolicies.from_seeds, model, n, j, num_denoising_steps=steps)
    if kind == "one model, fresh noise":
        return seeded(fresh_noise=True, own_generators=True).plan
    if kind.startswith("one model, guided") and n > 1:
        return seeded(guidance=_guidance(seeded(), toy)).plan
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


def _guidance(plain: SubPolicies, toy: Doors) -> GuidanceConfig:
    """τ is the unguided set's median nearest-neighbour div (A4); η as printed, at every step."""
    states = toy.draw_states(64, torch.Generator().manual_seed(0))
    floor = cosine_floor(toy.actions)
    threshold = calibrate_threshold(plain.plan_shared(toy.past(states)), 0.5, floor)
    return GuidanceConfig(threshold, ETA, floor, "constant")


def _mixture(network: MixtureDensity, j: int, n: int, fixed: bool) -> Planner:
    once = torch.rand(n, 1, generator=torch.Generator().manual_seed(j))

    def plan(past: Tensor, generator: torch.Generator) -> Tensor:
        shape = past.shape[:2]
        quantile = once.expand(shape) if fixed else torch.rand(shape, generator=generator)
        chosen = network.plan(past.flatten(0, 1), quantile.reshape(1, -1))
        return chosen[0].unflatten(0, shape)

    return plan


# -- tables


def kinds_table(
    toy: Doors, trained: Trained, sizes: Sequence[int], sets: int, states: int = 32
) -> pd.DataFrame:
    """Every kind, n and set: modes reached, how evenly, and whether a policy keeps to its mode.

    Columns kind, n, set, coverage, entropy, persistence, kept, div. ``kept`` is tried at
    n = :data:`REPLANNED` only. n networks cannot be more than there are.
    """
    starts = 0.5 * toy.draw_states(states, torch.Generator().manual_seed(1))
    rows = []
    for kind in STYLES:
        networks = len(trained.diffusions) if kind.startswith("n ") else max(sizes)
        for n in [n for n in sizes if n <= networks]:
            for j in range(sets):
                plan = planner(kind, trained, toy, j, n)
                rows.append({"kind": kind, "n": n, "set": j} | _measure(toy, plan, starts, n, j))
    return pd.DataFrame(rows)


def _measure(toy: Doors, plan: Planner, starts: Tensor, n: int, j: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(j)
    places = starts.expand(n, -1, -1)
    actions = plan(_past(toy, places), generator)
    modes = _headings(toy, actions, places)
    found = {
        "coverage": coverage(modes, toy.num_modes),
        "entropy": mode_entropy(modes, toy.num_modes),
        "persistence": persistence(modes, toy.num_modes),
        "kept": float("nan"),
        "div": float("nan"),
    }
    if n > 1:
        nearest = nearest_neighbour(actions, cosine_floor(toy.actions))[0]
        found["div"] = float(nearest.mean())
    if n == REPLANNED:
        after = places + toy.dt * actions[:, :, :EXECUTED].sum(dim=2)
        found["kept"] = kept(modes, _headings(toy, plan(_past(toy, after), generator), after))
    return found


def _past(toy: Doors, places: Tensor) -> Tensor:
    """Windows (n, B, T_o, 2) of points that stand at ``places`` (n, B, 2)."""
    return toy.past(places.flatten(0, 1)).unflatten(0, places.shape[:2])


def _headings(toy: Doors, actions: Tensor, places: Tensor) -> Tensor:
    found = toy.headings(actions.flatten(0, 1), places.flatten(0, 1), LIMIT)
    return found.unflatten(0, places.shape[:2])


def interval_table(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Means over sets at one n with their 95 % intervals as text, a row a kind."""
    columns = ["coverage", "entropy", "persistence", "kept"]
    part = table[table.n == n].groupby("kind", sort=False)[columns]

    def shown(values: pd.Series) -> str:
        if values.isna().any():
            return "–"
        found = mean_interval(values)
        return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"

    return part.agg(shown)


def price_table(table: pd.DataFrame, trained: Trained, n: int) -> pd.DataFrame:
    """What n policies cost to train and to keep, beside how much they differ; a row a kind.

    Columns updates, seconds (of training), numbers (stored: parameters, and noise where it is
    kept), div (to the nearest neighbour), modes (covered).
    """
    model = trained.diffusions[0]
    noise = model.action_shape[0] * model.action_shape[1]
    size = {
        "diffusion": _numbers(model),
        "Gaussian": _numbers(trained.gaussians[0]),
        "mixture": _numbers(trained.mixtures[0]),
    }
    guided = n * MANY * noise  # ξ at every step
    sources: Mapping[str, tuple[str, int, int]] = {
        "one model, fixed noise": ("diffusion", 1, n * noise),
        "one model, guided": ("diffusion", 1, n * noise + guided),
        "n models, one noise": ("diffusion", n, noise),
        "n models, zero noise": ("diffusion", n, 0),
        "mixture, fixed component": ("mixture", 1, n),
        "n Gaussians": ("Gaussian", n, 0),
    }
    means = table[table.n == n].groupby("kind")[["div", "coverage"]].mean()
    rows = {
        kind: {
            "updates": networks * trained.updates[source],
            "seconds": networks * trained.seconds[source],
            "numbers": networks * size[source] + extra,
            "div": means.loc[kind, "div"],
            "modes": means.loc[kind, "coverage"],
        }
        for kind, (source, networks, extra) in sources.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _numbers(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# -- figures


@plotting.figure("mode_kinds")
def mode_kinds(table: pd.DataFrame) -> Figure:
    """Left: coverage against n beside the null, one line a kind; right: persistence."""
    figure, (left, right) = plotting.panels(2, width=4.6, height=4.0)
    sizes = sorted(table.n.unique())
    grid = np.linspace(min(sizes), max(sizes), 100)
    left.plot(
        grid, [null_coverage(n) for n in grid], color="0.6", linewidth=5, alpha=0.5,
        label=r"null $4(1 - 0.75^n)$",
    )  # fmt: skip
    for kind, (colour, line) in STYLES.items():
        found = _intervals(table[table.kind == kind], "n", "coverage")
        shade = plotting.COLOURS[colour]
        left.plot(found.index, found["mean"], line, color=shade, label=kind, linewidth=1.4)
        left.fill_between(found.index, found.low, found.high, color=shade, alpha=0.15, linewidth=0)
    left.set_xscale("log", base=2)
    left.set_xticks(sizes, [str(n) for n in sizes])
    left.set(xlabel="n policies", ylabel="modes covered (of 4)", ylim=(-0.1, 4.15))
    _persistence(right, table[table.n == REPLANNED])
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    return figure


def _persistence(axes: Axes, table: pd.DataFrame) -> None:
    """Both kinds of persistence, a row a kind; the null as a line."""
    axes.axvline(0.25, color="0.6", linewidth=5, alpha=0.5)
    for column, marker, shift in (("persistence", "o", -0.14), ("kept", "s", 0.14)):
        found = _intervals(table, "kind", column).reindex(list(STYLES))
        for place, (kind, row) in enumerate(found.iterrows()):
            colour = plotting.COLOURS[STYLES[str(kind)][0]]
            axes.plot([row.low, row.high], [place + shift] * 2, color=colour, linewidth=1.2)
            axes.plot(row["mean"], place + shift, marker, color=colour, markersize=4.5)
    axes.plot([], [], "o", color="0.3", markersize=4.5, label="in two states")
    axes.plot([], [], "s", color="0.3", markersize=4.5, label="after replanning")
    axes.set_yticks(range(len(STYLES)), list(STYLES), fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel=f"same mode (share), n = {REPLANNED}", xlim=(-0.03, 1.03))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=2)


def _intervals(table: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """Mean, low and high over sets, indexed by ``by``."""
    rows = {}
    for key, values in table.groupby(by, sort=False)[column]:
        if values.notna().sum() >= 2:
            found = mean_interval(values.dropna())
            rows[key] = {"mean": found.mean, "low": found.low, "high": found.high}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"])
