"""Notebook 02: the choices inside a diffusion model, each beside its alternatives, on the toy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from uepo_lib import plotting
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import (
    DiffusionConfig,
    DiffusionModel,
    build_diffusion,
    ema_update,
    warmup_cosine,
)
from uepo_lib.figures.policy import LEVEL, estimate_table
from uepo_lib.schedules import Prediction, Schedule
from uepo_lib.toys import Doors, exact_model, gaussian_output_sd

PREDICTIONS: dict[Prediction, tuple[str, str]] = {
    "x0": ("$x_0$", plotting.COLOURS["UEPO"]),
    "epsilon": (r"$\varepsilon$", plotting.COLOURS["BC"]),
    "v": ("$v$", plotting.COLOURS["model"]),
}
SAMPLERS = {
    "DDIM": (0.0, plotting.COLOURS["UEPO"]),
    "DDPM": (1.0, plotting.COLOURS["BC"]),
}

# -- tables


def amplification(schedule: Schedule, kind: Prediction, k: Tensor) -> Tensor:
    """∂x̂_0/∂(prediction) at steps k (B,), in absolute value: 1, σ_k/α_k or σ_k; (B,)."""
    zero, one = torch.zeros(len(k), 1, 1), torch.ones(len(k), 1, 1)
    moved = schedule.x0(one, zero, k, kind) - schedule.x0(zero, zero, k, kind)
    return moved.abs().flatten()


def prediction_table(models: Mapping[Prediction, DiffusionModel], toy: Doors) -> pd.DataFrame:
    """Amplification of an error of the network, and the RMSE of x̂_0 to the exact posterior mean.

    Columns prediction, k, amplification, rmse; one row for every third level.
    """
    rows = []
    for kind, model in models.items():
        for k, rmse in rmse_to_exact(model, toy).items():
            gain = float(amplification(model.schedule, kind, torch.tensor([k])))
            rows.append((kind, k, gain, rmse))
    return pd.DataFrame(rows, columns=["prediction", "k", "amplification", "rmse"])


def rmse_to_exact(model: DiffusionModel, toy: Doors) -> pd.Series:
    """RMSE of x̂_0 to E[x_0 | x_k, s], indexed by every third level k."""
    table = estimate_table(model, exact_model(toy), toy)
    return table[table.what == "trained to exact"].set_index("k").rmse


def samplers_table(toy: Doors, steps: Sequence[int], std: float, draws: int = 500) -> pd.DataFrame:
    """DDIM and DDPM with exact networks: columns sampler, steps, spread, inside.

    ``spread`` is the output's sd over the data's, for one Gaussian of ``std``, in closed form;
    ``inside`` the share of ``draws`` walks of ``toy`` that are in a mode's support.
    """
    model, states = exact_model(toy), torch.zeros(draws, 2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(draws, *model.action_shape, generator=generator)
    rows = []
    for name, (eta, _) in SAMPLERS.items():
        for n in steps:
            actions = model.sample(noise, toy.past(states), n, eta=eta, generator=generator)
            spread = gaussian_output_sd(model, std, n, eta) / std
            inside = float(toy.in_support(actions, states).float().mean())
            rows.append((name, n, spread, inside))
    return pd.DataFrame(rows, columns=["sampler", "steps", "spread", "inside"])


def averaging_table(
    toy: Doors, cfg: DiffusionConfig, net: DenoiserConfig, every: int, seed: int = 0
) -> pd.DataFrame:
    """A network's weights against their moving average, at a constant and at a decaying rate.

    Columns rate, weights, update, rmse (to the exact posterior mean, over all levels).
    """
    rates = {"constant": lambda step: min((step + 1) / cfg.warmup, 1.0), "decaying": None}
    rows = []
    for name, factor in rates.items():
        model = build_diffusion(cfg, net, 2, 2, seed)
        ema = AveragedModel(model, multi_avg_fn=ema_update(cfg.ema_decay))
        optimizer = torch.optim.AdamW(model.parameters(), cfg.lr, weight_decay=cfg.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor or warmup_cosine(cfg))
        generator = torch.Generator().manual_seed(seed)
        for update in range(1, cfg.num_updates + 1):
            _step(model, toy, cfg, optimizer, generator)
            schedule.step()
            ema.update_parameters(model)
            if update % every == 0:
                averaged = ema.module
                assert isinstance(averaged, DiffusionModel)
                for weights, found in (("last", model), ("averaged", averaged)):
                    rows.append((name, weights, update, rmse_to_exact(found, toy).mean()))
    return pd.DataFrame(rows, columns=["rate", "weights", "update", "rmse"])


def _step(
    model: DiffusionModel,
    toy: Doors,
    cfg: DiffusionConfig,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """One update, as ``train_diffusion`` makes it."""
    index = torch.randint(len(toy), (cfg.batch_size,), generator=generator)
    optimizer.zero_grad()
    model.loss(toy.batch(index), generator).backward()
    nn.utils.clip_grad_norm_(model.parameters(), cfg.max_grad_norm)
    optimizer.step()


def backbones_table(
    models: Mapping[str, DiffusionModel], toy: Doors, repeats: int = 31
) -> pd.DataFrame:
    """Columns backbone, parameters, rmse (to the exact posterior mean), train_step, sample.

    Times are of one training step and of one decision for one state, over those of the first
    model: medians of ``repeats``, taken in turn, so that whatever else the machine does meets all.
    """
    jobs: dict[tuple[str, str], Callable[[], object]] = {}
    for name, model in models.items():
        copy = build_diffusion(model.config, model.denoiser.config, 2, 2)
        cfg = replace(model.config, batch_size=128)
        optimizer = torch.optim.AdamW(copy.parameters(), cfg.lr, fused=True)
        generator = torch.Generator().manual_seed(0)
        past, noise = toy.past(torch.zeros(1, 2)), torch.zeros(1, *model.action_shape)
        jobs[name, "train_step"] = partial(_step, copy, toy, cfg, optimizer, generator)
        jobs[name, "sample"] = partial(model.sample, noise, past)
    seconds = _median_seconds(jobs, repeats)
    first, rows = next(iter(models)), []
    for name, model in models.items():
        size = sum(p.numel() for p in model.denoiser.parameters())
        ratios = [seconds[name, job] / seconds[first, job] for job in ("train_step", "sample")]
        rows.append((name, size, rmse_to_exact(model, toy).mean(), *ratios))
    return pd.DataFrame(rows, columns=["backbone", "parameters", "rmse", "train_step", "sample"])


def _median_seconds(
    jobs: Mapping[tuple[str, str], Callable[[], object]], repeats: int
) -> dict[tuple[str, str], float]:
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
    for _ in range(repeats + 1):
        for key, job in jobs.items():
            start = time.perf_counter()
            job()
            taken[key].append(time.perf_counter() - start)
    return {key: sorted(times[1:])[repeats // 2] for key, times in taken.items()}


# -- figures


@plotting.figure("prediction_types")
def prediction_types(table: pd.DataFrame) -> Figure:
    """What becomes of an error of the network in x̂_0, and what is left of it after training."""
    figure, (left, right) = plotting.panels(2)
    for kind, (label, colour) in PREDICTIONS.items():
        part = table[table.prediction == kind]
        left.semilogy(part.k, part.amplification, color=colour, label=label)
        right.semilogy(part.k, part.rmse, color=colour, label=label)
    left.set(xlabel=LEVEL, ylabel="error in $\\hat x_0$ per unit\nof the network's error")
    right.set(xlabel=LEVEL, ylabel="RMSE of $\\hat x_0$ to the exact\n(action units)")
    left.legend(title="predicts")
    return figure


@plotting.figure("samplers")
def samplers(table: pd.DataFrame) -> Figure:
    """DDIM beside DDPM, over the number of steps."""
    figure, (left, right) = plotting.panels(2)
    ticks = sorted(table.steps.unique())
    for name, (_, colour) in SAMPLERS.items():
        part = table[table.sampler == name]
        left.plot(part.steps, part.spread, color=colour, marker="o", markersize=3, label=name)
        right.plot(part.steps, part.inside, color=colour, marker="o", markersize=3, label=name)
    for axis in (left, right):
        axis.axhline(1, color="0.7", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(n) for n in ticks])
        axis.minorticks_off()
        axis.set(xlabel="denoising steps", ylim=(-0.03, None))
    left.set_ylabel("output sd / data sd, one Gaussian")
    right.set_ylabel("share in a mode's support")
    left.legend()
    return figure


@plotting.figure("weight_averaging")
def weight_averaging(table: pd.DataFrame) -> Figure:
    """Last weights and averaged weights, at a constant and at a decaying learning rate."""
    figure, axes = plotting.panels(2)
    styles = {"last": plotting.COLOURS["data"], "averaged": plotting.COLOURS["UEPO"]}
    for axis, (rate, rows) in zip(axes, table.groupby("rate", sort=False), strict=True):
        for weights, colour in styles.items():
            part = rows[rows.weights == weights]
            axis.plot(part["update"], part.rmse, color=colour, label=weights)
        axis.set(xlabel="update", title=f"{rate} learning rate")
    axes[1].sharey(axes[0])
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel("RMSE of $\\hat x_0$ to the exact\n(action units)")
    axes[0].legend(title="weights")
    return figure
