from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
from env_toys import identity, scripted_robot
from torch import Tensor

from uepo_lib.environments import ChunkedEnvs, DatasetSimulator
from uepo_lib.errors import UsageError
from uepo_lib.hand import DOOR, HAMMER, PEN, RELOCATE
from uepo_lib.locomotion import HALFCHEETAH, HOPPER, WALKER2D
from uepo_lib.maze import MAZE
from uepo_lib.robots import Env, Robot

GAMMA = 0.9


def commands(rounds: int, num_envs: int, chunk: int, seed: int = 0, scale: float = 1.3) -> Tensor:
    """Random chunks, some out of range: (rounds, N, T_a, 3)."""
    generator = torch.Generator().manual_seed(seed)
    return scale * (2 * torch.rand(rounds, num_envs, chunk, 3, generator=generator) - 1)


def short_hopper(steps: int) -> Robot:
    return dataclasses.replace(HOPPER, max_episode_steps=steps)


# ---- against a plain loop over Gymnasium ---------------------------------------------------------


def plain_loop(robot: Robot, seed: int, chunks: Tensor) -> list[dict[str, Any]]:
    """One environment, (rounds, T_a, A) actions: what each chunk gave, by nothing but ``step``."""
    env = robot.make()
    state = env.reset(seed=seed)[0]
    seen, total, length, rows = [state, state, state], 0.0, 0, []
    for chunk in chunks.clamp(-1, 1).numpy():
        reward, executed, terminated, late = 0.0, 0, False, False
        for k, action in enumerate(chunk):
            state, r, terminated, _, _ = env.step(action)
            reward, total = reward + GAMMA**k * float(r), total + float(r)
            executed, length = executed + 1, length + 1
            seen = [*seen[1:], state]
            late = length >= robot.max_episode_steps and not terminated
            if terminated or late:
                break
        rows.append(
            {
                "reward": reward, "steps": executed, "terminated": terminated, "truncated": late,
                "windows": np.stack(seen), "episode": (total, length),
            }
        )  # fmt: skip
        if terminated or late:
            state, total, length = env.reset()[0], 0.0, 0
            seen = [state] * 3
    env.close()
    return rows


@pytest.mark.parametrize("robot", [HOPPER, short_hopper(11)], ids=["falls", "clock"])
def test_chunks_are_those_of_a_plain_loop(robot: Robot) -> None:
    seeds, chunks = [5, 6], commands(15, 2, 4)
    envs = ChunkedEnvs(robot, seeds, obs_horizon=3, discount=GAMMA)
    expected = [plain_loop(robot, seed, chunks[:, i]) for i, seed in enumerate(seeds)]
    early = 0
    for r in range(len(chunks)):
        chunk, episodes = envs.step(chunks[r])
        ended = {episode.env: episode for episode in episodes}
        for i in range(2):
            row = expected[i][r]
            assert chunk.reward[i].item() == pytest.approx(row["reward"], rel=1e-5)
            assert chunk.steps[i] == row["steps"]
            assert bool(chunk.terminated[i]) == row["terminated"]
            assert bool(chunk.truncated[i]) == row["truncated"]
            windows = torch.from_numpy(row["windows"].astype(np.float32))
            assert torch.equal(chunk.windows[i], windows)
            over = row["terminated"] or row["truncated"]
            assert over == (i in ended)
            if over:
                total, length = row["episode"]
                assert ended[i].undiscounted_return == pytest.approx(total)
                assert ended[i].length == length
                early += row["steps"] < 4
    assert early > 0, "no episode ended inside a chunk"
    assert envs.num_steps == sum(row["steps"] for rows in expected for row in rows)
    envs.close()


# ---- how an episode ends -------------------------------------------------------------------------


def test_an_end_inside_a_chunk_wastes_the_rest_of_it() -> None:
    envs = ChunkedEnvs(scripted_robot(last=6), [0], discount=0.5)
    action = torch.ones(1, 4, 1)  # every step costs 1
    first, _ = envs.step(action)
    second, episodes = envs.step(action)
    assert first.reward.item() == -(1 + 0.5 + 0.25 + 0.125)
    assert second.reward.item() == -1.5
    assert (second.steps.item(), second.terminated.item(), second.truncated.item()) == (2, 1, 0)
    assert second.windows.flatten().tolist() == [6.0], "the last state, not the one after a reset"
    assert envs.windows.flatten().tolist() == [0.0]
    assert [(e.undiscounted_return, e.length) for e in episodes] == [(-6.0, 6)]


def test_the_clock_truncates_and_does_not_terminate() -> None:
    envs = ChunkedEnvs(scripted_robot(max_episode_steps=6), [0])
    envs.step(torch.zeros(1, 4, 1))
    chunk, episodes = envs.step(torch.zeros(1, 4, 1))
    assert (chunk.terminated.item(), chunk.truncated.item()) == (False, True)
    assert episodes[0].length == 6


