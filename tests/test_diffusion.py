from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusion_toys import (
    MemoryRecorder,
    ToyWindows,
    check_golden,
    gaussian_model,
    randn,
    random_windows,
    small_model,
)
from torch import Tensor

from uepo_lib import toys
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import (
    REVISION,
    DiffusionConfig,
    DiffusionModel,
    build_diffusion,
    train_diffusion,
    warmup_cosine,
)
from uepo_lib.errors import UsageError
from uepo_lib.schedules import Schedule, alpha_bars

PREDICTIONS = ("x0", "epsilon", "v")
PEER_NAMES = {"x0": "sample", "epsilon": "epsilon", "v": "v_prediction"}
SMALL = DenoiserConfig(channels=(8, 16), d_model=16, num_heads=2, num_layers=1)


def peer(cls: Any, kind: str, schedule: str = "cosine", num_steps: int = 50, **more: Any) -> Any:
    beta = {"cosine": "squaredcos_cap_v2", "linear": "linear"}[schedule]
    return cls(
        num_train_timesteps=num_steps,
        beta_schedule=beta,
        beta_start=0.1 / num_steps,
        beta_end=20 / num_steps,
        prediction_type=PEER_NAMES[kind],
        clip_sample_range=1.0,
        clip_sample=True,
        timestep_spacing="trailing",
        **more,
    )


