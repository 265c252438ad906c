"""The contract between a simulator and everything that learns from it.

A simulator is a ``gymnasium.vector.VectorEnv`` of N lanes in ``AutoresetMode.NEXT_STEP``:

* After the step in which a lane's episode ends (``terminated | truncated``), ``obs`` is the true
  final observation of that episode.
* The lane's next step ignores its action and returns the first observation of a new episode,
  with reward 0 and both flags false.
* An action of a wrong shape, kind or range, or NaN, is refused before an engine sees it, in every row.
* ``separate_lanes`` says whether each lane has a generator of its own. Then ``reset(seed=s)`` means
  s + i for lane i and a list gives each lane its own; else it takes one integer.
* Rewards are raw. Clipping, scaling and n-step sums are the learner's view of them.
* Facts that an agent may use are infos present at every step, one array ``[N, ...]`` a key:
  ``OBSERVATION_FACTS`` describe the returned observation, ``STEP_FACTS`` the step that led to it.
* The simulator keeps the seed it was made with: the first bare ``reset()`` uses it.
* A `Resumable` simulator gives its complete state, so that a run goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
VectorSimulator = VectorEnv[Any, Any, Any]

OBSERVATION_FACTS = ("action_mask", "to_play", "state")
STEP_FACTS = ("life_loss",)


def observation_facts(infos: Mapping[str, Any]) -> dict[str, Array]:
    """The facts that ``reset`` and ``step`` tell of the observation that they return."""
    return {name: infos[name] for name in OBSERVATION_FACTS if name in infos}


@runtime_checkable
class Resumable(Protocol):
    """A simulator whose complete state, generators included, can be taken out and put back."""

    def get_state(self) -> dict[str, Any]:
        """A dict of arrays, numbers and JSON values; a copy that later steps do not change."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`: the same actions then give the same steps."""


class UnsupportedEnv(ValueError):
    """The environment cannot be simulated here; the message says why and what to do instead."""


class LaneError(RuntimeError):
    """What one lane's environment did wrong, where lanes are separate environments.

    Whoever steps them all makes a `SimulatorError` of it. Both arguments are plain, so that it comes
    through a pipe from a lane's process as it was.
    """

    def __init__(self, what: Any, lane: int = 0) -> None:
        if isinstance(what, LaneError):  # Gymnasium makes a copy of what it got through the pipe
            what, lane = what.what, what.lane
        super().__init__(what, lane)
        self.what: str = what
        self.lane: int = lane

    def __str__(self) -> str:
        return f"lane {self.lane}: {self.what}"


class SimulatorError(RuntimeError):
    """A simulator broke the contract: which one, in which lane, at which step, and how."""

    journal: Any = None  # how it came about, where somebody has kept that: `runners.journal`

    def __init__(self, env_id: str, lane: int, step: int, what: str) -> None:
        super().__init__(f"{env_id}: lane {lane}, step {step}: {what}")
        self.env_id, self.lane, self.step, self.what = env_id, lane, step, what


@dataclass(frozen=True)
class Spec:
    """What one lane looks like to an agent.

    ``num_states`` is the number of a Discrete observation space's values, 0 for a Box;
    ``num_actions`` that of a Discrete action space, 0 for a Box. ``obs_dtype`` is the dtype in
    which rollouts and replay keep observations: float64 Boxes are kept as float32, Discrete
    observations as int64. ``action_low`` and ``action_high`` are None for Discrete actions.
    ``obs_scale`` brings whole numbers of a bounded Box into [-1, 1] where a network reads them: 1/255
    for pixels. ``obs_low`` and ``obs_high`` are the Box's bounds, None for Discrete observations.
    ``action_mask`` and ``life_loss`` say which facts the simulator tells.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: DTypeLike
    num_states: int
    num_actions: int
    action_shape: tuple[int, ...] = ()
    action_dtype: DTypeLike = np.int64
    action_low: Array | None = None
    action_high: Array | None = None
    obs_scale: float = 1.0
    obs_low: Array | None = None
    obs_high: Array | None = None
    action_mask: bool = False
    life_loss: bool = False


def spec_of(env: VectorSimulator, infos: Mapping[str, Any] | None = None) -> Spec:
    """The `Spec` of one lane of ``env``.

    Args:
        env: the simulator.
        infos: what its ``reset`` returned, which tells the facts that it has; without it, none.

    Raises:
        UnsupportedEnv: a space is neither Discrete nor Box.
    """
    obs, act = env.single_observation_space, env.single_action_space
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype[Any]
    if isinstance(obs, spaces.Discrete):
        obs_shape, obs_dtype, num_states = (), np.dtype(np.int64), int(obs.n)
    elif isinstance(obs, spaces.Box):
        dtype = np.dtype(np.float32) if obs.dtype == np.float64 else np.dtype(obs.dtype)
        obs_shape, obs_dtype, num_states = obs.shape, dtype, 0
    else:
        raise UnsupportedEnv(f"observation space {obs} is neither Discrete nor Box")
    spec = Spec(obs_shape, obs_dtype, num_states, 0, obs_scale=_scale(obs))
    if isinstance(obs, spaces.Box):
        spec = replace(spec, obs_low=obs.low.copy(), obs_high=obs.high.copy())
    spec = replace(
        spec, action_mask="action_mask" in (infos or {}), life_loss="life_loss" in (infos or {})
    )
    if isinstance(act, spaces.Discrete):
        return replace(spec, num_actions=int(act.n))
    if isinstance(act, spaces.Box):
        return replace(
            spec,
            action_shape=act.shape,
            action_dtype=act.dtype,
            action_low=act.low.copy(),
            action_high=act.high.copy(),
        )
    raise UnsupportedEnv(f"action space {act} is neither Discrete nor Box")


def _scale(space: spaces.Space[Any]) -> float:
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "iu" or not space.shape:
        return 1.0
    largest = max(abs(float(space.low.min())), abs(float(space.high.max())))
    # an integer that is bounded by its dtype alone, other than a byte, says nothing of its size
    bounded = space.dtype == np.uint8 or largest < np.iinfo(space.dtype).max
    return 1.0 / largest if bounded and largest > 1 else 1.0


@dataclass(frozen=True)
class FiniteMDP:
    """A finite Markov decision process as arrays; S states, A actions, Z outcomes a pair.

    Outcome z of action a in state s has probability ``P[s, a, z]``, leads to ``successor[s, a, z]``
    with reward ``R[s, a, z]`` and ends the episode where ``terminal[s, a, z]``. Unused outcomes have
    probability 0. Episodes begin in a state drawn from ``rho`` and are truncated after
    ``time_limit`` steps (0: never).
    """

    P: Array  # [S, A, Z] float64
    successor: Array  # [S, A, Z] int64
    R: Array  # [S, A, Z] float64
    terminal: Array  # [S, A, Z] bool
    rho: Array  # [S] float64
    time_limit: int

    @property
    def num_states(self) -> int:
        return int(self.P.shape[0])

    @property
    def num_actions(self) -> int:
        return int(self.P.shape[1])


def mdp_of(env: VectorSimulator) -> FiniteMDP | None:
    """The finite MDP that ``env`` simulates, or None where it is not one."""
    mdp = getattr(env.unwrapped, "mdp", None)
    return mdp if isinstance(mdp, FiniteMDP) else None
