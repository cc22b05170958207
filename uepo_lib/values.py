r"""Implicit Q-learning: Q and V from data alone, never asking for an action outside it.

With the expectile loss $L_2^\tau(u) = |\tau - \mathbb{1}(u < 0)|\, u^2$,

$$L_V = \mathbb{E}_D\big[L_2^\tau\big(\min_i \bar Q_i(s, a) - V(s)\big)\big], \qquad
L_Q = \mathbb{E}_D\big[\textstyle\sum_i (r + \gamma (1 - d) V(s') - Q_i(s, a))^2\big]$$

where d marks true terminations: an episode that was only cut off still has a future, and its value
is bootstrapped. Source: IQL (arXiv 2110.06169), equations 5 and 6; sizes after Uni-O4
(arXiv 2311.03351). For τ > 1/2 V is an *expectile* over the dataset's actions, not V^π.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from uepo_lib.datasets import Transitions
from uepo_lib.errors import check
from uepo_lib.networks import ensemble_mlp, mlp, multiply_
from uepo_lib.training import GeneratorState, Metrics, Recorder, Stateful, descend, fit

REVISION = 2


@dataclass(frozen=True)
class IQLConfig:
    """Critic sizes and training. Uni-O4 has V 3×512, Q 2×1024, lr 1e-4, batch 512, 2M updates; the
    profile ``paper`` has these sizes and keeps the rate of here.

    ``polyak`` is the share of the online Q in the target, mixed in every ``target_every`` updates.
    ``scale_rewards``: learn in units of mean |r| / (1 − γ), about the size of a value, and give the
    result in the units of D. Raw, as in Uni-O4, the networks first have to grow to values of
    hundreds or thousands, for which they have 2M updates there.
    """

    hidden_q: tuple[int, ...] = (256, 256)
    hidden_v: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    num_updates: int = 20_000
    discount: float = 0.99
    expectile: float = 0.7
    polyak: float = 0.005
    target_every: int = 2
    scale_rewards: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden_q", "hidden_v"):
            widths = getattr(self, name)
            check(len(widths) > 0 and min(widths) > 0, name, widths, "positive layer widths")
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        check(self.batch_size > 0, "batch_size", self.batch_size, "a positive integer")
        check(self.num_updates > 0, "num_updates", self.num_updates, "a positive integer")
        check(0 <= self.discount < 1, "discount", self.discount, "in [0, 1)")
        check(0 < self.expectile < 1, "expectile", self.expectile, "between 0 and 1")
        check(0 < self.polyak <= 1, "polyak", self.polyak, "in (0, 1]")
        check(self.target_every > 0, "target_every", self.target_every, "a positive integer")


class Critic(nn.Module):
    """Twin Q, its slowly moving target, and V. Values are discounted sums of raw rewards."""

    def __init__(self, cfg: IQLConfig, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.cfg, self.state_dim, self.action_dim = cfg, state_dim, action_dim
        self.q_net = ensemble_mlp(2, (state_dim + action_dim, *cfg.hidden_q, 1))
        self.v_net = mlp((state_dim, *cfg.hidden_v, 1))
        self.target_net = copy.deepcopy(self.q_net).requires_grad_(False)

    def q(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, A) -> both estimates, (2, B)."""
        return _twin(self.q_net, states, actions)

    def target_q(self, states: Tensor, actions: Tensor) -> Tensor:
        """As ``q``, by the target networks."""
        return _twin(self.target_net, states, actions)

    def min_q(self, states: Tensor, actions: Tensor) -> Tensor:
        """The lower of both estimates: (..., S), (..., A) -> (...)."""
        rows = states.reshape(-1, self.state_dim), actions.reshape(-1, self.action_dim)
        return self.q(*rows).amin(0).view(states.shape[:-1])

    def v(self, states: Tensor) -> Tensor:
        """(..., S) -> (...)."""
        return self.v_net(states).squeeze(-1)

    def advantage(self, states: Tensor, actions: Tensor) -> Tensor:
        """min Q(s, a) − V(s), what Uni-O4's offline PPO climbs: (..., S), (..., A) -> (...)."""
        return self.min_q(states, actions) - self.v(states)

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target by the share ``polyak`` towards the online Q."""
        for slow, fast in zip(self.target_net.parameters(), self.q_net.parameters(), strict=True):
            slow.lerp_(fast, self.cfg.polyak)


def _twin(network: nn.Module, states: Tensor, actions: Tensor) -> Tensor:
    x = torch.cat([states, actions], -1)
    return network(x.expand(2, -1, -1)).squeeze(-1)


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |τ − 1(u < 0)| u² for u = ``difference``: its minimum over V is the τ-expectile."""
    below = (difference < 0).to(difference.dtype)
    return ((expectile - below).abs() * difference.square()).mean()


