"""Guidance on the toy, where it is undone, and what plans become when they are executed."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusion_toys import gaussian_model, randn, small_model
from matplotlib.patches import Rectangle
from test_rollouts import Counting
from torch import Tensor

from uepo_lib import divergence as dv
from uepo_lib import executed, plotting, toys
from uepo_lib.errors import UsageError
from uepo_lib.figures import guidance
from uepo_lib.figures import guidance_robots as _figures  # noqa: F401 - registers its figures
from uepo_lib.figures.survival import AFTER
from uepo_lib.guided_sets import FEWER, FEWER_TOLD, LONG, SHIPPED, STRONG, GuidedRobot
from uepo_lib.stages import Product, Study
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.survival import survival, trace

TOY = toys.four_modes()
EXACT = guidance.ToyStudy(TOY, toys.exact_model(TOY), tuning=range(1000, 1040))
CHOSEN = pd.Series({"steps": 13, "schedule": "constant", "eta": 1.0})


def one_door(num_steps: int, std: float) -> tuple[SubPolicies, Tensor]:
    """A guided set on data with one mode, and states for it."""
    toy = toys.Doors([(1, 1)], std=std)
    model = toys.exact_model(toy, clip=100.0)
    policies = SubPolicies.from_seeds(
        model, 3, 0, num_denoising_steps=num_steps, guidance=dv.GuidanceConfig(1.0)
    )
    return policies, toy.past(randn(5, 2, seed=1))


# -- the claim, on the toy


def test_guidance_parts_the_sets() -> None:
    """The share of calls at τ goes from under a half to nine tenths, within the data's support."""
    table = guidance.report_table(EXACT, range(40), CHOSEN, (1.0,))
    means = table.groupby("set")[["call_share", "modes", "in_support"]].mean()
    assert means.loc["unguided", "call_share"] < 0.5
    assert means.loc["guided", "call_share"] >= 0.9
    assert means.loc["guided", "in_support"] >= 0.95
    assert means.loc["guided", "modes"] > means.loc[["unguided", "ungated"], "modes"].max() + 0.2
    assert means.loc["final", "in_support"] < 0.1


def test_the_rule_that_chooses() -> None:
    rows = [(0.0, 0.99, 1.0), (3.0, 0.98, 0.96), (1.0, 0.94, 1.0), (0.3, 0.5, 1.0), (5.0, 1.0, 0.9)]
    tuned = pd.DataFrame(rows, columns=["eta", "call_share", "in_support"])
    assert guidance.choose(tuned)["eta"] == 1.0  # weakest of those near the best
    assert guidance.choose(tuned, margin=0.01)["eta"] == 3.0
    assert guidance.choose(tuned, support=0.8, margin=0.01)["eta"] == 5.0
    assert guidance.near_best(tuned)["eta"].tolist() == [1.0, 3.0]


def test_sets_side_by_side_are_the_sets_one_by_one() -> None:
    seeds, past = (3, 4, 5), TOY.past(EXACT.states)
    config = dv.GuidanceConfig(0.8, 0.7, EXACT.floor, "constant")
    together = guidance.stacked(EXACT.model, 4, seeds, 6, config)
    plans = together.plan_shared(past).unflatten(0, (3, 4))
    for s, seed in enumerate(seeds):
        alone = SubPolicies.from_seeds(
            EXACT.model, 4, seed, num_denoising_steps=6, guidance=config
        ).plan_shared(past)
        torch.testing.assert_close(plans[s], alone, atol=1e-4, rtol=1e-4)
    again = guidance.stacked(EXACT.model, 4, seeds, 6, config).plan_shared(past)
    assert torch.equal(again.unflatten(0, (3, 4)), plans)


def test_all_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, cdist = [], torch.cdist

    def counted(*arguments: object, **options: object) -> Tensor:
        calls.append(1)
        return cdist(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "cdist", counted)
    for n in (2, 12):
        dv.nearest_neighbour(randn(n, 3, 8, 2))
    assert len(calls) == 4


# -- where it is undone


@pytest.mark.parametrize(("num_steps", "std"), [(1, 0.1), (5, 0.1), (13, 0.4), (25, 0.05)])
def test_survival_on_one_gaussian_is_the_closed_form(num_steps: int, std: float) -> None:
    policies, past = one_door(num_steps, std)
    found = survival(policies, past, 0.05)
    closed = torch.tensor(toys.gaussian_survival(policies.model, std, num_steps))
    torch.testing.assert_close(found.along, closed, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.size, closed, atol=1e-4, rtol=1e-3)
    assert closed[-1] == 1


