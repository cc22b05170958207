"""The one clipped objective: from scratch, offline, online; Gaussian and denoising chain.

PPO: arXiv 1707.06347. PPO over a denoising chain: DPPO, arXiv 2409.00588. An *actor* turns a state
window into a *path* whose log-probability it can give level by level: a Gaussian has one level, a
denoising chain one per reverse step. Everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from uepo_lib.environments import ChunkedEnvs, Episode
from uepo_lib.errors import check
from uepo_lib.scaling import RunningScale
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, Value, fit

REVISION = 2


class Actor(Protocol):
    """What PPO asks of a policy. States are standardised windows (N, T_o, S)."""

    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """-> actions (N, T_a, A), path (N, ...) before any clipping."""
        ...

    def path_log_prob(self, states: Tensor, path: Tensor) -> Tensor:
        """-> (N, L) log-probabilities, one per level."""
        ...

    def entropy(self, states: Tensor) -> Tensor:
        """-> (N,) or a constant."""
        ...

    def parameters(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class PPOConfig:
    """The defaults are those of PPO from scratch on MuJoCo; settings.py holds the online ones."""

    num_env_steps: int
    """The budget, rounded up to whole updates and whole chunks."""
    num_envs: int = 8
    steps_per_update: int = 2048
    """Environment steps between two updates, all environments together."""
    minibatch_size: int = 128
    num_epochs: int = 10
    learning_rate: float = 3e-4
    critic_learning_rate: float | None = None
    """None: the policy's; 0: the critic stays as it is."""
    anneal: bool = True
    """Both rates go linearly to 0."""
    clip_range: float = 0.2
    discount: float = 0.99
    gae_lambda: float = 0.95
    entropy_coefficient: float = 0.0
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    """Stop an update's epochs when the mean KL from the old policy passes this (nats a level)."""
    warmup_env_steps: int = 0
    """First steps in which only the critic learns; they count as environment steps, and the policy
    must get one update at least."""
    normalise_states: bool = False
    """Running mean and std of the states: for training from scratch, where no dataset fixes
    them."""
    normalise_rewards: bool = False

    def __post_init__(self) -> None:
        for name in (
            "num_env_steps", "num_envs", "steps_per_update", "minibatch_size", "num_epochs"
        ):  # fmt: skip
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("learning_rate", "clip_range", "max_grad_norm", "target_kl"):
            value = getattr(self, name)
            check(value is None or value > 0, name, value, "positive")
        for name in ("critic_learning_rate", "entropy_coefficient", "warmup_env_steps"):
            value = getattr(self, name)
            check(value is None or value >= 0, name, value, "0 or positive")
        check(0 < self.discount <= 1, "discount", self.discount, "in (0, 1]")
        check(0 <= self.gae_lambda <= 1, "gae_lambda", self.gae_lambda, "in [0, 1]")
        last = (self.num_updates - 1) * self.steps_per_update
        valid = f"at most {last}, where the last update begins, or the policy never learns"
        check(self.warmup_env_steps <= last, "warmup_env_steps", self.warmup_env_steps, valid)

    @property
    def num_updates(self) -> int:
        """How often PPO collects and improves."""
        return -(-self.num_env_steps // self.steps_per_update)


class Rollout(NamedTuple):
    """R rounds of N environments, one chunk each."""

    states: Tensor
    """(R, N, T_o, S), standardised."""
    next_states: Tensor
    paths: Tensor
    log_probs: Tensor
    """(R, N, L)."""
    rewards: Tensor
    """(R, N) Σ γ^k r of the chunk."""
    steps: Tensor
    """(R, N) how many actions of the chunk were executed."""
    terminated: Tensor
    done: Tensor


def clipped_objective(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """L^CLIP (PPO, equation 7), to be maximised: mean over samples and levels.

    ``log_prob``, ``old_log_prob`` (N, L); ``advantage`` (N, 1) or (N, L).
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, clipped * advantage).mean()


def generalised_advantage(
    rewards: Tensor,
    steps: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    done: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """GAE (arXiv 1506.02438, equation 16) for chunks: all (R, N), time first.

    γ and λ are per environment step, so a chunk of ``steps`` executed actions counts γ^steps and
    λ^steps: policies with different action horizons look equally far ahead. A terminated chunk
    bootstraps nothing; a truncated one bootstraps its own last state, and the sum stops there.
    """
    deltas = rewards + discount**steps * next_values * (~terminated) - values
    decay = (discount * gae_lambda) ** steps * (~done)
    advantages = torch.empty_like(deltas)
    carried = torch.zeros_like(deltas[0])
    for r in range(len(deltas) - 1, -1, -1):
        carried = deltas[r] + decay[r] * carried
        advantages[r] = carried
    return advantages


class PPO:
    """Collect, estimate advantages, improve: one object per training, all its state resumable."""

    def __init__(
        self,
        config: PPOConfig,
        actor: Actor,
        critic: nn.Module,
        envs: ChunkedEnvs,
        generator: torch.Generator,
        standardise: Callable[[Tensor], Tensor] = lambda windows: windows,
    ) -> None:
        """``critic``: standardised states (N, S) -> values (N,). ``standardise``: raw windows."""
        self.config, self.actor, self.critic = config, actor, critic
        self.envs, self.generator, self.standardise = envs, generator, standardise
        state_dim = envs.robot.state_dim
        self.scale = RunningScale(
            state_dim,
            len(envs.envs),
            config.discount,
            states=config.normalise_states,
            rewards=config.normalise_rewards,
        )
        chosen = config.critic_learning_rate
        critic_rate = config.learning_rate if chosen is None else chosen
        self.rates = (config.learning_rate, critic_rate)
        trainable = [p for p in actor.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(
            [
                {"params": trainable, "lr": config.learning_rate},
                {"params": list(critic.parameters()), "lr": critic_rate},
            ],
            eps=1e-5,
            fused=True,
        )
        self.episodes = Value([])
        """Every finished training episode: (environment steps so far, return, length)."""
        self.rollout: Rollout | None = None
        """What the last update learnt from; no part of the state, since each update makes it."""

    def parts(self) -> dict[str, Stateful]:
        """Everything that :func:`training.fit` must keep to resume bit for bit."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "optimiser": self.optimiser,
            "envs": self.envs,
            "scale": self.scale,
            "generator": GeneratorState(self.generator),
            "episodes": self.episodes,
        }

    def prepare(self, raw_windows: Tensor) -> Tensor:
        """Raw windows (N, T_o, S) -> what networks see."""
        return self.scale.normalise(self.standardise(raw_windows))

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Environment steps up to the next multiple of ``steps_per_update``.

        Steps are counted where they are made: a chunk that an episode's end cuts short counts what
        it executed, so policies with different action horizons get the same budget.
        """
        rows = []
        size = self.config.steps_per_update
        goal = (self.envs.num_steps // size + 1) * size
        while self.envs.num_steps < goal:
            self.scale.update_states(self.envs.windows)
            # a copy: what is stored must not follow the environments' own memory
            states = self.prepare(self.envs.windows.clone())
            actions, path = self.actor.sample_path(states, self.generator)
            log_prob = self.actor.path_log_prob(states, path)
            chunk, episodes = self.envs.step(actions)
            self._note(episodes)
            done = chunk.terminated | chunk.truncated
            reward = self.scale.scale_rewards(chunk.reward, chunk.steps, done)
            after = self.prepare(chunk.windows)
            rows.append(
                (states, after, path, log_prob, reward, chunk.steps, chunk.terminated, done)
            )
        return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _note(self, episodes: list[Episode]) -> None:
        steps = self.envs.num_steps
        self.episodes.value += [[steps, e.undiscounted_return, e.length] for e in episodes]

    def improve(self, rollout: Rollout, policy_too: bool = True) -> dict[str, float]:
        """Epochs of minibatches on one rollout; ``policy_too`` False trains only the critic."""
        config = self.config
        with torch.no_grad():
            values = self.critic(rollout.states[:, :, -1])
            next_values = self.critic(rollout.next_states[:, :, -1])
            advantages = generalised_advantage(
                rollout.rewards,
                rollout.steps,
                values,
                next_values,
                rollout.terminated,
                rollout.done,
                config.discount,
                config.gae_lambda,
            )
        states, paths = rollout.states.flatten(0, 1), rollout.paths.flatten(0, 1)
        old, targets = rollout.log_probs.flatten(0, 1), (advantages + values).flatten()
        advantages = advantages.flatten()
        sizes = {"kl": 0.0, "value_loss": 0.0, "policy_updates": 0.0}
        for _ in range(config.num_epochs):
            order = torch.randperm(len(states), generator=self.generator)
            for batch in order.split(config.minibatch_size):
                kl, loss = self._step(
                    states[batch], paths[batch], old[batch], advantages[batch], targets[batch],
                    policy_too,
                )  # fmt: skip
                sizes["kl"], sizes["value_loss"] = kl, loss
                sizes["policy_updates"] += policy_too
                if policy_too and config.target_kl is not None and kl > config.target_kl:
                    return sizes
        return sizes

    def _step(
        self, states: Tensor, paths: Tensor, old: Tensor, advantage: Tensor, target: Tensor,
        policy_too: bool,
    ) -> tuple[float, float]:  # fmt: skip
        spread = advantage.std(correction=min(1, len(advantage) - 1))  # 0 for a single sample
        advantage = (advantage - advantage.mean()) / (spread + 1e-8)
        value_loss = 0.5 * (self.critic(states[:, -1]) - target).square().mean()
        loss, kl = value_loss, torch.zeros(())
        if policy_too:
            log_prob = self.actor.path_log_prob(states, paths)
            gain = clipped_objective(log_prob, old, advantage.unsqueeze(-1), self.config.clip_range)
            entropy = self.actor.entropy(states).mean()
            loss = loss - gain - self.config.entropy_coefficient * entropy
            with torch.no_grad():  # Schulman's low-variance estimator, always positive
                kl = ((log_prob - old).exp() - 1 - (log_prob - old)).mean()
        self.optimiser.zero_grad()
        loss.backward()
        for group in self.optimiser.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm)
        self.optimiser.step()
        return float(kl), float(value_loss.detach())

    def iterate(self, fraction_done: float) -> Metrics:
        """One collect-and-improve; the rates follow the fraction of the budget that is spent."""
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * (1 - fraction_done) if self.config.anneal else rate
        warm = self.envs.num_steps >= self.config.warmup_env_steps
        self.rollout = self.collect()
        metrics: dict[str, float] = self.improve(self.rollout, policy_too=warm)
        # before the first episode ends there is only what the unfinished ones have earned
        recent = [e[1] for e in self.episodes.value[-20:]] or self.envs.returns
        metrics["env_steps"] = float(self.envs.num_steps)
        metrics["training_return"] = sum(recent) / len(recent)
        return metrics


def train_ppo(
    trainer: PPO,
    *,
    recorder: Recorder | None = None,
    observe: Callable[[int], Mapping[str, float]] = lambda update: {},
    extra_parts: Mapping[str, Stateful] | None = None,
    name: str = "PPO",
    progress: bool = True,
) -> None:
    """Run ``trainer`` for its budget; ``observe(update)`` adds metrics (evaluations, snapshots)."""
    num_updates = trainer.config.num_updates

    def update(step: int) -> Metrics:
        metrics = trainer.iterate(step / num_updates)
        return {**metrics, **observe(step + 1)}

    parts = {**trainer.parts(), **(extra_parts or {})}
    fit(num_updates, update, parts, recorder=recorder, name=name, log_every=1, progress=progress)
