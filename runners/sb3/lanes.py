"""The lab's simulators as Stable-Baselines3 wants them: single lanes in one of its vector environments."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NoReturn

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

import envs
from envs.adapter import CheckedLane
from envs.contract import LaneError, SimulatorError
from envs.single import Single
from runners.checked import finite, making
from runners.config import RunConfig
from runners.group import Setting
from runners.journal import Block
from runners.sb3.policy import action_space, lane_space, stacks
from runners.timing import Times


class Lane(gymnasium.Env[Any, Any]):
    """One lane: observations in the dtype that the lab learns from, faults as the lab tells them."""

    def __init__(self, setting: Setting, seed: int, lane: int, times: Times) -> None:
        c, self.seen_as, self.times = setting.config, setting.spec, times
        with making(c.env, Block(1, 0, seed, lane, lane)):
            self.lane = single(c, lane)
        self.env_id, self.number = c.env, lane
        self.clip = getattr(c.hyper, "reward_clip", 0.0) or np.inf
        self.observation_space, self.action_space = (
            lane_space(setting.spec),
            action_space(setting.spec),
        )
        self.steps, self.reward = 0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed starts the lane's stream anew.

        Raises:
            SimulatorError: it raised, or its observation is not finite.
        """
        super().reset(seed=seed, options=options)
        self.times.lap("learn")
        try:
            obs, _ = self.lane.reset(seed=seed)
        except Exception as error:
            self._raised("reset", error)
        self.times.lap("simulate")
        return self._seen(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; ``self.reward`` keeps what it gave before it was clipped.

        Raises:
            SimulatorError: it raised, or its observation or reward is not finite.
        """
        self.times.lap("learn")
        try:
            obs, reward, terminated, truncated, _ = self.lane.step(action)
        except Exception as error:
            self._raised("step", error)
        self.reward = float(reward)
        if not math.isfinite(self.reward):
            self._bad(f"the reward is {self.reward}")
        seen = self._seen(obs)
        self.steps += 1
        self.times.lap("simulate")
        clipped = min(max(self.reward, -self.clip), self.clip)
        return seen, clipped, bool(terminated), bool(truncated), {}

    def _seen(self, obs: Any) -> Any:
        if self.seen_as.num_states:
            return int(obs)
        if not finite(obs):
            self._bad(f"the observation is {obs}")
        shown = obs[np.newaxis] if stacks(self.seen_as) else obs
        return shown.astype(self.seen_as.obs_dtype, copy=False)

    def _raised(self, call: str, error: Exception) -> NoReturn:
        what = (
            error.what
            if isinstance(error, LaneError)
            else f"{call} raised {type(error).__name__}: {error}"
        )
        raise SimulatorError(self.env_id, self.number, self.steps, what) from error

    def _bad(self, what: str) -> NoReturn:
        raise SimulatorError(self.env_id, self.number, self.steps, what)

    def close(self) -> None:
        """Close the simulator."""
        self.lane.close()


def single(config: RunConfig, lane: int) -> gymnasium.Env[Any, Any]:
    """One lane of what the configuration's backend simulates.

    Of Gymnasium's environments the scalar one, as ``sync`` steps it: it is what Stable-Baselines3 is made
    for, and a vector class takes several times as long for a single lane.
    """
    c = config
    if c.backend in ("native", "sync"):
        return CheckedLane(envs.scalar(c.env, **c.env_options), lane)
    return Single(envs.make(c.env, 1, 0, c.backend, **c.env_options), None, 1)


class Lanes(DummyVecEnv):
    """All lanes of a seed; ``raw`` [N] are the last step's rewards before anything is done to them."""

    @property
    def raw(self) -> Any:
        return np.array([env.reward for env in self.envs])  # type: ignore[attr-defined]


def make_lanes(setting: Setting, seed: int, times: Times) -> tuple[VecEnv, Lanes]:
    """The vector environment that a seed learns from, and the lanes below its wrappers."""
    c: RunConfig = setting.config
    lanes = Lanes([partial(Lane, setting, seed, lane, times) for lane in range(c.lanes)])
    dressed: VecEnv = lanes
    if stacks(setting.spec):
        dressed = VecFrameStack(dressed, c.hyper.frame_stack, channels_order="first")
    if c.hyper.normalize:
        dressed = VecNormalize(dressed, gamma=c.hyper.gamma)
    return dressed, lanes
