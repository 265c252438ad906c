"""Parameters of simulators: what they do to one step, and which are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import envs
from envs.contract import UnsupportedEnv
from envs.parameters import PARAMETERS, parameters

mujoco = pytest.importorskip("mujoco")
PHYSICS = [env_id for env_id in PARAMETERS if env_id.endswith("-v5")]


def cart(backend, **options):
    """A CartPole whose pole leans by 0.1 and falls at 0.2 while the cart runs at 0.3."""
    env = envs.make("CartPole-v1", 1, 0, backend, **options)
    env.reset()
    state = [0.5, 0.3, 0.1, 0.2]
    inner = env.unwrapped if backend == "native" else env.unwrapped.envs[0].unwrapped
    inner.state = np.array(state)[:, None] if backend == "native" else np.array(state)
    return env


def by_hand(gravity=9.8, masscart=1.0, masspole=0.1, length=0.5, force_mag=10.0, tau=0.02):
    """Florian 2007, equations 23 and 24 without friction, then Euler; push to the right.

    theta'' = (g sin + cos (-F - m l theta'^2 sin) / M) / (l (4/3 - m cos^2 / M)) with M = m + m_c
    x''     = (F + m l (theta'^2 sin - theta'' cos)) / M
    """
    x, v, theta, omega = 0.5, 0.3, 0.1, 0.2
    sin, cos, total = math.sin(theta), math.cos(theta), masscart + masspole
    inner = (-force_mag - masspole * length * omega**2 * sin) / total
    alpha = (gravity * sin + cos * inner) / (length * (4 / 3 - masspole * cos**2 / total))
    a = (force_mag + masspole * length * (omega**2 * sin - alpha * cos)) / total
    return [x + tau * v, v + tau * a, theta + tau * omega, omega + tau * alpha]


@pytest.mark.parametrize("backend", ["native", "sync"])
@pytest.mark.parametrize(
    "options",
    [{}, {"gravity": 15}, {"gravity": -5.0}, {"masspole": 0.7}, {"masscart": 3}, {"length": 1.5},
     {"force_mag": 4.0}, {"tau": 0.01}, {"gravity": 3.7, "masspole": 0.4, "length": 0.25}],
)  # fmt: skip
def test_a_step_of_cart_pole_is_the_papers(backend, options):
    obs, *_ = cart(backend, **options).step(np.array([1]))
    assert obs[0] == pytest.approx(by_hand(**options), rel=1e-6)
    if options:
        assert obs[0] != pytest.approx(by_hand(), rel=1e-6)


def test_cart_pole_without_gravity_by_numbers():
    """g = 0, upright and still, push 10 N: M = 1.1, alpha = -(10/1.1) / (0.5 (4/3 - 0.1/1.1)).

    = -9.0909 / 0.621212 = -14.634; a = (10 + 0.05 * 14.634) / 1.1 = 9.7561.
    """
    env = envs.make("CartPole-v1", 1, 0, gravity=0)
    env.reset()
    env.unwrapped.state = np.zeros((4, 1))
    obs, *_ = env.step(np.array([1]))
    assert obs[0] == pytest.approx([0, 0.02 * 9.7561, 0, -0.02 * 14.634], rel=1e-4)


def test_what_is_computed_from_masses_is_computed_anew():
    env = envs.make("CartPole-v1", 2, 0, masspole=0.3, masscart=2, length=0.7).unwrapped
    assert env.total_mass == 0.3 + 2.0
    assert env.polemass_length == 0.3 * 0.7


def test_the_usual_values_change_no_bit():
    usual = {"gravity": 9.8, "masscart": 1, "masspole": 0.1, "length": 0.5, "force_mag": 10.0}
    one, other = envs.make("CartPole-v1", 3, 5), envs.make("CartPole-v1", 3, 5, **usual)
    rng = np.random.default_rng(0)
    assert (one.reset()[0] == other.reset()[0]).all()
    for _ in range(200):
        chosen = rng.integers(2, size=3)
        assert all(map(np.array_equal, one.step(chosen)[:4], other.step(chosen)[:4]))


def test_gravity_reaches_what_is_rendered_and_other_processes():
    assert envs.scalar("CartPole-v1", gravity=5.0).unwrapped.gravity == 5.0
    lanes = envs.make("CartPole-v1", 2, 0, "async", gravity=-20.0)
    twin = envs.make("CartPole-v1", 2, 0, "sync", gravity=-20.0)
    try:
        assert (lanes.reset(seed=1)[0] == twin.reset(seed=1)[0]).all()
        for _ in range(5):
            assert (lanes.step(np.array([1, 0]))[0] == twin.step(np.array([1, 0]))[0]).all()
    finally:
        lanes.close()


# -- MuJoCo --------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", PHYSICS)
def test_physics_with_other_parameters_is_gymnasiums_bit_for_bit(env_id):
    options = {"gravity": 5.0, "mass_scale": 1.3, "friction_scale": 0.5}
    ours, twin = (envs.make(env_id, 2, 3, backend, **options) for backend in ("batched", "sync"))
    usual = envs.make(env_id, 2, 3)
    rng = np.random.default_rng(0)
    assert (ours.reset()[0] == twin.reset()[0]).all()
    usual.reset()
    differs = False
    for _ in range(40):
        chosen = np.stack([ours.single_action_space.low + rng.random(ours.single_action_space.shape)
                           * np.ptp([ours.single_action_space.low, ours.single_action_space.high], axis=0)
                           for _ in range(2)]).astype(np.float32)  # fmt: skip
        got, expected = ours.step(chosen), twin.step(chosen)
        assert all(map(np.array_equal, got[:4], expected[:4]))
        differs |= not np.array_equal(got[0], usual.step(chosen)[0])
    assert differs


def test_a_body_falls_by_half_g_t_squared():
    """A walker in the air: without contact its height changes as g t^2 / 2, whatever its masses."""
    for gravity, scale in ((5.0, 1.0), (0.0, 1.0), (20.0, 3.0)):
        env = envs.make("Hopper-v5", 1, 0, gravity=gravity, mass_scale=scale)
        env.reset()
        data, model = env._data[0], env.model
        mujoco.mj_resetData(model, data)
        data.qpos[1] = 50.0
        mujoco.mj_forward(model, data)
        before = data.subtree_com[0, 2]
        for _ in range(50):
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        seconds = 50 * model.opt.timestep
        fell = before - data.subtree_com[0, 2]
        assert fell == pytest.approx(gravity * seconds**2 / 2, rel=0.05, abs=1e-9)


def test_masses_carry_what_is_computed_from_them():
    usual, heavy = (envs.make("Ant-v5", 1, 0, **o).model for o in ({}, {"mass_scale": 2.0}))
    assert heavy.body_mass == pytest.approx(2 * usual.body_mass)
    assert heavy.body_inertia == pytest.approx(2 * usual.body_inertia)
    assert heavy.body_subtreemass == pytest.approx(2 * usual.body_subtreemass)
    assert heavy.body_invweight0[2] == pytest.approx(usual.body_invweight0[2] / 2, rel=0.2)
    slippery = envs.make("Ant-v5", 1, 0, friction_scale=0.25).model
    assert slippery.geom_friction[:, 0] == pytest.approx(usual.geom_friction[:, 0] / 4)
    assert (slippery.geom_friction[:, 1:] == usual.geom_friction[:, 1:]).all()


# -- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("CartPole-v1", {"gravty": 5}, "CartPole-v1 has no option 'gravty'; did you mean 'gravity'?"),
        ("CartPole-v1", {"total_mass": 5}, "CartPole-v1 has no option 'total_mass'"),
        ("CartPole-v1", {"gravity": "low"}, "option gravity: got 'low', takes a number"),
        ("CartPole-v1", {"gravity": True}, "option gravity: got True, takes a number"),
        ("CartPole-v1", {"gravity": math.nan}, "option gravity: got nan, takes a number"),
        ("CartPole-v1", {"length": 0}, "option length: got 0, takes a number above 0"),
        ("CartPole-v1", {"masspole": -1.0}, "option masspole: got -1.0, takes a number above 0"),
        ("Pendulum-v1", {"m": 0.0}, "option m: got 0.0, takes a number above 0"),
        ("Acrobot-v1", {"gravity": 5}, "Acrobot-v1 has no option 'gravity'"),
        ("HalfCheetah-v5", {"gravity": "low"}, "option gravity: got 'low', takes a number"),
        ("HalfCheetah-v5", {"mas_scale": 2.0}, "did you mean 'mass_scale'?"),
        ("FrozenLake-v1", {"gravity": 5}, "FrozenLake-v1 has no option 'gravity'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["auto", "sync"])
def test_wrong_parameters_are_one_line(env_id, options, message, backend):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0, backend, **options)
    assert message in str(error.value)


def test_a_simulator_that_cannot_take_them_says_so():
    with pytest.raises(UnsupportedEnv, match="has no option 'gravity'"):
        envs.make("HalfCheetah-v5", 1, 0, "envpool", gravity=5.0)


def test_every_parameter_is_an_attribute_of_gymnasiums():
    """So that none is set that nothing reads."""
    for env_id in ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"):
        inner = envs.scalar(env_id).unwrapped
        assert all(hasattr(inner, name) for name in parameters(env_id).names)
