"""R-max: be optimistic about what is not known, and plan exactly with what is.

Brafman & Tennenholtz 2002, "R-max", with discounting as in Strehl, Li & Littman 2009 (section 4.2): a
pair that was tried fewer than m times is worth the most that anything can be, V_max = R_max / (1 - γ);
the others are worth what their first m outcomes say,

    Q(s, a) = Σ_z p̂(z|s, a) (r̂_z + γ maxₐ Q(s'_z, a)),

solved by value iteration whenever another pair becomes known. Its policy is greedy, ties at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from agents.contract import Array
from agents.hyper import Search, at_least, positive, unit
from agents.tabular_config import Sizes, TabularConfig
from agents.tabular_episodes import MONTE_CARLO
from agents.tabular_kernels import best_value, count, reward_and_discount_of
from agents.tabular_models import Model, empty_model, expected_target, remember
from envs.kernel import kernel

R_MAX = MONTE_CARLO + 1


class Numbers(NamedTuple):
    """What the rule is told."""

    gamma: float
    known_after: int
    accuracy: float


@dataclass(frozen=True)
class RMaxConfig(TabularConfig):
    """R-max: what was not tried often enough is the best there is. Its step size is not used."""

    rule = R_MAX
    memory = Model

    lr: Annotated[float, positive(1)] = 0.1
    """not used: what is known is solved"""
    lr_end: Annotated[float, positive(1)] = 0.1
    """not used"""
    epsilon_start: Annotated[float, unit()] = 0.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.0
    """share of random actions in the end"""
    initial_value: float = 1.0
    """V_max, what a pair is worth that is not known: the largest return there can be"""
    known_after: Annotated[int, at_least(1), Search("log", 1, 100)] = 20
    """times a pair is tried until it is known"""
    outcomes: Annotated[int, at_least(1)] = 8
    """successors that a state and action has room for"""
    accuracy: Annotated[float, positive()] = 1e-4
    """value iteration ends where no value changes by more"""

    def numbers(self) -> Numbers:
        """γ, m and the accuracy."""
        return Numbers(self.gamma, self.known_after, float(self.accuracy))

    def remembers(self, sizes: Sizes) -> dict[str, Array]:
        """Nothing seen yet."""
        return empty_model(sizes, self.outcomes, sweeps=False)


@kernel()
def solve(q, model, numbers):  # type: ignore[no-untyped-def]
    """Value iteration in place over the pairs that are known (Sutton & Barto 2018, section 4.4)."""
    for _ in range(100_000):
        change = 0.0
        for i in range(model.clock[0]):
            s = model.known[i]
            for a in range(q.shape[2]):
                if model.tried[s, a] >= numbers.known_after and q[0, s, a] > -np.inf:
                    goal = expected_target(q, model, s, a)
                    change = max(change, abs(goal - q[0, s, a]))
                    q[0, s, a] = goal
        if change <= numbers.accuracy:
            break


@kernel()
def learn_row(  # type: ignore[no-untyped-def]
    q, t, obs, first, action, reward, terminated, model, numbers, sums
):
    """Take in row t of one seed's rows [T, n]; the lanes share the model."""
    for lane in range(obs.shape[1]):
        if first[t + 1, lane]:
            continue
        s, a, successor = obs[t, lane], action[t, lane], obs[t + 1, lane]
        r, discount = reward_and_discount_of(
            reward[t, lane], terminated[t, lane], numbers.gamma, 1.0, np.inf
        )
        goal = r + discount * best_value(q, 0, successor)
        count(sums, goal, goal - q[0, s, a])
        if model.tried[s, a] < numbers.known_after:
            z, _ = remember(model, s, a, r, discount, successor)
            model.successor[s, a, z], model.discount[s, a, z] = successor, discount
            if model.tried[s, a] >= numbers.known_after:
                solve(q, model, numbers)
