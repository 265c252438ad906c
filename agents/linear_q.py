"""Q-learning, linear in the tiles that an observation lies in.

Sutton & Barto 2018: the features are section 9.5.4's, the values equation 9.8's with weights for each
action, the control is section 10.1's episodic semi-gradient one (equation 10.1) with Q-learning's target:

    q(s, a) = Σ_i w[a, i] x_i(s),    w[a] ← w[a] + α / m (r + γ max_b q(s', b) - q(s, a)) x(s)

With m tilings, m features are 1 and all others 0: α / m is what makes α the share of the error that one
step takes away (section 9.6, equation 9.19).

It explores as tables do. Upper confidence bounds (equation 2.10) go by visits that are counted as values are:
N(s, a) is the mean over tilings of how often action a was taken in the tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from agents.contract import Array, Params, Rollout, State
from agents.exploration import greedy, linear
from agents.hyper import BadValue, Search, at_least, unit
from agents.replay.view import reward_and_discount
from agents.tabular import by_seed, explore_legal, some_legal, two_draws
from agents.tabular_config import EXPLORATIONS, RowwiseConfig
from agents.tabular_kernels import UCB, count
from agents.tally import Tally
from agents.tiles import Tiling, active_tiles, make_tiling
from envs.contract import Spec
from envs.kernel import inlined, kernel

GROUP = 16  # seeds in one process
MOST_WEIGHTS = 2**24  # of a seed: 128 MiB
_UNBOUNDED = float(np.finfo(np.float32).max)  # what a Box says where it knows no bound


@dataclass(frozen=True)
class LinearQConfig(RowwiseConfig):
    """Hyperparameters of linear Q-learning; the tilings share the step size."""

    epsilon_end: Annotated[float, unit(), Search("linear", 0.0, 0.1)] = 0.05
    """share of random actions in the end"""
    tilings: Annotated[int, at_least(1)] = 8
    """grids that are shifted against each other; a power of two"""
    tiles: Annotated[int, at_least(1)] = 8
    """tiles from low to high, in each dimension"""
    low: tuple[float, ...] = ()
    """where the tiles begin, a number a dimension; empty: where the observations' Box does"""
    high: tuple[float, ...] = ()
    """where they end; what lies beyond counts as the edge"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tilings & (self.tilings - 1):
            raise BadValue(f"tilings: got {self.tilings}, takes a power of two, as in 8 or 16")

    def tiling(self, spec: Spec) -> Tiling:
        """The tiles for observations of this kind.

        Raises:
            BadValue: an observation is not one row of numbers, a bound is not known or not one of as
                many as there are numbers, or there would be too many tiles.
        """
        if len(spec.obs_shape) != 1:
            raise BadValue(
                f"tiles: linear_q takes observations of one row of numbers, got {spec.obs_shape}"
            )
        low = _bound("low", self.low, spec.obs_low, *spec.obs_shape)
        high = _bound("high", self.high, spec.obs_high, *spec.obs_shape)
        if not (low < high).all():
            raise BadValue(f"high: got {high.tolist()}, takes numbers above low = {low.tolist()}")
        made = make_tiling(low.tolist(), high.tolist(), self.tilings, self.tiles)
        weights = made.features * spec.num_actions
        if weights > MOST_WEIGHTS:
            raise BadValue(
                f"tiles: {self.tilings} tilings of {self.tiles} tiles in each of {len(low)} dimensions "
                f"make {weights:,} weights, takes at most {MOST_WEIGHTS:,}: fewer tiles or tilings"
            )
        return made


def _bound(name: str, given: tuple[float, ...], known: Array | None, dimensions: int) -> Array:
    """``given``, or else the Box's own bound where it has one in every dimension."""
    if given:
        if len(given) != dimensions:
            raise BadValue(f"{name}: got {len(given)} numbers, takes {dimensions}, one a dimension")
        return np.array(given, np.float64)
    bound = np.full(dimensions, np.inf) if known is None else known.astype(np.float64)
    unbounded = np.flatnonzero(~(np.abs(bound) < _UNBOUNDED)).tolist()
    if unbounded:
        raise BadValue(
            f"{name}: the observations' Box has none in dimension {', '.join(map(str, unbounded))}; "
            f"takes {dimensions} numbers, one a dimension, that most observations lie within"
        )
    return bound


