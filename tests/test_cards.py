"""Cards, episodes, coverage, published scores: hand-made datasets with known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from episode_toys import hand_made

from uepo_lib import cards, episodes, loading, plotting, references, replay, tasks, visits
from uepo_lib.collection import collect
from uepo_lib.datasets import Dataset
from uepo_lib.errors import UsageError
from uepo_lib.figures import data as makers
from uepo_lib.recipes import part_of_steps, recipe_for

# ---- episodes ------------------------------------------------------------------------------------


def test_an_episode_is_terminated_late_or_cut() -> None:
    data = hand_made([4, 6, 6, 3], [1.0, 2.0, 3.0, 4.0])
    assert episodes.ends_of(data).tolist() == ["terminated", "time limit", "time limit", "cut"]
    assert episodes.whole(data).tolist() == [0, 1, 2]
    table = episodes.episodes_table({"toy": data})
    assert table["return"].tolist() == [4.0, 12.0, 18.0, 12.0]
    assert table.length.tolist() == [4, 6, 6, 3]
    np.testing.assert_allclose(
        table.score, [data.task.robot.normalised(r) for r in (4, 12, 18, 12)], atol=0.005
    )


def test_whole_episodes_are_those_whose_returns_count() -> None:
    data = hand_made([4, 6, 3], [1.0, 2.0, 4.0])
    table = episodes.episodes_table({"toy": data})
    assert table[table.ended != "cut"]["return"].tolist() == data.episode_returns().tolist()


def test_falls_correlates_returns_with_lengths() -> None:
    table = pd.DataFrame(
        {
            "task": ["a"] * 4 + ["b"] * 2,
            "return": [1.0, 2.0, 3.0, 99.0, 5.0, 5.0],
            "length": [30, 20, 10, 1, 7, 7],
            "ended": ["terminated", "time limit", "terminated", "cut", "terminated", "terminated"],
        }
    )
    found = episodes.falls(table)
    assert found.index.tolist() == ["a"]  # b's lengths are all one: nothing to correlate
    assert found.iloc[0].tolist() == pytest.approx([-1.0, 2 / 3])


# ---- the card ------------------------------------------------------------------------------------


def test_a_cards_returns_are_those_of_whole_episodes() -> None:
    card = cards.card(hand_made([4, 6, 3], [1.0, 2.0, 100.0]), squares=7.0)
    assert (card.transitions, card.episodes, card.whole) == (13, 3, 2)
    assert card.return_mean == 8.0
    assert card.return_std == pytest.approx(math.sqrt(32), abs=0.05)  # of 4 and 12
    robot = tasks.ROBOTS["hopper"]
    assert card.score == round(robot.normalised(8.0), 1)
    assert (card.length_mean, card.length_min, card.length_max) == (5.0, 4.0, 6.0)
    assert [card.terminated, card.time_limit, card.cut] == pytest.approx([1 / 3] * 3)
    assert (card.noise, card.labelled_by, card.modes_known) == ("not known", "nothing", None)
    assert card.modes_estimated is None and math.isnan(card.noise_share)


def test_a_card_without_whole_episodes_says_so() -> None:
    data = hand_made([3, 3], [1.0, 2.0], terminated=torch.zeros(6, dtype=torch.bool))
    table = cards.cards({"hopper-medium": data})
    assert table.whole.tolist() == [0] and table.score.isna().all()
    sheet = cards.sheet(table, "hopper")["medium"]
    assert sheet["normalised score of the mean"] == "–"
    assert sheet["return, mean ± sd"] == "– ± –"
    assert sheet["modes, estimated"] == "too few episodes"


def test_clipped_counts_entries_and_not_steps() -> None:
    actions = torch.zeros(10, 3)
    actions[:4, 0], actions[4, 1:] = 1.0, -1.0
    card = cards.card(hand_made([4, 6], [1.0, 1.0], actions=actions), squares=1.0)
    assert card.clipped == pytest.approx(6 / 30)


def test_noise_is_that_of_the_recipes_parts() -> None:
    policy = {"level": "medium", "noise": None, "action_noise": [0.2, 0.4]}
    fixed = {"level": "expert", "noise": 0.1, "action_noise": 0.1}
    controller = {"level": "controller", "noise": 0.1, "controller": {}}
    assert cards.noise_of([policy, fixed]) == "medium 0.30; expert 0.10"
    assert cards.noise_of([controller]) == "controller 0.10"
    assert cards.noise_of([fixed, policy] * 2) == "4 parts, 0.10 to 0.30"


def test_steps_belong_to_parts_as_they_were_collected() -> None:
    shares = [{"share": 0.5}, {"share": 0.25}, {"share": 0.25}]
    record = {"num_transitions": 42, "num_envs": 4, "parts": shares}
    # 21, 10 and 10 steps, each cut to a multiple of the four streams
    assert np.bincount(part_of_steps(record)).tolist() == [20, 8, 8]


def collected(name: str, steps: int, folder: Path) -> Dataset:
    task = tasks.get(name)
    collect(task, recipe_for(task, steps), folder, progress=False)
    return loading.load(task, folder)


def test_noise_is_measured_as_it_was_made(tmp_path: Path) -> None:
    quiet = collected("hopper-medium-noise-0", 400, tmp_path)
    assert cards.noise_share(quiet) < 1e-9
    little = collected("hopper-medium-noise-10", 4_000, tmp_path)
    everything = torch.arange(len(little))
    means = cards.mean_actions(little, everything)
    assert means is not None
    inside = means.abs() < 0.5  # nothing is clipped at five standard deviations
    residual = (little.actions - means)[inside]
    assert float(residual.std()) == pytest.approx(0.1, rel=0.05)
    share = (little.actions - means).square().mean() / little.actions.var(dim=0).mean()
    assert cards.noise_share(little) == pytest.approx(float(share), rel=1e-5)


def test_every_part_is_asked_for_its_own_steps(tmp_path: Path) -> None:
    """Each replay snapshot has its own noise; another one's mean would leave a larger residual."""
    data = collected("hopper-medium-expert", 2_000, tmp_path)
    assert len(part_of_steps(data.metadata["recipe"])) == len(data)
    steps = torch.arange(len(data))
    right = cards.mean_actions(data, steps)
    recipe = data.metadata["recipe"]
    swapped = {**recipe, "parts": recipe["parts"][::-1]}
    wrong = cards.mean_actions(replace(data, metadata={"recipe": swapped}), steps)
    assert right is not None and wrong is not None
    assert (data.actions - right).square().mean() < 0.5 * (data.actions - wrong).square().mean()


