"""Means of a few seeds and how far they can be trusted; the scores of an agent over many tasks.

Five seeds are few, so the normal quantile 1.96 would promise too much: t says 2.78.

What agents are compared by is built on this: `runners.bootstrap` (intervals of what has no t),
`runners.permutation` (tests that trust no distribution), `runners.sequential` (when to stop),
`runners.learning_speed` (areas, times to a threshold); `runners.calibration` measures how far all of
them keep their word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.floating]
Floats = NDArray[np.float64]
Scores = Mapping[str, Numbers]
"""Of one agent: task -> scores, one a seed. Tasks may have different numbers of seeds."""

FEW_SEEDS = 5
"""Fewer than so many a task, and no interval can be relied on."""


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


class Difference(NamedTuple):
    """How much more the first has than the second, and between which ends that may lie."""

    mean: float
    interval: Interval


def paired_difference(a: Numbers, b: Numbers, level: float = 0.95) -> Difference:
    """The mean of a - b and its t interval; a[i] and b[i] are of the same seed.

    What a seed gives to both alike cancels out, so that the interval is the narrower the more they
    have in common. NaN where `t_interval` is.

    Source: Student 1908, "The probable error of a mean".
    """
    if len(a) != len(b):
        raise ValueError(f"pairs: got {len(a)} and {len(b)} values, takes as many of both")
    differences = np.subtract(a, b)
    return Difference(mean(differences), t_interval(differences, level))


def unpaired_difference(a: Numbers, b: Numbers, level: float = 0.95) -> Difference:
    """The difference of the means of a and b, which are of different seeds, and its t interval.

    Their spreads may differ, and so may their numbers; NaN of fewer than two values of either.

    Source: Welch 1947, "The generalization of Student's problem when several different population
    variances are involved"; degrees of freedom as `spread`'s.
    """
    middle = mean(a) - mean(b)
    v = np.array([_standard_error(a) ** 2, _standard_error(b) ** 2])
    if np.isnan(v).any():
        return Difference(middle, Interval(math.nan, math.nan))
    if not v.any():
        return Difference(middle, Interval(middle, middle))
    degrees = v.sum() ** 2 / np.sum(v**2 / (len(a) - 1, len(b) - 1))
    half = t_quantile((1 + level) / 2, float(degrees)) * math.sqrt(v.sum())
    return Difference(middle, Interval(middle - half, middle + half))


def prediction_interval(x: Numbers, fresh: int, level: float = 0.95) -> Interval:
    """Where the mean of ``fresh`` new values will lie in a share ``level`` of all repetitions.

    x̄ ± t_{n-1, (1+level)/2} · s · √(1/n + 1/fresh): wider than `t_interval`, for the new mean has an
    error of its own. NaN of fewer than two values.
    """
    if fresh < 1:
        raise ValueError(f"fresh: got {fresh}, takes a whole number of at least 1")
    error = _standard_error(x) * math.sqrt(1 + len(x) / fresh)
    half = _quantile((1 + level) / 2, len(x)) * error
    return Interval(mean(x) - half, mean(x) + half)


def interquartile_mean(x: Numbers) -> Floats:
    """[...] of [..., n]: the mean without the lowest and the highest quarter, each rounded down.

    One seed that failed cannot move it as it moves the mean. NaN of anything with a NaN in it.

    Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.3.
    """
    ordered = np.sort(np.asarray(x, np.float64), axis=-1)  # NaN comes last
    n = ordered.shape[-1]
    if not n:
        return np.full(ordered.shape[:-1], math.nan)
    middle = ordered[..., n // 4 : n - n // 4].mean(axis=-1)
    return np.where(np.isnan(ordered[..., -1]), math.nan, middle)


# -- Scores of many tasks --------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """The scores of one agent end to end, task after task: N runs of T tasks."""

    tasks: tuple[str, ...]
    sizes: NDArray[np.intp]  # [T] seeds of each task
    values: Floats  # [N]

    @property
    def starts(self) -> NDArray[np.intp]:
        """[T]: where each task's scores begin."""
        return np.cumsum(self.sizes) - self.sizes


