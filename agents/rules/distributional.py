"""Rules for distributions of returns: C51's projection, quantile regression.

A target is a set of M values with weights that sum to 1; a distribution with fixed places, quantiles of
equal weight and a mixture over actions are all of this kind. The last axis is the distribution's; any
axes may lead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def project(values: Tensor, weights: Tensor, support: Tensor) -> Tensor:
    """A distribution's nearest one on a fixed support: each value's weight goes to its two neighbours.

    ``pᵢ = Σⱼ wⱼ [1 - |clip(xⱼ) - zᵢ| / Δz]₀¹``

    Args:
        values: [..., M] where the weights sit.
        weights: [..., M], summing to 1.
        support: [Z] evenly spaced places z₀ < z₁ < ...

    Returns:
        [..., Z] probabilities; values beyond the support count at its edge.

    Source:
        Bellemare, Dabney & Munos 2017, arXiv:1707.06887, equation 7.
    """
    low, step, last = support[0], support[1] - support[0], support.shape[0] - 1
    place = ((values - low) / step).clamp(0.0, last)  # in steps from z₀
    left = place.floor()
    share = (place - left) * weights  # of the right neighbour; 0 where there is none
    index = left.to(torch.int64)
    projected = torch.zeros(*values.shape[:-1], last + 1, device=values.device)
    projected.scatter_add_(-1, index, weights - share)
    return projected.scatter_add_(-1, (index + 1).clamp(max=last), share)


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """How far a predicted distribution is from its target: ``KL(m ‖ p) = Σᵢ mᵢ (log mᵢ - log pᵢ)``.

    Args:
        logits: [..., Z] of the prediction, with gradient.
        target: [..., Z] probabilities m.

    Returns:
        [...], 0 where they are equal. The gradient is that of the cross-entropy.

    Source:
        Bellemare et al. 2017, arXiv:1707.06887, Algorithm 1, whose loss is the cross-entropy; Hessel et
        al. 2018, arXiv:1710.02298, equation 3.
    """
    log_p = torch.log_softmax(logits, -1)
    kl: Tensor = (torch.special.xlogy(target, target) - target * log_p).sum(-1)
    return kl


def quantile_huber(
    quantiles: Tensor, taus: Tensor, target: Tensor, weights: Tensor | None, delta: float
) -> Tensor:
    """Quantile regression with Huber's loss: over- and underestimates count by τ and 1 - τ.

    ``Σᵢ Σⱼ wⱼ |τᵢ - 1{uᵢⱼ < 0}| L(uᵢⱼ) / δ,   uᵢⱼ = xⱼ - θᵢ``

    Args:
        quantiles: [..., N] predictions θ, with gradient.
        taus: [..., N] the fractions that they stand for, or anything that broadcasts to it.
        target: [..., M] values x.
        weights: [..., M] theirs; None: 1 / M each.
        delta: where Huber's loss L turns from quadratic to linear.

    Returns:
        [...] losses: a sum over predictions, a mean over targets.

    Source:
        Dabney et al. 2018, arXiv:1806.06923, equation 3; arXiv:1710.10044, equations 9 and 10, are the same
        without the division by δ.
    """
    shape = (*quantiles.shape, target.shape[-1])  # [..., N, M]
    target, quantiles = target.unsqueeze(-2).expand(shape), quantiles.unsqueeze(-1).expand(shape)
    huber = functional.huber_loss(quantiles, target, reduction="none", delta=delta)
    below = (target.detach() < quantiles.detach()).to(huber.dtype)
    losses = (taus.unsqueeze(-1) - below).abs() * huber / delta
    each = losses.mean(-1) if weights is None else (losses * weights.unsqueeze(-2)).sum(-1)
    return each.sum(-1)


def ordered_quantile_huber(
    quantiles: Tensor, taus: Tensor, ordered: Tensor, delta: float
) -> Tensor:
    """`quantile_huber` of many targets of equal weight, in order, without a number for each pair.

    Of ``x₁ ≤ ... ≤ x_M`` a prediction θ has a below ``θ - δ``, b below θ and c below ``θ + δ``. In each of the
    four parts the loss is a polynomial of x, whose sum is a difference of two running sums: N log M steps for
    N M. Of TQC's 25 and 115 an update takes a third of the time.

    Args:
        quantiles: [..., N] predictions θ, with gradient.
        taus: [N] the fractions that they stand for.
        ordered: [..., M] values x, ascending, without gradient; leading axes that broadcast.
        delta: δ, where Huber's loss turns from quadratic to linear.

    Returns:
        [...] losses: a sum over predictions, a mean over targets.
    """
    loss: Tensor = _OrderedQuantileHuber.apply(quantiles, taus, ordered, delta)  # type: ignore[no-untyped-call]
    return loss


class _OrderedQuantileHuber(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, quantiles: Tensor, taus: Tensor, ordered: Tensor, delta: float) -> Tensor:
        # squares of large values differ by little: sums in double precision, of distances from the middle one
        lead, size = quantiles.shape[:-1], ordered.shape[-1]
        middle = ordered[..., size // 2 : size // 2 + 1].double()
        x, theta = ordered.double() - middle, quantiles.double() - middle
        edges = torch.cat([theta - delta, theta, theta + delta], -1)
        place = torch.searchsorted(x.expand(*lead, size).contiguous(), edges)
        running = (_running(y).expand(*lead, size + 1) for y in (x, x.square()))
        sums, squares = (y.gather(-1, place).chunk(3, -1) for y in running)
        (a, b, c), total = place.chunk(3, -1), x.sum(-1, keepdim=True)

        def near(i: int, count: Tensor) -> tuple[Tensor, Tensor]:
            """Sums of (θ - x)² / 2 and of θ - x between two edges."""
            s, q = sums[i + 1] - sums[i], squares[i + 1] - squares[i]
            return 0.5 * (q - 2.0 * theta * s + count * theta.square()), count * theta - s

        (below, below_slope), (above, above_slope) = near(0, b - a), near(1, c - b)
        below = below + delta * (a * (theta - 0.5 * delta) - sums[0])
        above = above + delta * (total - sums[2] - (size - c) * (theta + 0.5 * delta))
        slope = (1.0 - taus) * (below_slope + delta * a) + taus * (above_slope - delta * (size - c))
        scale = 1.0 / (delta * size)
        ctx.save_for_backward((scale * slope).to(quantiles.dtype))
        loss = scale * ((1.0 - taus) * below + taus * above)
        return loss.sum(-1).to(quantiles.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].unsqueeze(-1) * slope, None, None, None


def _running(x: Tensor) -> Tensor:
    """[..., M] to the sums of the first 0, 1, ..., M."""
    return functional.pad(x.cumsum(-1), (1, 0))


def midpoints(count: int, device: torch.device | None = None) -> Tensor:
    """[N] the middles of N equal parts of (0, 1): ``τ̂ᵢ = (2i + 1) / 2N``.

    Source:
        Dabney et al. 2018, arXiv:1710.10044, Lemma 2: there quantiles are nearest in W₁.
    """
    return (torch.arange(count, device=device) + 0.5) / count