def test_data_from_elsewhere_have_a_card() -> None:
    """An imported file, and one of one's own, have a recipe that names no policy."""
    recipe = {"seed": 0, "num_steps": 10, "env_id": "Hopper-v5"}
    data = hand_made([4, 6], [1.0, 1.0], metadata={"recipe": recipe})
    assert cards.mean_actions(data, torch.arange(3)) is None
    assert math.isnan(cards.noise_share(data))
    assert cards.noise_of(None) == "not known"


def test_a_controllers_mean_is_not_known() -> None:
    recipe = {"num_transitions": 10, "num_envs": 1, "parts": [{"level": "controller", "share": 1}]}
    data = hand_made([4, 6], [1.0, 1.0], metadata={"recipe": recipe})
    assert cards.mean_actions(data, torch.arange(3)) is None


def test_notes_name_every_difference_once() -> None:
    text = cards.notes(tasks.LOCAL.values())
    for task in tasks.LOCAL.values():
        for note in task.robot.notes:
            (line,) = [line for line in text.splitlines() if line.endswith(note)]
            assert task.robot.name in line


# ---- coverage ------------------------------------------------------------------------------------


def test_effective_squares_counts_equal_ones_and_discounts_rare_ones() -> None:
    assert visits.effective_squares(np.full(9, 5)) == pytest.approx(9.0)
    assert visits.effective_squares(np.array([7, 0])) == pytest.approx(1.0)
    # entropy of (3/4, 1/4)
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert visits.effective_squares(np.array([3, 1])) == pytest.approx(expected)


def squares_of(steps: dict[str, list[int]]) -> pd.DataFrame:
    rows = [("hopper", task, x, 0.0, 1.0, 1.0, n) for task, row in steps.items()
            for x, n in enumerate(row) if n]  # fmt: skip
    return pd.DataFrame(rows, columns=["robot", "task", "x", "y", "width", "height", "steps"])


def test_overlap_is_the_shared_mass() -> None:
    table = squares_of({"a": [4, 4, 0], "b": [0, 3, 3], "c": [1, 1, 0], "d": [0, 0, 9]})
    assert visits.overlap(table, "a", "b") == pytest.approx(0.5)
    assert visits.overlap(table, "a", "c") == pytest.approx(1.0)  # sizes do not matter
    assert visits.overlap(table, "a", "d") == pytest.approx(0.0)


def test_whatever_is_narrower_than_the_expert_is_named() -> None:
    squares = pd.Series({
        "hopper-medium": 140.0, "hopper-expert": 84.0, "hopper-medium-noise-10": 71.0,
        "hopper-medium-noise-0": 46.0, "pen-expert": 3.0,
    })  # fmt: skip
    found = visits.narrower(squares, "hopper")
    assert found.to_dict() == {"hopper-medium-noise-0": 46.0, "hopper-medium-noise-10": 71.0}
    assert list(found) == [46.0, 71.0]
    assert visits.narrower(squares, "pen").empty


def test_a_mixture_of_two_overlaps_with_each_by_half() -> None:
    names = ("hopper-medium", "hopper-expert", "hopper-medium-expert")
    table = squares_of(dict(zip(names, ([2, 2, 0], [0, 0, 4], [1, 1, 2]), strict=True)))
    assert visits.mixtures(table).loc["hopper"].tolist() == pytest.approx([0.0, 0.5, 0.5])
    assert visits.mixtures(squares_of({"hopper-medium": [1]})).empty


