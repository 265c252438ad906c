"""When to stop adding seeds: a test that may be looked at several times and still errs but once in 20.

A test at 5 % that is repeated whenever more seeds are there errs at 13 % after four looks. Here the
5 % are *spent*: by the look at n of the n_max seeds that were planned, an error of α n / n_max may
have been made, no more, whatever look stopped.

What may be spent at a look turns into a boundary by swapping pairs, as in `runners.permutation`. Of
two equal agents each of a pair's scores could have been the other's, so the path of differences that
was seen, one a look, is as likely as that of any swap. Of these paths the largest differences stop,
as many as may; those that have stopped are out of the next look. Nothing is assumed of the scores:
neither normal values nor large numbers, on which the usual boundaries rest, and which returns that
are 500 or nothing at five seeds have not. Looks at which so few pairs cannot decide spend nothing
and leave their share to the next: five pairs of one task never do.

Equal agents are such as have the same scores, not the same mean only: of a steady agent and one of
few high scores with that mean, it finds one better in a fifth of all cases, as a t test does.

Source: Lan & DeMets 1983, "Discrete sequential boundaries for clinical trials"; Kim & DeMets 1987,
"Design and analysis of group sequential tests based on the type I error spending rate function" (the
power family, ρ = 1); Plamadeala & Rosenberger 2012, "Sequential monitoring with conditional
randomization tests" (boundaries of the paths that the data allow).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from runners.permutation import rounding, swapped_differences
from runners.stats import Aggregate, Floats, Runs, Scores, both_runs, check_level, mean_of_tasks

PATHS = 20_000


class Look(NamedTuple):
    """What was seen with so many seeds of each task."""

    seeds: int
    difference: float  # figure(a) - figure(b)
    boundary: float  # a larger one, in either direction, decides; inf: nothing could have
    spent: float  # of α so far, by this and all earlier looks, on paths that stopped


class Decision(NamedTuple):
    """What a sequential test says.

    ``better`` is "a" or "b" once decided, else None: "neither yet" while ``ended`` is false, "not
    decided" after the last look. ``level`` is that of the interval to state with it: all of these,
    one a look, hold together in a share 1 - α of all repetitions, so that the one at the look that
    stopped does; the usual interval would not, since large differences stop.
    """

    better: Literal["a", "b"] | None
    ended: bool
    looks: tuple[Look, ...]
    level: float


def sequential_test(
    a: Scores,
    b: Scores,
    planned: Sequence[int],
    generator: np.random.Generator,
    level: float = 0.95,
    figure: Aggregate = mean_of_tasks,
    paths: int = PATHS,
) -> Decision:
    """Whether one of two agents is better, nothing is decided yet, or nothing has been at the end.

    Call it at each planned number of seeds, with all of them, in the order they were planned in, and
    with a generator that is seeded alike: it repeats all looks so far, and a call that finds one
    that had decided says what was decided there. To compare several pairs, divide 1 - level by
    their number.

    Args:
        a: scores of one agent; as many seeds in each task.
        b: of the other; score i of a task is of the same seed in both.
        planned: the numbers of seeds to look at, rising, fixed before the first look.
        generator: draws the paths.
        level: 1 - α; a decision for two equal agents has a probability of at most α.
        figure: what is compared, one of `AGGREGATES`.
        paths: how many paths stand for all swaps, the one seen among them. Fewer cost power, not
            validity.

    Raises:
        ValueError: as `both_runs` of pairs; tasks with different numbers of seeds; plans that do not
            rise; a level that is none.
    """
    check_level(level)
    one, two = both_runs(a, b, paired=True)
    _check_plan(planned, one.sizes.tolist())
    alpha, tasks, seeds = 1 - level, len(one.sizes), int(one.sizes[0])
    x, y = one.values.reshape(tasks, seeds), two.values.reshape(tasks, seeds)
    swaps = np.zeros((paths, tasks, 0), np.bool_)
    alive = np.ones(paths, np.bool_)  # the first path is the one that was seen: nothing is swapped
    looks: list[Look] = []
    better: Literal["a", "b"] | None = None
    for n in (n for n in planned if n <= seeds):
        fresh = generator.integers(0, 2, (paths, tasks, n - swaps.shape[2]), dtype=np.bool_)
        fresh[0] = False
        swaps = np.concatenate([swaps, fresh], axis=2)
        first, second = (Runs(one.tasks, np.full(tasks, n), z[:, :n].ravel()) for z in (x, y))
        differences = swapped_differences(first, second, swaps.reshape(paths, -1), figure)
        may_stop = int(alpha * n / planned[-1] * paths + 1e-9) - int(np.count_nonzero(~alive))
        boundary = _boundary(np.abs(differences[alive]), may_stop, rounding(first, second))
        alive &= np.abs(differences) <= boundary
        difference = float(differences[0])
        looks.append(Look(n, difference, boundary, float(np.mean(~alive))))
        if not alive[0]:
            better = "a" if difference > 0 else "b"
            break
    share = np.diff(planned, prepend=0)[len(looks) - 1] / planned[-1]
    ended = better is not None or len(looks) == len(planned)
    return Decision(better, ended, tuple(looks), 1 - alpha * float(share))


def _check_plan(planned: Sequence[int], sizes: Sequence[int]) -> None:
    if not planned or list(planned) != sorted({*planned}) or planned[0] < 2:
        raise ValueError(f"planned: got {list(planned)}, takes rising numbers of seeds from 2")
    if len({*sizes}) > 1:
        raise ValueError(f"seeds: got {sorted({*sizes})}, takes as many a task")
    if sizes[0] < planned[0]:
        raise ValueError(f"seeds: got {sizes[0]}, takes the first of those planned, {planned[0]}")


def _boundary(sizes: Floats, may_stop: int, slack: float) -> float:
    """What at most ``may_stop`` of these are above; those as large as one that may not are not."""
    if may_stop < 1:
        return np.inf
    ordered = np.sort(sizes)
    return float(ordered[-may_stop - 1]) + slack if may_stop < len(ordered) else -np.inf
