"""Stacks of frames: the actor's, the replay's and a whole rollout's are one and the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import pqn
from agents.contract import Rollout
from agents.networks import QNetwork
from agents.q_actor import QActor
from agents.replay.ring import RingReplay
from agents.replay.stack import push, stacks, stacks_there, visible
from envs.contract import Spec
from runners.sources import Plan
from tests.agents.test_joint import GAMMA, Scene

CPU = torch.device("cpu")


def brute_force(obs, first, row, lane, frames):
    """The frames of one row by walking back until the episode's first one."""
    found = [obs[row, lane]]
    while len(found) < frames and not first[row, lane]:
        row -= 1
        found.insert(0, obs[row, lane])
    return np.stack([np.zeros_like(found[0])] * (frames - len(found)) + found)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 1]))
def test_rows_stacked_at_once_and_one_by_one_are_those_of_the_walk(frames, rows, seed, p):
    rng = np.random.default_rng(seed)
    obs = rng.integers(1, 255, (frames - 1 + rows, 3, 2, 2), dtype=np.uint8)
    first = rng.random(obs.shape[:2]) < p
    first[0] = True
    together = stacks(obs, first, frames)
    before = np.zeros((1, 3, frames - 1, 2, 2), np.uint8)
    for row in range(len(obs)):
        stacked = push(before, obs[row][None], first[row][None])
        before = stacked[:, :, 1:]
        for lane in range(3):
            expected = brute_force(obs, first, row, lane, frames)
            assert (stacked[0, lane] == expected).all()
            if row >= frames - 1:
                assert (together[row - frames + 1, lane] == expected).all()
    assert stacked.dtype == together.dtype == np.uint8


def true_stack(episode, last, frames):
    """The numbers of the frames up to index ``last`` of an episode, 0 where there was none."""
    return [episode.obs[i] if i >= 0 else 0.0 for i in range(last - frames + 1, last + 1)]


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
@pytest.mark.parametrize(("n_step", "frames"), [(1, 2), (3, 4)])
def test_the_ring_gives_the_stacks_of_the_record(limit, n_step, frames):
    """Each sampled pair of stacks is what the simulator showed, also across the ring's seam."""
    scene = Scene([0, 1], lanes=3, limit=limit, p_end=0.1, n_step=n_step, capacity=60)
    ring = RingReplay(
        scene.spec, [np.random.default_rng([k, 3]) for k in range(2)], 3,
        capacity=60, batch_size=32, n_step=n_step, gamma=GAMMA, frame_stack=frames,
    )  # fmt: skip
    rng = np.random.default_rng(limit)
    compared = blanks = 0
    for _ in range(30):
        ring.add(scene.worker.collect(Plan(int(rng.integers(1, 9)), None), 0))
        if ring.head < n_step + frames + 2:
            continue
        where = {
            name: (episode, i)
            for history in scene.histories() for episode in history
            for i, name in enumerate(episode.obs)
        }  # fmt: skip
        batch = ring.sample()
        assert batch.obs.shape == (2, 32, frames, 2)
        for obs, next_obs in zip(
            batch.obs[..., 0].reshape(-1, frames).tolist(),
            batch.next_obs[..., 0].reshape(-1, frames).tolist(), strict=True,
        ):  # fmt: skip
            episode, i = where[obs[-1]]
            same, j = where[next_obs[-1]]
            assert same is episode
            assert j == min(i + n_step, len(episode.rewards))
            assert obs == true_stack(episode, i, frames)
            assert next_obs == true_stack(episode, j, frames)
            compared += 1
            blanks += obs[0] == 0
    assert compared > 500
    assert blanks > 0


def test_the_oldest_rows_may_start_where_their_stack_is_in_the_ring():
    """Capacity 10 of one lane, four frames: ten rows that may start, the stacks before them kept."""
    scene = Scene([0], lanes=1, limit=1000, p_end=0.0, n_step=1, capacity=10)
    ring = RingReplay(
        scene.spec, [np.random.default_rng(0)], 1, capacity=10, batch_size=256, n_step=1,
        gamma=GAMMA, frame_stack=4,
    )  # fmt: skip
    for _ in range(5):
        ring.add(scene.worker.collect(Plan(8, None), 0))
    newest = {float(x) for x in ring.sample().obs[0, :, -1, 0]}
    # rows 30..39 of 40, numbered from the first observation on
    first = scene.histories()[0][0].obs[0]
    assert newest == {first + row for row in range(30, 40)}


