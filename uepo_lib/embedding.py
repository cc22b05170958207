"""``diversity="embedding"``: n sub-policies that differ by more than their noise (A5).

Sub-policies that differ in their seed alone share one p_θ, and the KL-style term is 0. Here each
has an embedding e_i, n fixed in training, added to the conditioning vector of the denoiser,

    c = silu(step(k) + states + e_i)   →   FiLM(h) = (1 + scale(c)) h + shift(c),

so that p^i(a_{1:T} | s) is a distribution of its own, all other weights shared. Embeddings start at
zero on a trained model, which is then n times that model, bit for bit. Training maximises

    J(π^i) = E_D[log p^i] + α term_i,

with one of the terms of ``diversity.py`` and the variational bound of ``likelihood.py`` in place of
log p^i. Members are compared with common random numbers: the same steps k and noise ε for all.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from uepo_lib.denoisers import Context, Denoiser
from uepo_lib.diffusion import DiffusionModel, SequenceWindows, ema_update
from uepo_lib.divergence import Guidance
from uepo_lib.diversity import ON_DATA, Diversity, separating_term
from uepo_lib.errors import check, unknown
from uepo_lib.likelihood import log_likelihood_bound, signal_to_noise
from uepo_lib.subpolicies import SubPolicies
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, descend_clipped, fit

REVISION = 1


class EmbeddedModel(DiffusionModel):
    """``model`` with n embeddings, all zero at first; its weights are copied.

    Everything of :class:`DiffusionModel` works with a context that :meth:`member` or
    :meth:`all_members` made; with a plain one it is the model without embedding.
    """

    def __init__(self, model: DiffusionModel, n: int) -> None:
        check(n >= 1, "n", n, "a positive integer")
        denoiser = copy.deepcopy(model.denoiser)
        check(isinstance(denoiser, Denoiser), "model", type(denoiser).__name__, "a trained network")
        super().__init__(model.config, denoiser)
        self.to(model.device)
        size = denoiser.config.d_model
        self.embedding = nn.Parameter(torch.zeros(n, size, device=model.device))

    @property
    def n(self) -> int:
        return len(self.embedding)

    def member(self, context: Context, index: Tensor) -> Context:
        """The context as member ``index`` (B,) of each row sees it."""
        return context._replace(current=context.current + self.embedding[index])

    def all_members(self, context: Context) -> Context:
        """B rows become n·B, member by member."""
        index = torch.arange(self.n, device=self.device)
        rows = index.repeat_interleave(len(context.current))
        return self.member(context.repeat(self.n), rows)

    def bound(self, actions: Tensor, context: Context, steps: Tensor, epsilon: Tensor) -> Tensor:
        """An estimate of log p(a_{1:T} | s) up to a constant, with gradient: (B, T, A) -> (B,).

        DDPM's bound is a constant − Σ_k w_k E‖x_0 − x̂_0(x_k)‖², where w_k = (SNR_{k−1} − SNR_k)/2
        and w_0 = SNR_0/2. ``steps`` (M,) are M of its K terms, in place of all; ``epsilon``
        (M, B, T, A) their noise.
        """
        snr = signal_to_noise(self)
        weights = 0.5 * torch.cat([snr[:1], snr[:-1] - snr[1:]])[steps]
        many, rows = len(steps), len(actions)
        k, x0 = steps.repeat_interleave(rows), actions.repeat(many, 1, 1)
        x = self.schedule.add_noise(x0, epsilon.flatten(0, 1), k)
        error = (x0 - self.predict_x0(x, k, context.repeat(many))).square().sum(dim=(1, 2))
        scale = self.config.num_train_steps / many
        return -scale * (weights[:, None] * error.view(many, rows)).sum(dim=0)

    def bound_of_all(
        self, actions: Tensor, context: Context, steps: Tensor, epsilon: Tensor
    ) -> Tensor:
        """:meth:`bound` of every member with common random numbers: (B, T, A) -> (n, B)."""
        context, actions = self.all_members(context), actions.repeat(self.n, 1, 1)
        return self.bound(actions, context, steps, epsilon.repeat(1, self.n, 1, 1)).view(self.n, -1)

    def sample_through(self, noise: Tensor, context: Context) -> Tensor:
        """:meth:`DiffusionModel.sample` with a gradient through the whole chain."""
        x = noise
        for step_index in range(self.config.num_denoising_steps):
            x = self.chain_mean(x, context, step_index)
        return x


@dataclass(frozen=True)
class EmbeddingConfig:
    """Training of n embeddings together with the model that they start from."""

    num_members: int = 4  # n
    diversity: Diversity = "separating"
    alpha: float = 2.0  # α, weight of the term
    num_updates: int = 1_000
    batch_size: int = 64
    learning_rate: float = 3e-4
    embedding_lr: float = 3e-2  # of the n embeddings, which start at 0
    num_terms: int = 8  # of the bound's K, drawn anew for every batch

    def __post_init__(self) -> None:
        for name in ("num_members", "num_updates", "batch_size", "num_terms"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        if self.diversity not in get_args(Diversity):
            raise unknown("diversity", self.diversity, get_args(Diversity))
        check(self.alpha >= 0, "alpha", self.alpha, "not negative")
        for name in ("learning_rate", "embedding_lr"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")


class Draws:
    """The random numbers of one update: members, steps and noise, common to all members."""

    def __init__(self, model: EmbeddedModel, rows: int, num_terms: int, g: torch.Generator) -> None:
        total, shape, device = model.config.num_train_steps, model.action_shape, model.device
        self.member = torch.randint(model.n, (rows,), generator=g, device=device)
        self.steps = torch.randperm(total, generator=g, device=device)[:num_terms]
        self.epsilon = torch.randn(num_terms, rows, *shape, generator=g, device=device)
        self.start = torch.randn(rows, *shape, generator=g, device=device)

    def own(self, of_all: Tensor) -> Tensor:
        """Each row's own member: (n, B) -> (B,)."""
        return of_all.gather(0, self.member[None])[0]