def test_an_end_at_the_very_last_step_is_an_end() -> None:
    envs = ChunkedEnvs(scripted_robot(last=6, max_episode_steps=6), [0])
    chunk, _ = envs.step(torch.zeros(1, 6, 1))
    assert (chunk.terminated.item(), chunk.truncated.item()) == (True, False)


def test_without_reset_an_ended_environment_rests() -> None:
    envs = ChunkedEnvs(scripted_robot(last=3), [0, 1], auto_reset=False)
    envs.step(torch.ones(2, 3, 1))
    assert envs.active == [False, False]
    chunk, episodes = envs.step(torch.ones(2, 3, 1))
    assert not episodes
    assert envs.num_steps == 6
    for column in (chunk.reward, chunk.steps, chunk.terminated, chunk.truncated):
        assert not column.any()


def test_windows_begin_with_the_first_state_repeated() -> None:
    envs = ChunkedEnvs(scripted_robot(last=9), [0], obs_horizon=3)
    seen = [envs.windows.flatten().tolist()]
    for _ in range(3):
        envs.step(torch.zeros(1, 1, 1))
        seen.append(envs.windows.flatten().tolist())
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_actions_out_of_range_are_clipped_before_they_are_executed() -> None:
    envs = ChunkedEnvs(scripted_robot(), [0, 1])
    chunk, _ = envs.step(torch.tensor([[[3.0]], [[-7.0]]]))
    assert chunk.reward.tolist() == [-1.0, -1.0]


def test_no_environment_is_refused() -> None:
    with pytest.raises(UsageError, match="seeds"):
        ChunkedEnvs(scripted_robot(), [])


# ---- transitions that are kept -------------------------------------------------------------------


def test_kept_transitions_are_the_steps_that_were_made() -> None:
    envs = ChunkedEnvs(scripted_robot(last=3), [0], keep_transitions=True)
    for _ in range(2):
        envs.step(torch.full((1, 4, 1), 0.5))  # ends after three
    kept = envs.transitions(lambda states: states / 10)
    assert len(kept) == envs.num_steps == 6
    torch.testing.assert_close(10 * kept.states[:, 0], torch.tensor([0.0, 1, 2, 0, 1, 2]))
    torch.testing.assert_close(10 * kept.next_states[:, 0], torch.tensor([1.0, 2, 3, 1, 2, 3]))
    assert kept.terminated.tolist() == [False, False, True] * 2
    assert kept.rewards.tolist() == [-0.25] * 6
    assert kept.actions.flatten().tolist() == [0.5] * 6


def test_a_timeout_is_kept_as_a_step_that_goes_on() -> None:
    envs = ChunkedEnvs(scripted_robot(max_episode_steps=2), [0], keep_transitions=True)
    envs.step(torch.zeros(1, 2, 1))
    assert not envs.transitions(lambda states: states).terminated.any()


# ---- resuming ------------------------------------------------------------------------------------


