"""Tabular agents that learn a model and plan with it: Dyna-Q, Dyna-Q+ and prioritized sweeping.

Sutton & Barto 2018, sections 8.2, 8.3 and 8.4. The boxes there take the world to be deterministic.
Here the model counts: of every pair it knows the successors that were seen, how often each, and the
mean reward on the way there. Dyna draws one of them as often as it was seen (a sample model);
prioritized sweeping takes their mean (an expected model). Where one successor is all that is seen,
both are the boxes. A pair has room for ``outcomes`` successors; one more takes the rarest's place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from agents.contract import Array
from agents.hyper import at_least
from agents.tabular_config import Sizes, TabularConfig
from agents.tabular_kernels import best_value, count, reward_and_discount_of
from agents.tabular_traces import PENG_LAMBDA
from envs.kernel import kernel

DYNA_Q, DYNA_Q_PLUS, PRIORITIZED_SWEEPING = range(PENG_LAMBDA + 1, PENG_LAMBDA + 4)


class Numbers(NamedTuple):
    """What the rules are told besides their step size."""

    gamma: float
    planning_steps: int
    kappa: float
    threshold: float


class Model(NamedTuple):
    """What was seen of the world, and, behind it, prioritized sweeping's queue.

    Z outcomes a pair; those that are not used have weight 0. Pairs are numbered s A + a, outcomes
    (s A + a) Z + z; -1 is none.
    """

    successor: Array  # [S, A, Z] int64
    weight: Array  # [S, A, Z] float64: how often
    gain: Array  # [S, A, Z] float64: the mean reward
    discount: Array  # [S, A, Z] float64: γ, 0 where the episode ends there
    tried: Array  # [S, A] float64: the sum of the weights
    last: Array  # [S, A] int64: when it was taken last
    known: Array  # [S] int64: the states in which something was done, in order
    clock: Array  # [2] int64: how many states are known, rows that were learned
    heap: Array  # [S A] int64: pairs, the most urgent first
    place: Array  # [S A] int64: where in the heap
    priority: Array  # [S A] float64
    queued: Array  # [1] int64: how many
    before: Array  # [S] int64: the first of the outcomes that lead there
    link: Array  # [S A Z] int64: the next of them


def empty_model(sizes: Sizes, outcomes: int, sweeps: bool) -> dict[str, Array]:
    """The arrays of a `Model` that has seen nothing; with room for a queue where it ``sweeps``."""
    k, pairs = sizes.seeds, (sizes.seeds, sizes.states, sizes.actions)
    queue = sizes.states * sizes.actions if sweeps else 0
    return {
        "successor": np.zeros((*pairs, outcomes), np.int64),
        "weight": np.zeros((*pairs, outcomes)),
        "gain": np.zeros((*pairs, outcomes)),
        "discount": np.zeros((*pairs, outcomes)),
        "tried": np.zeros(pairs),
        "last": np.zeros(pairs, np.int64),
        "known": np.zeros((k, sizes.states), np.int64),
        "clock": np.zeros((k, 2), np.int64),
        "heap": np.zeros((k, queue), np.int64),
        "place": np.full((k, queue), -1),
        "priority": np.zeros((k, queue)),
        "queued": np.zeros((k, 1), np.int64),
        "before": np.full((k, sizes.states if sweeps else 0), -1),
        "link": np.full((k, queue * outcomes), -1),
    }


@dataclass(frozen=True)
class _ModelConfig(TabularConfig):
    memory = Model

    planning_steps: Annotated[int, at_least(0)] = 10
    """updates from the model after each step"""
    outcomes: Annotated[int, at_least(1)] = 8
    """successors that a state and action has room for"""

    def numbers(self) -> Numbers:
        """γ and the number of planning steps."""
        return Numbers(self.gamma, self.planning_steps, 0.0, 0.0)

    def remembers(self, sizes: Sizes) -> dict[str, Array]:
        """Nothing seen yet; without prioritized sweeping no room for its queue."""
        return empty_model(sizes, self.outcomes, self.rule == PRIORITIZED_SWEEPING)


class DynaQConfig(_ModelConfig):
    """Dyna-Q: Q-learning, from what happens and from what a model says would happen."""

    rule = DYNA_Q

    @property
    def coins(self) -> int:
        """Three a planning step: a state, an action, an outcome."""
        return 3 * self.planning_steps


@dataclass(frozen=True)
class DynaQPlusConfig(_ModelConfig):
    """Dyna-Q+: planning pays a bonus for what was not tried for long."""

    rule = DYNA_Q_PLUS

    kappa: Annotated[float, at_least(0)] = 1e-3
    """bonus, times the root of the steps since a pair was tried"""

    @property
    def coins(self) -> int:
        """Three a planning step: a state, an action, an outcome."""
        return 3 * self.planning_steps

    def numbers(self) -> Numbers:
        """γ, the number of planning steps, and κ."""
        return Numbers(self.gamma, self.planning_steps, float(self.kappa), 0.0)


@dataclass(frozen=True)
class PrioritizedSweepingConfig(_ModelConfig):
    """Prioritized sweeping: updates go backward from where values have changed most."""

    rule = PRIORITIZED_SWEEPING

    planning_steps: Annotated[int, at_least(1)] = 10
    """updates from the model after each step, which are all there are"""
    threshold: Annotated[float, at_least(0)] = 1e-4
    """changes up to this size are not worth an update"""

    def numbers(self) -> Numbers:
        """γ, the number of planning steps, and θ."""
        return Numbers(self.gamma, self.planning_steps, 0.0, float(self.threshold))


@kernel()
def outcome_of(model, s, a, successor, ended):  # type: ignore[no-untyped-def]
    """The place z of an outcome of (s, a): where it is, or where it may go."""
    found = 0
    for z in range(model.weight.shape[2]):
        same = model.successor[s, a, z] == successor and (model.discount[s, a, z] == 0.0) == ended
        if model.weight[s, a, z] > 0.0 and same:
            return z
        if model.weight[s, a, z] < model.weight[s, a, found]:
            found = z
    return found


@kernel()
def remember(model, s, a, r, discount, successor):  # type: ignore[no-untyped-def]
    """``Model(S, A) ← R, S'``; returns the outcome's place, and whether it took it only now."""
    fresh = True
    for other in range(model.tried.shape[1]):
        fresh = fresh and model.tried[s, other] == 0.0
    if fresh:
        model.known[model.clock[0]] = s
        model.clock[0] += 1
    model.clock[1] += 1
    model.last[s, a] = model.clock[1]
    z = outcome_of(model, s, a, successor, discount == 0.0)
    known = (
        model.weight[s, a, z] > 0.0
        and model.successor[s, a, z] == successor
        and (model.discount[s, a, z] == 0.0) == (discount == 0.0)
    )
    if not known:
        model.tried[s, a] -= model.weight[s, a, z]
        model.weight[s, a, z] = model.gain[s, a, z] = 0.0
    model.tried[s, a] += 1.0
    model.weight[s, a, z] += 1.0
    model.gain[s, a, z] += (r - model.gain[s, a, z]) / model.weight[s, a, z]
    return z, not known


@kernel()
def imagine(plus, q, model, numbers, lr, state_draw, action_draw, outcome_draw):  # type: ignore[no-untyped-def]
    """One planning step of Dyna: a state that was seen, an action in it, Q-learning.

    Dyna-Q takes an action that was tried there. Dyna-Q+ takes any: one never tried leads back to
    where it was taken with a reward of 0, and ``κ √τ`` is added, τ the steps since it was tried.
    """
    s, options = model.known[int(state_draw * model.clock[0])], 0
    for a in range(q.shape[2]):
        options += q[0, s, a] > -np.inf and (plus or model.tried[s, a] > 0.0)
    if options == 0:
        return
    pick, action = int(action_draw * options), 0
    for a in range(q.shape[2]):
        if q[0, s, a] > -np.inf and (plus or model.tried[s, a] > 0.0):
            if pick == 0:
                action = a
                break
            pick -= 1
    r, discount, successor = 0.0, numbers.gamma, s
    left = outcome_draw * model.tried[s, action]
    for z in range(model.weight.shape[2]):
        if model.weight[s, action, z] > 0.0:
            r, discount = model.gain[s, action, z], model.discount[s, action, z]
            successor = model.successor[s, action, z]
            if left < model.weight[s, action, z]:
                break
            left -= model.weight[s, action, z]
    if plus:
        r += numbers.kappa * np.sqrt(model.clock[1] - model.last[s, action])
    q[0, s, action] += lr * (r + discount * best_value(q, 0, successor) - q[0, s, action])


@kernel()
def expected_target(q, model, s, a):  # type: ignore[no-untyped-def]
    """``Σ_z p̂(z|s, a) (r̂_z + γ maxₐ Q(s'_z, a))`` by the model."""
    total = 0.0
    for z in range(model.weight.shape[2]):
        if model.weight[s, a, z] > 0.0:
            value = best_value(q, 0, model.successor[s, a, z])
            total += model.weight[s, a, z] * (model.gain[s, a, z] + model.discount[s, a, z] * value)
    return total / model.tried[s, a]


@kernel()
def swap(model, i, j):  # type: ignore[no-untyped-def]
    """Exchange two places of the heap."""
    model.heap[i], model.heap[j] = model.heap[j], model.heap[i]
    model.place[model.heap[i]], model.place[model.heap[j]] = i, j


@kernel()
def push(model, pair, priority):  # type: ignore[no-untyped-def]
    """Put a pair into the queue, or forward where it is there and has become more urgent."""
    i = model.place[pair]
    if i < 0:
        i = model.queued[0]
        model.queued[0] += 1
        model.heap[i], model.place[pair] = pair, i
    elif priority <= model.priority[pair]:
        return
    model.priority[pair] = priority
    while i > 0 and model.priority[model.heap[(i - 1) // 2]] < priority:
        swap(model, i, (i - 1) // 2)
        i = (i - 1) // 2


@kernel()
def pop(model):  # type: ignore[no-untyped-def]
    """Take out the most urgent pair."""
    pair, size = model.heap[0], model.queued[0] - 1
    swap(model, 0, size)
    model.place[pair], model.queued[0] = -1, size
    i = 0
    while True:
        most = i
        for child in (2 * i + 1, 2 * i + 2):
            if child < size and (
                model.priority[model.heap[child]] > model.priority[model.heap[most]]
            ):
                most = child
        if most == i:
            return pair
        swap(model, i, most)
        i = most


@kernel()
def relink(model, number, old, new):  # type: ignore[no-untyped-def]
    """Outcome ``number`` leads to ``new`` and no more to ``old`` (-1: it was not used)."""
    if old >= 0:
        at = model.before[old]
        if at == number:
            model.before[old] = model.link[number]
        else:
            while model.link[at] != number:
                at = model.link[at]
            model.link[at] = model.link[number]
    model.link[number] = model.before[new]
    model.before[new] = number


@kernel()
def consider(q, model, s, a, threshold):  # type: ignore[no-untyped-def]
    """Queue a pair whose value the model would change by more than θ."""
    error = abs(expected_target(q, model, s, a) - q[0, s, a])
    if error > threshold and q[0, s, a] > -np.inf:
        push(model, s * q.shape[2] + a, error)


@kernel()
def sweep(q, model, numbers, lr):  # type: ignore[no-untyped-def]
    """Up to n updates of the most urgent pairs, each followed by a look at what leads there."""
    num_actions, outcomes = q.shape[2], model.weight.shape[2]
    for _ in range(numbers.planning_steps):
        if model.queued[0] == 0:
            break
        pair = pop(model)
        s, a = pair // num_actions, pair % num_actions
        if q[0, s, a] == -np.inf:  # it is not legal any more
            continue
        q[0, s, a] += lr * (expected_target(q, model, s, a) - q[0, s, a])
        number = model.before[s]
        while number >= 0:
            former = number // outcomes
            consider(q, model, former // num_actions, former % num_actions, numbers.threshold)
            number = model.link[number]


@kernel()
def learn_row(  # type: ignore[no-untyped-def]
    rule, q, t, obs, first, action, reward, terminated, coins, model, numbers, lr, sums
):
    """Learn row t of one seed's rows [T, n] and plan, lane after lane; the lanes share the model.

    Metrics are of what happened, not of what was planned. ``coins [T, n 3 planning_steps]`` are
    Dyna's.
    """
    steps = numbers.planning_steps
    for lane in range(obs.shape[1]):
        if first[t + 1, lane]:
            continue
        s, a, successor = obs[t, lane], action[t, lane], obs[t + 1, lane]
        r, discount = reward_and_discount_of(
            reward[t, lane], terminated[t, lane], numbers.gamma, 1.0, np.inf
        )
        goal = r + discount * best_value(q, 0, successor)
        error = goal - q[0, s, a]
        if rule != PRIORITIZED_SWEEPING:
            q[0, s, a] += lr * error
            z, _ = remember(model, s, a, r, discount, successor)
            model.successor[s, a, z], model.discount[s, a, z] = successor, discount
            for i in range(3 * steps * lane, 3 * steps * (lane + 1), 3):
                imagine(
                    rule == DYNA_Q_PLUS, q, model, numbers, lr,
                    coins[t, i], coins[t, i + 1], coins[t, i + 2],
                )  # fmt: skip
        else:
            had = model.tried[s, a]
            z, moved = remember(model, s, a, r, discount, successor)
            if moved:
                number = (s * q.shape[2] + a) * model.weight.shape[2] + z
                replaced = model.tried[s, a] < had + 1.0  # the rarest's weight has gone
                relink(model, number, model.successor[s, a, z] if replaced else -1, successor)
            model.successor[s, a, z], model.discount[s, a, z] = successor, discount
            consider(q, model, s, a, numbers.threshold)
            sweep(q, model, numbers, lr)
        count(sums, goal, error)