def objective(
    diversity: Diversity, model: EmbeddedModel, actions: Tensor, context: Context, draws: Draws
) -> tuple[Tensor, Tensor]:
    """log p^i, up to a constant, and the diversity term, each (B,): every row for its own member.

    ``actions`` (B, T, A) are logged, ``context`` is that of the states without embedding.
    """
    noise = (draws.steps, draws.epsilon)
    seen = model.member(context, draws.member)
    likelihood = model.bound(actions, seen, *noise)
    if diversity == "none" or model.n == 1:
        return likelihood, torch.zeros_like(likelihood)
    if diversity == "separating":
        sampled = model.sample_through(draws.start, seen)
        of_all = model.bound_of_all(sampled, context, *noise)
        return likelihood, separating_term(draws.own(of_all), of_all)
    with torch.no_grad():
        of_all = model.bound_of_all(actions, context, *noise)
    of_all = of_all.scatter(0, draws.member[None], likelihood[None])  # a gradient for the own one
    return likelihood, draws.own(ON_DATA[diversity](of_all))


def _optimiser(model: EmbeddedModel, cfg: EmbeddingConfig) -> torch.optim.Optimizer:
    """Adam, with a rate of its own for the embeddings."""
    shared = [p for name, p in model.named_parameters() if name != "embedding"]
    groups: list[dict[str, Any]] = [
        {"params": [model.embedding], "lr": cfg.embedding_lr},
        {"params": shared},
    ]
    return torch.optim.Adam(groups, lr=cfg.learning_rate, fused=True)


def _check_inputs(
    cfg: EmbeddingConfig, model: DiffusionModel, windows: SequenceWindows, assigned: Tensor | None
) -> None:
    total = model.config.num_train_steps
    check(cfg.num_terms <= total, "num_terms", cfg.num_terms, f"at most K = {total}")
    if assigned is not None:
        check(len(assigned) == len(windows), "assigned", len(assigned), f"{len(windows)} long")


