"""Was it as expected? One word for every generated line of that kind.

Nothing was said of seeds when the expectations were written. "Met" is read as: seen in every one of
them; "not met": in none; "open": they disagree, or nothing was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
