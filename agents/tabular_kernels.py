"""The numba kernels of the tabular agents: choose an action, compute a target, learn a row.

Each reads like its equation in Sutton & Barto 2018. ``q [tables, S, A]`` is float64, one table or,
for Double Q-learning, two. It is -inf where an action is not legal, so that no maximum takes it; in
every state some action is.
"""

from __future__ import annotations

import numpy as np

from agents.replay.view import reward_and_discount
from envs.kernel import inlined, kernel

# Which target the table moves towards: plain numbers, since compiled code branches on them.
Q_LEARNING, SARSA, EXPECTED_SARSA, DOUBLE_Q = range(4)

_view = inlined()(reward_and_discount)


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
def choose(q, state, epsilon, explore_draw, action_draw):  # type: ignore[no-untyped-def]
    """ε-greedy with ties broken at random: always two draws, whatever is done with them.

    By the lowest index instead, an untrained agent on FrozenLake walks into the same wall for ever.
    """
    action = int(action_draw * q.shape[2])
    if explore_draw >= epsilon:
        action = best_action(q, 0, q.shape[0], state, action_draw)
    return action


@kernel()
def choose_lanes(q, states, epsilon, draws, actions):  # type: ignore[no-untyped-def]
    """`choose` for every lane of every seed: states and actions [K, n], draws [K, n, 2]."""
    for k in range(states.shape[0]):
        for lane in range(states.shape[1]):
            actions[k, lane] = choose(
                q[k], states[k, lane], epsilon, draws[k, lane, 0], draws[k, lane, 1]
            )


@inlined()
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
    num_actions = q.shape[2]
    value = q[table, state, action]  # SARSA: v = Q(s', a')
    if rule != SARSA:
        for a in range(num_actions):  # Q-learning: v = maxₐ Q(s', a)
            value = max(value, q[table, state, a])
    if rule == EXPECTED_SARSA:  # Expected SARSA: v = (1 - ε) maxₐ Q(s', a) + ε meanₐ Q(s', a)
        total, legal = 0.0, 0
        for a in range(num_actions):
            if q[table, state, a] > -np.inf:
                total += q[table, state, a]
                legal += 1
        value = (1.0 - epsilon) * value + epsilon * (total / legal)
    elif rule == DOUBLE_Q:  # Double Q-learning: v = Q_other(s', argmaxₐ Q(s', a))
        value = q[1 - table, state, best_action(q, table, 1, state, coin)]
    return reward + discount * value


@inlined()
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


@inlined()
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
            # A lane that begins anew has no successor to the row before.
            ready = waiting[lane, 0] > 0.0 and not first[t, lane]
            if ready:
                past, taken = int(waiting[lane, 1]), int(waiting[lane, 2])
                goal, error = learn(
                    rule, q, lr, past, taken, waiting[lane, 3], waiting[lane, 4], s, a, epsilon, 0.0
                )
            waiting[lane, 0], waiting[lane, 1], waiting[lane, 2] = valid, s, a
            waiting[lane, 3], waiting[lane, 4] = r, discount
            if not ready:
                continue
        sums[0] += 1.0
        sums[1] += abs(error)
        sums[2] += goal - error
        sums[3] += goal


@kernel()
def learn_rows(  # type: ignore[no-untyped-def]
    rule, q, obs, first, action, reward, terminated, coins, waiting, gamma, lr, epsilon, sums
):
    """`learn_row` for all rows of one seed in order of time."""
    for t in range(reward.shape[0]):
        learn_row(
            rule, q, t, obs, first, action, reward, terminated, coins, waiting,
            gamma, lr, epsilon, sums,
        )  # fmt: skip
