"""What a block's simulator was asked since a point from which it can be led to the same place again.

A journal is three plain arrays: the actions, a short header of whole numbers, and a state as bytes.
Whoever makes it hands them in, and they may lie in shared memory: an action is there before the
simulator sees it and is counted after it is there, so that of a process that dies within a step
another one can read what it died of.

The point is, in the order in which a run comes by them: the simulator as it was made; a reset, bare
or with a seed; a state, where the simulator can give it, which is taken anew when the actions since
the last point have become many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from envs.contract import Array
from runners.state_tree import join, split, to_bytes

ROWS_KEPT = 4_096
"""Rows since the last point after which a simulator that can is asked for its state."""

ACTION_BYTES = STATE_BYTES = 16 << 20
"""At most, a block; pages that nothing is written to cost nothing."""


class Point(IntEnum):
    """Where a journal begins."""

    UNKNOWN = 0
    MADE = 1
    RESET = 2
    STATE = 3


class Purpose(IntEnum):
    """What the simulator is stepped for: where numbers are looked at depends on it."""

    TRAINING = 0
    EVALUATION = 1


class Field(IntEnum):
    """The header's numbers, int64; -1 stands for none."""

    SEED = 0  # of the agent
    BLOCK = 1  # of this seed
    LANES = 2
    FIRST_LANE = 3  # the number that messages give to lane 0
    SIMULATOR_SEED = 4  # the one it was made with
    PURPOSE = 5
    POINT = 6
    POINT_SEED = 7  # of a reset; none: a bare one
    POINT_STEP = 8
    STATE_SIZE = 9  # bytes
    FIRST_STEP = 10  # of the first action
    ROWS = 11  # actions so far; those that do not fit any more are written over the oldest
    RESETTING = 12  # 1: it was asked to reset and has not answered yet
    RESET_SEED = 13
    RESET_STEP = 14


_POINT, _FIRST_STEP, _ROWS = int(Field.POINT), int(Field.FIRST_STEP), int(Field.ROWS)


@dataclass(frozen=True)
class Block:
    """Which simulator a journal is of."""

    lanes: int
    simulator_seed: int
    seed: int = -1
    block: int = 0
    first_lane: int = 0
    purpose: Purpose = Purpose.TRAINING


class Reset(NamedTuple):
    """A reset that a simulator was asked for."""

    seed: int | None  # None: a bare one
    step: int


