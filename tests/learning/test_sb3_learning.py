"""Stable-Baselines3's agents learn here as they do elsewhere, by RL Zoo's settings."""

import numpy as np
import pytest

from runners.outcome import read_result
from runners.resolve import make_config
from runners.train import run

pytestmark = [pytest.mark.learn, pytest.mark.slow, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize("agent", ["sb3:dqn", "sb3:ppo"])
def test_the_preset_solves_cartpole(agent, tmp_path):
    """RL Zoo's benchmark has 500 +- 0 for both on CartPole-v1; chance holds the pole for 22 steps."""
    config = make_config(agent, "CartPole-v1")
    folder = run(config, range(2), tmp_path)
    best = [np.mean(read_result(folder.seed_path(seed))["best_returns"]) for seed in range(2)]
    assert min(best) >= 475
