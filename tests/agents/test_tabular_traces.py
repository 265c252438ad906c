"""SARSA(λ), Watkins's and Peng's Q(λ): by hand, against the papers' loops, and at λ = 0."""

from __future__ import annotations

import numpy as np
import pytest

from agents import tabular
from envs.contract import Spec
from tests.agents.tables import EPSILON, GAMMA, LR, blank, cut, episodes, make, random_rows
from tests.agents.test_tabular import observe, rows

SARSA, WATKINS, PENG = tabular.SarsaLambdaConfig, tabular.WatkinsConfig, tabular.PengConfig
SPEC = Spec((), np.int64, 5, 3)
PLAIN = {"lr": LR, "lr_end": LR, "gamma": GAMMA, "epsilon_start": EPSILON, "epsilon_end": EPSILON}
# λ = ½, so that a trace fades by 0.45; Q(0, ·) = 0, Q(1, ·) = (1, 3), Q(2, ·) = (6, 5)


def test_sarsa_lambda_by_hand():
    # δ₀ = 1 + 0.9 Q(1, 0) = 1.9 → Q(0, 1) = 0.95. δ₁ = 5 + 0.9 Q(2, 1) - 1 = 8.5 → Q(1, 0) = 5.25
    # and Q(0, 1) = 0.95 + 0.5 · 8.5 · 0.45 = 2.8625
    made = make(SARSA, lambda_=0.5)
    found = observe(made, rows([0, 1, 2, 0], [1, 0, 1], [1.0, 5.0, 0.0]))
    assert found == {(0, 0, 1): pytest.approx(2.8625), (0, 1, 0): pytest.approx(5.25)}


@pytest.mark.parametrize(("second", "share"), [(1, 0.45), (0, 0.0)])
def test_watkins_by_hand(second, share):
    # δ₀ = 1 + 0.9 · 3 = 3.7 → 1.85. δ₁ = 5 + 0.9 · 6 - Q(1, a) = 10.4 - Q(1, a): Q(1, a) gets half,
    # and Q(0, 1) half of 0.45 of it where a = 1 is the best action; a = 0 ends the trace
    made = make(WATKINS, lambda_=0.5)
    found = observe(made, rows([0, 1, 2], [1, second], [1.0, 5.0]))
    error = 10.4 - (3.0 if second else 1.0)
    assert found == {
        (0, 0, 1): pytest.approx(1.85 + 0.5 * share * error),
        (0, 1, second): pytest.approx(10.4 - 0.5 * error),
    }


def test_peng_by_hand():
    # e₀' = 3.7 → 1.85. e₁ = 5 + 0.9 · 6 - V(1) = 7.4 → Q(0, 1) += 0.5 · 0.45 · 7.4;
    # e₁' = 10.4 - Q(1, 0) = 9.4 → Q(1, 0) = 5.7, though action 0 is not the best one
    made = make(PENG, lambda_=0.5)
    found = observe(made, rows([0, 1, 2], [1, 0], [1.0, 5.0]))
    assert found == {(0, 0, 1): pytest.approx(3.515), (0, 1, 0): pytest.approx(5.7)}


@pytest.mark.parametrize(("kind", "trace"), [("accumulating", 1.45), ("replacing", 1.0)])
@pytest.mark.parametrize("config", [SARSA, WATKINS, PENG])
def test_another_visit_adds_or_replaces(config, kind, trace):
    # the pair (2, 0) is the best in its state before and behind the first update: -9 is so small
    made = make(config, lambda_=0.5, trace=kind)
    made.q[0, 0, 2, 1] = -9.0
    made.observe(rows([2, 2, 2], [0, 0], [0.0, 0.0]))
    if config is SARSA:  # one row late: its second visit is learned at the third row
        made.observe(rows([2, 2], [0], [0.0], first=[False, False]))
        trace *= 0.45
    assert made.memory["trace"][0, 0, 2, 0] == pytest.approx(trace)


