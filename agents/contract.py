"""The types that travel between simulator, replay, loss and learner.

Letters: N lanes, T rollout length, B batch, K seeds trained together, A actions. Time comes first
(``[T, N]``), seeds come first in everything that lives in the learner (``[K, B]``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
State = dict[str, Any]
"""Nested dicts of arrays, tensors and JSON values: what a checkpoint can hold without pickle."""


@dataclass
class Rollout:
    """T rows of N lanes, time-major: the only thing that travels from a worker to a learner.

    With ``done = terminated | truncated``, ``first[t + 1] = done[t - 1]``: the observation after an
    end is the true final one, the next row ignores its action, and the one after that opens a new
    episode. Row t is such an ignored row exactly where ``first[t + 1]``; so ``obs[t + 1]`` is the true
    successor of ``obs[t]`` on every valid row. Row T is row 0 of the next rollout.

    The arrays are the source's own and live until its next ``next()``: who keeps them, copies them.
    """

    obs: Array  # [T+1, N, ...]
    first: Array  # [T+1, N] bool: obs[t] came from a reset
    action: Array  # [T, N, ...]
    reward: Array  # [T, N] float32, or float64 for tabular agents; raw
    terminated: Array  # [T, N] bool
    truncated: Array  # [T, N] bool
    facts: dict[str, Array] = field(default_factory=dict)  # of an observation, [T+1, N, ...]
    step_facts: dict[str, Array] = field(default_factory=dict)  # of a step, [T, N, ...]
    extras: dict[str, Array] = field(default_factory=dict)  # what the actor adds, [T, N, ...]
    actor_state: State = field(default_factory=dict)  # at row 0
    worker: int = 0
    version: int = 0  # of the parameters that acted

    @property
    def rows(self) -> int:
        return int(self.reward.shape[0])

    @property
    def done(self) -> Array:
        """[T, N] bool: an episode ended in this row."""
        done: Array = self.terminated | self.truncated
        return done

    @property
    def valid(self) -> Array:
        """[T, N] bool: the row is a real transition, not an ignored reset row."""
        valid: Array = ~self.first[1:]
        return valid


@dataclass
class Batch:
    """What a loss sees, on the learner's device. Valid until the next batch is sampled.

    ``reward`` is clipped or scaled reward summed over the n-step window, ``discount`` the product of
    its gammas, 0 where the window ends in a termination; so rules see neither gamma nor a done flag.
    """

    obs: torch.Tensor  # [K, B, ...]
    action: torch.Tensor  # [K, B] int64
    reward: torch.Tensor  # [K, B]
    discount: torch.Tensor  # [K, B]
    next_obs: torch.Tensor  # [K, B, ...]
    next_action_mask: torch.Tensor | None = None  # [K, B, A] bool: legal next actions; None: all
    weight: torch.Tensor | None = None  # [K, B] importance weights; None: all 1
    extras: dict[str, torch.Tensor] = field(default_factory=dict)
    action_mask: torch.Tensor | None = None  # [K, B, A] bool: legal actions at ``obs``; None: all

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them by name; an extra's begins with ``extras.``."""
        own = {name: value for name, value in vars(self).items() if name != "extras"}
        found = {name: value for name, value in own.items() if value is not None}
        return found | {f"extras.{name}": value for name, value in self.extras.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Batch:
        """The inverse of `tensors`."""
        apart = {name: value for name, value in tensors.items() if name.startswith("extras.")}
        own = {name: value for name, value in tensors.items() if name not in apart}
        return cls(**own, extras={n.removeprefix("extras."): v for n, v in apart.items()})


class LossOut(NamedTuple):
    """Per-sample results of a loss; the learner weights, averages over B and sums over seeds."""

    loss: torch.Tensor  # [K, B]
    metrics: dict[str, torch.Tensor]  # [K, B] each, detached; averaged over B when they are read,
    # in the learner's reward units: who reads them divides by the reward scale
    priority: torch.Tensor | None = None  # [K, B]


Network = Callable[..., torch.Tensor]
"""Observations ``[K, B, ...]``, and noise where there is some, to outputs ``[K, B, A]`` or
``[K, B, A, Z]``, one set of weights a seed."""

Noise = Mapping[str, Mapping[str, torch.Tensor]]
"""All that is random in a loss, drawn before: what each pass through a network takes, by the pass's
name and then the layer's."""
Draws = Mapping[str, torch.Tensor]
"""The same as it is drawn: one tensor for each kind of numbers."""
Loss = Callable[[Network, Network, Batch, Noise], LossOut]


@dataclass(frozen=True)
class Params:
    """What actors need of a learner: parameters and the schedules' values at one moment.

    ``tensors`` are copies with the seeds' axis first, ``scalars`` the values of schedules (epsilon).
    """

    version: int
    lane_steps: int
    tensors: Mapping[str, torch.Tensor]
    scalars: Mapping[str, float]

    def keep(self, seeds: Sequence[int]) -> Params:
        """The parameters of the seeds at these positions of the group."""
        kept = {name: tensor[list(seeds)].clone() for name, tensor in self.tensors.items()}
        return Params(self.version, self.lane_steps, kept, dict(self.scalars))


def params_to_state(params: Params) -> State:
    """The parameters as a state that a checkpoint holds."""
    return {
        "version": params.version,
        "lane_steps": params.lane_steps,
        "tensors": dict(params.tensors),
        "scalars": dict(params.scalars),
    }


def params_from_state(state: State) -> Params:
    """The parameters from a `params_to_state`."""
    tensors = {name: torch.as_tensor(value) for name, value in state["tensors"].items()}
    return Params(state["version"], state["lane_steps"], tensors, state["scalars"])


class Actor(Protocol):
    """Chooses actions for ``[K, n]`` lanes, one generator a seed. It has no clock."""

    @property
    def stored(self) -> bool:
        """Whether its state travels with a rollout. A derived one, as a frame stack, need not."""

    @property
    def looks_back(self) -> bool:
        """Whether its values are of more than the present observation."""

    def initial_state(self, lanes: int) -> State:
        """The state before the first observation; {} for an actor without memory.

        Its arrays are ``[K, n, ...]``, so that a seed can leave the group.
        """

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions ``[K, n, ...]`` in the environment's units, the next state, and extras."""

    def load_params(self, params: Params) -> None:
        """Act with these from now on."""


@runtime_checkable
class Placed(Protocol):
    """An actor whose lanes explore by their place among a seed's."""

    def place(self, first_lane: int, lanes: int) -> None:
        """It acts for some of each seed's ``lanes``, from ``first_lane`` on."""


class Learned(Protocol):
    """What has been learned so far, for whoever keeps the records."""

    def params(self) -> Params:
        """A copy of what the actors need."""

    def metrics(self) -> dict[str, Array]:
        """Means ``[K]`` of the latest update's metrics; reading waits for the device."""

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""

    @property
    def updates(self) -> int:
        """Gradient steps done, a seed."""


class Learner(Learned, Protocol):
    """Turns rollouts into parameters. Every method leaves simulators, files and clocks alone."""

    def observe(self, rollout: Rollout) -> None:
        """Take in a rollout; copies what it keeps."""

    def updates_due(self) -> int:
        """How many times `update` is to be called now."""

    def update(self) -> None:
        """One gradient step."""

    def state_dict(self) -> State:
        """All that decides the future, replay rows excepted."""

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`."""

    @property
    def replay(self) -> Replay | None:
        """The replay whose rows belong into a checkpoint; None without one."""


class Reducer(Protocol):
    """Joins a learner with others that hold the same parameters and learn from batches of their own.

    All of them call the same methods in the same order, with tensors of the same shapes.
    """

    @property
    def learners(self) -> int:
        """How many there are, this one counted."""

    def average(self, gradient: torch.Tensor) -> None:
        """Turn each learner's tensor into the mean over all, in place."""

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """The largest of each value over all learners; ``values`` stay as they are."""


class Replay(Protocol):
    """Rows of the last C time steps of all lanes, numbered from 0 since the start of the run."""

    @property
    def head(self) -> int:
        """The number of the next row to be written; its observation is there already."""

    @property
    def tail(self) -> int:
        """The number of the oldest row held."""

    def rows(self, start: int, stop: int) -> dict[str, Array]:
        """Copies of rows start..stop-1, each array ``[stop - start, K, n, ...]``."""

    def load_rows(self, start: int, rows: Mapping[str, Array]) -> None:
        """Put rows from `rows` back where they were."""

    def needs(self, capacity: int) -> dict[str, int]:
        """Bytes that one like this takes with room for so many transitions a seed, by what they are for."""

    def state_dict(self) -> State:
        """Positions and generators, and the observation at `head`; no rows."""

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`; the rows tail..head-1 are loaded by `load_rows`."""


class NonFiniteLoss(FloatingPointError):
    """The loss was NaN or infinite; ``batch`` is the one that made it so, where it is known."""

    def __init__(self, update: int, batch: Batch | None = None) -> None:
        super().__init__(f"the loss of update {update} is not finite")
        self.update, self.batch = update, batch


def group_generators(
    seeds: Sequence[np.random.SeedSequence], device: torch.device
) -> list[torch.Generator]:
    """One torch generator a seed, for weight initialisation and noise drawn on ``device``."""
    made = []
    for seed in seeds:
        # meta has no generator of its own: shapes are all that matters there
        generator = torch.Generator("cpu" if device.type == "meta" else device)
        generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        made.append(generator)
    return made
