from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from diffusion_toys import check_golden, randn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uepo_lib import divergence as dv
from uepo_lib.errors import UsageError

sizes = st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(3, 9), st.integers(1, 4))
seeds = st.integers(0, 2**31)
floors = st.sampled_from([0.0, 0.5, 2.0])


def by_the_book(a: Tensor, b: Tensor, floor: float) -> float:
    """Section 1's formula for two (T, A), in plain loops."""
    va, vb = a[1:] - a[:-1], b[1:] - b[:-1]
    speed = [float((va[t] - vb[t]).norm()) for t in range(len(va))]
    ca, cb = va[1:] - va[:-1], vb[1:] - vb[:-1]
    turn = []
    for t in range(len(ca)):
        still = int(ca[t].norm() <= floor) + int(cb[t].norm() <= floor)
        cosine = float(F.cosine_similarity(ca[t], cb[t], dim=0, eps=0.0))
        turn.append([1 - cosine, 1.0, 0.0][still])
    return sum(speed) / len(speed) + sum(turn) / len(turn)


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, floors)
def test_pairwise_is_the_formula(size: tuple[int, ...], seed: int, floor: float) -> None:
    a = randn(*size, seed=seed)
    found = dv.pairwise(a, floor)
    assert found.shape == (size[0], size[0], size[1])
    for i, j, b in itertools.product(range(size[0]), range(size[0]), range(size[1])):
        expected = 0.0 if i == j else by_the_book(a[i, b], a[j, b], floor)
        assert float(found[i, j, b]) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, floors)
def test_properties(size: tuple[int, ...], seed: int, floor: float) -> None:
    a, b = randn(*size, seed=seed), randn(*size, seed=seed + 1)
    found = dv.divergence(a, b, floor)
    assert torch.equal(found, dv.divergence(b, a, floor))
    assert (found >= 0).all()
    assert torch.equal(dv.divergence(a, a, floor), torch.zeros_like(found))
    offset = randn(1, 1, 1, size[-1], seed=seed + 2)
    torch.testing.assert_close(
        dv.velocity_term(a, a + offset), torch.zeros_like(found), atol=1e-5, rtol=0
    )
    assert (dv.acceleration_term(a, b, floor) <= 2 + 1e-6).all()
    turned = torch.linalg.qr(randn(size[-1], size[-1], seed=seed))[0]
    torch.testing.assert_close(
        dv.velocity_term(a @ turned, b @ turned), dv.velocity_term(a, b), atol=1e-4, rtol=1e-4
    )


@settings(max_examples=30, deadline=None)
@given(sizes, seeds, floors)
def test_order_and_signs_of_action_dimensions_do_not_matter(
    size: tuple[int, ...], seed: int, floor: float
) -> None:
    a, b = randn(*size, seed=seed).double(), randn(*size, seed=seed + 1).double()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(size[-1], generator=generator)
    signs = 1.0 - 2.0 * torch.randint(2, (size[-1],), generator=generator).double()
    torch.testing.assert_close(
        dv.divergence((a * signs)[..., order], (b * signs)[..., order], floor),
        dv.divergence(a, b, floor),
    )
    torch.testing.assert_close(  # one constant for each dimension, in either argument
        dv.divergence(a + signs, b - 3 * signs, floor), dv.divergence(a, b, floor)
    )


