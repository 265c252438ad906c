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
from typing import Any

import numpy as np
import torch

from agents.contract import Array, Params, Rollout, State
from agents.exploration import greedy
from agents.tabular_config import EXPLORATIONS, Sizes, TabularConfig
from agents.tabular_episodes import MonteCarloConfig
from agents.tabular_kernels import (
    BOLTZMANN,
    DOUBLE_Q,
    EPSILON_GREEDY,
    EXPECTED_SARSA,
    Q_LEARNING,
    SARSA,
    UCB,
    choose_lanes,
    linear,
)
from agents.tabular_models import DynaQConfig, DynaQPlusConfig, PrioritizedSweepingConfig
from agents.tabular_rmax import RMaxConfig
from agents.tabular_rules import learn_rows
from agents.tabular_steps import NStepSarsaConfig, QSigmaConfig, TreeBackupConfig
from agents.tabular_traces import PengConfig, SarsaLambdaConfig, WatkinsConfig
from agents.tally import Tally
from envs.contract import Spec

__all__ = [
    "DynaQConfig", "DynaQPlusConfig", "MonteCarloConfig", "NStepSarsaConfig", "PengConfig",
    "PrioritizedSweepingConfig", "QSigmaConfig", "RMaxConfig", "SarsaLambdaConfig",
    "TreeBackupConfig", "WatkinsConfig",
]  # fmt: skip
GROUP = 64  # seeds in one process; tables are small


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
    tables = 2

    @property
    def coins(self) -> int:
        """One: which table learns, and what is left of it breaks ties."""
        return 1


class TabularActor:
    """Explores by the table of each seed, ties at random; else the best action, ties to the lowest."""

    stored = looks_back = False  # it has no state

    def __init__(
        self, config: TabularConfig, spec: Spec, generators: Sequence[np.random.Generator]
    ) -> None:
        seeds, shape = len(generators), (spec.num_states, spec.num_actions)
        self.explore = EXPLORATIONS[config.exploration]
        self.q = np.zeros((seeds, config.tables, *shape))
        self.visits = np.zeros((seeds, *(shape if self.explore == UCB else (1, 1))))
        self.generators = generators
        self.level = 1.0  # ε, temperature or the width of bounds

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
        draws = two_draws(self.generators, obs.shape[1])
        if mask is not None:
            return self._choose_legal(obs, mask, draws), state, {}
        actions = np.empty(obs.shape, np.int64)
        choose_lanes(self.explore, self.q, self.visits, obs, self.level, draws, actions)
        return actions, state, {}

    def _choose_legal(self, obs: Array, mask: Array, draws: Array) -> Array:
        """Among legal actions; the kernel's values are sums over tables, and so are these."""
        tables = self.q.shape[1]
        level = self.level if self.explore == EPSILON_GREEDY else self.level * tables
        visits = self.visits[np.arange(len(obs))[:, None], obs] if self.explore == UCB else None
        return explore_legal(self.explore, self.values(obs) * tables, visits, mask, level, draws)

    def values(self, obs: Array) -> Array:
        """What the policy goes by, [K, n, A]."""
        seeds = np.arange(len(obs))[:, None]
        values: Array = self.q.mean(axis=1)[seeds, obs]
        return values

    def load_params(self, params: Params) -> None:
        """Copy the tables, and what exploration goes by."""
        np.copyto(self.q, params.tensors["q"].numpy())
        if "visits" in params.tensors:
            np.copyto(self.visits, params.tensors["visits"].numpy())
        self.level = params.scalars.get("level", params.scalars["epsilon"])


def two_draws(generators: Sequence[np.random.Generator], lanes: int) -> Array:
    """[K, n, 2] uniform numbers, each seed's from its own generator: whether to explore, and by what."""
    return np.stack([generator.random((lanes, 2)) for generator in generators])


def explore_legal(
    explore: int, values: Array, visits: Array | None, mask: Array, level: float, draws: Array
) -> Array:
    """`tabular_kernels.choose` among legal actions.

    Args:
        explore: one of `tabular_config.EXPLORATIONS`.
        values: [K, n, A] float64.
        visits: [K, n, A], how often each was taken there; UCB only.
        mask: [K, n, A] bool or 0/1; where none is legal, all are.
        level: ε, temperature or c.
        draws: [K, n, 2] uniform numbers.

    Returns:
        [K, n] int64 actions.
    """
    if explore == BOLTZMANN:
        return sample_legal(values, mask, level, draws)
    if explore == UCB:
        assert visits is not None
        return choose_legal(upper_bounds(values, visits, level), mask, 0.0, draws)
    return choose_legal(values, mask, level, draws)


