"""The layout of an old D4RL file: flat arrays in HDF5, one row a step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from uepo_lib.errors import UsageError

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations")
STATE = ("infos/qpos", "infos/qvel")


@dataclass(frozen=True)
class Flat:
    """The arrays of one file, N rows each."""

    file: Path
    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminals: NDArray[np.bool_]
    timeouts: NDArray[np.bool_] | None
    next_observations: NDArray[Any] | None
    state: dict[str, NDArray[Any]]
    """``qpos`` and ``qvel`` (N, ...), where the file has both."""
    algorithm: str

    def __len__(self) -> int:
        return len(self.observations)

    def refuse(self, reason: str) -> NoReturn:
        raise UsageError(f"{self.file.name}: {reason}")


def read(file: Path) -> Flat:
    """The arrays of a D4RL ``file``; ``UsageError`` if they cannot be read or do not belong
    together."""
    import h5py

    if not file.is_file():
        raise UsageError(f"file={str(file)!r}: must be an old D4RL HDF5 file; there is none")
    try:
        with h5py.File(file, "r") as source:
            names = [n for n in (*REQUIRED, *OPTIONAL, *STATE) if _is_array(source, n)]
            missing = [name for name in REQUIRED if name not in names]
            if missing:
                raise UsageError(
                    f"{file.name}: no {', '.join(missing)}: not D4RL's layout; the file holds "
                    f"{', '.join(list(source)[:8]) or 'nothing'}"
                )
            arrays = {name: source[name][()] for name in names}
            about = source.get("metadata/algorithm")
            algorithm = about[()].decode() if about is not None else "not said in the D4RL file"
    except (OSError, RuntimeError, KeyError) as error:  # h5py's, by where the damage is
        said = " ".join(str(error).split())
        raise UsageError(f"{file.name}: cannot be read as HDF5: {said}") from error
    return _checked(file, arrays, algorithm)


def _is_array(source: Any, name: str) -> bool:
    # kitchen files have an array called infos where others have a group
    parent, _, leaf = name.rpartition("/")
    group = source.get(parent) if parent else source
    return hasattr(group, "keys") and leaf in group and hasattr(group[leaf], "shape")


def _checked(file: Path, arrays: dict[str, NDArray[Any]], algorithm: str) -> Flat:
    """Rows that belong together, flags that are flags, numbers that are numbers."""
    count = len(arrays["observations"]) if arrays["observations"].ndim else 0
    for name, values in arrays.items():
        if not count or values.shape[:1] != (count,):
            raise UsageError(
                f"{file.name}: {name} of shape {values.shape}; observations of shape "
                f"{arrays['observations'].shape}: must have the same number of rows, at least one"
            )
        if name in ("rewards", "terminals", "timeouts"):
            if values.size != count:
                raise UsageError(f"{file.name}: {name} of shape {values.shape}; must be (N,)")
            arrays[name] = values = values.reshape(count)  # replay buffers were saved as (N, 1)
        bad = ~np.isfinite(values.reshape(count, -1)).all(axis=1)
        if name in ("terminals", "timeouts"):
            bad |= (values != 0) & (values != 1)
        if bad.any() and name not in STATE:
            kind = "neither 0 nor 1" if name in ("terminals", "timeouts") else "NaN or infinite"
            raise UsageError(f"{file.name}: {name} is {kind} at row {int(bad.argmax())}")
    whole = all(name in arrays for name in STATE)
    return Flat(
        file=file,
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminals=arrays["terminals"].astype(bool),
        timeouts=arrays["timeouts"].astype(bool) if "timeouts" in arrays else None,
        next_observations=arrays.get("next_observations"),
        state={n.rpartition("/")[2]: arrays[n] for n in STATE} if whole else {},
        algorithm=algorithm,
    )
