"""Sequences: their rows against the slow twin, stored memories, a network over them, priorities."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from agents.contract import Batch, LossOut, Params
from agents.dqn import DQNConfig, make_actor, make_learner
from agents.layers import NO_NOISE
from agents.learner import read_metrics, td_quantiles
from agents.replay.prioritized import Priorities
from agents.replay.sequence import SequenceReplay
from agents.sequences import over_sequences, sequence_priority, unrolled
from envs.contract import spec_of
from runners.worker import Plan, RolloutWorker
from tests import reference
from tests.scripted import ScriptedEnv

CPU = torch.device("cpu")
SPEC = spec_of(ScriptedEnv(1, 0, 1, 0.0))
GAMMA = 0.9


class Record:
    """All rows that a worker ever delivered of its columns, and where its rollouts began."""

    def __init__(self):
        self.columns = {}
        self.starts, self.memories, self.length = [], {}, 0

    def add(self, rollout):
        self.starts.append(self.length)
        self.memories[self.length] = rollout.actor_state
        for name in ("obs", "first"):
            old = self.columns.get(name, getattr(rollout, name)[:0])
            # row T of a rollout is row 0 of the next, which says it again
            self.columns[name] = np.concatenate([old[: self.length], getattr(rollout, name)])
        for name in ("action", "reward", "terminated", "truncated"):
            new = getattr(rollout, name)
            self.columns[name] = np.concatenate([self.columns.get(name, new[:0]), new])
        self.length += rollout.rows


class Scene:
    """Two seeds of three scripted lanes whose actor has a memory, and a replay of sequences."""

    seeds, lanes = 2, 3

    def __init__(self, n_step, burn_in=2, length=4, capacity=60, priorities=None, memory="lstm"):
        config = DQNConfig(memory=memory, memory_size=4, context=3, hidden=(5,))
        made = []

        def make(seed, block):
            made.append(0)
            return ScriptedEnv(self.lanes, seed + 31 * len(made), 5, 0.1, len(made) * 1_000)

        self.new_worker = functools.partial(
            RolloutWorker,
            "scripted", SPEC, [0, 1], 1, make, functools.partial(make_actor, config, SPEC),
            max_rows=8, reward_dtype=np.float32,
        )  # fmt: skip
        self.worker, self.record = self.new_worker(), Record()
        flat = make_learner(
            config, SPEC, self.lanes, [np.random.SeedSequence([k]) for k in (0, 1)],
            [np.random.default_rng(k) for k in (0, 1)], CPU,
        ).online.flat.clone()  # fmt: skip
        self.params = Params(1, 0, {"flat": flat}, {"epsilon": 0.5})
        self.worker.load_params(self.params)
        self.replay = SequenceReplay(
            SPEC, [np.random.default_rng([k, 9]) for k in (0, 1)], self.lanes,
            capacity=capacity, batch_size=16, burn_in=burn_in, length=length,
            n_step=n_step, gamma=GAMMA, priorities=priorities,
        )  # fmt: skip
        self.rng = np.random.default_rng(n_step)

    def go(self, rollouts):
        for _ in range(rollouts):
            rollout = self.worker.collect(Plan(int(self.rng.integers(1, 9)), None), 0)
            self.record.add(rollout)
            self.replay.add(rollout)
        return self

    def replace_worker(self):
        self.worker = self.new_worker()
        self.worker.load_params(self.params)
        return self

    def startable(self):
        """First rows from which a whole sequence is held."""
        replay, oldest = self.replay, max(0, self.record.length - (self.replay.slots - 1))
        return [
            s for s in self.record.starts if oldest <= s and s + replay.span <= self.record.length
        ]


def check(scene):
    """A sample against the record, row by row; how many rows counted."""
    replay, columns = scene.replay, scene.record.columns
    batch, counted = replay.sample(), 0
    size, rows = replay.batch_size, replay.length + 1
    for k in range(scene.seeds):
        for b in range(size):
            start, lane = divmod(int(replay.sampled[k, b]), scene.lanes)
            assert start in scene.startable()
            column = k * scene.lanes + lane
            whole = slice(start, start + replay.span + 1)
            for name, key in (("obs", "sequence"), ("first", "sequence_first")):
                assert (batch.extras[key][k, :, b].numpy() == columns[name][whole, column]).all()
            for name, value in scene.record.memories[start].get("0", {}).items():
                assert (batch.extras["state." + name][k, b].numpy() == value[k, lane]).all()
            learned = slice(start + replay.burn_in, start + replay.span)
            lane_rows = [columns[n][learned, column] for n in ("reward", "terminated", "truncated")]
            first = columns["first"][learned.start : learned.stop + 1, column]
            for t in range(rows):
                at = t * size + b
                n = min(replay.options[0], replay.length - t)
                window = None
                if t < replay.length:
                    window = reference.n_step_window(t, n, GAMMA, first, *lane_rows)
                assert batch.extras["counts"][k, at] == (window is not None)
                assert batch.obs[k, at] == at
                if window is None:
                    continue
                end, total, discount = window
                assert batch.action[k, at] == columns["action"][start + replay.burn_in + t, column]
                assert batch.next_obs[k, at] == end * size + b
                assert batch.reward[k, at].item() == pytest.approx(total, abs=1e-5)
                assert batch.discount[k, at].item() == pytest.approx(discount)
                counted += 1
    return counted


@pytest.mark.parametrize("memory", ["lstm", "attention"])
@pytest.mark.parametrize(
    ("n_step", "burn_in", "length"), [(1, 2, 4), (3, 0, 5), (3, 5, 1), (9, 2, 4)]
)
def test_every_row_of_a_sample_is_the_true_one(n_step, burn_in, length, memory):
    scene = Scene(n_step, burn_in, length, memory=memory)
    counted = 0
    for _ in range(25):  # about 110 rows through a ring of 21: the seam is crossed several times
        scene.go(1)
        assert scene.replay.ready == bool(scene.startable())
        if scene.replay.ready:
            counted += check(scene)
    assert counted > 500


def test_a_replaced_worker_ends_windows_and_begins_with_nothing():
    scene = Scene(3)
    for _ in range(6):
        scene.go(3).replace_worker().go(3)
        assert check(scene) > 0


def test_all_sequences_are_as_likely():
    scene = Scene(1, capacity=90).go(12)
    starts = scene.startable()
    drawn = np.concatenate(
        [scene.replay.sample() and scene.replay.sampled.flatten() for _ in range(400)]
    )
    counts = {s: int((drawn // scene.lanes == s).sum()) for s in starts}
    assert sum(counts.values()) == len(drawn)
    expected = len(drawn) / len(starts)
    deviation = math.sqrt(expected * (1 - 1 / len(starts)))
    assert all(abs(count - expected) < 5 * deviation for count in counts.values())


def test_priorities_stand_for_whole_sequences():
    scene = Scene(1, priorities=lambda k, places: Priorities(k, places, 1.0, 1.0, 1))
    replay = scene.replay
    for _ in range(20):
        scene.go(1)
        tree = replay.priorities.trees[0]
        leaves = tree[replay.priorities.leaves :][: replay.slots * replay.lanes]
        places = {
            s % replay.slots * replay.lanes + lane
            for s in scene.startable()
            for lane in range(scene.lanes)
        }
        assert set(np.flatnonzero(leaves).tolist()) == places
        assert replay.priorities.count.tolist() == [len(places)] * 2
        if places:
            check(scene)
            replay.set_priorities(replay.sampled, np.ones((2, replay.batch_size)))
    # all but one at 1, one at 100: it is drawn about as often as its share says
    replay.set_priorities(replay.sampled[:, :1], np.full((2, 1), 100.0))
    wanted, total = replay.sampled[0, 0], replay.priorities.trees[0, 1]
    often = np.mean(
        [(replay.sample(), (replay.sampled[0] == wanted).mean())[1] for _ in range(200)]
    )
    assert often == pytest.approx(100.0 / total, abs=0.03)


@pytest.mark.parametrize("memory", ["lstm", "attention"])
def test_what_is_learned_of_is_what_the_actor_saw(memory):
    """With unchanged parameters an unrolled network has the actor's values, whatever the burn-in."""
    scene = Scene(1, burn_in=2, length=4, memory=memory).go(10)
    values = []
    actor = scene.worker.actors[0]
    recall = actor._recall

    def spy(*args):
        found = recall(*args)
        values.append(found[0].copy())
        return found

    actor._recall = spy
    before = scene.record.length
    scene.go(8)
    batch = scene.replay.sample()
    learner_net = actor.network
    out = unrolled(learner_net, batch, scene.replay.burn_in, NO_NOISE)(batch.obs)
    seen, compared = np.stack(values, 1), 0  # [K, T, n, A]
    for k in range(2):
        for b in range(scene.replay.batch_size):
            start, lane = divmod(int(scene.replay.sampled[k, b]), scene.lanes)
            for t in range(scene.replay.length):
                row = start + scene.replay.burn_in + t - before
                if row >= 0:
                    found = out[k, t * scene.replay.batch_size + b].numpy()
                    np.testing.assert_allclose(found, seen[k, row, lane], atol=1e-5)
                    compared += 1
    assert compared > 50


