"""One evaluator for all: an exported policy, ours or a peer's, as what ``evaluate`` plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity.exchange import Array, Network
from uepo_lib.datasets import Normaliser
from uepo_lib.evaluation import evaluate
from uepo_lib.networks import mlp
from uepo_lib.policies import GaussianPolicy
from uepo_lib.robots import Robot


class ExportedPolicy:
    """A policy on *raw* states: its normalisation is part of what was exported."""

    n = obs_horizon = action_horizon = 1

    def __init__(self, network: Network) -> None:
        sizes = [network.weights[0].shape[1], *(len(bias) for bias in network.biases)]
        self.body = mlp(sizes, network.activation).requires_grad_(False)
        layers = [layer for layer in self.body if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(layers, network.weights, network.biases, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        self.mean, self.std = torch.from_numpy(network.mean), torch.from_numpy(network.std)
        self.clip, self.squash = network.clip, network.squash

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Raw windows (1, B, 1, S) -> the noise-free actions (1, B, 1, A)."""
        scaled = ((states - self.mean) / self.std).clamp(-self.clip, self.clip).float()
        out: Tensor = self.body(scaled)
        return (out.tanh() if self.squash else out).clamp(-1, 1)


def network_of(
    policy: GaussianPolicy, mean: Array, std: Array, clip: float = float("inf")
) -> Network:
    """The mean network of one of our Gaussians; of two heads the first is the mean."""
    layers = [layer for layer in policy.body if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers]
    size, two_heads = policy.config.action_dim, policy.config.state_dependent_std
    weights[-1], biases[-1] = weights[-1][:size], biases[-1][:size]
    return Network(weights, biases, mean, std, clip, policy.config.activation, two_heads)


def play(path: Path, robot: Robot, episodes: int) -> dict[str, Any]:
    """Noise-free episodes of an exported policy, from the reset seeds of every evaluation here."""
    unchanged = Normaliser(torch.zeros(robot.state_dim), torch.ones(robot.state_dim))
    seen = evaluate(ExportedPolicy(Network.load(path)), robot, unchanged, episodes)
    mean = float(seen.returns.mean())
    return {
        "mean_return": round(mean, 2),
        "normalised": round(robot.normalised(mean), 2),
        "returns": [round(value, 2) for value in seen.returns[0].tolist()],
        "lengths": seen.lengths[0].tolist(),
    }