def iql_loss(critic: Critic, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
    """L_V + L_Q, the two lines at the top of this file, and what to log of them."""
    cfg, states, actions = critic.cfg, batch.states, batch.actions
    with torch.no_grad():
        target_q = critic.target_q(states, actions).amin(0)
        alive = 1 - batch.terminated.to(states.dtype)
        backup = batch.rewards + cfg.discount * alive * critic.v(batch.next_states)
    v, q = critic.v(states), critic.q(states, actions)
    v_loss = expectile_loss(target_q - v, cfg.expectile)
    q_loss = (q - backup).square().mean(1).sum()
    metrics = {"v_loss": v_loss, "q_loss": q_loss, "v_mean": v.mean(), "q_mean": q.mean()}
    return v_loss + q_loss, {name: value.detach() for name, value in metrics.items()}


def build(
    cfg: IQLConfig, state_dim: int, action_dim: int, seed: int = 0, device: str = "cpu"
) -> Critic:
    """An untrained critic, the same for the same seed; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Critic(cfg, state_dim, action_dim).to(device)


def value_unit(cfg: IQLConfig, rewards: Tensor) -> float:
    """What values are measured in while they are learnt; 1 for data without any reward."""
    size = float(rewards.abs().mean()) / (1 - cfg.discount)
    return size if cfg.scale_rewards and size > 0 else 1.0


def train_iql(
    cfg: IQLConfig,
    transitions: Transitions,
    *,
    seed: int,
    recorder: Recorder | None = None,
    device: str = "cpu",
    progress: bool = True,
    name: str = "critic",
) -> Critic:
    """Fit Q and V to ``transitions`` by IQL; what is returned and logged is in their units.

    Raises ``UsageError`` for empty data, and for NaN or infinite values.
    """
    data = Transitions(*(column.to(device) for column in transitions.tensors()))
    check(len(data) > 0, "transitions", "empty", "at least one transition")
    finite = all(bool(column.isfinite().all()) for column in data.tensors())
    check(finite, "transitions", "NaN or infinite", "finite numbers throughout")
    unit = value_unit(cfg, data.rewards)
    data = replace(data, rewards=data.rewards / unit)
    critic = build(cfg, transitions.states.shape[-1], transitions.actions.shape[-1], seed, device)
    learned = [p for p in critic.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=cfg.learning_rate, fused=True)
    generator = torch.Generator(device).manual_seed(seed)

    def update(step: int) -> Metrics:
        rows = torch.randint(len(data), (cfg.batch_size,), generator=generator, device=device)
        loss, metrics = iql_loss(critic, data[rows])
        descend(loss, optimiser)
        if (step + 1) % cfg.target_every == 0:
            critic.update_target()
        return {k: v * (unit**2 if k.endswith("loss") else unit) for k, v in metrics.items()}

    parts: dict[str, Stateful] = {
        "critic": critic,
        "optimiser": optimiser,
        "generator": GeneratorState(generator),
    }
    fit(cfg.num_updates, update, parts, recorder=recorder, name=name, progress=progress)
    critic.requires_grad_(False)
    for network in (critic.q_net, critic.target_net, critic.v_net):
        multiply_(network, unit)
    return critic
