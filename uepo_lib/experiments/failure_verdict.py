"""What the findings of E8 say: pure functions of the table, the criterion fixed before it was
computed.

A diagnostic is judged on seeds that its threshold was not set on. It passes if it fires in at least
:data:`FIRES` of the provoked runs of *every* cause and setting that provokes its signature. The
panel passes if at most :data:`ALARMS` of the healthy runs have any alarm. A label asks for more,
that the interval of a rate lies on one side of it; this was added when a table had been seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from uepo_lib import statistics
from uepo_lib.diagnostics import CALIBRATION_SEEDS, COLLAPSE, SIGNATURES, TEST_SEEDS
from uepo_lib.errors import check
from uepo_lib.experiments.failure_pipeline import CAUSES, HEALTHY
from uepo_lib.experiments.failure_worlds import TOY

FIRES, ALARMS = 0.8, 0.1
"""Four of five, and one in ten."""
CONFIDENCE = 0.95
QUIET = "few false alarms"
DOORS = "doors reached"
"""The outcome that says whether a set has collapsed."""


def judged(findings: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """The findings with columns ``threshold`` and ``fired``."""
    threshold = findings["signature"].map(thresholds)
    check(bool(threshold.notna().all()), "thresholds", list(thresholds), "one a signature")
    return findings.assign(threshold=threshold, fired=findings["value"] > threshold)


def provoked(table: pd.DataFrame, mild: bool = False) -> pd.DataFrame:
    """Rows of the diagnostic that a run's cause was chosen for; the mild causes or the others."""
    wanted = table["cause"].map(
        {name: cause.signature for name, cause in CAUSES.items() if cause.mild == mild}
    )
    return table[table["signature"] == wanted]


def to_record(findings: pd.DataFrame) -> pd.DataFrame:
    """What thresholds are set on, the content of ``failure.csv``: healthy runs and counted causes
    of the calibration seeds, values to four digits."""
    known = findings[findings["seed"].isin(CALIBRATION_SEEDS)]
    healthy = known[known["cause"] == HEALTHY].assign(provoked=0)
    table = pd.concat([healthy, provoked(known).assign(provoked=1)])
    columns = ["seed", "setting", "cause", "signature", "provoked", "value"]
    return table[columns].assign(value=[float(f"{v:.4g}") for v in table["value"]])


def of_test(table: pd.DataFrame) -> pd.DataFrame:
    """The seeds that no threshold was set on."""
    return table[table["seed"].isin(TEST_SEEDS)]


def test_table(table: pd.DataFrame, mild: bool = False) -> pd.DataFrame:
    """How often each diagnostic fired where it should, on the test seeds of :func:`judged`.

    Columns signature, setting, cause, runs, fired, low, high: of the rate, a Clopper-Pearson
    interval at 95 %.
    """
    groups = provoked(of_test(table), mild).groupby(["signature", "setting", "cause"], sort=False)
    rows = [
        {**dict(zip(("signature", "setting", "cause"), names, strict=True)), **_rate(part["fired"])}
        for names, part in groups
    ]
    return pd.DataFrame(rows)


def alarms(table: pd.DataFrame) -> dict[str, float]:
    """Healthy runs of the test seeds, and how many had any alarm: runs, fired, low, high."""
    healthy = of_test(table[table["cause"] == HEALTHY])
    return _rate(healthy.groupby(["seed", "setting"])["fired"].any())


def elsewhere(table: pd.DataFrame) -> pd.DataFrame:
    """Share of test runs in which each diagnostic fired: a row a cause, a column a signature."""
    wide = of_test(table).pivot_table(
        index=["setting", "cause"], columns="signature", values="fired", aggfunc="mean", sort=False
    )
    return wide.reindex(columns=[name for name in SIGNATURES if name in wide])


def _rate(fired: pd.Series) -> dict[str, float]:
    count, runs = int(fired.sum()), len(fired)
    check(runs > 0, "runs", runs, "at least one")
    interval = binomtest(count, runs).proportion_ci(CONFIDENCE, method="exact")
    return {"runs": runs, "fired": count, "low": interval.low, "high": interval.high}


