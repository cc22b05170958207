"""Were E8's expectations met? One line each, from its findings; see ``failure_signatures``.

"Without error": every provoked value lies above every healthy one of its setting. A factor is the
median of the provoked runs over the worst healthy one, as the thresholds are set.
"""

from __future__ import annotations

import pandas as pd

from uepo_lib.diagnostics import COLLAPSE, FAR_START, IMPLAUSIBLE, SIGNATURES, WORSE_MODEL
from uepo_lib.expectations import OPEN, by_place, seen
from uepo_lib.experiments.failure_pipeline import HEALTHY
from uepo_lib.experiments.failure_verdict import FIRES, of_test, provoked

FACTOR = 3.0
UNDERTRAINED, SHUFFLED = "undertrained", "states shuffled"


def expected(values: pd.DataFrame) -> list[str]:
    """All six, in the order in which they were written, from ``failure_verdict.judged``."""
    found = gaps(values)
    return [
        _apart(found, COLLAPSE, "*Collapse*", FACTOR),
        _apart(found, FAR_START, "*Far start*", FACTOR),
        _apart(found[found["cause"] == UNDERTRAINED], IMPLAUSIBLE, "*An undertrained policy*"),
        _harder(found),
        _weakest(found),
        _spreads(values),
    ]


def gaps(values: pd.DataFrame) -> pd.DataFrame:
    """A row a signature, setting and counted cause: ``factor``, and ``least``, the smallest
    provoked value, over the worst healthy one of that setting."""
    quiet = values[values["cause"] == HEALTHY].groupby(["signature", "setting"])["value"].max()
    loud = provoked(values).groupby(["signature", "setting", "cause"], sort=False)["value"]
    table = loud.agg(factor="median", least="min").reset_index()
    worst = quiet.reindex(pd.MultiIndex.from_frame(table[["signature", "setting"]])).to_numpy()
    return table.assign(factor=table["factor"] / worst, least=table["least"] / worst)


def _apart(found: pd.DataFrame, name: str, title: str, factor: float = 0.0) -> str:
    part = found[found["signature"] == name].set_index("setting")
    text = f"{title} is told from healthy runs without error"
    if factor:
        text += f", by a factor of {factor:g} or more"
    flags = {str(s): row["least"] > 1 and row["factor"] >= factor for s, row in part.iterrows()}
    told = ", ".join(
        f"{setting} {row['factor']:.1f}{'' if row['least'] > 1 else ', with errors'}"
        for setting, row in part.iterrows()
    )
    return f"{text}: factors {told}: {by_place(flags)}."


def _harder(found: pd.DataFrame) -> str:
    part = found[found["signature"] == IMPLAUSIBLE]
    wide = part.pivot(index="setting", columns="cause", values="factor")
    told = ", ".join(
        f"{setting} {row[SHUFFLED]:.1f} against {row[UNDERTRAINED]:.1f}"
        for setting, row in wide.iterrows()
    )
    flags = {str(s): row[SHUFFLED] < row[UNDERTRAINED] for s, row in wide.iterrows()}
    return f"*Shuffled states* are harder to tell than that: factors {told}: {by_place(flags)}."


def _weakest(found: pd.DataFrame) -> str:
    least = found.groupby("signature")["factor"].min().reindex(SIGNATURES)
    told = ", ".join(f"{name} {factor:.1f}" for name, factor in least.sort_values().items())
    return f"*A worse T̂* is the weakest: smallest factors {told}: " + (
        f"{seen([least.idxmin() == WORSE_MODEL])}."
    )


def _spreads(values: pd.DataFrame) -> str:
    text = "Undertraining also fires other diagnostics"
    runs = of_test(values[values["cause"] == UNDERTRAINED])
    others = runs[runs["signature"] != IMPLAUSIBLE]
    if others.empty:
        return f"{text}: no test run: {OPEN}."
    share = others.groupby(["setting", "signature"], sort=False)["fired"].mean()
    told = ", ".join(
        f"{name} {fired:.0%} ({place})" for place, name, fired in share.reset_index().to_numpy()
    )
    flags = {str(place): bool((part >= FIRES).any()) for place, part in share.groupby("setting")}
    return f"{text}, in at least {FIRES:.0%} of test runs: {told}: {by_place(flags)}."
