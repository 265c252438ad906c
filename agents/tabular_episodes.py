"""On-policy Monte Carlo control: a table learns whole episodes when they are over.

Sutton & Barto 2018, section 5.4, the box of on-policy first-visit MC control, for ε-soft policies of
any kind. Going back from an episode's end,

    G ← γ G + R_{t+1},    Q(S_t, A_t) ← the mean of the returns, or Q + α (G - Q) (equation 6.1).

Where an episode was truncated, G begins with the value of the final observation and of the action
chosen there, and is 0 otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np

from agents.contract import Array
from agents.hyper import at_least, positive
from agents.tabular_config import Sizes, TabularConfig
from agents.tabular_kernels import count, reward_and_discount_of
from agents.tabular_models import PRIORITIZED_SWEEPING
from envs.kernel import kernel

MONTE_CARLO = PRIORITIZED_SWEEPING + 1


class Numbers(NamedTuple):
    """What the rule is told besides its step size."""

    gamma: float
    first_visit: bool
    average: bool


class Episodes(NamedTuple):
    """The episode of each lane so far, and how many returns every pair has had."""

    held: Array  # [n] int64: rows
    rows: Array  # [n, longest, 4] float64: state, action, reward, discount
    since: Array  # [n, S, A] int64: the row of the first visit, plus 1; 0: none
    returns: Array  # [S, A] float64


@dataclass(frozen=True)
class MonteCarloConfig(TabularConfig):
    """Monte Carlo control: the returns that followed, nothing is bootstrapped."""

    rule = MONTE_CARLO
    memory = Episodes

    lr: Annotated[float, positive(1)] = 0.1
    """step size at the start, with --step lr"""
    lr_end: Annotated[float, positive(1)] = 0.1
    """step size in the end, with --step lr"""
    visit: Literal["first", "every"] = "first"
    """which visits of an episode count"""
    step: Literal["average", "lr"] = "average"
    """mean of all returns, or a step of size lr towards each"""
    longest: Annotated[int, at_least(1)] = 1_000
    """rows after which an episode is learned as if it were truncated"""

    def numbers(self) -> Numbers:
        """γ, which visits count, and how."""
        return Numbers(self.gamma, self.visit == "first", self.step == "average")

    def remembers(self, sizes: Sizes) -> dict[str, Array]:
        """Episodes without rows."""
        lanes, pairs = (sizes.seeds, sizes.lanes), (sizes.states, sizes.actions)
        return {
            "held": np.zeros(lanes, np.int64),
            "rows": np.zeros((*lanes, self.longest, 4)),
            "since": np.zeros((*lanes, *pairs), np.int64),
            "returns": np.zeros((sizes.seeds, *pairs)),
        }


@kernel()
def drop(memory, lane):  # type: ignore[no-untyped-def]
    """Forget a lane's rows."""
    for i in range(memory.held[lane]):
        memory.since[lane, int(memory.rows[lane, i, 0]), int(memory.rows[lane, i, 1])] = 0
    memory.held[lane] = 0


@kernel()
def learn_episode(q, lane, memory, value, numbers, lr, sums):  # type: ignore[no-untyped-def]
    """Go back over a lane's rows from ``value``, that of what follows them."""
    for t in range(memory.held[lane] - 1, -1, -1):
        s, a = int(memory.rows[lane, t, 0]), int(memory.rows[lane, t, 1])
        value = memory.rows[lane, t, 2] + memory.rows[lane, t, 3] * value
        if numbers.first_visit and memory.since[lane, s, a] != t + 1:
            continue
        memory.returns[s, a] += 1.0
        step = 1.0 / memory.returns[s, a] if numbers.average else lr
        error = value - q[0, s, a]
        q[0, s, a] += step * error
        count(sums, value, error)
    drop(memory, lane)


@kernel()
def learn_row(  # type: ignore[no-untyped-def]
    q, t, obs, first, action, reward, terminated, memory, numbers, lr, sums
):
    """Take in row t of one seed's rows [T, n]; the ignored row behind an end learns the episode."""
    for lane in range(obs.shape[1]):
        s, a, valid = obs[t, lane], action[t, lane], not first[t + 1, lane]
        if first[t, lane]:
            drop(memory, lane)
        if not valid or memory.held[lane] == memory.rows.shape[1]:
            learn_episode(q, lane, memory, q[0, s, a], numbers, lr, sums)
        if not valid:
            continue
        held = memory.held[lane]
        r, discount = reward_and_discount_of(
            reward[t, lane], terminated[t, lane], numbers.gamma, 1.0, np.inf
        )
        memory.rows[lane, held, 0], memory.rows[lane, held, 1] = s, a
        memory.rows[lane, held, 2], memory.rows[lane, held, 3] = r, discount
        memory.held[lane] = held + 1
        if memory.since[lane, s, a] == 0:
            memory.since[lane, s, a] = held + 1
