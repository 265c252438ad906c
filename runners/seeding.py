"""One tree of seeds. Every generator in a run comes from here and is passed on; none is global.

Each seed of a run is its own root, so a seed gives the same bits whichever other seeds train
beside it. Children are named; the names' numbers never change, or old runs could not be repeated.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The children of a seed."""

    SIMULATOR = 0  # one a block
    ACTOR = 1  # one a block
    LEARNER = 2
    REPLAY = 3
    EVALUATION = 4  # one an evaluation: number, and what it is for
    FORCED_RESET = 5  # one a (block, checkpoint number)
    REPLACED = 6  # two a (block, life) of a worker that was replaced: simulator and actor


def sequence(seed: int, stream: Stream, *path: int) -> np.random.SeedSequence:
    """The node of the tree below ``seed``: a stream and, where it has several, which one."""
    return np.random.SeedSequence([seed], spawn_key=(int(stream), *path))


def generator(seed: int, stream: Stream, *path: int) -> np.random.Generator:
    """A fresh PCG64 generator from the node."""
    return np.random.Generator(np.random.PCG64(sequence(seed, stream, *path)))


def integer(seed: int, stream: Stream, *path: int) -> int:
    """One integer in [0, 2**31), for simulators that take no more than that."""
    return int(sequence(seed, stream, *path).generate_state(1)[0] >> 1)


def simulator_seed(seed: int, block: int, life: int = 0) -> int:
    """A block's simulator's, in the so many-th life of its worker."""
    node = (Stream.REPLACED, block, life, 0) if life else (Stream.SIMULATOR, block)
    return integer(seed, *node)


def actor_stream(seed: int, block: int, life: int = 0) -> np.random.Generator:
    """A block's exploration stream."""
    node = (Stream.REPLACED, block, life, 1) if life else (Stream.ACTOR, block)
    return generator(seed, *node)
