"""What holds for every family of simulators and each of its backends: edges, faults, and the end."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from gymnasium import spaces
from scipy.stats import ks_2samp

import envs
from envs.contract import UnsupportedEnv
from envs.trace import draws, record

LANES = 3
IDS = [
    "FrozenLake-v1",
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "ALE/Pong-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "MinAtar/Breakout",
    "pgx/connect_four",
    "gymnax/CartPole-v1",
    "MiniGrid-Empty-5x5-v0",
    "BabyAI-GoToRedBall-v0",
    "TMaze-v0",
    "popgym-RepeatPreviousEasy-v0",
    "dm_control/cartpole-swingup-v0",
    "LunarLander-v3",
]
# A process a lane is tested in test_lanes.py; its lanes are those of sync.
CASES = [
    (env_id, backend) for env_id in IDS for backend in envs.backends(env_id) if backend != "async"
]
each = pytest.mark.parametrize(("env_id", "backend"), CASES)


def test_every_family_is_here():
    assert {envs.family(env_id) for env_id in IDS} == {*envs.SIMULATORS.values(), "native"}


def made(env_id, backend, seed=0, **options):
    return closing(envs.make(env_id, LANES, seed, backend, **options))


def random_actions(env, infos):
    """Legal ones."""
    env.action_space.seed(1)
    action = env.action_space.sample()
    mask = infos.get("action_mask")
    return action if mask is None else mask.argmax(axis=1)


@each
def test_episodes_of_one_step(env_id, backend):
    with made(env_id, backend, max_episode_steps=1) as env:
        _, infos = env.reset()
        for _ in range(3):  # all lanes end together, and begin together
            _, _, terminated, truncated, infos = env.step(random_actions(env, infos))
            assert (terminated | truncated).all()
            obs, reward, terminated, truncated, infos = env.step(random_actions(env, infos))
            assert not (terminated | truncated).any()
            assert (reward == 0).all()
            assert obs.shape == (LANES, *env.single_observation_space.shape)


# Within so many random steps one of three lanes terminates; the others have no end but time, or none
# that is met by chance.
ENDS = {
    "FrozenLake-v1": 100, "CartPole-v1": 200, "HalfCheetah-v5": 0, "Hopper-v5": 200,
    "MinAtar/Breakout": 200, "pgx/connect_four": 200, "gymnax/CartPole-v1": 200,
    "popgym-RepeatPreviousEasy-v0": 100, "LunarLander-v3": 200, "BabyAI-GoToRedBall-v0": 0,
}  # fmt: skip


@pytest.mark.parametrize(("env_id", "backend"), [case for case in CASES if ENDS.get(case[0])])
def test_terminated_at_the_time_limit(env_id, backend):
    """An episode that terminates in the step of its time limit has terminated, whatever else."""
    with made(env_id, backend, max_episode_steps=0) as env:
        uniform = draws(env, ENDS[env_id], 0)
        free = record(env, uniform)
    t, lane = np.argwhere(free.terminated)[0]
    with made(env_id, backend, max_episode_steps=int(t) + 1) as env:
        bound = record(env, uniform)
    assert (bound.obs[: t + 2] == free.obs[: t + 2]).all()  # the same final observation too
    assert (bound.reward[: t + 1] == free.reward[: t + 1]).all()
    assert (bound.terminated | bound.truncated)[t].all()
    if backend == "envpool":  # tells of one reason alone, and takes the other
        assert bound.truncated[t, lane]
    else:
        assert (bound.terminated[t] == free.terminated[t]).all()
    assert bound.reward[t + 1, lane] == 0  # the reset


@each
def test_wrong_actions_are_refused_before_the_engine(env_id, backend):
    with made(env_id, backend) as env, made(env_id, backend) as other:
        _, infos = env.reset()
        other.reset()
        right = random_actions(env, infos)
        for wrong, error, words in wrong_actions(env, right):
            with pytest.raises(error, match=words):
                env.step(wrong)
        one, two = env.step(right), other.step(right)  # nothing has happened to it
        assert all(np.array_equal(a, b) for a, b in zip(one[:4], two[:4], strict=True))


def wrong_actions(env, right):
    yield right[:-1], ValueError, "shape"
    yield right[:, None], ValueError, "shape"
    yield right.astype(str), TypeError, "<U"
    yield np.full(right.shape, None), TypeError, "object"
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        yield right.astype(np.float64), TypeError, "not integers"
        for number in (-1, space.n):
            wrong = right.copy()
            wrong[1] = number
            yield wrong, ValueError, f"lane 1: action {number} is not in 0..{space.n - 1}"
        return
    numbers = [np.nan, np.inf]
    if np.isfinite(space.high).all():
        numbers.append(float(space.high.ravel()[0]) + 1)
    for number in numbers:
        wrong = right.copy()
        wrong[2, -1] = number
        yield wrong, ValueError, "lane 2: action"


@each
def test_the_end_of_an_environment(env_id, backend):
    env = envs.make(env_id, LANES, 0, backend)
    _, infos = env.reset()
    right = random_actions(env, infos)
    env.close()
    env.close()
    for use in (env.reset, lambda: env.step(right)):
        with pytest.raises(RuntimeError, match="the environment is closed; make another"):
            use()


@each
def test_a_step_comes_after_a_reset(env_id, backend):
    with made(env_id, backend) as env:
        actions = env.action_space.sample()
        with pytest.raises(RuntimeError, match="call reset before step"):
            env.step(actions)


@each
def test_a_seed_a_lane(env_id, backend):
    with made(env_id, backend) as env:
        if not getattr(env, "separate_lanes", False):
            with pytest.raises(ValueError, match="one integer as its seed"):
                env.reset(seed=[1, 2, 3])
            return
        env.reset(seed=[1, 2, 3])
        with pytest.raises(ValueError, match="2 seeds for 3 lanes"):
            env.reset(seed=[1, 2])


UNKNOWN = [
    ("ALE/Pnog-v5", "'ALE/Pong-v5'"),
    ("HalfChetah-v5", "'HalfCheetah-v5'"),
    ("MinAtar/Breakot", "'MinAtar/Breakout'"),
    ("pgx/conect_four", "'pgx/connect_four'"),
    ("gymnax/CartPol-v1", "'gymnax/CartPole-v1'"),
    ("MiniGrid-Empty-5x5", "'MiniGrid-Empty-5x5-v0'"),
    ("popgym-RepeatPreviosEasy-v0", "'popgym-RepeatPreviousEasy-v0'"),
    ("TMaz-v0", "'TMaze-v0'"),
    ("dm_control/cartpole-swingp-v0", "'dm_control/cartpole-swingup-v0'"),
    ("LunarLandr-v3", "'LunarLander-v3'"),
]


@pytest.mark.parametrize(("env_id", "nearest"), UNKNOWN)
def test_an_unknown_id_has_its_nearest(env_id, nearest):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0)
    assert f"no environment '{env_id}'; did you mean {nearest}" in str(error.value)


@each
def test_an_unknown_option_is_one_line(env_id, backend):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0, backend, no_such_option=1)
    assert f"{env_id} has no option 'no_such_option'" in str(error.value)
    assert "\n" not in str(error.value)


def episodes(env_id, backend, steps):
    """Returns and lengths of the episodes of random play."""
    with closing(envs.make(env_id, 8, 0, backend)) as env:
        trace = record(env, draws(env, steps, 0))
    found = []
    for lane in range(8):
        begin = 0
        for end in np.flatnonzero(trace.done[:, lane]):
            found.append((trace.reward[begin : end + 1, lane].sum(), end + 1 - begin))
            begin = end + 2  # behind the row that resets
    return np.array(found).T


@pytest.mark.parametrize(
    ("env_id", "steps"), [("FrozenLake-v1", 1000), ("CartPole-v1", 1000), ("Hopper-v5", 800)]
)
def test_random_play_is_alike_in_all_backends(env_id, steps):
    """Where generators differ, or are shared between lanes, the distributions are the same."""
    first, *others = [name for name in envs.backends(env_id) if name != "async"]
    ours = episodes(env_id, first, steps)
    assert ours.shape[1] > 200
    for backend in others:
        for mine, theirs in zip(ours, episodes(env_id, backend, steps), strict=True):
            assert ks_2samp(mine, theirs).pvalue > 1e-3, backend


def test_other_games_are_told_apart():
    """What the test above would see: a reward of 2, or ends that come three steps late."""
    returns, lengths = episodes("CartPole-v1", "native", 1000)
    assert ks_2samp(returns, 2 * returns).pvalue < 1e-3
    assert ks_2samp(lengths, lengths + 3).pvalue < 1e-3
