from __future__ import annotations

import pandas as pd
import pytest
import torch

from uepo_lib import plotting, toys
from uepo_lib.coverage import null_coverage
from uepo_lib.errors import UsageError
from uepo_lib.figures import coverage as views
from uepo_lib.subpolicies import seeded_noise
from uepo_lib.toy_policies import FEW, KINDS, MANY, planner, train_all

TOY = toys.four_modes(size=512)
TRAINED = train_all(TOY, count=3, updates=40)
FRESH = ("one model, fresh noise", "mixture, drawn each call")
PAST = TOY.past(TOY.states[:5]).expand(3, -1, -1, -1)


def clock(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_of_each_kind(kind: str) -> None:
    plan = planner(kind, TRAINED, TOY, 1, 3)
    actions = plan(PAST, clock())
    assert actions.shape == (3, 5, 8, 2) and actions.abs().max() <= 1
    again = plan(PAST, clock(9))
    assert torch.equal(actions, again) == (kind not in FRESH)  # a function of the state, or a draw
    if "guided" not in kind:
        torch.testing.assert_close(
            planner(kind, TRAINED, TOY, 1, 2)(PAST[:2], clock())[0], actions[0], atol=1e-5, rtol=0
        )


def test_what_sets_share() -> None:
    """By hand: the same noise through other networks, other noises through one network."""
    steps = {"num_steps": MANY}
    order = torch.randperm(3, generator=clock(1)).tolist()
    shared = seeded_noise(1, 1, (8, 2)).expand(5, -1, -1)
    found = planner("n models, one noise", TRAINED, TOY, 1, 3)(PAST, clock())
    for i, actions in zip(order, found, strict=True):
        by_hand = TRAINED.diffusions[i].sample(shared, PAST[0], **steps)
        torch.testing.assert_close(actions, by_hand, atol=1e-5, rtol=0)
    own = seeded_noise(3, 1, (8, 2))
    found = planner(f"one model, fixed noise, {FEW} steps", TRAINED, TOY, 1, 3)(PAST, clock())
    for noise, actions in zip(own, found, strict=True):
        by_hand = TRAINED.diffusions[1].sample(noise.expand(5, -1, -1), PAST[0], FEW)
        torch.testing.assert_close(actions, by_hand, atol=1e-5, rtol=0)


def test_one_guided_policy_has_nobody_to_avoid() -> None:
    alone = planner("one model, guided", TRAINED, TOY, 0, 1)(PAST[:1], clock())
    plain = planner("one model, fixed noise", TRAINED, TOY, 0, 1)(PAST[:1], clock())
    assert torch.equal(alone, plain)
    with pytest.raises(UsageError, match="unknown kind"):
        planner("one model", TRAINED, TOY, 0, 1)


def test_drawing_anew_keeps_no_door() -> None:
    """The mixture's doors are right after 40 updates already, so its null is sharp."""
    table = views.kinds_table(TOY, TRAINED, (4,), sets=6, kinds=[k for k in KINDS if "mix" in k])
    means = table.groupby("kind")[["persistence", "kept"]].mean()
    for measure in ("persistence", "kept"):
        assert means.loc["mixture, drawn each call", measure] == pytest.approx(0.25, abs=0.06)
        assert means.loc["mixture, fixed component", measure] > 0.7


def test_tables_and_prices() -> None:
    table = views.kinds_table(TOY, TRAINED, (1, 2, 4), sets=2, states=4)
    counts = table.groupby("kind").n.max()
    assert (counts[[k for k in KINDS if k.startswith("one")]] == 4).all()
    assert (counts[[k for k in KINDS if k.startswith("n ")]] == 2).all()  # of three networks
    assert (table["coverage"] <= table["n"]).all()
    assert table[table.n == 1]["div"].isna().all() and table[table.n == 2]["div"].notna().all()
    prices = views.price_table(table, TRAINED, 2)
    assert prices.loc["n models, zero noise", "updates"] == 2 * 40
    per_model = sum(p.numel() for p in TRAINED.diffusions[0].parameters())
    assert prices.loc["one model, fixed noise", "numbers"] == per_model + 2 * 16
    assert prices.loc["n models, one noise", "numbers"] == 2 * per_model + 16
    assert list(views.interval_table(table, 2).index) == ["null", *KINDS]


def test_the_figure_says_who_reaches_no_mode() -> None:
    row = {"n": views.REPLANNED, "coverage": 1.0, "persistence": 0.5, "kept": 0.5}
    none = {"coverage": 0.0, "persistence": float("nan"), "kept": float("nan")}
    table = pd.DataFrame(
        [{"kind": kind, **row, **(none if kind == "n Gaussians" else {})} for kind in KINDS] * 2
    )
    said = plotting.draw("mode_kinds", table).subfigs[1].axes[0].texts
    assert [(text.get_text(), text.get_position()[1]) for text in said] == [
        ("reaches none", KINDS.index("n Gaussians"))
    ]


def test_beside_null_compares_intervals() -> None:
    null = null_coverage(4)
    values = {"a": (null + 0.4, null + 0.5), "b": (null - 0.1, null + 0.2), "c": (1.0, 1.1)}
    rows = [(k, 4, v) for k, pair in values.items() for v in pair * 10]
    table = pd.DataFrame(rows, columns=["kind", "n", "coverage"])
    found = views.beside_null(table, 4)
    assert found.to_dict() == {"a": "above", "b": "level", "c": "below"}
