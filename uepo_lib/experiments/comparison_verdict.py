"""What the tables of E3 say. Pure functions of the tables; thresholds fixed before any run.

That a label needs three intervals which agree, and no opposite sign off the tuning task, was added
when tables of three seeds had been seen; it can only take a label away.

Scores are D4RL's, 0 a random policy and 100 D4RL's expert. A gain is a difference of two rows on
one task and seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from uepo_lib.errors import check
from uepo_lib.settings import HANDS, TUNED_ON
from uepo_lib.statistics import (
    Interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
    stratified_bootstrap,
    verdict_on_gain,
)

CLAIMED = {"locomotion": 0.059, "hand": 0.124}
"""The paper's gains over Uni-O4, relative to Uni-O4's total."""
UNTESTABLE = "not testable here"
"""The label of a claim that these tables cannot be asked about."""
MEASURES = {"offline": "offline score", "auc": "mean score online", "end": "final score"}

AT_ONE = "UEPO, κ = 1 over Uni-O4"
"""The second headline: the paper's own selection."""
PAIRS = {
    "headline": ("uepo", "uni_o4"),
    AT_ONE: ("uepo_printed", "uni_o4"),
    "equal: select only": ("uepo", "uni_o4_select"),
    "equal: offline PPO": ("uepo_ppo", "uni_o4"),
    "UEPO over BC": ("uepo", "bc"),
    "UEPO over IQL": ("uepo", "iql"),
    "privileged, equal steps": ("uepo_simulator", "uni_o4_more"),
}
"""Claims: the first row is said to be better than the second."""
SWAPS = {
    "κ chosen too, not κ = 1": ("uepo", "uepo_printed"),
    "(i, κ) by AM-Q, not κ = 0": ("uepo", "kappa_0"),
    "(i, κ) by AM-Q, not at random": ("uepo", "random"),
    "(i, κ) by AM-Q, not fresh noise (also κ against 1)": ("uepo", "fresh"),
    "fixed noise, not fresh, both κ = 1": ("kappa_1", "fresh"),
    "one plan for good, not the best in each state (also AM-Q against Q alone)": (
        "uepo", "greedy",
    ),
    "PPO on the chain, not on a Gaussian (also chunks, settings)": ("uepo", "distilled"),
    "diffusion, not regression": ("kappa_0", "mse"),
    "U-Net + Transformer, not a perceptron (also loss, optimiser, updates)": ("mse", "bc_chunk"),
    "chunks, not single actions (also online settings)": ("bc_chunk", "bc"),
    "offline PPO, diffusion": ("uepo_ppo", "uepo"),
    "offline PPO, Gaussian (also AM-Q's choice after it)": ("uni_o4", "uni_o4_select"),
    "four policies, not one": ("uni_o4", "bppo"),
    "weights by advantage (also learning rate, schedule)": ("iql", "bc"),
    "offline learning at all (also network, settings)": ("bc", "scratch"),
}  # fmt: skip
"""What the first row has and the second has not; what changes with it stands after "also"."""
WITHOUT = f"without {TUNED_ON}"
SETS = ("kappa_1", "random")
"""Rows that are means over many policies. What they are compared with offline is scored on the same
episodes, fewer than those of other rows."""
SAMPLED = "fresh"
"""The row that has no noise-free actions: its offline score is that of sampled ones."""
ONLINE_ONLY = ("scratch", "sac")
"""Rows that learn nothing offline: their first look is at an untrained network."""


