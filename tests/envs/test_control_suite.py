"""The Control Suite's lanes are the bare suite's episodes, bit for bit."""

import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

import envs
from envs import control_suite, offscreen, probes
from envs.check import check_id
from envs.contract import UnsupportedEnv, spec_of
from envs.trace import draws, record

envs.backends("dm_control/cartpole-swingup-v0")  # prepares rendering, before dm_control is imported
from dm_control import suite  # noqa: E402

IDS = [f"dm_control/{domain}-{task}-v0" for domain, task in suite.ALL_TASKS]
SOME = [
    ("cartpole", "swingup"),
    ("cheetah", "run"),
    ("finger", "turn_hard"),
    ("manipulator", "bring_ball"),
    ("reacher", "easy"),
]


def flat(observation):
    return np.concatenate([np.ravel(value) for value in observation.values()])


def drawn_seed(seed):
    """What the first reset with ``seed`` gives to the task's RandomState."""
    return int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).integers(2**32))


@pytest.mark.parametrize(("domain", "task"), SOME)
def test_an_episode_is_the_bare_suites_bit_for_bit(domain, task):
    ours = envs.scalar(f"dm_control/{domain}-{task}-v0")
    bare = suite.load(domain, task, {"random": np.random.RandomState(drawn_seed(3))})
    rng = np.random.default_rng(0)
    low, high = bare.action_spec().minimum, bare.action_spec().maximum
    obs, _ = ours.reset(seed=3)
    step = bare.reset()
    assert (obs == flat(step.observation)).all()
    for t in range(1, 1001):
        action = rng.uniform(low, high)
        obs, reward, terminated, truncated, _ = ours.step(action)
        step = bare.step(action)
        assert (obs == flat(step.observation)).all()
        assert reward == step.reward
        assert (terminated, truncated) == (False, t == 1000)
        assert step.last() == (t == 1000)
    assert step.discount == 1


def roll(env, seed, steps):
    rng = np.random.default_rng(seed)
    rows = [env.reset(seed=seed)[0]]
    low, high = np.maximum(env.action_space.low, -1), np.minimum(env.action_space.high, 1)
    for _ in range(steps):
        rows += list(env.step(rng.uniform(low, high))[:2])
    return rows


def check_nothing_is_left(env_id):
    one, fresh = envs.scalar(env_id), envs.scalar(env_id)
    roll(one, 7, 40)
    one.reset()
    again, first, other = roll(one, 5, 30), roll(fresh, 5, 30), roll(fresh, 6, 30)
    assert all(np.array_equal(a, b) for a, b in zip(again, first, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("env_id", ["dm_control/finger-turn_easy-v0", "dm_control/lqr-lqr_2_1-v0"])
def test_nothing_is_left_of_earlier_episodes(env_id):
    check_nothing_is_left(env_id)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_nothing_is_left_of_earlier_episodes_in_any_task(env_id):
    check_nothing_is_left(env_id)
    limit = 0 if "lqr" in env_id else 1000
    assert envs.time_limit(env_id) == limit


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_any_task_goes_on_from_its_state(env_id):
    """Within an episode and right behind its end; the fresh environment has seen others."""
    with (
        closing(envs.make(env_id, 1, 0, max_episode_steps=25)) as env,
        closing(envs.make(env_id, 1, 1, max_episode_steps=25)) as fresh,
    ):
        uniform = draws(env, 60, 0)
        low, high = (np.clip(x, -1, 1) for x in (env.action_space.low, env.action_space.high))
        actions = (low + uniform * (high - low)).astype(env.action_space.dtype)
        env.reset()
        fresh.reset()
        fresh.step(actions[0])
        t = 0
        for stop in (15, 25):  # at 25 the episode has ended
            while t < stop:
                env.step(actions[t])
                t += 1
            fresh.set_state(env.get_state())
            for t in range(stop, stop + 5):
                ours, theirs = env.step(actions[t]), fresh.step(actions[t])
                assert all(np.array_equal(a, b) for a, b in zip(ours[:4], theirs[:4], strict=True))
            t += 1


def test_the_contract_is_kept():
    env_id = "dm_control/cartpole-swingup-v0"
    assert [str(f) for f in check_id(env_id, lanes=2, steps=20) if f.fault] == []


def test_a_process_a_lane_does_what_sync_does():
    one, two = (
        envs.make("dm_control/reacher-easy-v0", 2, 0, backend, max_episode_steps=12)
        for backend in ("sync", "async")
    )
    uniform = draws(one, 30, 0)
    with closing(two):
        trace = record(one, uniform)
        assert probes.difference(trace, record(two, uniform)) is None
    assert trace.truncated[11].all()
    assert trace.truncated.sum() == 4


@pytest.mark.parametrize(("limit", "expected"), [(7, 7), (0, None), (1200, 1200), (None, 1000)])
def test_limits(limit, expected):
    options = {} if limit is None else {"max_episode_steps": limit}
    assert envs.time_limit("dm_control/point_mass-easy-v0", **options) == (expected or 0)
    env = envs.make("dm_control/point_mass-easy-v0", 1, 0, **options)
    env.reset()
    action = np.zeros((1, 2))
    first = next((t for t in range(1, 1202) if env.step(action)[3][0]), None)
    assert first == expected


def test_rest_terminates_lqr_and_time_does_not():
    env = envs.scalar("dm_control/lqr-lqr_2_1-v0")
    assert envs.time_limit("dm_control/lqr-lqr_2_1-v0") == 0
    env.reset(seed=0)
    with env.unwrapped._suite_env.physics.reset_context():
        env.unwrapped._suite_env.physics.data.qpos[:] = 0
    *_, terminated, truncated, _ = env.step(np.zeros(1))
    assert (terminated, truncated) == (True, False)


def test_lanes_of_lqr_have_the_same_springs():
    one, two = (envs.scalar("dm_control/lqr-lqr_6_2-v0").unwrapped._suite_env for _ in range(2))
    stiffness = one.physics.model.jnt_stiffness
    assert (stiffness == two.physics.model.jnt_stiffness).all()
    assert np.ptp(stiffness) > 0


def test_spaces_are_the_tasks():
    spec = spec_of(envs.make("dm_control/quadruped-walk-v0", 1, 0))
    assert (spec.obs_shape, spec.obs_dtype) == ((78,), np.float32)  # as rollouts keep it
    assert spec.action_dtype == np.float64
    assert spec.action_low.reshape(4, 3).tolist() == [[-1, -1, -0.8]] * 4
    assert spec.action_high.reshape(4, 3).tolist() == [[1, 1.1, 0.8]] * 4


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("dm_control/cheetah-rum-v0", {}, "did you mean 'dm_control/cheetah-run-v0'"),
        ("dm_control/cheetah-run-v0", {"widht": 9}, "did you mean 'width'"),
        ("dm_control/cheetah-run-v0", {"backend": "native"}, "it has sync, async"),
    ],
)
def test_bad_input_is_one_line(env_id, options, message):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_has_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(UnsupportedEnv, match=r"needs dm_control.*'\.\[control\]'"):
        envs.make("dm_control/cheetah-run-v0", 1, 0)


