"""E1: ways are those of the evaluation, routes are read from them, and what the tables then say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection
from tiny_study import TINY_SEEDS, settled, tiny
from torch import Tensor

from uepo_lib import cards, evaluation, played, plotting, profiles, tasks
from uepo_lib.coverage import NO_MODE
from uepo_lib.datasets import Normaliser
from uepo_lib.errors import UsageError
from uepo_lib.experiments import multi_seed, seed_sets
from uepo_lib.experiments.multi_seed_expected import expected
from uepo_lib.experiments.multi_seed_verdict import (
    CLAIMS,
    OTHER_KAPPA,
    SEEDS,
    at_other_kappas,
    claims,
)
from uepo_lib.experiments.seed_sets import (
    FRESH,
    GAUSSIANS,
    GUIDED,
    NETWORKS,
    UNGATED,
    SeedGrid,
    fixed,
)
from uepo_lib.experiments.sensitivity_verdict import POINTS
from uepo_lib.figures import multi_seed as drawn
from uepo_lib.figures import multi_seed_routes
from uepo_lib.maze import GOAL_CENTRE, ROUTES, centre
from uepo_lib.mixture_density import MixtureConfig, MixtureDensity, MixturePolicy
from uepo_lib.played import Played
from uepo_lib.stages import Product

# -- ways


class Pushes:
    """Member i always acts with its own constant."""

    obs_horizon, action_horizon = 1, 4

    def __init__(self, pushes: list[float]) -> None:
        self.pushes, self.n = torch.tensor(pushes), len(pushes)

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.pushes[:, None, None, None].expand(-1, states.shape[1], 4, 3)


def hopper() -> tuple[Pushes, tasks.Robot, Normaliser]:
    robot = tasks.get("hopper-medium").robot
    plain = Normaliser(torch.zeros(robot.state_dim), torch.ones(robot.state_dim))
    return Pushes([-0.5, 0.0, 0.5]), robot, plain


def test_the_episodes_are_the_evaluations_however_they_are_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, robot, plain = hopper()
    expected = evaluation.evaluate(policy, robot, plain, 4)
    together = played.play(policy, robot, plain, 4)
    monkeypatch.setattr(played, "ENVIRONMENTS_AT_ONCE", 6)  # two episodes at once
    split = played.play(policy, robot, plain, 4)
    for found in (together, split):
        assert torch.equal(found.returns, expected.returns)
        assert torch.equal(found.lengths, expected.lengths)
        for i, e in np.ndindex(3, 4):
            assert len(found.path(i, e)) == -(-int(expected.lengths[i, e]) // 4)
            assert torch.equal(found.path(i, e), together.path(i, e))


def test_a_path_begins_where_the_episode_does() -> None:
    policy, robot, plain = hopper()
    found = played.play(policy, robot, plain, 2)
    assert torch.equal(found.paths[0, :, 0], found.paths[2, :, 0])  # the same reset seeds
    assert ((found.paths[:, :, 0, 0] - 1.25).abs() <= 0.006).all()  # Hopper's height at a reset


def routes_played(arrive: bool) -> Played:
    """One member a route, one episode each, along the corners."""
    corners = [np.vstack([centre(2, 1), route.corners, GOAL_CENTRE]) for route in ROUTES]
    paths = torch.tensor(np.stack(corners), dtype=torch.float32)[:, None]
    lengths = torch.full((4, 1), 4 * paths.shape[2])
    return Played(torch.full((4, 1), float(arrive)), lengths, paths, 4)


def test_routes_are_those_of_the_corners_and_none_without_arrival() -> None:
    assert played.routes(routes_played(True)).flatten().tolist() == [0, 1, 2, 3]
    assert (played.routes(routes_played(False)) == NO_MODE).all()


def test_apart_is_the_distance_in_standard_deviations_while_both_last() -> None:
    steps = torch.randn(1, 2, 50, 2, generator=torch.Generator().manual_seed(0))
    paths = torch.cat([steps, steps + 2.0, steps])
    lengths = torch.full((3, 2), 50)
    lengths[2] = 20
    paths[2, :, 20:] = 1e3  # after its end nothing counts
    alive = [paths[0], paths[1], paths[2, :, :20]]
    sd = torch.cat([part.flatten(0, 1) for part in alive]).std(0)
    expected = float((2.0 / sd).square().sum().sqrt())
    found = played.apart(Played(torch.zeros(3, 2), lengths, paths, 1))
    assert found[0, 1] == pytest.approx(expected, rel=1e-5)
    assert found[1, 2] == pytest.approx(expected, rel=1e-5)
    assert found[0, 2] == 0
    assert (found.diagonal() == 0).all()


# -- a mixture's members


def test_a_member_of_a_mixture_keeps_to_its_component() -> None:
    network = MixtureDensity(MixtureConfig(num_components=2, hidden=(4,)), (1, 3), (5, 2))
    torch.nn.init.zeros_(network.body[-1].weight)
    network.start_from(torch.stack([torch.full((5, 2), -0.5), torch.full((5, 2), 0.5)]))
    policy = MixturePolicy(network, torch.tensor([0.1, 0.9]), 1, 4)
    acted = policy.act(torch.randn(2, 7, 1, 3))
    assert acted.shape == (2, 7, 4, 2)
    assert (acted[0] == -0.5).all()
    assert (acted[1] == 0.5).all()
    with pytest.raises(UsageError, match="action_horizon"):
        MixturePolicy(network, torch.tensor([0.1]), 1, 6)
    with pytest.raises(UsageError, match="quantile"):
        MixturePolicy(network, torch.tensor([1.1]), 1, 4)


# -- what the tables say


def tables(gain: float, spread: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Five seeds in which every claim's difference is ``gain`` ± ``spread``."""
    generator = np.random.default_rng(0)
    names = {name for claim in CLAIMS for name in (claim.ours, claim.theirs) if name}
    returns, distances = [], []
    for seed in range(5):
        noise = spread * generator.standard_normal()
        for name in sorted(names):
            value = gain + noise if name in (SEEDS, GUIDED) else 0.0
            row = {"task": "maze-routes", "seed": seed, "set": name, "n": 10}
            measures = ("mean", "equal_mean", "between", "other_half", "coverage", "persistence")
            returns.append({**row, **dict.fromkeys(measures, value)})
            distances.append({**row, "rho": 2 * value, "rho_rms": value, "executed_rms": value})
    return pd.DataFrame(returns), pd.DataFrame(distances)