def test_a_restored_set_goes_on_bit_for_bit() -> None:
    """Mid-episode, through ends and the resets after them, into copies that began elsewhere."""
    chunks = commands(24, 2, 3, seed=4)
    options = {"obs_horizon": 2, "discount": GAMMA, "keep_transitions": True}
    one = ChunkedEnvs(HOPPER, [1, 2], **options)  # type: ignore[arg-type]
    for actions in chunks[:5]:
        one.step(actions)
    assert any(one.elapsed), "mid-episode"
    buffer = io.BytesIO()
    torch.save(one.state_dict(), buffer)
    other = ChunkedEnvs(HOPPER, [88, 99], **options)  # type: ignore[arg-type]
    other.step(commands(1, 2, 3, seed=9)[0])
    other.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    endings = 0
    for actions in chunks[5:]:
        (a, ended), (b, also) = one.step(actions), other.step(actions)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert ended == also
        endings += len(ended)
    assert endings > 0
    assert torch.equal(one.windows, other.windows)
    for x, y in zip(
        one.transitions(lambda s: s).tensors(), other.transitions(lambda s: s).tensors(),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(x, y)
    one.close()
    other.close()


def test_a_saved_state_does_not_change_afterwards() -> None:
    envs = ChunkedEnvs(HOPPER, [1])
    saved = envs.state_dict()
    before = {key: torch.as_tensor(saved[key]).clone() for key in ("simulators", "windows")}
    envs.step(commands(1, 1, 4)[0])
    assert saved["elapsed"] == [0]
    assert saved["num_steps"] == 0
    assert all(torch.equal(saved[key], value) for key, value in before.items())
    envs.close()


# ---- copies that serve again ---------------------------------------------------------------------

REUSABLE = [HOPPER, WALKER2D, HALFCHEETAH, PEN, DOOR, HAMMER, RELOCATE, MAZE]


def random_steps(env: Env, robot: Robot, count: int) -> list[tuple[Any, ...]]:
    """What ``count`` random steps after the last reset give, ends not minded, and the simulator."""
    generator, seen = np.random.default_rng(0), []
    for _ in range(count):
        action = generator.uniform(-1, 1, robot.action_dim).astype(np.float32)
        state, reward, terminated, _, _ = env.step(action)
        seen.append((state.tobytes(), float(reward), terminated))
    return [*seen, (robot.simulator_state(env).tobytes(),)]


@pytest.mark.parametrize("robot", REUSABLE, ids=lambda robot: robot.name)
def test_a_copy_that_was_played_and_reset_is_as_new(robot: Robot) -> None:
    assert robot.reusable
    used, new = robot.make(), robot.make()
    used.reset(seed=7)
    random_steps(used, robot, 30)
    robot.restore_logged(used, robot.logged_state(used))
    used.reset()
    random_steps(used, robot, 5)
    first, expected = used.reset(seed=3)[0], new.reset(seed=3)[0]
    assert first.tobytes() == expected.tobytes()
    assert random_steps(used, robot, 40) == random_steps(new, robot, 40)
    assert used.reset()[0].tobytes() == new.reset()[0].tobytes(), "and so are its later resets"


def test_only_copies_given_back_serve_again_and_only_their_own_robot() -> None:
    hopper, other = dataclasses.replace(HOPPER), dataclasses.replace(HOPPER, max_episode_steps=5)
    envs = ChunkedEnvs(hopper, [0, 1])
    copies = [*envs.envs]
    envs.close()
    envs.close()  # gives nothing back a second time
    assert all(env not in copies for env in ChunkedEnvs(other, [0, 1]).envs)
    again = ChunkedEnvs(hopper, [0, 1, 2])
    assert [env in copies for env in again.envs] == [True, True, False]
    assert len({id(env) for env in again.envs}) == 3
    fresh = dataclasses.replace(HOPPER, reusable=False)
    envs = ChunkedEnvs(fresh, [0])
    copies = [*envs.envs]
    envs.close()
    assert ChunkedEnvs(fresh, [0]).envs[0] not in copies


# ---- the real dynamics from logged states --------------------------------------------------------


def logged(steps: int) -> dict[str, Tensor]:
    """A few steps of Hopper with the simulator's state before each."""
    env = HOPPER.make()
    state, rows = env.reset(seed=0)[0], []
    base: Any = env.unwrapped
    for action in commands(steps, 1, 1, scale=1.0)[:, 0, 0].numpy():
        full = np.concatenate([base.data.qpos, base.data.qvel])
        after, reward, terminated, _, _ = env.step(action)
        rows.append((state, full, action, after, reward, terminated))
        state = after
        if terminated:
            state = env.reset()[0]
    env.close()
    names = ("states", "simulator", "actions", "next_states", "rewards", "terminated")
    return {
        name: torch.from_numpy(np.stack(column))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def test_simulator_repeats_logged_steps() -> None:
    log = logged(60)
    past = log["states"].float().unsqueeze(1)
    simulator = DatasetSimulator(HOPPER, log["simulator"], past, identity(HOPPER))
    index = torch.tensor([0, 7, 31, 59])
    assert torch.equal(simulator.reset_to(index), past[index])
    active = torch.tensor([True, True, False, True])
    reached, rewards, terminated = simulator.step(log["actions"][index].float(), active)
    expected = torch.where(active.unsqueeze(1), log["next_states"][index], log["states"][index])
    torch.testing.assert_close(reached.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        rewards.double(), log["rewards"][index] * active, rtol=1e-5, atol=1e-5
    )
    assert terminated.tolist() == (log["terminated"][index] & active).tolist()
    assert (simulator.steps, simulator.resets) == (3, 4)


def test_simulator_follows_a_logged_sequence_and_forgets_where_it_was() -> None:
    log = logged(60)
    simulator = DatasetSimulator(
        HOPPER, log["simulator"], log["states"].float().unsqueeze(1), identity(HOPPER)
    )
    everyone = torch.ones(2, dtype=torch.bool)
    simulator.reset_to(torch.tensor([40, 50]))
    simulator.step(torch.ones(2, 3), everyone)
    simulator.reset_to(torch.tensor([0, 3]))
    for k in range(4):  # no solver's warm start is logged: equal to rounding, not to the bit
        rows = torch.tensor([k, 3 + k])
        reached, _, _ = simulator.step(log["actions"][rows].float(), everyone)
        torch.testing.assert_close(reached.double(), log["next_states"][rows], rtol=1e-4, atol=1e-4)


def test_simulator_needs_a_window_for_every_state() -> None:
    with pytest.raises(UsageError, match="simulator_states"):
        DatasetSimulator(HOPPER, torch.zeros(3, 12), torch.zeros(2, 1, 11), identity(HOPPER))
