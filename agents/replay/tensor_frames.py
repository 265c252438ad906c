"""Observations kept as a tensor on the learner's device, from where batches need not travel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.contract import Array
from agents.device.staging import Feed
from envs.contract import Spec


class TensorFrames:
    """Like an array ``[slots, K, n, ...]`` of observations; places in it are drawn on the host as ever.

    On the CPU it gives the same bits as an array does, by torch's indexing.
    """

    by_row = False

    def __init__(self, shape: tuple[int, int, int], spec: Spec, device: torch.device) -> None:
        """All zeros. ``shape`` is [slots, K, n]."""
        self.shape, self.frame, self.device = shape, spec.obs_shape, device
        self.feed = Feed(device)
        dtype = torch.from_numpy(np.zeros(0, spec.obs_dtype)).dtype
        # behind all others a blank one, which stands before an episode's beginning
        count = math.prod(shape) + 1
        self.frames = torch.zeros((count, *self.frame), dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """What it takes on the device."""
        return self.frames.nbytes

    @property
    def _slots(self) -> Tensor:
        return self.frames[:-1].view(*self.shape, *self.frame)

    def __setitem__(self, slots: Any, frames: Array) -> None:
        """Put observations ``[..., K, n, ...]`` where they belong."""
        at = np.atleast_1d(slots)
        rows = np.ascontiguousarray(frames).reshape(len(at), *self.shape[1:], *self.frame)
        there = self.feed.move({"slots": torch.from_numpy(at), "frames": torch.from_numpy(rows)})
        self._slots.index_copy_(0, there["slots"], there["frames"])

    def __getitem__(self, slots: Any) -> Array:
        """A copy on the host of what is there, ``[..., K, n, ...]``; waits for the device."""
        at = torch.from_numpy(np.atleast_1d(slots)).to(self.device)
        found: Array = self._slots[at].cpu().numpy()
        return found.reshape(*np.shape(slots), *self.shape[1:], *self.frame)

    def blank(self, shape: Sequence[int]) -> Tensor:
        """Zeros of the observations' kind, on the device."""
        return self.frames.new_zeros(*shape)

    def take(self, places: Array, out: Tensor) -> None:
        """Copy the observations at places of ``[slots K n]`` into ``out`` [*places, ...]; -1: a blank one."""
        at = np.where(places < 0, len(self.frames) - 1, places).ravel()
        there = self.feed.move({"at": torch.from_numpy(at)})["at"]
        out.copy_(self.frames.index_select(0, there).view(*places.shape, *self.frame))

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = self._slots[:, list(seeds)]
        self.shape = (self.shape[0], len(seeds), self.shape[2])
        blank = self.frames[-1:]
        self.frames = torch.cat([kept.reshape(-1, *self.frame), blank])
