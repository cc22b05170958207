"""Notebook 04: what div measures, and what guidance by it does. Tables, then figures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.divergence import (
    GuidanceConfig,
    calibrate_threshold,
    cosine_floor,
    divergence,
    low_pass,
    nearest_neighbour,
)
from uepo_lib.subpolicies import SubPolicies, equal_power_controls
from uepo_lib.toys import Doors, exact_model

SETS = {"unguided": "data", "guided": "UEPO", "ungated": "highlight", "final": "control"}
"""The sets that are compared, and their colours."""


# -- tables


def gait(phases: Tensor, shift: float = 0.0, horizon: int = 8) -> Tensor:
    """A noise-free gait of three joints, (B, T, 3): sines of amplitude 0.6, a third apart.

    The period is 16 control steps; ``phases`` (B,) say where in it each sequence begins.
    """
    t = torch.arange(horizon)[:, None] / 16
    joints = torch.arange(3) / 3
    return 0.6 * torch.sin(2 * math.pi * (t + joints) + phases[:, None, None] + shift)


def white_noise_divergence(std: float, action_dim: int) -> float:
    """Limit of div between two repeats when action noise drowns the behaviour.

    ȧ − ȧ' is N(0, 4 std² I), whose expected length is 2 std √2 Γ((A + 1)/2) / Γ(A/2); the second
    differences point anywhere, so that 1 − cos is 1 on average.
    """
    length = math.sqrt(2) * math.exp(
        math.lgamma((action_dim + 1) / 2) - math.lgamma(action_dim / 2)
    )
    return 2 * std * length + 1


def gait_table(stds: Sequence[float] = (0.03, 0.1, 0.3, 0.6), count: int = 4096) -> pd.DataFrame:
    """div between repeats of one gait under action noise, and between two gaits without any.

    Columns pair, noise, div, low_passed, limit; the last is :func:`white_noise_divergence`.
    """
    generator = torch.Generator().manual_seed(0)
    phases = 2 * math.pi * torch.rand(count, generator=generator)
    one, opposite = gait(phases), gait(phases, shift=math.pi)
    floor = cosine_floor(one)

    def row(pair: str, noise: float, a: Tensor, b: Tensor) -> dict[str, object]:
        return {
            "pair": pair,
            "noise": noise,
            "div": float(divergence(a, b, floor).mean()),
            "low_passed": float(divergence(low_pass(a), low_pass(b), floor).mean()),
            "limit": white_noise_divergence(noise, 3) if noise else math.nan,
        }

    rows = [
        row("one gait, twice", 0.0, one, one),
        row("constant offset of 0.3", 0.0, one, one + 0.3),
        row("two gaits in antiphase", 0.0, one, opposite),
    ]
    for std in stds:
        noise = std * torch.randn(2, *one.shape, generator=generator)
        rows.append(row("one gait, twice", std, one + noise[0], one + noise[1]))
    return pd.DataFrame(rows)


def perturbation_table(thresholds: Sequence[float], eta: float) -> pd.DataFrame:
    """σ_div = η (τ − div)⁺/τ over a grid of div: columns threshold, div, sigma."""
    grid = np.linspace(0, 1.2 * max(thresholds), 121)
    rows = [(tau, d, eta * max(tau - d, 0) / tau) for tau in thresholds for d in grid]
    return pd.DataFrame(rows, columns=["threshold", "div", "sigma"])


def reached(actions: Tensor, threshold: float, floor: float) -> dict[str, float]:
    """How far apart sub-policies (n, B, T, A) are, beside τ; div to the nearest neighbour.

    ``member_share`` counts every sub-policy in every state; ``call_share`` counts a state (a call
    of the whole set) only if its closest pair is at least τ apart.
    """
    nearest = nearest_neighbour(actions, floor)[0]
    return {
        "div": float(nearest.mean()),
        "low_passed": float(nearest_neighbour(low_pass(actions), floor)[0].mean()),
        "member_share": float((nearest >= threshold).float().mean()),
        "call_share": float((nearest.amin(0) >= threshold).float().mean()),
    }


def four_sets(guided: SubPolicies, past: Tensor) -> dict[str, SubPolicies]:
    """A guided set, the same without guidance, and the two controls of equal power on ``past``."""
    plain = guided.with_guidance(None)
    return {"unguided": plain, "guided": guided, **equal_power_controls(guided, past)}


def toy_guidance_table(
    toy: Doors, n: int, etas: Sequence[float], seeds: Sequence[int]
) -> pd.DataFrame:
    """What guidance makes of n sub-policies of the toy's exact model, by η and seed.

    τ is the median nearest-neighbour div of the unguided set, seed by seed. Columns of
    :func:`reached`, and modes (doors that the set heads for, averaged over states), in_support.
    """
    model = exact_model(toy)
    states = toy.draw_states(256, torch.Generator().manual_seed(1))
    past, floor = toy.past(states), cosine_floor(toy.actions)
    rows = []
    for seed in seeds:
        unguided = SubPolicies.from_seeds(model, n, seed).plan_shared(past)
        threshold = calibrate_threshold(unguided, 0.5, floor)
        for eta in etas:
            config = GuidanceConfig(threshold, eta, floor)
            guided = SubPolicies.from_seeds(model, n, seed, guidance=config)
            for name, policies in four_sets(guided, past).items():
                actions = policies.plan_shared(past)
                heading = toy.mode_of(actions).T.tolist()
                rows.append(
                    {"set": name, "eta": eta, "seed": seed}
                    | reached(actions, threshold, floor)
                    | {
                        "modes": float(np.mean([len(set(doors)) for doors in heading])),
                        "in_support": float(toy.in_support(actions, states).float().mean()),
                    }
                )
    return pd.DataFrame(rows)


def quantile_table(sets: Mapping[str, Tensor], threshold: float, floor: float) -> pd.DataFrame:
    """Quantiles of nearest-neighbour div of sets (n, B, T, A), as planned and low-passed.

    Columns set, filter, share, div, threshold: ``share`` of all sub-policies and states are below.
    """
    shares = torch.linspace(0.005, 0.995, 100)
    rows = []
    for name, actions in sets.items():
        for kind, seen in (("as planned", actions), ("low-passed", low_pass(actions))):
            levels = nearest_neighbour(seen, floor)[0].flatten().quantile(shares)
            for share, level in zip(shares.tolist(), levels.tolist(), strict=True):
                rows.append((name, kind, share, level, threshold))
    return pd.DataFrame(rows, columns=["set", "filter", "share", "div", "threshold"])


def paired(table: pd.DataFrame, column: str, one: str, other: str) -> list[float]:
    """``one`` minus ``other`` by seed, both names in the column "set"."""
    wide = table.pivot_table(index="seed", columns="set", values=column)
    return (wide[one] - wide[other]).tolist()


def planning_time(policies: SubPolicies, past: Tensor, repeats: int = 20) -> float:
    """Median wall time of one call for all sub-policies in states (B, T_o, S), in milliseconds."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        policies.plan_shared(past)
        times.append(1000 * (time.perf_counter() - begin))
    return float(np.median(times))


