"""Tests that trust no distribution: of two equal agents either could have had either score of a pair.

So every pair may be swapped, and what was found is compared with what the swapped pairs give. Equal
agents are such as have the same scores: two that only have the same mean may well be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from runners.bootstrap import IN_CACHE
from runners.stats import Aggregate, Floats, Numbers, Runs, Scores, both_runs, mean_of_tasks

Swaps = NDArray[np.bool_]

EXACT_PAIRS = 16
"""Of so many pairs all swaps are tried: 65,536."""


def sign_flip_test(
    a: Scores,
    b: Scores,
    generator: np.random.Generator,
    figure: Aggregate = mean_of_tasks,
    swaps: int = 99_999,
) -> float:
    """How likely two equal agents differ at least as much, in either direction.

    Of up to `EXACT_PAIRS` pairs every swap is tried; of more, so many are drawn, and with b of them
    at least as far apart the value is (b + 1) / (swaps + 1), which keeps its word too. With the mean
    of tasks this flips the sign of each pair's difference. n pairs can give 2 / 2ⁿ at the least:
    five pairs, 0.06, never decide at 0.05.

    Args:
        a: scores of one agent.
        b: of the other; score i of a task is of the same seed in both.
        generator: draws the swaps.
        figure: what is compared, one of `AGGREGATES`.
        swaps: how many are drawn of more pairs.

    Returns:
        A p-value in (0, 1].

    Raises:
        ValueError: as `both_runs` of pairs.

    Source: Fisher 1935, "The design of experiments", section 21; Phipson & Smyth 2010, "Permutation
    p-values should never be zero" (the + 1).
    """
    one, two = both_runs(a, b, paired=True)
    n = len(one.values)
    exact = n <= EXACT_PAIRS
    found = abs(swapped_differences(one, two, np.zeros((1, n), np.bool_), figure)[0])
    reached = tried = 0
    for some in _all_swaps(n) if exact else _drawn_swaps(n, generator, swaps):
        differences = np.abs(swapped_differences(one, two, some, figure))
        reached += int(np.count_nonzero(differences >= found - rounding(one, two)))
        tried += len(some)
    return reached / tried if exact else (reached + 1) / (tried + 1)


def swapped_differences(one: Runs, two: Runs, swaps: Swaps, figure: Aggregate) -> Floats:
    """[M]: figure(one) - figure(two) after the pairs that are marked in [M, N] have been swapped."""
    found = np.empty(len(swaps))
    at_once = max(1, IN_CACHE // len(one.values))
    for piece in (slice(i, i + at_once) for i in range(0, len(swaps), at_once)):
        first = np.where(swaps[piece], two.values, one.values)
        second = np.where(swaps[piece], one.values, two.values)
        found[piece] = figure(first, one.sizes) - figure(second, two.sizes)
    return found


def rounding(one: Runs, two: Runs) -> float:
    """Differences that are no further apart are the same, but for the order of their sums."""
    return 1e-12 * float(max(np.abs(one.values).max(), np.abs(two.values).max()))


def holm(p_values: Numbers) -> Floats:
    """[n]: p-values of which those below α are wrong, any of them, with a probability of at most α.

    p̃_(i) = max over j ≤ i of min(1, (n - j + 1) p_(j)), the p-values in order.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    steps = np.minimum(1, p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def _all_swaps(n: int) -> Iterator[Swaps]:
    numbers = np.arange(2**n)
    for begun in range(0, len(numbers), max(1, IN_CACHE // n)):
        some = numbers[begun : begun + max(1, IN_CACHE // n), None]
        yield (some >> np.arange(n)) % 2 == 1


def _drawn_swaps(n: int, generator: np.random.Generator, swaps: int) -> Iterator[Swaps]:
    at_once = max(1, IN_CACHE // n)
    for begun in range(0, swaps, at_once):
        yield generator.integers(0, 2, (min(at_once, swaps - begun), n), dtype=np.bool_)