def runs_of(scores: Scores) -> Runs:
    """The scores of one agent, checked.

    Raises:
        ValueError: there is no task, a task has fewer than two seeds, or a score is NaN or infinite:
            it would be every figure of every task.
    """
    if not scores:
        raise ValueError("scores: got no task, takes at least one")
    columns = {task: np.asarray(values, np.float64) for task, values in scores.items()}
    for task, values in columns.items():
        if values.ndim != 1:
            raise ValueError(f"scores of {task}: got the shape {values.shape}, takes one a seed")
        if len(values) < 2:
            raise ValueError(f"scores of {task}: got {len(values)} seeds, takes at least 2")
        for i in np.flatnonzero(~np.isfinite(values))[:1]:
            raise ValueError(f"scores of {task}: got {values[i]} at seed index {i}, takes numbers")
    sizes = np.array([len(values) for values in columns.values()])
    return Runs(tuple(columns), sizes, np.concatenate(list(columns.values())))


def both_runs(a: Scores, b: Scores, paired: bool) -> tuple[Runs, Runs]:
    """The scores of two agents on the same tasks, in the order of ``a``; pairs are of one seed.

    Raises:
        ValueError: as `runs_of`; the tasks differ; ``paired`` and the numbers of seeds differ.
    """
    for task in a.keys() ^ b.keys():
        raise ValueError(f"scores of {task}: got them of one agent only, takes the same tasks")
    first, second = runs_of(a), runs_of({task: b[task] for task in a})
    if paired and not np.array_equal(first.sizes, second.sizes):
        i = int(np.flatnonzero(first.sizes != second.sizes)[0])
        got = f"{first.sizes[i]} and {second.sizes[i]} seeds"
        raise ValueError(f"pairs of {first.tasks[i]}: got {got}, takes as many of both")
    return first, second


def few_seeds(scores: Scores) -> str | None:
    """What to tell the user of tasks with fewer seeds than intervals need; None if all have enough."""
    few = [task for task, values in scores.items() if len(values) < FEW_SEEDS]
    if not few:
        return None
    least = min(len(scores[task]) for task in few)
    where = few[0] if len(few) == 1 else f"{len(few)} of {len(scores)} tasks"
    return f"{where}: {least} seeds, and intervals of fewer than {FEW_SEEDS} cannot be relied on"


Aggregate = Callable[[Floats, NDArray[np.intp]], Floats]
"""[...] of the scores [..., N] of T tasks end to end and their numbers of seeds [T]."""


def task_means(x: Floats, sizes: NDArray[np.intp]) -> Floats:
    """[..., T] of [..., N]: the mean of each task's scores."""
    means: Floats = np.add.reduceat(x, np.cumsum(sizes) - sizes, axis=-1) / sizes
    return means


def pooled_iqm(x: Floats, _sizes: NDArray[np.intp]) -> Floats:
    """The interquartile mean of the runs of all tasks together; a task with more seeds counts more."""
    return interquartile_mean(x)


def mean_of_tasks(x: Floats, sizes: NDArray[np.intp]) -> Floats:
    """The mean of the tasks' means."""
    means: Floats = task_means(x, sizes).mean(axis=-1)
    return means


def median_of_tasks(x: Floats, sizes: NDArray[np.intp]) -> Floats:
    """The median of the tasks' means: blind to what happens on almost half of the tasks."""
    medians: Floats = np.median(task_means(x, sizes), axis=-1)
    return medians


def optimality_gap(x: Floats, sizes: NDArray[np.intp]) -> Floats:
    """How much is missing to a score of 1, more than which counts for nothing; 0 is best."""
    return 1 - mean_of_tasks(np.minimum(x, 1.0), sizes)


