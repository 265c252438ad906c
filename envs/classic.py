"""Gymnasium's classic control without a vector class of its own, all lanes in one kernel.

Acrobot, MountainCar, its continuous twin and Pendulum. Each lane has a generator seeded as
Gymnasium's scalar environment is, draws the same numbers, and every formula is computed in the same
order and the same precision, so that a lane is that environment bit for bit. Where Gymnasium takes a
sine of numpy's and numpy's are not the C library's (AVX-512), a step agrees within rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.utils import seeding

from envs import native
from envs.contract import Array, VectorSimulator
from envs.kernel import inlined, kernel
from envs.options import reject_unknown
from envs.parameters import checked, parameters
from envs.simulator import Simulator

scalar, time_limit = native.scalar, native.time_limit

# numpy's scalars are squared by the C library's pow, whose last bit is not always that of x * x. An
# exponent that the compiler does not know keeps it from writing x * x.
SQUARE = 2.0


def backends(env_id: str) -> list[str]:
    """All lanes in one kernel first, then one of Gymnasium's objects a lane."""
    return ["batched", *native.backends(env_id)]


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """The batched simulator of ``env_id``, or Gymnasium's."""
    if backend in native.BACKENDS:
        return native.make(env_id, num_envs, seed, backend, options)
    task = TASKS[env_id]
    reject_unknown(env_id, options, {*task.options, "max_episode_steps"})
    positive = parameters(env_id).positive
    given = tuple(
        checked(env_id, name, options.get(name, usual), name in positive)
        for name, usual in task.options.items()
    )
    return ClassicControl(task, num_envs, seed, given, time_limit(env_id, options))


class Task(NamedTuple):
    """What one of the environments is."""

    twin: Callable[[], Any]  # Gymnasium's class, for its spaces
    options: dict[str, float]  # names of its own options, and what they are by default
    draw: Callable[[np.random.Generator], Array]  # an episode's first state [d]
    observe: Callable[[Array], Array]  # first states [n, d] -> observations [n, k]
    step: Callable[..., None]  # one of the kernels below