@pytest.mark.parametrize("config", [SARSA, WATKINS, PENG])
@pytest.mark.parametrize("ended", [True, False])
def test_ends(config, ended):
    """Row 0 ends in state 1, row 1 is ignored with action 1, row 2 begins in state 2."""
    made, ends = make(config, lambda_=0.5), ([0], []) if ended else ([], [0])
    found = observe(made, rows([0, 1, 2, 0], [1, 1, 0], [1.0, 0.0, 4.0], *ends))
    assert found[0, 0, 1] == pytest.approx(0.5 if ended else 0.5 * (1 + 0.9 * 3))
    assert made.memory["trace"][0, 0, 0].tolist() == [0.0, 0.0]  # nothing more goes to row 0
    assert (0, 1, 1) not in found


@pytest.mark.parametrize("config", [SARSA, WATKINS, PENG])
def test_a_lane_that_begins_anew_has_no_traces(config):
    made = make(config, lambda_=0.5)
    made.observe(rows([0, 1, 2], [1, 1], [1.0, 5.0]))
    before = made.q[0, 0, 0].copy(), made.q[0, 0, 1].copy()
    anew = rows([2, 2, 0], [0, 1], [1.0, 1.0], first=[True, False, False])
    assert set(observe(made, anew)) <= {(0, 2, 0), (0, 2, 1)}
    assert np.array_equal(made.q[0, 0, :2], before)


def loop(config, q, lambda_, replacing, states, actions, rewards, how):
    """One episode, the papers' loops with a table of traces."""
    e, factor = np.zeros_like(q), GAMMA * lambda_
    for t, (s, a, r) in enumerate(zip(states, actions, rewards, strict=False)):
        last = t == len(rewards) - 1
        s2, a2 = states[t + 1], actions[t + 1]
        discount = 0.0 if last and how == "terminated" else GAMMA
        if config is SARSA:
            if a2 is None:
                break
            delta = r + discount * q[s2, a2] - q[s, a]
        elif config is WATKINS:
            delta = r + discount * q[s2].max() - q[s, a]
        else:
            own = r + discount * q[s2].max() - q[s, a]
            delta = r + discount * q[s2].max() - q[s].max()
            e *= factor
            q += LR * delta * e
            q[s, a] += LR * own
        e[s, a] = 1.0 if replacing else e[s, a] + 1.0
        if config is PENG:
            continue
        q += LR * delta * e
        # the next action is chosen by the table that has just learned
        best = config is SARSA or a2 is None or q[s2, a2] == q[s2].max()
        e *= factor if best else 0.0


def start():
    return np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize("kind", ["accumulating", "replacing"])
@pytest.mark.parametrize("lambda_", [0.5, 1.0])
@pytest.mark.parametrize("config", [SARSA, WATKINS, PENG])
def test_the_kernel_is_the_papers_loop(config, lambda_, kind):
    whole, q = random_rows(1, 400), start()
    learner = blank(config(**PLAIN, lambda_=lambda_, trace=kind), SPEC, q=q)
    for part in cut(whole, 1, 2, 150, 240, 7):
        learner.observe(part)
    for episode in episodes(whole):
        loop(config, q, lambda_, kind == "replacing", *episode)
    assert np.abs(learner.q[0, 0] - start()).max() > 0.1
    np.testing.assert_allclose(learner.q[0, 0], q, rtol=1e-7, atol=1e-9)


def after(config, whole, lanes, **changes):
    learner = blank(config(**PLAIN, **changes), SPEC, lanes, q=start())
    learner.observe(whole)
    return learner.q


@pytest.mark.parametrize("kind", ["accumulating", "replacing"])
def test_without_lambda_they_are_the_one_step_agents_bit_for_bit(kind):
    whole, zero = random_rows(2, 500, lanes=3), {"lambda_": 0.0, "trace": kind}
    sarsa, plain = (after(c, whole, 3) for c in (tabular.SarsaConfig, tabular.QLearningConfig))
    assert np.array_equal(after(SARSA, whole, 3, **zero), sarsa)
    assert np.array_equal(after(WATKINS, whole, 3, **zero), plain)
    assert np.array_equal(after(PENG, whole, 3, **zero), plain)
    assert not np.array_equal(sarsa, plain)
