"""Other ways to clone: weighted by advantage, by squared error, from a sub-policy."""

from __future__ import annotations

import pytest
import torch
from diffusion_toys import check_golden, randn, random_windows, small_model
from model_toys import MemoryRecorder

from uepo_lib import distillation, extraction, regression, values
from uepo_lib.cloning import CloneConfig
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig
from uepo_lib.errors import UsageError
from uepo_lib.policies import GaussianConfig, GaussianPolicy
from uepo_lib.subpolicies import SubPolicies

WINDOWS = random_windows(200, 3, 8, 2)
PAST = randn(6, 2, 3, seed=5)  # (B, T_o, S)
GAUSSIAN = GaussianConfig(3, 2, obs_horizon=2, hidden=(16,))


def moments(policy: GaussianPolicy) -> dict[str, torch.Tensor]:
    mean, log_std = policy(PAST)
    return {"mean": mean, "log_std": log_std}


def test_golden_extraction() -> None:
    cfg = extraction.ExtractionConfig(num_updates=6, batch_size=16, learning_rate=1e-2)
    critic = values.build(values.IQLConfig(hidden_q=(16,), hidden_v=(16,)), 3, 2)
    recorder, returns = MemoryRecorder(), torch.tensor([100.0, 900.0])
    policy = extraction.extract_policy(
        cfg, GAUSSIAN, WINDOWS, critic, returns, seed=0, recorder=recorder, progress=False
    )
    weight = torch.tensor(recorder.rows[-1][1]["weight"])
    found = {**moments(policy), "weight": weight}
    check_golden("extraction", found, extraction.REVISION, atol=1e-3)


@pytest.mark.parametrize(
    ("returns", "said"), [([], "returns='none'"), ([5.0, 5.0], "returns='all 5.0'")]
)
def test_returns_that_set_no_scale_are_refused(returns: list[float], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}: must be .*to scale by their range"):
        extraction.advantage_scale(extraction.ExtractionConfig(), torch.tensor(returns))
    as_they_are = extraction.ExtractionConfig(scale_by_returns=False)
    assert extraction.advantage_scale(as_they_are, torch.tensor(returns)) == 1.0


def test_golden_regression() -> None:
    network = DenoiserConfig(channels=(8, 16), d_model=16, num_heads=2, num_layers=1)
    policy = regression.train_regression(
        DiffusionConfig(num_updates=6, batch_size=16, warmup=2, lr=1e-2, ema_decay=0.5),
        network, regression.Sizes(3, 2), WINDOWS, action_horizon=4, sigma=0.3, seed=0,
        progress=False,
    )  # fmt: skip
    explored = policy.act(PAST[None], torch.Generator().manual_seed(0))
    found = {"noise_free": policy.act(PAST[None]), "explored": explored}
    check_golden("regression", found, regression.REVISION, atol=1e-3)


def test_golden_distillation() -> None:
    teacher = SubPolicies.zero_noise(small_model(num_train_steps=10, num_denoising_steps=3))
    cfg = CloneConfig(num_updates=6, batch_size=16, learning_rate=1e-2)
    noise = GaussianPolicy(GAUSSIAN, seed=1)
    policy = distillation.distil(cfg, GAUSSIAN, teacher, noise, WINDOWS, seed=0, progress=False)
    check_golden("distillation", moments(policy), distillation.REVISION, atol=1e-3)
