"""What the table of E5 says. Pure functions of the table, thresholds fixed before it was computed.

An effect on the error is a difference of log2 errors, paired by seed, as in E2; one on the bias is
in units of the bias that the wrong gain would have by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from uepo_lib.errors import check
from uepo_lib.experiments.epsilon_verdict import MARGIN
from uepo_lib.experiments.initial_model import BIASED, DATA, SHARES, WHOLE
from uepo_lib.experiments.sensitivity_verdict import label

BIAS = 0.1
"""A tenth of the wrong gain's own bias: less is none."""

ALIKE = 0.1
"""Of all trajectories: acceptances that differ by no more are alike."""

TOY = "linear world"
"""Of a chain: not measured, but computed."""

_CELL = ["source", "acceptance", "step"]


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """The first round's T̂ with ``gain`` = log2(error on the same real data alone / error).

    Where T̂ learnt D, that is the T̂_init of D's own size, the model that D alone gives; where it
    learnt T̂_init's own slice, T̂_init. Raises ``UsageError`` if one of these is not in the table.
    """
    alone = table[table["round"] == 0].set_index(["seed", "init", "step"])["error"]
    first = table[table["round"] == 1].copy()
    base = [(s, DATA if real == "D" else init, step) for s, init, real, step in
            first[["seed", "init", "real", "step"]].itertuples(index=False, name=None)]  # fmt: skip
    known = alone.reindex(pd.MultiIndex.from_tuples(base))
    check(bool(known.notna().all()), "table", "without T̂_init", "T̂_init for every seed and size")
    first["gain"] = np.log2(known.to_numpy() / first["error"].to_numpy())
    return first


def kept_says(kept: pd.DataFrame) -> str:
    """What became of the expectation that as many trajectories pass for every T̂_init, and those
    that it predicts well.

    ``kept`` is indexed by source and init and has columns passing, kept_error and refused_error.
    """
    parts = []
    for source, name in (("model", "in T̂_init"), ("simulator", "in the simulator")):
        passing = kept.xs(source, level="source")["passing"]
        low, high = float(passing.min()), float(passing.max())
        met = "met" if high - low <= ALIKE else "not met"
        parts.append(f"{name} {low:.2f} to {high:.2f} of them pass, by T̂_init: {met}")
    real = kept.xs("simulator", level="source")
    well = real["refused_error"] > real["kept_error"]
    return (
        f"**The expectation** of *as many for all* (within {ALIKE:g} of all trajectories): "
        f"{'; '.join(parts)}. That those pass which it predicts well: true of {int(well.sum())} of "
        f"{len(well)}."
    )


def quality(gained: pd.DataFrame) -> pd.DataFrame:
    """Does a better T̂_init make a better T̂? Error after the smallest against after all of it.

    Columns source, acceptance, step besides those of ``label``; the same D and volume wanted.
    """
    part = gained[(gained["real"] == "D") & gained["init"].isin([*SHARES])]
    worst = min(SHARES, key=lambda name: SHARES[name])
    rows = []
    for names, one in part.groupby(_CELL, sort=False):
        wide = one.pivot(index="seed", columns="init", values="gain")
        check({worst, WHOLE} <= set(wide), "init", list(wide), f"{worst} and {WHOLE}")
        effect = (wide[WHOLE] - wide[worst]).tolist()
        rows.append({**dict(zip(_CELL, names, strict=True)), **label(effect, MARGIN)})
    return pd.DataFrame(rows)


def helps(gained: pd.DataFrame) -> pd.DataFrame:
    """Does D_diff help, by T̂_init? Columns init, real, source, acceptance, step besides."""
    keys = ["init", "real", *_CELL]
    rows = [
        {**dict(zip(keys, names, strict=True)), **label(one["gain"].tolist(), MARGIN)}
        for names, one in gained.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows)


def chains(table: pd.DataFrame) -> pd.DataFrame:
    """The bias round by round from the biased T̂_init, a row a seed, chain and round.

    Columns seed, source, acceptance, round, volume and wanted (of D_diff; 0 in round 0), bias; and
    the chain "D alone" with the bias of D's own model, the level that a chain should come down to,
    at every round.
    """
    once = table[table["step"] == 1]
    columns = ["seed", "source", "acceptance", "round", "volume", "wanted", "bias"]
    started = once[(once["init"] == BIASED) & (once["round"] == 0)]
    later = once[(once["init"] == BIASED) & (once["real"] == "D") & (once["round"] > 0)]
    last = int(later["round"].max())
    parts = []
    for (source, how), part in later.groupby(["source", "acceptance"], sort=False):
        if int(part["round"].max()) == last:
            begun = started.assign(source=str(source), acceptance=str(how))
            parts.append(pd.concat([begun, part])[columns])
    level = once[(once["init"] == DATA) & (once["round"] == 0)]
    parts += [
        level.assign(source="D alone", acceptance="none", round=r)[columns] for r in range(last + 1)
    ]
    return pd.concat(parts, ignore_index=True)


def in_the_toy(followed: pd.DataFrame, size: int) -> pd.DataFrame:
    """The chain of T̂'s own transitions as the linear world has it, at the volumes that passed.

    Columns as of :func:`chains`. Of what T̂_init's bias exceeds that of D alone, each round leaves
    |D_diff| / (|D| + |D_diff|), with ``size`` |D|: the rest of what T̂ is fitted to is right.
    """
    own = followed[(followed["source"] == "model") & (followed["acceptance"] == "kl")]
    alone = followed[followed["source"] == "D alone"].set_index(["seed", "round"])["bias"]
    own = own.sort_values(["seed", "round"])
    level = alone.reindex(pd.MultiIndex.from_frame(own[["seed", "round"]])).to_numpy()
    kept = (own["volume"] / (size + own["volume"])).where(own["round"] > 0, 1.0)
    begun = own.groupby("seed")["bias"].transform("first") - level
    bias = level + begun * kept.groupby(own["seed"]).cumprod()
    return own.assign(source=TOY, acceptance="model", bias=bias).reset_index(drop=True)


def reinforcement(followed: pd.DataFrame) -> pd.DataFrame:
    """Three claims on every chain of :func:`chains`, in units of the wrong gain's bias.

    "grows": the last round's bias is above T̂_init's own. "stays": it is above that of D alone.
    "filter": under the filter it is above that of random acceptance of the same source.
    """
    wide = followed.pivot(index="seed", columns=["source", "acceptance", "round"], values="bias")
    last = int(followed["round"].max())
    level = wide["D alone", "none", last]
    rows: list[dict[str, Any]] = []
    named_chains = followed[["source", "acceptance"]].drop_duplicates()
    for source, how in named_chains.itertuples(index=False, name=None):
        if source == "D alone":
            continue
        end = wide[source, how, last]
        effects = {"grows": end - wide[source, how, 0], "stays": end - level}
        if how == "kl" and (source, "random", last) in wide:
            effects["filter"] = end - wide[source, "random", last]
        for claim, effect in effects.items():
            named = {"source": source, "acceptance": how, "claim": claim}
            rows.append({**named, **label(effect.tolist(), BIAS)})
    return pd.DataFrame(rows)
