"""How much memory a run will need, worked out from shapes before anything of it is allocated.

A replay's arrays fill up over hours: what does not fit would end the run then, and is refused now.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.hyper import BadValue
from runners.checkpoint import SEGMENT_ROWS
from runners.console import Console
from runners.errors import BadInput
from runners.free_memory import available
from runners.group import Setting, make_learner
from runners.resolve import check_fit

GB = 10**9
LARGE = GB  # bytes, from which a run says what it will take


def check_memory(
    setting: Setting, seeds: int, console: Console, out: str = "runs", learners: int = 1
) -> None:
    """Say what the run will take where that is much; refuse what will not fit.

    ``out`` is where run folders go, and with them a replay that is on disk; ``learners`` of this machine
    take as much each, and are looked at as if they shared what is there.

    Raises:
        BadInput: it needs more than there is; the line tells what would fit.
    """
    group = min(seeds, setting.group_size)
    plan, whole = MemoryPlan(setting), available()
    there = None if whole is None else whole // learners
    parts = plan.parts(group)
    total = sum(parts.values())
    if there is not None and total > there:
        others = plan.alternatives(group, there) or ["fewer --lanes or a smaller network"]
        raise BadInput(
            f"memory: {_told(parts)} are needed, and {_gb(there)} are there: take {' or '.join(others)}"
        )
    if setting.replay_device == "disk":
        _check_disk(plan.on_disk(group), Path(out).absolute())
    if total > LARGE:
        left = "" if there is None else f"; {_gb(there)} are there"
        console.message(f"memory: {_told(parts)}{left}")


def _check_disk(size: int, out: Path) -> None:
    """Whether a replay's segments will fit."""
    there = shutil.disk_usage(next(p for p in (out, *out.parents) if p.exists())).free
    if size > there:
        raise BadInput(
            f"replay_device: {_gb(size)} of replay are needed on disk, and {_gb(there)} are there at {out}: "
            "take a smaller --replay-size or another --out"
        )


