"""Were E5's expectations met? One line each, from its tables; see ``initial_model``.

No threshold was written down with them: those used here are the verdicts' own, and ``ROUND``. Gains
are means over both tests and, of model transitions, over filtered and random ones.
"""

from __future__ import annotations

import pandas as pd

from uepo_lib.expectations import MET, OPEN, UNMET, seen
from uepo_lib.experiments.epsilon_verdict import MARGIN
from uepo_lib.experiments.initial_model import BIASED, SHARES, WHOLE
from uepo_lib.experiments.initial_verdict import BIAS
from uepo_lib.experiments.sensitivity_verdict import FILLED

ROUND = 0.1
"""A share that is kept a round is two thirds if it is within this of it."""
NOT_REACHED = "**not reached**"
"""The word of ``sensitivity_verdict`` for a ratio that D_diff did not have: it says neither."""
POOR = min(SHARES, key=lambda name: SHARES[name])


def expected(gained: pd.DataFrame) -> list[str]:
    """Of "What it gives", from ``initial_verdict.gains``, in the order in which they were written:
    two with the experiment's code, three with its notebook."""
    model, bias = _by_init(gained, "model"), _by_init(gained, "model", "bias")
    poor, whole, biased = model[POOR], model[WHOLE], model[BIASED]
    wrong = (biased < whole) & (bias[BIASED] > bias[WHOLE] + BIAS)
    filtered = _by_init(gained[gained["acceptance"] == "kl"], "simulator")
    apart = filtered.max(axis=1) - filtered.min(axis=1)
    return [
        f"Transitions of a poor T̂_init harm more than those of a good one: {_told(model)}: "
        f"{seen(poor < whole)}.",
        f"No D_diff from a model beats D alone, whichever T̂_init: {_none_helps(model)}.",
        f"Model transitions of a T̂_init of {POOR} do harm: {poor.mean():+.2f}: {seen(poor < 0)}.",
        f"The biased T̂_init harms by its bias, not by its noise: T̂ from it against T̂ from that of "
        f"{WHOLE}: gain {(biased - whole).mean():+.2f}, bias "
        f"{(bias[BIASED] - bias[WHOLE]).mean():+.2f} (below 0 and above {BIAS:g} were expected): "
        f"{seen(wrong)}.",
        f"Of filtered simulator transitions little depends on T̂_init: gains of {_told(filtered)} "
        f"differ by {apart.mean():.2f} (little: {MARGIN:.2f}): {seen(apart <= MARGIN)}.",
    ]


def of_rounds(followed: pd.DataFrame) -> list[str]:
    """Of "Does a bias feed itself?", from ``initial_verdict.chains``: three as in the toy, and the
    one of the experiment's code."""
    wide = followed.pivot(index="seed", columns=["source", "acceptance", "round"], values="bias")
    wide = wide.sort_index(axis=1)
    last = int(followed["round"].max())
    own, kept, drawn = (_left(wide, *chain, last) for chain in (
        ("model", "kl"), ("simulator", "kl"), ("simulator", "random")
    ))  # fmt: skip
    path = pd.DataFrame(wide["simulator", "kl"]).diff(axis=1).drop(columns=0)
    known = own.notna()
    return [
        _two_thirds(followed, own.clip(lower=0) ** (1 / last)),
        f"Random real ones keep nothing (up to {BIAS:g}): {drawn.mean():.2f} is left after {last} "
        f"rounds: {seen((drawn <= BIAS)[known])}.",
        f"The filter keeps something between: {kept.mean():.2f}, against {drawn.mean():.2f} at "
        f"random and {own.mean():.2f} of T̂'s own: {seen(((drawn < kept) & (kept < own))[known])}.",
        f"Under the filter the bias shrinks from round to round: {seen((path < 0).all(axis=1))}.",
    ]


def _two_thirds(followed: pd.DataFrame, each: pd.Series) -> str:
    """``each`` is what T̂'s own transitions keep a round, by seed. Two thirds were expected where
    the ratio is filled: in seeds whose every round has :data:`FILLED` of the wanted volume."""
    own = followed[(followed["source"] == "model") & (followed["acceptance"] == "kl")]
    own = own[own["round"] > 0]
    shares = (own["volume"] / own["wanted"]).groupby(own["seed"]).min()
    full = shares.index[shares >= FILLED]
    if not len(full):
        return (
            "Where the ratio is filled, model transitions keep two thirds of the bias a round: no "
            f"seed fills {FILLED:.0%} of the wanted volume in every round (by seed "
            f"{shares.min():.0%} to {shares.max():.0%} in the emptiest); what passed keeps "
            f"{each.mean():.2f} on average: {NOT_REACHED}."
        )
    met = ((each[full] - 2 / 3).abs() <= ROUND)[each[full].notna()]
    return (
        f"Where the ratio is filled ({len(full)} of {len(shares)} seeds), model transitions keep "
        f"two thirds of the bias a round: {each[full].mean():.2f} on average: {seen(met)}."
    )


def _by_init(gained: pd.DataFrame, source: str, column: str = "gain") -> pd.DataFrame:
    """A row a seed, a column a T̂_init; every T̂ of them learnt the same D."""
    part = gained[(gained["real"] == "D") & (gained["source"] == source)]
    return part.pivot_table(index="seed", columns="init", values=column, sort=False)


def _told(wide: pd.DataFrame) -> str:
    return ", ".join(f"{gain:+.2f} ({init})" for init, gain in wide.mean().items())


def _none_helps(wide: pd.DataFrame) -> str:
    words = {init: seen(wide[init] <= 0) for init in wide}
    told = ", ".join(f"{wide[init].mean():+.2f} ({init})" for init in wide)
    if UNMET in words.values():
        return f"{told}: {UNMET}"
    return f"{told}: {MET if set(words.values()) == {MET} else OPEN}"


def _left(wide: pd.DataFrame, source: str, how: str, last: int) -> pd.Series:
    """Of what T̂_init's bias exceeds that of D alone, the share that is left; NaN if it does not."""
    level, begun = wide["D alone", "none", last], wide[source, how, 0]
    return ((wide[source, how, last] - level) / (begun - level)).where(begun > level)
