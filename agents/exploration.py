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


def epsilon_greedy(
    values: Array, epsilon: float, generators: Sequence[np.random.Generator]
) -> Array:
    """With probability ε a uniform action, else the best; ties to the lowest index.

    Args:
        values: [K, n, A] action values.
        epsilon: probability of a uniform action, the greedy one included.
        generators: one a seed; each gives 2n numbers a call, whatever ε is.

    Returns:
        [K, n] int64 actions.
    """
    actions: Array = values.argmax(-1)
    seeds, lanes, num_actions = values.shape
    for k in range(seeds):
        draw = generators[k].random((2, lanes))
        at_random = draw[0] < epsilon
        if at_random.any():
            np.copyto(actions[k], (draw[1] * num_actions).astype(np.int64), where=at_random)
    return actions