def test_a_frame_of_84x84_takes_no_more_than_its_bytes():
    spec = Spec((84, 84), np.dtype(np.uint8), 0, 18)
    ring = RingReplay(
        spec, [np.random.default_rng(0)], 8, capacity=8000, batch_size=32, n_step=1, gamma=0.99,
        frame_stack=4, end_on_life_loss=True,
    )  # fmt: skip
    assert ring.nbytes / 8000 <= 7_200


def image_network(seeds, frames, **kwargs):
    spec = Spec((84, 84), np.dtype(np.uint8), 0, 6, obs_scale=1 / 255)
    return QNetwork(
        spec, seeds, (16,), layer_norm=False, dueling=False, device=CPU, frame_stack=frames,
        **kwargs,
    )  # fmt: skip


def test_an_actor_sees_the_stacks_that_the_replay_rebuilds():
    seen = []
    network = image_network(1, 3)
    actor = QActor(network, [np.random.default_rng(0)])
    actor.values = lambda obs, noise, explore: (seen.append(obs.copy()), np.zeros((1, 2, 6)))[1]
    rng = np.random.default_rng(1)
    obs = rng.integers(1, 255, (7, 2, 84, 84), dtype=np.uint8)
    first = np.array([[1, 1], [0, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 0]], bool)
    state = actor.initial_state(2)
    for row in range(7):
        _, state, _ = actor.act(obs[row][None], first[row][None], {}, state, True)
    expected = stacks(obs, first, 3)
    assert (np.stack(seen)[2:, 0] == expected).all()
    assert not actor.stored


@pytest.mark.parametrize("lengths", [[7], [1] * 7, [2, 3, 1, 1]])
def test_pqn_stacks_across_the_borders_of_rollouts(lengths):
    """However the rows are cut into rollouts, each has the frames that really came before it."""
    spec = Spec((2,), np.dtype(np.float32), 0, 3)
    config = pqn.PQNConfig(frame_stack=3, hidden=(4,))
    seeds = [np.random.SeedSequence(k) for k in range(2)]
    learner = pqn.make_learner(
        config, spec, 2, seeds, [np.random.default_rng(k) for k in (0, 1)], CPU
    )
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(8, 4, 2)).astype(np.float32)
    first = rng.random((8, 4)) < 0.3
    first[0] = True
    start = 0
    for rows in lengths:
        part = slice(start, start + rows + 1)
        zeros = np.zeros((rows, 4))
        rollout = Rollout(obs[part], first[part], zeros.astype(int), zeros, zeros > 0, zeros > 0)
        stacked = learner._stacked(rollout)
        for row in range(rows + 1):
            for lane in range(4):
                expected = brute_force(obs, first, start + row, lane, 3)
                assert (stacked[row, lane] == expected).all()
        start += rows
    learner.keep([1])
    assert learner._frames["obs"].shape == (2, 1, 2, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_stacks_made_on_a_device_are_those_made_here(dtype):
    """Of two seeds with three lanes each, whose episodes begin anywhere."""
    rng, frames, rows = np.random.default_rng(0), 4, 30
    obs = rng.integers(1, 200, size=(frames - 1 + rows, 6, 3, 2)).astype(dtype)
    first = rng.random(obs.shape[:2]) < 0.2
    expected = stacks(obs, first, frames)

    def seed_major(column):
        return torch.from_numpy(
            column.reshape(len(column), 2, 3, *column.shape[2:]).swapaxes(0, 1).copy()
        )

    found = stacks_there(seed_major(obs), seed_major(visible(first, frames)))
    assert found.dtype == torch.from_numpy(expected).dtype
    assert torch.equal(found, seed_major(expected))
    assert (expected == 0).any()
