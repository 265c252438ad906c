"""The way of tensors to the host, for whose end nobody waits before they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from agents.contract import Array
from agents.device.machine import Machine, machine_of


class HostCopy:
    """One tensor, copied after all that its stream was given before."""

    def __init__(self, tensor: Tensor) -> None:
        """On the CPU the tensor itself."""
        machine = machine_of(tensor.device)
        self._tensor, self._event = tensor, None if machine is None else machine.event()
        if machine is not None and self._event is not None:
            self._tensor = machine.pinned(tensor)
            machine.copy(self._tensor, tensor)
            self._event.record(machine.current())

    def read(self) -> Array:
        """Its numbers, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        array: Array = self._tensor.numpy()
        return array


class Post:
    """What a learner publishes: copies, on a device made beside its kernels, as they were when asked for."""

    def __init__(self, device: torch.device) -> None:
        self.machine = machine_of(device)
        self.side = self.machine.stream() if self.machine else None

    def __call__(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copies on the host, which whoever reads one waits for."""
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        if self.machine is None:
            return copies
        return OnTheWay(self.machine, self.side, copies)


class OnTheWay(Mapping[str, Tensor]):
    """Tensors by name that may not be on the host yet."""

    def __init__(self, machine: Machine, side: object, tensors: Mapping[str, Tensor]) -> None:
        """Begin to copy, on the stream ``side``; the tensors are nobody else's."""
        self._event, taken = machine.event(), machine.event()
        taken.record(machine.current())
        self._here = {name: machine.pinned(tensor) for name, tensor in tensors.items()}
        with machine.on(side):
            machine.current().wait_event(taken)
            for name, tensor in tensors.items():
                machine.copy(self._here[name], tensor)
                machine.used_on(tensor, side)
            self._event.record(machine.current())

    @property
    def ready(self) -> bool:
        """Whether reading would not wait."""
        return self._event.query()

    def __getitem__(self, name: str) -> Tensor:
        """Once it is there."""
        self._event.synchronize()
        return self._here[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._here)

    def __len__(self) -> int:
        return len(self._here)


def is_ready(tensors: Mapping[str, Tensor]) -> bool:
    """Whether reading them makes nobody wait."""
    return tensors.ready if isinstance(tensors, OnTheWay) else True
