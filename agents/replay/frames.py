"""Observations kept as lz4 blocks, in the place of an array of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lz4.block
import numpy as np

from agents.contract import Array
from envs.contract import Spec

OBJECT = 33  # bytes of a `bytes` object beside what is in it
EXPECTED_RATE = 3
"""Of twelve Atari games under random play the worst, YarsRevenge, has 3.5 bytes for one; Breakout has 18."""


class LZ4Frames:
    """Like an array ``[slots, K, n, ...]`` of frames, each of which is one block.

    A block is a `bytes` object, so that its memory is free again as soon as another takes its place.
    A frame that cannot be compressed takes a 255th more than its own size.
    """

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

    def take(self, places: Array, out: Array) -> None:
        """Write the frames at places of ``[slots K n]`` into ``out``; of a negative one anything."""
        # stacks overlap: those of a row and its successor have all frames but one in common
        unique, where = np.unique(np.maximum(places, 0), return_inverse=True)
        frames = self._frames(self.blocks.ravel()[unique])
        np.take(frames, where.reshape(places.shape), axis=0, out=out, mode="clip")

    def _frames(self, blocks: Array) -> Array:
        """[M, ...] the frames in blocks [M]."""
        size = self._blank().nbytes
        raw = b"".join([lz4.block.decompress(block, uncompressed_size=size) for block in blocks])
        return np.frombuffer(raw, self.dtype).reshape(-1, *self.shape)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        self.blocks = np.ascontiguousarray(self.blocks[:, list(seeds)])
