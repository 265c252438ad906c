"""Rollouts from worker processes, each of which writes its blocks into its columns of a shared slot.

Lockstep: rollout number j is acted with publish number j - lag, so its bits are those of the local source
of the same lag, however many workers there are. Async: a worker begins a rollout as soon as a slot is
free, with the newest parameters there are; it may be ``max_lag`` rollouts ahead of the learner.

A worker that dies or hangs is replaced: its blocks begin new episodes, from seeds of their own, and it
does over what it had not handed over. A simulator's error is a fault of the simulator and ends the run.
"""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from agents.contract import Params, Rollout, State, params_from_state, params_to_state
from agents.device.homeward import is_ready
from envs.contract import SimulatorError
from envs.lane_processes import RemoteTraceback
from runners import crash_report, journal
from runners.config import RunConfig
from runners.slots import Layout, Slot
from runners.sources import Plan, due
from runners.sources.lives import Lives
from runners.sources.member import Lost, Member, end
from runners.sources.orders import Collect, Failed, Keep, Load, Order, Save, Task
from runners.sources.shared import Board, SharedBytes, blocks_of, chunks, nbytes
from runners.sources.worker_process import slots_in
from runners.timing import Times
from runners.worker_state import beside, divided, merged

TICK = 0.5  # seconds between two looks at who hangs
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE}
CLOSE_LIMIT = 1.0  # seconds that the processes have to end by themselves


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
        self.published: list[Params] = []  # oldest first, `lag` + 1 at most
        self.number = 0  # of the next rollout
        self.issued = 0  # the number after the last rollout that was ordered
        self.publishes = 0
        self.writer = ThreadPoolExecutor(1, "publish")  # of what a device has not handed over yet
        self.written: Future[None] | None = None  # the last of its tasks
        self.replaced = 0
        self.lives = Lives("see what the simulator does")
        self.members: list[Member] = []
        atexit.register(self.close)  # Python waits for processes that were not ended
        try:
            for index, columns in enumerate(chunks(blocks, workers)):
                task = Task(
                    config, index, workers, tuple(seeds), columns, 0, 0, None,
                    layout, self.memory, self.board, self.beats, self.journals, tuple(columns), kept,
                )  # fmt: skip
                self.members.append(Member(task))
            self._lay_out()
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
        if self.written is None and is_ready(params.tensors):
            self.board.write(self.publishes, params)
        else:  # the learner need not wait: workers do, who have a rollout to go on with
            if self.written is not None and self.written.done():
                self.written.result()
            self.written = self.writer.submit(self.board.write, self.publishes, params)
        self.publishes += 1
        self.times.lap("transfer")

    def next(self, plan: Plan) -> Rollout:
        """The next rows; what follows is begun meanwhile, as far as the lag allows."""
        self.times.lap("other")
        self._order(plan)
        self.times.lap("transfer")
        number = self.number
        self._await(lambda member: bool(member.done) and member.done[0].number == number)
        self.times.lap("wait")
        parts = [member.done.popleft() for member in self.members]
        self.number += 1
        self.lives.regain()
        for part in parts:
            self.times.add(part.seconds)
        self.times.lap("transfer")
        slot = self.slots[number % len(self.slots)]
        actor_state = beside([part.actor_state for part in parts])
        return slot.rollout(plan.rows, actor_state, min(part.version for part in parts))

    def _order(self, plan: Plan) -> None:
        """This one and those that follow, as many ahead as the lag allows and the clock foresees."""
        for ordered in due(plan, self.ahead, self.pending):
            number = self.issued
            acts = None if self.config.async_ else max(0, number - self.config.lag)
            for member in self.members:
                member.send(Collect(number, ordered._replace(following=None), acts))
            self.issued += 1

    # -- Watching ------------------------------------------------------------------------------

    def _await(self, finished: Callable[[Member], bool]) -> None:
        """Take answers until every worker has ``finished``; replace those that die or hang."""
        looked = time.monotonic()
        while waiting := [member for member in self.members if not finished(member)]:
            handles: list[Any] = [m.pipe for m in waiting]
            handles += [m.process.sentinel for m in waiting]
            ready = wait(handles, TICK)
            before, looked = looked, time.monotonic()
            beats = self.beats.bytes.view(np.int64)
            for member in waiting:
                try:
                    if member.pipe in ready or member.process.sentinel in ready:
                        if failed := member.receive():
                            self._raise(member, failed)
                    elif member.hangs(int(beats[member.task.index]), min(looked - before, TICK)):
                        raise Lost("it hung")
                except Lost as loss:
                    self._replace(member, str(loss))

    def _replace(self, member: Member, why: str) -> None:
        """Another process for the same blocks, which begin new episodes."""
        member.kill()
        self.replaced += 1
        told = f"worker {member.task.index}: {why}{self._crash(member, why)}"
        self.lives.lose(told, self.replaced - 1)
        self.say(f"{told}; replaced, its {blocks_of(member.task.columns)} new episodes")
        for column in range(len(member.task.columns)):
            member.task.journal(column).header[:] = 0  # those who come were asked for nothing yet
        # the number of all replacements: no block draws from the same seeds twice
        anew = Member(replace(member.task, life=self.replaced))
        anew.done = member.done
        self.members[self.members.index(member)] = anew
        for order in member.sent:
            anew.send(order)

    def _raise(self, member: Member, failed: Failed) -> NoReturn:
        remote = RemoteTraceback(failed.traceback)
        if failed.simulator is None:
            raise RuntimeError("a worker process met an error that nobody foresaw") from remote
        error = SimulatorError(*failed.simulator)
        error.journal = member.task.journal_of(error.lane)
        raise error from remote

    def _crash(self, member: Member, why: str) -> str:
        """Where the report of a simulator lies that took its process with it."""
        code = member.process.exitcode
        if self.folder is None or code is None or -code not in CRASHES:
            return ""
        # Blocks are asked one after the other: the last of those that have come furthest. The reset
        # that a life begins with has the number of the row after it.
        kept = [member.task.journal(c) for c in range(len(member.task.places))]
        reached = [(one.last_step, one[journal.Field.ROWS] > 0) for one in kept]
        failed = kept[max(i for i, at in enumerate(reached) if at == max(reached))]
        if failed.last_step < 0:  # it died before any of them was asked for anything
            return ""
        simulated = crash_report.simulated_by(self.config, journal.Purpose.TRAINING)
        lane = failed[journal.Field.FIRST_LANE]
        report = crash_report.report_of(simulated, failed, f"its process died ({why})", why, lane)
        return f"; {crash_report.left(self.folder, report)}"

    def _settle(self) -> None:
        """Wait until all that was published is on the board."""
        if self.written is not None:
            self.written.result()
            self.written = None

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
        self._settle()
        states = self._ask([Save()] * len(self.members))
        return {
            "worker": merged(states),
            "published": {str(i): params_to_state(p) for i, p in enumerate(self.published)},
            "replaced": self.replaced,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from the state of any source, whatever its workers."""
        per_seed = self.config.lanes // self.config.block_size
        parts = divided(state["worker"], [m.task.columns for m in self.members], per_seed)
        # first: a worker that is replaced meanwhile draws from a life that nobody had
        self.replaced += state.get("replaced", 0)  # none: begun before it was counted
        self._ask([Load(part) for part in parts])
        for member in self.members:
            member.begins_at(state["worker"]["steps_done"], state["worker"]["pending_reset"])
        saved = state["published"]
        self._publish_again([params_from_state(saved[str(i)]) for i in range(len(saved))])

    def _publish_again(self, published: list[Params]) -> None:
        self.published = published
        for i, params in enumerate(published):
            self.board.write(i, params)
        self.publishes = len(published)
        self.number = self.issued = max(0, len(published) - 1)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        self._settle()
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
                end([member], CLOSE_LIMIT)
        ranges = [range(mine[0], mine[-1] + 1) for mine in columns if mine]
        self.times.workers = len(self.members)
        self._ask([Keep(kept, mine) for mine in ranges])
        self.seeds = [self.seeds[k] for k in kept]
        stay = [task for task, mine in zip(before, columns, strict=True) if mine]
        for member, task, left in zip(self.members, stay, ranges, strict=True):
            places = tuple(p for p, c in zip(task.places, task.columns, strict=True) if c in new)
            member.task = replace(member.task, seeds=tuple(self.seeds), columns=left, places=places)
        self.board.keep(len(kept))
        self._lay_out()
        self._publish_again([params.keep(kept) for params in self.published])

    def close(self) -> None:
        """End the processes and let go of the memory."""
        atexit.unregister(self.close)
        self.writer.shutdown()
        end(self.members, CLOSE_LIMIT)
        self.members = []
        for memory in (self.memory, self.board.memory, self.beats, self.journals):
            memory.close()
