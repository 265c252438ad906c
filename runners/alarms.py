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


ALARMS: tuple[Alarm, ...] = ()
