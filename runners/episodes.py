"""Counting what a rollout holds: valid rows and the returns of the episodes that end in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from agents.contract import Array, Rollout, State

Total = Callable[[Array], Array]
"""Numbers of this learner to their sums over all."""


class EpisodeCounter:
    """Environment steps of each seed, and returns of training episodes since the last report."""

    def __init__(self, seeds: int, lanes: int, total: Total | None = None) -> None:
        """Of rollouts with so many lanes a seed; ``total`` adds up what several learners count."""
        self.lanes, self.sum_up = lanes, total
        self.env_steps = np.zeros(seeds, np.int64)
        self.carry = np.zeros(seeds * lanes)  # return so far of every lane's unfinished episode
        self.episodes = np.zeros(seeds, np.int64)
        self.total = np.zeros(seeds)

    def add(self, rollout: Rollout) -> None:
        """Count a rollout whose columns are seed-major.

        An end on an ignored row (a scheduled reset found the lane between two episodes) is none.
        """
        valid = rollout.valid
        self.carry[rollout.first[0]] = 0.0  # a lane of a worker that was replaced never ended
        steps = valid.sum(axis=0).reshape(len(self.env_steps), -1).sum(axis=1)
        episodes, total = self._ended(rollout, valid)
        if self.sum_up:
            summed = self.sum_up(np.stack([steps, episodes, total]))
            steps, episodes, total = (
                summed[0].astype(np.int64),
                summed[1].astype(np.int64),
                summed[2],
            )
        self.env_steps += steps
        self.episodes += episodes
        self.total += total

    def _ended(self, rollout: Rollout, valid: Array) -> tuple[Array, Array]:
        """Episodes [K] that ended in a rollout, and the sums [K] of their returns."""
        seeds = len(self.env_steps)
        ended = rollout.done & valid
        running = rollout.reward.cumsum(axis=0, dtype=np.float64)
        column, row = np.nonzero(ended.T)  # by lane, then time
        if not len(column):
            self.carry += running[-1]
            return np.zeros(seeds, np.int64), np.zeros(seeds)
        reached = running[row, column]
        opens = np.r_[True, column[1:] != column[:-1]]
        before = np.where(opens, -self.carry[column], np.r_[0.0, reached[:-1]])
        returns = reached - before
        closes = np.r_[opens[1:], True]
        self.carry += running[-1]
        self.carry[column[closes]] = running[-1, column[closes]] - reached[closes]
        seed = column // self.lanes
        return (
            np.bincount(seed, minlength=seeds),
            np.bincount(seed, weights=returns, minlength=seeds),
        )

    def report(self) -> tuple[Array, Array]:
        """Episodes [K] ended since the last report and their mean return [K], NaN where none."""
        episodes = self.episodes.copy()
        mean = np.divide(
            self.total, episodes, out=np.full(len(episodes), np.nan), where=episodes > 0
        )
        self.episodes[:], self.total[:] = 0, 0.0
        return episodes, mean

    def state_dict(self) -> State:
        return {
            "env_steps": self.env_steps,
            "carry": self.carry,
            "episodes": self.episodes,
            "total": self.total,
        }

    def load_state_dict(self, state: State) -> None:
        self.env_steps, self.carry = np.array(state["env_steps"]), np.array(state["carry"])
        self.episodes, self.total = np.array(state["episodes"]), np.array(state["total"])

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.carry = self.carry.reshape(-1, self.lanes)[kept].reshape(-1)
        self.env_steps, self.episodes = self.env_steps[kept], self.episodes[kept]
        self.total = self.total[kept]