def passed(table: pd.DataFrame) -> dict[str, bool]:
    """Is the criterion met, by each signature and by :data:`QUIET`?"""
    rows = test_table(table).assign(met=lambda t: t["fired"] >= FIRES * t["runs"])
    rate = alarms(table)
    met = {str(name): bool(part.all()) for name, part in rows.groupby("signature")["met"]}
    return {**met, QUIET: rate["fired"] <= ALARMS * rate["runs"]}


def verdict(table: pd.DataFrame) -> dict[str, str]:
    """A label for each signature, and for :data:`QUIET`, by the intervals of their rates.

    "supported": for every cause and setting the whole interval is above :data:`FIRES` (of alarms,
    below :data:`ALARMS`); "not supported": wholly on the other side; "partly": for some the one and
    for the others the other; else, and with fewer than five runs a cause, "inconclusive".
    """
    shown, found = test_table(table), {}
    for name in SIGNATURES:
        rows: Any = shown[shown["signature"] == name].itertuples()
        labels = [_label(row.runs, row.low, row.high, FIRES) for row in rows]
        found[name] = statistics.weakest(labels)
    rate = alarms(table)
    found[QUIET] = _label(rate["runs"], 1 - rate["high"], 1 - rate["low"], 1 - ALARMS)
    return found


def _label(runs: float, low: float, high: float, wanted: float) -> str:
    if runs >= len(TEST_SEEDS) and (low > wanted or high < wanted):
        return "supported" if low > wanted else "not supported"
    return "inconclusive"


def runs_needed(rate: float) -> int:
    """So many runs, all as wanted, put an interval above ``rate``: the least n with
    (½(1 − confidence))^(1/n) > rate."""
    return math.floor(math.log((1 - CONFIDENCE) / 2) / math.log(rate)) + 1


def told(table: pd.DataFrame) -> list[str]:
    """Criterion and label of each signature and of the panel in words, a line each."""
    shown, met, rate = test_table(table), passed(table), alarms(table)
    counts = {
        name: ", ".join(f"{row.fired} of {row.runs} ({row.setting}, {row.cause})"
                        for row in shown[shown["signature"] == name].itertuples())
        for name in SIGNATURES
    }  # fmt: skip
    counts[QUIET] = f"any in {rate['fired']:.0f} of {rate['runs']:.0f} healthy runs"
    return [
        f"*{name}*: criterion {'passed' if met.get(name) else 'not passed'}, {counts[name]}; "
        f"by its interval **{label}**"
        for name, label in verdict(table).items()
    ]


def named_cause(table: pd.DataFrame, outcomes: pd.DataFrame) -> str:
    """What collapse comes to when its cause is the one that the paper names, in words."""
    mild = test_table(table, mild=True)[["runs", "fired"]].sum()
    doors = of_test(outcomes[outcomes["outcome"] == DOORS]).groupby("cause")["value"].mean()
    alone, both = (
        next(n for n, c in CAUSES.items() if c.signature == COLLAPSE and c.mild == kind)
        for kind in (True, False)
    )
    seen = mild["fired"] >= FIRES * mild["runs"]
    return (
        f"The cause that the paper names, {alone} at κ = 1, fires in {mild['fired']} of "
        f"{mild['runs']} test runs; on the toy, on these seeds, such a set reaches "
        f"{doors[alone]:.1f} doors on average, a healthy one {doors[HEALTHY]:.1f}, one with {both} "
        f"{doors[both]:.1f}."
        + ("" if seen else " So *collapse* was seen, but **not through its named cause**.")
    )


def pictured(pictures: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """``pictures`` with one seed's collapse: of the provoked runs on the toy the one with the
    (lower) median value, so that what is drawn is neither the clearest nor the faintest."""
    cause = next(c for c in CAUSES if CAUSES[c].signature == COLLAPSE and not CAUSES[c].mild)
    found = findings[
        (findings["signature"] == COLLAPSE) & (findings["setting"] == TOY)
        & (findings["cause"] == cause)
    ].sort_values("value")  # fmt: skip
    seed = found["seed"].iloc[(len(found) - 1) // 2]
    kept = (pictures["panel"] != COLLAPSE) | (pictures["seed"] == seed)
    return pictures[kept].reset_index(drop=True)
