"""Lanes that are separate environments: each is looked at, and a fault names its own lane."""

from __future__ import annotations

import copy
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs import check, lane_processes
from envs.contract import LaneError, UnsupportedEnv

ID = "FaultyLane-v0"
MODULE_ID = f"{__name__}:{ID}"


class FaultyLane(gymnasium.Env):
    """Counts its steps; at the fourth it does ``fault``, or only the one made as number ``only``."""

    made = 0

    def __init__(self, fault="none", only=-1):
        self.observation_space = spaces.Box(-100, 100, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.fault, self.only, self.lane = fault, only, FaultyLane.made
        FaultyLane.made += 1
        if fault == "no process" and multiprocessing.parent_process() is not None:
            raise RuntimeError("this is made only in the parent")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.obs(), {}

    def obs(self):
        return np.array([self.steps], np.float32)

    def step(self, action):
        self.steps += 1
        result = [self.obs(), 1.0, False, False, {}]
        if self.steps == 4 and self.only in (-1, self.lane):
            FAULTS[self.fault][0](result)
        return tuple(result)


def put(place, value):
    def change(result):
        result[place] = value

    return change


def fail(result):
    raise ZeroDivisionError("somewhere inside")


FAULTS = {
    "none": (lambda result: None, ""),
    "raises": (fail, "step raised ZeroDivisionError: somewhere inside"),
    "float64": (put(0, np.zeros(1)), r"the observation is float64\(1,\), not float32\(1,\)"),
    "int": (put(0, np.zeros(1, int)), r"the observation is int64\(1,\), not float32\(1,\)"),
    "shape": (put(0, np.zeros(2, np.float32)), r"float32\(2,\), not float32\(1,\)"),
    "list": (put(0, [1.0]), r"the observation is \[1.0\], not"),
    "reward": (put(1, "1"), "the reward is '1', not a number"),
    "flag": (put(2, "yes"), "terminated is 'yes', not a bool"),
    "exits": (lambda result: os._exit(3), ""),
    "hangs": (lambda result: time.sleep(60), ""),
    "number": (put(3, 7), "truncated is 7, not a bool"),
}

if ID not in gymnasium.registry:
    gymnasium.register(ID, FaultyLane, max_episode_steps=50)


def step_until_it_fails(env):
    env.reset()
    for step in range(1, 6):
        try:
            env.step(np.zeros(env.num_envs, int))
        except LaneError as error:
            return step, error
    return None


@pytest.mark.parametrize("fault", [name for name, (_, told) in FAULTS.items() if told])
def test_the_lane_that_is_wrong_is_named(fault, monkeypatch):
    monkeypatch.setattr(FaultyLane, "made", 0)
    env = envs.make(ID, 3, 0, "sync", fault=fault, only=2)
    step, error = step_until_it_fails(env)
    assert (step, error.lane) == (4, 2)
    assert re.search(FAULTS[fault][1], error.what)


def test_a_lane_that_keeps_the_contract_is_left_alone():
    env = envs.make(ID, 3, 0, "sync")
    assert step_until_it_fails(env) is None


def test_in_a_process_of_its_own_too():
    with closing(envs.make(MODULE_ID, 2, 0, "async", fault="flag")) as env:
        step, error = step_until_it_fails(env)
    assert (step, error.what) == (4, "terminated is 'yes', not a bool")


def test_what_a_process_raised_comes_with_its_traceback():
    with closing(envs.make(MODULE_ID, 2, 0, "async", fault="raises", only=1)) as env:
        assert step_until_it_fails(env) is None  # each process has made its own number 0
    with closing(envs.make(MODULE_ID, 2, 0, "async", fault="raises")) as env:
        _, error = step_until_it_fails(env)
        assert error.what == "step raised ZeroDivisionError: somewhere inside"
        told = str(error.__cause__)
        assert "in fail\n" in told
        assert "ZeroDivisionError: somewhere inside" in told
        with pytest.raises(RuntimeError, match="close this environment and make another"):
            env.step(np.zeros(2, int))
    assert not any(process.is_alive() for process in env.env.processes)


@pytest.mark.parametrize(
    ("signum", "how"), [(signal.SIGKILL, "killed by signal 9"), (signal.SIGTERM, "signal 15")]
)
def test_a_process_that_dies_is_named(signum, how):
    with closing(envs.make(MODULE_ID, 2, 0, "async")) as env:
        env.reset()
        process = env.env.processes[1]
        os.kill(process.pid, signum)
        process.join(10)
        with pytest.raises(LaneError, match=f"lane 1: its process died .*{how}"):
            env.step(np.zeros(2, int))
    assert not any(process.is_alive() for process in env.env.processes)


def test_a_process_that_exits_within_a_step_is_named():
    with closing(envs.make(MODULE_ID, 1, 0, "async", fault="exits")) as env:
        step, error = step_until_it_fails(env)
        assert (step, error.lane, error.what) == (4, 0, "its process died (exit status 3)")


def test_a_process_that_hangs_is_named_and_killed(monkeypatch):
    with closing(envs.make(MODULE_ID, 2, 0, "async", fault="hangs")) as env:
        env.reset()
        monkeypatch.setattr(lane_processes, "STEP_LIMIT", 1.0)
        start = time.monotonic()
        _, error = step_until_it_fails(env)
        assert (error.lane, error.what) == (0, "no answer within 1 s")
    assert time.monotonic() - start < 5
    assert not any(process.is_alive() for process in env.env.processes)


PARENT = f"""
import sys, numpy as np, envs
if __name__ == "__main__":
    env = envs.make({MODULE_ID!r}, 1, 0, "async", fault="hangs")
    env.reset()
    print(env.env.processes[0].pid, flush=True)
    for _ in range(9):
        env.step(np.zeros(1, int))
"""


def test_a_process_that_hangs_ends_with_its_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)}, cwd=root,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        lane = int(parent.stdout.readline())
        time.sleep(0.5)  # until it hangs
        parent.kill()
    until = time.monotonic() + 5
    while Path(f"/proc/{lane}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{lane}").exists()


