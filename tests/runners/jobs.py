"""Jobs that are a line of Python, and what was seen of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from runners.jobs import Job

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
SAVES = (
    "import signal, sys, time, pathlib\n"
    "def leave(*_): time.sleep(0.2); pathlib.Path({!r}).write_text('saved'); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, leave); print('here', flush=True); time.sleep(60)"
)


def job(name, code, **more):
    return Job(name, [sys.executable, "-I", "-S", "-c", code], **more)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(happened, seconds=10.0):
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self, at_tick=None):
        self.events, self.most = [], 0
        self.at_tick = at_tick or (lambda running: None)

    def event(self, event):
        self.events.append((event.kind, event.job.name, event.attempt))

    def tick(self, running, waiting):
        self.most = max(self.most, len(running))
        self.at_tick(running)