def test_survival_of_a_long_chain_is_the_root_of_the_datas_share() -> None:
    model = gaussian_model(0.0, 0.3, num_train_steps=2_000)
    closed = toys.gaussian_survival(model, 0.3, 2_000)
    for step in (200, 1_000, 1_800, 1_990):
        k = torch.tensor([model.timesteps(2_000)[step][1]])
        alpha, sigma = float(model.schedule.alpha(k)), float(model.schedule.sigma(k))
        share = (alpha * 0.3) ** 2 / ((alpha * 0.3) ** 2 + sigma**2)
        assert closed[step] == pytest.approx(math.sqrt(share), rel=0.02)


def test_slopes_multiply_to_the_output_sd() -> None:
    model = gaussian_model(0.0, 0.2)
    slopes = [slope for slope, _ in toys.gaussian_steps(model, 0.2, 5)]
    assert len(slopes) == 5
    x = 0.1 * randn(1, 4, 2)
    step = (model.chain_mean(x + 1e-3, torch.zeros(1, 1, 1), 2, 5) - model.chain_mean(
        x, torch.zeros(1, 1, 1), 2, 5
    )) / 1e-3  # fmt: skip
    assert float(step.mean()) == pytest.approx(slopes[2], rel=1e-2)
    assert toys.gaussian_output_sd(model, 0.2, 5) == pytest.approx(math.prod(slopes))


def test_a_trace_holds_every_step() -> None:
    config = dv.GuidanceConfig(2.0, 0.1, 0.01, "constant")
    policies = SubPolicies.from_seeds(small_model(), 3, 0, guidance=config)
    past = randn(4, 2, 3, seed=5)
    seen = trace(policies, past)
    assert len(seen) == 5
    assert torch.equal(seen[-1].after, policies.plan_shared(past))
    assert torch.equal(seen[-1].before, seen[-1].after)
    guided = policies.guidance
    assert guided is not None
    for j, (before, after) in enumerate(seen[:-1]):
        sigma = guided.sigma(before, j)
        expected = before + sigma[..., None, None] * guided.xi[:, None, j]
        torch.testing.assert_close(after, expected.clamp(-1, 1))
        assert not torch.equal(before, after)
    plain = policies.with_guidance(None)
    for call in (lambda: trace(plain, past), lambda: survival(plain, past, 0.1)):
        with pytest.raises(UsageError, match="guidance=None"):
            call()
    with pytest.raises(UsageError, match="std"):
        survival(policies, past, 0.0)


# -- executed trajectories


class Planned:
    """Two members that plan once for all states."""

    n, obs_horizon, action_horizon = 2, 2, 3

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.plan_shared(states[0])[:, :, :3]

    def plan_shared(self, past: Tensor) -> Tensor:
        return torch.zeros(2, len(past), 8, 1)


def test_executed_ways_start_alike_stay_where_they_end_and_are_counted() -> None:
    world = Counting()
    policies: object = Planned()
    found = executed.execute(policies, world, torch.tensor([4, 0, 2]), 6)  # type: ignore[arg-type]
    assert found.states.shape == (2, 3, 7, 2)
    assert found.plans.shape == (2, 3, 8, 1)
    assert found.lengths.tolist() == [[4, 6, 2], [4, 6, 2]]
    assert world.steps == 24
    assert found.states[0, :, 0, 0].tolist() == [4, 0, 2]
    assert found.states[1, 0, :, 1].tolist() == [0, 1, 2, 3, 4, 4, 4]
    assert found.states[1, 2, :, 1].tolist() == [0, 1, 2, 2, 2, 2, 2]
    alone = [executed.execute(policies, Counting(), torch.tensor([i]), 6) for i in (4, 0, 2)]  # type: ignore[arg-type]
    joined = executed.Executed.join(alone)
    assert torch.equal(joined.states, found.states)
    assert torch.equal(joined.lengths, found.lengths)
    short = found.until(3)
    assert torch.equal(short.states, found.states[:, :, :4])
    assert short.lengths.tolist() == [[3, 3, 2], [3, 3, 2]]
    with pytest.raises(UsageError, match="horizon=7"):
        found.until(7)
    with pytest.raises(UsageError, match="horizon=1"):
        executed.execute(policies, world, torch.tensor([1]), 1)  # type: ignore[arg-type]


