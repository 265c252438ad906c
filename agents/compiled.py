"""A gradient step as one compiled graph: loss, gradient, clipping, Adam.

The step of a small network of one seed is some hundred operations, each of which takes less time than its
start; compiled they are a handful. Groups of seeds, and networks with long products, gain nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from agents.contract import Batch, Draws, LossOut, Network
from agents.learner import DrawnLoss
from agents.networks import FlatParameters
from agents.optimizer import FlatAdam


class CompiledStep:
    """What a loss and `FlatAdam.step` do, to float tolerance.

    The first call takes tens of seconds, and so does one with a batch of another shape.
    """

    def __init__(
        self, loss: DrawnLoss, online: FlatParameters, target: FlatParameters, optimizer: FlatAdam
    ) -> None:
        self.loss, self.online, self.target, self.optimizer = loss, online, target, optimizer
        self._compiled = torch.compile(self.plain, fullgraph=True, dynamic=False)

    def __call__(
        self, batch: Batch, share: Tensor, drawn: Draws, lr: float
    ) -> tuple[Tensor, LossOut]:
        """One step down the gradient of ``sum(share * loss)``; that sum, and what the loss gave."""
        result: tuple[Tensor, LossOut] = self._compiled(
            batch, share, drawn, lr, self.optimizer.bias()
        )
        return result

    @torch.no_grad()
    def plain(
        self, batch: Batch, share: Tensor, drawn: Draws, lr: float, bias: Tensor
    ) -> tuple[Tensor, LossOut]:
        """The same, not compiled: slower than `FlatAdam.step`, whose operations no graph can hold."""
        target = _at(self.target.network, self.target.views(self.target.flat))

        def total(leaves: list[Tensor]) -> tuple[Tensor, tuple[Tensor, LossOut]]:
            out = self.loss(_at(self.online.network, leaves), target, batch, drawn)
            mean = (out.loss * share).sum()
            return mean, (mean, out)

        # by the leaves: a gradient by the flat buffer itself is a sum of as many buffers as there are leaves
        leaves = self.online.views(self.online.flat)
        gradients, (mean, out) = grad(total, has_aux=True)(leaves)
        self.optimizer.apply(self.online.joined(gradients), lr, bias)
        return mean, out


def _at(network: nn.Module, leaves: list[Tensor]) -> Network:
    """The network, with these parameters for its own."""
    names = [name for name, _ in network.named_parameters()]
    values = dict(zip(names, leaves, strict=True))
    return lambda *inputs: functional_call(network, values, inputs)
