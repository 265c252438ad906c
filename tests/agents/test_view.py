"""The learner's view of rewards and endings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agents.replay.view import reward_and_discount


@pytest.mark.parametrize(
    ("reward", "scale", "clip", "seen"),
    [
        (3.0, 1.0, math.inf, 3.0),
        (3.0, 0.5, math.inf, 1.5),
        (3.0, 1.0, 1.0, 1.0),
        (-3.0, 1.0, 1.0, -1.0),
        (3.0, 0.5, 1.0, 1.0),  # 1.5 clipped; clipped first it would be 0.5
        (1.5, 0.5, 1.0, 0.75),
    ],
)
def test_rewards_are_scaled_and_then_clipped(reward, scale, clip, seen):
    assert reward_and_discount(reward, False, 0.9, scale, clip) == (seen, 0.9)


def test_only_a_termination_takes_the_discount():
    _, discount = reward_and_discount(0.0, np.array([False, True]), 0.9, 1.0, math.inf)
    assert discount.tolist() == [0.9, 0.0]


def test_whole_arrays():
    reward = np.array([[2.0, -4.0], [0.5, 0.0]])
    seen, discount = reward_and_discount(reward, np.eye(2, dtype=bool), 0.5, 1.0, 1.0)
    assert seen.tolist() == [[1.0, -1.0], [0.5, 0.0]]
    assert discount.tolist() == [[0.0, 0.5], [0.5, 0.0]]
