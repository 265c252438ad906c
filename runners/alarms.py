"""The alarms of value health: what a measure must not do, what is likely behind it, what to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Alarm(NamedTuple):
    """Given once a seed, when a measure is out of bounds at ``patience`` evaluations in a row."""

    name: str
    measure: str  # of a line of health.jsonl
    panel: str  # the measure beside which health.png marks it
    bound: float
    patience: int
    cause: str
    remedy: str
    below: bool = False  # out of bounds is at or below ``bound``; else at or above

    def out_of_bounds(self, measures: Mapping[str, float | None]) -> bool:
        """False too where the measure is not known."""
        value = measures.get(self.measure)
        if value is None:
            return False
        return value <= self.bound if self.below else value >= self.bound

    def line(self, seed: int, lane_steps: int, value: float) -> str:
        """What the console says."""
        return (
            f"alarm: seed {seed} at lane step {lane_steps:,}: {self.name}: {self.measure} is "
            f"{value:.3g}; {self.cause}; try {self.remedy}"
        )


# Bounds and what they mean. CartPole's dqn, healthy, stays at 1.2, 0.4, 0.8, 0.4, 11, 0.75 and 0.05.
ALARMS: tuple[Alarm, ...] = (
    # more than 1 is beyond every return there can be; networks overshoot a little
    Alarm(
        "values run away", "value_share", "value", 2.0, 1,
        "bootstrapped values feed on themselves, beyond any return there can be",
        "--double, a smaller --lr, a larger --target-period",
    ),
    # twice the return, where that is not next to nothing
    Alarm(
        "overestimation", "overestimation_share", "overestimation", 1.0, 3,
        "the maximum picks what is estimated too high, or terminations are not seen as such",
        "--double, a smaller --lr, python -m envs.check on the environment",
    ),
    # a spread as wide as the largest reward can be the environment's own noise
    Alarm(
        "values do not follow", "td_share", "td_p50", 1.5, 3,
        "predictions stay as far from their targets as they are large",
        "a smaller --lr, a larger --batch-size, fresher targets",
    ),
    # Sokar et al. 2023 have a few percent to a half
    Alarm(
        "dead units", "dead_units", "dead_units", 0.75, 3,
        "most hidden units are 0 at every state, and get no gradient: too large steps or inputs",
        "a smaller --lr, --layer-norm",
    ),
    # one direction: states differ by a factor at most
    Alarm(
        "rank collapse", "effective_rank", "effective_rank", 1.0, 2,
        "the last hidden layer hardly tells states apart",
        "a smaller --lr, --layer-norm, fewer updates a step",
        below=True,
    ),
    # half is usual from one evaluation to the next, as actions are often worth the same
    Alarm(
        "churn", "churn", "churn", 0.9, 2,
        "the greedy policy turns over as a whole: too large steps, or actions that hardly differ",
        "a smaller --lr, a larger --target-period",
    ),
    # the networks are nearer to nothing than to each other
    Alarm(
        "stale target", "target_drift", "target_drift", 0.5, 2,
        "the target network has stayed far behind",
        "a smaller --target-period, a larger --target-tau",
    ),
)  # fmt: skip
