"""What a user can get wrong, said in one line.

Every public entry of the library raises :class:`UsageError` for bad input. The command line prints
its message and exits with code 2; a notebook shows it as the last line of the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED, NEAREST = 20, 5
"""Up to so many valid names are all listed; of more, so many, and how many others there are."""


class UsageError(ValueError):
    """Bad input: one line that names the parameter, the value and what would be valid."""


def unknown(
    kind: str, value: object, valid: Iterable[str], listing: str | None = None
) -> UsageError:
    """The error for a name that does not exist, with the nearest one that does.

    ``listing`` is the command that lists all valid names, said where there are too many for a line.

    >>> str(unknown("task", "hoper-medium", ["hopper-medium"]))
    "unknown task 'hoper-medium'; did you mean 'hopper-medium'? valid: hopper-medium"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    listed = ", ".join(names) or "none yet"
    if len(names) > LISTED:
        nearest = difflib.get_close_matches(str(value), names, n=NEAREST, cutoff=0.0)
        told = f" (`{listing}` lists all)" if listing else ""
        listed = f"{', '.join(nearest)} and {len(names) - len(nearest)} more{told}"
    return UsageError(f"unknown {kind} {str(value)!r}{hint} valid: {listed}")


def check(condition: bool, parameter: str, value: object, expected: str) -> None:
    """Raise :class:`UsageError` unless ``condition``: ``check(n > 0, "n", n, "a positive
    integer")``."""
    if not condition:
        raise UsageError(f"{parameter}={value!r}: must be {expected}")
