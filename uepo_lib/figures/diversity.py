"""Notebook 04: the KL-style term in closed form and on ensembles of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from uepo_lib import plotting
from uepo_lib.datasets import Batch
from uepo_lib.diffusion import SequenceWindows
from uepo_lib.diversity import EnsembleConfig, GaussianEnsemble, separating_term, train_ensemble
from uepo_lib.policies import GaussianConfig
from uepo_lib.toys import Doors

FORMS = {"none": "data", "printed": "highlight", "shipped": "control", "separating": "UEPO"}
"""The forms that are compared, and their colours."""
MEMBERS = 4
"""n, as many as the toy has doors."""


# -- tables


def js_of_two(delta: float) -> float:
    """Jensen-Shannon divergence of N(−δ, 1) and N(δ, 1) in nats, by integration."""
    x = torch.linspace(-delta - 12, delta + 12, 20_001, dtype=torch.float64)
    both = -0.5 * (x - torch.tensor([[-delta], [delta]])).square() - 0.5 * math.log(2 * math.pi)
    return float(torch.trapezoid(both[0].exp() * separating_term(both[0], both), x))


def objective_table(alphas: Sequence[float], largest: float = 2.5) -> pd.DataFrame:
    """Mean J of two members N(±δ, 1) on data N(0, 1), less its value at δ = 0, in closed form.

    E log p = const − δ²/2, and E max_j log p^j is larger by δ E|a| = δ √(2/π). Columns form,
    alpha, delta, gain, js.
    """
    rows = []
    for delta in torch.linspace(0, largest, 101).tolist():
        clone, js = -0.5 * delta**2, js_of_two(delta)
        for alpha in alphas:
            printed = clone - alpha * delta * math.sqrt(2 / math.pi)
            rows.append(("printed", alpha, delta, printed, js))
            rows.append(("separating", alpha, delta, clone + alpha * js, js))
    return pd.DataFrame(rows, columns=["form", "alpha", "delta", "gain", "js"])


class _Doubles:
    """Windows in float64."""

    def __init__(self, windows: SequenceWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, index: Tensor) -> Batch:
        return Batch(*(part.double() for part in self.windows.batch(index)))


def gaussian_config(toy: Doors) -> GaussianConfig:
    """A small Gaussian over the toy's whole sequences."""
    return GaussianConfig(2, 2, toy.obs_horizon, toy.horizon, hidden=(32, 32))


def adam_table(toy: Doors, alphas: Sequence[float], num_updates: int = 100) -> pd.DataFrame:
    """Largest difference of a parameter from plain cloning's after Adam in float64, ε → 0.

    Columns form, alpha, difference, moved; ``moved`` is how far cloning itself moved a parameter.
    """
    gaussian, windows = gaussian_config(toy), _Doubles(toy)
    cfg = EnsembleConfig(num_updates=num_updates, learning_rate=1e-3, adam_eps=1e-30)

    def trained(**changes: Any) -> Tensor:
        made = train_ensemble(replace(cfg, **changes), gaussian, windows, seed=0, progress=False)
        return parameters_to_vector(made.parameters()).detach()

    clone = trained(diversity="none")
    start = parameters_to_vector(GaussianEnsemble(gaussian, cfg.num_members, 0).parameters())
    moved = float((clone - start.detach()).abs().max())
    rows = []
    for form in ("shipped", "printed"):
        for alpha in alphas:
            difference = float((trained(diversity=form, alpha=alpha) - clone).abs().max())
            rows.append((form, alpha, difference, moved))
    return pd.DataFrame(rows, columns=["form", "alpha", "difference", "moved"])


def doors_reached(toy: Doors, actions: Tensor, states: Tensor) -> float:
    """Distinct doors that a set of walks reaches, averaged over states: (n, B, T, 2), (B, 2).

    A walk reaches the door that it ends nearer to than to where it began.
    """
    ends = toy.walk(states, actions)[:, :, -1]
    heading = toy.mode_of(actions)
    reached = (ends - toy.doors[heading]).norm(dim=-1) < (ends - states).norm(dim=-1)
    hit = torch.nn.functional.one_hot(heading, toy.num_modes).bool() & reached[..., None]
    return float(hit.any(dim=0).sum(dim=-1).float().mean())


def probe_states(toy: Doors, count: int) -> tuple[Tensor, Tensor]:
    """Where policies are judged: states (count, 2) and what a policy sees of them."""
    states = toy.draw_states(count, torch.Generator().manual_seed(1))
    return states, toy.past(states)