def test_ways_are_compared_by_divs_own_formula_and_by_distance() -> None:
    seen = executed.Executed(randn(3, 4, 8, 2), randn(3, 4, 6, 5, seed=1), torch.ones(3, 4))
    found = executed.distances(seen, floor=0.1)
    div = dv.divergence(seen.states[0], seen.states[2], 0.1)
    torch.testing.assert_close(found["div"][0, 2], div, atol=1e-4, rtol=1e-4)
    gap = seen.states[0, 1] - seen.states[2, 1]
    assert float(found["rms"][0, 2, 1]) == pytest.approx(float(gap.square().mean().sqrt()))
    shifted = replace(seen, states=seen.states[:1] + torch.arange(3.0)[:, None, None, None])
    found = executed.distances(shifted)
    assert found["div"].abs().max() < 1e-4  # blind to an offset, which the distance sees
    torch.testing.assert_close(found["rms"][0, :, 0], torch.arange(3.0))
    plans = executed.plan_distances(seen.plans)
    assert torch.equal(plans["rms"], plans["rms"].transpose(0, 1))
    assert plans["div"].shape == (3, 3, 4)


def test_rank_correlation() -> None:
    one = torch.rand(6, 6, 40, generator=torch.Generator().manual_seed(0))
    one = one + one.transpose(0, 1)
    assert executed.rank_correlation(one, one.exp() * 7).mean == pytest.approx(1)
    assert executed.rank_correlation(one, -one).high == pytest.approx(-1)
    other = torch.rand(6, 6, 40, generator=torch.Generator().manual_seed(1))
    assert abs(executed.rank_correlation(one, other).mean) < 0.2
    per_state = one * torch.arange(1, 41)  # a state's own scale does not count
    assert executed.rank_correlation(one, per_state).mean == pytest.approx(1)
    one[:, :, 0] = 1.0  # ranks of equal values say nothing: that state is left out
    assert np.isfinite(executed.rank_correlation(one, other).mean)
    with pytest.raises(UsageError, match="n=2"):
        executed.rank_correlation(one[:2, :2], one[:2, :2])


# -- settings


def test_the_models_own_number_of_steps_is_no_part_of_an_identity() -> None:
    study = Study("hopper-medium", 0, "laptop", progress=False)
    nothing: Product[object] = Product((), lambda: (), lambda: None)
    own = study.sub_policies(nothing, 1.0, guided=True)  # type: ignore[arg-type]
    other = study.sub_policies(nothing, 1.0, guided=True, num_denoising_steps=LONG.steps)  # type: ignore[arg-type]
    assert "num_denoising_steps" not in own.config
    assert other.config == {**own.config, "num_denoising_steps": LONG.steps}
    assert own.config["guidance"]["eta"] == SHIPPED.eta
    assert own.config["guidance"]["eta_schedule"] == SHIPPED.schedule
    assert study.config("diffusion").num_denoising_steps == SHIPPED.steps
    small = Study("hopper-medium", 0, "smoke", progress=False)
    assert small.config("diffusion").num_denoising_steps < SHIPPED.steps
    assert GuidedRobot(small).unguided(SHIPPED.steps).config["num_denoising_steps"] == SHIPPED.steps


# -- figures


def test_the_maps_frame_what_the_rule_chose() -> None:
    """Grey cells lose plans; the best ones are framed, and the weakest η of them is taken."""
    cells = {(5, 0.1): (0.2, 1.0), (5, 1.0): (0.9, 1.0), (9, 0.1): (1.0, 0.5), (9, 1.0): (0.92, 1)}
    rows = [(steps, "constant", eta, 0.3, 3.0, *seen) for (steps, eta), seen in cells.items()]
    rows += [(steps, "none", 0.0, 0.3, 2.0, 0.1, 1.0) for steps in (5, 9)]
    columns = ["steps", "schedule", "eta", "tau", "modes", "call_share", "in_support"]
    axes = plotting.draw("04_toy_tuning", pd.DataFrame(rows, columns=columns)).axes[0]
    frames = [
        (round(frame.get_x()), round(frame.get_y()), frame.get_linestyle())
        for frame in axes.patches
        if isinstance(frame, Rectangle)
    ]
    near = [(2, 0, ":"), (2, 1, ":")]
    assert sorted(frames[:2]) == near
    assert frames[2:] == [(2, 1, "solid")]
    (image,) = axes.images
    paint = np.asarray(image.get_array())
    assert paint[1, 1, :3] == pytest.approx([0.9] * 3)  # the highest share, out of support
    assert [label.get_text() for label in axes.get_xticklabels()] == ["unguided", "0.1", "1"]


