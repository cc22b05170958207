"""Four failure signatures of UEPO as numbers, each with a threshold and an advice (E8).

The paper names them with their causes: sub-policies collapse, T̂ gets worse on real data, online
fine-tuning is unstable, plans are implausible. Each function here takes what a user already has and
returns a :class:`Finding`. Its value is a ratio of two like quantities, so that it has no unit, and
larger is worse; at 1 plans and states are as logged behaviour is, and T̂ as a model of D alone.

The thresholds come from healthy and provoked runs on the toy and the maze (``failure.csv``, seeds 0
to 4; experiment E8). Elsewhere they are a hint.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from uepo_lib.datasets import Batch, Windows
from uepo_lib.divergence import nearest_neighbour
from uepo_lib.errors import check

REVISION = 1

COLLAPSE, WORSE_MODEL, FAR_START, IMPLAUSIBLE = SIGNATURES = (
    "collapse", "worse model", "far start", "implausible plans"
)  # fmt: skip
THRESHOLDS = {COLLAPSE: 7.86, WORSE_MODEL: 3.88, FAR_START: 3, IMPLAUSIBLE: 1.92}
"""What :func:`calibrate` gives on :func:`recorded` values, to three digits."""
ADVICE = {
    COLLAPSE: "take τ from D, raise κ or η",
    WORSE_MODEL: "lower the ratio, tighten ε, or keep T̂_init",
    FAR_START: "log where it starts; smaller first updates",
    IMPLAUSIBLE: "train longer; check states against actions",
}
"""What to do when one fires, short enough for a table; notebook 17 says more."""
MOST = 1_000.0
"""A value is cut here: n equal plans are infinitely closer than logged ones."""
POINTS_AT_ONCE = 64
"""Bounds the memory of distances to all of D."""


@dataclass(frozen=True)
class Finding:
    """One diagnostic's answer; ``fired`` means value > threshold."""

    name: str
    value: float
    threshold: float
    fired: bool
    advice: str


def finding(name: str, value: float) -> Finding:
    """``value`` beside the frozen threshold of ``name``; advice is given where it fired."""
    check(name in THRESHOLDS, "name", name, f"one of {SIGNATURES}")
    check(not math.isnan(value), "value", value, "a number")
    value, threshold = min(value, MOST), THRESHOLDS[name]
    fired = value > threshold
    return Finding(name, value, threshold, fired, ADVICE[name] if fired else "")


def panel(findings: Iterable[Finding]) -> pd.DataFrame:
    """The health panel: a row a finding, columns value, threshold, fired, advice."""
    rows = pd.DataFrame([asdict(found) for found in findings])
    return rows.set_index("name").round({"value": 2, "threshold": 2})


# -- the four


def collapse(plans: Tensor, similar: Tensor, floor: float = 0.0) -> Finding:
    """How many times closer sub-policies are than logged behaviour: paper, "watch div".

    ``plans`` (n, B, T, A) of n ≥ 2 sub-policies in the same B states, ``similar`` (B, k ≥ n, T, A)
    what was logged near these states (:func:`similar_sequences`), ``floor`` that of the
    divergence. The value is the median nearest-neighbour div of n logged sequences over that of
    the plans; 1 is as varied as D, and all plans equal gives :data:`MOST`. Raises ``UsageError``
    where k < n: more sequences have nearer neighbours.
    """
    n = len(plans)
    check(similar.shape[1] >= n, "similar", tuple(similar.shape), f"(B, k, T, A) with k ≥ n={n}")
    found = nearest_neighbour(plans, floor)[0].median()
    logged = nearest_neighbour(similar[:, :n].transpose(0, 1), floor)[0].median()
    return finding(COLLAPSE, float(logged / found.clamp(min=float(logged) / MOST)))


def worse_model(initial: Tensor, final: Tensor) -> Finding:
    """Whether T̂ is worse than the model of D alone on the same held-out *real* transitions.

    ``initial`` (T̂_init's, where that was fitted to D with as many updates) and ``final`` (N,) are
    squared errors, a row a transition, neither model having learnt from them. The value is the
    ratio of their geometric means: more than 1 is worse. A mean of squares would be that of a few
    contacts. Raises ``UsageError`` unless all errors are positive.
    """
    check(initial.shape == final.shape, "final", tuple(final.shape), f"{tuple(initial.shape)}")
    for name, errors in (("initial", initial), ("final", final)):
        valid = len(errors) > 0 and bool((errors > 0).all())
        check(valid, name, "empty, 0 or negative", "positive squared errors, at least one")
    return finding(WORSE_MODEL, float((final.log().mean() - initial.log().mean()).exp()))


def far_start(online: Tensor, logged: Tensor, held_out: Tensor) -> Finding:
    """How far the first online states lie from D, in units of D's own spacing.

    ``online`` (M, S) are the first states met online, ``logged`` (N, S) those of D, ``held_out``
    (H, S) of logged episodes that ``logged`` lacks; all standardised alike. The value is the median
    distance of ``online`` to the nearest of ``logged`` over that of ``held_out``.
    """
    unit = nearest_distance(held_out, logged).median()
    check(bool(unit > 0), "held_out", "in logged", "states of episodes that logged lacks")
    return finding(FAR_START, float(nearest_distance(online, logged).median() / unit))


