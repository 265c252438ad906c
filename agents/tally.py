"""The clock and the metrics of a learner that learns every row as it comes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.contract import Array, Rollout, State


class Tally:
    """What K seeds of ``lanes`` lanes each have learned so far; a learner has one.

    ``sums`` [K, 4] is what `tabular_kernels.count` gathers: rows, and over them the sums of |TD error|,
    prediction and target.
    """

    def __init__(self, seeds: int, lanes: int) -> None:
        self.lanes = lanes
        self.sums = np.zeros((seeds, 4))  # over the rows learned since metrics were read
        self.means = np.zeros((seeds, 3))  # as they were read last
        self.updates = self.lane_steps = self.version = 0

    def observe(self, rollout: Rollout) -> None:
        """Move the clock on; every row is an update."""
        self.lane_steps += rollout.rows * self.lanes
        self.updates += rollout.rows
        self.version += 1

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the rows learned since this was last asked for; the last ones without any."""
        count = self.sums[:, :1]
        np.divide(self.sums[:, 1:], count, out=self.means, where=count > 0)
        self.sums[:] = 0.0
        td_error, q_mean, target_mean = self.means.T.copy()
        return {
            "loss": td_error, "td_error": td_error, "q_mean": q_mean, "target_mean": target_mean
        }  # fmt: skip

    def state_dict(self) -> State:
        return {
            "sums": self.sums,
            "means": self.means,
            "updates": self.updates,
            "lane_steps": self.lane_steps,
            "version": self.version,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`; other entries are the learner's own."""
        self.sums[:], self.means[:] = state["sums"], state["means"]
        self.updates, self.lane_steps = state["updates"], state["lane_steps"]
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.sums, self.means = self.sums[kept], self.means[kept]
