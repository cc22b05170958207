"""Did it come as expected? A generated line from numbers, one a seed, whose answer needs no choice.

"met": every seed is on the expected side; "not met": none is; "open": seeds disagree, or fewer than
two of them can say. This is weaker than a verdict (``statistics.py``), and told of any profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

MET, UNMET, OPEN = "**met**", "**not met**", "**open**"


def seen(flags: Iterable[bool]) -> str:
    """The word for what was, or was not, seen in each of several seeds."""
    found = set(map(bool, flags))
    if len(found) != 1:
        return OPEN
    return MET if found.pop() else UNMET


def by_place(flags: Mapping[str, bool]) -> str:
    """The word for all places, or the word for each where they differ."""
    words = {place: MET if met else UNMET for place, met in flags.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{word} ({place})" for place, word in words.items()) or OPEN


def answer(values: pd.Series, above: float = 0.0, ties: bool = False) -> str:
    """Whether ``values``, one a seed, are above ``above`` as expected; ``ties`` are right too."""
    right = values >= above if ties else values > above
    return seen(right) if len(right) > 1 else OPEN


def line(
    text: str,
    values: pd.Series,
    *,
    above: float = 0.0,
    ties: bool = False,
    shown: str = "{:+.2f}",
) -> str:
    """``text``, the mean of ``values`` as ``shown`` for each name of their index (name, seed), and
    the answer: one for all names, or by name where they differ."""
    known = values.dropna()
    if known.empty:
        return f"{text}: nothing at this profile can say: {OPEN}."
    groups = {str(name): part for name, part in known.groupby(level=0, sort=False)}
    told = "; ".join(f"{shown.format(part.mean())} ({name})" for name, part in groups.items())
    answers = {name: answer(part, above, ties) for name, part in groups.items()}
    if len(set(answers.values())) == 1:
        return f"{text}: {told}: {next(iter(answers.values()))}."
    differing = "; ".join(f"{said} ({name})" for name, said in answers.items())
    return f"{text}: {told}: {differing}."


def listed(lines: list[str]) -> str:
    """Lines as a list, below what the answers mean."""
    rule = "*Met*: every seed is as expected. *Not met*: none is. *Open*: else, or a single seed."
    return "\n".join([rule, "", *(f"- {one}" for one in lines)])