# -- Rendering -----------------------------------------------------------------------------------


def test_a_frame_shows_the_model_and_moves_with_it():
    env = envs.scalar(
        "dm_control/cartpole-swingup-v0", render_mode="rgb_array", width=64, height=48
    )
    env.reset(seed=0)
    first = env.render()
    assert (first.shape, first.dtype) == ((48, 64, 3), np.uint8)
    assert first.std() > 10
    for _ in range(20):
        env.step(np.ones(1))
    assert (env.render() != first).mean() > 0.01
    assert env.metadata["render_fps"] == 100
    env.close()


def test_without_a_render_mode_there_is_no_frame():
    env = envs.scalar("dm_control/cartpole-swingup-v0")
    env.reset(seed=0)
    assert env.render() is None


def fresh(code, **variables):
    """What ``code`` writes in a process without a display, and what it says of errors."""
    variables = {**os.environ, "DISPLAY": "", **variables}
    kept = {name: value for name, value in variables.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=kept
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


MAKE = """
import envs
env = envs.scalar("dm_control/cheetah-run-v0", render_mode="rgb_array")
env.reset()
print(env.render().shape)
"""


def test_a_machine_without_a_display_draws_and_nobody_is_warned():
    assert fresh(MAKE, MUJOCO_GL=None) == ("(480, 480, 3)\n", "")


def test_without_any_renderer_one_trains_and_is_told_what_is_missing_for_videos():
    code = """
import envs
from envs import offscreen
offscreen._LIBRARIES = {"egl": ("libnone.so",), "osmesa": ("libnone.so",)}
env = envs.make("dm_control/cartpole-swingup-v0", 1, 0)
env.reset()
env.step(env.action_space.sample())
try:
    envs.scalar("dm_control/cartpole-swingup-v0", render_mode="rgb_array")
except envs.UnsupportedEnv as error:
    print(error)
"""
    out, err = fresh(code, MUJOCO_GL=None)
    assert "install the Debian packages libegl1 and libgl1-mesa-dri (EGL), or libosmesa6" in out
    assert out.count("\n") == 1
    assert err == ""


@pytest.mark.parametrize(
    ("loadable", "expected"),
    [(("libEGL.so.1", "libOSMesa.so.8"), "egl"), (("libOSMesa.so.6",), "osmesa"), ((), "disable")],
)
def test_prepare_takes_what_can_be_loaded(loadable, expected, monkeypatch):
    monkeypatch.setattr(offscreen, "_loads", loadable.__contains__)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    offscreen.prepare()
    assert os.environ["MUJOCO_GL"] == "glfw"  # somebody has said it
    monkeypatch.delenv("MUJOCO_GL")
    offscreen.prepare()
    assert os.environ["MUJOCO_GL"] == expected
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setenv("DISPLAY", ":0")
    offscreen.prepare()
    assert "MUJOCO_GL" not in os.environ


def test_a_renderer_that_does_not_come_up_is_named(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    with pytest.raises(UnsupportedEnv, match=r"cannot be drawn with MUJOCO_GL=osmesa.*libosmesa6"):
        offscreen.require_renderer("x")


def test_deprecations_alone_are_kept_back(caplog):
    import logging

    with control_suite._no_deprecations():
        logging.getLogger("absl").warning("attribute 'x' is deprecated")
        logging.getLogger("absl").warning("the simulation is unstable")
    logging.getLogger("absl").warning("attribute 'y' is deprecated")
    assert len(caplog.messages) == 2


def test_an_actuator_without_bounds_says_so():
    with closing(envs.make("dm_control/lqr-lqr_2_1-v0", 1, 0)) as env:
        space = env.single_action_space
    assert (space.low == -np.inf).all()
    assert (space.high == np.inf).all()
