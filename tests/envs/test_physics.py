"""MuJoCo tasks: the batched loop does what Gymnasium's environments do, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import envs
from envs import check, mujoco_setup, native, offscreen, physics
from envs.contract import Resumable, UnsupportedEnv
from envs.physics import TASKS, PhysicsEnv

pytest.importorskip("mujoco")


def random_actions(env, rng, dtype=np.float32):
    space = env.single_action_space
    return rng.uniform(space.low, space.high, (env.num_envs, *space.shape)).astype(dtype)


def same_info(got, expected):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert np.array_equal(got[key], value), key


def compare(env, twins, steps, dtype=np.float32):
    """Step ``env`` and one Gymnasium environment a lane; every bit of them is equal.

    Returns the number of ends of each lane.
    """
    obs, infos = env.reset(seed=100)
    assert infos == {}
    for i, twin in enumerate(twins):
        expected, info = twin.reset(seed=100 + i)
        assert obs[i].tobytes() == expected.tobytes()
        same_info(env.lane_info(i), info)
    rng, done, ends = np.random.default_rng(1), [False] * len(twins), [0] * len(twins)
    for t in range(1, steps + 1):
        actions = random_actions(env, rng, dtype)
        obs, *arrays, infos = env.step(actions)
        assert infos == {}
        for i, twin in enumerate(twins):
            if done[i]:
                (expected, info), numbers = twin.reset(), (0.0, False, False)
            else:
                expected, *numbers, info = twin.step(actions[i])
            assert obs[i].tobytes() == expected.tobytes(), f"lane {i}, step {t}"
            assert [array[i] for array in arrays] == list(numbers), f"lane {i}, step {t}"
            same_info(env.lane_info(i), info)
            done[i] = bool(numbers[1] or numbers[2])
            ends[i] += done[i]
    return ends


@pytest.mark.parametrize("backend", ["batched", "sync", "async"])
def test_physics_that_runs_away_is_seen_whatever_steps_it(backend):
    """MuJoCo by itself would begin the lane anew in the middle of the episode."""
    env = envs.make("Swimmer-v5", 1, 0, backend, reset_noise_scale=300.0)
    env.reset()
    obs, *_ = env.step(np.zeros((1, 2), np.float32))
    assert not np.isfinite(obs).all()
    env.close()


@pytest.mark.parametrize("env_id", TASKS)
def test_one_lane_is_gymnasium_with_the_same_seed(env_id):
    """Over the time limit of 1,000 steps too: every observation, reward, flag and info."""
    env = envs.make(env_id, 1, 0)
    assert isinstance(env, PhysicsEnv)
    twin = native.scalar(env_id, {})
    assert env.single_observation_space == twin.observation_space
    assert env.single_action_space == twin.action_space
    assert compare(env, [twin], 1003)[0] >= 1


@pytest.mark.parametrize("env_id", TASKS)
def test_several_lanes_in_several_threads_are_as_many_environments(env_id):
    options = {"max_episode_steps": 37}
    env = envs.make(env_id, 3, 0, threads=2, **options)
    assert min(compare(env, [native.scalar(env_id, options) for _ in range(3)], 80)) >= 2


HUMANOID_PARTS = {
    f"include_{name}_in_observation": False for name in ("cinert", "cvel", "qfrc_actuator")
}
OTHER = [
    ("HalfCheetah-v5", {"forward_reward_weight": 0.3, "frame_skip": 2}),
    ("HalfCheetah-v5", {"ctrl_cost_weight": 2, "reset_noise_scale": 0.5}),
    ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False}),
    ("Hopper-v5", {"healthy_reward": 3, "healthy_state_range": (-2.0, 2.0)}),
    ("Hopper-v5", {"terminate_when_unhealthy": False, "forward_reward_weight": 2.5}),
    ("Hopper-v5", {"healthy_z_range": (1.1, 1.3), "healthy_angle_range": (-0.05, 1)}),
    ("Hopper-v5", {"exclude_current_positions_from_observation": False, "frame_skip": 1}),
    ("Walker2d-v5", {"healthy_angle_range": (-0.1, 0.3), "ctrl_cost_weight": 0.1}),
    ("Walker2d-v5", {"terminate_when_unhealthy": False, "healthy_z_range": (1.2, 1.3)}),
    ("Walker2d-v5", {"exclude_current_positions_from_observation": False, "healthy_reward": 0.1}),
    ("Walker2d-v5", {"reset_noise_scale": 0.1, "forward_reward_weight": -1.0}),
    ("Ant-v5", {"contact_force_range": (-0.1, 0.5), "contact_cost_weight": 0.01}),
    ("Ant-v5", {"main_body": "front_left_leg", "include_cfrc_ext_in_observation": False}),
    ("Ant-v5", {"main_body": 4, "healthy_reward": 2, "healthy_z_range": (0.4, 0.8)}),
    ("Ant-v5", {"terminate_when_unhealthy": False, "healthy_z_range": (0.5, 0.7)}),
    ("Ant-v5", {"exclude_current_positions_from_observation": False, "frame_skip": 3}),
    ("Humanoid-v5", HUMANOID_PARTS),
    ("Humanoid-v5", {"include_cfrc_ext_in_observation": False, "frame_skip": 2}),
    ("Humanoid-v5", {"contact_cost_weight": 1e-3, "contact_cost_range": (0.5, 3.0)}),
    ("Humanoid-v5", {"terminate_when_unhealthy": False, "healthy_z_range": (1.2, 1.3)}),
    ("Humanoid-v5", {"exclude_current_positions_from_observation": False, "healthy_reward": 1}),
    ("HumanoidStandup-v5", {"impact_cost_weight": 1e-3, "impact_cost_range": (0.5, 3.0)}),
    ("HumanoidStandup-v5", {"exclude_current_positions_from_observation": False}),
    ("HumanoidStandup-v5", {**HUMANOID_PARTS, "ctrl_cost_weight": 0.7}),
    ("HumanoidStandup-v5", {"include_cfrc_ext_in_observation": False, "frame_skip": 2}),
    ("Swimmer-v5", {"exclude_current_positions_from_observation": False}),
    ("Swimmer-v5", {"forward_reward_weight": 3.0, "ctrl_cost_weight": 0.25}),
    ("Swimmer-v5", {"reset_noise_scale": 1.0, "frame_skip": 6}),
    ("Reacher-v5", {"reward_dist_weight": 0.3, "frame_skip": 3}),
    ("Reacher-v5", {"reward_control_weight": 0.1, "max_episode_steps": 11}),
    ("Pusher-v5", {"reward_near_weight": 0.9, "reward_dist_weight": 0.3}),
    ("Pusher-v5", {"reward_control_weight": 0.7, "frame_skip": 2, "max_episode_steps": 11}),
    ("InvertedPendulum-v5", {"reset_noise_scale": 0.1}),
    ("InvertedPendulum-v5", {"frame_skip": 1, "max_episode_steps": 5}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 3}),
    ("InvertedDoublePendulum-v5", {"reset_noise_scale": 0.3, "frame_skip": 2}),
]


@pytest.mark.parametrize(("env_id", "options"), OTHER)
def test_options_mean_what_they_mean_in_gymnasium(env_id, options):
    """With float64 actions, whose control costs Gymnasium adds up in float64."""
    env, twin = envs.make(env_id, 1, 0, **options), native.scalar(env_id, options)
    assert env.single_observation_space == twin.observation_space
    compare(env, [twin], 40, np.float64)
    # each of these options changes something, or the comparison would have said nothing
    plain, other = envs.make(env_id, 1, 0), envs.make(env_id, 1, 0, **options)
    assert trace(plain, 40) != trace(other, 40)


def trace(env, steps, seed=3):
    """The bytes of all that a run returns."""
    rng, rows = np.random.default_rng(2), [env.reset(seed=seed)[0].tobytes()]
    for _ in range(steps):
        rows += [array.tobytes() for array in env.step(random_actions(env, rng))[:4]]
    return rows


def test_every_option_of_every_task_has_been_set():
    for env_id, kind in TASKS.items():
        tried = {name for name_id, options in OTHER if name_id == env_id for name in options}
        rest = set(physics.option_names(kind)) - tried
        assert rest <= {"ctrl_cost_weight", "frame_skip", "reset_noise_scale", *COMMON}, env_id


COMMON = ("forward_reward_weight",)  # one formula for several tasks


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("behind_an_end", [False, True])
def test_state_goes_on_in_a_fresh_environment(env_id, behind_an_end):
    options = {"max_episode_steps": 12}
    env, fresh = (envs.make(env_id, 2, seed, **options) for seed in (0, 1))
    assert isinstance(env, Resumable)
    rng = np.random.default_rng(0)
    env.reset()
    for _ in range(100):
        env.step(random_actions(env, rng))
        if env.done.any() == behind_an_end and (behind_an_end or env.elapsed.min() > 1):
            break
    assert env.done.any() == behind_an_end
    assert behind_an_end or env.elapsed.min() > 1
    state, actions = env.get_state(), [random_actions(env, rng) for _ in range(30)]
    expected = [env.step(action)[:4] for action in actions]
    for other in (fresh, env):  # the state is a copy: the steps have not changed it
        other.set_state(state)
        for action, row in zip(actions, expected, strict=True):
            got = other.step(action)[:4]
            assert [a.tobytes() for a in got] == [b.tobytes() for b in row]
    same_info(fresh.lane_info(1), env.lane_info(1))


@pytest.mark.parametrize("env_id", ["Ant-v5", "Hopper-v5"])
def test_results_do_not_depend_on_the_number_of_threads(env_id):
    one, *more = (trace(envs.make(env_id, 7, 0, threads=n), 60) for n in (1, 2, 16))
    assert all(other == one for other in more)


def test_threads_follow_the_task_and_the_lanes(monkeypatch):
    monkeypatch.setattr(physics, "cores", lambda: 4)
    ant, cheetah = TASKS["Ant-v5"](), TASKS["HalfCheetah-v5"]()
    assert [physics.default_threads(ant, n) for n in (1, 15, 16, 31, 1000)] == [1, 1, 2, 3, 4]
    assert physics.default_threads(cheetah, 1000) == 1


def test_what_is_returned_is_not_written_to_again():
    env = envs.make("InvertedDoublePendulum-v5", 4, 0)
    rng = np.random.default_rng(0)
    kept = [(array, array.copy()) for array in (env.reset()[0],)]
    for _ in range(40):
        out = env.step(random_actions(env, rng))[:4]
        kept += [(array, array.copy()) for array in out]
    assert all(np.array_equal(array, copy) for array, copy in kept)


def test_episodes_without_a_limit_go_on():
    env = envs.make("Reacher-v5", 2, 0, max_episode_steps=0)
    env.reset()
    assert envs.time_limit("Reacher-v5", max_episode_steps=0) == 0
    for _ in range(60):
        assert not env.step(np.zeros((2, 2)))[3].any()
    assert {name: envs.time_limit(name) for name in TASKS} == {
        **dict.fromkeys(TASKS, 1000), "Reacher-v5": 50, "Pusher-v5": 100,
    }  # fmt: skip


def test_an_info_is_of_the_last_step_here():
    env = envs.make("Hopper-v5", 1, 0)
    with pytest.raises(RuntimeError, match="before asking for an info"):
        env.lane_info(0)
    with pytest.raises(RuntimeError, match="reset the environment"):
        env.get_state()
    env.reset()
    env.set_state(env.get_state())
    with pytest.raises(RuntimeError, match="before asking for an info"):
        env.lane_info(0)


@pytest.mark.parametrize(
    ("env_id", "backend", "options", "words"),
    [
        ("Hopper-v5", "auto", {"healthy_rewad": 1}, "did you mean 'healthy_reward'?"),
        ("Hopper-v5", "sync", {"healthy_rewad": 1}, "did you mean 'healthy_reward'?"),
        ("Reacher-v5", "auto", {"healthy_reward": 1}, "has no option 'healthy_reward'"),
        ("Hopper-v5", "auto", {"healthy_reward": "x"}, "got 'x', takes a number"),
        ("Hopper-v5", "auto", {"healthy_reward": True}, "got True, takes a number"),
        ("Hopper-v5", "auto", {"healthy_z_range": 1}, "got 1, takes two numbers"),
        ("Hopper-v5", "auto", {"healthy_z_range": "1"}, "got '1', takes two numbers"),
        ("Hopper-v5", "auto", {"healthy_z_range": "1,y"}, "got '1,y', takes two numbers"),
        ("Hopper-v5", "auto", {"terminate_when_unhealthy": 1}, "got 1, takes true or false"),
        ("Hopper-v5", "auto", {"frame_skip": 0}, "takes a whole number of at least 1"),
        ("Hopper-v5", "auto", {"threads": 0}, "takes a whole number of at least 1"),
        ("Hopper-v5", "sync", {"threads": 2}, "backend sync has no option 'threads'"),
        ("Hopper-v5", "auto", {"xml_file": "a.xml"}, "no option 'xml_file'; use backend='sync'"),
        ("Hopper-v5", "auto", {"render_mode": "human"}, "'render_mode'; use backend='sync'"),
        ("Ant-v5", "auto", {"main_body": "tail"}, "no such body: Invalid name 'tail'"),
        ("Ant-v5", "auto", {"main_body": 99}, "no such body: Invalid index 99"),
        ("Ant-v5", "auto", {"main_body": 1.5}, "takes a body's number or name"),
        ("Ant-v5", "brax", {}, "it has batched, sync, async, envpool"),
    ],
)
def test_bad_options_are_one_line(env_id, backend, options, words):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0, backend, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_range_may_be_a_text():
    """As the command line gives it, for Gymnasium's own backend too."""
    options = {"healthy_z_range": "1.15,inf"}
    env = envs.make("Hopper-v5", 1, 0, **options)
    assert env.task.healthy_z_range == (1.15, float("inf"))
    compare(env, [envs.scalar("Hopper-v5", **options)], 50)
    assert trace(env, 50) == trace(envs.make("Hopper-v5", 1, 0, "sync", **options), 50)


