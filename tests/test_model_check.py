"""What notebook 05 measures, against models and systems whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from model_toys import LinearGaussian, randn
from torch import Tensor

from uepo_lib import plotting
from uepo_lib.augmentation import AugmentationConfig
from uepo_lib.datasets import Batch, Dataset, Normaliser, Transitions
from uepo_lib.dynamics import DynamicsConfig, build
from uepo_lib.figures import epsilon as drawn
from uepo_lib.figures import model_check, sharpness
from uepo_lib.locomotion import HOPPER
from uepo_lib.specs import DatasetKey
from uepo_lib.tasks import get

WORLD = LinearGaussian()


class Exact:
    """The linear system itself as an ensemble of equal members, its σ ``factor`` times the true."""

    cfg = DynamicsConfig(num_members=3, num_elites=2, hidden=(4, 4), weight_decay=(0.0, 0.0, 0.0))

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def moments(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        mean = WORLD.mean(states, actions).expand(2, -1, -1)
        return mean, (self.factor * WORLD.noise).square().expand_as(mean)

    def nll(self, data: Transitions) -> Tensor:
        means, variances = self.moments(data.states, data.actions)
        target = torch.cat([data.next_states, data.rewards.unsqueeze(-1)], -1)
        return -torch.distributions.Normal(means[0], variances[0].sqrt()).log_prob(target).sum(-1)


def test_an_exact_model_is_calibrated_and_a_bold_one_is_not() -> None:
    models: Any = {"exact": Exact(), "bold": Exact(0.5)}
    numbers, curves = model_check.fit_table(models, {"test": WORLD.transitions(20_000)})
    exact, bold = (numbers[numbers["model"] == name].iloc[0] for name in ("exact", "bold"))
    assert exact["inside 50 %"] == pytest.approx(0.5, abs=0.01)
    assert exact["inside 90 %"] == pytest.approx(0.9, abs=0.01)
    normal = torch.distributions.Normal(0.0, 1.0)
    inside = 2 * normal.cdf(0.5 * normal.icdf(torch.tensor(0.95))) - 1
    assert bold["inside 90 %"] == pytest.approx(float(inside), abs=0.01)
    entropy = float((0.5 + 0.5 * math.log(2 * math.pi) + WORLD.noise.log()).sum())
    assert exact["mean NLL"] == pytest.approx(entropy, abs=0.05)
    assert len(curves) == 2 * 19


def test_members_are_scored_in_the_unit_they_are_trained_in() -> None:
    model = build(Exact.cfg, 3, 1).requires_grad_(False)
    model.elites, model.target_scale = torch.tensor([2, 0]), torch.tensor([0.5, 2.0, 1.0, 3.0])
    held = WORLD.transitions(50)
    found = model_check.member_table(model, held)
    assert found["elite"].tolist() == [True, False, True]
    mean, _ = model.scaled_moments(torch.cat([held.states, held.actions], -1).expand(3, -1, -1))
    target = torch.cat([held.next_states - held.states, held.rewards.unsqueeze(-1)], -1)
    expected = (mean - target / model.target_scale).square().mean((1, 2))
    np.testing.assert_allclose(found["error"], expected, rtol=1e-4)


def test_predictions_lie_between_their_bounds() -> None:
    model = build(Exact.cfg, 3, 1).requires_grad_(False)
    model.min_logvar.fill_(-3.0)
    found = model_check.bounds_table(model, WORLD.transitions(200))
    assert len(found) == 4
    assert found["lower bound"].to_numpy() == pytest.approx(math.exp(-1.5))
    reach = -3.0 + math.log1p(math.exp(3.5))  # between soft bounds −3 and 0.5
    assert found["upper bound"].to_numpy() == pytest.approx(math.exp(reach / 2))
    assert (found["crossed"] == 0).all()
    for low, high in (("lower bound", "5 %"), ("5 %", "median"), ("95 %", "upper bound")):
        assert (found[low] <= found[high] * 1.01).all()


def test_bounds_that_have_crossed_are_said_and_hold() -> None:
    model = build(Exact.cfg, 3, 1).requires_grad_(False)
    model.max_logvar[:, :, 1], model.min_logvar[:, :, 1] = -6.0, -4.0
    found = model_check.bounds_table(model, WORLD.transitions(200))
    assert found["crossed"].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert (found["lower bound"] <= found["5 %"]).all()
    assert (found["95 %"] <= found["upper bound"] * 1.0001).all()


def test_patience_ends_the_same_training_early() -> None:
    table = model_check.stopping_table(patience=2, updates=400)
    whole, stopped = (
        table[table["training"] == name].drop(columns="training").reset_index(drop=True)
        for name in ("all updates", "with patience")
    )
    assert len(stopped) < len(whole) == 20
    pd.testing.assert_frame_equal(whole[: len(stopped)], stopped)


# ---- tails ---------------------------------------------------------------------------------------


def hopping() -> Dataset:
    """Two episodes of four states: flying, down, down, flying with the leg at its limit."""
    env = HOPPER.make()
    env.reset(seed=0)
    flying = HOPPER.logged_state(env)
    env.close()
    flying[1], flying[3:6] = 1.6, (-0.3, -0.3, 0.0)
    down, straight = flying.copy(), flying.copy()
    down[1], straight[4] = 1.0, 0.05
    logged = np.stack([flying, down, down, straight, flying, flying, straight, straight])
    moved = torch.zeros(8, 11)
    moved[0, 9] = 3.0  # the landing moves the leg
    moved[5, 0] = 1.0  # the limit that begins, the height
    return Dataset(
        task=get("hopper-medium"), key=DatasetKey("made-up", "0", "0"),
        normaliser=Normaliser(torch.zeros(11), torch.ones(11)), states=torch.zeros(8, 11),
        actions=torch.zeros(8, 3), rewards=torch.zeros(8), next_states=moved,
        terminated=torch.zeros(8).bool(), bounds=torch.tensor([[0, 4], [4, 8]]),
        simulator_states=torch.from_numpy(logged), metadata={},
    )  # fmt: skip


class Still:
    """Predicts that nothing changes."""

    def predict(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return states, torch.zeros(len(states))


def test_the_tail_names_its_dimension_and_its_constraint() -> None:
    still: Any = Still()
    dimension, constraint = model_check.tail_table(still, hopping(), torch.arange(8), share=0.1)
    shares = dimension.set_index("dimension")
    assert shares.loc["leg rate", "all steps"] == pytest.approx(0.9)
    assert shares.loc["height", "all steps"] == pytest.approx(0.1)
    assert shares.loc["leg rate", "worst steps"] == pytest.approx(1.0)
    kinds = constraint.set_index("constraint")
    # the last step of each episode is left out: six remain
    expected = {
        "lands or lifts off": 2, "joint limit begins or ends": 1, "on the ground": 1,
        "joint at its limit": 1, "free": 1,
    }  # fmt: skip
    assert (6 * kinds["steps"]).to_dict() == pytest.approx(expected)
    assert kinds.loc["lands or lifts off", "worst"] == 1.0
    assert kinds.loc["lands or lifts off", "error"] == pytest.approx(0.9)
    assert kinds.loc["joint limit begins or ends", "error"] == pytest.approx(0.1)
    assert kinds["worst_error"].to_dict() == pytest.approx(
        {**dict.fromkeys(expected, 0.0), "lands or lifts off": 0.9}
    )


@pytest.mark.parametrize(
    ("landing", "said"),
    [(0.3, "not met: the most frequent kind is *joint at its limit*"), (0.9, "is met.")],
)
def test_the_tail_says_which_steps_are_the_worst(landing: float, said: str) -> None:
    table = pd.DataFrame({
        "constraint": ["lands or lifts off", "joint at its limit"], "steps": [0.1, 0.9],
        "worst": [landing, 1 - landing], "error": [0.4, 0.6], "worst_error": [0.2, 0.15],
    })  # fmt: skip
    text = model_check.tail_says(table)
    assert said in text
    assert "carries 35% of the squared error" in text
    assert f"{10 * landing:.1f} times as frequent" in text
    assert "*joint at its limit*" in text


# ---- sharpness -----------------------------------------------------------------------------------


def test_costs_of_sequences_are_those_of_their_steps() -> None:
    model = build(Exact.cfg, 3, 1).requires_grad_(False)
    past, actions, future = WORLD.sequences(9, 6)
    cfg = AugmentationConfig(horizon=6, transitions="simulator", covariance="unit")
    costs = sharpness.real_costs(model, Batch(past, actions, future), cfg)
    before = torch.cat([past[:, -1:], future[:, :-1]], 1)
    for t in (0, 5):
        guess, _ = model.predict(before[:, t], actions[:, t])
        expected = 0.5 * (guess - future[:, t]).square().mean(1)
        torch.testing.assert_close(costs[:, t], expected)
    excess = sharpness.real_excess(model, Batch(past, actions, future), cfg)
    torch.testing.assert_close(excess, costs.mean(1) - costs.mean(1).median())


def test_the_width_of_a_gaussian_is_its_sigma() -> None:
    width = sharpness.acceptance_width(0.3 * randn(200_000) + 7)
    assert width == pytest.approx(0.3, rel=0.01)


def test_the_sharpness_of_ar1_costs_is_the_closed_form() -> None:
    known = sharpness.ar1_table((0.0, 0.8), horizon=30)
    assert known["effective steps"].iloc[0] == 30
    np.testing.assert_allclose(known["measured"], known["predicted"], rtol=0.03)
    table, widths = sharpness.sharpness_table(randn(400, 20) ** 2)
    assert widths["all lags"] == pytest.approx(widths["measured std"], rel=1e-6)
    measured = table[(table["part"] == "acceptance") & (table["name"] == "measured")]
    assert measured["y"].is_monotonic_increasing
    assert measured["y"].iloc[len(measured) // 2] == pytest.approx(0.5, abs=0.01)


# ---- figures -------------------------------------------------------------------------------------


def test_no_filter_stands_last_on_the_axis() -> None:
    places = drawn._places(pd.DataFrame({"epsilon": [0.1, math.nan, 0.01]}))
    assert list(places) == [0.01, 0.1, math.inf]


def test_controls_of_one_volume_are_one_diamond() -> None:
    rows = [
        (seed, "simulator", epsilon, how, 100 if epsilon != 0.01 else 60, "medium", 1, 0.1 * seed)
        for seed in (0, 1)
        for epsilon, how in (
            (0.01, "kl"), (0.05, "kl"), (0.1, "kl"), (math.nan, "kl"),
            (0.01, "random"), (0.05, "random"), (0.1, "random"),
        )
    ]  # fmt: skip
    columns = ["seed", "source", "epsilon", "acceptance", "volume", "data", "step", "gain"]
    axes = plotting.draw("05_epsilon_error", pd.DataFrame(rows, columns=columns)).axes[0]
    name = "D_diff from the simulator, at random"
    (diamonds,) = (c for c in axes.collections if c.get_label() == name)
    at = np.asarray(diamonds.get_offsets())[:, 0]
    assert at.round().tolist() == [0, 1]  # 60 and 100 transitions
    dashes = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [np.round(line.get_xdata()).tolist() for line in dashes] == [[0], [1, 2, 3]]
    (ranges,) = (c for c in axes.collections if isinstance(c, LineCollection))
    assert [path.vertices[:, 1].tolist() for path in ranges.get_paths()] == [[0, 0.1]] * 2


def gained(effects: dict[tuple[float, str], tuple[int, float]]) -> pd.DataFrame:
    """ε and acceptance -> volume and gain, for two seeds that differ by one in all gains."""
    rows = [
        (seed, "simulator", 1.0, epsilon, how, volume, "medium", 1, gain + seed)
        for seed in (0, 1)
        for (epsilon, how), (volume, gain) in effects.items()
    ]
    columns = ["seed", "source", "ratio", "epsilon", "acceptance", "volume", "data", "step", "gain"]
    return pd.DataFrame(rows, columns=columns)


def test_the_filter_is_set_beside_chance_at_equal_volume_alone() -> None:
    table = gained(
        {(0.01, "kl"): (60, 0.5), (0.05, "kl"): (80, 9.0), (0.1, "kl"): (100, 0.6),
         (math.nan, "kl"): (100, 0.2), (0.01, "random"): (60, 0.1), (0.1, "random"): (100, 0.1),
         (0.2, "random"): (100, 0.1)}
    )  # fmt: skip
    chance = drawn.chance_table(table)
    assert len(chance) == 2 * 3  # nothing was drawn at random of the volume at 0.05
    means = chance.groupby("epsilon", dropna=False)["effect"].mean()
    np.testing.assert_allclose(means, [0.4, 0.5, 0.1])
    text = drawn.chance_says(chance)
    assert f"by up to {2**0.1 - 1:.0%}, from luck" in text
    assert "in 2 of 2 comparisons of means, in its favour in 2 of them" in text
    alone = drawn.chance_table(table[table["volume"] < 100])
    assert "not measured" in drawn.chance_says(alone)
    axes = plotting.draw("05_epsilon_chance", chance).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["0.01", "0.1", "no filter"]
