"""What acting at random gets and what a reference gets, so that scores of several environments can be averaged.

Each row has a public source that anybody can look up; random play that nobody has published is measured
by ``python -m runners.simulate ID --episodes 1000``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SEEN = "lowest and highest score seen"


class Scale(NamedTuple):
    """What is 0 and what is 1, in returns."""

    zero: float
    one: float
    source: str  # of both

    def normalise(self, returns: Floats) -> Floats:
        """Returns on this scale; below 0 is worse than random, above 1 better than the reference."""
        return (np.asarray(returns, np.float64) - self.zero) / (self.one - self.zero)


def of(env: str) -> Scale | None:
    """The scale of an environment, or None where no reference is known."""
    family, _, rest = env.partition("/")
    game = rest.partition("-")[0]
    if family == "ALE" and game in ATARI:
        return Scale(*ATARI[game], f"random and human play, {ZOO}")
    return SCALES.get(env)


def seen(scores: Sequence[Floats]) -> Scale:
    """From the lowest to the highest of these; of scores that are all the same 1 is one above."""
    low, high = (
        float(end) for end in (np.min(np.concatenate(scores)), np.max(np.concatenate(scores)))
    )
    return Scale(low, high if high > low else low + 1.0, SEEN)


ZOO = "google-deepmind/dqn_zoo, dqn_zoo/atari_data.py at 45061f4bbb"
GYM = "random play: 1,000 episodes measured; 1: Gymnasium's reward_threshold"
YOUNG = (
    "random play: 1,000 episodes measured; 1: DQN after 5M steps, 30 seeds, Young & Tian 2019, "
    "arXiv:1903.03176, read off a figure, kenjyoung/MinAtar, img/learning_curves.gif at 4241f24685"
)

SIMBA = (
    "random play: 1,000 episodes measured; 1: SAC after 1M steps on the v4 task, 10 seeds, "
    "DAVIAN-Robotics/SimbaV2, results/baseline/sac.csv at 86899c277c"
)

SCALES: Mapping[str, Scale] = {
    "CartPole-v1": Scale(22.12, 475.0, GYM),
    "Acrobot-v1": Scale(-498.8, -100.0, GYM),
    "MountainCar-v0": Scale(-200.0, -110.0, GYM),
    "LunarLander-v3": Scale(-183.6, 200.0, GYM),
    "FrozenLake-v1": Scale(0.014, 0.7, GYM),
    "FrozenLake8x8-v1": Scale(0.0, 0.85, GYM),
    "Taxi-v4": Scale(
        -770.1,
        7.93,
        "random play: 1,000 episodes measured; 1: exact optimum, by dynamic programming",
    ),
    "MinAtar/Breakout": Scale(0.382, 10.0, YOUNG),
    "MinAtar/Asterix": Scale(0.524, 17.0, YOUNG),
    "MinAtar/Freeway": Scale(0.383, 50.2, YOUNG),
    "MinAtar/SpaceInvaders": Scale(4.034, 44.0, YOUNG),
    "MinAtar/Seaquest": Scale(0.105, 20.0, f"{YOUNG}, of MinAtar 1.0.10 or older"),
    "HalfCheetah-v5": Scale(-287.3, 11320.9, SIMBA),
    "Hopper-v5": Scale(18.45, 2787.1, SIMBA),
    "Walker2d-v5": Scale(1.957, 4536.5, SIMBA),
    "Ant-v5": Scale(-56.22, 5733.8, SIMBA),
    "Humanoid-v5": Scale(112.9, 4825.5, SIMBA),
}

# fmt: off
ATARI: Mapping[str, tuple[float, float]] = {
    "Alien": (227.8, 7127.7), "Amidar": (5.8, 1719.5), "Assault": (222.4, 742),
    "Asterix": (210, 8503.3), "Asteroids": (719.1, 47388.7), "Atlantis": (12850, 29028.1),
    "BankHeist": (14.2, 753.1), "BattleZone": (2360, 37187.5), "BeamRider": (363.9, 16926.5),
    "Berzerk": (123.7, 2630.4), "Bowling": (23.1, 160.7), "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5), "Centipede": (2090.9, 12017), "ChopperCommand": (811, 7387.8),
    "CrazyClimber": (10780.5, 35829.4), "Defender": (2874.5, 18688.9),
    "DemonAttack": (152.1, 1971), "DoubleDunk": (-18.6, -16.4), "Enduro": (0, 860.5),
    "FishingDerby": (-91.7, -38.7), "Freeway": (0, 29.6), "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5), "Gravitar": (173, 3351.4), "Hero": (1027, 30826.4),
    "IceHockey": (-11.2, 0.9), "Jamesbond": (29, 302.8), "Kangaroo": (52, 3035),
    "Krull": (1598, 2665.5), "KungFuMaster": (258.5, 22736.3), "MontezumaRevenge": (0, 4753.3),
    "MsPacman": (307.3, 6951.6), "NameThisGame": (2292.3, 8049), "Phoenix": (761.4, 7242.6),
    "Pitfall": (-229.4, 6463.7), "Pong": (-20.7, 14.6), "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455), "Riverraid": (1338.5, 17118), "RoadRunner": (11.5, 7845),
    "Robotank": (2.2, 11.9), "Seaquest": (68.4, 42054.7), "Skiing": (-17098.1, -4336.9),
    "Solaris": (1236.3, 12326.7), "SpaceInvaders": (148, 1668.7), "StarGunner": (664, 10250),
    "Surround": (-10, 6.5), "Tennis": (-23.8, -8.3), "TimePilot": (3568, 5229.2),
    "Tutankham": (11.4, 167.6), "UpNDown": (533.4, 11693.2), "Venture": (0, 1187.5),
    "VideoPinball": (16256.9, 17667.9), "WizardOfWor": (563.5, 4756.5),
    "YarsRevenge": (3092.9, 54576.9), "Zaxxon": (32.5, 9173.3),
}
"""Mean returns of random and of human play: 30 no-op starts, 108,000 frames at most."""
# fmt: on
