"""Rollouts from this process: the worker steps, then the learner learns; or both at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from agents.contract import Params, Rollout, State, params_from_state, params_to_state
from runners.sources import Plan
from runners.timing import BESIDE, Times
from runners.worker import RolloutWorker


class LocalSource:
    """A `RolloutWorker` behind the source's interface.

    With lag 1 it acts with the parameters before the newest, as a source does whose workers
    simulate while the learner learns; and so it does itself, in a thread, where it ``overlaps``.
    """

    def __init__(
        self, worker: RolloutWorker, lag: int, overlaps: bool = False, times: Times | None = None
    ) -> None:
        """``overlaps``, at lag 1: the simulators compute without holding Python's lock. The bits are the same."""
        self.worker, self.lag = worker, lag
        self.times = times or worker.times
        self.resumable = worker.resumable
        self.replaced = 0  # none here; of the run, if it had workers at an earlier start
        self.published: list[Params] = []  # oldest first; the worker acts with the first
        self.thread = ThreadPoolExecutor(1, "rollouts") if overlaps else None
        if self.thread:
            self.worker.times = Times()  # the thread's own
            self.times.workers = 1
        self.under_way: Future[Rollout] | None = None
        self.spare = worker.new_slot(worker.slot.rows) if self.thread else worker.slot

    @property
    def pending(self) -> int:
        """1 while the thread has a rollout."""
        return int(self.under_way is not None)

    def publish(self, params: Params) -> None:
        """Keep ``lag`` + 1 versions and act with the oldest. A version seen before changes nothing."""
        if self.published and params.version == self.published[-1].version:
            return
        self.published = [*self.published, params][-(self.lag + 1) :]

    def next(self, plan: Plan) -> Rollout:
        """The next rows; what follows them is begun in the thread."""
        if self.thread:
            self.times.lap("other")
        if self.under_way is None:
            rollout = self._collect(plan, self.published[0])
        else:
            rollout, self.under_way = self.under_way.result(), None
        if self.thread:
            self.times.lap("wait")
            self._add_times()
        if self.thread and plan.following:
            # by the time it is asked for, one more will have been published
            newest = self.published[-1]
            self.under_way = self.thread.submit(self._collect, plan.following, newest)
        return rollout

    def _add_times(self) -> None:
        """What the thread took for acting and simulating."""
        taken = self.worker.times.take()
        self.times.add({part: taken[part] for part in BESIDE})

    def _collect(self, plan: Plan, params: Params) -> Rollout:
        """Into the slot that the rollout before this one is not in."""
        slot, self.spare = self.spare, self.worker.slot
        self.worker.load_params(params)
        return self.worker.collect(plan, params.version, slot)

    def state_dict(self) -> State:
        assert not self.pending, "the source is not at rest"
        return {
            "worker": self.worker.state_dict(),
            "published": {str(i): params_to_state(p) for i, p in enumerate(self.published)},
            "replaced": self.replaced,
        }

    def load_state_dict(self, state: State) -> None:
        self.worker.load_state_dict(state["worker"])
        self.replaced = state.get("replaced", 0)  # none: begun before it was counted
        saved = state["published"]
        self.published = [params_from_state(saved[str(i)]) for i in range(len(saved))]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        assert not self.pending, "the source is not at rest"
        self.worker.keep(seeds)
        self.published = [params.keep(seeds) for params in self.published]
        self.spare = (
            self.worker.new_slot(self.worker.slot.rows) if self.thread else self.worker.slot
        )

    def close(self) -> None:
        """Close the simulators."""
        if self.thread:
            self.thread.shutdown()
        self.worker.close()
