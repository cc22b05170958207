r"""E3: offline-to-online. Is UEPO better than Uni-O4, and if so, which of its parts makes it so?

On each task and seed every contender (``contenders.py``) learns from the same data with the same
budget, and those that go online get the same environment steps. Compared are (a) the offline score,
(b) how many steps it takes to 90 % of the expert's mean return, and the mean score on the way, (c)
the final score; beside them what the switch costs, how far policy and states shift, and whether
AM-Q knew. Rows that differ by a component, and by what comes with it, are compared with each other:
the 2 × 2 of {Gaussian, diffusion} × {select, select and improve} (A13), and the rows around it.

**Expected** before any of it was computed: on noisy data of one mode the zero-noise policy and the
Gaussian mean score alike; offline PPO helps both; online they end close together, and the choice of
a seed matters less than κ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from uepo_lib import profiles, settings, tasks
from uepo_lib.evaluation import Evaluation
from uepo_lib.experiments.comparison_selection import AT_ONE, AT_ONE_INITIAL, chosen, halves
from uepo_lib.experiments.contenders import (
    Contender,
    candidate_sets,
    contenders,
    online_only,
    privileged,
    simulator_steps,
)
from uepo_lib.experiments.online_summary import curve, summary
from uepo_lib.methods.uepo import uepo
from uepo_lib.methods.uni_o4 import uni_o4
from uepo_lib.robots import Robot
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study

TUNING_TASK = settings.TUNED_ON
"""Every method's online settings were chosen here, on a seed that no result uses."""
EVERYWHERE = ("bc", "iql", "uni_o4_select", "uni_o4", "uepo", "uepo_ppo")


@dataclass(frozen=True)
class Comparison:
    """Which tasks are played, and what is played on the tasks other than the tuning task."""

    tasks: tuple[str, ...]
    online: tuple[str, ...] | None = None
    """None: every row that can."""
    left_out: tuple[str, ...] = ()
    """Rows that are played on the tuning task alone."""
    online_only: str | None = None
    """The task on which ``contenders.online_only`` is played; None: on none."""

    def plays(self, task: str, name: str) -> bool:
        """Whether row ``name`` is played on ``task`` at all."""
        return name not in self.left_out or task == TUNING_TASK

    def goes_online(self, task: str, name: str) -> bool:
        """Whether row ``name`` is fine-tuned on ``task``."""
        return self.online is None or name in self.online or task == TUNING_TASK


THREE = ("hopper-medium", "hopper-medium-replay", "pen-cloned")
COMPARISONS = {
    "smoke": Comparison(("hopper-medium",)),
    "laptop": Comparison(THREE, EVERYWHERE, ("scratch", "bc_chunk", "mse", "bppo", "distilled")),
    "full": Comparison((*THREE, "walker2d-medium"), online_only=TUNING_TASK),
    "paper": Comparison(
        (
            *(
                f"{robot}-{kind}@d4rl"
                for robot in ("halfcheetah", "hopper", "walker2d")
                for kind in ("medium", "medium-replay", "medium-expert")
            ),
            *("pen-human@minari", "pen-cloned@minari", "hammer-human@minari"),
            *("door-human@minari", "relocate-human@minari"),
        ),
        online_only=f"{TUNING_TASK}@d4rl",
    ),
}


def comparison_of(profile: str) -> Comparison:
    """What ``profile`` compares; ``UsageError`` for a profile without a comparison."""
    return profiles.entry(COMPARISONS, profile)


def data_of(profile: str) -> tuple[str, ...]:
    """Every dataset that ``profile`` needs: its tasks, and the experts that are its goal."""
    names = comparison_of(profile).tasks
    local = [task.robot.name for task in map(tasks.get, names) if task.source == "local"]
    return tuple(dict.fromkeys([*names, *(f"{robot}-expert" for robot in local)]))


