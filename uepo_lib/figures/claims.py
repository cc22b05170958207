"""Notebook 20: the paper's Table 1, row by row."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from uepo_lib import plotting

BLOCKS = ("locomotion", "Adroit", "kitchen")


@plotting.figure("20_table_1")
def draw_table_1(table: pd.DataFrame) -> Figure:
    """UEPO's score less Uni-O4's, as printed †: a bar a dataset, a panel a block, for which the
    paper claims its gains; all bars to one scale, in the grey of what was not measured here."""
    parts = {block: table[table["block"] == block] for block in BLOCKS}
    figure, panels = plotting.plt.subplots(
        len(parts), 1, figsize=(6.6, 5.0), sharex=True,
        gridspec_kw={"height_ratios": [len(part) for part in parts.values()]},
    )  # fmt: skip
    for axes, (block, part) in zip(panels, parts.items(), strict=True):
        bars = axes.barh(part["dataset"], part["gain"], color="0.55", height=0.7, linewidth=0)
        numbers = [f"{gain:+.1f}".replace("-", "−") for gain in part["gain"]]
        axes.bar_label(bars, numbers, padding=3, size=8)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_title(block, loc="left")
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.11)  # room for the numbers
        axes.set_ylim(-0.6, len(part) - 0.4)
    panels[-1].xaxis.set_major_locator(MultipleLocator(5))
    panels[-1].set_xlabel("UEPO − Uni-O4, normalised score, as printed")
    return figure
