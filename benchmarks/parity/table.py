"""From records to a verdict and a table: pure functions of what was measured."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.parity.settings import PEERS, PPO, SIDES, TASK
from uepo_lib.errors import check
from uepo_lib.statistics import VERDICT_SEEDS, Interval

MARGIN = 0.05
"""How much worse than theirs still counts as at par."""
TITLES = {
    "bc": "behaviour cloning",
    "iql": "IQL",
    "ppo": "PPO",
    "lockstep": "PPO, same random numbers",
}
PAIRED = ("lockstep",)
"""Where seed i of ours and seed i of theirs share their random numbers."""

Records = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""By algorithm, side and seed."""


def welch_interval(
    ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95
) -> Interval:
    """mean(ours) − mean(theirs) with Welch's t interval: independent seeds, unequal spreads."""
    check(min(len(ours), len(theirs)) >= 2, "seeds", (len(ours), len(theirs)), "two of each side")
    mean = float(np.mean(ours) - np.mean(theirs))
    if np.ptp(ours) == np.ptp(theirs) == 0:  # no spread at all: nothing to make an interval of
        return Interval(mean, mean, mean)
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(confidence)
    return Interval(mean, float(found.low), float(found.high))


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95
) -> Interval:
    """mean(ours − theirs) with Student's t interval: seed i of one belongs to seed i of the other.

    ``UsageError`` when there are not equally many, or fewer than two.
    """
    counts = (len(ours), len(theirs))
    check(counts[0] == counts[1] >= 2, "seeds", counts, "two of each side, equally many")
    apart = np.subtract(ours, theirs)
    mean = float(apart.mean())
    if np.ptp(apart) == 0:
        return Interval(mean, mean, mean)
    found = stats.ttest_1samp(apart, 0).confidence_interval(confidence)
    return Interval(mean, float(found.low), float(found.high))


def interval(ours: Sequence[float], theirs: Sequence[float], paired: bool) -> Interval:
    """ours − theirs with its 95 % interval; ``paired``: seed i shares its random numbers."""
    return (paired_interval if paired else welch_interval)(ours, theirs)


def verdict(ours: Sequence[float], theirs: Sequence[float], paired: bool = False) -> str:
    """Whether the lower bound of ours − theirs is above −5 % of theirs; one mean a seed."""
    seeds = min(len(ours), len(theirs))
    if seeds < VERDICT_SEEDS:
        return f"not shown yet ({seeds} of {VERDICT_SEEDS} seeds)"
    centre = float(np.mean(theirs))
    check(centre > 0, "theirs", round(centre, 2), "of positive mean: the margin is a share of it")
    above = interval(ours, theirs, paired).low > -MARGIN * centre
    return f"{'at least at par' if above else 'not shown'} ({seeds} seeds)"


def seeds_needed(ours: Sequence[float], theirs: Sequence[float]) -> int:
    """Seeds a side with which two equal sides that spread like these are as often shown as not.

    Then half of the interval is the margin: n = (s_o² + s_t²) (1.96 / (0.05 mean))².
    """
    check(min(len(ours), len(theirs)) >= 2, "seeds", (len(ours), len(theirs)), "two of each side")
    variances = float(np.var(ours, ddof=1) + np.var(theirs, ddof=1))
    half = MARGIN * float(np.mean(theirs))
    return max(2, math.ceil(variances * (stats.norm.ppf(0.975) / half) ** 2))


def returns(records: Records, algorithm: str, side: str) -> dict[int, float]:
    """The mean return of each seed that is there."""
    return {
        seed: float(record["mean_return"])
        for (name, whose, seed), record in sorted(records.items())
        if (name, whose) == (algorithm, side)
    }


def _consistent(records: Records, algorithm: str) -> None:
    """``UsageError`` unless all records of an algorithm had one settings, data and evaluator."""
    found = [record for (name, _, _), record in records.items() if name == algorithm]
    for key in ("settings", "data", "episodes"):
        values = [record[key] for record in found]
        alike = all(value == values[0] for value in values)
        check(alike, f"{algorithm}'s {key}", "several", "the same in every record")


