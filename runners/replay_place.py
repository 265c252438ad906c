"""Where a run's replay keeps its observations: what was asked for, or what suits the device at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agents.device.machine import machine_of
from runners.config import AGENTS
from runners.errors import BadInput
from runners.memory_plan import MemoryPlan

if TYPE_CHECKING:
    from runners.group import Place, Setting

SHARE = 0.8  # of the device's free memory: activations and libraries want some


def place_of_replay(setting: Setting, seeds: int, asked: str) -> Place:
    """The place, ``auto`` worked out: the learner's device where that is a GPU with room, else the host.

    Raises:
        BadInput: there is no replay, or its observations cannot be kept there.
    """
    config = setting.config
    entry, hyper = AGENTS[config.agent], config.hyper
    replays = entry.gradient and not entry.own_loop and hasattr(hyper, "replay_size")
    plain = getattr(hyper, "replay_compression", "none") == "none"
    if asked in ("device", "disk"):
        if not replays:
            raise BadInput(
                f"replay_device: {config.agent} has no replay of the lab's; leave it out"
            )
        if not plain:
            raise BadInput(
                f"replay_device: {asked} keeps images as they are; take --replay-compression none"
            )
        return "device" if asked == "device" else "disk"
    if asked == "host" or not (replays and plain):
        return "host"
    machine = machine_of(torch.device(config.device))
    if machine is None:
        return "host"
    needed = sum(MemoryPlan(setting).on_device(min(seeds, setting.group_size)).values())
    return "device" if needed <= SHARE * machine.free_memory() else "host"
