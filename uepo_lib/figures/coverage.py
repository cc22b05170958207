"""Notebook 03: which sets of policies reach the toy's modes, and at what price. Tables, then
figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.coverage import (
    coverage,
    kept,
    mode_entropy,
    null_coverage,
    null_entropy,
    null_persistence,
    persistence,
)
from uepo_lib.divergence import cosine_floor, nearest_neighbour
from uepo_lib.statistics import mean_interval
from uepo_lib.toy_policies import KINDS, MANY, Planner, Trained, planner
from uepo_lib.toys import Doors

LIMIT = 3.0
"""A plan within this many standard deviations (RMS) of a mode is in it; a trained network is not
as near as the logged walks."""
EXECUTED = 2
"""T_a on the toy: replanning after it finds the point where training has seen it start."""
LATER = 1_000_000
"""Where the seeds of the later plans begin: other draws than the first."""
REPLANNED = 4
"""The n at which replanning is tried."""
COLOUR_OF = dict(
    zip(
        KINDS,
        [
            "data", "data", "UEPO", "UEPO", "data", "UEPO", "model", "model", "control", "control",
            "BC",
        ],
        strict=True,
    )
)  # fmt: skip
"""The colour of every kind: guided and unguided sets have those of notebook 04."""
FAMILIES = {
    "one model": ("one model, fixed noise", "one model, fresh noise",
                  "one model, fixed noise, 5 steps"),
    "one model, guided": ("one model, guided", "one model, guided, τ of D",
                          "one model, guided, τ of D, 5 steps"),
    "n models": ("n models, one noise", "n models, zero noise", "n Gaussians"),
    "a mixture": ("mixture, fixed component", "mixture, drawn each call"),
}  # fmt: skip
"""The kinds that share a panel of coverage."""

PRICED = (
    "one model, fixed noise", "one model, guided, τ of D", "n models, one noise",
    "n models, zero noise", "mixture, fixed component", "n Gaussians",
)  # fmt: skip
"""The kinds whose price is compared."""
MEASURES = ("coverage", "entropy", "persistence", "kept")


# -- tables


def kinds_table(
    toy: Doors,
    trained: Trained,
    sizes: Sequence[int],
    sets: int,
    states: int = 32,
    kinds: Sequence[str] = KINDS,
) -> pd.DataFrame:
    """Every kind, n and set: modes reached, how evenly, and whether a policy keeps to its mode.

    Columns kind, n, set, coverage, entropy, persistence, kept, div. ``kept`` is tried at
    n = :data:`REPLANNED` only. n networks cannot be more than there are.
    """
    starts = 0.5 * toy.draw_states(states, torch.Generator().manual_seed(1))
    rows = []
    for kind in kinds:
        networks = len(trained.diffusions) if kind.startswith("n ") else max(sizes)
        counts = [n for n in sizes if n <= networks]
        for j in range(sets if counts else 0):
            made = partial(planner, kind, trained, toy, j)
            largest = _plans(toy, made(max(counts)), starts, max(counts), j)
            for n in counts:
                # a guided set is not a part of a larger one: other neighbours
                whole = "guided" not in kind or n == max(counts)
                actions = largest[:n] if whole else _plans(toy, made(n), starts, n, j)
                found = {"kind": kind, "n": n, "set": j} | _measure(toy, actions, starts)
                again = made(n) if n == REPLANNED else None
                rows.append(found | {"kept": _replanned(toy, again, actions, starts, j)})
    return pd.DataFrame(rows)


def _plans(toy: Doors, plan: Planner, starts: Tensor, n: int, j: int) -> Tensor:
    return plan(_past(toy, starts.expand(n, -1, -1)), torch.Generator().manual_seed(j))


def _measure(toy: Doors, actions: Tensor, starts: Tensor) -> dict[str, float]:
    modes = toy.headings(actions, starts, LIMIT)
    found = {
        "coverage": coverage(modes, toy.num_modes),
        "entropy": mode_entropy(modes, toy.num_modes),
        "persistence": persistence(modes, toy.num_modes),
        "div": float("nan"),
    }
    if len(actions) > 1:
        nearest = nearest_neighbour(actions, cosine_floor(toy.actions))[0]
        found["div"] = float(nearest.mean())
    return found


def _replanned(toy: Doors, plan: Planner | None, actions: Tensor, starts: Tensor, j: int) -> float:
    """Share of plans whose door is kept where T_a of their actions have led; nan without a plan."""
    if plan is None:
        return float("nan")
    after = starts + toy.dt * actions[:, :, :EXECUTED].sum(dim=2)  # (n, B, 2)
    later = plan(_past(toy, after), torch.Generator().manual_seed(LATER + j))
    heading = toy.headings(later.flatten(0, 1), after.flatten(0, 1), LIMIT)
    return kept(toy.headings(actions, starts, LIMIT), heading.unflatten(0, after.shape[:2]))


def _past(toy: Doors, places: Tensor) -> Tensor:
    """Windows (n, B, T_o, 2) of points that stand at ``places`` (n, B, 2)."""
    return toy.past(places.flatten(0, 1)).unflatten(0, places.shape[:2])


def interval_table(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Means over sets at one n with their 95 % intervals as text, a row a kind; the null first."""
    same = null_persistence()
    nulls = dict(zip(MEASURES, (null_coverage(n), null_entropy(n), same, same), strict=True))
    found = table[table.n == n].groupby("kind", sort=False)[list(MEASURES)].agg(_shown)
    null = pd.DataFrame({name: f"{value:.2f}" for name, value in nulls.items()}, index=["null"])
    return pd.concat([null, found])


