"""An environment that fails as it is told, for processes of their own to import as well."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from runners import crash_report

ID = "tests.runners.crashing:Crashing-v0"


class Crashing(gymnasium.Env):
    """A random walk that fails in the way of ``fault`` when it is ``place`` away from its start.

    Draws and actions decide when that is. With ``marker``, a file, only one can be made; with
    ``life``, it fails as well after so many steps of the object, which no reset brings back.
    """

    well = False  # True: no fault but those of ``life`` and resets
    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, fault="none", place=4.0, marker="", life=0):
        self.fault, self.place, self.life = fault, place, life
        self.steps, self.x = 0, 0.0
        if marker:
            if Path(marker).exists():
                raise RuntimeError("there is no second licence")
            Path(marker).touch()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        far = self.fault == "reset" and abs(self.x) >= self.place
        again = self.fault == "second seed" and seed is not None and self.steps
        if far or again or self.fault == "first reset":
            raise KeyError(f"no level behind {self.x!r}")
        self.x, self.t = 0.0, 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.t += 1
        self.steps += 1
        self.x += 2 * int(action) - 1 + 0.1 * self.np_random.normal()
        obs, reward = np.array([self.x], np.float32), self.x
        if self.fault in ("late reward", "late raise"):
            obs[0] = np.inf if self.t == 3 else obs[0]
            reward = np.nan if self.t == 5 else reward
            if self.t == 7 and self.fault == "late raise":
                raise OverflowError("in the end")
        if self.steps == self.life:
            raise MemoryError("worn out")
        if abs(self.x) >= self.place and not self.well:
            if self.fault == "raise":
                raise ZeroDivisionError(f"at {self.x!r} after {self.t} steps")
            if self.fault == "signal":
                os.kill(os.getpid(), signal.SIGSEGV)
            reward = {"nan reward": np.nan, "huge reward": 1e300}.get(self.fault, reward)
            if self.fault == "infinite observation":
                obs[0] = np.inf
            if self.fault == "dtype":
                obs = obs.astype(np.float64)
        return obs, float(reward), False, self.t >= 20, {}


gymnasium.register("Crashing-v0", Crashing)


def changed(path, **fields):
    """The report with other values in some fields."""
    other = path.with_name("changed.json")
    other.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return other


def packed_rows(shape, dtype=np.int64):
    """Actions of 0 as a report has them."""
    return crash_report.packed(np.zeros(shape, dtype))
