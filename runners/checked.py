"""A simulator under watch: whatever it does wrong is a `SimulatorError` that says where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from envs.contract import (
    Array,
    LaneError,
    Resumable,
    SimulatorError,
    UnsupportedEnv,
    VectorSimulator,
)
from envs.simulator import block_seeds
from runners.journal import Block, Field, Journal, Reset, new_journal

Step = tuple[Array, Array, Array, Array, dict[str, Any]]


class CheckedSimulator:
    """Steps a simulator and looks at what it returns: types, shapes and dtypes at every step.

    Whether numbers are finite is left to whoever has more of them to look at at once (`finite`).
    """

    def __init__(
        self,
        env: VectorSimulator,
        env_id: str,
        first_lane: int = 0,
        journal: Journal | None = None,
    ) -> None:
        """``first_lane`` is the number that messages give the simulator's lane 0.

        What it is asked goes into the journal, where there is one, and that goes with the error.
        """
        self.env, self.env_id, self.journal = env, env_id, journal
        self.gives_state = isinstance(env, Resumable)
        self.number(first_lane)
        space = env.single_observation_space
        self.flags = (env.num_envs,)
        self.obs_shape, self.obs_dtype = (env.num_envs, *(space.shape or ())), space.dtype
        self.num_states = int(space.n) if isinstance(space, spaces.Discrete) else 0

    def number(self, first_lane: int) -> None:
        """Let messages call lane 0 so from now on."""
        self.first_lane = first_lane
        if self.journal is not None:
            self.journal.header[Field.FIRST_LANE] = first_lane

    def sound(self, step: int) -> None:
        """All until ``step`` was right: a point to go back to, where the last is far behind."""
        journal = self.journal
        if journal is None or journal.rows < journal.rows_kept or not self.gives_state:
            return
        try:
            self.gives_state = journal.is_in(self.env.get_state(), step)  # type: ignore[attr-defined]
        except Exception:  # a run does not end for its journal's sake: the next checkpoint tells
            self.gives_state = False

    def set_state(self, state: dict[str, Any], step: int) -> None:
        """Go back to a state; the next row is ``step``."""
        assert isinstance(self.env, Resumable)
        self.env.set_state(state)
        if self.journal is not None and not self.journal.is_in(state, step):
            self.journal.lost(step)

    def reset(self, step: int, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes in all lanes; ``step`` is the row that messages speak of.

        Raises:
            SimulatorError: it raised, or the observations are not those of its space.
        """
        if self.journal is not None:
            self.journal.resetting(Reset(seed, step))
        try:
            obs, info = self.env.reset(seed=None if seed is None else block_seeds(self.env, seed))
        except Exception as error:
            self._raised(step, "reset", error)
        self._check_obs(step, obs)
        if self.journal is not None:
            self.journal.was_reset(Reset(seed, step))
        return obs, info

    def step(self, step: int, action: Array) -> Step:
        """One step of all lanes.

        Raises:
            SimulatorError: it raised, or returned a wrong type, shape or dtype, or a state that
                its space does not have.
        """
        if self.journal is not None:
            self.journal.add(step, action)
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            self._raised(step, "step", error)
        self._check_obs(step, obs)
        if getattr(reward, "shape", None) != self.flags or reward.dtype.kind not in "fiu":
            self._fault(step, f"the reward is {_kind(reward)}, not a number for each lane")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if getattr(flag, "shape", None) != self.flags or flag.dtype != np.bool_:
                self._fault(step, f"{name} is {_kind(flag)}, not a bool for each lane")
        return obs, reward, terminated, truncated, info

    def _check_obs(self, step: int, obs: Any) -> None:
        if getattr(obs, "shape", None) != self.obs_shape or obs.dtype != self.obs_dtype:
            expected = f"{self.obs_dtype}{self.obs_shape}"
            self._fault(step, f"the observation is {_kind(obs)}, not {expected}")
        if self.num_states:
            # as an unsigned number a negative one is too large as well
            wrong = obs.astype(np.uint64) >= self.num_states
            if wrong.any():
                lane = int(wrong.argmax())
                told = f"the observation is {obs[lane]}, not in 0..{self.num_states - 1}"
                self._fault(step, told, lane=lane)

    def _raised(self, step: int, call: str, error: Exception) -> NoReturn:
        what, lane = _told(call, error)
        self._fault(step, what, error, lane)

    def _fault(
        self, step: int, what: str, cause: Exception | None = None, lane: int = 0
    ) -> NoReturn:
        fault = SimulatorError(self.env_id, self.first_lane + lane, step, what)
        fault.journal = self.journal
        raise fault from cause


@contextmanager
def making(env_id: str, block: Block) -> Iterator[None]:
    """Whatever the making of a simulator raises is a `SimulatorError`, with an empty journal.

    To be used where the environment, its options and its packages are known to be right.

    Raises:
        UnsupportedEnv: what no simulator's own code has raised.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, UnsupportedEnv)
        cause = error.__cause__ if refused else error
        if not isinstance(cause, Exception) or isinstance(cause, _REFUSALS):
            raise
        what, lane = _told("making it", cause)
        fault = SimulatorError(env_id, block.first_lane + lane, 0, what)
        fault.journal = new_journal(block, rows=1)
        raise fault from cause


_REFUSALS = (UnsupportedEnv, ImportError, DependencyNotInstalled)


def _told(call: str, error: Exception) -> tuple[str, int]:
    """What was raised in ``call``, in words, and in which lane."""
    if isinstance(error, LaneError):
        return error.what, error.lane
    return f"{call} raised {type(error).__name__}: {error}", 0


def finite(numbers: Array) -> bool:
    """Whether all are finite. A finite sum says so at once; an infinite one may have overflowed."""
    if numbers.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        total = numbers.sum()
    return bool(np.isfinite(total) or np.isfinite(numbers).all())


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    return f"a {type(value).__name__}, no array"
