"""A worker process as the learner's process sees it: what it was asked, and whether it lives."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from agents.contract import State
from runners.sources.orders import Answer, Collect, Collected, Failed, Order, Save, Task
from runners.sources.worker_process import main

HANG_LIMIT = 60.0  # seconds of watching without a new row, or with an order unanswered
START_LIMIT = 300.0  # seconds: some simulators compile first
DEATH_LIMIT = 1.0  # seconds between the end of its pipe and its own


class Lost(Exception):
    """The process is no worker any more; says why."""


class Member:
    """A worker process, its orders and its answers."""

    def __init__(self, task: Task) -> None:
        """Start the process."""
        self.task = task
        self.sent: deque[Order] = deque()  # not answered yet
        self.done: deque[Collected] = deque()  # handed over, not asked for yet
        self.state: State | None = None  # its last answer to an order that was no rollout
        self.ready = False
        self.beat, self.silent = -1, 0.0  # its last sign of life, and the seconds since
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection[Order, Answer]
        self.pipe, theirs = context.Pipe()
        _limit(self.pipe)
        # Not a daemon: simulators may have processes of their own.
        self.process = context.Process(target=main, args=(theirs, task))
        try:
            with _signals_held():
                self.process.start()
        finally:
            theirs.close()

    def send(self, order: Order) -> None:
        """Ask; a worker that is dead will be noticed where its answer is awaited."""
        if not self.sent:
            self.silent = 0.0
        self.sent.append(order)
        with contextlib.suppress(OSError):
            self.pipe.send(order)

    def hangs(self, beat: int, seconds: float) -> bool:
        """Whether nothing has happened for too long, of which ``seconds`` are new.

        Only what was watched counts: not the time in which this process learned, or was stopped itself.
        """
        self.silent = 0.0 if beat != self.beat else self.silent + seconds
        self.beat = beat
        return self.silent > (HANG_LIMIT if self.ready else START_LIMIT)

    def receive(self) -> Failed | None:
        """Take one answer; an error that ended the worker is returned.

        Raises:
            Lost: the process has died, or what it says is not what was asked.
        """
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise Lost(self._how_it_died()) from None
        except Exception as error:  # what is no answer may be anything to pickle
            told = f"its answer cannot be read: {type(error).__name__}: {error}"
            raise Lost(told) from error
        self.silent = 0.0
        if isinstance(answer, Failed):
            return answer
        order = self.sent[0] if self.ready else None
        match order, answer:
            case None, None:
                self.ready = True
                return None
            case Collect(number=asked), Collected(number=number) if asked == number:
                self.done.append(answer)
                # where it would have to begin anew
                rows, reset = order.plan.rows, order.plan.checkpoint
                self.begins_at(self.task.steps_done + rows, reset)
            case Save(), dict():
                self.state = answer
            case _, None if not isinstance(order, Collect | Save):
                self.state = None
            case _:
                raise Lost(f"it answered what it was not asked: {str(answer)[:60]}")
        self.sent.popleft()
        return None

    def begins_at(self, steps_done: int, pending_reset: int | None) -> None:
        """Where a process that takes its place begins."""
        self.task = replace(self.task, steps_done=steps_done, pending_reset=pending_reset)

    def _how_it_died(self) -> str:
        self.process.join(DEATH_LIMIT)
        code = self.process.exitcode
        if code is None:
            return "it closed its pipe"
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)})"
        return f"it ended with status {code}"

    def kill(self) -> None:
        """End it now: from here on it writes nothing."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def end(members: list[Member], limit: float) -> None:
    """Close the pipes, at which they leave; kill those that do not within ``limit`` seconds."""
    for member in members:
        member.pipe.close()
    until = time.monotonic() + limit
    for member in members:
        member.process.join(max(0.0, until - time.monotonic()))
    for member in members:
        member.kill()


def _limit(pipe: Connection[Order, Answer]) -> None:
    """Do not wait for ever in the middle of a long word, at whose other end somebody was stopped."""
    limits = {socket.SO_RCVTIMEO: HANG_LIMIT, socket.SO_SNDTIMEO: START_LIMIT}
    with socket.socket(fileno=os.dup(pipe.fileno())) as end_of_pipe:
        for option, seconds in limits.items():
            value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            end_of_pipe.setsockopt(socket.SOL_SOCKET, option, value)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let a new process begin with Ctrl-C and SIGTERM held back, until it can decide on them."""
    resource_tracker.ensure_running()  # whose start would let them through
    numbers = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
