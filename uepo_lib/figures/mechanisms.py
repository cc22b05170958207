"""Notebook 04: what div measures. Tables, then figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.divergence import cosine_floor, divergence, low_pass

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
        axes.set(xlabel="std of the action noise (action units)", title=title, ylim=(-0.1, 3.2))
    noisy = repeats[repeats["noise"] > 0]
    left.plot(
        noisy["noise"], noisy["limit"], color=plotting.COLOURS["control"], linestyle=":",
        label="noise alone, closed form",
    )  # fmt: skip
    left.set_ylabel("div (no unit)")
    left.legend(loc="lower right")
    return figure
