"""Batch renormalisation: batch statistics for learning that come close to those of acting."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from agents.layers import Layer

R_MAX, D_MAX = 3.0, 5.0
"""Bounds of the correction: Ioffe 2017, section 4, their last values."""
DECAY = 0.99  # of the moving statistics
EPS = 1e-3  # added to a variance


@dataclass
class Moments:
    """What a pass that learns finds: each layer's mean and variance of its batch.

    ``renorm``: whether they are corrected towards the moving ones; for a start these know nothing yet.
    """

    renorm: bool
    found: list[tuple[GroupBatchRenorm, Tensor, Tensor]] = field(default_factory=list)

    @torch.no_grad()
    def absorb(self) -> None:
        """Move every layer's statistics towards what was found."""
        for layer, mean, variance in self.found:
            layer.mean.lerp_(mean, 1.0 - DECAY)
            layer.variance.lerp_(variance, 1.0 - DECAY)


class GroupBatchRenorm(Layer):
    """Batch renormalisation with statistics, a gain and a bias of each seed's own.

    While learning ``y = (x - μ_B) / σ_B · r + d`` with ``r = clip(σ_B / σ, 1 / 3, 3)`` and
    ``d = clip((μ_B - μ) / σ, -5, 5)``, through which no gradient goes; else ``(x - μ) / σ``.

    Source: Ioffe 2017, arXiv:1702.03275, Algorithm 1; that the variance moves, not σ, is CrossQ's code.
    """

    def __init__(self, seeds: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(seeds, 1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, width, device=device))
        # parameters that nothing learns: so they travel, are saved and leave a group with the others
        self.mean = nn.Parameter(torch.zeros(seeds, 1, width, device=device), requires_grad=False)
        self.variance = nn.Parameter(
            torch.ones(seeds, 1, width, device=device), requires_grad=False
        )

    def forward(self, x: Tensor, moments: Moments | None = None) -> Tensor:
        """[K, B, width], of moving statistics; of the batch's where ``moments`` are to be found."""
        if moments is None:
            scale = torch.rsqrt(self.variance + EPS) * self.weight
            return torch.addcmul(self.bias - self.mean * scale, x, scale)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if moments.renorm:
            with torch.no_grad():
                _, mean, scale = _normal(x, torch.ones_like(weight), torch.zeros_like(bias))
                moving = torch.rsqrt(self.variance + EPS)
                r = (moving / scale).clamp(1.0 / R_MAX, R_MAX)
                d = ((mean - self.mean) * moving).clamp(-D_MAX, D_MAX)
            weight, bias = weight * r, torch.addcmul(bias, weight, d)
        y, mean, scale = _normal(x, weight, bias)
        moments.found.append((self, mean.detach(), scale.detach() ** -2 - EPS))
        return y


def _normal(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(x - μ_B) / σ_B · weight + bias`` [K, B, width], μ_B and ``1 / σ_B`` [K, 1, width]; a call a seed.

    One operation and one for its gradient: of plain ones, a variance over rows takes twenty times as long.
    """
    seeds = zip(x.unbind(), weight.squeeze(1).unbind(), bias.squeeze(1).unbind(), strict=True)
    parts = [
        torch.native_batch_norm(rows, gain, shift, None, None, True, 0.0, EPS)
        for rows, gain, shift in seeds
    ]
    y, mean, scale = (torch.stack(part) for part in zip(*parts, strict=True))
    return y, mean.unsqueeze(1), scale.unsqueeze(1)