class ClassicControl(Simulator):
    """N lanes of one task; observations [N, k] float32, rewards [N] float64, no infos.

    Actions are taken in the dtype of the action space. Like Gymnasium's TimeLimit, a step that ends
    an episode at the limit is both terminated and truncated.
    """

    def __init__(
        self, task: Task, num_envs: int, seed: int, parameters: tuple[float, ...], time_limit: int
    ) -> None:
        """``parameters`` are the values of ``task.options`` in order; ``time_limit`` 0 is never."""
        twin = task.twin()
        super().__init__(num_envs, seed, twin.observation_space, twin.action_space)
        self.task, self.parameters, self.time_limit = task, parameters, time_limit
        first = task.draw(np.random.default_rng(0))  # for the shapes alone
        self._observed = task.observe(first[None]).shape[1]
        self.state = np.zeros((num_envs, first.size))
        self.elapsed = np.zeros(num_envs, np.int64)
        self.done = np.zeros(num_envs, np.bool_)
        self._generators: list[np.random.Generator] = []

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """Draw a first state for every lane."""
        if seeds is not None:
            self._generators = [seeding.np_random(seed)[0] for seed in seeds]
        self.done[:] = False
        return self._reset(np.arange(self.num_envs)), {}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: ``(obs [N, k], reward, terminated, truncated [N], {})``."""
        obs = np.empty((self.num_envs, self._observed), np.float32)
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        actions = actions.astype(self.single_action_space.dtype, copy=False)
        state = (self.state, self.elapsed, self.done)
        self.task.step(*state, actions, SQUARE, *self.parameters, obs, reward, terminated)
        if self.time_limit:
            np.greater_equal(self.elapsed, self.time_limit, out=truncated, where=~self.done)
        behind_an_end = np.flatnonzero(self.done)
        if behind_an_end.size:
            obs[behind_an_end] = self._reset(behind_an_end)
        self.done = terminated | truncated
        return obs, reward, terminated, truncated, {}

    def _reset(self, lanes: Array) -> Array:
        """Begin episodes in ``lanes`` [n]; their observations [n, k]."""
        first = np.stack([self.task.draw(self._generators[lane]) for lane in lanes])
        self.state[lanes] = first
        self.elapsed[lanes] = 0
        return self.task.observe(first)

    def get_state(self) -> dict[str, Any]:
        """Physics [N, d] float64, elapsed [N] int64, done [N] bool, and a generator a lane.

        Raises:
            RuntimeError: `reset` has not been called.
        """
        if not self._generators:
            raise RuntimeError("reset the environment before asking for its state")
        return {
            "state": self.state.copy(),
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "rng": [copy.deepcopy(one.bit_generator.state) for one in self._generators],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.state[:] = state["state"]
        self.elapsed[:] = state["elapsed"]
        self.done = np.array(state["done"], np.bool_)
        self._generators = [seeding.np_random(0)[0] for _ in range(self.num_envs)]
        for generator, saved in zip(self._generators, state["rng"], strict=True):
            generator.bit_generator.state = copy.deepcopy(saved)


# -- Kernels: each steps the lanes that are not behind an end ------------------------------------
#
# state [N, d] float64, elapsed [N] int64 and done [N] bool of before the step; actions [N] or [N, 1];
# the exponent 2; the task's options; obs [N, k], reward and terminated [N] are written.


@inlined()
def _acrobot_derivatives(
    theta1: float, theta2: float, dtheta1: float, dtheta2: float, torque: float, square: float
) -> tuple[float, float]:
    """Accelerations of both joints (Sutton and Barto's book); masses, lengths and inertias are 1."""
    g, lc = 9.8, 0.5  # gravity, and from a joint to its link's centre of mass
    sin2, cos2 = math.sin(theta2), math.cos(theta2)
    d1 = lc * lc + (1.0 + lc * lc + 2 * lc * cos2) + 1.0 + 1.0
    d2 = (lc * lc + lc * cos2) + 1.0
    phi2 = lc * g * math.cos(theta1 + theta2 - math.pi / 2.0)
    phi1 = (
        -lc * math.pow(dtheta2, square) * sin2
        - 2 * lc * dtheta2 * dtheta1 * sin2
        + (lc + 1.0) * g * math.cos(theta1 - math.pi / 2)
        + phi2
    )
    pull = torque + d2 / d1 * phi1 - lc * math.pow(dtheta1, square) * sin2 - phi2
    ddtheta2 = pull / (lc * lc + 1.0 - math.pow(d2, square) / d1)
    return -(d2 * ddtheta2 + phi1) / d1, ddtheta2


@inlined()
def _wrapped(angle: float) -> float:
    while angle > math.pi:
        angle -= 2 * math.pi
    while angle < -math.pi:
        angle += 2 * math.pi
    return angle


@kernel()
def _step_acrobot(
    state: Array, elapsed: Array, done: Array, actions: Array, square: float,
    obs: Array, reward: Array, terminated: Array,
) -> None:  # fmt: skip
    """Fourth-order Runge-Kutta over 0.2 s of the angles t1, t2 and their velocities v1, v2."""
    dt = 0.2
    for i in range(done.size):
        if done[i]:
            continue
        torque = actions[i] - 1.0
        t1, t2, v1, v2 = state[i, 0], state[i, 1], state[i, 2], state[i, 3]
        a1, a2 = _acrobot_derivatives(t1, t2, v1, v2, torque, square)
        h = dt / 2.0
        v1b, v2b = v1 + h * a1, v2 + h * a2
        a1b, a2b = _acrobot_derivatives(t1 + h * v1, t2 + h * v2, v1b, v2b, torque, square)
        v1c, v2c = v1 + h * a1b, v2 + h * a2b
        a1c, a2c = _acrobot_derivatives(t1 + h * v1b, t2 + h * v2b, v1c, v2c, torque, square)
        v1d, v2d = v1 + dt * a1c, v2 + dt * a2c
        a1d, a2d = _acrobot_derivatives(t1 + dt * v1c, t2 + dt * v2c, v1d, v2d, torque, square)
        t1 = _wrapped(t1 + dt / 6.0 * (v1 + 2 * v1b + 2 * v1c + v1d))
        t2 = _wrapped(t2 + dt / 6.0 * (v2 + 2 * v2b + 2 * v2c + v2d))
        v1 += dt / 6.0 * (a1 + 2 * a1b + 2 * a1c + a1d)
        v2 += dt / 6.0 * (a2 + 2 * a2b + 2 * a2c + a2d)
        v1 = min(max(v1, -4 * math.pi), 4 * math.pi)
        v2 = min(max(v2, -9 * math.pi), 9 * math.pi)
        state[i, 0], state[i, 1], state[i, 2], state[i, 3] = t1, t2, v1, v2
        obs[i, 0], obs[i, 1] = math.cos(t1), math.sin(t1)
        obs[i, 2], obs[i, 3] = math.cos(t2), math.sin(t2)
        obs[i, 4], obs[i, 5] = v1, v2
        terminated[i] = -math.cos(t1) - math.cos(t2 + t1) > 1.0
        reward[i] = 0.0 if terminated[i] else -1.0
        elapsed[i] += 1


@kernel()
def _step_mountain_car(
    state: Array, elapsed: Array, done: Array, actions: Array, square: float,  # noqa: ARG001
    goal_velocity: float, goal_position: float, force: float, gravity: float,
    obs: Array, reward: Array, terminated: Array,
) -> None:  # fmt: skip
    for i in range(done.size):
        if done[i]:
            continue
        position, velocity = state[i, 0], state[i, 1]
        velocity += (actions[i] - 1) * force + math.cos(3 * position) * -gravity
        velocity = min(max(velocity, -0.07), 0.07)
        position = min(max(position + velocity, -1.2), 0.6)
        if position == -1.2 and velocity < 0:
            velocity = 0.0
        state[i, 0], state[i, 1] = position, velocity
        obs[i, 0], obs[i, 1] = position, velocity
        terminated[i] = position >= goal_position and velocity >= goal_velocity
        reward[i] = -1.0
        elapsed[i] += 1


@kernel()
def _step_continuous_car(
    state: Array, elapsed: Array, done: Array, actions: Array, square: float,
    goal_velocity: float, goal_position: float, power: float,
    obs: Array, reward: Array, terminated: Array,
) -> None:  # fmt: skip
    """Gymnasium keeps the state as float32, but for the one that a reset draws."""
    single = np.float32
    for i in range(done.size):
        if done[i]:
            continue
        velocity, force = single(state[i, 1]), actions[i, 0]
        if elapsed[i] == 0:
            slope = single(0.0025 * math.cos(3 * state[i, 0]))
            velocity += force * single(power) - slope
            fast = abs(velocity) > single(0.07)
            double = np.float64(math.copysign(0.07, velocity)) if fast else np.float64(velocity)
            position = single(min(max(state[i, 0] + double, -1.2), 0.6))
            velocity = single(double)
        else:
            position = single(state[i, 0])
            slope = single(0.0025 * math.cos(np.float64(single(3) * position)))
            velocity += force * single(power) - slope
            velocity = min(max(velocity, single(-0.07)), single(0.07))
            position = min(max(position + velocity, single(-1.2)), single(0.6))
        if position == single(-1.2) and velocity < 0:
            velocity = single(0)
        state[i, 0], state[i, 1] = position, velocity
        obs[i, 0], obs[i, 1] = position, velocity
        terminated[i] = position >= single(goal_position) and velocity >= single(goal_velocity)
        effort = math.pow(np.float64(force), square) * 0.1
        reward[i] = (100.0 if terminated[i] else 0.0) - effort
        elapsed[i] += 1


@kernel()
def _step_pendulum(
    state: Array, elapsed: Array, done: Array, actions: Array, square: float,
    g: float, m: float, l: float, obs: Array, reward: Array, terminated: Array,  # noqa: ARG001
) -> None:  # fmt: skip
    single, dt = np.float32, 0.05
    for i in range(done.size):
        if done[i]:
            continue
        theta, speed, torque = state[i, 0], state[i, 1], actions[i, 0]
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        effort = single(0.001) * math.pow(torque, single(square))
        reward[i] = -(math.pow(angle, square) + 0.1 * math.pow(speed, square) + effort)
        pull = 3 * g / (2 * l) * math.sin(theta)
        speed += (pull + single(3.0 / (m * math.pow(l, square))) * torque) * dt
        speed = min(max(speed, -8.0), 8.0)
        theta += speed * dt
        state[i, 0], state[i, 1] = theta, speed
        obs[i, 0], obs[i, 1], obs[i, 2] = math.cos(theta), math.sin(theta), speed
        elapsed[i] += 1


# -- Tasks ---------------------------------------------------------------------------------------


def _draw_acrobot(rng: np.random.Generator) -> Array:
    return rng.uniform(-0.1, 0.1, 4).astype(np.float32)


def _observe_acrobot(first: Array) -> Array:
    t1, t2, v1, v2 = first.T
    return np.stack([np.cos(t1), np.sin(t1), np.cos(t2), np.sin(t2), v1, v2], axis=1)


def _draw_car(rng: np.random.Generator) -> Array:
    return np.array([rng.uniform(-0.6, -0.4), 0.0])


def _observe_car(first: Array) -> Array:
    return first.astype(np.float32)


def _draw_pendulum(rng: np.random.Generator) -> Array:
    high = np.array([math.pi, 1.0])
    return rng.uniform(-high, high)


def _observe_pendulum(first: Array) -> Array:
    theta, speed = first.T
    return np.stack([np.cos(theta), np.sin(theta), speed], axis=1).astype(np.float32)


TASKS = {
    "Acrobot-v1": Task(AcrobotEnv, {}, _draw_acrobot, _observe_acrobot, _step_acrobot),
    "MountainCar-v0": Task(
        MountainCarEnv,
        {"goal_velocity": 0.0, "goal_position": 0.5, "force": 0.001, "gravity": 0.0025},
        _draw_car,
        _observe_car,
        _step_mountain_car,
    ),
    "MountainCarContinuous-v0": Task(
        Continuous_MountainCarEnv,
        {"goal_velocity": 0.0, "goal_position": 0.45, "power": 0.0015},
        _draw_car,
        _observe_car,
        _step_continuous_car,
    ),
    "Pendulum-v1": Task(
        PendulumEnv,
        {"g": 10.0, "m": 1.0, "l": 1.0},
        _draw_pendulum,
        _observe_pendulum,
        _step_pendulum,
    ),
}
