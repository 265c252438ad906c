"""The clock, and what goes on beside the loop: due moments, records, seeds that are solved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runners import group as groups
from runners import progress as module
from runners.console import SilentConsole
from runners.evaluation import Purpose
from runners.progress import Clock, Progress, SeedRecord
from runners.train import run
from tests.agents.test_groups import config_of

# The clock.


def walk(clock):
    """(lane steps after it, plan) of every rollout of a run."""
    at, found = 0, []
    while at < clock.steps:
        plan = clock.plan(at)
        at += plan.rows * clock.lanes
        found.append((at, plan))
    return found


def test_by_hand():
    """8 lanes, rollouts of 16 rows are 128 lane steps; evaluations at 300, checkpoints at 500."""
    found = walk(Clock(steps=800, eval_every=300, checkpoint_every=500, rollout_length=16, lanes=8))
    # 300 lies in the row from 296 to 304: a rollout ends behind it. So 6 rows from 256 on;
    # 500 between 496 and 504, 600 at 600, the end at 800.
    assert [at for at, _ in found] == [128, 256, 304, 432, 504, 600, 728, 800]
    assert [plan.rows for _, plan in found] == [16, 16, 6, 16, 9, 12, 16, 9]
    assert [plan.checkpoint for _, plan in found] == [None, None, None, None, 1, None, None, None]


@given(
    steps=st.integers(1, 400),
    eval_every=st.integers(1, 200),
    checkpoint_every=st.integers(1, 200),
    rollout_length=st.integers(1, 40),
    lanes=st.integers(1, 9),
)
def test_no_moment_lies_inside_a_rollout(
    steps, eval_every, checkpoint_every, rollout_length, lanes
):
    clock = Clock(steps, eval_every, checkpoint_every, rollout_length, lanes)
    before, numbers = 0, []
    for after, plan in walk(clock):
        assert 1 <= plan.rows <= rollout_length
        for every in (eval_every, checkpoint_every, steps):
            # a moment that is passed is passed by the last row
            assert clock.passed(before, after - lanes, every) is False
        assert (plan.checkpoint is not None) == clock.passed(before, after, checkpoint_every)
        if plan.checkpoint is not None:
            assert 0 <= after - plan.checkpoint * checkpoint_every < lanes
            numbers.append(plan.checkpoint)
        before = after
    assert numbers == sorted(set(numbers))
    assert steps <= before < steps + lanes


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(0, 99, False), (0, 100, True), (99, 100, True), (100, 199, False), (100, 350, True)],
)
def test_passed(before, after, expected):
    assert Clock.passed(before, after, 100) is expected


# Records.


class Folder:
    """A seed's folder that keeps its lines."""

    def __init__(self):
        self.metrics, self.evals = [], []
        self.add_metrics, self.add_eval = self.metrics.append, self.evals.append


class Judge:
    """An evaluator that gives the returns it was told, and remembers who asked for what."""

    regret = None  # nothing exact is known

    def __init__(self, scheduled, confirmations=None):
        self.scheduled, self.confirmations, self.calls = scheduled, confirmations or {}, []

    def returns(self, params, seeds, episodes, purpose, number=0, recorders=()):
        for row, seed in zip(params.tensors["flat"], seeds, strict=True):
            assert torch.equal(row, self.weights[seed])  # nobody is judged by another's weights
        self.calls.append((purpose, tuple(seeds), episodes, number))
        table = self.scheduled if purpose == Purpose.SCHEDULED else self.confirmations
        return np.array([np.resize(table[seed].pop(0), episodes) for seed in seeds], float)

    def close(self):
        pass


class Scene:
    """A run of a small dqn whose evaluations are made up: 8 rollouts, one evaluation each two."""

    def __init__(self, scheduled, confirmations=None, threshold=10.0, stop_asked=lambda: 0, **more):
        self.config = config_of(
            "dqn", steps=512, lanes=4, rollout_length=16, eval_every=128, eval_episodes=2,
            checkpoint_every=256, learning_starts=10_000, **more,
        )  # fmt: skip
        self.seeds = sorted(scheduled)
        setting = groups.make_setting(self.config)
        self.learner = groups.make_learner(setting, self.seeds)
        self.source = groups.make_source(setting, self.seeds, self.learner)
        self.folders = {seed: Folder() for seed in self.seeds}
        self.weights, self.saved, self.shown = [], [], []
        self.judge = Judge(scheduled, confirmations)
        flat = self.learner.online.flat.clone()  # nothing is learned in these scenes
        self.judge.weights = dict(zip(self.seeds, flat, strict=True))
        self.progress = Progress(
            self.config, threshold, self.seeds, self.source, self.learner, self.judge,
            self.folders.__getitem__,
            lambda seed, which, params: self.weights.append((seed, which, params.lane_steps)),
            lambda progress: self.saved.append((progress.lane_steps, list(progress.active))),
            self.shown.append, stop_asked,
        )  # fmt: skip

    def run(self):
        from runners.loop import run_loop

        run_loop(self.source, self.learner, self.progress)
        self.source.close()
        return self


def flat(*means):
    return [[mean] for mean in means]


def test_evaluations_checkpoints_and_last_weights_come_when_due():
    scene = Scene({0: flat(1, 2, 3, 4), 1: flat(5, 6, 5, 6)}).run()
    assert [line["lane_steps"] for line in scene.folders[0].evals] == [128, 256, 384, 512]
    assert [line["mean"] for line in scene.folders[1].evals] == [5, 6, 5, 6]
    # the lane step is the number by which each evaluation has episodes of its own
    assert scene.judge.calls == [(Purpose.SCHEDULED, (0, 1), 2, at) for at in (128, 256, 384, 512)]
    assert scene.saved == [(256, [0, 1]), (512, [0, 1])]
    assert [w for w in scene.weights if w[1] == "last"] == [(0, "last", 512), (1, "last", 512)]
    # the best so far, ties to the later
    assert [w[2] for w in scene.weights if w[:2] == (0, "best")] == [128, 256, 384, 512]
    assert [w[2] for w in scene.weights if w[:2] == (1, "best")] == [128, 256, 512]
    assert scene.progress.finished
    assert scene.shown[-1].lane_steps_all == 2 * 512


