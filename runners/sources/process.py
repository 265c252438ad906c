"""Rollouts from worker processes, each of which writes its blocks into its columns of a shared slot.

Lockstep: rollout number j is acted with publish number j - lag, so its bits are those of the local source
of the same lag, however many workers there are. Async: a worker begins a rollout as soon as a slot is
free, with the newest parameters there are; it may be ``max_lag`` rollouts ahead of the learner.

A worker that dies or hangs is replaced: its blocks begin new episodes, from seeds of their own, and it
does over what it had not handed over. A simulator's error is a fault of the simulator and ends the run.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from agents.contract import Params, Rollout, State, params_from_state, params_to_state
from envs.contract import SimulatorError
from envs.lane_processes import RemoteTraceback
from runners import crash_report, journal
from runners.config import RunConfig
from runners.errors import WorkerLost
from runners.slots import Layout, Slot
from runners.sources import Plan
from runners.sources.orders import (
    Answer,
    Collect,
    Collected,
    Failed,
    Keep,
    Load,
    Order,
    Save,
    Task,
)
from runners.sources.shared import Board, SharedBytes, chunks, nbytes
from runners.sources.worker_process import main, slots_in
from runners.timing import Times
from runners.worker import divided, joined, merged

HANG_LIMIT = 60.0  # seconds without a new row, or with an order unanswered
START_LIMIT = 300.0  # seconds: some simulators compile first
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE}
TICK = 0.5  # seconds between two looks at who hangs
LIVES = 3  # replacements until ...
REGAIN = 100  # ... rollouts handed over, which win one back


class _Member:
    """A worker process, seen from the learner's."""

    def __init__(self, task: Task, context: Any) -> None:
        self.task = task
        self.sent: deque[Order] = deque()  # not answered yet
        self.done: deque[Collected] = deque()  # handed over, not asked for yet
        self.pipe: Connection[Order, Answer]
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=main, args=(theirs, task), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.exitcode: int | None = None  # once it has ended
        self.state: Any = None  # its last answer to an order that was no rollout
        self.beat, self.seen = -1, time.monotonic()

    def send(self, order: Order) -> None:
        """Ask; a worker that is dead will be noticed where its answer is awaited."""
        if not self.sent:
            self.seen = time.monotonic()
        self.sent.append(order)
        try:
            self.pipe.send(order)
        except ConnectionError:
            return

    def hangs(self, beat: int) -> bool:
        """Whether nothing has happened for too long."""
        if beat != self.beat:
            self.beat, self.seen = beat, time.monotonic()
        return time.monotonic() - self.seen > (HANG_LIMIT if self.ready else START_LIMIT)

    def end(self, limit: float) -> None:
        """Close the pipe, which it leaves at; kill it where it does not."""
        self.pipe.close()
        self.process.join(limit)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.exitcode = self.process.exitcode
        self.process.close()


