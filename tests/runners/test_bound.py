"""What would make a run faster: the model of workers by hand and against threads, and every advice."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from envs.contract import spec_of
from envs.cores import cores
from runners.bound import Choice, Spent, advice, best_workers, bound_of, seconds_with
from runners.command_line import parse_train
from runners.resolve import make_config
from runners.sources import Plan
from runners.timing import Times
from runners.worker import RolloutWorker
from tests.runners.test_worker import RandomActor
from tests.scripted import ScriptedEnv

REST = {"evaluate": 0.5, "save": 0.3, "other": 0.2}  # 1 together
ONE = Spent({"simulate": 6, "act": 2, "sample": 0.5, "learn": 1.5, **REST}, 11.0, rollouts=1000)
"""One process: S + A = 8, L = 2, R = 1. Handing over 1,000 rollouts takes 0.3 more: X."""


@pytest.mark.parametrize(
    ("workers", "blocks", "cores", "expected"),
    [
        (1, 4, 8, 8 + 0.3 + 1),  # learning happens meanwhile
        (2, 4, 8, 4 + 0.3 + 1),
        (3, 4, 8, 4 + 0.3 + 1),  # one of the three has two of the four blocks
        (4, 4, 8, 2 + 0.3 + 1),
        (8, 8, 8, 2 + 1),  # 8 / 8 + 0.3 is less than the learner takes: it never waits
        (2, 4, 2, (8 + 0.3 + 2) / 2 + 1),  # three are at it, on two cores
        (
            1,
            1,
            1,
            8 + 0.3 + 2 + 1,
        ),  # nothing is at once on one core, and handing over is to be paid
    ],
)
def test_workers_by_hand(workers, blocks, cores, expected):
    assert seconds_with(ONE, workers, blocks, cores) == pytest.approx(expected)


def test_threads_of_a_simulator_are_work_too():
    """17 s of processor time in 11 s: 6 were in other threads, so 10.3 + 6 are to be done."""
    threaded = ONE._replace(cpu=17.0)
    assert seconds_with(threaded, 2, 4, 2) == pytest.approx((8 + 0.3 + 2 + 6) / 2 + 1)
    assert ONE._replace(cpu=9.0).work == ONE.work == 10  # the machine was busy with others


def test_where_workers_are_at_it_already_their_hand_over_is_known():
    """Two workers took 4 s each, the learner waited: 0.5 + 2.5 + 2 + 1 = 6 s."""
    seconds = {"simulate": 6, "act": 2, "transfer": 0.5, "wait": 2.5, "learn": 2, **REST}
    two = Spent(seconds, 6.0, rollouts=1000, workers=2)
    assert two.groups["simulation"] == 4.5
    assert seconds_with(two, 2, 4, 8) == pytest.approx(4 + 0.5 + 1)
    assert seconds_with(two, 4, 4, 8) == pytest.approx(2 + 0.5 + 1)


def test_the_fewest_workers_that_gain_as_much():
    # 16 lanes in one block: two workers of 8, four of 4; three do not divide them, eight are too many
    assert best_workers(ONE, 16, 16, 8) == Choice(4, 4, pytest.approx(11 / 3.3))
    assert best_workers(ONE, 16, 16, 4) == Choice(4, 4, pytest.approx(11 / (10.3 / 4 + 1)))
    assert best_workers(ONE, 16, 16, 1) == Choice(1, 16, pytest.approx(11 / 11.3))
    assert best_workers(ONE, 6, 6, 8) == Choice(
        1, 6, pytest.approx(11 / 9.3)
    )  # 3 lanes are too few
    # six blocks: three to five workers have two of them, 2.97; six wait for the learner's 2
    assert best_workers(ONE, 6, 1, 8) == Choice(6, 1, pytest.approx(11 / 3))
    # with 7 s of learning two are as good as eight: T = 7 + 1
    slow = ONE._replace(seconds={**ONE.seconds, "learn": 6.5}, wall=16.0)
    assert best_workers(slow, 16, 2, 8) == Choice(2, 2, pytest.approx(16 / 8))


NAP = 5e-3


class Sleepy(ScriptedEnv):
    def step(self, actions):
        time.sleep(NAP)
        return super().step(actions)


def measured(threads: int) -> float:
    """Seconds of 6 rollouts of 5 rows, 4 blocks shared by so many threads, 25 ms of learning a rollout.

    None: one after the other in one thread, as the local source does.
    """
    rollouts, rows, blocks = 6, 5, 4
    workers = [
        RolloutWorker(
            "Sleepy-v0", spec_of(ScriptedEnv(1, 0, 1, 0.0)), (0,), blocks // max(1, threads),
            lambda seed, block: Sleepy(2, seed, limit=50, p_end=0.1), RandomActor, max_rows=rows,
            reward_dtype=np.float32,
        )
        for _ in range(max(1, threads))
    ]  # fmt: skip
    plan = Plan(rows, None)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        start = time.perf_counter()
        for _ in range(rollouts):
            begun = [pool.submit(worker.collect, plan, 0) for worker in workers]
            if not threads:
                begun[0].result()
            time.sleep(0.025)  # the learner
            for one in begun:
                one.result()
        return time.perf_counter() - start


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_are_as_fast_as_was_said(workers):
    """Sleeping simulators in threads stand for processes on as many cores."""
    learning = 6 * 0.0252  # and 6 x 5 x 4 naps
    alone = beside = math.inf
    for _ in range(8):  # in turns, the least of each: a busy machine only ever adds
        alone, beside = min(alone, measured(0)), min(beside, measured(workers))
        spent = Spent({"simulate": alone - learning, "learn": learning}, alone, rollouts=0)
        if beside == pytest.approx(seconds_with(spent, workers, 4, 8), rel=0.1):
            break
    assert beside == pytest.approx(seconds_with(spent, workers, 4, 8), rel=0.25)


# What is said.


def spent(**seconds):
    return Spent(seconds, float(sum(seconds.values())), rollouts=100)


def config(agent="dqn", env="CartPole-v1", **changes):
    return make_config(agent, env, **{"steps": 100_000, "lanes": 16, **changes})


ROLLOUTS = spent(simulate=70, act=10, learn=15, other=5)
LEARNING = spent(simulate=6, act=3, sample=10, learn=75, other=6)
CASES = {
    # (80 / 4 + 0.03) + 5 = 25.03 on many cores; on four (95.03) / 4 + 5 = 28.8, and 100 / 28.8 = 3.5
    "simulation": (ROLLOUTS, config(block_size=4), 4,
        "simulation-bound (80 % of the time): --workers 4 would give about 3.5x"),
    # blocks would have to be cut: a step's fixed cost would not
    "one block": (ROLLOUTS, config(), 4,
        "simulation-bound (80 % of the time): --workers 4 --block-size 4 would give at most 3.5x"),
    "acting": (spent(simulate=10, act=70, learn=15, other=5), config(block_size=4), 2,
        # max(80 / 2 + 0.03, 95.03 / 2) + 5 = 52.5
        "acting-bound (80 % of the time): --workers 2 would give about 1.9x"),
    "one core": (ROLLOUTS, config(block_size=4), 1,
        "simulation-bound (80 % of the time): workers want more than 1 core; on 4, "
        "--workers 4 would give about 3.5x"),
    # two rows of 0.1 ms and 0.3 ms to hand them over; half of 90 less: 100 / 55
    "short steps": (spent(simulate=90, other=10)._replace(rollouts=300_000), config(lanes=4), 4,
        "simulation-bound (90 % of the time): workers would give at most 1.0x; --lanes 8, which share a "
        "step's fixed cost, would give at most 1.8x"),
    "one lane": (spent(simulate=90, other=10)._replace(rollouts=300_000), config("stream_q", lanes=1), 4,
        "simulation-bound (90 % of the time): workers would give at most 1.0x, and stream_q learns from one lane"),
    "processes": (ROLLOUTS, config(backend="async"), 4,
        "simulation-bound (80 % of the time): each lane has a process already; `bench advise` times the "
        "other backends"),
    # max(9.03, 85, 94.03 / 4) + 6 = 91: 100 / 91; half of 85: 100 / 57.5; a compiled update takes 0.67, and
    # 15 s go into compiling: 100 / (100 - 0.33 x 75 + 15)
    "learning": (LEARNING, config(replay_ratio=0.5, batch_size=32), 4,
        "learning-bound (85 % of the time): simulation and acting are 9 %, workers would give at most 1.1x; "
        "half the updates on twice the batch, --replay-ratio 0.25 --batch-size 64, would give at most 1.7x; "
        "--compile would give about 1.1x"),
    "no hidden layer": (LEARNING, config(replay_ratio=0.5, batch_size=32, hidden=()), 4,
        "learning-bound (85 % of the time): simulation and acting are 9 %, workers would give at most 1.1x; "
        "half the updates on twice the batch, --replay-ratio 0.25 --batch-size 64, would give at most 1.7x; "
        "--compile would give about 1.1x"),
    "a group": (LEARNING._replace(seeds=5), config("pqn", minibatch_size=64), 4,
        "learning-bound (85 % of the time): simulation and acting are 9 %, workers would give at most 1.1x; "
        "half the updates on twice the batch, --minibatch-size 128, would give at most 1.7x"),
    # max(40.03, 50) + 10 = 60
    "learning, and much else": (spent(simulate=30, act=10, learn=50, other=10), config("linear_q", "MountainCar-v0"), 4,
        "learning-bound (50 % of the time): simulation and acting are 40 %, --workers 1 would give about 1.7x"),
    "fused": (spent(fused=80, evaluate=15, other=5), config("q_learning", "FrozenLake-v1", lanes=1), 4,
        "kernel-bound (80 % of the time): it acts, steps and learns in one; workers cannot divide it, and "
        "without all else it would be 1.2x"),
    "a table, row by row": (spent(simulate=40, act=30, learn=10, evaluate=8, other=12),
        config("q_learning", "FrozenLake-v1", lanes=1, source="local"), 4,
        "simulation-bound (70 % of the time): --source fused would act, step and learn in one compiled "
        "loop, at most 12x"),
    "evaluation": (spent(simulate=20, learn=20, evaluate=60), config(eval_every=5_000), 4,
        "evaluation-bound (60 % of the time): half of it, --eval-every 10000, would give about 1.4x"),
    "one evaluation": (spent(learn=20, evaluate=60), config(eval_every=100_000, eval_episodes=10), 4,
        "evaluation-bound (75 % of the time): half the episodes, --eval-episodes 5, would give at most 1.6x"),
    "a later end": (spent(learn=20, evaluate=60), config(eval_every=5_000, until_solved=True, eval_episodes=20), 4,
        "evaluation-bound (75 % of the time): half the episodes, --eval-episodes 10, would give at most 1.6x"),
    "one episode": (spent(learn=20, evaluate=60), config(eval_every=100_000, eval_episodes=1), 4,
        "evaluation-bound (75 % of the time): half of it would give at most 1.6x"),
    "saving": (spent(learn=20, save=60), config(checkpoint_every=10_000), 4,
        "saving-bound (75 % of the time): half of it, --checkpoint-every 20000, would give about 1.6x"),
    "saved once": (spent(learn=20, save=60), config(checkpoint_every=100_000), 4,
        "saving-bound (75 % of the time): half of it would give 1.6x, but no setting gives that"),
    "bookkeeping": (spent(learn=40, other=60), config(rollout_length=8), 4,
        "bookkeeping-bound (60 % of the time): half of it, --rollout-length 16, would give about 1.4x"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_said(case):
    given, asked, cores, expected = CASES[case]
    assert advice(given, asked, cores) == expected
    assert expected.startswith(bound_of(given))


@pytest.mark.parametrize("case", CASES)
def test_what_is_advised_can_be_asked_for(case):
    """Flags are taken by the command line, for that agent and environment; workers are as many as cores."""
    given, asked, cores, _ = CASES[case]
    words = advice(given, asked, cores).replace(",", "").replace(";", "").split()
    flags = [i for i, word in enumerate(words) if word.startswith("--")]
    for i in flags:
        value = [] if words[i] == "--compile" else [words[i + 1]]
        parse_train([asked.agent, "--env", asked.env, "--steps", "100000", words[i], *value])
    for i, word in enumerate(words):
        if word.startswith("worker") and words[i - 1].isdigit():
            assert int(words[i - 1]) <= (4 if case == "one core" else cores)


def test_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5})
    assert cores() == 3


def test_times_of_an_older_run_are_not_made_up(lake):
    """A summary without them is as it was."""
    from runners import summary

    results = {0: {"seed": 0, "lane_steps": 1}}
    assert summary._time(config(), lake, results) == {}
    # gone on from a checkpoint without them, behind the last rollout
    results[0]["spent"] = Times().state_dict()
    assert summary._time(config(), lake, results) == {}
