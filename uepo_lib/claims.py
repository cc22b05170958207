"""Every claim of the paper beside what was measured here (arXiv 2511.10087).

A claim names where it stands, what it promises, and how it is judged: a function of the tables that
the experiments' own notebooks show. Its verdict is theirs; nothing is decided anew here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from uepo_lib import claims_comparison, statistics
from uepo_lib.claims_comparison import Found
from uepo_lib.errors import check
from uepo_lib.experiments import (
    comparison_verdict,
    data_need,
    epsilon,
    epsilon_verdict,
    multi_seed,
    multi_seed_verdict,
    offline_to_online,
    ratios,
    seed_sets,
    sensitivity_verdict,
)
from uepo_lib.guided_sets import SHIPPED, STRONG
from uepo_lib.runs import Run

LABELS = ("supported", "partly", "not supported", "inconclusive", "not testable here")
PAPERS_EPSILON = 0.05


class Results:
    """The tables of one profile; each is made, from finished runs, when it is first asked for."""

    def __init__(self, profile: str) -> None:
        self.profile, self.runs = profile, dict[str, list[Run]]()

    def _keep(self, name: str, runs: list[Run]) -> None:
        self.runs[name] = runs

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """E1's claims, by task; and one of them at other κ, which is told beside it."""
        found = multi_seed.run(self.profile)
        self._keep("E1", [*found["returns"][1], *found["distances"][1]])
        tables = found["returns"][0], found["distances"][0]
        kappas = [kappa for kappa in seed_sets.grid_of(self.profile).kappas if kappa != 1]
        others = multi_seed_verdict.at_other_kappas(*tables, kappas)
        return pd.concat([multi_seed_verdict.claims(*tables), others], ignore_index=True)

    @cached_property
    def dynamics(self) -> pd.DataFrame:
        """E2's gains over T̂_init at ratio 1."""
        table, runs = epsilon.run(self.profile)
        self._keep("E2", runs)
        return epsilon_verdict.gains(table)

    @cached_property
    def ratios(self) -> pd.DataFrame:
        """E2's gains over T̂_init by ratio."""
        table, runs = ratios.run(self.profile)
        self._keep("E2, ratios", runs)
        return epsilon_verdict.gains(table)

    @cached_property
    def comparison(self) -> dict[str, pd.DataFrame]:
        """E3's tables."""
        tables, runs = offline_to_online.run(self.profile)
        self._keep("E3", runs)
        return tables

    @cached_property
    def headline(self) -> pd.DataFrame:
        """Gains of UEPO over Uni-O4 by pair, measure, task and seed."""
        tables = self.comparison
        says = comparison_verdict
        return says.gains(tables["scores"], tables["online"], says.PAIRS)

    @cached_property
    def data_need(self) -> pd.DataFrame:
        """E9's questions."""
        table, runs = data_need.run(self.profile)
        self._keep("E9", runs)
        return data_need.needs_less(table)


Judge = Callable[[Results], Found]


@dataclass(frozen=True)
class Claim:
    """What the paper says, in our words; where it says it; where it is measured here."""

    text: str
    where: str
    notebook: str
    judge: Judge


def judge(results: Results) -> pd.DataFrame:
    """Every claim: columns claim, where, measured, seeds, verdict, notebook."""
    rows = []
    for claim in CLAIMS:
        found = claim.judge(results)
        check(found.verdict in LABELS, "verdict", found.verdict, f"one of {LABELS}")
        rows.append((claim.text, claim.where, *found, claim.notebook))
    columns = ["claim", "where", "measured", "seeds", "verdict", "notebook"]
    return pd.DataFrame(rows, columns=columns)


# -- how each is judged


def _relative(family: str, measure: str) -> Judge:
    return lambda results: claims_comparison.relative(results.headline, family, measure)


def _aggregate(pair: str, measure: str, unit: str) -> Judge:
    return lambda results: claims_comparison.aggregate(results.headline, pair, measure, unit)


def _shift(results: Results) -> Found:
    return claims_comparison.shift(results.comparison["online"])


