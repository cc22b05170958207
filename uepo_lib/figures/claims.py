"""Notebook 20: the paper's Table 1, row by row."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from uepo_lib import plotting

COLOURS = {"locomotion": "UEPO", "Adroit": "BC", "kitchen": "model"}


@plotting.figure("20_table_1")
def draw_table_1(table: pd.DataFrame) -> Figure:
    """UEPO's score less Uni-O4's, a bar a dataset, as printed †."""
    figure, (axes,) = plotting.panels(1, 6.0, 3.8)
    for block, name in COLOURS.items():
        mine = table[table["block"] == block]
        axes.barh(mine.index, mine["gain"], color=plotting.COLOURS[name], label=block, height=0.7)
    axes.set_yticks(table.index, table["dataset"], fontsize=7.5)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_xlabel("UEPO − Uni-O4, normalised score, as printed")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right")
    return figure
