import math
import time

import numpy as np
import pytest
from scipy import stats as reference

from runners import bootstrap
from runners.bootstrap import Tails, aggregate_difference, aggregates, performance_profile
from runners.stats import AGGREGATES, FEW_SEEDS, few_seeds, interquartile_mean

# Two agents on three tasks, seven seeds of one and four of the other, with ties. rliable 1.2.0
# (with arch < 8 and pandas < 3) has them as arrays [seeds, tasks]:
#   metrics.aggregate_iqm(A), aggregate_median, aggregate_mean, aggregate_optimality_gap
#   library.create_performance_profile({"A": A}, TAUS)
#   numpy.random.seed(0); library.get_interval_estimates({"A": A}, all four, reps=50000)
A = {
    "x": [0.91, 0.85, 1.02, 0.97, 0.40, 1.00, 0.88],
    "y": [1.30, 1.10, 0.20, 1.75, 1.10, 1.60, 1.45],
    "z": [0.05, 0.40, 0.10, 0.62, 0.05, 0.33, 0.71],
}
B = {
    "x": [0.70, 0.85, 0.62, 0.91],
    "y": [1.10, 0.95, 1.20, 1.00],
    "z": [0.02, 0.12, 0.10, 0.05],
}
RLIABLE = {
    "IQM": (0.8054545454545454, 0.60909091, 0.93727273, 0.6916666666666668),
    "median": (0.8614285714285714, 0.69142857, 0.97142857, 0.77),
    "mean": (0.7995238095238095, 0.65047619, 0.93095238, 0.635),
    "optimality gap": (0.31095238095238087, 0.21238095, 0.42095238, 0.39),
}
TAUS = [0.0, 0.1, 0.5, 0.9, 1.1, 2.0]
RLIABLE_PROFILE = [1.0, 0.85714286, 0.66666667, 0.47619048, 0.19047619, 0.0]


def rng(seed=0):
    return np.random.default_rng(seed)


# -- Aggregates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", AGGREGATES)
def test_figures_are_rliables(figure):
    value, lo, hi, of_b = RLIABLE[figure]
    found = aggregates(A, rng(), widened=False)[figure]
    assert found.value == pytest.approx(value, rel=1e-12)
    # 50,000 draws of either: their ends differ by less than a hundredth of the figure's own error
    assert found.interval == pytest.approx((lo, hi), abs=0.005)
    assert aggregates(B, rng(), resamples=100)[figure].value == pytest.approx(of_b, rel=1e-12)


def test_figures_by_hand_of_unequal_seeds():
    """Means of tasks 1 and 2; all runs in order 0 1 1 2 4, of which 1 1 2 are the middle."""
    found = aggregates({"x": [0.0, 2.0], "y": [4.0, 1.0, 1.0]}, rng(), resamples=100)
    assert found["mean"].value == found["median"].value == 1.5
    assert found["IQM"].value == pytest.approx(4 / 3)
    # what counts is 0 1 and 1 1 1: means ½ and 1
    assert found["optimality gap"].value == pytest.approx(0.25)


def test_an_iqm_is_scipys():
    x = rng().exponential(size=(9, 5))
    found = aggregates(dict(zip("abcde", x.T, strict=True)), rng(), resamples=100)["IQM"].value
    assert found == pytest.approx(reference.trim_mean(x, 0.25, axis=None), rel=1e-12)


def test_seeds_are_drawn_within_their_task():
    """Two tasks without spread: every draw is the same, though the tasks lie far apart."""
    for found in aggregates({"x": [0.0] * 5, "y": [1.0] * 5}, rng(), resamples=500).values():
        assert found.interval == (found.value, found.value)
        assert found.error == 0


def test_every_seed_is_drawn_as_often():
    counts = bootstrap.times_drawn(
        np.concatenate(list(bootstrap.draws(bootstrap.runs_of(B | {"x": A["x"]}), rng(), 40_000)))
    )
    assert (counts.sum(axis=1) == 15).all()
    # each count is binomial with mean 1 and variance (K - 1) / K: four standard errors of the mean
    assert counts.mean(axis=0) == pytest.approx(np.ones(15), abs=4 / math.sqrt(40_000))
    assert counts[:, 0].var() == pytest.approx(6 / 7, rel=0.05)


