"""The batched lanes against Gymnasium's scalar environments, which are their slow twins."""

import math

import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs import native
from envs.check import check_id
from envs.classic import ClassicControl
from envs.contract import Resumable, UnsupportedEnv

IDS = [env_id for env_id, module in envs.SIMULATORS.items() if module == "classic"]
CASES = [  # options, and whether episodes end at the goal and at the time limit
    ("Acrobot-v1", {}, True, False),
    ("Acrobot-v1", {"max_episode_steps": 0}, True, False),
    ("Acrobot-v1", {"max_episode_steps": 1}, False, True),
    ("MountainCar-v0", {}, True, True),
    ("MountainCar-v0", {"goal_velocity": 0.03}, True, True),
    ("MountainCar-v0", {"goal_velocity": 1.0, "max_episode_steps": 0}, False, False),
    ("MountainCar-v0", {"max_episode_steps": 160}, True, True),
    (
        "MountainCar-v0",
        {"gravity": 0.002, "force": 0.0015, "goal_position": 0.4, "max_episode_steps": 105},
        True,
        True,
    ),
    ("MountainCarContinuous-v0", {"power": 0.002, "goal_position": 0.3}, True, False),
    ("MountainCarContinuous-v0", {}, True, False),
    ("MountainCarContinuous-v0", {"power": 0.2}, True, False),  # beyond its speed in the first step
    ("MountainCarContinuous-v0", {"goal_velocity": 0.03, "max_episode_steps": 150}, True, True),
    ("Pendulum-v1", {}, False, True),
    ("Pendulum-v1", {"g": 3.7, "m": 0.7, "l": 1.3}, False, True),
    ("Pendulum-v1", {"g": 9.81, "max_episode_steps": 7}, False, True),
]
ANGLES = np.random.default_rng(0).uniform(-40, 40, 10_000)
SINES_ARE_THE_C_LIBRARYS = all(
    (ours(ANGLES) == [theirs(angle) for angle in ANGLES]).all()
    for ours, theirs in ((np.sin, math.sin), (np.cos, math.cos))
)


def actions(env, obs, rng):
    """Pushes along the motion, which reaches every goal, and a third of them at random."""
    space, lanes = env.single_action_space, env.num_envs
    along = np.sign(obs[:, 1] if obs.shape[1] == 2 else obs[:, -1])
    random = rng.random(lanes) < 1 / 3
    if isinstance(space, spaces.Discrete):
        return np.where(random, rng.integers(space.n, size=lanes), along.astype(int) + 1)
    uniform = rng.uniform(space.low, space.high, (lanes, 1))
    pushes = np.where(random[:, None], uniform, along[:, None] * space.high)
    return pushes.astype(space.dtype)


@pytest.mark.parametrize(("env_id", "options", "goals", "limits"), CASES)
def test_every_lane_is_gymnasium_bit_for_bit(env_id, options, goals, limits):
    """2,500 steps of 4 lanes with resets, time limits and reached goals, every number equal."""
    if env_id in ("Acrobot-v1", "Pendulum-v1") and not SINES_ARE_THE_C_LIBRARYS:
        pytest.skip("numpy's sines are not the C library's here")
    env, twin = (envs.make(env_id, 4, 7, backend, **options) for backend in ("auto", "sync"))
    assert isinstance(env, ClassicControl)
    rng = np.random.default_rng(1)
    obs, other = env.reset()[0], twin.reset()[0]
    assert obs.dtype == other.dtype == np.float32
    assert (obs == other).all()
    ends = np.zeros(2, int)
    for t in range(2500):
        chosen = actions(env, obs, rng)
        obs, *rest, _ = env.step(chosen)
        expected = twin.step(chosen)[:4]
        for ours, theirs in zip((obs, *rest), expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs), f"step {t + 1}"
        ends += rest[1].sum(), rest[2].sum()
    assert tuple(ends > 3) == (goals, limits)
    # later bare resets go on with the same streams
    assert (env.reset()[0] == twin.reset()[0]).all()
    assert (env.reset(seed=[5, 1, 9, 3])[0] == twin.reset(seed=[5, 1, 9, 3])[0]).all()


