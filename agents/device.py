"""All that depends on which device the learner runs on."""

from __future__ import annotations

import dataclasses

import torch

from agents.contract import Array, Batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the learner's device; on the CPU it is the replay's own memory."""
    if device.type == "cpu":
        return batch
    moved = {
        field.name: value.to(device, non_blocking=True)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    extras = {name: value.to(device, non_blocking=True) for name, value in batch.extras.items()}
    return dataclasses.replace(batch, **moved, extras=extras)


def read_if_free(value: torch.Tensor) -> float:
    """The number in a scalar tensor where reading it makes nobody wait, else 0.

    On a GPU the host runs ahead of the device; there the loss is looked at where metrics are read.
    """
    return float(value.item()) if value.device.type == "cpu" else 0.0


class HostCopy:
    """A tensor on its way to the host, for which nobody waits until it is read."""

    def __init__(self, tensor: torch.Tensor) -> None:
        """On the CPU the tensor itself."""
        self._event: torch.cuda.Event | None = None
        self._tensor = tensor
        if tensor.device.type == "cuda":
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> Array:
        """Its numbers, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        array: Array = self._tensor.numpy()
        return array


def priority_lag(device: torch.device) -> int:
    """Updates after which priorities are written: on a GPU one, so that the host need not wait."""
    return 1 if device.type == "cuda" else 0
