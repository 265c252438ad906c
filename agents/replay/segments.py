"""Observations in segments of fixed length, which somebody else keeps once they are full.

A replay larger than memory: whoever hands out memory takes a full segment and gives back the same numbers,
mapped from where it put them. Only segments that are not full are in memory. No file is opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agents.contract import Array
from envs.contract import Spec


@dataclass
class Stored:
    """A segment's observations ``[rows, K', n, ...]``, of which nothing is written any more."""

    array: Array
    start: int  # the number of its first row
    columns: list[int]  # where each of the K seeds is among its K'
    expect: Callable[[int], None] | None = None
    """Told the places ``(row K' + column) n + lane`` that are about to be read, so that they are on their way."""


class Shelf(Protocol):
    """What memory comes from."""

    @property
    def segment_rows(self) -> int:
        """L: segment i has the rows i·L to (i+1)·L-1."""

    def memory(self, shape: Sequence[int], dtype: Any) -> Array:
        """Zeros, for a segment that is being filled."""

    def store(self, index: int, start: int, rows: Mapping[str, Array]) -> Stored:
        """Keep a full segment's rows from ``start`` on, all columns ``[rows, K, n, ...]`` of them."""

    def keep(self, seeds: Sequence[int]) -> None:
        """Segments to come are of the seeds at these positions only."""


class SegmentFrames:
    """Like an array of observations by row number; rows that are gone are let go by the segment."""

    by_row = True

    def __init__(self, shape: tuple[int, int, int], spec: Spec, shelf: Shelf) -> None:
        """``shape`` is [slots, K, n], as the rows' other columns have it."""
        self.slots, self.seeds, self.lanes = shape
        self.frame, self.dtype, self.shelf = spec.obs_shape, np.dtype(spec.obs_dtype), shelf
        self.open: dict[int, Stored] = {}
        self.full: dict[int, Stored] = {}
        self.row_of = np.zeros(self.slots, np.int64)  # the row that a slot holds

    @property
    def nbytes(self) -> int:
        """What is in memory: the segments that are not full."""
        return sum(part.array.nbytes for part in self.open.values())

    def __setitem__(self, rows: Any, frames: Array) -> None:
        """Put observations ``[..., K, n, ...]`` of these rows where they belong."""
        rows, length = np.atleast_1d(rows), self.shelf.segment_rows
        frames = np.asarray(frames).reshape(len(rows), self.seeds, self.lanes, *self.frame)
        for index in np.unique(rows // length).tolist():
            here = rows // length == index
            part = self._opened(index)
            part.array[rows[here] - part.start] = frames[here]
        self.row_of[rows % self.slots] = rows

    def _opened(self, index: int) -> Stored:
        """A segment that is being filled, from now on if need be."""
        if index not in self.open:
            length = self.shelf.segment_rows
            memory = self.shelf.memory((length, self.seeds, self.lanes, *self.frame), self.dtype)
            self.open[index] = Stored(memory, index * length, list(range(self.seeds)))
        return self.open[index]

    def __getitem__(self, rows: Any) -> Array:
        """A copy of these rows' observations, ``[..., K, n, ...]``."""
        at = np.atleast_1d(rows)
        found = np.empty((len(at), self.seeds, self.lanes, *self.frame), self.dtype)
        for i, row in enumerate(at.tolist()):
            part = self._part(row)
            found[i] = part.array[row - part.start, part.columns]
        return found.reshape(*np.shape(rows), *found.shape[1:])

    def _part(self, row: int) -> Stored:
        index = row // self.shelf.segment_rows
        return self.full.get(index) or self._opened(index)

    def unpack(self, places: Array) -> tuple[Array, Array]:
        """The observations at places of ``[slots K n]``, and which of them belongs where; negative ones stay so."""
        # stacks overlap: those of a row and its successor have all frames but one in common
        unique, where = np.unique(places, return_inverse=True)
        found = np.zeros((len(unique), *self.frame), self.dtype)
        blank = int(np.count_nonzero(unique < 0))
        slots, columns = np.divmod(unique[blank:], self.seeds * self.lanes)
        rows = self.row_of[slots].tolist()
        seeds, lanes = (x.tolist() for x in np.divmod(columns, self.lanes))
        wanted = []
        for row, seed, lane in zip(rows, seeds, lanes, strict=True):
            part = self._part(row)
            item = row - part.start, part.columns[seed], lane
            wanted.append((part.array, item))
            if part.expect:
                part.expect((item[0] * part.array.shape[1] + item[1]) * self.lanes + lane)
        for i, (array, item) in enumerate(wanted, blank):
            found[i] = array[item]
        return found, np.where(places < 0, -1, where.reshape(places.shape))

    def filled(self, tail: int, until: int) -> Iterator[tuple[int, int, int]]:
        """Index, first row and end of the segments that are full now that the rows below ``until`` are there."""
        length = self.shelf.segment_rows
        for index in sorted(self.open):
            stop = (index + 1) * length
            if stop <= until:
                yield index, min(max(index * length, tail), stop), stop

    def seal(self, index: int, start: int, rows: Mapping[str, Array]) -> None:
        """Have a full segment kept; nothing of one whose rows are gone already."""
        if len(rows["first"]):
            self.full[index] = self.shelf.store(index, start, rows)
        del self.open[index]

    def let_go(self, tail: int) -> None:
        """Rows below ``tail`` are gone."""
        length = self.shelf.segment_rows
        for index in [index for index in self.full if (index + 1) * length <= tail]:
            del self.full[index]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        for part in self.full.values():
            part.columns = [part.columns[k] for k in kept]
        for part in self.open.values():
            part.array = np.ascontiguousarray(part.array[:, kept])
            part.columns = list(range(len(kept)))
        self.seeds = len(kept)
        self.shelf.keep(kept)
