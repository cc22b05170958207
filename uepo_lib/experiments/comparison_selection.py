"""Did AM-Q know? What E3's table of candidates says; pure functions of it.

A candidate is a policy that AM-Q judged without playing it; its true score is over few episodes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from uepo_lib.statistics import mean_interval

AT_ONE, AT_ONE_INITIAL = "UEPO, κ = 1", "UEPO, κ = 1, by T̂_init"
"""The paper's candidates, all seeds at κ = 1, judged in T̂ and in the model without D_diff."""
CLONES, IMPROVED = "Uni-O4, clones", "Uni-O4"
"""Its members before and after offline PPO."""


def halves(returns: Tensor) -> dict[str, Tensor]:
    """Mean returns (n,) over the even and over the odd ones of (n, E) episodes; of one episode,
    that one twice."""
    return {
        "even": returns[:, 0::2].mean(1),
        "odd": returns[:, min(1, returns.shape[1] - 1) :: 2].mean(1),
    }


def chosen(candidates: pd.DataFrame, score: str = "dead_zero") -> pd.Series:
    """The candidate of one task and seed that ``score`` likes best: the first, if several."""
    return candidates.iloc[int(candidates[score].to_numpy().argmax())]


def judged(selection: pd.DataFrame, score: str = "dead_zero") -> pd.DataFrame:
    """Does AM-Q know? Spearman's correlation of ``score`` with the true score, and what the choice
    loses to the best: task, seed, method, correlation, chosen, best, regret, mean.

    ``best`` is found on one half of the episodes and scored on the other, both ways: the largest of
    many noisy means is too large, and the more so the more candidates there are. So ``regret``,
    best − chosen on the same halves, may be negative.
    """
    rows = []
    for (task, seed, method), part in selection.groupby(["task", "seed", "method"], sort=False):
        taken = chosen(part, score)
        ways = [(chosen(part, one)[other], taken[other])
                for one, other in (("even", "odd"), ("odd", "even"))]  # fmt: skip
        best, mine = np.mean(ways, axis=0)
        alike = part[score].nunique() < 2 or part["score"].nunique() < 2
        rho = float("nan") if alike else float(stats.spearmanr(part[score], part["score"])[0])
        rows.append(
            (task, seed, method, rho, taken["score"], best, best - mine, part["score"].mean())
        )
    columns = ["task", "seed", "method", "correlation", "chosen", "best", "regret", "mean"]
    return pd.DataFrame(rows, columns=columns)


def choices_told(known: pd.DataFrame) -> str:
    """What AM-Q's choice is worth, in words, from :func:`judged`: means over tasks and seeds."""
    mean = known.groupby("method")[["correlation", "chosen", "best", "mean"]].mean()
    ours, there, before = (mean.loc[name] for name in ("UEPO", AT_ONE, AT_ONE_INITIAL))
    return (
        f"AM-Q's choice among UEPO's candidates scores **{ours['chosen']:.1f}**, a random one "
        f"{ours['mean']:.1f}, the best {ours['best']:.1f}; Spearman's correlation is "
        f"{ours['correlation']:.2f}. Among κ = 1 alone its choice scores {there['chosen']:.1f} "
        f"in T̂ and {before['chosen']:.1f} in T̂_init, a random one {there['mean']:.1f}."
    )


def kappas_told(selection: pd.DataFrame) -> str:
    """Which κ AM-Q chose for UEPO, by task, in words; κ = 0 is a policy without any seed."""
    ours = selection[selection["method"] == "UEPO"]
    picked = pd.DataFrame(
        [
            (task, chosen(part)["kappa"])
            for (task, _), part in ours.groupby(["task", "seed"], sort=False)
        ],
        columns=["task", "kappa"],
    )
    by_task = [
        f"{', '.join(f'{kappa:g}' for kappa in part)} on {task}"
        for task, part in picked.groupby("task", sort=False)["kappa"]
    ]
    return (
        f"AM-Q chose κ = 0, a policy without any seed, in **{(picked['kappa'] == 0).sum()} of "
        f"{len(picked)}** cases (κ by seed: {'; '.join(by_task)})."
    )


def offline_improvement(selection: pd.DataFrame) -> pd.DataFrame:
    """Is Uni-O4's offline phase better than its own clones? The same members before and after, by
    their true returns, with "noise-free" and with "sampled" actions, and by AM-Q, which accepted
    them: task, actions, before, after, gain, low, high (over seeds), judged (the mean gain by AM-Q,
    in percent; NaN if some seed's before is not positive, which has no share), seeds."""
    pair = selection[selection["method"].isin([IMPROVED, CLONES])]
    means = pair.pivot_table(
        index=["task", "seed"], columns="method", values=["score", "sampled", "dead_zero"],
        sort=False,
    )  # fmt: skip
    rows = []
    for task, part in means.groupby(level="task", sort=False):
        judge = part["dead_zero"]
        base = judge[CLONES]
        share = judge[IMPROVED] / base.where(base > 0) - 1
        by_am_q = 100 * float(share.mean(skipna=False))
        for actions, name in (("noise-free", "score"), ("sampled", "sampled")):
            before, after = part[name][CLONES], part[name][IMPROVED]
            found = mean_interval(after - before)
            rows.append(
                (task, actions, before.mean(), after.mean(), found.mean, found.low, found.high,
                 by_am_q, len(part))
            )  # fmt: skip
    columns = [
        "task", "actions", "before", "after", "gain", "low", "high", "judged", "seeds"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def offline_phase(known: pd.DataFrame) -> pd.DataFrame:
    """What became of Uni-O4's member in its offline phase, from :func:`judged`, by task as means
    over seeds: ``members``, the change of their mean true score by offline PPO; ``choice``, that of
    what AM-Q's choice adds to their mean; together, the change of the chosen one. Besides its score
    after it all, ``chosen``, and the improved members' mean, ``mean``."""
    both = known[known["method"].isin([CLONES, IMPROVED])]
    wide = both.pivot_table(
        index="task", columns="method", values=["chosen", "mean"], sort=False
    )  # fmt: skip
    mean, adds = wide["mean"], wide["chosen"] - wide["mean"]
    found = {"members": mean[IMPROVED] - mean[CLONES], "choice": adds[IMPROVED] - adds[CLONES]}
    return pd.DataFrame({**found, "chosen": wide["chosen"][IMPROVED], "mean": mean[IMPROVED]})
