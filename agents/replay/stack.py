"""Frame stacks: the S newest observations of a lane, oldest first, zeros before its episode began.

A stack is derived state: it is never sent or stored, the actor and whoever learns build it from
single frames by the same rule. Frame u belongs to the stack of row t where no row after u, up to t,
opens an episode.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
    seen, columns = visible(first, frames), []
    for i in range(frames):
        shown = seen[:, :, i].reshape(*seen.shape[:2], *[1] * (obs.ndim - 2))
        columns.append(obs[i : i + len(seen)] * shown)
    return np.stack(columns, axis=2)


def visible(first: Array, frames: int) -> Array:
    """Which of the S newest rows, oldest first, are of a row's own episode.

    Args:
        first: [S-1+T, N] bool.
        frames: S.

    Returns:
        [T, N, S] bool.
    """
    rows = np.arange(len(first))[:, None]
    opened = np.maximum.accumulate(np.where(first, rows, -1))  # the row that opened the episode
    count = len(first) - frames + 1
    return np.stack([rows[i : i + count] >= opened[frames - 1 :] for i in range(frames)], axis=2)


def stacks_there(obs: Tensor, seen: Tensor) -> Tensor:
    """The same on a device, where single frames were sent.

    Args:
        obs: [K, S-1+T, n, ...].
        seen: [K, T, n, S], as `visible` tells.

    Returns:
        [K, T, n, S, ...].
    """
    rows, more = seen.shape[1], [1] * (obs.ndim - 3)
    columns = [
        obs[:, i : i + rows] * seen[..., i].view(*seen.shape[:3], *more)
        for i in range(seen.shape[3])
    ]
    return torch.stack(columns, 3)
