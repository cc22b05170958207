"""The paper's tables added up: what paper and pencil give."""

from __future__ import annotations

import pytest

from uepo_lib import arithmetic, plotting
from uepo_lib.figures import claims as _figures  # noqa: F401 - registers the figure


def test_the_gains_are_relative_to_totals_and_not_points() -> None:
    found = arithmetic.gains().set_index("block")
    assert found.loc["locomotion", "relative"] == pytest.approx(0.059, abs=5e-4)
    assert found.loc["Adroit", "relative"] == pytest.approx(0.124, abs=5e-4)
    assert found.loc["locomotion", "points"] == pytest.approx(48.2)
    assert found.loc["locomotion", "points a dataset"] == pytest.approx(48.2 / 9)


def test_sums_are_off_where_they_are_known_to_be() -> None:
    found = arithmetic.sums().set_index(["block", "method"])
    assert found.loc[("locomotion", "UEPO"), "added"] == pytest.approx(863.6)
    assert found.loc[("locomotion", "IQL"), "added"] == pytest.approx(698.8)
    assert found.loc[("locomotion", "BPPO"), "added"] == pytest.approx(751.1)
    assert found.loc[("overall", "Uni-O4"), "added"] == pytest.approx(1321.9)
    assert found.loc[("kitchen", "UEPO"), "difference"] == 0
    assert "Adroit" not in found.index.get_level_values("block")
    off = found[found["difference"] != 0].index.tolist()
    assert ("locomotion", "UEPO") in off
    assert ("locomotion", "Uni-O4") not in off


def test_garbled_cells_are_no_numbers() -> None:
    table = arithmetic.cells()
    assert table.loc["hammer-human-v1", ["Uni-O4"]].isna().all()
    assert table.loc["pen-human-v1", "UEPO"] == 122.8
    won = arithmetic.rows_won().set_index("dataset")
    assert "relocate-human-v1" not in won.index
    assert won.index[0] == "kitchen-partial-v0"  # the one row that Uni-O4 wins
    assert (won["gain"] < 0).sum() == 1


def test_every_row_of_the_papers_table_has_a_bar_in_no_colour_of_a_method() -> None:
    won = arithmetic.rows_won()
    panels = plotting.draw("20_table_1", won).axes
    bars = [bar for axes in panels for bar in axes.patches]
    assert sorted(bar.get_width() for bar in bars) == won["gain"].tolist()
    assert all(len(set(bar.get_facecolor()[:3])) == 1 for bar in bars)  # grey
    assert len({axes.get_xlim() for axes in panels}) == 1
