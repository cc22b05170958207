"""Figures of the mechanism pages say what their tables hold: correlations, counts, places."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from uepo_lib import plotting, visits
from uepo_lib.figures import (
    coverage,
    data,
    improvement,
    likelihood,
    online,
    policy,
    selection,
    tasks,
)
from uepo_lib.tasks import ROBOTS


def texts(figure: Figure) -> list[str]:
    """All that is written in the axes of a figure, titles of all three places included."""
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        found += [axes.get_title(loc) for loc in ("left", "center", "right")]
    return found


def test_selection_shows_each_seeds_own_correlation() -> None:
    """A seed whose scores are all higher does not hide that within it they rank backwards."""
    rng = np.random.default_rng(0)
    rows = []
    for seed, sign in ((0, 1.0), (1, -1.0)):
        score = rng.standard_normal(12)
        for member, value in enumerate(score):
            rows.append({"seed": seed, "kappa": 0.5 * (member % 3), "member": member,
                         "return": 1000 + sign * value, "chosen": value == score.max()}
                        | {name: 100 * seed + value for name in selection.SCORES})  # fmt: skip
    table = pd.DataFrame(rows)
    figure = plotting.draw("selection", table)
    assert len(figure.axes) == 2 * len(selection.SCORES)
    written = texts(figure)
    assert written.count("ρ = +1.00") == written.count("ρ = −1.00") == len(selection.SCORES)
    correlation = selection.correlation_table(table)
    assert correlation[list(selection.SCORES)].round(2).abs().eq(1.0).all(axis=None)
    for axes in figure.axes:
        ranks = sorted(np.asarray(axes.collections[0].get_offsets())[:, 0])
        assert ranks == list(range(1, 13))


def test_checks_that_coincide_are_counted_and_methods_share_a_scale() -> None:
    rows = []
    for method, members, height in (("Uni-O4", 4, 7.0), ("UEPO", 1, 2.0)):
        for member in range(members):
            rows += [(0, method, member, 100, 0.0, member != 3),
                     (0, method, member, 200, height, True)]  # fmt: skip
    columns = ["seed", "method", "member", "update", "gain", "accepted"]
    figure = plotting.draw("offline_improvement", pd.DataFrame(rows, columns=columns))
    left, right = figure.axes
    assert [axes.texts[0].get_text() for axes in (left, right)] == [
        "3 of 4\naccepted", "1 of 1\naccepted"
    ]  # fmt: skip
    assert left.get_ylim() == right.get_ylim() and left.get_ylim()[1] > 7


def test_the_rules_closed_form_is_in_its_legend() -> None:
    figure = plotting.draw("acceptance_rule", improvement.acceptance_toy(trials=50, starts=4))
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert sum("closed form" in label for label in labels) == 2


def test_a_judge_of_one_size_is_an_open_mark_without_a_line() -> None:
    rows = [("t", 0, "past", "noise", scale, 9, 0.5, 0.6) for scale in (0.25, 0.5)]
    rows += [("t", 0, "flow", "noise", 0.5, 9, 0.5, 0.6)]
    columns = ["task", "seed", "judge", "copy", "scale", "pairs", "won", "auc"]
    (axes,) = plotting.draw("likelihood_ranking", pd.DataFrame(rows, columns=columns)).axes
    flow = [line for line in axes.lines if line.get_label() == likelihood.JUDGES["flow"][0]]
    assert len(flow) == 1 and flow[0].get_linestyle() == "None"
    assert flow[0].get_markerfacecolor() == "none"


def test_guided_and_unguided_sets_have_the_colours_of_notebook_04() -> None:
    for kind, colour in coverage.COLOUR_OF.items():
        if kind.startswith("one model"):
            assert colour == ("UEPO" if "guided" in kind else "data")


def test_noise_levels_are_not_called_denoising_steps() -> None:
    table = policy.schedule_table(50, ("cosine", "linear"))
    for axes in plotting.draw("noise_schedule", table).axes:
        assert axes.get_xlabel() == policy.LEVEL


@pytest.mark.parametrize("share", [1e-3, 1e-5])
def test_shares_have_one_colour_whatever_else_is_in_the_figure(share: float) -> None:
    """The same share, beside rare squares and beside frequent ones."""
    steps = {"rare": [round(1e5 * share), 100_000], "frequent": [round(1e5 * share), 100]}
    assert tasks.SHARES.vmin == 1e-5  # fixed, and not what a table holds
    colours = set()
    for counts in steps.values():
        rows = {"robot": "hopper", "task": "hopper-medium", "x": [1.0, 1.1], "y": [2.0, 2.0],
                "width": 0.1, "height": 0.1, "steps": counts}  # fmt: skip
        figure = plotting.draw("action_noise", pd.DataFrame(rows))
        (image,) = figure.axes[0].images
        colours.add((image.norm.vmin, image.norm.vmax, float(image.norm(share))))
    assert len(colours) == 1


def test_a_dashed_line_is_named() -> None:
    rows = [{"method": name, "seed": 0, "look": look, "env_steps": 100 * look, "policy_kl": 0.1,
             "displacement": 0.1} for name in online.STARTS for look in (0, 1)]  # fmt: skip
    figure = plotting.draw("policy_change", pd.DataFrame(rows))
    assert any("one action" in label for label in figure.axes[1].get_legend_handles_labels()[1])
    assert all(label.startswith(name) for name, (label, _) in online.STARTS.items())


def test_an_attitude_is_one_place_whatever_turns_led_to_it() -> None:
    raw = torch.zeros(4, 17)
    raw[:, 1], raw[:, 8] = torch.tensor([0.1, 0.1 + 2 * math.pi, math.pi, -math.pi]), 3.0
    plane = visits.PLANES["halfcheetah"]
    places = plane.places(raw)
    np.testing.assert_allclose(places[:, 0], [0.1, 0.1, math.pi, math.pi], atol=1e-5)
    assert places[:, 1].tolist() == [3.0] * 4
    assert torch.equal(plane.points(raw)[:, 0], raw[:, 1])  # what runs store is as it was
    heights = visits.PLANES["hopper"]
    assert torch.equal(heights.places(raw), heights.points(raw))


def test_the_share_on_the_back_counts_steps() -> None:
    rows = {"robot": "halfcheetah", "task": ["a", "a", "b"], "x": [0.0, 3.2, 0.5],
            "steps": [3, 1, 7]}  # fmt: skip
    assert visits.lying(pd.DataFrame(rows)).to_dict() == {"a": 0.25, "b": 0.0}


def test_a_film_of_a_gait_goes_by_seconds_not_by_steps() -> None:
    for name, most in (("hopper", 1000), ("halfcheetah", 1000), ("door", 200), ("pen", 100)):
        robot = ROBOTS[name]
        steps = data._filmed(robot, most)
        assert len(steps) == data.FRAMES and steps.max() < most
        apart = np.diff(steps) * robot.step_seconds
        if robot.max_episode_steps >= 1000:
            assert (abs(apart - data.GAIT_SECONDS) <= robot.step_seconds / 2).all()
    assert data._filmed(ROBOTS["hopper"], 110).tolist() == [100]  # fell soon after