def test_a_process_that_cannot_make_its_environment_is_named(capfd):
    with pytest.raises(UnsupportedEnv, match=r"lane 0: its process died \(exit status 1\)"):
        envs.make(MODULE_ID, 1, 0, "async", fault="no process")
    assert "only in the parent" in capfd.readouterr().err


def test_a_lane_error_comes_through_a_pipe():
    error = LaneError("it broke", 3)
    # a deep copy takes it apart and puts it together again as a pipe does
    for again in (copy.deepcopy(error), LaneError(error)):
        assert (again.what, again.lane, str(again)) == ("it broke", 3, "lane 3: it broke")


def test_the_checker_names_what_would_be_cast_silently():
    told = [str(f) for f in check.check(lambda n, s: envs.make(ID, n, s, "sync", fault="float64"))]
    assert told == ["runs, lane 0, step 4: the observation is float64(1,), not float32(1,)"]


def test_a_module_is_imported_for_its_environments():
    assert envs.resolve_backend(MODULE_ID) == "sync"
    assert envs.time_limit(MODULE_ID) == 50
    assert envs.reward_threshold(MODULE_ID) is None
    env = envs.make(MODULE_ID, 2, 0)
    assert env.reset()[0].shape == (2, 1)
    with pytest.raises(UnsupportedEnv, match="no_such_module"):
        envs.make("no_such_module:X-v0", 1, 0)
    with pytest.raises(UnsupportedEnv, match="there is no environment 'FaultyLane-v1'"):
        envs.make(f"{__name__}:FaultyLane-v1", 1, 0)


class AskSignal(FaultyLane):
    """Its reward says whether Ctrl-C is ignored where it is stepped."""

    def step(self, action):
        result = list(super().step(action))
        result[1] = float(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
        return tuple(result)


if "AskSignal-v0" not in gymnasium.registry:
    gymnasium.register("AskSignal-v0", AskSignal)


def test_a_lane_s_process_leaves_ctrl_c_to_its_parent():
    before = signal.getsignal(signal.SIGINT)
    env = envs.make(f"{__name__}:AskSignal-v0", 2, 0, "async")
    try:
        env.reset()
        assert env.step(np.zeros(2, int))[1].tolist() == [1.0, 1.0]
    finally:
        env.close()
    assert signal.getsignal(signal.SIGINT) is before  # and the parent goes on to hear it