def test_the_priority_of_a_sequence_by_hand():
    # two sequences of two rows and a last one; errors of sequence 0: 1, 3 and of 1: 4, and one that
    # does not count: 0.9 * 3 + 0.1 * 2 = 2.9 and 0.9 * 4 + 0.1 * 4 = 4
    error = torch.tensor([[1.0, 4.0, 3.0, 9.0, 7.0, 7.0]])
    counts = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    none = torch.zeros(0)
    extras = {"sequence": torch.zeros(1, 3, 2, 1), "counts": counts}
    batch = Batch(none, none, none, none, none, extras=extras)
    assert sequence_priority(error, batch).tolist() == [[pytest.approx(2.9), pytest.approx(4.0)]]


def test_rows_that_do_not_count_have_no_part_in_the_loss():
    scene = Scene(1).go(10)
    batch, network = scene.replay.sample(), scene.worker.actors[0].network
    counts = batch.extras["counts"]
    assert 0 < counts.sum() < counts.numel()

    def loss(online, target, batch, noise):
        ones = torch.ones_like(batch.reward)
        # 2 where rows count, 1,000 where they do not
        per_row = torch.where(counts > 0, 2.0 * ones, 1_000.0 * ones)
        return LossOut(per_row, {"loss": per_row}, None)

    out = over_sequences(loss, 2)(network, network, batch, {})
    assert out.loss.mean(-1).tolist() == pytest.approx([2.0, 2.0])
    assert read_metrics(out.metrics, 1.0)["loss"].tolist() == pytest.approx([2.0, 2.0])


