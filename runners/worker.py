"""The rollout worker: simulators and actors on one side, `Rollout` on the other.

One plain class, whichever process it runs in. It owns whole blocks: a block is one vector
environment of n lanes of one seed with one exploration stream, so that what a block does depends on
nothing but itself. Columns are seed-major: seed 0's blocks, then seed 1's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.contract import Actor, Array, Params, Rollout, State
from envs.contract import (
    OBSERVATION_FACTS,
    STEP_FACTS,
    Resumable,
    SimulatorError,
    Spec,
    VectorSimulator,
)
from runners import seeding
from runners.checked import CheckedSimulator, finite
from runners.seeding import Stream
from runners.sources import Plan

MakeSimulator = Callable[[int, int], VectorSimulator]
"""(seed, block) to that block's simulator."""
MakeActor = Callable[[Sequence[np.random.Generator]], Actor]
"""One exploration stream a seed to an actor for all of them."""


class RolloutWorker:
    """Steps K seeds x B blocks x n lanes and records what happens."""

    def __init__(
        self,
        env_id: str,
        spec: Spec,
        seeds: Sequence[int],
        blocks: int,
        make_simulator: MakeSimulator,
        make_actor: MakeActor,
        *,
        max_rows: int,
        reward_dtype: type[np.floating[Any]],
    ) -> None:
        self.env_id, self.spec, self.make_actor = env_id, spec, make_actor
        self.seeds, self.max_rows, self.reward_dtype = list(seeds), max_rows, reward_dtype
        self.simulators = [[make_simulator(seed, b) for b in range(blocks)] for seed in seeds]
        self.generators = [
            [seeding.generator(seed, Stream.ACTOR, b) for b in range(blocks)] for seed in seeds
        ]
        self.lanes = self.simulators[0][0].num_envs
        self.resumable = all(isinstance(env, Resumable) for row in self.simulators for env in row)
        self.steps_done = 0  # rows so far, for messages
        self.newest = 0  # the row that is row 0 of the next rollout
        self.pending_reset: int | None = None  # number of the checkpoint that asked for it
        self.range_warned = False
        self._watch()
        self._build_actors()
        self._allocate()
        self._begin()

    def _watch(self) -> None:
        """Number every simulator by its seed and its block, and look at what it returns."""
        self.blocks = []
        for k, row in enumerate(self.simulators):
            for b, env in enumerate(row):
                first_lane = (k * len(row) + b) * self.lanes
                self.blocks.append((k, b, CheckedSimulator(env, self.env_id, first_lane)))

    def _build_actors(self) -> None:
        """One actor a block position: it acts for that block of every seed at once."""
        blocks = range(len(self.simulators[0]))
        self.actors = [self.make_actor([row[b] for row in self.generators]) for b in blocks]
        self.actor_states = [actor.initial_state(self.lanes) for actor in self.actors]

    def _allocate(self) -> None:
        spec, rows = self.spec, self.max_rows
        shape = (len(self.seeds), len(self.simulators[0]), self.lanes)  # K, B, n
        self.obs = np.zeros((rows + 1, *shape, *spec.obs_shape), spec.obs_dtype)
        self.first = np.zeros((rows + 1, *shape), np.bool_)
        self.action = np.zeros((rows, *shape, *spec.action_shape), spec.action_dtype)
        self.reward = np.zeros((rows, *shape), self.reward_dtype)
        self.terminated = np.zeros((rows, *shape), np.bool_)
        self.truncated = np.zeros((rows, *shape), np.bool_)
        self.done_before = np.zeros(shape, np.bool_)  # in the row before row 0
        space = self.simulators[0][0].single_observation_space
        if isinstance(space, spaces.Box):  # a row's bounds, laid out like the row
            lanes = int(np.prod(shape))
            self.low, self.high = (
                np.tile(bound.astype(spec.obs_dtype).ravel(), lanes)
                for bound in (space.low, space.high)
            )
        self.facts: dict[str, Array] = {}
        self.step_facts: dict[str, Array] = {}
        self.extras: dict[str, Array] = {}

    def _begin(self) -> None:
        """Every lane's first observation is row 0 of the first rollout."""
        for k, b, env in self.blocks:
            self.obs[0, k, b], info = env.reset(self.steps_done)
            self._record_facts(0, k, b, info)
        self.first[0] = True

    def load_params(self, params: Params) -> None:
        """Act with these from the next row on."""
        for actor in self.actors:
            actor.load_params(params)

    def collect(self, plan: Plan, version: int) -> Rollout:
        """The next ``plan.rows`` rows.

        A simulator that cannot give its state is reset where a checkpoint is scheduled, so that a
        run that is resumed there and one that goes on are the same: its last row is truncated, and
        the next rollout begins with an ignored row.

        Raises:
            SimulatorError: a simulator raised, or returned a wrong shape, dtype or number.
        """
        rows = plan.rows
        self._carry_over()
        actor_state = {
            str(b): state
            for b, (actor, state) in enumerate(zip(self.actors, self.actor_states, strict=True))
            if actor.stored and state
        }
        for t in range(rows):
            self._act(t)
            for k, b, env in self.blocks:
                self._step(t, k, b, env)
            self.pending_reset = None
            self.first[t + 1] = self._done(t - 1) if t else self.done_before
        if plan.checkpoint is not None and not self.resumable:
            self.truncated[rows - 1] |= ~self.terminated[rows - 1]
            self.pending_reset = plan.checkpoint
        self.newest = rows
        rollout = self._rollout(rows, actor_state, version)
        self._check(rollout)
        self.steps_done += rows
        return rollout

    def _done(self, t: int) -> Array:
        done: Array = self.terminated[t] | self.truncated[t]
        return done

    def _carry_over(self) -> None:
        """The row after the last rollout becomes row 0 of this one."""
        if not self.newest:
            return
        for column in (self.obs, self.first, *self.facts.values()):
            column[0] = column[self.newest]
        self.done_before = self._done(self.newest - 1)
        self.newest = 0

    def _act(self, t: int) -> None:
        for b, actor in enumerate(self.actors):
            facts = {name: column[t, :, b] for name, column in self.facts.items()}
            action, self.actor_states[b], extras = actor.act(
                self.obs[t, :, b], self.first[t, :, b], facts, self.actor_states[b], True
            )
            self.action[t, :, b] = action
            for name, value in extras.items():
                self._column(self.extras, name, value.shape[2:], value.dtype)[t, :, b] = value

    def _step(self, t: int, k: int, b: int, env: CheckedSimulator) -> None:
        if self.pending_reset is not None:
            number = self.pending_reset
            seed = seeding.integer(self.seeds[k], Stream.FORCED_RESET, b, number)
            self.obs[t + 1, k, b], info = env.reset(self.steps_done + t, seed)
            self.reward[t, k, b] = 0.0
            self.terminated[t, k, b] = self.truncated[t, k, b] = False
            self._record_facts(t + 1, k, b, info)
            return
        obs, reward, terminated, truncated, info = env.step(
            self.steps_done + t, self.action[t, k, b]
        )
        self.obs[t + 1, k, b] = obs
        self.reward[t, k, b] = reward
        self.terminated[t, k, b] = terminated
        self.truncated[t, k, b] = truncated
        if info:
            self._record_facts(t + 1, k, b, info)

    def _record_facts(self, row: int, k: int, b: int, info: dict[str, Any]) -> None:
        """Facts of the observation in ``row``, and of the step that led to it."""
        for name in OBSERVATION_FACTS:
            if name in info:
                value = np.asarray(info[name])
                self._column(self.facts, name, value.shape[1:], value.dtype)[row, k, b] = value
        for name in STEP_FACTS:
            if name in info and row:
                value = np.asarray(info[name])
                column = self._column(self.step_facts, name, value.shape[1:], value.dtype)
                column[row - 1, k, b] = value

    def _column(
        self, table: dict[str, Array], name: str, shape: tuple[int, ...], dtype: Any
    ) -> Array:
        if name not in table:
            table[name] = np.zeros((self.max_rows + 1, *self.first.shape[1:], *shape), dtype)
        return table[name]

    def _rollout(self, rows: int, actor_state: State, version: int) -> Rollout:
        def flat(column: Array, length: int) -> Array:
            return column[:length].reshape(length, -1, *column.shape[4:])

        return Rollout(
            obs=flat(self.obs, rows + 1),
            first=flat(self.first, rows + 1),
            action=flat(self.action, rows),
            reward=flat(self.reward, rows),
            terminated=flat(self.terminated, rows),
            truncated=flat(self.truncated, rows),
            facts={name: flat(column, rows + 1) for name, column in self.facts.items()},
            step_facts={name: flat(column, rows) for name, column in self.step_facts.items()},
            extras={name: flat(column, rows) for name, column in self.extras.items()},
            actor_state=actor_state,
            version=version,
        )

    def _check(self, rollout: Rollout) -> None:
        """Look at whole arrays once a rollout; the lane is searched only when one is bad."""
        if not finite(rollout.reward):
            t, lane = np.argwhere(~np.isfinite(rollout.reward))[0]
            self._bad_number(t, lane, f"the reward is {rollout.reward[t, lane]}")
        if rollout.obs.dtype.kind == "f":
            self._check_floats(rollout.obs)

    def _check_floats(self, obs: Array) -> None:
        """Two passes, for the least and the most of each number of a row: NaN comes through both."""
        flat = obs.reshape(len(obs), -1)
        least, most = flat.min(axis=0), flat.max(axis=0)
        if not (np.isfinite(least).all() and np.isfinite(most).all()):
            t, lane = np.argwhere(~np.isfinite(obs))[0][:2]
            self._bad_number(max(t - 1, 0), lane, f"the observation is {obs[t, lane]}")
        if self.range_warned or not ((least < self.low) | (most > self.high)).any():
            return
        self.range_warned = True
        outside = np.count_nonzero((flat < self.low) | (flat > self.high))
        told = f"{outside} numbers of a rollout lie outside the observation space"
        warnings.warn(f"{self.env_id}: {told}; told once", stacklevel=2)

    def _bad_number(self, t: int, lane: int, what: str) -> None:
        raise SimulatorError(self.env_id, int(lane), self.steps_done + int(t), what)

    def state_dict(self) -> State:
        """Between two rollouts: the row to come, streams, and simulators where they can."""
        row = self.newest
        done = self._done(row - 1) if row else self.done_before
        state: State = {
            "obs": self.obs[row],
            "first": self.first[row],
            "done_before": done,
            "facts": {name: column[row] for name, column in self.facts.items()},
            "generators": [[g.bit_generator.state for g in blocks] for blocks in self.generators],
            "actor_states": {str(b): state for b, state in enumerate(self.actor_states)},
            "pending_reset": self.pending_reset,
            "steps_done": self.steps_done,
        }
        if self.resumable:
            state["simulators"] = {
                f"{k}.{b}": checked.env.get_state()
                for k, b, checked in self.blocks
                if isinstance(checked.env, Resumable)
            }
        return state

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`."""
        self.newest = 0
        self.obs[0], self.first[0] = state["obs"], state["first"]
        self.done_before = np.array(state["done_before"])
        for name, value in state["facts"].items():
            self._column(self.facts, name, value.shape[3:], value.dtype)[0] = value
        for blocks, saved in zip(self.generators, state["generators"], strict=True):
            for generator, bits in zip(blocks, saved, strict=True):
                generator.bit_generator.state = bits
        self.actor_states = [state["actor_states"][str(b)] for b in range(len(self.actors))]
        self.pending_reset, self.steps_done = state["pending_reset"], state["steps_done"]
        if self.resumable:
            for k, b, checked in self.blocks:
                if isinstance(checked.env, Resumable):
                    checked.env.set_state(state["simulators"][f"{k}.{b}"])

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions only; the others' simulators are closed."""
        kept = list(seeds)
        for k, row in enumerate(self.simulators):
            if k not in kept:
                for env in row:
                    env.close()
        self._carry_over()
        before = (self.obs, self.first, self.facts, self.done_before)
        self.seeds = [self.seeds[k] for k in kept]
        self.simulators = [self.simulators[k] for k in kept]
        self._watch()
        self.generators = [self.generators[k] for k in kept]
        states = self.actor_states
        self._build_actors()
        self.actor_states = [_keep_state(state, kept) for state in states]
        self._allocate()
        obs, first, facts, self.done_before = before[0], before[1], before[2], before[3][kept]
        self.obs[0], self.first[0] = obs[0, kept], first[0, kept]
        for name, column in facts.items():
            self._column(self.facts, name, column.shape[4:], column.dtype)[0] = column[0, kept]

    def close(self) -> None:
        """Close the simulators."""
        for row in self.simulators:
            for env in row:
                env.close()


def _keep_state(state: State, seeds: list[int]) -> State:
    """An actor's state for the seeds at these positions; arrays have the seeds' axis first."""
    return {
        name: _keep_state(value, seeds) if isinstance(value, dict) else value[seeds]
        for name, value in state.items()
    }
