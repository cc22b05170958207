"""d3rlpy's BC and IQL: one job. Runs in the environment of ``requirements-d3rlpy.txt``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import d3rlpy
import torch
from d3rlpy.algos import BCConfig, IQLConfig
from d3rlpy.dataset import MDPDataset
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory
from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory

from benchmarks.parity import exchange
from benchmarks.parity.exchange import Array, Network

PACKAGES = ("d3rlpy", "torch", "numpy", "gymnasium")


def dataset(arrays: Mapping[str, Array], reward_scale: float) -> MDPDataset:
    """The arrays as d3rlpy takes them: standardised here, by the same function as ours."""
    return MDPDataset(
        observations=exchange.standardised(arrays),
        actions=arrays["actions"],
        rewards=arrays["rewards"] * reward_scale,
        terminals=arrays["terminals"].astype("float32"),
        timeouts=arrays["timeouts"].astype("float32"),
    )


def cloning(given: Mapping[str, Any]) -> Any:
    """d3rlpy's behaviour cloning, deterministic as by default."""
    encoder = VectorEncoderFactory(list(given["hidden"]), given["activation"])
    config = BCConfig(
        batch_size=given["batch_size"],
        learning_rate=given["learning_rate"],
        encoder_factory=encoder,
    )
    return config.create(device="cpu")


def implicit_q(given: Mapping[str, Any]) -> Any:
    """d3rlpy's IQL with the schedule of its own script."""
    encoder = VectorEncoderFactory(list(given["hidden"]), given["activation"])
    schedule = CosineAnnealingLRFactory(T_max=given["updates"])
    config = IQLConfig(
        actor_learning_rate=given["learning_rate"],
        critic_learning_rate=given["learning_rate"],
        actor_optim_factory=AdamFactory(lr_scheduler_factory=schedule),
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        value_encoder_factory=encoder,
        batch_size=given["batch_size"],
        gamma=given["discount"],
        tau=given["polyak"],
        expectile=given["expectile"],
        weight_temp=given["beta"],
        max_weight=given["max_weight"],
    )
    return config.create(device="cpu")


def network_of(policy: Any, arrays: Mapping[str, Array]) -> Network:
    """The layers of a deterministic or a normal policy; both end in a tanh."""
    modules = policy.modules()
    hidden = [m for m in policy._encoder.modules() if isinstance(m, torch.nn.Linear)]
    layers = [*hidden, policy._mu if hasattr(policy, "_mu") else policy._fc]
    activation = "relu" if any(isinstance(m, torch.nn.ReLU) for m in modules) else "tanh"
    return Network(
        [layer.weight.detach().numpy().copy() for layer in layers],
        [layer.bias.detach().numpy().copy() for layer in layers],
        arrays["mean"],
        arrays["std"],
        activation=activation,
        squash=True,
    )


def train(job: Mapping[str, Any]) -> None:
    """Train, export, and say what it took."""
    torch.set_num_threads(1)
    d3rlpy.seed(job["seed"])
    given, iql = job["settings"], job["algorithm"] == "iql"
    arrays = exchange.read_npz(Path(job["arrays"]))
    data = dataset(arrays, exchange.reward_scale(arrays) if iql else 1.0)
    algorithm = (implicit_q if iql else cloning)(given)
    algorithm.build_with_dataset(data)
    started = time.monotonic()
    algorithm.fit(
        data,
        n_steps=given["updates"],
        n_steps_per_epoch=min(1_000, given["updates"]),  # its bar averages all losses of an epoch
        logger_adapter=NoopAdapterFactory(),
        show_progress=False,
    )
    seconds = time.monotonic() - started
    states = arrays["observations"][:512]
    expected = algorithm.predict(exchange.standardised(arrays)[:512])
    network = network_of(algorithm.impl.policy, arrays)
    exchange.finish(job, network, seconds, algorithm.grad_step, expected, states, PACKAGES)


if __name__ == "__main__":
    train(exchange.main_job())
