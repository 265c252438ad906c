"""A replay gives the same bits wherever its observations are: a tensor on the device, or full segments elsewhere."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.replay.segments import SegmentFrames, Stored
from agents.replay.sequence import SequenceReplay
from agents.replay.tensor_frames import TensorFrames
from tests.agents.slow_machine import CPU
from tests.agents.test_frames import SPEC, Play, equal_batches, ring

L = 4  # rows in a segment


class Shelf:
    """Keeps copies that nobody can write to, of a file's shape: with seeds that have left since."""

    segment_rows = L

    def __init__(self, seeds=2):
        self.seeds, self.stored, self.most = list(range(seeds)), {}, 0

    def memory(self, shape, dtype):
        return np.zeros(shape, dtype)

    def store(self, index, start, rows):
        assert {"obs", "first", "action", "reward", "terminated", "truncated"} <= rows.keys()
        assert all(len(array) == (index + 1) * L - start for array in rows.values())
        if index not in self.stored:
            array = rows["obs"].copy()
            array.setflags(write=False)
            self.stored[index] = array, start, list(self.seeds)
        array, first, seeds = self.stored[index]
        assert first <= start
        return Stored(array, first, [seeds.index(seed) for seed in self.seeds])

    def keep(self, seeds):
        self.seeds = [self.seeds[k] for k in seeds]


def on_device():
    return functools.partial(TensorFrames, device=CPU)


def on_shelf(shelf=None):
    return functools.partial(SegmentFrames, shelf=shelf or Shelf())


PLACES = {"device": on_device, "segments": on_shelf}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    capacity=st.integers(8, 60),
    n_step=st.integers(1, 3),
    frames=st.integers(1, 4),
    prioritized=st.booleans(),
)
def test_the_same_bits_are_sampled(place, seed, lengths, capacity, n_step, frames, prioritized):
    shape = {"capacity": capacity, "n_step": n_step, "frames": frames, "prioritized": prioritized}
    plain, other = ring("none", **shape), ring("none", **shape, kept_in=place())
    play = Play(seed, columns=6)
    for rows in lengths:
        rollout = play.rollout(rows)
        plain.add(rollout)
        other.add(rollout)
        for name, array in plain.rows(plain.tail, plain.head).items():
            assert (array == other.rows(other.tail, other.head)[name]).all()
        if plain.head < n_step + frames + 6:
            continue
        try:
            equal_batches(plain, other)
        except RuntimeError:  # no row may start a window yet, in neither
            continue
        if prioritized:
            errors = np.random.default_rng(rows).random(plain.sampled.shape)
            plain.set_priorities(plain.sampled, errors)
            other.set_priorities(other.sampled, errors)


def filled(kept_in=None, rows=60, rollout=6, capacity=40):
    made, play = ring("none", kept_in=kept_in, capacity=capacity), Play(5, columns=6)
    for _ in range(rows // rollout):
        made.add(play.rollout(rollout))
    return made


def test_only_what_is_not_full_is_in_memory():
    shelf = Shelf()
    replay = filled(on_shelf(shelf), capacity=120)
    frame = 6 * int(np.prod(SPEC.obs_shape))
    assert replay.head == 60
    assert replay.obs.nbytes == L * frame  # that of the newest observation
    assert sorted(replay.obs.full) == list(range(replay.tail // L, replay.head // L))
    assert sorted(shelf.stored) == list(range(15))  # none was handed over twice
    for part in replay.obs.full.values():
        assert not part.array.flags.writeable


@pytest.mark.parametrize("rollout", [1, 4, 6, 60])
def test_a_rollout_of_any_length_fills_segments(rollout):
    plain, other = filled(rollout=rollout), filled(on_shelf(), rollout=rollout)
    for _ in range(3):
        equal_batches(plain, other)


@pytest.mark.parametrize("place", [None, *PLACES.values()], ids=["memory", *PLACES])
@pytest.mark.parametrize("before", [None, *PLACES.values()], ids=["memory", *PLACES])
def test_a_checkpoint_of_any_is_one_of_any(before, place):
    """Saved in segments as files are; a segment may reach back to rows that are gone."""
    saved, loaded = filled(before and before()), ring("none", kept_in=place and place())
    loaded.load_state_dict(saved.state_dict())
    for start in range(saved.tail // L * L, saved.head, L):
        first, stop = max(start, saved.tail), min(start + L, saved.head)
        loaded.load_rows(first, saved.rows(first, stop))
    equal_batches(saved, loaded)
    play = Play(9, columns=6)
    for _ in range(3):
        rollout = play.rollout(5)
        saved.add(rollout)
        loaded.add(rollout)
        equal_batches(saved, loaded)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_seeds_that_stay_keep_their_frames(place):
    plain, other = filled(), filled(place())
    for replay in (plain, other):
        replay.keep([1])
    play = Play(7, columns=3)
    for _ in range(8):
        equal_batches(plain, other)
        rollout = play.rollout(5)
        plain.add(rollout)
        other.add(rollout)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_sequences_are_the_same_from_any_place(place):
    def made(kept_in=None):
        return SequenceReplay(
            SPEC, [np.random.default_rng(k) for k in range(2)], 3, capacity=60, batch_size=8,
            burn_in=2, length=5, n_step=2, gamma=0.9, frames=kept_in,
        )  # fmt: skip

    plain, other = made(), made(place())
    play = Play(3, columns=6)
    for _ in range(9):
        rollout = play.rollout(5)
        plain.add(rollout)
        other.add(rollout)
    for _ in range(4):
        a, b = plain.sample().tensors(), other.sample().tensors()
        assert a.keys() == b.keys()
        for name, tensor in a.items():
            assert torch.equal(tensor, b[name]), name