def train_embedding(
    cfg: EmbeddingConfig,
    model: DiffusionModel,
    windows: SequenceWindows,
    *,
    seed: int,
    assigned: Tensor | None = None,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> EmbeddedModel:
    """Maximise J from ``model`` on, every row for a member drawn at random; the moving average.

    ``assigned`` (len(windows),) long says which member learns from which window in place of the
    draw: a control that knows the modes. Members, minibatches and noise are the same for every
    form. Rows see no future states.
    """
    _check_inputs(cfg, model, windows, assigned)
    trained = EmbeddedModel(model, cfg.num_members)
    device, size = model.device, model.action_shape[0] * model.action_shape[1]
    ema = AveragedModel(trained, multi_avg_fn=ema_update(model.config.ema_decay))
    optimiser = _optimiser(trained, cfg)
    generator = torch.Generator(device).manual_seed(zlib.crc32(f"embedding/{seed}".encode()))

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (cfg.batch_size,), generator=generator, device=device)
        batch = windows.batch(index)
        draws = Draws(trained, cfg.batch_size, cfg.num_terms, generator)
        if assigned is not None:
            draws.member = assigned[index]
        context = trained.encode(batch.past)
        likelihood, term = objective(cfg.diversity, trained, batch.actions, context, draws)
        loss = -(likelihood + cfg.alpha * term).mean() / size  # in nats a dimension
        norm = descend_clipped(loss, optimiser, model.config.max_grad_norm)
        ema.update_parameters(trained)
        return {"loss": loss.detach(), "diversity": term.detach().mean(), "grad_norm": norm}

    parts: dict[str, Stateful] = {
        "model": trained, "ema": ema, "optimiser": optimiser,
        "generator": GeneratorState(generator),
    }  # fmt: skip
    fit(cfg.num_updates, update, parts, recorder=recorder, name="embedding", progress=progress)
    averaged = ema.module.eval()
    assert isinstance(averaged, EmbeddedModel)
    return averaged


# -- what it makes


class EmbeddedPolicies(SubPolicies):
    """Sub-policy i is embedding i, from its noise ε_i or, with ``fresh_noise``, as p^i.

    Takes what :class:`SubPolicies` takes; ``members`` are the embeddings' numbers, all n unless
    told.
    """

    model: EmbeddedModel

    def __init__(
        self,
        model: EmbeddedModel,
        noise: Tensor,
        kappa: float | Tensor = 1.0,
        *,
        members: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, noise, kappa, **options)
        chosen = list(range(model.n) if members is None else members)
        check(len(chosen) == self.n, "members", chosen, f"n = {self.n} numbers, one a noise")
        within = all(0 <= i < model.n for i in chosen)
        check(within, "members", chosen, f"in 0 .. {model.n - 1}")
        self.members = chosen

    def _take(self, which: slice, guidance: Guidance | None) -> EmbeddedPolicies:
        return EmbeddedPolicies(
            self.model,
            self.noise[which],
            self.kappa[which],
            members=self.members[which],
            action_horizon=self.action_horizon,
            num_denoising_steps=self.num_denoising_steps,
            guidance=guidance,
            fresh_noise=self.fresh_noise,
            noise_seeds=self.noise_seeds and self.noise_seeds[which],
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, rest = super().state()
        return tensors, {**rest, "members": self.members}

    def _contexts(self, context: Context) -> Context:
        rows = len(context.current) // self.n
        index = torch.tensor(self.members, device=self.model.device).repeat_interleave(rows)
        return self.model.member(context, index)


@torch.no_grad()
def member_log_likelihood(
    model: EmbeddedModel, actions: Tensor, past: Tensor, seed: int, num_draws: int = 4
) -> Tensor:
    """log p^i(a_{1:T} | s) of every member by DDPM's whole bound: (B, T, A) -> (n, B) nats.

    Common random numbers; the mean over ``num_draws`` of them.
    """
    context = model.encode(past)
    found = []
    for i in range(model.n):
        seen = model.member(context, torch.full((len(past),), i, device=model.device))
        generator = torch.Generator(model.device).manual_seed(seed)  # the same for each member
        draws = (log_likelihood_bound(model, actions, seen, generator) for _ in range(num_draws))
        found.append(torch.stack(list(draws)).mean(dim=0))
    return torch.stack(found)
