"""Monte Carlo control and R-max: by hand, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from agents import tabular
from envs.contract import Spec
from tests.agents.tables import EPSILON, GAMMA, LR, blank, cut, episodes, make, random_rows
from tests.agents.test_tabular import observe, rows

MC, RMAX = tabular.MonteCarloConfig, tabular.RMaxConfig
SPEC = Spec((), np.int64, 5, 3)
PLAIN = {"lr": LR, "lr_end": LR, "gamma": GAMMA, "epsilon_start": EPSILON, "epsilon_end": EPSILON}


def start():
    return np.random.default_rng(0).normal(size=(5, 3))


# Monte Carlo. Rows 0 and 1 are an episode that ends in state 2, where action 1 is chosen.


def episode(*ends):
    return rows([0, 1, 2, 0], [1, 0, 1], [1.0, 5.0, 0.0], *ends)


@pytest.mark.parametrize(
    ("step", "ends", "expected"),
    [
        # G₁ = 5, G₀ = 1 + 0.9 · 5 = 5.5
        ("average", ([1],), {(0, 0, 1): 5.5, (0, 1, 0): 5.0}),
        ("lr", ([1],), {(0, 0, 1): 2.75, (0, 1, 0): 3.0}),
        # G₂ = Q(2, 1) = 5, G₁ = 5 + 0.9 · 5 = 9.5, G₀ = 1 + 0.9 · 9.5 = 9.55
        ("average", ([], [1]), {(0, 0, 1): 9.55, (0, 1, 0): 9.5}),
        ("lr", ([], [1]), {(0, 0, 1): 4.775, (0, 1, 0): 5.25}),
    ],
)
def test_monte_carlo_by_hand(step, ends, expected):
    assert observe(make(MC, step=step), episode(*ends)) == pytest.approx(expected)


@pytest.mark.parametrize(("visit", "value"), [("first", 1 + 0.9 + 0.81), ("every", 5.61 / 3)])
def test_which_visits_count(visit, value):
    # three times the same pair: G = 1, 1.9, 2.71; the first visit's alone, or the mean, 5.61 / 3
    made = make(MC, visit=visit)
    found = observe(made, rows([0, 0, 0, 1, 2], [0, 0, 0, 0], [1.0, 1.0, 1.0, 0.0], terminated=[2]))
    assert found == {(0, 0, 0): pytest.approx(value)}
    assert made.memory["held"].sum() == made.memory["since"].sum() == 0


def test_monte_carlo_learns_nothing_before_the_end_and_a_new_lane_drops_its_rows():
    made = make(MC)
    assert observe(made, rows([0, 1, 2], [1, 0], [1.0, 5.0])) == {}
    assert made.memory["held"].tolist() == [[2]]
    anew = rows([2, 1, 0], [0, 0], [4.0, 0.0], terminated=[0], first=[True, False, True])
    assert observe(made, anew) == {(0, 2, 0): 4.0}


def test_an_episode_that_is_too_long_is_learned_as_if_truncated():
    # one row: learned when the next one's action is known, as SARSA; 1 + 0.9 Q(1, 0) = 1.9
    found = observe(make(MC, longest=1, step="lr"), rows([0, 1, 2], [1, 0], [1.0, 5.0]))
    assert found == {(0, 0, 1): pytest.approx(0.5 * 1.9)}


def test_episodes_of_one_row_at_most_are_sarsa_bit_for_bit():
    whole, tables = random_rows(4, 500, lanes=3), []
    for config in (MC(**PLAIN, longest=1, step="lr", visit="every"), tabular.SarsaConfig(**PLAIN)):
        learner = blank(config, SPEC, 3, q=start())
        learner.observe(whole)
        tables.append(learner.q)
    assert np.array_equal(*tables)


def control(q, returns, visit, states, actions, rewards, how):
    """Sutton & Barto 2018, section 5.4, the box, with lists of returns."""
    if how == "open" or actions[-1] is None:
        return
    length = len(rewards)
    goal = q[states[-1], actions[-1]] if how == "truncated" else 0.0
    pairs = list(zip(states[:length], actions[:length], strict=True))
    for t in range(length - 1, -1, -1):
        goal = GAMMA * goal + rewards[t]
        if visit == "every" or pairs[t] not in pairs[:t]:
            returns.setdefault(pairs[t], []).append(goal)
            q[pairs[t]] = np.mean(returns[pairs[t]])


@pytest.mark.parametrize("visit", ["first", "every"])
def test_monte_carlo_is_the_books_box(visit):
    whole, q, returns = random_rows(1, 600), start(), {}
    learner = blank(MC(**PLAIN, visit=visit), SPEC, q=q)
    for part in cut(whole, 1, 2, 250, 340, 7):
        learner.observe(part)
    for one in episodes(whole):
        control(q, returns, visit, *one)
    assert len(returns) == 15
    np.testing.assert_allclose(learner.q[0, 0], q, rtol=1e-9, atol=1e-12)


# R-max


def r_max(known_after, **changes):
    made = make(RMAX, known_after=known_after, accuracy=1e-12, **changes)
    made.q[:] = 10.0
    return made


def test_r_max_by_hand():
    # known after one try: 1 + 0.9 · 10 = 10, where state 1 is still the best there is; 1 at an end
    assert observe(r_max(1), rows([0, 1], [1], [3.0])) == {(0, 0, 1): pytest.approx(12.0)}
    assert observe(r_max(1), rows([0, 1], [1], [1.0], terminated=[0])) == {(0, 0, 1): 1.0}
    # known after two: half of 1 + 9, half of 3 at an end; the third try changes nothing
    made = r_max(2)
    assert observe(made, rows([0, 1], [1], [1.0])) == {}
    second = rows([0, 1], [1], [3.0], terminated=[0], first=[False, False])
    assert observe(made, second) == {(0, 0, 1): pytest.approx(6.5)}
    assert observe(made, rows([0, 2], [1], [99.0], first=[True, False])) == {}


def test_r_max_bootstraps_on_truncation_and_passes_over_the_ignored_row():
    made = r_max(1)
    found = observe(made, rows([0, 1, 2], [1, 0], [3.0, 7.0], truncated=[0]))
    assert found == {(0, 0, 1): pytest.approx(12.0)}
    assert made.memory["tried"].sum() == 1


def test_r_max_solves_the_model_of_what_it_knows():
    """Against value iteration over all pairs at once, with the first m outcomes of each."""
    whole, m = random_rows(2, 300), 6
    learner = blank(RMAX(gamma=GAMMA, known_after=m, accuracy=1e-12, outcomes=10), SPEC)
    learner.q[:] = 20.0
    learner.observe(whole)
    seen = {}
    for t in range(whole.rows):
        if not whole.first[t + 1, 0]:
            pair = int(whole.obs[t, 0]), int(whole.action[t, 0])
            discount = 0.0 if whole.terminated[t, 0] else GAMMA
            seen.setdefault(pair, []).append(
                (whole.reward[t, 0], discount, int(whole.obs[t + 1, 0]))
            )
    q = np.full((5, 3), 20.0)
    known = {pair: outcomes[:m] for pair, outcomes in seen.items() if len(outcomes) >= m}
    assert 15 >= len(known) > 5
    for _ in range(500):
        previous = q.copy()
        for pair, outcomes in known.items():
            q[pair] = np.mean([r + d * previous[s].max() for r, d, s in outcomes])
    np.testing.assert_allclose(learner.q[0, 0], q, rtol=1e-9)


def test_r_max_begins_with_the_largest_value_and_is_greedy():
    config = RMAX(initial_value=7.0)
    assert blank(config, SPEC).q.min() == 7.0
    assert config.schedule()[3:] == (0.0, 0.0, 50_000.0)
