"""Lanes of a simulator written in JAX: one compiled call steps all of them and resets by a mask."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.contract import Array
from envs.simulator import Simulator

View = dict[str, Any]  # "obs" and the facts that describe it, by their names in the contract


@dataclass(frozen=True)
class Game:
    """What a suite says of one game: functions of one lane, which can be traced.

    ``init(key)`` gives ``(state, view)`` and ``step(state, action, key)`` gives ``(state, view,
    reward, terminated)``. A state is any pytree; ``step`` neither resets nor counts steps. A view
    has "obs" and the observation's facts. Boolean observations are handed out as uint8.
    """

    observation_space: spaces.Box
    action_space: spaces.Discrete | spaces.Box
    init: Callable[[Any], tuple[Any, View]]
    step: Callable[[Any, Any, Any], tuple[Any, View, Any, Any]]


class Lanes(NamedTuple):
    """All that changes from step to step, with a leading axis of lanes."""

    keys: Any  # [N, 2] uint32
    elapsed: Any  # [N] int32, steps of the episode
    done: Any  # [N] bool, the next step resets
    leaves: tuple[Any, ...]  # of the game's state; flat, because a call passes tuples fastest


class Seen(NamedTuple):
    """What a step shows, each with a leading axis of lanes."""

    view: View
    reward: Any  # float32
    terminated: Any
    truncated: Any


class JaxLanes(Simulator):
    """N lanes of a `Game`, each with a key of its own; observations are those of the game.

    Rewards are float32. A step that reaches ``limit`` (0: never) without a terminal state is
    truncated. Returned arrays are JAX's own memory, not copied and read-only.
    """

    def __init__(self, game: Game, num_envs: int, seed: int, limit: int) -> None:
        super().__init__(num_envs, seed, game.observation_space, game.action_space)
        self.game, self.limit = game, limit
        self._action_dtype = np.int32 if self._check_actions.discrete else np.float32
        key = np.zeros(2, np.uint32)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what suites request of dtypes is not the user's affair
            state = jax.eval_shape(lambda key: game.init(key)[0], key)
            self._treedef = jax.tree.structure(state)
            self._names = [
                jax.tree_util.keystr(path, simple=True, separator=".")
                for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]
            ]
            self._compile()
        self._lanes: Lanes | None = None

    def _compile(self) -> None:
        """Compile for this number of lanes, once: a compiled function cannot be traced again."""
        n, space = self.num_envs, self.single_action_space
        keys = np.zeros((n, 2), np.uint32)
        actions = np.zeros((n, *(space.shape or ())), self._action_dtype)
        begin = jax.jit(jax.vmap(self._begin_lane))
        lanes, _ = jax.eval_shape(begin, keys)
        step = jax.jit(jax.vmap(self._step_lane), donate_argnums=0)
        self._begin: Any = begin.lower(keys).compile()
        self._step: Any = step.lower(lanes, actions).compile()

    def _begin_lane(self, key: Any) -> tuple[Lanes, View]:
        key, drawn = jax.random.split(key)
        state, view = self.game.init(drawn)
        leaves = tuple(map(_strong, jax.tree.leaves(state)))
        return Lanes(key, jnp.int32(0), jnp.bool_(False), leaves), view

    def _step_lane(self, lane: Lanes, action: Any) -> tuple[Lanes, Seen]:
        """Both a reset and a step, of which one counts: the key drawn serves either."""
        key, drawn = jax.random.split(lane.keys)
        stepped = self.game.step(jax.tree.unflatten(self._treedef, lane.leaves), action, drawn)
        state, view, reward, terminated = stepped
        first, first_view = self.game.init(drawn)

        def chosen(reset: Any, step: Any) -> Any:
            return _strong(jnp.where(lane.done, reset, step))

        elapsed = chosen(jnp.int32(0), lane.elapsed + 1)
        leaves = map(chosen, jax.tree.leaves(first), jax.tree.leaves(state))
        reward = chosen(jnp.float32(0), jnp.float32(reward))
        terminated = terminated & ~lane.done
        at_limit = (elapsed >= self.limit) if self.limit else jnp.bool_(False)
        truncated = at_limit & ~terminated & ~lane.done
        after = Lanes(key, elapsed, terminated | truncated, tuple(leaves))
        seen = Seen(jax.tree.map(chosen, first_view, view), reward, terminated, truncated)
        return after, seen

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes, with keys from ``seeds`` or the keys as they are."""
        keys = self._present().keys if seeds is None else jnp.array(keys_of(seeds))
        self._lanes, view = self._begin(keys)
        return _handed_over(view)

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes; the facts of the observation are infos."""
        # A copy: JAX may look at the array that it is given, and its owner may write to it.
        given = np.array(actions, self._action_dtype)
        self._lanes, seen = self._step(self._lanes, given)
        obs, facts = _handed_over(seen.view)
        return (
            obs,
            np.asarray(seen.reward),
            np.asarray(seen.terminated),
            np.asarray(seen.truncated),
            facts,
        )

    def get_state(self) -> dict[str, Any]:
        """Keys [N, 2] uint32, elapsed, done [N] and, by its name, each leaf of the game's state.

        Raises:
            RuntimeError: there has been no reset.
        """
        lanes = self._present()
        return {
            "keys": np.array(lanes.keys),
            "elapsed": np.array(lanes.elapsed),
            "done": np.array(lanes.done),
            "game": {
                name: np.array(leaf) for name, leaf in zip(self._names, lanes.leaves, strict=True)
            },
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`.

        Raises:
            ValueError: it is the state of another game or of another number of lanes.
        """
        if set(state["game"]) != set(self._names):
            raise ValueError(f"the state has {sorted(state['game'])}, not {sorted(self._names)}")
        given = Lanes(
            state["keys"],
            state["elapsed"],
            state["done"],
            tuple(state["game"][name] for name in self._names),
        )
        (wanted, _), _ = self._step.in_avals
        names = ("keys", "elapsed", "done", *self._names)
        for name, array, like in zip(
            names, jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True
        ):
            got = np.asarray(array)
            if got.shape != like.shape or got.dtype != like.dtype:
                raise ValueError(
                    f"{name} of the state is {got.dtype}{got.shape}, not {like.dtype}{like.shape}"
                )
        self.resumed()
        self._lanes = jax.tree.map(jnp.array, given)

    def _present(self) -> Lanes:
        if self._lanes is None:
            raise RuntimeError("reset the environment before asking for its state")
        return self._lanes


def keys_of(seeds: list[int]) -> Array:
    """The keys [N, 2] uint32 of integers: ``jax.random.PRNGKey(seed)`` with all 64 bits of it."""
    words = [(seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF) for seed in seeds]
    return np.array(words, np.uint32)


def _strong(value: Any) -> Any:
    """``value`` with a dtype of its own: Python's numbers would be compiled for a second time."""
    array = jnp.asarray(value)
    return jax.lax.convert_element_type(array, array.dtype)


def _handed_over(view: View) -> tuple[Array, dict[str, Any]]:
    """The observation and the facts as numpy arrays on the same memory."""
    facts = {name: np.asarray(array) for name, array in view.items()}
    obs = facts.pop("obs")
    return obs.view(np.uint8) if obs.dtype == np.bool_ else obs, facts
