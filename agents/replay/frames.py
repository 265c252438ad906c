"""Observations kept as lz4 blocks, in the place of an array of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import lz4.block
import numpy as np

from agents.contract import Array
from envs.contract import Spec
from envs.kernel import kernel

OBJECT = 33  # bytes of a `bytes` object beside what is in it
EXPECTED_RATE = 3
"""Of twelve Atari games under random play the worst, YarsRevenge, has 3.5 bytes for one; Breakout has 18."""


def stacked_last(frames: Array, places: Array, out: Array) -> None:
    """Put stacks of frames together with the stack's axis last, as convolutions read them.

    In this order as fast as a copy, and put in order later on it would cost twenty of those.

    Args:
        frames: [F, ...], any numbers.
        places: [M, S] int64 which frames are in a stack; -1: a blank one.
        out: [M, ..., S].
    """
    flat = frames.reshape(len(frames), -1)
    _interleave(flat, np.zeros(flat.shape[1], flat.dtype), places, out.reshape(len(places), -1))


@kernel()
def _interleave(frames, blank, places, out):  # type: ignore[no-untyped-def]
    stacks, depth = places.shape
    pixels = frames.shape[1]
    for m in range(stacks):
        if depth == 4:  # Atari's: known before, it is a handful of vector operations
            p = places[m]
            a = frames[p[0]] if p[0] >= 0 else blank
            b = frames[p[1]] if p[1] >= 0 else blank
            c = frames[p[2]] if p[2] >= 0 else blank
            d = frames[p[3]] if p[3] >= 0 else blank
            row = out[m]
            for i in range(pixels):
                row[4 * i] = a[i]
                row[4 * i + 1] = b[i]
                row[4 * i + 2] = c[i]
                row[4 * i + 3] = d[i]
        else:
            for s in range(depth):
                frame = frames[places[m, s]] if places[m, s] >= 0 else blank
                for i in range(pixels):
                    out[m, i * depth + s] = frame[i]


class Frames(Protocol):
    """What stands in the place of an array ``[slots, K, n, ...]`` of observations."""

    @property
    def by_row(self) -> bool:
        """Whether it is indexed by rows' numbers; else by their slots."""

    @property
    def nbytes(self) -> int:
        """What it takes where it is."""

    def __setitem__(self, where: Any, frames: Array) -> None:
        """Put observations ``[..., K, n, ...]`` of some rows there."""

    def __getitem__(self, where: Any) -> Array:
        """A copy of them."""

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""


MakeFrames = Callable[[tuple[int, int, int], Spec], Frames]
"""([slots, K, n], what an observation is) to a place for them."""


class LZ4Frames:
    """Like an array ``[slots, K, n, ...]`` of frames, each of which is one block.

    A block is a `bytes` object, so that its memory is free again as soon as another takes its place.
    A frame that cannot be compressed takes a 255th more than its own size.
    """

    by_row = False

    def __init__(self, shape: tuple[int, ...], spec: Spec) -> None:
        """All zeros. ``shape`` is [slots, K, n], ``spec`` says what a frame is."""
        self.shape, self.dtype = spec.obs_shape, np.dtype(spec.obs_dtype)
        self.blocks = np.empty(shape, object)
        # not np.full, which would take zeros off the block's end
        self.blocks.fill(lz4.block.compress(self._blank(), store_size=False))

    def _blank(self) -> Array:
        return np.zeros(self.shape, self.dtype)

    @property
    def nbytes(self) -> int:
        """What the blocks take, objects and the pointers to them included."""
        return self.blocks.nbytes + sum(len(block) + OBJECT for block in self.blocks.flat)

    @property
    def expected(self) -> int:
        """What they will take when all are games' frames, at the rate of those that compress worst."""
        return self.blocks.size * (8 + OBJECT + self._blank().nbytes // EXPECTED_RATE)

    def __setitem__(self, slots: Any, frames: Array) -> None:
        """Put frames ``[..., K, n, ...]`` where they belong."""
        single = np.ascontiguousarray(frames).reshape(-1, *self.shape)
        blocks = np.empty(len(single), object)
        blocks[:] = [lz4.block.compress(frame, store_size=False) for frame in single]
        self.blocks[slots] = blocks.reshape(self.blocks[slots].shape)

    def __getitem__(self, slots: Any) -> Array:
        """A copy of the frames there, ``[..., K, n, ...]``, or ``[..., chosen, n, ...]`` by two indices."""
        blocks = self.blocks[slots]
        return self._frames(blocks.ravel()).reshape(*blocks.shape, *self.shape)

    def unpack(self, places: Array) -> tuple[Array, Array]:
        """The frames at places of ``[slots K n]``, and which of them belongs where; negative ones stay so."""
        # stacks overlap: those of a row and its successor have all frames but one in common
        unique, where = np.unique(np.maximum(places, 0), return_inverse=True)
        frames = self._frames(self.blocks.ravel()[unique])
        return frames, np.where(places < 0, -1, where.reshape(places.shape))

    def _frames(self, blocks: Array) -> Array:
        """[M, ...] the frames in blocks [M]."""
        size = self._blank().nbytes
        raw = b"".join([lz4.block.decompress(block, uncompressed_size=size) for block in blocks])
        return np.frombuffer(raw, self.dtype).reshape(-1, *self.shape)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        self.blocks = np.ascontiguousarray(self.blocks[:, list(seeds)])