def _seeds(claim: str, unit: str, control: str = "", beside: str = "") -> Judge:
    """A claim of E1; of several tasks the weakest label, as the claim is made for all. ``control``
    is one that is told besides, in units of ``beside``, and has no part in the label."""

    def found(results: Results) -> Found:
        part = results.seeds[results.seeds["claim"] == claim]
        if part.empty:
            return Found("not played at this profile", 0, "not testable here")
        other = results.seeds[results.seeds["claim"] == control]
        text = f"{unit}: {_tasks(part)}" + (f". {beside}: {_tasks(other)}" if len(other) else "")
        labels = [verdict.partition(" (")[0] for verdict in part["verdict"]]
        return Found(text, max(map(len, part["gains"])), statistics.weakest(labels))

    return found


def _tasks(part: pd.DataFrame) -> str:
    rows: Any = part.itertuples()
    return "; ".join(f"{statistics.shown(row.gains, 2)} ({row.task})" for row in rows)


def _dynamics(data: str, source: str) -> Judge:
    """Does D_diff at the paper's ε lower the one-step error?"""

    def found(results: Results) -> Found:
        table = results.dynamics
        test = (table["data"] == data) & (table["source"] == source) & (table["step"] == 1)
        kept = (table["acceptance"] == "kl") & (table["epsilon"] == PAPERS_EPSILON)
        mine = table[test & kept]
        unit = f"log₂ of T̂_init's squared error over T̂'s, {_where(mine)}"
        return _log2(unit, mine.groupby("seed")["gain"].mean())

    return found


def _ratio(results: Results) -> Found:
    table = sensitivity_verdict.reached(results.ratios)
    inside = (table["data"] == epsilon.INSIDE) & (table["step"] == 1)
    mine = table[inside & (table["acceptance"] == "kl") & (table["source"] == "model")]
    gains = sensitivity_verdict.large_over_small(mine).unstack("filter")
    gains = gains.dropna(axis=1)  # seeds are not averaged over different filters
    if gains.empty:
        return Found("no such ratio was reached in every seed", 0, "not testable here")
    unit = "log₂ of the squared error at ratios up to 1 over that at 2 to 3, T̂_init's transitions"
    where = f"within each filter that every seed reached ({', '.join(gains.columns)})"
    return _log2(f"{unit}, {where}, {_where(mine)}", gains.mean(axis=1))


def _over_chance(results: Results) -> Found:
    table = results.dynamics
    inside = (table["data"] == epsilon.INSIDE) & (table["step"] == 1)
    mine = table[inside & (table["epsilon"] == PAPERS_EPSILON)]
    wide = mine.pivot_table(index=["source", "seed"], columns="acceptance", values="gain")
    gains = (wide["kl"] - wide["random"]).groupby("seed").mean()
    unit = "log₂ of the squared error with random trajectories over that with kept ones"
    return _log2(f"{unit}, mean over sources, {_where(mine)}", gains)


def _where(mine: pd.DataFrame) -> str:
    """Which test an effect on the error was measured in, and at which ratios."""
    tests = mine[["data", "step"]].drop_duplicates().itertuples(index=False)
    told = ", ".join(f"{data}, {step} step" for data, step in tests)
    return f"{told}, ratio {', '.join(f'{r:g}' for r in sorted(mine['ratio'].unique()))}"


def _log2(unit: str, gains: pd.Series) -> Found:
    label = statistics.verdict(gains.tolist()).partition(" (")[0]
    return Found(f"{statistics.shown(gains.tolist(), 3)} {unit}", len(gains), label)


def _needs_less(results: Results) -> Found:
    """Ahead of cloning with few data, and further ahead than with many."""
    table = results.data_need
    leads = table[table["question"] == "ahead of the clone"]
    rows: Any = leads.itertuples()
    text = "; ".join(f"{statistics.shown(row.gains, 1)} at {row.share:.0%} of D" for row in rows)
    ahead = "points ahead of plain cloning, at E9's smaller budgets (cut most for UEPO)"
    if data_need.fails(table):
        text += "; selection fails at these: it loses to zero noise with all data"
    return Found(f"{ahead}: {text}", max(map(len, leads["gains"])), data_need.label(table))


