"""A comparison in words: what was decided, and what it would take where nothing was."""

from __future__ import annotations

from runners import stats
from runners.comparison import Comparison, Pair
from runners.console import number


def verdict(comparison: Comparison) -> list[str]:
    """What was decided, pair by pair, the surest first; what was not, and what it would take."""
    ordered = sorted(comparison.pairs, key=lambda pair: (pair.better is None, pair.p))
    return [sentence(comparison, pair) for pair in ordered]


def sentence(comparison: Comparison, pair: Pair) -> str:
    """One pair, the better first."""
    a, b, sign = pair.a, pair.b, 1.0
    if pair.difference.value < 0:
        a, b, sign = b, a, -1.0
    lo, hi = sorted((sign * end) for end in pair.difference.interval)
    chance = pair.improvement.value if sign > 0 else 1 - pair.improvement.value
    ends = sorted(end if sign > 0 else 1 - end for end in pair.improvement.interval)
    unit = " (normalised)" if comparison.unit == "normalised" else ""
    by = f"{number(abs(pair.difference.value))} [{number(lo)} .. {number(hi)}]{unit}"
    odds = f"a run of it is the better of two with probability {chance:.2f} [{ends[0]:.2f} .. {ends[1]:.2f}]"
    p = f"p = {pair.p:.2g}"
    if pair.looks:
        last = pair.looks.looks[-1]
        p = f"at {last.seeds} seeds, look {len(pair.looks.looks)}"
    if pair.better:
        return f"{a} is better than {b}: {comparison.figure} higher by {by}, {p}; {odds}"
    size = max(abs(comparison.figures[agent][comparison.figure].value) for agent in (a, b))
    if abs(pair.difference.value) <= 1e-12 * size:  # but for the order of their sums
        return f"not decided: {a} and {b} have the same {comparison.figure}"
    more = (
        f"not even {stats.MANY_SEEDS:,} more seeds would decide at this effect size"
        if pair.more_seeds is None
        else f"about {pair.more_seeds} more seed{'s' * (pair.more_seeds > 1)} would decide at this effect size"
    )
    return f"not decided: {a} before {b} by {by} in {comparison.figure}, {p}; {more}"