@inlined()
def value_of(weights, action, tiles):  # type: ignore[no-untyped-def]
    """``q(s, a) = Σ_i w[a, i] x_i(s)``: the sum over the tiles that s lies in (equation 9.8)."""
    value = 0.0
    for tile in tiles:
        value += weights[action, tile]
    return value


@kernel()
def values_of(weights, tiling, obs, values):  # type: ignore[no-untyped-def]
    """The values [n, A] of observations [n, D] by one seed's weights [A, features]."""
    tiles = np.empty(tiling.offset.shape[0], np.int64)
    for lane in range(obs.shape[0]):
        active_tiles(tiling, obs[lane], tiles)
        for action in range(weights.shape[0]):
            values[lane, action] = value_of(weights, action, tiles)


@kernel()
def learn_rows(  # type: ignore[no-untyped-def]
    weights, visits, tiling, obs, first, action, reward, discount, legal, lr, sums
):
    """Learn one seed's rows [T, n] in order of time, lane after lane (equation 10.1).

    Args:
        weights: [A, features] float64, changed in place.
        visits: [A, features] float64, how often an action was taken in a tile; [0, 0]: not counted.
        tiling: a `Tiling`.
        obs: [T+1, n, D] float64.
        first: [T+1, n] bool; row t is an ignored one where ``first[t + 1]``.
        action: [T, n] int64.
        reward: [T, n] float64.
        discount: [T, n] float64: γ, 0 where terminated.
        legal: [T+1, n, A] bool.
        lr: α, shared by the tilings.
        sums: [4] float64 of the metrics, see `tabular_kernels.count`.
    """
    tilings = tiling.offset.shape[0]
    tiles = np.empty(tilings, np.int64)
    for t in range(reward.shape[0]):
        for lane in range(reward.shape[1]):
            if first[t + 1, lane]:
                continue
            active_tiles(tiling, obs[t + 1, lane], tiles)
            best = -np.inf
            for a in range(weights.shape[0]):
                if legal[t + 1, lane, a]:
                    best = max(best, value_of(weights, a, tiles))
            goal = reward[t, lane] + discount[t, lane] * best
            active_tiles(tiling, obs[t, lane], tiles)
            a = action[t, lane]
            error = goal - value_of(weights, a, tiles)
            for tile in tiles:
                weights[a, tile] += lr / tilings * error
            if visits.size:
                for tile in tiles:
                    visits[a, tile] += 1.0
            count(sums, goal, error)


