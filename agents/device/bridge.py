"""The way of an actor's numbers to the device that computes for it, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from agents.contract import Array
from agents.device.homeward import HostCopy
from agents.device.machine import machine_of
from agents.device.staging import Staging

_HERE = contextlib.nullcontext()


class Bridge:
    """On the CPU there is nothing to cross: tensors and arrays are the memory that is handed over.

    On a GPU an actor has a stream of its own, whose kernels go before a learner's: a simulator waits for
    them, and for nothing that the learner has in hand.
    """

    def __init__(self, device: torch.device) -> None:
        self.machine = machine_of(device)
        self.stream = self.machine.stream(urgent=True) if self.machine else None
        self.staging = Staging(self.machine) if self.machine else None

    def crossed(self) -> contextlib.AbstractContextManager[object]:
        """Meanwhile what is computed is computed there."""
        return self.machine.on(self.stream) if self.machine else _HERE

    def up(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Tensors of the host on the device, good until the next call."""
        return self.staging(tensors) if self.staging else tensors

    def down(self, tensor: Tensor) -> Array:
        """The numbers of a tensor, waited for: somebody is about to act by them."""
        array: Array = HostCopy(tensor).read() if self.machine else tensor.numpy()
        return array
