"""E9: does the method need less data? The same learners from 1, 10 and 100 % of D.

A slice is whole episodes of D but the last (``slices.py``), the same for every seed: the smallest
is one draw of a few episodes, and an interval over seeds does not hold its luck. Each learner makes
the same number of updates whatever it learns from, fewer than the other notebooks', and not by one
factor, so that the grid can be run. UEPO is the offline phase of Algorithm 1 on the slice alone:
its diffusion policy and T̂_init, D_diff from both, T̂ on slice and D_diff, its critic. What chooses
the weights of T̂ is counted in the slice. D_diff, and that choice by the slice alone, came after
first tables had been seen: in those UEPO had neither. So did the rule that a selection which loses
to zero noise, one of its own candidates, leaves the claim untested.

**Expected** before any of it was computed: all learners lose by fewer data; choosing among noises
does not make up for it, since T̂ and Q that choose are learnt from the same few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from uepo_lib import profiles, statistics
from uepo_lib.errors import check
from uepo_lib.evaluation import Evaluation
from uepo_lib.expectations import UNMET, answer, line
from uepo_lib.experiments.sensitivity_verdict import POINTS
from uepo_lib.methods.uepo import UEPOConfig, uepo
from uepo_lib.runs import Run
from uepo_lib.slices import LoneSlice
from uepo_lib.stages import Product, Study

TASK = "hopper-medium"
CLONE, ZERO, SELECTED = "Gaussian clone", "zero noise", "UEPO, selected"
AHEAD, FURTHER = "ahead of the clone", "further ahead than with the most data"
"""The claim, in two questions."""
SELECTS = "ahead of zero noise"
"""What the claim takes for granted: zero noise is a candidate, so what is chosen is no worse."""
UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class DataGrid:
    """Shares of D, the updates of each learner, the episodes that judge it, and |D_diff|."""

    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Of nine tenths of D: the tenth of the episodes that is held out elsewhere is not used."""
    diffusion: int = 800
    clone: int = 2_500
    critic: int = 2_000
    dynamics: int = 800
    episodes: int = 16
    ratio: float = 1.0
    """|D_diff| of the slice's size."""

    def __post_init__(self) -> None:
        valid = len(self.shares) > 0 and min(self.shares) > 0 and max(self.shares) <= 1
        check(valid, "shares", self.shares, "in (0, 1]")
        for name in ("diffusion", "clone", "critic", "dynamics", "episodes", "ratio"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")

    def overrides(self) -> dict[str, dict[str, Any]]:
        """By component, for a study."""
        return {
            "diffusion": {"num_updates": self.diffusion},
            "clone": {"num_updates": self.clone},
            "critic": {"num_updates": self.critic},
            "dynamics": {"max_updates": self.dynamics},
        }


GRIDS = {
    "smoke": DataGrid((0.1, 1.0), 30, 30, 50, 50, 2, 0.5),
    "laptop": DataGrid(),
    "full": DataGrid((0.01, 0.03, 0.1, 0.3, 1.0), 5_000, 10_000, 20_000, 2_000, 50, 2.0),
    "paper": DataGrid((0.01, 0.03, 0.1, 0.3, 1.0), 50_000, 50_000, 200_000, 20_000, 50, 2.0),
}


def grid_of(profile: str) -> DataGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


def evaluations(
    seed: int, profile: str, grid: DataGrid | None = None
) -> Iterator[tuple[float, int, str, Product[Evaluation], LoneSlice]]:
    """Share of D, transitions, learner, its noise-free episodes, and the study they belong to."""
    grid = grid or grid_of(profile)
    for share, study in _studies(seed, profile, grid):
        model = study.diffusion_policy()
        learners: dict[str, Product[Any]] = {
            CLONE: study.clone(), ZERO: study.zero_noise(model),
            SELECTED: uepo(study, method(study, grid.ratio)).selected,
        }  # fmt: skip
        for name, policy in learners.items():
            yield share, study.size, name, study.evaluate(policy, grid.episodes), study


def _studies(seed: int, profile: str, grid: DataGrid) -> Iterator[tuple[float, LoneSlice]]:
    """Shares of D, and the study that learns from each."""
    whole = Study(TASK, seed, profile, progress=False)
    for share in grid.shares:
        size = max(1, round(share * len(whole.held_out[0])))
        yield share, LoneSlice(TASK, seed, size, profile, grid.overrides(), progress=False)


def method(study: LoneSlice, ratio: float) -> UEPOConfig:
    """UEPO with |D_diff| ``ratio`` times the slice, and not what stands beside it."""
    return UEPOConfig(ratio=ratio * study.size / len(study.dataset))


def compute(seed: int, profile: str, grid: DataGrid | None = None) -> None:
    """Every run of one seed."""
    for *_, played, _ in evaluations(seed, profile, grid):
        _ = played.run


def run(profile: str, grid: DataGrid | None = None) -> tuple[pd.DataFrame, list[Run]]:
    """Every seed of ``profile``: columns seed, share, transitions, learner, score; and the runs."""
    rows: list[tuple[Any, ...]] = []
    runs: list[Run] = []
    for seed in profiles.budget(profile).seeds:
        for share, size, name, played, study in evaluations(seed, profile, grid):
            score = study.task.robot.normalised(float(played.value.returns.mean()))
            rows.append((seed, share, size, name, score))
            runs += played.runs
    columns = ["seed", "share", "transitions", "learner", "score"]
    return pd.DataFrame(rows, columns=columns), runs


def slices(profile: str, grid: DataGrid | None = None) -> pd.DataFrame:
    """What each share of D is: columns share, transitions, episodes (the last one may be cut)."""
    rows = []
    seed = profiles.budget(profile).seeds[0]
    for share, study in _studies(seed, profile, grid or grid_of(profile)):
        rows.append((share, study.size, len(study.learnt.bounds)))
    return pd.DataFrame(rows, columns=["share", "transitions", "episodes"])


# -- what the tables say


def needs_less(table: pd.DataFrame) -> pd.DataFrame:
    """Is π* ahead of the clone, and more so with fewer data? And is it ahead of zero noise? Columns
    question, share, gain (mean), gains (one a seed), verdict (:func:`statistics.verdict`).

    The second question is the one of the claim: the lead at a share less the lead at the largest.
    """
    wide = table.pivot(index=["share", "seed"], columns="learner", values="score")
    lead, over_zero = ((wide[SELECTED] - wide[one]).unstack("seed") for one in (CLONE, ZERO))
    rows = []
    for share, gains in lead.iterrows():
        rows.append((AHEAD, share, gains))
        if share < lead.index.max():
            rows.append((FURTHER, share, gains - lead.iloc[-1]))
    rows += [(SELECTS, share, gains) for share, gains in over_zero.iterrows()]
    return pd.DataFrame(
        [
            (question, share, float(gains.mean()), gains.tolist(),
             statistics.verdict(gains.tolist()))
            for question, share, gains in rows
        ],
        columns=["question", "share", "gain", "gains", "verdict"],
    )  # fmt: skip


def label(needed: pd.DataFrame) -> str:
    """Of the claim that less data is needed: both questions must say so, at the smallest share.

    Not testable where selection fails with the most data (:func:`fails`): a policy that is bad
    there is further ahead with fewer data as soon as it is a little less bad.
    """
    if fails(needed):
        return UNTESTABLE
    claimed = needed[needed["question"].isin([AHEAD, FURTHER])]
    fewest = claimed[claimed["share"] == needed["share"].min()]
    return statistics.weakest([verdict.partition(" (")[0] for verdict in fewest["verdict"]])


def fails(needed: pd.DataFrame) -> bool:
    """Does π* lose to zero noise with the most data, by more than E2's ``POINTS`` on average?"""
    most = needed[(needed["question"] == SELECTS) & (needed["share"] == needed["share"].max())]
    return bool((most["gain"] < -POINTS).any())


def told(needed: pd.DataFrame) -> str:
    """:func:`needs_less` in words, with the label of the claim."""
    lines = [
        f"{question} by "
        + ", ".join(f"{row.gain:+.1f} at {row.share:.0%} of D" for row in part.itertuples())
        for question, part in needed.groupby("question", sort=False)
    ]
    why = ": selection fails at these budgets" if fails(needed) else ""
    said = f"**Less data needed: {label(needed)}{why}.** The selected policy is, in points, "
    return f"{said}{'; '.join(lines)}."


def expected(table: pd.DataFrame) -> list[str]:
    """Was what was expected found? From the largest share of D to the smallest. "Does not make up
    for it" is read as: π*'s lead over zero noise, the same network, is no larger with fewer data.
    """
    wide = table.pivot(index=["share", "seed"], columns="learner", values="score")
    fewest, most = wide.loc[table["share"].min()], wide.loc[table["share"].max()]
    return [
        line("All learners lose by fewer data (points)", (most - fewest).T.stack(),
             shown="{:+.1f}"),
        _made_up_for((wide[SELECTED] - wide[ZERO]).unstack("seed")),
    ]  # fmt: skip


def _made_up_for(lead: pd.DataFrame) -> str:
    """The second line: ``lead`` has a row a share and a column a seed."""
    told = ", ".join(f"{gain:+.1f} at {share:.0%}" for share, gain in lead.mean(axis=1).items())
    fewest, most = lead.index.min(), lead.index.max()
    said = answer(lead.loc[most] - lead.loc[fewest], ties=True)
    text = (
        "Choosing does not make up for it: what it gains over zero noise is no larger at "
        f"{fewest:.0%} of D than at {most:.0%} (points: {told}): {said}."
    )
    if said == UNMET:
        text += " In every seed it is larger."
    if lead.loc[most].mean() < 0:
        text += (
            f" At {most:.0%} what was chosen is worse than zero noise, which could have been "
            "chosen: a gain of choosing that fewer data could take away was not there."
        )
    return text
