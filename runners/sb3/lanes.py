"""The lab's simulators as Stable-Baselines3 wants them: single lanes in one of its vector environments."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

import envs
from envs.contract import SimulatorError
from runners.checked import CheckedSimulator, finite, making
from runners.config import RunConfig
from runners.group import Setting
from runners.journal import Block
from runners.sb3 import lane_backend
from runners.sb3.policy import action_space, lane_space, stacks
from runners.timing import Times


class Lane(gymnasium.Env[Any, Any]):
    """One lane: scalars, observations in the dtype that the lab learns from, faults as the lab tells them.

    The lab's simulators reset a lane in the step behind an end; a bare ``reset`` is that step.
    """

    def __init__(self, setting: Setting, seed: int, lane: int, times: Times) -> None:
        c, self.spec_of_lane, self.times = setting.config, setting.spec, times
        with making(c.env, Block(1, 0, seed, lane, lane)):
            made = envs.make(c.env, 1, 0, lane_backend(c.backend), **c.env_options)
        self.lanes = CheckedSimulator(made, c.env, first_lane=lane)
        self.lane, self.clip = lane, getattr(c.hyper, "reward_clip", 0.0) or np.inf
        self.observation_space, self.action_space = (
            lane_space(self.spec_of_lane),
            action_space(self.spec_of_lane),
        )
        self.steps, self.ended, self.reward = 0, False, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed starts the lane's stream anew.

        Raises:
            SimulatorError: it raised, or its observation is not of its space, or not finite.
        """
        super().reset(seed=seed, options=options)
        self.times.lap("learn")
        if self.ended and seed is None:
            obs, *_ = self.lanes.step(self.steps, self.last)
        else:
            obs, _ = self.lanes.reset(self.steps, seed)
        self.ended = False
        self.times.lap("simulate")
        return self._seen(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; ``reward`` keeps what it gave before it was clipped.

        Raises:
            SimulatorError: as of `reset`, or the reward is not finite.
        """
        self.times.lap("learn")
        self.last = np.asarray(action)[np.newaxis]
        obs, reward, terminated, truncated, _ = self.lanes.step(self.steps, self.last)
        self.steps += 1
        self.reward = float(reward[0])
        if not np.isfinite(self.reward):
            self._bad(f"the reward is {self.reward}")
        self.ended = bool(terminated[0] or truncated[0])
        seen = self._seen(obs)
        self.times.lap("simulate")
        clipped = min(max(self.reward, -self.clip), self.clip)
        return seen, clipped, bool(terminated[0]), bool(truncated[0]), {}

    def _seen(self, obs: Any) -> Any:
        if not finite(obs):
            self._bad(f"the observation is {obs[0]}")
        if self.spec_of_lane.num_states:
            return int(obs[0])
        shown = obs if stacks(self.spec_of_lane) else obs[0]
        return shown.astype(self.spec_of_lane.obs_dtype, copy=False)

    def _bad(self, what: str) -> None:
        raise SimulatorError(self.lanes.env_id, self.lane, self.steps, what)

    def close(self) -> None:
        """Close the simulator."""
        self.lanes.env.close()


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
