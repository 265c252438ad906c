"""Sums over learners of one machine, through memory that they share.

A process group's message takes a millisecond on a machine of few cores, which is as long as an update of a
small network. Here each learner writes what it has into its place, then its number of turns; who finds
everybody's turns there adds up the places, in the same order at all, so that the bits are the same.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agents.contract import Array
from runners.errors import WorkerLost
from runners.sources.shared import SharedBytes

LINE = 64  # bytes; each learner's number of turns is in a cache line of its own
SPIN_SECONDS = 0.002  # of looking again at once; then the core is left to others
SLEEP_SECONDS = 0.0001
LOOK_SECONDS = 1.0  # after which it is asked whether to go on waiting


class Exchange:
    """What learners show each other, turn by turn. All of them show arrays of the same size at a turn.

    There are two halves: who begins turn n + 1 may write while others still read turn n, and nobody begins
    n + 2 before all have shown n + 1, and so have done with n.
    """

    def __init__(
        self,
        rank: int,
        learners: int,
        tell: Callable[[Any], Any],
        go_on: Callable[[], None],
        limit: float,
    ) -> None:
        """Nothing is shared yet.

        Args:
            rank: this learner's number.
            learners: how many there are.
            tell: gives all the first one's value, of JSON.
            go_on: called now and then while somebody is waited for; raises to stop that.
            limit: seconds that a learner is waited for.
        """
        self.rank, self.learners, self.tell, self.go_on, self.limit = (
            rank, learners, tell, go_on, limit,
        )  # fmt: skip
        self.size = 0  # bytes of a place
        self.turn = 0

    def begin(self) -> bool:
        """Share a little; whether this learner sees it. All call this first."""
        try:
            self._grow(LINE)
        except OSError:  # each in a container of its own, or nobody may look at others' descriptors
            return False
        return True

    def reduce(self, tensor: torch.Tensor, largest: bool = False) -> None:
        """Turn each learner's tensor into the sum over all, or the largest; in place.

        Raises:
            WorkerLost: a learner did not come.
        """
        own = tensor.numpy()
        shown = self._show(np.ascontiguousarray(own))
        join = np.maximum if largest else np.add
        join(shown[0], shown[1], out=own)
        for other in shown[2:]:
            join(own, other, out=own)

    def _show(self, own: Array) -> list[Array]:
        """What all learners show at this turn."""
        if own.nbytes > self.size:
            self._grow(own.nbytes)
        self.turn += 1
        half = self.places[self.turn % 2]
        shown = [place[: own.nbytes].view(own.dtype).reshape(own.shape) for place in half]
        shown[self.rank][...] = own
        self.turns[self.rank] = self.turn  # last, so that who sees it sees the rest
        self._await()
        return shown

    def _await(self) -> None:
        """Until every learner has come to this turn."""
        start = time.monotonic()
        look = LOOK_SECONDS
        while (self.turns < self.turn).any():
            waited = time.monotonic() - start
            if waited > SPIN_SECONDS:
                time.sleep(SLEEP_SECONDS)
            else:
                os.sched_yield()
            if waited > look:
                look += LOOK_SECONDS
                self.go_on()
            if waited > self.limit:
                late = np.flatnonzero(self.turns < self.turn).tolist()
                raise WorkerLost(
                    f"learner {self.rank} of {self.learners}: learner {', '.join(map(str, late))} has hung for "
                    f"{self.limit:g} s; torchrun --max-restarts goes on from the last checkpoint"
                )

    def _grow(self, nbytes: int) -> None:
        """Share larger places. The first learner's memory has no name: the others open its descriptor."""
        size = -(-nbytes // LINE) * LINE
        head = self.learners * LINE
        whole = head + 2 * self.learners * size
        if self.rank == 0:
            memory = SharedBytes(whole)
            self.tell([os.getpid(), memory.fd])
            self.memory: Any = memory
            shared = memory.bytes
        else:
            process, descriptor = self.tell(None)
            with open(f"/proc/{process}/fd/{descriptor}", "r+b") as file:
                shared = np.frombuffer(mmap.mmap(file.fileno(), whole), np.uint8)
        self.turns = shared[:head].view(np.int64)[:: LINE // 8]
        self.places = shared[head:].reshape(2, self.learners, size)
        self.size, self.turn = size, 0


def can_share() -> bool:
    """Whether this system has what it takes."""
    return hasattr(os, "memfd_create")