class Journal:
    """One block's; see the module."""

    def __init__(self, actions: Array, header: Array, state: Array) -> None:
        """Write to, or read, these arrays.

        Args:
            actions: [capacity, n, ...] in the dtype of the action space.
            header: [len(Field)] int64; `new_header` has one for a block.
            state: [bytes] uint8, as long as a state may become; [0] for a simulator without.
        """
        self.actions, self.header, self.state = actions, header, state
        self.capacity, self.rows = len(actions), int(header[_ROWS])
        self.rows_kept = min(ROWS_KEPT, self.capacity // 2)

    def __getitem__(self, field: Field) -> int:
        return int(self.header[field])

    def add(self, step: int, action: Array) -> None:
        """The simulator is about to be stepped with ``action`` [n, ...]."""
        rows = self.rows
        self.actions[rows % self.capacity] = action
        if not rows:
            self.header[_FIRST_STEP] = step
        self.rows = self.header[_ROWS] = rows + 1

    def resetting(self, reset: Reset) -> None:
        """It is about to be reset. Until `was_reset` the old point counts, and this comes last."""
        self._put({
            Field.RESET_SEED: _or_none(reset.seed), Field.RESET_STEP: reset.step,
            Field.RESETTING: 1,
        })  # fmt: skip

    def was_reset(self, reset: Reset) -> None:
        """It has begun new episodes: a point."""
        self._begin(Point.RESET, reset.step, {Field.POINT_SEED: _or_none(reset.seed)})

    def is_in(self, state: Any, step: int) -> bool:
        """It is in this state: a point. False where the state cannot be kept; nothing changes then."""
        packed = self._packed(state)
        if packed is None:
            return False
        self.lost(step)  # until the state is there, whole
        self.state[: len(packed)] = np.frombuffer(packed, np.uint8)
        self._put({Field.STATE_SIZE: len(packed), Field.POINT: Point.STATE})
        return True

    def lost(self, step: int) -> None:
        """It is nobody knows where: no point, until the next."""
        self._begin(Point.UNKNOWN, step, {})

    def _packed(self, state: Any) -> bytes | None:
        try:
            packed = pack(state)
        except TypeError:  # what no checkpoint could keep either
            return None
        return packed if len(packed) <= len(self.state) else None

    def _begin(self, point: Point, step: int, more: Mapping[Field, int]) -> None:
        self.header[_POINT] = Point.UNKNOWN
        self.rows = 0
        self._put({Field.ROWS: 0, Field.RESETTING: 0, Field.POINT_STEP: step, **more})
        self.header[_POINT] = point

    def _put(self, values: Mapping[Field, int]) -> None:
        for field, value in values.items():
            self.header[field] = value

    # -- What whoever reads it wants to know -----------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether it leads from a point to the present without a gap."""
        return self[Field.POINT] != Point.UNKNOWN and self[Field.ROWS] <= self.capacity

    @property
    def point(self) -> Point:
        return Point(self[Field.POINT])

    @property
    def point_reset(self) -> Reset:
        """The reset that is the point."""
        return Reset(_none(self[Field.POINT_SEED]), self[Field.POINT_STEP])

    @property
    def pending(self) -> Reset | None:
        """The reset that it was asked for and that it has not answered."""
        if not self[Field.RESETTING]:
            return None
        return Reset(_none(self[Field.RESET_SEED]), self[Field.RESET_STEP])

    @property
    def last_step(self) -> int:
        """The step that it was asked for last; -1: for none so far."""
        if pending := self.pending:
            return pending.step
        if rows := self[Field.ROWS]:
            return self[Field.FIRST_STEP] + rows - 1
        # a reset was asked for; where it was made, or given a state, that step is still to come
        return self[Field.POINT_STEP] - (self.point != Point.RESET)

    def since_point(self, until: int | None = None) -> tuple[int, Array]:
        """The actions, up to that of step ``until``: the first one's step, and [rows, n, ...]."""
        rows = self[Field.ROWS]
        first = self[Field.FIRST_STEP] if rows else self[Field.POINT_STEP]
        begin = max(0, rows - self.capacity)
        end = rows if until is None else min(max(until - first + 1, begin), rows)
        return first + begin, self.actions[np.arange(begin, end) % max(self.capacity, 1)]

    @property
    def packed_state(self) -> bytes | None:
        """The state that is the point, as `unpack` takes it."""
        if self.point != Point.STATE:
            return None
        return self.state[: self[Field.STATE_SIZE]].tobytes()


def new_header(block: Block) -> Array:
    """The header of a simulator that has just been made, or is about to be."""
    header = np.zeros(len(Field), np.int64)
    for field, value in (
        (Field.SEED, block.seed), (Field.BLOCK, block.block), (Field.LANES, block.lanes),
        (Field.FIRST_LANE, block.first_lane), (Field.SIMULATOR_SEED, block.simulator_seed),
        (Field.PURPOSE, block.purpose), (Field.POINT, Point.MADE), (Field.POINT_SEED, -1),
    ):  # fmt: skip
        header[field] = value
    return header


def shapes(
    lanes: int, action_shape: tuple[int, ...] = (), dtype: DTypeLike = np.int64, rows: int = 0
) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Of a journal's arrays, of as many rows as fit or are asked for."""
    row_bytes = lanes * int(np.prod(action_shape)) * np.dtype(dtype).itemsize
    rows = rows or max(1, ACTION_BYTES // max(row_bytes, 1))
    actions = (rows, lanes, *action_shape), np.dtype(dtype)
    return [actions, ((len(Field),), np.dtype(np.int64)), ((STATE_BYTES,), np.dtype(np.uint8))]


def begun(block: Block, arrays: Sequence[Array]) -> Journal:
    """The journal of a simulator that has just been made, in arrays of `shapes`."""
    actions, header, state = arrays
    header[:] = new_header(block)
    return Journal(actions, header, state)


def new_journal(
    block: Block, action_shape: tuple[int, ...] = (), dtype: DTypeLike = np.int64, rows: int = 0
) -> Journal:
    """The same, in this process's own memory."""
    wanted = shapes(block.lanes, action_shape, dtype, rows)
    return begun(block, [np.zeros(shape, kind) for shape, kind in wanted])


def pack(value: Any) -> bytes:
    """A state, or an array, as bytes: the length of its JSON, the JSON, and the arrays.

    Raises:
        TypeError: it has a part that would not come back as it was.
    """
    arrays, rest = split({"value": value})
    text = to_bytes(rest)
    return len(text).to_bytes(8, "little") + text + to_safetensors(arrays)


def unpack(data: bytes) -> Any:
    """What `pack` took; arrays in it can be written to.

    Raises:
        Exception: these are no such bytes, in one of many ways.
    """
    size = int.from_bytes(data[:8], "little")
    arrays = from_safetensors(data[8 + size :])
    whole = join(
        {name: np.array(value) for name, value in arrays.items()}, json.loads(data[8 : 8 + size])
    )
    return whole["value"]


def _or_none(seed: int | None) -> int:
    return -1 if seed is None else seed


def _none(seed: int) -> int | None:
    return None if seed < 0 else seed
