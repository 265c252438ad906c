"""Tabular agents that look n steps ahead: n-step SARSA, n-step tree backup and Q(σ).

The three have one return. It backs up from the last pair of the window, where it is Q(S, A), and
at each step takes a share σ of the action that was taken and 1 - σ of the policy's mean, with the
taken action's value replaced by what is known better:

    G_h = Q(S_h, A_h)
    G_k = R_{k+1} + γ (σ G_{k+1} + (1 - σ) (V̄(S_{k+1}) + π(A_{k+1}|S_{k+1}) (G_{k+1} - Q(S_{k+1}, A_{k+1}))))
    V̄(s) = Σₐ π(a|s) Q(s, a)

σ = 1 is n-step SARSA (Sutton & Barto 2018, equation 7.4), σ = 0 tree backup (equation 7.16). Between
them it is the n-step Q(σ) of De Asis et al. 2018 (arXiv:1703.01327, equations 5 and 7; on-policy, so
that ρ = 1). Sutton & Barto's equation 7.17 has a control variate in the sampled share too; its mean
is the same, but at σ = 1 it is not SARSA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from agents.contract import Array
from agents.hyper import Search, at_least, unit
from agents.tabular_config import Sizes, TabularConfig
from agents.tabular_kernels import (
    DOUBLE_Q,
    count,
    expected_value,
    probability,
    reward_and_discount_of,
)
from envs.kernel import kernel

N_STEP_SARSA, TREE_BACKUP, Q_SIGMA = range(DOUBLE_Q + 1, DOUBLE_Q + 4)


class Numbers(NamedTuple):
    """What the rules are told besides their step size."""

    gamma: float
    sigma: float


class Window(NamedTuple):
    """The rows of each lane that have not been learned yet, oldest first."""

    held: Array  # [n] int64: how many
    rows: Array  # [n, n_step, 4] float64: state, action, reward, discount


@dataclass(frozen=True)
class _NStepConfig(TabularConfig):
    memory = Window

    n_step: Annotated[int, at_least(1), Search("linear", 1, 8)] = 4
    """steps that are summed before the table is asked"""

    def remembers(self, sizes: Sizes) -> dict[str, Array]:
        """An empty window a lane."""
        lanes = (sizes.seeds, sizes.lanes)
        return {"held": np.zeros(lanes, np.int64), "rows": np.zeros((*lanes, self.n_step, 4))}


@dataclass(frozen=True)
class NStepSarsaConfig(_NStepConfig):
    """n-step SARSA: n rewards, then the value of the action that is taken."""

    rule = N_STEP_SARSA

    def numbers(self) -> Numbers:
        """σ = 1: what was taken."""
        return Numbers(self.gamma, 1.0)


@dataclass(frozen=True)
class TreeBackupConfig(_NStepConfig):
    """n-step tree backup: at every step the policy's mean over the actions not taken."""

    rule = TREE_BACKUP

    def numbers(self) -> Numbers:
        """σ = 0: the mean."""
        return Numbers(self.gamma, 0.0)


@dataclass(frozen=True)
class QSigmaConfig(_NStepConfig):
    """n-step Q(σ): between SARSA, which samples, and tree backup, which takes the mean."""

    rule = Q_SIGMA

    sigma: Annotated[float, unit()] = 0.5
    """share of the action that was taken; 1 is SARSA, 0 is tree backup"""

    def numbers(self) -> Numbers:
        """σ as it was chosen."""
        return Numbers(self.gamma, float(self.sigma))


@kernel()
def learn_oldest(explore, q, lane, window, end, last_action, numbers, lr, level, sums):  # type: ignore[no-untyped-def]
    """Move Q of a lane's oldest row towards its return, and forget the row.

    Args:
        explore: how actions are chosen.
        q: [1, S, A] float64.
        lane: whose window.
        window: a `Window` that holds a row of the lane at least.
        end: S_h, the state behind the newest row.
        last_action: A_h, the action there; -1: none is taken yet, which with σ = 0 is no matter.
        numbers: γ and σ.
        lr: step size.
        level: of the policy.
        sums: of the metrics.
    """
    sigma, rows, held = numbers.sigma, window.rows, window.held[lane]
    s, a = end, last_action
    value = q[0, s, a] if a >= 0 else 0.0
    for k in range(held - 1, -1, -1):
        if sigma < 1.0:
            mean = expected_value(explore, q, 0, s, level)
            if a >= 0:
                mean += probability(explore, q, s, a, level) * (value - q[0, s, a])
            value = sigma * value + (1.0 - sigma) * mean
        value = rows[lane, k, 2] + rows[lane, k, 3] * value
        s, a = int(rows[lane, k, 0]), int(rows[lane, k, 1])
    error = value - q[0, s, a]
    q[0, s, a] += lr * error
    count(sums, value, error)
    for k in range(1, held):
        for i in range(4):
            rows[lane, k - 1, i] = rows[lane, k, i]
    window.held[lane] = held - 1


@kernel()
def learn_row(  # type: ignore[no-untyped-def]
    rule, explore, q, t, obs, first, action, reward, terminated, window, numbers, lr, level, sums
):
    """Take in row t of one seed's rows [T, n], and learn the row of each lane that is n old.

    What samples the last action learns one row late, as SARSA does; tree backup does not wait. All
    rows that are left are learned at the ignored row behind an end, oldest first: the final
    observation and the action chosen there are what a truncation bootstraps from. A lane that begins
    anew forgets them.
    """
    n_step = window.rows.shape[1]
    for lane in range(obs.shape[1]):
        s, a, valid = obs[t, lane], action[t, lane], not first[t + 1, lane]
        if first[t, lane]:
            window.held[lane] = 0
        if not valid:
            while window.held[lane] > 0:
                learn_oldest(explore, q, lane, window, s, a, numbers, lr, level, sums)
            continue
        if window.held[lane] == n_step:
            learn_oldest(explore, q, lane, window, s, a, numbers, lr, level, sums)
        held = window.held[lane]
        r, discount = reward_and_discount_of(
            reward[t, lane], terminated[t, lane], numbers.gamma, 1.0, np.inf
        )
        window.rows[lane, held, 0], window.rows[lane, held, 1] = s, a
        window.rows[lane, held, 2], window.rows[lane, held, 3] = r, discount
        window.held[lane] = held + 1
        if rule == TREE_BACKUP and held + 1 == n_step:
            learn_oldest(
                explore, q, lane, window, obs[t + 1, lane], -1, numbers, lr, level, sums
            )  # fmt: skip
