"""What brings Gymnasium's vector environments under the contract of `envs.contract`."""

from __future__ import annotations

from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorWrapper

from envs.contract import OBSERVATION_FACTS, STEP_FACTS, Array, LaneError, VectorSimulator
from envs.simulator import Actions, block_seeds, check_seeds


class CheckedLane(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One lane of several: what it does wrong is seen here, before it is cast into a batch of all."""

    def __init__(self, env: gymnasium.Env[Any, Any], lane: int) -> None:
        super().__init__(env)
        self.lane = lane
        space = env.observation_space
        self._shape = None if isinstance(space, spaces.Discrete) else space.shape
        self._dtype = space.dtype

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's.

        Raises:
            LaneError: it raised, or its observation has another type, shape or dtype than its space.
        """
        try:
            obs, info = self.env.reset(**kwargs)
        except Exception as error:
            self._fault(f"reset raised {type(error).__name__}: {error}", error)
        self._check(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's.

        Raises:
            LaneError: it raised, or what it returned has a wrong type, shape or dtype.
        """
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            self._fault(f"step raised {type(error).__name__}: {error}", error)
        self._check(obs)
        if not isinstance(reward, _REAL) and getattr(reward, "shape", None) != ():
            self._fault(f"the reward is {_kind(reward)}, not a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                self._fault(f"{name} is {_kind(flag)}, not a bool")
        return obs, reward, terminated, truncated, info

    def _check(self, obs: Any) -> None:
        if self._shape is None:
            if not isinstance(obs, _WHOLE) and getattr(obs, "shape", None) != ():
                self._fault(f"the observation is {_kind(obs)}, not a whole number")
        elif getattr(obs, "dtype", None) != self._dtype or obs.shape != self._shape:
            self._fault(f"the observation is {_kind(obs)}, not {self._dtype}{self._shape}")

    def _fault(self, what: str, cause: Exception | None = None) -> NoReturn:
        raise LaneError(what, self.lane) from cause


_WHOLE = (int, np.integer)
_REAL = (float, int, np.floating, np.integer)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape}"
    return repr(value)


class GymnasiumEnv(VectorWrapper[Any, Any, Any, Any, Any]):
    """A Gymnasium vector environment under the contract: the kept seed, and facts as infos.

    Facts are the keys of ``OBSERVATION_FACTS`` and ``STEP_FACTS`` that the first reset's infos have;
    a lane or a step that lacks one gets ones in an action mask and zeros elsewhere. All other
    infos are dropped. Returned arrays are fresh at every step.
    """

    def __init__(self, env: VectorSimulator, seed: int, separate_lanes: bool) -> None:
        super().__init__(env)
        self._seed: int | None = seed
        self._begun = self._ended = False  # some of Gymnasium's classes step before and after both
        self.separate_lanes = separate_lanes
        self._check_actions = Actions(env.single_action_space, env.num_envs)
        self._facts: dict[str, Array] = {}  # key -> what stands where a lane has none, [N, ...]

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes in all lanes; without a seed, with the kept one once.

        Raises:
            ValueError: one integer a lane as the seed where one generator serves all lanes, or not
                as many as there are lanes.
            RuntimeError: the environment is closed.
        """
        self._check_open()
        if seed is None and self._seed is not None:
            seed = block_seeds(self, self._seed)
        if isinstance(seed, np.integer):
            seed = int(seed)  # Gymnasium's vector environments know no other
        if not isinstance(seed, int | None):
            check_seeds(seed, self.num_envs, self.separate_lanes)
        self._seed = None
        obs, infos = self.env.reset(seed=seed, options=options)
        self._begun = True
        self._facts = {
            key: np.ones_like(infos[key]) if key == "action_mask" else np.zeros_like(infos[key])
            for key in (*OBSERVATION_FACTS, *STEP_FACTS)
            if key in infos
        }
        return obs, self._present(infos)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes; obs [N, ...], reward [N], terminated and truncated [N] bool.

        Raises:
            ValueError: actions have another shape, are NaN or out of range.
            TypeError: actions are not numbers of the space's kind.
            RuntimeError: `reset` has not been called, or the environment is closed.
        """
        if self._ended or not self._begun:
            self._check_open()
            raise RuntimeError("call reset before step")
        actions = self._check_actions(actions)
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        return obs, reward, terminated, truncated, self._present(infos) if self._facts else {}

    def close(self, **kwargs: Any) -> None:
        """Close all lanes; twice is fine."""
        if not self._ended:
            self._ended = True
            super().close(**kwargs)

    def resumed(self) -> None:
        """To be called by ``set_state``: the kept seed is not wanted any more, a step may follow."""
        self._check_open()
        self._seed, self._begun = None, True

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError("the environment is closed; make another")

    def _present(self, infos: dict[str, Any]) -> dict[str, Any]:
        """The facts alone, one array ``[N, ...]`` a key, whichever lanes have them in this step."""
        present = {}
        for key, neutral in self._facts.items():
            if key not in infos:
                present[key] = neutral.copy()
                continue
            value, has = infos[key], infos.get(f"_{key}")
            if has is not None and not has.all():
                value = np.where(has.reshape(-1, *[1] * (value.ndim - 1)), value, neutral)
            present[key] = value
        return present
