"""The way of arrays to the device: through pinned memory that is allocated once, on a stream of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.contract import Batch
from agents.device.machine import Machine, machine_of

SETS = 2  # while one is computed with, the next is filled


class Staging:
    """Host tensors on the device, in sets of buffers that take turns.

    The host waits for nothing but the pinned memory of a set whose copy is still under way; copies are
    made beside the kernels that read the set before.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.side = machine, machine.stream()
        self.sets = [_Set(machine) for _ in range(SETS)]
        self.turn = 0

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same on the device, for all that the current stream is given before the next call."""
        machine, reader = self.machine, self.machine.current()
        # whoever computes with the set before has been given all its work by now
        self.sets[self.turn].read.record(reader)
        self.turn = (self.turn + 1) % SETS
        now = self.sets[self.turn]
        now.filled.synchronize()
        if now.fit(tensors):
            self.side.wait_stream(reader)  # whose memory it may have been
        for name, tensor in tensors.items():
            now.pinned[name].copy_(tensor)
        with machine.on(self.side):
            self.side.wait_event(now.read)
            for name in tensors:
                machine.copy(now.there[name], now.pinned[name])
            now.filled.record(self.side)
        reader.wait_event(now.filled)
        return {name: now.there[name] for name in tensors}


class _Set:
    """Buffers by name, here and there."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.filled, self.read = machine.event(), machine.event()
        self.pinned: dict[str, Tensor] = {}
        self.there: dict[str, Tensor] = {}

    def fit(self, tensors: Mapping[str, Tensor]) -> bool:
        """Allocate what is not there, or of another shape; whether there was any such."""
        new = [
            name for name, tensor in tensors.items() if not _alike(self.pinned.get(name), tensor)
        ]
        for name in new:
            self.pinned[name] = self.machine.pinned(tensors[name])
            self.there[name] = self.machine.room(tensors[name])
        return bool(new)


def _alike(buffer: Tensor | None, tensor: Tensor) -> bool:
    return buffer is not None and buffer.shape == tensor.shape and buffer.dtype == tensor.dtype


class Feed:
    """What a learner is handed, on its device; on the CPU it is the memory that it was handed."""

    def __init__(self, device: torch.device) -> None:
        machine = machine_of(device)
        self.staging = Staging(machine) if machine else None

    def move(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name; those that are there already stay as they are."""
        if self.staging is None:
            return dict(tensors)
        here = {name: t for name, t in tensors.items() if t.device.type == "cpu"}
        return {**tensors, **self.staging(here)} if here else dict(tensors)

    def batch(self, batch: Batch) -> Batch:
        """A batch; valid, as every batch is, until the next one."""
        return batch if self.staging is None else Batch.of(self.move(batch.tensors()))