class MemoryPlan:
    """Bytes by what they are for, of a group of seeds that train together.

    Interpreter, libraries, simulators and a batch's activations come on top: half a gigabyte, mostly.
    """

    def __init__(self, setting: Setting) -> None:
        """Look at a learner of the same shapes, of one seed and with a replay as small as can be."""
        self.setting, self.hyper = setting, setting.config.hyper
        self.size: int = getattr(self.hyper, "replay_size", 0)
        small = {"replay_size": max(2, self.hyper.batch_size)} if self.size else {}
        # on the CPU whatever the device: meta would take no memory, but two seconds to load
        config = dataclasses.replace(
            setting.config,
            hyper=dataclasses.replace(self.hyper, **small),
            device="cpu",
            compile=False,
        )
        small_setting = dataclasses.replace(setting, config=config, replay_device="host")
        learner = make_learner(small_setting, [0])
        self.replay = learner.replay
        state = learner.state_dict()
        state.pop("replay", None)
        self.state = sum(map(_bytes, _tensors(state)))
        self.weights = sum(map(_bytes, learner.params().tensors.values()))

    def parts(self, seeds: int, replay_size: int = 0) -> dict[str, int]:
        """All that a run takes, the largest first; with another replay by request."""
        parts = {
            "networks": self._networks(),
            "checkpoints": self.state,
            "rollouts": self._rollouts(),
        }
        if self.replay is not None:
            size = replay_size or self.size
            kept = self.replay.needs(size)
            arrays = self.replay.rows(0, 1)
            row = sum(array.nbytes for array in arrays.values())
            rows = min(SEGMENT_ROWS, math.ceil(size / self.setting.config.lanes))
            if self.setting.replay_device == "disk":  # one segment is filled, and the next begun
                kept["frames"] = 2 * SEGMENT_ROWS * arrays["obs"].nbytes
            elif self.setting.replay_device == "device" and not self._on_host:
                kept["frames"] = 0
            parts["replay"] = sum(kept.values())
            # a segment as arrays and as the bytes of a file; the leaves, half of the trees, too
            parts["checkpoints"] += 2 * rows * row + kept["priorities"]
        return {n: seeds * parts[n] for n in sorted(parts, key=parts.__getitem__, reverse=True)}

    def _networks(self) -> int:
        """The learner's tensors and a gradient, and copies for whoever acts: published, and the actor's own."""
        return (self.state + self.weights) * self._on_host + 2 * self.weights

    @property
    def _on_host(self) -> bool:
        """Whether the learner's device has no memory of its own."""
        return self.setting.config.device == "cpu"

    def on_device(self, seeds: int) -> dict[str, int]:
        """What a learner on a GPU takes there, its replay's observations included."""
        parts = {"networks": self.state + self.weights}
        if self.replay is not None:
            parts["replay"] = self.replay.needs(self.size)["frames"]
        return {name: seeds * size for name, size in parts.items()}

    def on_disk(self, seeds: int) -> int:
        """What the files of a replay on disk take: a segment goes when no checkpoint lists it any more."""
        assert self.replay is not None
        row = sum(array.nbytes for array in self.replay.rows(0, 1).values())
        rows = math.ceil(self.size / self.setting.config.lanes)
        between = math.ceil(self.setting.config.checkpoint_every / self.setting.config.lanes)
        return seeds * row * (rows + 2 * between + 2 * SEGMENT_ROWS)

    def _rollouts(self) -> int:
        """A rollout at the worker; a learner without a replay holds its stacks of frames as well."""
        c, spec = self.setting.config, self.setting.spec
        copies = 1 if self.replay is not None else 1 + getattr(self.hyper, "frame_stack", 1)
        obs = math.prod(spec.obs_shape) * np.dtype(spec.obs_dtype).itemsize
        facts = 1 + 8 + 8 + 1 + 1  # first, action, reward, terminated, truncated
        copies += c.ahead  # each in a slot of its own
        return (c.rollout_length + 1) * c.lanes * (copies * obs + facts)

    def alternatives(self, seeds: int, there: int) -> list[str]:
        """Flags with which so many seeds' run fits."""

        def fits(count: int = seeds, size: int = 0) -> bool:
            return sum(self.parts(count, size).values()) <= there

        found = []
        if self.size:
            size = _largest(lambda n: fits(size=n), self.hyper.batch_size, self.size)
            found += [f"--replay-size {size}"] if size else []
        if self._compressed_fits(seeds, there):
            found.append("--replay-compression lz4")
        if self._disk_fits(seeds, there):
            found.append("--replay-device disk")
        count = _largest(fits, 1, seeds)
        return found + ([f"--seeds {count}"] if count else [])

    def _disk_fits(self, seeds: int, there: int) -> bool:
        """Whether it does with all but the newest observations on disk."""
        plain = getattr(self.hyper, "replay_compression", "none") == "none"
        if not self.size or not plain or self.setting.replay_device == "disk":
            return False
        plan = MemoryPlan(dataclasses.replace(self.setting, replay_device="disk"))
        return sum(plan.parts(seeds).values()) <= there

    def _compressed_fits(self, seeds: int, there: int) -> bool:
        """Whether it does, where there is such a thing and it is allowed."""
        if getattr(self.hyper, "replay_compression", "lz4") == "lz4":
            return False
        try:
            hyper = dataclasses.replace(self.hyper, replay_compression="lz4")
            config = dataclasses.replace(self.setting.config, hyper=hyper)
            check_fit(config, self.setting.spec)
        except (BadInput, BadValue):
            return False
        setting = dataclasses.replace(self.setting, config=config, replay_device="host")
        plan = MemoryPlan(setting)
        return sum(plan.parts(seeds).values()) <= there


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest whole number from ``low`` to below ``high`` that fits, to two digits; 0: none."""
    found = 0
    first = low
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            found, low = middle, middle + 1
        else:
            high = middle
    unit = 10 ** max(0, len(str(found)) - 2)
    return max(first, found // unit * unit) if found else 0


def _tensors(tree: Any) -> list[torch.Tensor]:
    """All that are somewhere in a state."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [tensor for branch in branches for tensor in _tensors(branch)]


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _gb(size: int) -> str:
    return f"{size / GB:.2f} GB" if size < 10 * GB else f"{size / GB:.0f} GB"


def _told(parts: Mapping[str, int]) -> str:
    """All together, and what is large of it."""
    large = [f"{name} {_gb(size)}" for name, size in parts.items() if size >= GB / 100]
    return f"{_gb(sum(parts.values()))} ({', '.join(large)})" if large else _gb(sum(parts.values()))
