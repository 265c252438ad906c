"""Every Gymnasium id whose spaces `envs.spaces` knows: its own vector class, else one object a lane."""

from __future__ import annotations

import copy
import inspect
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.adapter import CheckedLane, GymnasiumEnv
from envs.contract import LaneError, UnsupportedEnv, VectorSimulator
from envs.lane_processes import LaneProcesses
from envs.mujoco_setup import no_deprecations
from envs.options import reject_unknown
from envs.packages import install_line
from envs.parameters import parameters, take
from envs.resume import FreshWorld, resumable
from envs.spaces import usable
from envs.with_parent import end_with_parent

BACKENDS = ("native", "sync", "async")
Dress = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]
"""What a family puts around each lane; it has to be picklable, for a process a lane."""

EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "phys2d": "jax", "tabular": "jax"}
"""Part of gymnasium.envs -> the extra that has the packages that it needs."""

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
    env_id: str,
    num_envs: int,
    seed: int,
    backend: str,
    options: Mapping[str, Any],
    dress: Dress | None = None,
) -> VectorSimulator:
    """A vector environment of a Gymnasium id; ``backend`` is native, sync or async.

    ``dress`` is applied to each lane of sync and async, before its spaces are looked at.
    """
    env = _vector(gymnasium.registry[env_id], num_envs, backend, dict(options), dress)
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        env.close()
        raise UnsupportedEnv(
            f"the vector class of {env_id} resets in mode {mode}; "
            f"{_other_way(env_id, f'it has to be {AutoresetMode.NEXT_STEP}')}"
        )
    starts = _starts(env.single_observation_space, env.single_action_space)
    if starts != (0, 0):
        env.close()
        raise UnsupportedEnv(
            f"the vector class of {env_id} counts observations from {starts[0]} and actions from "
            f"{starts[1]}; {_other_way(env_id, 'both have to begin at 0')}"
        )
    # a class says so itself; an object a lane is separate
    lanes = backend != "native" or bool(getattr(env, "separate_lanes", False))
    return resumable(env, seed, lanes) or GymnasiumEnv(env, seed, lanes)


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """The option ``max_episode_steps``, else the registered limit; 0 where there is none."""
    limit: int = options.get("max_episode_steps", gymnasium.registry[env_id].max_episode_steps or 0)
    return limit


def scalar(
    env_id: str, options: Mapping[str, Any], dress: Dress | None = None
) -> gymnasium.Env[Any, Any]:
    """One lane of ``env_id``, as sync and async step it: 0-based Discrete spaces, time limit.

    Raises:
        UnsupportedEnv: an option does not exist, a space is of a kind that no agent can use, a package
            is missing, or the environment cannot be made.
    """
    return _scalar(gymnasium.registry[env_id], options, dress)


def _scalar(
    spec: EnvSpec, given: Mapping[str, Any], dress: Dress | None
) -> gymnasium.Env[Any, Any]:
    env_id, options = spec.id, dict(given)
    if spec.entry_point is None:
        raise UnsupportedEnv(f"{env_id} has a vector class alone: nothing simulates a single lane")
    with _one_line(spec, options), no_deprecations():
        values = take(env_id, options)
        _check_options(spec, spec.entry_point, options)
        if options.get("max_episode_steps") == 0:
            options["max_episode_steps"] = -1  # Gymnasium's word for never
        env = gymnasium.make(spec, disable_env_checker=True, **options)
        if values:
            parameters(env_id).set(env.unwrapped, values)
        env = dress(env) if dress else env
    if type(env.unwrapped).__module__ == "gymnasium.envs.box2d.bipedal_walker":
        env = FreshWorld(env)
    env = usable(env_id, env)
    shifted = _starts(env.observation_space, env.action_space) != (0, 0)
    return ZeroBased(env) if shifted else env