def test_a_threshold_that_is_reached_is_confirmed_by_fresh_episodes():
    scheduled = {0: flat(9, 12, 12, 12), 1: flat(9, 9, 12, 9)}
    # seed 0: the mean is above but not surely so, then sure; seed 1: below
    doubtful, sure, below = [5, 16], [11], [9]
    scene = Scene(scheduled, {0: [doubtful, sure], 1: [below]}).run()
    confirmations = [call for call in scene.judge.calls if call[0] == Purpose.CONFIRMATION]
    episodes = module.CONFIRMATION_EPISODES
    assert confirmations == [
        (Purpose.CONFIRMATION, (0,), episodes, 256),
        (Purpose.CONFIRMATION, (0, 1), episodes, 384),
    ]
    records = scene.progress.records
    assert (records[0].solved, records[1].solved) == (True, False)
    assert records[0].solved_env_steps == scene.folders[0].evals[2]["env_steps"]
    assert ["confirmation" in line for line in scene.folders[0].evals] == [False, True, True, False]


def test_a_solved_seed_leaves_with_its_weights_and_the_others_go_on():
    scheduled = {0: flat(1, 1, 1, 1), 1: flat(20, 12), 2: flat(1, 12)}
    scene = Scene(scheduled, {1: [[5, 16], [11]], 2: [[12]]}, until_solved=True).run()
    assert scene.saved == [(256, [0]), (512, [0])]
    assert [w for w in scene.weights if w[1] == "last"] == [
        (1, "last", 256), (2, "last", 256), (0, "last", 512)
    ]  # fmt: skip
    # the weights that solved it are its best ones, whatever an earlier evaluation gave
    assert scene.progress.records[1].best_lane_steps == 256
    assert [record.lane_steps for record in scene.progress.records.values()] == [512, 256, 256]
    assert len(scene.folders[1].evals) == 2
    assert [scene.source.worker.seeds, scene.learner.replay.first.shape[1]] == [[0], 1]


def test_the_time_of_a_seed_holds_its_evaluations(monkeypatch):
    """Each evaluation takes 100 seconds by this clock; a seed that has left stays as it was."""
    import time

    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    scene = Scene({0: flat(1, 1, 1, 1), 1: flat(20)}, {1: [[20]]}, until_solved=True)
    returns = scene.judge.returns

    def slow(*args):
        now[0] += 100.0
        return returns(*args)

    scene.judge.returns = slow
    scene.run()
    records = scene.progress.records
    # one evaluation and its confirmation; then three more of the other seed
    assert (records[1].seconds, records[1].solved_seconds) == (200.0, 200.0)
    assert records[0].seconds == 500.0


def test_when_all_are_solved_the_run_ends():
    scene = Scene({0: flat(20), 1: flat(20)}, {0: [[20]], 1: [[20]]}, until_solved=True).run()
    assert scene.progress.lane_steps == 128
    assert scene.saved == [(128, [0, 1])]
    assert all(record.solved for record in scene.progress.records.values())


def test_without_until_solved_a_solved_seed_goes_on():
    scene = Scene({0: flat(20, 1, 1, 1)}, {0: [[20]]}).run()
    assert scene.progress.records[0].solved
    assert scene.progress.lane_steps == 512


def test_a_stop_saves_where_it_stands():
    answers = iter([0, 0, 15])
    scene = Scene({0: flat(1, 1, 1, 1)}, stop_asked=lambda: next(answers)).run()
    assert (scene.progress.stopped, scene.progress.finished) == (15, False)
    assert scene.saved == [(192, [0])]
    assert scene.weights == [(0, "best", 128)]


def test_a_state_brings_the_records_back():
    one = Scene({0: flat(1, 1), 1: flat(20, 1)}, {1: [[20]]})
    answers = iter([0, 0, 2])
    one.progress.stop_asked = lambda: next(answers)
    one.run()
    two = Scene({0: flat(1, 1, 1), 1: flat(1, 1, 1)})
    two.progress.load_state_dict(one.progress.state_dict())
    assert two.progress.records == one.progress.records
    assert two.progress.lane_steps == 192
    assert math.isfinite(two.progress.records[1].best_mean)


def test_what_is_not_known_yet_survives_json():
    import json

    state = json.loads(json.dumps(module._to_json(SeedRecord(3)), allow_nan=False))
    back = module._from_json(state)
    assert math.isnan(back.last_mean)
    assert back.best_mean == -math.inf


def test_metrics_are_logged_with_the_clock(tmp_path):
    config = config_of("q_learning")
    folder = run(config, (3,), str(tmp_path), console=SilentConsole())
    records = folder.seed(3).read_metrics().records
    clock = module.clock_of(config)
    assert len(records) <= module.METRIC_LINES
    assert records[-1]["lane_steps"] == config.steps
    assert [r["epsilon"] for r in records] == sorted((r["epsilon"] for r in records), reverse=True)
    assert clock.log_every == max(1, config.steps // module.METRIC_LINES)
    last = records[-1]
    # FrozenLake's first state is 0 and an episode costs one ignored row
    assert last["env_steps"] < last["lane_steps"]
    assert sum(r["episodes"] for r in records) >= last["lane_steps"] - last["env_steps"] - 2
