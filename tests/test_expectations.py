"""Lines that say whether an expectation was met, on tables whose answer is known."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from uepo_lib import plotting
from uepo_lib.experiments import comparison_expected as says
from uepo_lib.experiments import online_alternatives as others
from uepo_lib.figures import comparison, comparison_details  # noqa: F401 - registers figures
from uepo_lib.figures.coverage import zero_noise_says
from uepo_lib.figures.improvement import published_verdict
from uepo_lib.figures.selection import regret_says

TASKS = ("hopper-medium", "pen-cloned")
MET, UNMET = "**as expected**", "**not as expected**"
LEVELS = {"bc": 60.0, "kappa_0": 60.0, "uepo": 60.0, "uepo_ppo": 60.0, "uni_o4": 60.0,
          "uni_o4_select": 60.0}  # fmt: skip


def tables(changes: dict[str, dict[str, float]] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and online tables with seeds 2 points around 60; ``changes`` by task and row."""
    scores, online = [], []
    for task in TASKS:
        for seed in range(3):
            for row, level in LEVELS.items():
                value = level + 2 * (seed - 1) + (changes or {}).get(task, {}).get(row, 0.0)
                facts = {"task": task, "seed": seed, "row": row}
                scores.append({**facts, "offline": value, "sampled": value})
                online.append({**facts, "auc": value, "end": value})
    return pd.DataFrame(scores), pd.DataFrame(online)


def on_all(**rows: float) -> dict[str, dict[str, float]]:
    return {task: rows for task in TASKS}


def test_alike_is_within_the_spread_of_seeds() -> None:
    """Seeds are 58, 60, 62: their standard deviation is 2."""
    assert says.zero_noise_and_mean(*tables(on_all(kappa_0=1.9))).endswith(f"{MET}.")
    found = says.zero_noise_and_mean(*tables(on_all(kappa_0=-2.1)))
    assert found.endswith(f"{UNMET}.") and "-2.1 on hopper-medium (seeds ± 2.0)" in found
    elsewhere = says.zero_noise_and_mean(*tables({"pen-cloned": {"kappa_0": 9.0}}))
    assert elsewhere.endswith(f"{MET}.") and "pen" not in elsewhere


def test_ends_are_those_of_the_equal_row() -> None:
    assert says.ends_are_close(*tables(on_all(uni_o4=30.0, uepo=1.0))).endswith(f"{MET}.")
    assert says.ends_are_close(*tables(on_all(uepo=30.0))).endswith(f"{UNMET}.")
    one = says.ends_are_close(*tables({"pen-cloned": {"uepo": 9.0}}))
    assert one.endswith(f"{UNMET} on pen-cloned.")


@pytest.mark.parametrize(
    ("chain", "gaussian", "verdict"),
    [(3.0, 1.0, MET), (3.0, -1.0, UNMET), (-3.0, 1.0, UNMET), (0.0, 0.0, UNMET)],
)
def test_offline_ppo_must_help_both(chain: float, gaussian: float, verdict: str) -> None:
    ahead = tables(on_all(uepo_ppo=chain, uni_o4=-50.0))  # AM-Q's choice among members is no PPO
    found = says.offline_ppo_helps(*ahead, members(gaussian))
    assert found.endswith(f"{verdict}.")
    assert f"diffusion {chain:+.1f} on hopper-medium, {chain:+.1f} on pen-cloned" in found
    assert f"Gaussian, the mean member, {gaussian:+.1f} on hopper-medium" in found
    assert f"({gaussian:+.1f} over tasks, above 0 on {2 * (gaussian > 0)} of 2)" in found


