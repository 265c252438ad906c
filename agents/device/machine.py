"""What a CUDA device does beside computing. These are the only lines that name `torch.cuda`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

Out = TypeVar("Out")


class Event(Protocol):
    """A moment in a stream's work."""

    def record(self, stream: Any) -> None:
        """It is when all that the stream has been given so far is done."""

    def query(self) -> bool:
        """Whether it has passed; so has one that was never recorded."""

    def synchronize(self) -> None:
        """Wait here until it has."""


class Stream(Protocol):
    """Work that a device does in order, beside that of other streams."""

    def wait_event(self, event: Any) -> None:
        """What is given from now on waits for it. Nobody waits here."""

    def wait_stream(self, stream: Any) -> None:
        """What is given from now on waits for what that one has been given so far."""


class Machine:
    """Streams, events, pinned memory and graphs of one device. Tests put a slow one in its place."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def pinned(self, like: Tensor) -> Tensor:
        """Host memory that the device copies by itself.

        torch gives a freed piece out again only when the copies that it was used for are done.
        """
        return torch.empty_like(like, device="cpu", pin_memory=True)

    def room(self, like: Tensor) -> Tensor:
        """Memory on the device."""
        return torch.empty_like(like, device=self.device)

    def stream(self, urgent: bool = False) -> Stream:
        """A new one; of an ``urgent`` one kernels go before those of others."""
        made: Stream = torch.cuda.Stream(self.device, priority=-1 if urgent else 0)  # type: ignore[no-untyped-call]
        return made

    def current(self) -> Stream:
        """The one that this thread's kernels go to."""
        found: Stream = torch.cuda.current_stream(self.device)
        return found

    def on(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        """Meanwhile this thread's kernels go there."""
        context: contextlib.AbstractContextManager[Any] = torch.cuda.stream(stream)
        return context

    def event(self, timed: bool = False) -> Event:
        """One that was not recorded yet."""
        made: Event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
        return made

    def copy(self, to: Tensor, source: Tensor) -> None:
        """Begin to copy, on the current stream."""
        to.copy_(source, non_blocking=True)

    def used_on(self, tensor: Tensor, stream: Any) -> None:
        """Its memory is not given out again before that stream is done with what it has by then."""
        tensor.record_stream(stream)

    def record(self, work: Callable[[], Out]) -> tuple[Callable[[], None], Out]:
        """Kernels that ``work`` would start, as one graph: what starts them, and the results' places.

        Raises:
            RuntimeError: it waits for the device, or reads memory of the host.
        """
        graph = torch.cuda.CUDAGraph()
        # other threads go on: one that acts may allocate meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            out = work()
        return graph.replay, out

    def free_memory(self) -> int:
        """Bytes that are there."""
        return torch.cuda.mem_get_info(self.device)[0]

    def finish(self) -> None:
        """Wait until all is done."""
        torch.cuda.synchronize(self.device)


def machine_of(device: torch.device) -> Machine | None:
    """None where there is nothing to wait for: on the CPU, and on ``meta``."""
    return Machine(device) if device.type == "cuda" else None


def available() -> bool:
    """Whether there is such a device."""
    return torch.cuda.is_available()


def name(device: torch.device) -> str:
    """What its maker calls it."""
    return torch.cuda.get_device_name(device)


def learner_device(kind: str, number: int | None = None) -> torch.device:
    """The device of the learner with this number among those of this machine; they share what GPUs there are.

    None: it is the only one.
    """
    if kind == "cpu" or number is None:
        return torch.device(kind)
    return torch.device(kind, number % max(1, torch.cuda.device_count()))


def reduce_backend(kind: str, learners: int) -> str:
    """What joins so many learners of one machine: NCCL wants a GPU for each, gloo takes anything."""
    if kind == "cuda" and torch.cuda.device_count() >= learners:
        return "cpu:gloo,cuda:nccl"
    return "gloo"
