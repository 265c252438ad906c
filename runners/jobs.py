"""Commands that run side by side, each in a process of its own: what dies is tried again.

Their exit statuses are those of `runners.errors`. A command that was killed, or that lost its
simulator, is begun again, for ours go on where they stopped; one that failed, or got bad input, is
noted, and the others go on. No process outlives the one that supervises.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from envs import with_parent
from envs.cores import cores
from runners import files
from runners.errors import DiskFault, Stopped, disk
from runners.processes import POLL_SECONDS, leave_nothing, read_tail, signal_group, signal_name

LONGEST = 100  # characters of a log's name
TICK_SECONDS = 0.2  # between two looks of whoever watches
GRACE_SECONDS = 30.0  # to save and leave, after SIGTERM and before SIGKILL

DISK_STATUS = 4
AGAIN = frozenset({5, 128 + signal.SIGINT, 128 + signal.SIGTERM})
"""Statuses that are tried again, as death by a signal is: no workers, or stopped by somebody else."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SPEAK = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}  # last words, even of a crash

Status = Literal["done", "failed", "timeout", "stopped"]


class Job(NamedTuple):
    """A command: its name, its argument list, and the seconds that all its attempts may take."""

    name: str
    argv: Sequence[str]
    timeout: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: Status  # "stopped" is by `Supervisor.stop`
    code: int  # exit status of the last attempt; minus the signal's number where one ended it
    tail: str  # the last 8 KiB of what it said
    seconds: float  # of all attempts
    attempts: int

    @property
    def line(self) -> str:
        """Why it failed: the last ``error:`` that it wrote, else its last line, or what ended it."""
        if self.status == "timeout":
            return f"timed out after {self.seconds:.0f} s"
        if self.code < 0:
            return f"killed by {signal_name(-self.code)}"
        said = [line.strip() for line in self.tail.splitlines() if line.strip()]
        # a traceback's last line begins with no such word
        told = [line for line in said if line.startswith("error:")] or said
        return told[-1].removeprefix("error:").strip() if told else f"exit status {self.code}"


class Running(NamedTuple):
    """A job that is under way."""

    job: Job
    seconds: float  # of all attempts so far
    attempt: int  # from 1 on
    pid: int = 0


class Event(NamedTuple):
    """What happened to a job; ``outcome`` is there once it has ended."""

    kind: Literal["started", "again", "ended"]
    job: Job
    attempt: int
    outcome: Outcome | None = None


