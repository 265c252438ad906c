"""Gymnasium environments whose complete state is known, so that a run goes on to the same bits."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils import seeding
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from envs.adapter import CheckedLane, GymnasiumEnv
from envs.contract import Resumable, VectorSimulator
from envs.spaces import FlatObservation, JointAction

_KNOWN = (AcrobotEnv, CartPoleEnv, Continuous_MountainCarEnv, MountainCarEnv, PendulumEnv)
# What `get_state` saves of them, or what has no state. Any other wrapper may have one of its own.
_KNOWN_WRAPPERS = frozenset(
    {CheckedLane, FlatObservation, JointAction, OrderEnforcing, PassiveEnvChecker, TimeLimit}
)
# Packages whose environments begin every episode from ``np_random`` alone and are random by nothing else.
_REPLAYABLE = ("envs.control_suite", "gymnasium.envs.box2d.", "minigrid.", "popgym.")


def resumable(env: VectorSimulator, seed: int, separate_lanes: bool) -> GymnasiumEnv | None:
    """``env`` with get_state and set_state, or None where its whole state is not known."""
    if type(env) is CartPoleVectorEnv:
        return ResumableCartPole(env, seed, separate_lanes)
    if isinstance(env, Resumable):
        return ResumableClass(env, seed, separate_lanes)
    if type(env) is SyncVectorEnv and all(map(_is_known, env.envs)):
        return ResumableLanes(env, seed, separate_lanes)
    if type(env) is SyncVectorEnv and all(map(_is_replayable, env.envs)):
        return ReplayedLanes(env, seed, separate_lanes)
    return None


def _is_known(lane: Any) -> bool:
    return type(lane.unwrapped) in _KNOWN and set(_wrappers(lane)) <= _KNOWN_WRAPPERS


def _is_replayable(lane: Any) -> bool:
    return type(lane.unwrapped).__module__.startswith(_REPLAYABLE) and all(
        map(_begins_anew, _wrappers(lane))
    )


def _begins_anew(wrapper: type) -> bool:
    """Whether a reset leaves nothing in a wrapper of the episodes before."""
    if wrapper.__module__.startswith("minigrid."):  # its other wrappers count over episodes
        return (
            issubclass(wrapper, gymnasium.ObservationWrapper)
            and wrapper.__name__ != "DirectionObsWrapper"  # keeps the goal of its first episode
        )
    return wrapper in _KNOWN_WRAPPERS or wrapper.__module__.startswith("envs.")


class ResumableClass(GymnasiumEnv):
    """Somebody's own vector class that has get_state and set_state itself."""

    env: Any

    def get_state(self) -> Any:
        """The class's own."""
        return self.env.get_state()

    def set_state(self, state: Any) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.env.set_state(state)


