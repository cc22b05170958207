"""What the tables of E3 say. Pure functions of the tables; thresholds fixed before any run.

Scores are D4RL's, 0 a random policy and 100 D4RL's expert. A gain is a difference of two rows on
one task and seed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from uepo_lib.errors import check
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
HOLDS, MOVED = 0.9, 0.01
"""Online UEPO is stable if its last three evaluations average HOLDS of its highest one, and has
moved if the KL of ``shift.py`` from first to last policy, in nats, is above MOVED."""
MEASURES = {"offline": "offline score", "auc": "mean score online", "end": "final score"}

PAIRS = {
    "headline": ("uepo", "uni_o4"),
    "equal: select only": ("uepo", "uni_o4_select"),
    "equal: offline PPO": ("uepo_ppo", "uni_o4"),
    "UEPO over BC": ("uepo", "bc"),
    "privileged, equal steps": ("uepo_simulator", "uni_o4_more"),
}
"""Claims: the first row is said to be better than the second."""
SWAPS = {
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
    "offline PPO (diffusion)": ("uepo_ppo", "uepo"),
    "offline PPO (Gaussian)": ("uni_o4", "uni_o4_select"),
    "four policies, not one": ("uni_o4", "bppo"),
    "weights by advantage (also learning rate, schedule)": ("iql", "bc"),
    "offline learning at all (also network, settings)": ("bc", "scratch"),
}  # fmt: skip
"""What the first row has and the second has not; what changes with it stands after "also"."""


BY_AM_Q = {"(i, κ) by AM-Q, not κ = 0": "against κ = 0",
           "(i, κ) by AM-Q, not at random": "against a random candidate"}  # fmt: skip
"""The two swaps that say what choosing is worth."""

ONLINE_ONLY = ("scratch", "sac")
"""Rows that learn nothing offline: their first look is at an untrained network."""


def comes_with(candidates: int, members: int, chunk: int, single: int) -> str:
    """What else differs between the two policy classes of an equal row, in words."""
    return (
        f"{chunk} executed actions a decision against {single}, a choice among {candidates} pairs "
        f"(i, κ) against one among {members} members, a T̂ of D and D_diff against T̂_init of D "
        "alone, and the online settings that were tuned for each class"
    )


def wide(scores: pd.DataFrame, online: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Scores by (task, seed) and row. Of ``offline`` a row without noise-free actions of its own
    has its sampled ones, and one that learns nothing offline has none."""
    if measure == "offline":
        found = scores[~scores["row"].isin(ONLINE_ONLY)].copy()
        fresh = found["row"] == "fresh"
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
        for pair, (ours, theirs) in pairs.items():
            if ours not in table or theirs not in table:
                continue
            both = table[[ours, theirs]].dropna().set_axis(["ours", "theirs"], axis=1)
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


