"""Tabular Q-learning and its kin: one table a seed, one update a row, in numba kernels.

Q-learning (Watkins 1989; Sutton & Barto 2018, equation 6.8), SARSA (equation 6.7), Expected SARSA
(equation 6.9; van Seijen et al. 2009) and Double Q-learning (van Hasselt 2010, Algorithm 1; equation
6.10). They differ in one function,
`tabular_kernels.target`.

The kernels serve two ways of running: `TabularLearner` behind the ordinary loop, and the fused
source, which acts, steps and learns in one kernel. At rollouts of one row both give the same bits.
Each lane step takes two numbers from the actor's generator (`choose`) and, where the rule flips a
coin, each row one from the learner's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch

from agents.contract import Array, Params, Rollout, State
from agents.exploration import greedy
from agents.hyper import at_least, check, positive, unit
from agents.tabular_kernels import (
    DOUBLE_Q,
    EXPECTED_SARSA,
    Q_LEARNING,
    SARSA,
    choose_lanes,
    learn_rows,
    linear,
)
from envs.contract import Spec

GROUP = 64  # seeds in one process; tables are small


@dataclass(frozen=True)
class TabularConfig:
    """Hyperparameters of a tabular agent; all steps are lane steps of one seed."""

    rule: ClassVar[int]

    lr: Annotated[float, positive(1)] = 0.1
    """step size at the start"""
    lr_end: Annotated[float, positive(1)] = 0.1
    """step size in the end"""
    lr_steps: Annotated[int, at_least(0)] = 0
    """lane steps over which it falls; 0: lr_end from the start"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    epsilon_start: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.1
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 50_000
    """lane steps over which it falls"""
    initial_value: float = 0.0
    """what the table holds before it is learned; a high value is optimism"""

    def __post_init__(self) -> None:
        check(self)

    def schedule(self) -> tuple[float, ...]:
        """The numbers of the two schedules, as the kernels take them."""
        return (
            self.lr, self.lr_end, float(self.lr_steps),
            self.epsilon_start, self.epsilon_end, float(self.epsilon_steps),
        )  # fmt: skip


class QLearningConfig(TabularConfig):
    """Q-learning: the best next action's value."""

    rule = Q_LEARNING


class SarsaConfig(TabularConfig):
    """SARSA: the value of the next action that is taken."""

    rule = SARSA


class ExpectedSarsaConfig(TabularConfig):
    """Expected SARSA: the ε-greedy policy's mean over next actions."""

    rule = EXPECTED_SARSA


class DoubleQConfig(TabularConfig):
    """Double Q-learning: one table chooses the next action, the other values it."""

    rule = DOUBLE_Q


