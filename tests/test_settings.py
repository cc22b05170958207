"""What was tried is counted from the tables, and nothing else."""

from __future__ import annotations

import pandas as pd
import pytest

from uepo_lib import settings
from uepo_lib.figures.comparison import NAMES


def test_prototypes_count_as_settings_of_the_chain() -> None:
    """Four settings; two runs more from another start say no more than σ and rate."""
    assert settings.num_tried("prototype") == {"chain_ppo": 4, "gaussian_ppo": 0}
    rows = [row for row in settings.TRIED if row["source"] == "prototype"]
    assert len(rows) == 6 and not any(row["run"] for row in rows)
    both = [settings.num_tried(source) for source in ("prototype", "this library")]
    total = settings.num_tried()
    assert total == {name: sum(one[name] for one in both) for name in total}


def test_every_run_of_this_library_has_its_id_and_returns() -> None:
    rows = [row for row in settings.TRIED if row["source"] == "this library"]
    assert {row["source"] for row in settings.TRIED} == {"prototype", "this library"}
    for row in rows:
        assert row["run"].startswith("online-")
        assert all(float(row[name]) > 0 for name in ("first_return", "last_return", "mean_return"))


@pytest.mark.parametrize(
    ("method", "starts"), [("UEPO", ("973", "2983")), ("BC", ("2684",)), ("BC", ("2068",))]
)
def test_the_settings_in_use_are_the_best_that_were_tried_last(
    method: str, starts: tuple[str, ...]
) -> None:
    """By ``mean_return``, averaged over the starts that all of them were tried from."""
    tried = pd.DataFrame(settings.TRIED)
    mine = (tried["method"] == method) & tried["first_return"].isin(starts)
    last = tried[mine & (tried["critic_lag"] == "50")].astype({"mean_return": float})
    knobs = ["learning_rate", "target_kl", "num_epochs"]
    means = last.groupby(knobs)["mean_return"].mean()
    chosen = settings.ONLINE[settings.COMPONENT[method]]
    (used,) = (values for values in means.index
               if tuple(map(float, values)) == tuple(chosen[knob] for knob in knobs))  # fmt: skip
    assert means[used] == means.max()


@pytest.mark.parametrize(
    ("counts", "told"),
    [((18, 14), "4 more for chains."), ((14, 18), "4 more for Gaussians."),
     ((18, 18), "equally many.")],
)  # fmt: skip
def test_parity_is_said_as_it_is(
    counts: tuple[int, int], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dict(zip(("chain_ppo", "gaussian_ppo"), counts, strict=True))
    monkeypatch.setattr(settings, "num_tried", lambda source=None: made)
    assert settings.parity().endswith(told)


def test_attempts_are_those_of_the_chain() -> None:
    told = settings.attempts(settings.TUNED_ON)
    count = settings.num_tried()["chain_ppo"]
    assert told.startswith(f"{count} settings on hopper-medium, ") and "none on" not in told
    assert settings.attempts("pen-cloned") == f"{told}; none on pen-cloned"


def test_offline_choices_name_rows_and_tasks() -> None:
    assert all(set(choice.rows) <= set(NAMES) for choice in settings.OFFLINE)
    everyone = settings.tried_offline("bc")
    assert settings.tried_offline("iql") == everyone + 4  # β
    assert settings.tried_offline("uni_o4") == everyone + 3  # offline PPO
    assert settings.tried_offline("uepo") == everyone + settings.PROTOTYPES
    assert settings.tried_offline("uepo_ppo") == everyone + settings.PROTOTYPES + 3
    assert settings.tried_offline("mse") == everyone
    assert settings.tried_offline("scratch") == settings.tried_offline("sac") == 0
    (unit,) = (choice for choice in settings.OFFLINE if choice.choice == "unit of the critics")
    assert unit.tasks == "hopper-medium-replay, hopper-medium, pen-cloned" and unit.tried == 2


def test_offline_trials_of_the_methods_are_told_side_by_side() -> None:
    ours, theirs = (settings.tried_offline(row) for row in ("uepo", "uni_o4"))
    told = settings.parity_offline()
    assert told.startswith(f"{ours} offline settings") and f"{settings.PROTOTYPES} of them" in told
    assert f"{theirs} for Uni-O4, " in told and ours > theirs


def test_every_row_of_the_diffusion_policy_has_the_trials_of_its_prototypes() -> None:
    others = {"mse", "uni_o4", "uni_o4_more", "uni_o4_select", "bppo", "iql", "bc_chunk", "bc",
              "scratch", "sac"}  # fmt: skip
    assert set(settings.DIFFUSION) == set(NAMES) - others
