"""A run that was killed and goes on has the bits of one that was not.

In process, a run dies by an exception out of its console, after a rollout: nothing is saved then, as
after `kill -9`. A few runs in processes of their own are killed for real, at fault points of the file
system and at moments that nobody chose.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from envs import resume
from runners import checkpoint
from runners.config import config_id, run_name, to_json
from runners.console import SilentConsole
from runners.errors import NoCheckpoint
from runners.outcome import read_result
from runners.resolve import make_config
from runners.run_folder import RunFolder
from runners.state_tree import TIMES, digest_jsonl
from runners.train import run

ROOT = Path(__file__).parents[2]
DQN = {
    "steps": 800, "lanes": 4, "rollout_length": 8, "batch_size": 16, "learning_starts": 100,
    "target_period": 100, "replay_size": 300, "hidden": (16,), "epsilon_steps": 500, "n_step": 3,
    "eval_every": 200, "eval_episodes": 2, "checkpoint_every": 150, "replay_ratio": 0.5,
}  # fmt: skip
TABLE = {"steps": 3_000, "epsilon_steps": 2_000, "eval_episodes": 2}
PQN = {
    "steps": 3_072, "lanes": 16, "rollout_length": 8, "minibatch_size": 32, "hidden": (16,),
    "epsilon_steps": 1_000, "eval_every": 512, "eval_episodes": 4, "checkpoint_every": 768,
}  # fmt: skip
CONTINUOUS = {
    "steps": 600, "lanes": 2, "learning_starts": 100, "replay_size": 400, "batch_size": 8, "hidden": (8,),
    "eval_every": 200, "eval_episodes": 2, "final_episodes": 2, "checkpoint_every": 150,
}  # fmt: skip
CASES = {
    "dqn": ("dqn", "CartPole-v1", DQN),
    "dqn, lag 1, two blocks": ("dqn", "CartPole-v1", {**DQN, "lag": 1, "block_size": 2}),
    # an environment whose state nobody knows; see `register_unsaved`
    "dqn, forced resets": ("dqn", "Unsaved-v0", DQN),
    # priorities, and generators of noise; the ring goes round within the run
    "rainbow": ("rainbow", "CartPole-v1", {**DQN, "atoms": 11}),
    # what acting thought of the newest rows
    "dqn, first priorities by acting": ("dqn", "CartPole-v1", {
        **DQN, "prioritized": True, "actor_priorities": True, "lag": 1,
    }),
    "iqn, masks and fractions": ("iqn", "CartPole-v1", {**DQN, "atoms": 4, "dropout": 0.2}),
    # sequences that begin before a checkpoint, with memories of their own
    "r2d2": ("r2d2", "CartPole-v1", {
        **DQN, "memory_size": 8, "sequence_length": 12, "burn_in": 4, "lanes": 4,
    }),
    "dqn, attention": ("dqn", "CartPole-v1", {
        **DQN, "memory": "attention", "memory_size": 8, "context": 5, "sequence_length": 8,
        "burn_in": 4,
    }),
    # each lane's head
    "bootstrapped_dqn": ("bootstrapped_dqn", "CartPole-v1", {**DQN, "heads": 3}),
    # running statistics
    "rnd": ("rnd", "CartPole-v1", {**DQN, "features": 8, "n_step": 1}),
    "tree_backup, fused": ("tree_backup", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "watkins_q, fused": ("watkins_q", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "dyna_q, local": ("dyna_q", "FrozenLake-v1", {**TABLE, "source": "local", "steps": 1_000}),
    "q_learning, fused": ("q_learning", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "double_q, fused": ("double_q", "FrozenLake-v1", TABLE),
    "n_step_sarsa, softmax, fused": (
        "n_step_sarsa", "FrozenLake-v1", {**TABLE, "lanes": 2, "exploration": "boltzmann"}
    ),
    "q_sigma, bounds, local": ("q_sigma", "FrozenLake-v1", {
        **TABLE, "source": "local", "steps": 1_000, "exploration": "ucb", "lanes": 2,
    }),
    "sarsa_lambda, fused": ("sarsa_lambda", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "peng_q, local": ("peng_q", "FrozenLake-v1", {**TABLE, "source": "local", "steps": 1_000}),
    "dyna_q_plus, fused": ("dyna_q_plus", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "prioritized_sweeping, local": (
        "prioritized_sweeping", "FrozenLake-v1", {**TABLE, "source": "local", "steps": 1_000}
    ),
    "monte_carlo, fused": ("monte_carlo", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "r_max, fused": ("r_max", "FrozenLake-v1", {**TABLE, "lanes": 2}),
    "sarsa, local": ("sarsa", "FrozenLake-v1", {**TABLE, "source": "local", "steps": 1_000}),
    "q_learning, forced resets": ("q_learning", "CliffWalking-v1", {
        "steps": 1_000, "eval_episodes": 2, "source": "local", "backend": "sync",
        "env_options": {"max_episode_steps": 30}, "eval_every": 500,
    }),
    "pqn": ("pqn", "CartPole-v1", PQN),
    "pqn, lstm, two blocks": ("pqn", "CartPole-v1", {
        **PQN, "memory": "lstm", "memory_size": 8, "block_size": 8,
    }),
    "ucb_hoeffding": ("ucb_hoeffding", "FrozenLake-v1", {
        "steps": 1_000, "eval_episodes": 2, "lanes": 2, "eval_every": 300, "checkpoint_every": 250,
    }),
    # traces and statistics of observations and rewards
    "stream_q": ("stream_q", "CartPole-v1", {
        "steps": 900, "epsilon_steps": 500, "eval_every": 300, "eval_episodes": 2, "checkpoint_every": 250,
    }),
    "linear_q": ("linear_q", "MountainCar-v0", {**TABLE, "lanes": 2, "rollout_length": 8}),
    # a policy beside its critics, each with an optimizer, and running statistics; truncated after 200 steps
    "sac, lag 1": ("sac", "Pendulum-v1", {**CONTINUOUS, "normalise_obs": True, "lag": 1, "n_step": 3}),
    # moving averages of batches, and a policy that learns now and then
    "crossq": ("crossq", "Pendulum-v1", {**CONTINUOUS, "renorm_after": 20}),
    "droq": ("droq", "Pendulum-v1", {**CONTINUOUS, "replay_ratio": 1.0, "policy_period": 3}),
    "redq": ("redq", "Pendulum-v1", {**CONTINUOUS, "critics": 3, "replay_ratio": 1.0, "policy_period": 3}),
    "tqc": ("tqc", "Pendulum-v1", {**CONTINUOUS, "critics": 2, "quantiles": 5}),
    # slow copies of both networks
    "td3": ("td3", "Pendulum-v1", CONTINUOUS),
    "ddpg": ("ddpg", "Pendulum-v1", CONTINUOUS),
    "naf": ("naf", "Pendulum-v1", CONTINUOUS),
}  # fmt: skip
OTHERS_DO_THE_SAME = ("droq", "redq", "tqc", "ddpg")  # so they are of the slow ones
SEEDS = (0, 1)


def config_of(case, **changes):
    agent, env, settings = CASES[case]
    if env == "Unsaved-v0":
        env = register_unsaved()
    return make_config(agent, env, **{**settings, **changes})


def register_unsaved():
    """CartPole under another class: nobody knows its state, so it is reset at checkpoints."""
    import gymnasium
    from gymnasium.envs.classic_control import CartPoleEnv

    class UnsavedCartPole(CartPoleEnv):
        pass

    if "Unsaved-v0" not in gymnasium.registry:
        gymnasium.register("Unsaved-v0", UnsavedCartPole, max_episode_steps=60)
    return "Unsaved-v0"


class Killed(BaseException):
    pass


class DiesAt(SilentConsole):
    """Ends the run without a word after this many rollouts."""

    def __init__(self, rollouts):
        self.left = rollouts

    def update(self, status):
        self.left -= 1
        if self.left == 0:
            raise Killed


class Counting(SilentConsole):
    rollouts = 0

    def update(self, status):
        self.rollouts += 1


def fingerprint(folder: RunFolder):
    """Everything a run leaves, without seconds and rates: name -> digest."""
    found = {}
    for group in folder.groups():
        newest = checkpoint.load_newest(folder, group, read_only=True)
        found[f"checkpoint {group}"] = checkpoint.digest(newest)
        found[f"lane_steps {group}"] = newest.lane_steps
    for seed in folder.seeds():
        path = folder.seed(seed)
        found[f"metrics {seed}"] = digest_jsonl(path.metrics)
        found[f"evals {seed}"] = digest_jsonl(path.evals)
        found[f"health {seed}"] = digest_jsonl(path.health)
        result = read_result(path.path)
        assert result is not None
        found[f"result {seed}"] = {n: v for n, v in result.items() if n not in TIMES}
        for which in (path.last, path.best):
            files = sorted(which.glob("*.safetensors"))
            found[f"weights {which.name} {seed}"] = [file.read_bytes() for file in files]
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.slow] if c in OTHERS_DO_THE_SAME else []) for c in CASES],
)
def test_a_run_that_died_goes_on_to_the_same_bits(case, tmp_path):
    config = config_of(case)
    console = Counting()
    whole = run(config, SEEDS, str(tmp_path / "whole"), console=console)
    assert console.rollouts >= 4
    moments = np.random.default_rng(len(case)).integers(1, console.rollouts, size=3)
    for number, moment in enumerate(moments):
        # each start goes on from the last checkpoint; a later one may come to its end
        expected = pytest.raises(Killed) if number == 0 else contextlib.suppress(Killed)
        with expected:
            run(config, SEEDS, str(tmp_path / "killed"), console=DiesAt(int(moment)))
    again = run(config, SEEDS, str(tmp_path / "killed"))
    assert_same(fingerprint(whole), fingerprint(again))


def test_metrics_say_what_happened(tmp_path):
    """The comparison is of runs that learn: parameters move, losses are numbers, clocks advance."""
    whole = run(config_of("dqn"), SEEDS, str(tmp_path))
    records = whole.seed(0).read_metrics().records
    assert records[-1]["updates"] == (800 - 100) // 2
    assert [r["lane_steps"] for r in records] == sorted(r["lane_steps"] for r in records)
    assert records[-1]["loss"] > 0
    assert fingerprint(whole)["metrics 0"] != fingerprint(whole)["metrics 1"]


def test_forced_resets_are_the_same_for_a_run_that_never_stopped(tmp_path):
    """A checkpoint every 150 lane steps cuts episodes; without any, episodes go on."""
    config = config_of("dqn, forced resets")
    assert not isinstance(_probe(config), resume.ResumableLanes)
    rare = config_of("dqn, forced resets", checkpoint_every=10_000)
    assert config_id(config) != config_id(rare)
    often = run(config, (0,), str(tmp_path)).seed(0).read_metrics().records
    seldom = run(rare, (0,), str(tmp_path)).seed(0).read_metrics().records
    # 800 / 150: five scheduled resets of four lanes, each an ignored row at most
    lost = seldom[-1]["env_steps"] - often[-1]["env_steps"]
    assert lost > 0
    assert RunFolder(tmp_path / run_name(config)).summary()["forced_resets"] == 5
    assert RunFolder(tmp_path / run_name(rare)).summary()["forced_resets"] == 0


@pytest.mark.parametrize(
    ("lane_steps", "count"),
    [(150, 0), (154, 1), (300, 1), (302, 1), (304, 2), (800, 5)],
)
def test_a_checkpoint_at_the_end_resets_nothing(lane_steps, count):
    """Four lanes and a checkpoint every 150 lane steps, behind the row that reaches it."""
    from runners.summary import forced_resets

    assert forced_resets(config_of("dqn, forced resets"), lane_steps) == count


def _probe(config):
    import envs

    return envs.make(config.env, 1, 0)


def thresholds(monkeypatch, value):
    """Everybody agrees on another threshold."""
    from runners import resolve

    monkeypatch.setattr(resolve, "threshold", lambda env: value)


def test_seeds_that_leave_the_group(tmp_path, monkeypatch):
    """Seeds that are solved at different evaluations; kills between them."""
    thresholds(monkeypatch, 12.0)
    config = config_of("pqn", until_solved=True, eval_every=256, steps=6_144, lr=1e-4)
    seeds = range(4)
    console = Counting()
    whole = run(config, seeds, str(tmp_path / "whole"), console=console)
    ends = {seed: read_result(whole.seed(seed).path)["lane_steps"] for seed in seeds}
    assert len(set(ends.values())) > 1, ends
    for moment in (2, console.rollouts // 3, console.rollouts // 2):
        with pytest.raises(Killed):
            run(config, seeds, str(tmp_path / "killed"), console=DiesAt(max(1, moment // 2)))
    again = run(config, seeds, str(tmp_path / "killed"))
    assert_same(fingerprint(whole), fingerprint(again))


def test_a_finished_run_is_not_trained_again(tmp_path):
    config = config_of("q_learning, fused")
    before = fingerprint(run(config, SEEDS, str(tmp_path)))
    console = Counting()
    assert_same(before, fingerprint(run(config, SEEDS, str(tmp_path), console=console)))
    assert console.rollouts == 0


def test_a_finished_run_needs_no_checkpoint_and_an_unfinished_one_does(tmp_path):
    config = config_of("dqn")
    folder = run(config, SEEDS, str(tmp_path))
    (group,) = folder.groups()
    shutil.rmtree(folder.group(group) / "checkpoints")
    console = Counting()
    run(config, SEEDS, str(tmp_path), console=console)
    assert console.rollouts == 0
    (folder.seed(1).path / "result.json").unlink()
    lines = folder.seed(0).metrics.read_bytes()
    with pytest.raises(NoCheckpoint, match="all are gone"):
        run(config, SEEDS, str(tmp_path))
    assert folder.seed(0).metrics.read_bytes() == lines  # no fresh start


def test_a_stop_that_is_asked_for_goes_on_to_the_same_bits(tmp_path):
    from runners.errors import Stopped

    config, calls = config_of("dqn"), []
    whole = run(config, SEEDS, str(tmp_path / "whole"))

    def stop_asked():
        calls.append(0)
        return signal.SIGINT if len(calls) == 12 else 0

    with pytest.raises(Stopped):
        run(config, SEEDS, str(tmp_path / "stopped"), stop_asked=stop_asked)
    folder = RunFolder(tmp_path / "stopped" / run_name(config))
    saved = checkpoint.load_newest(folder, folder.groups()[0], read_only=True)
    assert saved.lane_steps % 150  # an extra one, between two scheduled ones
    again = run(config, SEEDS, str(tmp_path / "stopped"))
    assert_same(fingerprint(whole), fingerprint(again))


# True kills.


def train_process(config_file, out, fault=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("QLAB_FAULT", None)
    if fault:
        environment["QLAB_FAULT"] = fault
    return subprocess.Popen(
        [
            sys.executable, "-m", "runners.train", "--config", str(config_file), "--seeds", "2",
            "--out", str(out), "--quiet",
        ],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("dqn", "checkpoint.rename:3"),
        ("dqn", "*:40"),
        pytest.param("dqn", "checkpoint.manifest.sync:2", marks=pytest.mark.slow),
        pytest.param("q_learning, fused", "*:90", marks=pytest.mark.slow),
    ],
)
def test_killed_in_the_middle_of_writing(case, fault, tmp_path):
    config = config_of(case)
    whole = run(config, SEEDS, str(tmp_path / "whole"))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_json(config)))
    killed = train_process(file, tmp_path / "killed", fault)
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, errors
    again = run(config, SEEDS, str(tmp_path / "killed"))
    assert_same(fingerprint(whole), fingerprint(again))


@pytest.mark.slow  # two starts of a process a moment
@pytest.mark.parametrize("case", ["dqn", "sarsa, local"])
@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_any_moment(case, attempt, tmp_path):
    config = config_of(case, steps=4_000)
    whole = run(config, SEEDS, str(tmp_path / "whole"))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_json(config)))
    rng, marks = np.random.default_rng(attempt), tmp_path / "killed"
    for _ in range(3):
        process = train_process(file, marks)
        deadline = time.monotonic() + 60
        while not list(marks.glob("*/groups/*/checkpoints/step-*")):  # it has begun
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 1.5))
        process.kill()
        process.communicate(timeout=60)
    again = run(config, SEEDS, str(marks))
    assert_same(fingerprint(whole), fingerprint(again))