class TabularActor:
    """ε-greedy on the table of each seed; ties at random while it explores, else by lowest index."""

    stored = False  # it has no state

    def __init__(self, tables: int, spec: Spec, generators: Sequence[np.random.Generator]) -> None:
        shape = (len(generators), tables, spec.num_states, spec.num_actions)
        self.q = np.zeros(shape)
        self.generators = generators
        self.epsilon = 1.0

    def initial_state(self, lanes: int) -> State:
        """None: a state is all there is."""
        del lanes
        return {}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for states [K, n]."""
        del first
        mask = facts.get("action_mask")
        if not explore:
            return greedy(self.values(obs), mask), state, {}
        draws = np.empty((*obs.shape, 2))
        for k, generator in enumerate(self.generators):
            generator.random(out=draws[k])
        if mask is not None:
            return choose_legal(self.values(obs), mask, self.epsilon, draws), state, {}
        actions = np.empty(obs.shape, np.int64)
        choose_lanes(self.q, obs, self.epsilon, draws, actions)
        return actions, state, {}

    def values(self, obs: Array) -> Array:
        """What the policy goes by, [K, n, A]."""
        seeds = np.arange(len(obs))[:, None]
        values: Array = self.q.mean(axis=1)[seeds, obs]
        return values

    def load_params(self, params: Params) -> None:
        """Copy the tables and take ε."""
        np.copyto(self.q, params.tensors["q"].numpy())
        self.epsilon = params.scalars["epsilon"]


def choose_legal(values: Array, mask: Array, epsilon: float, draws: Array) -> Array:
    """`tabular_kernels.choose` among legal actions: the same two draws, used in the same way.

    Args:
        values: [K, n, A] float64.
        mask: [K, n, A] bool or 0/1; where none is legal, all are.
        epsilon: probability of a uniform action.
        draws: [K, n, 2] uniform numbers.

    Returns:
        [K, n] int64 actions.
    """
    exploring = draws[..., :1] < epsilon
    scores = np.where(_some(mask), np.where(exploring, 0.0, values), -np.inf)
    best = scores == scores.max(-1, keepdims=True)
    count = best.cumsum(-1)
    pick = (draws[..., 1] * count[..., -1]).astype(np.int64)
    chosen: Array = (count > pick[..., None]).argmax(-1)
    return chosen


def _some(mask: Array) -> Array:
    """The mask as bool; where an episode has ended and nothing is legal, everything is."""
    legal: Array = np.asarray(mask, np.bool_)
    return legal | ~legal.any(-1, keepdims=True)


class TabularLearner:
    """The tables of K seeds; learns as it observes, so there is never an update due.

    What is legal in a state is part of its table: -inf where the newest mask that was seen with the
    state forbids an action.
    """

    def __init__(
        self,
        config: TabularConfig,
        spec: Spec,
        lanes: int,
        generators: Sequence[np.random.Generator],
    ) -> None:
        self.config, self.lanes = config, lanes
        self.generators = list(generators)
        tables = 2 if config.rule == DOUBLE_Q else 1
        shape = (len(self.generators), tables, spec.num_states, spec.num_actions)
        self.q = np.full(shape, config.initial_value)
        self.waiting = np.zeros((shape[0], lanes, 5))
        self.sums = np.zeros((shape[0], 4))  # over the rows learned since metrics were read
        self.means = np.zeros((shape[0], 3))  # as they were read last
        self.fused = False  # a fused source learns in its kernel; observing then only counts
        self.updates = self.lane_steps = self.version = 0

    @property
    def replay(self) -> None:
        """None: every row is learned once and forgotten."""
        return

    def observe(self, rollout: Rollout) -> None:
        """Learn the rows, or only count them where the fused source has learned them already."""
        if not self.fused:
            if "action_mask" in rollout.facts:
                self._forbid(rollout.obs, rollout.facts["action_mask"])
            self._learn(rollout)
        self.lane_steps += rollout.rows * self.lanes
        self.updates += rollout.rows
        self.version += 1

    def _forbid(self, obs: Array, masks: Array) -> None:
        """Write what is legal in the states [T+1, K n] into the tables."""
        states, legal = self._by_seed(obs), self._by_seed(_some(masks))
        for k, q in enumerate(self.q):
            for allowed in (False, True):
                *row, action = np.nonzero(legal[k] == allowed)
                state = states[k][tuple(row)]
                known = q[:, state, action]
                allowed_now = np.where(known == -np.inf, self.config.initial_value, known)
                q[:, state, action] = allowed_now if allowed else -np.inf

    def _learn(self, rollout: Rollout) -> None:
        c = self.config
        lr = linear(self.lane_steps, c.lr, c.lr_end, float(c.lr_steps))
        epsilon = self._epsilon()
        columns = [
            self._by_seed(column)
            for column in (
                rollout.obs, rollout.first, rollout.action, rollout.reward, rollout.terminated
            )
        ]  # fmt: skip
        for k in range(len(self.q)):
            learn_rows(  # type: ignore[call-arg] # numba's stub takes no starred arguments
                c.rule, self.q[k], *(column[k] for column in columns),
                self.coins(k, rollout.rows), self.waiting[k], c.gamma, lr, epsilon, self.sums[k],
            )  # fmt: skip

    def _by_seed(self, column: Array) -> Array:
        """[T, K n, ...] to [K, T, n, ...]."""
        shape = (column.shape[0], len(self.q), self.lanes, *column.shape[2:])
        return np.ascontiguousarray(column.reshape(shape).swapaxes(0, 1))

    def coins(self, k: int, rows: int) -> Array:
        """[T, n] uniform numbers of seed k, drawn only for the rule that needs them."""
        if self.config.rule != DOUBLE_Q:
            return np.empty((0, 0))
        return self.generators[k].random((rows, self.lanes))

    def _epsilon(self) -> float:
        c = self.config
        epsilon: float = linear(
            self.lane_steps, c.epsilon_start, c.epsilon_end, float(c.epsilon_steps)
        )
        return epsilon

    def updates_due(self) -> int:
        """None: `observe` has learned."""
        return 0

    def update(self) -> None:
        """Nothing is ever due."""

    def params(self) -> Params:
        """Copies of the tables, and ε at the clock."""
        tensors = {"q": torch.from_numpy(self.q.copy())}
        return Params(self.version, self.lane_steps, tensors, {"epsilon": self._epsilon()})

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the rows learned since this was last asked for; the last ones without any."""
        count = self.sums[:, :1]
        np.divide(self.sums[:, 1:], count, out=self.means, where=count > 0)
        self.sums[:] = 0.0
        td_error, q_mean, target_mean = self.means.T.copy()
        return {
            "loss": td_error, "td_error": td_error, "q_mean": q_mean, "target_mean": target_mean
        }  # fmt: skip

    def state_dict(self) -> State:
        return {
            "q": self.q,
            "waiting": self.waiting,
            "sums": self.sums,
            "means": self.means,
            "generators": [generator.bit_generator.state for generator in self.generators],
            "updates": self.updates,
            "lane_steps": self.lane_steps,
            "version": self.version,
        }

    def load_state_dict(self, state: State) -> None:
        self.q[:], self.waiting[:] = state["q"], state["waiting"]
        self.sums[:], self.means[:] = state["sums"], state["means"]
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.updates, self.lane_steps = state["updates"], state["lane_steps"]
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.q, self.waiting = self.q[kept], self.waiting[kept]
        self.sums, self.means = self.sums[kept], self.means[kept]
        self.generators = [self.generators[k] for k in kept]


def make_actor(
    config: TabularConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> TabularActor:
    """An ε-greedy actor for as many seeds as there are generators."""
    return TabularActor(2 if config.rule == DOUBLE_Q else 1, spec, generators)


def make_learner(
    config: TabularConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
) -> TabularLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; always on the CPU, in float64."""
    del replay_generators, device
    generators = [np.random.Generator(np.random.PCG64(seed)) for seed in learner_seeds]
    return TabularLearner(config, spec, lanes, generators)
