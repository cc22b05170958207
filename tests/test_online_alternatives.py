from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tiny_study import settled, tiny

from uepo_lib import plotting
from uepo_lib.experiments import online_alternatives as others
from uepo_lib.figures import online_alternatives as figures
from uepo_lib.stages import Product, Study

Found = dict[tuple[str, int], Product[Any]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with settled(tmp_path_factory.mktemp("alternatives")):
        yield tiny()


@pytest.fixture(scope="module")
def found(study: Study) -> Found:
    return others.all_alternatives([study])


def test_a_switch_is_run_once_where_seeds_are_too_few_for_a_verdict() -> None:
    assert others.seeds_for("noise", (4, 5, 6)) == (4, 5, 6)
    assert others.seeds_for("short", (4, 5, 6)) == (4,)
    assert others.seeds_for("short", range(5)) == (0, 1, 2, 3, 4)


def test_every_alternative_is_a_run_of_its_own(found: Found) -> None:
    assert [name for name, _ in found] == list(others.TITLES)
    assert len({online.keys for online in found.values()}) == len(others.TITLES)


@pytest.mark.slow
def test_all_start_alike_and_spend_alike(study: Study, found: Found) -> None:
    table = others.ends_table(found, study.task.robot)
    assert table.start.nunique() == 1
    spent = table.training_steps - study.budget.online_env_steps
    assert ((spent >= 0) & (spent <= study.budget.env_steps_per_update)).all()
    assert (table[table["name"] == "chain"].against_chain == 0).all()
    assert np.isfinite(table.drop(columns=["name", "title"]).to_numpy(float)).all()
    curves = others.curves_table(found, study.task.robot)
    assert curves[curves.look == 0].score.nunique() == 1
    ends = curves[curves.look == 0].set_index("name").end
    assert ends.to_dict() == table.set_index("name").end.to_dict()
    assert curves.groupby("name").size().to_dict() == dict.fromkeys(
        table["name"], 2 + study.budget.curve_points
    )
    assert figures.COLOURS.keys() <= others.TITLES.keys()
    plt.close(plotting.draw("online_alternatives", curves))


@pytest.mark.parametrize("back", [0, 1])
def test_the_legend_names_a_way_back_only_where_there_is_one(back: int) -> None:
    looks = pd.DataFrame(
        {"name": "frozen", "seed": 0, "env_steps": [1, 2], "nll_before": 1.0, "nll_after": 0.5,
         "amq_now": [2.0, 1.0], "amq_kept": 1.5, "rolled_back": [0, back]}
    )  # fmt: skip
    legend = plotting.draw("model_looks", looks).axes[1].get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [others.TITLES["frozen"], "went back"][: 1 + back]


@pytest.mark.slow
def test_looks_and_reach_are_of_those_that_have_them(study: Study, found: Found) -> None:
    looks = others.looks_table(found)
    assert set(looks["name"]) == {"frozen", "refitted", "short", "augmented"}
    assert looks.rolled_back.isin([0, 1]).all()
    plt.close(plotting.draw("model_looks", looks))
    reach = others.reach_table([study], found).set_index(["name", "states"])
    assert len(reach) == 6
    assert reach.loc["noise"].latent.min() > 0
    assert ((reach.pushed >= 0) & (reach.pushed <= 1)).all()
