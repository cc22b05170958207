"""Our PPO beside stable-baselines3's, without the noise of seeds.

Returns of whole trainings differ by more between two seeds than implementations could be told apart
by. So first one update, from the same weights and the same rollout, of our PPO as it is: batches
are whole, so that their order does not matter, and no gradient is clipped, where the two differ on
purpose (``benchmarks/parity/settings.py``). Then short trainings on the same random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.parity import settings, train_ours
from benchmarks.parity.exchange import Network
from uepo_lib.behavior_training import ppo_trainer
from uepo_lib.locomotion import HOPPER
from uepo_lib.ppo import PPO, Rollout

train_sb3 = pytest.importorskip("benchmarks.parity.train_sb3")
lockstep = pytest.importorskip("benchmarks.parity.lockstep")

NEVER = 1e9
ROUNDS = 64


def _given(**changes: Any) -> dict[str, Any]:
    whole = {"num_envs": 8, "steps_per_update": 8 * ROUNDS, "minibatch_size": 8 * ROUNDS}
    return {**settings.settings("ppo", 8 * ROUNDS), **whole, "max_grad_norm": NEVER, **changes}


def _collected(given: dict[str, Any]) -> Any:
    """Their agent with a full rollout buffer and its advantages; nothing learnt yet."""
    theirs = train_sb3.agent(given, seed=0)
    _, callback = theirs._setup_learn(8 * ROUNDS)
    theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, theirs.n_steps)
    return theirs


def _linears(*parts: nn.Module) -> list[nn.Linear]:
    return [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]


def _copy(source: Sequence[nn.Linear], target: Sequence[nn.Linear]) -> None:
    for theirs, ours in zip(source, target, strict=True):
        ours.load_state_dict(theirs.state_dict())


def _networks(theirs: Any) -> tuple[list[nn.Linear], list[nn.Linear]]:
    policy = theirs.policy
    actor = _linears(policy.mlp_extractor.policy_net, policy.action_net)
    return actor, _linears(policy.mlp_extractor.value_net, policy.value_net)


def _ours(theirs: Any, given: dict[str, Any]) -> PPO:
    """Our trainer with the weights of their agent."""
    trainer = ppo_trainer(HOPPER, train_ours.online_config(given), seed=0)
    for source, target in zip(_networks(theirs), (trainer.actor, trainer.critic), strict=True):
        _copy(source, _linears(target))  # type: ignore[arg-type]
    trainer.actor.load_state_dict({**trainer.actor.state_dict(), "log_std": theirs.policy.log_std})
    return trainer


def _rollout(theirs: Any) -> Rollout:
    """Their buffer as ours; what follows an end is never read, since no value follows it."""
    buffer = theirs.rollout_buffer
    states = torch.from_numpy(np.concatenate([buffer.observations, theirs._last_obs[None]]))
    starts = np.concatenate([buffer.episode_starts[1:], theirs._last_episode_starts[None]])
    done = torch.from_numpy(starts.astype(bool))
    assert 10 < int(done.sum()) < 200  # ends by falling: no limit of time is near
    windows = states.float().unsqueeze(2)
    return Rollout(
        windows[:-1],
        windows[1:],
        torch.from_numpy(buffer.actions).unsqueeze(2),
        torch.from_numpy(buffer.log_probs).unsqueeze(2),
        torch.from_numpy(buffer.rewards),
        torch.ones_like(done, dtype=torch.long),
        done,
        done,
    )


def _parameters(actor: Sequence[nn.Linear], critic: Sequence[nn.Linear], std: Tensor) -> Tensor:
    flat = [p.detach().flatten() for layer in (*actor, *critic) for p in layer.parameters()]
    return torch.cat([*flat, std.detach().flatten()]).clone()


def _theirs(agent: Any) -> Tensor:
    return _parameters(*_networks(agent), agent.policy.log_std)


@pytest.mark.parametrize(
    ("epochs", "rate", "entropy"), [(1, 3e-4, 0.0), (10, 3e-4, 0.0), (10, 3e-3, 0.01)]
)
def test_an_update_is_the_peers(epochs: int, rate: float, entropy: float) -> None:
    given = _given(num_epochs=epochs, learning_rate=rate, entropy_coefficient=entropy)
    theirs = _collected(given)
    ours, rollout, before = _ours(theirs, given), _rollout(theirs), _theirs(theirs)
    scored = ours.actor.path_log_prob(rollout.states.flatten(0, 1), rollout.paths.flatten(0, 1))
    torch.testing.assert_close(scored.flatten(), rollout.log_probs.flatten(), atol=1e-5, rtol=0)

    kl = ours.improve(rollout)["kl"]
    theirs.train()
    expected = _theirs(theirs)
    actor: Any = ours.actor
    after = _parameters(_linears(actor), _linears(ours.critic), actor.log_std)
    moved = (expected - before).abs().max()
    assert (after - expected).abs().max() < 1e-3 * moved
    if rate > 1e-3:  # far enough for ratios to be clipped
        assert kl > 0.02 and theirs.logger.name_to_value["train/clip_fraction"] > 0.2


def _trained(side: str, given: dict[str, Any], out: Path) -> Network:
    lockstep.train({"side": side, "seed": 1, "settings": given, "out": str(out / side)})
    return Network.load(out / side / "policy.npz")


def _gap(one: Network, other: Network) -> float:
    pairs = zip((*one.weights, *one.biases), (*other.weights, *other.biases), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def test_trainings_on_the_same_random_numbers_end_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit where matrix products of both sides round alike, as the processor decides."""
    short = replace(HOPPER, max_episode_steps=13)  # ends by falling and by the clock
    for module in (lockstep, train_sb3):
        monkeypatch.setattr(module, "HOPPER", short)
    given = {**settings.settings("lockstep", 1_024), "steps_per_update": 512, "num_epochs": 3}
    ours, theirs = (_trained(side, given, tmp_path) for side in settings.SIDES)
    start = train_sb3.network_of(train_sb3.agent(given, seed=1))
    assert _gap(ours, theirs) < 1e-3 * _gap(theirs, start)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6)
    np.testing.assert_allclose(ours.std, theirs.std, rtol=1e-6)
    # a training of another seed ends elsewhere
    other = {"side": "ours", "seed": 2, "settings": given, "out": str(tmp_path / "other")}
    lockstep.train(other)
    assert _gap(Network.load(tmp_path / "other" / "policy.npz"), theirs) > _gap(theirs, start)
