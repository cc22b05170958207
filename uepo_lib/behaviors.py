"""Behaviour policies: the small committed files that collect the local datasets.

D4RL's recipe (arXiv 2004.07219, section 5): train an agent online, keep it on the way, and let the
snapshots collect the data. A file under ``policies_data/`` holds a mean network, the state
statistics it was trained with and its exploration noise; the JSON file beside it says how it was
trained. ``behavior_training`` makes them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from uepo_lib import facts
from uepo_lib.errors import UsageError, unknown
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.robots import Robot

FOLDER = Path(__file__).parent / "policies_data"


@dataclass(frozen=True)
class BehaviourPolicy:
    """A trained policy on raw states, with the exploration noise it was trained with."""

    policy: GaussianPolicy
    mean: Tensor
    std: Tensor
    record: Mapping[str, Any]
    squash: bool = False
    """Whether the mean goes through a tanh, as TQC's does."""

    @property
    def action_noise(self) -> Tensor:
        """Standard deviation of each action: (A,)."""
        return self.policy.log_std.detach().exp()

    @torch.no_grad()
    def mean_action(self, raw_states: Tensor) -> Tensor:
        """Raw states (B, S) -> unclipped mean actions (B, A)."""
        states = ((raw_states - self.mean) / self.std).clamp(-10, 10)
        mean = self.policy(states.unsqueeze(-2))[0].squeeze(-2)
        return mean.tanh() if self.squash else mean


class PolicyDriver:
    """Plays a behaviour policy with Gaussian action noise; see :class:`collection.Driver`."""

    def __init__(
        self, policy: BehaviourPolicy, noise: float | None, generator: torch.Generator
    ) -> None:
        """``noise``: its std; None: what the policy explored with when it was trained."""
        self.policy, self.generator = policy, generator
        self.std = policy.action_noise if noise is None else torch.tensor(noise)

    def begin(self, i: int, state: Any) -> dict[str, int]:
        """A policy without memory has nothing to say about an episode."""
        return {}

    def actions(self, states: Tensor) -> Tensor:
        """Raw states (B, S) -> actions (B, A) in [-1, 1]."""
        mean = self.policy.mean_action(states)
        noise = torch.randn(mean.shape, generator=self.generator)
        return (mean + self.std * noise).clamp(-1, 1)


def policy_file(robot: Robot, level: str) -> Path:
    """Where ``level`` of ``robot`` lies; the snapshots ``replay/0`` ... share one file."""
    return FOLDER / robot.name / f"{level.partition('/')[0]}.safetensors"


def levels(robot: Robot) -> list[str]:
    """Every committed level of ``robot``."""
    found: list[str] = []
    for path in sorted((FOLDER / robot.name).glob("*.safetensors")):
        found += replayed(robot) if path.stem == "replay" else [path.stem]
    return found


def replayed(robot: Robot) -> list[str]:
    """The snapshots that stand for a replay buffer, each for an equal share of its steps."""
    moments = _record(policy_file(robot, "replay"))["env_steps"]
    return [f"replay/{i}" for i in range(len(moments))]


def attempt(robot: Robot) -> dict[str, Any] | None:
    """The record of a training that did not learn ``robot``, where there was one."""
    path = FOLDER / robot.name / "attempt.json"
    return _record(path) if path.exists() else None


def _record(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return record


def load_behaviour(robot: Robot, level: str) -> BehaviourPolicy:
    """The committed policy of ``robot`` called ``level`` (medium, expert, replay/3)."""
    if level not in levels(robot):
        raise unknown(f"behaviour policy of {robot.name}", level, levels(robot))
    path = policy_file(robot, level)
    prefix = level.partition("/")[2]
    return read_behaviour(path, robot, _record(path), f"{prefix}." if prefix else "")


def read_behaviour(
    path: Path, robot: Robot, record: Mapping[str, Any], prefix: str = ""
) -> BehaviourPolicy:
    """A policy file, or what it holds under ``prefix``; ``UsageError`` if it does not fit
    ``robot``."""
    with safe_open(path, framework="pt") as file:
        shape = {"activation": "tanh", "squash": "false", **(file.metadata() or {})}
        tensors = {
            name.removeprefix(prefix): file.get_tensor(name).float()
            for name in file.keys()  # noqa: SIM118 (a safetensors file is no mapping)
            if name.startswith(prefix)
        }
    mean, std = tensors.pop("normaliser.mean"), tensors.pop("normaliser.std")
    if mean.shape != (robot.state_dim,):
        raise UsageError(
            f"{path.name}: states of size {len(mean)}; {robot.name} has {robot.state_dim}"
        )
    policy = GaussianPolicy(behaviour_network(robot, _widths(tensors), shape["activation"]))
    policy.load_state_dict(tensors)
    policy.requires_grad_(False)
    return BehaviourPolicy(policy, mean, std, record, shape["squash"] == "true")


def _widths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    biases: Iterator[Tensor] = (
        tensors[name] for name in sorted(tensors, key=_layer) if name.endswith("bias")
    )
    return tuple(bias.shape[0] for bias in biases)[:-1]


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if "." in name else -1


def behaviour_network(
    robot: Robot, hidden: tuple[int, ...], activation: str = "tanh", initial_log_std: float = 0.0
) -> GaussianConfig:
    """The shape of every behaviour policy: an MLP for the mean, one free std an action."""
    return GaussianConfig(
        robot.state_dim,
        robot.action_dim,
        hidden=hidden,
        activation=activation,
        state_dependent_std=False,
        initial_log_std=initial_log_std,
    )


def write_behaviour(
    robot: Robot,
    level: str,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    shape: Mapping[str, str] | None = None,
) -> Path:
    """Write the file and the record that are committed for ``level``; returns the file.

    ``shape`` says what differs from PPO's network: ``{"activation": "relu", "squash": "true"}``.
    """
    path = policy_file(robot, level)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    named = dict(shape) if shape else None
    facts.replace_file(path, lambda partial: save_file(content, partial, named))
    facts.write_json(path.with_suffix(".json"), dict(record))
    return path
