"""One task, one seed, one profile: data, resolved configurations, and how a stage becomes a run."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from uepo_lib import (
    augmentation,
    cloning,
    collection,
    datasets,
    denoisers,
    diffusion,
    divergence,
    diversity,
    dynamics,
    evaluation,
    extraction,
    finetuning,
    loading,
    noise_steering,
    offline_ppo,
    online_model,
    own,
    policies,
    ppo,
    profiles,
    recipes,
    settings,
    sweep,
    tasks,
    values,
)
from uepo_lib.configs import build, typed
from uepo_lib.datasets import Dataset
from uepo_lib.errors import UsageError, check, unknown
from uepo_lib.products import Acts, Product
from uepo_lib.runs import Run, Spec, Store
from uepo_lib.tasks import Task

T = TypeVar("T")

OBS_HORIZON = 1
"""T_o, by default. Hopper's state is Markov; on the tuning seed two past states lowered returns."""

COMPONENTS: dict[str, type[Any]] = {
    "diffusion": diffusion.DiffusionConfig,
    "denoiser": denoisers.DenoiserConfig,
    "gaussian": policies.GaussianConfig,
    "clone": cloning.CloneConfig,
    "ensemble": diversity.EnsembleConfig,
    "extraction": extraction.ExtractionConfig,
    "offline_ppo": offline_ppo.OfflinePPOConfig,
    "critic": values.IQLConfig,
    "dynamics": dynamics.DynamicsConfig,
    "augmentation": augmentation.AugmentationConfig,
    "guidance": divergence.GuidanceConfig,
    "amq": evaluation.AMQConfig,
    "chain_ppo": ppo.PPOConfig,
    "gaussian_ppo": ppo.PPOConfig,
    "scratch_ppo": ppo.PPOConfig,
    "steer_ppo": ppo.PPOConfig,
    "steering": noise_steering.SteeringConfig,
    "online_model": online_model.OnlineModelConfig,
}
"""What ``--set component.parameter=value`` can change."""

FIXED = frozenset({"gaussian.state_dim", "gaussian.action_dim", "gaussian.obs_horizon"})
"""Set by the task, the last one by ``denoiser.obs_horizon``, and by no override."""


