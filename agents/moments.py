"""Running mean and deviation of all that came, for K seeds at once."""

from __future__ import annotations

import numpy as np

from agents.contract import Array, State

SMALLEST = 1e-8  # a standard deviation's: what never changed is divided by it


class Moments:
    """Mean and variance of all rows so far, a seed's for itself; float64.

    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
    variances", equation 2.1.
    """

    def __init__(self, seeds: int, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(seeds, np.int64)
        self.mean, self.squares = np.zeros((2, seeds, *shape))  # squares: of the distances

    def add(self, k: int, rows: Array) -> None:
        """Rows [M, ...] of seed k."""
        more = len(rows)
        if not more:
            return
        before, total = self.count[k], self.count[k] + more
        mean = rows.mean(0, dtype=np.float64)
        apart = mean - self.mean[k]
        self.squares[k] += ((rows - mean) ** 2).sum(0) + apart**2 * (before * more / total)
        self.mean[k] += apart * (more / total)
        self.count[k] = total

    def std(self) -> Array:
        """[K, ...], nowhere 0."""
        count = np.maximum(self.count, 1).reshape(-1, *[1] * (self.squares.ndim - 1))
        std: Array = np.maximum(np.sqrt(self.squares / count), SMALLEST)
        return std

    def state_dict(self) -> State:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: State) -> None:
        self.count, self.mean, self.squares = (
            np.array(state[name]) for name in ("count", "mean", "squares")
        )

    def keep(self, seeds: list[int]) -> None:
        self.count, self.mean, self.squares = (
            x[seeds] for x in (self.count, self.mean, self.squares)
        )
