"""Lanes of a simulator written in JAX: one compiled call steps all of them and resets by a mask."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike

from envs.contract import Array
from envs.simulator import Simulator

View = dict[str, Any]  # "obs" and the facts that describe it, by their names in the contract


@dataclass(frozen=True, eq=False)
class Game:
    """What a suite says of one game: functions of one lane, which can be traced.

    ``init(key)`` gives ``(state, view)`` and ``step(state, action, key)`` gives ``(state, view,
    reward, terminated)``. A state is any pytree; ``step`` neither resets nor counts steps. A view
    has "obs" and the observation's facts. Boolean observations are handed out as uint8. A game is
    itself and no other: who makes one anew has it compiled anew.
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


class Compiled(NamedTuple):
    """A game's two functions for some number of lanes; compiled, they cannot be traced again."""

    begin: Callable[[Any], tuple[Lanes, View]]  # of keys [N, 2] uint32
    step: Callable[
        [Lanes, Any], tuple[Lanes, Seen]
    ]  # of lanes, which it uses up, and actions [N, ...]
    lanes: Lanes  # shapes and dtypes
    names: list[str]  # of the leaves of the game's state
    action_dtype: DTypeLike


@lru_cache(maxsize=32)
def compiled(game: Game, num_envs: int, limit: int) -> Compiled:
    """What steps ``num_envs`` lanes of ``game``; the same for all environments that ask for the same."""
    space = game.action_space
    action_dtype = np.int32 if isinstance(space, spaces.Discrete) else np.float32
    keys = np.zeros((num_envs, 2), np.uint32)
    actions = np.zeros((num_envs, *(space.shape or ())), action_dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which dtypes a suite asks for is not the user's affair
        state = jax.eval_shape(lambda key: game.init(key)[0], keys[0])
        begin = jax.jit(jax.vmap(partial(_begin, game)))
        lanes, _ = jax.eval_shape(begin, keys)
        step = jax.vmap(partial(_step, game, jax.tree.structure(state), limit))
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
        return Compiled(
            begin.lower(keys).compile(),
            jax.jit(step, donate_argnums=0).lower(lanes, actions).compile(),
            lanes,
            [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths],
            action_dtype,
        )


def _begin(game: Game, key: Any) -> tuple[Lanes, View]:
    """One lane's first episode."""
    key, drawn = jax.random.split(key)
    state, view = game.init(drawn)
    leaves = tuple(map(_strong, jax.tree.leaves(state)))
    return Lanes(key, jnp.int32(0), jnp.bool_(False), leaves), view


def _step(game: Game, structure: Any, limit: int, lane: Lanes, action: Any) -> tuple[Lanes, Seen]:
    """One lane's step and reset, of which one counts: the key drawn serves either."""
    key, drawn = jax.random.split(lane.keys)
    state, view, reward, terminated = game.step(
        jax.tree.unflatten(structure, lane.leaves), action, drawn
    )
    first, first_view = game.init(drawn)

    def chosen(reset: Any, step: Any) -> Any:
        return _strong(jnp.where(lane.done, reset, step))

    elapsed = chosen(0, lane.elapsed + 1)
    terminated = terminated & ~lane.done
    at_limit = (elapsed >= limit) & (limit > 0)
    truncated = at_limit & ~terminated & ~lane.done
    leaves = tuple(map(chosen, jax.tree.leaves(first), jax.tree.leaves(state)))
    seen = Seen(
        jax.tree.map(chosen, first_view, view),
        chosen(jnp.float32(0), jnp.float32(reward)),
        terminated,
        truncated,
    )
    return Lanes(key, elapsed, terminated | truncated, leaves), seen


def _strong(value: Any) -> Any:
    """``value`` with a dtype of its own: the type of Python's numbers would change with the first step."""
    array = jnp.asarray(value)
    return jax.lax.convert_element_type(array, array.dtype)


class JaxLanes(Simulator):
    """N lanes of a `Game`, each with a key of its own; observations are those of the game.

    Rewards are float32. A step that reaches ``limit`` (0: never) without a terminal state is
    truncated. Returned arrays are JAX's own memory, not copied and read-only.
    """

    def __init__(self, game: Game, num_envs: int, seed: int, limit: int) -> None:
        # games are shared between environments, what samples from a space is not
        obs_space, action_space = copy.deepcopy((game.observation_space, game.action_space))
        super().__init__(num_envs, seed, obs_space, action_space)
        self.game, self.limit = game, limit
        self._lanes: Lanes | None = None

    @cached_property
    def _compiled(self) -> Compiled:
        """Compiled when it is first needed: who asks for nothing but spaces does not wait."""
        return compiled(self.game, self.num_envs, self.limit)

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes, with keys from ``seeds`` or the keys as they are."""
        keys = self._present().keys if seeds is None else jnp.array(keys_of(seeds))
        self._lanes, view = self._compiled.begin(keys)
        return _handed_over(view)

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes; the facts of the observation are infos."""
        # A copy: JAX may look at the array that it is given, and its owner may write to it.
        given = np.array(actions, self._compiled.action_dtype)
        self._lanes, seen = self._compiled.step(self._present(), given)
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
                name: np.array(leaf)
                for name, leaf in zip(self._compiled.names, lanes.leaves, strict=True)
            },
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`.

        Raises:
            ValueError: it is the state of another game or of another number of lanes.
        """
        names = self._compiled.names
        if set(state["game"]) != set(names):
            raise ValueError(f"the state has {sorted(state['game'])}, not {sorted(names)}")
        leaves = tuple(state["game"][name] for name in names)
        given = Lanes(state["keys"], state["elapsed"], state["done"], leaves)
        for name, got, like in zip(
            ("keys", "elapsed", "done", *names),
            map(np.asarray, jax.tree.leaves(given)),
            jax.tree.leaves(self._compiled.lanes),
            strict=True,
        ):
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


def _handed_over(view: View) -> tuple[Array, dict[str, Any]]:
    """The observation and the facts as numpy arrays on the same memory."""
    facts = {name: np.asarray(array) for name, array in view.items()}
    obs = facts.pop("obs")
    return obs.view(np.uint8) if obs.dtype == np.bool_ else obs, facts