def members(gain: float) -> pd.DataFrame:
    """Uni-O4's before and after offline PPO, whose sampled actions get worse."""
    rows = [
        {"task": task, "seed": seed, "method": method, "kappa": 0.0, "member": i,
         "score": 40.0 + 10 * i + seed + after * gain, "sampled": 40.0 - after * 9,
         "dead_zero": 1.0 + i}
        for task in TASKS
        for seed in range(2)
        for method, after in (("Uni-O4, clones", 0), ("Uni-O4", 1))
        for i in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def candidates(by_member: float, by_kappa: float) -> pd.DataFrame:
    rows = [
        {"task": "t", "seed": seed, "method": method, "kappa": kappa, "member": i,
         "score": by_kappa * kappa + by_member * i + bonus}
        for method, bonus in (("UEPO", 0.0), ("Uni-O4", 500.0))
        for seed in range(2)
        for kappa in (0.0, 0.5, 1.0)
        for i in range(3 if kappa > 0 else 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_spread_by_seed_is_set_against_spread_by_kappa() -> None:
    """Members 0, 1, 2 times a step have the step as their standard deviation."""
    little = says.seeds_matter_less(candidates(by_member=1.0, by_kappa=20.0))
    assert "1.0 against" in little and little.endswith(f"{MET}.")
    assert says.seeds_matter_less(candidates(20.0, 1.0)).endswith(f"{UNMET}.")


def test_all_four_are_told() -> None:
    both = pd.concat([candidates(1.0, 20.0).query("method == 'UEPO'"), members(1.0)])
    lines = says.expected(*tables(), both)
    assert len(lines) == 4 and all(MET in line or UNMET in line for line in lines)


@pytest.mark.parametrize(("published", "verdict"), [(0.2, MET), (0.8, UNMET)])
def test_the_published_mean_is_set_against_the_default(published: float, verdict: str) -> None:
    table = pd.DataFrame({"seed": [0, 1], "published": published, "dead_zero": [0.5, 0.6]})
    found = published_verdict(table)
    assert verdict in found and f"{0.5 - published:+.2f}, {0.6 - published:+.2f}" in found


def reach(action: float) -> pd.DataFrame:
    rows = [("noise", "noise", "D", 1.0, 9.0), ("guided", "by div", "D", 0.2, action),
            ("guided", "by div", "D_online", 0.2, action)]  # fmt: skip
    return pd.DataFrame(rows, columns=["name", "title", "states", "latent", "action"])


def test_a_push_arrives_or_does_not() -> None:
    assert "**20%**" in others.push_verdict(reach(0.04))
    assert others.push_verdict(reach(0.04)).endswith(f"{MET}.")
    assert others.push_verdict(reach(0.24)).endswith(f"{UNMET}.")
    assert others.push_verdict(reach(0.2).assign(latent=0.0, action=0.0)).startswith("No push")


@pytest.mark.parametrize(("closed", "verdict"), [(1, MET), (4, UNMET)])
def test_seldom_is_a_tenth_of_the_looks(closed: int, verdict: str) -> None:
    looks = pd.DataFrame({"title": ["a"] * 10, "rolled_back": [1] * closed + [0] * (10 - closed)})
    found = others.gate_verdict(looks)
    assert found.endswith(f"{verdict}.") and f"(a {closed} of 10)" in found


def test_ends_beside_a_model_are_set_against_the_spread_of_seeds() -> None:
    rows = [("chain", seed, 80.0 + 5 * seed, 0.0) for seed in range(3)]
    table = pd.DataFrame(
        [*rows, ("noise", 0, 0.0, -80.0), ("frozen", 0, 0.0, -4.0)],
        columns=["name", "seed", "end", "against_chain"],
    )
    assert others.ends_verdict(table).endswith(f"{MET}.")
    larger = table.assign(against_chain=table["against_chain"] * 2)
    assert others.ends_verdict(larger).endswith(f"{UNMET}.")
    assert "one seed" in others.ends_verdict(table[table["seed"] == 0])


def test_open_points_say_how_many_seeds_an_alternative_has() -> None:
    rows = [(name, seed, look, 100 * look, 50.0, 60.0 + seed + (name == "frozen"))
            for name, seeds in (("chain", 3), ("noise", 3), ("frozen", 1))
            for seed in range(seeds) for look in range(2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["name", "seed", "look", "env_steps", "score", "end"])
    figure = plotting.draw("online_alternatives", table)
    marks = {len(mark.get_offsets()): mark for mark in figure.axes[1].collections}
    ends = {count: sorted(mark.get_offsets()[:, 0]) for count, mark in marks.items() if count}
    assert ends == {1: [1.0], 3: [0.0, 0.0, 0.0]}  # by the ends, not by the looks
    assert (marks[1].get_facecolor()[0, :3] == 1).all()  # open
    assert (marks[3].get_facecolor()[0, :3] < 1).all()
    ticks = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert ticks == ["gate in the frozen T̂", "initial noise alone (DSRL-style)"]
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["run on 3 seeds", "run on 1 seed"]
    plt.close(figure)


def test_rows_with_offline_ppo_are_hollow() -> None:
    rows = [("t", s, row, 0.1 + s, 1.0 + s, 0.01, 3.0)
            for s in range(2) for row in comparison.LINES]  # fmt: skip
    moves = ["shift", "states_late", "shift_early", "states_early"]
    table = pd.DataFrame(rows, columns=["task", "seed", "row", *moves])
    figure = plotting.draw("12_shift", table)
    ends = figure.axes[0].collections[::2]  # early, a cross, after each
    assert len(figure.axes[0].collections) == 2 * len(comparison.LINES)
    marks = dict(zip(comparison.LINES, ends, strict=True))
    hollow = {row for row, mark in marks.items() if not len(mark.get_facecolor())}
    assert hollow == set(comparison.IMPROVED)
    plt.close(figure)


def test_a_curve_that_only_one_panel_has_is_named_and_one_that_none_has_is_not() -> None:
    looks = [(t, s, row, look, 100 * look, 50.0, 90.0)
             for t in ("a", "b") for s in range(2) for look in range(2)
             for row in ("uepo", "sac") if t == "b" or row == "uepo"]  # fmt: skip
    columns = ["task", "seed", "row", "look", "env_steps", "score", "expert"]
    table = pd.DataFrame(looks, columns=columns)
    for rows, names in ((table, ["UEPO", "SAC"]), (table[table.task == "a"], ["UEPO"])):
        figure = plotting.draw("12_curves", rows)
        legends = [axes.get_legend() for axes in figure.axes]
        texts = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
        assert len(texts) == len(names)
        assert all(text.startswith(name) for text, name in zip(texts, names, strict=True))
        plt.close(figure)


def test_switch_has_a_key_for_both_of_its_prices() -> None:
    rows = [("t", s, row, 1.0, 2.0) for s in range(2) for row in comparison.LINES]
    columns = ["task", "seed", "row", "dip_exploring", "dip_updates"]
    figure = plotting.draw("12_switch", pd.DataFrame(rows, columns=columns))
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 2
    assert figure.axes[0].get_ylabel() == "points lost"


def test_a_plain_tick_is_1_2_or_5_times_a_power_of_ten() -> None:
    shown = [plotting.plain(value) for value in (0.02, 0.03, 0.5, 1.0, 4.0, 20.0, 90.0)]
    assert shown == ["0.02", "", "0.5", "1", "", "20", ""]
    more = [plotting.plain(value, digits=(2, 3, 4, 5)) for value in (0.03, 4.0, 90.0)]
    assert more == ["0.03", "4", ""]  # of an axis shorter than a power of ten


# ── notebooks 03 and 06 ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("share", "said"), [(0.98, "98 % are at a door: **not** as expected"),
                                             (0.1, "10 % are at a door: as expected")])  # fmt: skip
def test_a_single_model_without_noise_is_asked_where_it_stands(share: float, said: str) -> None:
    rows = [("n models, zero noise", 1, share - 0.02), ("n models, zero noise", 1, share + 0.02),
            ("n models, zero noise", 4, 0.3), ("n models, one noise", 1, 0.3)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["kind", "n", "coverage"])
    assert said.replace(" %", "%") in zero_noise_says(table)


@pytest.mark.parametrize("best", [2.0, -2.0])
def test_regret_is_held_against_what_was_expected(best: float) -> None:
    rows = [("best candidate", best), ("best candidate", best), ("κ = 0", 1.5), ("κ = 0", -0.5),
            ("random candidate", -3.0), ("random candidate", -5.0)]  # fmt: skip
    found = regret_says(pd.DataFrame(rows, columns=["against", "regret"]))
    assert "none against random candidate: -4.0, met" in found
    assert "none against κ = 0: +0.5, not met" in found
    assert f"some against the best: {best:+.1f}, {'met' if best > 0 else 'not met'}." in found
    assert ("noise of the episodes" in found) == (best < 0)


def test_what_is_printed_as_zero_counts_as_zero() -> None:
    rows = [("best candidate", -0.02), ("κ = 0", 0.04), ("random candidate", 0.0)]
    found = regret_says(pd.DataFrame(rows, columns=["against", "regret"]))
    assert found.count("+0.0, met") == 2 and "some against the best: +0.0, not met" in found
