"""How good is a policy? In the environment, counted; and offline, by AM-Q in the learned model.

Returns in the environment are undiscounted sums over whole episodes from fixed reset seeds, the
same for every policy. AM-Q (Uni-O4, arXiv 2311.03351, section 4) rolls a policy out in T̂ and
averages Q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from uepo_lib.datasets import Normaliser
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import check, unknown
from uepo_lib.policies import Policy
from uepo_lib.robots import Robot
from uepo_lib.values import Critic

REVISION = 1

Score = Literal["dead_zero", "published", "model_return"]
ENVIRONMENTS_AT_ONCE = 128
EVALUATION_SEED = 1_000_000
"""First reset seed of evaluation episodes, which ``finetuning.training_seeds`` keeps clear of."""


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted ``returns`` and ``lengths``, each (n, episodes); episode e from one reset
    seed."""

    returns: Tensor
    lengths: Tensor

    @property
    def num_steps(self) -> int:
        return int(self.lengths.sum())


def evaluate(
    policy: Policy,
    robot: Robot,
    normaliser: Normaliser,
    num_episodes: int,
    *,
    first_seed: int = EVALUATION_SEED,
    generator: torch.Generator | None = None,
) -> Evaluation:
    """Play ``num_episodes`` with every member of ``policy``; noise-free without a generator."""
    check(num_episodes > 0, "num_episodes", num_episodes, "a positive integer")
    per_wave = max(1, ENVIRONMENTS_AT_ONCE // policy.n)
    waves = [
        _play_wave(policy, robot, normaliser, range(first, min(first + per_wave, end)), generator)
        for end in [first_seed + num_episodes]
        for first in range(first_seed, end, per_wave)
    ]
    return Evaluation(
        torch.cat([w.returns for w in waves], 1), torch.cat([w.lengths for w in waves], 1)
    )


def _play_wave(
    policy: Policy,
    robot: Robot,
    normaliser: Normaliser,
    seeds: range,
    generator: torch.Generator | None,
) -> Evaluation:
    shape = (policy.n, len(seeds))
    envs = ChunkedEnvs(robot, [*seeds] * policy.n, obs_horizon=policy.obs_horizon, auto_reset=False)
    returns, lengths = torch.zeros(shape), torch.zeros(shape, dtype=torch.long)
    while any(envs.active):
        states = normaliser(envs.windows).unflatten(0, shape)
        with torch.inference_mode():
            actions = policy.act(states, generator).flatten(0, 1)
        _, episodes = envs.step(actions)
        for episode in episodes:
            place = divmod(episode.env, len(seeds))
            returns[place], lengths[place] = episode.undiscounted_return, episode.length
    envs.close()
    return Evaluation(returns, lengths)


@dataclass(frozen=True)
class AMQConfig:
    """Off-policy evaluation in the model.

    ``score``: "dead_zero" counts Q = 0 after an imagined end; "published" averages over the steps
    before it, which rewards ending early; "model_return" is Σ γ^k r̂ + γ^H V (A9).

    "dead_zero" suits ends that are failures and values that are positive, as in locomotion. Where
    an end is *success*, who arrives early forfeits the steps that remain, and where Q < 0 to end at
    once is best: there choose "model_return", which counts what the task pays.
    """

    num_starts: int = 64
    horizon: int = 200
    score: Score = "dead_zero"
    discount: float = 0.99

    def __post_init__(self) -> None:
        check(self.num_starts > 0, "num_starts", self.num_starts, "a positive integer")
        check(self.horizon > 0, "horizon", self.horizon, "a positive integer")
        check(0 <= self.discount <= 1, "discount", self.discount, "in [0, 1]")
        if self.score not in get_args(Score):
            raise unknown("score", self.score, get_args(Score))

    def check_by_start(self) -> None:
        """``UsageError`` for a score that is not a mean over starts, as comparisons need one."""
        valid = "dead_zero or model_return, where policies are compared start by start"
        check(self.score != "published", "amq.score", self.score, valid)


class Imagined(NamedTuple):
    """What n policies met in T̂ from each of B starts: all (n, B)."""

    q_sum: Tensor
    """Σ min Q(s, a) over the steps before an imagined end."""
    live_steps: Tensor
    model_return: Tensor
    """Σ γ^k r̂ + γ^H V, nothing after an end."""

    def by_start(self, config: AMQConfig) -> Tensor:
        """The configured score of every member from each start, for paired comparisons: (n, B).

        "published" is not a mean over starts, so it has no such parts: ``UsageError``.
        """
        config.check_by_start()
        return self.model_return if config.score == "model_return" else self.q_sum / config.horizon


@torch.no_grad()
def imagine(
    policy: Policy,
    dynamics: DynamicsModel,
    critic: Critic,
    starts: Tensor,
    robot: Robot,
    normaliser: Normaliser,
    config: AMQConfig,
    generator: torch.Generator,
) -> Imagined:
    """H steps of every member in T̂, which all scores of :class:`AMQConfig` are made of.

    ``starts`` (B, T_o, S) are standardised windows of D. All members see the same starts and the
    same draws of elites, so that a difference is theirs and not luck. Elites predict by their mean:
    the noise of a learned variance would be one more thing to be lucky with.
    """
    n, count = policy.n, len(starts)
    check(
        config.horizon % policy.action_horizon == 0, "horizon", config.horizon,
        f"a multiple of the policy's action_horizon={policy.action_horizon}",
    )  # fmt: skip
    windows = starts.expand(n, *starts.shape).clone()
    alive = torch.ones(n, count, dtype=torch.bool)
    q_sum, q_count, returns = (torch.zeros(n, count) for _ in range(3))
    for t in range(config.horizon):
        if t % policy.action_horizon == 0:
            plan = policy.act(windows).clamp(-1, 1)
        actions = plan[:, :, t % policy.action_horizon].flatten(0, 1)
        states = windows[:, :, -1].flatten(0, 1)
        # where, not a product: after its end a trajectory may run off to infinity
        q = critic.min_q(states, actions).view(n, count)
        q_sum += q.where(alive & q.isfinite(), 0.0)
        q_count += alive
        members = dynamics.draw_elites(count, generator).repeat(n)
        after, rewards = dynamics.step(states, actions, member=members, sample=False)
        rewards = rewards.view(n, count)
        returns += config.discount**t * rewards.where(alive & rewards.isfinite(), 0.0)
        # to run off to infinity is an end on every robot, and no way to win
        alive = alive & after.isfinite().all(-1).view(n, count)
        alive = alive & ~robot.terminated(normaliser.inverse(after)).view(n, count)
        windows = torch.cat([windows[:, :, 1:], after.view(n, count, 1, -1)], dim=2)
    final = critic.v(windows[:, :, -1].flatten(0, 1)).view(n, count).where(alive, 0.0)
    return Imagined(q_sum, q_count, returns + config.discount**config.horizon * final)


def am_q(
    policy: Policy,
    dynamics: DynamicsModel,
    critic: Critic,
    starts: Tensor,
    robot: Robot,
    normaliser: Normaliser,
    config: AMQConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Every score of :class:`AMQConfig` for every member: name -> (n,). Arguments as in
    :func:`imagine`."""
    seen = imagine(policy, dynamics, critic, starts, robot, normaliser, config, generator)
    return {
        "dead_zero": seen.q_sum.sum(1) / (len(starts) * config.horizon),
        "published": seen.q_sum.sum(1) / seen.live_steps.sum(1),
        "model_return": seen.model_return.mean(1),
    }
