"""The two places where failures are provoked: the toy of four doors, and the maze of four routes.

A *world* is what one run of the pipeline sees: windows to learn from and windows held out, real
transitions, and states met by acting. Seeds differ in the data as well as in the learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from uepo_lib import toys
from uepo_lib.chain import ChainActor
from uepo_lib.datasets import Batch, Dataset, Transitions
from uepo_lib.diagnostics import SequenceSource
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.networks import StateValue, mlp
from uepo_lib.policies import Policy
from uepo_lib.ppo import PPO, PPOConfig
from uepo_lib.settings import ONLINE
from uepo_lib.slices import subset
from uepo_lib.subpolicies import SubPolicies

TOY, MAZE = "toy", "maze"
HORIZON = 8
"""T of the plans, in both."""
ELSEWHERE = torch.tensor([1.5, 0.0])
"""Where the toy's point starts when it starts far away: between two doors and behind them."""
ENVIRONMENTS = 8
MET = 4
"""On the toy the first online states are those of this many steps."""


@dataclass(frozen=True)
class World:
    """What is known (``windows``, ``transitions``), what is held out, and how to act."""

    name: str
    windows: SequenceSource
    held: Batch
    """Held-out windows of :data:`HORIZON` actions."""
    transitions: Transitions
    modelled: Transitions
    """Those of them that T̂ learns from: in the maze a few, so that there is something to add."""
    scarce: Transitions
    """Too few of them for a good model: one episode."""
    choosing: Transitions
    """Held out, by which a model's weights are chosen."""
    testing: Transitions
    """Held out, by which it is judged."""
    sequences: Batch
    """Held-out sequences, as long as imagined ones or as the data allow."""
    terminated: Callable[[Tensor], Tensor]
    """On standardised states (B, S)."""
    explore: Callable[[Policy, int], Tensor]
    """What a policy of one member meets online first, from a seed: walks (B, L, S), standardised;
    of the maze's environments in one walk of all their steps."""


def _walks(toy: toys.Doors) -> Transitions:
    places = toy.walk(toy.states, toy.actions)
    before, after = places[:, :-1].flatten(0, 1), places[:, 1:].flatten(0, 1)
    none = torch.zeros(len(before))
    return Transitions(before, toy.actions.flatten(0, 1), none, after, none > 0)


def four_doors(seed: int, walks: int) -> toys.Doors:
    """The toy's data of one seed: fresh walks for every seed."""
    return toys.four_modes(size=walks, seed=seed, horizon=HORIZON, obs_horizon=1)


def toy_world(seed: int, walks: int, probe: int, elsewhere: bool = False) -> World:
    """``walks`` logged; ``elsewhere``: online the point starts behind the doors."""
    toy, unseen = four_doors(seed, walks), four_doors(1_000 + seed, 4 * probe)
    steps, held = _walks(toy), _walks(unseen)

    def explore(policy: Policy, draw: int) -> Tensor:
        starts = toy.draw_states(probe, torch.Generator().manual_seed(draw))
        starts = starts + ELSEWHERE if elsewhere else starts
        actions = policy.act(toy.past(starts).unsqueeze(0))[0]
        return toy.walk(starts, actions)

    half = len(held) // 2
    return World(
        TOY, toy, unseen.batch(torch.arange(probe)), steps, steps, steps[:HORIZON],
        held[:half], held[half:],
        unseen.batch(torch.arange(len(unseen))),
        lambda states: torch.zeros(len(states), dtype=torch.bool), explore,
    )  # fmt: skip