def test_a_batch_that_counts_for_nothing_has_metrics():
    scene = Scene(1).go(10)
    batch, network = scene.replay.sample(), scene.worker.actors[0].network
    batch.extras["counts"] = torch.zeros_like(batch.extras["counts"])

    def loss(online, target, batch, noise):
        ones = torch.ones_like(batch.reward)
        return LossOut(ones, {"q_mean": ones}, ones)

    out = over_sequences(loss, 2)(network, network, batch, {})
    assert not out.loss.any()
    assert not out.priority.any()
    assert read_metrics(out.metrics, 1.0)["q_mean"].tolist() == [0.0, 0.0]


def test_rows_that_do_not_count_have_no_part_in_quantiles():
    """Errors of 2 where rows count: every quantile is 2, whatever stands in the other rows."""
    scene = Scene(1).go(10)
    batch, network = scene.replay.sample(), scene.worker.actors[0].network
    counts = batch.extras["counts"]

    def loss(online, target, batch, noise):
        zeros = torch.zeros_like(batch.reward)
        metrics = {"q_mean": zeros, "target_mean": torch.where(counts > 0, 2.0, 1_000.0)}
        return LossOut(zeros, metrics, None)

    found = td_quantiles(over_sequences(loss, 2)(network, network, batch, {}).metrics, 1.0)
    for points in found.values():
        assert points.tolist() == pytest.approx([2.0, 2.0])


def test_gradients_flow_back_to_the_first_row_learned_and_no_further():
    config = DQNConfig(memory="lstm", memory_size=4, hidden=(5,), burn_in=2, sequence_length=4)
    scene = Scene(1).go(10)
    batch = scene.replay.sample()
    obs = batch.extras["sequence"].clone().requires_grad_()
    batch.extras["sequence"] = obs
    network = make_learner(
        config, SPEC, 3, [np.random.SeedSequence([k]) for k in (0, 1)],
        [np.random.default_rng(k) for k in (0, 1)], CPU,
    ).online.network  # fmt: skip
    out = unrolled(network, batch, 2, NO_NOISE)(batch.obs)
    out.view(2, 5, 16, -1)[:, 3].sum().backward()
    touched = obs.grad.abs().sum((0, 2, 3)) > 0
    assert touched.tolist() == [False, False, True, True, True, True, False]
