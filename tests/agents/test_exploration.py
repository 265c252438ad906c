"""Schedules and ε-greedy choice."""

from __future__ import annotations

import numpy as np
import pytest

from agents import exploration, tabular_kernels
from agents.exploration import epsilon_greedy


@pytest.mark.parametrize("linear", [exploration.linear, tabular_kernels.linear])
def test_a_schedule_at_its_points(linear):
    # From 1 to 0.1 over 1,000: at 250 a quarter of the way, 1 - 0.25 * 0.9 = 0.775
    expected = {0: 1.0, 250: 0.775, 500: 0.55, 1_000: 0.1, 5_000: 0.1}
    for lane_steps, value in expected.items():
        assert linear(lane_steps, 1.0, 0.1, 1_000.0) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("linear", [exploration.linear, tabular_kernels.linear])
def test_a_schedule_of_no_length_is_at_its_end(linear):
    assert linear(0, 1.0, 0.1, 0.0) == 0.1


def test_the_ladder_by_hand():
    # 0.4^(1 + 6 i / 3): 0.4, 0.4^3, 0.4^5, 0.4^7; a lane alone takes the share as it is
    found = exploration.ladder(0.4, 6.0, 4)
    assert found.tolist() == pytest.approx([0.4, 0.064, 0.01024, 0.0016384])
    assert exploration.ladder(0.4, 6.0, 1).tolist() == [0.4]


def test_every_lane_explores_by_its_own_share():
    values, shares = np.tile(np.array([1.0, 0.0, 0.0, 0.0]), (1, 40_000, 1)), np.zeros(40_000)
    shares[1::2] = 0.8
    actions = epsilon_greedy(values, shares, [np.random.default_rng(1)])[0]
    assert not actions[::2].any()
    # three of four random actions are others: 0.8 * 3/4 = 0.6, five deviations of 20,000
    assert abs((actions[1::2] > 0).mean() - 0.6) < 5 * np.sqrt(0.24 / 20_000)


class Draws:
    """A generator that gives these numbers."""

    def __init__(self, draws):
        self.draws = np.array(draws)

    def random(self, shape):
        assert self.draws.shape == shape
        return self.draws


def test_by_hand():
    values = np.array([[[0.0, 2.0, 1.0]] * 4])
    # lanes: 0.29 < 0.3 explores, 0.99 * 3 = 2.97 -> 2; so does lane 1: 0.0 -> 0;
    # 0.3 is not below 0.3 and 0.9 is not: the best action, 1
    draws = Draws([[0.29, 0.0, 0.3, 0.9], [0.99, 0.0, 0.99, 0.99]])
    assert epsilon_greedy(values, 0.3, [draws]).tolist() == [[2, 0, 1, 1]]


def test_frequencies():
    lanes, epsilon = 100_000, 0.4
    values = np.tile(np.array([0.0, 3.0, 1.0, 2.0]), (1, lanes, 1))
    actions = epsilon_greedy(values, epsilon, [np.random.default_rng(1)])
    share = np.bincount(actions[0], minlength=4) / lanes
    # uniform over four actions, the greedy one among them: 0.4 / 4, and 0.6 + 0.1 for the best
    expected = np.array([0.1, 0.7, 0.1, 0.1])
    five_sigma = 5 * np.sqrt(expected * (1 - expected) / lanes)
    assert (abs(share - expected) < five_sigma).all()


def test_ties_go_to_the_lowest_index():
    values = np.array([[[1.0, 5.0, 5.0], [2.0, 2.0, 2.0]]])
    assert epsilon_greedy(values, 0.0, [np.random.default_rng(0)]).tolist() == [[1, 0]]


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_the_number_of_draws_does_not_depend_on_epsilon(epsilon):
    generator, twin = np.random.default_rng(3), np.random.default_rng(3)
    epsilon_greedy(np.zeros((1, 5, 2)), epsilon, [generator])
    twin.random(10)
    assert generator.random() == twin.random()


def test_every_seed_draws_from_its_own_generator():
    values = np.zeros((2, 50, 4))
    both = epsilon_greedy(values, 1.0, [np.random.default_rng(1), np.random.default_rng(2)])
    for k, seed in enumerate((1, 2)):
        alone = epsilon_greedy(values[:1], 1.0, [np.random.default_rng(seed)])
        assert (both[k] == alone[0]).all()
    assert (both[0] != both[1]).any()