@pytest.mark.parametrize(
    ("env_id", "backend"),
    [("Walker2d-v5", "batched"), ("Pusher-v5", "batched"), ("Hopper-v5", "envpool")],
)
def test_keeps_the_contract(env_id, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    found = check.check_id(env_id, backend, lanes=2, steps=110)
    assert not [str(one) for one in found if one.fault]


# -- Drawing and notes -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["batched", "sync", "scalar"])
def test_old_models_are_compiled_without_a_note(backend, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if backend == "scalar":
        envs.scalar("HalfCheetah-v5")
    else:
        envs.make("HalfCheetah-v5", 2, 0, backend)
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())  # MuJoCo writes a log where it notes something


def test_other_notes_are_still_seen(capfd):
    import mujoco

    before = mujoco.get_mju_user_warning()  # dm_control, once imported, has one of its own
    with mujoco_setup.no_deprecations():
        assert mujoco.get_mju_user_warning() is mujoco_setup._note
    after = mujoco.get_mju_user_warning()
    assert (after is None) == (before is None)
    mujoco_setup._note("the sky is falling")
    assert capfd.readouterr().err == "WARNING: the sky is falling\n"


def test_without_a_renderer_the_packages_are_named(monkeypatch):
    for name in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(offscreen, "_loads", lambda library: False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UnsupportedEnv, match=r"libegl1 and libgl1-mesa-dri .* or libosmesa6"):
        envs.scalar("Hopper-v5", render_mode="rgb_array")
    envs.scalar("Hopper-v5")  # what is not drawn needs none


DRAW = """
import envs, numpy as np
env = envs.scalar("Hopper-v5", render_mode="rgb_array", width=64, height=48, healthy_reward=2,
                  threads=2)
env.reset(seed=0)
first = env.render()
for _ in range(5):
    env.step(env.action_space.high)
last = env.render()
env.close()
assert first.shape == (48, 64, 3) and first.dtype == np.uint8
assert first.std() > 10 and (first != last).any()
"""


FOLLOW = """
import envs, mujoco
for still in (False, True):
    camera = {"camera_id": -1} if still else {}
    env = envs.scalar("HalfCheetah-v5", render_mode="rgb_array", width=64, height=48, **camera)
    env.reset(seed=0)
    seen = []
    for x in (0.0, 30.0):
        env.unwrapped.data.qpos[0] = x
        mujoco.mj_forward(env.unwrapped.model, env.unwrapped.data)
        picture = env.render().astype(int)
        seen.append(int((picture[..., 0] - picture[..., 2] > 60).sum()))  # the body is orange, nothing else
    env.close()
    assert seen[0] > 10 and (seen[1] > 10) != still, (still, seen)
"""


@pytest.mark.parametrize("code", [DRAW, FOLLOW], ids=["draw", "follow"])
def test_a_frame_is_drawn_without_a_display(code):
    if not any(offscreen._loads(name) for name in ("libEGL.so.1", "libOSMesa.so.8")):
        pytest.skip("neither EGL nor OSMesa is installed")
    without = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MUJOCO_GL")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=without, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_an_unknown_option_of_what_is_drawn_is_refused():
    with pytest.raises(UnsupportedEnv, match="did you mean 'render_mode'"):
        envs.scalar("Hopper-v5", render_mod="rgb_array")
