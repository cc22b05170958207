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


def column_names(figure: Figure) -> list[str]:
    """What the legends over the columns of the curves name, from left to right."""
    found = [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for one in found if one for text in one.get_texts()]


def test_curves_have_a_column_a_family_with_all_others_in_grey_behind() -> None:
    figure = plotting.draw("12_curves", looks(10.0))
    left, right = figure.axes
    assert column_names(figure) == ["UEPO", "BC", "PPO from scratch"]
    grey = [sum(line.get_color() == "0.85" for line in axes.lines) for axes in (left, right)]
    assert grey == [2, 1]
    named = left.xaxis.get_major_formatter()
    assert (named(0, 0), named(5_000, 0)) == ("0", "5k")


def test_tasks_of_one_robot_share_a_scale_of_curves_and_other_robots_have_theirs() -> None:
    parts = [looks(10.0).assign(task=task, score=lambda t, by=by: t["score"] + by)
             for task, by in (("hopper-a", 0.0), ("hopper-b", 30.0), ("pen-a", 200.0))]  # fmt: skip
    figure = plotting.draw("12_curves", pd.concat(parts))
    limits = [axes.get_ylim() for axes in figure.axes]
    assert len(set(limits[:4])) == 1 and limits[0][0] < 4 and limits[0][1] > 127
    assert limits[4] == limits[5] and limits[4][0] > 60  # the expert's level is 89


@pytest.mark.parametrize(("seeds", "bands"), [(3, 0), (5, 2)])
def test_few_seeds_have_no_band(seeds: int, bands: int) -> None:
    one = looks(10.0)
    table = pd.concat([one[one["seed"] == 0].assign(seed=s) for s in range(seeds)])
    figure = plotting.draw("12_curves", table)
    assert len(figure.axes[1].collections) == bands
    assert ("95 % interval of a mean" in legend(figure)) == bool(bands)


@pytest.mark.parametrize(
    ("name", "wanting", "word"),
    [("12_scores", {"task": "b"}, "not played"), ("12_components", {"measure": "end"}, "not comp")],
)
def test_a_row_that_a_panel_has_nothing_of_says_so(
    name: str, wanting: dict[str, str], word: str
) -> None:
    rows = [(task, 0, row, "Gaussian", "offline", 50.0, f"swap {row}", measure, 1.0)
            for task in "ab" for row in ("bc", "bppo")
            for measure in ("offline", "end")]  # fmt: skip
    columns = ["task", "seed", "row", "kind", "phase", "score", "pair", "measure", "gain"]
    table = pd.DataFrame(rows, columns=columns)
    ((column, value),) = wanting.items()
    table = table[(table["row"] == "bc") | (table[column] != value)]
    said = [[t.get_text() for t in axes.texts] for axes in plotting.draw(name, table).axes]
    assert [sum(text.startswith(word) for text in texts) for texts in said] == [0, 1]


def test_a_task_that_played_alone_stands_on_the_line_of_its_row() -> None:
    rows = [("a swap", "end", "b", s, gain) for s, gain in enumerate((-3.0, 6.0))]
    rows += [("other", "end", task, 0, 1.0) for task in "ab"]
    table = pd.DataFrame(rows, columns=["pair", "measure", "task", "seed", "gain"])
    (axes,) = plotting.draw("12_components", table).axes
    (alone,) = [
        line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"
    ]
    assert set(alone.get_ydata()) == {1.0}  # the upper of two rows
    means = [bar.get_segments()[0][0][0] for bar in axes.collections]
    assert sorted(means) == [1.0, 1.0, 1.5]


def test_gains_share_an_axis_and_stand_in_the_order_of_the_legend() -> None:
    rows = [("a swap", measure, task, 0, gain)
            for measure, gain in (("offline", 5.0), ("end", -80.0)) for task in "abcd"]  # fmt: skip
    table = pd.DataFrame(rows, columns=["pair", "measure", "task", "seed", "gain"])
    figure = plotting.draw("12_components", table)
    assert legend(figure) == [*"abcd", "mean"]
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


def test_a_profile_falls_at_the_scores_themselves() -> None:
    rows = [("t", s, "uepo", phase, 30.0 + 20 * s) for s in range(3)
            for phase in ("offline", "final")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "seed", "row", "phase", "score"])
    (line,) = plotting.draw("12_profile", table).axes[0].lines
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(line.get_xdata(), [0, 30, 50, 70, 102])
    np.testing.assert_allclose(line.get_ydata(), [1, 2 / 3, 1 / 3, 0, 0])
