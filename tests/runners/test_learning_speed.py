import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from runners.learning_speed import (
    Reached,
    area_under_curve,
    first_reached,
    time_to_threshold,
)

# -- Areas -----------------------------------------------------------------------------------------


def test_an_area_by_hand():
    at, scores = [10, 20, 30], [0.0, 10.0, 20.0]
    # nothing to 10; 10 · 5 to 20; 5 · 12.5 to 25; 10 · 15 to 30
    assert area_under_curve(at, scores, 10) == 0
    assert area_under_curve(at, scores, 20) == pytest.approx(50 / 20)
    assert area_under_curve(at, scores, 25) == pytest.approx((50 + 62.5) / 25)
    assert area_under_curve(at, scores, 30) == pytest.approx(200 / 30)
    # before the first evaluation the score is the first one's
    assert area_under_curve(at, [6.0, 6.0, 0.0], 5) == 6.0
    assert area_under_curve(at, [6.0, 6.0, 0.0], 30) == pytest.approx((20 * 6 + 10 * 3) / 30)


@given(st.integers(1, 8), st.floats(0.01, 1.0))
def test_an_area_is_that_of_a_fine_grid(n, share):
    rng = np.random.default_rng(n)
    at, scores = np.cumsum(rng.integers(1, 9, n)), rng.normal(size=n)
    budget = share * at[-1]
    grid = np.linspace(0, budget, 20_001)
    expected = np.trapezoid(np.interp(grid, at, scores), grid) / budget
    assert area_under_curve(at, scores, budget) == pytest.approx(expected, abs=1e-3)


def test_seeds_at_once_and_other_evaluations():
    scores = np.random.default_rng(0).normal(size=(4, 6))
    at = np.arange(1, 7)
    together = area_under_curve(at, scores, 5.5)
    assert together == pytest.approx([area_under_curve(at, one, 5.5) for one in scores])
    # the same line seen more often
    assert area_under_curve([0, 10], [0, 10], 10) == area_under_curve([0, 3, 10], [0, 3, 10], 10)


@pytest.mark.parametrize(
    ("at", "scores", "budget", "said"),
    [
        ([1, 2], [0, 1], 2.5, "budget: got 2.5, takes more than 0 and at most 2"),
        ([1, 2], [0, 1], 0, "budget: got 0"),
        ([2, 1], [0, 1], 1, "takes rising ones"),
        ([1, 1], [0, 1], 1, "takes rising ones"),
        ([1, 2], [0, math.nan], 1, "got nan for a score"),
        ([1, 2], [0, 1, 2], 1, "takes one a time"),
        ([], [], 1, "takes one a time"),
    ],
)
def test_curves_that_are_none(at, scores, budget, said):
    with pytest.raises(ValueError, match=said):
        area_under_curve(at, scores, budget)


# -- Times -----------------------------------------------------------------------------------------


def to_threshold(times, seen, budget, seed=0):
    runs = [Reached(t, bool(s)) for t, s in zip(times, seen, strict=True)]
    return time_to_threshold(runs, budget, np.random.default_rng(seed))


def test_when_a_run_was_there_first():
    assert first_reached([10, 20, 30], [1, 5, 2], 5) == Reached(20, True)
    assert first_reached([10, 20, 30], [1, 5, 2], 5.1) == Reached(30, False)
    assert first_reached([10], [7], 5) == Reached(10, True)


def test_times_by_hand():
    """Five seeds, three at 10, 20, 30, two not within 100: S is .8 .6 .4, at half from 30 on."""
    found = to_threshold([10, 20, 30, 100, 100], [1, 1, 1, 0, 0], 100)
    assert (found.reached, found.seeds, found.median) == (3, 5, 30)
    # 10 + 0.8 · 10 + 0.6 · 10 + 0.4 · 70, which is the mean of 10 20 30 100 100
    assert found.restricted_mean.value == pytest.approx(52) == np.mean([10, 20, 30, 100, 100])
    lo, hi = found.median_interval
    assert lo == 10
    assert hi == math.inf
    lo, hi = found.restricted_mean.interval
    assert 10 <= lo < 52 < hi <= 100


def test_a_run_that_was_stopped_early_by_hand():
    """At 10 one of four is there; at 20 one is stopped; at 30 one of the two left is there.

    S is ¾ from 10 on, 3/8 from 30 on: 10 + ¾ · 20 + 3/8 · 20 within 50.
    """
    found = to_threshold([30, 10, 50, 20], [1, 1, 0, 0], 50)
    assert found.median == 30
    assert found.restricted_mean.value == pytest.approx(10 + 15 + 7.5)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=2, max_size=12))
def test_times_are_scipys(runs):
    times, seen = np.array(runs).T
    budget = 9
    found = to_threshold(times, seen, budget)
    sample = reference.CensoredData.right_censored(times, ~seen.astype(bool))
    sf = reference.ecdf(sample).sf
    at_half = np.flatnonzero(sf.probabilities <= 0.5 + 1e-12)
    assert found.median == (sf.quantiles[at_half[0]] if len(at_half) else math.inf)
    t = np.arange(0, budget, 0.5)
    assert found.restricted_mean.value == pytest.approx(np.sum(sf.evaluate(t)) * 0.5)


def test_times_of_leukemia():
    """Freireich et al. 1963, 6-MP, as every textbook has them: the median is 23 weeks."""
    seen = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    found = to_threshold(seen + censored, [1] * len(seen) + [0] * len(censored), 35)
    assert found.median == 23
    assert found.restricted_mean.value == pytest.approx(23.287, abs=0.001)  # R: survfit, rmean=35


def test_who_fails_is_not_faster():
    """Two seeds at 10 and eight that never were there, beside ten seeds at 20."""
    rare = to_threshold([10] * 2 + [100] * 8, [1] * 2 + [0] * 8, 100)
    sure = to_threshold([20] * 10, [1] * 10, 100)
    assert rare.median == math.inf
    assert rare.median_interval == (10, math.inf)  # five of ten drawn seeds may be those two
    assert rare.restricted_mean.value == 82 > sure.restricted_mean.value == 20
    assert sure.restricted_mean.interval == (20, 20)


def test_what_came_after_the_budget_does_not_count():
    late = to_threshold([10, 60, 70], [1, 1, 1], 50)
    never = to_threshold([10, 50, 50], [1, 0, 0], 50)
    assert late == never
    assert late.reached == 1


def test_intervals_of_times_hold():
    """Of 200 with ten exponential times cut at 2 about 95 % hold 1 - e⁻² = 0.865, their mean."""
    rng, held, medians = np.random.default_rng(1), 0, 0
    for _ in range(200):
        times = rng.exponential(size=10)
        found = to_threshold(np.minimum(times, 2), times < 2, 2, seed=rng)
        lo, hi = found.restricted_mean.interval
        held += lo <= 1 - math.exp(-2) <= hi
        lo, hi = found.median_interval
        medians += lo <= math.log(2) <= hi
    assert 0.89 <= held / 200 <= 0.99
    assert 0.89 <= medians / 200 <= 1.0


def test_times_that_are_none():
    with pytest.raises(ValueError, match="got 1 seeds, takes at least 2"):
        to_threshold([1], [1], 5)
    with pytest.raises(ValueError, match="takes positive numbers"):
        to_threshold([1, math.nan], [1, 1], 5)
    with pytest.raises(ValueError, match="takes positive numbers"):
        to_threshold([1, 2], [1, 1], 0)
