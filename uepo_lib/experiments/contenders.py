"""Who is compared in E3: every row, what it is made of, and whether it goes online."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from uepo_lib import greedy as greedy_q
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.finetuning import OnlineActor
from uepo_lib.greedy import GreedyQ
from uepo_lib.methods.bc import bc
from uepo_lib.methods.iql import iql
from uepo_lib.methods.uepo import UEPO, UEPOConfig, uepo
from uepo_lib.methods.uni_o4 import uni_o4
from uepo_lib.selection import candidates
from uepo_lib.soft_actor_critic import soft_actor_critic
from uepo_lib.stages import ACTION_HORIZON, Product, Study
from uepo_lib.subpolicies import SubPolicies


@dataclass(frozen=True)
class Contender:
    """One row of the comparison.

    ``policy`` None: nothing is learnt offline, or ``sets`` are the row. ``online`` None: not
    fine-tuned in this grid. ``sampled``: its score is that of sampled actions, having no noise-free
    ones of its own.
    """

    title: str
    kind: str
    """"Gaussian", "diffusion" or "deterministic"."""
    improvement: str
    """"none" or "ppo", offline."""
    policy: Product[Any] | None
    online: Product[OnlineActor] | None = None
    sampled: bool = False
    sets: tuple[Product[Any], ...] = ()
    """Many policies, whose score is the mean over all members: fewer episodes of each do."""
    privileged: Product[Any] | None = None
    """What stepped the simulator before the online phase; its steps are on the online axis."""


PRIVILEGED_RATIO = 0.25
"""|D_diff| / |D| of the row whose D_diff comes from the simulator (A7): the paper's ratio of 2
would take many times the online budget; even this takes more than laptop's."""


def contenders(study: Study) -> dict[str, Contender]:
    """Every row of E3 on one task and seed, by its short name.

    Asking computes no more than UEPO's choice of π*, which others are named after.
    """
    plain, printed = uepo(study), uepo(study, UEPOConfig(kappas=(1.0,)))
    improved = uepo(study, UEPOConfig(offline_improvement="ppo"))
    return {**_gaussians(study, plain), **_diffusion(study, plain, printed, improved)}


def privileged(study: Study) -> dict[str, Contender]:
    """UEPO with real transitions in its offline phase, and Uni-O4 given as many more online steps.

    Their own rows, compared with each other alone. What the simulator was stepped is more than what
    was kept of it, so it is read from the record of that run.
    """
    made = uepo(study, UEPOConfig(transitions="simulator", ratio=PRIVILEGED_RATIO))
    longer = study.budget.online_env_steps + simulator_steps(made.synthetic)
    theirs = uni_o4(study)
    more = study.fine_tune(theirs.best, theirs.critic, num_env_steps=longer)
    return {
        "uepo_simulator": Contender(
            "UEPO, D_diff from the simulator", "diffusion", "none", made.best, made.online,
            privileged=made.synthetic,
        ),
        "uni_o4_more": Contender(
            "Uni-O4, as many steps in all", "Gaussian", "ppo", theirs.best, more
        ),
    }  # fmt: skip


def online_only(study: Study) -> dict[str, Contender]:
    """What learns online alone, with the data at hand: the rival of learning offline first."""
    return {
        "sac": Contender(
            "soft actor-critic, D in every batch", "Gaussian", "none", None,
            soft_actor_critic(study),
        )
    }  # fmt: skip


def simulator_steps(synthetic: Product[Any]) -> int:
    """Environment steps that D_diff cost, those of the trajectories that were not kept included."""
    return int(synthetic.run.record["environment"]["augmentation"]["steps"])


