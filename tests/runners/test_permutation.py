import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from runners import permutation
from runners.permutation import holm, sign_flip_test
from runners.stats import AGGREGATES
from tests.runners.test_bootstrap import A, B


def rng(seed=0):
    return np.random.default_rng(seed)


def against_zero(differences):
    """The test of pairs with these differences, far from zero themselves."""
    base = np.linspace(3, 1000, len(differences))
    return sign_flip_test({"x": base + differences}, {"x": base}, rng())


def test_by_hand():
    # all of one sign: of 32 swaps only none and all reach it
    assert against_zero([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 / 32
    # 3 + 1 - 1 = 3: |±3 ±1 ±1| is 5, 3, 3, 1, so six of eight reach it
    assert against_zero([3.0, 1.0, -1.0]) == 6 / 8
    assert against_zero([-0.1, -0.1, -0.1, -0.1]) == 2 / 16  # which rounds
    assert against_zero([0.0, 0.0, 0.0]) == 1.0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=7))
def test_tenths_are_counted_as_whole_numbers_are(pairs):
    """Sums that are the same tie, though tenths do not add up to the same in another order."""
    x, y = np.array(pairs).T
    signs = np.array(list(itertools.product([-1, 1], repeat=len(pairs))))
    reached = np.mean(abs(signs @ (x - y)) >= abs(np.sum(x - y)))
    assert sign_flip_test({"x": x / 10}, {"x": y / 10}, rng()) == reached


def test_tasks_with_more_seeds_count_no_more_by_hand():
    """Differences 4 and 0 of x, 3 and 3 and 3 of y: means ½ (2 + 3) = 2.5.

    Half-sums ±4/2 and ±3/3 ±3/3 ±3/3 (|.| 3 or 1): 2 and 3 of one sign, 5/2, are the most there are.
    Of 32 swaps those that have them: 4 sign, y's three signs, 0's either: 2 · 2 = 4.
    """
    a, b = {"x": [4.0, 0.0], "y": [3.0, 3.0, 3.0]}, {"x": [0.0, 0.0], "y": [0.0, 0.0, 0.0]}
    assert sign_flip_test(a, b, rng()) == 4 / 32


@pytest.mark.parametrize("n", [2, 7, 12])
def test_an_exact_test_is_scipys(n):
    x, y = rng(n).normal(0.5, 1, n).round(1), rng(n + 1).normal(size=n).round(1)
    theirs = reference.permutation_test(
        (x, y), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert sign_flip_test({"x": x}, {"x": y}, rng()) == pytest.approx(theirs.pvalue)


def test_any_figure_by_brute_force():
    a = {"x": [1.0, 0.2, 0.7], "y": [0.4, 0.9, 0.8, 0.1]}
    b = {"x": [0.3, 0.1, 0.9], "y": [0.2, 0.6, 0.1, 0.3]}
    x, y = (np.concatenate(list(scores.values())) for scores in (a, b))

    def figure(z):
        return reference.trim_mean(z, 1 / 7 + 1e-9)  # of seven, one at either end

    found = abs(figure(x) - figure(y))
    reached = 0
    for swap in itertools.product([False, True], repeat=7):
        one, two = np.where(swap, y, x), np.where(swap, x, y)
        reached += abs(figure(one) - figure(two)) >= found - 1e-12
    assert sign_flip_test(a, b, rng(), AGGREGATES["IQM"]) == reached / 2**7


def test_drawn_swaps_are_nearly_all_swaps(monkeypatch):
    a = {task: x[:4] for task, x in A.items()}
    exact = sign_flip_test(a, B, rng())
    monkeypatch.setattr(permutation, "EXACT_PAIRS", 0)
    drawn = sign_flip_test(a, B, rng())
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 99_999))


def test_a_drawn_value_is_never_zero():
    a = {"x": np.arange(1.0, 41.0)}
    assert sign_flip_test(a, {"x": np.zeros(40)}, rng(), swaps=99) == 1 / 100


@pytest.mark.parametrize("n", [6, 20])
def test_equal_agents_are_told_apart_no_more_often_than_promised(n):
    """Of 1,500 p-values of skewed scores no more are below a level than it says, and three errors."""
    generator = rng(1)
    p = np.array(
        [
            sign_flip_test(
                *({"x": generator.lognormal(size=n)} for _ in "ab"), generator, swaps=199
            )
            for _ in range(1_500)
        ]
    )
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 3 * math.sqrt(level * (1 - level) / 1_500)
    assert np.mean(p <= 0.5) > 0.4


def test_what_pairs_share_makes_them_easier_to_tell_apart():
    """The same differences between pairs that have more in common are as telling."""
    shared = rng(2).normal(0, 100, 12)
    a = np.linspace(0.1, 0.3, 12)
    apart = sign_flip_test({"x": a}, {"x": np.zeros(12)}, rng())
    assert sign_flip_test({"x": a + shared}, {"x": shared}, rng()) == apart == 2 / 2**12


def test_pairs_that_are_none():
    with pytest.raises(ValueError, match="pairs of x: got 7 and 4 seeds"):
        sign_flip_test(A, B, rng())


# -- Holm ------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # in order 0.005 · 4, 0.01 · 3, 0.03 · 2, and 0.04, which is less than what is before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_step_by_step(p, alpha):
    """The least is compared with α / n, the next with α / (n - 1), until one is not below."""
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] * (len(p) - step) > alpha:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(holm(p)) if value <= alpha} == rejected
