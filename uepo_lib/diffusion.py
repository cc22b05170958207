"""One state-conditional diffusion model of whole action sequences (the paper's contribution 1).

``schedules.py`` holds the algebra between x_k, x_0 and ε; here are the network's estimate x̂_0, the
reverse chain from noise to actions, and the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from uepo_lib.denoisers import Context, Denoiser, DenoiserConfig
from uepo_lib.errors import check, unknown
from uepo_lib.schedules import NoiseSchedule, Prediction, Schedule
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, descend_clipped, fit

if TYPE_CHECKING:
    from uepo_lib.datasets import Batch

REVISION = 1

Hook = Callable[[Tensor, int, int], Tensor]
"""``hook(x0_hat, k, step_index) -> x0_hat``, called on every reverse step, the last one included,
with the clipped estimate (B, T, A). The noise estimate ε̂ of that step is kept as it was (A3)."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The process, the reverse chain and the training of one model."""

    num_train_steps: int = 50  # K
    schedule: NoiseSchedule = "cosine"
    prediction: Prediction = "x0"  # ε amplifies a change of the network by 1/α_k at the noisy end
    num_denoising_steps: int = 5  # of the reverse chain; also a temperature (A2)
    clip: float = 1.0  # x̂_0 is kept in [−clip, clip]
    future_prob: float = 0.1  # share of a training batch that sees s_{t+1:t+T-1} (A1)
    num_updates: int = 5_000
    batch_size: int = 256
    lr: float = 1e-3
    warmup: int = 200  # updates of linear warm-up, then half a cosine down to 0
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        if self.schedule not in get_args(NoiseSchedule):
            raise unknown("schedule", self.schedule, get_args(NoiseSchedule))
        if self.prediction not in get_args(Prediction):
            raise unknown("prediction", self.prediction, get_args(Prediction))
        for name in ("num_updates", "batch_size", "warmup"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        for name in ("clip", "lr", "max_grad_norm"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(self.num_train_steps >= 2, "num_train_steps", self.num_train_steps, "at least 2")
        within = 1 <= self.num_denoising_steps <= self.num_train_steps
        check(within, "num_denoising_steps", self.num_denoising_steps, "in 1 .. num_train_steps")
        check(0 <= self.future_prob <= 1, "future_prob", self.future_prob, "in [0, 1]")
        check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "not negative")


class SequenceWindows(Protocol):
    """What training needs of the data; ``datasets.Windows`` is the one that reads it."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, /) -> Batch:
        """Windows ``index`` (B,): past (B, T_o, S), actions (B, T, A), future (B, T − 1, S)."""


class DiffusionModel(nn.Module):
    """A denoiser with its process: x̂_0, the reverse chain, the loss.

    ``condition`` is always either past states (B, T_o, S) or the :class:`Context` that
    :meth:`encode` made of them; pass the context where several steps share the same states.
    """

    def __init__(self, cfg: DiffusionConfig, denoiser: Denoiser) -> None:
        super().__init__()
        self.config = cfg
        self.denoiser = denoiser
        self.schedule = Schedule(cfg.schedule, cfg.num_train_steps)

    @property
    def action_shape(self) -> tuple[int, int]:
        """(T, A)."""
        return self.denoiser.config.horizon, self.denoiser.action_dim

    @property
    def obs_horizon(self) -> int:
        return self.denoiser.config.obs_horizon

    @property
    def device(self) -> torch.device:
        return self.schedule.alpha_bar.device

    def encode(
        self, past: Tensor, future: Tensor | None = None, future_visible: Tensor | None = None
    ) -> Context:
        """See :meth:`Denoiser.encode`."""
        return self.denoiser.encode(past, future, future_visible)

    def predict_x0(self, x: Tensor, k: Tensor, condition: Tensor | Context) -> Tensor:
        """x̂_0 (B, T, A) from ``x`` at steps ``k`` (B,) or (1,), in [−clip, clip]."""
        context = condition if isinstance(condition, Context) else self.encode(condition)
        prediction = self.denoiser.denoise(x, k.expand(len(x)), context)
        x0 = self.schedule.x0(prediction, x, k, self.config.prediction)
        return x0.clamp(-self.config.clip, self.config.clip)

    def timesteps(self, num_steps: int | None = None) -> list[tuple[int, int]]:
        """The chain's (k, k_prev), noisiest first: from K − 1, evenly spaced, to k_prev = −1."""
        n = self.config.num_denoising_steps if num_steps is None else num_steps
        total = self.config.num_train_steps
        check(1 <= n <= total, "num_denoising_steps", n, f"in 1 .. num_train_steps={total}")
        ks = [round(total - i * total / n) - 1 for i in range(n)]
        return list(zip(ks, [*ks[1:], -1], strict=True))

    def chain_mean(
        self,
        x: Tensor,
        condition: Tensor | Context,
        step_index: int | Tensor,
        num_steps: int | None = None,
    ) -> Tensor:
        """Mean of the next x of the DDIM chain; after its last step, the actions.

        ``step_index`` counts the chain's steps from 0 and may differ by row: (B,) long. A chain of
        these means is :meth:`sample` without hook, bit for bit, and is what PPO fine-tunes (A10).
        """
        steps = torch.tensor(self.timesteps(num_steps), device=x.device)
        k, k_prev = steps[step_index].reshape(-1, 2).unbind(dim=1)
        x0 = self.predict_x0(x, k, condition)
        return self.schedule.step(x0, self.schedule.epsilon(x, x0, k), k, k_prev)[0]

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        condition: Tensor | Context,
        num_steps: int | None = None,
        hook: Hook | None = None,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Actions (B, T, A) in [−clip, clip] by the reverse process from ``noise`` (B, T, A).

        ``eta`` = 0 is DDIM, a function of (noise, states); ``eta`` = 1 is DDPM and draws from
        ``generator``. ``hook`` may replace x̂_0 at each step, see :data:`Hook`. After ``stop`` of
        the steps, if given, the latent reached so far comes back.
        """
        context = condition if isinstance(condition, Context) else self.encode(condition)
        x, clip = noise, self.config.clip
        for index, pair in enumerate(self.timesteps(num_steps)[:stop]):
            k, k_prev = torch.tensor(pair, device=x.device)[:, None]
            x0 = self.predict_x0(x, k, context)
            epsilon = self.schedule.epsilon(x, x0, k)
            if hook is not None:
                x0 = hook(x0, pair[0], index).clamp(-clip, clip)
            x, std = self.schedule.step(x0, epsilon, k, k_prev, eta)
            if eta > 0 and pair[1] >= 0:
                x = x + std * torch.randn(x.shape, generator=generator, device=x.device)
        return x

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error in the prediction's own space, uniform over k (DDPM eq. 14).

        The first ``future_prob`` of the rows see their future states. Rows are drawn at random, so
        this equals a draw by row; and the others are spared the cost of hidden tokens.
        """
        x0, cfg = batch.actions, self.config
        k = torch.randint(cfg.num_train_steps, (len(x0),), generator=generator, device=x0.device)
        epsilon = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = self.schedule.add_noise(x0, epsilon, k)
        m = round(cfg.future_prob * len(x0))
        parts = []
        if m > 0:
            parts.append(self.denoiser(x[:m], k[:m], batch.past[:m], batch.future[:m]))
        if m < len(x0):
            parts.append(self.denoiser(x[m:], k[m:], batch.past[m:]))
        target = self.schedule.target(x0, epsilon, k, cfg.prediction)
        return nn.functional.mse_loss(torch.cat(parts), target)


def build_diffusion(
    cfg: DiffusionConfig,
    denoiser: DenoiserConfig,
    state_dim: int,
    action_dim: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> DiffusionModel:
    """A fresh model with weights from ``seed``; ``load_state_dict`` puts trained ones in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionModel(cfg, Denoiser(denoiser, state_dim, action_dim)).to(device)


_Tensors = tuple[Tensor, ...] | list[Tensor]


def ema_update(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + t) / (10 + t)), so that short runs forget
    their initial weights too; in the form that ``AveragedModel`` calls it."""

    @torch.no_grad()
    def update(averaged: _Tensors, current: _Tensors, t: Tensor | int) -> None:
        d = min(decay, (1 + int(t)) / (10 + int(t)))
        torch._foreach_lerp_(averaged, current, 1 - d)

    return update


class AveragedTraining:
    """AdamW with warm-up, a cosine and clipped gradients, and the moving average of what it gives.

    Of ``cfg`` only the training is used, so that deterministic cloning is trained alike.
    """

    def __init__(self, model: nn.Module, cfg: DiffusionConfig) -> None:
        self.model, self.cfg = model, cfg
        self.ema = ema_update(cfg.ema_decay)
        self.average = AveragedModel(model, multi_avg_fn=self.ema)
        self.averaged: list[Tensor] = [*self.average.module.parameters()]
        self.current: list[Tensor] = [*model.parameters()]
        self.optimiser = torch.optim.AdamW(
            model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, warmup_cosine(cfg))

    def step(self, loss: Tensor) -> dict[str, Tensor | float]:
        """One update; what to log of it."""
        lr = self.schedule.get_last_lr()[0]
        norm = descend_clipped(loss, self.optimiser, self.cfg.max_grad_norm)
        self.schedule.step()
        self._average()
        return {"loss": loss.detach(), "grad_norm": norm, "lr": lr}

    def _average(self) -> None:
        """As ``AveragedModel.update_parameters``, which looks for the parameters every time anew:
        7 % of an update."""
        if self.average.n_averaged == 0:
            self.average.update_parameters(self.model)  # copies
            return
        self.ema(self.averaged, self.current, self.average.n_averaged)
        self.average.n_averaged += 1

    def parts(self) -> dict[str, Stateful]:
        """Everything that :func:`training.fit` must keep, but for the generator."""
        return {
            "model": self.model, "average": self.average, "optimiser": self.optimiser,
            "schedule": self.schedule,
        }  # fmt: skip


def train_diffusion(
    cfg: DiffusionConfig,
    denoiser: DenoiserConfig,
    windows: SequenceWindows,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
    device: torch.device | str = "cpu",
) -> DiffusionModel:
    """Fit the model to ``windows`` (on ``device``) and return its moving average, in eval mode."""
    check(len(windows) > 0, "windows", len(windows), "at least one window")
    first = windows.batch(torch.zeros(1, dtype=torch.long, device=device))
    model = build_diffusion(
        cfg, denoiser, first.past.shape[-1], first.actions.shape[-1], seed, device
    )
    expected = (denoiser.obs_horizon, denoiser.horizon)
    found = (first.past.shape[1], first.actions.shape[1])
    check(found == expected, "windows (T_o, T)", found, f"the denoiser's {expected}")
    training = AveragedTraining(model, cfg)
    generator = torch.Generator(device).manual_seed(seed)

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (cfg.batch_size,), generator=generator, device=device)
        return training.step(model.loss(windows.batch(index), generator))

    parts = {**training.parts(), "generator": GeneratorState(generator)}
    fit(cfg.num_updates, update, parts, recorder=recorder, name="diffusion", progress=progress)
    averaged = training.average.module.eval()
    assert isinstance(averaged, DiffusionModel)
    return averaged


def warmup_cosine(cfg: DiffusionConfig) -> Callable[[int], float]:
    """The learning rate's factor at each update: up linearly, then half a cosine down to 0."""

    def factor(step: int) -> float:
        done = min(step / cfg.num_updates, 1.0)
        return min((step + 1) / cfg.warmup, 0.5 * (1 + math.cos(math.pi * done)))

    return factor
