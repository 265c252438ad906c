"""What a network's outputs mean: a value, or a distribution of returns, for each action.

A head turns outputs into action values, says what values the successor can have and with which
weights, and regresses the taken action's output on them. Outputs are ``[K, B, A]``, or ``[K, B, A, Z]``
where each action has a distribution. A target is ``(values, weights)``, each ``[K, B, M]``; a scalar
head's is plain ``[K, B]`` values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from agents.rules import distributional, td

Target = tuple[Tensor, Tensor | None]
"""Values and their weights; None: equal ones."""


class Head(Protocol):
    """The interface; `Scalar` is the plainest."""

    @property
    def outputs(self) -> int:
        """Z, numbers for each action; 0: one, without an axis of its own."""

    def values(self, out: Tensor) -> Tensor:
        """Action values [K, B, A] of outputs."""

    def column(self, x: Tensor) -> Tensor:
        """Numbers [K, B] so that they broadcast against a target's values."""

    def successor(self, out: Tensor) -> Target:
        """What the outputs of one action say of its value."""

    def best(self, out: Tensor, mask: Tensor | None) -> Target:
        """The same of the legal action of the highest value."""

    def mixture(self, out: Tensor, policy: Tensor, cost: Tensor) -> Target:
        """The same of a policy [K, B, A] over actions, each of which costs [K, B, A]."""

    def mean(self, target: Target) -> Tensor:
        """[K, B] the expectation of a target."""

    def loss(self, out: Tensor, target: Target, noise: Mapping[str, Tensor]) -> Tensor:
        """[K, B] how far one action's outputs are from a target."""


@dataclass(frozen=True)
class Scalar:
    """The expectation alone, by Huber's loss (Mnih et al. 2015)."""

    delta: float
    outputs: int = 0

    def values(self, out: Tensor) -> Tensor:
        """The outputs."""
        return out

    def column(self, x: Tensor) -> Tensor:
        """As it is."""
        return x

    def successor(self, out: Tensor) -> Target:
        """One value."""
        return out, None

    def best(self, out: Tensor, mask: Tensor | None) -> Target:
        """The maximum; where no action is legal the first one's value, which nothing will ask for."""
        if mask is None:
            return out.amax(-1), None
        return td.select(out, td.greedy_action(out, mask)), None

    def mixture(self, out: Tensor, policy: Tensor, cost: Tensor) -> Target:
        """The policy's mean."""
        return (policy * (out - cost)).sum(-1), None

    def mean(self, target: Target) -> Tensor:
        """The value."""
        return target[0]

    def loss(self, out: Tensor, target: Target, noise: Mapping[str, Tensor]) -> Tensor:
        """Huber's."""
        del noise
        return td.huber(out, target[0], self.delta)


@dataclass(frozen=True)
class Categorical:
    """C51: probabilities of Z fixed places (Bellemare, Dabney & Munos 2017, arXiv:1707.06887)."""

    outputs: int
    low: float
    high: float

    def support(self, like: Tensor) -> Tensor:
        """[Z] the places."""
        return torch.linspace(self.low, self.high, self.outputs, device=like.device)

    def values(self, out: Tensor) -> Tensor:
        """The means."""
        return (torch.softmax(out, -1) * self.support(out)).sum(-1)

    def column(self, x: Tensor) -> Tensor:
        """With an axis for the places."""
        return x.unsqueeze(-1)

    def successor(self, out: Tensor) -> Target:
        """The places, with their probabilities."""
        return self.support(out).expand(out.shape), torch.softmax(out, -1)

    def best(self, out: Tensor, mask: Tensor | None) -> Target:
        """By the highest mean."""
        return self.successor(td.select(out, td.greedy_action(self.values(out), mask)))

    def mixture(self, out: Tensor, policy: Tensor, cost: Tensor) -> Target:
        """The places of all actions; probabilities times the policy's."""
        values = self.support(out) - cost.unsqueeze(-1)
        weights = torch.softmax(out, -1) * policy.unsqueeze(-1)
        return values.flatten(-2), weights.flatten(-2)

    def mean(self, target: Target) -> Tensor:
        """Of the target as it is, before it is put on the support."""
        return _mean(target)

    def loss(self, out: Tensor, target: Target, noise: Mapping[str, Tensor]) -> Tensor:
        """The divergence from the projected target (their equation 7 and Algorithm 1)."""
        del noise
        values, weights = target
        assert weights is not None
        projected = distributional.project(values, weights, self.support(out))
        return distributional.divergence(out, projected)


@dataclass(frozen=True)
class Quantile:
    """QR-DQN: Z quantiles of equal weight (Dabney et al. 2018, arXiv:1710.10044).

    With fractions τ among the noise the outputs stand for those, as in IQN (Dabney et al. 2018,
    arXiv:1806.06923); without for the middles of Z equal parts.
    """

    outputs: int
    delta: float

    def values(self, out: Tensor) -> Tensor:
        """The means."""
        return out.mean(-1)

    def column(self, x: Tensor) -> Tensor:
        """With an axis for the quantiles."""
        return x.unsqueeze(-1)

    def successor(self, out: Tensor) -> Target:
        """The quantiles, of equal weight."""
        return out, None

    def best(self, out: Tensor, mask: Tensor | None) -> Target:
        """By the highest mean."""
        return self.successor(td.select(out, td.greedy_action(self.values(out), mask)))

    def mixture(self, out: Tensor, policy: Tensor, cost: Tensor) -> Target:
        """The quantiles of all actions, weighted by the policy."""
        values = out - cost.unsqueeze(-1)
        weights = (policy / out.shape[-1]).unsqueeze(-1).expand(out.shape)
        return values.flatten(-2), weights.flatten(-2)

    def mean(self, target: Target) -> Tensor:
        """The weighted one."""
        return _mean(target)

    def loss(self, out: Tensor, target: Target, noise: Mapping[str, Tensor]) -> Tensor:
        """Quantile regression (equation 10 of QR-DQN, equation 3 of IQN)."""
        taus = noise.get("taus")
        if taus is None:
            taus = distributional.midpoints(self.outputs, out.device)
        return distributional.quantile_huber(out, taus, *target, self.delta)


def _mean(target: Target) -> Tensor:
    values, weights = target
    return values.mean(-1) if weights is None else (values * weights).sum(-1)
