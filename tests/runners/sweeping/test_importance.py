"""What mattered: by hand on four trials, and on scores whose making is known."""

from __future__ import annotations

import numpy as np
import pytest

from runners.sweeping.importance import explained, importances
from runners.sweeping.space import Dimension

N_STEP = Dimension("n_step", "choice", choices=(1, 3))
LR = Dimension("lr", "log", 1e-4, 1e-2)
GAMMA = Dimension("gamma", "linear", 0.9, 0.999)


def test_the_share_of_the_variance_by_hand():
    # means of the groups 2 and 6, of all 4: between 2·4 + 2·4 = 16, all 9 + 1 + 1 + 9 = 20,
    # η² = 0.8, and ε² = 1 - 0.2 · 3 / 2 = 0.7
    assert explained(np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 1, 1])) == pytest.approx(0.7)
    # groups that are alike explain less than chance: 1 - 1 · 3 / 2
    assert explained(np.array([1.0, 3.0, 3.0, 1.0]), np.array([0, 0, 1, 1])) == pytest.approx(-0.5)


def made(score, trials=24, seed=0):
    generator = np.random.default_rng(seed)
    values = [
        {
            "lr": float(10 ** generator.uniform(-4, -2)),
            "n_step": int(generator.choice([1, 3])),
            "gamma": float(generator.uniform(0.9, 0.999)),
        }
        for _ in range(trials)
    ]
    scores = [score(v) + generator.normal(0, 0.3) for v in values]
    return {one.name: one for one in importances((GAMMA, LR, N_STEP), values, scores)}


def test_what_makes_the_score_comes_first_and_what_does_not_is_said_to_be_chance():
    found = made(lambda v: 3 * np.log10(v["lr"]) + (v["n_step"] == 3))
    assert next(iter(found)) == "lr"
    assert found["lr"].share > 0.7
    assert found["lr"].p < 0.002
    assert found["lr"].trend > 0.9
    assert found["gamma"].share < 0.2
    assert found["gamma"].p > 0.05


def test_a_peak_in_the_middle_is_found_though_it_has_no_trend():
    found = made(lambda v: -3 * abs(np.log10(v["lr"]) + 3), trials=40)
    assert next(iter(found)) == "lr"
    assert found["lr"].share > 0.4
    assert abs(found["lr"].trend) < 0.4


def test_chance_looks_like_something_no_more_often_than_p_says():
    p = [one.p for seed in range(60) for one in made(lambda v: 0.0, seed=seed).values()]
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.1  # 180 of them


def test_texts_have_no_trend_and_few_trials_no_importance():
    names = Dimension("hidden", "choice", choices=((64, 64), (32,)))
    values = [{"hidden": names.choices[i % 2]} for i in range(10)]
    (one,) = importances((names,), values, [float(i % 2) for i in range(10)])
    assert one == ("hidden", 1.0, pytest.approx(one.p), None)
    assert importances((names,), values[:7], [1.0] * 6 + [2.0]) == []
    assert importances((names,), values, [1.0] * 10) == []
