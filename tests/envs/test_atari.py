"""Atari: the list of emulators is ALE's vector class to the bit, and goes on exactly from its state."""

import os

import gymnasium
import numpy as np
import pytest

import envs
from envs import atari_engines
from envs.contract import Resumable
from tests.envs.atari_play import BREAKOUT, ENVPOOL, GAMES, QBERT, actions_for, ale_py, played

FIRST = {"repeat_action_probability": 0.0, "noop_max": 0}  # nothing is drawn


def first_difference(one, two):
    for t, (a, b) in enumerate(zip(one, two, strict=True)):
        for name, x, y in zip(("obs", "reward", "term", "trunc", "life_loss"), a, b, strict=True):
            if x.dtype != y.dtype or not np.array_equal(x, y):
                return t, name
    return None


def compare(env_id, steps, lanes=2, **options):
    """The two backends side by side; how many steps ended an episode, were truncated, took a life."""
    ale, own = (envs.make(env_id, lanes, 7, backend, **options) for backend in ("ale", "list"))
    assert np.array_equal(ale.reset()[0], own.reset()[0])
    actions = actions_for(ale, steps)
    theirs = played(ale, actions)
    assert first_difference(theirs, played(own, actions)) is None
    ale.close()
    return [int(sum(step[k].sum() for step in theirs)) for k in (2, 3, 4)]


# -- The two generators of C++ -------------------------------------------------------------------


def twister(seed):
    generator = np.random.MT19937()
    key = atari_engines.twister_key(seed)
    generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    return generator


def test_the_twister_gives_the_number_that_the_cpp_standard_names():
    assert int(twister(5489).random_raw(10_000)[-1]) == 4123659995


