"""The T-maze against a plain twin and a trajectory by hand; popgym's ids through Gymnasium's lanes."""

import importlib.util

import numpy as np
import pytest

import envs
from envs.check import check_id
from envs.contract import Resumable, UnsupportedEnv, spec_of
from envs.memory import EAST, NORTH, SOUTH, WEST, TMaze

SIGN = {NORTH: [0, 1, 1], SOUTH: [1, 1, 0]}
CORRIDOR, JUNCTION = [1, 0, 1], [0, 1, 0]
needs_popgym = pytest.mark.skipif(
    not importlib.util.find_spec("popgym"), reason="popgym is not installed"
)


def put(env, goal):
    """All lanes at the start, with this goal."""
    env.reset()
    env.goal[:] = goal
    return env


def test_a_trajectory_by_hand():
    """Corridor of 2: cells 0 (sign), 1 (corridor), 2 (junction); the goal is south.

    West and north from the start are walls (-0.1); east to 1, back west to 0, where the sign is seen
    again; east, east to the junction, whose east is a wall; then south to the goal (4), which ends
    the episode. The next step resets whatever its action.
    """
    env = put(envs.make("TMaze-v0", 1, 0, length=2), SOUTH)
    expected = [
        (WEST, SIGN[SOUTH], -0.1, False),
        (NORTH, SIGN[SOUTH], -0.1, False),
        (EAST, CORRIDOR, 0.0, False),
        (SOUTH, CORRIDOR, -0.1, False),
        (WEST, SIGN[SOUTH], 0.0, False),
        (EAST, CORRIDOR, 0.0, False),
        (EAST, JUNCTION, 0.0, False),
        (EAST, JUNCTION, -0.1, False),
        (WEST, CORRIDOR, 0.0, False),
        (EAST, JUNCTION, 0.0, False),
        (SOUTH, CORRIDOR, 4.0, True),
    ]
    for action, seen, value, end in expected:
        obs, reward, terminated, truncated, infos = env.step(np.array([action]))
        assert (obs[0].tolist(), reward[0], terminated[0]) == (seen, value, end)
        assert not truncated[0]
        assert infos == {}
    obs, reward, terminated, truncated, _ = env.step(np.array([NORTH]))
    assert obs[0].tolist() in SIGN.values()
    assert (reward[0], terminated[0], truncated[0]) == (0.0, False, False)


@pytest.mark.parametrize(("turn", "reward"), [(NORTH, 4.0), (SOUTH, -0.1)])
def test_either_turn_ends_the_episode(turn, reward):
    env = put(envs.make("TMaze-v0", 3, 0, length=1), NORTH)
    env.step(np.full(3, EAST))
    _, got, terminated, _, _ = env.step(np.full(3, turn))
    assert got.tolist() == [reward] * 3
    assert terminated.all()


class SlowMaze:
    """One lane in plain Python; the goal is given."""

    def __init__(self, length, limit):
        self.length, self.limit = length, limit

    def begin(self, goal):
        self.x, self.goal, self.t = 0, goal, 0
        return self.seen()

    def seen(self):
        if self.x == 0:
            return SIGN[self.goal]
        return JUNCTION if self.x == self.length else CORRIDOR

    def step(self, action):
        self.t += 1
        truncated = self.t == self.limit
        if self.x == self.length and action in (NORTH, SOUTH):
            return CORRIDOR, 4.0 if action == self.goal else -0.1, True, truncated
        to = self.x + {EAST: 1, WEST: -1}.get(action, 0)
        bumped = to == self.x or not 0 <= to <= self.length
        self.x = self.x if bumped else to
        return self.seen(), -0.1 if bumped else 0.0, False, truncated


@pytest.mark.parametrize(("length", "limit"), [(1, 10), (1, 1), (2, 3), (3, 0), (5, 50)])
def test_every_lane_is_the_slow_maze(length, limit):
    env = envs.make("TMaze-v0", 4, 0, length=length, max_episode_steps=limit)
    slow, rng = [SlowMaze(length, limit) for _ in range(4)], np.random.default_rng(1)
    obs, _ = env.reset()
    assert obs.dtype == np.float32
    assert obs.tolist() == [maze.begin(goal) for maze, goal in zip(slow, env.goal, strict=True)]
    done = np.zeros(4, bool)
    for _ in range(1000):
        actions = rng.choice(4, size=4, p=[0.2, 0.4, 0.2, 0.2])
        obs, reward, terminated, truncated, _ = env.step(actions)
        for i, maze in enumerate(slow):
            seen, value, *flags = (
                (maze.begin(env.goal[i]), 0.0, False, False) if done[i] else maze.step(actions[i])
            )
            got = obs[i].tolist(), reward[i], [terminated[i], truncated[i]]
            assert got == (seen, value, flags)
        done = terminated | truncated


