"""The exact likelihood of a diffusion model's deterministic flow: the oracle of the bound (A5).

With z = x/α and ρ = σ/α, DDIM's ODE (arXiv 2010.02502, eq. 14) is dz/dρ = ε̂; in λ = log ρ, minus
half the log-SNR, it reads

    dz/dλ = z − x̂_0(α z),        d log p(z)/dλ = −tr ∂(dz/dλ)/∂z = tr ∂x̂_0/∂z − T·A,

the probability flow and the instantaneous change of variables of Song et al. 2021 (arXiv
2011.13456, section 4.3 and D.2), with the trace exact instead of Hutchinson's estimate of it. Both
x̂_0 and its trace change slowly in λ, so between two levels of the schedule they are taken as
linear: nothing but levels that the network was trained on is asked for, the large linear part is
integrated exactly, and the error falls with the square of the distance between levels.

The model knows no noise below level 0. There it has the decoder of the bound, p(a | x_{k=0}), hence

    p(a) = ∫ p(a | z_0) p_flow(z_0) dz_0 = E_{q(z_0 | a)} [ p(a | z_0) p_flow(z_0) / q(z_0 | a) ],

estimated with draws of q (variational dequantisation: Ho et al. 2019, arXiv 1902.00275). For
Gaussian data and the calibrated decoder the ratio is the same for every draw.

x̂_0 is :meth:`DiffusionModel.predict_x0`, clamp included: the flow is the one that the sampler
follows. Where x̂_0 is clamped, its derivative is 0, which is that of the map; p stays normalised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uepo_lib.denoisers import Context
from uepo_lib.diffusion import DiffusionModel
from uepo_lib.errors import check
from uepo_lib.likelihood import BIN_WIDTH, log_decoder, signal_to_noise

REVISION = 1


@torch.no_grad()
def flow_log_likelihood(
    model: DiffusionModel,
    actions: Tensor,
    condition: Tensor | Context,
    generator: torch.Generator | None = None,
    *,
    errors: Tensor,
    num_draws: int = 1,
    bin_width: float = BIN_WIDTH,
) -> Tensor:
    """log p(a_{1:T} | s) of the probability flow: (B, T, A) -> (B,) nats.

    ``condition`` and ``bin_width`` as in :func:`likelihood.log_likelihood_bound`; of ``errors``
    (K,) only e_0² is used, the decoder's variance. The estimate of p is unbiased; that of log p
    lies below by a variance that more ``num_draws`` make smaller. A call costs K · ``num_draws`` ·
    T·A passes of the network, forward and backward.

    Raises:
        UsageError: ``num_draws`` is not positive.
    """
    check(num_draws >= 1, "num_draws", num_draws, "a positive integer")
    context = condition if isinstance(condition, Context) else model.encode(condition)
    rho = signal_to_noise(model)[0] ** -0.5
    level, start = torch.zeros(1, dtype=torch.long, device=actions.device), actions
    alpha = model.schedule.alpha(level)
    ratios = []
    for _ in range(num_draws):
        noise = torch.randn(start.shape, generator=generator, device=start.device)
        z = actions + rho * noise
        x0 = model.predict_x0(alpha * z, level, context)
        log_q = (-0.5 * noise.square() - math.log(math.sqrt(2 * math.pi)) - rho.log()).sum((1, 2))
        decoded = log_decoder(actions, x0, errors[0].sqrt(), bin_width)
        ratios.append(flow_log_density(model, z, context) + decoded - log_q)
    return torch.stack(ratios).logsumexp(dim=0) - math.log(num_draws)


@torch.no_grad()
def flow_log_density(model: DiffusionModel, z: Tensor, context: Context) -> Tensor:
    """log p_flow of z = x/α at level k = 0, from N(0, I) of x at k = K − 1: (B, T, A) -> (B,)."""
    rho, size = signal_to_noise(model) ** -0.5, z[0].numel()
    x0, trace = estimate_and_trace(model, z, context, 0)
    divergence = torch.zeros_like(trace)
    for k in range(len(rho) - 1):
        growth, h = rho[k + 1] / rho[k], (rho[k + 1] / rho[k]).log()
        ahead = x0 + growth * (z - x0)  # x̂_0 constant over the step: DDIM, upwards
        later = _estimate(model, ahead, context, k + 1)
        z = ahead - (later - x0) * (growth - 1 - h) / h  # x̂_0 linear in λ
        before = trace
        x0, trace = estimate_and_trace(model, z, context, k + 1)
        divergence = divergence + h * (size - (before + trace) / 2)
    alpha = model.schedule.alpha(torch.full((1,), len(rho) - 1, device=z.device)).squeeze()
    log_normal = -0.5 * ((alpha * z).square() + math.log(2 * math.pi)).sum(dim=(1, 2))
    return log_normal + size * alpha.log() + divergence


def estimate_and_trace(
    model: DiffusionModel, z: Tensor, context: Context, k: int
) -> tuple[Tensor, Tensor]:
    """x̂_0(α_k z) (B, T, A) and tr ∂x̂_0/∂z (B,), exactly.

    T·A copies of the batch in one pass: copy d gives the derivative of output d by input d.
    """
    size, count = z[0].numel(), len(z)
    with torch.enable_grad():
        copies = z.repeat(size, 1, 1).requires_grad_(True)
        x0 = _estimate(model, copies, context.repeat(size), k)
        each = torch.arange(size, device=z.device)
        own = x0.view(size, count, size)[each, :, each]
        gradient = torch.autograd.grad(own.sum(), copies)[0]
    trace = gradient.view(size, count, size)[each, :, each].sum(dim=0)
    return x0[:count].detach(), trace


def _estimate(model: DiffusionModel, z: Tensor, context: Context, k: int) -> Tensor:
    level = torch.full((1,), k, device=z.device)
    return model.predict_x0(model.schedule.alpha(level) * z, level, context)