def test_the_same_draws_give_the_same_interval(monkeypatch):
    whole = aggregates(A, rng(), resamples=1_000)
    assert whole == aggregates(A, rng(), resamples=1_000)
    monkeypatch.setattr(bootstrap, "IN_CACHE", 21 * 7)  # seven rows at once
    assert whole == aggregates(A, rng(), resamples=1_000)


def test_a_single_task_is_drawn_as_scipy_draws():
    x = rng(1).exponential(size=11)
    found = aggregates({"x": x}, rng(), resamples=20_000, widened=False)["IQM"].interval
    theirs = reference.bootstrap(
        (x,), lambda x, axis: interquartile_mean(x), method="percentile", n_resamples=20_000,
        rng=rng(2), vectorized=True,
    )  # fmt: skip
    assert found == pytest.approx(theirs.confidence_interval, abs=0.03)


def test_the_error_is_that_of_the_mean():
    """Of a mean it is s / √n: the draws' narrowness is taken out."""
    x = rng(3).normal(size=6)
    found = aggregates({"x": x}, rng(), resamples=100_000)["mean"].error
    assert found == pytest.approx(reference.sem(x), rel=0.02)


# -- Widened ends ----------------------------------------------------------------------------------


def test_how_far_ends_are_widened_by_hand():
    """Five seeds: Φ(-√(5/4) · 2.776445) = Φ(-3.104160) = 0.000954 instead of 0.025."""
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert Tails.of(x, np.array([5]), 0.95, True).share == pytest.approx(0.000954, abs=1e-6)
    assert Tails.of(x, np.array([5]), 0.95, False).share == pytest.approx(0.025)
    many = np.tile(x, 400)
    assert Tails.of(many, np.array([2000]), 0.95, True).share == pytest.approx(0.025, abs=1e-4)


def test_widened_intervals_hold_what_percentiles_lose():
    """Means of five normal values: 1,000 intervals, of which 84 % and 91 % hold the truth.

    Percentile intervals are near x̄ ± 1.96 √(4/5) s / √5, which a t of 4 degrees says to hold 84.5 %.
    Widened ones would hold 95 %, were the draws of five values normal too; they are bounded.
    """
    held = np.zeros(2)
    for x in rng(4).normal(size=(1_000, 5)):
        for i, widened in enumerate((False, True)):
            only = {"mean": AGGREGATES["mean"]}
            found = aggregates({"x": x}, rng(5), resamples=2_000, widened=widened, figures=only)
            lo, hi = found["mean"].interval
            held[i] += lo <= 0 <= hi
    percentile, widened = held / 1_000
    assert percentile == pytest.approx(0.845, abs=4 * 0.0115)
    assert 0.88 < widened < 0.96


# -- Differences -----------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", ["IQM", "mean", "median"])
def test_what_pairs_share_cancels_out(figure):
    better = {task: np.add(x, 0.25) for task, x in A.items()}
    found = aggregate_difference(better, A, rng(), AGGREGATES[figure], resamples=500)
    assert found.value == pytest.approx(0.25)
    assert found.interval == pytest.approx((0.25, 0.25))
    alone = aggregate_difference(better, A, rng(), AGGREGATES[figure], paired=False, resamples=500)
    assert alone.interval.hi - alone.interval.lo > 0.3


def test_a_difference_of_unequal_seeds(monkeypatch):
    """As far apart as rliable's figures; drawn for themselves the variances add."""
    monkeypatch.setattr(bootstrap, "IN_CACHE", 1_000)  # both in pieces of as many draws
    found = aggregate_difference(A, B, rng(), paired=False, resamples=20_000)
    assert found.value == pytest.approx(RLIABLE["IQM"][0] - RLIABLE["IQM"][3])
    errors = [
        float(np.std([interquartile_mean(row) for row in _drawn(one)])) for one in (A, B)
    ]  # without the widening for seven and four seeds
    assert found.error * math.sqrt(3 / 4) == pytest.approx(math.hypot(*errors), rel=0.05)


