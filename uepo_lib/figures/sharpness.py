"""How sharp the KL filter is: costs of real sequences, their autocorrelation, acceptance."""

from __future__ import annotations

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats
from torch import Tensor

from uepo_lib import correlation, plotting
from uepo_lib.augmentation import AugmentationConfig, reference_costs, step_costs
from uepo_lib.datasets import Batch
from uepo_lib.dynamics import DynamicsModel


def real_costs(model: DynamicsModel, batch: Batch, cfg: AugmentationConfig) -> Tensor:
    """The cost of every step of real sequences, (M, H) nats a dimension."""
    states = torch.cat([batch.past[:, -1:], batch.future[:, :-1]], 1)
    actions = batch.actions[:, : batch.future.shape[1]]
    flat = (x.flatten(0, 1) for x in (states, actions, batch.future))
    return step_costs(model, cfg, *flat).view(states.shape[:2])


def real_excess(model: DynamicsModel, batch: Batch, cfg: AugmentationConfig) -> Tensor:
    """The filter's excess cost of real sequences over their own median: (M,)."""
    reference = reference_costs(model, batch.past, batch.actions, batch.future, cfg)
    return real_costs(model, batch, cfg).mean(1) - reference[-1]


def ar1_table(coefficients: tuple[float, ...], horizon: int, size: int = 20_000) -> pd.DataFrame:
    """AR(1) costs of variance 1, whose answer is known: columns coefficient, effective steps,
    predicted and measured width (half the range from 16 to 84 % acceptance)."""
    rows = []
    for i, coefficient in enumerate(coefficients):
        generator = torch.Generator().manual_seed(i)
        costs = correlation.ar1_costs(coefficient, size, horizon, generator)
        steps = correlation.effective_steps(correlation.ar1(coefficient, horizon))
        rows.append((coefficient, steps, steps**-0.5, acceptance_width(costs.mean(1))))
    return pd.DataFrame(rows, columns=["coefficient", "effective steps", "predicted", "measured"])


def acceptance_width(excess: Tensor) -> float:
    """Half of what ε must grow by for acceptance to go from 16 to 84 %: σ, were it Gaussian."""
    levels = torch.tensor(stats.norm.cdf([-1.0, 1.0]), dtype=excess.dtype)
    low, high = excess.quantile(levels)
    return float(high - low) / 2


def sharpness_table(costs: Tensor) -> tuple[pd.DataFrame, dict[str, float]]:
    """Autocorrelation and acceptance of real sequences' step costs (M, H), and their widths.

    The table has columns part ("autocorrelation" by lag, "acceptance" by ε), name, x, y. Widths:
    the three of ``correlation.predicted_widths``, "measured std" of the mean cost, "quantiles"
    (:func:`acceptance_width`), and "effective steps".
    """
    covariance = correlation.autocovariance(costs.double())
    rho = covariance / covariance[0]
    predicted = correlation.predicted_widths(costs)
    mean = costs.double().mean(1)
    excess = mean - mean.median()
    reach = 3 * float(mean.std())
    grid = torch.linspace(-reach, reach, 61, dtype=torch.float64)
    below = (excess.unsqueeze(0) < grid.unsqueeze(1)).double().mean(1)
    curves = {"measured": below} | {
        name: torch.special.ndtr(grid / width) for name, width in predicted.items()
    }
    lags = torch.arange(len(rho))
    by_lag = {"measured": rho, "AR(1)": correlation.ar1(float(rho[1]), len(rho))}
    parts = [
        pd.DataFrame({"part": part, "name": name, "x": x, "y": y})
        for part, x, lines in (("autocorrelation", lags, by_lag), ("acceptance", grid, curves))
        for name, y in lines.items()
    ]
    widths = {
        **predicted,
        "measured std": float(mean.std(correction=0)),
        "quantiles": acceptance_width(mean),
        "effective steps": correlation.effective_steps(rho),
    }
    return pd.concat(parts), widths


# -- figure


@plotting.figure("05_sharpness")
def draw_sharpness(table: pd.DataFrame) -> Figure:
    """Left, the autocorrelation of step costs; right, acceptance against ε, as measured and as
    Gaussians of the predicted widths."""
    figure, (left, right) = plotting.panels(2, 4.2, 3.0)
    lags = table[table["part"] == "autocorrelation"]
    for name, colour in (("measured", "data"), ("AR(1)", "highlight")):
        line = lags[lags["name"] == name]
        plotting.seed_lines(left, line, "x", "y", plotting.COLOURS[colour], name)
    left.axhline(0, color="0.6", linewidth=0.8)
    left.set(xlabel="lag (steps)", ylabel="autocorrelation of the cost")
    left.legend()
    seed = table["seed"].min()  # each has its own grid of ε
    curves = table[(table["part"] == "acceptance") & (table["seed"] == seed)]
    colours = {"measured": "data", "independent": "BC", "AR(1)": "highlight", "all lags": "UEPO"}
    for name, colour in colours.items():
        curve = curves[curves["name"] == name]
        right.plot(curve["x"], curve["y"], color=plotting.COLOURS[colour], label=name)
    right.axvline(AugmentationConfig().epsilon, color="0.5", linestyle=":", label="the paper's ε")
    right.set(
        xlabel="ε (nats a dimension, over the real median)",
        ylabel="share of real sequences below ε",
    )
    right.set_title(f"seed {seed}")
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.legend(loc="upper left")
    return figure
