"""How actions are chosen from values, and the schedules that decide how often at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.contract import Array


def linear(lane_steps: float, start: float, end: float, steps: float) -> float:
    """From ``start`` at lane step 0 to ``end`` at ``steps``, constant after it (0: at once)."""
    if lane_steps >= steps:
        return end
    return start + (end - start) * (lane_steps / steps)


def ladder(epsilon: float, alpha: float, lanes: int) -> Array:
    """``ε^(1 + α i / (N - 1))`` of lanes i = 0..N-1: some explore much, some hardly.

    Source: Horgan et al. 2018, arXiv:1803.00933, section 4.1, which takes ε = 0.4 and α = 7.
    """
    powers = 1.0 + alpha * np.arange(lanes) / max(1, lanes - 1)
    shares: Array = np.power(epsilon, powers)
    return shares


def greedy(values: Array, mask: Array | None = None) -> Array:
    """The best action [K, n] of values [K, n, A], a legal one; ties to the lowest index."""
    legal = values if mask is None else np.where(mask, values, -np.inf)
    best: Array = legal.argmax(-1)
    return best


def epsilon_greedy(
    values: Array,
    epsilon: float | Array,
    generators: Sequence[np.random.Generator],
    mask: Array | None = None,
) -> Array:
    """With probability ε a uniform action, else the best; ties to the lowest index.

    Args:
        values: [K, n, A] action values.
        epsilon: probability of a uniform action, the greedy one included; one, or [n] one a lane.
        mask: [K, n, A] bool or 0/1, the legal actions; None where all are.
        generators: one a seed; each gives 2n numbers a call, whatever ε is.

    Returns:
        [K, n] int64 actions.
    """
    actions = greedy(values, mask)
    seeds, lanes, num_actions = values.shape
    for k in range(seeds):
        draw = generators[k].random((2, lanes))
        at_random = draw[0] < epsilon
        if at_random.any():
            if mask is None:
                drawn = (draw[1] * num_actions).astype(np.int64)
            else:
                drawn = _legal_action(mask[k], draw[1])
            np.copyto(actions[k], drawn, where=at_random)
    return actions


def _legal_action(mask: Array, draw: Array) -> Array:
    """The legal action [n] that ``draw`` [n] in [0, 1) falls on; 0 where none is legal."""
    count = np.cumsum(mask != 0, axis=-1)
    wanted = (draw * count[:, -1]).astype(np.int64) + 1
    drawn: Array = (count == wanted[:, None]).argmax(-1)
    return drawn
