"""What the agents of the lab are claimed to reach, each with its source; `runners.reproduce` checks it.

A line is added for

* ``exact``: an optimum that dynamic programming gives; low and high are the same;
* ``measured``: what ``python -m runners.reproduce AGENT --env ID --measure`` printed, on seeds that
  take no part in the verdict; where most seeds end at the best there is, many are needed to see one
  that does not (``--seeds 30``), and where all do nothing can be claimed;
* ``published``: a figure with a public source, of the same environment, steps, and way to evaluate.

The steps and all other settings are the preset's; where seeds stop once they have solved the environment, a
claim says so. The verdict is on the mean over the seeds 0, 1, ...
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Metric = Literal["final_return", "policy_value"]
ROUNDING = 1e-6  # claims are written in decimals


class Claim(NamedTuple):
    """Between which ends an agent's score lies."""

    agent: str
    env: str
    metric: Metric  # of the last weights: 100 greedy episodes, or on finite MDPs the exact value
    low: float
    high: float
    kind: Literal["exact", "measured", "published"]
    source: str
    seeds: int = 5  # over which the score is the mean
    until_solved: bool = False  # each seed stops there, or at the preset's steps
    published: str = ""  # what others report there, in words: budgets and ways to evaluate differ

    @property
    def changes(self) -> dict[str, bool]:
        """Settings that are not the preset's."""
        return {"until_solved": True} if self.until_solved else {}

    def holds(self, score: float) -> bool:
        """Whether a score lies inside; NaN never does."""
        return self.low - ROUNDING <= score <= self.high + ROUNDING


_GREEDY = "dynamic programming: the policy of Q* at gamma 0.99 under the time limit"
_OPTIMUM = "dynamic programming: the optimum"
_SEEDS = "seeds 1000-1009, torch 2.13"

CLAIMS: tuple[Claim, ...] = (
    Claim("q_learning", "FrozenLake-v1", "policy_value", 0.740165, 0.740165, "exact", _GREEDY),
    Claim("q_learning", "Taxi-v4", "policy_value", 7.93, 7.93, "exact", _OPTIMUM),
    Claim("q_learning", "CliffWalking-v1", "policy_value", -13.0, -13.0, "exact", _OPTIMUM),
    Claim("r_max", "Taxi-v4", "policy_value", 7.93, 7.93, "exact", _OPTIMUM),
    Claim("r_max", "CliffWalking-v1", "policy_value", -13.0, -13.0, "exact", _OPTIMUM),
    Claim("q_learning", "FrozenLake8x8-v1", "policy_value", 0.8567, 0.8721, "measured", _SEEDS),
    Claim("double_q", "FrozenLake-v1", "policy_value", 0.7201, 0.7347, "measured", _SEEDS),
)
