"""The step that every trainer makes."""

from __future__ import annotations

import pytest
import torch

from uepo_lib.training import descend, descend_clipped


def slope(value: float) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    weight = torch.nn.Parameter(torch.tensor([0.0, 0.0]))
    weight.grad = torch.full((2,), value)  # of a step before, to be forgotten
    return weight, torch.optim.SGD([weight], lr=0.5)


def test_a_step_goes_down_the_gradient_of_this_loss_alone() -> None:
    weight, optimiser = slope(100.0)
    descend(weight @ torch.tensor([3.0, 4.0]), optimiser)
    assert weight.tolist() == [-1.5, -2.0]


@pytest.mark.parametrize(("bound", "share"), [(1.0, 0.2), (5.5, 1.0)])
def test_a_clipped_step_is_no_longer_than_its_bound_and_says_how_long_it_was(
    bound: float, share: float
) -> None:
    weight, optimiser = slope(100.0)
    norm = descend_clipped(weight @ torch.tensor([3.0, 4.0]), optimiser, bound)
    assert float(norm) == pytest.approx(5.0)
    assert weight.tolist() == pytest.approx([-1.5 * share, -2.0 * share], rel=1e-5)