def _elsewhere(reason: str) -> Judge:
    return lambda _: Found(reason, 0, "not testable here")


CLAIMS = (
    Claim("+5.9 % over Uni-O4 on locomotion, read as offline scores", "abstract, Table 1 †", "12",
          _relative("locomotion", "offline")),
    Claim("+5.9 % over Uni-O4 on locomotion, read as final scores", "abstract, Table 1 †", "12",
          _relative("locomotion", "end")),
    Claim("+12.4 % over Uni-O4 on dexterous manipulation, read as offline scores",
          "abstract, Table 1 †", "12", _relative("hand", "offline")),
    Claim("+12.4 % over Uni-O4 on dexterous manipulation, read as final scores",
          "abstract, Table 1 †", "12", _relative("hand", "end")),
    Claim("better than Uni-O4 on Franka kitchen", "Table 1 †", "01",
          _elsewhere("no dataset of it can be made here; the remote one loads, but was not run")),
    Claim("more return than Uni-O4 on the way through the online phase", "section 1", "12",
          _aggregate("headline", "auc", "points of mean score")),
    Claim("UEPO over Uni-O4 without its offline PPO, an equal row, offline", "section 1", "12",
          _aggregate("equal: select only", "offline", "points")),
    Claim("UEPO over Uni-O4 without its offline PPO, after the online phase", "section 1", "12",
          _aggregate("equal: select only", "end", "points")),
    Claim("UEPO over plain cloning, after the same online phase", "section 1", "12",
          _aggregate("UEPO over BC", "end", "points")),
    Claim("better than IQL, read as offline scores", "Table 1 †", "12",
          _aggregate("UEPO over IQL", "offline", "points")),
    Claim("better than IQL, read as final scores", "Table 1 †", "12",
          _aggregate("UEPO over IQL", "end", "points")),
    Claim("n seeds of one model differ in return beyond chance", "contribution 1", "10",
          _seeds("seeds differ in return beyond chance",
                 "sd of members' scores, less that of equal policies")),
    Claim("n seeds cover more modes of D than n draws", "contribution 1", "10",
          _seeds("n seeds reach more routes than n draws", "routes, more than n draws")),
    Claim("the best of the seeds is worth choosing", "contribution 1", "10",
          _seeds("the best seed, so chosen, beats zero noise", "points over κ = 0, at κ = 1",
                 multi_seed_verdict.OTHER_KAPPA, "At other κ, not counted")),
    Claim("divergence of velocities and accelerations measures what is done", "contribution 2",
          "10", _seeds("div of plans ranks what is done", "ρ with what is done",
                       "div ranks it better than plain distance of plans",
                       "More than the plain distance of plans has")),
    Claim("the guidance makes sub-policies act differently", "contribution 2", "10",
          _seeds("guidance moves what is done further apart",
                 f"RMS distance, more than unguided, at {STRONG} (D_diff's sets: {SHIPPED})",
                 "guidance moves it further apart than noise of equal power",
                 "More than noise of equal power")),
    Claim("D_diff makes T̂ better where D is (transitions of T̂_init)", "contribution 3", "05, 11",
          _dynamics(epsilon.INSIDE, "model")),
    Claim("D_diff makes T̂ better where D is (real transitions, privileged)", "contribution 3",
          "05, 11", _dynamics(epsilon.INSIDE, "simulator")),
    Claim("D_diff makes T̂ generalise (transitions of T̂_init)", "contribution 3", "05, 11",
          _dynamics(epsilon.OUTSIDE, "model")),
    Claim("D_diff makes T̂ generalise (real transitions, privileged)", "contribution 3", "05, 11",
          _dynamics(epsilon.OUTSIDE, "simulator")),
    Claim("the KL filter at ε = 0.05 chooses better than chance", "contribution 3", "11",
          _over_chance),
    Claim("a ratio of 2 to 3 is better than less", "contribution 3", "11", _ratio),
    Claim("less distribution shift when it goes online", "section 1", "12", _shift),
    Claim("less expert data needed", "discussion", "16", _needs_less),
)  # fmt: skip
