"""Every tabular rule's kernel by its number, and the loop over rows that the ordinary way takes.

``rule`` and ``explore`` are constants of the kernels that these end up in, so that what other rules
need is not compiled: it leaves the loop, which halves the time of a row. One-step rules are inlined
into those kernels once and not by way of `learn_further`, since a second level costs a third again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from agents import (
    tabular_episodes,
    tabular_models,
    tabular_rmax,
    tabular_steps,
    tabular_traces,
)
from agents.tabular_episodes import MONTE_CARLO
from agents.tabular_kernels import DOUBLE_Q, UCB, learn_row
from agents.tabular_models import PRIORITIZED_SWEEPING
from agents.tabular_rmax import R_MAX
from agents.tabular_steps import Q_SIGMA
from agents.tabular_traces import PENG_LAMBDA
from envs.kernel import inlined, kernel


@inlined()
def count_visits(visits, t, obs, first, action):  # type: ignore[no-untyped-def]
    """``N(s, a) ← N(s, a) + 1`` for the lanes of row t that are no ignored ones."""
    for lane in range(obs.shape[1]):
        if not first[t + 1, lane]:
            visits[obs[t, lane], action[t, lane]] += 1.0


@inlined()
def learn_further(  # type: ignore[no-untyped-def]
    rule, explore, q, t, obs, first, action, reward, terminated, coins, memory, numbers,
    lr, level, sums,
):  # fmt: skip
    """Learn row t by a rule of more than one step."""
    if rule <= Q_SIGMA:
        tabular_steps.learn_row(
            rule, explore, q, t, obs, first, action, reward, terminated, memory, numbers,
            lr, level, sums,
        )  # fmt: skip
    elif rule <= PENG_LAMBDA:
        tabular_traces.learn_row(
            rule, q, t, obs, first, action, reward, terminated, memory, numbers, lr, sums
        )
    elif rule <= PRIORITIZED_SWEEPING:
        tabular_models.learn_row(
            rule, q, t, obs, first, action, reward, terminated, coins, memory, numbers, lr, sums
        )
    elif rule == MONTE_CARLO:
        tabular_episodes.learn_row(
            q, t, obs, first, action, reward, terminated, memory, numbers, lr, sums
        )
    elif rule == R_MAX:
        tabular_rmax.learn_row(q, t, obs, first, action, reward, terminated, memory, numbers, sums)


@functools.cache
def learn_rows(rule: int, explore: int) -> Callable[..., None]:
    """The kernel that learns all rows of one seed in order of time."""

    @kernel()
    def rows(  # type: ignore[no-untyped-def]
        q, visits, obs, first, action, reward, terminated, coins, memory, numbers, lr, level, sums
    ):
        for t in range(reward.shape[0]):
            if explore == UCB:
                count_visits(visits, t, obs, first, action)
            if rule <= DOUBLE_Q:
                learn_row(
                    rule, explore, q, t, obs, first, action, reward, terminated, coins, memory,
                    numbers, lr, level, sums,
                )  # fmt: skip
            else:
                learn_further(
                    rule, explore, q, t, obs, first, action, reward, terminated, coins, memory,
                    numbers, lr, level, sums,
                )  # fmt: skip

    return rows
