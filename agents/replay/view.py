"""The learner's view of a simulator's raw facts: the one place where gamma meets a reward.

Written for plain numbers and arrays alike, so that learners without replay call it on whole
rollouts and the replay's kernel on single rows.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from agents.contract import Array, Rollout


def terminations(rollout: Rollout, end_on_life_loss: bool) -> Array:
    """[T, N] bool: rows after which nothing is to be expected, lost lives among them on request.

    ``first`` does not follow a lost life: stacks and recurrent states go on.
    """
    ended = rollout.terminated
    return ended | rollout.step_facts["life_loss"] if end_on_life_loss else ended


def reward_and_discount(
    reward: Any, terminated: Any, gamma: float, scale: float, clip: float
) -> tuple[Any, Any]:
    """The reward that a rule sees, scaled and then clipped, and the discount of what follows.

    Args:
        reward: raw reward, a number or an array.
        terminated: whether the episode ended there by the task itself; truncation does not count.
        gamma: discount per step.
        scale: factor on the reward.
        clip: bound on its magnitude after scaling; infinity for none.

    Returns:
        ``(clip(scale · r), γ (1 - terminated))``, shaped as given.
    """
    seen = np.minimum(np.maximum(reward * scale, -clip), clip)
    return seen, gamma * (1.0 - terminated)


class LambdaView(Protocol):
    """How a learner of λ-returns sees rewards."""

    @property
    def gamma(self) -> float: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def reward_scale(self) -> float: ...
    @property
    def reward_clip(self) -> float: ...
    @property
    def end_on_life_loss(self) -> bool: ...


def lambda_view(rollout: Rollout, hyper: LambdaView) -> dict[str, Array]:
    """What λ-returns are made of: "reward", "discount" and "trace", λ or 0, [T, N] float32 each."""
    ended = terminations(rollout, hyper.end_on_life_loss)
    reward, discount = reward_and_discount(
        rollout.reward, ended, hyper.gamma, hyper.reward_scale, hyper.reward_clip or math.inf
    )
    trace = hyper.lambda_ * (1.0 - (ended | rollout.truncated))  # an end of either kind cuts it
    parts = {"reward": reward, "discount": discount, "trace": trace}
    return {name: np.asarray(part, np.float32) for name, part in parts.items()}