class Workbench:
    """What all stages of one task, seed and profile share; ``overrides`` changes defaults by
    component: ``{"diffusion": {"lr": 3e-4}}``."""

    def __init__(
        self,
        task: str,
        seed: int,
        profile: str | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        progress: bool = True,
    ) -> None:
        self.task = tasks.get(task)
        # torch's generators take 32 bits of a seed: 2**32 would draw seed 0's noise
        check(0 <= seed < 2**32, "seed", seed, "0 or a positive integer below 2**32")
        self.seed = seed
        self.profile = profiles.current(profile)
        self.budget = profiles.budget(self.profile)
        finetuning.training_seeds(seed, ppo.PPOConfig.num_envs, self.budget.evaluation_episodes)
        self.store = Store.open(self.profile)
        self.overrides = overrides or {}
        self.progress = progress
        for component in self.overrides:
            if component not in COMPONENTS:
                raise unknown("component", component, COMPONENTS)
            for name in FIXED.intersection(f"{component}.{n}" for n in self.overrides[component]):
                raise UsageError(f"{name}: follows from the task, cannot be changed")
            self.config(component)

    def config(self, component: str, **extra: Any) -> Any:
        """The resolved configuration of a component: profile, robot, then overrides.

        ``extra`` is what one call asks for: ``UsageError`` where an override says otherwise.
        """
        overrides = self.overrides.get(component, {})
        chosen = {**self._by_profile(component), **extra}
        if "warmup_env_steps" in chosen and "warmup_env_steps" not in {**extra, **overrides}:
            asked = typed(COMPONENTS[component], overrides)
            chosen["warmup_env_steps"] = settings.warm_up({**chosen, **asked})
        found = build(COMPONENTS[component], overrides, **chosen)
        for name in sorted(overrides.keys() & extra.keys()):
            same = getattr(found, name) == extra[name]
            valid = f"{extra[name]!r}, which is asked for here, or not overridden"
            check(same, f"{component}.{name}", overrides[name], valid)
        return found

    def _by_profile(self, component: str) -> dict[str, Any]:
        b, robot = self.budget, self.task.robot
        sizes = {"state_dim": robot.state_dim, "action_dim": robot.action_dim}
        online = {
            "num_env_steps": b.online_env_steps,
            "steps_per_update": b.env_steps_per_update,
            # V is an expectile of D's returns: first let it become the starting policy's value
            "warmup_env_steps": 2 * b.env_steps_per_update,
        }
        table: dict[str, dict[str, Any]] = {
            "diffusion": {
                "num_updates": b.diffusion_updates,
                "batch_size": b.diffusion_batch,
                "num_denoising_steps": b.denoising_steps,
            },
            "denoiser": {
                "obs_horizon": OBS_HORIZON,
                "channels": b.denoiser_channels,
                "num_layers": b.denoiser_layers,
            },
            "gaussian": {**sizes, "obs_horizon": self.obs_horizon},
            **{
                name: {"num_updates": b.clone_updates, "batch_size": b.clone_batch}
                for name in ("clone", "ensemble", "extraction")
            },
            "offline_ppo": {
                "num_updates": b.offline_ppo_updates,
                "batch_size": b.offline_ppo_batch,
                "evaluate_every": b.offline_ppo_every,
            },
            "critic": {
                "num_updates": b.critic_updates,
                "batch_size": b.critic_batch,
                "polyak": b.critic_polyak,
                "scale_rewards": self.profile != "paper",
                "hidden_q": b.q_hidden,
                "hidden_v": b.v_hidden,
            },
            "dynamics": {
                "hidden": b.dynamics_hidden,
                "max_updates": b.dynamics_updates,
                "batch_size": b.dynamics_batch,
                "weight_decay": dynamics.decay_for(b.dynamics_hidden),
                "patience": None,  # models that are compared get equal gradient steps
            },
            "augmentation": {"ratio": b.augmentation_ratio, "horizon": b.augmentation_horizon},
            "guidance": {"threshold": 1.0},
            "steering": {},
            "online_model": {
                "every": max(1, b.online_env_steps // 5),
                "updates": max(1, b.dynamics_updates // 40),
            },
            "amq": {"num_starts": b.amq_starts, "horizon": b.amq_horizon},
            **{name: {**online, **chosen} for name, chosen in settings.ONLINE.items()},
        }
        tuned = {"beta": settings.IQL_BETA} if component == "extraction" else {}
        return {**table[component], **tuned, **settings.of(robot, component)}

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of its own for each purpose and seed."""
        return torch.Generator().manual_seed(zlib.crc32(f"{purpose}/{self.seed}".encode()))

    @cached_property
    def dataset(self) -> Dataset:
        """The task's dataset, collected first if it is not there."""
        return load_data(self.task.name, self.profile, self.progress)

    @property
    def learnt(self) -> Dataset:
        """What critics learn from: all of D; of a slice, the slice alone."""
        return self.dataset

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Step indices (kept, held out) by whole episodes; the same for every seed. T̂ learns from
        the first; of the second one half chooses its weights and the other, unseen, judges it."""
        return self.dataset.split(0.1)

    @property
    def choosing(self) -> Tensor:
        """Held-out steps that choose T̂'s weights and elites and set the KL filter's reference."""
        return self.dataset.halve(self.held_out[1])[0]

    @property
    def testing(self) -> Tensor:
        """Held-out steps, of other episodes, on which what is reported of a T̂ is measured."""
        return self.dataset.halve(self.held_out[1])[1]

    @cached_property
    def windows(self) -> datasets.Windows:
        """All windows that the policies learn from."""
        return self.dataset.windows(self.obs_horizon, self.config("denoiser").horizon)

    @property
    def obs_horizon(self) -> int:
        """T_o: how many past states every policy sees; ``denoiser.obs_horizon`` changes it."""
        chosen = self.overrides.get("denoiser", {})  # typed here: its component asks for T_o too
        found: int = typed(denoisers.DenoiserConfig, chosen).get("obs_horizon", OBS_HORIZON)
        check(found > 0, "denoiser.obs_horizon", found, "a positive integer")
        return found

    def starts(self, count: int, purpose: str) -> Tensor:
        """``count`` windows of D that an imagined rollout starts from: (count, T_o, S)."""
        index = torch.randint(len(self.windows), (count,), generator=self.generator(purpose))
        return self.windows.past(index)

    @cached_property
    def _robot(self) -> dict[str, Any]:
        """What identifies a robot of one's own; this project's have a revision."""
        return {"robot": own.identity(self.dataset)} if self.task.source == "own" else {}

    def stage(
        self,
        kind: str,
        config: Mapping[str, Any],
        produce: Callable[[Run], None],
        read: Callable[[Run], T],
        modules: tuple[ModuleType, ...],
        parents: tuple[Product[Any], ...] = (),
        expect: str = "a moment",
        acts: Acts | None = None,
    ) -> Product[T]:
        """What ``produce`` writes into a run and ``read`` makes of it, under the run's identity.

        ``expect`` is how long that takes at laptop, for the reader.
        """
        elsewhere = {"smoke": "seconds", "laptop": expect}
        expect = elsewhere.get(self.profile, f"more than laptop's {expect.removeprefix('about ')}")
        spec = Spec(
            kind,
            {"task": self.task.name, "seed": self.seed, **self._robot, **config},
            self.dataset.key,
            tuple(key for parent in parents for key in parent.keys),
            {m.__name__.rpartition(".")[2]: m.REVISION for m in modules},
        )

        def get() -> tuple[Run, ...]:
            return (self.store.get_or_train(
                spec, produce, expect=expect,
                needs=lambda: [run for parent in parents for run in parent.runs],
            ),)  # fmt: skip

        product: Product[T] = Product((spec.key,), get, lambda: read(product.run), acts=acts)
        return product


def load_data(task: str, profile: str, progress: bool = True) -> Dataset:
    """The dataset of ``task``, at ``profile``'s size and collected first if it is a local one;
    ``UsageError`` saying how to get it for a remote or imported one that is not there, and for one
    of your own whose termination rule contradicts it."""
    chosen = tasks.get(task)
    folder = loading.home(chosen, profile)
    if chosen.source == "local":
        collection.collect(chosen, _recipe(chosen, profile), folder, progress)
    data = loading.load(chosen, folder)
    if chosen.source == "own":
        own.verify(data)
    return data


def _recipe(task: Task, profile: str) -> recipes.Recipe:
    return recipes.recipe_for(task, profiles.budget(profile).num_transitions)


def load_all(names: Sequence[str], profile: str, workers: int | None = None) -> None:
    """Collect several datasets side by side, by default one a core; those that are there stay.

    ``UsageError`` before anything is collected if one that is not there cannot be.
    """
    chosen = [tasks.get(name) for name in names]
    missing = [t for t in chosen if not (loading.home(t, profile) / t.dataset_id).exists()]
    for task in missing:
        if task.source == "local":
            collection.full_recipe(task, _recipe(task, profile))  # is every policy there?
        else:
            load_data(task.name, profile)  # it is not there: says how to get it
    jobs: list[sweep.Job] = [(_collect, (task.name, profile)) for task in missing]
    if jobs:
        sweep.run_all(jobs, workers or sweep.cores(), name="datasets")


def _collect(name: str, profile: str) -> None:
    load_data(name, profile, progress=False)
