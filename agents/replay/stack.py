"""Frame stacks: the S newest observations of a lane, oldest first, zeros before its episode began.

A stack is derived state: it is never sent or stored, the actor and whoever learns build it from
single frames by the same rule. Frame u belongs to the stack of row t where no row after u, up to t,
opens an episode.
"""

from __future__ import annotations

import numpy as np

from agents.contract import Array


def push(frames: Array, obs: Array, first: Array) -> Array:
    """An actor's stack of one row, from the frames before it.

    Args:
        frames: [K, n, S-1, ...] of the rows before, zeros where there were none.
        obs: [K, n, ...] of this row.
        first: [K, n] bool, this row opens an episode.

    Returns:
        [K, n, S, ...], a new array; its last S-1 frames are ``frames`` of the next row.
    """
    before = frames * ~first.reshape(*first.shape, *[1] * (frames.ndim - 2))
    return np.concatenate([before, obs[:, :, None]], axis=2)


def stacks(obs: Array, first: Array, frames: int) -> Array:
    """The stacks of all rows that have S-1 rows before them.

    Args:
        obs: [S-1+T, N, ...] single frames, row after row.
        first: [S-1+T, N] bool.
        frames: S.

    Returns:
        [T, N, S, ...].
    """
    rows = np.arange(len(obs))[:, None]
    opened = np.maximum.accumulate(np.where(first, rows, -1))  # the row that opened the episode
    columns = []
    for back in range(frames - 1, -1, -1):
        here = slice(frames - 1 - back, len(obs) - back)
        visible = rows[here] >= opened[frames - 1 :]
        columns.append(obs[here] * visible.reshape(*visible.shape, *[1] * (obs.ndim - 2)))
    return np.stack(columns, axis=2)