@pytest.mark.parametrize("length", [1, 2, 10, 70])
def test_the_best_return_is_4_after_length_moves_and_a_turn(length):
    """By an agent that sees observations alone, and remembers the sign."""
    env = envs.make("TMaze-v0", 50, 3, length=length)
    obs, _ = env.reset()
    north = (obs == SIGN[NORTH]).all(axis=1)
    total = np.zeros(50)
    for step in range(1, length + 2):
        at_junction = (obs == JUNCTION).all(axis=1)
        turn = np.where(north, NORTH, SOUTH)
        obs, reward, terminated, truncated, _ = env.step(np.where(at_junction, turn, EAST))
        total += reward
        assert (terminated == (step == length + 1)).all()
    assert (total == 4.0).all()
    assert not truncated.any()
    assert 0 < north.sum() < 50


def test_goals_are_even():
    """2,000 episodes a lane-block: within 5 standard errors of a half."""
    env = envs.make("TMaze-v0", 2000, 5)
    env.reset()
    assert abs((env.goal == NORTH).mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)


def test_the_time_limit_is_ten_corridors_unless_told():
    assert envs.time_limit("TMaze-v0") == 100
    assert envs.time_limit("TMaze-v0", length=3) == 30
    assert envs.time_limit("TMaze-v0", length=3, max_episode_steps=0) == 0
    env = put(envs.make("TMaze-v0", 1, 0, length=3), NORTH)
    ends = [bool(env.step(np.array([WEST]))[3][0]) for _ in range(62)]
    assert [t + 1 for t, end in enumerate(ends) if end] == [30, 61]  # step 31 resets


def test_a_state_goes_on_behind_an_end():
    env, rng = envs.make("TMaze-v0", 5, 0, length=1), np.random.default_rng(0)
    assert isinstance(env, Resumable)
    env.reset()
    done = np.zeros(5, bool)
    while not done.any() or done.all():
        _, _, terminated, truncated, _ = env.step(rng.integers(4, size=5))
        done = terminated | truncated
    state, fresh = env.get_state(), envs.make("TMaze-v0", 5, 1, length=1)
    fresh.set_state(state)
    for _ in range(200):
        actions = rng.integers(4, size=5)
        assert all(map(np.array_equal, env.step(actions)[:4], fresh.step(actions)[:4]))
    assert not np.array_equal(state["elapsed"], env.elapsed)


def test_the_maze_passes_the_checker():
    assert envs.backends("TMaze-v0") == ["batched"]
    found = check_id("TMaze-v0")
    assert not [str(finding) for finding in found if finding.fault or finding.probe == "aliasing"]
    assert isinstance(envs.make("TMaze-v0", 1, 0), TMaze)
    with pytest.raises(UnsupportedEnv, match="no renderer"):
        envs.scalar("TMaze-v0")


@needs_popgym
@pytest.mark.parametrize(
    ("env_id", "states", "actions"),
    [
        ("popgym-RepeatPreviousEasy-v0", 4, 4),
        ("popgym-HigherLowerEasy-v0", 13, 2),
        ("popgym-VelocityOnlyCartpoleHard-v0", 0, 2),
        ("popgym-PositionOnlyPendulumMedium-v0", 0, 0),
    ],
)
def test_popgym_passes_the_checker(env_id, states, actions):
    assert envs.backends(env_id) == ["sync", "async"]
    spec = spec_of(envs.make(env_id, 1, 0))
    assert (spec.num_states, spec.num_actions) == (states, actions)
    found = check_id(env_id, steps=250)
    assert not [str(f) for f in found if f.fault or f.probe in ("state", "aliasing")]


@needs_popgym
def test_options_of_popgym():
    env = envs.make("popgym-RepeatPreviousEasy-v0", 1, 0, k=1, max_episode_steps=5)
    obs, _ = env.reset()
    for _ in range(5):  # k = 1 asks for the card that is shown
        obs, reward, terminated, truncated, _ = env.step(obs)
        assert reward[0] > 0
    assert truncated[0]
    assert not terminated[0]
    assert envs.time_limit("popgym-RepeatPreviousEasy-v0", max_episode_steps=5) == 5


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("TMaze-v0", {"lenght": 3}, "TMaze-v0 has no option 'lenght'; did you mean 'length'?"),
        ("TMaze-v0", {"length": 0},
         "TMaze-v0: option length: got 0, takes a whole number of at least 1"),
        ("TMaze-v0", {"backend": "sync"}, "TMaze-v0 has no backend 'sync'; it has batched"),
        pytest.param(
            "popgym-RepeatPrevousEasy-v0", {},
            "there is no environment 'popgym-RepeatPrevousEasy-v0'; "
            "did you mean 'popgym-RepeatPreviousEasy-v0'?", marks=needs_popgym,
        ),
        pytest.param(
            "popgym-RepeatPreviousEasy-v0", {"K": 3},
            "popgym-RepeatPreviousEasy-v0 has no option 'K'; did you mean 'k'?", marks=needs_popgym,
        ),
        pytest.param(  # its class takes anything and ignores it
            "popgym-PositionOnlyCartPoleHard-v0", {"noise": 3},
            "popgym-PositionOnlyCartPoleHard-v0 has no option 'noise'; "
            "its options are max_episode_steps", marks=needs_popgym,
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(env_id, options, message):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 2, 0, **options)
    assert str(error.value) == message


def test_popgym_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "popgym", None)
    with pytest.raises(UnsupportedEnv, match=r"popgym-X-v0 needs popgym .* -e '.\[memory\]'"):
        envs.make("popgym-X-v0", 1, 0)
