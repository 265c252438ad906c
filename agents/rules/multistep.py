"""Returns over several steps. Time is the first axis; any axes may follow."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(r_t: Tensor, discount_t: Tensor, v_t: Tensor, lambda_t: Tensor) -> Tensor:
    """Returns that mix bootstrapping at every later step.

    ``Gₜ₋₁ = rₜ + γₜ ((1 - λₜ) vₜ + λₜ Gₜ)``, begun at the last row with ``G = v``.

    With ``v_t = maxₐ Q(sₜ, a)`` this is the Q(λ) target of PQN. ``lambda_t`` 0 on a row where an
    episode ends cuts the trace there: a truncated row bootstraps from its true final observation,
    a terminated one has ``discount_t`` 0 and does not.

    Args:
        r_t: [T, ...] rewards.
        discount_t: [T, ...] γ, 0 where terminated.
        v_t: [T, ...] value of each row's successor.
        lambda_t: [T, ...] λ in [0, 1], 0 where the episode ends.

    Returns:
        [T, ...] targets, without gradient.

    Source:
        Sutton & Barto 2018, equation 12.2 in recursive form; Gallici et al. 2024,
        arXiv:2407.04811, Algorithm 1, where it is Peng's Q(λ).
    """
    returns = torch.empty_like(r_t)
    g = v_t[-1]
    for t in range(r_t.shape[0] - 1, -1, -1):
        g = r_t[t] + discount_t[t] * torch.lerp(v_t[t], g, lambda_t[t])
        returns[t] = g
    return returns.detach()
