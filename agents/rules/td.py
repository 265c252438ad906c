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
        q: [..., A] action values; or [..., A, Z], a distribution for each action.
        a: [...] int64 actions.

    Returns:
        [...] the chosen entries, or [..., Z] the chosen distributions.
    """
    if q.dim() == a.dim() + 1:
        return q.gather(-1, a.unsqueeze(-1)).squeeze(-1)
    index = a[..., None, None].expand(*a.shape, 1, q.shape[-1])
    return q.gather(-2, index).squeeze(-2)


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


def greedy_action(q_t: Tensor, mask: Tensor | None = None) -> Tensor:
    """``argmaxₐ Q(sₜ, a)`` over legal actions, ties to the lowest.

    By the target network's values this is Q-learning's choice (Watkins 1989; Mnih et al. 2015,
    Algorithm 1), by the online network's that of Double DQN (van Hasselt, Guez & Silver 2016,
    arXiv:1509.06461, equation 4); the target network values it in both.

    Args:
        q_t: [..., A] values of the successor.
        mask: [..., A] bool; None where all are legal.

    Returns:
        [...] int64 actions.
    """
    return legal(q_t, mask).argmax(-1)


def bootstrap(r_t: Tensor, discount_t: Tensor, v_t: Tensor) -> Tensor:
    """The one-step return ``rₜ + γₜ v(sₜ)``.

    Args:
        r_t: [...] reward of the step (or sum over an n-step window).
        discount_t: [...] γ (or γⁿ), 0 after a termination.
        v_t: [...] value of the successor: ``maxₐ Q(sₜ, a)`` in Q-learning.

    Returns:
        [...] target, without gradient.

    Source:
        Watkins 1989; Sutton & Barto 2018, equation 6.8.
    """
    return (r_t + discount_t * v_t).detach()


def squash(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """``h(x) = sign(x)(√(|x| + 1) - 1) + εx``: large values come closer, small ones stay.

    Args:
        x: [...] values in reward units.
        epsilon: slope that is left far out, so that h has an inverse.

    Returns:
        [...].

    Source:
        Pohlen et al. 2018, arXiv:1805.11593, Proposition A.2; Kapturowski et al. 2019 (R2D2), section 2.3.
    """
    return torch.sign(x) * (torch.sqrt(x.abs() + 1.0) - 1.0) + epsilon * x


def unsquash(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """``h⁻¹(x)``, by the closed form; shape as given.

    ``(√(1 + 4ε(|x| + 1 + ε)) - 1) / 2ε`` is written as ``2(|x| + 1 + ε) / (1 + √...)``: the difference of two
    numbers next to 1 would leave nothing of a small x in float32.

    Source:
        Pohlen et al. 2018, arXiv:1805.11593, Proposition A.2.
    """
    shifted = x.abs() + (1.0 + epsilon)
    root = 2.0 * shifted / (1.0 + torch.sqrt(1.0 + 4.0 * epsilon * shifted))
    return torch.sign(x) * (root.square() - 1.0)


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
