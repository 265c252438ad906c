"""The numba kernels of the one-step tabular agents: choose an action, compute a target, learn a row.

Each reads like its equation in Sutton & Barto 2018. ``q [tables, S, A]`` is float64, one table or,
for Double Q-learning, two. It is -inf where an action is not legal, so that no maximum takes it; in
every state some action is. What is said here of exploration holds for all tabular agents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agents.contract import Array
from agents.replay.view import reward_and_discount
from envs.kernel import inlined, kernel

# Which target the table moves towards: plain numbers, since compiled code branches on them.
Q_LEARNING, SARSA, EXPECTED_SARSA, DOUBLE_Q = range(4)

# How actions are chosen. What it takes, its level, is ε, a temperature, or the width c of a bound.
EPSILON_GREEDY, BOLTZMANN, UCB = range(3)


class Numbers(NamedTuple):
    """What a one-step rule is told besides its step size."""

    gamma: float


class Waiting(NamedTuple):
    """What a one-step rule remembers of one seed."""

    waiting: Array  # [n, 5]: a row that waits for its next action; see `learn_row`


reward_and_discount_of = inlined()(reward_and_discount)


@kernel()
def linear(lane_steps, start, end, steps):  # type: ignore[no-untyped-def]
    """`exploration.linear`, in a kernel: the fused source asks for it at every row."""
    if lane_steps >= steps:
        return end
    return start + (end - start) * (lane_steps / steps)


@inlined()
def value_of(q, table, tables, state, action):  # type: ignore[no-untyped-def]
    """The sum over ``tables`` tables from ``table`` on; Double Q-learning acts by that of its two.

    Numbers and not ``q[table:]``: a view in a kernel counts references, row after row.
    """
    value = q[table, state, action]
    for other in range(table + 1, table + tables):
        value += q[other, state, action]
    return value


@inlined()
def best_action(q, table, tables, state, draw):  # type: ignore[no-untyped-def]
    """The action of the highest value; among several, the one that ``draw`` in [0, 1) falls on."""
    num_actions = q.shape[2]
    best = value_of(q, table, tables, state, 0)
    for action in range(1, num_actions):
        best = max(best, value_of(q, table, tables, state, action))
    count = 0
    for action in range(num_actions):
        count += value_of(q, table, tables, state, action) == best
    pick, found = int(draw * count), 0
    for action in range(num_actions):
        if value_of(q, table, tables, state, action) == best:
            if pick == 0:
                found = action
                break
            pick -= 1
    return found


@inlined()
def choose(explore, q, visits, state, level, explore_draw, action_draw):  # type: ignore[no-untyped-def]
    """An action, with ties broken at random: always two draws, whatever is done with them.

    By the lowest index instead, an untrained agent on FrozenLake walks into the same wall for ever.

    Args:
        explore: one of the three numbers above.
        q: [tables, S, A] float64.
        visits: [S, A] float64, how often each action was taken (UCB only).
        state: where it is.
        level: ε, temperature or c.
        explore_draw: a uniform number that decides whether to explore (ε-greedy only).
        action_draw: a uniform number that decides on the action.
    """
    if explore == EPSILON_GREEDY:
        action = int(action_draw * q.shape[2])
        if explore_draw >= level:
            action = best_action(q, 0, q.shape[0], state, action_draw)
    elif explore == BOLTZMANN:
        action = softmax_action(q, state, level, action_draw)
    else:
        action = most_promising(q, visits, state, level, action_draw)
    return action


@kernel()
def softmax_action(q, state, temperature, draw):  # type: ignore[no-untyped-def]
    """The action that ``draw`` falls on where π(a|s) = exp(Q(s, a) / T) / Σ_b exp(Q(s, b) / T).

    Source: Sutton & Barto 2018, equation 13.2 with Q / T for the preferences.
    """
    tables, num_actions = q.shape[0], q.shape[2]
    temperature *= tables  # of sums over tables, whose mean is the value
    best = value_of(q, 0, tables, state, 0)
    for action in range(1, num_actions):
        best = max(best, value_of(q, 0, tables, state, action))
    total = 0.0
    for action in range(num_actions):
        total += np.exp((value_of(q, 0, tables, state, action) - best) / temperature)
    left, found = draw * total, 0
    for action in range(num_actions):
        weight = np.exp((value_of(q, 0, tables, state, action) - best) / temperature)
        if weight > 0.0:  # rounding may leave something behind the last one
            found = action
            if left < weight:
                break
            left -= weight
    return found


@inlined()
def upper_bound(q, visits, state, action, c):  # type: ignore[no-untyped-def]
    """``Q(s, a) + c √(ln N(s) / N(s, a))``, infinite where an action was never taken.

    Source: Sutton & Barto 2018, equation 2.10, its clock the visits N(s) of the state.
    """
    value, count = value_of(q, 0, q.shape[0], state, action), visits[state, action]
    if value > -np.inf:
        if count > 0.0:
            total = 0.0
            for other in range(q.shape[2]):
                total += visits[state, other]
            value += q.shape[0] * c * np.sqrt(np.log(total) / count)  # a sum over tables, too
        else:
            value = np.inf
    return value


@kernel()
def most_promising(q, visits, state, c, draw):  # type: ignore[no-untyped-def]
    """The action of the highest `upper_bound`; among several, the one that ``draw`` falls on."""
    num_actions = q.shape[2]
    best, count = upper_bound(q, visits, state, 0, c), 1
    for action in range(1, num_actions):
        bound = upper_bound(q, visits, state, action, c)
        if bound > best:
            best, count = bound, 1
        elif bound == best:
            count += 1
    left, found = int(draw * count), 0
    for action in range(num_actions):
        if upper_bound(q, visits, state, action, c) == best:
            if left == 0:
                found = action
                break
            left -= 1
    return found


@kernel()
def choose_lanes(explore, q, visits, states, level, draws, actions):  # type: ignore[no-untyped-def]
    """`choose` for every lane of every seed: states and actions [K, n], draws [K, n, 2]."""
    for k in range(states.shape[0]):
        for lane in range(states.shape[1]):
            actions[k, lane] = choose(
                explore, q[k], visits[k], states[k, lane], level,
                draws[k, lane, 0], draws[k, lane, 1],
            )  # fmt: skip


@inlined()
def best_value(q, table, state):  # type: ignore[no-untyped-def]
    """``maxₐ Q(s, a)``."""
    value = q[table, state, 0]
    for a in range(1, q.shape[2]):
        value = max(value, q[table, state, a])
    return value


@inlined()
def expected_value(explore, q, table, state, level):  # type: ignore[no-untyped-def]
    """``Σₐ π(a|s) Q(s, a)`` under the policy that explores; UCB's is taken to be the greedy one.

    ε-greedy: (1 - ε) maxₐ Q(s, a) + ε meanₐ Q(s, a), the mean over legal actions.
    """
    value = best_value(q, table, state)
    if explore == EPSILON_GREEDY:
        total, legal = 0.0, 0
        for a in range(q.shape[2]):
            if q[table, state, a] > -np.inf:
                total += q[table, state, a]
                legal += 1
        value = (1.0 - level) * value + level * (total / legal)
    elif explore == BOLTZMANN:
        value = softmax_value(q, table, state, level)
    return value


@kernel()
def softmax_value(q, table, state, temperature):  # type: ignore[no-untyped-def]
    """``Σₐ π(a|s) Q(s, a)`` where π(a|s) is proportional to exp(Q(s, a) / T)."""
    best, total, weights = best_value(q, table, state), 0.0, 0.0
    for a in range(q.shape[2]):
        weight = np.exp((q[table, state, a] - best) / temperature)
        weights += weight
        if weight > 0.0:
            total += weight * q[table, state, a]
    return total / weights


@inlined()
def probability(explore, q, state, action, level):  # type: ignore[no-untyped-def]
    """π(a|s) of the policy whose mean `expected_value` is; the best actions share what is greedy."""
    best = best_value(q, 0, state)
    if explore == BOLTZMANN:
        weights = 0.0
        for a in range(q.shape[2]):
            weights += np.exp((q[0, state, a] - best) / level)
        share = np.exp((q[0, state, action] - best) / level) / weights
    else:
        random = level if explore == EPSILON_GREEDY else 0.0
        legal, count = 0, 0
        for a in range(q.shape[2]):
            legal += q[0, state, a] > -np.inf
            count += q[0, state, a] == best
        share = random / legal if q[0, state, action] > -np.inf else 0.0
        if q[0, state, action] == best:
            share += (1.0 - random) / count
    return share


@inlined()
def target(rule, explore, q, table, reward, discount, state, action, level, coin):  # type: ignore[no-untyped-def]
    """The value that Q moves towards: ``r + γ v``, where v is what the rule makes of the successor.

    Args:
        rule: one of the four numbers above.
        explore: how actions are chosen (Expected SARSA only).
        q: [tables, S, A] float64.
        table: the one that is updated.
        reward: reward as the learner sees it.
        discount: γ, 0 after a termination.
        state: the successor.
        action: the action chosen in it (SARSA only).
        level: of the policy (Expected SARSA only).
        coin: a uniform number that breaks ties between maxima (Double Q-learning only).
    """
    value = q[table, state, action]  # SARSA: v = Q(s', a')
    if rule == Q_LEARNING:  # Q-learning: v = maxₐ Q(s', a)
        value = best_value(q, table, state)
    elif rule == EXPECTED_SARSA:  # Expected SARSA: v = Σₐ π(a|s') Q(s', a)
        value = expected_value(explore, q, table, state, level)
    elif rule == DOUBLE_Q:  # Double Q-learning: v = Q_other(s', argmaxₐ Q(s', a))
        value = q[1 - table, state, best_action(q, table, 1, state, coin)]
    return reward + discount * value


@inlined()
def learn(  # type: ignore[no-untyped-def]
    rule, explore, q, lr, state, action, reward, discount, next_state, next_action, level, coin
):
    """``Q(s, a) ← Q(s, a) + α (target - Q(s, a))``; returns the target and the bracket.

    Double Q-learning's coin says which table is updated; what is left of it breaks ties.
    """
    table = 0
    if rule == DOUBLE_Q:
        coin = 2.0 * coin
        table = int(coin)
        coin -= table
    goal = target(rule, explore, q, table, reward, discount, next_state, next_action, level, coin)
    error = goal - q[table, state, action]
    q[table, state, action] += lr * error
    return goal, error


@inlined()
def learn_row(  # type: ignore[no-untyped-def]
    rule, explore, q, t, obs, first, action, reward, terminated, coins, memory, numbers,
    lr, level, sums,
):  # fmt: skip
    """Learn row t of one seed's rows [T, n], lane after lane.

    SARSA learns a row when it knows the action chosen at its successor: one row later, also where
    that next row is an ignored one. ``waiting [n, 5]`` holds such rows (in use, state, action, reward,
    discount), across rollouts too. ``sums [4]`` gathers rows learned, |error|, Q(s, a) and the target.
    """
    if rule == SARSA:
        waiting = memory.waiting
    for lane in range(obs.shape[1]):
        s, a, valid = obs[t, lane], action[t, lane], not first[t + 1, lane]
        r, discount = reward_and_discount_of(
            reward[t, lane], terminated[t, lane], numbers.gamma, 1.0, np.inf
        )
        if rule != SARSA:
            if not valid:
                continue
            coin = coins[t, lane] if rule == DOUBLE_Q else 0.0
            goal, error = learn(
                rule, explore, q, lr, s, a, r, discount, obs[t + 1, lane], 0, level, coin
            )
        else:
            # A lane that begins anew has no successor to the row before.
            ready = waiting[lane, 0] > 0.0 and not first[t, lane]
            if ready:
                past, taken = int(waiting[lane, 1]), int(waiting[lane, 2])
                goal, error = learn(
                    rule, explore, q, lr, past, taken, waiting[lane, 3], waiting[lane, 4], s, a,
                    level, 0.0,
                )  # fmt: skip
            waiting[lane, 0], waiting[lane, 1], waiting[lane, 2] = valid, s, a
            waiting[lane, 3], waiting[lane, 4] = r, discount
            if not ready:
                continue
        count(sums, goal, error)


@inlined()
def count(sums, goal, error):  # type: ignore[no-untyped-def]
    """One more update, for the metrics."""
    sums[0] += 1.0
    sums[1] += abs(error)
    sums[2] += goal - error
    sums[3] += goal
