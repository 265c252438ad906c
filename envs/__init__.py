"""Simulators. ``make`` gives any of them as a Gymnasium vector environment; see `envs.contract`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium

from envs.contract import UnsupportedEnv, VectorSimulator
from envs.options import did_you_mean, whole
from envs.own import registered as registered  # a part of this package's interface

SIMULATORS: dict[str, str] = {
    "FrozenLake-v1": "tabular",
    "FrozenLake8x8-v1": "tabular",
    "Taxi-v4": "tabular",
    "CliffWalking-v1": "tabular",
    "CliffWalkingSlippery-v1": "tabular",
    "RiverSwim-v0": "tabular",
    "DeepSea-v0": "tabular",
    "Garnet-v0": "tabular",
    "MinAtar/*": "jax_games",
    "pgx/*": "jax_games",
    "gymnax/*": "jax_games",
    "ALE/*": "atari",
    "Acrobot-v1": "classic",
    "MountainCar-v0": "classic",
    "MountainCarContinuous-v0": "classic",
    "Pendulum-v1": "classic",
    "TMaze-v0": "memory",
    "popgym-*": "memory",
    "HalfCheetah-v5": "physics",
    "Hopper-v5": "physics",
    "Walker2d-v5": "physics",
    "Ant-v5": "physics",
    "Humanoid-v5": "physics",
    "HumanoidStandup-v5": "physics",
    "Swimmer-v5": "physics",
    "Reacher-v5": "physics",
    "Pusher-v5": "physics",
    "InvertedPendulum-v5": "physics",
    "InvertedDoublePendulum-v5": "physics",
    "MiniGrid-*": "grid",
    "BabyAI-*": "grid",
    "dm_control/*": "control_suite",
}
"""Id -> the module of this package that simulates it; ``ALE/*`` stands for all ids that begin so.

Every other id that Gymnasium knows belongs to `envs.native`. A new simulator is one line here and a
module with

* ``backends(env_id)``: names of what can simulate it, the automatic choice first; "native", "sync"
  and "async" are Gymnasium's own, by `envs.native`;
* ``make(env_id, num_envs, seed, backend, options)``, where the backend is one of them;
* ``time_limit(env_id, options)``: steps until an episode is truncated, 0 for never;
* ``scalar(env_id, options)``, where `envs.native.scalar` would not do: one Gymnasium environment
  that takes ``render_mode``, for `runners.watch`.
"""


def make(
    env_id: str, num_envs: int, seed: int, backend: str = "auto", **options: Any
) -> VectorSimulator:
    """A vector environment of ``num_envs`` lanes that keeps the contract of `envs.contract`.

    The first bare ``reset()`` uses ``seed``, later ones go on with the same streams, and
    ``reset(seed=...)`` starts anew. Arrays that ``reset`` and ``step`` return are the caller's:
    no later step writes to them.

    Args:
        env_id: a name in `SIMULATORS` or a registered Gymnasium id, or one's own: ``module:id``,
            which imports the module that registers it, or ``path.py:Class``.
        num_envs: lanes, at least 1.
        seed: one integer for the whole block, at least 0.
        backend: "auto" or one that `resolve_backend` accepts.
        options: of the environment; ``max_episode_steps`` works everywhere, 0 means no limit but one that
            the environment has built in (popgym).

    Raises:
        UnsupportedEnv: an id, a backend or an option that does not exist (with the nearest one
            that does), spaces other than Discrete and Box, or a package that is not installed.
    """
    whole(env_id, "num_envs", num_envs)
    whole(env_id, "seed", seed, least=0)
    if "max_episode_steps" in options:
        whole(env_id, "max_episode_steps", options["max_episode_steps"], least=0)
    resolved, env_id = resolve_backend(env_id, backend), registered(env_id)
    env: VectorSimulator = _family(env_id).make(env_id, num_envs, seed, resolved, options)
    return env


def resolve_backend(env_id: str, backend: str = "auto") -> str:
    """The backend that ``make`` uses: never "auto", and a function of its arguments alone.

    A simulator of the lab's own comes first (as "tabular"), then the id's own vector class
    ("native"), then one Gymnasium environment a lane ("sync"). "async", a process a lane, is only
    used on request: it pays where one step costs more than about a millisecond.

    Raises:
        UnsupportedEnv: there is no such id, or the id has no such backend.
    """
    offered = backends(env_id)
    if backend == "auto":
        return offered[0]
    if backend not in offered:
        raise UnsupportedEnv(f"{env_id} has no backend {backend!r}; it has {', '.join(offered)}")
    return backend


def reward_threshold(env_id: str) -> float | None:
    """The mean return at which Gymnasium calls ``env_id`` solved; None where it does not say."""
    backends(env_id)
    spec = gymnasium.registry.get(registered(env_id))
    return None if spec is None or spec.reward_threshold is None else float(spec.reward_threshold)


def time_limit(env_id: str, **options: Any) -> int:
    """Steps after which episodes of ``env_id`` are truncated; 0 where none is registered."""
    backends(env_id)
    name = registered(env_id)
    limit: int = _family(name).time_limit(name, options)
    return limit


def scalar(env_id: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One lane of ``env_id`` as a Gymnasium environment, which can be rendered.

    Raises:
        UnsupportedEnv: an option does not exist, or nothing simulates a single lane.
    """
    backends(env_id)
    name = registered(env_id)
    env: gymnasium.Env[Any, Any] = _family(name).scalar(name, options)
    return env


def backends(env_id: str) -> Sequence[str]:
    """What can simulate ``env_id``, the automatic choice first.

    Raises:
        UnsupportedEnv: there is no such id.
    """
    name = registered(env_id)
    offered: Sequence[str] = _family(name).backends(name)
    if not offered:
        hint = did_you_mean(name, [*SIMULATORS, *gymnasium.registry])
        raise UnsupportedEnv(f"there is no environment {name!r}{hint}")
    return offered


def family(env_id: str) -> str:
    """The module of this package that simulates ``env_id``."""
    if env_id in SIMULATORS:
        return SIMULATORS[env_id]
    for key, module in SIMULATORS.items():
        if key.endswith("*") and env_id.startswith(key[:-1]):
            return module
    return "native"


def _family(env_id: str) -> Any:
    """That module, imported when it is needed: --help shall not wait for numba."""
    return importlib.import_module(f"envs.{family(env_id)}")
