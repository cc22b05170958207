"""How likely a diffusion model finds a logged action sequence, in nats (A5).

The variational bound of DDPM (arXiv 2006.11239, eq. 5), written with SNR_k = ᾱ_k/(1 − ᾱ_k) as in
Kingma et al. 2021 (arXiv 2107.00630, eq. 14). With d_k = SNR_{k−1} − SNR_k and the reverse step's
variance r_k times that of the true posterior q(x_{k−1} | x_k, x_0),

    log p(x_0) ≥ E log p(x_0 | x_{k=0}) − KL(q(x_{K−1} | x_0) ‖ N(0, I))
                 − Σ_{k=1}^{K−1} ½ E[ T·A (log r_k + 1/r_k − 1) + d_k ‖x_0 − x̂_0(x_k)‖² / r_k ].

DDPM's choice is r_k = 1. The best is r_k = 1 + d_k e_k², e_k² being the model's mean squared error
in x̂_0 (Bao et al. 2022, arXiv 2201.06503): the bound is then exact for Gaussian data, where r_k = 1
loses half a nat a dimension at K = 50. :func:`estimation_errors` measures e_k².
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uepo_lib.denoisers import Context
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.errors import check

REVISION = 1

BIN_WIDTH = 2 / 255
"""DDPM's bins, of 8-bit images in [−1, 1]."""


@torch.no_grad()
def log_likelihood_bound(
    model: DiffusionModel,
    actions: Tensor,
    condition: Tensor | Context,
    generator: torch.Generator | None = None,
    *,
    errors: Tensor | None = None,
    num_terms: int | None = None,
    bin_width: float = BIN_WIDTH,
) -> Tensor:
    """A lower bound on log p(a_{1:T} | s), one noise draw a term: (B, T, A) -> (B,) nats.

    ``condition`` as everywhere: past states, or ``model.encode(past, future)`` for the paper's
    s_{1:T}. Two models, or two sub-policies, are compared with *common random numbers*: give each a
    generator with the same seed. ``errors`` (K,) are e_k²; None is DDPM's bound. ``num_terms``
    draws that many of the K − 1 middle terms in place of all. The result is a log *density*;
    actions are read as bins of ``bin_width``, see :func:`log_decoder`.
    """
    total, size = model.config.num_train_steps, actions[0].numel()
    context = condition if isinstance(condition, Context) else model.encode(condition)
    snr = signal_to_noise(model)
    steps = torch.arange(1, total)
    if num_terms is not None:
        check(1 <= num_terms <= total - 1, "num_terms", num_terms, f"in 1 .. K - 1 = {total - 1}")
        device = "cpu" if generator is None else generator.device
        order = torch.randperm(total - 1, generator=generator, device=device)
        steps = steps[order[:num_terms].cpu()]

    x0 = _estimate(model, actions, context, 0, generator)
    std = snr[0] ** -0.5 if errors is None else errors[0].sqrt()
    bound = log_decoder(actions, x0, std, bin_width)
    bound = bound - _prior_kl(actions, snr[-1] / (1 + snr[-1]))
    for k in steps.tolist():
        x0 = _estimate(model, actions, context, k, generator)
        d = snr[k - 1] - snr[k]
        r = torch.ones_like(d) if errors is None else 1 + d * errors[k]
        error = d * (actions - x0).square().sum(dim=(1, 2))
        kl = 0.5 * (size * (r.log() + 1 / r - 1) + error / r)
        bound = bound - kl * (total - 1) / len(steps)
    return bound


@torch.no_grad()
def estimation_errors(
    model: DiffusionModel,
    actions: Tensor,
    condition: Tensor | Context,
    generator: torch.Generator | None = None,
) -> Tensor:
    """e_k², the mean squared error of x̂_0 at every step, on data (B, T, A) kept for this: (K,)."""
    context = condition if isinstance(condition, Context) else model.encode(condition)
    steps = range(model.config.num_train_steps)
    estimates = (_estimate(model, actions, context, k, generator) for k in steps)
    return torch.stack([(actions - x0).square().mean() for x0 in estimates])


def _estimate(
    model: DiffusionModel, x0: Tensor, context: Context, k: int, generator: torch.Generator | None
) -> Tensor:
    """x̂_0 from x_0 with fresh noise of step k: (B, T, A)."""
    step = torch.full((1,), k, device=x0.device)
    noise = torch.randn(x0.shape, generator=generator, device=x0.device)
    return model.predict_x0(model.schedule.add_noise(x0, noise, step), step, context)


def signal_to_noise(model: DiffusionModel) -> Tensor:
    """SNR_0 .. SNR_{K−1}: (K,)."""
    k = torch.arange(model.config.num_train_steps, device=model.device)
    return (model.schedule.alpha(k) / model.schedule.sigma(k)).square().flatten()


def _prior_kl(x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """KL(N(α x_0, (1 − ᾱ) I) ‖ N(0, I)): (B,)."""
    return 0.5 * (alpha_bar * (x0**2 - 1) - torch.log1p(-alpha_bar)).sum(dim=(1, 2))


def log_decoder(x0: Tensor, mean: Tensor, std: Tensor, width: float) -> Tensor:
    """log N(x_0; mean, std²) discretised as in DDPM eq. 13, per unit of action: (B,).

    The mass of the bin of ``width`` around x_0, divided by ``width``. Bins at −1 and 1 reach to
    infinity: actions were clipped to the box, so their density has an atom at each end, which a
    plain Gaussian density would misjudge.
    """
    upper = torch.where(x0 + width / 2 >= 1, torch.inf, (x0 - mean + width / 2) / std)
    lower = torch.where(x0 - width / 2 <= -1, -torch.inf, (x0 - mean - width / 2) / std)
    # In the upper tail the two values of Φ round to 1; mirrored, they keep their digits.
    mirrored = lower > 0
    high, low = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    log_mass = log_high + torch.log1p(-torch.exp(log_low - log_high))
    return (log_mass - math.log(width)).sum(dim=(1, 2))