def wide(scores: pd.DataFrame, online: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Scores by (task, seed) and row. Of ``offline`` a row without noise-free actions of its own
    has its sampled ones, and one that learns nothing offline has none; ``few`` are offline scores
    as well, on the episodes of :data:`SETS`."""
    if measure == "few":
        found = scores.assign(value=scores["few"])
    elif measure == "offline":
        found = scores[~scores["row"].isin(ONLINE_ONLY)].copy()
        fresh = found["row"] == SAMPLED
        found["value"] = found["offline"].where(~fresh, found["sampled"])
    else:
        check(measure in MEASURES, "measure", measure, f"one of {list(MEASURES)}")
        found = online.assign(value=online[measure])
    return found.pivot(index=["task", "seed"], columns="row", values="value")


def results(scores: pd.DataFrame, online: pd.DataFrame) -> pd.DataFrame:
    """A row a task and contender. Means over seeds of offline (noise-free), sampled,
    end, auc and regret (in points × 1,000 steps), each beside its half-width of the 95 % interval
    ("± …"); to_expert, the mean steps to 90 % of the expert of the seeds that got there, and
    reached, how many did of how many."""
    both = scores.merge(online, on=["task", "seed", "row"], how="left")
    both["regret"] /= 1_000
    rows = []
    for (task, row), part in both.groupby(["task", "row"], sort=False):
        found: dict[str, object] = {"task": task, "row": row}
        for name in ("offline", "sampled", "end", "auc", "regret"):
            values = part[name].dropna()
            known = mean_interval(values) if len(values) > 1 else None
            found[name] = values.mean()
            found[f"± {name}"] = known.mean - known.low if known else float("nan")
        went = part.dropna(subset="to_expert")
        there = went[went["censored"] == False]  # noqa: E712 (objects after an outer merge)
        found["to_expert"] = there["to_expert"].mean()
        found["reached"] = f"{len(there)} of {len(went)}" if len(went) else ""
        rows.append(found)
    return pd.DataFrame(rows)


def gains(
    scores: pd.DataFrame, online: pd.DataFrame, pairs: dict[str, tuple[str, str]]
) -> pd.DataFrame:
    """A row a pair, measure, task and seed where both rows were played: pair, measure, task, seed,
    ours, theirs, gain."""
    parts = []
    for measure in MEASURES:
        table = wide(scores, online, measure)
        for pair, rows in pairs.items():
            if not set(rows) <= set(table):
                continue
            few = measure == "offline" and not set(rows).isdisjoint(SETS)
            both = (wide(scores, online, "few") if few else table)[list(rows)].dropna()
            both = both.set_axis(["ours", "theirs"], axis=1)
            parts.append(both.reset_index().assign(pair=pair, measure=measure))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(gain=found["ours"] - found["theirs"])


def by_task(gained: pd.DataFrame) -> pd.DataFrame:
    """Mean gain and its interval over seeds: pair, measure, task, mean, low, high, seeds."""
    rows = []
    for (pair, measure, task), part in gained.groupby(["pair", "measure", "task"], sort=False):
        found = mean_interval(part["gain"])
        rows.append((pair, measure, task, found.mean, found.low, found.high, len(part)))
    return pd.DataFrame(rows, columns=["pair", "measure", "task", "mean", "low", "high", "seeds"])


def aggregate(gained: pd.DataFrame) -> pd.DataFrame:
    """Over tasks: pair, measure, tasks, seeds, gain of the interquartile means with its stratified
    bootstrap interval (low, high), paired, the mean over tasks of the gains on the same seed, with
    its own (paired_low, paired_high) and with Student's t over seeds (t_low, t_high), the
    probability of improvement, verdict.

    The two sides of ``gain`` are trimmed apart, so that it may be the difference of two different
    tasks; ``paired`` is not, but one task can carry it. A label therefore needs all three intervals
    to give it (:func:`agreed`), and none is given to a gain that has the opposite sign, ``paired``,
    without the task that settings were chosen on."""
    rows = []
    for (pair, measure), part in gained.groupby(["pair", "measure"], sort=False):
        ours, theirs = (_square(part, side) for side in ("ours", "theirs"))
        found, paired = (
            stratified_bootstrap(*tables, statistic=how, generator=np.random.default_rng(0))
            for tables, how in (((ours, theirs), _difference), ((ours - theirs,), np.mean))
        )
        student = over_seeds(ours - theirs)
        rows.append(
            {"pair": pair, "measure": measure, "tasks": ours.shape[1], "seeds": len(ours),
             "gain": found.mean, "low": found.low, "high": found.high, "paired": paired.mean,
             "paired_low": paired.low, "paired_high": paired.high,
             "t_low": student.low, "t_high": student.high,
             "probability": probability_of_improvement(ours, theirs),
             "verdict": agreed((found, paired, student), len(ours), untuned(part)["gain"].mean())}
        )  # fmt: skip
    return pd.DataFrame(rows)


def over_seeds(gains: np.ndarray) -> Interval:
    """Student's t interval over seeds of the mean over tasks of ``gains`` (seeds, tasks). A
    bootstrap of few seeds is too narrow; this one is not. One seed has none."""
    means = gains.mean(axis=1)
    if len(means) < 2:
        return Interval(float(means.mean()), math.nan, math.nan)
    return mean_interval(means)


def agreed(ways: Sequence[Interval], seeds: int, elsewhere: float = math.nan) -> str:
    """The label of a gain that was measured in several ``ways``: the one that all of them have.
    "inconclusive" if they differ, or if ``elsewhere``, the gain on the tasks that no setting was
    chosen on, has the opposite sign; NaN is no such task."""
    label, *others = {verdict_on_gain(each, seeds) for each in ways}
    opposite = {"supported": elsewhere < 0, "not supported": elsewhere > 0}
    return "inconclusive" if others or opposite.get(label, False) else label


def aggregates(gained: pd.DataFrame) -> pd.DataFrame:
    """:func:`aggregate` over "all tasks" and, where there are others, without the one that settings
    were chosen on: a column ``over``."""
    found = [aggregate(gained).assign(over="all tasks")]
    others = untuned(gained)
    if 0 < len(others) < len(gained):
        found.append(aggregate(others).assign(over=WITHOUT))
    return pd.concat(found, ignore_index=True)


def untuned(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of all tasks but the one that settings were chosen on, wherever its data are
    from."""
    return table[table["task"].str.partition("@")[0] != TUNED_ON]


def _square(part: pd.DataFrame, side: str) -> np.ndarray:
    table = part.pivot(index="seed", columns="task", values=side)
    check(not table.isna().any(axis=None), "seeds", "missing on a task", "the same on every task")
    return table.to_numpy()


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return interquartile_mean(ours) - interquartile_mean(theirs)


def of_family(gained: pd.DataFrame, family: str) -> pd.DataFrame:
    """The rows of ``family``'s tasks: the robot hand's, or those of locomotion, all others."""
    hand = gained["task"].str.partition("-")[0].isin(HANDS)
    return gained[hand if family == "hand" else ~hand]


def relative_claim(
    gained: pd.DataFrame, measure: str, family: str, pair: str = "headline"
) -> tuple[Interval, str]:
    """The paper's claim for ``family``: the gain on totals over tasks, relative to the mean over
    seeds of their totals, with its interval over seeds, and the verdict against :data:`CLAIMED`.

    The interval takes that base as known, so it is the gain's alone. A share of a base that is not
    positive is not defined: NaN, and the verdict :data:`UNTESTABLE`.
    """
    part = gained[(gained["pair"] == pair) & (gained["measure"] == measure)]
    totals = part.groupby("seed")[["ours", "theirs"]].sum()
    base = totals["theirs"].mean()
    if base <= 0:  # the sign of the share would be the opposite of the gain's
        return Interval(math.nan, math.nan, math.nan), UNTESTABLE
    found = mean_interval((totals["ours"] - totals["theirs"]) / base)
    return found, verdict_on_gain(found, len(totals), CLAIMED[family])


def relative_told(gained: pd.DataFrame, measure: str, family: str) -> tuple[str, str] | None:
    """:func:`relative_claim` in words with its tasks, beside it the same without the task that
    settings were chosen on and with κ = 1 alone; and the verdict. None without a task of
    ``family``."""
    mine = of_family(gained, family)
    mine = mine[mine["measure"] == measure]
    headline = mine[mine["pair"] == "headline"]
    if headline.empty:
        return None
    said = [_share(mine, measure, family, "headline")]
    others = untuned(mine)
    if 0 < len(others) < len(mine):
        said.append(f"{WITHOUT} {_share(others, measure, family, 'headline', False)}")
    if (mine["pair"] == AT_ONE).any():
        said.append(f"with κ = 1 alone {_share(mine, measure, family, AT_ONE)}")
    return "; ".join(said), relative_claim(mine, measure, family)[1]


def _share(gained: pd.DataFrame, measure: str, family: str, pair: str, named: bool = True) -> str:
    share, _ = relative_claim(gained, measure, family, pair)
    tasks = ", ".join(dict.fromkeys(gained.loc[gained["pair"] == pair, "task"]))
    within = f"{share.mean:+.1%} [{share.low:+.1%}, {share.high:+.1%}]"
    if math.isnan(share.mean):
        within = "not defined (the base is not positive)"
    return f"{within} on {tasks}" if named else within
