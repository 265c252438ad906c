"""All that depends on which device computes: copies beside kernels, graphs, and who waits for whom."""

from __future__ import annotations

import torch


def read_if_free(value: torch.Tensor) -> float:
    """The number in a scalar tensor where reading it makes nobody wait, else 0.

    On a GPU the host runs ahead of the device; there the loss is looked at where metrics are read.
    """
    return float(value.item()) if value.device.type == "cpu" else 0.0


def priority_lag(device: torch.device) -> int:
    """Updates after which priorities are written: on a GPU one, so that the host need not wait."""
    return 1 if device.type == "cuda" else 0
