"""Dyna-Q, Dyna-Q+ and prioritized sweeping: by hand, against the book's boxes, and without a plan."""

from __future__ import annotations

import numpy as np
import pytest

from agents import tabular
from agents.contract import Rollout
from agents.tabular_models import imagine
from envs.contract import Spec
from tests.agents.tables import EPSILON, GAMMA, LR, blank, cut, episodes, make, random_rows
from tests.agents.test_tabular import observe, rows

DYNA, PLUS, SWEEP = tabular.DynaQConfig, tabular.DynaQPlusConfig, tabular.PrioritizedSweepingConfig
SPEC = Spec((), np.int64, 5, 3)
PLAIN = {"lr": LR, "lr_end": LR, "gamma": GAMMA, "epsilon_start": EPSILON, "epsilon_end": EPSILON}
STEP = rows([0, 1], [1], [1.0])


def test_dyna_q_by_hand():
    # learned: 0.5 (1 + 0.9 · 3) = 1.85; planned, the one pair known: 1.85 + 0.5 (3.7 - 1.85)
    assert observe(make(DYNA, planning_steps=1), STEP) == {(0, 0, 1): pytest.approx(2.775)}


def test_dyna_q_plus_by_hand():
    # learned: 1.85. The draw falls on action 0, not tried in 1 step: 0.5 (0 + κ √1 + 0.9 · 1.85)
    made = make(PLUS, planning_steps=1, kappa=0.2)
    made.coins = lambda k, count: np.zeros((count, 3))
    found = observe(made, STEP)
    assert found[0, 0, 1] == pytest.approx(1.85)
    assert found[0, 0, 0] == pytest.approx(0.5 * (0.2 + 0.9 * 1.85))


def test_prioritized_sweeping_by_hand():
    # (1, 1) pays 5 and ends: Q(1, 1) = 3 + 0.5 · 2 = 4. What is known to lead to state 1 is (0, 1):
    # it was 1.85 behind its own update, and 1 + 0.9 · 4 = 4.6 is aimed at now: 3.225. Then (1, 1)
    # has the larger error no more: 0.5 (5 - 4) was not queued, nothing leads there from behind.
    made = make(SWEEP, planning_steps=1)
    assert observe(made, STEP) == {(0, 0, 1): pytest.approx(1.85)}
    made = make(SWEEP, planning_steps=2)
    made.config = type(made.config)(**{**PLAIN, "planning_steps": 1})
    made.observe(STEP)
    made.config = type(made.config)(**{**PLAIN, "planning_steps": 2})
    found = observe(made, rows([1, 2], [1], [5.0], terminated=[0], first=[False, False]))
    assert found == {(0, 1, 1): pytest.approx(4.0), (0, 0, 1): pytest.approx(3.225)}


@pytest.mark.parametrize("config", [DYNA, PLUS, SWEEP])
def test_ends_the_ignored_row_and_a_new_lane(config):
    """Row 0 ends, row 1 is ignored; the model knows the one pair, and where the episode ended."""
    for ends, value in ((([0], []), 1.0), (([], [0]), 1 + 0.9 * 3)):
        made = make(config, planning_steps=60, outcomes=2)
        found = observe(made, rows([0, 1, 2], [1, 0], [1.0, 7.0], *ends))
        share = 0.5 if config is SWEEP else 1.0  # one update a change: nothing leads to the pair
        if config is not PLUS:
            assert found == {(0, 0, 1): pytest.approx(share * value)}
        assert made.memory["tried"][0].tolist() == [[0, 1], [0, 0], [0, 0]]
        before = made.memory["tried"].sum()
        made.observe(rows([2, 1], [0], [1.0], first=[True, False]))
        assert made.memory["tried"].sum() == before + 1  # nothing of the row before it