# -- figures


@plotting.figure("04_gaits")
def draw_gaits(table: pd.DataFrame) -> Figure:
    """div of repeats against action noise, beside two truly different gaits."""
    figure, (left, right) = plotting.panels(2, 3.7)
    repeats = table[table["pair"] == "one gait, twice"].sort_values("noise")
    antiphase = table[table["pair"] == "two gaits in antiphase"].iloc[0]
    for axes, column, title in (
        (left, "div", "as executed"),
        (right, "low_passed", "low-passed over 3 steps"),
    ):
        axes.plot(
            repeats["noise"], repeats[column], marker="o", color=plotting.COLOURS["data"],
            label="one gait, twice",
        )  # fmt: skip
        axes.axhline(
            antiphase[column], color=plotting.COLOURS["UEPO"], label="two gaits in antiphase"
        )
        axes.set(xlabel="std of the action noise", title=title, ylim=(-0.1, 3.2))
    noisy = repeats[repeats["noise"] > 0]
    left.plot(
        noisy["noise"], noisy["limit"], color=plotting.COLOURS["control"], linestyle=":",
        label="noise alone, closed form",
    )  # fmt: skip
    left.set_ylabel("div (no unit)")
    left.legend(loc="lower right")
    return figure


@plotting.figure("04_perturbation")
def draw_perturbation(table: pd.DataFrame) -> Figure:
    """σ_div against div, one line a threshold."""
    figure, (axes,) = plotting.panels(1, 4.2)
    thresholds = sorted(table["threshold"].unique())
    for i, tau in enumerate(thresholds):
        part = table[table["threshold"] == tau]
        shade = 0.35 + 0.65 * i / max(len(thresholds) - 1, 1)
        axes.plot(
            part["div"], part["sigma"], color=plotting.COLOURS["UEPO"], alpha=shade,
            label=f"τ = {tau:g}",
        )  # fmt: skip
    axes.set(xlabel="div to the nearest neighbour (no unit)", ylabel="σ_div (action units)")
    axes.legend()
    return figure


