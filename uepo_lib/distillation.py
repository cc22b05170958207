"""A Gaussian that imitates one sub-policy: what UEPO's choice is worth without its chain (E3).

Gaussian PPO from here differs from PPO on the chain by the optimiser and the policy class, and from
PPO after plain cloning by the initialisation.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from uepo_lib.cloning import CloneConfig, train_clone
from uepo_lib.datasets import Batch
from uepo_lib.diffusion import SequenceWindows
from uepo_lib.errors import check
from uepo_lib.policies import GaussianConfig, GaussianPolicy, Policy
from uepo_lib.training import Recorder

REVISION = 1
AT_ONCE = 2_048
"""States that the teacher is asked for at a time."""


class Imitated:
    """The windows of D with the teacher's actions in place of the logged ones.

    Its first actions, noise-free, plus noise of the std that ``noise`` has in that state: the
    student's likelihood then has the teacher's mean and the clone's std as its maximum, so it
    explores as the clone does. Drawn once for every window, as logged actions are.
    """

    def __init__(
        self, windows: SequenceWindows, teacher: Policy, noise: GaussianPolicy, seed: int
    ) -> None:
        check(teacher.n == 1, "teacher", f"{teacher.n} members", "one policy")
        self.windows = windows
        generator = torch.Generator().manual_seed(seed)
        rows = torch.arange(len(windows)).split(AT_ONCE)
        self.actions = torch.cat([self._imitate(r, teacher, noise, generator) for r in rows])

    @torch.no_grad()
    def _imitate(
        self, rows: Tensor, teacher: Policy, noise: GaussianPolicy, generator: torch.Generator
    ) -> Tensor:
        past = self.windows.batch(rows).past
        mean = teacher.act(past.unsqueeze(0))[0, :, :1]
        return mean + noise(past)[1].exp() * torch.randn(mean.shape, generator=generator)

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, index: Tensor) -> Batch:
        """Windows ``index`` (B,); ``actions`` are (B, 1, A)."""
        return self.windows.batch(index)._replace(actions=self.actions[index])


def distil(
    cfg: CloneConfig,
    gaussian: GaussianConfig,
    teacher: Policy,
    noise: GaussianPolicy,
    windows: SequenceWindows,
    *,
    seed: int,
    recorder: Recorder | None = None,
    progress: bool = True,
) -> GaussianPolicy:
    """Clone ``teacher`` on the states of ``windows``, with the budget of cloning."""
    for name, horizon in (("gaussian", gaussian), ("noise", noise.config)):
        check(horizon.action_horizon == 1, f"{name}.action_horizon", horizon.action_horizon, "1")
    imitated = Imitated(windows, teacher, noise, zlib.crc32(f"imitated/{seed}".encode()))
    return train_clone(cfg, gaussian, imitated, seed=seed, recorder=recorder, progress=progress)
