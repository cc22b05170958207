"""BC: a clone of the data, of four kinds, then the same online PPO as everyone else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from uepo_lib.errors import unknown
from uepo_lib.finetuning import OnlineActor
from uepo_lib.stages import ACTION_HORIZON, Product, Study

Clone = Literal["gaussian", "chunk", "mse", "diffusion"]


@dataclass(frozen=True)
class BC:
    """The clone and what became of it online."""

    clone: Product[Any]
    online: Product[OnlineActor]


def bc(study: Study, kind: Clone = "gaussian") -> BC:
    """Maximise E_D[log π(a|s)], then fine-tune online from there; V starts as IQL's, as in UEPO.

    "gaussian" clones one action, "chunk" T_a at once; "mse" is deterministic and has the diffusion
    policy's network and chunks; "diffusion" acts from zero noise.
    """
    if kind == "chunk":
        # it decides as often as a chain does, so it learns with a chain's settings
        chunk = study.clone(ACTION_HORIZON)
        return BC(chunk, study.fine_tune(chunk, study.critic(), "chain_ppo"))
    if kind == "gaussian":
        clone: Product[Any] = study.clone()
    elif kind == "mse":
        clone = study.regression()
    elif kind == "diffusion":
        clone = study.zero_noise(study.diffusion_policy())
    else:
        raise unknown("kind", kind, get_args(Clone))
    return BC(clone, study.fine_tune(clone, study.critic()))
