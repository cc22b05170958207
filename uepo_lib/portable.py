"""One sub-policy in one file, to be used where there is only this library: no run, no dataset.

    policy = load_policy("hopper.safetensors")
    policy.reset()
    observation, _ = env.reset(seed=0)
    observation, *_ = env.step(policy.predict(observation))

The file is safetensors: network, normaliser, ε and the action bounds as tensors, and as metadata
what rebuilds the rest and says where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from uepo_lib import denoisers, diffusion, facts, policies, schedules, subpolicies, tasks
from uepo_lib.configs import build
from uepo_lib.datasets import Dataset, Normaliser
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, build_diffusion
from uepo_lib.errors import UsageError, check
from uepo_lib.robots import Array, Robot
from uepo_lib.subpolicies import SubPolicies

FORMAT = "uepo-policy-1"
MODULES = (schedules, denoisers, diffusion, policies, subpolicies)
"""The modules whose revision decides which actions a file means."""


def save_policy(path: str | Path, policy: SubPolicies, dataset: Dataset) -> Path:
    """Write one sub-policy, with the normaliser of the ``dataset`` it was learnt from, to ``path``.

    Raises:
        UsageError: more than one sub-policy, or a guided one: it is a function of the state only
            among its n − 1 neighbours (A3); ``select(i)`` gives one of a set, unguided. Any other
            policy, one that PPO has improved included: its chain needs two networks.
    """
    plain = type(policy) is SubPolicies  # a subclass has tensors that the file has no place for
    check(plain, "policy", type(policy).__name__, "SubPolicies, as the offline phase left them")
    if policy.guidance is not None:
        raise UsageError(
            f"policy: guided, needs its {policy.n - 1} neighbours and cannot be saved alone; "
            "select(i) makes it an unguided one"
        )
    check(policy.n == 1, "policy", f"{policy.n} sub-policies", "one: use select(i)")
    model, robot = policy.model, dataset.task.robot
    tensors, rest = policy.state()
    env = robot.make()
    bounds: Any = env.action_space
    flattened = env.has_wrapper_attr("keys")  # by a wrapper, where the robot itself has no rule
    keys = env.get_wrapper_attr("keys") if flattened else robot.observation_keys
    env.close()
    content = {
        "format": FORMAT,
        "task": dataset.task.name,
        "env_id": robot.env_id,
        "observation_keys": keys,
        "dataset": asdict(dataset.key),
        "diffusion": asdict(model.config),
        "denoiser": asdict(model.denoiser.config),
        "sub_policy": rest,
        "revisions": _revisions(),
        "library": facts.commit() | {"versions": facts.versions()},
    }
    everything = {
        **{f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        **{f"sub_policy.{name}": tensor for name, tensor in tensors.items()},
        **dataset.normaliser.tensors(),
        "action.low": torch.tensor(bounds.low, dtype=torch.float32),
        "action.high": torch.tensor(bounds.high, dtype=torch.float32),
    }
    metadata = {name: json.dumps(value) for name, value in content.items()}
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in everything.items()}
    path = Path(path)
    facts.replace_file(path, lambda partial: save_file(contiguous, partial, metadata=metadata))
    return path


def load_policy(path: str | Path) -> PortablePolicy:
    """The policy that :func:`save_policy` wrote to ``path``.

    Raises:
        UsageError: no such file, one that was cut off or that something else wrote, one of another
            revision of the library, whose actions would not be the same.
    """
    path = Path(path)
    check(path.is_file(), "path", str(path), "a file that save_policy wrote")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UsageError(f"{path.name}: not a whole safetensors file ({error})") from None
    if metadata.get("format") != json.dumps(FORMAT):
        raise UsageError(f"{path.name}: not a policy; save_policy writes one ({FORMAT})")
    content = {name: json.loads(value) for name, value in metadata.items()}
    made, here = content["revisions"], _revisions()
    if made != here:
        names = ", ".join(name for name in here if made.get(name) != here[name])
        raise UsageError(f"{path.name}: saved with another revision of {names}; save it again")
    return PortablePolicy(content, tensors)


def _revisions() -> dict[str, int]:
    return {module.__name__.rpartition(".")[2]: module.REVISION for module in MODULES}


class PortablePolicy:
    """A saved sub-policy: raw observations in, actions in the environment's units out.

    It remembers the last T_o observations and the rest of its plan, T_a actions of which are
    executed before it plans again; so :meth:`reset` belongs to every ``env.reset``. ``info`` is
    what the file says of its origin.
    """

    def __init__(self, info: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.info = info
        keys = tuple(info["observation_keys"])
        self.robot: Robot = replace(tasks.get(info["task"]).robot, observation_keys=keys)
        sizes = self.robot.state_dim, self.robot.action_dim
        process = build(DiffusionConfig, info["diffusion"])
        model = build_diffusion(process, build(DenoiserConfig, info["denoiser"]), *sizes)
        model.load_state_dict(_part(tensors, "model."))
        model.requires_grad_(False).eval()
        self.policy = SubPolicies.from_state(
            model, _part(tensors, "sub_policy."), info["sub_policy"]
        )
        self.normaliser = Normaliser.from_tensors(dict(tensors))
        self.low, self.high = tensors["action.low"].numpy(), tensors["action.high"].numpy()
        self.reset(seed=0)

    @property
    def kappa(self) -> float:
        return float(self.policy.kappa)

    def reset(self, seed: int | None = None) -> None:
        """Forget observations and plans; ``seed``, if given, starts fresh noise anew."""
        self._windows: Tensor | None = None
        self._age = torch.zeros(0, dtype=torch.long)
        if seed is not None:
            self._generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def predict(
        self,
        observation: ArrayLike | Mapping[str, Array],
        episode_start: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """The next action (A,) after ``observation``, as ``env.reset`` or ``env.step`` gave it.

        A dictionary is flattened by the robot's rule. For a vector environment pass observations
        (N, S) and get actions (N, A); ``episode_start`` (N,) bool says which of the N begin anew.
        """
        raw: Any = observation if isinstance(observation, Mapping) else np.asarray(observation)
        states = torch.from_numpy(np.asarray(self.robot.flatten(raw), dtype=np.float32))
        expected = self.robot.state_dim
        known = states.ndim in (1, 2) and states.shape[-1] == expected
        check(known, "observation", tuple(states.shape), f"({expected},) or (N, {expected})")
        rows = states.view(-1, expected)
        self._observe(rows, episode_start)
        due = self._age == 0
        if due.any():
            seen = self.normaliser(self._windows[due])[None]  # type: ignore[index]
            generator = self._generator if self.policy.fresh_noise else None
            self._plans[due] = self.policy.act(seen, generator)[0].clamp(-1, 1)
        action = self._plans[torch.arange(len(rows)), self._age]
        self._age = (self._age + 1) % self.policy.action_horizon
        return self._in_units(action.numpy()).reshape(*states.shape[:-1], -1)

    def _observe(self, rows: Tensor, episode_start: ArrayLike | None) -> None:
        """Take ``rows`` (N, S) into the windows; those that begin are filled with their first."""
        count, horizon = len(rows), self.policy.obs_horizon
        if self._windows is None:
            self._windows = rows[:, None].repeat(1, horizon, 1)
            self._plans = torch.zeros(count, self.policy.action_horizon, self.robot.action_dim)
            self._age = torch.zeros(count, dtype=torch.long)
            return
        same = len(self._windows) == count
        check(same, "observation", count, f"{len(self._windows)} as since the last reset()")
        self._windows = torch.cat([self._windows[:, 1:], rows[:, None]], dim=1)
        if episode_start is not None:
            begins = torch.from_numpy(np.atleast_1d(np.asarray(episode_start, dtype=bool)))
            self._windows[begins] = rows[begins, None].repeat(1, horizon, 1)
            self._age[begins] = 0

    def _in_units(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """From [−1, 1] to the environment's bounds; as it is where those are its bounds."""
        if (self.low == -1).all() and (self.high == 1).all():
            return action
        return self.low + (action + 1) / 2 * (self.high - self.low)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