def walk(seed, count, states=5, actions=3):
    """Rows of a world in which nothing is random but the actions."""
    rng = np.random.default_rng(seed)
    table, pay = rng.integers(states, size=(states, actions)), rng.normal(size=(states, actions))
    ends, whole = rng.random((states, actions)) < 0.15, random_rows(seed, count)
    state, done, whole.truncated[:] = 0, False, False
    for t in range(count):
        s, a = int(state), int(whole.action[t, 0])
        whole.obs[t, 0], whole.first[t + 1, 0] = s, done
        if done:
            state, done, whole.reward[t, 0] = rng.integers(states), False, 0.0
        else:
            state, done, whole.reward[t, 0] = table[s, a], bool(ends[s, a]), pay[s, a]
        whole.terminated[t, 0] = done
    whole.obs[count, 0] = state
    return whole


def steps_of(whole):
    """(t, s, a, r, discount, s') of the rows that are no ignored ones."""
    for t in range(whole.rows):
        if not whole.first[t + 1, 0]:
            discount = 0.0 if whole.terminated[t, 0] else GAMMA
            yield (
                t, int(whole.obs[t, 0]), int(whole.action[t, 0]), float(whole.reward[t, 0]),
                discount, int(whole.obs[t + 1, 0]),
            )  # fmt: skip


def dyna(q, whole, coins, planning, kappa=None):
    """The box of Dyna-Q in Sutton & Barto 2018, section 8.2; with κ that of Dyna-Q+, section 8.3."""
    model, tried_at, seen = {}, {}, []
    for now, (t, s, a, r, discount, s2) in enumerate(steps_of(whole), start=1):
        q[s, a] += LR * (r + discount * q[s2].max() - q[s, a])
        model[s, a], tried_at[s, a] = (r, discount, s2), now
        if s not in seen:
            seen.append(s)
        for i in range(planning):
            x = seen[int(coins[t, 3 * i] * len(seen))]
            known = [b for b in range(q.shape[1]) if kappa is not None or (x, b) in model]
            b = known[int(coins[t, 3 * i + 1] * len(known))]
            pay, gamma, y = model.get((x, b), (0.0, GAMMA, x))
            if kappa is not None:
                pay += kappa * np.sqrt(now - tried_at.get((x, b), 0))
            q[x, b] += LR * (pay + gamma * q[y].max() - q[x, b])


def sweeping(q, whole, planning, theta):
    """Section 8.4, its box with the expected update of a model that counts; a plain search for the
    most urgent pair."""
    seen, queue = {}, {}

    def expected(pair):
        outcomes = seen[pair]
        total = sum(weight for weight, _ in outcomes.values())
        return (
            sum(
                weight * (paid / weight + discount * q[y].max())
                for (y, discount), (weight, paid) in outcomes.items()
            )
            / total
        )

    def consider(pair):
        error = abs(expected(pair) - q[pair])
        if error > theta:
            queue[pair] = max(error, queue.get(pair, 0.0))

    for _, s, a, r, discount, s2 in steps_of(whole):
        outcomes = seen.setdefault((s, a), {})
        weight, paid = outcomes.get((s2, discount), (0, 0.0))
        outcomes[s2, discount] = weight + 1, paid + r
        consider((s, a))
        for _ in range(planning):
            if not queue:
                break
            pair = max(queue, key=queue.get)
            del queue[pair]
            q[pair] += LR * (expected(pair) - q[pair])
            for former, outcomes in seen.items():
                if any(y == pair[0] for y, _ in outcomes):
                    consider(former)


def start():
    return np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize(("config", "more"), [(DYNA, {}), (PLUS, {"kappa": 0.05})])
def test_dyna_is_the_books_box_where_nothing_is_random(config, more):
    whole, q = walk(1, 300), start()
    learner = blank(config(**PLAIN, planning_steps=4, outcomes=2, **more), SPEC, q=q)
    coins = np.random.default_rng(9).random((300, 12))
    left = [coins[:1], coins[1:100], coins[100:]]
    learner.coins = lambda k, count: left.pop(0)
    for part in cut(whole, 1, 99, 200):
        learner.observe(part)
    dyna(q, whole, coins, 4, **more)
    assert sum(how == "terminated" for *_, how in episodes(whole)) > 5
    np.testing.assert_allclose(learner.q[0, 0], q, rtol=1e-9, atol=1e-12)
    assert np.abs(q - start()).max() > 0.1