def test_worked_example() -> None:
    """Two ways around a rectangle: lengths 0.5, 0.5, 0; angles 180° and 45°."""
    first = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.3, 0.4], [0.7, 0.4]])
    second = torch.tensor([[0.0, 0.0], [0.0, 0.4], [0.3, 0.4], [0.7, 0.4]])
    assert float(dv.velocity_term(first, second)) == pytest.approx(1 / 3, abs=1e-6)
    turn = (2 + (1 - math.sqrt(0.5))) / 2
    assert float(dv.acceleration_term(first, second)) == pytest.approx(turn, abs=1e-6)
    assert float(dv.divergence(first, second)) == pytest.approx(1 / 3 + turn, abs=1e-6)
    assert float(dv.pairwise(torch.stack([first, second])[:, None])[0, 1, 0]) == pytest.approx(
        1 / 3 + turn, abs=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(sizes, seeds, floors)
def test_order_of_sub_policies_does_not_matter(
    size: tuple[int, ...], seed: int, floor: float
) -> None:
    a = randn(*size, seed=seed)
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(dv.pairwise(a[order], floor), dv.pairwise(a, floor)[order][:, order])


def test_still_sequences() -> None:
    still = torch.zeros(5, 2)
    line = torch.arange(5.0)[:, None].expand(5, 2)
    bent = line**2
    assert dv.acceleration_term(still, line) == 0  # neither accelerates
    assert dv.acceleration_term(still, bent) == 1
    assert dv.acceleration_term(-bent, bent) == pytest.approx(2)
    assert dv.velocity_term(still, line) == pytest.approx(math.sqrt(2))


def test_two_gaits_in_antiphase_score_high_and_an_offset_nothing() -> None:
    phase = torch.linspace(0, 2 * math.pi, 9)[:8, None] + torch.tensor([0.0, 1.0, 2.0])
    gait = 0.7 * torch.sin(phase)
    floor = dv.cosine_floor(gait[None])
    assert dv.divergence(gait, gait + 0.2, floor) == pytest.approx(0, abs=1e-4)
    assert dv.divergence(gait, -gait, floor) > 2
    noise = [float(dv.divergence(gait, gait + s * randn(8, 3), floor)) for s in (0.03, 0.3, 3.0)]
    assert noise == sorted(noise)


def test_nearest_neighbour() -> None:
    a = randn(3, 4, 8, 2)
    a[2] = a[0] + 0.01 * randn(4, 8, 2, seed=1)
    distance, index = dv.nearest_neighbour(a)
    assert index[0].tolist() == [2] * 4
    assert index[2].tolist() == [0] * 4
    assert torch.equal(distance[0], distance[2])
    torch.testing.assert_close(distance[0], dv.divergence(a[0], a[2]), atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match="n=1"):
        dv.nearest_neighbour(a[:1])


def test_calibration() -> None:
    a = randn(5, 100, 8, 3)
    tau = dv.calibrate_threshold(a, 0.25)
    assert (dv.nearest_neighbour(a)[0] < tau).float().mean() == pytest.approx(0.25, abs=0.01)
    floor = dv.cosine_floor(a[0])
    norms = dv.acceleration(a[0]).norm(dim=-1)
    assert floor == pytest.approx(0.05 * norms.median().item())
    upper = [dv.divergence(a[i], a[j]).mean() for i, j in itertools.combinations(range(5), 2)]
    assert dv.noise_floor(a) == pytest.approx(torch.stack(upper).mean().item(), rel=1e-4)


def test_low_pass_keeps_lines_inside_and_removes_noise() -> None:
    line = torch.arange(8.0)[:, None]
    torch.testing.assert_close(dv.low_pass(line)[1:-1], line[1:-1])
    assert torch.equal(dv.low_pass(line, 1), line)
    noise = randn(4, 100, 8, 3)
    assert dv.noise_floor(dv.low_pass(noise)) < dv.noise_floor(noise)
    with pytest.raises(UsageError, match="width=2"):
        dv.low_pass(line, 2)


def test_two_steps_have_no_acceleration() -> None:
    with pytest.raises(UsageError, match="T=2: must be at least 3"):
        dv.pairwise(torch.zeros(2, 1, 2, 3))


def guidance(n: int = 3, steps: int = 5, **changes: object) -> dv.Guidance:
    config = dv.GuidanceConfig(**{"threshold": 2.0, **changes})  # type: ignore[arg-type]
    return dv.Guidance(config, randn(n, steps, 8, 2, seed=9))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_guidance_is_the_printed_rule(schedule: str) -> None:
    hook = guidance(eta=0.4, eta_schedule=schedule, floor=0.1)
    x0 = 0.2 * randn(3, 4, 8, 2)
    distance = dv.nearest_neighbour(x0, 0.1)[0]
    for step in range(4):
        left = 1 - step / 4 if schedule == "linear" else 1
        sigma = left * 0.4 * ((2.0 - distance) / 2.0).clamp(min=0)
        expected = x0 + sigma[..., None, None] * hook.xi[:, None, step]
        found = hook(x0.flatten(0, 1), 49, step)
        torch.testing.assert_close(found, expected.flatten(0, 1))
    assert torch.equal(hook(x0.flatten(0, 1), 9, 4), x0.flatten(0, 1))  # the last step


def test_guidance_leaves_the_distant_alone() -> None:
    x0 = randn(3, 4, 8, 2).flatten(0, 1)
    assert torch.equal(guidance(threshold=1e-3)(x0, 49, 0), x0)
    collapsed = randn(1, 4, 8, 2).expand(3, -1, -1, -1)
    found = guidance(eta=0.3)(collapsed.flatten(0, 1), 49, 0).unflatten(0, (3, 4))
    assert (dv.nearest_neighbour(found)[0] > 0.1).all()
    assert torch.equal(guidance()(x0, 49, 0), guidance()(x0, 49, 0))


def test_bad_guidance() -> None:
    for changes in ({"threshold": 0.0}, {"eta": -1.0}, {"floor": -1.0}, {"eta_schedule": "cubic"}):
        with pytest.raises(UsageError):
            guidance(**changes)


def test_golden() -> None:
    a = randn(4, 3, 8, 2)
    found = {
        "pairwise": dv.pairwise(a, 0.5),
        "low_pass": dv.low_pass(a),
        "guided": guidance(4)(a.flatten(0, 1), 49, 1),
    }
    check_golden("divergence", found, dv.REVISION)
