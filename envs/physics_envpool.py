"""MuJoCo tasks by EnvPool, whose C++ has threads of its own and a MuJoCo of its own version.

The rules are those of Gymnasium's version 5, the numbers are not: other draws, other rounding, and
rewards that EnvPool hands out as float32. An episode that terminates in the very step of its time
limit is shown as truncated alone: EnvPool keeps no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.contract import Array, UnsupportedEnv
from envs.packages import require
from envs.physics_task import Task, option_names
from envs.simulator import Simulator

NEVER = 2**31 - 1  # it counts steps in an int32 and knows no "no limit"


def make(
    env_id: str,
    task: Task,
    num_envs: int,
    seed: int,
    limit: int,
    threads: int,
    options: Mapping[str, Any],
) -> EnvPoolPhysics:
    """N lanes of EnvPool's ``env_id``.

    Raises:
        UnsupportedEnv: EnvPool is not installed, or its task has no such option.
    """
    envpool = require(env_id, "envpool", "envpool")
    known = set(envpool.make_spec(env_id).config._fields)
    config: dict[str, Any] = {"max_episode_steps": limit or NEVER, "num_threads": threads}
    for name in (name for name in option_names(type(task)) if name in options):
        value, stem = getattr(task, name), name.removesuffix("_range")
        if name in known:
            config[name] = value
        elif {f"{stem}_min", f"{stem}_max"} <= known:
            config[f"{stem}_min"], config[f"{stem}_max"] = value
        else:
            raise UnsupportedEnv(
                f"{env_id}: backend envpool has no option {name!r}; use backend='batched'"
            )
    return EnvPoolPhysics(envpool, env_id, num_envs, seed, config)


class EnvPoolPhysics(Simulator):
    """N lanes in EnvPool; observations [N, size] float64, rewards [N] float64, no infos.

    EnvPool takes seeds only when it is made, so a reset with a seed makes it anew; it takes 31 bits
    of them. There is no get_state: nothing reads its state.
    """

    releases_gil = True

    def __init__(
        self, envpool: Any, env_id: str, num_envs: int, seed: int, config: Mapping[str, Any]
    ) -> None:
        self._envpool, self._env_id, self._config = envpool, env_id, dict(config)
        self._pool: Any = None
        one = envpool.make_spec(env_id, **self._config)
        super().__init__(
            num_envs,
            seed,
            spaces.Box(-np.inf, np.inf, one.observation_space.shape, np.float64),
            _float32(one.action_space),
        )

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes."""
        if seeds is not None:
            self.close_extras()
            words = [seed % 2**31 for seed in seeds]
            self._pool = self._envpool.make_gymnasium(
                self._env_id, num_envs=self.num_envs, env_seed=words, **self._config
            )
        return self._pool.reset()[0], {}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: ``(obs [N, size], reward, terminated, truncated [N], {})``."""
        obs, reward, terminated, truncated, _ = self._pool.step(actions.astype(np.float64))
        return obs, reward.astype(np.float64), terminated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002 - Gymnasium's signature
        """End EnvPool's threads."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _float32(space: Any) -> spaces.Box:
    """The same bounds in the dtype that actions have in Gymnasium."""
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32))
