"""How fast an agent learns: the area under its curve, and when it reached a threshold, if it did.

A run that never reached the threshold says that it takes longer than the run was. It is *censored*:
leaving it out, or taking the end for the time, would make the agent that fails more often look faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from runners.bootstrap import IN_CACHE, Estimate, Tails
from runners.stats import Floats, Interval, Numbers

RESAMPLES = 10_000


def area_under_curve(at: Numbers, scores: Numbers, budget: float) -> Floats:
    """[...] of scores [..., n]: their mean over 0 .. budget, by trapezoids between evaluations.

    1/budget ∫ score. Before the first evaluation the score is the first one's; at the budget it lies
    on the line between its neighbours, and what comes later counts for nothing. So two runs with
    other evaluations are compared over the same budget.

    Args:
        at: env_steps or seconds [n] of the evaluations, rising.
        scores: of one seed, or of several with the same evaluations.
        budget: in the unit of ``at``; at most the last one.

    Raises:
        ValueError: ``at`` does not rise, a score is not a number, the curve ends before the budget:
            what it would have been is not known.
    """
    x, y = _curve(at, scores)
    if not 0 < budget <= x[-1]:
        raise ValueError(f"budget: got {budget:g}, takes more than 0 and at most {x[-1]:g}")
    i = int(np.searchsorted(x, budget))  # the first evaluation at or after the budget
    share = (budget - x[i - 1]) / (x[i] - x[i - 1]) if i else 1.0
    last = y[..., i] * share + y[..., max(i - 1, 0)] * (1 - share)
    knots = np.concatenate([[0.0], x[:i], [budget]])
    heights = np.concatenate([y[..., :1], y[..., :i], last[..., None]], axis=-1)
    area: Floats = np.trapezoid(heights, knots, axis=-1) / budget
    return area


class Reached(NamedTuple):
    """When one run reached the threshold; or how long it went on without, if it never did."""

    at: float  # env_steps or seconds
    reached: bool


def first_reached(at: Numbers, scores: Numbers, threshold: float) -> Reached:
    """The first evaluation of a run at or above the threshold; else its last one, censored.

    The threshold itself was reached at some point since the evaluation before.

    Args:
        at: env_steps or seconds [n] of the evaluations, rising.
        scores: [n], of one seed.
        threshold: raw or normalised, as the scores are.

    Raises:
        ValueError: ``at`` does not rise, a score is not a number.
    """
    x, y = _curve(at, scores)
    there = np.flatnonzero(y >= threshold)
    return Reached(float(x[there[0] if len(there) else -1]), bool(len(there)))


class TimeToThreshold(NamedTuple):
    """How long the seeds of an agent took."""

    reached: int  # so many seeds
    seeds: int
    median: float  # inf: fewer than half of them
    median_interval: Interval  # whose ends may be inf
    restricted_mean: Estimate  # of the time, or the budget where it is longer


def time_to_threshold(
    runs: Sequence[Reached],
    budget: float,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> TimeToThreshold:
    """The median time and the mean time within the budget, by Kaplan and Meier's estimate.

    S(t), the share of runs that take longer than t, falls at each time a run reached the threshold by
    that run's part of those still on their way. The median is the first t with S(t) ≤ ½. The mean of
    min(T, budget) is the area under S up to the budget; a mean of T itself there is none, for what a
    censored run would have taken nobody knows. Where the last run was stopped before the budget, S
    stays as it was. If no run was stopped early, the mean is that of min(T, budget) itself.

    Args:
        runs: one a seed, all of one environment.
        budget: env_steps or seconds that all are compared over; what came later is censored.
        generator: draws the seeds for the intervals, widened as in `runners.bootstrap`.
        level: share of repetitions whose interval holds the true figure.
        resamples: how often the seeds are drawn.

    Raises:
        ValueError: fewer than two seeds; a time or the budget is not a positive number.

    Source: Kaplan & Meier 1958, "Nonparametric estimation from incomplete observations"; Royston &
    Parmar 2013, "Restricted mean survival time".
    """
    if len(runs) < 2:
        raise ValueError(f"runs: got {len(runs)} seeds, takes at least 2")
    times = np.array([run.at for run in runs], np.float64)
    if not (np.isfinite(times) & (times >= 0)).all() or not 0 < budget < math.inf:
        raise ValueError(f"times: got {times.tolist()}, budget {budget}, takes positive numbers")
    seen = np.array([run.reached and run.at <= budget for run in runs])
    times = np.minimum(times, budget)
    order = np.lexsort([~seen, times])  # of the same time those that reached it come first
    times, seen = times[order], seen[order]
    n = len(times)
    medians, means = [], []
    at_once = max(1, IN_CACHE // n)
    for begun in range(0, resamples, at_once):
        some = min(at_once, resamples - begun)
        index = np.sort(generator.integers(0, n, (some, n)), axis=1)
        median, mean = _kaplan_meier(times[index], seen[index], budget)
        medians.append(median)
        means.append(mean)
    tails = Tails.of(times, np.array([n]), level, widened=True)
    drawn = np.concatenate(medians)  # between a time and inf there is nothing
    ends = np.quantile(drawn, [tails.share, 1 - tails.share], method="inverted_cdf")
    median, mean = _kaplan_meier(times, seen, budget)
    return TimeToThreshold(
        int(seen.sum()),
        n,
        float(median),
        Interval(*(float(end) for end in ends)),
        tails.estimate(float(mean), np.concatenate(means)),
    )


def _kaplan_meier(times: Floats, seen: Floats, budget: float) -> tuple[Floats, Floats]:
    """Median and restricted mean [...] of times [..., n] in order."""
    n = times.shape[-1]
    survival = np.cumprod(1 - seen / np.arange(n, 0, -1), axis=-1)
    half = survival <= 0.5 + 1e-12
    at = np.argmax(half, axis=-1)[..., None]
    median = np.where(half[..., -1], np.take_along_axis(times, at, axis=-1)[..., 0], np.inf)
    gaps = np.diff(times, axis=-1, prepend=0.0, append=budget)
    return median, np.sum(gaps[..., 1:] * survival, axis=-1) + gaps[..., 0]


def _curve(at: Numbers, scores: Numbers) -> tuple[Floats, Floats]:
    x, y = np.asarray(at, np.float64), np.asarray(scores, np.float64)
    if not len(x) or y.shape[-1:] != x.shape:
        raise ValueError(f"curve: got scores {y.shape} at {x.shape} times, takes one a time")
    if not np.isfinite(y).all():
        raise ValueError(f"curve: got {y[~np.isfinite(y)][0]} for a score, takes numbers")
    if x[0] < 0 or not (np.diff(x) > 0).all():
        raise ValueError("curve: got times that do not rise, takes rising ones")
    return x, y