class Process(Protocol):
    """What is under way of a job; on this machine, or on another one."""

    @property
    def pid(self) -> int:
        """Its number where it runs; 0: not known yet."""

    def poll(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it runs."""

    def terminate(self) -> None:
        """Ask it to save and leave."""

    def kill(self) -> None:
        """End it, and all that it has started, now."""


Start = Callable[[Sequence[str], Path], Process]
"""From an argument list, and a file for all that it says, to what runs."""


class Here:
    """A process of this machine, in a group of its own, which ends with this one."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        """Begin it."""
        command = list(argv)
        if sys.platform == "linux":
            # without a site, in isolation: a sixth of what a start of Python takes otherwise
            launcher = [sys.executable, "-I", "-S", with_parent.__file__, str(os.getpid())]
            command = [*launcher, *command]
        with disk(log), log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **ONE_THREAD, **SPEAK},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
            )
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """Once it has ended, nothing of its group is left either."""
        code = self.process.poll()
        if code is not None:
            leave_nothing(self.pid)
        return code

    def terminate(self) -> None:
        """Itself alone: it knows what its own processes are for."""
        self.process.terminate()

    def kill(self) -> None:
        """With its group."""
        signal_group(self.pid, signal.SIGKILL)


class Watcher(Protocol):
    """Is told how jobs get on."""

    def event(self, event: Event) -> None:
        """A job was started, has to be started again, or has ended."""

    def tick(self, running: Sequence[Running], waiting: int) -> None:
        """How things stand; called every 0.2 s while somebody waits for an outcome."""


class Unwatched:
    """Looks away."""

    def event(self, event: Event) -> None:
        """Nothing to note."""

    def tick(self, running: Sequence[Running], waiting: int) -> None:
        """Nothing to show."""


@dataclass
class _Attempt:
    job: Job
    number: int = 1
    before: float = 0.0  # seconds of earlier attempts
    log_start: int = 0  # where this attempt's words begin
    began: float = 0.0
    process: Process | None = None
    asked: Literal["", "timeout", "stopped"] = ""  # why it was told to leave
    kill_at: float = math.inf

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def shown(self) -> Running:
        pid = self.process.pid if self.process else 0
        return Running(self.job, self.seconds, self.number, pid)


@dataclass
class Supervisor:
    """Runs jobs as they are submitted, so many at once; a context manager that leaves no process.

    Args:
        logs: folder where ``NAME.log`` gets all that a job says, of every attempt.
        at_once: jobs that run at the same time; 0: one a core.
        retries: how often a job that was killed, or ended with status 5, is begun again.
        grace: seconds between SIGTERM and SIGKILL for a job that has to leave.
        stop_asked: gives the number of the signal that asks us to stop, else 0.
        watcher: is told how jobs get on.
        start: how a job is begun; here, where nobody says otherwise.
    """

    logs: Path
    at_once: int = 0
    retries: int = 2
    grace: float = GRACE_SECONDS
    stop_asked: Callable[[], int] = lambda: 0
    watcher: Watcher = field(default_factory=Unwatched)
    start: Start = Here

    def __post_init__(self) -> None:
        self.at_once = self.at_once or cores()
        self._waiting: deque[_Attempt] = deque()
        self._running: list[_Attempt] = []
        self._ended: deque[Outcome] = deque()
        self._done = 0
        self._tick_at = 0.0
        files.make_folder(self.logs)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job) -> None:
        """Line a job up; it begins in `wait_any`, when it is its turn.

        Raises:
            ValueError: a job of that name has not ended yet.
        """
        if any(self._log(job) == self._log(other.job) for other in self._in_flight()):
            raise ValueError(f"job {job.name!r}: one of that name has not ended yet")
        self._waiting.append(_Attempt(job))

    def stop(self, name: str) -> None:
        """Ask one job to save and leave: its outcome will be "stopped", unless it is done first."""
        for attempt in list(self._waiting):
            if attempt.job.name == name:
                self._waiting.remove(attempt)
                self._note(Outcome(attempt.job, "stopped", 0, "", attempt.before, 0))
        for attempt in self._running:
            if attempt.job.name == name:
                self._ask(attempt, "stopped")

    @property
    def unfinished(self) -> int:
        """Jobs whose outcome nobody has got yet."""
        return len(self._waiting) + len(self._running) + len(self._ended)

    def wait_any(self, timeout: float = math.inf) -> Outcome | None:
        """The next outcome, in the order in which jobs end.

        Returns:
            None where none came within ``timeout`` seconds, or none is to come: `unfinished` is 0.

        Raises:
            Stopped: `stop_asked` said so; the jobs have saved and left.
            DiskFault: a job could not write; the others have saved and left.
        """
        limit = time.monotonic() + timeout
        while True:
            if self._ended:
                return self._ended.popleft()
            self._look()
            if self._ended:
                continue
            if not self.unfinished or time.monotonic() >= limit:
                return None
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Ask all jobs to save and leave, and wait until they have; those that wait never begin."""
        self._waiting.clear()
        for attempt in self._running:
            self._ask(attempt, "stopped")
        while self._running:
            for attempt, code in self._look_at_running():
                self._end(attempt, code)
            time.sleep(POLL_SECONDS)

    def _in_flight(self) -> list[_Attempt]:
        return [*self._waiting, *self._running]

    def _look(self) -> None:
        """See who has ended, and begin what there is room for."""
        if signum := self.stop_asked():
            self.close()
            raise Stopped(signum, f"jobs done: {self._done}; the same command goes on")
        for attempt, code in self._look_at_running():
            self._judge(attempt, code)
        while self._waiting and len(self._running) < self.at_once:
            attempt = self._waiting.popleft()
            self._start(attempt)
            self._running.append(attempt)
            self.watcher.event(Event("started", attempt.job, attempt.number))
        if time.monotonic() >= self._tick_at:
            self._tick_at = time.monotonic() + TICK_SECONDS
            self.watcher.tick([one.shown() for one in self._running], len(self._waiting))

    def _start(self, attempt: _Attempt) -> None:
        path = self._log(attempt.job)
        with disk(path):
            attempt.log_start = path.stat().st_size if path.exists() else 0
        attempt.process = self.start(attempt.job.argv, path)
        attempt.began = time.monotonic()

    def _look_at_running(self) -> list[tuple[_Attempt, int]]:
        """Those that have ended, with their statuses; who has overstayed is told to leave."""
        found = []
        for attempt in self._running:
            assert attempt.process is not None
            code = attempt.process.poll()
            if code is not None:
                found.append((attempt, code))
            elif time.monotonic() >= attempt.kill_at:
                attempt.process.kill()
            elif attempt.seconds >= attempt.job.timeout and not attempt.asked:
                self._ask(attempt, "timeout")
        return found

    def _ask(self, attempt: _Attempt, why: Literal["timeout", "stopped"]) -> None:
        if attempt.asked or attempt.process is None:
            return
        attempt.asked, attempt.kill_at = why, time.monotonic() + self.grace
        attempt.process.terminate()

    def _judge(self, attempt: _Attempt, code: int) -> None:
        """Begin what died again, where it has not been asked to leave; all else has ended."""
        died = code < 0 or code in AGAIN
        if died and not attempt.asked and attempt.number <= self.retries:
            self._running.remove(attempt)
            self._waiting.appendleft(_Attempt(attempt.job, attempt.number + 1, attempt.seconds))
            self.watcher.event(Event("again", attempt.job, attempt.number))
            return
        outcome = self._end(attempt, code)
        if code == DISK_STATUS:
            self.close()
            raise DiskFault(f"{attempt.job.name}: {outcome.line}")

    def _end(self, attempt: _Attempt, code: int) -> Outcome:
        self._running.remove(attempt)
        status: Status = "done" if code == 0 else attempt.asked or "failed"
        tail = read_tail(self._log(attempt.job), attempt.log_start)
        outcome = Outcome(attempt.job, status, code, tail, attempt.seconds, attempt.number)
        self._note(outcome)
        return outcome

    def _note(self, outcome: Outcome) -> None:
        self._done += outcome.status == "done"
        self._ended.append(outcome)
        self.watcher.event(Event("ended", outcome.job, outcome.attempts, outcome))

    def _log(self, job: Job) -> Path:
        return self.logs / f"{file_name(job.name)}.log"


def run_jobs(
    jobs: Iterable[Job],
    at_once: int = 0,
    *,
    logs: Path,
    retries: int = 2,
    grace: float = GRACE_SECONDS,
    stop_asked: Callable[[], int] = lambda: 0,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Run jobs to their ends; gives their outcomes in the order of the jobs.

    Args and errors are those of `Supervisor`.
    """
    watcher = watcher or Unwatched()
    with Supervisor(logs, at_once, retries, grace, stop_asked, watcher) as supervisor:
        names = []
        for job in jobs:
            supervisor.submit(job)
            names.append(job.name)
        ended = {}
        while (outcome := supervisor.wait_any()) is not None:
            ended[outcome.job.name] = outcome
    return [ended[name] for name in names]


def file_name(name: str) -> str:
    """A job's name as that of a file; of a long one the digest tells it from others that begin so.

    >>> file_name("sb3:dqn on ALE/Pong-v5")
    'sb3-dqn-on-ALE-Pong-v5'
    """
    made = re.sub(r"[^\w.=,+-]+", "-", name, flags=re.ASCII)
    if len(made) <= LONGEST:
        return made
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{made[: LONGEST - 11]}-{digest}"
