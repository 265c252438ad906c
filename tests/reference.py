"""Slow twins of the fast code: plain loops that follow the definitions.

`fused_q_learning` is the exception: the bare compiled loop, a bound for the speed of the fused source.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from envs.tabular import sample_reset, sample_step


def lambda_returns(reward, discount, value, lambda_):
    """Forward view: every row's n-step returns, weighed by the λ's in between. All [T].

    ``Gₜ = Σₙ (weight of n) Gₜ⁽ⁿ⁾``: the trace that is at row i stops there with weight 1 - λᵢ and
    goes on with λᵢ; at the last row it stops.
    """
    rows = len(reward)
    returns = np.zeros(rows)
    for t in range(rows):
        weight, total, factor = 1.0, 0.0, 1.0
        for i in range(t, rows):
            total += factor * reward[i]
            factor *= discount[i]
            stop = 1.0 if i == rows - 1 else 1.0 - lambda_[i]
            returns[t] += weight * stop * (total + factor * value[i])
            weight *= lambda_[i]
    return returns


def n_step_window(t, n, gamma, first, reward, terminated, truncated):
    """The window from row t of one lane: (row bootstrapped from, reward, discount), or None.

    ``first`` is [T+1], the others [T]. None where row t is an ignored one or the window is not whole.
    """
    total = 0.0
    for i in range(n):
        if t + i >= len(reward):
            return None
        if first[t + i + 1]:  # row t + i is ignored, or the lane was begun anew after it
            return None if i == 0 else (t + i, total, gamma**i)
        total += gamma**i * reward[t + i]
        if terminated[t + i]:
            return t + i + 1, total, 0.0
        if truncated[t + i]:
            return t + i + 1, total, gamma ** (i + 1)
    return t + n, total, gamma**n


def choose(q, state, epsilon, explore_draw, action_draw):
    """ε-greedy with ties at random, from two draws."""
    if explore_draw < epsilon:
        return int(action_draw * q.shape[1])
    best = np.flatnonzero(q[state] == q[state].max())
    return int(best[int(action_draw * len(best))])


def q_learning(steps, tables, env_rng, actor_rng, q, lr, gamma, epsilon):
    """One lane of tabular Q-learning; ``q [S, A]`` is changed in place."""

    def draw(cumulative):
        return int((np.asarray(cumulative) <= env_rng.random()).sum())

    state, elapsed, done = draw(tables.rho_cumulative), 0, False
    for _ in range(steps):
        action = choose(q, state, epsilon, actor_rng.random(), actor_rng.random())
        if done:
            state, elapsed, done = draw(tables.rho_cumulative), 0, False
            continue
        z = draw(tables.cumulative[state, action])
        successor = int(tables.successor[state, action, z])
        terminated = bool(tables.terminal[state, action, z])
        discount = 0.0 if terminated else gamma
        target = tables.reward[state, action, z] + discount * q[successor].max()
        q[state, action] += lr * (target - q[state, action])
        state, elapsed = successor, elapsed + 1
        done = terminated or (tables.time_limit > 0 and elapsed >= tables.time_limit)


@njit(nogil=True, error_model="numpy")
def fused_q_learning(steps, tables, env_rng, actor_rng, q, lr, gamma, epsilon):
    """The same in one bare kernel: what a row costs at least with these draws and tables."""
    state, elapsed, done, num_actions = sample_reset(tables, env_rng), 0, False, q.shape[1]
    for _ in range(steps):
        explore_draw, action_draw = actor_rng.random(), actor_rng.random()
        action = int(action_draw * num_actions)
        if explore_draw >= epsilon:
            best, count = _max(q, state), 0
            for a in range(num_actions):
                count += q[state, a] == best
            pick = int(action_draw * count)
            for a in range(num_actions):
                if q[state, a] == best:
                    if pick == 0:
                        action = a
                        break
                    pick -= 1
        if done:
            state, elapsed, done = sample_reset(tables, env_rng), 0, False
            continue
        successor, reward, terminated = sample_step(tables, env_rng, state, action)
        target = reward + gamma * (1.0 - terminated) * _max(q, successor)
        q[state, action] += lr * (target - q[state, action])
        state, elapsed = successor, elapsed + 1
        done = terminated or (tables.time_limit > 0 and elapsed >= tables.time_limit)


@njit(inline="always", error_model="numpy")
def _max(q, state):
    """``max q[state]`` without a view, which would count references at every row."""
    best = q[state, 0]
    for a in range(1, q.shape[1]):
        best = max(best, q[state, a])
    return best


def tiles(obs, low, high, tilings, count):
    """The tile of each tiling that a point lies in: ``(tiling, its place in each dimension)``.

    Sutton & Barto 2018, section 9.5.4: tiling i is displaced by i (1, 3, 5, ...) / tilings tiles.
    """
    found = []
    for i in range(tilings):
        place = [i]
        for d, x in enumerate(obs):
            width = (high[d] - low[d]) / count
            inside = min(max(float(x), low[d]), high[d])
            place.append(math.floor((inside - low[d]) / width + i * (2 * d + 1) / tilings % 1.0))
        found.append(tuple(place))
    return found


def linear_q(rollout, low, high, tilings, count, lr, gamma, actions):
    """The weights by (action, tile) after the rows of a rollout, in order of time."""
    weights = {}

    def value(action, active):
        return sum(weights.get((action, tile), 0.0) for tile in active)

    for t in range(rollout.rows):
        for lane in range(rollout.reward.shape[1]):
            if rollout.first[t + 1, lane]:
                continue
            legal = np.flatnonzero(rollout.facts["action_mask"][t + 1, lane])
            after = tiles(rollout.obs[t + 1, lane], low, high, tilings, count)
            best = max(value(a, after) for a in (legal if len(legal) else range(actions)))
            target = float(rollout.reward[t, lane])
            if not rollout.terminated[t, lane]:
                target += gamma * best
            here, action = (
                tiles(rollout.obs[t, lane], low, high, tilings, count),
                rollout.action[t, lane],
            )
            error = target - value(action, here)
            for tile in here:
                weights[action, tile] = weights.get((action, tile), 0.0) + lr / tilings * error
    return weights


def ucb_hoeffding(rollout, horizon, states, actions, c, iota):
    """Q [H, S, A] after the rows of a rollout: Jin et al. 2018, Algorithm 1, as it is written there."""
    q = np.full((horizon + 1, states, actions), float(horizon))
    q[horizon] = 0.0  # V_{H+1} = 0
    visits, step = np.zeros((horizon, states, actions), int), [0] * rollout.reward.shape[1]
    for row in range(rollout.rows):
        for lane in range(len(step)):
            if rollout.first[row, lane]:
                step[lane] = 0
            if rollout.first[row + 1, lane]:
                continue
            h, x, a = step[lane], rollout.obs[row, lane], rollout.action[row, lane]
            legal = np.flatnonzero(rollout.facts["action_mask"][row + 1, lane])
            after = q[h + 1, rollout.obs[row + 1, lane]]
            value = min(horizon, max(after[legal] if len(legal) else after))
            if rollout.terminated[row, lane]:
                value = 0.0
            visits[h, x, a] += 1
            t = visits[h, x, a]
            alpha, bonus = (horizon + 1) / (horizon + t), c * math.sqrt(horizon**3 * iota / t)
            goal = rollout.reward[row, lane] + value + bonus
            q[h, x, a] = (1 - alpha) * q[h, x, a] + alpha * goal
            step[lane] = (h + 1) % horizon
    return q[:horizon]
