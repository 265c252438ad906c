"""A real Ray cluster of several machines, which are network namespaces: nodes die, nodes join."""

from __future__ import annotations

import importlib.util
import json
import signal
import threading
import time
from pathlib import Path

import pytest

from runners.config import run_name, to_json
from runners.resolve import make_config
from runners.run_folder import RunFolder
from tests.runners import ray_machines
from tests.runners.ray_machines import Machines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(bool(ray_machines.why_not()), reason=ray_machines.why_not() or "-"),
]


class Training:
    """``train --ray`` on machine 1; what it says is read as it comes."""

    def __init__(self, machines, path, *flags, steps, workers=2, lanes=8, ray="auto", env=None):
        settings = {"lanes": lanes, "block_size": 4, "eval_every": steps // 4, "eval_episodes": 2}
        config = make_config(
            "dqn", "CartPole-v1", source="ray", steps=steps, final_episodes=2,
            checkpoint_every=max(steps // 8, 1), **settings,
        )  # fmt: skip
        file = path / "config.json"
        file.write_text(json.dumps(to_json(config)))
        self.folder = RunFolder(path / "runs" / run_name(config))
        self.process = machines.start(
            1, "-m", "runners.train", "--config", str(file), "--out", str(path / "runs"), "--seeds",
            "1", "--workers", str(workers), "--ray", ray, *flags, env=env or {},
        )  # fmt: skip
        self.said = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        self.said.extend(iter(self.process.stderr.readline, ""))

    def until(self, happened, seconds=200.0):
        limit = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < limit, self.said
            time.sleep(0.05)

    def until_it_learns(self, steps=500):
        def steps_of(line):
            return json.loads(line)["lane_steps"]

        metrics = self.folder.seed_path(0) / "metrics.jsonl"
        self.until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2)
        self.until(lambda: steps_of(metrics.read_text().splitlines()[-1]) > steps)

    def end(self):
        out = self.process.stdout.read()
        self.process.wait(200)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode, out.rpartition("\n")[0].rpartition("\n")[2]


@pytest.fixture(name="machines")
def cluster():
    with Machines() as machines:
        machines.add(1, cpus=2)
        yield machines
    assert not machines.processes()


def test_a_node_dies_in_mid_run_and_the_run_goes_on(machines, tmp_path):
    machines.add(2, cpus=1)
    training = Training(machines, tmp_path, steps=40_000)
    training.until_it_learns()
    machines.lose(2)
    status, out = training.end()
    assert (status, out) == (0, str(training.folder.path)), training.said
    summary = training.folder.summary()
    assert summary["workers_replaced"] == 1
    assert summary["reproducible"] is False
    assert summary["complete"] is True
    assert summary["lane_steps"] == 40_000
    lost = [line for line in training.said if "replaced, its block" in line]
    assert "10.77.0.2" in lost[0]
    hyper = training.folder.config()["hyper"]
    due = int((40_000 - hyper["learning_starts"]) * hyper["replay_ratio"])
    assert abs(summary["updates"] - due) <= 1
    lags = [line["policy_lag_max"] for line in training.folder.seed(0).read_metrics().records]
    assert 0 < max(lags) <= 4


def test_a_node_that_joins_supplies_a_worker_that_waits(machines, tmp_path):
    training = Training(machines, tmp_path, steps=4_000, workers=3, lanes=12)
    training.until(lambda: any("have no place yet" in line for line in training.said))
    machines.add(2, cpus=1)
    status, _ = training.end()
    assert status == 0, training.said
    said = "".join(training.said)
    assert "of 2 in the cluster (10.77.0.1 has 2) 0 are free" in said
    assert "`ray start --address=10.77.0.1:6379`" in said
    assert "all workers have a place now" in said
    assert training.folder.summary()["workers_replaced"] == 0


def test_a_run_that_is_stopped_or_killed_goes_on(machines, tmp_path):
    training = Training(machines, tmp_path, steps=20_000)
    training.until_it_learns()
    training.process.send_signal(signal.SIGTERM)
    assert training.end()[0] == 143
    assert "saved at lane step" in training.said[-1]
    training = Training(
        machines, tmp_path, steps=20_000, ray="10.77.0.1:6379"
    )  # or where it is now
    training.until_it_learns(10_000)
    training.process.kill()
    training.end()
    training = Training(machines, tmp_path, steps=20_000)
    status, _ = training.end()
    assert status == 0, training.said
    summary = training.folder.summary()
    assert summary["lane_steps"] == 20_000
    records = training.folder.seed(0).read_metrics().records
    steps = [line["lane_steps"] for line in records]
    assert steps == sorted(set(steps))


def test_who_may_not_join_is_told_so_at_once(machines, tmp_path):
    head, refused = "10.77.0.1:6379", "10.77.0.1:6380"
    cases = [
        (head, "another", "the cluster takes another token"),
        (head, None, "there is no token here"),
        (refused, ray_machines.TOKEN, "no answer within 15 s"),
    ]
    for address, token, told in cases:
        began = time.monotonic()
        training = Training(
            machines, tmp_path, steps=4_000, ray=address, env={"RAY_AUTH_TOKEN": token}
        )
        status, out = training.end()
        assert (status, out) == (2, "")
        *_, last = training.said
        assert last.startswith(f"error: ray {address}: {told}")
        assert time.monotonic() - began < 60
        assert not training.folder.path.exists()


def test_a_sweep_loses_a_machine_and_trains_all_its_trials(machines, tmp_path):
    machines.add(2, cpus=2)
    sweep = machines.start(
        1, "-m", "runners.sweep", "dqn", "--env", "CartPole-v1", "--steps", "8000", "--trials", "4",
        "--seeds", "1", "--final-seeds", "0", "--eval-episodes", "2", "--final-episodes", "2", "--set",
        "lr=log:1e-4..1e-2", "--ray", "auto", "--out", str(tmp_path), "--quiet",
    )  # fmt: skip
    limit = time.monotonic() + 200
    while len(list(tmp_path.glob("sweep-*/runs/*/seed-0/metrics.jsonl"))) < 4:
        assert sweep.poll() is None, sweep.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.1)
    machines.lose(2)
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, err
    lines = (Path(out.strip()) / "trials.jsonl").read_text().splitlines()
    found = [record for record in map(json.loads, lines) if "status" in record]
    assert [record["status"] for record in found] == ["done"] * 4
    assert sum(record["attempts"] for record in found) == 4 + 2  # two were trained there
