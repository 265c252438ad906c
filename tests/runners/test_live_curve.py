"""The process that draws beside a run: while it goes on, at its end, and where it cannot."""

from __future__ import annotations

import os
import threading

import pytest

from runners import learning_curve, live_curve
from runners.errors import Stopped
from runners.live_curve import LiveCurve, follow
from runners.run_folder import create_run

PNG = b"\x89PNG"


@pytest.fixture
def folder(tmp_path):
    run = create_run(
        str(tmp_path), "dqn-CartPole-v1-0123456789", {"agent": "dqn", "env": "CartPole-v1"}
    )
    evaluate(run, 100)
    return run


def evaluate(run, lane_steps):
    run.seed(0).add_eval(
        {"lane_steps": lane_steps, "env_steps": lane_steps, "mean": 9.0, "returns": [9.0]}
    )


def test_the_last_picture_is_drawn_when_it_is_asked_for(folder):
    curve = LiveCurve(folder.path)
    assert curve.finish()
    assert folder.curve.read_bytes().startswith(PNG)


def test_a_run_that_never_was_has_no_picture(tmp_path):
    assert LiveCurve(tmp_path / "none").finish()
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_way_is_noticed(folder):
    folder.curve.mkdir()
    assert not LiveCurve(folder.path).finish()


@pytest.mark.parametrize(("error", "drawn"), [(Stopped(2, ""), True), (ValueError(), False)])
def test_a_stopped_run_is_drawn_and_no_process_is_left(folder, error, drawn):
    with pytest.raises(type(error)), live_curve.live_curve(folder.path) as curve:
        raise error
    assert curve.process.wait(10) is not None
    assert folder.curve.exists() == drawn


def test_it_is_drawn_again_when_there_is_something_new(folder, monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr("sys.stdin", os.fdopen(read))
    monkeypatch.setattr(live_curve, "REDRAW_SECONDS", 0.05)
    drawn = threading.Semaphore(0)
    monkeypatch.setattr(learning_curve, "draw_curve", lambda run: drawn.release())
    follower = threading.Thread(target=follow, args=(folder.path,))
    follower.start()
    assert drawn.acquire(timeout=10)
    assert not drawn.acquire(timeout=0.3)  # nothing new
    evaluate(folder, 200)
    assert drawn.acquire(timeout=10)
    os.close(write)
    follower.join(10)
    assert drawn.acquire(timeout=0)  # the last one
    assert not follower.is_alive()