@pytest.mark.parametrize("env_id", IDS)
def test_a_step_from_any_state_is_gymnasiums_within_rounding(env_id):
    """Each lane's state is put into a scalar environment before each step, whatever sines it takes."""
    env, rng = envs.make(env_id, 5, 3), np.random.default_rng(2)
    obs, _ = env.reset()
    scalar = native.scalar(env_id, {"max_episode_steps": 0})
    scalar.reset(seed=0)
    done, worst = np.zeros(5, bool), 0.0
    for _ in range(400):
        before = [row.copy() for row in env.state]
        if env_id == "MountainCarContinuous-v0":  # float32 except after a reset
            before = [
                row.astype(np.float32) if env.elapsed[i] else row for i, row in enumerate(before)
            ]
        chosen = actions(env, obs, rng)
        obs, reward, terminated, truncated, _ = env.step(chosen)
        for i in np.flatnonzero(~done):
            scalar.unwrapped.state = before[i]
            _, expected, ended, _, _ = scalar.step(chosen[i])
            off = np.abs(np.asarray(scalar.unwrapped.state, np.float64) - env.state[i]).max()
            worst = max(worst, off, abs(expected - reward[i]))
            assert ended == terminated[i]
        done = terminated | truncated
    assert worst < 1e-12


def test_a_mountain_car_by_hand():
    """At rest at -0.5, push right: v = 0.001 - 0.0025 cos(-1.5) = 0.001 - 0.0025 * 0.0707372."""
    env = envs.make("MountainCar-v0", 2, 0)
    env.reset()
    env.state[:] = [[-0.5, 0.0], [-1.19, -0.06]]
    obs, reward, terminated, truncated, infos = env.step(np.array([2, 0]))
    assert obs[0] == pytest.approx([-0.5 + 0.000823157, 0.000823157], abs=1e-8)
    assert obs[1] == pytest.approx([-1.2, 0.0])  # the wall takes the speed
    assert reward.tolist() == [-1.0, -1.0]
    assert not (terminated | truncated).any()
    assert infos == {}


def test_a_pendulum_by_hand():
    """Hanging still (theta = pi) costs pi^2; torque 2 for 0.05 s gives it speed 3 * 2 * 0.05."""
    env = envs.make("Pendulum-v1", 1, 0)
    env.reset()
    env.state[0] = np.pi, 0.0
    obs, reward, *_ = env.step(np.array([[2.0]], np.float32))
    assert reward[0] == pytest.approx(-(np.pi**2 + 0.001 * 4), abs=1e-9)
    assert obs[0, 2] == pytest.approx(0.3)
    assert env.state[0, 0] == pytest.approx(np.pi + 0.3 * 0.05)


@pytest.mark.parametrize("env_id", IDS)
def test_state_goes_on_behind_an_end_in_a_fresh_environment(env_id):
    env, rng = envs.make(env_id, 3, 0, max_episode_steps=120), np.random.default_rng(0)
    assert isinstance(env, Resumable)
    obs, _ = env.reset()
    for step in range(1000):
        obs, _, terminated, truncated, _ = env.step(actions(env, obs, rng))
        if step > 130 and (terminated | truncated).any():
            break
    assert (terminated | truncated).any()
    state, fresh = env.get_state(), envs.make(env_id, 3, 9, max_episode_steps=120)
    fresh.set_state(state)
    for _ in range(260):
        chosen = actions(env, obs, rng)
        obs, *rest, _ = env.step(chosen)
        again = fresh.step(chosen)
        assert all(map(np.array_equal, (obs, *rest), again[:4]))
    assert not np.array_equal(state["state"], env.state)  # a copy


def test_there_is_no_state_before_a_reset():
    with pytest.raises(RuntimeError, match="reset"):
        envs.make("Acrobot-v1", 1, 0).get_state()


@pytest.mark.parametrize("env_id", ["MountainCarContinuous-v0", "Pendulum-v1"])
def test_actions_are_taken_in_the_dtype_of_their_space(env_id):
    one, two = envs.make(env_id, 2, 0), envs.make(env_id, 2, 0)
    for env in (one, two):
        env.reset()
    fine = np.array([[0.1], [-0.7]])
    for _ in range(50):
        rows = one.step(fine)[:4], two.step(fine.astype(np.float32))[:4]
        assert all(map(np.array_equal, *rows))


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("Pendulum-v1", {"G": 1}, "Pendulum-v1 has no option 'G'; did you mean 'g'?"),
        ("Acrobot-v1", {"g": 1.0},
         "Acrobot-v1 has no option 'g'; its options are max_episode_steps"),
        ("MountainCar-v0", {"goal_velocty": 0.1},
         "MountainCar-v0 has no option 'goal_velocty'; did you mean 'goal_velocity'?"),
        ("MountainCar-v0", {"goal_velocity": "fast"},
         "MountainCar-v0: option goal_velocity: got 'fast', takes a number"),
        ("Pendulum-v1", {"g": float("nan")}, "Pendulum-v1: option g: got nan, takes a number"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(env_id, options, message):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 2, 0, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("env_id", IDS)
def test_the_checker_finds_nothing(env_id):
    assert envs.backends(env_id) == ["batched", "sync", "async"]
    found = check_id(env_id, steps=600)
    assert not [str(finding) for finding in found if finding.fault or finding.probe == "aliasing"]
