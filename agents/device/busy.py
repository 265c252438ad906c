"""How long a device is at work, told by events that its streams pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from agents.device.machine import Machine


class Busy:
    """Seconds between the beginnings and the ends of pieces of work.

    Pauses inside a piece, where the host starts its kernels more slowly than they are done, count as work:
    a device idles for at least what is left.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.pieces: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def piece(self) -> Iterator[None]:
        """What the current stream is given meanwhile is one."""
        begin, end = self.machine.event(timed=True), self.machine.event(timed=True)
        begin.record(self.machine.current())
        yield
        end.record(self.machine.current())
        self.pieces.append((begin, end))

    def take(self) -> float:
        """Seconds since this was last asked for; waits for the device."""
        self.machine.finish()
        pieces, self.pieces = self.pieces, []
        milliseconds: float = sum(begin.elapsed_time(end) for begin, end in pieces)
        return milliseconds / 1e3
