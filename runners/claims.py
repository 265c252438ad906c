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
_FIVE, _TEN, _TWENTY, _THIRTY = (f"seeds 1000-{1000 + n - 1}, torch 2.13" for n in (5, 10, 20, 30))
_SAFE = "Sutton & Barto 2018, example 6.6: the safe path, farthest from the cliff"
_LAKE, _CLIFF, _POLE = "FrozenLake-v1", "CliffWalking-v1", "CartPole-v1"
_TAXI, _LAKE_8 = "Taxi-v4", "FrozenLake8x8-v1"

# Others' figures are of the last episodes of training, ε included, except those of trained agents.
_CLEANRL_DQN = "CleanRL's DQN, 500k steps, 3 seeds"
_ZOO = "rl-baselines3-zoo, one trained agent"
# Mean and deviation of ten seeds of SimbaV2's baselines on v4 at as many steps (github.com/DAVIAN-Robotics/SimbaV2,
# results/baseline at 86899c277c). Between the ends lies the mean of three more in 99 % of all cases:
# mean ± 3.2498 (t of 9 degrees of freedom) · deviation · √(1 / 3 + 1 / 10).
_SIMBA = "SimbaV2's baselines, v4, 10 seeds"


def _exact(env: str, value: float, source: str, *agents: str) -> tuple[Claim, ...]:
    """All of these agents end with a policy that dynamic programming gives."""
    return tuple(Claim(a, env, "policy_value", value, value, "exact", source) for a in agents)


def _tabular(agent: str, env: str, low: float, high: float, source: str = _TEN) -> Claim:
    """Of the exact value of the last policy."""
    return Claim(agent, env, "policy_value", low, high, "measured", source)


def _lake(agent: str, low: float, high: float, source: str = _TEN) -> Claim:
    """Not above the optimum, whatever was measured."""
    return _tabular(agent, _LAKE, low, min(high, 0.744191), source)


def _pole(agent: str, low: float, high: float, source: str = _TEN, published: str = "") -> Claim:
    """Of seeds that stop once they have solved CartPole; not above the largest return."""
    return Claim(
        agent, _POLE, "final_return", low, min(high, 500.0), "measured", source,
        until_solved=True, published=published,
    )  # fmt: skip


