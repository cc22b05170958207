"""The online phase: PPO from an offline policy, watched at fixed points, every step counted.

What is evaluated is the noise-free policy; what explores is its noisy self. The dip at the switch
has two parts, the price of exploring and the price of learning, so both returns are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from uepo_lib.datasets import Normaliser
from uepo_lib.environments import ChunkedEnvs
from uepo_lib.errors import check
from uepo_lib.evaluation import EVALUATION_SEED, Evaluation, evaluate
from uepo_lib.policies import Policy
from uepo_lib.ppo import PPO, Actor, PPOConfig, train_ppo
from uepo_lib.recording import Recording
from uepo_lib.robots import Robot
from uepo_lib.shift import displacement_in_sigmas, executed_actions, moment_matched_kl
from uepo_lib.training import Stateful, Value

REVISION = 5
CURVE_SEED = 2_000_000
"""First reset seed of the looks, which the best policy is chosen by. The first, the last and the
best policy are scored on those of ``evaluation.EVALUATION_SEED``: a look flatters what it chose."""
SHIFT_SAMPLES = 16
"""Executed actions a probe state, of which a policy's moments are taken."""


class Watched(Policy, Protocol):
    """A policy that acts noise-free and explores, and whose distance from another is known."""

    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """-> actions (N, T_a, A), path (N, ...) before any clipping."""
        ...

    def path_kl(self, other: Any, states: Tensor, path: Tensor) -> Tensor:
        """KL(self ‖ other) of each level in nats, given the levels before it: (N, L)."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class OnlineActor(Actor, Watched, Protocol):
    """A policy that PPO can fine-tune: it also scores what it explored."""


class Trained(Protocol):
    """What is watched of a trainer: its budget, its environments, its finished episodes."""

    config: Any
    """With ``num_env_steps`` and ``steps_per_update``."""
    envs: ChunkedEnvs
    episodes: Value


class Companion(Stateful, Protocol):
    """What goes along with the online phase and may change it: part of every checkpoint."""

    def after(self, update: int) -> Mapping[str, float]:
        """Called after every update, before the policy is looked at; metrics to log."""
        ...


MakeCompanion = Callable[[PPO, Recording], Companion]


@dataclass(frozen=True)
class Watch:
    """How the online phase is observed; none of it feeds back into training.

    The best policy is the one whose look had the highest mean return. It is reported beside the
    last one and used by nobody; its choice costs the episodes of the looks, which are counted.
    """

    episodes: int
    """By which the first, the last and the best policy are scored; no look has used them."""
    curve_episodes: int
    """Of every look, and of the exploring policy at both ends: the same ones."""
    curve_points: int
    """Looks between the first and the last one."""
    probe: Tensor
    """(P, T_o, S) states on which the distance from the first policy is measured."""


def training_seeds(seed: int, num_envs: int, episodes: int) -> range:
    """First reset seeds of the training environments of ``seed``.

    ``UsageError`` where they are among those of a look of ``episodes`` episodes.
    """
    first = 10_000 * (seed + 1)
    for look in (EVALUATION_SEED, CURVE_SEED):
        apart = first + num_envs <= look or look + episodes <= first
        valid = f"another: its training would begin on the episodes of evaluation, {look} and on"
        check(apart, "seed", seed, valid)
    return range(first, first + num_envs)


@torch.no_grad()
def policy_kl(old: Watched, new: Watched, states: Tensor, generator: torch.Generator) -> float:
    """KL(old ‖ new) in nats a decision: closed form a level, levels along one path of ``old`` a
    state.

    For a denoising chain it is the KL of the whole chain, an upper bound on that of its actions.
    """
    _, path = old.sample_path(states, generator)
    return float(old.path_kl(new, states, path).sum(-1).mean())


def fine_tune(
    actor: OnlineActor,
    value: nn.Module,
    robot: Robot,
    normaliser: Normaliser,
    config: PPOConfig,
    watch: Watch,
    *,
    seed: int,
    run: Recording,
    companion: MakeCompanion | None = None,
    progress: bool = True,
) -> None:
    """Fine-tune ``actor`` and ``value`` in place and write all that was seen into ``run``.

    ``companion`` makes what goes along with the trainer, such as ``online_model.OnlineModel``.

    Table ``metrics`` (a row an update); what else, :meth:`Observer.write` says.
    """
    check(actor.n == 1, "actor", f"{actor.n} members", "one policy")
    envs = ChunkedEnvs(
        robot,
        training_seeds(seed, config.num_envs, max(watch.episodes, watch.curve_episodes)),
        obs_horizon=actor.obs_horizon,
        discount=config.discount,
        keep_transitions=True,
    )
    generator = torch.Generator().manual_seed(seed)
    trainer = PPO(config, actor, value, envs, generator, standardise=normaliser)
    observer = Observer(actor, robot, normaliser, watch, trainer, run, seed)
    if run.resumed_at is None:
        observer.before()
    beside = companion(trainer, run) if companion else None
    parts: dict[str, Stateful] = {"observer": observer}
    if beside is not None:
        parts["companion"] = beside

    def observe(update: int) -> Mapping[str, float]:
        first = beside.after(update) if beside else {}
        return {**first, **observer.after(update)}

    train_ppo(
        trainer, recorder=run, observe=observe, name="online PPO", extra_parts=parts,
        progress=progress,
    )  # fmt: skip
    observer.write()


class Observer:
    """Looks at the policy at fixed updates; part of the checkpoint, so a resumed run looks
    alike."""

    def __init__(
        self,
        actor: Watched,
        robot: Robot,
        normaliser: Normaliser,
        watch: Watch,
        trainer: Trained,
        run: Recording,
        seed: int,
    ) -> None:
        self.actor, self.first = actor, copy.deepcopy(actor)
        self.robot, self.normaliser, self.watch, self.run = robot, normaliser, watch, run
        self.trainer, self.seed = trainer, seed
        config = trainer.config
        self.last = -(-config.num_env_steps // config.steps_per_update)
        every = max(1, self.last // (watch.curve_points + 1))
        self.points = set(range(every, self.last, every)[: watch.curve_points])
        self.returns: dict[str, Tensor] = {}
        self.spent = (0, 0)
        self.best: dict[str, Any] = {"return": -math.inf}
        self.explored = executed_actions(self.first, watch.probe, SHIFT_SAMPLES, self._probing())

    def _probing(self) -> torch.Generator:
        """The same draws at every look, so that an unchanged policy has not moved."""
        return torch.Generator().manual_seed(self.seed)

    def state_dict(self) -> dict[str, Any]:
        return {"returns": dict(self.returns), "spent": list(self.spent), "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns, self.best = dict(state["returns"]), dict(state["best"])
        self.spent = (state["spent"][0], state["spent"][1])

    def before(self) -> None:
        """The first score and the first look, before any update."""
        self.returns["start"] = self._score(self.actor)
        self._look(0, "start_exploring")

    def after(self, update: int) -> Mapping[str, float]:
        """Called after every update."""
        taken = self.trainer.envs.num_steps
        if update == self.last:
            self._look(taken, "end_exploring")
            self._last_and_best(taken)
        elif update in self.points:
            self._look(taken)
        return {}

    def write(self) -> None:
        """Everything that was seen, into the run; the training is over.

        Table ``evaluations`` has a row a look: environment steps, noise-free mean return, and how
        far the policy is from the first one: its own KL, the one estimator of ``shift.py`` and the
        noise-free displacement in σ. Tensors: in ``returns.safetensors`` ``start``, ``end`` and
        ``best``, the first, the last and the best policy noise-free on the same (episodes,), and
        ``start_exploring`` and ``end_exploring`` on those of the looks, (curve_episodes,); D_online
        in ``online.safetensors``; the learnt ``model.safetensors``. JSON ``best``: the environment
        steps and the look's return of the best policy.
        """
        run, envs, episodes = self.run, self.trainer.envs, self.trainer.episodes.value
        envs.close()
        run.account("online training", envs.num_steps, len(episodes))
        run.account("evaluation", *self.spent)
        run.save_tensors(self.returns, "returns.safetensors")
        run.save_json("best", {k: self.best[k] for k in ("env_steps", "return")})
        run.save_tensors(self.actor.state_dict(), "model.safetensors")
        run.save_tensors(envs.transitions(self.normaliser).named(), "online.safetensors")
        run.save_json("training_episodes", episodes)

    def _last_and_best(self, taken: int) -> None:
        """Their scores; the best policy's is known already if it is the last or the first."""
        self.returns["end"] = self._score(self.actor)
        known = {taken: "end", 0: "start"}.get(self.best["env_steps"])
        if known is not None:
            self.returns["best"] = self.returns[known].clone()
            return
        best = copy.deepcopy(self.actor)
        best.load_state_dict(self.best["policy"])
        self.returns["best"] = self._score(best)

    def _score(self, policy: Watched) -> Tensor:
        return self._play(policy, self.watch.episodes, EVALUATION_SEED)

    def _look(self, taken: int, exploring: str | None = None) -> None:
        """One look after ``taken`` steps; as ``exploring`` its episodes with exploration noise."""
        count = self.watch.curve_episodes
        if exploring is not None:
            noisy = self._play(self.actor, count, CURVE_SEED, self._probing())
            self.returns[exploring] = noisy
        self._note(taken, self._play(self.actor, count, CURVE_SEED))

    def _play(
        self,
        policy: Watched,
        episodes: int,
        first_seed: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        seen: Evaluation = evaluate(
            policy, self.robot, self.normaliser, episodes, first_seed=first_seed,
            generator=generator,
        )  # fmt: skip
        self.spent = (self.spent[0] + seen.num_steps, self.spent[1] + episodes)
        return seen.returns[0]

    def _note(self, env_steps: int, returns: Tensor) -> None:
        mean = float(returns.mean())
        if mean > self.best["return"]:
            kept = {name: value.clone() for name, value in self.actor.state_dict().items()}
            self.best = {"env_steps": env_steps, "return": mean, "policy": kept}
        probe = self.watch.probe
        now = executed_actions(self.actor, probe, SHIFT_SAMPLES, self._probing())
        moved = displacement_in_sigmas(self.first, self.actor, probe, self.explored)
        self.run.table("evaluations").append(
            {
                "env_steps": env_steps,
                "return": mean,
                "episodes": len(returns),
                "policy_kl": policy_kl(self.first, self.actor, probe, self._probing()),
                "shift": float(moment_matched_kl(self.explored, now).mean()),
                "displacement": float(moved.mean()),
            }
        )