def _drawn(scores):
    columns = [np.asarray(x)[rng(6).integers(0, len(x), (5_000, len(x)))] for x in scores.values()]
    return np.concatenate(columns, axis=1)


def test_tasks_are_matched_by_name():
    backwards = dict(reversed(A.items()))
    found = aggregate_difference(A, backwards, rng(), AGGREGATES["mean"], resamples=200)
    assert found.interval == pytest.approx((0, 0), abs=1e-12)


# -- Profiles --------------------------------------------------------------------------------------


def test_a_profile_is_rliables():
    found = performance_profile(A, TAUS, rng())
    assert found.share == pytest.approx(RLIABLE_PROFILE, abs=1e-8)
    assert (found.lo[1:-1] < found.share[1:-1]).all()
    assert (found.share[1:-1] < found.hi[1:-1]).all()
    ends = found.lo[0], found.hi[0], found.lo[-1], found.hi[-1]
    assert ends == pytest.approx((1, 1, 0, 0))  # no run of any draw is other


def test_a_band_by_hand():
    """Of ten seeds six are above: a draw's share is binomial(10, 0.6) / 10."""
    x = [1.0] * 6 + [0.0] * 4
    found = performance_profile({"x": x}, [0.5], rng(), resamples=100_000)
    share = Tails.of(np.array(x), np.array([10]), 0.95, True).share
    ends = reference.binom.ppf([share, 1 - share], 10, 0.6) / 10
    assert (found.lo[0], found.hi[0]) == pytest.approx(ends)


def test_a_score_at_tau_is_not_above_it_and_tasks_count_alike():
    found = performance_profile({"x": [1.0, 1.0], "y": [2.0, 2.0, 2.0, 0.0]}, [1.0], rng())
    assert found.share[0] == pytest.approx((0 + 0.75) / 2)


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({}, "got no task"),
        ({"x": [1.0, 2.0], "y": [1.0]}, "scores of y: got 1 seeds, takes at least 2"),
        ({"x": [1.0, 2.0, math.nan]}, "scores of x: got nan at seed index 2"),
        ({"x": [1.0, -math.inf, 2.0]}, "scores of x: got -inf at seed index 1"),
        ({"x": [[1.0, 2.0]]}, r"scores of x: got the shape \(1, 2\)"),
    ],
)
def test_scores_that_are_none(scores, said):
    with pytest.raises(ValueError, match=said):
        aggregates(scores, rng())
    with pytest.raises(ValueError, match=said):
        performance_profile(scores, TAUS, rng())


def test_pairs_that_are_none():
    with pytest.raises(ValueError, match="pairs of x: got 7 and 4 seeds"):
        aggregate_difference(A, B, rng())
    with pytest.raises(ValueError, match="scores of z: got them of one agent only"):
        aggregate_difference(A, {"x": A["x"], "y": A["y"]}, rng())
    with pytest.raises(ValueError, match="level: got 95"):
        aggregate_difference(A, A, rng(), level=95, resamples=10)
    with pytest.raises(ValueError, match="taus: got nan"):
        performance_profile(A, [0.0, math.nan], rng())


def test_what_is_said_of_few_seeds():
    assert few_seeds(A) is None
    assert few_seeds(A | {"x": [1.0] * (FEW_SEEDS - 1)}).startswith("x: 4 seeds")
    assert few_seeds(B | {"x": [1.0] * 3}).startswith("3 of 3 tasks: 3 seeds")


# -- Speed -----------------------------------------------------------------------------------------


def test_all_of_atari_in_seconds():
    """57 tasks, ten seeds, four figures, 50,000 draws: under 5 s; 0.8 s of one core."""
    scores = {f"game {i}": x for i, x in enumerate(rng().exponential(size=(57, 10)))}
    seconds = []
    for _ in range(3):  # the machine may be busy
        began = time.perf_counter()
        aggregates(scores, rng())
        seconds.append(time.perf_counter() - began)
        if seconds[-1] < 5:
            return
    pytest.fail(f"the bootstrap took {min(seconds):.1f} s")
