"""Finite MDPs stepped by numba from arrays, bit for bit as Gymnasium steps them.

Gymnasium's toy-text environments draw one uniform a step and one a reset, and take the first
outcome whose cumulative probability exceeds it. The kernels here draw the same numbers in the same
order, so that one lane is Gymnasium's environment with the same seed; N lanes draw from the same
generator in lane order.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding

from envs import mdps, native
from envs.contract import Array, FiniteMDP, UnsupportedEnv, VectorSimulator
from envs.kernel import inlined, kernel
from envs.simulator import Simulator


def backends(env_id: str) -> list[str]:
    """The tables first; where Gymnasium has the environment, its own classes too."""
    return ["tabular", *native.backends(env_id)]


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """The table-driven simulator of ``env_id``, or Gymnasium's."""
    if backend in native.BACKENDS:
        return native.make(env_id, num_envs, seed, backend, options)
    mdp, layout = mdps.build(env_id, options)
    return TabularVectorEnv(mdp, num_envs, seed, layout)


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """Gymnasium's environment, which can be rendered.

    Raises:
        UnsupportedEnv: Gymnasium has none.
    """
    if not native.backends(env_id):
        raise UnsupportedEnv(f"{env_id}: it has no renderer")
    return native.scalar(env_id, options)


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """Steps until an episode is truncated; 0 is never."""
    return mdps.time_limit(env_id, options)


class Tables(NamedTuple):
    """A `FiniteMDP` laid out for sampling; contiguous arrays that kernels only read.

    The outcome drawn by u is the number of ``cumulative`` entries that are at most u: counting has
    no branch to mispredict, and is a third faster than a search on FrozenLake.
    """

    cumulative: Array  # [S, A, Z - 1] float64; the last outcome needs none
    successor: Array  # [S, A, Z] int64
    reward: Array  # [S, A, Z] float64
    terminal: Array  # [S, A, Z] bool
    rho_cumulative: Array  # [S] float64
    time_limit: int  # 0: never


def tables_of(mdp: FiniteMDP) -> Tables:
    """The sampling tables of ``mdp``."""
    cumulative = np.cumsum(mdp.P, axis=2)
    outcomes = [mdp.successor, mdp.R, mdp.terminal]
    if (cumulative[:, :, -1] < 1).any():
        # Where rounding leaves the sum below 1, a u above it draws Gymnasium's argmax of nothing,
        # outcome 0: append it as the outcome beyond the last.
        outcomes = [np.concatenate([array, array[:, :, :1]], axis=2) for array in outcomes]
    else:
        cumulative = cumulative[:, :, :-1]
    successor, reward, terminal = outcomes
    return Tables(
        np.ascontiguousarray(cumulative),
        np.ascontiguousarray(successor, np.int64),
        np.ascontiguousarray(reward, np.float64),
        np.ascontiguousarray(terminal, np.bool_),
        np.cumsum(mdp.rho),
        mdp.time_limit,
    )


@inlined()
def first_state(tables: Tables, u: float) -> int:
    """The first state of an episode, drawn by ``u`` in [0, 1)."""
    state: int = np.searchsorted(tables.rho_cumulative, u, side="right")  # type: ignore[assignment]
    return state if state < tables.rho_cumulative.size else 0


@inlined()
def outcome(tables: Tables, u: float, state: int, action: int) -> tuple[int, float, bool]:
    """``(successor, reward, terminated)`` of ``action`` in ``state``, drawn by ``u`` in [0, 1)."""
    z = 0
    for i in range(tables.cumulative.shape[2]):
        z += tables.cumulative[state, action, i] <= u
    return (
        tables.successor[state, action, z],
        tables.reward[state, action, z],
        tables.terminal[state, action, z],
    )


@inlined()
def sample_reset(tables: Tables, rng: np.random.Generator) -> int:
    """The first state of an episode; draws one number."""
    return first_state(tables, rng.random())


@inlined()
def sample_step(
    tables: Tables, rng: np.random.Generator, state: int, action: int
) -> tuple[int, float, bool]:
    """``(successor, reward, terminated)``; draws one number."""
    return outcome(tables, rng.random(), state, action)


@kernel()
def _step_lanes(
    tables: Tables,
    uniform: Array,  # [N] float64, one draw a lane
    action: Array,  # [N] int64
    state: Array,  # [N] int64; this and the rest are written
    elapsed: Array,  # [N] int64
    done: Array,  # [N] bool
    reward: Array,  # [N] float64
    terminated: Array,  # [N] bool
    truncated: Array,  # [N] bool
) -> None:
    """Step all lanes; a lane behind an end begins a new episode."""
    for lane in range(state.size):
        if done[lane]:
            state[lane] = first_state(tables, uniform[lane])
            elapsed[lane] = 0
            reward[lane], terminated[lane], truncated[lane] = 0.0, False, False
        else:
            state[lane], reward[lane], terminated[lane] = outcome(
                tables, uniform[lane], state[lane], action[lane]
            )
            elapsed[lane] += 1
            truncated[lane] = 0 < tables.time_limit <= elapsed[lane]
        done[lane] = terminated[lane] or truncated[lane]


class TabularVectorEnv(Simulator):
    """N lanes of a finite MDP; observations are state numbers [N] int64, rewards float64.

    One generator serves all lanes. Like Gymnasium's TimeLimit, a step that ends an episode at the
    limit is both terminated and truncated. Returned arrays are fresh at every step. There are no
    infos.
    """

    separate_lanes = False

    def __init__(
        self, mdp: FiniteMDP, num_envs: int, seed: int, layout: mdps.Layout | None = None
    ) -> None:
        obs_space, action_space = spaces.Discrete(mdp.num_states), spaces.Discrete(mdp.num_actions)
        super().__init__(num_envs, seed, obs_space, action_space)
        self.mdp, self.layout = mdp, layout
        self.tables = tables_of(mdp)
        self.state = np.zeros(num_envs, np.int64)
        self.elapsed = np.zeros(num_envs, np.int64)
        self.done = np.zeros(num_envs, np.bool_)

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """Draw a first state for every lane."""
        if seeds is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seeds[0])
        for lane, u in enumerate(self.np_random.random(self.num_envs)):
            self.state[lane] = first_state(self.tables, u)
        self.elapsed[:] = 0
        self.done[:] = False
        return self.state.copy(), {}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: ``(obs, reward, terminated, truncated, {})``, each [N]."""
        # Drawn here: handing a Generator to a kernel costs 14 µs a call, an array next to nothing.
        uniform = self.np_random.random(self.num_envs)
        reward = np.empty(self.num_envs)
        terminated, truncated = np.empty((2, self.num_envs), np.bool_)
        _step_lanes(
            self.tables,
            uniform,
            actions,
            self.state,
            self.elapsed,
            self.done,
            reward,
            terminated,
            truncated,
        )
        return self.state.copy(), reward, terminated, truncated, {}

    def get_state(self) -> dict[str, Any]:
        """State, elapsed and done of all lanes, [N] each, and the generator."""
        return {
            "state": self.state.copy(),
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "rng": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.state[:] = state["state"]
        self.elapsed[:] = state["elapsed"]
        self.done[:] = state["done"]
        self.np_random.bit_generator.state = copy.deepcopy(state["rng"])
