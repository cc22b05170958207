"""The models: what is trained once on D for one task and seed, and what is made of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from uepo_lib import (
    augmentation,
    cloning,
    datasets,
    denoisers,
    diffusion,
    divergence,
    dynamics,
    dynamics_training,
    environments,
    policies,
    robots,
    rollouts,
    schedules,
    states,
    subpolicies,
    values,
)
from uepo_lib.datasets import Batch, Transitions
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.policies import GaussianPolicy
from uepo_lib.products import Product
from uepo_lib.runs import Run
from uepo_lib.study import Workbench
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.values import Critic

ACTION_HORIZON = 4
"""T_a: half of the T = 8 actions that are planned."""
CALIBRATION: dict[str, Any] = {"quantile": 0.5, "starts": 256, "windows": 1024}
"""τ is this quantile of the unguided set's nearest-neighbour div; the cosine's floor is D's."""
NUM_REFERENCE = 256
"""Held-out real sequences whose KL the excess of a synthetic one is measured from (A6)."""


class Models(Workbench):
    """Policies, critics, dynamics and augmentation; each stage returns a :class:`Product`."""

    # -- policies

    def diffusion_policy(self) -> Product[DiffusionModel]:
        """p_θ(a_{1:T} | s), trained on D."""
        process, network = self.config("diffusion"), self.config("denoiser")
        long_enough = network.horizon >= ACTION_HORIZON
        check(long_enough, "denoiser.horizon", network.horizon, f"at least T_a={ACTION_HORIZON}")

        def produce(run: Run) -> None:
            self._save(run, diffusion.train_diffusion(
                process, network, self.windows, self.seed, run, self.progress
            ))  # fmt: skip

        def read(run: Run) -> DiffusionModel:
            sizes = self.task.robot.state_dim, self.task.robot.action_dim
            return load(diffusion.build_diffusion(process, network, *sizes), run)

        config = {"diffusion": asdict(process), "denoiser": asdict(network)}
        modules = (datasets, schedules, denoisers, diffusion)
        return self.stage("diffusion", config, produce, read, modules, expect="about 3 min")

    def clone(self, action_horizon: int | None = None) -> Product[GaussianPolicy]:
        """The Gaussian behaviour clone, BC, of single actions or of ``action_horizon`` at once."""
        chunk = {} if action_horizon is None else {"action_horizon": action_horizon}
        cfg, gaussian = self.config("clone"), self.config("gaussian", **chunk)

        def produce(run: Run) -> None:
            self._save(run, cloning.train_clone(
                cfg, gaussian, self.windows, seed=self.seed, recorder=run, progress=self.progress
            ))  # fmt: skip

        def read(run: Run) -> GaussianPolicy:
            return load(GaussianPolicy(gaussian), run)

        # the windows it learns from are the diffusion policy's, which end with the episode
        config = {
            "clone": asdict(cfg), "gaussian": asdict(gaussian), "window": self.windows.horizon
        }  # fmt: skip
        modules = (datasets, policies, cloning)
        return self.stage(
            "clone", config, produce, read, modules, expect="about 1 min", acts="gaussian"
        )  # fmt: skip

    def sub_policies(
        self,
        model: Product[DiffusionModel],
        kappa: float,
        *,
        n: int | None = None,
        num_denoising_steps: int | None = None,
        guided: bool = False,
        **guidance: Any,
    ) -> Product[SubPolicies]:
        """n sub-policies of one model; guided ones are pushed apart below the calibrated τ, with
        ``guidance``, fields of ``GuidanceConfig``."""
        n = self.budget.num_subpolicies if n is None else n
        check(n > 0, "n", n, "a positive integer")
        divergence.check_chosen(guided, guidance, ("n", "num_denoising_steps"))
        chosen: dict[str, Any] = {"n": n, "kappa": kappa, "action_horizon": ACTION_HORIZON}
        if num_denoising_steps is not None:  # else the model's
            check(num_denoising_steps > 0, "num_denoising_steps", num_denoising_steps, "positive")
            chosen["num_denoising_steps"] = num_denoising_steps
        given = {*guidance, *self.overrides.get("guidance", {})}

        def make(trained: DiffusionModel) -> SubPolicies:
            def seeded(config: Any) -> SubPolicies:
                return SubPolicies.from_seeds(
                    trained, n, self.seed, kappa, action_horizon=ACTION_HORIZON,
                    num_denoising_steps=num_denoising_steps, guidance=config,
                )  # fmt: skip

            if not guided:
                return seeded(None)
            follows = self._calibrated(seeded(None))
            calibrated = {k: v for k, v in follows.items() if k not in given}
            return seeded(self.config("guidance", **calibrated, **guidance))

        if guided:  # τ and the cosine floor follow from the model and D, unless they are chosen
            rest = asdict(self.config("guidance", **guidance))
            follow = {"threshold", "floor"} - given
            chosen["guidance"] = {k: v for k, v in rest.items() if k not in follow}
            if follow:
                chosen["calibration"] = CALIBRATION
        return model.derive(make, chosen, "chain")

    def zero_noise(self, model: Product[DiffusionModel]) -> Product[SubPolicies]:
        """κ = 0: the control that every seed has to beat."""
        return model.derive(
            lambda trained: SubPolicies.zero_noise(trained, action_horizon=ACTION_HORIZON),
            {"kappa": 0.0, "action_horizon": ACTION_HORIZON}, "chain",
        )  # fmt: skip

    def fresh(self, model: Product[DiffusionModel], n: int | None = None) -> Product[SubPolicies]:
        """κ = 1 and new noise at every decision: the null for fixed noise. Evaluate it sampled.

        ``n`` of them each have a generator of their own: their spread is luck (A2).
        """
        check(n is None or n > 0, "n", n, "a positive integer, or None for one")
        several = {} if n is None else {"n": n, "own_generators": True}
        return model.derive(
            lambda trained: SubPolicies.from_seeds(
                trained, n or 1, self.seed, action_horizon=ACTION_HORIZON, fresh_noise=True,
                own_generators=n is not None,
            ),
            {"kappa": 1.0, "fresh_noise": True, "action_horizon": ACTION_HORIZON, **several},
            "chain",
        )  # fmt: skip

    def member(self, policy: Product[SubPolicies], i: int) -> Product[SubPolicies]:
        """Sub-policy i of a set, alone and unguided."""
        return policy.derive(lambda together: together.select(i), {"member": i})

    def _calibrated(self, plain: SubPolicies) -> dict[str, float]:
        """τ, the median nearest-neighbour div of the unguided set, and the cosine's floor (A4)."""
        index = torch.linspace(0, len(self.windows) - 1, CALIBRATION["windows"]).long()
        floor = divergence.cosine_floor(self.windows.batch(index).actions)
        unguided = plain.plan_shared(self.starts(CALIBRATION["starts"], "calibration"))
        threshold = divergence.calibrate_threshold(unguided, CALIBRATION["quantile"], floor)
        return {"threshold": threshold, "floor": floor}

    # -- critics and dynamics

    @property
    def dynamics_rows(self) -> dict[str, Any]:
        """What identifies T̂'s rows beside the data's key: nothing, if they are the usual ones."""
        return {}

    def critic(self) -> Product[Critic]:
        """IQL's Q and V on D, or on a slice of it."""
        cfg = self.config("critic")

        def produce(run: Run) -> None:
            self._save(run, values.train_iql(
                cfg, self.learnt.transitions(), seed=self.seed, recorder=run,
                progress=self.progress,
            ))  # fmt: skip

        def read(run: Run) -> Critic:
            sizes = self.task.robot.state_dim, self.task.robot.action_dim
            return load(values.build(cfg, *sizes), run)

        config = asdict(cfg)
        if self.learnt is not self.dataset:  # one key names a slice and what is held out beside it
            config["rows"] = len(self.learnt)
        modules = (datasets, values)
        return self.stage("critic", config, produce, read, modules, expect="about 2 min")

    def dynamics(
        self,
        *extra: Product[Transitions],
        start: Product[DynamicsModel] | None = None,
    ) -> Product[DynamicsModel]:
        """T̂_init on D; with D_diff T̂ on D ∪ D_diff, with equal gradient steps.

        With ``start`` that model is trained on, for a quarter of the steps.
        """
        cfg = self.config("dynamics")
        if start is not None:
            gentler = cfg.learning_rate / 5  # a trained model is adjusted, not trained again
            cfg = replace(cfg, max_updates=max(1, cfg.max_updates // 4), learning_rate=gentler)

        def produce(run: Run) -> None:
            steps = self.dataset.transitions()
            self._save(run, dynamics_training.train_dynamics(
                cfg, steps[self.held_out[0]], steps[self.choosing], seed=self.seed, recorder=run,
                extra=Transitions.join(*(e.value for e in extra)) if extra else None,
                start=start.value if start else None, progress=self.progress,
            ))  # fmt: skip

        def read(run: Run) -> DynamicsModel:
            sizes = self.task.robot.state_dim, self.task.robot.action_dim
            return load(dynamics.build(cfg, *sizes), run)

        parents: tuple[Product[Any], ...] = (*extra, start) if start else extra
        config: dict[str, Any] = {
            **asdict(cfg), "warm": start is not None, **self.dynamics_rows
        }  # fmt: skip
        if chosen := [dict(e.config) for e in extra if e.config]:
            config["extra"] = chosen  # what was taken from a run that offers more
        modules = (datasets, dynamics)
        return self.stage("dynamics", config, produce, read, modules, parents, "about 3 min")

    def synthesise(
        self, policy: Product[SubPolicies], model: Product[DynamicsModel], **changes: Any
    ) -> Product[Transitions]:
        """D_diff: trajectories of all sub-policies from starts of D, filtered by their KL."""
        cfg = self.config("augmentation", **changes)
        augmentation.check_horizon("horizon", cfg.horizon, self.dataset, self.choosing)

        def produce(run: Run) -> None:
            self._synthesise(run, cfg, policy.value, model.value)

        def read(run: Run) -> Transitions:
            return Transitions(**run.tensors("transitions"))

        config = {
            "augmentation": asdict(cfg), "policy": dict(policy.config), "reference": NUM_REFERENCE
        }  # fmt: skip
        modules: tuple[ModuleType, ...] = (
            datasets, robots, augmentation, rollouts, subpolicies, divergence
        )  # fmt: skip
        if cfg.transitions == "simulator":
            modules = (*modules, environments)
        return self.stage(
            "augmentation", config, produce, read, modules, (policy, model), "about 1 min"
        )

    def _synthesise(self, run: Run, cfg: Any, policy: SubPolicies, model: DynamicsModel) -> None:
        data, robot = self.dataset, self.task.robot
        real = self._real_sequences(cfg.horizon)
        reference = augmentation.reference_costs(model, real.past, real.actions, real.future, cfg)
        simulator = self.simulator() if cfg.transitions == "simulator" else None
        found = augmentation.synthesise(
            policy, model, simulator.past if simulator else self._all_starts(),
            lambda states: robot.terminated(data.normaliser.inverse(states)),
            reference, cfg, self.generator("augmentation"), dataset_size=len(data),
            simulator=simulator, progress=self.progress,
        )  # fmt: skip
        if not len(found.transitions):
            print(f"augmentation: no trajectory within epsilon={cfg.epsilon}: D_diff is empty")
        run.save_tensors(found.transitions.named(), "transitions")
        judged = {"excess": found.excess, "lengths": found.lengths, "accepted": found.accepted}
        run.save_tensors(judged, "trajectories")
        run.save_json("summary", found.summary())
        if simulator is not None:
            run.account("augmentation", simulator.steps, simulator.resets)
            simulator.close()

    def _real_sequences(self, horizon: int) -> Batch:
        """Real sequences from whose KL the excess of a synthetic one is measured: held out, and of
        ``choosing``, since they set a threshold and no number is reported on them."""
        sequences = self.dataset.windows(self.obs_horizon, horizon + 1)
        held = torch.isin(sequences.now, self.choosing).nonzero().flatten()
        chosen = held[torch.randperm(len(held), generator=self.generator("reference"))]
        return sequences.batch(chosen[:NUM_REFERENCE])

    @property
    def can_simulate(self) -> bool:
        """Whether :meth:`simulator` has states to start from."""
        return self.dataset.simulator_states is not None or states.determines(self.task.robot)

    def simulator(self) -> environments.DatasetSimulator:
        """The real dynamics from the windows of D whose simulator state is known (privileged).

        Where the dataset does not hold it, it is taken from the observation; ``UsageError`` if
        that does not determine it.
        """
        data, now = self.dataset, self.windows.now
        past, known = self._all_starts(), data.simulator_states
        if known is not None:
            logged = known[now]
        else:
            raw = data.normaliser.inverse(data.states[now]).numpy()
            found, usable = states.state_from_observation(self.task.robot, raw)
            print(f"{data.key.id}: simulator states from observations, {states.refused(usable)}")
            kept = torch.from_numpy(usable)
            logged, past = torch.from_numpy(found)[kept], past[kept]
        return environments.DatasetSimulator(self.task.robot, logged, past, data.normaliser)

    def _all_starts(self) -> Tensor:
        return self.windows.past(torch.arange(len(self.windows)))

    def _save(self, run: Run, model: nn.Module) -> None:
        """A model's artefact holds the normaliser that its states went through."""
        run.save_tensors({**model.state_dict(), **self.dataset.normaliser.tensors()})


def load(model: Any, run: Run) -> Any:
    """``model`` with the tensors of ``run``, frozen."""
    tensors = {k: v for k, v in run.tensors().items() if not k.startswith("normaliser.")}
    model.load_state_dict(tensors)
    return model.requires_grad_(False).eval()