class Given:
    """A generator of given numbers."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random_raw(self):
        return self.draws.pop(0)


@pytest.mark.parametrize(
    ("draws", "bound", "expected"),
    [
        ([2**31 + 1], 30, 15),
        ([2**32 - 1], 30, 29),
        ([0, 2**31, 2**31 + 1], 30, 15),  # 2**32 % 30 products of each number are too many
        ([0], 32, 0),  # 2**32 is a multiple of 32: none is too many
        ([123], 1, 0),
    ],
)
def test_drawing_below_a_bound(draws, bound, expected):
    generator = Given(*draws)
    assert atari_engines.below(generator, bound) == expected
    assert not generator.draws


# -- The list is ALE's vector class --------------------------------------------------------------


@pytest.mark.parametrize("env_id", [BREAKOUT, QBERT])
def test_equal_to_the_bit_with_the_standard_protocol(env_id):
    ends, truncated, lives = compare(env_id, 1000)
    assert ends > 2
    assert truncated == 0
    assert lives > 10


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        (BREAKOUT, {"use_fire_reset": True, "max_episode_steps": 37}),
        (BREAKOUT, {"grayscale": False, "img_height": 105, "img_width": 80}),
        ("ALE/SpaceInvaders-v5", {"full_action_space": True, "repeat_action_probability": 0.9}),
        ("ALE/Berzerk-v5", {"maxpool": False, "frameskip": 3, "max_episode_steps": 60}),
        ("ALE/DoubleDunk-v5", {"max_episode_steps": 60}),  # the menu of its reset sticks
        ("ALE/Adventure-v5", {"max_episode_steps": 60, "noop_max": 3}),  # 250 lines
        (BREAKOUT, {"frameskip": 1, "noop_max": 0, "img_height": 210, "img_width": 160}),
    ],
)
def test_equal_to_the_bit_with_other_options(env_id, options):
    compare(env_id, 150, lanes=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", GAMES)
def test_equal_to_the_bit_in_every_game(env_id):
    compare(env_id, 1000)
    assert compare(env_id, 300, max_episode_steps=61, repeat_action_probability=0.5)[1] > 2


@pytest.mark.parametrize("settings", [{}, {"max_episode_steps": 37}])
def test_ale_gives_what_its_own_loop_gives(settings):
    """Frames, rewards and ends of AtariVectorEnv, up to the first step at the limit."""
    own = envs.make(BREAKOUT, 3, 0, "ale", **settings)
    theirs = ale_py.AtariVectorEnv(
        "breakout",
        3,
        stack_num=1,
        repeat_action_probability=0.25,
        reward_clipping=False,
        use_fire_reset=False,
    )
    assert np.array_equal(own.reset(seed=5)[0], theirs.reset(seed=5)[0][:, 0])
    lives, done = np.full(3, 5), np.zeros(3, bool)
    for actions in actions_for(own, 36 if settings else 500):
        obs, reward, terminated, truncated, infos = own.step(actions)
        frames, points, over, _, their_infos = theirs.step(actions)
        assert np.array_equal(obs, frames[:, 0])
        assert np.array_equal(reward, points)
        assert reward.dtype == np.float64
        assert np.array_equal(terminated, over)
        assert not truncated.any()
        lost = their_infos["lives"] < lives
        assert np.array_equal(infos["life_loss"], lost & ~done)
        assert not reward[done].any()
        lives, done = their_infos["lives"], terminated
    own.close()


def test_the_steps_of_gymnasium_with_its_preprocessing():
    pytest.importorskip("cv2")
    inner = gymnasium.make(
        BREAKOUT, frameskip=1, repeat_action_probability=0.0, disable_env_checker=True
    )
    theirs = gymnasium.wrappers.AtariPreprocessing(inner, noop_max=0)
    own = envs.make(BREAKOUT, 1, 0, "list", **FIRST)
    obs, _ = own.reset()
    frame, _ = theirs.reset(seed=0)
    ends = 0
    for row in actions_for(own, 600):
        assert np.array_equal(obs[0], frame)
        obs, reward, terminated, _, _ = own.step(row)
        frame, points, over, _, _ = theirs.step(int(row[0]))
        assert reward[0] == points
        assert terminated[0] == over
        if over:
            assert np.array_equal(obs[0], frame)
            obs, frame, ends = own.step(row)[0], theirs.reset()[0], ends + 1
    assert ends


def test_no_bit_depends_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert [atari_engines.threads(lanes) for lanes in (1, 3, 200)] == [1, 3, 64]
    runs = []
    for threads in (1, 4):
        monkeypatch.setattr(atari_engines, "threads", lambda _, threads=threads: threads)
        env = envs.make(BREAKOUT, 4, 3, "ale", max_episode_steps=50)
        env.reset()
        runs.append(played(env, actions_for(env, 200)))
        env.close()
    assert first_difference(*runs) is None


# -- Resuming ------------------------------------------------------------------------------------


def resume(env_id, before, steps=100, **options):
    """Whether a fresh environment goes on as the one whose state it was given, and that one too."""
    one, fresh = (envs.make(env_id, 2, seed, "list", **options) for seed in (7, 99))
    one.reset()
    actions = actions_for(one, before + steps)
    done = False
    if before:
        done = np.logical_or(*played(one, actions[:before])[-1][2:4]).any()
    state = one.get_state()
    goes_on = played(one, actions[before:])
    fresh.set_state(state)
    assert first_difference(goes_on, played(fresh, actions[before:])) is None
    one.set_state(state)
    assert first_difference(goes_on, played(one, actions[before:])) is None
    return done


@pytest.mark.parametrize("env_id", [BREAKOUT, QBERT, "ALE/Tetris-v5", "ALE/Berzerk-v5"])
@pytest.mark.parametrize(
    ("before", "done"),
    [(33, False), (50, True), (51, False), (0, False)],
    ids=["mid-episode", "behind an end", "behind a reset", "at the start"],
)
def test_the_list_resumes_exactly(env_id, before, done):
    assert resume(env_id, before, 60, max_episode_steps=50, noop_max=0) == done


def test_the_list_resumes_exactly_behind_the_end_of_a_game():
    env = envs.make(BREAKOUT, 2, 7, "list")
    env.reset()
    end = [step[2].any() for step in played(env, actions_for(env, 400))].index(True) + 1
    assert resume(BREAKOUT, end)


def test_an_action_that_sticks_is_resumed():
    """Almost every frame repeats the held action, which ALE does not save."""
    resume(BREAKOUT, 40, 60, repeat_action_probability=0.97)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", GAMES)
def test_every_game_that_can_be_saved_resumes_exactly(env_id):
    if isinstance(envs.make(env_id, 1, 0, "list"), Resumable):
        for before in (30, 61, 62, 150, 400):
            resume(env_id, before, 150, max_episode_steps=61, noop_max=3)


def test_what_cannot_be_saved_says_so():
    assert isinstance(envs.make(BREAKOUT, 1, 0, "list"), Resumable)
    assert not isinstance(envs.make(BREAKOUT, 1, 0, "ale"), Resumable)
    for game in ("MiniatureGolf", "Pitfall2", "DoubleDunk", "TicTacToe3D"):
        assert not isinstance(envs.make(f"ALE/{game}-v5", 1, 0, "list"), Resumable)
    with pytest.raises(RuntimeError, match="reset"):
        envs.make(BREAKOUT, 1, 0, "list").get_state()


# -- EnvPool -------------------------------------------------------------------------------------


@pytest.mark.skipif(not ENVPOOL, reason="needs envpool")
def test_envpool_plays_the_same_game():
    """Without anything random its steps are those of our emulator after the one no-op it makes."""
    pool = envs.make(BREAKOUT, 2, 0, "envpool", repeat_action_probability=0.0, noop_max=1)
    own = envs.make(BREAKOUT, 2, 0, "list", **FIRST)
    pool.reset(seed=3)
    own.reset(seed=3)
    for lane in own.engine.lanes:
        lane._frame(0)
    ends = 0
    for actions in actions_for(own, 300):
        obs, reward, terminated, truncated, infos = own.step(actions)
        frames, *theirs, their_infos = pool.step(actions)
        for mine, its in zip((reward, terminated, truncated), theirs, strict=True):
            assert np.array_equal(mine, its)
        assert np.array_equal(infos["life_loss"], their_infos["life_loss"])
        assert np.array_equal(obs[~terminated], frames[~terminated])
        ends += int(terminated.sum())
        if terminated.any():
            break  # the next reset makes its no-op again
    assert ends
    pool.close()
