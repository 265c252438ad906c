"""Intervals of figures that know no t: seeds are drawn anew within each task, tasks never.

An interval of the drawn figures themselves, the percentile interval, promises too much for few seeds:
they spread by √((K - 1) / K) too little, and their quantiles are the normal's. So it is widened: ends
are taken where a t interval of the mean would have them. `runners.calibration` measures both.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice",
arXiv:2108.13264, section 4 (the stratified bootstrap); Hesterberg 2015, "What teachers should know
about the bootstrap", arXiv:1411.5279 (the widening, there "expanded percentile interval").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.stats import (
    AGGREGATES,
    Aggregate,
    Floats,
    Interval,
    Numbers,
    Runs,
    Scores,
    both_runs,
    check_level,
    runs_of,
    spread,
    t_quantile,
)

RESAMPLES = 50_000
IN_CACHE = 2**18
"""So many numbers are drawn at once: two MiB."""


class Estimate(NamedTuple):
    """A figure, its interval and its standard error."""

    value: float
    interval: Interval
    error: float


class Tails(NamedTuple):
    """How the drawn figures are read: the share of them beyond either end, and their narrowness."""

    share: float
    narrow: float

    @classmethod
    def of(cls, values: Floats, sizes: NDArray[np.intp], level: float, widened: bool) -> Tails:
        """Φ(-√(K / (K - 1)) · t_{ν, (1+level)/2}), K the fewest seeds of a task, ν `spread`'s degrees.

        Without widening it is (1 - level) / 2.
        """
        check_level(level)
        narrow = math.sqrt(1 - 1 / int(sizes.min()))
        if not widened:
            return cls((1 - level) / 2, narrow)
        from scipy.special import ndtr

        quantile = t_quantile((1 + level) / 2, spread(values, sizes).degrees)
        return cls(float(ndtr(-quantile / narrow)), narrow)

    def estimate(self, value: float, drawn: Floats) -> Estimate:
        """The figure that was found, with the interval and the error that the drawn ones give it."""
        lo, hi = np.quantile(drawn, [self.share, 1 - self.share])
        return Estimate(value, Interval(float(lo), float(hi)), float(drawn.std()) / self.narrow)


def draws(
    runs: Runs, generator: np.random.Generator, resamples: int, beside: Runs | None = None
) -> Iterator[NDArray[np.intp]]:
    """Positions [some, N] of runs, drawn with replacement within each task; ``resamples`` in all.

    Those beside others come in pieces as large as theirs.
    """
    starts = np.repeat(runs.starts, runs.sizes)
    ends = starts + np.repeat(runs.sizes, runs.sizes)
    at_once = max(1, IN_CACHE // len((beside or runs).values))
    for begun in range(0, resamples, at_once):
        some = min(at_once, resamples - begun)
        yield generator.integers(starts, ends, (some, len(starts)))


def aggregates(
    scores: Scores,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    widened: bool = True,
    figures: Mapping[str, Aggregate] = AGGREGATES,
) -> dict[str, Estimate]:
    """Interquartile mean, median, mean and optimality gap over tasks and seeds, of the same draws.

    Args:
        scores: of one agent, normalised: figures over tasks mean nothing of raw ones.
        generator: draws the seeds.
        level: share of repetitions whose interval holds the true figure.
        resamples: how often the seeds are drawn.
        widened: for few seeds; False gives the percentile interval, as rliable does.
        figures: name -> figure.

    Returns:
        One estimate a figure.

    Raises:
        ValueError: as `runs_of`; a level that is none.
    """
    runs = runs_of(scores)
    drawn: dict[str, list[Floats]] = {name: [] for name in figures}
    for index in draws(runs, generator, resamples):
        x = runs.values[index]
        for name, figure in figures.items():
            drawn[name].append(figure(x, runs.sizes))
    tails = Tails.of(runs.values, runs.sizes, level, widened)
    return {
        name: tails.estimate(float(figure(runs.values, runs.sizes)), np.concatenate(drawn[name]))
        for name, figure in figures.items()
    }


def aggregate_difference(
    a: Scores,
    b: Scores,
    generator: np.random.Generator,
    figure: Aggregate = AGGREGATES["IQM"],
    paired: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    widened: bool = True,
) -> Estimate:
    """How much more of a figure ``a`` has than ``b``: figure(a) - figure(b).

    Args:
        a: scores of one agent.
        b: of the other, on the same tasks.
        generator: draws the seeds.
        figure: one of `AGGREGATES`.
        paired: score i of a task is of the same seed in both, so that both are drawn together; else
            each is drawn for itself, and they may have different numbers of seeds.
        level: share of repetitions whose interval holds the true difference.
        resamples: how often the seeds are drawn.
        widened: as in `aggregates`.

    Raises:
        ValueError: as `both_runs`; a level that is none.
    """
    one, two = both_runs(a, b, paired)
    drawn = []
    ours = draws(one, generator, resamples)
    theirs = ours if paired else draws(two, generator, resamples, beside=one)
    for index in ours:
        other = index if paired else next(theirs)
        drawn.append(figure(one.values[index], one.sizes) - figure(two.values[other], two.sizes))
    if paired:
        tails = Tails.of(one.values - two.values, one.sizes, level, widened)
    else:
        values, sizes = np.append(one.values, two.values), np.append(one.sizes, two.sizes)
        tails = Tails.of(values, sizes, level, widened)
    value = figure(one.values, one.sizes) - figure(two.values, two.sizes)
    return tails.estimate(float(value), np.concatenate(drawn))


def times_drawn(index: NDArray[np.intp]) -> NDArray[np.intp]:
    """[some, N]: how often each row of positions [some, N] has each of the N."""
    rows = np.arange(len(index))[:, None] * index.shape[1]
    return np.bincount((rows + index).ravel(), minlength=index.size).reshape(index.shape)


class Profile(NamedTuple):
    """The share of runs above each threshold, and its pointwise band."""

    taus: Floats  # [G], as they were given
    share: Floats  # [G]
    lo: Floats  # [G]
    hi: Floats  # [G]


def performance_profile(
    scores: Scores,
    taus: Numbers,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2_000,
) -> Profile:
    """The share of runs with a score above tau, mean over tasks, for every tau.

    The band holds at each tau for itself, not for the whole curve; where every run or none is above
    tau it has no width, which the seeds that were not run might well change.

    Args:
        scores: of one agent, normalised.
        taus: thresholds [G] in any order.
        generator: draws the seeds.
        level: share of repetitions whose band holds the true share at a tau.
        resamples: how often the seeds are drawn.

    Raises:
        ValueError: as `runs_of`; a tau is NaN; a level that is none.

    Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.2 (run-score distributions).
    """
    runs, thresholds = runs_of(scores), np.asarray(taus, np.float64)
    if np.isnan(thresholds).any():
        raise ValueError("taus: got nan, takes numbers")
    above = (runs.values[:, None] > thresholds).astype(np.float64)  # [N, G]
    weights = np.repeat(1 / (runs.sizes * len(runs.sizes)), runs.sizes)
    drawn = [(times_drawn(index) * weights) @ above for index in draws(runs, generator, resamples)]
    tails = Tails.of(runs.values, runs.sizes, level, widened=True)
    lo, hi = np.quantile(np.concatenate(drawn), [tails.share, 1 - tails.share], axis=0)
    return Profile(thresholds, weights @ above, lo, hi)
