"""Any observation as one array, any choice of actions as one number: what agents can read and do.

* Tuple, Dict, MultiDiscrete and MultiBinary observations become one row of float32 numbers: the
  parts one after the other in the order of the space, Discrete parts one-hot. Texts are left out.
* Tuple, Dict, MultiDiscrete and MultiBinary actions become one Discrete: every combination has a
  number, the last part counting fastest.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten

from envs.contract import Array, UnsupportedEnv

MOST_ACTIONS = 4096
"""Combinations of actions: more are a search, not a choice of the highest of so many values."""


def usable(env_id: str, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """``env`` with a Discrete or Box observation space and a Discrete or Box action space.

    Raises:
        UnsupportedEnv: a space cannot be brought to that; the message says which part of it.
    """
    if not isinstance(env.observation_space, spaces.Discrete | spaces.Box):
        env = FlatObservation(env_id, env)
    if not isinstance(env.action_space, spaces.Discrete | spaces.Box):
        env = JointAction(env_id, env)
    return env


class FlatObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observations as one row of float32 numbers."""

    def __init__(self, env_id: str, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._parts = _parts(env_id, "observation", env.observation_space)
        self._numbers = _without_texts(env.observation_space, self._parts)
        bounds = [_bounds(space) for space in self._parts.values()]
        low, high = (np.concatenate(side) for side in zip(*bounds, strict=True))
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def reset(self, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._flat(obs), info

    def step(self, action: Any) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._flat(obs), reward, terminated, truncated, info

    def _flat(self, obs: Any) -> Array:
        if isinstance(self._numbers, spaces.Dict):
            obs = {name: obs[name] for name in self._numbers}
        elif isinstance(self._numbers, spaces.Tuple):
            obs = tuple(obs[int(name)] for name in self._parts)
        return np.asarray(flatten(self._numbers, obs), np.float32)


class JointAction(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One Discrete action for every combination of the parts'."""

    def __init__(self, env_id: str, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.action_space
        self._inner, self._sizes, self._starts = space, [], []
        for part in _parts(env_id, "action", space).values():
            sizes, starts = _choices(env_id, part)
            self._sizes += sizes
            self._starts += starts
        count = math.prod(self._sizes)
        if count > MOST_ACTIONS:
            raise UnsupportedEnv(
                f"{env_id}: its actions have {count:,} combinations, more than {MOST_ACTIONS:,}"
            )
        self.action_space = spaces.Discrete(count)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        chosen = np.array(np.unravel_index(int(action), self._sizes)) + self._starts
        return self.env.step(self._unflat(chosen))

    def _unflat(self, chosen: Array) -> Any:
        """The numbers of all parts as the inner space wants them."""
        space = self._inner
        if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
            return chosen.reshape(space.shape).astype(space.dtype)
        values, names = iter(chosen), list(_named(space))
        parts = {name: _take(part, values) for name, part in _named(space).items()}
        if isinstance(space, spaces.Tuple):
            return tuple(parts[name] for name in names)
        return parts


def _take(part: spaces.Space[Any], values: Any) -> Any:
    """The next numbers as one part's action."""
    if isinstance(part, spaces.Discrete):
        return int(next(values))
    count = math.prod(part.shape or ())
    taken = np.array([next(values) for _ in range(count)])
    return taken.reshape(part.shape or ()).astype(part.dtype)


def _named(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of a Tuple (named by their places) or a Dict; any other space is one part."""
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, spaces.Tuple):
        return {str(i): part for i, part in enumerate(space.spaces)}
    return {"": space}


def _parts(env_id: str, which: str, space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts that are numbers, by name.

    Raises:
        UnsupportedEnv: a part is neither numbers nor a text, or there is none but texts.
    """
    simple = spaces.Discrete | spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary
    found: dict[str, spaces.Space[Any]] = {}
    for name, part in _named(space).items():
        if isinstance(part, spaces.Text):
            continue
        if not isinstance(part, simple):
            where = f" ({name!r})" if name else ""
            raise UnsupportedEnv(
                f"{env_id}: its {which} space{where} is a {type(part).__name__}; Box, Discrete, "
                "MultiDiscrete, MultiBinary and a Tuple or Dict of them can be used"
            )
        found[name] = part
    if not found:
        raise UnsupportedEnv(f"{env_id}: its {which} space is {space}: there are no numbers in it")
    return found


def _without_texts(
    space: spaces.Space[Any], parts: dict[str, spaces.Space[Any]]
) -> spaces.Space[Any]:
    if isinstance(space, spaces.Dict):
        return spaces.Dict(parts)
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(list(parts.values()))
    return space


def _bounds(space: spaces.Space[Any]) -> tuple[Array, Array]:
    """Lowest and highest numbers of a part when it is flat; a one-hot part has 0 and 1."""
    if isinstance(space, spaces.Box):
        return space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32)
    size = flatdim(space)
    return np.zeros(size, np.float32), np.ones(size, np.float32)


def _choices(env_id: str, part: spaces.Space[Any]) -> tuple[list[int], list[int]]:
    """How many choices each number of a part has, and where they begin."""
    if isinstance(part, spaces.Discrete):
        return [int(part.n)], [int(part.start)]
    if isinstance(part, spaces.MultiDiscrete):
        return part.nvec.ravel().tolist(), part.start.ravel().tolist()
    if isinstance(part, spaces.MultiBinary):
        count = math.prod(part.shape)
        return [2] * count, [0] * count
    raise UnsupportedEnv(
        f"{env_id}: its action space is partly a {type(part).__name__}: a mix of discrete and "
        "continuous actions cannot be used"
    )
