"""Where a run's time goes, and what a device idles, on clocks that are known."""

from __future__ import annotations

import contextlib

import pytest

from agents.device.busy import Busy
from agents.device.machine import available
from runners import bench, bench_device
from runners.measure import Loop
from runners.resolve import make_config
from runners.timing import Times
from tests.agents.slow_machine import SlowMachine


@pytest.mark.skipif(available(), reason="there is a GPU here")
def test_without_a_gpu_it_is_one_line(capsys):
    assert bench.main(["--device", "cuda"]) == 2
    out, error = capsys.readouterr()
    assert error == "error: --device: no CUDA device is at hand; take --device cpu\n"
    assert not out


def test_what_cannot_be_is_one_line(capsys):
    assert bench.main(["worker", "--device", "cpu"]) == 2
    assert "leave worker out" in capsys.readouterr().err
    assert bench.main(["--device", "cpu", "--seconds", "0"]) == 2
    assert "--seconds: got 0.0" in capsys.readouterr().err


def test_the_table_of_a_cpu(monkeypatch):
    monkeypatch.setattr(bench_device, "WARM_UP", 100)
    rows = list(bench_device.device("cpu", 0.05, "CartPole-v1"))
    loops = [row.what for row in rows if "lane steps/s" in row.figure]
    assert [name.split()[0] for name in loops] == ["pqn", "dqn", "pqn", "dqn"]
    assert ["beside" in name for name in loops] == [False, False, True, True]
    for part in ("simulate", "act", "transfer", "sample", "learn"):
        assert sum(row.what == f"  {part}" for row in rows) == 4
    assert not any("idles" in row.what for row in rows)
    second = next(i for i, row in enumerate(rows) if row.what.startswith("dqn"))
    of_pqn = [float(row.figure.rstrip("%")) for row in rows[1:second]]
    assert sum(of_pqn) == pytest.approx(100, abs=6)  # in turns all of it is told


def test_what_a_learner_hands_over_is_no_part_of_learning():
    config = make_config("dqn", "CartPole-v1", steps=10**6, learning_starts=100)
    with contextlib.closing(Loop(config, 1)) as loop:
        times, feed = Times(), loop.learner.feed
        clock = iter(range(10**6))
        times.lap = lambda part: times.seconds.__setitem__(
            part, times.seconds[part] + next(clock) * 0 + 1
        )
        with bench_device.feeding(loop.learner, times):
            bench_device._turn(loop, times, 4)
        assert times.seconds["transfer"] == 4 + loop.learner.updates
        assert times.seconds["learn"] == 4 + loop.learner.updates
        assert "batch" not in vars(feed)  # as it was


def test_a_device_works_from_the_beginnings_to_the_ends_of_pieces():
    """On a clock that every kernel moves on: 3 ms and 5 ms of work, and 7 ms of something else between."""

    class Event:
        def record(self, stream):
            self.at = machine.now

        def elapsed_time(self, other):
            return other.at - self.at

    class Clocked(SlowMachine):
        now = 0.0

        def event(self, timed=False):
            assert timed
            return Event()

    machine = Clocked()
    busy = Busy(machine)
    for work, pause in ((3.0, 7.0), (5.0, 0.0)):
        with busy.piece():
            machine.now += work
        machine.now += pause
    assert busy.take() == pytest.approx(8e-3)
    assert busy.take() == 0.0


def test_a_gpus_share_of_idling_is_told(monkeypatch):
    """With a device that is at work for a quarter of the time."""

    class Quarter:
        def take(self):
            return 0.25 * 0.2

    monkeypatch.setattr(bench_device, "_busy", lambda loop: Quarter())
    monkeypatch.setattr(bench_device, "WARM_UP", 100)
    config = make_config("pqn", "CartPole-v1", steps=10**6)
    rows = list(bench_device._table(config, 0.2))
    assert rows[-1].what == "  the GPU idles, at least"
    assert 74.0 <= float(rows[-1].figure.rstrip("%")) <= 100.0
