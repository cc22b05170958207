r"""What else could happen online, from the same start and with the same steps (notebook 07).

Beside PPO over the denoising chain: only the initial noise is learned (A10); T̂ judges, is refitted,
or also teaches the critic (A14); exploration is guided, by div or by KL, or T̂ is refitted on
imagined data as well (public notes of the paper disagree about these two). One switch each.

**Expected** before any of it was computed. *Noise alone*: it gains less than the chain, since it
can only choose among what the model already does; where the data hold one noisy mode that is one
gait with small variations. *T̂*: a refit makes new steps easier to predict; the gate closes
seldom, as PPO's steps are small, and the ends differ by less than seeds do; neither do short value
targets help, the critic being fitted on 50,000 real steps anyway. *Guidance*: little, because the
reverse steps behind it undo most of a push. *Imagined data*: nothing that T̂ does not know already.
(Those were laptop's online steps when this was written; it takes fewer now.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from uepo_lib.guided_exploration import GuidedActor
from uepo_lib.methods.uepo import UEPO, uepo
from uepo_lib.noise_steering import NoiseActor
from uepo_lib.robots import Robot
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study
from uepo_lib.statistics import VERDICT_SEEDS

TITLES = {
    "chain": "chain PPO, no model online",
    "noise": "initial noise alone (DSRL-style)",
    "frozen": "gate in the frozen T̂",
    "refitted": "gate in the refitted T̂",
    "short": "refitted T̂, short value targets",
    "guided": "guided exploration, div",
    "guided_kl": "guided exploration, KL",
    "augmented": "refits with imagined data",
}
"""Every alternative by its short name; the first is what all others are compared with."""
ON_EVERY_SEED = ("chain", "noise")
STILL = 1e-4
"""Less than this is a difference of rounding, not of a latent."""
SELDOM = 0.1
"""How large a share of checks still is "seldom"; chosen when the share was first reported, as no
number was written down with the expectation."""


def seeds_for(name: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """Where ``name`` is run: with fewer seeds than a verdict needs, a switch is run once."""
    everywhere = name in ON_EVERY_SEED or len(seeds) >= VERDICT_SEEDS
    return tuple(seeds) if everywhere else tuple(seeds[:1])


def alternatives(study: Study, made: UEPO) -> dict[str, Product[Any]]:
    """Every online phase from π* on one task and seed; nothing is computed by asking."""
    policy, critic = made.selected, made.critic
    guided = study.sub_policies(made.model, 1.0, guided=True)
    beside = partial(study.fine_tune_beside_model, policy, critic, made.dynamics, made.synthetic)
    return {
        "chain": made.online,
        "noise": study.steer(policy, critic),
        **{model: beside(model=model) for model in ("frozen", "refitted", "short")},
        "guided": study.explore_guided(policy, critic, guided),
        "guided_kl": study.explore_guided(policy, critic, guided, "kl"),
        "augmented": beside(model="refitted", augmented=True),
    }


def all_alternatives(studies: Iterable[Study]) -> dict[tuple[str, int], Product[Any]]:
    """Those that are run, by (name, seed); in the order of :data:`TITLES`."""
    studies = list(studies)
    seeds = [study.seed for study in studies]
    by_seed = {study.seed: alternatives(study, uepo(study)) for study in studies}
    return {(name, seed): by_seed[seed][name] for name in TITLES for seed in seeds_for(name, seeds)}


# -- tables


def curves_table(found: Mapping[tuple[str, int], Product[Any]], robot: Robot) -> pd.DataFrame:
    """Every look: columns name, title, seed, look, score, end (of the run, over more episodes), and
    those of the run's own table."""
    parts = []
    for (name, seed), online in found.items():
        looks = online.run.table("evaluations").frame()
        end = robot.normalised(float(online.run.tensors("returns")["end"].mean()))
        parts.append(
            looks.assign(
                name=name, title=TITLES[name], seed=seed, look=range(len(looks)),
                score=looks["return"].map(robot.normalised), end=end,
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def ends_table(found: Mapping[tuple[str, int], Product[Any]], robot: Robot) -> pd.DataFrame:
    """A row a run: scores at start and end, noise-free and exploring, and what it came to.

    ``against_chain`` is the end minus that of the chain on the same seed, in points of score.
    """
    rows = []
    for (name, seed), online in found.items():
        run: Run = online.run
        score = {
            key: robot.normalised(float(values.mean()))
            for key, values in run.tensors("returns").items()
        }
        rows.append(
            {"name": name, "title": TITLES[name], "seed": seed, "start": score["start"],
             "start_exploring": score["start_exploring"], "end": score["end"],
             "displacement": float(run.table("evaluations").frame()["displacement"].iloc[-1]),
             "training_steps": run.record["environment"]["online training"]["steps"],
             "seconds": run.record["wall_s"]}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    chain = table[table["name"] == "chain"].set_index("seed").end
    table.insert(6, "against_chain", table.end - table.seed.map(chain))
    return table


def looks_table(found: Mapping[tuple[str, int], Product[Any]]) -> pd.DataFrame:
    """Every look of T̂: columns name, title, seed, and those of ``model_looks``."""
    parts = [
        online.run.table("model_looks").frame().assign(name=name, title=TITLES[name], seed=seed)
        for (name, seed), online in found.items()
        if name in ("frozen", "refitted", "short", "augmented")
    ]
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def reach_table(
    studies: Iterable[Study], found: Mapping[tuple[str, int], Product[Any]]
) -> pd.DataFrame:
    """How far two alternatives reach: columns name, title, seed, states, latent, action, pushed.

    On ``states`` of D and of D_online. ``latent``: root mean square of the learned shift of the
    initial noise (f_φ, unit of the noise), or of what guidance does to the latent that the trained
    steps begin with. ``action``: what becomes of it in the noise-free executed actions, in action
    units. ``pushed``: the share of states in which the latent moved at all.
    """
    rows = []
    for study in studies:
        for name in ("noise", "guided", "guided_kl"):
            if (name, study.seed) not in found:
                continue
            online = found[name, study.seed]
            met = {"D": study.starts(256, "probe"), "D_online": _met(online, study.obs_horizon)}
            for states, past in met.items():
                measured = _reach(online.value, past)
                rows.append(
                    {"name": name, "title": TITLES[name], "seed": study.seed, "states": states,
                     **measured}
                )  # fmt: skip
    return pd.DataFrame(rows)


def _met(online: Product[Any], obs_horizon: int) -> Tensor:
    """256 states of D_online, evenly spread, each as its own past: (256, T_o, S)."""
    states = online.run.tensors("online")["states"]
    index = torch.linspace(0, len(states) - 1, 256).long()
    return states[index].unsqueeze(1).expand(-1, obs_horizon, -1)


def _reach(actor: NoiseActor | GuidedActor, past: Tensor) -> dict[str, float]:
    moved, changed = (_steered if isinstance(actor, NoiseActor) else _pushed)(actor, past)
    return {
        "latent": float(moved.square().mean().sqrt()),
        "action": float(changed.square().mean().sqrt()),
        "pushed": float((moved.abs().amax((1, 2)) > STILL).float().mean()),
    }


def _steered(actor: Any, past: Tensor) -> tuple[Tensor, Tensor]:
    shifted, _ = actor(past)
    start = actor.start.expand_as(shifted)
    return shifted - start, actor.decode(past, shifted) - actor.decode(past, start)


def _pushed(actor: Any, past: Tensor) -> tuple[Tensor, Tensor]:
    """The last step alone is trained, so it is what stands between the latent and the action."""
    assert actor.num_levels == 1
    latents = [actor.latent(past, g) for g in (torch.Generator(), None)]
    last = [actor.model.chain_mean(x, past, actor.num_steps - 1, actor.num_steps) for x in latents]
    executed = slice(0, actor.action_horizon)
    return latents[0] - latents[1], last[0][:, executed] - last[1][:, executed]


# -- were the expectations met?


def push_verdict(reach: pd.DataFrame) -> str:
    """Of guidance's push on the latent, how much is left in the executed actions."""
    pushed = reach[reach["name"] != "noise"].groupby("title", sort=False)[["latent", "action"]]
    means = pushed.mean()
    means = means[means["latent"] > 0]
    if means.empty:
        return "No push reached the latent."
    left = means["action"] / means["latent"]
    told = [
        f"{title}: latent {row['latent']:.3f}, action {row['action']:.3f}, **{share:.0%}**"
        for (title, row), share in zip(means.iterrows(), left, strict=True)
    ]
    met = _as_expected(bool((left < 0.5).all()))
    return f"What of a push arrives (RMS): {'; '.join(told)}. Less than half was expected: {met}."


def gate_verdict(looks: pd.DataFrame) -> str:
    """How often the gate closed, by alternative and in all."""
    back = looks.groupby("title", sort=False)["rolled_back"].agg(["sum", "size"])
    told = [f"{title} {row['sum']} of {row['size']}" for title, row in back.iterrows()]
    share = float(looks["rolled_back"].mean())
    return (
        f"The gate closed after {share:.0%} of the checks ({', '.join(told)}). Seldom, read as at "
        f"most {SELDOM:.0%}, was expected: {_as_expected(share <= SELDOM)}."
    )


def ends_verdict(ends: pd.DataFrame) -> str:
    """What T̂ beside PPO changes of the end, against what another seed changes of the chain's."""
    beside = ends[ends["name"].isin(["frozen", "refitted", "short"])]
    largest = float(beside["against_chain"].abs().max())
    chain = ends.loc[ends["name"] == "chain", "end"]
    told = f"With T̂ beside it PPO ends at most {largest:.1f} points from where it ends without"
    if len(chain) < 2:
        return f"{told}; one seed does not say how much seeds differ."
    spread = float(chain.std())
    met = _as_expected(largest < spread)
    return f"{told}; its seeds differ by ± {spread:.1f}. Less was expected: {met}."


def _as_expected(met: bool) -> str:
    return "**as expected**" if met else "**not as expected**"