AGGREGATES: Mapping[str, Aggregate] = {
    "IQM": pooled_iqm,
    "median": median_of_tasks,
    "mean": mean_of_tasks,
    "optimality gap": optimality_gap,
}
"""Figures over tasks and seeds of normalised scores: Agarwal et al. 2021, arXiv:2108.13264, 4.3."""


class Spread(NamedTuple):
    """The standard error of a mean of task means, and how well it is known."""

    error: float
    degrees: float  # of freedom


def spread(values: Floats, sizes: NDArray[np.intp]) -> Spread:
    """Of the mean over T tasks of the tasks' means: √(Σ v_t) / T with v_t = s_t² / K_t.

    Its degrees of freedom are (Σ v_t)² / Σ v_t² / (K_t - 1): a task without any spread adds none. Of
    one task they are Student's K - 1.

    Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components".
    """
    columns = np.split(values, np.cumsum(sizes)[:-1])
    v = np.array([_standard_error(x) ** 2 for x in columns])
    if not v.any():
        return Spread(0.0, float(np.sum(sizes - 1)))
    return Spread(math.sqrt(v.sum()) / len(v), float(v.sum() ** 2 / np.sum(v**2 / (sizes - 1))))


def mean_difference(a: Scores, b: Scores, level: float = 0.95) -> Difference:
    """The mean over tasks of the mean of a - b over the seeds, and its t interval.

    `paired_difference` of several tasks: with `spread`'s error and degrees of freedom.

    Raises:
        ValueError: as `both_runs` of pairs.
    """
    check_level(level)
    first, second = both_runs(a, b, paired=True)
    differences = first.values - second.values
    error, degrees = spread(differences, first.sizes)
    middle = float(mean_of_tasks(differences, first.sizes))
    half = t_quantile((1 + level) / 2, degrees) * error
    return Difference(middle, Interval(middle - half, middle + half))


def more_seeds(
    effect: float, error: float, seeds: int, level: float = 0.95, power: float = 0.8
) -> int | None:
    """How many more seeds a task would decide, if the effect is as large as it looks now.

    The least m with which Student's t of ``seeds + m`` seeds, noncentral by effect / error ·
    √((seeds + m) / seeds), is beyond its quantile in a share ``power`` of all repetitions. The effect
    seen is a guess, and of a few seeds a poor one: so is this.

    Args:
        effect: the difference that was found.
        error: its standard error at ``seeds`` seeds.
        seeds: of each task, those that the error is of; at least 2.
        level: 1 - the error that a decision may have.
        power: the share of repetitions that would decide.

    Returns:
        0 if as many would do; None if `MANY_SEEDS` more would not.

    Source: Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2.
    """
    if not error > 0:
        return 0 if effect else None
    from scipy.special import nctdtr, stdtrit

    n = seeds + np.arange(MANY_SEEDS + 1)
    shift = abs(effect) / error * np.sqrt(n / seeds)
    enough = nctdtr(n - 1, shift, stdtrit(n - 1, (1 + level) / 2)) <= 1 - power
    return int(np.argmax(enough)) if enough.any() else None


MANY_SEEDS = 1_000
"""More than so many more seeds are as good as none that would decide."""


def _standard_error(x: Numbers) -> float:
    # of n values that are all the same it is exactly 0, rounding errors of the mean left out
    if len(x) > 1 and np.ptp(x) == 0:
        return 0.0
    return float(np.std(x, ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan


def _quantile(share: float, n: int) -> float:
    check_level(share)
    return t_quantile(share, n - 1) if n > 1 else math.nan


def t_quantile(share: float, degrees: float) -> float:
    """What Student's t with so many degrees of freedom is below in this share of all cases."""
    # not scipy.stats, which takes half a second to import
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def check_level(level: float) -> None:
    """Raise ValueError unless the level is a share between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, takes a number between 0 and 1")
