"""A gradient step as one CUDA graph: recorded once, then started by a single call.

A small network's step is a hundred kernels that each take less time than the host needs to start them. A
graph holds the very kernels of the eager step, so it gives the eager step's numbers, records any loss,
unrolled memories too, and takes a second where a compiler takes tens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.contract import Batch, Draws, LossOut
from agents.device.machine import Machine

Step = Callable[[Batch, Tensor, Draws, float], tuple[Tensor, LossOut]]
"""(batch, share, drawn, lr) to the summed loss and what the loss gave; it changes parameters in place."""
TensorStep = Callable[[Batch, Tensor, Draws, "float | Tensor"], tuple[Tensor, LossOut]]
"""The same where the learning rate may be a tensor."""

WARM_UP = (
    3  # steps of a shape before it is recorded: libraries choose kernels and allocate in the first
)
MOST = 4  # shapes; a cut rollout has its own


class GraphedStep:
    """A step, of which each shape of batch is recorded; what it gives is overwritten by the next one.

    Its first steps are taken as they are, so that nothing is learned twice. All that is random is drawn
    outside; all that it reads is copied into places of the graph's own before it starts.
    """

    def __init__(self, step: TensorStep, machine: Machine) -> None:
        self.step, self.machine, self.side = step, machine, machine.stream()
        self.seen: dict[object, int] = {}
        self.recorded: dict[object, _Recorded] = {}

    def __call__(
        self, batch: Batch, share: Tensor, drawn: Draws, lr: float
    ) -> tuple[Tensor, LossOut]:
        """One step.

        Raises:
            ValueError: something that it reads is not on the device, where a graph would read its old place.
        """
        inputs = {f"batch.{n}": t for n, t in batch.tensors().items()} | {"share": share}
        inputs |= {f"drawn.{name}": tensor for name, tensor in drawn.items()}
        kind = tuple((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items())
        recorded = self.recorded.get(kind)
        if recorded is None:
            self._check(inputs)
            count = self.seen[kind] = self.seen.get(kind, 0) + 1
            if count <= WARM_UP or len(self.recorded) == MOST:
                return self._aside(inputs, lr)
            recorded = self.recorded[kind] = self._record(inputs, lr)
        return recorded(inputs, lr)

    def _check(self, inputs: Mapping[str, Tensor]) -> None:
        kind = self.machine.device.type
        for name, tensor in inputs.items():
            if tensor.device.type != kind:
                raise ValueError(
                    f"{name} is on {tensor.device}: a step on {kind} cannot be recorded"
                )

    def _aside(self, inputs: Mapping[str, Tensor], lr: float) -> tuple[Tensor, LossOut]:
        """As it is, on a stream of its own, which a graph is made ready on."""
        current = self.machine.current()
        self.side.wait_stream(current)
        with self.machine.on(self.side):
            result = self._step(inputs, lr)
        current.wait_stream(self.side)
        return result

    def _step(self, inputs: Mapping[str, Tensor], lr: float | Tensor) -> tuple[Tensor, LossOut]:
        of_batch, drawn = (
            {name.removeprefix(part): t for name, t in inputs.items() if name.startswith(part)}
            for part in ("batch.", "drawn.")
        )
        return self.step(Batch.of(of_batch), inputs["share"], drawn, lr)

    def _record(self, inputs: Mapping[str, Tensor], lr: float) -> _Recorded:
        places = {name: tensor.clone() for name, tensor in inputs.items()}
        rate = torch.full((), lr, device=inputs["share"].device)
        start, result = self.machine.record(lambda: self._step(places, rate))
        return _Recorded(places, rate, lr, start, result)


@dataclass
class _Recorded:
    """A graph, the places that it reads, and those that it writes its results to."""

    places: dict[str, Tensor]
    rate: Tensor
    lr: float  # that stands there
    start: Callable[[], None]
    result: tuple[Tensor, LossOut]

    def __call__(self, inputs: Mapping[str, Tensor], lr: float) -> tuple[Tensor, LossOut]:
        """Start it on these."""
        torch._foreach_copy_(list(self.places.values()), list(inputs.values()))
        if lr != self.lr:
            self.rate.fill_(lr)
            self.lr = lr
        self.start()
        return self.result