def _gaussians(study: Study, ours: UEPO) -> dict[str, Contender]:
    Gaussian = partial(Contender, kind="Gaussian", improvement="none")
    cloned, extracted, chunk, mse = bc(study), iql(study), bc(study, "chunk"), bc(study, "mse")
    selected = uni_o4(study, offline_improvement="none")
    theirs, single = uni_o4(study), uni_o4(study, 1)
    student = study.distilled(ours.selected, study.clone())
    return {
        "scratch": Gaussian("PPO from scratch", policy=None, online=study.from_scratch()),
        "bc": Gaussian("BC", policy=cloned.clone, online=cloned.online),
        "bc_chunk": Gaussian(
            f"BC, chunks of {ACTION_HORIZON}", policy=chunk.clone, online=chunk.online
        ),
        "mse": Contender(
            "MSE-BC, same network and chunks", "deterministic", "none", mse.clone, mse.online
        ),
        "iql": Gaussian("IQL", policy=extracted.policy, online=extracted.online),
        "uni_o4_select": Gaussian(
            "Uni-O4 without offline PPO", policy=selected.best, online=selected.online
        ),
        "bppo": replace(
            Gaussian("BPPO (Uni-O4, n = 1)", policy=single.best, online=single.online),
            improvement="ppo",
        ),
        "uni_o4": replace(
            Gaussian("Uni-O4", policy=theirs.best, online=theirs.online), improvement="ppo"
        ),
        "distilled": Gaussian(
            "UEPO's π* distilled, Gaussian PPO", policy=student,
            online=study.fine_tune(student, ours.critic),
        ),
    }  # fmt: skip


def _diffusion(study: Study, plain: UEPO, printed: UEPO, improved: UEPO) -> dict[str, Contender]:
    Diffusion = partial(Contender, kind="diffusion", improvement="none")
    model, critic = plain.model, plain.critic
    zero, fresh, drawn = study.zero_noise(model), study.fresh(model), candidate_sets(study, model)
    return {
        "kappa_0": Diffusion(
            "diffusion, κ = 0", policy=zero, online=study.fine_tune(zero, critic)
        ),
        "kappa_1": Diffusion("diffusion, κ = 1, all seeds", policy=None, sets=(drawn[1.0],)),
        "fresh": Diffusion(
            "diffusion, fresh noise", policy=fresh, online=study.fine_tune(fresh, critic),
            sampled=True,
        ),
        "random": Diffusion("a random candidate", policy=None, sets=tuple(drawn.values())),
        "greedy": Diffusion("best plan in each state by Q", policy=greedy(study, plain)),
        "uepo": Diffusion("UEPO", policy=plain.best, online=plain.online),
        "uepo_printed": Diffusion("UEPO, κ = 1", policy=printed.best, online=printed.online),
        "uepo_ppo": replace(
            Diffusion("UEPO with offline PPO", policy=improved.best, online=improved.online),
            improvement="ppo",
        ),
    }  # fmt: skip


def candidate_sets(
    study: Study, model: Product[DiffusionModel]
) -> dict[float, Product[SubPolicies]]:
    """Every pair (i, κ) that AM-Q chooses from, by κ. A candidate drawn at random is expected to
    score the mean over all of them, which is less noisy than a draw."""
    return {
        kappa: study.sub_policies(model, kappa) if kappa else study.zero_noise(model)
        for kappa in UEPOConfig().kappas
    }


def greedy(study: Study, made: UEPO) -> Product[GreedyQ]:
    """argmax_i min Q(s, a^i) over the same candidates, in every state anew."""
    kappas, n = UEPOConfig().kappas, study.budget.num_subpolicies
    model, critic = made.model, made.critic

    def make() -> GreedyQ:
        plain = SubPolicies.from_seeds(model.value, n, study.seed, action_horizon=ACTION_HORIZON)
        return GreedyQ(candidates(plain, kappas), critic.value)

    keys = (*model.keys, *critic.keys)
    rule = {"n": n, "kappas": list(kappas), "revision": greedy_q.REVISION}
    config = {"greedy": rule, "action_horizon": ACTION_HORIZON}
    return Product(keys, lambda: (*model.runs, *critic.runs), make, config)
