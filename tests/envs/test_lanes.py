"""Lanes that are separate environments: each is looked at, and a fault names its own lane."""

from __future__ import annotations

import copy
import re
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs import check
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


@pytest.mark.parametrize("fault", list(FAULTS)[1:])
def test_the_lane_that_is_wrong_is_named(fault, monkeypatch):
    monkeypatch.setattr(FaultyLane, "made", 0)
    env = envs.make(ID, 3, 0, "sync", fault=fault, only=2)
    step, error = step_until_it_fails(env)
    assert (step, error.lane) == (4, 2)
    assert re.search(FAULTS[fault][1], error.what)


def test_a_lane_that_keeps_the_contract_is_left_alone():
    env = envs.make(ID, 3, 0, "sync")
    assert step_until_it_fails(env) is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium tells it in its own way too
def test_in_a_process_of_its_own_too():
    env = envs.make(MODULE_ID, 2, 0, "async", fault="flag")
    try:
        step, error = step_until_it_fails(env)
    finally:
        env.close(terminate=True)
    assert (step, error.what) == (4, "terminated is 'yes', not a bool")


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
