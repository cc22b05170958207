"""How many kinds of episode a dataset holds: counted where it is known, estimated everywhere.

Known: an episode's route through the maze, or else the policy that collected it. Estimated: groups
of episodes between which there is a gap. The two are other questions: two policies may behave
alike, and one may behave in two ways. :func:`agreement` says by a number how far they agree.

The estimate splits the episodes in two by 2-means, looks along the line between the two means, and
keeps the split if Silverman's test (1981, "Using kernel density estimates to investigate
multimodality") rejects that there is one peak; then it goes on within each group. Halves, medians,
two components and the level were chosen with the known labels of the local datasets in view, so
their agreement flatters the estimate; no dataset has settings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.special import comb
from scipy.stats.contingency import crosstab

from uepo_lib import episodes
from uepo_lib.datasets import Dataset
from uepo_lib.recipes import part_of_steps, parts_of

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

ENOUGH = 40
"""Fewer whole episodes than this give no estimate."""
AT_MOST = 500
"""More are thinned evenly: the estimate is for a look, not for a paper."""
HALVES = 2
"""An episode is described by the median state of its first and of its second half: a route is an
order of places, and a median forgets how the episode ended."""
COMPONENTS = 2
"""How many principal components of the descriptions are looked at."""
CONTEXT = 0.01
"""A number of the state whose variance within episodes is below this share of its whole variance is
given, as a goal is, and not done: it is left out."""
LEVEL, RESAMPLES = 0.01, 199
SMALLEST = 5
"""A group has at least this many episodes."""
_GRID = np.linspace(0.0, 1.0, 128)


@dataclass(frozen=True)
class Modes:
    """What is known of all episodes of one dataset, and what is estimated from its whole ones."""

    episodes: int
    """How many are whole."""
    known: int | None
    """Different labels; None where nothing is known."""
    labelled_by: str
    """route, policy or nothing."""
    estimated: int | None
    """Groups; None where there are fewer than :data:`ENOUGH` episodes."""
    agreement: float | None
    """Of the groups with the labels, see :func:`agreement`; two decimals."""


def modes(data: Dataset) -> Modes:
    """Count and estimate; the same dataset gives the same answer."""
    chosen = episodes.whole(data)
    labels, labelled_by = known(data)
    known_count = None if labels is None else len(np.unique(labels))
    if len(chosen) < ENOUGH:
        return Modes(len(chosen), known_count, labelled_by, None, None)
    looked_at, found = grouped(data)
    agreed = None if labels is None else round(agreement(found, labels[looked_at]), 2) + 0.0
    return Modes(len(chosen), known_count, labelled_by, int(found.max()) + 1, agreed)


def grouped(data: Dataset) -> tuple[Labels, Labels]:
    """The whole episodes that are looked at, at most :data:`AT_MOST`, and the group of each."""
    chosen = episodes.whole(data)
    chosen = chosen[:: -(-len(chosen) // AT_MOST)]
    return chosen, groups(descriptions(data, chosen))


def outcomes(data: Dataset) -> pd.DataFrame:
    """A row a group: how many episodes, the share that was terminated, their scores."""
    chosen, found = grouped(data)
    table = episodes.episodes_table({data.task.name: data}).iloc[chosen]
    by_group = table.assign(group=found, terminated=table.ended == "terminated").groupby("group")
    columns = {
        "episodes": by_group.score.size(),
        "share terminated": by_group.terminated.mean(),
        "score": by_group.score.mean(),
        "sd of score": by_group.score.std(),
    }
    return pd.DataFrame(columns)


def known(data: Dataset) -> tuple[Labels | None, str]:
    """(episodes,) integers and what they number; (None, "nothing") for data from elsewhere."""
    for name, labels in data.labels.items():
        return labels.numpy(), name
    if parts_of(data.metadata) is not None:
        return part_of_steps(data.metadata["recipe"])[data.bounds[:, 0].numpy()], "policy"
    return None, "nothing"


def descriptions(data: Dataset, chosen: Labels) -> Array:
    """(M, COMPONENTS): principal components of the median states of the halves of M episodes."""
    states = data.states.numpy().astype(np.float64)
    states = states[:, ~_given(data, states)]
    rows = []
    for begin, end in data.bounds.numpy()[chosen]:
        edges = np.linspace(begin, end, HALVES + 1).round().astype(int)
        halves = [np.median(states[a:b], axis=0) for a, b in pairwise(edges)]
        rows.append(np.concatenate(halves))
    centred = np.stack(rows) - np.mean(rows, axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((left * size)[:, :COMPONENTS])


def _given(data: Dataset, states: Array) -> NDArray[np.bool_]:
    """(S,) which numbers of the state hardly change within an episode."""
    length = episodes.lengths_of(data)
    mean = np.add.reduceat(states, data.bounds[:, 0].numpy()) / length[:, None]
    within = ((states - mean.repeat(length, axis=0)) ** 2).mean(axis=0)
    return np.asarray(within <= CONTEXT * states.var(axis=0))


def groups(points: Array, seed: int = 0) -> Labels:
    """Points (M, d) -> (M,) the group of each, 0 up; all 0 if there is no gap."""
    generator = np.random.default_rng(seed)
    found = np.zeros(len(points), dtype=np.int64)
    for number, rows in enumerate(_split(points, np.arange(len(points)), generator)):
        found[rows] = number
    return found


def _split(points: Array, rows: Labels, generator: np.random.Generator) -> list[Labels]:
    means, side = _two_means(points[rows], generator)
    if min(np.bincount(side, minlength=2)) < SMALLEST:
        return [rows]
    along = points[rows] @ (means[1] - means[0])
    if one_peak(along, generator) > LEVEL:
        return [rows]
    return [part for k in range(2) for part in _split(points, rows[side == k], generator)]


def _two_means(points: Array, generator: np.random.Generator) -> tuple[Array, Labels]:
    """The best of five starts: means (2, d) and the nearest of them, (M,)."""
    if len(points) < 2 * SMALLEST or not np.ptp(points, axis=0).any():
        return points[:1].repeat(2, axis=0), np.zeros(len(points), dtype=np.int64)
    tries = [kmeans2(points, 2, iter=50, minit="++", rng=generator) for _ in range(5)]
    means, side = min(tries, key=lambda found: float(((points - found[0][found[1]]) ** 2).sum()))
    return means, side.astype(np.int64)


def one_peak(values: Array, generator: np.random.Generator) -> float:
    """Silverman's test that the density of ``values`` (M,) has one peak: its p-value.

    The smallest width of a Gaussian kernel that leaves one peak is large where there is a gap. How
    often do resamples from that smoothed density, of the same variance, have more than one?
    """
    width, spread = critical_width(values), values.std()
    shrink = 1.0 / np.sqrt(1.0 + (width / spread) ** 2)
    more = 0
    for _ in range(RESAMPLES):
        drawn = generator.choice(values, len(values))
        smoothed = drawn + width * generator.standard_normal(len(values))
        more += peaks(drawn.mean() + shrink * (smoothed - drawn.mean()), width) > 1
    return (more + 1) / (RESAMPLES + 1)


def critical_width(values: Array) -> float:
    """The smallest standard deviation of a Gaussian kernel at which ``values`` have one peak."""
    low, high = 1e-3 * values.std(), 3.0 * values.std()
    for _ in range(14):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if peaks(values, middle) > 1 else (low, middle)
    return float(high)


def peaks(values: Array, width: float) -> int:
    """Local maxima of the kernel density of ``values`` (M,), on a grid of 128 points."""
    grid = values.min() - width + (np.ptp(values) + 2 * width) * _GRID
    density = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1)
    slope = np.diff(density)
    return int(((slope[:-1] > 0) & (slope[1:] <= 0)).sum())


def agreement(one: Labels, other: Labels) -> float:
    """Adjusted Rand index of two labellings (M,): 1 the same groups, 0 as by chance.

    Hubert and Arabie (1985); 1 also where both have a single group, in which nothing can differ.
    """
    table = crosstab(one, other).count
    pairs = comb(table, 2).sum()
    rows, columns = (comb(table.sum(axis=axis), 2).sum() for axis in (0, 1))
    chance = rows * columns / comb(len(one), 2)
    most = (rows + columns) / 2
    return 1.0 if most == chance else float((pairs - chance) / (most - chance))