def implausible(plans: Tensor, actions: Tensor, similar: Tensor) -> Finding:
    """How far plans are from anything logged in such states, in units of held-out behaviour.

    ``plans`` (n, B, T, A) in B held-out states, ``actions`` (B, T, A) what was logged there,
    ``similar`` (B, k, T, A) what D holds near these states (:func:`similar_sequences`). Of each,
    the root-mean-square distance to the nearest of the k; the value is the median of the plans'
    over that of the logged ones'. It says nothing of how a plan ends after T actions.
    """

    def distance(a: Tensor) -> Tensor:
        return (a.unsqueeze(-3) - similar).square().mean((-2, -1)).sqrt().amin(-1)

    unit = distance(actions).median()
    check(bool(unit > 0), "actions", "among similar", "held-out sequences")
    return finding(IMPLAUSIBLE, float(distance(plans).median() / unit))


# -- what they are measured by


class SequenceSource(Protocol):
    """Windows of D: ``len(windows)``, ``windows.batch(index)``."""

    def __len__(self) -> int: ...
    def batch(self, index: Tensor) -> Batch: ...


@dataclass(frozen=True)
class Part:
    """Some windows of D, by their ``index``."""

    windows: SequenceSource
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, index: Tensor) -> Batch:
        """Windows ``index`` (B,) of this part."""
        return self.windows.batch(self.index[index])


def apart(windows: Windows, held: Tensor, count: int = 128) -> tuple[Batch, Part]:
    """``count`` windows evenly spread over those that begin in the steps ``held``, and the others.

    ``held`` are steps of whole episodes, as of ``Dataset.split``: neighbours in time within an
    episode would be nearest to each other, and say nothing. A policy that has learnt from them too
    is judged a little too kindly.
    """
    unseen = torch.isin(windows.now, held)
    there = unseen.nonzero().flatten()
    check(0 < len(there) < len(unseen), "held", len(there), f"in 1 .. {len(unseen) - 1} windows")
    spread = torch.linspace(0, len(there) - 1, min(count, len(there))).long()
    return windows.batch(there[spread]), Part(windows, (~unseen).nonzero().flatten())


def similar_sequences(past: Tensor, windows: SequenceSource, k: int, most: int = 20_000) -> Tensor:
    """What D did in the k states nearest to each given one: (B, T_o, S) -> (B, k, T, A).

    Nearest by standardised state windows, among at most ``most`` windows evenly spread over D.
    """
    count = min(most, len(windows))
    check(1 <= k <= count, "k", k, f"in 1 .. {count}, the number of windows")
    batch = windows.batch(torch.linspace(0, len(windows) - 1, count).long())
    known = batch.past.flatten(1)
    parts = [
        torch.cdist(part, known).topk(k, largest=False).indices
        for part in past.flatten(1).split(POINTS_AT_ONCE)
    ]
    return batch.actions[torch.cat(parts)]


def nearest_distance(points: Tensor, others: Tensor, rows_at_once: int = POINTS_AT_ONCE) -> Tensor:
    """Euclidean distance of each point to the nearest of ``others``: (M, S), (N, S) -> (M,)."""
    check(len(points) > 0 and len(others) > 0, "points", "empty", "at least one on either side")
    parts = [torch.cdist(part, others).amin(-1) for part in points.split(rows_at_once)]
    return torch.cat(parts)


# -- thresholds


MARGIN = 2.0
"""A threshold is at most this many times the worst healthy value, however gross the provoked
failures were."""


def calibrate(healthy: Sequence[float], provoked: Sequence[Sequence[float]]) -> float:
    """The middle, on a log scale, between the worst healthy value and the weakest cause's median.

    ``provoked`` holds the values of each cause and setting. No more than :data:`MARGIN` times the
    worst healthy value. Raises ``UsageError`` where that median is not above the worst healthy
    value: then no threshold separates them.
    """
    valid = len(healthy) > 0 and len(provoked) > 0 and all(len(part) > 0 for part in provoked)
    check(valid, "values", "empty", "some healthy, some provoked of every cause")
    worst, weakest = max(healthy), min(median(part) for part in provoked)
    check(0 < worst < weakest, "provoked", weakest, f"above the worst healthy value, {worst:.3g}")
    return min(math.sqrt(worst * weakest), MARGIN * worst)


def calibrate_all(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """:func:`calibrate` for each signature from rows (signature, setting, cause, provoked, value);
    the healthy runs of all settings together."""
    table = pd.DataFrame(list(rows)).astype({"provoked": int, "value": float})
    found = {}
    for name in SIGNATURES:
        part = table[table["signature"] == name]
        bad = part[part["provoked"] == 1].groupby(["setting", "cause"])["value"]
        healthy = part.loc[part["provoked"] == 0, "value"].tolist()
        found[name] = calibrate(healthy, [values.tolist() for _, values in bad])
    return found


def recorded() -> tuple[dict[str, str], ...]:
    """The values that the thresholds come from (``failure.csv``): E8 at laptop, seeds 0 to 4, as
    ``failure_verdict.to_record`` took them from its findings; columns seed, setting, cause,
    signature, provoked (1 or 0), value."""
    with (Path(__file__).parent / "failure.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


CALIBRATION_SEEDS, TEST_SEEDS = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
"""Thresholds are set on the first; what they are worth is counted on the others."""