@torch.no_grad()
def describe_gaussians(ensemble: GaussianEnsemble, toy: Doors) -> dict[str, float]:
    """What a set of Gaussians does on the toy: nats, actions units, doors; means are judged."""
    n, (states, past) = ensemble.n, probe_states(toy, 256)
    log_probs = ensemble.log_prob_shared(toy.past(toy.states), toy.actions)
    plans = ensemble.act(past.expand(n, *past.shape))
    apart = (plans[:, None] - plans).square().mean(dim=(-2, -1)).sqrt().mean(dim=-1)
    return {
        "distance": float(apart.sum() / (n * (n - 1))),
        "js": float(ensemble.js_divergence(past, torch.Generator().manual_seed(0)).mean()),
        "nll": -float(log_probs.mean()),
        "mixture_nll": -float((log_probs.logsumexp(dim=0) - math.log(n)).mean()),
        "doors": doors_reached(toy, plans, states),
        "in_support": float(toy.in_support(plans, states).float().mean()),
    }


def gaussian_table(
    toy: Doors, alphas: Sequence[float], seeds: Sequence[int], num_updates: int
) -> pd.DataFrame:
    """Ensembles of n Gaussians under each form: columns form, alpha, seed, then what
    :func:`describe_gaussians` gives."""
    rows: list[dict[str, Any]] = []
    settings: list[tuple[Any, float]] = [
        ("none", 0.0),
        *((form, a) for form in list(FORMS)[1:] for a in alphas),
    ]
    for seed in seeds:
        for form, alpha in settings:
            cfg = EnsembleConfig(
                num_updates=num_updates, batch_size=128, learning_rate=3e-3, num_members=MEMBERS,
                diversity=form, alpha=alpha,
            )  # fmt: skip
            ensemble = train_ensemble(cfg, gaussian_config(toy), toy, seed=seed, progress=False)
            found = describe_gaussians(ensemble, toy)
            rows.append({"form": form, "alpha": alpha, "seed": seed} | found)
    return pd.DataFrame(rows)


def of(table: pd.DataFrame, column: str, form: str, alpha: float) -> list[float]:
    """``column`` of one setting, one value a seed in the order of the seeds."""
    rows = table[(table["form"] == form) & (table["alpha"] == alpha)].sort_values("seed")
    return [float(value) for value in rows[column]]


# -- figures


@plotting.figure("04_diversity_objective")
def draw_objective(table: pd.DataFrame) -> Figure:
    """J of two members against their distance, as printed and in the separating form."""
    figure, panels = plotting.panels(2, 3.6)
    alphas = sorted(table["alpha"].unique())
    for axes, (form, part) in zip(panels, table.groupby("form", sort=False), strict=True):
        colour = plotting.COLOURS[FORMS[str(form)]]
        for i, alpha in enumerate(alphas):
            line = part[part["alpha"] == alpha]
            best = line.loc[line["gain"].idxmax()]
            style: dict[str, Any] = {"color": colour, "alpha": 0.4 + 0.2 * i}
            width = 1.0 + 0.6 * i
            axes.plot(line["delta"], line["gain"], linewidth=width, label=f"α = {alpha:g}", **style)
            axes.plot(best["delta"], best["gain"], "o", markersize=5, zorder=3, **style)
        axes.plot([], [], "o", markersize=5, color=colour, label="largest J")
        axes.set(xlabel="δ, the members being N(±δ, 1)", title=str(form), ylim=(-2, 0.4))
        axes.legend(loc="upper right")
    panels[0].set_ylabel("J less its value at δ = 0 (nats)")
    return figure


@plotting.figure("04_diversity_gaussians")
def draw_gaussians(table: pd.DataFrame) -> Figure:
    """The three forms on Gaussian ensembles, against α; dashed: plain cloning, mean of seeds."""
    figure, panels = plotting.panels(3, 3.2, 3.0)
    columns = {
        "js": "JS divergence (nats)",
        "distance": "distance of means (action units)",
        "nll": "−log p of the data (nats)",
    }
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for form, colour in list(FORMS.items())[1:]:
            part = table[table["form"] == form]
            plotting.seed_lines(axes, part, "alpha", column, plotting.COLOURS[colour], form)
        clone = table[table["form"] == "none"][column].mean()
        axes.axhline(clone, color=plotting.COLOURS["data"], linestyle="--", label="cloning")
        axes.axvline(1.0, color="0.7", linestyle=":", label="α = 1")
        axes.set(xlabel="α", ylabel=label, xscale="log")
    panels[0].axhline(math.log(MEMBERS), color="black", linewidth=0.8)
    panels[0].annotate("log n", (table["alpha"].max(), math.log(MEMBERS)), ha="right", va="bottom")
    panels[1].set_yscale("log")
    panels[0].set_ylim(-0.05, 1.15 * math.log(MEMBERS))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure
