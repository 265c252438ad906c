"""Whole runs with worker processes that are stopped or killed: nothing is left over, and they go on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runners.config import run_name, to_json
from runners.errors import Stopped
from runners.outcome import read_result
from runners.report import summary_lines
from runners.run_folder import RunFolder
from runners.train import run
from tests.runners.test_resume import assert_same, config_of, fingerprint

ROOT = Path(__file__).parents[2]
CASE = "dqn, lag 1, two blocks"  # of two seeds, so up to four workers
MAIN = """
from runners.errors import leave
from runners.sources import member
from runners.train import main
member.HANG_LIMIT = {}
leave(main())
"""
LEAVE = 5.0  # seconds in which workers leave when the learner is killed
SEEDS = (0, 1)


class Training:
    """``python -m runners.train`` in a process group of its own."""

    def __init__(self, config, path, workers=2, fault="", hang_limit=60.0):
        path.mkdir(exist_ok=True)
        file = path / "config.json"
        file.write_text(json.dumps(to_json(config)))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.out, self.folder = path, RunFolder(path / run_name(config))
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", MAIN.format(hang_limit), "--config", str(file),
                "--seeds", "2", "--out", str(path), "--workers", str(workers),
            ],
            cwd=ROOT, env={**environment, "QLAB_FAULT": fault}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.known = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stderr.close()
        for pid in {self.process.pid, *self.known}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def children(self):
        """Its processes, by number, with their command lines."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid:
                    found[int(path.name)] = (path / "cmdline").read_text()
        self.known |= set(found)
        return found

    def workers(self):
        return [pid for pid, command in self.children().items() if "spawn_main" in command]

    def until(self, happened, seconds=60.0):
        limit = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.02)

    def until_it_learns(self):
        self.until(lambda: list(self.out.glob("*/seed-*/metrics.jsonl")))
        self.children()

    def end(self):
        """Its status and what it said; no process of it is left."""
        _, said = self.process.communicate(timeout=60)
        self.until_all_left(LEAVE)
        return self.process.returncode, said

    def until_all_left(self, seconds):
        limit = time.monotonic() + seconds
        while left := [pid for pid in self.known if alive(pid)]:
            assert time.monotonic() < limit, f"left: {left}"
            time.sleep(0.02)


def state_of(pid):
    """As ``ps`` has it; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def alive(pid):
    return state_of(pid) not in ("", "Z")


# -- The learner's process ends ------------------------------------------------------------------


def kill_the_learner(tmp_path, fault, happened, leave=LEAVE):
    with Training(config_of(CASE, steps=10**7), tmp_path, fault=fault) as training:
        training.until(lambda: len(training.workers()) == 2)
        training.until(lambda: happened(training))
        memory = [
            Path(f"/proc/{pid}/maps").read_text()
            for pid in [training.process.pid, *training.workers()]
        ]
        training.process.kill()
        training.until_all_left(leave)
    return memory


def test_workers_that_hang_and_are_stopped_leave_with_the_learner(tmp_path):
    def happened(training):
        stopped = any(state_of(pid) == "T" for pid in training.workers())
        time.sleep(0.5 * stopped)  # the other one has two rows to go
        return stopped

    memory = kill_the_learner(tmp_path, "worker.row@0.0:30:hang;worker.row@1.0:29:stop", happened)
    for maps in memory:  # it has no name, so nothing can be left of it
        assert "/memfd:rollouts" in maps
        assert "/dev/shm" not in maps


@pytest.mark.slow
def test_workers_that_work_leave_with_the_learner(tmp_path):
    def happened(training):
        return len(list(training.out.glob("*/groups/*/checkpoints/step-*[1-9]*"))) == 2

    kill_the_learner(tmp_path, "", happened)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_workers_leave_with_the_learner_while_they_start(seconds, tmp_path):
    def happened(_):
        time.sleep(seconds)
        return True

    # one that imports looks for its parent when it is done with that, which takes a busy machine long
    kill_the_learner(tmp_path, "", happened, leave=30.0)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 4)])
def test_a_signal_to_all_is_one_checkpoint_and_the_run_goes_on(signum, workers, tmp_path):
    config = config_of(CASE, steps=1_600)
    with Training(config, tmp_path / "stopped") as training:
        training.until_it_learns()
        os.killpg(training.process.pid, signum)
        status, said = training.end()
    assert status == 128 + signum
    assert re.search(r"error: stopped by \w+: saved at lane step \d+; the same command", said)
    assert "replaced" not in said
    assert "Traceback" not in said
    whole = run(config, SEEDS, str(tmp_path / "whole"))
    again = run(config, SEEDS, str(tmp_path / "stopped"), workers=workers)
    assert_same(fingerprint(whole), fingerprint(again))
    assert again.summary()["reproducible"]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_workers_start_is_no_death_of_theirs(signum, tmp_path):
    config = config_of(CASE)
    with Training(config, tmp_path) as training:
        training.until(lambda: len(training.workers()) == 2)
        os.killpg(training.process.pid, signum)
        status, said = training.end()
    assert status == 128 + signum
    assert "replaced" not in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_that_was_suspended_takes_no_worker_for_dead(tmp_path):
    """Ctrl-Z for longer than a worker may be silent."""
    config = config_of(CASE, steps=3_000)
    with Training(config, tmp_path, hang_limit=2.0) as training:
        training.until_it_learns()
        for pid in training.workers():  # first, so that the learner waits for them
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.killpg(training.process.pid, signal.SIGSTOP)
        time.sleep(4.0)
        os.kill(training.process.pid, signal.SIGCONT)
        time.sleep(0.3)
        os.killpg(training.process.pid, signal.SIGCONT)
        status, said = training.end()
    assert status == 0
    assert "replaced" not in said
    assert training.folder.summary()["reproducible"]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_run_at_once(signum, tmp_path):
    """Here nobody answers the first one: both workers hang."""
    config = config_of(CASE)
    with Training(config, tmp_path, fault="worker.row@*.0:30:hang") as training:
        training.until(lambda: training.folder.path.exists() and len(training.workers()) == 2)
        time.sleep(5.0)
        os.killpg(training.process.pid, signum)
        time.sleep(0.5)
        assert training.process.poll() is None
        os.killpg(training.process.pid, signum)
        status, _ = training.end()
    assert status == 128 + signum
    whole = run(config, SEEDS, str(tmp_path / "whole"))
    assert_same(fingerprint(whole), fingerprint(run(config, SEEDS, str(tmp_path))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "workers"),
    [("checkpoint.rename:3", 1), ("checkpoint.manifest.sync:2", 4), ("checkpoint.*:25", 0)],
)
def test_kill_9_in_a_save(point, workers, tmp_path):
    config = config_of(CASE)
    with Training(config, tmp_path / "killed", fault=point) as training:
        training.until_it_learns()
        status, _ = training.end()
    assert status == -signal.SIGKILL
    whole = run(config, SEEDS, str(tmp_path / "whole"))
    again = run(config, SEEDS, str(tmp_path / "killed"), workers=workers)
    assert_same(fingerprint(whole), fingerprint(again))


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    config = config_of(CASE)
    with Training(config, tmp_path / "full", fault="checkpoint.manifest.sync:2:enospc") as training:
        training.until_it_learns()
        status, said = training.end()
    assert status == 4
    assert "No space left on device" in said
    whole = run(config, SEEDS, str(tmp_path / "whole"))
    assert_same(fingerprint(whole), fingerprint(run(config, SEEDS, str(tmp_path / "full"))))


# -- Workers die in whole runs -------------------------------------------------------------------


def test_the_summary_counts_what_was_replaced_before_and_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setenv("QLAB_FAULT", "worker.row@0.*:60")
    config, calls = config_of(CASE, steps=800), []

    def stop_asked():
        calls.append(0)
        return signal.SIGTERM if len(calls) == 12 else 0

    with pytest.raises(Stopped):
        run(config, [0], str(tmp_path), workers=1, stop_asked=stop_asked)
    monkeypatch.setenv("QLAB_FAULT", "worker.row@0.*:70")
    folder = run(config, [0], str(tmp_path), workers=1)
    summary = folder.summary()
    assert summary["lane_steps"] == 800
    assert not summary["reproducible"]
    assert summary["workers_replaced"] == 2
    assert summary["complete"]


@pytest.mark.slow
def test_a_run_whose_four_workers_die_one_by_one_finishes(tmp_path):
    """At random rows, each some time after the one before: 100 rollouts win a replacement back."""
    rng, config = np.random.default_rng(4), config_of(CASE, steps=13_000, checkpoint_every=1_500)
    rows = np.cumsum(rng.integers(500, 900, 4))  # of 3,250
    fault = ";".join(
        f"worker.row@{w}.0:{row}" for w, row in zip(rng.permutation(4), rows, strict=True)
    )
    with Training(config, tmp_path, workers=4, fault=fault) as training:
        training.until_it_learns()
        while training.process.poll() is None:
            training.children()
            time.sleep(0.05)
        status, said = training.end()
    assert status == 0, said
    assert len(re.findall(r"worker \d: killed by signal 9 \(Killed\); replaced", said)) == 4
    folder = training.folder
    summary = folder.summary()
    assert (summary["workers_replaced"], summary["reproducible"]) == (4, False)
    due = int((13_000 - config.hyper.learning_starts) * config.hyper.replay_ratio)
    for seed in SEEDS:
        result = read_result(folder.seed(seed).path)
        assert (result["lane_steps"], result["updates"]) == (13_000, due)
        # seldom are so many rows ignored, each of them the reset after an episode of 8 steps or more
        assert 13_000 * 8 / 9 < result["env_steps"] < 13_000
        logged = [record["lane_steps"] for record in folder.seed(seed).read_metrics().records]
        assert logged == sorted(set(logged))
    assert not list(tmp_path.rglob(".tmp-*"))
    assert "not reproducible: workers replaced: 4" in "\n".join(summary_lines(summary))


@pytest.mark.slow
def test_a_run_of_async_workers_is_said_to_be_no_other_one_s_equal(tmp_path):
    config = config_of(CASE, lag=0, async_=True, max_lag=2)
    summary = run(config, [0], str(tmp_path), workers=2).summary()
    assert (summary["reproducible"], summary["workers_replaced"]) == (False, 0)
    assert "not reproducible: async workers, at their own pace" in summary_lines(summary)
