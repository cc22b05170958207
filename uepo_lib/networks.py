"""The two network bodies that critics, dynamics and Gaussian policies share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


class EnsembleLinear(nn.Module):
    """E independent linear layers in one batched product: (E, B, in) -> (E, B, out).

    Initialised as E separate ``torch.nn.Linear`` layers: uniform in ±1/sqrt(in).
    """

    def __init__(self, num_members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(num_members, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(num_members, 1, out_features))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def mlp(sizes: Sequence[int], activation: str = "relu") -> nn.Sequential:
    """A plain perceptron; no activation after the last layer."""
    return _stack(sizes, activation, nn.Linear)


def ensemble_mlp(num_members: int, sizes: Sequence[int], activation: str = "relu") -> nn.Sequential:
    """E perceptrons side by side: (E, B, sizes[0]) -> (E, B, sizes[-1])."""
    return _stack(sizes, activation, lambda i, o: EnsembleLinear(num_members, i, o))


def _stack(
    sizes: Sequence[int], activation: str, layer: Callable[[int, int], nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers.append(layer(fan_in, fan_out))
        if i < len(sizes) - 2:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


@torch.no_grad()
def multiply_(network: nn.Module, factor: float) -> None:
    """Multiply the outputs of a perceptron with ReLUs by ``factor`` > 0, in place.

    Every layer takes its equal share, so that a later optimiser, whose steps are of one size,
    meets weights of one size.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | EnsembleLinear)]
    share = factor ** (1 / len(layers))
    for depth, layer in enumerate(layers, start=1):
        layer.weight.mul_(share)
        layer.bias.mul_(share**depth)


class StateValue(nn.Module):
    """V(s): (N, S) -> (N,), around a perceptron with one output."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, states: Tensor) -> Tensor:
        return self.body(states).squeeze(-1)


def orthogonal_(network: nn.Module, gain: float = math.sqrt(2), last_gain: float = 0.01) -> None:
    """Orthogonal weights and zero biases, the last layer scaled down: PPO's usual start."""
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for i, linear in enumerate(linears):
        nn.init.orthogonal_(linear.weight, last_gain if i == len(linears) - 1 else gain)
        nn.init.zeros_(linear.bias)
