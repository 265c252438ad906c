"""Learners that torchrun starts: a killed one is begun again, and the run goes on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import checkpoint, weights
from runners.run_folder import Group, RunFolder
from runners.state_tree import digest_jsonl, digest_state

pytestmark = pytest.mark.slow  # a dozen processes that load torch

SMALL = {
    "dqn": [
        "--steps", "6144", "--lanes", "4", "--eval-every", "2048", "--checkpoint-every", "1024",
        "--prioritized", "--eval-episodes", "4", "--final-episodes", "4", "--batch-size", "32",
    ],
    "pqn": [
        "--steps", "24576", "--lanes", "8", "--eval-every", "8192", "--checkpoint-every", "4096",
        "--eval-episodes", "4", "--final-episodes", "4",
    ],
}  # fmt: skip


def launch(out, agent, *more, restarts=2, learners=2):
    """`torchrun` of so many learners of a small run on CartPole."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(learners),
            "--max-restarts", str(restarts), "--standalone", "-m", "runners.train", agent, "--env",
            "CartPole-v1", "--seeds", "2", "--out", str(out), *SMALL[agent], *more,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(launched):
    try:
        said, errors = launched.communicate(timeout=200)
    finally:
        launched.terminate()  # it ends its learners, too
    return launched.returncode, said, errors


def learner(launched, rank):
    """The process of a learner."""
    for child in Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(child)
    raise AssertionError(f"there is no learner {rank}")


def folder(out):
    (run,) = (path for path in Path(out).iterdir() if (path / "config.json").is_file())
    return RunFolder(run)


def bits(out):
    """All that a run leaves, without times."""
    run = folder(out)
    found = {"checkpoint": checkpoint.digest(checkpoint.load_newest(run, Group(0, 1)))}
    for seed in run.seeds():
        seeded = run.seed(seed)
        found[seed] = [
            digest_state(dict(weights.load_weights(seeded.last).tensors)),
            *(digest_jsonl(path) for path in (seeded.metrics, seeded.evals)),
        ]
    return found


def wait_for(out, lane_steps):
    """Until the first learner has saved there."""
    for _ in range(2_000):
        if list(Path(out).glob(f"*/groups/0-1/checkpoints/step-{lane_steps:012}/MANIFEST.json")):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing was saved at {lane_steps}")


@pytest.fixture(scope="module", params=list(SMALL))
def whole(request, tmp_path_factory):
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    status, said, errors = finish(launch(out, request.param))
    assert status == 0, errors
    assert said.splitlines()[-1] == str(folder(out).path)
    return request.param, out


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_learner_is_begun_again_and_the_bits_are_the_same(rank, whole, tmp_path):
    agent, undisturbed = whole
    launched = launch(tmp_path, agent, "--fresh")
    wait_for(tmp_path, int(SMALL[agent][7]))
    os.kill(learner(launched, rank), signal.SIGKILL)
    status, _, errors = finish(launched)
    assert status == 0, errors
    assert "going on from lane step" in errors
    assert bits(tmp_path) == bits(undisturbed)
    assert len(folder(tmp_path).provenance()) == 2
    assert not list(tmp_path.glob("*.old-*"))  # --fresh was for the first start


def test_what_a_run_of_two_says(whole):
    agent, out = whole
    run = folder(out)
    summary = run.summary()
    steps = int(SMALL[agent][1])
    assert summary["lane_steps"] == 2 * steps
    assert 0.9 * 2 * steps < summary["env_steps"] <= 2 * steps  # of both learners
    assert run.config()["learners"] == 2
    for seed in run.seeds():
        lanes = [line["lane_steps"] for line in run.seed(seed).read_evals().records]
        assert len(lanes) == len(set(lanes)) == 3  # evaluated once, not by each


def test_the_same_command_again_prints_the_run(whole):
    agent, out = whole
    status, said, errors = finish(launch(out, agent))
    assert status == 0, errors
    assert said.splitlines()[-1] == str(folder(out).path)
    assert len(folder(out).provenance()) == 1


def test_a_signal_stops_all_with_a_checkpoint_and_the_run_goes_on(whole, tmp_path):
    agent, undisturbed = whole
    launched = launch(tmp_path, agent, restarts=0)
    wait_for(tmp_path, int(SMALL[agent][7]))
    launched.send_signal(signal.SIGTERM)
    status, _, errors = finish(launched)
    assert status != 0
    assert "saved at lane step" in errors
    status, _, errors = finish(launch(tmp_path, agent))
    assert status == 0, errors
    found, expected = bits(tmp_path), bits(undisturbed)
    assert found["checkpoint"] == expected["checkpoint"]
    assert [found[s][0] for s in (0, 1)] == [expected[s][0] for s in (0, 1)]


def test_bad_input_is_one_line(tmp_path):
    launched = launch(tmp_path, "pqn", "--lr", "-1", restarts=0)
    status, _, errors = finish(launched)
    assert status == 1  # torchrun's own
    assert errors.count("lr: got -1.0, takes a number above 0") == 1
