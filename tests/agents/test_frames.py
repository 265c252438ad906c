"""Frames kept as lz4 blocks: whoever samples, saves, loads or leaves cannot tell them from an array."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import dqn
from agents.contract import Rollout
from agents.hyper import BadValue
from agents.replay.frames import LZ4Frames, stacked_last
from agents.replay.prioritized import Priorities
from agents.replay.ring import RingReplay
from envs.contract import Spec
from runners.errors import BadInput
from runners.group import make_setting
from runners.resolve import make_config

SPEC = Spec((6, 5), np.dtype(np.uint8), 0, 3, obs_scale=1 / 255)


def ring(
    compression,
    seeds=2,
    lanes=3,
    capacity=40,
    n_step=2,
    frames=3,
    prioritized=False,
    spec=SPEC,
    kept_in=None,
):
    return RingReplay(
        spec, [np.random.default_rng(k) for k in range(seeds)], lanes, capacity=capacity,
        batch_size=16, n_step=n_step, gamma=0.9, frame_stack=frames, compression=compression,
        priorities=(lambda k, places: Priorities(k, places, 0.6, 0.4, 100)) if prioritized else None,
        frames=kept_in,
    )  # fmt: skip


class Play:
    """Rollouts that follow each other, with random ends; frames of few values, as games have."""

    def __init__(self, seed, columns, values=4):
        self.rng, self.columns, self.values = np.random.default_rng(seed), columns, values
        self.obs, self.first = self._frames(1)[0], np.ones(columns, bool)
        self.done = np.zeros(columns, bool)

    def _frames(self, rows):
        return self.rng.integers(
            self.values, size=(rows, self.columns, *SPEC.obs_shape), dtype=np.uint8
        )

    def rollout(self, rows):
        shape = (rows, self.columns)
        obs = np.concatenate([self.obs[None], self._frames(rows)])
        first, terminated = np.zeros((rows + 1, self.columns), bool), np.zeros(shape, bool)
        first[0] = self.first
        for t in range(rows):
            first[t + 1] = self.done
            terminated[t] = (self.rng.random(self.columns) < 0.2) & ~self.done
            self.done = terminated[t]
        self.obs, self.first = obs[-1], first[-1]
        return Rollout(
            obs, first, self.rng.integers(3, size=shape), self.rng.normal(size=shape).astype(np.float32),
            terminated, np.zeros(shape, bool),
        )  # fmt: skip


def equal_batches(one, other):
    a, b = one.sample(), other.sample()
    for name in ("obs", "action", "reward", "discount", "next_obs", "weight"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or torch.equal(x, y), name
    assert (one.sampled == other.sampled).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    capacity=st.integers(8, 60),
    n_step=st.integers(1, 3),
    frames=st.integers(1, 4),
    prioritized=st.booleans(),
    values=st.sampled_from([1, 4, 256]),  # of 256 nothing can be compressed
)
def test_the_same_bits_are_sampled(seed, lengths, capacity, n_step, frames, prioritized, values):
    shape = {"capacity": capacity, "n_step": n_step, "frames": frames, "prioritized": prioritized}
    plain, small = (ring(compression, **shape) for compression in ("none", "lz4"))
    play = Play(seed, columns=6, values=values)
    for rows in lengths:
        rollout = play.rollout(rows)
        plain.add(rollout)
        small.add(rollout)
        if plain.head < n_step + frames + 6:
            continue
        try:
            equal_batches(plain, small)
        except RuntimeError:  # no row may start a window yet, in neither
            continue
        if prioritized:
            errors = np.random.default_rng(rows).random(plain.sampled.shape)
            plain.set_priorities(plain.sampled, errors)
            small.set_priorities(small.sampled, errors)


def filled(compression, rows=60):
    made, play = ring(compression), Play(5, columns=6)
    for _ in range(rows // 6):
        made.add(play.rollout(6))
    return made


@pytest.mark.parametrize(("before", "after"), [("none", "lz4"), ("lz4", "none"), ("lz4", "lz4")])
def test_a_checkpoint_of_either_is_one_of_the_other(before, after):
    saved, loaded = filled(before), ring(after)
    start, stop = saved.tail, saved.head
    rows = saved.rows(start, stop)
    expected = filled("none").rows(start, stop)
    assert rows.keys() == expected.keys()
    for name, array in rows.items():
        assert array.dtype == expected[name].dtype
        assert (array == expected[name]).all()
    loaded.load_state_dict(saved.state_dict())
    loaded.load_rows(start - 3, {n: np.concatenate([a[:3], a]) for n, a in rows.items()})
    equal_batches(saved, loaded)
    play = Play(9, columns=6)
    rollout = play.rollout(4)
    saved.add(rollout)
    loaded.add(rollout)
    equal_batches(saved, loaded)


def test_seeds_that_stay_keep_their_frames():
    plain, small = filled("none"), filled("lz4")
    for replay in (plain, small):
        replay.keep([1])
    assert (
        plain.rows(plain.tail, plain.head)["obs"] == small.rows(small.tail, small.head)["obs"]
    ).all()
    equal_batches(plain, small)


def test_it_is_an_array_of_zeros_at_first():
    frames = LZ4Frames((4, 2, 3), SPEC)
    assert frames[np.arange(4)].shape == (4, 2, 3, 6, 5)
    assert frames[1].dtype == np.uint8
    assert not frames[np.array([0, 3])].any()


def test_memory_does_not_grow_once_the_ring_is_full():
    """Frames of 30 bytes without pattern: a block is 32 bytes (token, length, 30) at any time."""
    replay, play = ring("lz4"), Play(0, columns=6, values=256)
    for _ in range(10):
        replay.add(play.rollout(6))
    blocks = replay.obs.blocks
    sizes = {len(block) for block in blocks.ravel()}
    assert sizes == {32}
    full = replay.obs.nbytes
    assert full == blocks.size * (8 + 33 + 32)
    for _ in range(30):
        replay.add(play.rollout(6))
    assert replay.obs.nbytes == full
    assert replay.obs.blocks is blocks


def test_a_game_takes_less_than_1500_bytes_a_transition():
    ale = pytest.importorskip("ale_py")
    del ale
    import envs

    env = envs.make("ALE/Breakout-v5", 4, 0)
    env.reset()
    frames = [env.step(np.random.default_rng(t).integers(4, size=4))[0] for t in range(60)]
    spec = Spec((84, 84), np.dtype(np.uint8), 0, 4)
    replay = ring("lz4", seeds=1, lanes=4, capacity=59 * 4, n_step=1, frames=1, spec=spec)
    zeros = np.zeros((59, 4))
    rollout = Rollout(
        np.stack(frames), np.zeros((60, 4), bool), zeros.astype(int), zeros, zeros > 0, zeros > 0
    )
    replay.add(rollout)
    assert replay.nbytes / (59 * 4) < 1_500
    assert (replay.rows(0, 59)["obs"][:, 0] == rollout.obs[:-1]).all()


def test_what_gains_nothing_is_refused():
    with pytest.raises(BadValue, match=r"replay_compression: got lz4, takes none with a memory"):
        dqn.DQNConfig(replay_compression="lz4", memory="lstm")
    with pytest.raises(
        BadInput, match=r"replay_compression: CartPole-v1's observations are no images"
    ):
        make_setting(make_config("dqn", "CartPole-v1", replay_compression="lz4"))


@given(depth=st.integers(1, 6), stacks=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_stacks_lie_last_as_picked_one_by_one(depth, stacks, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(256, size=(7, 3, 5), dtype=np.uint8)
    places = rng.integers(-1, 7, size=(stacks, depth))  # -1: blank
    out = np.full((stacks, 3, 5, depth), 9, np.uint8)
    stacked_last(frames, places, out)
    with_blank = np.concatenate([frames, np.zeros((1, 3, 5), np.uint8)])  # which -1 picks
    np.testing.assert_array_equal(np.moveaxis(out, -1, 1), with_blank[places])


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_grey_stacks_come_in_the_order_that_convolutions_read(compression):
    replay, play = ring(compression, frames=4), Play(0, 6)
    replay.add(play.rollout(20))
    obs = replay.sample().obs
    assert obs.shape == (2, 16, 4, 6, 5)
    assert obs[0].is_contiguous(memory_format=torch.channels_last)
