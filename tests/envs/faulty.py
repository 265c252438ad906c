"""A correct little environment, and one broken copy of it for every fault the checker names."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

LIMIT = 20


class Walk(VectorEnv):
    """A noisy walk on a line: ends beyond 3, is truncated after 20 steps; one generator a lane."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    limit = LIMIT

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-10, 10, (2,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.seed = seed
        self.calls = 0  # of step since the reset

    def generators(self, seed):
        return [np.random.default_rng([seed, lane]) for lane in range(self.num_envs)]

    def reset(self, *, seed=None, options=None):
        seed, self.seed = self.seed if seed is None else seed, None
        if seed is not None:
            self.rngs = self.generators(seed)
        self.x = np.array([self.start(rng) for rng in self.rngs])
        self.elapsed = np.zeros(self.num_envs, np.int64)
        self.done = np.zeros(self.num_envs, np.bool_)
        self.calls = 0
        return self.observe(), {}

    def start(self, rng):
        return rng.uniform(-0.5, 0.5)

    def observe(self):
        return np.stack([self.x, self.x**2 / 10], axis=1).astype(np.float32)

    def step(self, actions):
        self.calls += 1
        reset = self.done
        for lane, rng in enumerate(self.rngs):
            if reset[lane]:
                self.x[lane] = self.start(rng)
            else:
                self.x[lane] += (2 * actions[lane] - 1) * 0.6 + rng.normal(0, 0.2)
        self.elapsed = np.where(reset, 0, self.elapsed + 1)
        reward = np.where(reset, 0.0, 1.0)
        terminated = ~reset & (np.abs(self.x) > 3)
        truncated = ~reset & (self.elapsed >= self.limit)
        self.done = terminated | truncated
        return self.observe(), reward, terminated, truncated, {}

    def get_state(self):
        return {
            "x": self.x.copy(),
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "rngs": [copy.deepcopy(rng.bit_generator.state) for rng in self.rngs],
        }

    def set_state(self, state):
        self.x, self.elapsed = state["x"].copy(), state["elapsed"].copy()
        self.done = state["done"].copy()
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = copy.deepcopy(saved)


class Still(Walk):
    """Nothing wrong: it never moves, so that its ends look like its beginnings."""

    def step(self, actions):
        before, was_done = self.x.copy(), self.done
        out = super().step(actions)
        self.x = np.where(was_done, self.x, before)
        return self.observe(), *out[1:]


class WrongDtype(Walk):
    def observe(self):
        return super().observe().astype(np.float64)


class WrongShape(Walk):
    def step(self, actions):
        obs, reward, *rest = super().step(actions)
        return obs, reward[:, None] if self.calls == 4 else reward, *rest


class NaNInObs(Walk):
    def observe(self):
        obs = super().observe()
        if self.calls == 7:
            obs[1, 0] = np.nan
        return obs


class OutOfRange(Walk):
    def observe(self):
        obs = super().observe()
        if self.calls == 9:
            obs[2, 1] = 11
        return obs


class Raises(Walk):
    def step(self, actions):
        if self.calls == 5:
            raise IndexError("out of maps")
        return super().step(actions)


class EarlyTruncation(Walk):
    limit = 15


class LateTruncation(Walk):
    limit = 25


class ResetObsAtTheEnd(Walk):
    """The next episode begins within the ending step; the next step shows its beginning again."""

    def step(self, actions):
        obs, reward, terminated, truncated, infos = super().step(actions)
        for lane in np.flatnonzero(self.done):
            x = self.start(copy.deepcopy(self.rngs[lane]))
            obs[lane] = x, x**2 / 10
        return obs, reward, terminated, truncated, infos


class ResetObsAtTruncation(Walk):
    """As above for truncation alone, with a beginning that is drawn again afterwards."""

    def step(self, actions):
        obs, reward, terminated, truncated, infos = super().step(actions)
        for lane in np.flatnonzero(truncated & ~terminated):
            x = self.start(self.rngs[lane])
            obs[lane] = x, x**2 / 10
        return obs, reward, terminated, truncated, infos


class RewardOnReset(Walk):
    def step(self, actions):
        obs, _, *rest = super().step(actions)
        return obs, np.ones(self.num_envs), *rest


class FlagOnReset(Walk):
    def step(self, actions):
        was_done = self.done
        obs, reward, terminated, truncated, infos = super().step(actions)
        return obs, reward, terminated | was_done, truncated, infos


class ActionOnReset(Walk):
    def step(self, actions):
        was_done = self.done
        out = super().step(actions)
        self.x[was_done] += 0.1 * actions[was_done]
        return self.observe(), *out[1:]


class FixedSeed(Walk):
    def generators(self, seed):
        return super().generators(0)


class GlobalGenerator(Walk):
    shared = np.random.default_rng(0)

    def generators(self, seed):
        return [self.shared] * self.num_envs


class KeptSeedUnused(Walk):
    def reset(self, *, seed=None, options=None):
        entropy = np.random.SeedSequence().generate_state(1)[0]
        return super().reset(seed=entropy if seed is None else seed)


class KeptSeedForEver(Walk):
    def reset(self, *, seed=None, options=None):
        kept = self.seed
        out = super().reset(seed=seed)
        self.seed = kept
        return out


class EqualLanes(Walk):
    def generators(self, seed):
        return [np.random.default_rng(seed) for _ in range(self.num_envs)]


class StateWithoutGenerator(Walk):
    def get_state(self):
        return {key: value for key, value in super().get_state().items() if key != "rngs"}

    def set_state(self, state):
        super().set_state({**state, "rngs": [rng.bit_generator.state for rng in self.rngs]})


class StateWithoutDone(Walk):
    """Forgets that lanes are about to be reset."""

    def set_state(self, state):
        super().set_state({**state, "done": np.zeros(self.num_envs, np.bool_)})


class StateIsView(Walk):
    def get_state(self):
        return {**super().get_state(), "x": self.x}


class StateIsTaken(Walk):
    """Goes on in the arrays that set_state was given."""

    def set_state(self, state):
        super().set_state(state)
        self.x = state["x"]


class StateOfObjects(Walk):
    def get_state(self):
        return {**super().get_state(), "rngs": copy.deepcopy(self.rngs)}

    def set_state(self, state):
        saved = [rng.bit_generator.state for rng in state["rngs"]]
        super().set_state({**state, "rngs": saved})


class ReusedArrays(Walk):
    def __init__(self, num_envs, seed):
        super().__init__(num_envs, seed)
        self.buffer = np.zeros((num_envs, 2), np.float32)

    def observe(self):
        self.buffer[:] = super().observe()
        return self.buffer


class FactComesAndGoes(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.ones((self.num_envs, 2), np.bool_)}

    def step(self, actions):
        out = super().step(actions)
        mask = {"action_mask": np.ones((self.num_envs, 2), np.bool_)}
        return *out[:4], {} if self.calls == 6 else mask


class SameStep(Walk):
    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}


class TupleObs(Walk):
    def __init__(self, num_envs, seed):
        super().__init__(num_envs, seed)
        self.single_observation_space = spaces.Tuple([spaces.Discrete(2)])
