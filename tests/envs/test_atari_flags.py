"""Atari's flags and lost lives, from a scripted engine."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ale_py")

from envs import atari, atari_engines


class Scripted:
    """An engine that gives one lane's lives, points and ends from a list."""

    num_actions = 2

    def __init__(self, *steps):
        self.steps = list(steps)
        self.limited = []

    def restart(self, seeds):
        return np.zeros((1, 84, 84), np.uint8), np.array([3])

    def play(self, actions, limited):
        self.limited.append(bool(limited[0]))
        points, terminated, lives = self.steps.pop(0)
        obs = np.zeros((1, 84, 84), np.uint8)
        return obs, np.array([points]), np.array([terminated]), np.array([lives])


def test_flags_and_lives_by_hand():
    settings = atari_engines.Settings(max_episode_steps=3)
    script = [
        # points, game over, lives; reward, terminated, truncated, life loss
        ((1, False, 3), (1, False, False, False)),
        ((0, False, 2), (0, False, False, True)),
        ((5, False, 4), (5, False, True, False)),  # at the limit, with a bonus life
        ((0, False, 3), (0, False, False, False)),  # the reset is no loss
        ((0, False, 3), (0, False, False, False)),
        ((0, False, 1), (0, False, False, True)),
        ((2, True, 0), (2, True, False, True)),  # over at the limit is no truncation
        ((0, False, 3), (0, False, False, False)),
    ]
    env = atari.Atari(Scripted(*(given for given, _ in script)), 1, 0, settings)
    env.reset()
    for _, expected in script:
        _, *flags, infos = env.step([0])
        assert tuple(x[0] for x in (*flags, infos["life_loss"])) == expected
    assert env.engine.limited == [False] * 3 + [True] + [False] * 4