@dataclass(frozen=True)
class Measured:
    """One task and seed: tidy tables, and the runs behind them."""

    scores: pd.DataFrame
    """A row a contender: task, seed, row, title, kind, improvement, offline and sampled score;
    fresh noise has the sampled one alone. ``few``: the score over as many of these episodes as a
    set of policies plays, for the rows that are compared with one."""
    online: pd.DataFrame
    """A row a contender that went online; see ``online_summary.summary``."""
    curves: pd.DataFrame
    """A row a look: task, seed, row, env_steps, score, policy_kl, shift, displacement."""
    selection: pd.DataFrame
    """A row a candidate that AM-Q judged: its score by AM-Q and by its true return, and this over
    the ``even`` and the ``odd`` episodes; of Uni-O4's members also that of their sampled actions,
    which offline PPO climbs."""
    runs: tuple[Run, ...]


# -- one task and seed


def measure(study: Study, comparison: Comparison | None = None) -> Measured:
    """Everything E3 asks of one task and seed; what is finished is loaded."""
    comparison = comparison or comparison_of(study.profile)
    scores, summaries, curves, used = [], [], [], []
    for name, row in _rows(study, comparison).items():
        facts: dict[str, Any] = {"task": study.task.name, "seed": study.seed, "row": name}
        described = {"title": row.title, "kind": row.kind, "improvement": row.improvement}
        online = row.online if comparison.goes_online(study.task.name, name) else None
        if online is not None:
            before = simulator_steps(row.privileged) if row.privileged else 0
            summaries.append({**facts, **summary(online.run, study, before)})
            curves.append(curve(online.run, study.task.robot, facts, before))
            used.append(online.run)
        if online is not None and not row.sampled:
            scores.append({**facts, **described, **_started(online.run, study.task.robot)})
        elif row.policy is not None or row.sets:
            played = _played(study, row)
            scores.append({**facts, **described, **_offline(played, row.sampled, study)})
            used += [product.run for product in played]
    selection, judged = _selection(study)
    return Measured(
        _beside_sets(pd.DataFrame(scores), selection), pd.DataFrame(summaries),
        pd.concat(curves, ignore_index=True), selection, (*used, *judged),
    )  # fmt: skip


def _rows(study: Study, comparison: Comparison) -> dict[str, Contender]:
    """Every contender; with the privileged ones where every row is played, if the simulator can be
    put into the states of D: of Minari's hand it cannot."""
    task, rows = study.task.name, contenders(study)
    if comparison.goes_online(task, "uepo_simulator") and study.can_simulate:
        rows |= privileged(study)
    if task == comparison.online_only:
        rows |= online_only(study)
    return {name: row for name, row in rows.items() if comparison.plays(task, name)}


def _started(run: Run, robot: Robot) -> dict[str, float]:
    """The offline scores of what went online: the looks before the first update. Not of a policy
    of fresh noise, whose look is from zero noise and which explores with σ besides."""
    seen = run.tensors("returns")
    return {
        "offline": robot.normalised(float(seen["start"].mean())),
        "sampled": robot.normalised(float(seen["start_exploring"].mean())),
    }


def _played(study: Study, row: Contender) -> list[Product[Evaluation]]:
    """The episodes of a row that stays offline: of one policy, or of each of its sets."""
    if row.policy is None:
        return [study.evaluate(policies, study.budget.curve_episodes) for policies in row.sets]
    return [study.evaluate(row.policy, sampled=row.sampled)]


def _offline(played: list[Product[Evaluation]], sampled: bool, study: Study) -> dict[str, float]:
    """The scores of a row that stays offline; of sets, the mean over all members."""
    returns = torch.cat([product.value.returns for product in played])
    few = returns[:, : study.budget.curve_episodes]
    normalised = study.task.robot.normalised
    return {
        "sampled" if sampled else "offline": normalised(float(returns.mean())),
        "few": normalised(float(few.mean())),
    }


