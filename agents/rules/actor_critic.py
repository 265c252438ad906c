"""Equations of actor-critic methods for continuous actions: squashed Gaussians, entropy, targets.

Actions are in [-1, 1]; ``...`` stands for any leading axes, A for the action's numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LOG_ROOT_TAU = 0.5 * math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)
LOG_DIAGONAL = -10.0, 5.0
"""Bounds of the logarithms of a triangle's diagonal."""


def squashed_gaussian(mean: Tensor, log_std: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """An action ``a = tanh(u)``, ``u = μ + σ ε``, and its log-probability.

    ``log π(a) = Σ log N(u; μ, σ) - Σ log(1 - tanh²(u))``, the last by the identity
    ``log(1 - tanh²(u)) = 2 (log 2 - |u| - log(1 + exp(-2|u|)))``, which does not overflow.

    Args:
        mean: [..., A] μ.
        log_std: [..., A] log σ.
        epsilon: [..., A] standard normal numbers.

    Returns:
        Actions [..., A] and log-probabilities [...].

    Source:
        Haarnoja et al. 2018, arXiv:1812.05905, appendix C, equation 26.
    """
    action, log_pi = _SquashedGaussian.apply(mean, log_std, epsilon)  # type: ignore[no-untyped-call]
    return action, log_pi


class _SquashedGaussian(torch.autograd.Function):
    """`squashed_gaussian` with its gradient by hand, which is six operations for some thirty.

    ``∂a/∂u = 1 - a²``, ``∂ log π/∂u = 2a`` as only the correction knows u, ``∂ log π/∂ log σ = -1`` besides.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        spread = log_std.exp() * epsilon
        u = mean + spread
        action, size = torch.tanh(u), u.abs()
        gaussian = -0.5 * epsilon.square() - log_std - _LOG_ROOT_TAU
        correction = 2.0 * (_LOG_2 - size - torch.log1p(torch.exp(-2.0 * size)))
        ctx.save_for_backward(action, spread)
        return action, (gaussian - correction).sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        of_action, of_log_pi = gradients
        action, spread = ctx.saved_tensors
        of_log_pi = of_log_pi.unsqueeze(-1)
        of_u = of_action * (1.0 - action.square()) + of_log_pi * 2.0 * action
        return of_u, of_u * spread - of_log_pi, None


def soft_value(q: Tensor, log_pi: Tensor, alpha: Tensor) -> Tensor:
    """What a state is worth with its policy's entropy: ``V = Q - α log π``.

    Args:
        q: [...] of an action that the policy drew.
        log_pi: [...] its log-probability.
        alpha: [...] temperature.

    Returns:
        [...].

    Source:
        Haarnoja et al. 2018, arXiv:1812.05905, equation 3.
    """
    return q - alpha * log_pi


def temperature_loss(log_alpha: Tensor, log_pi: Tensor, target_entropy: float) -> Tensor:
    """``J(α) = -α (log π + H̄)``: α grows while the policy's entropy is below H̄.

    Args:
        log_alpha: [...] with gradient.
        log_pi: [...] without.
        target_entropy: H̄.

    Returns:
        [...].

    Source:
        Haarnoja et al. 2018, arXiv:1812.05905, equation 18.
    """
    return -log_alpha.exp() * (log_pi + target_entropy)


def smoothed(action: Tensor, epsilon: Tensor, sigma: float, clip: float) -> Tensor:
    """Target policy smoothing: ``clip(a + clip(σ ε, -c, c), -1, 1)``.

    Args:
        action: [..., A] of the target policy.
        epsilon: [..., A] standard normal numbers.
        sigma: σ.
        clip: c.

    Returns:
        [..., A].

    Source:
        Fujimoto et al. 2018, arXiv:1802.09477, equation 14.
    """
    return (action + (sigma * epsilon).clamp(-clip, clip)).clamp(-1.0, 1.0)


def pooled(quantiles: Tensor, dropped: int) -> Tensor:
    """All critics' quantiles in one row, in order, without the largest: TQC's truncation.

    Args:
        quantiles: [..., E, Z] of E critics.
        dropped: how many of the E Z are left out.

    Returns:
        [..., E Z - dropped].

    Source:
        Kuznetsov et al. 2020, arXiv:2005.04269, section 4.2.
    """
    ordered = quantiles.flatten(-2).sort(-1).values
    return ordered[..., : ordered.shape[-1] - dropped]


def quadratic_advantage(action: Tensor, mean: Tensor, lower: Tensor) -> Tensor:
    """``A(s, a) = -½ (a - μ)ᵀ L Lᵀ (a - μ)``: 0 at the best action, and below everywhere else.

    Args:
        action: [..., A].
        mean: [..., A] μ, the best action.
        lower: [..., A, A] L, lower triangular.

    Returns:
        [...].

    Source:
        Gu et al. 2016, arXiv:1603.00748, equation 3.
    """
    away = (action - mean).unsqueeze(-2)
    return -0.5 * (away @ lower).square().sum((-2, -1))


def triangular(numbers: Tensor, size: int) -> Tensor:
    """Lower triangular matrices [..., A, A] of their A (A + 1) / 2 numbers; the diagonal by its exponential.

    Its logarithms are kept within `LOG_DIAGONAL`.

    Source:
        Gu et al. 2016, arXiv:1603.00748, section 4.
    """
    rows, columns = torch.tril_indices(size, size, device=numbers.device)
    matrix = numbers.new_zeros(*numbers.shape[:-1], size, size)
    matrix[..., rows, columns] = numbers
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    return matrix.tril(-1) + torch.diag_embed(diagonal.clamp(*LOG_DIAGONAL).exp())