class LinearQActor:
    """Explores by the weights of each seed, ties at random; else the best action, ties to the lowest."""

    stored = looks_back = False  # it has no state

    def __init__(
        self, config: LinearQConfig, spec: Spec, generators: Sequence[np.random.Generator]
    ) -> None:
        self.tiling, self.num_actions = config.tiling(spec), spec.num_actions
        self.explore = EXPLORATIONS[config.exploration]
        self.weights, self.visits = _zeros(config, spec, len(generators))
        self.generators = generators
        self.level = 1.0  # ε, temperature or the width of bounds

    def initial_state(self, lanes: int) -> State:
        """None: the observation is all there is."""
        del lanes
        return {}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, D]."""
        del first
        values, mask = self.values(obs), facts.get("action_mask")
        if not explore:
            return greedy(values, mask), state, {}
        draws = two_draws(self.generators, obs.shape[1])
        legal = np.ones(values.shape, np.bool_) if mask is None else mask
        visits = None
        if self.explore == UCB:
            visits = self._sums(self.visits, obs) / len(self.tiling.offset)
        return explore_legal(self.explore, values, visits, legal, self.level, draws), state, {}

    def values(self, obs: Array) -> Array:
        """q(s, a), [K, n, A]."""
        return self._sums(self.weights, obs)

    def _sums(self, weights: Array, obs: Array) -> Array:
        """[K, n, A] over the tiles that observations [K, n, D] lie in, of numbers [K, A, features]."""
        seen = np.ascontiguousarray(obs, np.float64)
        sums = np.empty((*obs.shape[:2], self.num_actions))
        for k in range(len(sums)):
            values_of(weights[k], self.tiling, seen[k], sums[k])
        return sums

    def load_params(self, params: Params) -> None:
        """Copy the weights, and what exploration goes by."""
        np.copyto(self.weights, params.tensors["weights"].numpy())
        if "visits" in params.tensors:
            np.copyto(self.visits, params.tensors["visits"].numpy())
        self.level = params.scalars.get("level", params.scalars["epsilon"])


def _zeros(config: LinearQConfig, spec: Spec, seeds: int) -> tuple[Array, Array]:
    """Weights [K, A, features], and visits where exploration goes by them, else [K, 0, 0]."""
    shape = (spec.num_actions, config.tiling(spec).features)
    counted = shape if config.exploration == "ucb" else (0, 0)
    return np.zeros((seeds, *shape)), np.zeros((seeds, *counted))


class LinearQLearner:
    """The weights of K seeds; learns as it observes, so there is never an update due."""

    def __init__(self, config: LinearQConfig, spec: Spec, lanes: int, seeds: int) -> None:
        self.config = config
        self.tiling = config.tiling(spec)
        self.weights, self.visits = _zeros(config, spec, seeds)
        self.weights += config.initial_value / config.tilings
        self.tally = Tally(seeds, lanes)

    @property
    def updates(self) -> int:
        """Rows learned, a lane."""
        return self.tally.updates

    @property
    def replay(self) -> None:
        """None: every row is learned once and forgotten."""
        return

    def observe(self, rollout: Rollout) -> None:
        """Learn the rows."""
        c = self.config
        reward, discount = reward_and_discount(
            rollout.reward.astype(np.float64), rollout.terminated, c.gamma, 1.0, np.inf
        )
        actions = self.weights.shape[1]
        mask = rollout.facts.get("action_mask", np.ones((*rollout.first.shape, actions), np.bool_))
        columns = [
            by_seed(column, len(self.weights))
            for column in (
                rollout.obs.astype(np.float64), rollout.first, rollout.action, reward, discount,
                some_legal(mask),
            )
        ]  # fmt: skip
        lr = linear(self.tally.lane_steps, *c.step_sizes())
        for weights, visits, obs, first, action, r, gamma, legal, sums in zip(
            self.weights, self.visits, *columns, self.tally.sums, strict=True
        ):
            learn_rows(
                weights, visits, self.tiling, obs, first, action, r, gamma, legal, lr, sums
            )  # fmt: skip
        self.tally.observe(rollout)

    def updates_due(self) -> int:
        """None: `observe` has learned."""
        return 0

    def update(self) -> None:
        """Nothing is ever due."""

    def params(self) -> Params:
        """Copies of the weights, and at the clock the ε, or the level of what takes its place."""
        lane_steps = self.tally.lane_steps
        tensors = {"weights": torch.from_numpy(self.weights.copy())}
        if self.visits.size:
            tensors["visits"] = torch.from_numpy(self.visits.copy())
        return Params(self.tally.version, lane_steps, tensors, self.config.scalars(lane_steps))

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the rows learned since this was last asked for; the last ones without any."""
        return self.tally.metrics()

    def state_dict(self) -> State:
        return {
            "weights": self.weights,
            "visits": self.visits,
            **self.tally.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.weights[:], self.visits[:] = state["weights"], state["visits"]
        self.tally.load_state_dict(state)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.weights, self.visits = self.weights[kept], self.visits[kept]
        self.tally.keep(kept)


def make_actor(
    config: LinearQConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> LinearQActor:
    """An actor for as many seeds as there are generators."""
    return LinearQActor(config, spec, generators)


def make_learner(
    config: LinearQConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
) -> LinearQLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; always on the CPU, in float64."""
    del replay_generators, device
    return LinearQLearner(config, spec, lanes, len(learner_seeds))
