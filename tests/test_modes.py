"""How many kinds of episode: closed forms, and data whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from episode_toys import hand_made
from hypothesis import given, settings
from hypothesis import strategies as st

from uepo_lib import loading, modes, tasks
from uepo_lib.collection import collect
from uepo_lib.datasets import Dataset
from uepo_lib.recipes import recipe_for

# ---- agreement -----------------------------------------------------------------------------------

labellings = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30)


def by_pairs(one: list[int], other: list[int]) -> float:
    """Hubert and Arabie's index from its definition, pair by pair."""
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    a = [one[i] == one[j] for i, j in pairs]
    b = [other[i] == other[j] for i, j in pairs]
    both, chance = sum(map(min, a, b)), sum(a) * sum(b) / len(pairs)
    most = (sum(a) + sum(b)) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


@settings(max_examples=60, deadline=None)
@given(labellings)
def test_agreement_is_the_adjusted_rand_index(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    found = modes.agreement(one, other)
    assert found == pytest.approx(by_pairs(one.tolist(), other.tolist()))
    assert found == pytest.approx(modes.agreement(other, one))
    assert found == pytest.approx(modes.agreement((one + 1) % 4, other))  # names do not matter


def test_agreement_of_textbook_cases() -> None:
    # values from scikit-learn's documentation of adjusted_rand_score
    def index(one: list[int], other: list[int]) -> float:
        return modes.agreement(np.array(one), np.array(other))

    assert index([0, 0, 1, 2], [0, 0, 1, 1]) == pytest.approx(4 / 7)
    assert index([0, 0, 0, 0], [0, 1, 2, 3]) == 0.0
    assert index([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(-0.5)
    assert index([0, 0, 0], [5, 5, 5]) == 1.0


# ---- one peak or more ----------------------------------------------------------------------------


def test_two_kernels_merge_at_half_their_distance() -> None:
    """Two equal Gaussians at ±1 have one peak if and only if their std is 1 or more."""
    two = np.array([-1.0, 1.0])
    assert [modes.peaks(two, width) for width in (0.3, 0.9, 1.1, 2.0)] == [2, 2, 1, 1]
    assert modes.critical_width(two) == pytest.approx(1.0, rel=0.02)
    assert modes.critical_width(5.0 * two + 3.0) == pytest.approx(5.0, rel=0.02)


def test_silvermans_test_tells_one_peak_from_two() -> None:
    generator = np.random.default_rng(0)
    single = [modes.one_peak(generator.standard_normal(100), generator) for _ in range(20)]
    assert sum(p <= modes.LEVEL for p in single) <= 1  # its level, and it is conservative
    gap = np.concatenate([generator.normal(-3, 1, 50), generator.normal(3, 1, 50)])
    assert modes.one_peak(gap, generator) == 1 / (modes.RESAMPLES + 1)  # as small as it can be


# ---- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_heaps_are_counted(count: int) -> None:
    draw = np.random.default_rng(count).standard_normal((30 * count, 2))
    corners = np.array([[0, 0], [8, 0], [0, 8], [8, 8]])[:count]
    truth = np.repeat(np.arange(count), 30)
    found = modes.groups(corners[truth] + draw)
    assert found.max() + 1 == count and modes.agreement(found, truth) > 0.95


def test_a_long_heap_is_one() -> None:
    """2-means would cut it; between its halves is no gap."""
    draw = np.random.default_rng(1).standard_normal((200, 2)) * [20.0, 1.0]
    assert modes.groups(draw).max() == 0


def test_few_or_equal_points_are_one_group() -> None:
    assert modes.groups(np.zeros((50, 2))).tolist() == [0] * 50
    assert modes.groups(np.array([[0.0, 0.0], [9.0, 9.0]])).tolist() == [0, 0]
    lonely = np.concatenate([np.random.default_rng(0).standard_normal((50, 2)), [[90.0, 0.0]]])
    assert modes.groups(lonely).max() == 0  # one episode is no kind of episode


# ---- descriptions --------------------------------------------------------------------------------


def two_orders(goals: bool = False) -> tuple[Dataset, torch.Tensor]:
    """60 episodes of 6 steps: half go from −1 to 1, half from 1 to −1; noise of std 0.1.

    The states of the two kinds are the same, in another order. With ``goals`` the second number is
    drawn once an episode, at one of two places far apart, independently of the kind.
    """
    generator = torch.Generator().manual_seed(0)
    kind, goal = torch.arange(60) % 2, (torch.arange(60) // 2) % 2
    states = 0.1 * torch.randn(60, 6, 11, generator=generator)
    way = torch.tensor([-1.0] * 3 + [1.0] * 3)
    states[:, :, 0] += torch.where(kind[:, None] == 0, way, -way)
    if goals:
        states[:, :, 1] = 50.0 * goal[:, None]
    data = hand_made([6] * 60, [1.0] * 60, states=states.flatten(0, 1))
    return replace(data, labels={"route": kind}), kind


def test_the_order_within_an_episode_counts() -> None:
    data, _ = two_orders()
    counted = modes.modes(data)
    assert counted == modes.Modes(60, 2, "route", 2, 1.0)


def test_what_an_episode_is_given_is_not_what_it_does() -> None:
    data, kind = two_orders(goals=True)
    chosen, found = modes.grouped(data)
    assert chosen.tolist() == list(range(60))
    assert modes.agreement(found, kind.numpy()) == 1.0
    # were it not left out, the goal would be the first component
    assert np.abs(modes.descriptions(data, chosen)).max() < 5.0


def test_outcomes_describe_each_group() -> None:
    data, kind = two_orders()
    rewards = (1.0 + kind).float().repeat_interleave(6)
    table = modes.outcomes(replace(data, rewards=rewards))
    robot = data.task.robot
    assert sorted(table.score) == pytest.approx(
        [robot.normalised(6), robot.normalised(12)], abs=0.01
    )
    assert table.episodes.tolist() == [30, 30] and table["sd of score"].max() == 0.0


def test_too_few_episodes_give_no_estimate_and_no_recipe_no_knowledge() -> None:
    few = hand_made([6] * (modes.ENOUGH - 1), [1.0] * (modes.ENOUGH - 1))
    assert modes.modes(few) == modes.Modes(modes.ENOUGH - 1, None, "nothing", None, None)
    enough = hand_made([6] * modes.ENOUGH, [1.0] * modes.ENOUGH)
    assert modes.modes(enough) == modes.Modes(modes.ENOUGH, None, "nothing", 1, None)
    imported = replace(enough, metadata={"recipe": {"sha256": "of the file"}})
    assert modes.known(imported) == (None, "nothing")


def test_a_recipe_labels_episodes_by_policy() -> None:
    parts = [{"level": "medium", "share": 0.5}, {"level": "expert", "share": 0.5}]
    recipe = {"num_transitions": 24, "num_envs": 1, "parts": parts}
    data = hand_made([6] * 4, [1.0] * 4, metadata={"recipe": recipe})
    labels, labelled_by = modes.known(data)
    assert labels is not None and labels.tolist() == [0, 0, 1, 1] and labelled_by == "policy"


# ---- data with known labels ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "known", "least"),
    [("maze-routes", 20_000, 4, 0.95), ("hopper-medium-expert", 60_000, 2, 0.75)],
)
def test_the_estimate_agrees_with_known_labels(
    name: str, steps: int, known: int, least: float, tmp_path: Path
) -> None:
    task = tasks.get(name)
    collect(task, recipe_for(task, steps), tmp_path, progress=False)
    counted = modes.modes(loading.load(task, tmp_path))
    assert (counted.known, counted.estimated) == (known, known)
    assert counted.agreement is not None and counted.agreement >= least
