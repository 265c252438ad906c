"""What can be told to all that learn row by row without a network: step size, discount, how they explore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np

from agents.contract import Array
from agents.hyper import Search, at_least, check, positive, unit
from agents.tabular_kernels import BOLTZMANN, EPSILON_GREEDY, UCB, Numbers, Waiting, linear

EXPLORATIONS = {"epsilon_greedy": EPSILON_GREEDY, "boltzmann": BOLTZMANN, "ucb": UCB}


class Sizes(NamedTuple):
    """How large the arrays of a learner are."""

    seeds: int
    lanes: int
    states: int
    actions: int


@dataclass(frozen=True)
class RowwiseConfig:
    """Hyperparameters of what learns row by row, a table or weights; all steps are lane steps of one seed."""

    lr: Annotated[float, positive(1), Search("log", 0.05, 1.0)] = 0.1
    """step size at the start"""
    lr_end: Annotated[float, positive(1), Search("log", 1e-3, 0.5)] = 0.1
    """step size in the end, with lr_steps"""
    lr_steps: Annotated[int, at_least(0)] = 0
    """lane steps over which it falls to lr_end; 0: it stays"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    exploration: Literal["epsilon_greedy", "boltzmann", "ucb"] = "epsilon_greedy"
    """random actions, a softmax of the values, or upper confidence bounds"""
    epsilon_start: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit(), Search("linear", 0.0, 0.2)] = 0.1
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 50_000
    """lane steps over which it falls"""
    temperature_start: Annotated[float, positive()] = 1.0
    """of the softmax at the start, in units of reward"""
    temperature_end: Annotated[float, positive()] = 0.05
    """of the softmax in the end"""
    temperature_steps: Annotated[int, at_least(0)] = 50_000
    """lane steps over which it falls"""
    ucb_c: Annotated[float, at_least(0)] = 1.0
    """width of the confidence bounds, in units of reward"""
    initial_value: float = 0.0
    """every action's value before anything is learned; a high one is optimism"""

    def __post_init__(self) -> None:
        check(self)

    def schedule(self) -> tuple[float, ...]:
        """The numbers of the two schedules, step size and exploration, as the kernels take them."""
        level = {
            "epsilon_greedy": (self.epsilon_start, self.epsilon_end, float(self.epsilon_steps)),
            "boltzmann": (
                self.temperature_start, self.temperature_end, float(self.temperature_steps)
            ),
            "ucb": (float(self.ucb_c), float(self.ucb_c), 0.0),
        }  # fmt: skip
        return (*self.step_sizes(), *level[self.exploration])

    def step_sizes(self) -> tuple[float, float, float]:
        """From which to which, and over how many lane steps."""
        return self.lr, self.lr_end if self.lr_steps else self.lr, float(self.lr_steps)

    def scalars(self, lane_steps: int) -> dict[str, float]:
        """What acting goes by at the clock: ε, or the level of what takes its place."""
        level: float = linear(lane_steps, *self.schedule()[3:])
        if self.exploration == "epsilon_greedy":
            return {"epsilon": level}
        return {"epsilon": 0.0, "level": level}


@dataclass(frozen=True)
class TabularConfig(RowwiseConfig):
    """Hyperparameters of a tabular agent."""

    rule: ClassVar[int]
    tables: ClassVar[int] = 1
    memory: ClassVar[Callable[..., Any]] = Waiting
    """the named tuple in which a rule's kernel finds what the rule remembers of one seed"""

    def numbers(self) -> Any:
        """What else the rule's kernel is told: a named tuple of numbers."""
        return Numbers(self.gamma)

    def remembers(self, sizes: Sizes) -> dict[str, Array]:
        """The arrays of `memory` by name, seeds first, before anything was seen."""
        return {"waiting": np.zeros((sizes.seeds, sizes.lanes, 5))}

    @property
    def coins(self) -> int:
        """Uniform numbers that the rule takes from the learner's generator at every row of a lane."""
        return 0
