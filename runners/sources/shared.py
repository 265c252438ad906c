"""Memory that processes share, and the published parameters in it.

The memory has no name: nothing is left in a file system, however a process ends.
"""

from __future__ import annotations

import itertools
import mmap
import os
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch

from agents.contract import Array, Params
from runners.errors import BadInput
from runners.free_memory import available

ALIGNMENT = 64  # bytes: no two arrays share a cache line
Shape = tuple[tuple[int, ...], np.dtype[Any]]


def nbytes(shapes: Iterable[Shape]) -> int:
    """Bytes that arrays of these shapes take, one behind the other."""
    return sum(_padded(shape) for shape in shapes)


def arrays_in(memory: Array, shapes: Iterable[Shape]) -> list[Array]:
    """Arrays of these shapes in a piece of memory [bytes]."""
    found, start = [], 0
    for one in shapes:
        shape, dtype = one
        size = int(np.prod(shape)) * dtype.itemsize
        found.append(memory[start : start + size].view(dtype).reshape(shape))
        start += _padded(one)
    return found


def _padded(one: Shape) -> int:
    shape, dtype = one
    return -(-int(np.prod(shape)) * dtype.itemsize // ALIGNMENT) * ALIGNMENT


class SharedBytes:
    """Zeroed bytes that this process and its children see; a child gets it as an argument."""

    def __init__(self, size: int, sparse: bool = False) -> None:
        """Reserve them; ``sparse``: most of them will never be written to.

        Raises:
            BadInput: there is not so much memory.
        """
        free = available()
        if free is not None and size > free and not sparse:
            raise BadInput(
                f"workers: their rollouts take {size:,} bytes of shared memory, and {free:,} are free; take "
                "a smaller --rollout-length, fewer --lanes, or fewer --seeds"
            )
        self.size, self.fd = size, _unnamed()
        os.ftruncate(self.fd, size)
        self.bytes = self._map()

    def _map(self) -> Array:
        return np.frombuffer(mmap.mmap(self.fd, self.size), np.uint8)

    def __getstate__(self) -> tuple[int, Any]:
        return self.size, DupFd(self.fd)

    def __setstate__(self, state: tuple[int, Any]) -> None:
        self.size, handle = state
        self.fd = handle.detach()
        self.bytes = self._map()

    def close(self) -> None:
        """Let go of it; the memory goes with the last process that has it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rollouts")
    file, name = tempfile.mkstemp()  # elsewhere a file, which loses its name at once
    os.unlink(name)
    return file


class Board:
    """The newest published parameters: one process writes, the others read at any moment.

    Publishes are numbered from 0. A copy carries its number, which is taken away while it is written:
    who finds it before and after reading has read one publish, not parts of two.
    """

    COPIES = 3  # the newest, the one before for lag 1, and one that is being written
    PATIENCE = 60.0  # seconds: a device may have much to do before the parameters are there

    def __init__(self, params: Params) -> None:
        """Of parameters like these."""
        self.tensors = {n: (tuple(t.shape), _dtype(t)) for n, t in params.tensors.items()}
        self.scalars = list(params.scalars)
        self.memory = SharedBytes(nbytes(self._shapes()))
        self._lay_out()
        self.numbers[:] = -1

    def _shapes(self) -> list[Shape]:
        copies, whole = self.COPIES, np.dtype(np.int64)
        head: list[Shape] = [
            ((copies + 1,), whole),  # each copy's number, and the newest one
            ((copies, 2), whole),  # version and lane steps
            ((copies, len(self.scalars)), np.dtype(np.float64)),
        ]
        return head + [((copies, *shape), dtype) for shape, dtype in self.tensors.values()]

    def _lay_out(self) -> None:
        arrays = arrays_in(self.memory.bytes, self._shapes())
        self.numbers, self.clocks, self.values = arrays[:3]
        self.copies = dict(zip(self.tensors, arrays[3:], strict=True))

    def __getstate__(self) -> tuple[Any, ...]:
        return self.tensors, self.scalars, self.memory

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.tensors, self.scalars, self.memory = state
        self._lay_out()

    def keep(self, seeds: int) -> None:
        """Of so many seeds from now on; nothing is published. For all processes at once."""
        self.tensors = {n: ((seeds, *s[1:]), dtype) for n, (s, dtype) in self.tensors.items()}
        self._lay_out()

    def write(self, number: int, params: Params) -> None:
        """Publish."""
        copy = number % self.COPIES
        self.numbers[copy] = -1
        for name, tensor in params.tensors.items():
            torch.from_numpy(self.copies[name][copy]).copy_(tensor)
        self.clocks[copy] = params.version, params.lane_steps
        self.values[copy] = [params.scalars[name] for name in self.scalars]
        self.numbers[copy] = self.numbers[-1] = number

    def read(self, number: int | None) -> Params:
        """A copy of that publish, for which it waits where it is on its way; None: of the newest.

        Raises:
            LookupError: it has been written over, or does not come.
        """
        limit = time.monotonic() + self.PATIENCE
        while number is not None and self.numbers[-1] < number and time.monotonic() < limit:
            time.sleep(1e-4)
        while True:
            wanted = int(self.numbers[-1]) if number is None else number
            copy = wanted % self.COPIES
            if self.numbers[copy] == wanted:
                params = self._copy(copy)
                if self.numbers[copy] == wanted:
                    return params
            if number is not None:
                raise LookupError(
                    f"publish {number} is not there, the newest is {self.numbers[-1]}"
                )

    def _copy(self, copy: int) -> Params:
        version, lane_steps = self.clocks[copy].tolist()
        tensors = {n: torch.from_numpy(array[copy].copy()) for n, array in self.copies.items()}
        scalars = dict(zip(self.scalars, self.values[copy].tolist(), strict=True))
        return Params(version, lane_steps, tensors, scalars)


def _dtype(tensor: torch.Tensor) -> np.dtype[Any]:
    """NumPy's name for it, wherever the tensor lies."""
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype


def chunks(count: int, parts: int) -> list[range]:
    """``0..count-1`` in consecutive parts, whose lengths differ by at most one."""
    ends = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def blocks_of(columns: range) -> str:
    """The subject and verb of a sentence on these blocks of a group, that they begin.

    >>> blocks_of(range(2, 4)), blocks_of(range(4, 5))
    ('blocks 2-3 begin', 'block 4 begins')
    """
    if len(columns) == 1:
        return f"block {columns[0]} begins"
    return f"blocks {columns[0]}-{columns[-1]} begin"
