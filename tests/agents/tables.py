"""Rows and learners for the tests of tabular agents: by hand, and drawn at random."""

from __future__ import annotations

import numpy as np

from agents import tabular
from agents.contract import Rollout
from envs.contract import Spec

GAMMA, LR, EPSILON = 0.9, 0.5, 0.2


def make(config, lanes=1, seeds=1, **changes):
    """A learner of 3 states and 2 actions with a table to compute from by hand."""
    made = config(
        **{"lr": LR, "lr_end": LR, "gamma": GAMMA, "epsilon_start": EPSILON,
           "epsilon_end": EPSILON, **changes}
    )  # fmt: skip
    return blank(made, Spec((), np.int64, 3, 2), lanes, seeds, [[0.0, 0.0], [1.0, 3.0], [6.0, 5.0]])


def blank(config, spec, lanes=1, seeds=1, q=None):
    streams = [np.random.SeedSequence(k) for k in range(seeds)]
    learner = tabular.make_learner(config, spec, lanes, streams, [], None)
    if q is not None:
        learner.q[:] = q
    return learner


def random_rows(seed, count, lanes=1, states=5, actions=3):
    """The arrays of ``count`` rows that a simulator could have given; episodes are short."""
    rng, shape = np.random.default_rng(seed), (count, lanes)
    obs = rng.integers(states, size=(count + 1, lanes))
    first, (terminated, truncated) = np.zeros((count + 1, lanes), bool), np.zeros((2, *shape), bool)
    first[0] = True
    done = np.zeros(lanes, bool)
    ends = rng.random((2, *shape)) < 0.07
    reward = rng.normal(size=shape)
    for t in range(count):
        first[t + 1] = done
        reward[t, done] = 0.0
        terminated[t], truncated[t] = ends[0, t] & ~done, ends[1, t] & ~ends[0, t] & ~done
        done = terminated[t] | truncated[t]
    return Rollout(obs, first, rng.integers(actions, size=shape), reward, terminated, truncated)


def cut(whole, *lengths):
    """The same rows as several rollouts."""
    start = 0
    for length in lengths:
        here, more = slice(start, start + length), slice(start, start + length + 1)
        start += length
        yield Rollout(
            whole.obs[more], whole.first[more], whole.action[here], whole.reward[here],
            whole.terminated[here], whole.truncated[here],
        )  # fmt: skip


def episodes(rollout, lane=0):
    """Of one lane: ``(states [T+1], actions [T+1], rewards [T], how)`` in order of time.

    ``actions[T]`` is the one chosen at the final observation, on the ignored row. ``how`` is
    terminated, truncated, or open for the one that the rows leave in the middle; its last action is
    None.
    """
    states, actions, rewards = [], [], []
    for t in range(rollout.rows):
        if rollout.first[t + 1, lane]:
            continue
        states.append(int(rollout.obs[t, lane]))
        actions.append(int(rollout.action[t, lane]))
        rewards.append(float(rollout.reward[t, lane]))
        if rollout.done[t, lane]:
            behind = t + 1 < rollout.rows
            how = "terminated" if rollout.terminated[t, lane] else "truncated"
            last = int(rollout.action[t + 1, lane]) if behind else None
            yield [*states, int(rollout.obs[t + 1, lane])], [*actions, last], rewards, how
            states, actions, rewards = [], [], []
    if states:
        yield [*states, int(rollout.obs[-1, lane])], [*actions, None], rewards, "open"
