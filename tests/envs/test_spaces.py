"""Spaces that agents cannot read become ones that they can, and every part arrives where it belongs."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs import check
from envs.contract import UnsupportedEnv, spec_of
from envs.spaces import FlatObservation, JointAction, usable


class Shows(gymnasium.Env):
    """Shows what it is given and remembers the actions."""

    def __init__(self, observation_space=None, action_space=None, shown=None):
        self.observation_space = observation_space or spaces.Discrete(2)
        self.action_space = action_space or spaces.Discrete(2)
        self.shown, self.actions = shown, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        return self.shown, 0.0, False, False, {}


BOX = spaces.Box(-1, 3, (2,), np.float64)
SEEN = [
    (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
    (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
    (spaces.Tuple([spaces.Discrete(2, start=5), BOX]), (6, np.array([0.5, 3.0])), [0, 1, 0.5, 3]),
    # a Dict's parts in the order of the space, which sorts the names of a plain dict; no text
    (
        spaces.Dict({"b": spaces.Discrete(3), "a": BOX, "t": spaces.Text(9)}),
        {"t": "words", "b": 1, "a": np.array([-1.0, 2.0])},
        [-1, 2, 0, 1, 0],
    ),
    (spaces.Tuple([spaces.Text(3), spaces.Discrete(2)]), ("hi", 0), [1, 0]),
]


@pytest.mark.parametrize(("space", "shown", "row"), SEEN)
def test_observations_become_one_row(space, shown, row):
    env = usable("x", Shows(space, shown=shown))
    assert isinstance(env, FlatObservation)
    for obs in (env.reset()[0], env.step(0)[0]):
        assert obs.tolist() == row
        assert env.observation_space.contains(obs)
        assert obs.dtype == np.float32


DONE = [
    (spaces.MultiDiscrete([2, 3]), 6, lambda a: a.tolist(), [[i, j] for i in (0, 1) for j in (0, 1, 2)]),
    (
        spaces.MultiDiscrete([2, 2], start=[1, 5]), 4, lambda a: a.tolist(),
        [[1, 5], [1, 6], [2, 5], [2, 6]],
    ),
    (spaces.MultiBinary(2), 4, lambda a: a.tolist(), [[0, 0], [0, 1], [1, 0], [1, 1]]),
    (
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2, start=3)]), 4, list,
        [[0, 3], [0, 4], [1, 3], [1, 4]],
    ),
    (
        spaces.Dict({"go": spaces.Discrete(2), "look": spaces.MultiBinary(1)}), 4,
        lambda a: [a["go"], a["look"].tolist()], [[0, [0]], [0, [1]], [1, [0]], [1, [1]]],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("space", "count", "plain", "combinations"), DONE)
def test_actions_become_one_number(space, count, plain, combinations):
    inner = Shows(action_space=space, shown=0)
    env = usable("x", inner)
    assert isinstance(env, JointAction)
    assert env.action_space == spaces.Discrete(count)
    env.reset()
    for action in range(count):
        env.step(np.int64(action))
    assert [plain(action) for action in inner.actions] == combinations


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Shows(spaces.Sequence(BOX)), "its observation space is a Sequence; Box, Discrete"),
        (Shows(spaces.Dict(x=spaces.Dict(y=BOX))), r"observation space \('x'\) is a Dict"),
        (Shows(spaces.Text(3)), "there are no numbers in it"),
        (Shows(action_space=spaces.MultiDiscrete([17] * 3)), "4,913 combinations, more than 4,096"),
        (Shows(action_space=spaces.Tuple([BOX, spaces.Discrete(2)])), "a mix of discrete and"),
    ],
)
def test_what_cannot_be_used_is_one_line(env, words):
    with pytest.raises(UnsupportedEnv, match=words):
        usable("x", env)


def test_blackjack_can_be_played():
    assert [str(f) for f in check.check_id("Blackjack-v1", steps=200) if f.fault] == []
    env = envs.make("Blackjack-v1", 2, 0)
    assert spec_of(env).obs_shape == (32 + 11 + 2,)
    assert env.reset()[0].sum(axis=1).tolist() == [3, 3]
