"""Gymnasium's own environments: Box2D, missing packages, and what a family puts around a lane."""

import sys
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

import envs
from envs import native
from envs.check import check_id
from envs.contract import UnsupportedEnv, spec_of

BOX2D = {
    "LunarLander-v3": ((8,), np.float32, 4, 1000),
    "LunarLanderContinuous-v3": ((8,), np.float32, 0, 1000),
    "BipedalWalker-v3": ((24,), np.float32, 0, 1600),
    "BipedalWalkerHardcore-v3": ((24,), np.float32, 0, 2000),
    "CarRacing-v3": ((96, 96, 3), np.uint8, 0, 1000),
}


@pytest.mark.parametrize(("env_id", "lanes"), [("LunarLander-v3", 3), ("BipedalWalker-v3", 2)])
def test_box2d_keeps_the_contract(env_id, lanes):
    found = check_id(env_id, lanes=lanes, steps=150)
    assert [str(finding) for finding in found if finding.fault] == []


@pytest.mark.parametrize("env_id", BOX2D)
def test_box2d_is_what_gymnasium_says(env_id):
    shape, dtype, actions, limit = BOX2D[env_id]
    env = envs.make(env_id, 2, 0)
    spec = spec_of(env)
    assert (spec.obs_shape, spec.obs_dtype, spec.num_actions) == (shape, dtype, actions)
    assert envs.time_limit(env_id) == limit
    obs, _ = env.reset()
    assert obs.shape == (2, *shape)
    env.close()


@pytest.fixture
def without(monkeypatch):
    """A function that makes packages missing, and Gymnasium's modules not imported yet."""

    def forget(package, part):
        for name in list(sys.modules):
            if name.startswith(f"gymnasium.envs.{part}") or name.split(".")[0] == package:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return forget


@pytest.mark.parametrize("env_id", BOX2D)
def test_a_missing_box2d_has_its_install_line(env_id, without):
    without("Box2D", "box2d")
    for make in (lambda: envs.make(env_id, 1, 0), lambda: envs.scalar(env_id)):
        with pytest.raises(UnsupportedEnv) as error:
            make()
        assert str(error.value) == (
            f"{env_id} needs Box2D, which is not installed: "
            "pip install -c constraints.txt -e '.[box2d]'"
        )


def test_a_missing_jax_has_its_install_line(without):
    without("jax", "phys2d")
    with pytest.raises(UnsupportedEnv, match=r"needs \S+, which is not installed: .*'\.\[jax\]'"):
        envs.make("phys2d/CartPole-v1", 1, 0)


class NeedsSomething(gymnasium.Env):
    def __init__(self):
        raise DependencyNotInstalled("thing is missing, run `pip install thing`")


class Raises(gymnasium.Env):
    def __init__(self):
        raise RuntimeError("out of maps")


class Rows(gymnasium.Env):
    """Observations are a dict: no array, unless something is put around it."""

    observation_space = spaces.Dict({"a": spaces.Box(0, 9, (2,), np.float32)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"a": self.np_random.integers(9, size=2).astype(np.float32)}, {}

    def step(self, action):
        return {"a": np.full(2, action, np.float32)}, 0.0, False, False, {}


class Scaled(gymnasium.ObservationWrapper):
    def __init__(self, env, by):
        super().__init__(env)
        self.by = by
        self.observation_space = spaces.Box(0, 9 * by, (2,), np.float32)

    def observation(self, observation):
        return observation["a"] * self.by


@pytest.fixture
def register():
    names = []

    def add(env_class):
        names.append(f"{env_class.__name__}-v0")
        gymnasium.register(names[-1], env_class)
        return names[-1]

    yield add
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.parametrize(
    ("env_class", "message"),
    [
        (NeedsSomething, "needs a package that is not installed: thing is missing, run `pip"),
        (Raises, "cannot be made with {}: RuntimeError('out of maps')"),
    ],
)
def test_what_the_making_raises_is_one_line(env_class, message, register):
    env_id = register(env_class)
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0)
    assert f"{env_id} {message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_a_family_dresses_its_lanes(backend, register):
    env_id = register(Rows)
    env = native.make(env_id, 2, 0, backend, {}, partial(Scaled, by=3))
    obs, _ = env.reset()
    assert spec_of(env).obs_shape == (2,)
    assert (obs % 3 == 0).all()
    obs, *_ = env.step(np.array([0, 1]))
    assert obs.tolist() == [[0, 0], [3, 3]]
    env.close()
    assert native.scalar(env_id, {}, partial(Scaled, by=2)).observation_space.high[0] == 18