def upper_bounds(values: Array, visits: Array, c: float) -> Array:
    """`tabular_kernels.upper_bound`, [K, n, A]; visits may be parts of one, of which no logarithm is below 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.log(np.maximum(visits.sum(axis=-1, keepdims=True), 1.0))
        bonus = np.where(visits > 0, c * np.sqrt(total / visits), np.inf)
    bounds: Array = np.add(values, bonus, out=values.copy(), where=values > -np.inf)
    return bounds


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
    scores = np.where(some_legal(mask), np.where(exploring, 0.0, values), -np.inf)
    best = scores == scores.max(-1, keepdims=True)
    count = best.cumsum(-1)
    pick = (draws[..., 1] * count[..., -1]).astype(np.int64)
    chosen: Array = (count > pick[..., None]).argmax(-1)
    return chosen


def sample_legal(values: Array, mask: Array, temperature: float, draws: Array) -> Array:
    """`tabular_kernels.softmax_action` among legal actions; arguments as those of `choose_legal`."""
    legal = np.where(some_legal(mask), values, -np.inf)
    weight = np.exp((legal - legal.max(-1, keepdims=True)) / temperature).cumsum(-1)
    # the first one beyond the draw has a weight of its own, so it is legal
    chosen: Array = (weight > draws[..., 1:] * weight[..., -1:]).argmax(-1)
    return chosen


def some_legal(mask: Array) -> Array:
    """The mask as bool; where an episode has ended and nothing is legal, everything is."""
    legal: Array = np.asarray(mask, np.bool_)
    return legal | ~legal.any(-1, keepdims=True)


def by_seed(column: Array, seeds: int) -> Array:
    """A rollout's column [T, K n, ...] as [K, T, n, ...]."""
    shape = (column.shape[0], seeds, -1, *column.shape[2:])
    return np.ascontiguousarray(column.reshape(shape).swapaxes(0, 1))


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
        self.explore = EXPLORATIONS[config.exploration]
        self.generators = list(generators)
        sizes = Sizes(len(self.generators), lanes, spec.num_states, spec.num_actions)
        shape = (spec.num_states, spec.num_actions)
        self.q = np.full((sizes.seeds, config.tables, *shape), float(config.initial_value))
        self.visits = np.zeros((sizes.seeds, *(shape if self.explore == UCB else (1, 1))))
        self.memory = config.remembers(sizes)
        self.tally = Tally(sizes.seeds, lanes)
        self.fused = False  # a fused source learns in its kernel; observing then only counts

    @property
    def updates(self) -> int:
        """Rows learned, a lane."""
        return self.tally.updates

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
        self.tally.observe(rollout)

    def _forbid(self, obs: Array, masks: Array) -> None:
        """Write what is legal in the states [T+1, K n] into the tables."""
        states, legal = (by_seed(column, len(self.q)) for column in (obs, some_legal(masks)))
        for k, q in enumerate(self.q):
            for allowed in (False, True):
                *row, action = np.nonzero(legal[k] == allowed)
                state = states[k][tuple(row)]
                known = q[:, state, action]
                allowed_now = np.where(known == -np.inf, self.config.initial_value, known)
                q[:, state, action] = allowed_now if allowed else -np.inf

    def _learn(self, rollout: Rollout) -> None:
        lr = linear(self.tally.lane_steps, *self.config.schedule()[:3])
        columns = [
            by_seed(column, len(self.q))
            for column in (
                rollout.obs, rollout.first, rollout.action, rollout.reward, rollout.terminated
            )
        ]  # fmt: skip
        learn = learn_rows(self.config.rule, self.explore)
        for k in range(len(self.q)):
            learn(
                self.q[k], self.visits[k], *(column[k] for column in columns),
                self.coins(k, rollout.rows), self.remembered(k), self.config.numbers(),
                lr, self._level(), self.tally.sums[k],
            )  # fmt: skip

    def remembered(self, k: int) -> Any:
        """What the rule remembers of seed k, as its kernel takes it: views."""
        return self.config.memory(**{name: array[k] for name, array in self.memory.items()})

    def coins(self, k: int, rows: int) -> Array:
        """[T, n c] uniform numbers of seed k, c a lane: as many as the rule takes at a row."""
        if not self.config.coins:
            return np.empty((0, 0))
        return self.generators[k].random((rows, self.lanes * self.config.coins))

    def _level(self) -> float:
        level: float = linear(self.tally.lane_steps, *self.config.schedule()[3:])
        return level

    def updates_due(self) -> int:
        """None: `observe` has learned."""
        return 0

    def update(self) -> None:
        """Nothing is ever due."""

    def params(self) -> Params:
        """Copies of the tables, and at the clock the ε, or the level of what takes its place."""
        tensors, lane_steps = {"q": torch.from_numpy(self.q.copy())}, self.tally.lane_steps
        if self.explore == UCB:
            tensors["visits"] = torch.from_numpy(self.visits.copy())
        return Params(self.tally.version, lane_steps, tensors, self.config.scalars(lane_steps))

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the rows learned since this was last asked for; the last ones without any."""
        return self.tally.metrics()

    def state_dict(self) -> State:
        return {
            "q": self.q,
            "visits": self.visits,
            "memory": self.memory,
            "generators": [generator.bit_generator.state for generator in self.generators],
            **self.tally.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.q[:], self.visits[:] = state["q"], state["visits"]
        for name, array in self.memory.items():
            array[:] = state["memory"][name]
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.tally.load_state_dict(state)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.q, self.visits = self.q[kept], self.visits[kept]
        self.memory = {name: array[kept] for name, array in self.memory.items()}
        self.tally.keep(kept)
        self.generators = [self.generators[k] for k in kept]


def make_actor(
    config: TabularConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> TabularActor:
    """An actor for as many seeds as there are generators."""
    return TabularActor(config, spec, generators)


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
