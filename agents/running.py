"""Mean and variance of a stream of numbers, and what is scaled by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.contract import Array, State

_EPS = 1e-8  # added to a variance


class Running:
    """Mean and sample variance, a seed's own, of all that came so far; float64.

    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
    variances", equation 2.1; of one row at a time that is Welford's (1962, Technometrics 4(3)).
    """

    def __init__(self, seeds: int, shape: tuple[int, ...] = ()) -> None:
        """Of arrays [K, *shape], before the first."""
        self.count: Array = np.zeros((seeds, *(1 for _ in shape)), np.int64)
        self.mean: Array = np.zeros((seeds, *shape))
        self.squares: Array = np.zeros((seeds, *shape))  # sum of (x - mean)²
        self._deviation: Array | None = None  # until the next row

    def add(self, x: Array, counts: Array) -> None:
        """Take in the rows x [M, K, *shape] where ``counts`` [M, K] is true.

        No array is changed in place: what `params` published stays as it was.
        """
        counts = counts.reshape(len(counts), *self.count.shape)
        more = counts.sum(0)
        total = self.count + more
        mean = _sum(x * counts) / np.maximum(more, 1)
        apart, part = mean - self.mean, more / np.maximum(total, 1)
        within = _sum(counts * (x - mean) ** 2)
        self.squares = self.squares + within + apart**2 * (self.count * part)
        self.mean = self.mean + apart * part
        self.count = total
        self._deviation = None

    def deviation(self) -> Array:
        """Standard deviations [K, *shape]; about 1 before the second number."""
        if self._deviation is None:
            variance = np.where(self.count > 1, self.squares / np.maximum(self.count - 1, 1), 1.0)
            self._deviation = np.sqrt(variance + _EPS)
        return self._deviation

    def state_dict(self) -> State:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: State) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
        self._deviation = None

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions only."""
        kept = list(seeds)
        self.count, self.mean, self.squares = (
            x[kept] for x in (self.count, self.mean, self.squares)
        )
        self._deviation = None


def _sum(rows: Array) -> Array:
    """Over the first axis, in order: a single column NumPy would add in pairs, but no column of a group's."""
    one = rows[0].size == 1
    total: Array = np.add.accumulate(rows, 0, np.float64)[-1] if one else rows.sum(0, np.float64)
    return total


class RewardScale:
    """Divides rewards by the standard deviation of discounted sums of all so far.

    ``u ← γ (1 - done) u + r``: an end drops what was before it, but its own reward stays.

    Source: Elsayed et al. 2024, arXiv:2410.14606, reward scaling; that u is so at an end is their code's.
    """

    def __init__(self, seeds: int, gamma: float) -> None:
        self.gamma = gamma
        self.total = np.zeros(seeds)  # u
        self.running = Running(seeds)

    def add(self, reward: Array, done: Array, valid: Array) -> None:
        """Take in one row of rewards [K]; ``done`` at an end of either kind, rows not ``valid`` count for nothing."""
        total = self.gamma * (1.0 - done) * self.total + reward
        self.total = np.where(valid, total, self.total)
        self.running.add(self.total[None], valid[None])

    def unit(self) -> Array:
        """What a reward of 1 is divided by, [K]."""
        return self.running.deviation()

    def state_dict(self) -> State:
        return {"total": self.total, "running": self.running.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.total = state["total"]
        self.running.load_state_dict(state["running"])

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions only."""
        self.total = self.total[list(seeds)]
        self.running.keep(seeds)


def normalised(x: Array, mean: Array, scale: Array) -> Array:
    """``(x - mean) · scale``, float32; all arrays [K, ...] or broadcast to it."""
    seen: Array = ((x - mean) * scale).astype(np.float32)
    return seen
