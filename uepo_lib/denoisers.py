"""Networks that denoise an action sequence, given states: p(a_{1:T} | s_{1:T}) (contribution 1).

A denoiser is a *state encoder*, which runs once per decision, and a *body*, which runs once per
denoising step. Nothing the encoder makes depends on the noise level k, so a reverse process encodes
its states once and pays only for the body afterwards::

    past   s_{t-T_o+1} .. s_t       ┐  encoder   ┌ current (B, D)           ┐
    future s_{t+1} .. s_{t+T-1}     ┘ ─────────► └ keys, values of s-tokens ┘ = Context
    x = a noisy a_t .. a_{t+T-1}, k ─► body(x, k, Context) ─► prediction (B, T, A)

Acting knows no future: its tokens are absent. Scoring a logged sequence shows them, which is the
s_{1:T} of the paper (A1); within a batch, a key mask hides them from rows that must not see them.

Tensors are (B, tokens, channels) throughout, and a convolution of width 3 is one matrix product
over three shifted copies: on a CPU, at T = 8, that is twice as fast as ``Conv1d`` for the small
batches of acting and no slower for training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uepo_lib.errors import check, unknown
from uepo_lib.networks import mlp

REVISION = 1

Backbone = Literal["unet_transformer", "unet", "mlp"]


@dataclass(frozen=True)
class DenoiserConfig:
    """What the network looks like; sizes of states and actions come from the data.

    ``horizon`` T need not be a power of two: the U-Net repeats the last token up to the next
    multiple of 2^(levels − 1) and cuts its output back to T.
    """

    backbone: Backbone = "unet_transformer"
    horizon: int = 8
    obs_horizon: int = 2
    channels: tuple[int, ...] = (32, 64)  # of the U-Net's levels, finest first
    d_model: int = 64  # of state tokens and of the conditioning vector
    num_heads: int = 4
    num_layers: int = 2  # Transformer layers over the state tokens
    hidden: tuple[int, ...] = (256, 256)  # of the "mlp" backbone

    def __post_init__(self) -> None:
        if self.backbone not in get_args(Backbone):
            raise unknown("backbone", self.backbone, get_args(Backbone))
        for name in ("horizon", "obs_horizon", "num_heads", "num_layers"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "a positive integer")
        for name in ("channels", "hidden"):
            sizes = getattr(self, name)
            check(len(sizes) > 0 and min(sizes) > 0, name, sizes, "positive integers, at least one")
        even = self.d_model > 0 and self.d_model % (2 * self.num_heads) == 0
        check(even, "d_model", self.d_model, f"a multiple of 2 x num_heads = {2 * self.num_heads}")
        if self.backbone == "unet_transformer":
            fits = self.channels[-1] % self.num_heads == 0
            check(fits, "channels", self.channels, f"last a multiple of num_heads={self.num_heads}")


class Context(NamedTuple):
    """What the body needs to know of the states; made by :meth:`Denoiser.encode`."""

    current: Tensor  # (B, d_model)
    keys: Tensor | None = None  # (B, heads, tokens, channels[-1] / heads)
    values: Tensor | None = None
    visible: Tensor | None = None  # (B, 1, 1, tokens) bool; None: every token is

    def repeat(self, n: int) -> Context:
        """The same states for n sub-policies: B rows become n·B, sub-policy by sub-policy."""

        def tile(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.repeat(n, 1, 1, 1)

        keys, values, visible = tile(self.keys), tile(self.values), tile(self.visible)
        return Context(self.current.repeat(n, 1), keys, values, visible)


def step_embedding(k: Tensor, size: int) -> Tensor:
    """Sines and cosines of the denoising step at geometric frequencies: (B,) -> (B, size)."""
    half = size // 2
    decay = -math.log(10_000) / max(half - 1, 1)
    angles = k[:, None] * torch.exp(decay * torch.arange(half, device=k.device))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, L, C) -> (B, heads, L, C / heads)


def _film(h: Tensor, film: Tensor) -> Tensor:
    """(1 + scale) h + shift, elementwise; ``film`` holds scale and shift side by side."""
    scale, shift = film.chunk(2, dim=-1)
    return torch.addcmul(h + shift, h, scale)


class TransformerLayer(nn.Module):
    """Self-attention, then a perceptron of twice the width, both on the normalised stream."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Linear(2 * d_model, d_model)
        )

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        q, key, v = (_split_heads(h, self.num_heads) for h in self.qkv(self.norm1(x)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, key, v, attn_mask=visible)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class TransformerEncoder(nn.Module):
    """State tokens attend to each other; hidden future tokens are attended to by nobody (A1)."""

    def __init__(self, cfg: DenoiserConfig, state_dim: int) -> None:
        super().__init__()
        self.obs_horizon, self.num_heads = cfg.obs_horizon, cfg.num_heads
        num_tokens = cfg.obs_horizon + cfg.horizon - 1
        self.embed = nn.Linear(state_dim, cfg.d_model)
        self.position = nn.Parameter(0.02 * torch.randn(num_tokens, cfg.d_model))
        self.layers = nn.ModuleList(
            TransformerLayer(cfg.d_model, cfg.num_heads) for _ in range(cfg.num_layers)
        )
        self.norm = nn.LayerNorm(cfg.d_model)
        self.keys_values = nn.Linear(cfg.d_model, 2 * cfg.channels[-1])

    def forward(self, past: Tensor, future: Tensor | None, visible: Tensor | None) -> Context:
        states = past if future is None else torch.cat([past, future], dim=1)
        x = self.embed(states) + self.position[: states.shape[1]]
        mask = None
        if visible is not None:
            hidden = torch.arange(states.shape[1], device=past.device) >= self.obs_horizon
            mask = (visible[:, None] | ~hidden)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        keys, values = (_split_heads(h, self.num_heads) for h in self.keys_values(x).chunk(2, -1))
        return Context(x[:, self.obs_horizon - 1], keys, values, mask)


class FlatEncoder(nn.Module):
    """All states in one vector, hidden ones as zeros beside a flag that says so."""

    def __init__(self, cfg: DenoiserConfig, state_dim: int) -> None:
        super().__init__()
        self.future_size = (cfg.horizon - 1) * state_dim
        size = cfg.obs_horizon * state_dim + self.future_size + 1
        self.net = mlp((size, 2 * cfg.d_model, cfg.d_model), "silu")

    def forward(self, past: Tensor, future: Tensor | None, visible: Tensor | None) -> Context:
        if future is None:
            rest = past.new_zeros(len(past), self.future_size + 1)
        else:
            flag = past.new_ones(len(past), 1) if visible is None else visible[:, None].to(past)
            rest = torch.cat([future.flatten(1) * flag, flag], dim=-1)
        return Context(self.net(torch.cat([past.flatten(1), rest], dim=-1)))


class TemporalConv(nn.Linear):
    """Width-3 convolution over time with zero padding: (B, T, C) -> (B, T, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 1, 1))
        return super().forward(torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], dim=-1))


class ResidualBlock(nn.Module):
    """Two convolutions over time; between them a scale and shift from (step, states): FiLM."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.conv1, self.conv2 = TemporalConv(channels), TemporalConv(channels)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return x + self.conv2(F.silu(_film(h, film[:, None])))


class CrossAttention(nn.Module):
    """Action tokens look at the state tokens; their keys and values come ready in the context."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        assert context.keys is not None and context.values is not None
        q = _split_heads(self.query(self.norm(x)), self.num_heads)
        attended = F.scaled_dot_product_attention(
            q, context.keys, context.values, attn_mask=context.visible
        )
        return x + self.out(attended.transpose(1, 2).flatten(2))


class UNet(nn.Module):
    """A temporal U-Net over the action sequence, halving time from level to level."""

    def __init__(self, cfg: DenoiserConfig, action_dim: int) -> None:
        super().__init__()
        c = cfg.channels
        self.horizon = cfg.horizon
        self.padding = -cfg.horizon % 2 ** (len(c) - 1)
        self.embed = nn.Linear(action_dim, c[0])
        self.position = nn.Parameter(0.02 * torch.randn(cfg.horizon, c[0]))
        levels = list(pairwise(c))  # (finer, coarser)
        self.down = nn.ModuleList(ResidualBlock(size) for size in c)
        self.shrink = nn.ModuleList(nn.Linear(2 * fine, coarse) for fine, coarse in levels)
        attends = cfg.backbone == "unet_transformer"
        self.attention = CrossAttention(c[-1], cfg.num_heads) if attends else None
        self.middle = ResidualBlock(c[-1])
        levels.reverse()  # back up, in the order of execution
        self.grow = nn.ModuleList(nn.Linear(coarse, 2 * fine) for fine, coarse in levels)
        self.up = nn.ModuleList(ResidualBlock(fine) for fine, _ in levels)
        self.norm = nn.LayerNorm(c[0])
        self.out = nn.Linear(c[0], action_dim)
        # One product makes the scales and shifts of all blocks.
        self.film_sizes = [2 * size for size in (*c, c[-1], *(fine for fine, _ in levels))]
        self.film = nn.Linear(cfg.d_model, sum(self.film_sizes))

    def forward(self, x: Tensor, condition: Tensor, context: Context) -> Tensor:
        films = iter(self.film(condition).split(self.film_sizes, dim=-1))
        x = self.embed(x) + self.position
        if self.padding:
            x = torch.cat([x, x[:, -1:].expand(-1, self.padding, -1)], dim=1)
        x = self.down[0](x, next(films))
        skips = []
        for shrink, block in zip(self.shrink, self.down[1:], strict=True):
            skips.append(x)
            x = shrink(x.reshape(len(x), x.shape[1] // 2, -1))  # two steps become one token
            x = block(x, next(films))
        if self.attention is not None:
            x = self.attention(x, context)
        x = self.middle(x, next(films))
        for grow, block in zip(self.grow, self.up, strict=True):
            x = grow(x).reshape(len(x), 2 * x.shape[1], -1)
            x = block(x + skips.pop(), next(films))  # a sum costs half of a concatenation
        return self.out(F.silu(self.norm(x[:, : self.horizon])))


class MLP(nn.Module):
    """The whole sequence in one vector: a baseline without any notion of time."""

    def __init__(self, cfg: DenoiserConfig, action_dim: int) -> None:
        super().__init__()
        size = cfg.horizon * action_dim
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise((size, *cfg.hidden)))
        self.norms = nn.ModuleList(nn.LayerNorm(o) for o in cfg.hidden)
        self.film_sizes = [2 * o for o in cfg.hidden]
        self.film = nn.Linear(cfg.d_model, sum(self.film_sizes))
        self.out = nn.Linear(cfg.hidden[-1], size)

    def forward(self, x: Tensor, condition: Tensor, context: Context) -> Tensor:
        h = x.flatten(1)
        films = self.film(condition).split(self.film_sizes, dim=-1)
        for layer, norm, film in zip(self.layers, self.norms, films, strict=True):
            h = F.silu(_film(norm(layer(h)), film))
        return self.out(h).view_as(x)


class Denoiser(nn.Module):
    """State encoder and body together; see the module's docstring for who runs how often."""

    def __init__(self, cfg: DenoiserConfig, state_dim: int, action_dim: int) -> None:
        super().__init__()
        check(state_dim >= 1, "state_dim", state_dim, "a positive integer")
        check(action_dim >= 1, "action_dim", action_dim, "a positive integer")
        self.config, self.state_dim, self.action_dim = cfg, state_dim, action_dim
        d = cfg.d_model
        attends = cfg.backbone == "unet_transformer"
        self.encoder = (TransformerEncoder if attends else FlatEncoder)(cfg, state_dim)
        self.step = mlp((d, d, d), "silu")
        self.body = MLP(cfg, action_dim) if cfg.backbone == "mlp" else UNet(cfg, action_dim)

    def encode(
        self, past: Tensor, future: Tensor | None = None, future_visible: Tensor | None = None
    ) -> Context:
        """States, standardised, to what every denoising step needs of them.

        ``past`` (B, T_o, S) ends with the current state. ``future`` (B, T − 1, S) is given when a
        logged sequence is scored and is None when acting. ``future_visible`` (B,) bool hides it row
        by row: a hidden future gives what None gives.
        """
        return self.encoder(past, future, None if future is None else future_visible)

    def denoise(self, x: Tensor, k: Tensor, context: Context) -> Tensor:
        """The network's prediction for noisy actions ``x`` (B, T, A) at steps ``k`` (B,) long."""
        condition = F.silu(self.step(step_embedding(k, self.config.d_model)) + context.current)
        return self.body(x, condition, context)

    def forward(
        self,
        x: Tensor,
        k: Tensor,
        past: Tensor,
        future: Tensor | None = None,
        future_visible: Tensor | None = None,
    ) -> Tensor:
        return self.denoise(x, k, self.encode(past, future, future_visible))
