"""What the findings of E8 say: pure functions of the table, rules fixed before it was computed.

A diagnostic is judged on seeds that its threshold was not set on. It passes if it fires in at least
:data:`FIRES` of the provoked runs of *every* cause and setting that provokes its signature. The
panel passes if at most :data:`ALARMS` of the healthy runs have any alarm.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from scipy.stats import binomtest

from uepo_lib.diagnostics import CALIBRATION_SEEDS, COLLAPSE, SIGNATURES, TEST_SEEDS
from uepo_lib.errors import check
from uepo_lib.experiments.failure_pipeline import CAUSES, HEALTHY
from uepo_lib.experiments.failure_worlds import TOY

FIRES, ALARMS = 0.8, 0.1
"""Four of five, and one in ten."""
CONFIDENCE = 0.95
QUIET = "few false alarms"


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


def verdict(table: pd.DataFrame) -> dict[str, str]:
    """A label for each signature, and for :data:`QUIET`.

    "supported": it passes and its runs are at least five a cause; "inconclusive": fewer runs;
    "partly": it passes for some cause and setting, not for all; "not supported": for none.
    """
    found = {}
    shown = test_table(table)
    enough = len(TEST_SEEDS)
    for name in SIGNATURES:
        part = shown[shown["signature"] == name]
        passed = part["fired"] >= FIRES * part["runs"]
        if len(part) == 0 or (part["runs"] < enough).any():
            found[name] = "inconclusive"
        else:
            found[name] = (
                "supported" if passed.all() else "partly" if passed.any() else "not supported"
            )
    rate = alarms(table)
    quiet = rate["fired"] <= ALARMS * rate["runs"]
    label = "supported" if quiet else "not supported"
    found[QUIET] = label if rate["runs"] >= enough else "inconclusive"
    return found


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
