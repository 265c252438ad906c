"""A device in slow motion: what a stream is given is done as late as it may be, or as early.

It stands for `agents.device.machine.Machine` where there is no GPU. A copy that nobody waits for reads
its source when it is done, not when it was asked for: a buffer that is used again too early shows.
"""

from __future__ import annotations

import contextlib
from collections import deque

import torch

CPU = torch.device("cpu")


class SlowEvent:
    def __init__(self):
        self.stream, self.passed = None, True

    def record(self, stream):
        marker = SlowEvent()  # a moment of its own: an event may be recorded again later on
        self.stream, self.passed, self.marker = stream, False, marker
        marker.passed = False

        def pass_by():
            marker.passed = True

        stream.work.append(pass_by)
        stream.given()

    def query(self):
        return self.stream is None or self.marker.passed

    def synchronize(self):
        while not self.query():
            self.stream.one()


class SlowStream:
    """Its work is done when somebody waits for it; ``eager``: as soon as it can be."""

    def __init__(self, eager=False):
        self.work, self.eager = deque(), eager

    def one(self):
        self.work.popleft()()

    def given(self):
        while self.eager and self.work:
            self.one()

    def wait_event(self, event):
        if event.stream is None:
            return
        stream, marker = event.stream, event.marker

        def wait():
            while not marker.passed:
                stream.one()

        self.work.append(wait)
        self.given()

    def wait_stream(self, stream):
        event = SlowEvent()
        event.record(stream)
        self.wait_event(event)


class SlowMachine:
    """``eager_side``: streams that are made run ahead; the first one, of kernels, stays behind."""

    def __init__(self, eager_side=False):
        self.device, self.eager_side = CPU, eager_side
        self.kernels = SlowStream()
        self.stack = [self.kernels]

    def pinned(self, like):
        return torch.empty_like(like).fill_(77)

    room = pinned

    def stream(self, urgent=False):
        return SlowStream(self.eager_side)

    def current(self):
        return self.stack[-1]

    @contextlib.contextmanager
    def on(self, stream):
        self.stack.append(stream)
        try:
            yield
        finally:
            self.stack.pop()

    def event(self, timed=False):
        return SlowEvent()

    def launch(self, kernel):
        """A kernel: on a stream of the device, some time later."""
        self.current().work.append(kernel)
        self.current().given()

    def copy(self, to, source):
        self.launch(lambda: to.copy_(source))

    def used_on(self, tensor, stream):
        pass

    def finish(self):
        while self.kernels.work:
            self.kernels.one()


class Recorder(SlowMachine):
    """Records as a graph does: the kernels are not started then, and read the same places ever after.

    ``changed`` are the tensors that a step changes in place, which recording must leave as they are.
    """

    def __init__(self, changed):
        super().__init__()
        self.changed, self.records, self.kernels.eager = changed, 0, True

    def stream(self, urgent=False):
        return SlowStream(eager=True)

    def record(self, work):
        self.records += 1
        before = [tensor.clone() for tensor in self.changed]
        out = work()
        for tensor, value in zip(self.changed, before, strict=True):
            tensor.copy_(value)

        def start():
            for place, value in zip(tensors_in(out), tensors_in(work()), strict=True):
                place.detach().copy_(value.detach())

        return start, out


def tensors_in(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple) else ()
    return [tensor for branch in branches for tensor in tensors_in(branch)]


class MetaMachine(Recorder):
    """Where nothing can be read: recording is a step as any other, and what starts it does nothing."""

    def __init__(self):
        super().__init__(changed=())
        self.device = torch.device("meta")

    def record(self, work):
        self.records += 1
        return lambda: None, work()
