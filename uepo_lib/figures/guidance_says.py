"""Notebook 04 in words: what its tables of guidance say. Pure functions of the tables."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

CONTROLS = {"ungated": "ungated noise", "final": "white noise on finished actions"}


def trained_says(kept: Mapping[str, float], taus: Mapping[str, float]) -> str:
    """The trained network beside the exact posterior mean, both keyed "exact" and "trained".

    ``kept`` is the share of a small perturbation that the actions keep at the last guided step,
    ``taus`` the τ at the median of each model's own unguided sets.
    """
    exact, trained = kept["exact"], kept["trained"]
    more = "less" if trained < exact else "more"
    return (
        f"At the last guided step the actions keep {exact:.0%} of a small perturbation with the "
        f"exact model and {trained:.0%} with the trained one, {more} by a factor of "
        f"{max(exact, trained) / min(exact, trained):.1f}. τ at the median of its own set is "
        f"{taus['exact']:.2f} for the exact model and {taus['trained']:.2f} for the trained one, a "
        f"factor of {taus['exact'] / taus['trained']:.1f}."
    )


def shares_say(shares: pd.DataFrame, eta: float) -> str:
    """The share of calls at τ, a line a robot and chain, at ``eta`` and the constant schedule.

    ``shares`` has columns task, steps, schedule, eta, set, call_share; the mean is over the rest.
    """
    chosen = shares[(shares["schedule"] == "constant") & (shares["eta"] == eta)]
    lines = []
    for (task, steps), part in chosen.groupby(["task", "steps"], sort=False):
        row = part.groupby("set")["call_share"].mean()
        ahead = [text for name, text in CONTROLS.items() if row[name] > row["guided"]]
        lines.append(
            f"- {task}, {steps} steps: {row['unguided']:.0%} unguided, {row['guided']:.0%} "
            f"guided; ungated noise of equal power {row['ungated']:.0%}, white noise on finished "
            f"actions {row['final']:.0%}. Ahead of the gate: "
            f"{' and '.join(ahead) or 'neither'}."
        )
    return "\n".join(lines)


def closed_form_says(kept: pd.DataFrame) -> str:
    """How far the closed form is from what is kept, along the perturbation, a robot and chain.

    ``kept`` has columns name, steps, step, along, closed_form. The last step, at which nothing is
    left that could take a perturbation back, does not count, nor those at which the closed form
    keeps less than a hundredth: there is nothing to compare.
    """
    early, parts = kept[(kept["step"] < kept["steps"]) & (kept["closed_form"] >= 0.01)], []
    for (name, steps), part in early.groupby(["name", "steps"], sort=False):
        mean = part.groupby("step")[["along", "closed_form"]].mean()
        ratio = mean["closed_form"] / mean["along"]
        parts.append(f"{name}, {steps} steps: {ratio.min():.1f} to {ratio.max():.1f}")
    return "The closed form over what is kept, by step: " + "; ".join(parts) + "."