class ResumableCartPole(GymnasiumEnv):
    """Gymnasium's vectorised CartPole: one state array and one generator for all lanes."""

    env: CartPoleVectorEnv

    def get_state(self) -> dict[str, Any]:
        """Physics [4, N] float64, steps [N] int32, prev_done [N] bool and the generator."""
        if self.env.state is None:
            raise RuntimeError("reset the environment before asking for its state")
        return {
            "state": self.env.state.copy(),
            "steps": self.env.steps.copy(),
            "prev_done": self.env.prev_done.copy(),
            "reset_bounds": [float(self.env.low), float(self.env.high)],
            "rng": copy.deepcopy(self.env.np_random.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.env.state = np.array(state["state"], np.float64)  # type: ignore[assignment]
        self.env.steps = np.array(state["steps"], np.int32)
        self.env.prev_done = np.array(state["prev_done"], np.bool_)
        self.env.low, self.env.high = state["reset_bounds"]
        self.env.np_random.bit_generator.state = copy.deepcopy(state["rng"])


class ResumableLanes(GymnasiumEnv):
    """Classic-control environments, one object and one generator a lane."""

    env: SyncVectorEnv

    def get_state(self) -> dict[str, Any]:
        """Physics, an array a lane in its own dtype, elapsed [N] int64, done [N] bool, generators."""
        inner: list[Any] = [lane.unwrapped for lane in self.env.envs]
        if any(lane.state is None for lane in inner):
            raise RuntimeError("reset the environment before asking for its state")
        return {
            "state": [np.array(lane.state) for lane in inner],
            "elapsed": np.array([_elapsed(lane) for lane in self.env.envs], np.int64),
            "done": self.env._autoreset_envs.copy(),
            "rng": [copy.deepcopy(lane.np_random.bit_generator.state) for lane in inner],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.env._autoreset_envs = np.array(state["done"], np.bool_)
        for i, lane in enumerate(self.env.envs):
            _set_lane(lane, state["state"][i], int(state["elapsed"][i]), state["rng"][i])


class Replayed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps how the episode has come about: the generator that it began with, and its actions.

    That is the complete state of an environment whose steps are a function of ``np_random`` and the
    actions since the last reset. Going back to it costs as many steps as the episode has had.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._rng: dict[str, Any] | None = None
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        rng = self.unwrapped.np_random if seed is None else seeding.np_random(seed)[0]
        self._rng = dict(rng.bit_generator.state)  # a fresh copy of numpy's
        self._actions = []
        return self.env.reset(seed=seed, **kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        self._actions.append(action.copy())  # a row of the caller's array
        return self.env.step(action)

    def get_state(self) -> dict[str, Any]:
        """The generator as the episode began, and its actions [t, ...]."""
        if self._rng is None:
            raise RuntimeError("reset the environment before asking for its state")
        space = self.action_space
        actions = np.array(self._actions) if self._actions else np.zeros(0, space.dtype)
        return {
            "rng": copy.deepcopy(self._rng),
            "actions": actions.reshape(-1, *(space.shape or ())),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Play the episode again."""
        self.unwrapped.np_random.bit_generator.state = copy.deepcopy(state["rng"])
        self.reset()
        for action in state["actions"]:
            self.step(action)


class FreshWorld(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A new Box2D world for every episode.

    Gymnasium's BipedalWalker goes on with the world of the episodes before, whose solver takes
    contacts in another order: an episode then depends on them, whatever its seed. So each is played
    as in a newly made environment, which is also what Gymnasium's LunarLander does.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        inner: Any = self.unwrapped
        inner._destroy()
        inner.world = type(inner.world)(gravity=inner.world.gravity)
        return self.env.reset(**kwargs)


class ReplayedLanes(GymnasiumEnv):
    """Environments that are a function of ``np_random`` and the actions, one object a lane."""

    env: SyncVectorEnv

    def __init__(self, env: SyncVectorEnv, seed: int, separate_lanes: bool) -> None:
        """``env`` steps lanes that `Replayed` is put around here."""
        env.envs = [Replayed(lane) for lane in env.envs]
        super().__init__(env, seed, separate_lanes)

    def get_state(self) -> dict[str, Any]:
        """An episode's begin and actions for each lane, and done [N] bool."""
        lanes: Any = self.env.envs
        return {
            "lanes": [lane.get_state() for lane in lanes],
            "done": self.env._autoreset_envs.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`: plays every lane's episode again."""
        self.resumed()
        self.env._autoreset_envs = np.array(state["done"], np.bool_)
        lanes: Any = self.env.envs
        for lane, saved in zip(lanes, state["lanes"], strict=True):
            lane.set_state(saved)


def _wrappers(lane: Any) -> dict[type, Any]:
    """The wrappers around one lane, by type."""
    found = {}
    while lane is not lane.unwrapped:
        found[type(lane)] = lane
        lane = lane.env
    return found


def _elapsed(lane: Any) -> int:
    limit = _wrappers(lane).get(TimeLimit)
    return 0 if limit is None else int(limit._elapsed_steps)


def _set_lane(lane: Any, physics: Any, elapsed: int, rng: dict[str, Any]) -> None:
    """Put one lane back: its physics, its clock, its generator, and that it has been reset."""
    inner, wrappers = lane.unwrapped, _wrappers(lane)
    inner.state = np.array(physics)
    inner.np_random.bit_generator.state = copy.deepcopy(rng)
    if isinstance(inner, CartPoleEnv):
        inner.steps_beyond_terminated = None
    if TimeLimit in wrappers:
        wrappers[TimeLimit]._elapsed_steps = elapsed
    if OrderEnforcing in wrappers:
        wrappers[OrderEnforcing]._has_reset = True
