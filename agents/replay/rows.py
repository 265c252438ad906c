"""The rows of the last C time steps of all lanes: what every replay keeps, however it samples.

Rows are numbered from 0 since the start of the run; row r lives in slot r mod C. A row holds
``obs, first`` and the legal actions where there is a mask (known before its action), and ``action,
reward, terminated, truncated``. The newest observation stands alone at `head`: it is row 0 of the
next rollout, and each is stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agents.contract import Array, Rollout, State
from agents.replay.frames import Frames, LZ4Frames, MakeFrames
from agents.replay.prioritized import Priorities
from agents.replay.segments import SegmentFrames
from agents.replay.view import terminations
from envs.contract import Spec
from envs.kernel import kernel

MakePriorities = Callable[[int, int], Priorities]


class Rows:
    """Rows of K seeds of n lanes each, in a ring."""

    def __init__(
        self,
        spec: Spec,
        generators: Sequence[np.random.Generator],
        lanes: int,
        slots: int,
        end_on_life_loss: bool,
        priorities: MakePriorities | None,
        compression: str = "none",
        acted_values: bool = False,
        frames: MakeFrames | None = None,
    ) -> None:
        """Room for ``slots`` rows of every lane, the observation at `head` included.

        ``priorities(seeds, places)`` makes those to sample by; None: all alike. ``compression`` of
        observations is "none" or "lz4"; ``frames`` makes another place for them. ``acted_values``: what acting thought of a row is kept
        as well.
        """
        self.spec, self.generators, self.lanes = spec, list(generators), lanes
        self.lanes_of_all = lanes  # of a seed; more where several learners have some each
        self.slots, self.end_on_life_loss = slots, end_on_life_loss
        self._head = 0
        shape = (slots, len(self.generators), lanes)
        self.obs: Array | Frames
        if frames is not None:
            self.obs = frames(shape, spec)
        elif compression == "lz4":
            self.obs = LZ4Frames(shape, spec)
        else:
            self.obs = np.zeros((*shape, *spec.obs_shape), spec.obs_dtype)
        self.first = np.zeros(shape, np.bool_)
        self.action = np.zeros((*shape, *spec.action_shape), action_dtype(spec))
        self.reward = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, np.bool_)
        self.truncated = np.zeros(shape, np.bool_)
        self.acted_values = acted_values
        if acted_values:
            self.acted_q = np.zeros(shape, np.float32)  # of the action taken
            self.acted_v = np.zeros(shape, np.float32)  # of the best one
        if spec.action_mask:
            self.action_mask = np.zeros((*shape, spec.num_actions), np.bool_)
        # of a place, which is slot · lanes + lane
        self.priorities = priorities(shape[1], slots * lanes) if priorities else None
        self.heaviest = np.ones((shape[1], 1), np.float32)  # importance weight of each seed's batch

    @property
    def head(self) -> int:
        """The number of the next row to be written."""
        return self._head

    @property
    def tail(self) -> int:
        """The number of the oldest row held."""
        return max(0, self._head - (self.slots - 1))

    def write(self, rollout: Rollout) -> int:
        """Append the rows of a rollout whose columns are seed-major; the number of the first one kept.

        Row 0's observation and ``first`` are written again: where a lane was replaced they differ
        from what stood there, and ``first`` then marks the row before as not valid.
        """
        rows = rollout.rows
        skip = max(0, rows - (self.slots - 1))  # of a rollout longer than the ring only its end
        numbers = np.arange(self._head + skip, self._head + rows + 1)
        known = numbers % self.slots
        shape = (len(known), *self.first.shape[1:])
        self.obs[self._at(numbers)] = rollout.obs[skip:].reshape(*shape, *self.spec.obs_shape)
        self.first[known] = rollout.first[skip:].reshape(shape)
        if self.spec.action_mask:
            mask = rollout.facts["action_mask"][skip:] != 0
            self.action_mask[known] = mask.reshape(*shape, -1)
        stepped = known[:-1]
        shape = (len(stepped), *shape[1:])
        self.action[stepped] = rollout.action[skip:].reshape(*shape, *self.spec.action_shape)
        self.reward[stepped] = rollout.reward[skip:].reshape(shape)
        ended = terminations(rollout, self.end_on_life_loss)
        self.terminated[stepped] = ended[skip:].reshape(shape)
        self.truncated[stepped] = rollout.truncated[skip:].reshape(shape)
        if self.acted_values:
            self.acted_q[stepped] = rollout.extras["q"][skip:].reshape(shape)
            self.acted_v[stepped] = rollout.extras["v"][skip:].reshape(shape)
        self._head += rows
        self._hand_over(self._head)
        return self._head - len(stepped)

    def _at(self, rows: Any) -> Any:
        """Where rows' observations are, as what holds them counts."""
        by_row = not isinstance(self.obs, np.ndarray) and self.obs.by_row
        return rows if by_row else rows % self.slots

    def _hand_over(self, until: int) -> None:
        """Now that rows below ``until`` are there, full segments are somebody else's to keep."""
        if isinstance(self.obs, SegmentFrames):
            for index, start, stop in list(self.obs.filled(self.tail, until)):
                self.obs.seal(index, start, self.rows(start, stop))
            self.obs.let_go(self.tail)

    def draw_by_priority(self, draws: Array, weights: Array) -> Array:
        """Rows drawn by their priorities, [K, D] as row · lanes + lane, by uniform numbers [K, D].

        Their importance weights [K, D] are written into ``weights``, over what stands in `heaviest` then.
        """
        assert self.priorities is not None
        ring, oldest = self.slots * self.lanes, self.tail * self.lanes
        places = np.empty(draws.shape, np.int64)
        for k, uniform in enumerate(draws):
            self.priorities.draw(k, uniform, places[k])
            lane_steps = self._head * self.lanes_of_all
            self.heaviest[k] = self.priorities.weights(k, places[k], lane_steps, weights[k])
        picks: Array = oldest + (places - oldest) % ring
        return picks

    def set_priorities(self, sampled: Array, errors: Array) -> None:
        """Rows as `sampled` [K, B] has them had these errors [K, B]; rows that are gone are passed over."""
        assert self.priorities is not None
        places = _places(sampled, self.slots * self.lanes, self.tail * self.lanes)
        for k in range(len(places)):
            self.priorities.set(k, places[k], errors[k])

    def rows(self, start: int, stop: int) -> dict[str, Array]:
        """Copies of rows start..stop-1, each array [stop - start, K, n, ...]."""
        numbers = np.arange(start, stop)
        columns, slots = self._columns(), numbers % self.slots
        obs = columns.pop("obs")[self._at(numbers)]
        return {"obs": obs, **{name: array[slots] for name, array in columns.items()}}

    def load_rows(self, start: int, rows: Mapping[str, Array]) -> None:
        """Put rows from `rows` back where they were; those older than `tail` are let go."""
        skip = max(0, self.tail - start)
        numbers = np.arange(start, start + len(rows["first"]))[skip:]
        for name, array in self._columns().items():
            where = self._at(numbers) if name == "obs" else numbers % self.slots
            array[where] = rows[name][skip:]
        self._hand_over(start + len(rows["first"]))

    def _columns(self) -> dict[str, Array | Frames]:
        names = ["obs", "first", "action", "reward", "terminated", "truncated"]
        names += ["action_mask"] if self.spec.action_mask else []
        names += ["acted_q", "acted_v"] if self.acted_values else []
        return {name: getattr(self, name) for name in names}

    @property
    def nbytes(self) -> int:
        """What is held: observations, all else of the rows, priorities."""
        trees = self.priorities.trees.nbytes if self.priorities else 0
        return trees + sum(column.nbytes for column in self._columns().values())

    def needs(self, capacity: int) -> dict[str, int]:
        """Bytes that one like this takes with room for ``capacity`` transitions a seed, by what they are for.

        From shapes alone, so a small one tells what a large one would need; of compressed frames an
        estimate that games rarely pass.
        """
        slots = -(-capacity // self.lanes)
        columns = self._columns()
        frames = columns.pop("obs")
        one = frames.expected if isinstance(frames, LZ4Frames) else frames.nbytes
        rows = sum(column.nbytes for column in columns.values())
        places = slots * self.lanes
        return {
            "frames": one * slots // self.slots,
            "rows": rows * slots // self.slots,
            "priorities": self.priorities.needs(places) if self.priorities else 0,
        }

    def state_dict(self) -> State:
        """Position, generators and priorities, and the observation at `head`; no rows."""
        slot = self._head % self.slots
        return {
            "head": self._head,
            "obs": self.obs[self._at(self._head)].copy(),
            "first": self.first[slot].copy(),
            "action_mask": self.action_mask[slot].copy() if self.spec.action_mask else None,
            "generators": [generator.bit_generator.state for generator in self.generators],
            "priorities": self.priorities.state_dict() if self.priorities else None,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`; the rows themselves are loaded by `load_rows`."""
        self._head = state["head"]
        slot = self._head % self.slots
        self.obs[self._at(self._head)], self.first[slot] = state["obs"], state["first"]
        if self.spec.action_mask:
            self.action_mask[slot] = state["action_mask"]
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        if self.priorities:
            self.priorities.load_state_dict(state["priorities"])

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        for name, column in self._columns().items():
            if not isinstance(column, np.ndarray):
                column.keep(seeds)
            else:
                setattr(self, name, np.ascontiguousarray(column[:, list(seeds)]))
        self.generators = [self.generators[k] for k in seeds]
        self.heaviest = self.heaviest[list(seeds)]
        if self.priorities:
            self.priorities.keep(seeds)


def action_dtype(spec: Spec) -> type[np.generic]:
    """In which actions are kept and learned from: int64 the discrete ones, float32 all else."""
    return np.int64 if spec.num_actions else np.float32


@kernel()
def _places(sampled, ring, oldest):  # type: ignore[no-untyped-def]
    """Where in the ring rows [K, B] are; -1 for those that are gone. In one pass."""
    places = np.empty_like(sampled)
    for k, b in np.ndindex(sampled.shape):
        places[k, b] = sampled[k, b] % ring if sampled[k, b] >= oldest else -1
    return places
