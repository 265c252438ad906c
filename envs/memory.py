"""Tasks that nobody solves without a memory: a T-maze of our own, and those of the package popgym."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import seeding

from envs import native
from envs.contract import Array, UnsupportedEnv, VectorSimulator
from envs.options import reject_unknown, whole
from envs.packages import require
from envs.simulator import Simulator

LENGTH = 10
NORTH, EAST, SOUTH, WEST = range(4)
SIGN_NORTH, SIGN_SOUTH, CORRIDOR, JUNCTION = range(4)
SIGHTS = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)


def backends(env_id: str) -> list[str]:
    """One kernel of numpy for the T-maze; one of popgym's objects a lane.

    Raises:
        UnsupportedEnv: popgym is not installed.
    """
    if env_id == "TMaze-v0":
        return ["batched"]
    require(env_id, "popgym", "memory")  # registers its ids
    return native.backends(env_id)


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """The T-maze, or a popgym id by Gymnasium's lanes.

    Raises:
        UnsupportedEnv: an option does not exist or has a wrong value.
    """
    if env_id == "TMaze-v0":
        length = _length(options)
        return TMaze(num_envs, seed, length, time_limit(env_id, options))
    _reject_ignored(env_id, options)
    return native.make(env_id, num_envs, seed, backend, options)


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """One lane of a popgym id.

    Raises:
        UnsupportedEnv: an option does not exist, or it is the T-maze, which cannot be rendered.
    """
    if env_id == "TMaze-v0":
        raise UnsupportedEnv(f"{env_id}: it has no renderer")
    _reject_ignored(env_id, options)
    return native.scalar(env_id, options)


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """Steps until an episode is truncated; 0 where none is registered (popgym's end by themselves)."""
    if env_id == "TMaze-v0":
        return int(options.get("max_episode_steps", 10 * _length(options)))
    return native.time_limit(env_id, options)


def _length(options: Mapping[str, Any]) -> int:
    reject_unknown("TMaze-v0", options, ("length", "max_episode_steps"))
    return whole("TMaze-v0", "length", options.get("length", LENGTH))


def _reject_ignored(env_id: str, options: Mapping[str, Any]) -> None:
    """Refuse what some classes of popgym take as ``**kwargs`` and then never look at."""
    creator = load_env_creator(str(gymnasium.registry[env_id].entry_point))
    kinds = [parameter.kind for parameter in inspect.signature(creator).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        reject_unknown(env_id, options, ("max_episode_steps",))


class TMaze(Simulator):
    """The T-maze of Bakker, "Reinforcement Learning with Long Short-Term Memory", NIPS 14 (2001).

    A corridor of ``length`` cells leads east to a junction. In the first cell the agent sees a sign,
    011 or 110, that tells whether the goal is north or south of the junction; in the corridor it
    sees 101, at the junction 010. Moving to the goal yields 4, to the other side -0.1, and either
    ends the episode; a move into a wall yields -0.1 and leaves the agent where it is; all other moves
    yield 0. The best return is 4, after ``length`` moves east and one turn. Actions are 0 north, 1
    east, 2 south, 3 west.

    Chosen here: 011 means north, the arms look like the corridor, and episodes are truncated after
    10 ``length`` steps unless told otherwise, so that a random walk sometimes gets to the junction.

    Observations are [N, 3] float32, rewards [N] float64; there are no infos. One generator serves all
    lanes, and draws the goals of those that begin an episode, in lane order.
    """

    separate_lanes = False

    def __init__(self, num_envs: int, seed: int, length: int, time_limit: int) -> None:
        """``length`` is at least 1; ``time_limit`` 0 is never."""
        super().__init__(num_envs, seed, spaces.Box(0, 1, (3,), np.float32), spaces.Discrete(4))
        self.length, self.time_limit = length, time_limit
        self.position = np.zeros(num_envs, np.int64)  # length is the junction, length + 1 an arm
        self.goal = np.zeros(num_envs, np.int64)  # the action that leads there from the junction
        self.elapsed = np.zeros(num_envs, np.int64)
        self.done = np.zeros(num_envs, np.bool_)

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """All lanes to the start, with new goals."""
        if seeds is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seeds[0])
        self._restart(np.ones(self.num_envs, np.bool_))
        self.done = np.zeros(self.num_envs, np.bool_)
        return self._seen(), {}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: ``(obs [N, 3], reward, terminated, truncated [N], {})``."""
        fresh, east, west = self.done, actions == EAST, actions == WEST
        turned = (self.position == self.length) & ~(east | west)
        moved = np.clip(self.position + east - west, 0, self.length)
        bumped = (moved == self.position) & ~turned
        reward = np.where(turned | bumped, -0.1, 0.0)
        reward[turned & (actions == self.goal)] = 4.0
        reward[fresh] = 0.0
        terminated = turned & ~fresh
        self.position = np.where(turned, self.length + 1, moved)
        self.elapsed += 1
        self._restart(fresh)
        truncated = (self.elapsed >= self.time_limit) & ~fresh & (self.time_limit > 0)
        self.done = terminated | truncated
        return self._seen(), reward, terminated, truncated, {}

    def _restart(self, lanes: Array) -> None:
        """Begin episodes in ``lanes`` [N] bool."""
        self.position[lanes] = self.elapsed[lanes] = 0
        uniform = self.np_random.random(np.count_nonzero(lanes))
        self.goal[lanes] = np.where(uniform < 0.5, NORTH, SOUTH)

    def _seen(self) -> Array:
        sign = np.where(self.goal == NORTH, SIGN_NORTH, SIGN_SOUTH)
        elsewhere = np.where(self.position == self.length, JUNCTION, CORRIDOR)
        return SIGHTS[np.where(self.position == 0, sign, elsewhere)]

    def get_state(self) -> dict[str, Any]:
        """Position, goal, elapsed and done of all lanes, [N] each, and the generator."""
        return {
            "position": self.position.copy(),
            "goal": self.goal.copy(),
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "rng": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.position, self.goal, self.elapsed = (
            np.array(state[name], np.int64) for name in ("position", "goal", "elapsed")
        )
        self.done = np.array(state["done"], np.bool_)
        self.np_random.bit_generator.state = copy.deepcopy(state["rng"])
