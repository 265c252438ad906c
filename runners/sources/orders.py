"""What a source and its worker processes say to each other. Rollouts themselves go through slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agents.contract import Array, State
from runners.config import RunConfig
from runners.journal import Journal
from runners.slots import Layout
from runners.sources import Plan
from runners.sources.shared import Board, Shape, SharedBytes, arrays_in, nbytes
from runners.timing import Part


@dataclass(frozen=True)
class Task:
    """Which blocks a worker process steps, and what it shares with the learner's process."""

    config: RunConfig
    index: int  # of the worker
    workers: int  # how many there are
    seeds: tuple[int, ...]  # of the whole group
    columns: range  # of the group's blocks, those of this worker
    life: int  # 0, or the number of the replacement that made it
    steps_done: int
    pending_reset: int | None  # the checkpoint that was just scheduled, if one was
    layout: Layout
    slots: SharedBytes
    board: Board
    beats: SharedBytes  # an int64 a worker, which counts its rows
    journals: SharedBytes  # of all blocks that the group began with
    places: tuple[int, ...]  # of this worker's blocks in there
    journal_shapes: list[Shape]  # of one block's

    def journal_arrays(self, column: int) -> list[Array]:
        """The arrays of the journal of one of this worker's blocks."""
        size = nbytes(self.journal_shapes)
        start = self.places[column] * size
        return arrays_in(self.journals.bytes[start : start + size], self.journal_shapes)

    def journal(self, column: int) -> Journal:
        """What that block's simulator was asked so far."""
        return Journal(*self.journal_arrays(column))

    def journal_of(self, lane: int) -> Journal:
        """That of the block which has this one of the group's lanes."""
        return self.journal(lane // self.config.block_size - self.columns.start)


@dataclass(frozen=True)
class Collect:
    """Write rollout ``number`` into its slot."""

    number: int
    plan: Plan
    acts: int | None  # number of the publish to act with; None: the newest


@dataclass(frozen=True)
class Save:
    """Give your state."""


@dataclass(frozen=True)
class Load:
    """Go on from this state."""

    state: State


@dataclass(frozen=True)
class Keep:
    """Go on with the seeds at these positions; ``columns`` are yours of what is left."""

    seeds: tuple[int, ...]
    columns: range


Order = Collect | Save | Load | Keep


class Collected(NamedTuple):
    """A rollout is in its slot."""

    number: int
    version: int  # of the parameters that acted
    actor_state: State  # at row 0
    seconds: Mapping[Part, float]  # that acting and simulating took


class Failed(NamedTuple):
    """The worker has met an error and ends."""

    simulator: tuple[str, int, int, str] | None  # a `SimulatorError`'s arguments, if it was one
    traceback: str


Answer = Collected | Failed | State | None
