"""The rows of the last C time steps of all lanes: what every replay keeps, however it samples.

Rows are numbered from 0 since the start of the run; row r lives in slot r mod C. A row holds
``obs, first`` and the legal actions where there is a mask (known before its action), and ``action,
reward, terminated, truncated``. The newest observation stands alone at `head`: it is row 0 of the
next rollout, and each is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agents.contract import Array, Rollout, State
from agents.replay.view import terminations
from envs.contract import Spec


class Rows:
    """Rows of K seeds of n lanes each, in a ring."""

    def __init__(
        self,
        spec: Spec,
        generators: Sequence[np.random.Generator],
        lanes: int,
        slots: int,
        end_on_life_loss: bool,
    ) -> None:
        """Room for ``slots`` rows of every lane, the observation at `head` included."""
        self.spec, self.generators, self.lanes = spec, list(generators), lanes
        self.slots, self.end_on_life_loss = slots, end_on_life_loss
        self._head = 0
        shape = (slots, len(self.generators), lanes)
        self.obs = np.zeros((*shape, *spec.obs_shape), spec.obs_dtype)
        self.first = np.zeros(shape, np.bool_)
        self.action = np.zeros(shape, np.int64)
        self.reward = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, np.bool_)
        self.truncated = np.zeros(shape, np.bool_)
        if spec.action_mask:
            self.action_mask = np.zeros((*shape, spec.num_actions), np.bool_)

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
        known = np.arange(self._head + skip, self._head + rows + 1) % self.slots
        shape = (len(known), *self.first.shape[1:])
        self.obs[known] = rollout.obs[skip:].reshape(*shape, *self.spec.obs_shape)
        self.first[known] = rollout.first[skip:].reshape(shape)
        if self.spec.action_mask:
            mask = rollout.facts["action_mask"][skip:] != 0
            self.action_mask[known] = mask.reshape(*shape, -1)
        stepped = known[:-1]
        shape = (len(stepped), *shape[1:])
        self.action[stepped] = rollout.action[skip:].reshape(shape)
        self.reward[stepped] = rollout.reward[skip:].reshape(shape)
        ended = terminations(rollout, self.end_on_life_loss)
        self.terminated[stepped] = ended[skip:].reshape(shape)
        self.truncated[stepped] = rollout.truncated[skip:].reshape(shape)
        self._head += rows
        return self._head - len(stepped)

    def rows(self, start: int, stop: int) -> dict[str, Array]:
        """Copies of rows start..stop-1, each array [stop - start, K, n, ...]."""
        slots = np.arange(start, stop) % self.slots
        return {name: array[slots] for name, array in self._columns().items()}

    def load_rows(self, start: int, rows: Mapping[str, Array]) -> None:
        """Put rows from `rows` back where they were; those older than `tail` are let go."""
        skip = max(0, self.tail - start)
        slots = np.arange(start, start + len(rows["first"]))[skip:] % self.slots
        for name, array in self._columns().items():
            array[slots] = rows[name][skip:]

    def _columns(self) -> dict[str, Array]:
        names = ["obs", "first", "action", "reward", "terminated", "truncated"]
        names += ["action_mask"] if self.spec.action_mask else []
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> State:
        """Position and generators, and the observation at `head`; no rows."""
        slot = self._head % self.slots
        return {
            "head": self._head,
            "obs": self.obs[slot].copy(),
            "first": self.first[slot].copy(),
            "action_mask": self.action_mask[slot].copy() if self.spec.action_mask else None,
            "generators": [generator.bit_generator.state for generator in self.generators],
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`; the rows themselves are loaded by `load_rows`."""
        self._head = state["head"]
        slot = self._head % self.slots
        self.obs[slot], self.first[slot] = state["obs"], state["first"]
        if self.spec.action_mask:
            self.action_mask[slot] = state["action_mask"]
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        for name, array in self._columns().items():
            setattr(self, name, np.ascontiguousarray(array[:, list(seeds)]))
        self.generators = [self.generators[k] for k in seeds]