def maze_world(
    data: Dataset, seed: int, episodes: int, few: int, probe: int, ahead: int,
    elsewhere: bool = False,
) -> World:  # fmt: skip
    """``episodes`` drawn by ``seed``, none of them held out; T̂ learns from the first ``few``.

    ``elsewhere``: of each logged episode only what lies behind the middle of the maze is kept, as
    if the logs began there; online the ball starts where it always does.
    """
    begins = data.bounds[:, 0]
    unseen = torch.isin(begins, data.split(0.1)[1])
    order = torch.randperm(int((~unseen).sum()), generator=torch.Generator().manual_seed(seed))
    pieces, held = data.bounds[~unseen][order[:episodes]], data.bounds[unseen]
    if elsewhere:
        pieces, held = _second_half(data, pieces), _second_half(data, held)
    known, other = subset(data, pieces), subset(data, held)
    windows, later = other.windows(1, HORIZON), other.windows(1, ahead + 1)
    test = other.transitions()
    half = len(test) // 2
    robot, scale = data.task.robot, data.normaliser

    def explore(policy: Policy, draw: int) -> Tensor:
        envs = ChunkedEnvs(
            robot, range(10_000 * (draw + 1), 10_000 * (draw + 1) + ENVIRONMENTS),
            keep_transitions=True,
        )  # fmt: skip
        while envs.num_steps < ENVIRONMENTS * probe:
            envs.step(policy.act(scale(envs.windows).unsqueeze(0))[0])
        envs.close()
        return envs.transitions(scale).states.unsqueeze(0)

    return World(
        MAZE, known.windows(1, HORIZON), windows.batch(_spread(len(windows), probe)),
        known.transitions(), subset(data, pieces[:few]).transitions(),
        subset(data, pieces[:1]).transitions(), test[:half], test[half:],
        later.batch(_spread(len(later), 2 * probe)),
        lambda states: robot.terminated(scale.inverse(states)), explore,
    )  # fmt: skip


def online_config(env_steps: int) -> PPOConfig:
    """The chain's settings of everywhere, with a critic's warm-up of one update."""
    size = min(2_048, env_steps // 2)
    chosen = {**ONLINE["chain_ppo"], "steps_per_update": size, "warmup_env_steps": size}
    return PPOConfig(env_steps, num_envs=ENVIRONMENTS, **chosen)


def fine_tune(data: Dataset, policy: SubPolicies, env_steps: int, seed: int) -> list[Curve]:
    """PPO over the denoising chain from ``policy`` (n = 1): the arrivals among the last 20
    episodes, and the KL of the last minibatch, after each update."""
    config = online_config(env_steps)
    first = 10_000 * (seed + 1)
    robot = data.task.robot
    envs = ChunkedEnvs(robot, range(first, first + ENVIRONMENTS), discount=config.discount)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = StateValue(mlp((robot.state_dim, 64, 64, 1), "tanh"))
    trainer = PPO(
        config, ChainActor(policy), value, envs, torch.Generator().manual_seed(seed),
        standardise=data.normaliser,
    )  # fmt: skip
    curve: list[Curve] = []
    updates = -(-env_steps // config.steps_per_update)
    for update in range(updates):
        seen = trainer.iterate(update / updates)
        curve.append(Curve(envs.num_steps, float(seen["training_return"]), float(seen["kl"])))
    envs.close()
    return curve


class Curve(NamedTuple):
    """A point of a fine-tuning curve."""

    env_steps: int
    arrivals: float
    kl: float


def _second_half(data: Dataset, pieces: Tensor) -> Tensor:
    """Of each piece what follows its first step behind the middle of the maze (x > 0)."""
    x = data.normaliser.inverse(data.states)[:, 0]
    kept = []
    for begin, end in pieces.tolist():
        behind = (x[begin:end] > 0).nonzero().flatten()
        if len(behind):
            kept.append([begin + int(behind[0]), end])
    return torch.tensor(kept)


def _spread(count: int, wanted: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, wanted)).long()


class Shuffled:
    """Windows whose actions belong to other states: conditioning that says nothing."""

    def __init__(self, windows: SequenceSource) -> None:
        self.windows = windows
        self.order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, index: Tensor) -> Batch:
        return self.windows.batch(index)._replace(
            actions=self.windows.batch(self.order[index]).actions
        )