UNPAIRED = [c for c in CLAIMS if not (c.ours == GUIDED and c.theirs == SEEDS)]
"""The claims that the tables above can turn either way."""


@pytest.mark.parametrize(
    ("gain", "spread", "label"),
    [(1.0, 0.1, "supported"), (-1.0, 0.1, "not supported"), (0.0, 1.0, "inconclusive")],
)
def test_each_claim_gets_its_three_labels(gain: float, spread: float, label: str) -> None:
    said = claims(*tables(gain, spread)).set_index("claim")["verdict"]
    for claim in UNPAIRED:
        assert said[claim.text].startswith(label), claim.text
    for claim in set(CLAIMS) - set(UNPAIRED):  # guided and unguided are equal there
        assert said[claim.text].startswith("supported" if claim.margin else "inconclusive")


@pytest.mark.parametrize(
    ("lost", "label"),
    [(0.9, "supported"), (1.5, "not supported"), (1.0, "inconclusive")],
)
def test_what_guidance_may_cost_is_a_margin(lost: float, label: str) -> None:
    """In units of the margin, give or take a little a seed."""
    returns, distances = tables(0.0)
    guided = returns["set"] == GUIDED
    returns.loc[guided, "equal_mean"] = -POINTS * lost + 0.1 * np.array([1.0, -1.0, 0.7, -0.7, 0.0])
    said = claims(returns, distances).set_index("claim")["verdict"]
    assert said[f"guidance costs no return, to {POINTS:g} points"].startswith(label)


def test_guidance_is_judged_by_its_sets_alone() -> None:
    returns, distances = tables(1.0, 0.1)
    for table in (returns, distances):
        ours = table["set"] == GUIDED
        numbers = table.columns.difference(["task", "seed", "set", "n"])
        table.loc[ours, numbers] += 1 + 0.1 * np.arange(5)[:, None]
    said = claims(returns, distances).set_index("claim")["verdict"]
    for claim in set(CLAIMS) - set(UNPAIRED):
        assert said[claim.text].startswith("supported")


