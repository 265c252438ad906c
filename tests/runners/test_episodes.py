"""Counting valid rows and returns of episodes, against a record that never thinks in rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.contract import Rollout
from envs.contract import spec_of
from runners.episodes import EpisodeCounter
from runners.sources import Plan
from runners.worker import RolloutWorker
from tests.scripted import RandomActor, ScriptedEnv


def rollout(reward, done, first):
    ended = np.array(done, bool)
    return Rollout(
        obs=np.zeros((len(reward) + 1, ended.shape[1])), first=np.array(first, bool),
        action=np.zeros(ended.shape, int), reward=np.array(reward, float), terminated=ended,
        truncated=np.zeros_like(ended),
    )  # fmt: skip


def test_by_hand():
    """Lane 0: an episode of 1 + 2, ended in row 1; row 2 ignored; 4 so far. Lane 1: 10s so far."""
    counter = EpisodeCounter(1, 2)
    counter.add(
        rollout(
            [[1, 10], [2, 10], [0, 10], [4, 10]],
            [[0, 0], [1, 0], [0, 0], [0, 0]],
            [[1, 1], [0, 0], [0, 0], [1, 0], [0, 0]],
        )
    )
    assert counter.env_steps.tolist() == [3 + 4]
    episodes, mean = counter.report()
    assert (episodes.tolist(), mean.tolist()) == ([1], [3.0])
    # both end in the next rollout: 4 + 8 and 40 + 1
    counter.add(rollout([[8, 1]], [[1, 1]], [[0, 0], [0, 0]]))
    episodes, mean = counter.report()
    assert (episodes.tolist(), mean.tolist()) == ([2], [(12 + 41) / 2])
    assert counter.env_steps.tolist() == [9]


def test_an_episode_whose_worker_was_replaced_gives_no_return():
    """Lane 0 had 5 + 5 when its worker died; the next episode, of 1 + 2, is the only one that ends."""
    counter = EpisodeCounter(1, 2)
    counter.add(rollout([[5, 1], [5, 1]], [[0, 0], [0, 0]], [[1, 1], [0, 0], [0, 0]]))
    counter.add(rollout([[1, 1], [2, 1]], [[0, 0], [1, 0]], [[1, 0], [0, 0], [0, 0]]))
    episodes, mean = counter.report()
    assert (episodes.tolist(), mean.tolist()) == ([1], [3.0])
    assert counter.carry.tolist() == [0.0, 4.0]


def test_a_report_without_an_end_is_not_a_number():
    counter = EpisodeCounter(2, 1)
    counter.add(rollout([[1, 1]], [[0, 1]], [[1, 1], [0, 0]]))
    episodes, mean = counter.report()
    assert episodes.tolist() == [0, 1]
    assert np.isnan(mean[0])
    assert mean[1] == 1.0
    assert counter.report()[0].tolist() == [0, 0]


def test_an_end_on_an_ignored_row_is_no_episode():
    """Row 0 ends an episode; row 1 is ignored and a scheduled reset marks it as truncated."""
    counter = EpisodeCounter(1, 1)
    rows = rollout([[5], [0]], [[1], [0]], [[1], [0], [1]])
    rows.truncated[1] = True
    counter.add(rows)
    episodes, mean = counter.report()
    assert (episodes.tolist(), mean.tolist()) == ([1], [5.0])


class Truth:
    """K seeds of scripted lanes and a counter, with state and seeds that leave."""

    def __init__(self, seeds, lanes, limit, p_end):
        self.envs = []

        def make(seed, block):
            self.envs.append(ScriptedEnv(lanes, seed, limit, p_end))
            return self.envs[-1]

        self.worker = RolloutWorker(
            "scripted", spec_of(ScriptedEnv(1, 0, 1, 0.0)), seeds, 1, make, RandomActor,
            max_rows=9, reward_dtype=np.float64,
        )  # fmt: skip
        self.counter = EpisodeCounter(len(seeds), lanes)

    def of(self, env):
        """(environment steps, episodes, sum of their returns) of one seed, by its record."""
        played = [episode for lane in env.history for episode in lane]
        ended = [e for e in played if e.terminated or e.truncated]
        return sum(len(e.rewards) for e in played), len(ended), sum(sum(e.rewards) for e in ended)


@settings(max_examples=30, deadline=None)
@given(
    lanes=st.integers(1, 3),
    limit=st.sampled_from([1, 2, 5, 100]),
    p_end=st.sampled_from([0.0, 0.2, 1.0]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10),
)
def test_counts_are_those_of_the_record(lanes, limit, p_end, lengths):
    truth = Truth([1, 2], lanes, limit, p_end)
    for rows in lengths:
        truth.counter.add(truth.worker.collect(Plan(rows, None), 0))
        fresh = EpisodeCounter(2, lanes)
        fresh.load_state_dict(truth.counter.state_dict())
        truth.counter = fresh
    totals = truth.counter.total.copy()
    episodes, _ = truth.counter.report()
    for k, env in enumerate(truth.envs):
        steps, count, total = truth.of(env)
        assert truth.counter.env_steps[k] == steps
        assert episodes[k] == count
        assert totals[k] == pytest.approx(total)


def test_seeds_that_leave_take_their_counts_along():
    truth = Truth([1, 2, 3], 2, 5, 0.2)
    for _ in range(4):
        truth.counter.add(truth.worker.collect(Plan(7, None), 0))
    truth.worker.keep([0, 2])
    truth.counter.keep([0, 2])
    for _ in range(4):
        truth.counter.add(truth.worker.collect(Plan(7, None), 0))
    for k, env in enumerate([truth.envs[0], truth.envs[2]]):
        steps, count, total = truth.of(env)
        assert truth.counter.env_steps[k] == steps
        assert truth.counter.episodes[k] == count
        assert truth.counter.total[k] == pytest.approx(total)
