"""Processes of a group, ended without remains; and what was said, read from the end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

TAIL = 8192  # bytes of what a process said that are kept at hand
POLL_SECONDS = 0.01
STRAGGLER_SECONDS = 0.5  # for a process's own processes to leave behind it


def signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of a group; whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True


def leave_nothing(group: int) -> None:
    """Wait for what a job's process has left in its group, then kill it.

    Not at once: Python's own tracker cleans up behind a process that was killed. No other group can
    have the number yet, for numbers are given out in turn.
    """
    limit = time.monotonic() + STRAGGLER_SECONDS
    while signal_group(group, 0):
        if time.monotonic() >= limit:
            signal_group(group, signal.SIGKILL)
            return
        time.sleep(POLL_SECONDS)


def signal_name(number: int) -> str:
    """As in SIGKILL; real-time signals have none.

    >>> signal_name(9), signal_name(40)
    ('SIGKILL', 'signal 40')
    """
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def read_tail(path: Path, start: int = 0, size: int = TAIL) -> str:
    """The last ``size`` bytes of a file behind ``start``, whatever they are, as text."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - size))
            return file.read(size).decode("utf-8", "replace")
    except FileNotFoundError:  # somebody tidied up
        return ""
