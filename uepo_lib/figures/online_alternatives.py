"""Notebook 07: other ways to go online. Its tables are those of the experiment."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uepo_lib import plotting
from uepo_lib.experiments.online_alternatives import TITLES

COLOURS = {
    "chain": plotting.COLOURS["UEPO"],
    "noise": plotting.COLOURS["highlight"],
    "frozen": plotting.COLOURS["data"],
    "refitted": plotting.COLOURS["model"],
    "short": plotting.COLOURS["BC"],
    "augmented": plotting.COLOURS["control"],
}
GREY = "0.35"
"""Of all ends: their rows are named."""


@plotting.figure("online_alternatives")
def online_alternatives(table: pd.DataFrame) -> Figure:
    """Chain and initial noise on their way, every seed and the mean; then all ends."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4), width_ratios=(1, 1.25))
    for name in ("chain", "noise"):
        part = table[table["name"] == name]
        for _, one in part.groupby("seed"):
            left.plot(one.env_steps, one.score, color=COLOURS[name], alpha=0.35, linewidth=0.9)
        mean = part.groupby("look")[["env_steps", "score"]].mean()
        left.plot(mean.env_steps, mean.score, color=COLOURS[name], marker="o", markersize=3,
                  label=TITLES[name])  # fmt: skip
    left.set(xlabel="online environment steps", ylabel="normalised return,\nnoise-free policy")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1))
    left.xaxis.set_major_locator(MaxNLocator(4))
    _differences(right, table)
    return figure


def _differences(axis: Axes, table: pd.DataFrame) -> None:
    """The end of every alternative minus that of the chain on its seed, a dot a run. What was run
    on fewer seeds than the chain is open."""
    ends = table[table.look == 0]
    chain = ends[ends["name"] == "chain"].set_index("seed").end
    names = [name for name in TITLES if name != "chain" and name in set(ends["name"])]
    for place, name in enumerate(reversed(names)):
        part = ends[ends["name"] == name]
        values = part.end - part.seed.map(chain)
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
        inside = GREY if len(values) == len(chain) else "white"
        axis.scatter(values, place + spread, s=26, facecolor=inside, edgecolor=GREY, zorder=3)
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set_yticks(range(len(names)), [TITLES[name] for name in reversed(names)], size=8)
    counts = ends.groupby("name").seed.nunique()[names]
    for count in sorted(counts.unique(), reverse=True):
        inside = GREY if count == len(chain) else "white"
        axis.scatter([], [], s=26, facecolor=inside, edgecolor=GREY,
                     label=f"run on {count} seed{'s' if count > 1 else ''}")  # fmt: skip
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_xlabel("end minus the chain's (points of score)")


@plotting.figure("model_looks")
def model_looks(table: pd.DataFrame) -> Figure:
    """T̂'s NLL of each new batch before and after its refit; AM-Q's gate at the same looks."""
    figure, (left, right) = plotting.panels(2, width=3.7, height=3.0)
    for (name, _), one in table.groupby(["name", "seed"], sort=False):
        colour, label = COLOURS[str(name)], TITLES[str(name)]
        left.plot(one.env_steps, one.nll_before, color=colour, marker="o", markersize=3)
        left.plot(one.env_steps, one.nll_after, color=colour, linestyle=":", marker=".")
        right.plot(one.env_steps, one.amq_now - one.amq_kept, color=colour, marker="o",
                   markersize=3, label=label)  # fmt: skip
    back = table[table.rolled_back == 1]
    right.scatter(back.env_steps, back.amq_now - back.amq_kept, marker="x", s=60,
                  color=[COLOURS[str(name)] for name in back["name"]], zorder=3)  # fmt: skip
    if len(back):
        right.plot([], [], "x", color="0.4", label="went back")
    left.set(xlabel="online environment steps", ylabel="mean NLL of the new steps (nats)",
             title="before (solid) and after a refit (dotted)")  # fmt: skip
    right.axhline(0, color="0.5", linewidth=0.8)
    right.set(xlabel="online environment steps", title="the gate",
              ylabel="AM-Q: present policy\n− last accepted one")  # fmt: skip
    handles, labels = right.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    right.legend(unique.values(), unique.keys(), loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