def test_coverage_counts_steps_where_they_are() -> None:
    states = torch.zeros(1_000, 11)
    states[:, 0], states[500:, 0] = 1.0, 2.0
    states[:, 5] = torch.linspace(0, 3, 1_000)
    data = hand_made([1_000], [0.0], states=states)
    table = visits.visits_table({"hopper-medium": data})
    assert 998 <= table.steps.sum() <= 1_000  # the outermost are left out
    left, right = (table[(table.x < 1.5) == side].steps.sum() for side in (True, False))
    assert abs(int(left) - 500) <= 1 and abs(int(right) - 500) <= 1
    # height has two values, velocity is uniform: each column holds half of the squares' rows
    assert visits.effective_squares(table.steps.to_numpy()) == pytest.approx(24, rel=0.05)


def test_planes_of_the_hand_measure_what_they_say() -> None:
    pen = torch.zeros(2, 45)
    pen[:, 33], pen[0, 36], pen[1, 37], pen[:, 26] = 1.0, 2.0, 1.0, 0.25
    assert visits.PLANES["pen"].points(pen).tolist() == [[1.0, 0.25], [0.0, 0.25]]
    hammer = torch.zeros(1, 46)
    hammer[0, 33:36], hammer[0, 39:42], hammer[0, 26] = torch.tensor([0.0, 3.0, 4.0]), 9.0, 0.1
    assert visits.PLANES["hammer"].points(hammer)[0].tolist() == pytest.approx([5.0, 0.1])
    door = torch.zeros(1, 39)
    door[0, 35:38], door[0, 28] = torch.tensor([3.0, 0.0, 4.0]), 1.5
    assert visits.PLANES["door"].points(door).tolist() == [[5.0, 1.5]]


# ---- published scores ----------------------------------------------------------------------------


def test_published_columns_add_up_as_the_paper_says() -> None:
    """The sums over the nine locomotion rows; the paper prints others for some, which is known."""
    table = references.published()
    rows = [row for row in table.index if row.endswith("-v2")]
    totals = {name: table.loc[rows, name].str.partition(" ±")[0].astype(float).sum()
              for name in table.columns if name.endswith("†")}  # fmt: skip
    expected = {"CQL †": 698.5, "TD3+BC †": 677.4, "IQL †": 698.8, "BPPO †": 751.1,
                "Uni-O4 †": 816.4, "UEPO †": 863.6}  # fmt: skip
    assert len(rows) == 9 and totals == pytest.approx(expected)


def test_every_row_that_a_local_dataset_stands_for_is_published() -> None:
    rows = {task.paper_row for task in tasks.LOCAL.values() if task.paper_row}
    assert rows <= set(references.published().index)


def test_lowest_leaves_out_what_cannot_be_read() -> None:
    assert references.lowest("hopper-medium-v2") == 58.5
    assert references.lowest("hammer-human-v1") == 1.4  # not the garbled one
    assert references.lowest("kitchen-partial-v0") == 46.3


def test_ours_stands_beside_theirs() -> None:
    ours = pd.DataFrame({"task": ["hopper-medium", "hopper-expert"], "score": [51.04, 99.0],
                         "paper_row": ["hopper-medium-v2", None]})  # fmt: skip
    table = references.beside(ours)
    assert table.columns.tolist() == ["hopper-medium-v2"]
    column = table["hopper-medium-v2"]
    assert column["task here"] == "hopper-medium"
    assert column["our dataset: its episodes"] == "51.0"
    assert (column["UEPO †"], column["IQL (CORL)"]) == ("108 ± 0.5", "67.5")
    assert "ReBRAC online (CORL)" not in table.index  # nothing published for this row


# ---- replay --------------------------------------------------------------------------------------


def test_replay_reaches_the_log_and_notices_a_changed_one(tmp_path: Path) -> None:
    data = collected("hopper-medium", 400, tmp_path)
    errors, same_end = replay.replay_errors(data, 20)
    assert float(errors.max()) <= replay.tolerance(data) and bool(same_end.all())
    off = data.next_states.clone()
    off[-1, 0] += 1e-3 / data.normaliser.std[0]  # the last step is among those replayed
    errors, same_end = replay.replay_errors(replace(data, next_states=off), 20)
    assert float(errors[-1]) == pytest.approx(1e-3, rel=1e-2)
    then, now = replay.play_again(data, steps=50)
    assert torch.equal(then, now) and len(now) == 50
    with pytest.raises(UsageError, match="no simulator states"):
        replay.replay_errors(replace(data, simulator_states=None), 1)


# ---- film strips ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_a_film_is_drawn_again_from_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its states survive the table, and the fallback draws within the style of figures."""
    monkeypatch.setenv("UEPO_RENDERER", "matplotlib")
    data = collected("hopper-medium", 800, tmp_path)
    table = makers.film_table({"hopper-medium": data})
    assert data.simulator_states is not None
    first = table[table.step == makers.GAIT_START].value.to_numpy()
    longest = int(episodes.lengths_of(data).argmax())
    step = int(data.bounds[longest, 0]) + makers.GAIT_START
    np.testing.assert_allclose(first, data.simulator_states[step].numpy(), atol=1e-6)
    (axes,) = plotting.draw("film_strips", table).axes
    assert "drawn by matplotlib" in [text.get_text() for text in axes.texts]
