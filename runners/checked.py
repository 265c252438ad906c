"""A simulator under watch: whatever it does wrong is a `SimulatorError` that says where."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces

from envs.contract import Array, LaneError, SimulatorError, VectorSimulator
from envs.simulator import block_seeds

Step = tuple[Array, Array, Array, Array, dict[str, Any]]


class CheckedSimulator:
    """Steps a simulator and looks at what it returns: types, shapes and dtypes at every step.

    Whether numbers are finite is left to whoever has more of them to look at at once (`finite`).
    """

    def __init__(self, env: VectorSimulator, env_id: str, first_lane: int = 0) -> None:
        """``first_lane`` is the number that messages give the simulator's lane 0."""
        self.env, self.env_id, self.first_lane = env, env_id, first_lane
        space = env.single_observation_space
        self.flags = (env.num_envs,)
        self.obs_shape, self.obs_dtype = (env.num_envs, *(space.shape or ())), space.dtype
        self.num_states = int(space.n) if isinstance(space, spaces.Discrete) else 0

    def reset(self, step: int, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes in all lanes; ``step`` is the row that messages speak of.

        Raises:
            SimulatorError: it raised, or the observations are not those of its space.
        """
        try:
            obs, info = self.env.reset(seed=None if seed is None else block_seeds(self.env, seed))
        except Exception as error:
            self._raised(step, "reset", error)
        self._check_obs(step, obs)
        return obs, info

    def step(self, step: int, action: Array) -> Step:
        """One step of all lanes.

        Raises:
            SimulatorError: it raised, or returned a wrong type, shape or dtype, or a state that
                its space does not have.
        """
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            self._raised(step, "step", error)
        self._check_obs(step, obs)
        if getattr(reward, "shape", None) != self.flags or reward.dtype.kind not in "fiu":
            self._fault(step, f"the reward is {_kind(reward)}, not a number for each lane")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if getattr(flag, "shape", None) != self.flags or flag.dtype != np.bool_:
                self._fault(step, f"{name} is {_kind(flag)}, not a bool for each lane")
        return obs, reward, terminated, truncated, info

    def _check_obs(self, step: int, obs: Any) -> None:
        if getattr(obs, "shape", None) != self.obs_shape or obs.dtype != self.obs_dtype:
            expected = f"{self.obs_dtype}{self.obs_shape}"
            self._fault(step, f"the observation is {_kind(obs)}, not {expected}")
        if self.num_states:
            # as an unsigned number a negative one is too large as well
            wrong = obs.astype(np.uint64) >= self.num_states
            if wrong.any():
                lane = int(wrong.argmax())
                told = f"the observation is {obs[lane]}, not in 0..{self.num_states - 1}"
                self._fault(step, told, lane=lane)

    def _raised(self, step: int, call: str, error: Exception) -> NoReturn:
        if isinstance(error, LaneError):
            self._fault(step, error.what, error, error.lane)
        self._fault(step, f"{call} raised {type(error).__name__}: {error}", error)

    def _fault(
        self, step: int, what: str, cause: Exception | None = None, lane: int = 0
    ) -> NoReturn:
        raise SimulatorError(self.env_id, self.first_lane + lane, step, what) from cause


def finite(numbers: Array) -> bool:
    """Whether all are finite. A finite sum says so at once; an infinite one may have overflowed."""
    if numbers.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        total = numbers.sum()
    return bool(np.isfinite(total) or np.isfinite(numbers).all())


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    return f"a {type(value).__name__}, no array"