def row(records: Records, algorithm: str, speed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One line of the table."""
    _consistent(records, algorithm)
    ours, theirs = (returns(records, algorithm, side) for side in SIDES)
    paired = algorithm in PAIRED
    if paired:
        both = ours.keys() & theirs.keys()
        ours, theirs = ({seed: x for seed, x in s.items() if seed in both} for s in (ours, theirs))
    x, y = list(ours.values()), list(theirs.values())
    line: dict[str, Any] = {
        "algorithm": TITLES[algorithm],
        "peer": PEERS[algorithm],
        "ours": round(float(np.mean(x)), 1) if x else None,
        "theirs": round(float(np.mean(y)), 1) if y else None,
        "seeds_ours": len(x),
        "seeds_theirs": len(y),
        "difference": None, "low": None, "high": None,
        "bound": round(-MARGIN * float(np.mean(y)), 1) if y else None,
        "verdict": verdict(x, y, paired),
        "time_ratio": speed["ratio"] if speed else None,
    }  # fmt: skip
    if min(len(x), len(y)) >= 2:
        gap = interval(x, y, paired)
        named = {"difference": gap.mean, "low": gap.low, "high": gap.high}
        line |= {name: round(value, 1) for name, value in named.items()}
    return line


def frame(records: Records, speeds: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The table, a line an algorithm that has any record."""
    present = [name for name in PEERS if any(key[0] == name for key in records)]
    return pd.DataFrame([row(records, name, speeds.get(name)) for name in present])


def seeds_frame(records: Records) -> pd.DataFrame:
    """Every seed: mean return, normalised score, seconds and steps of its training."""
    columns = ("mean_return", "normalised", "seconds", "steps")
    return pd.DataFrame(
        [
            {"algorithm": name, "side": side, "seed": seed, **{c: record[c] for c in columns}}
            for (name, side, seed), record in sorted(records.items())
        ]
    )


def _cells(line: Mapping[str, Any]) -> list[str]:
    def shown(name: str) -> str:
        value = line[name]
        return "—" if value is None or pd.isna(value) else f"{value:,.0f}"

    difference = "—"
    if shown("low") != "—":
        difference = f"{shown('difference')} [{shown('low')}, {shown('high')}]"
    ratio = line["time_ratio"]
    timed = "—" if ratio is None or pd.isna(ratio) else f"{ratio:.2f}"
    return [
        line["algorithm"], line["peer"], shown("ours"), shown("theirs"), difference,
        shown("bound"), line["verdict"], timed,
    ]  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _seed_rows(records: Records) -> str:
    present = dict.fromkeys((name, side) for name, side, _ in sorted(records))
    text = io.StringIO()
    for name, side in present:
        found = returns(records, name, side)
        values = ", ".join(f"{seed}: {value:,.0f}" for seed, value in found.items())
        whose = "ours" if side == "ours" else PEERS[name]
        text.write(_line([TITLES[name], whose, values]))
    return text.getvalue()


def _what_is_missing(records: Records) -> str:
    """Of each line that could not be shown: what it would take."""
    text = io.StringIO()
    for name in dict.fromkeys(key[0] for key in sorted(records)):
        x, y = (list(returns(records, name, side).values()) for side in SIDES)
        enough = min(len(x), len(y)) >= VERDICT_SEEDS and name not in PAIRED
        if enough and verdict(x, y).startswith("not shown"):
            text.write(
                f"{TITLES[name]}: seeds spread by {np.std(x, ddof=1):,.0f} (ours) and "
                f"{np.std(y, ddof=1):,.0f} (theirs), one standard deviation. Two equal sides that "
                f"spread like this would need about {seeds_needed(x, y)} seeds each to be shown "
                "every other time.\n\n"
            )
    return text.getvalue()


def _without_seed_noise(records: Records) -> str:
    """What is known of PPO apart from the luck of its seeds."""
    if not any(key[0] in ("ppo", "lockstep") for key in records):
        return ""
    text = (
        "PPO without that noise: from the same weights and the same rollout, ten epochs of ours "
        "and of theirs end at the same parameters, up to a thousandth of the way "
        "(`tests/test_ppo_beside_peer.py`)."
    )
    pairs = [
        (records["lockstep", "ours", seed], records["lockstep", "theirs", seed])
        for name, side, seed in records
        if (name, side) == ("lockstep", "ours") and ("lockstep", "theirs", seed) in records
    ]
    if pairs:
        same = sum(mine["returns"] == peers["returns"] for mine, peers in pairs)
        steps = pairs[0][0]["steps"]
        text += (
            f" Whole trainings of {steps:,} environment steps on the same random numbers, rounded "
            "alike and with one norm for all gradients in ours too (`benchmarks/parity/lockstep.py`"
            "), end at policies that earn the same return in every episode, to the cent: "
            f"{same} of {len(pairs)} seeds."
        )
    return text + "\n\n"


def _settings_rows(records: Records) -> str:
    text = io.StringIO()
    for name in (n for n in PEERS if any(key[0] == n for key in records)):
        one = next(record for key, record in records.items() if key[0] == name)
        listed = ", ".join(f"{key} {value}" for key, value in one["settings"].items())
        text.write(f"**{TITLES[name]}**, both sides: {listed}.\n\nWhat differs:\n\n")
        text.write("".join(f"- {line}\n" for line in one["differences"]) + "\n")
    return text.getvalue()


def markdown(records: Records, speeds: Mapping[str, Mapping[str, Any]], scale: str) -> str:
    """The whole page: the table, every seed, the settings, what still differs."""
    table = frame(records, speeds)
    text = io.StringIO()
    text.write("# Beside well-kept implementations\n\n")
    if scale != "full":
        text.write(f"Scale `{scale}`: the numbers mean nothing.\n\n")
    episodes = next((r["episodes"] for r in records.values()), 0)
    text.write(
        f"Mean returns of noise-free policies, {episodes} episodes from the same reset seeds, all "
        f"played by one evaluator; PPO in {PPO['environment']}, BC and IQL from {TASK}. The "
        "interval is Welch's, 95 %, seeds against seeds, and Student's where both sides of a seed "
        "share their random numbers; *at least at par*: its lower end is above −5 % of theirs. "
        "Time: ours over theirs for equally many updates (PPO: environment steps), "
        "timed in turns.\n\n"
        f"{TASK} was chosen after a look: on hopper-medium, the first choice, five clones a side "
        "spread too far to show 5 % (`results/reference/parity/hopper-medium`).\n\n"
    )
    heads = ["", "peer", "ours", "theirs", "ours − theirs", "−5 %", "verdict", "time"]
    text.write(_line(heads) + _line(["---"] * len(heads)))
    for line in table.to_dict("records"):
        text.write(_line(_cells({str(key): value for key, value in line.items()})))
    text.write(f"\n{_what_is_missing(records)}")
    text.write(_without_seed_noise(records))
    text.write(_line(["", "by", "seed: mean return"]) + _line(["---"] * 3))
    text.write(_seed_rows(records) + "\n" + _settings_rows(records))
    return text.getvalue().rstrip() + "\n"
