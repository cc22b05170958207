"""What the paper's own tables say when they are added up; no run of ours is needed for it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from uepo_lib.errors import check
from uepo_lib.references import published

PRINTED = Path(__file__).parent / "printed.csv"
BLOCKS = {
    "locomotion": ("halfcheetah", "hopper", "walker2d"),
    "Adroit": ("pen", "hammer", "door", "relocate"),
    "kitchen": ("kitchen",),
}
"""The blocks of the paper's table †, and the robots in each."""
INCOMPLETE = ("Adroit",)
"""Blocks whose printed total has rows that our copy of the table lacks: not checkable by row."""


def printed() -> dict[tuple[str, str], float]:
    """The totals as printed †, by block and method."""
    table = pd.read_csv(PRINTED)
    names = zip(table["block"], table["method"], strict=True)
    return dict(zip(names, table["printed"].astype(float), strict=True))


def cells() -> pd.DataFrame:
    """The paper's cells † as numbers, NaN where none is printed or the digits are garbled; columns
    block, then methods; indexed by dataset."""
    table = published()
    paper = table[[name for name in table if str(name).endswith("†")]]
    paper = paper.rename(columns=lambda name: name.removesuffix(" †"))
    numbers = paper.apply(lambda c: pd.to_numeric(c.str.partition(" ±")[0], errors="coerce"))
    block = {robot: name for name, robots in BLOCKS.items() for robot in robots}
    numbers.insert(0, "block", [block[row.partition("-")[0]] for row in numbers.index])
    return numbers[numbers.drop(columns="block").notna().any(axis=1)]


def sums() -> pd.DataFrame:
    """Cells added up beside the printed totals: columns block, method, added, printed, difference.

    Only where a block's rows are all there, and "overall" from the printed block totals.
    """
    table, totals = cells(), printed()
    rows = []
    for (block, method), total in totals.items():
        if block in INCOMPLETE:
            continue
        if block == "overall":
            parts = [totals[name, method] for name in BLOCKS]
        else:
            parts = table.loc[table["block"] == block, method].tolist()
        added = float(sum(parts))
        check(not math.isnan(added), method, parts, f"a number in every row of {block}")
        rows.append((block, method, round(added, 1), total, round(added - total, 1)))
    return pd.DataFrame(rows, columns=["block", "method", "added", "printed", "difference"])


def gains() -> pd.DataFrame:
    """UEPO over Uni-O4 by block: the printed totals, their difference in points, relative to
    Uni-O4's total, and, where all its rows are there, in points a dataset."""
    totals, table = printed(), cells()
    rows = []
    for block in BLOCKS:
        ours, theirs = totals[block, "UEPO"], totals[block, "Uni-O4"]
        count = 0 if block in INCOMPLETE else int((table["block"] == block).sum())
        each = (ours - theirs) / count if count else float("nan")
        rows.append((block, ours, theirs, ours - theirs, (ours - theirs) / theirs, each))
    columns = ["block", "UEPO", "Uni-O4", "points", "relative", "points a dataset"]
    return pd.DataFrame(rows, columns=columns)


def rows_won() -> pd.DataFrame:
    """Each dataset where both are legible: columns dataset, block, UEPO, Uni-O4, gain; smallest
    gain first."""
    table = cells()[["block", "UEPO", "Uni-O4"]].dropna()
    found = table.assign(gain=(table["UEPO"] - table["Uni-O4"]).round(1)).sort_values("gain")
    return found.rename_axis("dataset").reset_index()
