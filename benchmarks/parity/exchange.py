"""What both sides of a comparison read and write. Needs numpy alone: peers have other packages.

A *job* is a JSON file: algorithm, seed, settings, the arrays to learn from, the folder to write to.
Arrays and policies are ``.npz`` files.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ARRAYS = ("observations", "actions", "rewards", "terminals", "timeouts", "mean", "std")
"""(N, S) raw, (N, A), (N,) raw, (N,) bool, (N,) bool, (S,), (S,)."""


def write_npz(path: Path, content: Mapping[str, Any]) -> None:
    """Write arrays in one step, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
    np.savez(partial, **dict(content))
    os.replace(partial, path)


def read_npz(path: Path) -> dict[str, Array]:
    """Every array of a file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def standardised(arrays: Mapping[str, Array]) -> Array:
    """The observations by the dataset's mean and std, (N, S) float32."""
    scaled: Array = (arrays["observations"] - arrays["mean"]) / arrays["std"]
    return scaled.astype(np.float32)


def reward_scale(arrays: Mapping[str, Array]) -> float:
    """1000 over the range of the episodes' returns: what IQL multiplies locomotion's rewards by."""
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
    starts = np.concatenate([[0], ends[:-1] + 1])
    returns = np.add.reduceat(arrays["rewards"].astype(np.float64), starts)
    return float(1000 / (returns.max() - returns.min()))


@dataclass(frozen=True)
class Network:
    """A noise-free policy: raw states -> perceptron -> actions, clipped where they are executed."""

    weights: Sequence[Array]
    """Of each layer: (out, in)."""
    biases: Sequence[Array]
    mean: Array
    std: Array
    clip: float = float("inf")
    """Bound of a standardised state."""
    activation: str = "relu"
    squash: bool = False
    """Whether the output goes through a tanh."""

    def save(self, path: Path) -> None:
        layers = {f"weight{i}": np.asarray(w) for i, w in enumerate(self.weights)}
        layers |= {f"bias{i}": np.asarray(b) for i, b in enumerate(self.biases)}
        about = {
            "mean": np.asarray(self.mean), "std": np.asarray(self.std),
            "clip": np.array(self.clip), "activation": np.array(self.activation),
            "squash": np.array(self.squash),
        }  # fmt: skip
        write_npz(path, {**layers, **about})

    @classmethod
    def load(cls, path: Path) -> Network:
        content = read_npz(path)
        depth = sum(name.startswith("weight") for name in content)
        return cls(
            [content[f"weight{i}"] for i in range(depth)],
            [content[f"bias{i}"] for i in range(depth)],
            content["mean"],
            content["std"],
            float(content["clip"]),
            str(content["activation"]),
            bool(content["squash"]),
        )

    def actions(self, raw: Array) -> Array:
        """Raw states (B, S) -> actions (B, A) in [-1, 1]."""
        x = ((raw - self.mean) / self.std).clip(-self.clip, self.clip).astype(np.float32)
        between = np.tanh if self.activation == "tanh" else _relu
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight.T + bias
            if i < len(self.weights) - 1:
                x = between(x)
        return (np.tanh(x) if self.squash else x).clip(-1, 1)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def read_job(path: str) -> dict[str, Any]:
    """The job that a trainer was started with."""
    job: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return job


def finish(
    job: Mapping[str, Any],
    network: Network,
    seconds: float,
    steps: int,
    expected: Array,
    states: Array,
    packages: Sequence[str],
) -> None:
    """Write the policy, then the facts whose presence says that the job is done.

    ``expected`` (B, A) are the trained policy's own actions in the raw ``states`` (B, S): the
    exported network must give the same ones.
    """
    gap = float(np.abs(network.actions(states) - expected.clip(-1, 1)).max())
    if gap > 1e-4:
        raise RuntimeError(f"the exported policy acts differently, by up to {gap:.2g}")
    out = Path(job["out"])
    network.save(out / "policy.npz")
    facts = {
        "seconds": round(seconds, 2),
        "steps": steps,
        "export_gap": gap,
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
    }
    partial = out / ".facts.partial"
    partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, out / "facts.json")


def main_job() -> dict[str, Any]:
    """The job named on the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("one argument: a job's JSON file")
    return read_job(sys.argv[1])
