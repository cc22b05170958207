"""A mixture-density policy: one network, several modes, no sampling chain (Bishop 1994).

    p(a_{1:T} | s) = Σ_m w_m(s) N(a_{1:T}; μ_m(s), diag σ_m(s)²)

The plain answer to data with several modes, and so what n sub-policies of a diffusion model are
compared with (E1). Whole sequences, trained by maximum likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from uepo_lib.diffusion import SequenceWindows
from uepo_lib.errors import check
from uepo_lib.networks import mlp
from uepo_lib.policies import normal_log_prob
from uepo_lib.training import GeneratorState, Metrics, Recorder, descend, fit

REVISION = 1

START_FROM = 512
"""Among how many sequences the centres are looked for."""


@dataclass(frozen=True)
class MixtureConfig:
    """Network and training."""

    num_components: int = 8  # more than there are modes: with as many, some start in none
    hidden: tuple[int, ...] = (128, 128)
    log_std_range: tuple[float, float] = (-4.0, 0.0)
    num_updates: int = 300
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("num_components", "num_updates", "batch_size"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        low, high = self.log_std_range
        check(low < high, "log_std_range", self.log_std_range, "(low, high) with low < high")


class MixtureDensity(nn.Module):
    """The network; ``past`` is (B, T_o, S), a sequence (T, A), M components."""

    def __init__(
        self,
        config: MixtureConfig,
        past_shape: tuple[int, int],
        action_shape: tuple[int, int],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.action_shape = config, action_shape
        size = action_shape[0] * action_shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            outputs = config.num_components * (1 + 2 * size)
            self.body = mlp((past_shape[0] * past_shape[1], *config.hidden, outputs), "silu")

    @torch.no_grad()
    def start_from(self, centres: Tensor) -> None:
        """Move the components' means to ``centres`` (M, T, A), before training."""
        expected = (self.config.num_components, *self.action_shape)
        check(centres.shape == expected, "centres", tuple(centres.shape), f"{expected}")
        bias: Tensor = self.body[-1].bias  # type: ignore[assignment]
        self._parts(bias)[1].copy_(centres.flatten(1))

    def forward(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log w (B, M), mean and log-std (B, M, T, A)."""
        logits, mean, raw = self._parts(self.body(past.flatten(1)))
        low, high = self.config.log_std_range
        shape = (*mean.shape[:-1], *self.action_shape)
        log_std = low + (high - low) * raw.sigmoid()
        return logits.log_softmax(dim=-1), mean.reshape(shape), log_std.reshape(shape)

    def _parts(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (..., M), means and raw widths (..., M, T·A) in the last layer's outputs."""
        size = self.action_shape[0] * self.action_shape[1]
        grouped = out.unflatten(-1, (self.config.num_components, 1 + 2 * size))
        logits, mean, raw = grouped.split((1, size, size), dim=-1)
        return logits.squeeze(-1), mean, raw

    def log_prob(self, past: Tensor, actions: Tensor) -> Tensor:
        """log p(a_{1:T} | s) in nats: (B, T_o, S), (B, T, A) -> (B,)."""
        log_weight, mean, log_std = self(past)
        each = normal_log_prob(actions[:, None], mean, log_std).sum(dim=(-2, -1))
        return (log_weight + each).logsumexp(dim=-1)

    @torch.no_grad()
    def plan(self, past: Tensor, quantile: Tensor) -> Tensor:
        """Means of the components that ``quantile`` (n, B) in [0, 1] chooses: (n, B, T, A).

        Member i takes component m where the cumulated weights pass its quantile. A quantile drawn
        once makes it a function of the state, one drawn at each call a draw from the mixture.
        """
        log_weight, mean, _ = self(past)
        cumulated = log_weight.exp().cumsum(dim=-1)
        chosen = torch.searchsorted(cumulated, quantile.T.contiguous()).T
        chosen = chosen.clamp(max=mean.shape[1] - 1)  # rounding: the weights may sum to less than 1
        return mean[torch.arange(len(past)), chosen].clamp(-1, 1)


class MixturePolicy:
    """n members of one network, each with its ``quantile`` (n,); a ``Policy``.

    Noise-free: a member acts with the mean of the component that its quantile chooses.
    """

    def __init__(
        self, network: MixtureDensity, quantile: Tensor, obs_horizon: int, action_horizon: int
    ) -> None:
        within = 1 <= action_horizon <= network.action_shape[0]
        check(within, "action_horizon", action_horizon, f"in 1 .. T={network.action_shape[0]}")
        inside = bool(((quantile >= 0) & (quantile <= 1)).all())
        check(quantile.ndim == 1 and inside, "quantile", quantile.tolist(), "(n,) in [0, 1]")
        self.network, self.quantile, self.n = network, quantile, len(quantile)
        self.obs_horizon, self.action_horizon = obs_horizon, action_horizon

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, B, T_o, S) -> (n, B, T_a, A)."""
        shape = states.shape[:2]
        quantile = self.quantile[:, None].expand(shape).reshape(1, -1)
        plans = self.network.plan(states.flatten(0, 1), quantile)[0]
        return plans[:, : self.action_horizon].unflatten(0, shape)


def train_mixture(
    cfg: MixtureConfig,
    windows: SequenceWindows,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> MixtureDensity:
    """Maximise E_D[log p(a_{1:T} | s)] over ``windows``; shapes are theirs.

    The components start from the centres of k-means++ among some sequences of D: from random ones
    likelihood often leaves two modes to one wide component.
    """
    generator = torch.Generator().manual_seed(seed)
    some = windows.batch(torch.randint(len(windows), (START_FROM,), generator=generator))
    past, actions = some.past, some.actions
    shapes = (past.shape[1], past.shape[2]), (actions.shape[1], actions.shape[2])
    model = MixtureDensity(cfg, *shapes, seed)
    points = actions.flatten(1).numpy()
    centres, _ = kmeans2(points, cfg.num_components, minit="++", rng=seed)
    model.start_from(torch.from_numpy(centres).view(-1, *shapes[1]))
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate, fused=True)

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (cfg.batch_size,), generator=generator)
        batch = windows.batch(index)
        loss = -model.log_prob(batch.past, batch.actions).mean()
        descend(loss, optimiser)
        return {"nll": loss.detach()}

    parts = {"model": model, "optimiser": optimiser, "generator": GeneratorState(generator)}
    fit(cfg.num_updates, update, parts, recorder=recorder, name="mixture", progress=progress)  # type: ignore[arg-type]
    return model.requires_grad_(False)
