"""What is said of jobs: on a terminal, in a log, and nowhere."""

from __future__ import annotations

import io
import math
import sys

import pytest

from runners.console import PlainConsole, RichConsole, SilentConsole
from runners.jobs import Event, Job, Outcome, Running, run_jobs
from runners.jobs_panel import JobsPanel, trained_share
from tests.runners.test_console import Clock, terminal

A, B, C = (Job(name, []) for name in ("a", "b", "c"))


def ended(job, status="done", tail=""):
    return Event("ended", job, 1, Outcome(job, status, int(status != "done"), tail, 1.0, 1))


def test_plain_lines_say_what_happened_and_little_else():
    stream, clock = io.StringIO(), Clock()
    with JobsPanel(PlainConsole(stream, clock), "compare", 5, 1, clock=clock) as panel:
        panel.event(Event("started", A, 1))
        panel.tick([Running(A, 0.0, 1)], 3)
        panel.event(Event("again", A, 1))
        clock.now += 10
        panel.event(ended(B))
        panel.event(ended(C, "failed", "Traceback\nerror: the loss is nan\n"))
        panel.tick([Running(A, 10.0, 2)], 1)
        panel.event(ended(A, "stopped"))
        clock.now += 2
    # in 10 s two of four jobs: the other two take 10 s
    assert stream.getvalue().splitlines() == [
        "compare: 5 jobs, 1 of them done before",
        "a: died, is begun again",
        "c: failed: the loss is nan",
        "2 of 5 jobs done, 1 running, 1 failed, 1 begun again, 10.0 s, 10.0 s left",
        "2 of 5 jobs done, 1 failed, 1 begun again, 12.0 s",
    ]


def test_time_left_counts_what_running_jobs_have_done():
    clock = Clock()
    panel = JobsPanel(
        SilentConsole(), "", 4, progress=lambda job: {"a": 0.5, "b": None}[job.name], clock=clock
    )
    panel.began = clock.now - 6
    running = [Running(A, 6, 1), Running(B, 6, 1)]
    # half a job took 6 s, so 3.5 take 42
    assert panel.seconds_left(running, 2) == 42
    panel.event(ended(C))
    assert panel.seconds_left(running, 1) == 6 * 2.5 / 1.5
    panel.progress = lambda job: None
    panel.done = 0
    assert panel.seconds_left(running, 2) == math.inf


def test_a_total_that_grows_is_known_by_what_there_is():
    panel = JobsPanel(PlainConsole(io.StringIO()), "sweep")
    panel.began = panel.clock()
    panel.event(ended(A))
    assert panel.line([Running(B, 0, 1)], 2).startswith("1 of 4 jobs done, 1 running")


@pytest.mark.parametrize("width", [40, 100])
def test_the_panel_shows_names_and_bars(monkeypatch, width):
    stream = terminal(monkeypatch, width)
    shares = {"a": 0.5, "b": None, "c": 7.0}
    with JobsPanel(
        RichConsole(stream), "compare [x]", 9, progress=lambda job: shares[job.name]
    ) as panel:
        panel.tick([Running(A, 65.0, 1), Running(B, 1.0, 3), Running(C, 1.0, 1)], 2)
        shown = stream.getvalue()
        panel.console.message("above")
    assert "compare [x]" in shown
    assert "b (attempt 3)" in shown
    assert "1:05" in shown
    assert "0 of 9 jobs done" in stream.getvalue()
    assert "above\n" in stream.getvalue()


def test_many_running_jobs_are_cut_off(monkeypatch):
    stream = terminal(monkeypatch)
    with JobsPanel(RichConsole(stream), "x") as panel:
        panel.tick([Running(Job(f"job{i}", []), 0, 1) for i in range(20)], 0)
    assert "job11" in stream.getvalue()
    assert "job12" not in stream.getvalue()
    assert "and 8 more" in stream.getvalue()


def test_quiet_says_nothing(capfd, tmp_path):
    with JobsPanel(SilentConsole(), "x", 1) as panel:
        run_jobs([Job("j", [sys.executable, "-c", "print(1); 1/0"])], logs=tmp_path, watcher=panel)
    assert capfd.readouterr() == ("", "")
    assert panel.failed == 1


def test_a_watched_run(tmp_path):
    stream = io.StringIO()
    jobs = [
        Job(f"j{i}", [sys.executable, "-I", "-S", "-c", f"raise SystemExit({i})"]) for i in range(3)
    ]
    with JobsPanel(PlainConsole(stream), "three", 3) as panel:
        run_jobs(jobs, 2, logs=tmp_path, watcher=panel)
    first, one, two, last = stream.getvalue().splitlines()
    assert first == "three: 3 jobs"
    assert {one, two} == {"j1: failed: exit status 1", "j2: failed: exit status 2"}
    assert last.startswith("1 of 3 jobs done, 2 failed, ")


def test_how_far_a_run_is(cartpole, tmp_path):
    assert trained_share(cartpole.path, [0], 2048) == 1.0
    assert trained_share(cartpole.path, [0, 1], 4096) == 0.25  # seed 1 has not begun
    assert trained_share(tmp_path / "none", [0], 10) == 0.0
    (tmp_path / "seed-3").mkdir()
    metrics = tmp_path / "seed-3" / "metrics.jsonl"
    for text, share in [
        ("", 0.0),
        ('{"lane_steps": 5}\n', 0.5),  # one line is a last line too
        ('{"lane_steps": 5}\n{"lane_st', 0.5),
        ('{"lane_steps": 5}\n{"lane_steps": 8}\n', 0.8),
        ("no json\n", 0.0),
        ('{"lane_steps": 8, "x": "' + "x" * 9000 + '"}\n', 0.0),  # longer than is looked at
    ]:
        metrics.write_text(text)
        assert trained_share(tmp_path, [3], 10) == share
