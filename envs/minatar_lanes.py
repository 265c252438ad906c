"""MinAtar's own games, one Python object a lane."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.contract import Array
from envs.simulator import Simulator

_NO_STATE = ("channels", "action_map", "ramping", "random")  # of a game's attributes


class MinAtarLanes(Simulator):
    """N games of the package minatar; observations [N, 10, 10, C] uint8, rewards float32.

    A step that reaches ``limit`` (0: never) without a terminal state is truncated. Returned arrays
    are fresh at every step. There are no infos.
    """

    def __init__(self, make_game: Callable[[], Any], num_envs: int, seed: int, limit: int) -> None:
        """``make_game`` makes a ``minatar.Environment``."""
        self.games = [make_game() for _ in range(num_envs)]
        self.actions = [int(action) for action in self.games[0].minimal_action_set()]
        space = spaces.Box(0, 1, tuple(self.games[0].state_shape()), np.uint8)
        super().__init__(num_envs, seed, space, spaces.Discrete(len(self.actions)))
        self.limit = limit
        self.elapsed = np.zeros(num_envs, np.int64)
        self.done = np.zeros(num_envs, np.bool_)

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes."""
        for lane, game in enumerate(self.games):
            if seeds is not None:
                game.seed(seeds[lane])
                game.last_action = 0
            game.reset()
        self.elapsed[:], self.done[:] = 0, False
        return self._observed(), {}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes."""
        reward = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, np.bool_)
        for lane, game in enumerate(self.games):
            if self.done[lane]:
                game.reset()
            else:
                action = self.actions[actions[lane]]
                reward[lane], terminated[lane] = game.act(action)
        self.elapsed = np.where(self.done, 0, self.elapsed + 1)
        at_limit = (self.elapsed >= self.limit) & (self.limit > 0)
        truncated = at_limit & ~terminated & ~self.done
        self.done = terminated | truncated
        return self._observed(), reward, terminated, truncated, {}

    def get_state(self) -> dict[str, Any]:
        """Elapsed and done [N], and of each lane its game's attributes, last action and generator."""
        return {
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "lanes": [
                {
                    "game": _plain({k: v for k, v in vars(game.env).items() if k not in _NO_STATE}),
                    "last_action": int(game.last_action),
                    "rng": copy.deepcopy(game.random.get_state(legacy=False)),
                }
                for game in self.games
            ],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`.

        Raises:
            ValueError: it is the state of another game or of another number of lanes.
        """
        if len(state["lanes"]) != self.num_envs:
            raise ValueError(f"the state has {len(state['lanes'])} lanes, not {self.num_envs}")
        own = set(vars(self.games[0].env)) - set(_NO_STATE)
        if set(state["lanes"][0]["game"]) != own:
            raise ValueError(
                f"the state has {sorted(state['lanes'][0]['game'])}, not {sorted(own)}"
            )
        self.resumed()
        self.elapsed, self.done = state["elapsed"].copy(), state["done"].copy()
        for game, lane in zip(self.games, state["lanes"], strict=True):
            vars(game.env).update(copy.deepcopy(lane["game"]))
            game.last_action = lane["last_action"]
            game.random = game.env.random = np.random.RandomState()
            game.random.set_state(lane["rng"])

    def _observed(self) -> Array:
        return np.stack([game.state() for game in self.games]).view(np.uint8)


def _plain(value: Any) -> Any:
    """A copy in which numpy's numbers are Python's, so that a file without pickle can hold it."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value
