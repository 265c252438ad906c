"""How a command ends: every failure is one line on standard error and an exit status.

====  =====================================================================
0     done
1     the run failed, or a check said no
2     bad input: what, where, what to write instead; before any long work
3     no usable checkpoint
4     disk: full, read-only, not ours to write
5     a simulator or its workers
130   stopped by Ctrl-C (SIGINT); 143 by SIGTERM
====  =====================================================================

Nothing here imports torch, so that a typo is answered at once.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, Protocol

DISK_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
)


class BadInput(ValueError):
    """Something the user wrote cannot be done; the message says what to write instead."""


class NoCheckpoint(RuntimeError):
    """A run was begun, and none of its checkpoints can be used."""


class DiskFault(RuntimeError):
    """The run folder cannot be written."""


class RunFailed(RuntimeError):
    """The run, or a check, failed for a reason that one line explains."""


class WorkerLost(RuntimeError):
    """Rollout workers die faster than they work."""


class Stopped(BaseException):
    """A signal asked the run to stop; ``note`` says what is left behind.

    Not an `Exception`, so that nothing between the signal and the command swallows it.
    """

    def __init__(self, signum: int, note: str = "") -> None:
        super().__init__(signum, note)
        self.signum, self.note = signum, note

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return f"stopped by {name}" + (f": {self.note}" if self.note else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the known word most like ``word``, or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def status_of(error: BaseException) -> int:
    """The exit status that stands for an error."""
    if isinstance(error, Stopped):
        return 128 + error.signum
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, NoCheckpoint):
        return 3
    if isinstance(error, DiskFault) or (isinstance(error, OSError) and error.errno in DISK_ERRNOS):
        return 4
    if isinstance(error, WorkerLost):
        return 5
    if isinstance(error, BadInput | RunFailed):
        return 2 if isinstance(error, BadInput) else 1
    # Only now: a command that fails on its own words need not wait for Gymnasium.
    from agents.hyper import BadValue
    from envs.contract import SimulatorError, UnsupportedEnv

    if isinstance(error, BadValue | UnsupportedEnv):
        return 2
    return 5 if isinstance(error, SimulatorError) else 1


def line_of(error: BaseException) -> str | None:
    """The one line that explains an error; None where only a traceback can."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by SIGINT"
    if status_of(error) == 1 and not isinstance(error, RunFailed):
        return None
    return " ".join(str(error).split()) or type(error).__name__


class Command(Protocol):
    """What `command` makes of a main function."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run with the program's own arguments, or with these; gives the exit status."""


def command(main: Callable[[Sequence[str]], int | None]) -> Command:
    """Turn ``main(argv)`` into a command: ``leave(main())``.

    The command takes the program's arguments where it is given none, returns the exit status and
    raises nothing. An error nobody foresaw keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        if sys.stdout is None:  # it was closed before we began
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        try:
            return main(sys.argv[1:] if argv is None else argv) or 0
        except SystemExit as stop:
            return _status_of_exit(stop)
        except BrokenPipeError:
            # The reader of our output went away (`| head`). Python would complain once more when
            # it flushes at exit, so give it somewhere to flush to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except BaseException as error:
            line = line_of(error)
            if line is None:
                traceback.print_exc()
            else:
                sys.stderr.write(f"{within_a_simulator(error)}error: {line}\n")
            return status_of(error)

    return run


def within_a_simulator(error: BaseException) -> str:
    """Where in a simulator's own code an exception came from: its author wants to see the place."""
    if status_of(error) != 5:
        return ""
    from envs.contract import LaneError, SimulatorError

    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(
        cause, LaneError | SimulatorError | WorkerLost
    ):  # a finding of ours: the line says it all
        return ""
    return "".join(traceback.format_exception(cause, chain=False))


def _status_of_exit(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    sys.stderr.write(f"{stop.code}\n")
    return 1


def leave(status: int) -> NoReturn:
    """End the process. Taking torch apart, module by module, would be a third of a second."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if "torch" in sys.modules:
        import multiprocessing

        if not multiprocessing.active_children():
            os._exit(status)
    sys.exit(status)


@contextlib.contextmanager
def disk(where: object) -> Iterator[None]:
    """Turn what a disk can do to us into a `DiskFault` that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRNOS:
            raise
        # The system's own text, for it names the cause best; then what to do about it.
        reason = os.strerror(error.errno)
        place = error.filename or where
        raise DiskFault(f"{place}: {reason}; free some space or name another --out") from error
