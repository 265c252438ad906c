"""Faults on purpose: `fault_point` marks places where a process may die, stop, hang or fail.

Tests sweep over them. A worker process has points of its own: ``worker.start`` (nothing is made yet),
``worker.ready``, ``worker.row`` (a row of a rollout begins), ``worker.answer``, ``worker.answered``,
``worker.state`` (it is asked for its state), ``worker.load`` and ``worker.keep``.
"""

from __future__ import annotations

import collections
import errno
import os
import signal
import time
from fnmatch import fnmatchcase

VARIABLE = "QLAB_FAULT"
ON = VARIABLE in os.environ  # read once, for a point that comes with every row

_seen: collections.Counter[str] = collections.Counter()
_process = ""  # in a worker's process its number and life, as in "2.0"


def in_worker(index: int, life: int) -> None:
    """This is the process of that worker, which has been replaced so often."""
    global _process  # noqa: PLW0603 - a process is one of these for as long as it lives
    _process = f"{index}.{life}"


def fault_point(name: str) -> None:
    """Does nothing, unless QLAB_FAULT has a fault for this point of this process.

    A fault is ``<name>[@<worker>.<life>]:<occurrence>[:<what>]``, and ``;`` stands between several.
    Names, workers and lives may be patterns with ``*``; without @ it is the run's own process. At
    that occurrence of the points that fit, all together, the process kills itself as ``kill -9``
    would, or does ``what``: stop, segv, hang, delay, raise, or enospc, which finds the disk full.
    """
    plan = os.environ.get(VARIABLE)
    if not plan:
        return
    for fault in plan.split(";"):
        where, occurrence, *what = fault.split(":")
        point, _, process = where.partition("@")
        if not (fnmatchcase(name, point) and fnmatchcase(_process, process)):
            continue
        _seen[fault] += 1
        if _seen[fault] == int(occurrence):
            _meet(what[0] if what else "kill", name)


def _meet(what: str, name: str) -> None:
    match what:
        case "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        case "raise":
            raise RuntimeError(f"a fault on purpose at {name}")
        case "hang":
            time.sleep(10**6)
        case "delay":
            time.sleep(0.3)
        case _:
            number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "segv": signal.SIGSEGV}[what]
            os.kill(os.getpid(), number)
