"""MuJoCo tasks of EnvPool: the spaces, options, rules and limits that Gymnasium's environments have."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from envs import native, physics_envpool
from envs.contract import UnsupportedEnv
from envs.physics import TASKS
from tests.envs.test_physics import random_actions


def envpool_env(env_id, lanes, **options):
    pytest.importorskip("envpool")
    return envs.make(env_id, lanes, 0, "envpool", **options)


@pytest.mark.parametrize("env_id", TASKS)
def test_envpool_has_the_same_spaces(env_id):
    env, twin = envpool_env(env_id, 2, threads=1), envs.make(env_id, 2, 0)
    assert env.single_observation_space == twin.single_observation_space
    assert env.single_action_space == twin.single_action_space
    obs, _ = env.reset()
    assert obs.dtype == np.float64
    obs, reward, terminated, truncated, infos = env.step(env.action_space.sample())
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, bool, bool)
    assert infos == {}
    env.close()


def test_envpool_takes_options_by_the_names_that_the_others_have():
    env = envpool_env("HalfCheetah-v5", 3, forward_reward_weight=0, ctrl_cost_weight=2)
    env.reset()
    actions = random_actions(env, np.random.default_rng(0))
    assert np.allclose(env.step(actions)[1], -2 * (actions**2).sum(axis=1), rtol=1e-5)
    env = envpool_env("Walker2d-v5", 3, healthy_z_range=(5.0, 6.0), max_episode_steps=4)
    env.reset()
    assert env.step(np.zeros((3, 6)))[2].all()  # nobody is as high as that
    with pytest.raises(UnsupportedEnv, match="envpool has no option 'main_body'"):
        envpool_env("Ant-v5", 1, main_body=2)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Walker2d-v5", "Swimmer-v5", "Ant-v5"])
def test_envpool_has_the_rules_of_gymnasium(env_id):
    """One step from the same state; EnvPool's rewards are float32."""
    options = {"exclude_current_positions_from_observation": False}
    env, twin = envpool_env(env_id, 2, **options), native.scalar(env_id, options)
    before, _ = env.reset()
    actions = random_actions(env, np.random.default_rng(0))
    after, reward, terminated, _, _ = env.step(actions)
    nq, nv = twin.unwrapped.model.nq, twin.unwrapped.model.nv
    for i in range(2):
        twin.reset(seed=0)
        twin.unwrapped.data.qacc_warmstart[:] = 0
        twin.unwrapped.set_state(before[i, :nq], before[i, nq : nq + nv])
        obs, expected, ended, _, _ = twin.step(actions[i])
        assert np.allclose(after[i], obs, rtol=1e-6, atol=1e-6)
        assert np.isclose(reward[i], expected, rtol=1e-5, atol=1e-6)
        assert terminated[i] == ended


@pytest.mark.parametrize(("limit", "ends"), [(7, [7, 15]), (0, [])])
def test_envpool_truncates_at_the_limit(limit, ends):
    env = envpool_env("HalfCheetah-v5", 2, max_episode_steps=limit)
    env.reset()
    seen = [env.step(np.zeros((2, 6)))[3].all() for _ in range(1, 16)]
    assert [t for t, truncated in enumerate(seen, 1) if truncated] == ends


def test_envpool_is_optional(monkeypatch):
    def missing(env_id, package, extra):
        raise UnsupportedEnv(f"{env_id} needs {package}, extra {extra}")

    monkeypatch.setattr(physics_envpool, "require", missing)
    with pytest.raises(UnsupportedEnv, match="needs envpool, extra envpool"):
        envs.make("Ant-v5", 1, 0, "envpool")
