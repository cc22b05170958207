"""Notebook 06: improving a policy without acting. Tables, then figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import stats

from uepo_lib import offline_ppo, plotting
from uepo_lib.learners import looks_of
from uepo_lib.methods.uepo import UEPOConfig, uepo
from uepo_lib.methods.uni_o4 import uni_o4
from uepo_lib.runs import Run
from uepo_lib.stages import Study

WHO = {
    "Uni-O4": ("Uni-O4, a line a member", plotting.COLOURS["model"]),
    "UEPO": ("UEPO's π*", plotting.COLOURS["UEPO"]),
}


def acceptance_toy(
    trials: int = 20_000, starts: int = 64, margins: tuple[float, ...] = (0.0, 2.0), seed: int = 0
) -> pd.DataFrame:
    """Policies of known worth, judged by noisy scores from paired starts with the rule itself.

    Gains are in standard errors of the comparison, so noise has std √starts a start. Columns
    margin, gain (the truth), accepted (share of ``trials``), expected (Φ(gain − margin)).
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for gain in np.linspace(-4, 6, 21):
        noise = starts**0.5 * torch.randn(trials, starts, generator=generator)
        for margin in margins:
            taken = offline_ppo.accepted(gain + noise, torch.zeros_like(noise), margin)
            share = float(taken.float().mean())
            rows.append((margin, float(gain), share, float(stats.norm.cdf(gain - margin))))
    return pd.DataFrame(rows, columns=["margin", "gain", "accepted", "expected"])


def improved_runs(study: Study) -> dict[str, Run]:
    """The runs of offline PPO, Uni-O4's on four Gaussians and UEPO's on one chain."""
    chain = uepo(study, UEPOConfig(offline_improvement="ppo")).best
    return {"Uni-O4": uni_o4(study).improved.run, "UEPO": chain.run}


def looks_table(runs: Mapping[int, Mapping[str, Run]]) -> pd.DataFrame:
    """Every comparison by AM-Q: columns seed, method, member, update, gain (AM-Q over that of the
    first look, in percent), accepted."""
    rows = []
    for seed, found in runs.items():
        for method, run in found.items():
            looks = looks_of(run)
            for look in looks:
                for i, (score, taken) in enumerate(zip(look.scores, look.accepted, strict=True)):
                    gain = 100 * (score / looks[0].scores[i] - 1)
                    rows.append((seed, method, i, look.update, gain, taken))
    return pd.DataFrame(rows, columns=["seed", "method", "member", "update", "gain", "accepted"])


def published_verdict(correlation: pd.DataFrame) -> str:
    """Does the published mean rank worse than the default? By seed, from ``correlation_table``."""
    less = correlation["dead_zero"] - correlation["published"]
    told = ", ".join(f"{value:+.2f}" for value in less)
    met = "**as expected**" if less.mean() > 0 else "**not as expected**"
    return (
        f"Rank correlation of `dead_zero` less that of `published`, by seed: {told}; mean "
        f"{less.mean():+.2f}. Above 0 was expected: {met} in the mean of {len(less)} seeds. The "
        "default does not rest on it: it rests on the toy above, where the truth is known."
    )


@plotting.figure("acceptance_rule")
def draw_rule(table: pd.DataFrame) -> Figure:
    """How often a policy of known worth replaces the old one: dots measured, lines closed form."""
    figure, (axes,) = plotting.panels(1, 4.4, 2.9)
    colours = (plotting.COLOURS["control"], plotting.COLOURS["UEPO"])
    for colour, (margin, part) in zip(colours, table.groupby("margin"), strict=False):
        axes.plot(part["gain"], part["expected"], color=colour, linewidth=1)
        axes.scatter(part["gain"], part["accepted"], s=14, color=colour, zorder=3,
                     label=f"margin {margin:g}")  # fmt: skip
    axes.axvline(0, color="0.4", linestyle=":", linewidth=1)
    axes.set(xlabel="true gain, in standard errors of one comparison", ylabel="share accepted")
    axes.legend(loc="upper left")
    return figure


@plotting.figure("offline_improvement")
def draw_looks(table: pd.DataFrame) -> Figure:
    """AM-Q over updates of offline PPO; a dot where the policy became the new π_old.

    Each panel has a scale of its own: one method's gains may be a small part of the other's.
    """
    figure, panels = plotting.panels(len(WHO), 3.5, 2.8)
    for axes, (method, (label, colour)) in zip(panels, WHO.items(), strict=True):
        part = table[table["method"] == method]
        for _, one in part.groupby(["seed", "member"]):
            axes.plot(one["update"], one["gain"], color=colour, alpha=0.45, linewidth=0.9)
        taken = part[part["accepted"]]
        axes.scatter(taken["update"], taken["gain"], s=12, color=colour, zorder=3)
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axes.set(title=label, xlabel="update")
    panels[0].set_ylabel("AM-Q over that at the first check (%)")
    panels[-1].set_ylabel("the same, on another scale (%)")
    return figure
