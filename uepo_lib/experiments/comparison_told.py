"""What E3's tables say, in the sentences of its notebook. Pure functions of the tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from uepo_lib.experiments.comparison_selection import offline_phase
from uepo_lib.experiments.comparison_verdict import SAMPLED, SWAPS, WITHOUT, untuned

BY_AM_Q = {"(i, κ) by AM-Q, not κ = 0": "against κ = 0",
           "(i, κ) by AM-Q, not at random": "against a random candidate"}  # fmt: skip
"""The two swaps that say what choosing is worth."""


def comes_with(candidates: int, members: int, chunk: int, single: int) -> str:
    """What else differs between the two policy classes of an equal row, in words."""
    return (
        f"{chunk} executed actions a decision against {single}, a choice among {candidates} pairs "
        f"(i, κ) against one among {members} members, a T̂ of D and D_diff against T̂_init of D "
        "alone, and the online settings that were tuned for each class"
    )


def lead_told(headline: pd.DataFrame, known: pd.DataFrame) -> str:
    """Whose lead over Uni-O4 is it? From the table of ``comparison_verdict.aggregates``: means of
    paired gains, offline and at the end, a line for each of what they are ``over``; from
    ``comparison_selection.judged`` what of the offline one is the members' and what the choice's.
    """
    lines = []
    for over, part in headline.groupby("over", sort=False):
        paired = part.pivot(index="measure", columns="pair", values="paired").loc[
            ["offline", "end"]
        ]
        lead, equal = paired["headline"], paired["equal: select only"]
        others = (paired["UEPO over BC"], paired["UEPO over IQL"])
        told = [
            " and ".join(f"{x:+.1f}" for x in gains)
            for gains in (lead, equal, equal - lead, *others)
        ]
        phase = offline_phase(untuned(known) if over == WITHOUT else known).mean()
        lines.append(
            f"- {over}: over Uni-O4 UEPO's gain is {told[0]} points, offline and at the end; over "
            f"Uni-O4 without its offline PPO, the equal row, {told[1]}. So {told[2]} are what "
            f"offline PPO and AM-Q's choice among its members did to Uni-O4 here. Offline, on the "
            f"fewer episodes of the members, PPO changed their mean by {phase['members']:+.1f}, "
            f"and what the choice adds to that mean changed by {phase['choice']:+.1f}. Over plain "
            f"cloning UEPO's gain is {told[3]}, over IQL {told[4]}."
        )
    return "\n".join(lines)


def choice_told(by_task: pd.DataFrame, known: pd.DataFrame) -> str:
    """How much of UEPO's offline lead over Uni-O4 is AM-Q's choice inside Uni-O4? A line a task, of
    the tables of ``comparison_verdict.by_task`` and ``comparison_selection.judged``."""
    test = (by_task["pair"] == "headline") & (by_task["measure"] == "offline")
    lead = by_task[test].set_index("task")["mean"]
    rows: Any = offline_phase(known).itertuples()
    return "\n".join(
        f"- {row.Index}: UEPO's gain is {lead[row.Index]:+.1f} points. The improved member that "
        f"AM-Q chooses scores {row.chosen:.1f}, their mean {row.mean:.1f}: a choice at random "
        f"would change Uni-O4 by {row.mean - row.chosen:+.1f}."
        for row in rows
    )


def swaps_told(swaps: pd.DataFrame) -> str:
    """What one swap at a time adds, in words: means of ``gain`` over tasks and seeds.

    Ranked are the swaps that were played on every task: a mean over other tasks is another number.
    """
    count = swaps["task"].nunique()
    offline, end = (swaps[swaps["measure"] == name].groupby("pair") for name in ("offline", "end"))
    ranked, reached = (
        part["gain"].mean()[part["task"].nunique() == count] for part in (offline, end)
    )
    means, on = offline["gain"].mean(), offline["task"].unique()
    chosen = [
        f"by {means[pair]:+.1f} points {words}"
        + ("" if pair in ranked else f" (on {', '.join(on[pair])} alone)")
        for pair, words in BY_AM_Q.items() if pair in means
    ]  # fmt: skip
    of = f"{len(ranked)}" if len(ranked) == len(means) else f"{len(ranked)} of {len(means)}"
    most, least, largest = str(ranked.idxmax()), str(ranked.idxmin()), str(reached.abs().idxmax())
    return (
        f"Means over tasks and seeds. Of the {of} swaps that were "
        f"played offline on all tasks, **{most}** adds most ({_told(swaps, most, 'offline')}) and "
        f"**{least}** least ({_told(swaps, least, 'offline')}). {_caveat(swaps, most, len(ranked))}"
        f" Choosing (i, κ) by AM-Q changes the offline score {' and '.join(chosen)}. After online "
        f"learning the largest difference among the {len(reached)} that all tasks played is "
        f"{reached[largest]:+.1f} points, of *{largest}*."
    )


def _caveat(swaps: pd.DataFrame, pair: str, ranked: int) -> str:
    """Why the largest swap is not as large as it looks; what it comes to online."""
    told = f"The largest of {ranked} noisy means looks larger than it is"
    if SAMPLED in SWAPS.get(pair, ()):
        told += ", and this one sets a noise-free score beside a sampled one"
    if not ((swaps["pair"] == pair) & (swaps["measure"] == "end")).any():
        return f"{told}; it was not played online here."
    return f"{told}. After online learning the same swap is at {_told(swaps, pair, 'end')}."


def _told(swaps: pd.DataFrame, pair: str, measure: str) -> str:
    """The mean gain of a swap, and in how many runs, one a task and seed, its first row is ahead;
    with its tasks where others have more."""
    part = swaps[(swaps["pair"] == pair) & (swaps["measure"] == measure)]
    ahead = f"{part['gain'].mean():+.1f} points, ahead in {(part['gain'] > 0).sum()} of {len(part)}"
    few = part["task"].nunique() < swaps["task"].nunique()
    return f"{ahead} runs" + (f", on {', '.join(part['task'].unique())} alone" if few else "")
