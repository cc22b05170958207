r"""T̂ in the online phase: how new is the data, and is the policy still the better one? (A14)

Every ``every`` environment steps T̂ is refitted on D ∪ D_diff ∪ D_online, and then

* the shift is read: −log T̂ of the transitions since the last look, before and after the refit;
* the policy passes a gate: it is compared by AM-Q in T̂ with the last one that passed, from the same
  starts with the same draws, and where it is worse by ``margin`` standard errors it goes back;
* with ``model="short"`` the critic takes one more pass over the states of each update, towards

$$\sum_{k<H} \gamma^k \hat r_k + \gamma^H V(\hat s_H), \qquad H \le 5$$

along plans of the exploring policy in T̂ (arXiv 1803.00101 expands values so). The gate costs no
environment step. Its Q is that of D, and its starts are states of D: it sees the policy only there.

``augmented`` generates D_diff anew before each refit, by the present policy in T̂, a few steps from
the states that it has just met; it takes the place of the offline one.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from uepo_lib.augmentation import AugmentationConfig, reference_costs, synthesise
from uepo_lib.datasets import Batch, Normaliser, Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.dynamics_training import train_dynamics
from uepo_lib.errors import check, unknown
from uepo_lib.evaluation import AMQConfig, imagine
from uepo_lib.offline_ppo import Improvable, accepted
from uepo_lib.policies import Together
from uepo_lib.ppo import PPO
from uepo_lib.recording import Recording
from uepo_lib.robots import Robot
from uepo_lib.values import Critic

REVISION = 1
LONGEST = 5
"""Most imagined steps under a value target: further than that T̂'s errors are what one learns."""

Model = Literal["none", "frozen", "refitted", "short"]


