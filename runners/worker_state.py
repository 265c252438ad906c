"""A worker's state, as those of workers with a part of its blocks each, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.contract import State


def divided(state: State, blocks: Sequence[range], per_seed: int) -> list[State]:
    """A worker's state as those of workers with these blocks each."""
    parts = []
    for columns in blocks:
        part = slice(columns.start, columns.stop)
        names = ["{}.{}".format(*divmod(column, per_seed)) for column in columns]
        rows = {name: state[name][part] for name in ("obs", "first", "done_before")}
        facts = {name: value[part] for name, value in state["facts"].items()}
        own = {name: state["blocks"][name] for name in names}
        parts.append({**state, **rows, "facts": facts, "blocks": own})
    return parts


def merged(states: Sequence[State]) -> State:
    """The inverse of `divided`."""
    rows = {
        name: np.concatenate([state[name] for state in states])
        for name in ("obs", "first", "done_before")
    }
    facts = {
        name: np.concatenate([state["facts"][name] for state in states])
        for name in states[0]["facts"]
    }
    blocks = {name: value for state in states for name, value in state["blocks"].items()}
    return {**states[0], **rows, "facts": facts, "blocks": blocks}


def of_seeds(state: State, seeds: list[int]) -> State:
    """An actor's state for the seeds at these positions; arrays have the seeds' axis first."""
    return {
        name: of_seeds(value, seeds) if isinstance(value, dict) else value[seeds]
        for name, value in state.items()
    }


def joined(states: Sequence[State]) -> State:
    """An actor's states of some seeds each, as one."""
    return {
        name: joined([state[name] for state in states])
        if isinstance(value, dict)
        else np.concatenate([state[name] for state in states])
        for name, value in states[0].items()
    }


def beside(states: Sequence[State]) -> State:
    """What the actors of all workers remember at row 0: side by side, by block position."""
    first = states[0]
    if len(states) == 1 or not first:
        return first
    found: State = {}
    for state in states:
        for b, remembered in state.items():
            found.setdefault(b, []).append(remembered)
    return {b: joined(parts) for b, parts in found.items()}