def test_intervals_end_where_shares_do_and_the_chosen_eta_is_marked() -> None:
    rows = [(name, eta, eta == 0.3, seed, share, 3.9 + 0.1 * share, share)
            for name in guidance.SETS for eta in (0.1, 0.3)
            for seed, share in enumerate((1.0, 1.0, 0.6))]  # fmt: skip
    columns = ["set", "eta", "chosen", "seed", "call_share", "modes", "in_support"]
    figure = plotting.draw("04_toy_guidance", pd.DataFrame(rows, columns=columns))
    for axes, most in zip(figure.axes, (1, 4, 1), strict=True):
        bars = [path for c in axes.collections for path in c.get_paths()]
        assert len(bars) == 2 * len(guidance.SETS)
        assert max(np.asarray(path.vertices)[:, 1].max() for path in bars) <= most + 1e-9
        (mark,) = (line for line in axes.lines if line.get_label() == "chosen η")
        assert list(mark.get_xdata()) == [0.3, 0.3]


def test_a_cross_stands_only_where_more_changed_than_was_kept() -> None:
    rows = [("pen", 5, step, 1 - step / 5, 0.1 * step, 0.1 * step * more, 0.2)
            for step, more in ((1, 1.0), (2, 1.05), (3, 2.0))]  # fmt: skip
    columns = ["name", "steps", "step", "noise", "along", "size", "closed_form"]
    (axes,) = plotting.draw("04_robot_survival", pd.DataFrame(rows, columns=columns)).axes
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [pytest.approx([0.4])]


def test_four_chains_stand_two_by_two() -> None:
    rows = [(f"{task}, {steps} steps", steps, step, 1 - step / steps, estimate, 0.5)
            for task in ("pen", "hopper") for steps in (2, 4) for step in range(1, steps + 1)
            for estimate in ("unguided", "guided, before δ", AFTER)]  # fmt: skip
    columns = ["name", "steps", "step", "noise", "estimate", "call_share"]
    axes = plotting.draw("04_robot_trace", pd.DataFrame(rows, columns=columns)).axes
    assert [a.get_subplotspec().rowspan.start for a in axes] == [0, 0, 1, 1]


def test_no_estimate_is_drawn_after_a_perturbation_that_is_not_made() -> None:
    """δ is added at every step but the last."""
    rows = [
        ("pen, 3 steps", 3, step, 1 - step / 3, estimate, 0.5)
        for step in (1, 2, 3)
        for estimate in ("unguided", "guided, before δ", AFTER)
    ]
    columns = ["name", "steps", "step", "noise", "estimate", "call_share"]
    (axes,) = plotting.draw("04_robot_trace", pd.DataFrame(rows, columns=columns)).axes
    drawn = {str(line.get_label()): len(line.get_ydata()) for line in axes.lines}
    assert drawn == {"unguided": 3, "guided, before δ": 3, AFTER: 2}


@pytest.mark.parametrize(("settings", "marks"), [((STRONG, LONG), 1), ((STRONG,), 0), ((LONG,), 0)])
def test_returns_over_fewer_episodes_stand_apart(settings: tuple, marks: int) -> None:
    rows = [("pen", 0, str(s), "guided", member, 1.0) for s in settings for member in (0, 1)]
    columns = ["task", "seed", "setting", "set", "member", "score"]
    (axes,) = plotting.draw("04_robot_returns", pd.DataFrame(rows, columns=columns)).axes
    assert [text.get_text() for text in axes.texts] == [FEWER_TOLD] * marks


def test_the_long_chain_plays_as_few_episodes_as_figures_say() -> None:
    played: dict[str, int] = {}
    robot = object.__new__(GuidedRobot)
    robot.study = SimpleNamespace(  # type: ignore
        budget=SimpleNamespace(curve_episodes=10),
        evaluate=lambda policies, episodes: played.update({policies: episodes}),
    )
    robot.sets = lambda setting: {"guided": str(setting.steps)}  # type: ignore
    for setting in (SHIPPED, STRONG, LONG):
        robot.played(setting, "guided")
    assert played == {str(SHIPPED.steps): 10, str(LONG.steps): 10 // FEWER}
    assert {2: "half"}[FEWER] == FEWER_TOLD.split()[0]
