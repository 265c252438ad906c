"""Simulators. ``make`` gives any of them as a Gymnasium vector environment; see `envs.contract`."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from envs import native
from envs.contract import UnsupportedEnv, VectorSimulator
from envs.options import did_you_mean, whole

SIMULATORS: dict[str, str] = {
    "FrozenLake-v1": "tabular",
    "FrozenLake8x8-v1": "tabular",
    "Taxi-v4": "tabular",
    "CliffWalking-v1": "tabular",
    "CliffWalkingSlippery-v1": "tabular",
    "RiverSwim-v0": "tabular",
    "DeepSea-v0": "tabular",
    "Garnet-v0": "tabular",
}
"""Id -> the module of this package that simulates it, which is also the name of its backend.

Every other id that Gymnasium knows belongs to `envs.native`. A new simulator is one line here and
a module with ``make(env_id, num_envs, seed, options)`` and ``time_limit(env_id, options)``.
"""


GYMNASIUM_BACKENDS = ("native", "sync", "async")


def make(
    env_id: str, num_envs: int, seed: int, backend: str = "auto", **options: Any
) -> VectorSimulator:
    """A vector environment of ``num_envs`` lanes that keeps the contract of `envs.contract`.

    The first bare ``reset()`` uses ``seed``, later ones go on with the same streams, and
    ``reset(seed=...)`` starts anew. Arrays that ``reset`` and ``step`` return are the caller's:
    no later step writes to them.

    Args:
        env_id: a name in `SIMULATORS` or a registered Gymnasium id, or ``module:id``, which imports
            the module that registers it.
        num_envs: lanes, at least 1.
        seed: one integer for the whole block, at least 0.
        backend: "auto" or one that `resolve_backend` accepts.
        options: of the environment; ``max_episode_steps`` works everywhere, 0 means no limit.

    Raises:
        UnsupportedEnv: an id, a backend or an option that does not exist (with the nearest one
            that does), spaces other than Discrete and Box, or a package that is not installed.
    """
    whole(env_id, "num_envs", num_envs)
    whole(env_id, "seed", seed, least=0)
    if "max_episode_steps" in options:
        whole(env_id, "max_episode_steps", options["max_episode_steps"], least=0)
    resolved, env_id = resolve_backend(env_id, backend), registered(env_id)
    if resolved in GYMNASIUM_BACKENDS:
        return native.make(env_id, num_envs, seed, resolved, options)
    env: VectorSimulator = _module(resolved).make(env_id, num_envs, seed, options)
    return env


def resolve_backend(env_id: str, backend: str = "auto") -> str:
    """The backend that ``make`` uses: never "auto", and a function of its arguments alone.

    A module of `SIMULATORS` comes first ("tabular"), then the id's own vector class ("native"),
    then one Gymnasium environment a lane ("sync"). "async", a process a lane, is only used on
    request: it pays where one step costs more than about a millisecond.

    Raises:
        UnsupportedEnv: there is no such id, or the id has no such backend.
    """
    offered = _backends(env_id)
    if backend == "auto":
        return offered[0]
    if backend not in offered:
        raise UnsupportedEnv(f"{env_id} has no backend {backend!r}; it has {', '.join(offered)}")
    return backend


def reward_threshold(env_id: str) -> float | None:
    """The mean return at which Gymnasium calls ``env_id`` solved; None where it does not say."""
    _backends(env_id)
    spec = gymnasium.registry.get(registered(env_id))
    return None if spec is None or spec.reward_threshold is None else float(spec.reward_threshold)


def time_limit(env_id: str, **options: Any) -> int:
    """Steps after which episodes of ``env_id`` are truncated; 0 where none is registered."""
    backend = _backends(env_id)[0]
    family = native if backend in GYMNASIUM_BACKENDS else _module(backend)
    limit: int = family.time_limit(registered(env_id), options)
    return limit


def registered(env_id: str) -> str:
    """The id that an environment is registered under; of ``module:id``, imports the module first.

    Raises:
        UnsupportedEnv: there is no such module.
    """
    module, colon, name = env_id.rpartition(":")
    if not colon:
        return env_id
    try:
        importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise UnsupportedEnv(f"{env_id}: {module!r} cannot be imported: {error}") from error
    return name


def _backends(env_id: str) -> list[str]:
    """The backends of ``env_id``, the automatic choice first."""
    env_id = registered(env_id)
    spec: EnvSpec | None = gymnasium.registry.get(env_id)
    offered = [SIMULATORS[env_id]] if env_id in SIMULATORS else []
    if spec is not None:
        # Gymnasium's JAX environments have vector classes that reset within the step
        jax = spec.namespace in ("phys2d", "tabular")
        offered += ["native"] if spec.vector_entry_point and not jax else []
        offered += ["sync", "async"] if spec.entry_point else []
    if not offered:
        hint = did_you_mean(env_id, [*SIMULATORS, *gymnasium.registry])
        raise UnsupportedEnv(f"there is no environment {env_id!r}{hint}")
    return offered


def _module(family: str) -> Any:
    """A module of this package, imported when it is needed: --help shall not wait for numba."""
    return importlib.import_module(f"envs.{family}")
