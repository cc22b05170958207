"""The policies beside UEPO's: Uni-O4's ensemble, IQL's, clones of chunks; and offline improvement.

Each stage is trained once for one task and seed and shared by the methods and experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from uepo_lib import (
    chain,
    cloning,
    datasets,
    denoisers,
    diffusion,
    distillation,
    diversity,
    evaluation,
    extraction,
    offline_ppo,
    policies,
    ppo,
    regression,
    robots,
    schedules,
    subpolicies,
)
from uepo_lib.chain import ChainActor
from uepo_lib.diversity import GaussianEnsemble
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import unknown
from uepo_lib.models import ACTION_HORIZON, Models, load
from uepo_lib.offline_ppo import Advantage, Look
from uepo_lib.policies import GaussianPolicy, Policy
from uepo_lib.products import Product
from uepo_lib.regression import RegressionPolicy, Sizes
from uepo_lib.runs import Run
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.values import Critic

EXPLORED: dict[str, Any] = {"sigma": 0.3, "num_levels": 1}
"""Std of the exploration noise, in action units, on how many of the last reverse steps."""
USES_V = frozenset({"amq", "chain_ppo", "gaussian_ppo", "steer_ppo"})
"""Components that start from the critic or read it, and so discount as it does."""


class Learners(Models):
    """Baselines and offline improvement; each stage returns a :class:`Product`."""

    def _by_profile(self, component: str) -> dict[str, Any]:
        """γ is the critic's wherever its values are used; an override of theirs still wins."""
        chosen = super()._by_profile(component)
        if component in USES_V:
            chosen["discount"] = self.config("critic").discount
        return chosen

    def ensemble(self, n: int | None = None) -> Product[GaussianEnsemble]:
        """Uni-O4's n cloned Gaussians, 4 by default; with n = 1 a single clone (BPPO)."""
        changes = {} if n is None else {"num_members": n}
        cfg, gaussian = self.config("ensemble", **changes), self.config("gaussian")

        def produce(run: Run) -> None:
            self._save(run, diversity.train_ensemble(
                cfg, gaussian, self.windows, seed=self.seed, recorder=run, progress=self.progress
            ))  # fmt: skip

        def read(run: Run) -> GaussianEnsemble:
            return load(GaussianEnsemble(gaussian, cfg.num_members), run)

        config = {
            "ensemble": asdict(cfg), "gaussian": asdict(gaussian), "window": self.windows.horizon
        }  # fmt: skip
        modules = (datasets, policies, diversity)
        return self.stage(
            "ensemble", config, produce, read, modules, expect="about 2 min", acts="gaussian"
        )  # fmt: skip

    def regression(self) -> Product[RegressionPolicy]:
        """Deterministic cloning by mean squared error, with the diffusion policy's network."""
        training, network = self.config("diffusion"), self.config("denoiser")
        sizes = Sizes(self.task.robot.state_dim, self.task.robot.action_dim)
        acting = {"action_horizon": ACTION_HORIZON, "sigma": EXPLORED["sigma"]}

        def produce(run: Run) -> None:
            self._save(run, regression.train_regression(
                training, network, sizes, self.windows, **acting, seed=self.seed, recorder=run,
                progress=self.progress,
            ))  # fmt: skip

        def read(run: Run) -> RegressionPolicy:
            return load(RegressionPolicy(network, sizes, **acting), run)

        config = {"training": asdict(training), "denoiser": asdict(network), **acting}
        modules = (datasets, denoisers, diffusion, regression)
        made = self.stage("regression", config, produce, read, modules, expect="about 2 min")
        return made.derive(lambda policy: policy, acting, "chain")

    def iql_policy(self, critic: Product[Critic]) -> Product[GaussianPolicy]:
        """IQL's policy: the clone weighted by advantage."""
        cfg, gaussian = self.config("extraction"), self.config("gaussian")

        def produce(run: Run) -> None:
            returns = torch.from_numpy(self.learnt.episode_returns())
            self._save(run, extraction.extract_policy(
                cfg, gaussian, self.windows, critic.value, returns, seed=self.seed, recorder=run,
                progress=self.progress,
            ))  # fmt: skip

        config = {
            "extraction": asdict(cfg), "gaussian": asdict(gaussian), "window": self.windows.horizon
        }  # fmt: skip
        modules = (datasets, policies, extraction)
        return self.stage(
            "iql_policy", config, produce, _gaussian(gaussian), modules, (critic,), acts="gaussian"
        )  # fmt: skip

    def distilled(
        self, policy: Product[SubPolicies], noise: Product[GaussianPolicy]
    ) -> Product[GaussianPolicy]:
        """A Gaussian whose mean imitates one sub-policy, with the action noise of ``noise``."""
        cfg, gaussian = self.config("clone"), self.config("gaussian")

        def produce(run: Run) -> None:
            self._save(run, distillation.distil(
                cfg, gaussian, policy.value, noise.value, self.windows, seed=self.seed,
                recorder=run, progress=self.progress,
            ))  # fmt: skip

        config = {
            "clone": asdict(cfg), "gaussian": asdict(gaussian), "policy": dict(policy.config),
            "window": self.windows.horizon,
        }  # fmt: skip
        modules = (datasets, policies, cloning, distillation)
        parents = (policy, noise)
        return self.stage(
            "distilled", config, produce, _gaussian(gaussian), modules, parents, acts="gaussian"
        )  # fmt: skip

    # -- offline PPO

    @staticmethod
    def improvement(kind: str) -> bool:
        """Whether ``offline_improvement=kind`` is PPO; ``UsageError`` for an unknown kind."""
        if kind not in ("none", "ppo"):
            raise unknown("offline_improvement", kind, ("none", "ppo"))
        return kind == "ppo"

    def improve_gaussians(
        self,
        ensemble: Product[GaussianEnsemble],
        model: Product[DynamicsModel],
        critic: Product[Critic],
    ) -> Product[GaussianEnsemble]:
        """Offline PPO of every member from its own clone, accepted by AM-Q (Uni-O4)."""

        def members() -> list[Any]:
            together = ensemble.value
            return [together.select(i).requires_grad_(True) for i in range(together.n)]

        def read(run: Run) -> GaussianEnsemble:
            return load(deepcopy(ensemble.value), run)  # the clones stay what they were

        def tensors(improved: Sequence[Any]) -> dict[str, Tensor]:
            return GaussianEnsemble.of(improved).state_dict()

        def advantage() -> Advantage:
            return offline_ppo.one_step_advantage(critic.value)

        return self._improve(
            ensemble, model, critic, members, advantage, tensors, read, (diversity,)
        )

    def improve_chain(
        self,
        policy: Product[SubPolicies],
        model: Product[DynamicsModel],
        critic: Product[Critic],
    ) -> Product[ChainActor]:
        """Offline PPO of one sub-policy's denoising chain, on chunks through T̂ (A13)."""

        def members() -> list[Any]:
            return [chain_actor(policy.value)]

        def read(run: Run) -> ChainActor:
            return load(chain_actor(policy.value), run)

        def tensors(improved: Sequence[Any]) -> dict[str, Tensor]:
            return dict(improved[0].state_dict())

        def advantage() -> Advantage:
            return offline_ppo.chunk_advantage(
                critic.value, model.value, self.task.robot, self.dataset.normaliser,
                critic.value.cfg.discount,
            )  # fmt: skip

        modules = (schedules, subpolicies, chain)
        return self._improve(
            policy, model, critic, members, advantage, tensors, read, modules, EXPLORED
        )

    def _improve(
        self,
        policy: Product[Any],
        model: Product[DynamicsModel],
        critic: Product[Critic],
        members: Callable[[], list[Any]],
        advantage: Callable[[], Advantage],
        tensors: Callable[[Sequence[Any]], dict[str, Tensor]],
        read: Callable[[Run], Any],
        modules: tuple[ModuleType, ...],
        explored: dict[str, Any] | None = None,
    ) -> Product[Any]:
        cfg, amq = self.config("offline_ppo"), self.config("amq")
        amq.check_by_start()

        def scores(candidates: Policy) -> Tensor:
            return evaluation.imagine(
                candidates, model.value, critic.value, self.starts(amq.num_starts, "offline PPO"),
                self.task.robot, self.dataset.normaliser, amq, self.generator("offline PPO elites"),
            ).by_start(amq)  # fmt: skip

        def produce(run: Run) -> None:
            improved, looks = offline_ppo.improve_offline(
                cfg, members(), self.windows, advantage(), scores, seed=self.seed, recorder=run,
                progress=self.progress,
            )  # fmt: skip
            run.save_tensors({**tensors(improved), **self.dataset.normaliser.tensors()})
            run.save_json("looks", [asdict(look) for look in looks])

        config = {
            "offline_ppo": asdict(cfg), "amq": asdict(amq), "policy": dict(policy.config),
            **(explored or {}),
        }  # fmt: skip
        # AM-Q imagines the task's terminations
        used = (datasets, robots, policies, evaluation, ppo, offline_ppo, *modules)
        parents = (policy, model, critic)
        made = self.stage("offline_ppo", config, produce, read, used, parents, "about 2 min")
        return Product(made.keys, lambda: made.runs, lambda: made.value, policy.config, policy.acts)


def looks_of(run: Run) -> list[Look]:
    """Every comparison by AM-Q that an offline improvement made."""
    return [Look(**look) for look in run.json("looks")]


def _gaussian(config: policies.GaussianConfig) -> Callable[[Run], GaussianPolicy]:
    return lambda run: load(GaussianPolicy(config), run)


def chain_actor(policy: SubPolicies) -> ChainActor:
    """One sub-policy's denoising chain, as offline and online PPO explore with it."""
    return ChainActor(policy, **EXPLORED)