def _shown(values: pd.Series) -> str:
    known = values.dropna()
    if len(known) < 2:
        return "–"
    found = mean_interval(known)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def beside_null(table: pd.DataFrame, n: int) -> pd.Series:
    """Is each kind's coverage above or below the null of n draws? "level" where its interval
    holds it."""
    null = null_coverage(n)

    def place(values: pd.Series) -> str:
        found = mean_interval(values)
        return "above" if found.low > null else "below" if found.high < null else "level"

    return table[table.n == n].groupby("kind", sort=False)["coverage"].agg(place)


def zero_noise_says(table: pd.DataFrame) -> str:
    """What became of the expectation that a model without noise stands between the doors.

    At n = 1 the ``coverage`` of :func:`kinds_table` is the share of plans that are at a door.
    """
    alone = table[(table["kind"] == "n models, zero noise") & (table["n"] == 1)]
    share = float(alone["coverage"].mean())
    met = "as expected" if share < 0.5 else "**not** as expected"
    return (
        "**Between the doors?** Of single plans of a model without noise "
        f"{share:.0%} are at a door: {met}, where less than half was."
    )


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
    kept_noise = {
        "one model, fixed noise": n * noise,
        "one model, guided, τ of D": n * noise * (1 + MANY),  # ξ at every step
        "n models, one noise": noise,
        "n models, zero noise": 0,
        "mixture, fixed component": n,
        "n Gaussians": 0,
    }
    means = table[table.n == n].groupby("kind")[["div", "coverage"]].mean()
    rows = {}
    for kind in PRICED:
        source = "Gaussian" if "Gauss" in kind else "mixture" if "mix" in kind else "diffusion"
        networks = n if kind.startswith("n ") else 1
        rows[kind] = {
            "updates": networks * trained.updates[source],
            "seconds": networks * trained.seconds[source],
            "numbers": networks * size[source] + kept_noise[kind],
            "div": means.loc[kind, "div"],
            "modes": means.loc[kind, "coverage"],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _numbers(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# -- figures


@plotting.figure("mode_kinds")
def mode_kinds(table: pd.DataFrame) -> Figure:
    """Left: coverage against n beside the null, a panel a family; right: persistence."""
    figure = plt.figure(figsize=(9.2, 4.4))
    halves = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
    left, right = (figure.add_subfigure(halves[i]) for i in (0, 1))
    grid = left.subplots(2, 2, sharex=True, sharey=True)
    for axes, (title, kinds) in zip(np.ravel(grid), FAMILIES.items(), strict=True):
        _coverage(axes, table, kinds, band="" if axes is not grid[1, 1] else "n even draws")
        axes.set_title(title)
    for axes in grid[1]:
        axes.set_xlabel("n policies")
    for axes in grid[:, 0]:
        axes.set_ylabel("modes covered (of 4)")
    _persistence(right.subplots(), table[table.n == REPLANNED])
    return figure


def _coverage(axes: Axes, table: pd.DataFrame, kinds: tuple[str, ...], band: str = "") -> None:
    """One family; ``band`` names the null in its legend, where there is room for it."""
    sizes = sorted(table.n.unique())
    grid = np.linspace(min(sizes), max(sizes), 100)
    null = [null_coverage(n) for n in grid]
    axes.plot(grid, null, color="0.6", linewidth=5, alpha=0.5, label=band or None)
    for i, kind in enumerate(kinds):
        colour, line = plotting.COLOURS[COLOUR_OF[kind]], ("-", "--", ":")[i]
        found = _intervals(table[table.kind == kind], "n", "coverage")
        aside = found.index * 2 ** (0.12 * (i - 1))  # or they hide each other
        bars = (found["mean"] - found.low, found.high - found["mean"])
        axes.errorbar(
            aside, found["mean"], bars, color=colour, linestyle=line, linewidth=1.3, elinewidth=0.9,
            marker="osD"[i], markersize=3, label=kind.partition(", ")[2] or kind,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_ylim(-0.15, 4.15)
    low = "n Gaussians" in kinds  # they leave the corner free that the others fill
    axes.legend(fontsize=7, loc="upper left" if low else "lower right")


def _persistence(axes: Axes, table: pd.DataFrame) -> None:
    """Both kinds of persistence, a row a kind; the null as a line. Where no policy reaches a mode
    there is nothing to keep."""
    axes.axvline(null_persistence(), color="0.6", linewidth=5, alpha=0.5, label="chance")
    for column, marker, shift in (("persistence", "o", -0.14), ("kept", "s", 0.14)):
        found = _intervals(table, "kind", column).reindex(list(COLOUR_OF))
        for place, (kind, row) in enumerate(found.iterrows()):
            colour = plotting.COLOURS[COLOUR_OF[str(kind)]]
            axes.plot([row.low, row.high], [place + shift] * 2, color=colour, linewidth=1.2)
            axes.plot(row["mean"], place + shift, marker, color=colour, markersize=4.5)
    reached = table.groupby("kind")["coverage"].max()
    for place, kind in enumerate(COLOUR_OF):
        if reached.get(kind) == 0:
            axes.text(0.5, place, "reaches none", size=7, color="0.35", ha="center", va="center")
    axes.plot([], [], "o", color="0.3", markersize=4.5, label="in two states")
    axes.plot([], [], "s", color="0.3", markersize=4.5, label="after replanning")
    axes.set_yticks(range(len(COLOUR_OF)), list(COLOUR_OF), fontsize=7)
    axes.set(xlabel=f"same mode (share), n = {REPLANNED}", xlim=(-0.03, 1.03))
    axes.set_ylim(len(COLOUR_OF) - 0.4, -0.6)  # downwards, and no row on the axis
    axes.legend(loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=3, columnspacing=1.0)


def _intervals(table: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """Mean, low and high over sets, indexed by ``by``."""
    rows = {}
    for key, values in table.groupby(by, sort=False)[column]:
        if values.notna().sum() >= 2:
            found = mean_interval(values.dropna())
            rows[key] = {"mean": found.mean, "low": found.low, "high": found.high}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"])