CLAIMS: tuple[Claim, ...] = (
    *_exact(_LAKE, 0.740165, _GREEDY, "q_learning", "dyna_q", "prioritized_sweeping"),
    _lake("sarsa", 0.7359, 0.743, _THIRTY),
    _lake("expected_sarsa", 0.7359, 0.743, _THIRTY),
    _lake("double_q", 0.7169, 0.7378),
    _lake("n_step_sarsa", 0.7269, 0.7414, _THIRTY),
    _lake("tree_backup", 0.6984, 0.7659, _THIRTY),
    _lake("q_sigma", 0.6874, 0.7686, _THIRTY),
    _lake("sarsa_lambda", 0.6814, 0.7751, _THIRTY),
    _lake("watkins_q", 0.7372, 0.7424, _THIRTY),
    _lake("peng_q", 0.7334, 0.7439, _THIRTY),
    _lake("dyna_q_plus", 0.5095, 0.8367),
    _lake("monte_carlo", 0.5503, 0.8124),
    _lake("r_max", 0.6473, 0.8031),
    _tabular("q_learning", _LAKE_8, 0.8796, 0.9004),
    _tabular("sarsa", _LAKE_8, 0.8836, 0.895),
    _tabular("expected_sarsa", _LAKE_8, 0.886, 0.8932),
    _tabular("double_q", _LAKE_8, 0.8398, 0.9088),
    _tabular("n_step_sarsa", _LAKE_8, 0.8297, 0.8716),
    _tabular("tree_backup", _LAKE_8, 0.8675, 0.8907),
    _tabular("q_sigma", _LAKE_8, 0.8646, 0.8926),
    _tabular("sarsa_lambda", _LAKE_8, 0.8406, 0.8966),
    _tabular("watkins_q", _LAKE_8, 0.8631, 0.8885),
    _tabular("peng_q", _LAKE_8, 0.8649, 0.8923),
    _tabular("r_max", _LAKE_8, 0.8159, 0.8997),
    _tabular("dyna_q", _LAKE_8, 0.8747, 0.9011),
    _tabular("dyna_q_plus", _LAKE_8, 0.8727, 0.8981),
    *_exact(
        _TAXI, 7.93, _OPTIMUM,
        "q_learning", "expected_sarsa", "double_q", "tree_backup", "q_sigma", "watkins_q", "dyna_q",
        "prioritized_sweeping", "r_max",
    ),
    _tabular("sarsa", _TAXI, 7.9183, 7.93, _THIRTY),
    _tabular("n_step_sarsa", _TAXI, 7.433, 7.711),
    _tabular("sarsa_lambda", _TAXI, 7.761, 7.93),
    _tabular("peng_q", _TAXI, 7.7403, 7.8983),
    _tabular("dyna_q_plus", _TAXI, 7.282, 7.93),
    *_exact(
        _CLIFF, -13.0, _OPTIMUM,
        "q_learning", "double_q", "watkins_q", "dyna_q", "dyna_q_plus", "prioritized_sweeping", "r_max",
    ),
    *(  # what all of seeds 1000-1009 come to, so without a spread to claim
        Claim(agent, _CLIFF, "policy_value", -17.0, -17.0, "published", _SAFE)
        for agent in ("sarsa", "expected_sarsa", "tree_backup", "q_sigma", "sarsa_lambda", "peng_q")
    ),
    _tabular("n_step_sarsa", _CLIFF, -18.9011, -15.8989),
    Claim("ucb_hoeffding", "RiverSwim-v0", "final_return", 3749.2181, 8615.6519, "measured", _TEN),
    Claim("linear_q", _POLE, "final_return", 496.4233, 500.0, "measured", _TWENTY),
    Claim("linear_q", "MountainCar-v0", "final_return", -112.0341, -98.7159, "measured", _TEN),
    _pole("dqn", 484.1892, 507.6288, published=f"488.7, {_CLEANRL_DQN}"),
    _pole("double_dqn", 484.1892, 507.6288),
    _pole("dueling_dqn", 482.8191, 509.4249),
    _pole("munchausen_dqn", 487.0395, 504.5425),
    _pole("c51", 480.0413, 508.4007),
    _pole("qrdqn", 492.4948, 503.3032, published=f"500, 50k steps, {_ZOO}"),
    _pole("iqn", 477.0396, 513.4524, _FIVE),
    _pole("rainbow", 485.7874, 507.1126),
    _pole("bootstrapped_dqn", 484.4375, 505.6085),
    _pole("rnd", 188.5344, 650.3816),
    _pole("stream_q", 498.8797, 500.7823),
    _pole("pqn", 496.9507, 502.1293, published="495.1, CleanRL's PQN, 500k steps, 3 seeds"),
    Claim(
        "dqn", "Acrobot-v1", "final_return", -97.8521, -81.7139, "measured", _TEN, until_solved=True,
        published=f"-91.5, {_CLEANRL_DQN}; -76.6, 100k steps, {_ZOO}",
    ),
    Claim(
        "pqn", "Acrobot-v1", "final_return", -95.8394, -78.1686, "measured", _TEN,
        published="-95.6, CleanRL's PQN, 500k steps, 3 seeds",
    ),
    Claim(
        "dqn", "MountainCar-v0", "final_return", -109.4982, -100.1698, "measured", _TEN,
        until_solved=True, published=f"-195, {_CLEANRL_DQN}; -100.8, 120k steps, {_ZOO}",
    ),
    Claim(
        "dqn", "LunarLander-v3", "final_return", 58.4349, 352.3349, "measured", _FIVE,
        published="195.2, SLM Lab's DQN, 300k steps, 4 seeds",
    ),
    Claim(
        "pqn", "MinAtar/Breakout", "final_return", 5.8708, 19.7572, "measured", _FIVE,
        published="10, Young & Tian's DQN, 5M steps, 30 seeds, read off a figure",
    ),
    Claim(  # points are never taken away, so not below 0
        "pqn", "MinAtar/Asterix", "final_return", 0.0, 30.7919, "measured", _FIVE,
        published="17, Young & Tian's DQN, 5M steps, 30 seeds, read off a figure",
    ),
    Claim(
        "pqn", "MinAtar/SpaceInvaders", "final_return", 66.7899, 182.7381, "measured", _FIVE,
        published="44, Young & Tian's DQN, 5M steps, 30 seeds, read off a figure",
    ),
    Claim(  # ends below 0 are ends at 0, as Asterix's
        "pqn", "MinAtar/Seaquest", "final_return", 0.0, 7.6065, "measured", _FIVE,
        published="20, Young & Tian's DQN, 5M steps, 30 seeds, off a figure, MinAtar <= 1.0.10",
    ),
    Claim(
        "pqn", "MinAtar/Freeway", "final_return", 58.4475, 62.2125, "measured", _TEN,
        published="50.2, Young & Tian's DQN, 5M steps, 30 seeds, read off a figure",
    ),
    Claim(
        "sac", "HalfCheetah-v5", "final_return", 4659.2, 7653.4, "published", _SIMBA,
        seeds=3, published="6156 ± 700, v4",
    ),
    Claim(
        "sac", "Hopper-v5", "final_return", 316.5, 1890.3, "published", _SIMBA,
        seeds=3, published="1103 ± 368, v4",
    ),
    Claim(  # of critics 2,048 wide; the lab's are 256
        "crossq", "HalfCheetah-v5", "final_return", 6196.7, 10028.1, "published", _SIMBA,
        seeds=3, published="8112 ± 896, v4, critics 2,048 wide",
    ),
    Claim(
        "crossq", "Hopper-v5", "final_return", 1093.6, 4435.2, "published", _SIMBA,
        seeds=3, published="2764 ± 781, v4, critics 2,048 wide",
    ),
    Claim("td3", "Pendulum-v1", "final_return", -161.998, -135.6653, "measured", _THIRTY),
    Claim("ddpg", "Pendulum-v1", "final_return", -160.3107, -134.3509, "measured", _TEN),
    *_exact("DeepSea-v0", 0.99, _OPTIMUM, "rnd"),
    Claim("bootstrapped_dqn", "DeepSea-v0", "final_return", 0.99, 0.99, "exact", _OPTIMUM),
    Claim("r2d2", "popgym-RepeatPreviousEasy-v0", "final_return", 0.912, 1.0, "measured", _FIVE),
    Claim("pqn", "popgym-RepeatPreviousEasy-v0", "final_return", 0.9922, 1.0, "measured", _TEN),
    Claim("dqn", "TMaze-v0", "final_return", 3.9184, 4.0, "measured", _TEN),
    Claim("r2d2", "TMaze-v0", "final_return", 3.9055, 4.0, "measured", _TEN),
)  # fmt: skip