class ProcessSource:
    """Rollouts of all lanes of a group of seeds from W worker processes."""

    def __init__(
        self,
        config: RunConfig,
        seeds: Sequence[int],
        workers: int,
        sample: Slot,
        params: Params,
        resumable: bool,
        say: Callable[[str], None],
        folder: Callable[[], Path] | None,
        times: Times,
    ) -> None:
        """Start the processes.

        Args:
            config: what is simulated and how.
            seeds: the group's.
            workers: how many; at most as many as there are blocks.
            sample: a slot that has all arrays that rollouts have.
            params: of the shapes that will be published.
            resumable: whether the simulators give their state.
            say: for messages of workers that were replaced.
            folder: for reports of simulators that crash; None: they leave none.
            times: of this process, where what the workers took is added.
        """
        self.config, self.seeds, self.resumable = config, list(seeds), resumable
        self.say, self.folder, self.times = say, folder, times
        times.workers = workers
        self.ahead = config.ahead
        blocks = len(seeds) * (config.lanes // config.block_size)
        layout = Layout.of(sample, config.rollout_length)
        self.memory = SharedBytes(layout.nbytes(blocks) * (self.ahead + 1))
        self.board, self.beats = Board(params), SharedBytes(8 * workers)
        action = sample.action
        kept = journal.shapes(config.block_size, action.shape[3:], action.dtype)
        self.journals = SharedBytes(nbytes(kept) * blocks, sparse=True)
        self.context = multiprocessing.get_context("spawn")
        self.published: list[Params] = []  # oldest first, `lag` + 1 at most
        self.number = 0  # of the next rollout
        self.issued = 0  # the number after the last rollout that was ordered
        self.publishes = 0
        self.rows_done = 0
        self.replaced = 0
        self.lives = float(LIVES)
        self.members: list[_Member] = []
        for index, columns in enumerate(chunks(blocks, workers)):
            task = Task(
                config, index, workers, tuple(seeds), columns, 0, 0,
                layout, self.memory, self.board, self.beats, self.journals, tuple(columns), kept,
            )  # fmt: skip
            self.members.append(_Member(task, self.context))
        self._lay_out()
        try:
            self._await(lambda member: member.ready)
        except BaseException:
            self.close()
            raise

    def _lay_out(self) -> None:
        blocks = len(self.seeds) * (self.config.lanes // self.config.block_size)
        self.slots = slots_in(self.memory.bytes, self.members[0].task, blocks)

    @property
    def pending(self) -> int:
        """Rollouts that have been ordered and not asked for."""
        return self.issued - self.number

    def publish(self, params: Params) -> None:
        """Workers act with these, ``lag`` rollouts later or as soon as they can."""
        if self.published and params.version == self.published[-1].version:
            return
        self.published = [*self.published, params][-(self.config.lag + 1) :]
        self.times.lap("learn")
        self.board.write(self.publishes, params)
        self.publishes += 1
        self.times.lap("transfer")

    def next(self, plan: Plan) -> Rollout:
        """The next rows; what follows is begun meanwhile, as far as the lag allows."""
        self.times.lap("other")
        self._order(plan, self.number)
        self.times.lap("transfer")
        number = self.number
        self._await(lambda member: bool(member.done) and member.done[0].number == number)
        self.times.lap("wait")
        parts = [member.done.popleft() for member in self.members]
        self.number += 1
        self.rows_done += plan.rows
        self.lives = min(LIVES, self.lives + 1 / REGAIN)
        if self.ahead and plan.following is not None:
            self._order(plan.following, self.number)
        for part in parts:
            self.times.add(part.seconds)
        self.times.lap("transfer")
        slot = self.slots[number % len(self.slots)]
        actor_state = _beside([part.actor_state for part in parts])
        return slot.rollout(plan.rows, actor_state, min(part.version for part in parts))

    def _order(self, plan: Plan | None, number: int) -> None:
        """Rollouts from ``number`` on, as many ahead as the lag allows and the clock foresees."""
        last = self.number + self.ahead
        while plan is not None and number <= last:
            if number == self.issued:
                acts = None if self.config.async_ else max(0, number - self.config.lag)
                for member in self.members:
                    member.send(Collect(number, plan._replace(following=None), acts))
                self.issued += 1
            plan, number = plan.following, number + 1

    # -- Watching ------------------------------------------------------------------------------

    def _await(self, finished: Callable[[_Member], bool]) -> None:
        """Take answers until every worker has ``finished``; replace those that die or hang."""
        while waiting := [member for member in self.members if not finished(member)]:
            handles: list[Any] = [m.pipe for m in waiting]
            handles += [m.process.sentinel for m in waiting]
            ready = wait(handles, TICK)
            beats = self.beats.bytes.view(np.int64)
            for member in waiting:
                if member.pipe in ready or member.process.sentinel in ready:
                    if not self._receive(member):
                        self._replace(member, _how_it_died(member))
                elif member.hangs(int(beats[member.task.index])):
                    self._replace(member, "it hung")

    def _receive(self, member: _Member) -> bool:
        """Take one answer; False where the process is gone."""
        try:
            answer = member.pipe.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of a word
            return False
        member.seen = time.monotonic()
        if isinstance(answer, Failed):
            self._raise(member, answer)
        if not member.ready:
            member.ready = True
            return True
        order = member.sent[0]
        if isinstance(order, Collect):
            if not (isinstance(answer, Collected) and answer.number == order.number):
                return False  # not what was asked: whatever it is, it is no worker any more
            member.done.append(answer)
        else:
            member.state = answer
        member.sent.popleft()
        return True

    def _raise(self, member: _Member, failed: Failed) -> None:
        remote = RemoteTraceback(failed.traceback)
        if failed.simulator is not None:
            error = SimulatorError(*failed.simulator)
            error.journal = self._journal(member, error.lane)
            raise error from remote
        raise RuntimeError("a worker process met an error that nobody foresaw") from remote

    def _replace(self, member: _Member, why: str) -> None:
        """Another process for the same blocks, which begin new episodes."""
        member.process.kill()  # also where it only hangs: from here on it writes nothing
        member.end(HANG_LIMIT)
        self.replaced += 1
        self.lives -= 1
        told = f"worker {member.task.index}: {why}{self._crash(member, why)}"
        if self.lives < 0:
            self.members.remove(member)
            raise WorkerLost(f"{told}; it was replaced too often, see what its simulator does")
        self.say(f"{told}; replaced, its {len(member.task.columns)} blocks begin new episodes")
        task = replace(member.task, life=member.task.life + 1, steps_done=self.rows_done)
        anew = _Member(task, self.context)
        anew.done = member.done
        self.members[self.members.index(member)] = anew
        for order in member.sent:
            anew.send(order)

    def _journal(self, member: _Member, lane: int) -> journal.Journal:
        """What that lane's simulator was asked."""
        column = lane // self.config.block_size - member.task.columns.start
        return journal.Journal(*member.task.journal_arrays(column))

    def _crash(self, member: _Member, why: str) -> str:
        """Where the report of a simulator lies that took the process with it."""
        code = member.exitcode
        if self.folder is None or code is None or -code not in CRASHES:
            return ""
        journals = [
            journal.Journal(*member.task.journal_arrays(c)) for c in range(len(member.task.places))
        ]
        # blocks take their steps one after the other: the last that was asked for the newest one
        newest = max(kept.last_step for kept in journals)
        failed = [kept for kept in journals if kept.last_step == newest][-1]
        simulated = crash_report.simulated_by(self.config, journal.Purpose.TRAINING)
        lane = failed[journal.Field.FIRST_LANE]
        report = crash_report.report_of(simulated, failed, f"its process died ({why})", why, lane)
        return f"; {crash_report.left(self.folder, report)}"

    def _ask(self, orders: Sequence[Order]) -> list[Any]:
        """Everybody's answer to an order of their own; nothing else is under way."""
        assert not self.pending, "the source is not at rest"
        for member, order in zip(self.members, orders, strict=True):
            member.send(order)
        self._await(lambda member: not member.sent)
        return [member.state for member in self.members]

    # -- At rest -------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """That of a local source; taken where nothing is pending."""
        states = self._ask([Save()] * len(self.members))
        return {
            "worker": merged(states),
            "published": {str(i): params_to_state(p) for i, p in enumerate(self.published)},
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from the state of any source, whatever its workers."""
        per_seed = self.config.lanes // self.config.block_size
        parts = divided(state["worker"], [m.task.columns for m in self.members], per_seed)
        self._ask([Load(part) for part in parts])
        saved = state["published"]
        self.rows_done = state["worker"]["steps_done"]
        self._publish_again([params_from_state(saved[str(i)]) for i in range(len(saved))])

    def _publish_again(self, published: list[Params]) -> None:
        self.published = published
        for i, params in enumerate(published):
            self.board.write(i, params)
        self.publishes = len(published)
        self.number = self.issued = max(0, len(published) - 1)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = tuple(seeds)
        per_seed = self.config.lanes // self.config.block_size
        before = [m.task for m in self.members]
        new = {
            k * per_seed + b: i * per_seed + b for i, k in enumerate(kept) for b in range(per_seed)
        }
        columns = [[new[c] for c in m.task.columns if c in new] for m in self.members]
        for member, mine in zip(list(self.members), columns, strict=True):
            if not mine:  # its seeds have left
                self.members.remove(member)
                member.end(HANG_LIMIT)
        ranges = [range(mine[0], mine[-1] + 1) for mine in columns if mine]
        self._ask([Keep(kept, mine) for mine in ranges])
        self.seeds = [self.seeds[k] for k in kept]
        stay = [task for task, mine in zip(before, columns, strict=True) if mine]
        for member, task, left in zip(self.members, stay, ranges, strict=True):
            places = (p for p, c in zip(task.places, task.columns, strict=True) if c in new)
            member.task = replace(task, seeds=tuple(self.seeds), columns=left, places=tuple(places))
        self.board.keep(len(kept))
        self._lay_out()
        self._publish_again([params.keep(kept) for params in self.published])

    def close(self) -> None:
        """End the processes and let go of the memory."""
        for member in self.members:
            member.end(1.0)
        self.members = []
        for memory in (self.memory, self.board.memory, self.beats, self.journals):
            memory.close()


def _how_it_died(member: _Member) -> str:
    member.process.join(HANG_LIMIT)
    code = member.process.exitcode
    return (
        f"killed by signal {-code}"
        if code is not None and code < 0
        else f"it ended with status {code}"
    )


def _beside(states: Sequence[State]) -> State:
    """What the actors of all workers remember at row 0: side by side, by block position."""
    first = states[0]
    if len(states) == 1 or not first:
        return first
    found: State = {}
    for state in states:
        for b, remembered in state.items():
            found.setdefault(b, []).append(remembered)
    return {b: joined(parts) for b, parts in found.items()}
