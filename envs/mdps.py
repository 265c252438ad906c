"""Finite MDPs as arrays: Gymnasium's toy-text tables and three problems from the literature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from envs import native
from envs.contract import Array, FiniteMDP, UnsupportedEnv
from envs.options import reject_unknown, whole


class Layout(NamedTuple):
    """Where the states lie on a grid, for drawing."""

    rows: int
    cols: int
    cell: Array  # [S] int64: row * cols + col; -1 for a state that has no place
    labels: tuple[str, ...]  # of the cells, row by row


def build(env_id: str, options: Mapping[str, Any]) -> tuple[FiniteMDP, Layout | None]:
    """The MDP behind ``env_id`` and, where its states lie on a grid, their layout.

    Raises:
        UnsupportedEnv: an option does not exist or has a value that no table can express.
    """
    if env_id in OWN:
        builder = OWN[env_id]
        reject_unknown(env_id, options, inspect.signature(builder).parameters)
        for option, value in options.items():
            whole(env_id, option, value, least=0 if option in MAY_BE_ZERO else 1)
        return builder(**options)
    return _from_gymnasium(env_id, dict(options))


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """Steps until an episode is truncated; 0 is never."""
    if env_id in OWN:
        default = inspect.signature(OWN[env_id]).parameters["max_episode_steps"].default
        return int(options.get("max_episode_steps", default))
    return native.time_limit(env_id, options)


# Gymnasium


def _from_gymnasium(env_id: str, options: dict[str, Any]) -> tuple[FiniteMDP, Layout | None]:
    """The arrays of a toy-text environment, from the tables that Gymnasium itself samples."""
    if options.get("fickle_passenger"):
        raise UnsupportedEnv(
            f"{env_id}: fickle_passenger changes the destination outside the transition table; "
            "use backend='sync'"
        )
    if "map_name" in options and options["map_name"] is None and options.get("desc") is None:
        raise UnsupportedEnv(f"{env_id}: map_name=None draws a map that no seed decides; pass desc")
    if "render_mode" in options:
        raise UnsupportedEnv(f"{env_id}: render_mode: tables are not drawn; use backend='sync'")
    env: Any = native.scalar(env_id, options).unwrapped
    limit = native.time_limit(env_id, options)
    table = [[env.P[s][a] for a in sorted(env.P[s])] for s in sorted(env.P)]
    return _from_table(table, env.initial_state_distrib, limit), _gymnasium_layout(env)


def _from_table(table: list[list[list[Any]]], rho: Array, limit: int) -> FiniteMDP:
    """``table[s][a]`` is a list of ``(probability, successor, reward, terminated)``."""
    most = max(len(outcomes) for row in table for outcomes in row)
    unused = (0.0, 0, 0.0, False)
    padded = np.array(
        [[outcomes + [unused] * (most - len(outcomes)) for outcomes in row] for row in table],
        np.float64,
    )  # [S, A, Z, 4]; float64 holds state numbers exactly
    probability, successor, reward, terminal = np.moveaxis(padded, -1, 0)
    return FiniteMDP(
        P=probability.copy(),
        successor=successor.astype(np.int64),
        R=reward.copy(),
        terminal=terminal.astype(np.bool_),
        rho=np.array(rho, np.float64),
        time_limit=limit,
    )


def _gymnasium_layout(env: Any) -> Layout | None:
    """FrozenLake's map, or CliffWalking's 4 rows of 12."""
    if hasattr(env, "_cliff"):
        labels = np.where(env._cliff, "C", ".")
        labels.flat[env.start_state_index] = "S"
        labels[-1, -1] = "G"
    elif env.observation_space.n == np.size(env.desc):
        labels = env.desc.astype(str)
    else:
        return None  # Taxi: the map is only a part of the state
    rows, cols = labels.shape
    return Layout(rows, cols, np.arange(rows * cols), tuple(labels.ravel().tolist()))


# From the literature


def river_swim(max_episode_steps: int = 20) -> tuple[FiniteMDP, Layout]:
    """RiverSwim: 6 states in a row, action 0 swims left, 1 right against the current.

    Left always succeeds; right succeeds with 0.3, stays with 0.6 (0.7 in the leftmost state, 0.3 in
    the rightmost) and is carried back otherwise. Left in the leftmost state pays 5, holding out in
    the rightmost 10,000. Episodes begin in state 1 or 2.

    Source: Strehl and Littman 2008, "An analysis of model-based interval estimation for Markov
        decision processes", J. Comput. Syst. Sci. 74(8), figure of RiverSwim. The task is
        continuing there; episodes of 20 steps are Osband et al.'s (2013, arXiv:1306.0940).
    """
    last = 5
    table: list[list[list[Any]]] = []
    for s in range(last + 1):
        left = [(1.0, max(s - 1, 0), 5.0 if s == 0 else 0.0, False)]
        if s == 0:
            right = [(0.7, 0, 0.0, False), (0.3, 1, 0.0, False)]
        elif s == last:
            right = [(0.7, s - 1, 0.0, False), (0.3, s, 10_000.0, False)]
        else:
            right = [(0.1, s - 1, 0.0, False), (0.6, s, 0.0, False), (0.3, s + 1, 0.0, False)]
        table.append([left, right])
    rho = np.array([0, 0.5, 0.5, 0, 0, 0])
    layout = Layout(1, last + 1, np.arange(last + 1), tuple("S" if p else "." for p in rho))
    return _from_table(table, rho, max_episode_steps), layout


def deep_sea(
    size: int = 10, mdp_seed: int = 0, max_episode_steps: int = 0
) -> tuple[FiniteMDP, Layout]:
    """DeepSea: a dive through ``size`` rows, with one treasure in the far corner.

    State ``row * size + column``; each step goes down a row, right or left. Right costs
    0.01 / size; right from the last cell of the last row finds the treasure, 1. Which action is
    right is drawn for every cell by ``mdp_seed``, so that no action is right in general. State
    ``size**2`` is the sea floor, where every episode ends after ``size`` steps.

    Source: Osband et al. 2020, "Behaviour suite for reinforcement learning", arXiv:1908.03568,
        A.6; Osband et al. 2019, arXiv:1703.07608, section 4.
    """
    floor = size * size
    rights = np.random.default_rng(mdp_seed).integers(2, size=(size, size))
    table: list[list[list[Any]]] = []
    for row, col in np.ndindex(size, size):
        ends = row == size - 1
        below = (row + 1) * size
        left = (1.0, floor if ends else below + max(col - 1, 0), 0.0, ends)
        treasure = float(ends and col == size - 1)
        right = (
            1.0,
            floor if ends else below + min(col + 1, size - 1),
            treasure - 0.01 / size,
            ends,
        )
        table.append([[right], [left]] if rights[row, col] == 0 else [[left], [right]])
    table.append([[(1.0, floor, 0.0, True)]] * 2)
    rho = np.zeros(floor + 1)
    rho[0] = 1.0
    labels = ["S", *"." * (floor - 2), "G"] if size > 1 else ["G"]
    layout = Layout(size, size, np.append(np.arange(floor), -1), tuple(labels))
    return _from_table(table, rho, max_episode_steps), layout


def garnet(
    states: int = 50,
    actions: int = 4,
    branching: int = 3,
    mdp_seed: int = 0,
    max_episode_steps: int = 100,
) -> tuple[FiniteMDP, None]:
    """Garnet: a random MDP whose actions each lead to ``branching`` of the states.

    Successors are drawn without replacement, their probabilities are the pieces of [0, 1] between
    branching - 1 uniform cuts, and rewards are standard normal, one a state and action. Episodes
    begin anywhere and never terminate.

    Source: Archibald, McKinnon and Thomas 1995, "On the generation of Markov decision processes",
        J. Oper. Res. Soc. 46(3); the rewards are Bhatnagar et al.'s (2009, Automatica 45(11)).
    """
    if branching > states:
        raise UnsupportedEnv(f"Garnet-v0: branching {branching} is more than the {states} states")
    rng = np.random.default_rng(mdp_seed)
    shape = (states, actions, branching)
    successor = np.empty(shape, np.int64)
    for s, a in np.ndindex(states, actions):
        successor[s, a] = rng.choice(states, branching, replace=False)
    cuts = np.sort(rng.random((states, actions, branching - 1)), axis=2)
    mdp = FiniteMDP(
        P=np.diff(cuts, axis=2, prepend=0.0, append=1.0),
        successor=successor,
        R=np.repeat(rng.standard_normal((states, actions, 1)), branching, axis=2),
        terminal=np.zeros(shape, np.bool_),
        rho=np.full(states, 1 / states),
        time_limit=max_episode_steps,
    )
    return mdp, None


OWN: dict[str, Callable[..., tuple[FiniteMDP, Layout | None]]] = {
    "RiverSwim-v0": river_swim,
    "DeepSea-v0": deep_sea,
    "Garnet-v0": garnet,
}
MAY_BE_ZERO = ("mdp_seed", "max_episode_steps")

assert not OWN.keys() & gymnasium.registry.keys()
