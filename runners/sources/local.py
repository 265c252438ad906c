"""Rollouts from this process: the worker steps, then the learner learns."""

from __future__ import annotations

from collections.abc import Sequence

from agents.contract import Params, Rollout, State, params_from_state, params_to_state
from runners.sources import Plan
from runners.worker import RolloutWorker


class LocalSource:
    """A `RolloutWorker` behind the source's interface.

    With lag 1 it acts with the parameters before the newest, as a source does whose workers
    simulate while the learner learns.
    """

    def __init__(self, worker: RolloutWorker, lag: int) -> None:
        self.worker, self.lag = worker, lag
        self.resumable = worker.resumable
        self.published: list[Params] = []  # oldest first; the worker acts with the first

    def publish(self, params: Params) -> None:
        """Keep ``lag`` + 1 versions and act with the oldest. A version seen before changes nothing."""
        if self.published and params.version == self.published[-1].version:
            return
        self.published = [*self.published, params][-(self.lag + 1) :]
        self.worker.load_params(self.published[0])

    def next(self, plan: Plan) -> Rollout:
        """The next rows."""
        return self.worker.collect(plan, self.published[0].version)

    def state_dict(self) -> State:
        return {
            "worker": self.worker.state_dict(),
            "published": {str(i): params_to_state(p) for i, p in enumerate(self.published)},
        }

    def load_state_dict(self, state: State) -> None:
        self.worker.load_state_dict(state["worker"])
        saved = state["published"]
        self.published = [params_from_state(saved[str(i)]) for i in range(len(saved))]
        if self.published:  # nothing is before the first rollout
            self.worker.load_params(self.published[0])

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        self.worker.keep(seeds)
        self.published = [params.keep(seeds) for params in self.published]
        self.worker.load_params(self.published[0])

    def close(self) -> None:
        """Close the simulators."""
        self.worker.close()
