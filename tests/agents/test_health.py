"""Measures of value health, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import health
from agents.learner import relative_distance, td_quantiles


def test_monte_carlo_of_an_episode_that_ended():
    # backwards: 4; 2 + 0.5 * 4 = 4; 1 + 0.5 * 4 = 3. The tail is behind a discount of 0.
    returns = health.monte_carlo(np.array([1.0, 2, 4]), np.array([0.5, 0.5, 0]), tail=1e9)
    assert returns.tolist() == [3, 4, 4]


def test_monte_carlo_of_one_that_was_cut_off_ends_with_its_tail():
    # 2 + 0.5 * 8 = 6; 1 + 0.5 * 6 = 4
    assert health.monte_carlo(np.array([1.0, 2]), np.full(2, 0.5), tail=8.0).tolist() == [4, 6]
    assert health.monte_carlo(np.zeros(0), np.zeros(0), tail=8.0).tolist() == []


VALUES = np.array([[1.0, 3, 2], [5, 5, 0], [-1, -4, -2]])


def test_greedy_value_breaks_ties_to_the_lowest_index():
    actions, values = health.greedy_value(VALUES)
    assert (actions.tolist(), values.tolist()) == ([1, 0, 0], [3, 5, -1])


def test_greedy_value_of_legal_actions():
    legal = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 0]], bool)
    actions, values = health.greedy_value(VALUES, legal)
    assert (actions.tolist(), values.tolist()) == ([2, 1, 1], [2, 5, -4])


def test_action_gap():
    # 3 - 2, 5 - 5, -1 - -2
    assert health.action_gap(VALUES) == pytest.approx(2 / 3)


def test_action_gap_of_legal_actions():
    # 2 - 1, 5 - 0; the last state has one legal action, which is no choice
    legal = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 0]], bool)
    assert health.action_gap(VALUES, legal) == pytest.approx((1 + 5) / 2)
    assert np.isnan(health.action_gap(VALUES[2:], legal[2:]))
    assert np.isnan(health.action_gap(VALUES[:, :1]))


def test_churn_is_the_share_that_changed():
    assert health.churn(np.array([0, 1, 2, 1]), np.array([0, 2, 2, 0])) == 0.5
    assert np.isnan(health.churn(np.zeros(0), np.zeros(0)))


def test_dead_units_are_0_at_every_state():
    # of the first layer one unit of three is 0 at both states, of the second both of two; 3 of 5
    layers = [np.array([[0.0, 1, 0], [2, 0, 0]]), np.zeros((2, 2))]
    assert health.dead_units(layers) == pytest.approx(3 / 5)
    assert np.isnan(health.dead_units([]))


def test_a_feature_map_is_one_unit():
    maps = np.zeros((2, 3, 4, 4))  # 2 states, 3 maps
    maps[1, 0, 2, 3] = 1.0  # alive at one place of one state
    assert health.dead_units([maps]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("singular", "rank"),
    [
        ((1, 1, 1), 3),  # 1/3, 2/3, 1
        ((98, 1, 1), 2),  # 0.98 < 0.99, 0.99
        ((99, 0.5, 0.5), 1),  # 0.99 is enough
        ((1, 0, 0), 1),
        ((0, 0, 0), 0),
    ],
)
def test_effective_rank_of_given_singular_values(singular, rank):
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(5, 3)))
    right, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    # exact shares lie on the bound; a little more of the first keeps rounding out of it
    features = left @ np.diag(np.array(singular) * [1 + 1e-9, 1, 1]) @ right
    assert health.effective_rank(features) == rank


def test_td_quantiles_are_signed_and_in_raw_reward_units():
    # errors 0..20 in tenths of a reward; of 21 sorted ones the 5 % point is the second
    metrics = {"target_mean": torch.arange(21.0)[None] + 3, "q_mean": torch.full((1, 21), 3.0)}
    found = {name: value.tolist() for name, value in td_quantiles(metrics, 0.1).items()}
    assert found == {"td_p5": [10.0], "td_p50": [100.0], "td_p95": [190.0]}
    swapped = {"target_mean": metrics["q_mean"], "q_mean": metrics["target_mean"]}
    assert td_quantiles(swapped, 0.1)["td_p95"].tolist() == [-10.0]
    assert td_quantiles({}, 0.1) == {}


def test_td_quantiles_leave_out_rows_without_weight():
    metrics = {
        "target_mean": torch.tensor([[1.0, 500.0, 1.0], [2.0, 2.0, 500.0]]),
        "q_mean": torch.zeros(2, 3),
    }
    found = td_quantiles(metrics, 1.0, torch.tensor([[1.0, 0, 1], [1, 1, 0]]))
    assert [value.tolist() for value in found.values()] == [[1, 2]] * 3


def test_relative_distance_of_each_seed():
    # |(3, 4)| / |(0, 5)| = 1; nothing
    online, target = torch.tensor([[3.0, 9], [1, 1]]), torch.tensor([[0.0, 5], [1, 1]])
    assert relative_distance(online, target).tolist() == [1.0, 0.0]
