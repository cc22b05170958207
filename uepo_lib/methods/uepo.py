"""UEPO, Algorithm 1 (arXiv 2511.10087): one diffusion policy, many sub-policies, one online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uepo_lib.datasets import Transitions
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.dynamics import DynamicsModel
from uepo_lib.errors import check
from uepo_lib.finetuning import OnlineActor
from uepo_lib.stages import ACTION_HORIZON, Product, Study
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.values import Critic


@dataclass(frozen=True)
class UEPOConfig:
    """The choices that Algorithm 1 leaves open; each default is named in the notebooks."""

    kappas: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    """Temperatures that π* is chosen from (A2); (1.0,) is the paper as printed."""
    guided: bool = True
    """Push sub-policies apart while they generate data (A3)."""
    transitions: str | None = None
    """Where D_diff's transitions come from: "model" is offline, "simulator" is privileged (A7);
    None: the model, as ``augmentation.transitions`` has by default."""
    ratio: float | None = None
    """|D_diff| / |D| (A8); None: the profile's."""
    offline_improvement: str = "none"
    """"none" as printed; "ppo" adds Uni-O4's offline PPO, on the denoising chain (A13)."""

    def __post_init__(self) -> None:
        valid = len(self.kappas) > 0 and min(self.kappas) >= 0
        check(valid, "kappas", self.kappas, "one or more numbers, none negative")

    def augmentation(self) -> dict[str, Any]:
        """What differs from the defaults of ``augmentation.AugmentationConfig``."""
        chosen = {"transitions": self.transitions, "ratio": self.ratio}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class UEPO:
    """All that Algorithm 1 produced, with the runs it came from."""

    model: Product[DiffusionModel]
    initial_dynamics: Product[DynamicsModel]
    synthetic: Product[Transitions]
    dynamics: Product[DynamicsModel]
    critic: Product[Critic]
    selected: Product[SubPolicies]
    best: Product[Any]
    """``selected``, improved offline where that was asked for."""
    online: Product[OnlineActor]
    online_dynamics: Product[DynamicsModel]


def uepo(study: Study, config: UEPOConfig | None = None) -> UEPO:
    """Algorithm 1, offline and online, on the task, seed and budget of ``study``."""
    config = config or UEPOConfig()
    horizon = study.config("amq").horizon  # said here, since it is needed last
    whole = horizon % ACTION_HORIZON == 0
    check(whole, "amq.horizon", horizon, f"a multiple of T_a={ACTION_HORIZON}")
    ppo = study.improvement(config.offline_improvement)

    # ── Offline phase ──────────────────────────────────────────────────────────────────────────
    # 1  Train the state-conditional diffusion policy p_θ(a_{1:T} | s_{1:T}) on D.
    model = study.diffusion_policy()

    # 2  Multi-seed sampling: π^1 … π^n from n noise seeds, perturbed where div(a_i, a_j) < τ.
    ensemble = study.sub_policies(model, kappa=1.0, guided=config.guided)

    # 3  Virtual trajectories by all π^i; keep those with KL(real dynamics ‖ T̂_init) < ε: D_diff.
    initial_dynamics = study.dynamics()
    synthetic = study.synthesise(ensemble, initial_dynamics, **config.augmentation())

    # 4  Joint training: L(T̂) = −E[log T̂(s' | s, a)] on D ∪ D_diff.
    dynamics = study.dynamics(synthetic)

    # 5  π* ← the best sub-policy, offline: AM-Q with Q of D in T̂.
    critic = study.critic()
    selected = select(study, model, dynamics, critic, config.kappas)
    best: Product[Any] = study.improve_chain(selected, dynamics, critic) if ppo else selected

    # ── Online phase ───────────────────────────────────────────────────────────────────────────
    # 6  Roll π* out in the environment, fill D_online, fine-tune π* by PPO on its denoising chain.
    online = study.fine_tune(best, critic)

    # 7  Fine-tune T̂ on D ∪ D_diff ∪ D_online.
    online_dynamics = study.dynamics(synthetic, study.online_data(online), start=dynamics)

    # Beyond step 5 a product is computed when it is first asked for.
    return UEPO(
        model, initial_dynamics, synthetic, dynamics, critic, selected, best, online,
        online_dynamics,
    )  # fmt: skip


def select(
    study: Study,
    model: Product[DiffusionModel],
    dynamics: Product[DynamicsModel],
    critic: Product[Critic],
    kappas: tuple[float, ...],
) -> Product[SubPolicies]:
    """argmax over (i, κ) of AM-Q; κ = 0 is one candidate, not n (A2, A9)."""
    score = study.config("amq").score
    candidates = []
    for kappa in kappas:
        policies = study.sub_policies(model, kappa) if kappa > 0 else study.zero_noise(model)
        scores = study.am_q(policies, dynamics, critic).value[score]
        i = int(scores.argmax())
        candidates.append((float(scores[i]), i, policies))
    _, i, policies = max(candidates, key=lambda candidate: candidate[0])
    return study.member(policies, i)