def test_the_best_seed_is_told_at_other_kappas_with_their_names() -> None:
    returns, distances = tables(1.0, 0.1)
    half = returns[returns["set"] == SEEDS].assign(set=seed_sets.fixed(0.5))
    half["other_half"] -= 4.0
    found = at_other_kappas(pd.concat([returns, half]), distances, [0.5])
    assert found["task"].tolist() == ["maze-routes, κ = 0.5"]
    assert set(found["claim"]) == {OTHER_KAPPA} and OTHER_KAPPA not in {c.text for c in CLAIMS}
    theirs = claims(returns, distances).set_index("claim")
    at_one = theirs.loc["the best seed, so chosen, beats zero noise", "gain"]
    assert found["gain"].iloc[0] == pytest.approx(at_one - 4.0)


def test_three_seeds_decide_nothing_and_a_task_without_the_set_is_left_out() -> None:
    returns, distances = tables(1.0)
    few = returns[returns["seed"] < 3]
    said = claims(few, distances[distances["seed"] < 3])
    assert said["verdict"].str.startswith("inconclusive").all()
    without = few[few["set"] != FRESH]
    assert "n seeds reach more routes than n draws" not in set(claims(without, distances)["claim"])


@pytest.mark.parametrize(
    "wrong",
    [{"n": 2}, {"sizes": (1, 2)}, {"kappas": (0.5,)}, {"episodes": 1}, {"rival_share": 0.0},
     {"rivals": "pen-expert"}],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SeedGrid(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="profile"):
        seed_sets.grid_of("huge")


# -- all of it, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with settled(tmp_path_factory.mktemp("seeds")) as place:
        yield place


def test_every_set_of_every_size_has_its_row(folder: Path) -> None:
    found = multi_seed.run("tiny")
    returns, distances = found["returns"][0], found["distances"][0]
    sizes = returns.groupby("set")["n"].agg(list)
    assert sizes[seed_sets.ZERO] == [1]
    assert sizes[SEEDS] == sizes[FRESH] == sizes[NETWORKS] == [1, 2, 3]
    assert set(distances["set"]) == set(sizes.index) - {seed_sets.ZERO}
    assert distances["floor"].notna().all()  # Hopper's behaviour is known
    one = returns[returns["set"] == SEEDS].set_index("n")["mean"]
    assert one[1] == pytest.approx(one[3])  # each member once, or all together
    assert len(claims(returns, distances)) > 0
    lines = expected(returns, distances, multi_seed.members_table(tiny()))
    assert len(lines) == 9 and all("open" in one for one in lines)  # one seed


def test_sets_that_played_more_are_cut_to_the_shortest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny()
    robot = study.task.robot
    pair = torch.tensor([[1.0, 2.0, 90.0, 90.0], [3.0, 4.0, 90.0, 90.0], [5.0, 6.0, 90.0, 90.0]])
    whole, short = (
        Played(returns, torch.ones(3, returns.shape[1]), torch.zeros(3, returns.shape[1], 1, 2), 4)
        for returns in (pair, pair[:, :2])
    )
    made = {
        name: Product((), tuple, lambda value=value: value)
        for name, value in ((SEEDS, whole), (GUIDED, short))
    }
    monkeypatch.setattr(multi_seed, "plays", lambda *_: made)
    returns = multi_seed.returns_table(study, TINY_SEEDS)[0].set_index(["set", "n"])
    assert returns.loc[(SEEDS, 3), "mean"] > returns.loc[(GUIDED, 3), "mean"]
    for n in (1, 3):
        for name in (SEEDS, GUIDED):
            found = returns.loc[(name, n), "equal_mean"]
            assert found == pytest.approx(robot.normalised(3.5), rel=1e-4)


def test_scores_are_normalised_returns(folder: Path) -> None:
    study = tiny()
    members = multi_seed.members_table(study)
    mine = members[members["set"] == SEEDS]["score"].to_numpy()
    product = multi_seed.plays(study, TINY_SEEDS)[SEEDS]
    robot = study.task.robot
    expected = [robot.normalised(float(r)) for r in product.value.returns.mean(1)]
    np.testing.assert_allclose(mine, expected)
    returns = multi_seed.returns_table(study)[0]
    largest = returns[(returns["set"] == SEEDS) & (returns["n"] == 3)]["mean"].item()
    assert largest == pytest.approx(np.mean(expected), rel=1e-4)


def test_n_models_are_trained_for_their_share(folder: Path) -> None:
    beside = seed_sets.network(TINY_SEEDS, 1, "tiny")
    assert beside.config("diffusion").num_updates == profiles.budget("tiny").diffusion_updates // 2
    assert beside.seed == 1
    whole = seed_sets.network(SeedGrid(rival_share=1.0), 1, "tiny")
    assert not whole.overrides  # at full share they are the models that there are


def test_repeats_differ_by_their_noise_and_by_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny()
    assert multi_seed.data_floor(study, 2) > 0.2  # the medium policy's own noise
    nearest = [multi_seed.data_floor(study, n) for n in (2, 3, 10)]
    assert nearest == sorted(nearest, reverse=True) and nearest[2] < nearest[0]  # as for n plans
    logged = study.dataset.actions
    monkeypatch.setattr(cards, "mean_actions", lambda _, steps: logged[steps])
    assert multi_seed.data_floor(study, 3) == 0  # what was meant is what was done
    monkeypatch.setattr(cards, "mean_actions", lambda *_: None)
    assert np.isnan(multi_seed.data_floor(study, 3))


# ── what figures say ────────────────────────────────────────────────────────────────────────────


def test_an_odd_panel_of_routes_says_why() -> None:
    reached = pd.DataFrame({"north-north": [1.0, 0.5], "south-south": [0.0, 0.5]})
    assert multi_seed_routes._routes_title("κ = 1", reached) == "κ = 1"
    assert multi_seed_routes._routes_title("κ = 0", reached.head(1)) == "κ = 0: one member"
    assert multi_seed_routes._routes_title("n Gaussians", 0 * reached) == "n Gaussians: no arrivals"
    assert multi_seed_routes._routes_title("guided", 0.5 * reached) == "guided:\n50% arrive"
    assert multi_seed_routes._routes_title("clone", reached / 200) == "clone:\n0.5% arrive"
    assert multi_seed_routes._routes_title("guided", reached, 4) == "guided: 4 episodes"
    seldom = multi_seed_routes._routes_title("guided", 0.5 * reached, 4)
    assert seldom == "guided:\n4 episodes, 50% arrive"


@pytest.mark.parametrize(("routes", "named"), [([0, 3], False), ([0, -1], True)])
def test_paths_without_arrival_are_in_the_legend_only_where_there_are_any(
    routes: list[int], named: bool
) -> None:
    rows = [("κ = 1", 0, e, route, x, 0.0) for e, route in enumerate(routes) for x in (0.0, 1.0)]
    table = pd.DataFrame(rows, columns=["set", "member", "episode", "route", "x", "y"])
    legend = plotting.draw("10_paths", table).legends[0]
    said = [text.get_text() for text in legend.get_texts()]
    assert ("no arrival" in said) == named and said[-1] == "goal"


def test_sets_that_stand_side_by_side_differ_in_colour() -> None:
    sets = [fixed(0.5), fixed(1.0), FRESH, GUIDED, UNGATED, GAUSSIANS]
    assert len({drawn.colour_of(name) for name in sets}) == len(sets)
    assert drawn.alpha_of(fixed(0.25)) < drawn.alpha_of(fixed(0.5))


@pytest.mark.parametrize("few", [2, 8])
def test_means_of_fewer_episodes_are_drawn_open_and_say_so(few: int) -> None:
    rows = [("hopper", seed, name, episodes, i, 10.0 * i)
            for name, episodes in ((fixed(1.0), 8), (GUIDED, few)) for seed in (0, 1)
            for i in range(3)]  # fmt: skip
    columns = ["task", "seed", "set", "episodes", "member", "score"]
    axes = plotting.draw("10_members", pd.DataFrame(rows, columns=columns)).axes[0]
    ticks = [text.get_text().replace("\u00a0", " ") for text in axes.get_xticklabels()]
    assert ticks == [fixed(1.0), f"{GUIDED}\n({few} episodes)" if few < 8 else GUIDED]
    dots = [found for found in axes.collections if isinstance(found, PathCollection)]
    filled = [len(found.get_facecolor()) > 0 for found in dots]
    assert filled == [True, True, few == 8, few == 8]


def test_a_task_without_a_floor_is_named() -> None:
    assert drawn._repeats([]) == "n noisy repeats of one behaviour"
    assert drawn._repeats(["maze-routes"]).endswith("(not known: maze-routes)")


def test_a_line_of_fewer_seeds_says_how_many() -> None:
    table = pd.DataFrame({"set": list("aab"), "seed": [0, 1, 0]})
    said = [plotting.counted(n, table[table["set"] == n], table) for n in "ab"]
    assert said == ["a", "b (1 seed)"]
