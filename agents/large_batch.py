"""Large batches: how the step size goes with them, and steps whose length each layer bounds for itself.

Rules go over the flat buffer ``[K, D]`` of `agents.networks.FlatParameters` in plain operations, which can be
compiled. A layer's trust ratio is ``‖w‖ / ‖step‖``, of each seed its own; 1 where either is 0, and of
parameters that are one vector (biases, gains of a normalisation). LARS's η is of all of them, where some
programs leave it out for vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from agents.exploration import linear
from agents.networks import FlatParameters
from agents.optimizer import BETA1, BETA2, FlatAdam, Rule

TRUST = 1e-3  # η of LARS
MOMENTUM = 0.9  # m of LARS


def lars(optimizer: FlatAdam, gradient: Tensor, lr: float | Tensor, bias: Tensor) -> None:
    """``v ← m v + γ λ g``, ``w ← w - v`` with ``λ = η ‖w‖ / ‖g‖`` of each layer.

    Args:
        optimizer: holds the parameters, and v where Adam has its mean.
        gradient: [K, D], clipped.
        lr: γ.
        bias: not used.

    Source: You, Gitman & Ginsburg 2017, arXiv:1708.03888, Algorithm 1, without weight decay.
    """
    del bias
    step = by_trust(optimizer.parameters, gradient)
    optimizer.mean.mul_(MOMENTUM).add_(step * (lr * TRUST))
    optimizer.parameters.flat.sub_(optimizer.mean)


def lamb(optimizer: FlatAdam, gradient: Tensor, lr: float | Tensor, bias: Tensor) -> None:
    """``r = m̂ / (√v̂ + ε)``, ``w ← w - η r ‖w‖ / ‖r‖`` of each layer.

    Args:
        optimizer: holds the parameters, ε, and Adam's mean and square.
        gradient: [K, D], clipped.
        lr: η.
        bias: [2] what mean and square are divided by.

    Source: You et al. 2020, arXiv:1904.00962, Algorithm 2, with φ(z) = z and without weight decay.
    """
    optimizer.mean.lerp_(gradient, 1.0 - BETA1)
    optimizer.square.lerp_(gradient.square(), 1.0 - BETA2)
    mean, square = optimizer.mean / bias[0], optimizer.square / bias[1]
    step = mean / (square.sqrt() + optimizer.eps)
    optimizer.parameters.flat.sub_(by_trust(optimizer.parameters, step) * lr)


def by_trust(parameters: FlatParameters, step: Tensor) -> Tensor:
    """A step [K, D] whose layers each have the length of their weights."""
    pieces = [
        part * _trust(weight, part) if _is_matrix(weight) else part
        for weight, part in zip(
            parameters.views(parameters.flat), parameters.views(step), strict=True
        )
    ]
    return parameters.joined(pieces)


def _trust(weight: Tensor, step: Tensor) -> Tensor:
    """``‖w‖ / ‖step‖`` of each seed [K, ...], 1 where either is 0."""
    long, short = (torch.linalg.vector_norm(x.flatten(1), dim=-1) for x in (weight, step))
    ratio = torch.where((long > 0) & (short > 0), long / short, 1.0)
    return ratio.view(-1, *[1] * (weight.dim() - 1))


def _is_matrix(weight: Tensor) -> bool:
    """Whether a parameter [K, ...] is more than one vector a seed."""
    return weight[0].numel() > weight.shape[-1]


RULES: Mapping[str, Rule | None] = {"adam": None, "lars": lars, "lamb": lamb}
"""Rules of a step by name; None is the optimizer's own."""


class LargeBatchHyper(Protocol):
    """The hyperparameters that this goes by."""

    @property
    def optimizer(self) -> str: ...
    @property
    def lr_scaling(self) -> str: ...
    @property
    def reference_batch(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...


@dataclass(frozen=True)
class Scaling:
    """The factor on a learning rate that was found with batches of another size.

    k is how many times as large the batch of all learners is. Linear: k (Goyal et al. 2017,
    arXiv:1706.02677, section 2.1). Root: √k, which keeps the variance of a step (Hoffer, Hubara & Soudry
    2017, arXiv:1705.08741, section 4). The factor rises to it from 1 over ``warmup`` lane steps (Goyal et
    al., section 2.2, "Gradual warmup").
    """

    linear: bool
    reference: int
    batch: int
    warmup: int

    def factor(self, lane_steps: float, learners: int) -> float:
        """At a moment, of so many learners with a batch each."""
        k = self.batch * learners / self.reference
        return linear(lane_steps, 1.0, k if self.linear else math.sqrt(k), self.warmup)


def scaling_of(hyper: LargeBatchHyper, batch: int) -> Scaling | None:
    """How a learner scales the learning rate whose batches are so large; None: it does not."""
    if hyper.lr_scaling == "none":
        return None
    return Scaling(hyper.lr_scaling == "linear", hyper.reference_batch, batch, hyper.warmup_steps)


def conflicts(hyper: LargeBatchHyper) -> list[tuple[bool, str]]:
    """What makes no sense together, and why."""
    return [
        (
            hyper.warmup_steps > 0 and hyper.lr_scaling == "none",
            f"warmup_steps: got {hyper.warmup_steps}, takes 0 without --lr-scaling: the rate rises from lr to "
            "the scaled one",
        ),
        (
            (hyper.reference_batch > 0) != (hyper.lr_scaling != "none"),
            f"reference_batch: got {hyper.reference_batch}, takes the batch that lr was found with where there "
            "is a --lr-scaling, and 0 where there is none",
        ),
    ]
