"""Worker processes give what the local source gives, however many there are."""

from __future__ import annotations

from threading import Timer

import numpy as np
import pytest

from agents.contract import Params
from agents.device import homeward
from runners import group as groups
from runners.errors import BadInput
from runners.free_memory import available
from runners.progress import Clock
from runners.sources import Plan
from runners.sources.shared import Board, chunks
from runners.state_tree import digest_state
from tests.agents.slow_machine import SlowMachine
from tests.agents.test_groups import config_of

ARRAYS = ("obs", "first", "action", "reward", "terminated", "truncated")


class Run:
    """A small run behind the plain loop: what came, and where it stands."""

    def __init__(self, workers=0, name="dqn", seeds=(3, 4), **settings):
        settings = {"lanes": 8, "block_size": 4, "learning_starts": 50, "steps": 10**6, **settings}
        self.config = config_of(name, **settings)
        setting = groups.make_setting(self.config)
        self.clock = Clock(10**6, 10**6, 2_000, self.config.rollout_length, 8, self.config.ahead)
        self.learner = groups.make_learner(setting, seeds)
        self.source = groups.make_source(setting, seeds, self.learner, workers)
        self.lane_steps, self.rollouts, self.versions = 0, [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.source.close()

    def go(self, rollouts, pause=True):
        """So many more, at rest after the last one where ``pause``."""
        self.source.publish(self.learner.params())
        for left in range(rollouts, 0, -1):
            plan = self.clock.plan(self.lane_steps)
            ends = pause and left <= self.config.ahead + 1 - self.source.pending
            rollout = self.source.next(plan._replace(following=None) if ends else plan)
            self.lane_steps += plan.rows * 8
            self.versions.append((self.learner.version, rollout.version))
            self.learner.observe(rollout)
            for _ in range(self.learner.updates_due()):
                self.learner.update()
            self.source.publish(self.learner.params())
            arrays = {name: getattr(rollout, name) for name in ARRAYS}
            arrays |= rollout.facts | rollout.step_facts | rollout.extras
            self.rollouts.append(digest_state({**arrays, "memory": rollout.actor_state}))
        return self

    def stand(self):
        return digest_state(
            {"source": self.source.state_dict(), "learner": self.learner.state_dict()}
        )

    def keep(self, positions):
        self.learner.keep(positions)
        self.source.keep(positions)
        return self


FACTS = {"env": "Taxi-v4", "noisy": True, "prioritized": True, "actor_priorities": True}
CASES = {
    "an action mask, what acting thought": ("dqn", {"lag": 1, **FACTS}),
    "what is remembered": ("r2d2", {"lag": 1, "env": "popgym-RepeatPreviousEasy-v0"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_the_local_source(case):
    name, settings = CASES[case]
    same_bits(name, settings, (3,))


@pytest.mark.slow
def test_the_bits_of_an_ensemble_are_those_of_the_local_source():
    same_bits("bootstrapped_dqn", {"lag": 1}, (3,))


@pytest.mark.slow  # each process takes its seconds to start
@pytest.mark.parametrize("settings", [{"lag": 0}, {"lag": 1}])
def test_the_bits_are_the_same_for_any_number_of_workers(settings):
    same_bits("dqn", settings, (1, 2, 4))


def same_bits(name, settings, workers):
    with Run(0, name, **settings) as local:
        local.go(40)
        expected = local.rollouts, local.stand()
    assert len(set(local.rollouts)) == 40
    for number in workers:
        with Run(number, name, **settings) as run:
            run.go(40)
            assert run.rollouts == expected[0], number
            assert run.stand() == expected[1], number


def test_parameters_that_a_device_hands_over_late_are_those_that_act(monkeypatch):
    """The learner goes on meanwhile; what acts is the publish that it was to be."""
    monkeypatch.setattr(homeward, "machine_of", lambda device: SlowMachine())
    with Run(lag=1) as local, Run(2, lag=1) as workers:
        assert isinstance(workers.learner.params().tensors, homeward.OnTheWay)
        assert workers.go(8).rollouts == local.go(8).rollouts
        assert workers.source.written is not None
        assert workers.stand() == local.stand()


def test_a_state_moves_between_sources_of_any_number_of_workers():
    with Run(0, lag=1) as whole:
        whole.go(30)
    with Run(2, lag=1) as run:
        run.go(10)
        state, learner = run.source.state_dict(), run.learner.state_dict()
        rows = run.learner.replay.rows(run.learner.replay.tail, run.learner.replay.head)
        tail, steps = run.learner.replay.tail, run.lane_steps
    for workers in (0, 3):  # blocks are dealt out in other parts
        with Run(workers, lag=1) as other:
            other.learner.load_state_dict(learner)
            other.learner.replay.load_rows(tail, rows)
            other.source.load_state_dict(state)
            other.lane_steps = steps
            assert other.go(20).rollouts == whole.rollouts[10:]


@pytest.mark.parametrize("kept", [[0], [1, 2]])
def test_seeds_leave(kept):
    ends = []
    for workers in (0, 4):
        with Run(workers, seeds=(3, 4, 7), lag=1) as run:
            run.go(12).keep(kept).go(12)
            ends.append((run.rollouts, run.stand()))
    assert ends[0] == ends[1]


def test_async_workers_are_ahead_by_the_bound_at_most_and_the_replay_ratio_holds():
    with Run(2, async_=True, max_lag=3, lag=0) as run:
        run.go(60, pause=False)
        lags = [learned - acted for learned, acted in run.versions]
        assert min(lags) >= 0
        assert max(lags) <= 3
        assert run.source.pending == 3
        due = (run.lane_steps - 50) * run.config.hyper.replay_ratio
        assert run.learner.updates == int(due)


def test_no_more_is_begun_than_there_are_slots_for():
    """However far a plan looks ahead: one more would be written over the rollout just handed over."""
    plan = Plan(8, None)
    for _ in range(5):
        plan = plan._replace(following=plan)
    with Run(2, lag=0, async_=True, max_lag=2) as run:
        run.source.publish(run.learner.params())
        for _ in range(3):
            run.source.next(plan)
            assert run.source.pending == 2


def test_an_overlapping_thread_gives_the_bits_of_lag_one(monkeypatch):
    with Run(0, lag=1) as plain:
        plain.go(30)
        expected = plain.rollouts, plain.stand()
    from envs.classic import ClassicControl

    monkeypatch.setattr(ClassicControl, "releases_gil", True)
    with Run(0, lag=1, env="MountainCar-v0") as run:
        assert run.source.thread is not None
        run.go(30, pause=False)
        assert run.source.pending == 1
    monkeypatch.setattr(groups.Setting, "overlaps", True, raising=False)
    with Run(0, lag=1) as run:
        run.source.__init__(run.source.worker, 1, True)
        run.go(30)
        assert (run.rollouts, run.stand()) == expected


# -- Refusals ------------------------------------------------------------------------------------


def test_more_workers_than_blocks_are_refused_with_the_size_that_makes_enough():
    setting = groups.make_setting(config_of("dqn", lanes=8))
    with pytest.raises(BadInput, match=r"got 4, takes at most 2: .* --block-size 4 makes enough"):
        groups.check_workers(setting, 2, 4)
    with pytest.raises(BadInput, match="take more --lanes"):
        groups.check_workers(setting, 2, 17)
    groups.check_workers(setting, 2, 2)


def test_workers_of_a_table_are_refused():
    with pytest.raises(BadInput, match="learns at every step"):
        groups.check_workers(groups.make_setting(config_of("q_learning")), 1, 1)


def test_async_takes_workers():
    setting = groups.make_setting(config_of("dqn", async_=True, max_lag=2, lag=0))
    with pytest.raises(BadInput, match="takes --workers"):
        groups.check_workers(setting, 1, 0)


def test_too_little_shared_memory_is_said_at_the_start_with_the_size(monkeypatch):
    from runners.sources import shared

    assert available() > 10**8
    monkeypatch.setattr(shared, "available", lambda: 1_000)
    with pytest.raises(BadInput, match=r"take [\d,]+ bytes of shared memory, and 1,000 are free"):
        Run(1)


# -- Parts ---------------------------------------------------------------------------------------


def test_blocks_are_dealt_out_evenly_and_in_order():
    assert chunks(5, 2) == [range(2), range(2, 5)]
    assert [len(part) for part in chunks(10, 4)] == [2, 3, 2, 3]


def test_a_board_keeps_the_newest_two_publishes(monkeypatch):
    import torch

    def params(number, seeds=2):
        tensors = {"flat": torch.full((seeds, 5), float(number))}
        return Params(number + 10, number * 8, tensors, {"epsilon": number / 10})

    board = Board(params(0))
    for number in range(5):
        board.write(number, params(number))
        for older in range(max(0, number - 1), number + 1):
            found = board.read(older)
            assert (found.version, found.lane_steps) == (older + 10, older * 8)
            assert found.scalars == {"epsilon": older / 10}
            assert found.tensors["flat"].unique().tolist() == [older]
        assert board.read(None).version == number + 10
    with pytest.raises(LookupError):
        board.read(1)
    monkeypatch.setattr(board, "PATIENCE", 0.01, raising=False)
    with pytest.raises(LookupError):
        board.read(5)
    late = Timer(0.02, board.write, (5, params(5)))
    monkeypatch.setattr(board, "PATIENCE", 10.0)
    late.start()
    assert board.read(5).version == 15
    board.keep(1)
    board.write(0, params(7, seeds=1))
    assert board.read(0).tensors["flat"].shape == (1, 5)
    assert np.shares_memory(board.copies["flat"], board.memory.bytes)


def test_a_board_is_for_parameters_on_any_device():
    """On meta as on a GPU nothing of a tensor can be read where it lies."""
    import torch

    board = Board(Params(0, 0, {"flat": torch.zeros(2, 5, device="meta")}, {}))
    board.write(0, Params(0, 0, {"flat": torch.ones(2, 5)}, {}))
    assert board.read(0).tensors["flat"].tolist() == [[1.0] * 5] * 2
