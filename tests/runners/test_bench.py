"""The measurements are of what they say: turns, rates, a loop that learns, a table of ratios."""

from __future__ import annotations

import itertools
import time
from functools import partial

import numpy as np
import pytest
import torch

from runners import (
    bench,
    bench_advise,
    bench_basics,
    bench_family,
    bench_pipeline,
    bench_replay,
    measure,
    shelf,
)
from runners.resolve import make_config


def test_an_unknown_subject_is_bad_input(capsys):
    assert bench.main(["frozenlak"]) == 2
    assert "did you mean frozenlake?" in capsys.readouterr().err


def test_works_are_taken_in_turns_and_judged_by_their_median():
    order, rates = [], itertools.count()

    def work(name):
        def run():
            order.append(name)
            return float(next(rates))

        return run

    assert measure.turns(work("a"), work("b"), rounds=3) == [2.0, 3.0]
    assert order == ["a", "b"] * 3


def test_a_rate_is_a_count_a_second(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert measure.timed(lambda: None, 100) == 25.0


@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        ("dqn", {"learning_starts": 0, "replay_ratio": 0.5, "batch_size": 8, "lanes": 2}),
        ("q_learning", {"env": "FrozenLake-v1", "rollout_length": 64}),
    ],
)
def test_the_loop_that_is_timed_learns(agent, settings):
    env = settings.pop("env", "CartPole-v1")
    config = make_config(agent, env, **{"steps": 10_000, **settings})
    loop = measure.Loop(config, 2)
    before = {name: value.clone() for name, value in loop.learner.params().tensors.items()}
    loop.run(5)
    rows = 5 * config.rollout_length
    assert loop.learner.params().lane_steps == rows * config.lanes
    assert loop.learner.updates == (rows if agent == "q_learning" else rows * config.lanes // 2)
    for name, value in loop.learner.params().tensors.items():
        assert not np.array_equal(value.numpy(), before[name].numpy())


def test_a_subject_prints_its_figure_beside_another(capsys, monkeypatch):
    monkeypatch.setattr(bench_basics, "turns", lambda *works, rounds=1: [work() for work in works])
    assert bench.main(["worker"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert "cores, torch" in head
    assert line.startswith("worker, CartPole, 1,024 lanes")
    assert "bare simulator" in line
    assert " x " in line


def test_simulators_are_timed_beside_their_bare_engine(tmp_path, capsys):
    from runners import bench_simulators

    family = bench_simulators.Family("CartPole-v1", bench_simulators._gymnasium_vector)
    speeds = bench_simulators.measure(family, 4, seconds=0.01, rounds=1)
    assert [speed.what for speed in speeds] == ["bare", "native", "sync", "worker"]
    assert all(speed.rate > 100 for speed in speeds)
    bench_simulators.draw(speeds, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert bench.main(["simulators", "--family", "minatr"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_advice_names_the_flag_of_the_fastest_way():
    config = make_config("dqn", "Acrobot-v1", steps=1000)
    asked, sync = (bench_advise.Way(flags, config) for flags in ("", "--backend sync"))

    def advice(*rates):
        timings = [
            bench_advise.Timing(way, rate, 0.5)
            for way, rate in zip((asked, sync), rates, strict=True)
        ]
        return list(bench_advise.told(config, timings))[-1]

    assert advice(100, 90) == "nothing is faster here than what was asked for"
    assert advice(100, 105) == "nothing is faster here than what was asked for"  # noise
    assert advice(100, 150).startswith("faster here: --backend sync (150 lane steps/s, x 1.5)")


def test_ways_are_the_same_experiment_by_other_simulators():
    def flags(agent, env, **settings):
        return [way.flags for way in bench_advise.stepped_by(make_config(agent, env, **settings))]

    assert flags("dqn", "Acrobot-v1", steps=1000) == ["", "--backend sync", "--backend async"]
    assert flags("pqn", "MountainCar-v0", steps=1000, lanes=64) == ["", "--backend sync"]
    tabular = flags("q_learning", "FrozenLake-v1")
    assert tabular == [
        "", "--backend sync", "--backend async", "--source local --rollout-length 1"
    ]  # fmt: skip
    local = flags("q_learning", "FrozenLake-v1", source="local")
    assert "--source fused --rollout-length 16384" in local


def test_advise_times_each_way_of_a_command(capsys, monkeypatch):
    monkeypatch.setattr(
        bench_advise, "measure", partial(bench_advise.measure, seconds=0.01, rounds=1)
    )
    monkeypatch.setattr(bench_advise, "beside", lambda config: iter(()))  # processes take seconds
    arguments = ["advise", "dqn", "--env", "Acrobot-v1", "--backend", "sync", "--lanes", "20"]
    assert bench.main(arguments) == 0
    asked, batched, last = capsys.readouterr().out.splitlines()
    assert asked.startswith("as asked: --backend sync --source local")
    assert batched.startswith("--backend batched")
    assert "lane steps/s" in batched
    assert "faster" in last
    assert bench.main(["advise"]) == 2
    assert bench.main(["advise", "dqn", "--lanse", "2"]) == 2


@pytest.mark.parametrize("flags", ["--workers 2", "--async"])
def test_advice_tries_workers_by_itself(flags, monkeypatch, capsys):
    monkeypatch.setattr(bench_advise, "measure", lambda config: pytest.fail("it was timed"))
    assert bench.main(["advise", "dqn", "--env", "CartPole-v1", *flags.split()]) == 2
    assert capsys.readouterr().err.startswith("error: advise: tries workers")


def test_what_switches_cost_is_asked_of_plain_dqn(monkeypatch):
    monkeypatch.setattr(bench_family, "FAMILY", {"noisy": {"noisy": True}})
    monkeypatch.setattr(bench_family, "turns", lambda *works: [1000.0, 1250.0, 500.0])
    plain, noisy = bench_family.family()
    assert (plain.figure, noisy.figure) == ("1,000 µs", "2,000 µs")
    assert (plain.ratio, noisy.ratio) == (1.25, 2.0)
    monkeypatch.setattr(bench_family, "FAMILY", {"rainbow": {"noisy": True}})
    monkeypatch.setattr(bench_family, "turns", lambda *works: [1000.0, 2000.0, 500.0])
    dqn, rainbow = bench_family.compiled()
    assert (dqn.ratio, rainbow.ratio, rainbow.figure) == (0.5, 4.0, "2,000 µs")
    monkeypatch.setattr(bench_family, "turns", lambda *works: [1000.0, 500.0][: len(works)])
    monkeypatch.setattr(bench_replay, "turns", lambda *works: [1000.0, 500.0][: len(works)])
    (row,) = bench_replay.priorities()
    assert row.figure == "1000.0 µs"


def test_what_is_written_out_without_switches_is_the_same_loss():
    config = make_config(
        "dqn", "CartPole-v1", steps=1_000, double=False, n_step=1, layer_norm=False
    )
    loop = measure.Loop(config, 1)
    loop.run(80)
    learner = loop.learner
    batch = learner.replay.sample()
    networks = learner.online.network, learner.target.network
    ours = config.hyper.loss(*networks, batch, {})
    bare = bench_family.written_out(*networks, batch, {})
    assert torch.equal(ours.loss, bare.loss)
    assert ours.loss.max() > 0
    assert ours.metrics.keys() == bare.metrics.keys()
    for name, value in ours.metrics.items():
        assert torch.equal(value, bare.metrics[name])


def test_updates_on_images_are_timed_as_they_are_and_in_bfloat16(monkeypatch):
    monkeypatch.setattr(bench_family, "turns", lambda *works: [work() for work in works])
    monkeypatch.setattr(bench_family, "timed", lambda work, count: (work(), 100.0)[1])
    plain, bf16, small = bench_family.pixels()
    assert (plain.figure, bf16.figure, small.ratio) == ("10.0 ms an update", "10.0 ms", 1.0)


def test_replays_hold_the_same_play(monkeypatch):
    """By hand: a frame is 7,056 bytes, a stack four of them, SB3 keeps one or two stacks a transition.

    Beside them ours has 15 bytes of facts, SB3 8 of the action and 4 each of reward, done and timeout.
    """
    pytest.importorskip("ale_py")
    monkeypatch.setattr(bench_replay, "ROWS", 40)
    play = bench_replay._play(40)
    assert not (play.first[1:] & play.first[:-1]).any()
    stacked = bench_replay._stacked(play, 9)
    assert (stacked == play.obs[6:10].swapaxes(0, 1)).all()
    monkeypatch.setattr(shelf, "SEGMENT_ROWS", 16)
    monkeypatch.setattr(bench_replay, "turns", lambda *works: [work() for work in works])
    cached, cold = bench_replay.disk()
    assert "in the page cache" in cached.what
    assert "k samples/s" in cold.figure
    assert cold.ratio > 0
    plain, small = (bench_replay._ours(play, kind) for kind in ("none", "lz4"))
    whole, half = (bench_replay._sb3(play, optimized) for optimized in (False, True))
    assert plain.bytes == (40 + 4) * 8 * (7_056 + 15)
    assert small.bytes < 1_500 * 44 * 8
    assert whole.bytes == 40 * 8 * (2 * 4 * 7_056 + 20)
    assert half.bytes == 40 * 8 * (4 * 7_056 + 20)
    for store in (plain, small, whole, half):
        store.batches()


# One learner and its sources.


def test_handing_over_is_timed_beside_a_bare_copy(monkeypatch):
    monkeypatch.setattr(
        bench_pipeline, "turns", lambda *works, rounds=1: [work() for work in works]
    )
    (row,) = bench_pipeline.handing_over()
    assert row.what == "fill, hand over, read 564 KB"
    assert row.figure.endswith("µs")
    assert row.against.startswith("bare copy: ")


@pytest.mark.slow  # three processes that start
def test_two_workers_halve_the_time_of_a_slow_simulator():
    (row,) = bench_pipeline.sleeping()
    assert row.ratio >= 1.8


def test_rollouts_beside_the_learner_are_ways_too(monkeypatch):
    monkeypatch.setattr(bench_advise, "cores", lambda: 4)
    config = make_config("dqn", "CartPole-v1", steps=1000, lanes=16)
    found = {way.flags: way for way in bench_advise.beside(config)}
    assert list(found) == [
        "--lag 1", "--workers 1", "--workers 1 --async", "--workers 2 --block-size 8",
        "--workers 2 --block-size 8 --async", "--workers 4 --block-size 4",
        "--workers 4 --block-size 4 --async", "--fast-matmul", "--threads 2", "--threads 4",
    ]  # fmt: skip
    two = found["--workers 2 --block-size 8"]
    assert (two.workers, two.config.lag, two.config.block_size) == (2, 1, 8)
    assert found["--workers 4 --block-size 4 --async"].config.ahead == 4
    table = make_config("q_learning", "Taxi-v4", steps=1000)
    assert not list(bench_advise.beside(table))


def test_the_products_of_an_update_are_all_counted():
    from runners import bench_continuous as bench

    # the policy's three layers 17x256, 256x256, 256x12: 72,960 products a row, forward twice, once for its
    # weights, and to the inputs of all but the first: 68,608
    # a critic's, 23x256, 256x256, 256x1: 71,680, forward three times, once for its weights; to the inputs
    # twice, of the first layer once: 2 · 65,792 + 5,888
    a_row = 3 * 72_960 + 68_608 + 2 * (4 * 71_680 + 2 * 65_792 + 5_888)
    found = sum(p.copies * p.rows * p.inner * p.columns * p.times for p in bench.products())
    assert found == 256 * a_row