@plotting.figure("04_toy_guidance")
def draw_toy_guidance(table: pd.DataFrame) -> Figure:
    """Does guidance buy modes, or jitter? Against η, every seed a line."""
    figure, panels = plotting.panels(3, 3.1, 3.0)
    for axes, (column, label) in zip(
        panels,
        (
            ("call_share", "calls with min div ≥ τ (share)"),
            ("modes", "modes (of 4)"),
            ("in_support", "plans within a mode (share)"),
        ),
        strict=True,
    ):
        for name, colour in SETS.items():
            part = table[table["set"] == name]
            plotting.seed_lines(axes, part, "eta", column, plotting.COLOURS[colour], name)
        axes.set(xlabel="η (action units)", ylabel=label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@plotting.figure("04_hopper_divergence")
def draw_hopper_divergence(table: pd.DataFrame) -> Figure:
    """The distribution of nearest-neighbour div, as planned and low-passed."""
    figure, panels = plotting.panels(2, 3.9)
    for axes, (kind, part) in zip(panels, table.groupby("filter", sort=False), strict=True):
        for name, line in part.groupby("set", sort=False):
            colour = plotting.COLOURS[SETS.get(str(name), "model")]
            style = "-" if name in SETS else "--"
            axes.plot(line["div"], line["share"], color=colour, linestyle=style, label=name)
        axes.axvline(part["threshold"].iloc[0], color="0.7", linestyle=":", label="τ")
        axes.set(xlabel="div to the nearest neighbour (no unit)", title=kind)
    panels[0].set_ylabel("share at or below")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@plotting.figure("04_hopper_returns")
def draw_hopper_returns(table: pd.DataFrame) -> Figure:
    """Each sub-policy's mean return, set by set."""
    figure, (axes,) = plotting.panels(1, 4.6)
    for place, (_name, part) in enumerate(table.groupby("set", sort=False)):
        _column(axes, place, part["score"].tolist(), plotting.COLOURS[SETS[str(_name)]])
    axes.set_xticks(range(table["set"].nunique()), list(table["set"].unique()))
    axes.set_ylabel("mean return of a sub-policy (normalised)")
    return figure


def _column(axes: Axes, place: int, values: Sequence[float], colour: str) -> None:
    """Every value a dot, the mean a bar."""
    spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
    axes.scatter(place + spread, values, color=colour, s=16, alpha=0.7, zorder=3)
    axes.hlines(float(np.mean(values)), place - 0.25, place + 0.25, color=colour, linewidth=2)
