"""n-step SARSA, tree backup and Q(σ): by hand, against the book's loops, and where they are one."""

from __future__ import annotations

import numpy as np
import pytest

from agents import tabular
from envs.contract import Spec
from tests.agents.tables import EPSILON, GAMMA, LR, blank, cut, episodes, make, random_rows
from tests.agents.test_tabular import observe, rows

N_STEP, TREE, SIGMA = tabular.NStepSarsaConfig, tabular.TreeBackupConfig, tabular.QSigmaConfig
SPEC = Spec((), np.int64, 5, 3)
PLAIN = {"lr": LR, "lr_end": LR, "gamma": GAMMA, "epsilon_start": EPSILON, "epsilon_end": EPSILON}
# Q(1, ·) = (1, 3) and Q(2, ·) = (6, 5), ε = 0.2: V(1) = 0.8 · 3 + 0.2 · 2 = 2.8, V(2) = 5.9
THREE = rows([0, 1, 2, 0], [1, 0, 1], [1.0, 5.0, 0.0])


def test_n_step_sarsa_by_hand():
    # n = 2: G = 1 + 0.9 · 5 + 0.81 Q(2, 1) = 5.5 + 0.81 · 5 = 9.55, when action 1 is known in 2
    made = make(N_STEP, n_step=2)
    first, last = cut(THREE, 2, 1)
    assert observe(made, first) == {}
    assert observe(made, last) == {(0, 0, 1): pytest.approx(0.5 * 9.55)}


def test_tree_backup_by_hand():
    # G₁ = 5 + 0.9 · 5.9 = 10.31; π(0|1) = 0.1, π(1|1) = 0.9
    # G₀ = 1 + 0.9 (0.9 · 3 + 0.1 · 10.31) = 1 + 0.9 · 3.731 = 4.3579, as soon as state 2 is known
    made = make(TREE, n_step=2)
    first, last = cut(THREE, 1, 2)
    assert observe(made, first) == {}
    second, _ = cut(last, 1, 1)
    assert observe(made, second) == {(0, 0, 1): pytest.approx(0.5 * 4.3579)}


def test_q_sigma_by_hand():
    # σ = ½. G₁ = 5 + 0.9 (½ · 5 + ½ · 5.9) = 9.905
    # G₀ = 1 + 0.9 (½ · 9.905 + ½ (2.8 + 0.1 (9.905 - 1))) = 1 + 0.9 · 6.79775 = 7.117975
    made = make(SIGMA, n_step=2, sigma=0.5)
    assert observe(made, THREE) == {(0, 0, 1): pytest.approx(0.5 * 7.117975)}


# Row 0 ends its episode in state 1, row 1 is ignored with action 1, row 2 begins in state 2.
@pytest.mark.parametrize(
    ("config", "value"), [(N_STEP, 3.0), (TREE, 2.8), (SIGMA, 0.5 * 3.0 + 0.5 * 2.8)]
)
@pytest.mark.parametrize("n_step", [1, 3])
def test_truncation_bootstraps_and_termination_does_not(config, value, n_step):
    found = observe(make(config, n_step=n_step), rows([0, 1, 2, 0], [1, 1, 0], [1, 0, 4], (), [0]))
    at = {place: v for place, v in found.items() if place[1] == 0}
    assert at == {(0, 0, 1): pytest.approx(0.5 * (1 + 0.9 * value))}
    found = observe(make(config, n_step=n_step), rows([0, 1, 2, 0], [1, 1, 0], [1, 0, 4], [0]))
    at = {place: v for place, v in found.items() if place[1] == 0}
    assert at == {(0, 0, 1): pytest.approx(0.5)}


def test_an_end_leaves_nothing_waiting():
    # rows 0 and 1 end in state 2: Q(0, 1) ← ½ (1 + 0.9 · 5), then Q(1, 0) ← 1 + ½ (5 - 1)
    made = make(N_STEP, n_step=5)
    found = observe(made, rows([0, 1, 2, 0], [1, 0, 1], [1.0, 5.0, 0.0], terminated=[1]))
    assert found == {(0, 0, 1): pytest.approx(2.75), (0, 1, 0): pytest.approx(3.0)}
    assert made.memory["held"].tolist() == [[0]]


@pytest.mark.parametrize("config", [N_STEP, TREE, SIGMA])
def test_a_lane_that_begins_anew_drops_what_waits(config):
    made = make(config, n_step=3)
    made.observe(rows([0, 1, 2], [1, 0], [1.0, 5.0]))
    assert made.memory["held"].tolist() == [[2]]
    assert observe(made, rows([2, 1], [0], [1.0], first=[True, False])) == {}
    assert made.memory["held"].tolist() == [[1]]


def policy(q, s):
    """π(·|s), ε-greedy; no two values of a random table are the same."""
    share = np.full(len(q[s]), EPSILON / len(q[s]))
    share[q[s].argmax()] += 1 - EPSILON
    return share


def mean(q, s):
    return float(policy(q, s) @ q[s])


def n_step_sarsa(q, n, states, actions, rewards, how):
    """Sutton & Barto 2018, section 7.2, the box; a truncation bootstraps from the last pair."""
    length = len(rewards)
    ends = np.inf if how == "open" else length
    for t in range(length + n):
        tau = t - n + 1
        if not 0 <= tau < length or (how == "open" and tau + n >= length):
            continue
        last = int(min(tau + n, ends))
        goal = sum(GAMMA ** (i - tau) * rewards[i] for i in range(tau, last))
        if tau + n < ends or how == "truncated":
            goal += GAMMA ** (last - tau) * q[states[last], actions[last]]
        q[states[tau], actions[tau]] += LR * (goal - q[states[tau], actions[tau]])


