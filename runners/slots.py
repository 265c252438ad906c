"""The arrays that a worker writes and a rollout shows, in its own memory or in shared memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from agents.contract import Array, Rollout, State
from envs.contract import Spec
from runners.sources import shared

KNOWN = ("obs", "first", "facts")  # before an action: a row more than steps


@dataclass
class Slot:
    """T rows of C blocks of n lanes; blocks are in the order of the rollout's columns."""

    obs: Array  # [T+1, C, n, ...]
    first: Array  # [T+1, C, n]
    action: Array  # [T, C, n, ...]
    reward: Array  # [T, C, n]
    terminated: Array
    truncated: Array
    facts: dict[str, Array] = field(default_factory=dict)  # [T+1, C, n, ...]
    step_facts: dict[str, Array] = field(default_factory=dict)  # [T, C, n, ...]
    extras: dict[str, Array] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """T, its room."""
        return len(self.reward)

    def named(self) -> Iterator[tuple[str, str, Array]]:
        """All arrays, with their place: the attribute, and the name within where that is a table."""
        for attribute, value in vars(self).items():
            if isinstance(value, dict):
                yield from ((attribute, name, array) for name, array in value.items())
            else:
                yield attribute, "", value

    def part(self, columns: slice) -> Slot:
        """The same memory, of these blocks only."""
        return _slot((at, name, array[:, columns]) for at, name, array in self.named())

    def rollout(self, rows: int, actor_state: State, version: int) -> Rollout:
        """Its first ``rows`` rows; the same memory."""
        known = rows + 1
        return Rollout(
            obs=_flat(self.obs, known),
            first=_flat(self.first, known),
            action=_flat(self.action, rows),
            reward=_flat(self.reward, rows),
            terminated=_flat(self.terminated, rows),
            truncated=_flat(self.truncated, rows),
            facts={name: _flat(column, known) for name, column in self.facts.items()},
            step_facts={name: _flat(column, rows) for name, column in self.step_facts.items()},
            extras={name: _flat(column, rows) for name, column in self.extras.items()},
            actor_state=actor_state,
            version=version,
        )

    def column(self, table: str, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """A table's array of that name; made where it is not there yet."""
        columns: dict[str, Array] = getattr(self, table)
        if name not in columns:
            rows = self.rows + (table in KNOWN)
            columns[name] = np.zeros((rows, *self.first.shape[1:], *shape), dtype)
        return columns[name]


def new_slot(
    spec: Spec, rows: int, blocks: int, lanes: int, reward: type[np.floating[Any]]
) -> Slot:
    """A slot in this process's own memory, with no facts or extras yet."""
    shape = (blocks, lanes)
    return Slot(
        obs=np.zeros((rows + 1, *shape, *spec.obs_shape), spec.obs_dtype),
        first=np.zeros((rows + 1, *shape), np.bool_),
        action=np.zeros((rows, *shape, *spec.action_shape), spec.action_dtype),
        reward=np.zeros((rows, *shape), reward),
        terminated=np.zeros((rows, *shape), np.bool_),
        truncated=np.zeros((rows, *shape), np.bool_),
    )


class Field(NamedTuple):
    """One array of a slot, whatever the number of rows and blocks."""

    attribute: str
    name: str
    lane: tuple[int, ...]  # [n, ...]
    dtype: np.dtype[Any]


class Layout(NamedTuple):
    """Where the arrays of slots of T rows lie in a piece of memory."""

    fields: tuple[Field, ...]
    rows: int

    @classmethod
    def of(cls, slot: Slot, rows: int) -> Layout:
        """That of slots with the same arrays."""
        fields = (Field(at, name, array.shape[2:], array.dtype) for at, name, array in slot.named())
        return cls(tuple(fields), rows)

    def nbytes(self, blocks: int) -> int:
        """Bytes of a slot."""
        return shared.nbytes(self._shapes(blocks))

    def slot(self, memory: Array, blocks: int) -> Slot:
        """The slot in ``memory`` [bytes]; one with fewer blocks fits as well."""
        arrays = shared.arrays_in(memory, self._shapes(blocks))
        named = zip(self.fields, arrays, strict=True)
        return _slot((one.attribute, one.name, array) for one, array in named)

    def _shapes(self, blocks: int) -> list[shared.Shape]:
        return [
            ((self.rows + (f.attribute in KNOWN), blocks, *f.lane), f.dtype) for f in self.fields
        ]


def _slot(arrays: Iterator[tuple[str, str, Array]]) -> Slot:
    values: dict[str, Any] = {}
    for attribute, name, array in arrays:
        if name:
            values.setdefault(attribute, {})[name] = array
        else:
            values[attribute] = array
    return Slot(**values)


def _flat(column: Array, rows: int) -> Array:
    """[rows, C n, ...]."""
    return column[:rows].reshape(rows, -1, *column.shape[3:])


def rows_of(arrays: Mapping[str, Array], row: int) -> dict[str, Array]:
    """One row of each."""
    return {name: array[row] for name, array in arrays.items()}
