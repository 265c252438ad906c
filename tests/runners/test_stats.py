import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from runners.stats import (
    MANY_SEEDS,
    interquartile_mean,
    lower_bound,
    mean,
    mean_difference,
    more_seeds,
    paired_difference,
    prediction_interval,
    surely_at_least,
    t_interval,
    unpaired_difference,
)

# thousandths: where squares underflow, scipy's answer is NaN
values = st.lists(st.integers(-(10**9), 10**9).map(lambda i: i / 1000), min_size=2, max_size=30)


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's own
@given(values, values, st.sampled_from([0.5, 0.95]))
def test_unpaired_interval_equals_scipys_of_welch(a, b, level):
    middle, interval = unpaired_difference(a, b, level)
    assert middle == mean(a) - mean(b)
    if np.ptp(a) == np.ptp(b) == 0:
        assert interval == (middle, middle)
        return
    expected = reference.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    assert interval == pytest.approx(tuple(expected), rel=1e-6, abs=1e-6)


def test_of_one_value_there_is_no_unpaired_interval():
    middle, interval = unpaired_difference([3.0], [1.0, 2.0])
    assert middle == 1.5
    assert np.isnan(interval).all()


@given(values, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_equals_scipys(x, level):
    interval = t_interval(x, level)
    if np.ptp(x) == 0:
        assert interval == (mean(x), mean(x))
        return
    expected = reference.t.interval(level, len(x) - 1, np.mean(x), reference.sem(x))
    assert interval == pytest.approx(expected, rel=1e-9, abs=1e-9)
    one_sided = reference.t.ppf(level, len(x) - 1) * reference.sem(x)
    assert lower_bound(x, level) == pytest.approx(np.mean(x) - one_sided, rel=1e-9, abs=1e-9)


def test_by_hand():
    # mean 3, s = √2.5, n = 5: 2.776445 · √2.5 / √5 = 1.963243
    lo, hi = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (lo, hi) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)
    # one-sided: 2.131847 · √0.5 = 1.507443
    assert lower_bound([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(3 - 1.507443, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_coverage(n):
    """Of 10,000 samples 95 % have the true mean inside; the tolerance is four standard errors."""
    samples = np.random.default_rng(n).normal(3.0, 2.0, (10_000, n))
    intervals = np.array([t_interval(x) for x in samples])
    covered = np.mean((intervals[:, 0] <= 3.0) & (intervals[:, 1] >= 3.0))
    above = np.mean([lower_bound(x) <= 3.0 for x in samples])
    tolerance = 4 * math.sqrt(0.95 * 0.05 / len(samples))
    assert covered == pytest.approx(0.95, abs=tolerance)
    assert above == pytest.approx(0.95, abs=tolerance)


@pytest.mark.parametrize("x", [[], [1.0], [1.0, math.nan, 2.0]], ids=str)
def test_what_says_nothing_is_nan(x):
    assert all(math.isnan(end) for end in t_interval(x))
    assert math.isnan(lower_bound(x))


@given(
    st.lists(st.floats(-1e3, 1e3), max_size=12),
    st.floats(-1e3, 1e3),
    st.sampled_from([0.6, 0.95, 0.99]),
)
def test_the_short_way_to_a_verdict_is_the_long_one(x, threshold, level):
    bound = lower_bound(x, level)
    if len(x) > 1 and abs(bound - threshold) < 1e-6:
        return  # rounding may decide
    assert surely_at_least(x, threshold, level) == (bound >= threshold)


def test_far_from_the_threshold_no_scipy_is_needed():
    program = (
        "import sys; from runners.stats import surely_at_least\n"
        "assert surely_at_least([490.0, 500.0] * 50, 475.0)\n"
        "assert not surely_at_least([470.0, 475.0] * 50, 475.0)\n"
        "assert 'scipy' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_equal_values_have_no_width():
    x = [0.1] * 7  # whose mean and deviation both round
    assert lower_bound([500.0] * 100) == 500.0
    assert t_interval(x).hi - t_interval(x).lo == 0.0


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan])
def test_levels_that_are_none(level):
    with pytest.raises(ValueError, match="takes a number between 0 and 1"):
        lower_bound([1.0, 2.0], level)


def test_scipy_is_imported_late():
    program = "import sys, runners.stats; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- Pairs, predictions ----------------------------------------------------------------------------


def test_a_paired_difference_by_hand():
    # differences 1, 2, 3, 4, 5, as above; the pairs themselves lie far apart
    a, b = [11.0, 102.0, -7.0, 1004.0, 5.0], [10.0, 100.0, -10.0, 1000.0, 0.0]
    difference, (lo, hi) = paired_difference(a, b)
    assert difference == 3.0
    assert (lo, hi) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)


@given(values)
def test_a_paired_difference_is_the_paired_t_test(x):
    other = np.random.default_rng(0).normal(size=len(x)) * 10
    expected = reference.ttest_rel(x, other).confidence_interval(0.9)
    found = paired_difference(x, other, level=0.9).interval
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_pairs_are_pairs():
    with pytest.raises(ValueError, match="got 2 and 3 values"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
    assert math.isnan(paired_difference([1.0], [2.0]).interval.lo)


def test_a_prediction_by_hand():
    # mean 3, s = √2.5, n = 5 and 5 more: 2.776445 · √2.5 · √(1/5 + 1/5) = 2.776445
    lo, hi = prediction_interval([1.0, 2.0, 3.0, 4.0, 5.0], fresh=5)
    assert (lo, hi) == pytest.approx((3 - 2.776445, 3 + 2.776445), abs=1e-6)
    with pytest.raises(ValueError, match="fresh: got 0"):
        prediction_interval([1.0, 2.0], fresh=0)


def test_predictions_come_true():
    """Of 10,000 95 % hold the mean of three new values; the tolerance is four standard errors."""
    rng = np.random.default_rng(0)
    seen, new = rng.normal(3.0, 2.0, (10_000, 6)), rng.normal(3.0, 2.0, (10_000, 3)).mean(1)
    lo, hi = np.array([prediction_interval(x, fresh=3) for x in seen]).T
    tolerance = 4 * math.sqrt(0.95 * 0.05 / len(seen))
    assert np.mean((lo <= new) & (new <= hi)) == pytest.approx(0.95, abs=tolerance)


# -- The interquartile mean and the bootstrap ------------------------------------------------------


def test_an_interquartile_mean_by_hand():
    # of 9 values 2 go at either end: (3 + 4 + 5 + 6 + 7) / 5; of 5 values one: (2 + 3 + 4) / 3
    assert interquartile_mean([100.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0, -50.0]) == 5.0
    assert interquartile_mean([1.0, 2.0, 3.0, 4.0, 99.0]) == 3.0
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0  # nothing goes
    assert interquartile_mean([[0.0, 1, 2, 9], [4, 4, 4, 4]]).tolist() == [1.5, 4.0]


@given(values)
def test_an_interquartile_mean_is_scipys_trimmed_one(x):
    assert interquartile_mean(x) == pytest.approx(reference.trim_mean(x, 0.25), rel=1e-12, abs=1e-9)


def test_no_number_is_trimmed_away():
    assert math.isnan(interquartile_mean([1.0, 2.0, 3.0, math.nan]))  # it would be the highest
    assert math.isnan(interquartile_mean([]))


# -- Several tasks, and more seeds -----------------------------------------------------------------


def test_a_difference_over_tasks_by_hand():
    """Differences 1 2 3 (v = 1/3) and 0 4 (v = 8/2): mean 2, error √(13/3) / 2 = 1.040833.

    Degrees (13/3)² / ((1/3)²/2 + 4²/1) = 1.169550; t at 0.975 of so many is 9.0.
    """
    a = {"x": [11.0, 102.0, -7.0], "y": [5.0, 9.0]}
    b = {"y": [5.0, 5.0], "x": [10.0, 100.0, -10.0]}
    found, (lo, hi) = mean_difference(a, b)
    assert found == 2.0
    half = reference.t.ppf(0.975, 1.169550) * 1.040833
    assert (lo, hi) == pytest.approx((2 - half, 2 + half), rel=1e-5)


@given(values, values)
def test_a_difference_over_two_tasks_is_welchs(x, y):
    """The mean of x and y is half of x - (-y), of which Welch gives the interval."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    zero = {"x": np.zeros(len(x)), "y": np.zeros(len(y))}
    theirs = reference.ttest_ind(x, np.negative(y), equal_var=False).confidence_interval(0.9)
    found = mean_difference({"x": x, "y": y}, zero, level=0.9).interval
    assert np.multiply(found, 2) == pytest.approx(theirs, rel=1e-7, abs=1e-7)


def test_a_difference_over_one_task_is_the_paired_one():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=6), rng.normal(size=6)
    found, expected = mean_difference({"x": a}, {"x": b}), paired_difference(a, b)
    assert found.mean == pytest.approx(expected.mean)
    assert found.interval == pytest.approx(expected.interval)
    # a task that is always the same takes nothing from what is known of the other
    both = mean_difference({"x": a, "same": np.ones(6)}, {"x": b, "same": np.ones(6)})
    assert np.multiply(both.interval, 2) == pytest.approx(expected.interval)
    assert mean_difference({"x": a}, {"x": a}).interval == (0, 0)
    with pytest.raises(ValueError, match="pairs of x: got 6 and 5 seeds"):
        mean_difference({"x": a}, {"x": b[:5]})
    with pytest.raises(ValueError, match="level: got 95"):
        mean_difference({"x": a}, {"x": b}, level=95)


# Cohen 1988, table 2.4.1 and every calculator: pairs for a power of 0.8 at 0.05, two-sided
@pytest.mark.parametrize(("d", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_more_seeds_are_those_of_the_tables(d, pairs):
    assert more_seeds(d, 1 / math.sqrt(5), 5) == pairs - 5
    assert more_seeds(-d, 1 / math.sqrt(5), 5) == pairs - 5


def test_seeds_that_more_seeds_needs_decide():
    """With so many as it says 80 % of 4,000 t tests decide; the tolerance is four standard errors."""
    more = more_seeds(0.9, 1 / math.sqrt(3), 3)
    pairs = np.random.default_rng(0).normal(0.9, 1, (4_000, 3 + more))
    power = np.mean(reference.ttest_1samp(pairs, 0, axis=1).pvalue < 0.05)
    assert 0.8 - 4 * 0.0063 < power < 0.84


def test_where_no_seeds_decide():
    assert more_seeds(0.0, 1.0, 5) is None
    assert more_seeds(1e-9, 1.0, 5) is None
    assert more_seeds(9.0, 1.0, 20) == 0
    assert more_seeds(0.0, 0.0, 5) is None  # the same scores
    assert more_seeds(1.0, 0.0, 5) == 0
    assert more_seeds(0.1, 1.0, 5) is None  # an effect of 0.045: 3,900 pairs
    # of 0.0894: by scipy.stats.nct 983 pairs have a power of 0.79999
    assert more_seeds(0.2, 1.0, 5) == 984 - 5 < MANY_SEEDS
