"""Munchausen reinforcement learning: add the scaled log-policy to the reward.

Vieillard, Pietquin & Geist 2020, arXiv:2007.14430. The policy is a softmax of the action values.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_policy(q: Tensor, temperature: float, mask: Tensor | None) -> Tensor:
    """The logarithm of ``π = softmax(q / τ)``, legal actions alone.

    Args:
        q: [..., A] action values.
        temperature: τ.
        mask: [..., A] bool; None where all are legal.

    Returns:
        [..., A] log-probabilities; finite, so that an action without probability costs 0 · log π = 0.

    Source:
        Section 2, below equation 1.
    """
    scores = q / temperature
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(q.dtype).min)
    return torch.log_softmax(scores, -1).clamp(min=-1e30)


def bonus(log_pi: Tensor, alpha: float, temperature: float, floor: float) -> Tensor:
    """What is added to the reward of the action taken: ``α [τ log π(a|s)]`` clipped to [l₀, 0].

    Args:
        log_pi: [...] log-probability of that action.
        alpha: α in [0, 1].
        temperature: τ.
        floor: l₀, at most 0.

    Returns:
        [...], at most 0.

    Source:
        Equation 4 of the appendix (M-DQN's loss), section 4 for the clipping.
    """
    return alpha * (temperature * log_pi).clamp(floor, 0.0)
