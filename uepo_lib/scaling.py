"""Running statistics for training from scratch, where no dataset fixes a scale."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.wrappers.utils import RunningMeanStd
from torch import Tensor


class RunningScale:
    """Running mean and variance of states, and of discounted returns to scale rewards by."""

    def __init__(
        self, state_dim: int, num_envs: int, discount: float, *, states: bool, rewards: bool
    ) -> None:
        """``states`` and ``rewards`` say which of the two are scaled at all."""
        self.states = RunningMeanStd(shape=(state_dim,))
        self.returns = RunningMeanStd(shape=())
        self.carried = torch.zeros(num_envs)
        self.discount = discount
        self.scales_states, self.scales_rewards = states, rewards

    def update_states(self, windows: Tensor) -> None:
        if self.scales_states:
            self.states.update(windows[:, -1].double().numpy())

    def normalise(self, windows: Tensor) -> Tensor:
        if not self.scales_states:
            return windows
        mean, std = self.mean_std()
        return ((windows - mean) / std).clamp(-10, 10)

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """(S,) each, float32."""
        mean = torch.as_tensor(self.states.mean, dtype=torch.float32)
        return mean, torch.as_tensor((self.states.var + 1e-8) ** 0.5, dtype=torch.float32)

    def scale_rewards(self, rewards: Tensor, steps: Tensor, done: Tensor) -> Tensor:
        """Rewards (N,) of chunks of ``steps`` (N,) steps, over the std of the discounted return."""
        if not self.scales_rewards:
            return rewards
        self.carried = self.carried * self.discount**steps + rewards
        self.returns.update(self.carried.double().numpy())
        self.carried = self.carried * (~done)
        return (rewards / float((self.returns.var + 1e-8) ** 0.5)).clamp(-10, 10)

    def state_dict(self) -> dict[str, Any]:
        pairs = {"states": self.states, "returns": self.returns}
        moments = {
            k: [torch.as_tensor(v.mean), torch.as_tensor(v.var), float(v.count)]
            for k, v in pairs.items()
        }
        return {"moments": moments, "carried": self.carried.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key, target in (("states", self.states), ("returns", self.returns)):
            mean, var, target.count = state["moments"][key]
            target.mean, target.var = mean.numpy(), var.numpy()
        self.carried = state["carried"].clone()