def aggregate(gained: pd.DataFrame, without: tuple[str, ...] = ()) -> pd.DataFrame:
    """Over all tasks but ``without``, which is where settings were tuned: pair, measure, tasks,
    seeds, gain of the interquartile means with its stratified bootstrap interval (low, high), the
    probability of improvement, verdict."""
    rows = []
    kept = gained[~gained["task"].isin(without)]
    for (pair, measure), part in kept.groupby(["pair", "measure"], sort=False):
        ours, theirs = (_square(part, side) for side in ("ours", "theirs"))
        found = stratified_bootstrap(
            ours, theirs, statistic=_difference, generator=np.random.default_rng(0)
        )
        better = probability_of_improvement(ours, theirs)
        verdict = verdict_on_gain(found, len(ours))
        rows.append(
            (pair, measure, ours.shape[1], len(ours), found.mean, found.low, found.high, better,
             verdict)
        )  # fmt: skip
    columns = [
        "pair", "measure", "tasks", "seeds", "gain", "low", "high", "probability", "verdict"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


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
    largest = str(reached.abs().idxmax())
    return (
        f"Means over tasks and seeds. Of the {len(ranked)} of {len(means)} swaps that were "
        f"played offline on all tasks, **{ranked.idxmax()!s}** adds most ({ranked.max():+.1f} "
        f"points) and **{ranked.idxmin()!s}** least ({ranked.min():+.1f}). Choosing (i, κ) by AM-Q "
        f"changes the offline score {' and '.join(chosen)}. After online learning the largest "
        f"difference among the {len(reached)} that all tasks played is {reached[largest]:+.1f} "
        f"points, of *{largest}*."
    )


def _square(part: pd.DataFrame, side: str) -> np.ndarray:
    table = part.pivot(index="seed", columns="task", values=side)
    check(not table.isna().any(axis=None), "seeds", "missing on a task", "the same on every task")
    return table.to_numpy()


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return interquartile_mean(ours) - interquartile_mean(theirs)


def relative_claim(gained: pd.DataFrame, measure: str, family: str) -> tuple[Interval, str]:
    """The paper's claim for ``family``: the gain on totals over tasks, relative to theirs, with its
    interval over seeds, and the verdict against :data:`CLAIMED`."""
    part = gained[(gained["pair"] == "headline") & (gained["measure"] == measure)]
    totals = part.groupby("seed")[["ours", "theirs"]].sum()
    found = mean_interval((totals["ours"] - totals["theirs"]) / totals["theirs"].mean())
    return found, verdict_on_gain(found, len(totals), CLAIMED[family])


def stability(online: pd.DataFrame, row: str = "uepo") -> pd.DataFrame:
    """Is the online phase of ``row`` stable, does it gain, did it move? A row a task: gain with its
    interval over seeds, and the share of seeds that meet each rule."""
    rows = []
    for task, part in online[online["row"] == row].groupby("task", sort=False):
        found = mean_interval(part["gain"])
        holds = part["last_three"] >= HOLDS * part["highest"]
        rows.append(
            {"task": task, "start": part["start"].mean(), "end": part["end"].mean(),
             "gain": found.mean, "low": found.low, "high": found.high, "holds": holds.mean(),
             "not_below_start": (part["last_three"] >= part["first_look"]).mean(),
             "moved": (part["shift"] > MOVED).mean(), "shift": part["shift"].mean(),
             "seeds": len(part)}
        )  # fmt: skip
    return pd.DataFrame(rows)


def offline_improvement(selection: pd.DataFrame) -> pd.DataFrame:
    """Is Uni-O4's offline phase better than its own clones? The same members before and after, by
    their true returns, with "noise-free" and with "sampled" actions, and by AM-Q, which accepted
    them: task, actions, before, after, gain, low, high (over seeds), judged (the mean gain by AM-Q,
    in percent), seeds."""
    pair = selection[selection["method"].isin(["Uni-O4", "Uni-O4, clones"])]
    means = pair.pivot_table(
        index=["task", "seed"], columns="method", values=["score", "sampled", "dead_zero"],
        sort=False,
    )  # fmt: skip
    rows = []
    for task, part in means.groupby(level="task", sort=False):
        judge = part["dead_zero"]
        by_am_q = 100 * float((judge["Uni-O4"] / judge["Uni-O4, clones"] - 1).mean())
        for actions, name in (("noise-free", "score"), ("sampled", "sampled")):
            before, after = part[name]["Uni-O4, clones"], part[name]["Uni-O4"]
            found = mean_interval(after - before)
            rows.append(
                (task, actions, before.mean(), after.mean(), found.mean, found.low, found.high,
                 by_am_q, len(part))
            )  # fmt: skip
    columns = [
        "task", "actions", "before", "after", "gain", "low", "high", "judged", "seeds"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def judged(selection: pd.DataFrame, score: str = "dead_zero") -> pd.DataFrame:
    """Does AM-Q know? Spearman's correlation of ``score`` with the true score, and what the choice
    loses to the best: task, seed, method, correlation, chosen, best, regret, mean."""
    rows = []
    for (task, seed, method), part in selection.groupby(["task", "seed", "method"], sort=False):
        chosen = float(part["score"].iloc[int(part[score].to_numpy().argmax())])
        best = float(part["score"].max())
        alike = part[score].nunique() < 2 or part["score"].nunique() < 2
        rho = float("nan") if alike else float(stats.spearmanr(part[score], part["score"])[0])
        rows.append((task, seed, method, rho, chosen, best, best - chosen, part["score"].mean()))
    columns = ["task", "seed", "method", "correlation", "chosen", "best", "regret", "mean"]
    return pd.DataFrame(rows, columns=columns)
