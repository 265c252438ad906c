"""Tabular rules: one update by hand for each, SARSA's late row, ties at random."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from agents import tabular, tabular_kernels
from agents.contract import Params, Rollout
from envs.contract import Spec

SPEC = Spec((), np.int64, 3, 2)
GAMMA, LR = 0.9, 0.5
CONFIGS = {
    "q_learning": tabular.QLearningConfig,
    "sarsa": tabular.SarsaConfig,
    "expected_sarsa": tabular.ExpectedSarsaConfig,
    "double_q": tabular.DoubleQConfig,
}


def learner(rule, epsilon=0.2, **changes):
    config = CONFIGS[rule](
        lr=LR, lr_end=LR, gamma=GAMMA, epsilon_start=epsilon, epsilon_end=epsilon, **changes
    )
    made = tabular.make_learner(config, SPEC, 1, [np.random.SeedSequence(0)], [], None)
    made.q[0, 0] = [[0.0, 0.0], [1.0, 3.0], [6.0, 5.0]]
    return made


def rows(obs, action, reward, terminated=(), truncated=(), first=None):
    """Rows of one lane; ``first`` follows from the ends unless it is given."""
    count = len(action)
    ended, cut = np.zeros((2, count), bool)
    ended[list(terminated)], cut[list(truncated)] = True, True
    if first is None:
        first = [False, False, *(ended | cut)[:-1]]
    return Rollout(
        obs=np.array(obs)[:, None],
        first=np.array(first)[:, None],
        action=np.array(action)[:, None],
        reward=np.array(reward, float)[:, None],
        terminated=ended[:, None],
        truncated=cut[:, None],
    )


def changed(made, before):
    """{(table, state, action): new value} of all entries that are different."""
    places = np.argwhere(made.q[0] != before[0])
    return {tuple(int(i) for i in place): float(made.q[0][tuple(place)]) for place in places}


def observe(made, rollout):
    before = made.q.copy()
    made.observe(rollout)
    return changed(made, before)


STEP = rows([0, 1], [1], [1.0])


def test_q_learning_by_hand():
    # target 1 + 0.9 max(1, 3) = 3.7; Q(0, 1) = 0 + 0.5 * 3.7
    assert observe(learner("q_learning"), STEP) == {(0, 0, 1): pytest.approx(1.85)}


def test_expected_sarsa_by_hand():
    # v = (1 - 0.2) 3 + 0.2 * (1 + 3) / 2 = 2.8; target 1 + 0.9 * 2.8 = 3.52
    assert observe(learner("expected_sarsa"), STEP) == {(0, 0, 1): pytest.approx(1.76)}


@pytest.mark.parametrize(
    ("coin", "expected"),
    [
        # below ½: table 0 learns; its best action in state 1 is 1, table 1 values it -5
        (0.3, {(0, 0, 1): 0.5 * (1 + 0.9 * -5)}),
        # from ½ on: table 1 learns; its best action there is 0, table 0 values it 1
        (0.7, {(1, 0, 1): 0.5 * (1 + 0.9 * 1)}),
    ],
)
def test_double_q_learning_by_hand(coin, expected):
    made = learner("double_q")
    made.q[0, 1, 1] = [20.0, -5.0]
    made.coins = lambda k, count: np.array([[coin]])
    assert observe(made, STEP) == pytest.approx(expected)


@pytest.mark.parametrize(("coin", "other"), [(0.1, 7.0), (0.4, 8.0)])
def test_double_q_learning_breaks_ties_by_what_is_left_of_the_coin(coin, other):
    made = learner("double_q")
    made.q[0, 0, 1], made.q[0, 1, 1] = 2.0, [7.0, 8.0]
    made.coins = lambda k, count: np.array([[coin]])  # 0.2 and 0.8 are left: actions 0 and 1
    assert observe(made, STEP) == {(0, 0, 1): pytest.approx(0.5 * (1 + 0.9 * other))}


def test_sarsa_learns_one_row_late_with_the_action_that_was_taken():
    made = learner("sarsa")
    assert observe(made, STEP) == {}
    # in state 1 action 0 is taken: target 1 + 0.9 * Q(1, 0) = 1.9, not the maximum's 3.7
    assert observe(made, rows([1, 2], [0], [5.0])) == {(0, 0, 1): pytest.approx(0.95)}


def test_sarsa_in_one_rollout_is_sarsa_row_by_row():
    made = learner("sarsa")
    # row 0 as above; then Q(1, 0) = 1 + 0.5 * (5 + 0.9 Q(2, 1) - 1) = 1 + 0.5 * (5 + 4.5 - 1)
    found = observe(made, rows([0, 1, 2, 0], [1, 0, 1], [1.0, 5.0, 0.0]))
    assert found == {(0, 0, 1): pytest.approx(0.95), (0, 1, 0): pytest.approx(5.25)}


def test_sarsa_bootstraps_on_truncation_from_the_action_of_the_ignored_row():
    made = learner("sarsa")
    # Row 0 is truncated in state 1. Row 1 is ignored; its action, 1, is the one chosen there:
    # target 1 + 0.9 * 3. Row 2 begins an episode in state 2 and has nothing before it to learn.
    found = observe(made, rows([0, 1, 2, 0], [1, 1, 0], [1.0, 0.0, 4.0], truncated=[0]))
    assert found == {(0, 0, 1): pytest.approx(1.85)}


def test_sarsa_after_a_termination_learns_the_reward_alone():
    made = learner("sarsa")
    found = observe(made, rows([0, 1, 2, 0], [1, 1, 0], [1.0, 0.0, 4.0], terminated=[0]))
    assert found == {(0, 0, 1): pytest.approx(0.5)}


def test_sarsa_drops_the_row_that_waits_where_a_lane_begins_anew():
    made = learner("sarsa")
    made.observe(STEP)
    anew = rows([2, 1], [0], [1.0], first=[True, False])
    assert observe(made, anew) == {}
    # the row of the new episode is waiting as any other: 6 + 0.5 * (1 + 0.9 * 3 - 6)
    assert observe(made, rows([1, 0], [1], [0.0])) == {(0, 2, 0): pytest.approx(4.85)}


@pytest.mark.parametrize("rule", ["q_learning", "expected_sarsa", "double_q"])
def test_ends_and_the_ignored_row(rule):
    made, value = learner(rule), {"q_learning": 3.0, "expected_sarsa": 2.8, "double_q": 4.0}[rule]
    if rule == "double_q":
        made.q[0, 1, 1] = [0.0, 4.0]
        made.coins = lambda k, count: np.full((count, 1), 0.3)
    # The ignored row has an action and a state, and would move Q(1, 0) if it were learned.
    cut = rows([0, 1, 2], [1, 0], [1.0, 0.0], truncated=[0])
    assert observe(made, cut) == {(0, 0, 1): pytest.approx(0.5 * (1 + GAMMA * value))}
    made.q[0, 0, 0] = 0.0
    ended = rows([0, 1, 2], [1, 0], [1.0, 0.0], terminated=[0])
    assert observe(made, ended) == {(0, 0, 1): pytest.approx(0.5)}


def test_step_size_and_epsilon_go_by_the_clock():
    # lr from 0.8 to 0.2 over 4 lane steps: 0.8, 0.65, 0.5, ...; ε from 1 to 0 over 2
    config = tabular.ExpectedSarsaConfig(
        lr=0.8, lr_end=0.2, lr_steps=4, gamma=1.0, epsilon_start=1.0, epsilon_end=0.0,
        epsilon_steps=2,
    )  # fmt: skip
    made = tabular.make_learner(config, SPEC, 1, [np.random.SeedSequence(0)], [], None)
    made.q[0, 0, 1] = [0.0, 4.0]
    # ε 1: v = mean = 2; ε ½: v = ½ 4 + ½ 2 = 3; ε 0: v = 4
    q = 0.0
    for lr, v in ((0.8, 2.0), (0.65, 3.0), (0.5, 4.0)):
        made.observe(rows([0, 1], [1], [0.0]))
        q += lr * (v - q)
        assert made.q[0, 0, 0, 1] == pytest.approx(q)


def actor(q, epsilon=0.0, seed=0):
    made = tabular.make_actor(tabular.QLearningConfig(), SPEC, [np.random.default_rng(seed)])
    made.q[0, 0] = q
    made.level = epsilon
    return made


def act(made, states, explore=True):
    obs = np.array([states])
    return made.act(obs, np.zeros(obs.shape, bool), {}, {}, explore)[0][0]


def test_ties_are_broken_at_random_while_it_learns():
    made = actor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    share = act(made, [0] * 20_000).mean()
    assert abs(share - 0.5) < 5 * np.sqrt(0.25 / 20_000)
    assert set(act(made, [1] * 100)) == {1}


def test_greedy_ties_go_to_the_lowest_index():
    made = actor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert act(made, [0, 1, 2], explore=False).tolist() == [0, 1, 0]


def test_exploring_is_uniform():
    made = actor([[1.0, 0.0]] * 3, epsilon=0.5)
    share = act(made, [0] * 20_000).mean()  # half of a half
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 20_000)


def test_double_q_acts_by_both_tables():
    made = tabular.make_actor(tabular.DoubleQConfig(), SPEC, [np.random.default_rng(0)])
    made.q[0, 0, 0], made.q[0, 1, 0] = [3.0, 0.0], [0.0, 4.0]
    made.level = 0.0
    assert act(made, [0]).tolist() == act(made, [0], explore=False).tolist() == [1]


def test_the_actor_takes_a_copy_of_what_is_published():
    made = learner("q_learning")
    params: Params = made.params()
    acting = actor(np.zeros((3, 2)))
    acting.load_params(params)
    assert (acting.q == made.q).all()
    assert acting.level == 0.2
    made.q += 1.0
    assert (acting.q != made.q).all()


def test_metrics_are_means_over_the_rows_learned():
    made = learner("q_learning")
    # Row 0: Q(0, 1) = 0, target 3.7. Row 1 terminates: Q(1, 0) = 1, target 2. Row 2 is ignored.
    made.observe(rows([0, 1, 2, 0], [1, 0, 0], [1.0, 2.0, 0.0], terminated=[1]))
    found = {name: value[0] for name, value in made.metrics().items()}
    assert found["q_mean"] == pytest.approx((0 + 1) / 2)
    assert found["target_mean"] == pytest.approx((3.7 + 2) / 2)
    assert found["td_error"] == pytest.approx((3.7 + 1) / 2)
    # only an ignored row since then: what was read last
    made.observe(rows([0, 0], [1], [0.0], first=[False, True]))
    assert {name: value[0] for name, value in made.metrics().items()} == found


def test_metrics_go_over_all_rollouts_since_they_were_read():
    one, whole = learner("q_learning"), learner("q_learning")
    whole.observe(rows([0, 1, 2, 0], [1, 0, 0], [1.0, 2.0, 0.0], terminated=[1]))
    one.observe(rows([0, 1], [1], [1.0]))
    one.observe(rows([1, 2], [0], [2.0], terminated=[0], first=[False, False]))
    one.observe(rows([2, 0], [0], [0.0], first=[False, True]))
    read = [{name: value[0] for name, value in made.metrics().items()} for made in (one, whole)]
    assert read[0] == pytest.approx(read[1])
    assert read[0]["td_error"] == pytest.approx((3.7 + 1) / 2)


def masked(rollout, masks):
    return dataclasses.replace(rollout, facts={"action_mask": np.array(masks)[:, None]})


@pytest.mark.parametrize(
    ("rule", "both"), [("q_learning", 3.0), ("expected_sarsa", 2.8), ("double_q", 3.0)]
)
def test_targets_know_what_is_legal_in_the_successor(rule, both):
    """Q(1, ·) = (1, 3), ε = 0.2: max 3, mean 2, Expected SARSA 0.8 · 3 + 0.2 · 2 = 2.8.

    Where action 0 alone is legal in state 1, each of them is 1: Q(0, 1) ← 0.5 (1 + 0.9 · 1) = 0.95.
    """
    made = learner(rule)
    made.q[:] = made.q[:, :1]  # both tables alike
    free = observe(made, STEP)
    (entry,) = free
    assert free[entry] == pytest.approx(0.5 * (1 + 0.9 * both))
    made = learner(rule)
    made.q[:] = made.q[:, :1]
    after = observe(made, masked(STEP, [[1, 1], [1, 0]]))
    assert {place for place, value in after.items() if value == -np.inf} == {
        (table, 1, 1) for table in range(made.q.shape[1])
    }
    assert after[entry] == pytest.approx(0.95)


def test_an_action_that_is_legal_again_begins_anew():
    made = learner("q_learning", initial_value=7.0)
    made.observe(masked(STEP, [[1, 1], [1, 0]]))
    assert made.q[0, 0, 1].tolist() == [1.0, -np.inf]
    made.observe(masked(STEP, [[1, 1], [1, 1]]))
    assert made.q[0, 0, 1].tolist() == [1.0, 7.0]


def test_a_state_in_which_nothing_is_legal_keeps_its_values():
    made = learner("expected_sarsa")
    after = observe(made, masked(rows([0, 1], [1], [1.0], terminated=[0]), [[1, 1], [0, 0]]))
    assert after == {(0, 0, 1): 0.5}


def test_choosing_among_all_is_choosing_freely():
    rng = np.random.default_rng(0)
    q = rng.integers(3, size=(2, 2, 5, 4)).astype(float)  # ties abound
    states, draws = rng.integers(5, size=(2, 300)), rng.random((2, 300, 2))
    free = np.empty((2, 300), np.int64)
    tabular_kernels.choose_lanes(
        tabular_kernels.EPSILON_GREEDY, q, np.zeros((2, 1, 1)), states, 0.4, draws, free
    )
    values = q.mean(axis=1)[np.arange(2)[:, None], states]
    masked = tabular.choose_legal(values, np.ones(values.shape, np.int8), 0.4, draws)
    assert (masked == free).all()


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_the_choice_is_legal_and_uniform_over_the_best(epsilon):
    """Values 9, 2, 2, 1 with the first one not legal: the twos while greedy, all three otherwise."""
    values = np.broadcast_to([9.0, 2.0, 2.0, 1.0], (1, 30_000, 4))
    mask = np.broadcast_to([False, True, True, True], values.shape)
    draws = np.random.default_rng(0).random((1, 30_000, 2))
    shares = (
        np.bincount(tabular.choose_legal(values, mask, epsilon, draws)[0], minlength=4) / 30_000
    )
    expected = np.array([0, 1, 1, 1] if epsilon else [0, 1, 1, 0])
    assert np.abs(shares - expected / expected.sum()).max() < 5 * np.sqrt(0.25 / 30_000)
    assert shares[expected == 0].tolist() == [0.0] * int((expected == 0).sum())
