import itertools
import math

import numpy as np
import pytest

from runners.sequential import _boundary, sequential_test
from runners.stats import AGGREGATES, mean_difference

LOOKS = (5, 10, 15, 20)


def decide(a, b, planned=LOOKS, seed=0, **options):
    return sequential_test({"x": a}, {"x": b}, planned, np.random.default_rng(seed), **options)


def test_boundaries_by_hand():
    sizes = np.array([3.0, 1.0, 5.0, 3.0, 2.0])
    assert _boundary(sizes, 0, 0.0) == math.inf  # none may stop
    assert _boundary(sizes, 1, 0.0) == 3.0  # 5 is above
    assert _boundary(sizes, 2, 0.0) == 3.0  # one 3 may stop too, but not both
    assert _boundary(sizes, 3, 0.0) == 2.0
    assert _boundary(sizes, 5, 0.0) == -math.inf


def test_a_clear_difference_stops_at_the_first_look_that_can():
    """Five pairs of one sign have 2 of 32 swaps that reach them, 6 %; ten have 2 of 1024."""
    b = np.random.default_rng(1).normal(size=20)
    found = decide(b + 1, b)
    assert found.better == "a"
    assert found.ended
    assert [look.seeds for look in found.looks] == [5, 10]
    first, second = found.looks
    assert first.spent == 0.0
    assert first.boundary >= first.difference
    assert second.difference == pytest.approx(1)
    assert second.boundary < second.difference
    assert decide(b, b + 1).better == "b"


def test_several_tasks_can_decide_at_five_seeds():
    b = {task: np.random.default_rng(2).normal(size=5) for task in "xyz"}
    a = {task: x + 1 for task, x in b.items()}
    found = sequential_test(a, b, LOOKS, np.random.default_rng(0))
    assert (found.better, len(found.looks)) == ("a", 1)


def test_equal_scores_never_stop():
    x = np.random.default_rng(3).normal(size=20)
    found = decide(x, x)
    assert found.better is None
    assert found.ended
    assert len(found.looks) == 4
    assert [decide(x[:n], x[:n]).ended for n in (5, 10, 15)] == [False] * 3


def test_later_calls_repeat_the_earlier_looks():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.7, 1, 20), rng.normal(size=20)
    whole = decide(a, b)
    for n in (5, 7, 10, 15):
        so_far = decide(a[:n], b[:n]).looks
        assert so_far == whole.looks[: len(so_far)]
    # what was decided stays so, whatever came after
    early = decide(np.append(b[:10] + 3, b[10:] - 99), b)
    assert early.better == "a"
    assert early.looks[-1].seeds == 10


def test_no_look_spends_more_than_its_share():
    rng = np.random.default_rng(5)
    for figure in ("mean", "IQM"):
        found = decide(rng.normal(size=20), rng.normal(size=20), figure=AGGREGATES[figure])
        for look in found.looks:
            assert look.spent <= 0.05 * look.seeds / 20 + 1e-12
    assert found.looks[-1].spent > 0.045


def test_the_level_of_what_is_stated():
    """α · (15 - 10) / 20 at each look but the first of 10."""
    x = np.random.default_rng(6).normal(size=20)
    assert decide(x, x, (10, 15, 20)).level == pytest.approx(1 - 0.05 / 4)
    assert decide(x[:10], x[:10], (10, 15, 20)).level == pytest.approx(1 - 0.05 / 2)
    assert decide(x, x, (20,), level=0.9).level == pytest.approx(0.9)


def test_of_all_signs_a_share_of_alpha_stops():
    """Whatever the sizes of eight differences are: of all 256 signs at most 20 % stop, and many do.

    On average over the paths that stand for all, which vary this share by 0.6 %.
    """
    sizes = np.random.default_rng(7).lognormal(size=8)
    stopped = 0
    for i, signs in enumerate(itertools.product([-1.0, 1.0], repeat=8)):
        found = decide(sizes * signs, np.zeros(8), (4, 6, 8), i, level=0.8, paths=4_000)
        stopped += found.better is not None
    assert 0.15 <= stopped / 256 <= 0.2 + 3 * 0.006


def test_one_look_is_the_sign_flip_test():
    from runners.permutation import sign_flip_test

    rng = np.random.default_rng(8)
    for _ in range(40):
        a, b = {"x": rng.normal(0.8, 1, 10)}, {"x": rng.normal(size=10)}
        p = sign_flip_test(a, b, rng)
        if abs(p - 0.05) < 0.01:
            continue  # drawn paths may say either
        found = sequential_test(a, b, (10,), rng, paths=20_000)
        assert (found.better is not None) == (p < 0.05)


def shapes():
    return {
        "normal": lambda rng, n: rng.normal(size=n),
        "heavy tails": lambda rng, n: rng.standard_t(1, n),
        "bimodal": lambda rng, n: (rng.random(n) < 0.7) + rng.normal(0, 0.05, n),
        "0 or 1": lambda rng, n: (rng.random(n) < 0.5) * 1.0,
    }


EVERY_SEED = (3, 4, 5, 6, 7, 8, 9, 10)


@pytest.mark.parametrize(
    ("name", "planned"), [*((name, LOOKS) for name in shapes()), ("normal", EVERY_SEED)], ids=str
)
def test_peeking_stays_honest(name, planned):
    """Of 600 pairs of equal agents no more than 5 % and three standard errors are told apart.

    A t test at 5 % at each look errs twice as often on normal scores: were nothing spent, this
    test would notice.
    """
    draw, rng, n = shapes()[name], np.random.default_rng(9), planned[-1]
    wrong = unspent = 0
    for _ in range(600):
        a, b = draw(rng, n), draw(rng, n)
        wrong += sequential_test({"x": a}, {"x": b}, planned, rng, paths=500).better is not None
        if name == "normal":
            unspent += any(
                not lo <= 0 <= hi
                for lo, hi in (
                    mean_difference({"x": a[:k]}, {"x": b[:k]}).interval for k in planned
                )
            )
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
    assert wrong / 600 <= most
    if name == "normal":
        assert unspent / 600 > most
        assert wrong / 600 > 0.02  # it does decide


def test_bad_input():
    x = np.zeros(5)
    for planned in ((), (5, 5), (10, 5), (1, 5)):
        with pytest.raises(ValueError, match="takes rising numbers of seeds"):
            decide(x, x, planned)
    with pytest.raises(ValueError, match="got 5, takes the first of those planned, 10"):
        decide(x, x, (10, 20))
    with pytest.raises(ValueError, match="level: got 95"):
        decide(x, x, level=95)
    uneven = {"x": np.zeros(5), "y": np.zeros(6)}
    with pytest.raises(ValueError, match=r"seeds: got \[5, 6\], takes as many a task"):
        sequential_test(uneven, uneven, LOOKS, np.random.default_rng(0))
    with pytest.raises(ValueError, match="pairs of x: got 5 and 6 seeds"):
        decide(x, np.zeros(6))
