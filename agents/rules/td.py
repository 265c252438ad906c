"""One-step temporal-difference targets for action values.

Names are those of the books: ``q_tm1`` and ``a_tm1`` before the step, ``r_t``, ``discount_t`` and
``q_t`` after it. The last axis of ``q`` is the actions'; any axes may lead. Targets carry no
gradient. ``discount_t`` is γ, or 0 where the episode terminated: the rules see no done flag.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def select(q: Tensor, a: Tensor) -> Tensor:
    """The values of the actions taken, ``Q(s, a)``.

    Args:
        q: [..., A] action values.
        a: [...] int64 actions.

    Returns:
        [...] the chosen entries.
    """
    return q.gather(-1, a.unsqueeze(-1)).squeeze(-1)


def legal(q: Tensor, mask: Tensor | None) -> Tensor:
    """The values of legal actions; those of others are so low that no maximum takes them.

    They stay finite: where an episode has ended no action may be legal, and 0 · ∞ is not a number.

    Args:
        q: [..., A] action values.
        mask: [..., A] bool, true where the action is legal; None where all are.

    Returns:
        [..., A] values.
    """
    return q if mask is None else q.masked_fill(~mask, torch.finfo(q.dtype).min)


def q_learning_target(r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """The greedy one-step return, ``rₜ + γₜ maxₐ Q(sₜ, a)``.

    Args:
        r_t: [...] reward of the step (or sum over an n-step window).
        discount_t: [...] γ (or γⁿ), 0 after a termination.
        q_t: [..., A] values of the successor; the target network's in DQN.

    Returns:
        [...] target, without gradient.

    Source:
        Watkins 1989; Mnih et al. 2015, Algorithm 1.
    """
    return (r_t + discount_t * q_t.amax(-1)).detach()


def double_q_learning_target(
    r_t: Tensor, discount_t: Tensor, q_t_value: Tensor, q_t_selector: Tensor
) -> Tensor:
    """One network chooses, the other values: ``rₜ + γₜ Q_value(sₜ, argmaxₐ Q_selector(sₜ, a))``.

    Args:
        r_t: [...] reward.
        discount_t: [...] γ, 0 after a termination.
        q_t_value: [..., A] the target network's values of the successor.
        q_t_selector: [..., A] the online network's values of the successor.

    Returns:
        [...] target, without gradient.

    Source:
        van Hasselt, Guez & Silver 2016, arXiv:1509.06461, equation 4.
    """
    return (r_t + discount_t * select(q_t_value, q_t_selector.argmax(-1))).detach()


def huber(prediction: Tensor, target: Tensor, delta: float) -> Tensor:
    """Quadratic within ``delta`` of the target, linear beyond, so one outlier moves little.

    Args:
        prediction: [...] with gradient.
        target: [...] regressed to.
        delta: where the slope stops growing.

    Returns:
        [...] ``½e²`` for ``|e| ≤ δ``, else ``δ(|e| - ½δ)``, with ``e = target - prediction``.

    Source:
        Huber 1964; Mnih et al. 2015 clip the error to [-1, 1], which is δ = 1.
    """
    return functional.huber_loss(prediction, target, reduction="none", delta=delta)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, ``½(target - prediction)²``: Huber's loss that never turns linear.

    One operation and its gradient, where a square and a factor are two; shape as given.
    """
    return huber(prediction, target, math.inf)