class ZeroBased(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Discrete observations and actions that begin at 0, whatever they begin at inside."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._obs_start, self._action_start = _starts(env.observation_space, env.action_space)
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


def _vector(
    spec: EnvSpec, num_envs: int, backend: str, options: dict[str, Any], dress: Dress | None
) -> VectorSimulator:
    """Gymnasium's vector environment behind a backend."""
    if backend == "native":
        with _one_line(spec, options):
            values = take(spec.id, options)
            _check_options(spec, spec.vector_entry_point, options)
            if options.get("max_episode_steps") == 0:
                options["max_episode_steps"] = NO_LIMIT
            env = gymnasium.make_vec(
                copy.copy(spec), num_envs, vectorization_mode="vector_entry_point", **options
            )
            if values:
                parameters(spec.id).set(env.unwrapped, values)
            return env
    if backend == "sync":
        return SyncVectorEnv([partial(_lane, spec, i, options, dress) for i in range(num_envs)])
    maker = os.getpid()
    lanes = [partial(_process_lane, maker, spec, i, options, dress) for i in range(num_envs)]
    try:
        return LaneProcesses(lanes)
    except LaneError as error:
        raise UnsupportedEnv(f"{spec.id} cannot be made: {error}") from error


def _lane(
    spec: EnvSpec, lane: int, options: Mapping[str, Any], dress: Dress | None
) -> gymnasium.Env[Any, Any]:
    return CheckedLane(_scalar(spec, options, dress), lane)


def _process_lane(
    maker: int, spec: EnvSpec, lane: int, options: Mapping[str, Any], dress: Dress | None
) -> gymnasium.Env[Any, Any]:
    # A terminal sends Ctrl-C to every process; a lane's ends when its parent says so, or with it, though it
    # hang in a step. Gymnasium makes one more environment in the parent itself, to look at its spaces.
    if os.getpid() != maker:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent(maker)
    return _lane(spec, lane, options, dress)


@contextmanager
def _one_line(spec: EnvSpec, options: Mapping[str, Any]) -> Iterator[None]:
    """Whatever the making of an environment raises becomes one line that says what is wrong."""
    try:
        yield
    except UnsupportedEnv:
        raise
    except (DependencyNotInstalled, ImportError) as error:
        raise UnsupportedEnv(_missing(spec, error)) from error
    except Exception as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and unknown and unknown[1] in options:
            raise UnsupportedEnv(f"{spec.id} has no option {unknown[1]!r}") from error
        raise UnsupportedEnv(f"{spec.id} cannot be made with {options}: {error!r}") from error


def _missing(spec: EnvSpec, error: Exception) -> str:
    """What to install, where a package that the environment needs is not there."""
    entry_point = spec.entry_point or spec.vector_entry_point
    part = re.match(r"gymnasium\.envs\.(\w+)", entry_point if isinstance(entry_point, str) else "")
    extra = EXTRAS.get(part[1]) if part else None
    if extra is None:
        return f"{spec.id} needs a package that is not installed: {error}"
    cause = error if isinstance(error, ImportError) else error.__cause__
    package = getattr(cause, "name", None) or f"the extra {extra}"
    return f"{spec.id} needs {package}, which is not installed: {install_line(extra)}"


def _other_way(env_id: str, needed: str) -> str:
    """Another backend where there is one; else what its class needs."""
    others = [name for name in backends(env_id) if name != "native"]
    return f"use backend={others[0]!r}" if others else needed


def _check_options(spec: EnvSpec, entry_point: Any, options: Mapping[str, Any]) -> None:
    """Refuse options that the class behind ``entry_point`` does not take."""
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    arguments = inspect.signature(creator).parameters.values()
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
        return
    names = {argument.name for argument in arguments} - {"num_envs"}
    names |= {"max_episode_steps", *parameters(spec.id).names}
    reject_unknown(spec.id, options, names)


def _starts(obs: spaces.Space[Any], action: spaces.Space[Any]) -> tuple[int, int]:
    """Where Discrete observations and actions begin; 0 for a Box."""
    return int(getattr(obs, "start", 0)), int(getattr(action, "start", 0))


def _zero_based(space: spaces.Space[Any]) -> spaces.Discrete:
    assert isinstance(space, spaces.Discrete)
    return spaces.Discrete(int(space.n))
