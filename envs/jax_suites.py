"""What pgx and gymnax say of their games, in the form that `envs.jax_lanes` steps."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.jax_lanes import Game, View
from envs.options import reject_unknown

NEVER = 2**31 - 1  # the largest limit that gymnax's int32 clocks can be compared with


@cache
def minatar_game(name: str, sticky_action_prob: float) -> Game:
    """MinAtar's game ``name``, for example "space_invaders", from pgx."""
    module = importlib.import_module(f"pgx.minatar.{name}")
    cls = getattr(module, f"MinAtar{name.title().replace('_', '')}")
    env = cls(sticky_action_prob=sticky_action_prob)

    def init(key: Any) -> tuple[Any, View]:
        return _unseen(env.init(key))

    def step(state: Any, action: Any, key: Any) -> tuple[Any, View, Any, Any]:
        after = env.step(state, action, key)
        if name == "seaquest":
            after = _repaired(state, after)
        return *_unseen(after), after.rewards[0], after.terminated

    def _unseen(state: Any) -> tuple[Any, View]:
        return state.replace(observation=None), {"obs": state.observation}

    return Game(*_spaces(env, init), init, step)


def _repaired(before: Any, after: Any) -> Any:
    """Seaquest's state ``after`` a step of pgx 2.6, as MinAtar 1.0.15 would have it.

    pgx keeps bullets that have left the screen, which stop those behind them in its list and come
    back into view at the other side; speeds enemies up at the first, third, ... surfacing where
    MinAtar does at the second, fourth, ...; and lets the player live one step longer without oxygen.
    """
    bullets = after._e_bullets
    gone = (bullets[:, 0] < 0) | (bullets[:, 0] > 9)
    stay_first = jnp.argsort(gone, stable=True)
    bullets = jnp.where(gone[:, None], -1, bullets)[stay_first]
    shown = jnp.zeros((10, 10), bool).at[bullets[:, 1], bullets[:, 0]].max(~gone[stay_first])
    ramped = after._ramp_index > before._ramp_index
    faster = ramped & (before._move_speed > 2) & (before._ramp_index % 2 == 1)
    terminated = after.terminated | (before._oxygen <= 0)
    obs = after.observation.at[:, :, 4].set(shown)
    obs = obs.at[9, :, 7].set(obs[9, :, 7] & (after._oxygen > 0))
    return after.replace(
        observation=obs,
        terminated=terminated,
        _terminal=terminated,
        _e_bullets=bullets,
        _move_speed=before._move_speed - faster,
    )


@cache
def pgx_game(name: str) -> Game:
    """The board or card game ``name`` of pgx.

    The observation is that of the side to move, the reward that of the player who moved.
    """
    env = importlib.import_module("pgx").make(name)

    def init(key: Any) -> tuple[Any, View]:
        return _unseen(env.init(key))

    def step(state: Any, action: Any, key: Any) -> tuple[Any, View, Any, Any]:
        after = env.step(state, action, key)
        return *_unseen(after), after.rewards[state.current_player], after.terminated

    def _unseen(state: Any) -> tuple[Any, View]:
        view = {
            "obs": state.observation,
            "action_mask": state.legal_action_mask,
            "to_play": state.current_player,
        }
        return state.replace(observation=None), view

    return Game(*_spaces(env, init), init, step)


def _spaces(env: Any, init: Any) -> tuple[spaces.Box, spaces.Discrete]:
    return _observed(init), spaces.Discrete(env.num_actions)


def _observed(init: Any) -> spaces.Box:
    """The space of what ``init`` shows: truth values become uint8 of 0 and 1, numbers have no range.

    pgx declares none, and the observations of gymnax do not all keep to those that it declares.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `envs.jax_lanes.compiled`
        obs = jax.eval_shape(lambda key: init(key)[1], np.zeros(2, np.uint32))["obs"]
    if obs.dtype == np.bool_:
        return spaces.Box(0, 1, obs.shape, np.uint8)
    if np.issubdtype(obs.dtype, np.integer):
        info = np.iinfo(obs.dtype)
        return spaces.Box(int(info.min), int(info.max), obs.shape, obs.dtype)
    return spaces.Box(-np.inf, np.inf, obs.shape, obs.dtype)


@cache
def gymnax_game(env_id: str, options: tuple[tuple[str, Any], ...], limit: int) -> Game:
    """The game of ``env_id``, gymnax/NAME, which ends by its own rules alone.

    ``options`` are parameters of the game or of its constructor. Its ``done`` also tells of its
    limit of steps; it is stepped with one that is never reached for its state and ends, and with
    ``limit`` for its observation, which shows the share of time that is left in some games.
    """
    env, params = _made(env_id, dict(options))
    endless = params.replace(max_steps_in_episode=NEVER)
    limited = params.replace(max_steps_in_episode=limit) if limit else params

    def init(key: Any) -> tuple[Any, View]:
        obs, state = env.reset_env(key, limited)
        return state, {"obs": obs}

    def step(state: Any, action: Any, key: Any) -> tuple[Any, View, Any, Any]:
        obs, *_ = env.step_env(key, state, action, limited)
        _, after, reward, done, _ = env.step_env(key, state, action, endless)
        return after, {"obs": obs}, reward, done

    action = env.action_space(limited)
    if hasattr(action, "n"):
        return Game(_observed(init), spaces.Discrete(int(action.n)), init, step)
    low, high = (np.broadcast_to(bound, action.shape) for bound in (action.low, action.high))
    actions = spaces.Box(np.float32(low), np.float32(high), action.shape, np.float32)
    return Game(_observed(init), actions, init, step)


def _made(env_id: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The environment and its parameters with ``options`` in the one or the other."""
    gymnax = importlib.import_module("gymnax")
    name = env_id.removeprefix("gymnax/")
    env, params = gymnax.make(name)
    of_params = {field.name for field in fields(params)} - {"max_steps_in_episode"}
    of_class = set(inspect.signature(type(env)).parameters)
    reject_unknown(env_id, options, of_params | of_class | {"max_episode_steps"})
    given = {key: value for key, value in options.items() if key in of_class}
    if given:
        env, params = gymnax.make(name, **given)
    return env, params.replace(**{key: options[key] for key in of_params & set(options)})
