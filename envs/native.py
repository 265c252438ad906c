"""Every Gymnasium id whose spaces `envs.spaces` knows: its own vector class, else one object a lane."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import signal
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from envs.adapter import CheckedLane, GymnasiumEnv
from envs.contract import UnsupportedEnv, VectorSimulator
from envs.mujoco_setup import no_deprecations
from envs.options import reject_unknown
from envs.resume import FreshWorld, resumable
from envs.spaces import usable

BACKENDS = ("native", "sync", "async")
NO_LIMIT = 2**31 - 1  # for vector classes that count steps in an int32 and know no "never"


def backends(env_id: str) -> list[str]:
    """The id's own vector class where it has one, then one object a lane; none for unknown ids."""
    spec: EnvSpec | None = gymnasium.registry.get(env_id)
    if spec is None:
        return []
    # Gymnasium's JAX environments have vector classes that reset within the step
    jax = spec.namespace in ("phys2d", "tabular")
    offered = ["native"] if spec.vector_entry_point and not jax else []
    return offered + (["sync", "async"] if spec.entry_point else [])


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """A vector environment of a Gymnasium id; ``backend`` is native, sync or async."""
    spec = gymnasium.registry[env_id]
    try:
        env = _vector(spec, num_envs, backend, dict(options))
    except (DependencyNotInstalled, ImportError) as error:
        raise UnsupportedEnv(f"{env_id} needs a package that is not installed: {error}") from error
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        env.close()
        raise UnsupportedEnv(
            f"the vector class of {env_id} resets in mode {mode}; use backend='sync'"
        )
    lanes = backend != "native"
    return resumable(env, seed, lanes) or GymnasiumEnv(env, seed, lanes)


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """The option ``max_episode_steps``, else the registered limit; 0 where there is none."""
    limit: int = options.get("max_episode_steps", gymnasium.registry[env_id].max_episode_steps or 0)
    return limit


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """One lane of ``env_id``, as sync and async step it: 0-based Discrete spaces, time limit.

    Raises:
        UnsupportedEnv: an option does not exist, or a space is of a kind that no agent can use.
    """
    return _scalar(gymnasium.registry[env_id], options)


def _scalar(spec: EnvSpec, given: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    env_id, options = spec.id, dict(given)
    _check_options(spec, spec.entry_point, options)
    if options.get("max_episode_steps") == 0:
        options["max_episode_steps"] = -1  # Gymnasium's word for never
    try:
        with no_deprecations():
            env = gymnasium.make(spec, disable_env_checker=True, **options)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UnsupportedEnv(f"{env_id} cannot be made with {options}: {error!r}") from error
    if type(env.unwrapped).__module__ == "gymnasium.envs.box2d.bipedal_walker":
        env = FreshWorld(env)
    env = usable(env_id, env)
    return ZeroBased(env) if _starts(env) != (0, 0) else env


class ZeroBased(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Discrete observations and actions that begin at 0, whatever they begin at inside."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._obs_start, self._action_start = _starts(env)
        if self._obs_start:
            self.observation_space = _zero_based(env.observation_space)
        if self._action_start:
            self.action_space = _zero_based(env.action_space)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._shifted(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        inner = action + self._action_start if self._action_start else action
        obs, reward, terminated, truncated, info = self.env.step(inner)
        return self._shifted(obs), reward, terminated, truncated, info

    def _shifted(self, obs: Any) -> Any:
        return obs - self._obs_start if self._obs_start else obs


def _vector(spec: EnvSpec, num_envs: int, backend: str, options: dict[str, Any]) -> VectorSimulator:
    """Gymnasium's vector environment behind a backend."""
    if backend == "native":
        _check_options(spec, spec.vector_entry_point, options)
        if options.get("max_episode_steps") == 0:
            options["max_episode_steps"] = NO_LIMIT
        return gymnasium.make_vec(
            copy.copy(spec), num_envs, vectorization_mode="vector_entry_point", **options
        )
    if backend == "sync":
        return SyncVectorEnv([partial(_lane, spec, i, options) for i in range(num_envs)])
    # spawn: a fork after torch has started its threads can hang
    lanes = [partial(_process_lane, spec, i, options) for i in range(num_envs)]
    return AsyncVectorEnv(lanes, context="spawn")


def _lane(spec: EnvSpec, lane: int, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    return CheckedLane(_scalar(spec, options), lane)


def _process_lane(spec: EnvSpec, lane: int, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    # A terminal sends Ctrl-C to every process; a lane's ends when its parent says so. Gymnasium makes
    # one more environment in the parent itself, to look at its spaces.
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _lane(spec, lane, options)


def _check_options(spec: EnvSpec, entry_point: Any, options: Mapping[str, Any]) -> None:
    """Refuse options that the class behind ``entry_point`` does not take."""
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(creator).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = {parameter.name for parameter in parameters} - {"num_envs"}
    reject_unknown(spec.id, options, names | {"max_episode_steps"})


def _starts(env: gymnasium.Env[Any, Any]) -> tuple[int, int]:
    """Where the Discrete observations and actions of ``env`` begin; 0 for a Box."""
    obs, action = (int(getattr(s, "start", 0)) for s in (env.observation_space, env.action_space))
    return obs, action


def _zero_based(space: spaces.Space[Any]) -> spaces.Discrete:
    assert isinstance(space, spaces.Discrete)
    return spaces.Discrete(int(space.n))
