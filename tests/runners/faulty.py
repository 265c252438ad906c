"""What worker processes import to go wrong: environments, a worker that babbles, and an oracle.

An observation of `Keys` is its episode's key and the time in it, and everything else follows from the
two; so any transition can be judged by itself, whichever process made it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium import spaces

from agents.replay.window import window
from runners.sources.orders import Collected
from runners.sources.worker_process import main

KEYS = "tests.runners.faulty:Keys-v0"
NO_ANSWERS = ("not what was asked", Collected(10**6, 0, {}, {}), b"\x80\x05no pickle", b"half")


def length(key):
    return 2 + int(key) % 9


def reward(key, t):
    return (int(key) * 31 + int(t) * 7) % 101 / 10


class Keys(gymnasium.Env):
    """Odd keys terminate, even ones are truncated. A ``fault`` comes at the start of every so many-th key."""

    made = 0  # in this process

    def __init__(self, fault: str = "", every: int = 1):
        self.observation_space = spaces.Box(0.0, 2.0**24, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.fault, self.every = fault, every
        Keys.made += 1
        if fault == "making" and multiprocessing.parent_process() and Keys.made > 1:
            raise RuntimeError("one a child, to look at")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.key, self.t = int(self.np_random.integers(1, 2**23)), 0
        return np.array([self.key, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        obs, gain = np.array([self.key, self.t], np.float32), reward(self.key, self.t)
        ended, odd = self.t >= length(self.key), bool(self.key % 2)
        if self.key % self.every == 0 and self.t == 1:
            obs, gain = self.go_wrong(obs, gain)
        return obs, gain, ended and odd, ended and not odd, {}

    def go_wrong(self, obs, gain):
        match self.fault:
            case "segv" if multiprocessing.parent_process():  # evaluations are somebody else's
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang" if multiprocessing.parent_process():
                time.sleep(10**6)
            case "raises":
                raise ZeroDivisionError("of its author's")
            case "nan reward":
                return obs, float("nan")
            case "nan obs":
                return obs * np.float32("nan"), gain
            case "shape":
                return obs[:1], gain
        return obs, gain


if "Keys-v0" not in gymnasium.registry:
    gymnasium.register("Keys-v0", Keys)


def check_ring(ring, n_step, gamma):
    """Every window of the ring is one of one episode.

    Gives how many there are, how many of them end before n steps and the episode's end (their episode
    was cut), and the keys of all episodes that begin in the ring.
    """
    compared, cut, begun = 0, 0, []
    for row in range(ring.tail, ring.head):
        for k, lane in np.ndindex(ring.obs.shape[1:3]):
            end, total, discount = window(
                row, k, lane, ring.head, *ring.options,
                ring.first, ring.reward, ring.terminated, ring.truncated,
            )  # fmt: skip
            if end == row:
                continue
            key, t = ring.obs[row % ring.slots, k, lane].tolist()
            key_after, t_after = ring.obs[end % ring.slots, k, lane].tolist()
            steps = int(t_after - t)
            whole = min(n_step, length(key) - int(t))
            assert key_after == key
            assert 1 <= steps <= whole
            gains = [reward(key, t + i + 1) for i in range(steps)]
            assert abs(total - sum(gamma**i * gain for i, gain in enumerate(gains))) < 1e-4
            terminal = key % 2 and t_after == length(key)
            assert abs(discount - (0.0 if terminal else gamma**steps)) < 1e-6
            compared, cut = compared + 1, cut + (steps < whole)
            begun += [key] if t == 0 else []
    return compared, cut, begun


class Babbling:
    """A worker's pipe that says something else than the worker."""

    def __init__(self, pipe, what):
        self.pipe, self.what, self.answers = pipe, what, 0

    def recv(self):
        return self.pipe.recv()

    def send(self, answer):
        self.answers += 1
        if self.answers < 4:  # that it is ready, and two rollouts
            self.pipe.send(answer)
        elif self.what == b"half":
            os.write(self.pipe.fileno(), b"\x00\x00\x01\x00a quarter of it")
            time.sleep(10**6)
        elif isinstance(self.what, bytes):
            self.pipe.send_bytes(self.what)
        else:
            self.pipe.send(self.what)


def babble(pipe, task):
    """A worker process of which each life of worker 0 babbles in another way, until all are told."""
    known = task.index == 0 and task.life < len(NO_ANSWERS)
    main(Babbling(pipe, NO_ANSWERS[task.life]) if known else pipe, task)