def tree_backup(q, n, states, actions, rewards, how):
    """Sutton & Barto 2018, section 7.5, the box."""
    length = len(rewards)
    for t in range(length + n):
        tau = t - n + 1
        if not 0 <= tau < length or (how == "open" and t >= length):
            continue
        k = min(t, length - 1)
        goal = rewards[k]
        if not (how == "terminated" and k == length - 1):
            goal += GAMMA * mean(q, states[k + 1])
        for i in range(k, tau, -1):
            share = policy(q, states[i])
            others = sum(share[a] * q[states[i], a] for a in range(3) if a != actions[i])
            goal = rewards[i - 1] + GAMMA * (others + share[actions[i]] * goal)
        q[states[tau], actions[tau]] += LR * (goal - q[states[tau], actions[tau]])


def q_sigma(q, n, states, actions, rewards, how, sigma=0.3):
    """De Asis et al. 2018, equations 5 and 7: the sum of TD errors, forward."""
    length = len(rewards)
    for tau in range(length):
        if how == "open" and tau + n >= length:
            continue
        goal, weight = q[states[tau], actions[tau]], 1.0
        for k in range(tau, min(tau + n, length)):
            discount = 0.0 if how == "terminated" and k == length - 1 else GAMMA
            sampled, expected = 0.0, mean(q, states[k + 1])
            if discount:
                sampled = q[states[k + 1], actions[k + 1]]
            value = sigma * sampled + (1 - sigma) * expected
            goal += weight * (rewards[k] + discount * value - q[states[k], actions[k]])
            if discount:
                share = policy(q, states[k + 1])[actions[k + 1]]
                weight *= discount * ((1 - sigma) * share + sigma)
        q[states[tau], actions[tau]] += LR * (goal - q[states[tau], actions[tau]])


def start(seed=0):
    return np.random.default_rng(seed).normal(size=(5, 3))


@pytest.mark.parametrize("n_step", [1, 2, 3, 10])
@pytest.mark.parametrize(
    ("config", "twin", "more"),
    [(N_STEP, n_step_sarsa, {}), (TREE, tree_backup, {}), (SIGMA, q_sigma, {"sigma": 0.3})],
)
def test_the_kernel_is_the_books_loop(config, twin, more, n_step):
    whole, q = random_rows(n_step, 400), start()
    learner = blank(config(**PLAIN, n_step=n_step, **more), SPEC, q=q)
    for part in cut(whole, 1, 2, 150, 240, 7):
        learner.observe(part)
    for episode in episodes(whole):
        twin(q, n_step, *episode)
    assert np.abs(learner.q[0, 0] - start()).max() > 0.1
    np.testing.assert_allclose(learner.q[0, 0], q, rtol=1e-9, atol=1e-12)


def after(config, whole, lanes=1, **changes):
    learner = blank(config(**PLAIN, **changes), SPEC, lanes, q=start())
    learner.observe(whole)
    return learner.q


@pytest.mark.parametrize("explore", ["epsilon_greedy", "boltzmann", "ucb"])
def test_one_step_is_the_one_step_agent_bit_for_bit(explore):
    whole, more = random_rows(3, 500, lanes=3), {"exploration": explore}
    sarsa = after(tabular.SarsaConfig, whole, 3, **more)
    assert np.array_equal(after(N_STEP, whole, 3, n_step=1, **more), sarsa)
    assert np.array_equal(after(SIGMA, whole, 3, n_step=1, sigma=1.0, **more), sarsa)
    expected = after(tabular.ExpectedSarsaConfig, whole, 3, **more)
    assert np.array_equal(after(TREE, whole, 3, n_step=1, **more), expected)
    assert not np.array_equal(sarsa, expected)


@pytest.mark.parametrize("n_step", [1, 4])
def test_q_sigma_has_sarsa_at_one_end_and_tree_backup_at_the_other(n_step):
    whole = random_rows(4, 500)
    whole.terminated[-2], whole.first[-1] = True, True  # all has been learned in the end
    whole.truncated[-2:] = whole.terminated[-1] = False
    assert not whole.done[-3]
    assert np.array_equal(
        after(SIGMA, whole, n_step=n_step, sigma=1.0), after(N_STEP, whole, n_step=n_step)
    )
    assert np.array_equal(
        after(SIGMA, whole, n_step=n_step, sigma=0.0), after(TREE, whole, n_step=n_step)
    )


@pytest.mark.parametrize("config", [N_STEP, TREE, SIGMA])
def test_lanes_have_windows_of_their_own(config):
    """Two lanes in states that do not meet learn what each learns alone."""
    one, two = random_rows(5, 300), random_rows(6, 300)
    names = ("obs", "first", "action", "reward", "terminated", "truncated")
    for part in (one, two):
        part.first[:] = one.first  # the same rows are ignored, so that nothing is reset between
    two.terminated[:], two.truncated[:] = one.truncated, one.terminated
    both = type(one)(*(np.concatenate([getattr(one, n), getattr(two, n)], axis=1) for n in names))
    both.obs[:, 1] += 5
    learner = blank(config(**PLAIN, n_step=3), Spec((), np.int64, 10, 3), 2)
    learner.q[0, 0] = np.concatenate([start(), start(1)])
    learner.observe(both)
    alone = blank(config(**PLAIN, n_step=3), SPEC, q=start(1))
    alone.observe(two)
    assert np.array_equal(learner.q[0, 0, 5:], alone.q[0, 0])
    assert np.array_equal(learner.q[0, 0, :5], after(config, one, n_step=3)[0, 0])
