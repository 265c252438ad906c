"""How sound a value function is: plain measures of values, features and actions at a few states.

Pure functions of arrays. Where nothing can be said (no state, no second action) they give NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from agents.contract import Array


def monte_carlo(reward: Array, discount: Array, tail: float) -> Array:
    """Returns of one episode's steps: ``G_t = r_t + γ_t G_{t+1}``, behind the last one ``tail``.

    Args:
        reward: [T] as the learner sees it.
        discount: [T] γ, 0 where the episode ended there by the task itself.
        tail: what is expected behind the last step; without weight where the last discount is 0.

    Returns:
        [T] float64.

    Source:
        Sutton & Barto 2018, equation 3.9.
    """
    returns = np.empty(len(reward))
    g = tail
    for t in range(len(reward) - 1, -1, -1):
        g = reward[t] + discount[t] * g
        returns[t] = g
    return returns


def greedy_value(values: Array, legal: Array | None = None) -> tuple[Array, Array]:
    """The best legal action [n], ties to the lowest index, and its value [n], of values [n, A].

    Of a single value, that of the policy's own action, nobody can tell which action it is: all are NaN.
    """
    seen = values if legal is None else np.where(legal, values, -np.inf)
    best = seen.argmax(-1) if seen.shape[-1] > 1 else np.full(len(seen), np.nan)
    return best, seen.max(-1)


def action_gap(values: Array, legal: Array | None = None) -> float:
    """Mean distance of the best action's value from the second best's.

    Args:
        values: [n, A].
        legal: [n, A] bool; None: all. States with a single legal action do not count.

    Source:
        Bellemare et al. 2016, arXiv:1512.04860, section 3.
    """
    if not values.size or values.shape[-1] < 2:
        return np.nan
    seen = values if legal is None else np.where(legal, values, -np.inf)
    best = np.sort(seen, axis=-1)[:, -2:]
    chosen = np.isfinite(best[:, 0])
    return float((best[chosen, 1] - best[chosen, 0]).mean()) if chosen.any() else np.nan


def churn(before: Array, after: Array) -> float:
    """Share of states whose greedy action is another now; both [n].

    Source:
        Schaul et al. 2022, "The Phenomenon of Policy Churn", arXiv:2206.00730, section 2.
    """
    told = len(after) and not np.isnan(after).any()
    return float((before != after).mean()) if told else np.nan


def dead_units(layers: Sequence[Array]) -> float:
    """Share of the units that are above 0 at none of the given states: there a ReLU passes no gradient.

    Args:
        layers: each [n, units, ...] outputs of ReLUs, or of LeakyReLUs; a feature map is one unit, whatever its places.

    Source:
        Sokar et al. 2023, arXiv:2302.12902, definition 3.1 with τ = 0.
    """
    dead = [~(x.reshape(*x.shape[:2], -1) > 0).any(axis=(0, 2)) for x in layers if len(x)]
    return float(np.concatenate(dead).mean()) if dead else np.nan


def effective_rank(features: Array, delta: float = 0.01) -> int:
    """The fewest singular values that make up 1 - δ of the sum of all; 0 where all are 0.

    Args:
        features: [n, d] of the last hidden layer.
        delta: δ.

    Source:
        Kumar et al. 2021, arXiv:2010.14498, section 3, srank_δ with their δ.
    """
    # torch's, for NumPy's takes threads of its own, which on a busy machine are 60 times slower
    singular = torch.linalg.svdvals(torch.from_numpy(features).double()).numpy()
    total = singular.sum()
    if not total > 0:
        return 0
    return int(np.argmax(np.cumsum(singular) >= (1.0 - delta) * total)) + 1
