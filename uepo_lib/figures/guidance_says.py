"""Notebook 04 in words: what its tables of guidance say. Pure functions of the tables."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from uepo_lib.figures.guidance import SUPPORT
from uepo_lib.figures.survival import AFTER

CONTROLS = {"ungated": "ungated noise", "final": "white noise on finished actions"}


NO_DOOR = 0.1
"""A mean number of doors within this of the unguided sets' counts as no new door."""
TELLING = 0.05
"""Shares along a chain that differ by less have no lowest step to speak of."""


def jitter_says(table: pd.DataFrame) -> str:
    """Where white noise on finished actions beats the gate at its own measure, within the modes.

    ``table`` is ``guidance.report_table``'s.
    """
    mean = table.groupby(["eta", "set"])[["call_share", "modes", "in_support"]].mean()
    lines = []
    for eta in mean.index.unique("eta"):
        plain, guided, final = (mean.loc[(eta, name)] for name in ("unguided", "guided", "final"))
        if final["in_support"] < SUPPORT or final["call_share"] <= guided["call_share"]:
            continue
        new = final["modes"] > plain["modes"] + NO_DOOR
        lines.append(
            f"At η = {eta:g} white noise on finished actions reaches τ in "
            f"{final['call_share']:.0%} of calls, {final['in_support']:.0%} of the plans being "
            f"within a mode, and guidance in {guided['call_share']:.0%}. It finds "
            f"{'new doors' if new else 'no new door'}: {final['modes']:.2f}, unguided "
            f"{plain['modes']:.2f}, guided {guided['modes']:.2f}."
            + ("" if new else " **τ alone does not tell jitter from a door.**")
        )
    gone = mean.xs("final", level="set")["in_support"]
    gone = gone[gone < SUPPORT]
    if len(gone):
        at = ", ".join(f"{eta:g}" for eta in gone.index)
        most = "none" if gone.max() < 0.005 else f"at most {gone.max():.0%}"
        lines.append(f"At η = {at} it leaves the data: {most} of the plans are within a mode.")
    return " ".join(lines)


def trace_says(traces: pd.DataFrame) -> str:
    """``survival.trace_table``'s shares along each chain and in the actions, its last estimate, to
    which no δ is added."""
    lines = []
    for name, part in traces.groupby("name", sort=False):
        wide = part.pivot_table(index="step", columns="estimate", values="call_share")
        last, along = wide.iloc[-1], wide.iloc[:-1]
        plain, after = along["unguided"], along[AFTER]
        wide_enough = after.max() - after.min() > TELLING
        least = f", least after step {after.idxmin()}" if wide_enough else ""
        lines.append(
            f"- {name}: unguided {_span(plain)} along the chain and {last['unguided']:.0%} in the "
            f"actions; guided, once δ has been added, {_span(after)}{least}, and "
            f"{last['guided, before δ']:.0%} in the actions."
        )
    return "\n".join(lines)


def _span(shares: pd.Series) -> str:
    low, high = f"{shares.min():.0%}", f"{shares.max():.0%}"
    return low if low == high else f"{low} to {high}"


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
