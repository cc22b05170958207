from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusion_toys import check_golden, randn
from torch import Tensor

from uepo_lib.denoisers import (
    REVISION,
    Denoiser,
    DenoiserConfig,
    TemporalConv,
    TransformerLayer,
    step_embedding,
)
from uepo_lib.errors import UsageError

BACKBONES = ("unet_transformer", "unet", "mlp")
S, A, B = 5, 3, 6


def build(**changes: Any) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser(DenoiserConfig(**{"num_layers": 1, **changes}), S, A)


def inputs(horizon: int = 8, obs_horizon: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = randn(B, horizon, A, seed=1)
    past, future = randn(B, obs_horizon, S, seed=2), randn(B, horizon - 1, S, seed=3)
    return x, torch.arange(B), past, future


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("horizon", "obs_horizon", "channels"),
    [(8, 2, (8, 16)), (5, 1, (8, 16)), (3, 3, (8, 16, 16)), (1, 2, (8,)), (7, 2, (8, 8, 8, 16))],
)
def test_shapes(backbone: str, horizon: int, obs_horizon: int, channels: tuple[int, ...]) -> None:
    net = build(backbone=backbone, horizon=horizon, obs_horizon=obs_horizon, channels=channels)
    x, k, past, future = inputs(horizon, obs_horizon)
    for out in (net(x, k, past), net(x, k, past, future)):
        assert out.shape == (B, horizon, A)
        assert out.isfinite().all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_hidden_future_changes_nothing(backbone: str) -> None:
    net = build(backbone=backbone)
    x, k, past, future = inputs()
    hidden = torch.zeros(B, dtype=torch.bool)
    masked = net(x, k, past, future, hidden)
    assert torch.equal(masked, net(x, k, past, 100 * future, hidden))
    torch.testing.assert_close(masked, net(x, k, past), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_future_is_hidden_row_by_row(backbone: str) -> None:
    net = build(backbone=backbone)
    x, k, past, future = inputs()
    visible = torch.arange(B) % 2 == 0
    out, seen, unseen = (
        net(x, k, past, future, visible),
        net(x, k, past, future),
        net(x, k, past),
    )
    torch.testing.assert_close(out[visible], seen[visible], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[~visible], unseen[~visible], atol=1e-5, rtol=1e-5)
    assert ((seen - unseen).abs().amax(dim=(1, 2)) > 1e-5).all()


def test_every_past_state_and_every_step_matters() -> None:
    net = build()
    x, k, past, _ = inputs()
    out = net(x, k, past)
    assert not torch.allclose(out, net(x, k + 1, past), atol=1e-5)
    for t in range(2):
        changed = past.clone()
        changed[:, t] += 1
        assert not torch.allclose(out, net(x, k, changed), atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_learns(backbone: str) -> None:
    net = build(backbone=backbone)
    x, k, past, future = inputs()
    net(x, k, past, future).square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


@pytest.mark.parametrize("backbone", BACKBONES)
def test_encoding_once_equals_encoding_every_time(backbone: str) -> None:
    net = build(backbone=backbone)
    x, k, past, future = inputs()
    context = net.encode(past, future)
    assert torch.equal(net.denoise(x, k, context), net(x, k, past, future))
    both = net.denoise(torch.cat([x, x + 1]), torch.cat([k, k]), context.repeat(2))
    torch.testing.assert_close(both[B:], net(x + 1, k, past, future), atol=1e-5, rtol=1e-5)


def test_temporal_convolution_is_conv1d() -> None:
    conv, x = TemporalConv(4), randn(2, 7, 4)
    weight = conv.weight.unflatten(1, (3, 4)).transpose(1, 2)  # (C', C, width)
    expected = F.conv1d(x.transpose(1, 2), weight, conv.bias, padding=1).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected)


def test_transformer_layer_is_torchs_own() -> None:
    layer, x = TransformerLayer(8, 2), randn(3, 5, 8)
    peer = torch.nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_weight": layer.qkv.weight,
        "self_attn.in_proj_bias": layer.qkv.bias,
        "self_attn.out_proj.weight": layer.out.weight,
        "self_attn.out_proj.bias": layer.out.bias,
        "linear1.weight": layer.mlp[0].weight,
        "linear1.bias": layer.mlp[0].bias,
        "linear2.weight": layer.mlp[2].weight,
        "linear2.bias": layer.mlp[2].bias,
    }
    peer.load_state_dict({**peer.state_dict(), **{n: p.detach() for n, p in names.items()}})
    torch.testing.assert_close(layer(x, None), peer(x), atol=1e-5, rtol=1e-5)


def test_step_embedding_tells_steps_apart() -> None:
    embedded = step_embedding(torch.arange(50), 64)
    assert embedded.shape == (50, 64)
    assert torch.cdist(embedded, embedded).fill_diagonal_(torch.inf).min() > 0.3


def test_size_for_hopper() -> None:
    net = Denoiser(DenoiserConfig(), 11, 3)
    assert 150_000 < sum(p.numel() for p in net.parameters()) < 250_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "unett"}, "unknown backbone 'unett'; did you mean 'unet'"),
        ({"horizon": 0}, "horizon=0"),
        ({"channels": ()}, r"channels=\(\)"),
        ({"channels": (32, 30)}, "num_heads=4"),
        ({"d_model": 30}, "d_model=30"),
        ({"hidden": (0,)}, "hidden"),
    ],
)
def test_bad_configs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DenoiserConfig(**changes)


def test_golden() -> None:
    x, k, past, future = inputs()
    with torch.no_grad():
        found = {b: build(backbone=b)(x, k, past, future) for b in BACKBONES}
    check_golden("denoisers", found, REVISION)