@pytest.mark.parametrize(
    ("schedule", "num_steps"),
    [("cosine", 10), ("cosine", 50), ("cosine", 1000), ("linear", 50), ("linear", 1000)],
)
def test_schedule_is_that_of_diffusers(schedule: Any, num_steps: int) -> None:
    expected = peer(DDPMScheduler, "x0", schedule, num_steps).alphas_cumprod
    found = alpha_bars(schedule, num_steps).float()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_ddim_step_is_that_of_diffusers(kind: Any, eta: float, schedule: Any) -> None:
    model = small_model(prediction=kind, schedule=schedule)
    scheduler = peer(DDIMScheduler, kind, schedule, set_alpha_to_one=True)
    scheduler.alphas_cumprod = alpha_bars(schedule, 50)  # as for DDPM below
    scheduler.set_timesteps(5)
    pairs = model.timesteps(5)
    assert [k for k, _ in pairs] == scheduler.timesteps.tolist()
    x, output, noise = randn(4, 8, 2), randn(4, 8, 2, seed=1), randn(4, 8, 2, seed=2)
    for k, k_prev in pairs:
        now, then = torch.tensor([k]), torch.tensor([k_prev])
        x0 = model.schedule.x0(output, x, now, kind).clamp(-1, 1)
        epsilon = model.schedule.epsilon(x, x0, now)
        mean, std = model.schedule.step(x0, epsilon, now, then, eta)
        expected = scheduler.step(
            output, k, x, eta=eta, use_clipped_model_output=True, variance_noise=noise
        ).prev_sample.float()
        torch.testing.assert_close(mean + std * noise, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("num_steps", [5, 50])
@pytest.mark.parametrize("noise_schedule", ["cosine", "linear"])
def test_ddpm_step_is_that_of_diffusers(kind: Any, num_steps: int, noise_schedule: Any) -> None:
    schedule = Schedule(noise_schedule, 50)
    scheduler = peer(DDPMScheduler, kind, noise_schedule, variance_type="fixed_small")
    scheduler.set_timesteps(num_steps)
    # In float32, diffusers' own 1 − ᾱ is off by 1e-4 of its value where there is little noise.
    scheduler.alphas_cumprod = alpha_bars(noise_schedule, 50)
    x, output = randn(4, 8, 2), randn(4, 8, 2, seed=1)
    for k, k_prev in small_model().timesteps(num_steps):
        now, then = torch.tensor([k]), torch.tensor([k_prev])
        x0 = schedule.x0(output, x, now, kind).clamp(-1, 1)
        mean, std = schedule.step(x0, schedule.epsilon(x, x0, now), now, then, eta=1.0)
        generator = torch.Generator().manual_seed(7)
        expected = scheduler.step(output, k, x, generator=generator).prev_sample.float()
        noise = randn(4, 8, 2, seed=7) if k > 0 else torch.zeros(())
        torch.testing.assert_close(mean + std * noise, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_conversions_invert_each_other(kind: Any, schedule: Any) -> None:
    process = Schedule(schedule, 50)
    k = torch.arange(40)  # at the noisiest steps ε determines x_0 only up to 1 / α
    x0, epsilon = randn(40, 8, 2), randn(40, 8, 2, seed=1)
    x = process.add_noise(x0, epsilon, k)
    target = process.target(x0, epsilon, k, kind)
    torch.testing.assert_close(process.x0(target, x, k, kind), x0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(process.epsilon(x, x0, k), epsilon, atol=1e-4, rtol=1e-4)


def test_timesteps_run_from_the_noisiest_to_none() -> None:
    model = small_model()
    assert model.timesteps(5) == [(49, 39), (39, 29), (29, 19), (19, 9), (9, -1)]
    assert model.timesteps(1) == [(49, -1)]
    assert model.timesteps(50) == [(k, k - 1) for k in range(49, -1, -1)]
    assert model.timesteps() == model.timesteps(5)
    with pytest.raises(UsageError, match="num_denoising_steps=51"):
        model.timesteps(51)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize(("num_steps", "sd", "expected"), [(5, 0.1, 0.028), (5, 0.3, 0.18)])
def test_few_steps_shrink_the_spread(kind: Any, num_steps: int, sd: float, expected: float) -> None:
    """With the exact network the chain is affine; A2 says how much five steps shrink the spread."""
    model = gaussian_model(0.2, sd, prediction=kind)
    zero = model.sample(torch.zeros(1, 4, 2), torch.zeros(1, 1, 1), num_steps)
    one = model.sample(torch.ones(1, 4, 2), torch.zeros(1, 1, 1), num_steps)
    torch.testing.assert_close(zero, torch.full_like(zero, 0.2), atol=1e-2, rtol=0)
    assert (one - zero).mean().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_many_steps_reproduce_the_data(eta: float) -> None:
    model = gaussian_model(-0.3, 0.5, num_train_steps=1000)
    out = model.sample(
        randn(2048, 4, 2), torch.zeros(2048, 1, 1), 1000, eta=eta, generator=torch.Generator()
    )
    assert out.mean().item() == pytest.approx(-0.3, abs=0.02)
    assert out.std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_many_ddpm_steps_recover_a_mixture(schedule: Any) -> None:
    """Weights, means and covariances of four doors, within four standard errors of sampling."""
    toy = toys.four_modes((0.4, 0.3, 0.2, 0.1), std=0.2, horizon=3)
    model = toys.exact_model(toy, clip=10.0, schedule=schedule, num_train_steps=1000)
    count, state = 2000, torch.tensor([[0.2, -0.1]])
    generator = torch.Generator().manual_seed(0)
    past = toy.past(state.expand(count, 2))
    out = model.sample(randn(count, 3, 2), past, 1000, eta=1.0, generator=generator)
    # the doors are ten deviations apart, so the likeliest mode is the one it came from
    modes = model.denoiser.responsibilities(out, torch.tensor([0]), past[:, -1]).argmax(dim=1)
    shares = torch.bincount(modes, minlength=4) / count
    error = (toy.weights * (1 - toy.weights) / count).sqrt()
    assert ((shares - toy.weights).abs() < 4 * error).all()
    gaps = (out - toy.means(state)[0, modes]).flatten(1)
    for m in range(4):
        rows = gaps[modes == m]
        error = toy.std / len(rows) ** 0.5
        assert rows.mean(dim=0).abs().max() < 4 * error
        off = rows.T.cov() - toy.std**2 * torch.eye(6)
        assert (off.abs() < 4 * toy.std * error * (1 + torch.eye(6)).sqrt()).all()
    # Over all modes and coordinates even the shortfall of the chain, a few per cent, is seen.
    recursion = toys.gaussian_output_sd(model, toy.std, 1000, eta=1.0) ** 2
    sampling = recursion * (2 / gaps.numel()) ** 0.5
    assert gaps.square().mean().item() == pytest.approx(recursion, abs=4 * sampling)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_chain_of_means_is_the_sample_bit_for_bit(kind: Any) -> None:
    model = small_model(prediction=kind).train()
    past, noise = randn(16, 2, 3), randn(16, 8, 2, seed=1)
    by_int, by_tensor = noise, noise
    for index in range(5):
        by_int = model.chain_mean(by_int, past, index, 5).detach()
        by_tensor = model.chain_mean(by_tensor, past, torch.full((16,), index), 5)
    sampled = model.sample(noise, past, 5)
    assert torch.equal(sampled, by_int)
    assert torch.equal(sampled, by_tensor)
    assert sampled.abs().max() <= 1
    assert by_tensor.requires_grad


def test_steps_of_a_chain_may_differ_by_row() -> None:
    model = small_model()
    past, x = randn(5, 2, 3), randn(5, 8, 2, seed=1)
    mixed = model.chain_mean(x, past, torch.arange(5), 5)
    for row in range(5):
        alone = model.chain_mean(x[row : row + 1], past[row : row + 1], row, 5)
        torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_the_hook_replaces_the_estimate_and_keeps_the_noise() -> None:
    model = small_model()
    past, noise = randn(4, 2, 3), randn(4, 8, 2, seed=1)
    calls: list[tuple[int, int]] = []

    def hook(x0: Tensor, k: int, step_index: int) -> Tensor:
        calls.append((k, step_index))
        return x0 + 0.5 if step_index == 0 else x0

    hooked = model.sample(noise, past, 2, hook)
    assert calls == [(49, 0), (24, 1)]
    now, then = torch.tensor([49]), torch.tensor([24])
    x0 = model.predict_x0(noise, now, past)
    epsilon = model.schedule.epsilon(noise, x0, now)
    x = model.schedule.step((x0 + 0.5).clamp(-1, 1), epsilon, now, then)[0]
    torch.testing.assert_close(hooked, model.predict_x0(x, then, past))


def test_sampling_noise_comes_from_the_generator() -> None:
    model = small_model()
    past, noise = randn(4, 2, 3), randn(4, 8, 2, seed=1)

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.sample(noise, past, eta=1.0, generator=generator)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def two_modes(size: int) -> ToyWindows:
    """Actions stay near (0.6, s) or near (−0.6, s), with equal odds, for a state s in ±0.5."""
    past = 0.5 * randn(size, 1, 1).sign()
    side = 0.6 * randn(size, 1, 1, seed=1).sign()
    centre = torch.cat([side, past], dim=-1).expand(-1, 3, -1)
    return ToyWindows(past, centre + 0.05 * randn(size, 3, 2, seed=2), torch.zeros(size, 2, 1))


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_toy_is_learnt_with_its_modes(kind: Any) -> None:
    cfg = DiffusionConfig(prediction=kind, num_updates=1000, batch_size=256, lr=3e-3, warmup=50)
    net = DenoiserConfig(backbone="mlp", horizon=3, obs_horizon=1, d_model=32, hidden=(64, 64))
    model = train_diffusion(cfg, net, two_modes(4096), seed=0, progress=False)
    past = torch.tensor([-0.5, 0.5]).repeat_interleave(200)[:, None, None]
    out = model.sample(randn(400, 3, 2), past, 10)
    side, height = out[..., 0], out[..., 1]
    assert ((side.abs() - 0.6).abs() < 0.25).float().mean() > 0.85
    assert 0.35 < (side[:, 0] > 0).float().mean() < 0.65
    assert (height - past[:, :, 0]).abs().mean() < 0.1


def test_training_repeats_and_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = DiffusionConfig(num_updates=8, batch_size=16, warmup=2)
    windows = random_windows(64, 3, 8, 2)
    before = torch.get_rng_state()
    whole = train_diffusion(cfg, SMALL, windows, 1, progress=False)
    again = train_diffusion(cfg, SMALL, windows, 1, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True)
    )

    class Killed(Exception):
        pass

    recorder = MemoryRecorder()
    losses = DiffusionModel.loss
    calls = 0

    def loss(self: DiffusionModel, *args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise Killed
        return losses(self, *args)

    def save(step: int, state: Any) -> None:
        recorder.checkpoint = (step, copy.deepcopy(dict(state)))

    monkeypatch.setattr(recorder, "save_checkpoint", save)
    monkeypatch.setattr(DiffusionModel, "loss", loss)
    monkeypatch.setattr("uepo_lib.training.time.monotonic", iter(range(0, 10**6, 100)).__next__)
    with pytest.raises(Killed):
        train_diffusion(cfg, SMALL, windows, 1, recorder, progress=False)
    assert recorder.checkpoint is not None
    assert recorder.checkpoint[0] == 5
    resumed = train_diffusion(cfg, SMALL, windows, 1, recorder, progress=False)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert recorder.rows[-1][0] == 8


def test_state_round_trip() -> None:
    model = small_model(seed=1)
    other = build_diffusion(model.config, SMALL, 3, 2, seed=2)
    other.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    past, noise = randn(4, 2, 3), randn(4, 8, 2, seed=1)
    assert torch.equal(model.sample(noise, past), other.sample(noise, past))
    assert not any("schedule" in name for name in model.state_dict())


def test_learning_rate_rises_then_falls() -> None:
    factor = warmup_cosine(DiffusionConfig(num_updates=100, warmup=10))
    values = [factor(step) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) > 0.95
    assert values[-1] < 1e-3


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="unknown schedule 'cosin'"):
        DiffusionConfig(schedule="cosin")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown prediction"):
        DiffusionConfig(prediction="x1")  # type: ignore[arg-type]
    for changes in ({"num_denoising_steps": 51}, {"future_prob": 2.0}, {"lr": 0.0}):
        with pytest.raises(UsageError):
            DiffusionConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"windows \(T_o, T\)=\(2, 6\)"):
        train_diffusion(DiffusionConfig(), SMALL, random_windows(4, 3, 6, 2), 0)


def test_golden() -> None:
    cfg = DiffusionConfig(num_updates=20, batch_size=32, warmup=5)
    model = train_diffusion(cfg, SMALL, random_windows(256, 3, 8, 2), seed=0, progress=False)
    past, noise = randn(4, 2, 3), randn(4, 8, 2, seed=1)
    check_golden("diffusion", {"ddim": model.sample(noise, past)}, REVISION)
