"""How often a run of one agent beats a run of another: the probability of improvement, P(X > Y).

It asks nothing of the scores' scale, so raw ones do. It says how likely one is better, not by how much.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from runners.bootstrap import RESAMPLES, Estimate, Tails, draws, times_drawn
from runners.stats import Floats, Interval, Runs, Scores, both_runs, check_level


def probability_of_improvement(a: Scores, b: Scores, level: float = 0.95) -> Estimate:
    """The mean over tasks of P(X > Y) + P(X = Y) / 2, X a score of ``a`` and Y one of ``b``.

    The interval is all θ with |θ̂ - θ| ≤ z √(Σ V(θ)) / T, over T tasks with m and n seeds

        V(θ) = θ (1 - θ) (1 + (N - 1) ((1 - θ) / (2 - θ) + θ / (1 + θ))) / (m n),  N = (m + n) / 2,

    so that it has a width where no run of one is below any of the other, where a bootstrap has none.
    V is as good as concave: tasks that each have a probability of their own vary less than V of
    their mean says, and the interval holds more often than it promises.

    Args:
        a: scores of one agent.
        b: of the other on the same tasks; pairs and equal numbers of seeds are not needed.
        level: share of repetitions whose interval holds the true probability.

    Raises:
        ValueError: as `both_runs`; a level that is none.

    Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.3; Newcombe 2006, "Confidence intervals
    for an effect size measure based on the Mann-Whitney statistic", part 2, method 5 (of one task).
    """
    check_level(level)
    from scipy.special import ndtri

    one, two = both_runs(a, b, paired=False)
    theta = float(np.mean([wins.mean() for wins in _wins(one, two)]))
    z = float(ndtri((1 + level) / 2))
    lo = _least(theta, one.sizes, two.sizes, z)
    hi = 1 - _least(1 - theta, one.sizes, two.sizes, z)
    return Estimate(theta, Interval(lo, hi), (hi - lo) / (2 * z))


def bootstrap_probability(
    a: Scores,
    b: Scores,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    widened: bool = True,
) -> Estimate:
    """The same probability with the interval of a stratified bootstrap, which is what rliable gives.

    Each agent's seeds are drawn for themselves. Where no run of one is below any of the other every
    draw is the same: the interval [1, 1] of five seeds is wrong half the time at a true 0.95. Use
    `probability_of_improvement`; this is there to be compared with.

    Args:
        a: scores of one agent.
        b: of the other on the same tasks.
        generator: draws the seeds.
        level: share of repetitions whose interval holds the true probability.
        resamples: how often the seeds are drawn.
        widened: as in `runners.bootstrap.aggregates`.

    Raises:
        ValueError: as `both_runs`; a level that is none.

    Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.3.
    """
    one, two = both_runs(a, b, paired=False)
    wins = _wins(one, two)
    drawn = []
    theirs = draws(two, generator, resamples, beside=one)
    for index in draws(one, generator, resamples):
        xs = np.split(times_drawn(index), one.starts[1:], axis=1)
        ys = np.split(times_drawn(next(theirs)), two.starts[1:], axis=1)
        shares = [
            np.sum(x @ won * y, axis=1) / won.size for x, y, won in zip(xs, ys, wins, strict=True)
        ]
        drawn.append(np.mean(shares, axis=0))
    # how often each run won against all others: the spread of these is that of the probability
    placed = [won.mean(axis=axis) for axis in (1, 0) for won in wins]
    sizes = np.append(one.sizes, two.sizes)
    tails = Tails.of(np.concatenate(placed), sizes, level, widened)
    return tails.estimate(float(np.mean([won.mean() for won in wins])), np.concatenate(drawn))


def _wins(one: Runs, two: Runs) -> list[Floats]:
    """[m, n] a task: 1 where a run of one has more than a run of two, half where as much."""
    pairs = zip(
        np.split(one.values, one.starts[1:]), np.split(two.values, two.starts[1:]), strict=True
    )
    return [0.5 * (np.sign(x[:, None] - y) + 1) for x, y in pairs]


def _least(theta: float, m: NDArray[np.intp], n: NDArray[np.intp], z: float) -> float:
    """The least probability that is no more than z standard errors below theta; by bisection."""
    lo, hi, excess = 0.0, theta, (m + n) / 2 - 1
    while hi - lo > 1e-12:
        t = (lo + hi) / 2
        v = t * (1 - t) * (1 + excess * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)
        if theta - t > z * math.sqrt(v.sum()) / len(m):
            lo = t
        else:
            hi = t
    return hi
