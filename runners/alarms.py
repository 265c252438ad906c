"""The alarms of value health: what a measure must not do, what is likely behind it, what to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Alarm(NamedTuple):
    """Given once a seed, when a measure is out of bounds at ``patience`` evaluations in a row."""

    name: str
    measure: str  # of a line of health.jsonl
    panel: str  # the measure beside which health.png marks it
    bound: float
    patience: int
    cause: str
    remedies: tuple[tuple[str, str], ...]  # a hyperparameter and what to do with it
    below: bool = False  # out of bounds is at or below ``bound``; else at or above

    def out_of_bounds(self, measures: Mapping[str, float | None]) -> bool:
        """False too where the measure is not known."""
        value = measures.get(self.measure)
        if value is None:
            return False
        return value <= self.bound if self.below else value >= self.bound

    def line(self, seed: int, lane_steps: int, value: float, hyper: Any) -> str:
        """What the console says; an agent is told of what it has and has not switched on yet."""
        useful = [
            text
            for name, text in self.remedies
            if not name or getattr(hyper, name, True) is not True
        ]
        return (
            f"alarm: seed {seed} at lane step {lane_steps:,}: {self.name}: {self.measure} is "
            f"{value:.3g}; {self.cause}; try {', '.join(useful)}"
        )


SMALLER_STEPS = ("lr", "a smaller --lr")
LAYER_NORM = ("layer_norm", "--layer-norm")
DOUBLE = ("double", "--double")
SLOWER_TARGET = ("target_period", "a larger --target-period")

# Beside each bound: why. What shares are of is worked out in `runners.health`.
ALARMS: tuple[Alarm, ...] = (
    # more than 1 is beyond what backups come to, from any start; networks overshoot a little
    Alarm(
        "values run away",
        "value_share",
        "value",
        bound=2.0,
        patience=1,
        cause="bootstrapped values feed on themselves, beyond any return and any value at the start",
        remedies=(DOUBLE, SMALLER_STEPS, SLOWER_TARGET),
    ),
    # twice the return, where values are beyond a reward and beyond the untrained network's
    Alarm(
        "overestimation",
        "overestimation_share",
        "overestimation",
        bound=1.0,
        patience=3,
        cause="the maximum picks what is estimated too high, or terminations are not seen as such",
        remedies=(DOUBLE, SMALLER_STEPS, ("", "python -m envs.check on the environment")),
    ),
    # errors as wide as what rewards alone can do are the environment's own noise
    Alarm(
        "values do not follow",
        "td_share",
        "td_p50",
        bound=1.5,
        patience=3,
        cause="predictions stay as far from their targets as they are large",
        remedies=(
            SMALLER_STEPS,
            ("batch_size", "a larger --batch-size"),
            ("target_period", "another --target-period"),
        ),
    ),
    # three units of four are lost: what learns is a far smaller network than was asked for
    Alarm(
        "dead units",
        "dead_units",
        "dead_units",
        bound=0.75,
        patience=3,
        cause="most hidden units are above 0 at no state, where a ReLU passes no gradient: too large steps or inputs",
        remedies=(SMALLER_STEPS, LAYER_NORM),
    ),
    # one direction: states differ by a factor at most
    Alarm(
        "rank collapse",
        "effective_rank",
        "effective_rank",
        bound=1.0,
        patience=2,
        cause="the last hidden layer hardly tells states apart",
        remedies=(SMALLER_STEPS, LAYER_NORM, ("replay_ratio", "a smaller --replay-ratio")),
        below=True,
    ),
    # half is usual from one evaluation to the next, as actions are often worth the same
    Alarm(
        "churn",
        "churn",
        "churn",
        bound=0.9,
        patience=2,
        cause="the greedy policy turns over as a whole: too large steps, or actions that hardly differ",
        remedies=(SMALLER_STEPS, SLOWER_TARGET),
    ),
    # the networks are nearer to nothing than to each other
    Alarm(
        "stale target",
        "target_drift",
        "target_drift",
        bound=0.5,
        patience=2,
        cause="the target network stays far behind: updated too seldom, or the other one moves too fast",
        remedies=(
            ("target_period", "a smaller --target-period"),
            ("target_tau", "a larger --target-tau"),
            SMALLER_STEPS,
        ),
    ),
)
