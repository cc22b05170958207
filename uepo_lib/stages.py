"""Every stage that methods and notebooks share: the models, and what is done with policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from uepo_lib import (
    augmentation,
    chain,
    datasets,
    divergence,
    dynamics,
    environments,
    evaluation,
    finetuning,
    guided_exploration,
    noise_steering,
    offline_ppo,
    online_model,
    policies,
    ppo,
    robots,
    rollouts,
    schedules,
    shift,
    subpolicies,
)
from uepo_lib.chain import ChainActor
from uepo_lib.datasets import Transitions
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.evaluation import Evaluation
from uepo_lib.finetuning import OnlineActor
from uepo_lib.guided_exploration import GuidedActor, Measure, guidance_by
from uepo_lib.learners import EXPLORED, Learners, chain_actor
from uepo_lib.models import ACTION_HORIZON, CALIBRATION
from uepo_lib.networks import StateValue, mlp, orthogonal_
from uepo_lib.noise_steering import NoiseActor
from uepo_lib.policies import GaussianPolicy
from uepo_lib.products import Acts, Product
from uepo_lib.runs import Run
from uepo_lib.settings import ONLINE
from uepo_lib.study import COMPONENTS, load_all, load_data
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.values import Critic

__all__ = ["ACTION_HORIZON", "COMPONENTS", "ONLINE", "Product", "Study", "load_all", "load_data"]

SCRATCH: dict[str, Any] = {
    "hidden": (64, 64), "activation": "tanh", "state_dependent_std": False
}  # fmt: skip
"""The networks of PPO from scratch: those that learnt the behaviours of locomotion."""
ACTING = (robots, environments, evaluation, policies, subpolicies, divergence, schedules)
"""The modules whose revision changes what a policy does in its environment."""


@dataclass(frozen=True)
class _Variant:
    """Who goes online, and what makes that run another than the default one."""

    actor: Callable[[], Any]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[ModuleType, ...] = ()
    parents: tuple[Product[Any], ...] = ()
    companion: Callable[[], finetuning.MakeCompanion] | None = None
    acts: Acts | None = None
    """What is learnt acts so; None: it is not fine-tuned again."""


class Study(Learners):
    """Every stage that the methods share; each returns a :class:`Product`.

    >>> study = Study("hopper-medium", seed=0, profile="smoke")  # doctest: +SKIP
    >>> model = study.diffusion_policy()  # nothing is computed yet  # doctest: +SKIP
    >>> model.value  # loaded if that run is finished, else trained  # doctest: +SKIP
    """

    def am_q(
        self, policy: Product[Any], model: Product[DynamicsModel], critic: Product[Critic]
    ) -> Product[dict[str, Tensor]]:
        """AM-Q of every member from the same starts with the same draws: name -> (n,)."""
        cfg = self.config("amq")

        def produce(run: Run) -> None:
            scores = evaluation.am_q(
                policy.value, model.value, critic.value, self.starts(cfg.num_starts, "am_q"),
                self.task.robot, self.dataset.normaliser, cfg, self.generator("am_q elites"),
            )  # fmt: skip
            run.save_tensors(scores, "scores")

        config = {"amq": asdict(cfg), "policy": dict(policy.config)}
        return self.stage(
            "amq", config, produce, lambda run: run.tensors("scores"), ACTING,
            (policy, model, critic), "seconds",
        )  # fmt: skip

    def evaluate(
        self, policy: Product[Any], episodes: int | None = None, *, sampled: bool = False
    ) -> Product[Evaluation]:
        """True returns of every member, (n, episodes), from fixed reset seeds; steps are counted.

        ``sampled`` gives the policy a generator: a Gaussian then explores, fresh noise is drawn.
        """
        count = self.budget.evaluation_episodes if episodes is None else episodes
        check(count > 0, "episodes", count, "a positive integer")

        def produce(run: Run) -> None:
            seen = evaluation.evaluate(
                policy.value, self.task.robot, self.dataset.normaliser, count,
                generator=self.generator("sampled evaluation") if sampled else None,
            )  # fmt: skip
            run.save_tensors({"returns": seen.returns, "lengths": seen.lengths}, "episodes")
            run.account("evaluation", seen.num_steps, seen.returns.numel())

        config = {"policy": dict(policy.config), "episodes": count, "sampled": sampled}
        return self.stage(
            "evaluation", config, produce, lambda run: Evaluation(**run.tensors("episodes")),
            ACTING, (policy,), "seconds",
        )  # fmt: skip

    def median_member(self, policy: Product[SubPolicies]) -> Product[SubPolicies]:
        """The sub-policy whose true mean return is the (lower) median: neither lucky nor unlucky.

        Its choice costs episodes, which :meth:`evaluate` counts; it is a probe, not a method.
        """
        returns = self.evaluate(policy, self.budget.curve_episodes).value.returns.mean(1)
        return self.member(policy, int(returns.argsort()[(len(returns) - 1) // 2]))

    def fine_tune(
        self,
        policy: Product[Any],
        critic: Product[Critic] | None,
        component: str | None = None,
        **changes: Any,
    ) -> Product[OnlineActor]:
        """Online PPO from ``policy``, a Gaussian or one sub-policy, improved offline or not.

        V starts as ``critic``'s, anew without one. ``component`` names the settings of PPO, by
        default those that were tuned for policies of this kind; ``changes`` are made to them.
        """
        return self._fine_tune(policy, critic, self._default(policy), component, **changes)

    def steer(self, policy: Product[SubPolicies], critic: Product[Critic]) -> Product[OnlineActor]:
        """Online PPO that learns only the initial noise of one sub-policy, its chain frozen."""
        steering = self.config("steering")
        variant = _Variant(
            lambda: NoiseActor(policy.value, steering, self.seed), {"steering": asdict(steering)},
            (noise_steering,),
        )  # fmt: skip
        return self._fine_tune(policy, critic, variant, "steer_ppo")

    def explore_guided(
        self,
        policy: Product[SubPolicies],
        critic: Product[Critic],
        guided: Product[SubPolicies],
        measure: Measure = "dynamic",
    ) -> Product[OnlineActor]:
        """Online PPO whose exploration is pushed away from the other members of ``guided``.

        ``policy`` is a member of a set of the same seeds, at its own κ. "kl" measures the distance
        of two plans by KL, with the exploration's σ.
        """

        def actor() -> GuidedActor:
            past = self.starts(CALIBRATION["starts"], "calibration")
            together, sigma = guided.value, EXPLORED["sigma"]
            rule = guidance_by(measure, together, sigma, past, CALIBRATION["quantile"])
            return GuidedActor(policy.value, together, policy.config["member"], rule, **EXPLORED)

        chosen = {**EXPLORED, "guided": dict(guided.config), "measure": measure}
        if measure == "kl":
            chosen["calibration"] = CALIBRATION
        variant = _Variant(actor, chosen, (guided_exploration,), (guided,))
        return self._fine_tune(policy, critic, variant)

    def fine_tune_beside_model(
        self,
        policy: Product[Any],
        critic: Product[Critic],
        world: Product[DynamicsModel],
        synthetic: Product[Transitions],
        **changes: Any,
    ) -> Product[OnlineActor]:
        """Online PPO with T̂, ``world``, beside it (A14); ``changes`` are of ``OnlineModelConfig``.

        With ``model="none"`` it is :meth:`fine_tune`, the same run.
        """
        cfg, amq = self.config("online_model", **changes), self.config("amq")
        plain = self._default(policy)
        if cfg.model == "none":
            return self._fine_tune(policy, critic, plain)
        amq.check_by_start()
        horizon = cfg.augmentation_horizon
        augmentation.check_horizon("augmentation_horizon", horizon, self.dataset, self.choosing)

        def companion() -> finetuning.MakeCompanion:
            known = self._known(critic.value, world.value, synthetic.value, cfg)
            return partial(online_model.OnlineModel, cfg, known)

        variant = _Variant(
            plain.actor, {**plain.chosen, "online_model": asdict(cfg), "amq": asdict(amq)},
            (datasets, dynamics, augmentation, rollouts, offline_ppo, online_model),
            (world, synthetic), companion, plain.acts,
        )  # fmt: skip
        return self._fine_tune(policy, critic, variant)

    def _known(
        self, critic: Critic, world: DynamicsModel, synthetic: Transitions, cfg: Any
    ) -> online_model.Known:
        steps, amq = self.dataset.transitions(), self.config("amq")
        return online_model.Known(
            world, critic, steps[self.held_out[0]], steps[self.choosing], len(steps), synthetic,
            self._real_sequences(cfg.augmentation_horizon),
            self.starts(amq.num_starts, "online gate"), amq, self.task.robot,
            self.dataset.normaliser, self.seed,
        )  # fmt: skip

    @staticmethod
    def _default(policy: Product[Any]) -> _Variant:
        explored = EXPLORED if policy.acts == "chain" else {}
        return _Variant(lambda: _online_actor(policy.value), explored, acts=policy.acts)

    def _fine_tune(
        self,
        policy: Product[Any],
        critic: Product[Critic] | None,
        variant: _Variant,
        component: str | None = None,
        **changes: Any,
    ) -> Product[OnlineActor]:
        name = ", ".join(key.id for key in policy.keys)
        valid = "a Gaussian or a sub-policy, which have the likelihoods that PPO needs"
        check(policy.acts is not None, "policy", name, valid)
        component = component or f"{policy.acts}_ppo"
        cfg = self.config(component, **changes)
        watched = self.budget.watched

        def produce(run: Run) -> None:
            watch = finetuning.Watch(**watched, probe=self.starts(256, "probe"))
            value = _value_of(critic.value) if critic else self._new_value()
            finetuning.fine_tune(
                variant.actor(), value, self.task.robot, self.dataset.normaliser, cfg, watch,
                seed=self.seed, run=run, progress=self.progress,
                companion=variant.companion() if variant.companion else None,
            )  # fmt: skip

        def read(run: Run) -> OnlineActor:
            actor = variant.actor()
            actor.load_state_dict(run.tensors())
            return actor

        config = {
            "policy": dict(policy.config), "ppo": asdict(cfg), "watch": watched, **variant.chosen
        }  # fmt: skip
        modules = (*ACTING, datasets, ppo, chain, finetuning, shift, *variant.modules)
        parents = (*((policy, critic) if critic else (policy,)), *variant.parents)
        return self.stage(
            "online", config, produce, read, modules, parents, "about 3 min", variant.acts
        )

    def from_scratch(self) -> Product[OnlineActor]:
        """PPO without any offline learning, as the behaviours were trained; of D it has only the
        scale of its states."""
        config = replace(self.config("gaussian"), **SCRATCH)
        # the window: it decides which states a run is probed in, and no parent names it here
        named = {"untrained": asdict(config), "window": self.windows.horizon}
        untrained: Product[Any] = Product(
            (), lambda: (), lambda: GaussianPolicy(config, self.seed), named, "gaussian"
        )
        return self.fine_tune(untrained, None, "scratch_ppo")

    def _new_value(self) -> StateValue:
        sizes = (self.task.robot.state_dim, *SCRATCH["hidden"], 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = mlp(sizes, SCRATCH["activation"])
            orthogonal_(network, last_gain=1.0)
        return StateValue(network)

    def online_data(self, online: Product[OnlineActor]) -> Product[Transitions]:
        """D_online: every transition of the online phase."""
        return Product(
            online.keys,
            lambda: online.runs,
            lambda: Transitions(**online.run.tensors("online")),
        )


def _value_of(critic: Critic) -> StateValue:
    """A copy of V that may be trained on."""
    return StateValue(deepcopy(critic.v_net)).requires_grad_(True)


def _online_actor(policy: Any) -> Any:
    """A copy that PPO may change; what was improved offline goes online as the same object."""
    if isinstance(policy, SubPolicies):
        return chain_actor(policy)
    copied = deepcopy(policy)
    return copied.train_last() if isinstance(copied, ChainActor) else copied.requires_grad_(True)
