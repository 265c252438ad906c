"""All that depends on which device the learner runs on."""

from __future__ import annotations

import dataclasses

import torch

from agents.contract import Batch


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
