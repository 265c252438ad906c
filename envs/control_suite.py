"""The DeepMind Control Suite: ``dm_control/<domain>-<task>-v0``, all of ``suite.ALL_TASKS``.

Observations are the suite's arrays flattened in the suite's order, [D] float64; actions are a Box with
the task's bounds, float64; rewards are the suite's, 0 to 1 but for lqr. Episodes have no end but time:
they are truncated after the suite's limit of (mostly 1000) steps. Only lqr terminates, where its state
is at rest; it has no limit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs import native, offscreen
from envs.contract import Array, VectorSimulator
from envs.packages import require

UNBOUNDED = 1e10  # what the suite says of an actuator that has no bounds
MODEL_SEED = 0
"""Of what is drawn when a task is loaded: lqr's springs and dampers, the same in all lanes and runs."""


def backends(env_id: str) -> list[str]:
    """One environment a lane; none for unknown ids.

    Raises:
        UnsupportedEnv: dm_control is not installed.
    """
    _register(env_id)
    return native.backends(env_id)


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """Lanes of ``env_id``: obs [N, D] float64, actions [N, A] float64.

    Raises:
        UnsupportedEnv: an option that does not exist.
    """
    return native.make(env_id, num_envs, seed, backend, _limited(env_id, options))


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """One lane, which can be rendered with ``render_mode="rgb_array"``.

    Raises:
        UnsupportedEnv: an option that does not exist, or rendering where that is not possible.
    """
    return native.scalar(env_id, _limited(env_id, options))


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """Steps until an episode is truncated; 0 is never."""
    if "max_episode_steps" in options:
        return int(options["max_episode_steps"])
    return _suite_limit(env_id)


@cache
def _suite_limit(env_id: str) -> int:
    with closing(native.scalar(env_id, {})) as env:
        inner: Any = env.unwrapped
        return int(inner.suite_limit)


def _limited(env_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "max_episode_steps": time_limit(env_id, options)}


def _register(env_id: str) -> None:
    """Make Gymnasium know all tasks, without their limits: to know those, a task has to be loaded."""
    for domain, task in _suite(env_id).ALL_TASKS:
        name = f"dm_control/{domain}-{task}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, partial(SuiteEnv, domain, task))


def _suite(env_id: str) -> Any:
    offscreen.prepare()
    return require(env_id, "dm_control.suite", "control")


class SuiteEnv(gymnasium.Env[Array, Array]):
    """One task of the suite. All that is random in an episode comes from ``np_random`` at its reset.

    The suite draws from a RandomState; each reset seeds it anew with a number from ``np_random``. So an
    episode is a function of that generator's state and the actions. There is no time limit in here:
    ``suite_limit`` says after how many steps (0: never) the suite itself would end an episode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium's

    def __init__(
        self,
        domain: str,
        task: str,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        camera: int = 0,
    ) -> None:
        """``width``, ``height`` and ``camera``, a number of the model's, are those of `render`."""
        name = f"dm_control/{domain}-{task}-v0"
        suite = _suite(name)
        if render_mode is not None:
            offscreen.require_renderer(name)
        self.render_mode = render_mode
        self._frame = {"width": width, "height": height, "camera_id": camera}
        with _no_deprecations():
            self._suite_env = suite.load(domain, task, {"random": MODEL_SEED})
        limit = self._suite_env._step_limit
        self.suite_limit = 0 if math.isinf(limit) else math.ceil(limit)
        self._suite_env._step_limit = math.inf
        rate = max(1, round(1 / self._suite_env.control_timestep()))
        self.metadata = {**self.metadata, "render_fps": rate}
        action = self._suite_env.action_spec()
        low, high = (np.broadcast_to(x, action.shape) for x in (action.minimum, action.maximum))
        low, high = (np.where(abs(x) < UNBOUNDED, x, np.copysign(np.inf, x)) for x in (low, high))
        self.action_space = spaces.Box(low, high, action.shape, action.dtype.type)
        size = sum(math.prod(spec.shape) for spec in self._suite_env.observation_spec().values())
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode: ``(obs [D] float64, {})``."""
        super().reset(seed=seed, options=options)
        self._suite_env.task.random.seed(int(self.np_random.integers(2**32)))
        return _flat(self._suite_env.reset().observation), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One control step; terminated where the suite's discount is 0."""
        step = self._suite_env.step(action)
        terminated = step.last() and step.discount == 0
        truncated = step.last() and not terminated
        return _flat(step.observation), float(step.reward), terminated, truncated, {}

    def render(self) -> Array | None:
        """A frame [height, width, 3] uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        frame: Array = self._suite_env.physics.render(**self._frame)
        return frame

    def close(self) -> None:
        """Free the physics and the renderer."""
        self._suite_env.close()


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Without MuJoCo's warnings, through absl, of attributes of the suite's models that will go."""
    logger = logging.getLogger("absl")
    logger.addFilter(_is_no_deprecation)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_deprecation)


def _is_no_deprecation(record: logging.LogRecord) -> bool:
    return "deprecated" not in record.getMessage()


def _flat(observation: Mapping[str, Any]) -> Array:
    """The suite's arrays and numbers one behind the other, in a new array."""
    return np.concatenate([np.ravel(value) for value in observation.values()])
