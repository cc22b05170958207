"""A small real training, shared by the tests of runs and the processes that they start."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from uepo_lib.errors import UsageError
from uepo_lib.runs import Run, Spec, Store
from uepo_lib.training import GeneratorState, fit

SPEC = Spec("toy", {"seed": 3, "lr": 0.05}, revisions={"toy": 1})


def train(run: Run, *, steps: int = 60, seconds_per_step: float = 0.0, every: float = 60.0) -> None:
    """A noisy regression whose every batch comes from a generator."""
    torch.set_num_threads(1)  # two threads on networks this small only wait for each other
    with torch.random.fork_rng():
        torch.manual_seed(run.spec.config["seed"])
        model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    generator = torch.Generator().manual_seed(run.spec.config["seed"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=run.spec.config["lr"])

    def update(step: int) -> dict[str, torch.Tensor]:
        time.sleep(seconds_per_step)
        x = torch.randn(32, 3, generator=generator)
        loss = (model(x) - x.sin().sum(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        run.account("training", steps=2, episodes=1)
        run.table("parity").append({"step": step, "even": step % 2 == 0})
        return {"loss": loss.detach()}

    parts = {"model": model, "optimiser": optimiser, "generator": GeneratorState(generator)}
    fit(
        steps,
        update,
        parts,
        recorder=run,
        log_every=1,
        checkpoint_seconds=every,
        progress=False,
    )
    run.save_tensors(model.state_dict())
    run.save_json("note", {"steps": steps})


def square(x: int) -> tuple[int, int]:
    """A job that says how many threads torch has."""
    return x * x, torch.get_num_threads()


def fail_at(bad: int, x: int, seconds: float) -> int:
    """A job that fails for one argument and is slow for the others."""
    if x == bad:
        raise UsageError(f"x={x}: must be good")
    time.sleep(seconds)
    return x


def note_pid_and_wait(folder: str) -> None:
    """Say who computes, then take long."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)


if __name__ == "__main__":
    root, seconds, every = sys.argv[1:]
    Store(Path(root)).get_or_train(
        SPEC, lambda run: train(run, seconds_per_step=float(seconds), every=float(every))
    )
