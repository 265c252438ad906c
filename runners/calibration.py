"""How far the statistics keep their word, on made-up scores whose truth is known: coverage and errors.

::

    python -m runners.calibration --repetitions 2000

prints three tables: how often intervals of 95 % hold what they are of, how often tests at 5 % find a
difference between equal agents, and what a sequential test finds and states.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from runners.bootstrap import aggregate_difference, aggregates
from runners.errors import BadInput, command, leave
from runners.improvement import bootstrap_probability, probability_of_improvement
from runners.permutation import sign_flip_test
from runners.sequential import sequential_test
from runners.stats import (
    AGGREGATES,
    Difference,
    Floats,
    Interval,
    Scores,
    both_runs,
    mean_difference,
)

Draw = Callable[[np.random.Generator, int], dict[str, Floats]]
"""Scores of an agent: generator, seeds -> task -> scores."""

RESAMPLES = 2_000
SWAPS = 999
LOOKS = (5, 10, 15, 20)
ALPHA = 0.05
TRUTH = 200_000
"""Seeds of the agent that a true figure is of."""


def normal(generator: np.random.Generator, n: int) -> dict[str, Floats]:
    """Where many small things add up."""
    return {"one": generator.normal(0.5, 0.25, n)}


def bimodal(generator: np.random.Generator, n: int) -> dict[str, Floats]:
    """Solved by seven seeds of ten, and else not at all."""
    solved = generator.random(n) < 0.7
    return {"one": np.where(solved, 1.0, 0.1) + generator.normal(0, 0.05, n)}


def skewed(generator: np.random.Generator, n: int) -> dict[str, Floats]:
    """Many low scores and a few very high ones: log-normal."""
    return {"one": generator.lognormal(-1.0, 1.0, n)}


def ties(generator: np.random.Generator, n: int) -> dict[str, Floats]:
    """Full marks by six seeds of ten, none by the others."""
    return {"one": (generator.random(n) < 0.6).astype(np.float64)}


def five_tasks(generator: np.random.Generator, n: int) -> dict[str, Floats]:
    """Five tasks: two normal, of other spread, one bimodal, one skewed, one always the same."""
    return {
        "wide": generator.normal(0.4, 0.5, n),
        "narrow": generator.normal(0.8, 0.05, n),
        "bimodal": bimodal(generator, n)["one"],
        "skewed": skewed(generator, n)["one"],
        "solved": np.ones(n),
    }


SCORES: Mapping[str, Draw] = {
    "normal": normal,
    "bimodal": bimodal,
    "skewed": skewed,
    "0 or 1": ties,
    "five tasks": five_tasks,
}


SAME_MEAN = "same mean only"
EQUAL: Mapping[str, tuple[Draw, Draw]] = {
    **{name: (draw, draw) for name, draw in SCORES.items()},
    SAME_MEAN: (skewed, lambda _, n: {"one": np.full(n, math.exp(-0.5))}),  # the mean of skewed
}
"""Agents of which none is better. Tests by swaps are promised the same scores, not the same mean."""


class Row(NamedTuple):
    """A line of a table: what was drawn, and rates by column."""

    name: str
    seeds: str
    rates: Mapping[str, float]


def shifted(scores: Scores, by: float) -> dict[str, Floats]:
    """The scores of a better agent."""
    return {task: np.asarray(x, np.float64) + by for task, x in scores.items()}


# -- Intervals -------------------------------------------------------------------------------------

SHIFT = 0.5
"""What the better of two agents has more, in each task."""


def coverage(
    name: str, seeds: int, repetitions: int, generator: np.random.Generator
) -> dict[str, float]:
    """The share of repetitions whose interval of 95 % holds the true figure, by figure."""
    draw = SCORES[name]
    truth = _truth(draw, generator)
    held = dict.fromkeys(truth, 0)
    for _ in range(repetitions):
        b = draw(generator, seeds)
        a = shifted(draw(generator, seeds), SHIFT)
        for column, (lo, hi) in _intervals(a, b, generator):
            # a rounding error beside an interval without a width is none
            held[column] += lo - 1e-9 <= truth[column] <= hi + 1e-9
    return {column: n / repetitions for column, n in held.items()}


def _intervals(
    a: Scores, b: Scores, generator: np.random.Generator
) -> Iterator[tuple[str, Interval]]:
    only = {"IQM": AGGREGATES["IQM"]}
    yield "mean, t", mean_difference(b, {task: np.zeros(len(x)) for task, x in b.items()}).interval
    for column, widened in (("IQM, percentile", False), ("IQM", True)):
        found = aggregates(b, generator, resamples=RESAMPLES, widened=widened, figures=only)
        yield column, found["IQM"].interval
    percentile = bootstrap_probability(a, b, generator, resamples=RESAMPLES, widened=False)
    yield "P(X > Y), percentile", percentile.interval
    yield "P(X > Y)", probability_of_improvement(a, b).interval
    yield "difference of means, t", mean_difference(a, b).interval
    found_difference = aggregate_difference(a, b, generator, resamples=RESAMPLES)
    yield "difference of IQMs", found_difference.interval


def _truth(draw: Draw, generator: np.random.Generator) -> dict[str, float]:
    a, b = shifted(draw(generator, TRUTH), SHIFT), draw(generator, TRUTH)
    one, two = both_runs(a, b, paired=True)
    mean, iqm = (
        [float(AGGREGATES[figure](runs.values, runs.sizes)) for runs in (one, two)]
        for figure in ("mean", "IQM")
    )
    # any two runs of so many are as good as all pairs
    better = float(np.mean(0.5 * (np.sign(one.values - two.values) + 1)))
    return {
        "mean, t": mean[1],
        "IQM, percentile": iqm[1],
        "IQM": iqm[1],
        "P(X > Y), percentile": better,
        "P(X > Y)": better,
        "difference of means, t": SHIFT,
        "difference of IQMs": iqm[0] - iqm[1],
    }


# -- Tests -----------------------------------------------------------------------------------------


def false_positives(
    name: str, seeds: int, repetitions: int, generator: np.random.Generator
) -> dict[str, float]:
    """The share of repetitions in which a test at 5 % finds two equal agents different."""
    figures = {"sign flips": "mean", "sign flips, IQM": "IQM"}
    if name == SAME_MEAN:  # whose interquartile means do differ
        del figures["sign flips, IQM"]
    wrong = dict.fromkeys(("paired t", *figures), 0)
    for _ in range(repetitions):
        a, b = (draw(generator, seeds) for draw in EQUAL[name])
        wrong["paired t"] += _decides(mean_difference(a, b))
        for column, figure in figures.items():
            p = sign_flip_test(a, b, generator, AGGREGATES[figure], SWAPS)
            wrong[column] += p <= ALPHA
    return {column: n / repetitions for column, n in wrong.items()}


def stopping(
    name: str, shift: float, repetitions: int, generator: np.random.Generator
) -> dict[str, float]:
    """Of a sequential test and of a t test at 5 % at each look: how often, when and what they decide.

    With two equal agents every decision is wrong; with a shift a decision for the worse one is.
    "held" is the share of intervals, stated where the test stopped, that hold the true difference:
    those of the level that the test names, and those of 95 %.
    """
    sums = dict.fromkeys(
        ("decided", "for the worse", "seeds", "held", "held at 95 %", "t each look"), 0.0
    )
    for _ in range(repetitions):
        a, b = (draw(generator, LOOKS[-1]) for draw in EQUAL[name])
        a = shifted(a, shift)
        found = sequential_test(a, b, LOOKS, generator, paths=SWAPS + 1)
        seeds = found.looks[-1].seeds
        sums["decided"] += found.better is not None
        sums["for the worse"] += found.better == "b"
        sums["seeds"] += seeds
        for column, level in (("held", found.level), ("held at 95 %", 1 - ALPHA)):
            lo, hi = mean_difference(_first(a, seeds), _first(b, seeds), level).interval
            sums[column] += lo - 1e-9 <= shift <= hi + 1e-9
        sums["t each look"] += any(
            _decides(mean_difference(_first(a, n), _first(b, n))) for n in LOOKS
        )
    return {column: total / repetitions for column, total in sums.items()}


def _first(scores: Scores, n: int) -> dict[str, Floats]:
    return {task: np.asarray(x, np.float64)[:n] for task, x in scores.items()}


def _decides(difference: Difference) -> bool:
    return not difference.interval.lo <= 0 <= difference.interval.hi


# -- The tables ------------------------------------------------------------------------------------


def tables(repetitions: int, generator: np.random.Generator) -> Iterator[tuple[str, list[Row]]]:
    """The three tables: a title and its rows."""
    seeds = (5, 10, 20)
    yield (
        "Share of 95 % intervals that hold the true figure",
        [
            Row(name, str(n), coverage(name, n, repetitions, generator))
            for name in SCORES
            for n in seeds
        ],
    )
    yield (
        "Share of tests at 5 % that find two equal agents different",
        [
            Row(name, str(n), false_positives(name, n, repetitions, generator))
            for name in EQUAL
            for n in seeds
        ],
    )
    looks = ", ".join(map(str, LOOKS))
    yield (
        f"A sequential test at 5 % with looks at {looks} seeds",
        [
            Row(f"{name}, better by {shift:g}" if shift else f"{name}, equal", looks,
                stopping(name, shift, repetitions, generator))
            for name in EQUAL
            for shift in (0.0, 0.25)
        ],
    )  # fmt: skip


def markdown(title: str, rows: Sequence[Row]) -> str:
    """A table as Markdown."""
    columns = list(rows[0].rates)
    lines = [
        f"**{title}**\n",
        "| scores | seeds | " + " | ".join(columns) + " |",
        "| --- | ---: |" + " ---: |" * len(columns),
    ]
    for row in rows:
        cells = (_cell(row.rates.get(column)) for column in columns)
        lines.append(f"| {row.name} | {row.seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: float | None) -> str:
    """A share in percent; a number of seeds as it is."""
    if figure is None:
        return ""
    return f"{figure:.1f}" if figure > 1 else f"{100 * figure:.1f} %"


@command
def main(argv: Sequence[str]) -> int:
    """Draw scores, and print how often intervals hold and tests err."""
    parser = argparse.ArgumentParser(
        prog="python -m runners.calibration", description="Simulate how far the statistics hold."
    )
    parser.add_argument(
        "--repetitions", type=int, default=200, metavar="N", help="of each line (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draws")
    asked = parser.parse_args(argv)
    if asked.repetitions < 1:
        raise BadInput(
            f"--repetitions: got {asked.repetitions}, takes a whole number of at least 1"
        )
    error = math.sqrt(ALPHA * (1 - ALPHA) / asked.repetitions)
    for title, rows in tables(asked.repetitions, np.random.default_rng(asked.seed)):
        sys.stdout.write(markdown(title, rows) + "\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"{asked.repetitions} repetitions a line: a share of 5 % or 95 % has a standard error of "
        f"{100 * error:.1f} %\n"
    )
    return 0


if __name__ == "__main__":
    leave(main())
