"""The numba kernels of the tabular agents: choose an action, compute a target, learn a row.

Each reads like its equation in Sutton & Barto 2018. ``q [tables, S, A]`` is float64, one table or,
for Double Q-learning, two.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from agents.replay.view import reward_and_discount

# Which target the table moves towards: plain numbers, since compiled code branches on them.
Q_LEARNING, SARSA, EXPECTED_SARSA, DOUBLE_Q = range(4)

_view = njit(inline="always")(reward_and_discount)
kernel = njit(cache=True, nogil=True, error_model="numpy")


@kernel
def linear(lane_steps, start, end, steps):  # type: ignore[no-untyped-def]
    """`exploration.linear`, in a kernel: the fused source asks for it at every row."""
    if lane_steps >= steps:
        return end
    return start + (end - start) * (lane_steps / steps)


@kernel
def acting_value(q, state, action):  # type: ignore[no-untyped-def]
    """What the policy goes by: Q, or the sum of the two tables of Double Q-learning."""
    value = q[0, state, action]
    for table in range(1, q.shape[0]):
        value += q[table, state, action]
    return value


@kernel
def choose(q, state, epsilon, explore_draw, action_draw):  # type: ignore[no-untyped-def]
    """ε-greedy with ties broken at random: always two draws, whatever is done with them.

    By the lowest index instead, an untrained agent on FrozenLake walks into the same wall for ever.
    """
    num_actions = q.shape[2]
    if explore_draw < epsilon:
        return int(action_draw * num_actions)
    best = acting_value(q, state, 0)
    count = 1
    for action in range(1, num_actions):
        value = acting_value(q, state, action)
        if value > best:
            best, count = value, 1
        elif value == best:
            count += 1
    pick = int(action_draw * count)
    for action in range(num_actions):
        if acting_value(q, state, action) == best:
            if pick == 0:
                return action
            pick -= 1
    return 0


@kernel
def choose_lanes(q, states, epsilon, draws, actions):  # type: ignore[no-untyped-def]
    """`choose` for every lane of every seed: states and actions [K, n], draws [K, n, 2]."""
    for k in range(states.shape[0]):
        for lane in range(states.shape[1]):
            actions[k, lane] = choose(
                q[k], states[k, lane], epsilon, draws[k, lane, 0], draws[k, lane, 1]
            )


@kernel
def target(rule, q, table, reward, discount, state, action, epsilon, coin):  # type: ignore[no-untyped-def]
    """The value that Q moves towards: ``r + γ v``, where v is what the rule makes of the successor.

    Args:
        rule: one of the four numbers above.
        q: [tables, S, A] float64.
        table: the one that is updated.
        reward: reward as the learner sees it.
        discount: γ, 0 after a termination.
        state: the successor.
        action: the action chosen in it (SARSA only).
        epsilon: of the policy (Expected SARSA only).
        coin: a uniform number that breaks ties between maxima (Double Q-learning only).
    """
    if rule == SARSA:  # SARSA: v = Q(s', a')
        return reward + discount * q[table, state, action]
    num_actions = q.shape[2]
    best, count, total = q[table, state, 0], 1, q[table, state, 0]
    for a in range(1, num_actions):
        value = q[table, state, a]
        total += value
        if value > best:
            best, count = value, 1
        elif value == best:
            count += 1
    if rule == EXPECTED_SARSA:  # Expected SARSA: v = (1 - ε) maxₐ Q + ε meanₐ Q
        best = (1.0 - epsilon) * best + epsilon * (total / num_actions)
    elif rule == DOUBLE_Q:  # Double Q-learning: v = Q_other(s', argmaxₐ Q(s', a))
        pick = int(coin * count)
        for a in range(num_actions):
            if q[table, state, a] == best:
                if pick == 0:
                    return reward + discount * q[1 - table, state, a]
                pick -= 1
    return reward + discount * best


@kernel
def learn(rule, q, lr, state, action, reward, discount, next_state, next_action, epsilon, coin):  # type: ignore[no-untyped-def]
    """``Q(s, a) ← Q(s, a) + α (target - Q(s, a))``; returns the target and the bracket.

    Double Q-learning's coin says which table is updated; what is left of it breaks ties.
    """
    table = 0
    if rule == DOUBLE_Q:
        coin = 2.0 * coin
        table = int(coin)
        coin -= table
    goal = target(rule, q, table, reward, discount, next_state, next_action, epsilon, coin)
    error = goal - q[table, state, action]
    q[table, state, action] += lr * error
    return goal, error


@kernel
def learn_row(  # type: ignore[no-untyped-def]
    rule, q, t, obs, first, action, reward, terminated, coins, waiting, gamma, lr, epsilon, sums
):
    """Learn row t of one seed's rows [T, n], lane after lane.

    SARSA learns a row when it knows the action chosen at its successor: one row later, also where
    that next row is an ignored one. ``waiting [n, 5]`` holds such rows (in use, state, action, reward,
    discount), across rollouts too. ``sums [4]`` gathers rows learned, |error|, Q(s, a) and the target.
    """
    for lane in range(obs.shape[1]):
        s, a, valid = obs[t, lane], action[t, lane], not first[t + 1, lane]
        r, discount = _view(reward[t, lane], terminated[t, lane], gamma, 1.0, np.inf)
        if rule != SARSA:
            if not valid:
                continue
            coin = coins[t, lane] if rule == DOUBLE_Q else 0.0
            goal, error = learn(rule, q, lr, s, a, r, discount, obs[t + 1, lane], 0, epsilon, coin)
        else:
            row = waiting[lane]
            # A lane that begins anew has no successor to the row before.
            ready = row[0] > 0.0 and not first[t, lane]
            if ready:
                goal, error = learn(
                    rule, q, lr, int(row[1]), int(row[2]), row[3], row[4], s, a, epsilon, 0.0
                )
            row[0], row[1], row[2], row[3], row[4] = valid, s, a, r, discount
            if not ready:
                continue
        sums[0] += 1.0
        sums[1] += abs(error)
        sums[2] += goal - error
        sums[3] += goal


@kernel
def learn_rows(  # type: ignore[no-untyped-def]
    rule, q, obs, first, action, reward, terminated, coins, waiting, gamma, lr, epsilon, sums
):
    """`learn_row` for all rows of one seed in order of time."""
    for t in range(reward.shape[0]):
        learn_row(
            rule, q, t, obs, first, action, reward, terminated, coins, waiting,
            gamma, lr, epsilon, sums,
        )  # fmt: skip
