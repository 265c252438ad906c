"""The rollout worker: simulators and actors on one side, `Rollout` on the other.

One plain class, whichever process it runs in. It owns whole blocks: a block is one vector
environment of n lanes of one seed with one exploration stream, so that what a block does depends on
nothing but itself. Columns are seed-major: seed 0's blocks, then seed 1's; a worker has a part of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from agents.contract import Actor, Array, Params, Placed, Rollout, State
from envs.contract import (
    OBSERVATION_FACTS,
    STEP_FACTS,
    Resumable,
    SimulatorError,
    Spec,
    VectorSimulator,
)
from runners import faults, journal, seeding
from runners.checked import CheckedSimulator, finite
from runners.faults import fault_point
from runners.seeding import Stream
from runners.slots import Slot, new_slot, rows_of
from runners.sources import Plan
from runners.timing import Times
from runners.worker_state import joined, of_seeds

MakeSimulator = Callable[[int, int], VectorSimulator]
"""(seed, block) to that block's simulator."""
MakeActor = Callable[[Sequence[np.random.Generator]], Actor]
"""One exploration stream a seed to an actor for all of them."""


MakeJournal = Callable[[int, journal.Block], journal.Journal]
"""(column of this worker, block) to what keeps what that block's simulator is asked."""


class Block(NamedTuple):
    """One vector environment of one seed."""

    k: int  # the seed's position in the group
    b: int  # its position among the seed's blocks of this learner
    number: int  # among all of the seed's blocks, whoever has them
    env: CheckedSimulator
    generator: np.random.Generator

    @property
    def name(self) -> str:
        """In a state."""
        return f"{self.k}.{self.b}"


