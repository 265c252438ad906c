"""Running statistics against NumPy's over the whole stream, and rewards scaled in a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from agents.running import RewardScale, Running, normalised


def test_mean_and_deviation_are_those_of_the_whole_stream():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, [0.1, 10.0, 1e-3], (200, 2, 3))
    counts = rng.random((200, 2)) < 0.7
    made = Running(2, (3,))
    for t in range(200):
        made.add(x[t : t + 1], counts[t : t + 1])
        for k in range(2):
            seen = x[: t + 1, k][counts[: t + 1, k]]
            if len(seen):
                np.testing.assert_allclose(made.mean[k], seen.mean(0), rtol=1e-12)
            variance = seen.var(0, ddof=1) if len(seen) > 1 else np.ones(3)
            np.testing.assert_allclose(made.deviation()[k], np.sqrt(variance + 1e-8), rtol=1e-9)


@pytest.mark.parametrize("cut", [1, 2, 50, 99])
def test_rows_at_once_are_rows_one_by_one(cut):
    """Of bytes too, whose squares do not fit a byte."""
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (100, 2, 3)).astype(np.uint8)
    counts = rng.random((100, 2)) < 0.5
    made = Running(2, (3,))
    made.add(x[:cut], counts[:cut])
    made.add(x[cut:], counts[cut:])
    for k in range(2):
        seen = x[:, k][counts[:, k]].astype(np.float64)
        np.testing.assert_allclose(made.mean[k], seen.mean(0), rtol=1e-12)
        np.testing.assert_allclose(made.deviation()[k] ** 2, seen.var(0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_a_seed_of_a_group_has_the_bits_of_a_seed_alone(shape):
    rng = np.random.default_rng(3)
    x, counts = rng.normal(size=(200, 4, *shape)), rng.random((200, 4)) < 0.7
    together = Running(4, shape)
    together.add(x, counts)
    for k in range(4):
        alone = Running(1, shape)
        alone.add(x[:, k : k + 1], counts[:, k : k + 1])
        assert np.array_equal(alone.mean[0], together.mean[k])
        assert np.array_equal(alone.squares[0], together.squares[k])


def test_what_was_published_stays_as_it_was():
    made = Running(1, (2,))
    made.add(np.array([[[1.0, 2.0]]]), np.ones((1, 1), bool))
    mean = made.mean
    made.add(np.array([[[3.0, 6.0]]]), np.ones((1, 1), bool))
    assert mean.tolist() == [[1.0, 2.0]]
    assert made.mean.tolist() == [[2.0, 4.0]]


def test_normalised_by_hand():
    # (5 - 1) · ½ = 2, (5 - 9) · ¼ = -1
    seen = normalised(np.array([5, 5]), np.array([1.0, 9.0]), np.array([0.5, 0.25]))
    assert (seen.tolist(), seen.dtype) == ([2.0, -1.0], np.float32)


def test_rewards_are_scaled_as_in_a_plain_loop():
    rng = np.random.default_rng(1)
    rewards, seeds, gamma = rng.normal(1.0, 2.0, (300, 2)), 2, 0.9
    done = rng.random((300, 2)) < 0.1
    valid = np.ones((300, 2), bool)
    valid[1:] = ~done[:-1]  # the row behind an end is ignored
    done &= valid
    made = RewardScale(seeds, gamma)
    totals, u = [[], []], [0.0, 0.0]
    for t in range(300):
        made.add(rewards[t], done[t], valid[t])
        for k in range(seeds):
            if valid[t, k]:
                u[k] = (0.0 if done[t, k] else gamma * u[k]) + rewards[t, k]
                totals[k].append(u[k])
            spread = np.std(totals[k], ddof=1) if len(totals[k]) > 1 else 1.0
            np.testing.assert_allclose(made.unit()[k], np.sqrt(spread**2 + 1e-8), rtol=1e-9)


def test_a_rewards_unit_by_hand():
    # γ = ½: u = 4; ½ · 4 + 2 = 4, as before: deviation 0; an end: u = 1 alone, and then ½ · 1 + 0 = ½
    made, true, false = RewardScale(1, 0.5), np.ones(1, bool), np.zeros(1, bool)
    found = []
    for reward, done in ((4.0, false), (2.0, false), (1.0, true), (0.0, false)):
        made.add(np.array([reward]), done, true)
        found.append(float(made.unit()[0]) ** 2)
    # 1 for want of a second; 0; of 4, 4, 1: mean 3, (1 + 1 + 4) / 2 = 3; of 4, 4, 1, ½: mean 2.375,
    # (2 · 1.625² + 1.375² + 1.875²) / 3 = 3.5625
    np.testing.assert_allclose(found, [1.0, 0.0, 3.0, 3.5625], atol=1e-7)