@dataclass(frozen=True)
class OnlineModelConfig:
    """What T̂ does online: nothing; the gate; the gate in a refitted T̂; that and value targets."""

    model: Model = "none"
    every: int = 10_000
    """Environment steps between two looks."""
    updates: int = 150
    """Gradient steps of a refit, each with an optimiser of its own."""
    learning_rate: float = 1e-3
    """A fifth of that of a new T̂: a trained model is adjusted."""
    margin: float = 2.0
    """Standard errors, over paired starts, by which a policy must be worse to go back."""
    imagined_steps: int = LONGEST
    """H, rounded down to whole chunks."""
    augmented: bool = False
    augmentation_ratio: float = 0.1
    augmentation_horizon: int = 8

    def __post_init__(self) -> None:
        if self.model not in get_args(Model):
            raise unknown("model", self.model, get_args(Model))
        for name in ("every", "updates", "augmentation_horizon"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        for name in ("learning_rate", "augmentation_ratio"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.margin >= 0, "margin", self.margin, "0 or more standard errors")
        steps = self.imagined_steps
        check(1 <= steps <= LONGEST, "imagined_steps", steps, f"in 1 .. {LONGEST}")
        refits = self.model in ("refitted", "short")
        check(refits or not self.augmented, "augmented", True, "False where nothing is refitted")

    @property
    def augmentation(self) -> AugmentationConfig:
        """The filter and its ε are the offline defaults, whatever was set for the offline phase."""
        return AugmentationConfig(
            self.augmentation_ratio, self.augmentation_horizon, starts_per_round=256
        )


@dataclass(frozen=True)
class Known:
    """All that was there before the online phase: models, data, and how policies are judged."""

    dynamics: DynamicsModel
    critic: Critic
    data: Transitions
    """D without what is held out."""
    choosing: Transitions
    """Held out, by which a refit chooses its elites."""
    dataset_size: int
    """|D|, what is held out included: the unit of the augmentation's ratio."""
    synthetic: Transitions
    """D_diff."""
    sequences: Batch
    """Held-out sequences of at least the augmentation's horizon: the filter's reference."""
    starts: Tensor
    """(B, T_o, S) windows of D from which AM-Q compares."""
    amq: AMQConfig
    robot: Robot
    normaliser: Normaliser
    seed: int


@torch.no_grad()
def imagined_values(
    actor: Improvable,
    value: Callable[[Tensor], Tensor],
    dynamics: DynamicsModel,
    known: Known,
    windows: Tensor,
    steps: int,
    discount: float,
    generator: torch.Generator,
) -> Tensor:
    """Σ_{k<H} γ^k r̂_k + γ^H V(ŝ_H) of the exploring policy, through T̂'s mean: (N, T_o, S) -> (N,).

    H is ``steps``. An imagined end stops both the rewards and the value behind it.
    """
    alive, total = torch.ones(len(windows), dtype=torch.bool), torch.zeros(len(windows))
    for k in range(steps):
        phase = k % actor.action_horizon
        if phase == 0:
            plan = actor.sample_path(windows, generator)[0].clamp(-1, 1)
        states, rewards = dynamics.predict(windows[:, -1], plan[:, phase])
        total = total + discount**k * rewards.where(alive, 0.0)
        alive = alive & states.isfinite().all(-1)
        alive = alive & ~known.robot.terminated(known.normaliser.inverse(states))
        windows = torch.cat([windows[:, 1:], states.unsqueeze(1)], dim=1)
    return total + discount**steps * value(windows[:, -1]).where(alive, 0.0)


class OnlineModel:
    """T̂ beside one online PPO: a ``finetuning.Companion``, so all of it is in the checkpoint.

    Every draw comes from a stream named by its purpose and number, so there is no generator to
    keep. Table ``model_looks`` of the run, a row a look: environment steps, mean −log T̂ of the new
    transitions before and after the refit (nats), AM-Q of the present and of the kept policy in the
    T̂ after it, and whether the present one went back (1 or 0).
    """

    def __init__(
        self, config: OnlineModelConfig, known: Known, trainer: PPO, run: Recording
    ) -> None:
        check(config.model != "none", "model", config.model, "frozen, refitted or short")
        ppo, scaled = trainer.config, "False: T̂ has the units of the data"
        check(not ppo.normalise_states, "normalise_states", ppo.normalise_states, scaled)
        check(not ppo.normalise_rewards, "normalise_rewards", ppo.normalise_rewards, scaled)
        self.config, self.known, self.trainer, self.run = config, known, trainer, run
        self.dynamics = copy.deepcopy(known.dynamics)
        self.actor = cast(Any, trainer.actor)
        self.kept = self._policy()
        self.looks, self.seen, self.next = 0, 0, config.every
        chunk = self.actor.action_horizon
        self.imagined_steps = config.imagined_steps // chunk * chunk
        fits = config.model != "short" or self.imagined_steps > 0
        check(fits, "imagined_steps", config.imagined_steps, f"at least one chunk, T_a={chunk}")

    def state_dict(self) -> dict[str, Any]:
        return {
            "dynamics": self.dynamics.state_dict(), "kept": dict(self.kept),
            "looks": self.looks, "seen": self.seen, "next": self.next,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dynamics.load_state_dict(state["dynamics"])
        self.kept = {name: value.clone() for name, value in state["kept"].items()}
        self.looks, self.seen, self.next = state["looks"], state["seen"], state["next"]

    def after(self, update: int) -> Mapping[str, float]:
        """Called after every update, before the policy is looked at."""
        if self.config.model == "short":
            self._teach(update)
        steps = self.trainer.envs.num_steps
        if steps >= self.next:
            self._look()
            self.next = (steps // self.config.every + 1) * self.config.every
        return {}

    # -- the look

    def _look(self) -> None:
        online = self.trainer.envs.transitions(self.known.normaliser)
        new, self.seen = online[self.seen :], len(online)
        before = after = float(self.dynamics.nll(new).mean())
        if self.config.model != "frozen":
            self._refit(online)
            after = float(self.dynamics.nll(new).mean())
        now, kept, rolled_back = self._gate()
        self.run.table("model_looks").append(
            {
                "env_steps": self.trainer.envs.num_steps, "nll_before": before, "nll_after": after,
                "amq_now": now, "amq_kept": kept, "rolled_back": int(rolled_back),
            }
        )  # fmt: skip
        self.looks += 1

    def _refit(self, online: Transitions) -> None:
        """T̂ goes on from where it is; the weights after the last step are kept."""
        known, updates = self.known, self.config.updates
        cfg = replace(
            self.dynamics.cfg, max_updates=updates, check_every=updates, patience=None,
            learning_rate=self.config.learning_rate,
        )  # fmt: skip
        synthetic = self._generate() if self.config.augmented else known.synthetic
        self.dynamics = train_dynamics(
            cfg, known.data, known.choosing, seed=self._seed("refit", self.looks),
            extra=Transitions.join(synthetic, online), start=self.dynamics, progress=False,
        )  # fmt: skip

    def _generate(self) -> Transitions:
        """D_diff of the present policy, from the states of its last update."""
        known, cfg, rollout = self.known, self.config.augmentation, self.trainer.rollout
        assert rollout is not None, "a look follows an update"
        real = known.sequences
        found = synthesise(
            self.actor, self.dynamics, rollout.states.flatten(0, 1),
            lambda states: known.robot.terminated(known.normaliser.inverse(states)),
            reference_costs(self.dynamics, real.past, real.actions, real.future, cfg), cfg,
            self._stream("augmentation", self.looks),
            dataset_size=known.dataset_size, progress=False,
        )  # fmt: skip
        return found.transitions

    def _gate(self) -> tuple[float, float, bool]:
        """AM-Q now and of the kept policy; the worse of the two does not go on."""
        known, kept = self.known, copy.deepcopy(self.actor)
        kept.load_state_dict(self.kept)
        scores = imagine(
            Together([self.actor, kept]), self.dynamics, known.critic, known.starts, known.robot,
            known.normaliser, known.amq, self._stream("elites", 0),
        ).by_start(known.amq)  # fmt: skip
        back = bool(accepted(scores[1:], scores[:1], self.config.margin))
        if back:
            self.actor.load_state_dict(self.kept)
            self._forget()
        else:
            self.kept = self._policy()
        return float(scores[0].mean()), float(scores[1].mean()), back

    def _forget(self) -> None:
        """Adam's memory of the way that was taken back would lead there again."""
        for parameter in self.actor.parameters():
            self.trainer.optimiser.state.pop(parameter, None)

    # -- short value targets

    def _teach(self, update: int) -> None:
        """One more pass of the critic over the last update's states, towards imagined values."""
        trainer, generator = self.trainer, self._stream("short", update)
        assert trainer.rollout is not None, "called after an update"
        windows = trainer.rollout.states.flatten(0, 1)
        targets = imagined_values(
            self.actor, trainer.critic, self.dynamics, self.known, windows, self.imagined_steps,
            trainer.config.discount, generator,
        )  # fmt: skip
        order = torch.randperm(len(windows), generator=generator)
        for batch in order.split(trainer.config.minibatch_size):
            error = trainer.critic(windows[batch, -1]) - targets[batch]
            trainer.optimiser.zero_grad()  # the actor has no gradient, so it does not move
            (0.5 * error.square().mean()).backward()
            nn.utils.clip_grad_norm_(trainer.critic.parameters(), trainer.config.max_grad_norm)
            trainer.optimiser.step()

    def _policy(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.actor.state_dict().items()}

    def _seed(self, purpose: str, number: int) -> int:
        return zlib.crc32(f"online {purpose}/{self.known.seed}/{number}".encode())

    def _stream(self, purpose: str, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(purpose, number))
