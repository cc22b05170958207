"""Our PPO and stable-baselines3's on the same random numbers: whole trainings without seed noise.

Two equal implementations end at equal policies if they start from equal weights, draw equal noise
and equal batches, and round alike: the smallest difference in rounding grows until the robots walk
apart. So each side gives way where the two round, draw or count differently (listed in
``settings.DIFFERENCES``), and everything else is what it is: environments and their ends, paths,
advantages, the objective, the gradients, the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO as PeerPPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor
from torch.distributions import Normal

from benchmarks.parity import exchange, player, train_ours, train_sb3
from uepo_lib.behavior_training import ppo_trainer
from uepo_lib.environments import Chunk, ChunkedEnvs, Episode
from uepo_lib.locomotion import HOPPER
from uepo_lib.policies import GaussianPolicy
from uepo_lib.ppo import PPO, train_ppo
from uepo_lib.scaling import RunningScale

# -- theirs


class SinglePrecision(gymnasium.ObservationWrapper[Any, Any, Any]):
    """States as ours are stored: rounded to float32."""

    def observation(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        return observation.astype(np.float32).astype(np.float64)


class SharedOrder(RolloutBuffer):
    """Batches in the order of torch's generator, numbered as ours: all environments of a round."""

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBufferSamples]:  # type: ignore[override]
        if not self.generator_ready:
            names = ("observations", "actions", "values", "log_probs", "advantages", "returns")
            for name in names:
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        count = self.buffer_size * self.n_envs
        order = torch.randperm(count).numpy()
        # theirs lie one environment after another
        rows = order % self.n_envs * self.buffer_size + order // self.n_envs
        for start in range(0, count, batch_size or count):
            yield self._get_samples(rows[start : start + (batch_size or count)])


class NeverAlone(ActorCriticPolicy):
    """The value of a single state as one of eight: products of few rows round differently."""

    def predict_values(self, obs: Any) -> Tensor:
        return super().predict_values(torch.as_tensor(obs).repeat(8, 1))[: len(obs)]


def peer(given: Mapping[str, Any], seed: int) -> PeerPPO:
    """Their agent; from here on it draws from torch's own generator, seeded like ours."""
    made = train_sb3.agent(
        given,
        seed,
        policy=NeverAlone,
        wrap=SinglePrecision,
        rollout_buffer_class=SharedOrder,
        optimizer_kwargs={"fused": True},
    )
    torch.manual_seed(seed)
    return made


# -- ours


class TheirDensity(GaussianPolicy):
    """The same density in the order of operations of :class:`torch.distributions.Normal`."""

    def log_prob(self, states: Tensor, actions: Tensor) -> Tensor:
        mean = self(states)[0].flatten(1)
        std = torch.ones_like(mean) * self.log_std.exp()
        return Normal(mean, std, validate_args=False).log_prob(actions.flatten(1)).sum(1)


class TheirScale(RunningScale):
    """Double precision, and a state counts when it is reached, not when it is acted in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.carried = self.carried.double()

    def update_states(self, windows: Tensor) -> None:
        if self.states.count < 1:  # the very first, which no step has reached
            self.reached(windows)

    def reached(self, windows: Tensor) -> None:
        super().update_states(windows)

    def normalise(self, windows: Tensor) -> Tensor:
        std = np.sqrt(self.states.var + 1e-8)
        scaled = (windows.double().numpy() - self.states.mean) / std
        return torch.from_numpy(np.clip(scaled, -10, 10).astype(np.float32))

    def scale_rewards(self, rewards: Tensor, steps: Tensor, done: Tensor) -> Tensor:
        self.carried = self.carried * self.discount ** steps.double() + rewards.double()
        self.returns.update(self.carried.numpy())
        self.carried = self.carried * (~done)
        scaled = rewards.double().numpy() / np.sqrt(self.returns.var + 1e-8)
        return torch.from_numpy(np.clip(scaled, -10, 10).astype(np.float32))


class Reaching(ChunkedEnvs):
    """Tells ``scale`` every state that is reached."""

    scale: TheirScale

    def step(self, actions: Tensor) -> tuple[Chunk, list[Episode]]:
        seen = super().step(actions)
        self.scale.reached(self.windows)
        return seen


def ours(given: Mapping[str, Any], seed: int) -> PPO:
    """Our trainer with the first weights of theirs."""
    config = train_ours.online_config(given)
    ppo = config.ppo
    made: Any = ppo_trainer(HOPPER, config, seed)
    made.envs.close()
    first = 1_000 * (seed + 1)
    envs = Reaching(HOPPER, range(first, first + ppo.num_envs), discount=ppo.discount)
    trainer = PPO(ppo, TheirDensity(made.actor.config), made.critic, envs, made.generator)
    envs.scale = trainer.scale = TheirScale(
        HOPPER.state_dim, ppo.num_envs, ppo.discount, states=True, rewards=True
    )
    pairs = pair(trainer, train_sb3.agent(given, seed))
    with torch.no_grad():
        for own, start in pairs:
            own.copy_(start)
    # one group: the norm of all gradients together, summed in the order of theirs
    trainer.optimiser = torch.optim.Adam(
        [own for own, _ in pairs], ppo.learning_rate, eps=given["adam_eps"], fused=True
    )
    trainer.rates = (ppo.learning_rate,)  # type: ignore[assignment]
    return trainer


def pair(trainer: PPO, peer: PeerPPO) -> list[tuple[Tensor, Tensor]]:
    """(ours, theirs) of every parameter, in the order of theirs."""
    actor, critic = cast(Any, trainer.actor), cast(Any, trainer.critic)
    parts = {
        "log_std": actor,
        "mlp_extractor.policy_net.": actor.body,
        "mlp_extractor.value_net.": critic.body,
        "action_net.": actor.body[-1],
        "value_net.": critic.body[-1],
    }
    found: list[tuple[Tensor, Tensor]] = []
    for name, parameter in peer.policy.named_parameters():
        part = next(key for key in parts if name.startswith(key))
        own = parts[part].get_parameter(name.removeprefix(part) or name)
        found.append((own, parameter))
    return found


def train(job: Mapping[str, Any]) -> None:
    """One side of one seed: train, export, and say what it took."""
    torch.set_num_threads(1)
    (_train_ours if job["side"] == "ours" else _train_theirs)(job)


def _train_theirs(job: Mapping[str, Any]) -> None:
    train_sb3.finish(job, peer(job["settings"], job["seed"]))


def _train_ours(job: Mapping[str, Any]) -> None:
    recording = train_ours.recording_of(job, "ppo")
    trainer = ours(job["settings"], job["seed"])
    train_ppo(trainer, recorder=recording, progress=False)
    actor: Any = trainer.actor
    mean, std = (value.numpy() for value in trainer.scale.mean_std())
    states = train_ours.probe_states()
    seen = trainer.prepare(torch.from_numpy(states).unsqueeze(1))
    expected = actor.act(seen)[:, 0].numpy()
    network, steps = player.network_of(actor, mean, std, clip=10.0), trainer.envs.num_steps
    exchange.finish(
        job, network, train_ours.seconds_of(recording), steps, expected, states, train_sb3.PACKAGES
    )


if __name__ == "__main__":
    train(exchange.main_job())
