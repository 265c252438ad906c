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
_TEN = "seeds 1000-1009, torch 2.13"
_FIVE = "seeds 1000-1004, torch 2.13"
_LAKE, _CLIFF, _POLE = "FrozenLake-v1", "CliffWalking-v1", "CartPole-v1"

# Others' figures are of the last episodes of training, ε included, except those of trained agents.
_CLEANRL_DQN = "CleanRL's DQN, 500k steps, 3 seeds"
_ZOO = "rl-baselines3-zoo, one trained agent"


def _exact(env: str, value: float, source: str, *agents: str) -> tuple[Claim, ...]:
    """All of these agents end with a policy that dynamic programming gives."""
    return tuple(Claim(a, env, "policy_value", value, value, "exact", source) for a in agents)


def _pole(agent: str, low: float, high: float, source: str = _TEN, published: str = "") -> Claim:
    """Seeds that solve CartPole and stop there; what is measured is cut off at the largest return."""
    return Claim(
        agent, _POLE, "final_return", low, min(high, 500.0), "measured", source,
        until_solved=True, published=published,
    )  # fmt: skip


CLAIMS: tuple[Claim, ...] = (
    *_exact(
        _LAKE, 0.740165, _GREEDY,
        "q_learning", "sarsa", "expected_sarsa", "watkins_q", "dyna_q", "prioritized_sweeping",
    ),
    Claim("double_q", _LAKE, "policy_value", 0.7201, 0.7347, "measured", _TEN),
    Claim("n_step_sarsa", _LAKE, "policy_value", 0.7308, 0.7433, "measured", _TEN),
    Claim("tree_backup", _LAKE, "policy_value", 0.6693, 0.7763, "measured", _TEN),
    Claim("q_sigma", _LAKE, "policy_value", 0.7302, 0.7435, "measured", _TEN),
    Claim("sarsa_lambda", _LAKE, "policy_value", 0.7308, 0.7433, "measured", _TEN),
    Claim("peng_q", _LAKE, "policy_value", 0.732, 0.7439, "measured", _TEN),
    Claim("dyna_q_plus", _LAKE, "policy_value", 0.5592, 0.787, "measured", _TEN),
    Claim("monte_carlo", _LAKE, "policy_value", 0.5901, 0.7726, "measured", _TEN),
    Claim("r_max", _LAKE, "policy_value", 0.671, 0.7795, "measured", _TEN),
    Claim("q_learning", "FrozenLake8x8-v1", "policy_value", 0.8827, 0.8972, "measured", _TEN),
    *_exact(
        "Taxi-v4", 7.93, _OPTIMUM,
        "q_learning", "sarsa", "expected_sarsa", "double_q", "tree_backup", "q_sigma", "watkins_q",
        "r_max",
    ),
    *_exact(
        _CLIFF, -13.0, _OPTIMUM,
        "q_learning", "double_q", "watkins_q", "dyna_q", "dyna_q_plus", "prioritized_sweeping", "r_max",
    ),
    Claim("ucb_hoeffding", "RiverSwim-v0", "final_return", 4488.7127, 7876.1573, "measured", _TEN),
    Claim("linear_q", _POLE, "final_return", 497.1749, 500.0, "measured", "seeds 1000-1019, torch 2.13"),
    Claim("linear_q", "MountainCar-v0", "final_return", -110.0103, -100.7397, "measured", _TEN),
    _pole("dqn", 487.751, 504.067, published=f"488.7, {_CLEANRL_DQN}"),
    _pole("double_dqn", 487.751, 504.067),
    _pole("dueling_dqn", 486.8621, 505.3819),
    _pole("munchausen_dqn", 489.6992, 501.8828),
    _pole("c51", 484.3507, 504.0913),
    _pole("qrdqn", 494.1372, 501.6608, published=f"500, 50k steps, {_ZOO}"),
    _pole("rainbow", 489.0279, 503.8721),
    _pole("stream_q", 499.1688, 500.4932),
    _pole("pqn", 497.7376, 501.3424, published="495.1, CleanRL's PQN, 500k steps, 3 seeds"),
    Claim(
        "dqn", "Acrobot-v1", "final_return", -95.3998, -84.1662, "measured", _TEN, until_solved=True,
        published=f"-91.5, {_CLEANRL_DQN}; -76.6, 100k steps, {_ZOO}",
    ),
    Claim(
        "pqn", "Acrobot-v1", "final_return", -93.1542, -80.8538, "measured", _TEN,
        published="-95.6, CleanRL's PQN, 500k steps, 3 seeds",
    ),
    Claim(
        "dqn", "MountainCar-v0", "final_return", -108.0807, -101.5873, "measured", _TEN,
        until_solved=True, published=f"-195, {_CLEANRL_DQN}; -100.8, 120k steps, {_ZOO}",
    ),
    Claim(
        "dqn", "LunarLander-v3", "final_return", 116.7685, 294.0014, "measured", _FIVE,
        published="195.2, SLM Lab's DQN, 300k steps, 4 seeds",
    ),
    *_exact("DeepSea-v0", 0.99, _OPTIMUM, "rnd"),
    Claim("bootstrapped_dqn", "DeepSea-v0", "final_return", 0.99, 0.99, "exact", _OPTIMUM),
    Claim("r2d2", "popgym-RepeatPreviousEasy-v0", "final_return", 0.9411, 1.0, "measured", _FIVE),
)  # fmt: skip
