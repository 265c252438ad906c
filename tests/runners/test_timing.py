"""Where the time goes: laps leave no gap, and a run that is slow somewhere says where."""

from __future__ import annotations

import gc
import json
import statistics
import time
import timeit
import weakref

import gymnasium
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from agents.learner import GradientLearner
from runners import timing
from runners.outcome import read_result
from runners.resolve import make_config
from runners.timing import PARTS, Times, shares, time_sampling
from runners.train import run
from tests.runners.test_resume import DiesAt, Killed

SLOW = 1e-3  # seconds of a lane's step, or of two of an update
SMALL = {
    "lanes": 4, "rollout_length": 8, "hidden": (16,), "batch_size": 16, "learning_starts": 64,
    "steps": 768, "eval_every": 768, "eval_episodes": 1, "final_episodes": 1, "checkpoint_every": 768,
    "replay_ratio": 0.25, "replay_size": 300,
}  # fmt: skip


class Clock:
    """Moves only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)


def known(seconds):
    """Without the parts that took none."""
    return {part: value for part, value in seconds.items() if value}


def test_a_lap_is_all_since_the_last_one(monkeypatch):
    clock = Clock(monkeypatch)
    times = Times()
    for part, seconds in (("act", 1), ("simulate", 4), ("act", 2), ("learn", 8)):
        clock.now += seconds
        times.lap(part)
    assert known(times.seconds) == {"act": 3, "simulate": 4, "learn": 8}
    clock.now += 50
    times.start()  # nobody's
    clock.now += 16
    times.lap("save")
    assert sum(times.seconds.values()) == 31
    with pytest.raises(KeyError):
        times.lap("lunch")


def test_workers_send_what_they_took_since_they_were_last_asked(monkeypatch):
    clock = Clock(monkeypatch)
    worker, main = Times(), Times()
    main.workers = 2
    for seconds in (6, 10):
        clock.now += seconds
        worker.lap("simulate")
        main.add(worker.take())  # as if two workers had sent one each
    clock.now += 3
    main.lap("wait")
    assert known(main.seconds) == {"simulate": 16, "wait": 19}
    # two were at it at once: half as long by the clock on the wall
    assert known(main.wall()) == {"simulate": 8, "wait": 19}
    assert known(worker.take()) == {}


def test_sampling_is_told_apart_from_learning(monkeypatch):
    clock = Clock(monkeypatch)

    class Replay:
        def sample(self):
            clock.now += 2
            return "batch"

    replay, times = Replay(), Times()
    with time_sampling(replay, times):
        for _ in range(3):  # updates
            clock.now += 1
            assert replay.sample() == "batch"
            clock.now += 5
    times.lap("learn")
    assert known(times.seconds) == {"sample": 6, "learn": 18}
    # nothing of it is left: a replay that held itself would stay until Python looks for cycles
    gone = weakref.ref(replay)
    gc.disable()
    try:
        del replay
        assert gone() is None
    finally:
        gc.enable()


def test_counting_goes_on_from_a_checkpoint(monkeypatch):
    clock = Clock(monkeypatch)
    times, later = Times(), Times()
    later.workers = 3  # whoever goes on says how many there are now
    clock.now += 5
    times.lap("learn")
    saved = json.loads(json.dumps(times.state_dict()))
    clock.now += 1000  # while nothing ran
    later.load_state_dict(saved)
    clock.now += 2
    later.lap("learn")
    assert known(later.seconds) == {"learn": 7}
    assert later.state_dict()["cpu"] >= saved["cpu"]
    assert later.workers == 3


def test_shares():
    assert shares({"act": 1.0, "learn": 3.0, "save": 0.0}, 4.0) == {"act": 0.25, "learn": 0.75}
    assert shares({"act": 0.0}, 0.0) == {}


# Whole runs.


class SlowCartPole(CartPoleEnv):
    """Every step of a lane takes a millisecond more; `slept` is how long they took in all."""

    slept = 0.0

    def step(self, action):
        start = time.perf_counter()
        time.sleep(SLOW)
        SlowCartPole.slept += time.perf_counter() - start
        return super().step(action)


@pytest.fixture
def slow_simulator():
    if "SlowCartPole-v0" not in gymnasium.registry:
        gymnasium.register("SlowCartPole-v0", SlowCartPole, max_episode_steps=20)
    SlowCartPole.slept = 0.0
    return "SlowCartPole-v0"


@pytest.fixture
def slow_learner(monkeypatch):
    step = GradientLearner.step

    def slow(self, batch, drawn):
        time.sleep(4 * SLOW)
        return step(self, batch, drawn)

    monkeypatch.setattr(GradientLearner, "step", slow)


def trained(tmp_path, env="CartPole-v1", **changes):
    """The summary, and seconds by part."""
    folder = run(make_config("dqn", env, **{**SMALL, **changes}), [0], str(tmp_path))
    result = read_result(folder.seed(0).path)
    return folder.summary(), result["spent"]["seconds"], folder


def test_a_slow_simulator_is_what_bounds_the_run(slow_simulator, tmp_path):
    summary, seconds, folder = trained(tmp_path, slow_simulator, block_size=2)
    assert summary["bound"] == "simulation"
    assert summary["advice"].startswith("simulation-bound (")
    assert sum(summary["time_shares"].values()) == pytest.approx(1, abs=1e-3)
    # every sleep is in one of the two (final evaluations are outside), and nothing much besides
    assert seconds["simulate"] >= (SMALL["steps"] - 200) * SLOW  # fewer: a reset takes no step
    asleep = SlowCartPole.slept - 20 * 2 * SLOW  # of the final episodes, if they took their longest
    assert 0.9 * asleep < seconds["simulate"] + seconds["evaluate"] < 1.5 * SlowCartPole.slept
    assert seconds["fused"] == seconds["transfer"] == seconds["wait"] == 0
    lines = folder.seed(0).read_metrics().records
    assert statistics.median(line["time_shares"]["simulate"] for line in lines) > 0.5


def test_a_slow_learner_is_what_bounds_the_run_and_half_of_it_is_as_fast_as_was_said(
    slow_learner, tmp_path
):
    summary, seconds, _ = trained(tmp_path)
    assert summary["bound"] == "learning"
    advice = summary["advice"]
    assert "--replay-ratio 0.125 --batch-size 32, would give at most" in advice
    updates = (SMALL["steps"] - SMALL["learning_starts"]) // 4
    assert seconds["learn"] >= updates * 4 * SLOW
    assert seconds["sample"] < 0.2 * seconds["learn"]  # the nap was not taken in there
    said = float(advice.split("would give at most ")[-1].removesuffix("x"))
    _, halved, _ = trained(tmp_path, replay_ratio=0.125, batch_size=32)
    # by the parts, as a busy machine may take its time over what is not learning
    learning = seconds["sample"] + seconds["learn"]
    assert halved["sample"] + halved["learn"] == pytest.approx(learning / 2, rel=0.3)
    left = sum(seconds.values()) - learning / 2
    assert sum(seconds.values()) / left == pytest.approx(said, rel=0.05)


def test_all_the_time_of_a_run_is_somewhere_also_after_a_kill(tmp_path):
    config = make_config("dqn", "CartPole-v1", **{**SMALL, "checkpoint_every": 128})
    with pytest.raises(Killed):
        run(config, [0, 1], str(tmp_path), console=DiesAt(12))
    result = read_result(run(config, [0, 1], str(tmp_path)).seed(0).path)
    spent = result["spent"]["seconds"]
    assert set(spent) == set(PARTS)
    assert min(spent[part] for part in ("act", "simulate", "sample", "learn", "save")) > 0
    # the last checkpoint comes after the last look at the clock
    assert 0.95 * result["seconds"] < sum(spent.values()) < result["seconds"] + 2 * spent["save"]


def test_a_fused_run_says_so(lake):
    found = lake.summary()["time_shares"]
    assert found["fused"] > 0
    assert not {"act", "simulate", "sample"} & found.keys()


def test_a_lap_costs_next_to_nothing():
    """A row takes two and an update two; neither is done in less than 200 us, of which this is 1 %."""
    times = Times()
    best = min(timeit.repeat(lambda: times.lap("act"), number=2_000, repeat=20)) / 2_000
    assert 2 * best < 200e-6 * 0.01
