"""Atari: ids and options, and what every backend keeps of the contract."""

import importlib

import gymnasium
import numpy as np
import pytest

import envs
from envs import atari, check
from envs.contract import UnsupportedEnv
from tests.envs.atari_play import (
    BACKENDS,
    BREAKOUT,
    ENVPOOL,
    GAMES,
    QBERT,
    actions_for,
    ale_py,
    played,
)

# -- Ids and options -----------------------------------------------------------------------------


def test_every_game_of_the_wheel_has_the_backends():
    two_players = {"combat", "joust", "maze_craze", "warlords"}
    games = set(ale_py.roms.get_all_rom_ids()) - two_players
    assert len(GAMES) == len(games) >= 104
    for env_id in GAMES:
        assert envs.backends(env_id) == ["ale", "list", "envpool"]
        game, rom = atari.rom_of(env_id)
        assert game in games
        assert rom.exists()
    assert envs.resolve_backend(BREAKOUT) == "ale"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("ALE/Brekout-v5", BREAKOUT), ("ALE/spaceinvaders-v5", "ALE/SpaceInvaders-v5")],
)
def test_an_unknown_game_is_refused_with_the_nearest(wrong, right):
    with pytest.raises(UnsupportedEnv, match=f"{wrong}.*did you mean '{right}'"):
        envs.make(wrong, 1, 0)


