"""Means of a few seeds and how far they can be trusted: Student's t, nothing else.

Five seeds are few, so the normal quantile 1.96 would promise too much: t says 2.78.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.floating]


class Interval(NamedTuple):
    """The ends of a confidence interval; NaN where too few values allow none."""

    lo: float
    hi: float


def mean(x: Numbers) -> float:
    """The mean; NaN of nothing and of anything with a NaN in it."""
    return float(np.mean(x)) if len(x) else math.nan


def t_interval(x: Numbers, level: float = 0.95) -> Interval:
    """The two-sided interval that covers the true mean in a share ``level`` of all repetitions.

    x̄ ± t_{n-1, (1+level)/2} · s/√n. One value says nothing about its spread, so fewer than two give
    (NaN, NaN), which a summary writes as null; a NaN among the values does the same.

    Source: Student 1908, "The probable error of a mean".
    """
    half = _quantile((1 + level) / 2, len(x)) * _standard_error(x)
    return Interval(mean(x) - half, mean(x) + half)


def lower_bound(x: Numbers, level: float = 0.95) -> float:
    """The value that the true mean lies above in a share ``level`` of all repetitions.

    x̄ - t_{n-1, level} · s/√n; NaN of fewer than two values.
    """
    return mean(x) - _quantile(level, len(x)) * _standard_error(x)


def surely_at_least(x: Numbers, threshold: float, level: float = 0.95) -> bool:
    """Whether `lower_bound` is at or above a threshold; false for fewer than two values.

    Of two values the quantile is the largest, t_{1, level}, which has a closed form (Cauchy's). A
    mean that is further away than that needs no other, and so no scipy.
    """
    distance, error = mean(x) - threshold, _standard_error(x)
    if distance < 0 or len(x) < 2:
        return False
    if distance >= math.tan(math.pi * (level - 0.5)) * error:
        return True
    return lower_bound(x, level) >= threshold


def _standard_error(x: Numbers) -> float:
    # of n values that are all the same it is exactly 0, rounding errors of the mean left out
    if len(x) > 1 and np.ptp(x) == 0:
        return 0.0
    return float(np.std(x, ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan


def _quantile(share: float, n: int) -> float:
    if not 0 < share < 1:
        raise ValueError(f"level: got {share}, takes a number between 0 and 1")
    if n < 2:
        return math.nan
    # not scipy.stats, which takes half a second to import
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, share))
