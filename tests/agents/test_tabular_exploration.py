"""How tables explore: softmax and confidence bounds, by hand and by their frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from agents import tabular, tabular_kernels
from agents.hyper import BadValue
from agents.tabular_kernels import BOLTZMANN, EPSILON_GREEDY, UCB
from envs.contract import Spec
from tests.agents.tables import LR, make
from tests.agents.test_tabular import masked, observe, rows

SPEC = Spec((), np.int64, 3, 4)
COUNT = 30_000


def actor(exploration, q, visits=None, level=1.0, config=tabular.QLearningConfig):
    made = tabular.make_actor(config(exploration=exploration), SPEC, [np.random.default_rng(0)])
    made.q[0, 0, 0], made.level = q, level
    if visits is not None:
        made.visits[0, 0] = visits
    return made


def shares(made, mask=None):
    obs = np.zeros((1, COUNT), np.int64)
    facts = {} if mask is None else {"action_mask": np.broadcast_to(mask, (1, COUNT, 4))}
    actions, _, _ = made.act(obs, obs == 1, facts, {}, True)
    return np.bincount(actions[0], minlength=4) / COUNT


def close(found, expected):
    expected = np.array(expected)
    five_sigma = 5 * np.sqrt(expected * (1 - expected) / COUNT)
    return (abs(found - expected) <= five_sigma).all()


def test_softmax_by_its_frequencies():
    # T = 2, Q = (0, 2 ln 2, 2 ln 5, -inf): weights 1, 2, 5, 0
    q = [0.0, 2 * np.log(2), 2 * np.log(5), -np.inf]
    assert close(shares(actor("boltzmann", q, level=2.0)), [1 / 8, 2 / 8, 5 / 8, 0])
    # action 2 is not legal
    masked_shares = shares(actor("boltzmann", q, level=2.0), [True, True, False, True])
    assert close(masked_shares, [1 / 3, 2 / 3, 0, 0])


def test_softmax_of_two_tables_goes_by_their_mean():
    made = actor("boltzmann", 0.0, config=tabular.DoubleQConfig)
    made.q[0, :, 0] = [[0.0, 0.0, 0.0, 0.0], [0.0, 2 * np.log(2), 2 * np.log(3), 2 * np.log(4)]]
    assert close(shares(made), np.array([1, 2, 3, 4]) / 10)
    assert close(shares(made, np.ones(4, bool)), np.array([1, 2, 3, 4]) / 10)


@pytest.mark.parametrize("mask", [None, np.ones(4, bool)])
def test_a_cold_softmax_is_greedy(mask):
    assert shares(actor("boltzmann", [1.0, 2.0, 2.0, -1e9], level=1e-9), mask).tolist()[0::3] == [
        0,
        0,
    ]


@pytest.mark.parametrize("mask", [None, np.ones(4, bool)])
def test_bounds_of_two_tables_go_by_their_mean(mask):
    # means 1, 0.5, 1, 0; bounds as below with c = 1, and below all of them at 0 with N = 1000
    visits = [8, 2, 6, 0]
    made = actor("ucb", 0.0, visits, 1.0, config=tabular.DoubleQConfig)
    made.q[0, :, 0] = [[2.0, 1.0, 2.0, -np.inf], [0.0, 0.0, 0.0, -np.inf]]
    # 1 + √(2.77 / 8) = 1.589, 0.5 + √(2.77 / 2) = 1.677, 1 + √(2.77 / 6) = 1.680
    assert shares(made, mask)[2] == 1.0
    made.q[0, :, 0] = [[2.0, 1.02, 2.0, -np.inf], [0.0, 0.0, 0.0, -np.inf]]
    assert (
        shares(made, mask)[1] == 1.0
    )  # 0.51 + 1.177 = 1.687; by sums it would be 1.02 + 1.177 of 2 + 0.680


@pytest.mark.parametrize("mask", [None, np.ones(4, bool)])
def test_bounds_by_hand(mask):
    # N(s) = 16, ln 16 = 2.77. Bounds with c = 1: 1 + √(2.77 / 8) = 1.589, 0.5 + √(2.77 / 2) = 1.677,
    # 1 + √(2.77 / 6) = 1.680, -inf; with c = 0.9: 1.530, 1.560, 1.612; with c = 2: action 1
    visits, q = [8, 2, 6, 0], [1.0, 0.5, 1.0, -np.inf]
    for c, best in ((1.0, 2), (0.9, 2), (2.0, 1)):
        assert shares(actor("ucb", q, visits, c), mask)[best] == 1.0
    # what was never tried comes first, ties at random
    assert close(
        shares(actor("ucb", [9.0, 0.0, -5.0, -np.inf], [3, 0, 0, 0]), mask), [0, 0.5, 0.5, 0]
    )


def test_bounds_are_among_what_is_legal():
    made = actor("ucb", [1.0, 0.5, 1.0, 0.0], [8, 2, 6, 0])
    assert shares(made, [True, False, True, False])[2] == 1.0


@pytest.mark.parametrize("exploration", ["boltzmann", "ucb"])
def test_evaluation_is_greedy(exploration):
    made = actor(exploration, [1.0, 3.0, 3.0, 0.0], level=100.0)
    assert made.act(np.zeros((1, 1), int), None, {}, {}, False)[0].tolist() == [[1]]


def test_expected_sarsa_under_a_softmax():
    # Q(1, ·) = (1, 3), T = 2 / ln 3: weights 1 and 3, v = (1 + 9) / 4 = 2.5; bounds: the best, 3
    t = 2 / np.log(3)
    hot = {"exploration": "boltzmann", "temperature_start": t, "temperature_end": t}
    for more, v in ((hot, 2.5), ({"exploration": "ucb"}, 3.0)):
        made = make(tabular.ExpectedSarsaConfig, **more)
        found = observe(made, rows([0, 1], [1], [1.0]))
        assert found == {(0, 0, 1): pytest.approx(LR * (1 + 0.9 * v))}


def test_expected_sarsa_under_a_softmax_among_what_is_legal():
    made = make(tabular.ExpectedSarsaConfig, exploration="boltzmann")
    found = observe(made, masked(rows([0, 1], [1], [1.0]), [[1, 1], [1, 0]]))
    assert found[0, 0, 1] == pytest.approx(LR * (1 + 0.9 * 1))


@pytest.mark.parametrize("explore", [EPSILON_GREEDY, BOLTZMANN, UCB])
def test_probabilities_are_those_of_the_mean(explore):
    q = np.array([[[1.0, 3.0, 3.0, -np.inf], [0.5, 0.1, 0.2, 0.3]]])
    for state in range(2):
        share = [float(_probability(explore, q, state, a)) for a in range(4)]
        legal = q[0, state] > -np.inf
        assert sum(share) == pytest.approx(1)
        assert share @ np.where(legal, q[0, state], 0) == pytest.approx(_mean(explore, q, state))
    assert _probability(EPSILON_GREEDY, q, 0, 1) == pytest.approx(0.7 / 2 + 0.3 / 3)


def _probability(explore, q, state, action):
    return tabular_kernels.probability(explore, q, state, action, 0.3)


def _mean(explore, q, state):
    return tabular_kernels.expected_value(explore, q, 0, state, 0.3)


def test_temperature_and_visits_travel_with_the_table():
    # T from 1 to 0.2 over 4 lane steps: 0.8 behind one
    made = make(
        tabular.SarsaConfig, exploration="boltzmann", temperature_end=0.2, temperature_steps=4
    )
    made.observe(rows([0, 1], [1], [1.0]))
    params = made.params()
    assert params.scalars == {"epsilon": 0.0, "level": pytest.approx(0.8)}
    made = make(tabular.SarsaConfig, exploration="ucb", ucb_c=0.7)
    # the ignored row, 1, is no visit
    made.observe(rows([0, 1, 2, 0], [1, 1, 0], [1.0, 0.0, 4.0], truncated=[0]))
    params = made.params()
    acting = tabular.make_actor(made.config, Spec((), np.int64, 3, 2), [np.random.default_rng(0)])
    acting.load_params(params)
    assert (acting.level, acting.visits[0].tolist()) == (0.7, [[0, 1], [0, 0], [1, 0]])
    made.visits += 1.0
    assert acting.visits.sum() == params.tensors["visits"].sum() == 2


def test_a_temperature_is_above_0():
    with pytest.raises(BadValue, match="temperature_end"):
        tabular.QLearningConfig(temperature_end=0.0)