@pytest.mark.parametrize("rows_of", [walk, random_rows])
@pytest.mark.parametrize("planning", [1, 5])
def test_prioritized_sweeping_is_the_books_box(rows_of, planning):
    whole, q = rows_of(2, 300), start()
    config = SWEEP(**PLAIN, planning_steps=planning, outcomes=10, threshold=0.01)
    learner = blank(config, SPEC, q=q)
    for part in cut(whole, 1, 99, 200):
        learner.observe(part)
    sweeping(q, whole, planning, 0.01)
    assert np.abs(q - start()).max() > 0.1
    np.testing.assert_allclose(learner.q[0, 0], q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("config", [DYNA, PLUS])
def test_dyna_without_a_plan_is_q_learning_bit_for_bit(config):
    whole, tables = random_rows(3, 400, lanes=3), []
    for made in (config(**PLAIN, planning_steps=0), tabular.QLearningConfig(**PLAIN)):
        learner = blank(made, SPEC, 3, q=start())
        learner.observe(whole)
        tables.append(learner.q)
    assert np.array_equal(*tables)


def test_the_model_draws_outcomes_as_often_as_they_were_seen():
    """State 0 led to 1 three times and to 2 once; step size 1, so Q(0, 0) is one of two values."""
    learner = make(DYNA, planning_steps=1, lr=1.0, lr_end=1.0, outcomes=4)
    for successor in (1, 2, 1, 1):
        learner.observe(rows([0, successor], [0], [0.0]))
    model, share, count = learner.remembered(0), 0, 4_000
    for draw in np.random.default_rng(0).random(count):
        learner.q[0, 0] = [[0.0, 0.0], [1.0, 3.0], [6.0, 5.0]]
        imagine(False, learner.q[0], model, learner.config.numbers(), 1.0, 0.0, 0.0, draw)
        value = float(learner.q[0, 0, 0, 0])
        assert value in (pytest.approx(0.9 * 3), pytest.approx(0.9 * 6))
        share += value == pytest.approx(0.9 * 3)
    assert abs(share / count - 0.75) < 5 * np.sqrt(0.75 * 0.25 / count)


@pytest.mark.parametrize("config", [DYNA, SWEEP])
def test_one_outcome_too_many_takes_the_rarests_place(config):
    learner = make(config, planning_steps=3, outcomes=2)
    for successor in (1, 1, 2, 2, 0, 1):
        learner.observe(rows([0, successor], [0], [float(successor)]))
    kept = dict(
        zip(learner.memory["successor"][0, 0, 0], learner.memory["weight"][0, 0, 0], strict=True)
    )
    # 1 and 2 twice each; 0 took the place of 1, the first of the rarest, and 1 that of 0
    assert kept == {1: 1.0, 2: 2.0}
    assert learner.memory["tried"][0, 0, 0] == 3.0
    if config is SWEEP:
        before, link = learner.memory["before"][0], learner.memory["link"][0]
        led = {s: [before[s]] for s in range(3) if before[s] >= 0}
        assert {s: [int(n) for n in numbers] for s, numbers in led.items()} == {1: [0], 2: [1]}
        assert link[0] == link[1] == -1


def masked(rollout, masks):
    return Rollout(
        rollout.obs, rollout.first, rollout.action, rollout.reward, rollout.terminated,
        rollout.truncated, {"action_mask": np.array(masks)[:, None]},
    )  # fmt: skip


@pytest.mark.parametrize("config", [DYNA, PLUS, SWEEP])
def test_what_is_not_legal_any_more_is_not_planned(config):
    learner = make(config, planning_steps=20)
    learner.observe(STEP)
    learner.observe(masked(rows([1, 0], [0], [1.0]), [[1, 1], [1, 0]]))
    assert learner.q[0, 0, 0, 1] == -np.inf
    assert np.isfinite(learner.q[0, 0, 0, 0])
    assert not np.isnan(learner.q).any()
