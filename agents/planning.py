"""Dynamic programming on finite MDPs: what tabular agents are measured against.

Two questions are kept apart. `q_star` and `policy_iteration` give the fixed point that a
discounting agent estimates: a time limit is no property of the task, so truncation bootstraps and is
ignored here, while a terminal outcome is worth its reward alone. `optimal_value` and `policy_value`
give the expected undiscounted return of one episode under a time limit, which is what an
evaluation measures.

Letters: S states, A actions, Z outcomes of a state and action, K policies or tables at once.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, eye_array
from scipy.sparse.linalg import spsolve

from envs.contract import Array, FiniteMDP

MAX_SWEEPS = 100_000


def q_star(mdp: FiniteMDP, gamma: float, tol: float = 1e-10) -> Array:
    """The optimal action values, by value iteration.

    Q*(s,a) = Σ_z P(z|s,a) [R(s,a,z) + γ (1 − terminal) max_a' Q*(s',a')]

    Args:
        mdp: the task; its time limit is ignored.
        gamma: discount in [0, 1]. At 1 the values are finite only where episodes terminate.
        tol: the largest error allowed, in reward units; met up to rounding (and, at gamma 1, the
            largest change of the last sweep).

    Returns:
        [S, A] float64.

    Raises:
        ArithmeticError: no convergence in `MAX_SWEEPS`, which a gamma of 1 or next to it can take.

    Source: Sutton and Barto 2018, eq. 4.2 and 4.10; the stopping rule is the contraction's,
        |Q_k − Q*| ≤ γ / (1 − γ) |Q_k − Q_{k−1}|.
    """
    reward, weight = _reward(mdp), gamma * _continues(mdp)
    allowed = tol if gamma == 1 else tol * (1 - gamma) / max(gamma, 1e-300)
    q = np.zeros_like(reward)
    for _ in range(MAX_SWEEPS):
        previous = q
        q = _backup(reward, weight, mdp.successor, previous.max(axis=1))
        change = np.abs(q - previous).max()
        if change <= max(allowed, 4 * np.finfo(np.float64).eps * np.abs(q).max()):
            return q
    raise ArithmeticError(
        f"after {MAX_SWEEPS:,} sweeps values still change by {change:g} at gamma {gamma:g}: some policy of "
        "this MDP never terminates, or only after more steps than that"
    )


def policy_iteration(mdp: FiniteMDP, gamma: float) -> Array:
    """The optimal action values, by policy iteration: exact linear solves, few of them.

    v_π = (I − γ P_π)⁻¹ r_π, then π(s) ← argmax_a q_π(s,a) until no action is better.

    Args:
        mdp: the task; its time limit is ignored.
        gamma: discount in [0, 1).

    Returns:
        [S, A] float64, the values of the last, optimal policy; `greedy` of it is that policy.

    Source: Sutton and Barto 2018, section 4.3, eq. 4.4, 4.6 and 4.9.
    """
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma: got {gamma}, takes a number in [0, 1)")
    reward, weight = _reward(mdp), gamma * _continues(mdp)
    states = np.arange(mdp.num_states)
    policy = np.zeros(mdp.num_states, np.int64)
    while True:
        value = _solve(
            reward[states, policy], weight[states, policy], mdp.successor[states, policy]
        )
        q = _backup(reward, weight, mdp.successor, value)
        best = q.argmax(axis=1)
        # an action that is better by rounding only would make ties alternate for ever
        better = q[states, best] > q[states, policy] + 1e-12 * max(1.0, np.abs(q).max())
        if not better.any():
            return q
        policy = np.where(better, best, policy)


def greedy(q: Array) -> Array:
    """The greedy policy ``[..., S]`` int64 of action values ``[..., S, A]``; ties to the lowest."""
    policy: Array = q.argmax(axis=-1)
    return policy


def optimal_value(mdp: FiniteMDP, horizon: int) -> float:
    """The best expected undiscounted return of an episode that is cut after ``horizon`` steps.

    V_0 = 0,  V_h(s) = max_a Σ_z P(z|s,a) [R(s,a,z) + (1 − terminal) V_{h−1}(s')],  Σ_s rho(s) V_H(s)

    The maximum is over policies that know how many steps are left, so no stationary one is better.

    Source: Puterman 1994, "Markov decision processes", section 4.5 (backward induction).
    """
    reward, weight = _reward(mdp), _continues(mdp)
    value = np.zeros(mdp.num_states)
    for _ in range(_positive(horizon)):
        value = _backup(reward, weight, mdp.successor, value).max(axis=1)
    return float(mdp.rho @ value)


def policy_value(mdp: FiniteMDP, policy: Array, horizon: int) -> Array:
    """The expected undiscounted return of policies in episodes cut after ``horizon`` steps.

    V_0 = 0,  V_h(s) = Σ_a π(a|s) Σ_z P(z|s,a) [R(s,a,z) + (1 − terminal) V_{h−1}(s')]

    Args:
        mdp: the task; its own time limit is not read.
        policy: actions, integer [S] or [K, S], or probabilities, floating [S, A] or [K, S, A].
        horizon: steps after which an episode is truncated, at least 1.

    Returns:
        Σ_s rho(s) V_H(s), float64 [] or [K].

    Source: Puterman 1994, section 4.2 (finite-horizon policy evaluation).
    """
    reward, weight, successor = _under(mdp, policy)
    shape = reward.shape[:-1]
    reward, weight = reward.reshape(-1, mdp.num_states), weight.reshape(-1, *weight.shape[-2:])
    # numbers of the successors in the flattened [K * S] values, one block of S a policy
    block = mdp.num_states * np.arange(len(reward))[:, None, None]
    successor = successor.reshape(-1, *successor.shape[-2:]) + block
    value = np.zeros_like(reward)
    for _ in range(_positive(horizon)):
        value = _backup(reward, weight, successor, value.ravel())
    result: Array = (value * mdp.rho).sum(axis=-1).reshape(shape)
    return result


def stepwise_value(mdp: FiniteMDP, policies: Array) -> Array:
    """As `policy_value`, of policies that go by the step of the episode: one for each of H steps.

    V_{H+1} = 0,  V_h(s) = Σ_a π_h(a|s) Σ_z P(z|s,a) [R(s,a,z) + (1 − terminal) V_{h+1}(s')]

    Args:
        mdp: the task; its own time limit is not read.
        policies: actions, integer [K, H, S], or probabilities, floating [K, H, S, A].

    Returns:
        Σ_s rho(s) V_1(s), float64 [K].

    Source: Puterman 1994, section 4.2 (finite-horizon policy evaluation).
    """
    values = np.zeros(len(policies))
    for k, steps in enumerate(policies):
        value = np.zeros(mdp.num_states)
        for policy in steps[::-1]:
            value = _backup(*_under(mdp, policy), value)
        values[k] = mdp.rho @ value
    return values


def reachable(mdp: FiniteMDP) -> Array:
    """[S] bool: states in which an episode from rho can take an action.

    A state that is only entered by terminal outcomes is not one of them: no action is taken there.
    """
    goes_on = (mdp.P > 0) & ~mdp.terminal
    found: Array = mdp.rho > 0
    while True:
        grown = found.copy()
        grown[mdp.successor[found][goes_on[found]]] = True
        if (grown == found).all():
            return found
        found = grown


def max_q_error(mdp: FiniteMDP, q: Array, gamma: float) -> Array:
    """The largest |Q − Q*| over the actions of `reachable` states, in raw reward units.

    Args:
        mdp: the task.
        q: action values [S, A] or [K, S, A].
        gamma: the agent's discount; Q* is at this gamma, truncation bootstrapped.

    Returns:
        float64 [] or [K].

    Raises:
        ArithmeticError: there is no finite Q*, which can be at gamma 1 only.
    """
    optimal = policy_iteration(mdp, gamma) if gamma < 1 else q_star(mdp, gamma)
    error: Array = np.abs(q - optimal)[..., reachable(mdp), :].max(axis=(-2, -1))
    return error


def _reward(mdp: FiniteMDP) -> Array:
    """[S, A] expected reward of a step."""
    reward: Array = (mdp.P * mdp.R).sum(axis=2)
    return reward


def _continues(mdp: FiniteMDP) -> Array:
    """[S, A, Z] probability of an outcome after which the episode goes on."""
    continues: Array = np.where(mdp.terminal, 0.0, mdp.P)
    return continues


def _backup(reward: Array, weight: Array, successor: Array, value: Array) -> Array:
    """Reward + Σ_z w_z V(s'_z): the one equation that all of this module iterates."""
    backed_up: Array = reward + (weight * value[successor]).sum(axis=-1)
    return backed_up


def _solve(reward: Array, weight: Array, successor: Array) -> Array:
    """[S] values with v = r + Σ_z w_z v(s'_z); reward [S], weight and successor [S, Z]."""
    states, outcomes = successor.shape
    rows = np.repeat(np.arange(states), outcomes)
    transition = csc_array((weight.ravel(), (rows, successor.ravel())), shape=(states, states))
    value: Array = spsolve((eye_array(states, format="csc") - transition).tocsc(), reward)
    return value


def _under(mdp: FiniteMDP, policy: Array) -> tuple[Array, Array, Array]:
    """Reward [.., S], weight and successor [.., S, Z] of a step under policies of either kind."""
    reward, weight = _reward(mdp), _continues(mdp)
    if np.issubdtype(policy.dtype, np.integer):
        at = (np.arange(mdp.num_states), policy)
        return reward[at], weight[at], mdp.successor[at]
    # an action and its outcome, drawn together, are one outcome of A * Z
    mixed = (policy[..., None] * weight).reshape(*policy.shape[:-1], -1)
    return (policy * reward).sum(axis=-1), mixed, mdp.successor.reshape(mdp.num_states, -1)


def _positive(horizon: int) -> int:
    if horizon < 1:
        raise ValueError(f"horizon: got {horizon}, takes a number of at least 1")
    return horizon
