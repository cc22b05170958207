"""What the README says of results is what the committed tables say."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from uepo_lib import arithmetic

HOME = Path(__file__).parents[1]
README = (HOME / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## What was found")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| (.+?) \| ([+-].+?) \|$", SECTION, re.MULTILINE)


def claims() -> pd.DataFrame:
    return pd.read_csv(HOME / "results/reference/laptop/tables/20_claims.csv").set_index("claim")


@pytest.mark.parametrize(("claim", "measured"), ROWS)
def test_what_was_measured_is_that_of_page_20(claim: str, measured: str) -> None:
    row = claims().loc[claim]
    assert measured in row["measured"] and row["verdict"] == "inconclusive" and row["seeds"] == 3


def test_what_points_away_from_zero_is_named_and_nothing_else() -> None:
    bounds = {claim: re.search(r"\[(.+?)%?, (.+?)%?\]", text) for claim, text in ROWS}
    away = [
        claim for claim, found in bounds.items() if found and float(found[1]) * float(found[2]) > 0
    ]
    assert len(ROWS) == 8 and len(away) == 3
    for claim, (sign, words) in zip(
        away, (("+", "seeds are policies"), ("-", "*fewer*"), ("-", "*worse*")), strict=True
    ):
        assert dict(ROWS)[claim].startswith(sign) and words in SECTION


def test_what_the_papers_table_decides() -> None:
    gains = arithmetic.gains().set_index("block")
    assert [round(100 * gains["relative"][name], 1) for name in ("locomotion", "Adroit")] == [
        5.9, 12.4,
    ]  # fmt: skip
    rows = arithmetic.rows_won().set_index("dataset")["gain"]
    pens = rows[rows.index.str.startswith("pen")]
    assert len(pens) == 2 and pens.sum() / gains["points"]["Adroit"] == pytest.approx(
        2 / 3, abs=0.02
    )
    assert rows.index[rows < 0].tolist() == ["kitchen-partial-v0"]