class RolloutWorker:
    """Steps blocks of n lanes, of K seeds with B blocks each, and records what happens."""

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
        columns: range | None = None,
        first_block: int = 0,
        life: int = 0,
        make_journal: MakeJournal | None = None,
        times: Times | None = None,
    ) -> None:
        """It has the blocks ``columns`` of all ``K * blocks``, seed-major; None: all.

        A seed's blocks are numbered from ``first_block``: other learners may have those before.
        ``life`` is how many workers had them before it and died: it draws other numbers.
        """
        self.env_id, self.spec, self.make_actor = env_id, spec, make_actor
        self.seeds, self.reward_dtype = list(seeds), reward_dtype
        self.life, self.per_seed, self.first_block = life, blocks, first_block
        self.make_journal = make_journal or self._own_journal
        self.blocks: list[Block] = []
        for column in range(len(seeds) * blocks) if columns is None else columns:
            k, b = divmod(column, blocks)
            number = first_block + b
            checked = self._watched(make_simulator(seeds[k], number), k, number)
            stream = seeding.actor_stream(seeds[k], number, life)
            self.blocks.append(Block(k, b, number, checked, stream))
        self.lanes = self.blocks[0].env.env.num_envs
        self.resumable = all(isinstance(block.env.env, Resumable) for block in self.blocks)
        self.steps_done = 0  # rows so far, for messages
        self.rows_begun = np.zeros(1, np.int64)  # a sign of life, for whoever watches
        self.times = times or Times()
        self.pending_reset: int | None = None  # number of the checkpoint that asked for it
        self.range_warned = False
        self._number()
        self._build_actors()
        self._tile_bounds()
        self.slot = self.new_slot(max_rows)
        self._begin()

    def _watched(self, env: VectorSimulator, k: int, number: int) -> CheckedSimulator:
        """Look at what a simulator returns, and keep what it is asked."""
        seed = self.seeds[k]
        drawn = seeding.simulator_seed(seed, number, self.life)
        block = journal.Block(env.num_envs, drawn, seed, number)
        kept = self.make_journal(len(self.blocks), block)
        return CheckedSimulator(env, self.env_id, journal=kept)

    def _own_journal(self, column: int, block: journal.Block) -> journal.Journal:
        del column
        return journal.new_journal(block, self.spec.action_shape, self.spec.action_dtype)

    def _number(self) -> None:
        """The lanes' numbers that messages give, by seed and block."""
        for block in self.blocks:
            before = self.first_block * len(self.seeds)  # of other learners
            block.env.number((before + block.k * self.per_seed + block.b) * self.lanes)

    def new_slot(self, rows: int) -> Slot:
        """Room for rollouts of this worker."""
        return new_slot(self.spec, rows, len(self.blocks), self.lanes, self.reward_dtype)

    def _build_actors(self) -> None:
        """One actor a block position: it acts for that block of every seed at once."""
        self.actors: dict[int, Actor] = {}
        self.parts: dict[int, slice] = {}  # the columns each acts for
        self.actor_states: dict[int, State] = {}
        for b in sorted({block.b for block in self.blocks}):
            columns = [c for c, block in enumerate(self.blocks) if block.b == b]
            stride = columns[1] - columns[0] if len(columns) > 1 else 1
            self.parts[b] = slice(columns[0], columns[-1] + 1, stride)
            actor = self.make_actor([self.blocks[c].generator for c in columns])
            if isinstance(actor, Placed):
                actor.place(b * self.lanes, self.per_seed * self.lanes)
            self.actors[b] = actor
            self.actor_states[b] = self.actors[b].initial_state(self.lanes)

    def _tile_bounds(self) -> None:
        """A row's bounds, laid out like the row."""
        space = self.blocks[0].env.env.single_observation_space
        if isinstance(space, spaces.Box):
            lanes, dtype = len(self.blocks) * self.lanes, self.spec.obs_dtype
            self.low, self.high = (
                np.tile(bound.astype(dtype).ravel(), lanes) for bound in (space.low, space.high)
            )

    def _begin(self) -> None:
        """Every lane's first observation is row 0 of the first rollout."""
        shape = (len(self.blocks), self.lanes)
        self.done_before = np.zeros(shape, np.bool_)  # in the row before row 0
        for c, block in enumerate(self.blocks):
            self.slot.obs[0, c], info = block.env.reset(self.steps_done)
            self._record_facts(self.slot, 0, c, info)
        self.slot.first[0] = True
        self._next_is(0)

    def _next_is(self, row: int) -> None:
        """That row of the slot is row 0 of the next rollout."""
        slot = self.slot
        self.obs, self.first, self.facts = slot.obs[row], slot.first[row], rows_of(slot.facts, row)

    def take_place(self, steps_done: int, pending_reset: int | None) -> None:
        """Begin where a worker was replaced: after so many rows, and where a checkpoint was scheduled.

        Its row to come is then an ignored one, as everybody's is who is reset there.
        """
        self.steps_done = steps_done
        if pending_reset is not None and not self.resumable:
            self.pending_reset = pending_reset
            self.done_before[:] = True

    def load_params(self, params: Params) -> None:
        """Act with these from the next row on."""
        for b, actor in self.actors.items():
            seeds = [block.k for block in self.blocks[self.parts[b]]]
            actor.load_params(params if len(seeds) == len(self.seeds) else params.keep(seeds))

    def collect(self, plan: Plan, version: int, slot: Slot | None = None) -> Rollout:
        """The next ``plan.rows`` rows, written into ``slot``; None: into the same as before.

        A simulator that cannot give its state is reset where a checkpoint is scheduled, so that a
        run that is resumed there and one that goes on are the same: its last row is truncated, and
        the next rollout begins with an ignored row.

        Raises:
            SimulatorError: a simulator raised, or returned a wrong shape, dtype or number.
        """
        rows = plan.rows
        for block in self.blocks:
            block.env.sound(self.steps_done)
        slot = self.slot if slot is None else slot
        slot.obs[0], slot.first[0] = self.obs, self.first
        for name, value in self.facts.items():
            slot.column("facts", name, value.shape[2:], value.dtype)[0] = value
        self.slot = slot
        lap = self.times.lap
        lap("other")
        actor_state = {
            str(b): state
            for b, state in self.actor_states.items()
            if self.actors[b].stored and state
        }
        done = self.done_before
        for t in range(rows):
            self.rows_begun += 1
            if faults.ON:
                fault_point("worker.row")
            self._act(slot, t)
            lap("act")
            for c, block in enumerate(self.blocks):
                self._step(slot, t, c, block)
            self.pending_reset = None
            slot.first[t + 1] = done
            done = slot.terminated[t] | slot.truncated[t]
            lap("simulate")
        if plan.checkpoint is not None and not self.resumable:
            slot.truncated[rows - 1] |= ~slot.terminated[rows - 1]
            self.pending_reset = plan.checkpoint
            done = slot.terminated[rows - 1] | slot.truncated[rows - 1]
        self.done_before = done
        self._next_is(rows)
        rollout = slot.rollout(rows, actor_state, version)
        self._check(rollout)
        self.steps_done += rows
        lap("simulate")
        return rollout

    def _act(self, slot: Slot, t: int) -> None:
        for b, actor in self.actors.items():
            part = self.parts[b]
            facts = {name: column[t, part] for name, column in slot.facts.items()}
            action, self.actor_states[b], extras = actor.act(
                slot.obs[t, part], slot.first[t, part], facts, self.actor_states[b], True
            )
            slot.action[t, part] = action
            for name, value in extras.items():
                column = slot.column("extras", name, value.shape[2:], value.dtype)
                column[t, part] = value

    def _step(self, slot: Slot, t: int, c: int, block: Block) -> None:
        if self.pending_reset is not None:
            number = self.pending_reset
            seed = seeding.integer(self.seeds[block.k], Stream.FORCED_RESET, block.number, number)
            slot.obs[t + 1, c], info = block.env.reset(self.steps_done + t, seed)
            slot.reward[t, c] = 0.0
            slot.terminated[t, c] = slot.truncated[t, c] = False
        else:
            (
                slot.obs[t + 1, c], slot.reward[t, c],
                slot.terminated[t, c], slot.truncated[t, c], info,
            ) = block.env.step(self.steps_done + t, slot.action[t, c])  # fmt: skip
        if info:
            self._record_facts(slot, t + 1, c, info)

    def _record_facts(self, slot: Slot, row: int, c: int, info: dict[str, Any]) -> None:
        """Facts of the observation in ``row``, and of the step that led to it."""
        for name in OBSERVATION_FACTS:
            if name in info:
                value = np.asarray(info[name])
                slot.column("facts", name, value.shape[1:], value.dtype)[row, c] = value
        for name in STEP_FACTS:
            if name in info and row:
                value = np.asarray(info[name])
                column = slot.column("step_facts", name, value.shape[1:], value.dtype)
                column[row - 1, c] = value

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
        simulator = self.blocks[lane // self.lanes].env
        here = simulator.first_lane + lane % self.lanes
        error = SimulatorError(self.env_id, int(here), self.steps_done + int(t), what)
        error.journal = simulator.journal
        raise error

    def state_dict(self) -> State:
        """Between two rollouts: the row to come; of each block its streams, and simulators where they can."""
        return {
            "obs": self.obs,
            "first": self.first,
            "done_before": self.done_before,
            "facts": dict(self.facts),
            "blocks": {
                block.name: self._block_state(c, block) for c, block in enumerate(self.blocks)
            },
            "pending_reset": self.pending_reset,
            "steps_done": self.steps_done,
        }

    def _block_state(self, c: int, block: Block) -> State:
        part, env = self.parts[block.b], block.env.env
        seed = (c - part.start) // part.step
        return {
            "generator": block.generator.bit_generator.state,
            "actor": of_seeds(self.actor_states[block.b], [seed]),
            "simulator": env.get_state() if isinstance(env, Resumable) and self.resumable else {},
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`."""
        self.obs, self.first = np.array(state["obs"]), np.array(state["first"])
        self.done_before = np.array(state["done_before"])
        self.facts = {name: np.array(value) for name, value in state["facts"].items()}
        for block in self.blocks:
            saved = state["blocks"][block.name]
            block.generator.bit_generator.state = saved["generator"]
        for b, part in self.parts.items():
            names = [block.name for block in self.blocks[part]]
            self.actor_states[b] = joined([state["blocks"][name]["actor"] for name in names])
        self.pending_reset, self.steps_done = state["pending_reset"], state["steps_done"]
        if self.resumable:
            for block in self.blocks:
                saved = state["blocks"][block.name]["simulator"]
                block.env.set_state(saved, self.steps_done)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only; the others' simulators are closed."""
        kept = list(seeds)
        stay = [c for c, block in enumerate(self.blocks) if block.k in kept]
        states = [self._block_state(c, self.blocks[c])["actor"] for c in stay]
        for block in self.blocks:
            if block.k not in kept:
                block.env.env.close()
        self.seeds = [self.seeds[k] for k in kept]
        self.blocks = [self.blocks[c]._replace(k=kept.index(self.blocks[c].k)) for c in stay]
        self._number()
        self._build_actors()
        for b, part in self.parts.items():
            self.actor_states[b] = joined(states[part])
        self.obs, self.first = self.obs[stay], self.first[stay]
        self.facts = {name: value[stay] for name, value in self.facts.items()}
        self.done_before = self.done_before[stay]
        self._tile_bounds()
        self.slot = self.new_slot(self.slot.rows)

    def close(self) -> None:
        """Close the simulators."""
        for block in self.blocks:
            block.env.env.close()