def test_without_ale_py_the_line_that_installs_it_is_shown(monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == "ale_py":
            raise ImportError("No module named 'ale_py'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UnsupportedEnv, match=r"needs ale_py .*pip install .*\[atari\]"):
        envs.make(BREAKOUT, 1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_hight": 84}, "no option 'img_hight'; did you mean 'img_height'"),
        ({"frame_skip": 4}, "no option 'frame_skip'; did you mean 'frameskip'"),
        ({"stack_num": 4}, "no option 'stack_num'"),
        ({"img_height": 0}, "img_height: got 0, takes a whole number of at least 1"),
        ({"img_height": 211}, "img_height: got 211, takes at most 210"),
        ({"img_width": 161}, "img_width: got 161, takes at most 160"),
        ({"frameskip": 0}, "frameskip: got 0"),
        ({"frameskip": 2.0}, "frameskip: got 2.0"),
        ({"noop_max": -1}, "noop_max: got -1"),
        ({"max_episode_steps": -1}, "max_episode_steps: got -1"),
        ({"grayscale": 1}, "grayscale: got 1, takes true or false"),
        ({"repeat_action_probability": 1.5}, "got 1.5, takes a number from 0 to 1"),
        ({"repeat_action_probability": float("nan")}, "got nan, takes a number from 0 to 1"),
        ({"repeat_action_probability": True}, "got True, takes a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UnsupportedEnv, match=message):
        envs.make(BREAKOUT, 1, 0, **options)


def test_a_wrong_rom_is_refused(monkeypatch, tmp_path):
    (tmp_path / "breakout.bin").write_bytes(b"no game")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(UnsupportedEnv, match=r"no ROM: The hash of breakout\.bin does not match"):
        envs.make(BREAKOUT, 1, 0)
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UnsupportedEnv, match=r"no ROM: .*doesn't exist"):
        envs.make(BREAKOUT, 1, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_spaces(backend):
    grey = envs.make(BREAKOUT, 2, 0, backend)
    assert grey.single_observation_space == gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    assert grey.single_action_space == gymnasium.spaces.Discrete(4)
    options = {"grayscale": False, "full_action_space": True, "img_height": 60, "img_width": 70}
    coloured = envs.make(BREAKOUT, 2, 0, backend, **options)
    assert coloured.single_observation_space.shape == (60, 70, 3)
    assert coloured.single_action_space.n == 18
    obs, _ = coloured.reset()
    assert obs.shape == (2, 60, 70, 3)
    assert obs.flags.c_contiguous
    assert (obs[..., 0] != obs[..., 2]).any()
    for env in (grey, coloured):
        env.close()


def test_the_time_limit_is_in_agent_steps():
    assert envs.time_limit(BREAKOUT) == 27_000
    assert envs.time_limit(BREAKOUT, max_episode_steps=5) == 5


@pytest.mark.skipif(not ENVPOOL, reason="needs envpool")
@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("ALE/Adventure-v5", {}, "cuts its screen off at 210 lines"),
        (BREAKOUT, {"maxpool": False}, "no option maxpool=False; use backend='ale'"),
        (BREAKOUT, {"noop_max": 0}, "at least one no-op"),
    ],
)
def test_what_envpool_cannot_do(env_id, options, message):
    with pytest.raises(UnsupportedEnv, match=message):
        envs.make(env_id, 1, 0, "envpool", **options)


# -- The contract --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_checker_finds_no_fault(backend):
    def factory(num_envs, seed):
        return envs.make(QBERT, num_envs, seed, backend, max_episode_steps=30)

    findings = check.check(factory, lanes=2, steps=80, time_limit=30)
    assert not [finding for finding in findings if finding.fault]
    assert not [finding for finding in findings if finding.probe == "aliasing"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_last_observation_at_the_limit_is_the_true_one(backend):
    """It is what the same step shows where there is no limit."""
    short, long = (envs.make(BREAKOUT, 3, 2, backend, max_episode_steps=n) for n in (20, 0))
    for env in (short, long):
        env.reset()
    actions = actions_for(short, 20)
    assert not any(step[3].any() for step in played(short, actions[:19]))
    obs, _, terminated, truncated, _ = short.step(actions[19])
    assert truncated.all()
    assert not terminated.any()
    assert np.array_equal(obs, played(long, actions)[-1][0])
    for env in (short, long):
        env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_life_loss_is_a_fact_of_the_step(backend):
    env = envs.make(BREAKOUT, 2, 1, backend)
    _, infos = env.reset()
    assert infos.keys() == {"life_loss"}
    assert infos["life_loss"].dtype == bool
    assert not infos["life_loss"].any()
    lost, done = np.zeros(2, int), np.zeros(2, bool)
    for actions in actions_for(env, 500):
        _, _, terminated, truncated, infos = env.step(actions)
        assert infos.keys() == {"life_loss"}
        assert not infos["life_loss"][done].any()
        lost += infos["life_loss"]
        # an episode of Breakout has five lives, and the last one ends it
        assert np.array_equal(terminated, lost == 5)
        assert infos["life_loss"][terminated].all()
        done = terminated | truncated
        lost[done] = 0
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds(backend):
    env = envs.make(BREAKOUT, 3, 0, backend)
    actions = actions_for(env, 30)

    def run(seed):
        obs, _ = env.reset(seed=seed)
        return [obs, *(step[0] for step in played(env, actions))]

    def equal(one, two):
        return all(map(np.array_equal, one, two))

    assert equal(run(40), run([40, 41, 42]))
    assert equal(run(40)[0][1:], run(41)[0][:2])
    assert not equal(run(40), run(43))
    assert not equal(run(None), run(None))
    for seed in (-1, 2**31 - 2, [0, 1, 2**31]):
        with pytest.raises(ValueError, match=r"seed \S+ is not in 0\.\.2147483647"):
            env.reset(seed=seed)
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_actions_do_not_reach_the_engine(backend):
    env = envs.make(BREAKOUT, 2, 0, backend)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2, int))
    env.reset()

    def reached(*_):
        raise AssertionError("the engine was reached")

    play, env.engine.play = env.engine.play, reached
    for wrong in ([0, 4], [-1, 0], [0], [[0, 0]]):
        with pytest.raises(ValueError, match="action"):
            env.step(np.array(wrong))
    for wrong in ([0.0, 1.0], [True, False], ["a", "b"]):
        with pytest.raises(TypeError, match="actions are"):
            env.step(np.array(wrong))
    env.engine.play = play
    env.step([0, 3])
    env.close()
    env.close()
    for use in (lambda: env.step(np.zeros(2, int)), env.reset):
        with pytest.raises(RuntimeError, match="closed"):
            use()


# -- One lane as a Gymnasium environment ---------------------------------------------------------


def test_scalar_is_one_lane():
    options = {"max_episode_steps": 25, "grayscale": False}
    lane = envs.make(QBERT, 1, 0, "ale", **options)
    env = envs.scalar(QBERT, render_mode="rgb_array", **options)
    assert env.observation_space == lane.single_observation_space
    assert env.action_space == lane.single_action_space
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 15}
    obs, infos = env.reset(seed=4)
    assert np.array_equal(obs, lane.reset(seed=4)[0][0])
    assert infos == {"life_loss": False}
    ends, done = 0, False
    for row in actions_for(lane, 120):
        frames, reward, terminated, truncated, facts = lane.step(row)
        assert env.render().shape == (210, 160, 3)
        if done:
            obs, infos = env.reset()
        else:
            obs, *rest, infos = env.step(row[0])
            assert rest == [reward[0], terminated[0], truncated[0]]
            assert [type(value) for value in rest] == [float, bool, bool]
        done = terminated[0] or truncated[0]
        ends += int(done)
        assert np.array_equal(obs, frames[0])
        assert infos["life_loss"] == facts["life_loss"][0]
    assert ends > 2
    lane.close()


def test_scalar_refuses():
    with pytest.raises(UnsupportedEnv, match="render_mode: got 'human', takes 'rgb_array'"):
        envs.scalar(BREAKOUT, render_mode="human")
    with pytest.raises(UnsupportedEnv, match="did you mean 'frameskip'"):
        envs.scalar(BREAKOUT, frame_skip=2)
    env = envs.scalar(BREAKOUT, max_episode_steps=1)
    assert env.render() is None
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="action 4 is not in"):
        env.step(4)
    assert env.step(0)[3]
    with pytest.raises(RuntimeError, match="has ended: call reset"):
        env.step(0)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset()
