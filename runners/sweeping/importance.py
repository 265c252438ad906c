"""Which of the settings that were searched made a difference.

The importance of a setting is the share of the scores' variance that it explains alone: trials are
divided by its values, a range into parts with equally many trials, and the share of the variance between
the groups is ε² (Kelley 1935, "An unbiased correlation ratio measure"), η² less what as many groups
explain by chance. What two settings do together only is not in it. As there are few trials, each share
comes with how often it is as large when the scores are dealt out anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.sweeping.space import Dimension, Space

Floats = NDArray[np.float64]
FEWEST = 8
"""Trials below which nothing is said."""
PARTS = 4
"""Of a range; fewer where they would have less than three trials each."""
DEALS = 2_000


class Importance(NamedTuple):
    """How much a setting explains alone."""

    name: str
    share: float  # ε², of the variance of the scores; 0 where chance explains as much
    p: float  # how often as large a share comes about by chance
    trend: float | None  # Spearman's rank correlation with the score; None where there is no order


def importances(
    space: Space, values: Sequence[Mapping[str, Any]], scores: Sequence[float]
) -> list[Importance]:
    """The searched settings, the most important first; none of fewer than 8 trials, or equal scores.

    Args:
        space: what was searched.
        values: of each trial.
        scores: of each trial, all at as many lane steps.
    """
    x = np.asarray(scores, np.float64)
    if len(x) < FEWEST or np.ptp(x) == 0:
        return []
    # the same deals for every setting, and every time
    deals = np.random.default_rng(0).permuted(np.tile(x, (DEALS, 1)), axis=1)
    found = []
    for one in space:
        column = [trial[one.name] for trial in values]
        groups = _groups(one, column)
        share = explained(x, groups)
        by_chance = explained(deals, groups)
        p = (1 + np.sum(by_chance >= share - 1e-12)) / (1 + DEALS)
        found.append(Importance(one.name, max(0.0, float(share)), float(p), _trend(column, x)))
    return sorted(found, key=lambda one: (-one.share, one.p))


def explained(x: Floats, groups: NDArray[np.intp]) -> Floats:
    """ε² [...] of scores [..., N] in groups [N]: 1 - (1 - η²) (N - 1) / (N - b), b groups.

    η² is the variance between groups over all variance; NaN where every score has its own group.
    """
    n, b = len(groups), int(groups.max()) + 1
    one_hot = (groups[:, None] == np.arange(b)).astype(np.float64)
    centred = x - x.mean(axis=-1, keepdims=True)
    between = ((centred @ one_hot) ** 2 / one_hot.sum(axis=0)).sum(axis=-1)
    eta = between / (centred**2).sum(axis=-1)
    share: Floats = np.asarray(1 - (1 - eta) * (n - 1) / (n - b) if n > b else np.nan * eta)
    return share


def _groups(one: Dimension, column: Sequence[Any]) -> NDArray[np.intp]:
    """The group of each trial: numbered from 0 on, none of them empty."""
    if one.scale == "choice":
        labels = np.array([one.choices.index(value) for value in column])
    else:
        parts = max(2, min(PARTS, len(column) // 3))
        numbers = np.array(column, np.float64)
        inner = np.quantile(numbers, np.arange(1, parts) / parts)
        labels = np.searchsorted(inner, numbers, side="left")
    groups: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1]
    return groups


def _trend(column: Sequence[Any], scores: Floats) -> float | None:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in column)
    if not numeric or len(set(column)) < 2:
        return None
    return float(np.corrcoef(_ranks(np.array(column, np.float64)), _ranks(scores))[0, 1])


def _ranks(x: Floats) -> Floats:
    """From 1 on; equal numbers share the mean of theirs."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
