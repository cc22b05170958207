"""E3's figures on tables whose picture is known: who has which mark, and what is put in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from uepo_lib import plotting
from uepo_lib.figures import comparison, comparison_details  # noqa: F401 - registers figures


def legend(figure: Figure) -> list[str]:
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def corners(marker: str) -> np.ndarray:
    style = MarkerStyle(marker)
    return np.asarray(style.get_transform().transform_path(style.get_path()).vertices)


def drawn_as(marks: PathCollection, marker: str) -> bool:
    (path,) = marks.get_paths()
    expected = corners(marker)
    return path.vertices.shape == expected.shape and bool(np.allclose(path.vertices, expected))


def test_means_over_a_set_of_policies_are_diamonds_and_the_legend_says_why() -> None:
    rows = [("t", s, row, "diffusion", "offline", 50.0 + s)
            for s in range(2) for row in ("uepo", "random", "kappa_1")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "seed", "row", "kind", "phase", "score"])
    figure = plotting.draw("12_scores", table)
    marks = [m for m in figure.axes[0].collections if isinstance(m, PathCollection)]
    assert [drawn_as(m, "D") for m in marks] == [True, True, False]  # from the lowest row up
    assert legend(figure)[-1].endswith("fewer episodes")
    without = plotting.draw("12_scores", table[table["row"] == "uepo"])
    assert legend(without)[-1] == "mean"


def looks(scratch: float) -> pd.DataFrame:
    ends = {"uepo": (90.0, 95.0), "bc": (60.0, 70.0), "scratch": (4.0, scratch)}
    rows = [("t", s, row, look, 5_000 * look, ends[row][look] + s, 89.0)
            for s in range(3) for look in range(2) for row in ends]  # fmt: skip
    return pd.DataFrame(
        rows, columns=["task", "seed", "row", "look", "env_steps", "score", "expert"]
    )


def test_a_curve_far_below_all_others_is_told_in_words_and_stretches_no_axis() -> None:
    figure = plotting.draw("12_curves", looks(10.0))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["PPO from scratch, below: 5 → 11"]
    assert axes.get_ylim()[0] > 40 and "PPO from scratch" not in legend(figure)
    named = axes.xaxis.get_major_formatter()
    assert (named(0, 0), named(5_000, 0)) == ("0", "5k")


def test_a_curve_that_reaches_the_others_is_drawn() -> None:
    figure = plotting.draw("12_curves", looks(65.0))
    assert not figure.axes[0].texts and "PPO from scratch" in legend(figure)
    assert figure.axes[0].get_ylim()[0] < 4


def test_gains_share_an_axis_and_stand_in_the_order_of_the_legend() -> None:
    rows = [("a swap", measure, task, 0, gain)
            for measure, gain in (("offline", 5.0), ("end", -80.0)) for task in "abcd"]  # fmt: skip
    table = pd.DataFrame(rows, columns=["pair", "measure", "task", "seed", "gain"])
    figure = plotting.draw("12_components", table)
    assert legend(figure) == list("abcd")
    for axes in figure.axes:
        marks = [line for line in axes.lines if line.get_marker() != "None"]
        heights = [float(line.get_ydata()[0]) for line in marks]
        assert len(heights) == 4 and heights == sorted(heights, reverse=True)
        assert max(np.abs(heights)) < 0.5
        assert axes.get_xlim()[0] < -80 and axes.get_xlim()[1] > 5


def test_prices_have_one_height_on_every_task() -> None:
    rows = [(task, 0, row, price, 0.0)
            for task, price in (("a", 5.0), ("b", -40.0)) for row in comparison.LINES]  # fmt: skip
    columns = ["task", "seed", "row", "dip_exploring", "dip_updates"]
    figure = plotting.draw("12_switch", pd.DataFrame(rows, columns=columns))
    low, high = figure.axes[0].get_ylim()
    assert figure.axes[1].get_ylim() == (low, high) and low < -40 and high > 5


def test_candidates_are_less_the_mean_of_their_seed_and_method() -> None:
    levels = {("UEPO", 0): 100.0, ("UEPO", 1): 0.0, ("Uni-O4", 0): 50.0, ("Uni-O4", 1): 70.0}
    rows = [("t", seed, method, level + 3 * i, level + i)
            for (method, seed), level in levels.items() for i in (-1, 0, 1)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "seed", "method", "dead_zero", "score"])
    figure = plotting.draw("12_selection", table)
    marks = [m for m in figure.axes[0].collections if len(m.get_offsets())]
    assert len(marks) == len(levels)
    for mark in marks:
        np.testing.assert_allclose(mark.get_offsets(), [(-3, -1), (0, 0), (3, 1)])
    assert legend(figure)[-2:] == ["seed 0", "seed 1"]


@pytest.mark.parametrize(
    ("tasks", "name"), [("ab", "PPO from scratch\n(a)"), ("a", "PPO from scratch")]
)
def test_a_profile_over_fewer_tasks_names_them(tasks: str, name: str) -> None:
    rows = [(task, s, row, phase, 50.0 + s)
            for task in tasks for s in range(2) for row in ("uepo", "scratch")
            for phase in ("offline", "final") if row == "uepo" or task == "a"]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "seed", "row", "phase", "score"])
    figure = plotting.draw("12_profile", table)
    found = figure.axes[1].get_legend()
    assert found is not None
    assert [text.get_text() for text in found.get_texts()] == ["UEPO", name]
