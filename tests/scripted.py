"""A simulator whose every observation is a unique number and which remembers what really happened.

It is the other half of the brute-force oracle: it keeps, lane by lane and episode by episode, the
observations, rewards and ending, without ever thinking in rows or rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv


@dataclass
class Episode:
    obs: list[float] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    cut: bool = False  # the worker was replaced: nobody knows how it would have gone on


class ScriptedEnv(VectorEnv):
    """N lanes that end at random, at latest after ``limit`` steps."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, seed: int, limit: int, p_end: float, base: int = 0) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = spaces.Box(-np.inf, np.inf, (num_envs, 2), np.float32)
        self.action_space = spaces.MultiDiscrete([3] * num_envs)
        self.rng = np.random.default_rng(seed)
        self.limit, self.p_end = limit, p_end
        self.counter = base
        self.done = np.zeros(num_envs, bool)
        self.history: list[list[Episode]] = [[] for _ in range(num_envs)]

    def _fresh(self, lane: int) -> np.ndarray:
        self.counter += 1
        return np.array([self.counter, lane], np.float32)

    def _open(self, lane: int) -> np.ndarray:
        obs = self._fresh(lane)
        self.history[lane].append(Episode(obs=[float(obs[0])]))
        return obs

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.done[:] = False
        return np.stack([self._open(lane) for lane in range(self.num_envs)]), {}

    def step(self, actions):
        obs = np.zeros((self.num_envs, 2), np.float32)
        reward = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        for lane in range(self.num_envs):
            if self.done[lane]:
                obs[lane] = self._open(lane)
                self.done[lane] = False
                continue
            episode = self.history[lane][-1]
            obs[lane] = self._fresh(lane)
            reward[lane] = round(self.rng.normal(), 3)
            terminated[lane] = self.rng.random() < self.p_end
            truncated[lane] = len(episode.rewards) + 1 >= self.limit
            episode.obs.append(float(obs[lane, 0]))
            episode.actions.append(int(actions[lane]))
            episode.rewards.append(float(reward[lane]))
            episode.terminated, episode.truncated = bool(terminated[lane]), bool(truncated[lane])
            self.done[lane] = terminated[lane] or truncated[lane]
        return obs, reward, terminated, truncated, {}


class RandomActor:
    """Uniform actions; enough of an actor for a worker."""

    stored = False

    def __init__(self, generators, num_actions: int = 3) -> None:
        self.generators, self.num_actions = generators, num_actions

    def initial_state(self, lanes):
        return {}

    def act(self, obs, first, facts, state, explore):
        shape = obs.shape[1:2]
        actions = [g.integers(self.num_actions, size=shape) for g in self.generators]
        return np.stack(actions), state, {}

    def load_params(self, params):
        pass


def windows(history: list[Episode], n: int, gamma: float) -> dict[float, tuple]:
    """Every n-step window of one lane by brute force.

    From the number of its first observation to (action, sum of discounted rewards, discount, number
    of the observation bootstrapped from, whether the window is complete).
    """
    found = {}
    for episode in history:
        length = len(episode.rewards)
        ended = episode.terminated or episode.truncated
        known = length - 1 if episode.cut else length  # a cut row has no true successor
        for i in range(known):
            m = min(n, known - i)
            total = sum(gamma**j * episode.rewards[i + j] for j in range(m))
            at_end = i + m == length and ended
            discount = 0.0 if at_end and episode.terminated else gamma**m
            complete = m == n or ended or episode.cut
            found[episode.obs[i]] = (
                episode.actions[i],
                total,
                discount,
                episode.obs[i + m],
                complete,
            )
    return found
