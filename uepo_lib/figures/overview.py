"""Notebook 00: the method at a glance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

from uepo_lib import plotting

NODES = (
    # name, title, symbol, notebook, colour, x, y
    ("data", "data", r"$\mathcal{D}$", "01", "data", 0, 1),
    ("diffusion", "diffusion policy", r"$p_\theta(a_{1:T}\,|\,s)$", "02", "UEPO", 1, 1),
    ("many", "sub-policies", r"$\pi^1 \ldots\ \pi^n$", "03", "UEPO", 2, 1),
    ("divergence", "divergence", r"$\mathrm{div}(a_i, a_j) \geq \tau$?", "04", "highlight", 2, 0),
    ("augmentation", "augmentation", r"$\mathcal{D}_\mathrm{diff}$: KL $< \epsilon$", "05",
     "data", 3, 1),
    ("dynamics", "dynamics", r"$\hat{T}(s'\,|\,s, a)$", "05", "model", 4, 1),
    ("critic", "critic", r"$Q,\ V$", "06", "model", 5, 2),
    ("selection", "selection", r"AM-Q $\rightarrow \pi^*$", "06", "UEPO", 5, 1),
    ("online", "online PPO", r"$\pi^*$ on its chain", "07", "UEPO", 6, 1),
)  # fmt: skip

EDGES = (
    # from, to, label, level of the horizontal part (none: straight), shifts of both ends, dashed
    ("data", "diffusion", "", None, 0, 0, False),
    ("diffusion", "many", r"$\epsilon_i$", None, 0, 0, False),
    ("many", "divergence", "compare", None, -0.2, -0.2, False),
    ("divergence", "many", "push apart", None, 0.2, 0.2, False),
    ("many", "augmentation", "act", None, 0, 0, False),
    ("augmentation", "dynamics", "fit", None, 0, 0, False),
    ("dynamics", "augmentation", r"$\hat{T}_\mathrm{init}$ filters", 0.5, -0.2, 0.15, False),
    ("data", "dynamics", "fit", -0.55, 0, 0, False),
    ("data", "critic", "fit", 2.0, 0, 0, False),
    ("critic", "selection", "", None, 0.15, 0.15, False),
    ("many", "selection", "candidates", 1.55, 0, -0.15, False),
    ("dynamics", "selection", "", None, 0, 0, False),
    ("selection", "online", "", None, 0, 0, False),
    ("online", "dynamics", "refit", 0.5, 0, 0.2, True),
)
WIDTH, HEIGHT = 0.78, 0.5


def overview_table() -> pd.DataFrame:
    """The steps of Algorithm 1 and what passes between them, a row a node or an edge."""
    nodes = pd.DataFrame(
        NODES, columns=["name", "label", "symbol", "notebook", "colour", "x", "y"]
    ).assign(kind="node")
    edges = pd.DataFrame(
        EDGES, columns=["name", "target", "label", "level", "shift", "target_shift", "dashed"]
    ).assign(kind="edge")
    return pd.concat([nodes, edges], ignore_index=True)


@plotting.figure("overview")
def overview(table: pd.DataFrame) -> Figure:
    """Boxes and arrows; blue acts, green predicts, grey is data, orange keeps policies apart."""
    made, (axes,) = plotting.panels(1, 10.5, 4.3)
    axes.set(xlim=(-0.6, 6.6), ylim=(-0.8, 2.45))
    axes.axis("off")
    for left, width, phase in ((-0.55, 6.03, "offline: logged data only"), (5.54, 1.0, "online")):
        shade = "0.965" if left < 0 else "#eaf3f9"
        axes.add_patch(Rectangle((left, -0.75), width, 3.15, facecolor=shade, zorder=0))
        axes.text(left + 0.08, -0.66, phase, size=8.5, color="0.4", style="italic")
    nodes = table[table.kind == "node"].set_index("name")
    for _, node in nodes.iterrows():
        _box(axes, node)
    for _, edge in table[table.kind == "edge"].iterrows():
        _arrow(axes, edge, nodes)
    return made


def _box(axes: Axes, node: pd.Series) -> None:
    colour = plotting.COLOURS[node.colour]
    corner = (node.x - WIDTH / 2, node.y - HEIGHT / 2)
    for face, edge, alpha in (
        ("white", "none", 1.0),
        (colour, "none", 0.13),
        ("none", colour, 0.8),
    ):
        axes.add_patch(
            FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08",
                           facecolor=face, edgecolor=edge, alpha=alpha, zorder=2)
        )  # fmt: skip
    axes.text(node.x, node.y + 0.1, node.label, ha="center", va="center", size=8.5,
              weight="bold", color="0.15", zorder=3)  # fmt: skip
    axes.text(node.x, node.y - 0.1, node.symbol, ha="center", va="center", size=8.5,
              color="0.15", zorder=3)  # fmt: skip
    axes.text(corner[0] + 0.02, corner[1] + HEIGHT + 0.03, f"{int(node.notebook):02d}", size=7,
              color=colour, weight="bold", va="bottom")  # fmt: skip


def _arrow(axes: Axes, edge: pd.Series, nodes: pd.DataFrame) -> None:
    corners = _route(edge, nodes.loc[edge["name"]], nodes.loc[edge.target])
    style = "--" if edge.dashed in (True, "True") else "-"
    axes.add_patch(
        FancyArrowPatch(path=Path(corners), arrowstyle="-|>", mutation_scale=9, color="0.35",
                        linewidth=1.0, linestyle=style, joinstyle="round", zorder=1)
    )  # fmt: skip
    if isinstance(edge.label, str) and edge.label:
        a, b = corners[-3:-1] if len(corners) > 2 else corners
        upright = a[0] == b[0]
        x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
        side = np.sign(edge["shift"]) * 0.05 if upright else 0.0
        axes.text(x + side, y if upright else y + 0.04, edge.label, size=7, color="0.35",
                  ha={-1: "right", 0: "center", 1: "left"}[int(np.sign(side))],
                  va="center" if upright else "bottom")  # fmt: skip


def _route(edge: pd.Series, a: pd.Series, b: pd.Series) -> list[tuple[float, float]]:
    """Corners of an arrow: straight to the neighbour, or along ``level`` above or below."""
    xa, xb = a.x + edge["shift"], b.x + edge.target_shift
    if pd.isna(edge.level):
        if a.y == b.y:
            way = np.sign(b.x - a.x)
            return [(a.x + way * WIDTH / 2, a.y), (b.x - way * WIDTH / 2, b.y)]
        way = np.sign(b.y - a.y)
        return [(xa, a.y + way * HEIGHT / 2), (xb, b.y - way * HEIGHT / 2)]
    leave = a.y + np.sign(edge.level - a.y) * HEIGHT / 2
    if edge.level == b.y:  # enters from the left
        end = (b.x - WIDTH / 2, b.y)
        return [(xa, leave), (xa, edge.level), ((xa + end[0]) / 2, edge.level), end]
    arrive = b.y + np.sign(edge.level - b.y) * HEIGHT / 2
    return [(xa, leave), (xa, edge.level), (xb, edge.level), (xb, arrive)]
