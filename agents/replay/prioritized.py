"""Priorities of a replay's rows in sum-trees, one a seed.

Schaul, Quan, Antonoglou & Silver 2016, "Prioritized Experience Replay", arXiv:1511.05952: proportional
priorities (section 3.3), stratified sampling (appendix B.2.1), importance weights (section 3.4).

A tree is an array in which node i has the children 2i and 2i + 1 and the sum of both, node 1 is the
total, and the leaves stand behind all else. A leaf's ancestors are computed anew from their children, so
that no rounding gathers over millions of updates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.contract import Array, State
from agents.exploration import linear
from envs.kernel import inlined, kernel

SMALLEST = 1e-6  # added to an error, so that no row is lost for ever


class Priorities:
    """A priority for each place of a ring, K seeds; 0 where nothing may be sampled."""

    def __init__(self, seeds: int, places: int, alpha: float, beta: float, beta_steps: int) -> None:
        """``beta`` rises from what it is to 1 within ``beta_steps`` lane steps."""
        self.places, self.alpha, self.beta, self.beta_steps = places, alpha, beta, beta_steps
        self.leaves = _leaves(places)
        self.trees = np.zeros((seeds, 2 * self.leaves))
        self.largest = np.ones(seeds)  # priority so far, which a new row gets
        self.count = np.zeros(seeds, np.int64)  # rows that may be sampled

    def needs(self, places: int) -> int:
        """Bytes that trees over so many places take."""
        return len(self.trees) * 2 * _leaves(places) * self.trees.itemsize

    def set(self, k: int, places: Array, errors: Array) -> None:
        """Rows of seed k that may be sampled have been learned, with these errors [B]; others stay 0."""
        self.largest[k] = _set(self.trees[k], places, errors, self.alpha, self.largest[k])

    def admit(self, places: Array, fresh: bool) -> None:
        """All seeds' rows there [P] may be sampled from now on, with the largest priority so far; or not any more."""
        for k, tree in enumerate(self.trees):
            _fill(tree, places, self.largest[k] ** self.alpha if fresh else 0.0)
        self.count += len(places) if fresh else -len(places)

    def draw(self, k: int, uniform: Array, places: Array) -> None:
        """One place for each of the uniform numbers [B], each from a B-th of the total of its own."""
        _draw(self.trees[k], uniform, places)

    def weights(self, k: int, places: Array, lane_steps: int, out: Array) -> float:
        """Importance weights [B] of rows drawn, ``(N P(i))^-β`` over the largest (section 3.4), which it gives."""
        beta = linear(lane_steps, self.beta, 1.0, self.beta_steps)
        largest: float = _weigh(self.trees[k], places, self.count[k], beta, out)
        return largest

    def state_dict(self) -> State:
        """The leaves: the sums follow from them."""
        used = slice(self.leaves, self.leaves + self.places)
        return {"leaves": self.trees[:, used].copy(), "largest": self.largest.copy()}

    def load_state_dict(self, state: State) -> None:
        leaves = np.asarray(state["leaves"])
        self.trees[:, self.leaves : self.leaves + self.places] = leaves
        for tree in self.trees:
            _sum_up(tree)
        self.count = np.count_nonzero(leaves, axis=1)
        self.largest = np.array(state["largest"])

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.trees, self.largest = self.trees[kept], self.largest[kept]
        self.count = self.count[kept]


def _leaves(places: int) -> int:
    """How many leaves a whole tree has for them, which is the index of the first, too."""
    return 1 << (places - 1).bit_length()


@inlined()
def put(tree, place, value):  # type: ignore[no-untyped-def]
    """Give a place a priority, and its ancestors their sums."""
    node = tree.shape[0] // 2 + place
    tree[node] = value
    while node > 1:
        node //= 2
        tree[node] = tree[2 * node] + tree[2 * node + 1]


@inlined()
def find(tree, mass):  # type: ignore[no-untyped-def]
    """The place in which the sum from the left passes ``mass``, which is less than the total."""
    node, leaves = 1, tree.shape[0] // 2
    while node < leaves:
        left = tree[2 * node]
        # rounding may leave more mass than there is on the right: never go where nothing is
        if mass < left or tree[2 * node + 1] == 0.0:
            node = 2 * node
        else:
            mass -= left
            node = 2 * node + 1
    return node - leaves


@kernel()
def _set(tree, places, errors, alpha, largest):  # type: ignore[no-untyped-def]
    leaves = tree.shape[0] // 2
    for i in range(places.size):
        if places[i] >= 0 and tree[leaves + places[i]] > 0.0:
            priority = abs(errors[i]) + SMALLEST
            largest = max(largest, priority)
            put(tree, places[i], priority**alpha)
    return largest


@kernel()
def _fill(tree, places, priority):  # type: ignore[no-untyped-def]
    for place in places:
        put(tree, place, priority)


@kernel()
def _draw(tree, uniform, places):  # type: ignore[no-untyped-def]
    part = tree[1] / uniform.size
    for i in range(uniform.size):
        places[i] = find(tree, (i + uniform[i]) * part)


@kernel()
def _weigh(tree, places, count, beta, out):  # type: ignore[no-untyped-def]
    leaves = tree.shape[0] // 2
    largest = 0.0
    for i in range(places.size):
        out[i] = (count * tree[leaves + places[i]] / tree[1]) ** -beta
        largest = max(largest, out[i])
    for i in range(places.size):
        out[i] /= largest
    return largest


@kernel()
def _sum_up(tree):  # type: ignore[no-untyped-def]
    for node in range(tree.shape[0] // 2 - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]
