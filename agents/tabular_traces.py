"""Tabular agents with eligibility traces: SARSA(λ), Watkins's Q(λ) and Peng's Q(λ).

SARSA(λ) is Sutton & Barto 2018, section 12.7 with one feature a pair (1998, figure 7.11), Watkins's
Q(λ) section 12.10 (1998, figure 7.14), Peng's Q(λ) the algorithm of Peng & Williams 1996,
"Incremental multi-step Q-learning", section 4. At λ = 0 they are SARSA and Q-learning.

A trace belongs to a lane: it ends with the lane's episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np

from agents.contract import Array
from agents.hyper import Search, unit
from agents.tabular_config import Sizes, TabularConfig
from agents.tabular_kernels import best_value, count, reward_and_discount_of
from agents.tabular_steps import Q_SIGMA
from envs.kernel import kernel

SARSA_LAMBDA, WATKINS_LAMBDA, PENG_LAMBDA = range(Q_SIGMA + 1, Q_SIGMA + 4)


class Numbers(NamedTuple):
    """What the rules are told besides their step size."""

    gamma: float
    lambda_: float
    replacing: bool


class Traces(NamedTuple):
    """The traces of each lane, and SARSA(λ)'s row that waits for its next action."""

    trace: Array  # [n, S, A] float64
    pairs: Array  # [n, S A] int64: those whose trace is not 0, as s A + a
    alive: Array  # [n] int64: how many they are
    waiting: Array  # [n, 5] float64, as `tabular_kernels.learn_row` has it


@dataclass(frozen=True)
class _TraceConfig(TabularConfig):
    memory = Traces

    lambda_: Annotated[float, unit(), Search("linear", 0.0, 0.95)] = 0.8
    """how slowly traces fade; 0: only the last pair learns"""
    trace: Literal["accumulating", "replacing"] = "replacing"
    """whether another visit adds 1 to a trace or sets it to 1"""

    def numbers(self) -> Numbers:
        """γ, λ and the kind of trace."""
        return Numbers(self.gamma, float(self.lambda_), self.trace == "replacing")

    def remembers(self, sizes: Sizes) -> dict[str, Array]:
        """No traces yet."""
        lanes, pairs = (sizes.seeds, sizes.lanes), sizes.states * sizes.actions
        return {
            "trace": np.zeros((*lanes, sizes.states, sizes.actions)),
            "pairs": np.zeros((*lanes, pairs), np.int64),
            "alive": np.zeros(lanes, np.int64),
            "waiting": np.zeros((*lanes, 5)),
        }


class SarsaLambdaConfig(_TraceConfig):
    """SARSA(λ): what is learned of a pair goes to those before it too."""

    rule = SARSA_LAMBDA


class WatkinsConfig(_TraceConfig):
    """Watkins's Q(λ): traces end where an action is taken that is not the best."""

    rule = WATKINS_LAMBDA


class PengConfig(_TraceConfig):
    """Peng's Q(λ): traces go on behind exploring actions, λ-returns end in the best one's value."""

    rule = PENG_LAMBDA


@kernel()
def forget(traces, lane):  # type: ignore[no-untyped-def]
    """``e(s, a) ← 0`` everywhere."""
    num_actions = traces.trace.shape[2]
    for i in range(traces.alive[lane]):
        pair = traces.pairs[lane, i]
        traces.trace[lane, pair // num_actions, pair % num_actions] = 0.0
    traces.alive[lane] = 0


@kernel()
def fade(traces, lane, factor):  # type: ignore[no-untyped-def]
    """``e(s, a) ← γ λ e(s, a)`` everywhere; a trace that has become 0 leaves the list."""
    num_actions, left = traces.trace.shape[2], 0
    for i in range(traces.alive[lane]):
        pair = traces.pairs[lane, i]
        s, a = pair // num_actions, pair % num_actions
        traces.trace[lane, s, a] *= factor
        if traces.trace[lane, s, a] > 0.0:
            traces.pairs[lane, left] = pair
            left += 1
    traces.alive[lane] = left


@kernel()
def visit(traces, lane, s, a, replacing):  # type: ignore[no-untyped-def]
    """``e(S, A) ← e(S, A) + 1``, or 1 where traces replace."""
    if traces.trace[lane, s, a] == 0.0:
        traces.pairs[lane, traces.alive[lane]] = s * traces.trace.shape[2] + a
        traces.alive[lane] += 1
    elif replacing:
        traces.trace[lane, s, a] = 0.0
    traces.trace[lane, s, a] += 1.0


@kernel()
def share_out(q, traces, lane, step):  # type: ignore[no-untyped-def]
    """``Q(s, a) ← Q(s, a) + α δ e(s, a)`` everywhere; ``step`` is α δ."""
    num_actions = traces.trace.shape[2]
    for i in range(traces.alive[lane]):
        pair = traces.pairs[lane, i]
        s, a = pair // num_actions, pair % num_actions
        q[0, s, a] += step * traces.trace[lane, s, a]


@kernel()
def learn_row(  # type: ignore[no-untyped-def]
    rule, q, t, obs, first, action, reward, terminated, traces, numbers, lr, sums
):
    """Take in row t of one seed's rows [T, n], lane after lane.

    SARSA(λ) learns one row late, as SARSA does. An ignored row, or a lane that begins anew, ends the
    traces.
    """
    waiting, factor = traces.waiting, numbers.gamma * numbers.lambda_
    for lane in range(obs.shape[1]):
        s, a, valid = obs[t, lane], action[t, lane], not first[t + 1, lane]
        r, discount = reward_and_discount_of(
            reward[t, lane], terminated[t, lane], numbers.gamma, 1.0, np.inf
        )
        if first[t, lane]:
            forget(traces, lane)
            waiting[lane, 0] = 0.0
        if rule == SARSA_LAMBDA:
            if waiting[lane, 0] > 0.0:
                past, taken = int(waiting[lane, 1]), int(waiting[lane, 2])
                goal = waiting[lane, 3] + waiting[lane, 4] * q[0, s, a]  # δ = R + γ Q(S', A') - Q
                error = goal - q[0, past, taken]
                visit(traces, lane, past, taken, numbers.replacing)
                share_out(q, traces, lane, lr * error)
                fade(traces, lane, factor)
                count(sums, goal, error)
            waiting[lane, 0], waiting[lane, 1], waiting[lane, 2] = valid, s, a
            waiting[lane, 3], waiting[lane, 4] = r, discount
            if not valid:
                forget(traces, lane)
            continue
        if not valid:
            forget(traces, lane)
            continue
        here = best_value(q, 0, s)
        goal = r + discount * best_value(q, 0, obs[t + 1, lane])
        error = goal - q[0, s, a]
        if rule == WATKINS_LAMBDA:
            # e ← γ λ e if A' = A*, else 0: what the box does behind a step is done before the next
            if q[0, s, a] == here:
                fade(traces, lane, factor)
            else:
                forget(traces, lane)
            visit(traces, lane, s, a, numbers.replacing)
            share_out(q, traces, lane, lr * error)
        else:
            # steps 3 to 5: the pairs before go by V(s), the one that is left now by Q(s, a)
            fade(traces, lane, factor)
            share_out(q, traces, lane, lr * (goal - here))
            q[0, s, a] += lr * error
            visit(traces, lane, s, a, numbers.replacing)
        count(sums, goal, error)
