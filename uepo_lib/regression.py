"""Deterministic cloning with the diffusion policy's own network: what is left without diffusion.

The denoiser sees the states, a sequence of zeros and the step k = 0, and is trained by the mean
squared error to give the logged actions. Same backbone, same windows, same chunks; no noise and no
reverse process. Online it explores as a denoising chain does, with a fixed σ around its plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uepo_lib.denoisers import Denoiser, DenoiserConfig
from uepo_lib.diffusion import AveragedTraining, DiffusionConfig, SequenceWindows
from uepo_lib.errors import check
from uepo_lib.policies import normal_kl, normal_log_prob
from uepo_lib.training import GeneratorState, Metrics, Recorder, fit

REVISION = 1


@dataclass(frozen=True)
class Sizes:
    """S and A of the robot."""

    state_dim: int
    action_dim: int


class RegressionPolicy(nn.Module):
    """E[a_{1:T} | s] by a denoiser; a ``Policy`` of one member (see ``policies.py``)."""

    n = 1

    def __init__(
        self,
        cfg: DenoiserConfig,
        sizes: Sizes,
        *,
        action_horizon: int,
        sigma: float,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check(sigma > 0, "sigma", sigma, "positive")
        within = 1 <= action_horizon <= cfg.horizon
        check(within, "action_horizon", action_horizon, f"in 1 .. T={cfg.horizon}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.denoiser = Denoiser(cfg, sizes.state_dim, sizes.action_dim)
        self.action_horizon, self.sigma = action_horizon, sigma

    @property
    def obs_horizon(self) -> int:
        return self.denoiser.config.obs_horizon

    def forward(self, past: Tensor) -> Tensor:
        """(B, T_o, S) -> (B, T, A), not clipped."""
        shape = (len(past), self.denoiser.config.horizon, self.denoiser.action_dim)
        k = torch.zeros(len(past), dtype=torch.long, device=past.device)
        return self.denoiser(past.new_zeros(shape), k, past)

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(1, B, T_o, S) -> (1, B, T_a, A) in [-1, 1]: noise-free without a generator."""
        if generator is not None:
            return self.sample_path(states[0], generator)[0].clamp(-1, 1).unsqueeze(0)
        return self._executed(states[0]).clamp(-1, 1).unsqueeze(0)

    def _executed(self, past: Tensor) -> Tensor:
        return self(past)[:, : self.action_horizon]

    # what ppo.py asks of an actor; see GaussianPolicy

    @torch.no_grad()
    def sample_path(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows (N, T_o, S) -> executed actions (N, T_a, A), which are the path too."""
        mean = self._executed(states)
        z = torch.randn(mean.shape, generator=generator, device=mean.device)
        actions = mean + self.sigma * z
        return actions, actions

    def path_log_prob(self, states: Tensor, path: Tensor) -> Tensor:
        """(N, T_o, S), (N, T_a, A) -> (N, 1)."""
        terms = normal_log_prob(path, self._executed(states), self._log_std(path))
        return terms.sum((-2, -1)).unsqueeze(-1)

    def path_kl(self, other: RegressionPolicy, states: Tensor, path: Tensor) -> Tensor:
        """KL(self ‖ other) in nats: (N, 1)."""
        mean, log_std = self._executed(states), self._log_std(path)
        terms = normal_kl(mean, log_std, other._executed(states), other._log_std(path))
        return terms.sum((-2, -1)).unsqueeze(-1)

    def entropy(self, states: Tensor) -> Tensor:
        """σ is fixed, so the entropy is a constant: zero is returned."""
        return states.new_zeros(len(states))

    def _log_std(self, like: Tensor) -> Tensor:
        return like.new_full((), self.sigma).log()


def train_regression(
    training: DiffusionConfig,
    cfg: DenoiserConfig,
    sizes: Sizes,
    windows: SequenceWindows,
    *,
    action_horizon: int,
    sigma: float,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> RegressionPolicy:
    """Fit to whole windows with the diffusion policy's optimiser, schedule, batches and averaging.

    Of ``training`` only these are used, not the process.
    """
    policy = RegressionPolicy(cfg, sizes, action_horizon=action_horizon, sigma=sigma, seed=seed)
    trained = AveragedTraining(policy, training)
    generator = torch.Generator().manual_seed(seed)

    def update(step: int) -> Metrics:
        index = torch.randint(len(windows), (training.batch_size,), generator=generator)
        batch = windows.batch(index)
        loss = nn.functional.mse_loss(policy(batch.past), batch.actions)
        return {"mse": trained.step(loss)["loss"]}

    parts = {**trained.parts(), "generator": GeneratorState(generator)}
    fit(training.num_updates, update, parts, recorder=recorder, name="MSE clone", progress=progress)
    averaged = trained.average.module.eval()
    assert isinstance(averaged, RegressionPolicy)
    return averaged
