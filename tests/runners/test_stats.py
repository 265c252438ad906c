import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from runners.stats import lower_bound, mean, surely_at_least, t_interval

# thousandths: where squares underflow, scipy's answer is NaN
values = st.lists(st.integers(-(10**9), 10**9).map(lambda i: i / 1000), min_size=2, max_size=30)


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
