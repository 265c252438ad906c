"""The slow twin of `envs.tabular`: one lane after the other, as Gymnasium's toy-text does it."""

from __future__ import annotations

import numpy as np
from gymnasium.utils import seeding


def categorical(probabilities, rng):
    """Gymnasium's toy_text.utils.categorical_sample."""
    return int(np.argmax(np.cumsum(probabilities) > rng.random()))


class SlowLanes:
    """N lanes of a FiniteMDP with one generator, in plain Python."""

    def __init__(self, mdp, num_envs, seed):
        self.mdp, self.lanes = mdp, range(num_envs)
        self.rng = seeding.np_random(seed)[0]

    def reset(self):
        self.state = [categorical(self.mdp.rho, self.rng) for _ in self.lanes]
        self.elapsed = [0 for _ in self.lanes]
        self.done = [False for _ in self.lanes]
        return list(self.state)

    def step(self, actions):
        rows = [self.step_lane(lane, actions[lane]) for lane in self.lanes]
        return tuple(list(column) for column in zip(*rows, strict=True))

    def step_lane(self, lane, action):
        if self.done[lane]:
            self.state[lane] = categorical(self.mdp.rho, self.rng)
            self.elapsed[lane], self.done[lane] = 0, False
            return self.state[lane], 0.0, False, False
        at = self.state[lane], action
        z = categorical(self.mdp.P[at], self.rng)
        self.state[lane] = int(self.mdp.successor[at][z])
        self.elapsed[lane] += 1
        terminated = bool(self.mdp.terminal[at][z])
        truncated = self.mdp.time_limit > 0 and self.elapsed[lane] >= self.mdp.time_limit
        self.done[lane] = terminated or truncated
        return self.state[lane], float(self.mdp.R[at][z]), terminated, truncated
