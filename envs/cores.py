"""How many cores there are to simulate with. Threads go by it, and no bit does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_left: list[int] = []  # by `limited`, innermost last


def cores() -> int:
    """Those that this process may run on, or as many of them as it is to use."""
    try:
        there = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        there = os.cpu_count() or 1
    return min(there, *_left[-1:]) if _left else there


@contextmanager
def limited(number: int) -> Iterator[None]:
    """Simulators that are made meanwhile use no more than so many: others compute beside them."""
    _left.append(max(1, number))
    try:
        yield
    finally:
        _left.pop()