def _beside_sets(scores: pd.DataFrame, selection: pd.DataFrame) -> pd.DataFrame:
    """``few`` of UEPO, which went online: what the candidate that it chose played in its set."""
    candidates = selection[selection["method"] == "UEPO"]
    scores.loc[scores["row"] == "uepo", "few"] = chosen(candidates)["score"]
    return scores


def budget(online: pd.DataFrame) -> pd.DataFrame:
    """A row a contender: environment steps by purpose, the settings it has and how many were tried
    for them, online and offline (``settings.OFFLINE``), on seeds that no result uses."""
    tried = settings.num_tried()
    counted = [
        "simulator_steps",
        "training_steps",
        "training_episodes",
        "evaluation_steps",
        "evaluation_episodes",
    ]
    table = online.groupby(["row", "settings"], sort=False)[counted].mean().round().reset_index()
    table["settings_tried"] = [tried.get(name, 0) for name in table["settings"]]
    table["offline_settings_tried"] = table["row"].map(settings.tried_offline)
    return table


def _judged(study: Study) -> list[tuple[str, float, Product[Any], Product[Any]]]:
    """What AM-Q judged: method, κ, policies, and the model that they were judged in."""
    ours, theirs = uepo(study), uni_o4(study)
    sets = candidate_sets(study, ours.model)
    return [
        *(("UEPO", kappa, policies, ours.dynamics) for kappa, policies in sets.items()),
        (AT_ONE, 1.0, sets[1.0], ours.dynamics),
        (AT_ONE_INITIAL, 1.0, sets[1.0], ours.initial_dynamics),
        ("Uni-O4, clones", 0.0, theirs.ensemble, theirs.dynamics),
        ("Uni-O4", 0.0, theirs.improved, theirs.dynamics),
    ]


def _selection(study: Study) -> tuple[pd.DataFrame, list[Run]]:
    """AM-Q beside the truth, for UEPO's candidates and for Uni-O4's members before and after PPO.

    The true returns are for judging the judge: no method sees them.
    """
    critic, count = study.critic(), study.budget.curve_episodes
    rows, runs = [], []
    for method, kappa, policies, judge in _judged(study):
        scores, played = study.am_q(policies, judge, critic), study.evaluate(policies, count)
        seen = played.value.returns
        returns = {"score": seen.mean(1), **halves(seen)}
        runs += [scores.run, played.run]
        if method.startswith("Uni-O4"):
            noisy = study.evaluate(policies, count, sampled=True)
            returns["sampled"] = noisy.value.returns.mean(1)
            runs.append(noisy.run)
        for i in range(len(seen)):
            judged = {name: float(each[i]) for name, each in scores.value.items()}
            true = {k: study.task.robot.normalised(float(v[i])) for k, v in returns.items()}
            rows.append(
                {"task": study.task.name, "seed": study.seed, "method": method, "kappa": kappa,
                 "member": i, **judged, **true}
            )  # fmt: skip
    return pd.DataFrame(rows), runs


# -- every task and seed


def studies(profile: str, comparison: Comparison | None = None) -> dict[tuple[str, int], Study]:
    """Every task and seed of ``profile``, by both."""
    comparison = comparison or comparison_of(profile)
    return {
        (task, seed): Study(task, seed, profile, progress=False)
        for task in comparison.tasks
        for seed in profiles.budget(profile).seeds
    }


def run(
    profile: str, comparison: Comparison | None = None
) -> tuple[dict[str, pd.DataFrame], list[Run]]:
    """All tasks and seeds of ``profile``: the four tables of :class:`Measured`, and their runs."""
    comparison = comparison or comparison_of(profile)
    found = [measure(study, comparison) for study in studies(profile, comparison).values()]
    tables = {
        name: pd.concat([getattr(one, name) for one in found], ignore_index=True)
        for name in ("scores", "online", "curves", "selection")
    }
    return tables, [each for one in found for each in one.runs]
