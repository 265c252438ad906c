"""A rollout worker in a process of its own: takes orders from a pipe, writes rollouts into slots."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.contract import Array
from envs.contract import SimulatorError
from envs.cores import cores, limited
from envs.with_parent import end_with_parent
from runners import faults, journal
from runners.faults import fault_point
from runners.slots import Slot
from runners.sources.orders import Answer, Collect, Collected, Failed, Keep, Load, Order, Save, Task
from runners.timing import BESIDE
from runners.worker import RolloutWorker

if TYPE_CHECKING:
    from runners.group import Setting


def main(pipe: Connection[Answer, Order], task: Task) -> None:
    """Serve until the pipe is closed at its other end."""
    _leave_signals_to_parent()
    if (learner := multiprocessing.parent_process()) is not None and learner.pid is not None:
        end_with_parent(learner.pid)
    faults.in_worker(task.index, task.life)
    try:
        fault_point("worker.start")
        server = _Server(task)
        fault_point("worker.ready")
        pipe.send(None)
        while True:
            answer = server.answer(pipe.recv())
            fault_point("worker.answer")
            pipe.send(answer)
            fault_point("worker.answered")
    except (EOFError, ConnectionError):
        return
    except SimulatorError as error:
        where = (error.env_id, error.lane, error.step, error.what)
        _last_words(pipe, Failed(where, traceback.format_exc()))
    except Exception:
        _last_words(pipe, Failed(None, traceback.format_exc()))


def _leave_signals_to_parent() -> None:
    """Ctrl-C reaches all of a terminal's processes; the learner's decides."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # held back until here


def _last_words(pipe: Connection[Answer, Order], failed: Failed) -> None:
    try:
        pipe.send(failed)
    except ConnectionError:
        return  # nobody listens any more


class _Server:
    """A `RolloutWorker` and its part of the slots."""

    def __init__(self, task: Task) -> None:
        import torch

        from runners import group

        torch.set_num_threads(1)
        if task.config.fast_matmul:  # the same bits as the learner's process would act with
            torch.set_float32_matmul_precision("medium")
        self.task, self.columns, self.seeds = task, task.columns, len(task.seeds)
        setting = group.make_setting(task.config)
        self.blocks_per_seed = task.config.lanes // task.config.block_size
        with limited((cores() - task.config.threads) // task.workers):
            self.worker = self._make_worker(setting)
        self.worker.take_place(task.steps_done, task.pending_reset)
        self.worker.rows_begun = task.beats.bytes.view(np.int64)[task.index : task.index + 1]
        self._lay_out()

    def _make_worker(self, setting: Setting) -> RolloutWorker:
        from runners.group import make_worker

        task = self.task
        try:
            return make_worker(setting, task.seeds, task.columns, task.life, self._journal)
        except SimulatorError as error:
            # a simulator that cannot be made has not come to a journal in shared memory
            task.journal_of(error.lane).header[:] = error.journal.header
            raise

    def _journal(self, column: int, block: journal.Block) -> journal.Journal:
        """In shared memory: should a simulator kill this process, it says what it died of."""
        return journal.begun(block, self.task.journal_arrays(column))

    def _lay_out(self) -> None:
        part = slice(self.columns.start, self.columns.stop)
        blocks = self.seeds * self.blocks_per_seed
        self.slots = [
            slot.part(part) for slot in slots_in(self.task.slots.bytes, self.task, blocks)
        ]

    def answer(self, order: Order) -> Any:
        match order:
            case Collect():
                return self._collect(order)
            case Save():
                fault_point("worker.state")
                return self.worker.state_dict()
            case Load():
                fault_point("worker.load")
                self.worker.load_state_dict(order.state)
            case Keep():
                fault_point("worker.keep")
                self.worker.keep(order.seeds)
                self.columns, self.seeds = order.columns, len(order.seeds)
                self.task.board.keep(self.seeds)
                self._lay_out()
        return None

    def _collect(self, order: Collect) -> Collected:
        times = self.worker.times
        times.start()
        params = self.task.board.read(order.acts)
        self.worker.load_params(params)
        slot = self.slots[order.number % len(self.slots)]
        rollout = self.worker.collect(order.plan, params.version, slot)
        taken = times.take()
        seconds = {part: taken[part] for part in BESIDE}
        return Collected(order.number, params.version, rollout.actor_state, seconds)


def slots_in(memory: Array, task: Task, blocks: int) -> list[Slot]:
    """The slots of all workers' blocks, one behind the other."""
    count = task.config.ahead + 1
    size = len(memory) // count
    return [task.layout.slot(memory[i * size : (i + 1) * size], blocks) for i in range(count)]
