"""Agents with continuous actions swing a pendulum up, and hold another."""

from __future__ import annotations

import pytest

from runners.outcome import read_result
from runners.resolve import make_config
from runners.train import run

pytestmark = [pytest.mark.learn, pytest.mark.slow]
AGENTS = ("sac", "crossq", "td3", "ddpg", "tqc", "naf", "redq", "droq")


def returns(agent, env, out, **changes):
    config = make_config(agent, env, eval_episodes=5, final_episodes=50, **changes)
    folder = run(config, range(3), str(out))
    return [read_result(folder.seed(seed).path)["final_returns"] for seed in range(3)]


@pytest.mark.parametrize("agent", AGENTS)
def test_they_swing_a_pendulum_up_within_ten_thousand_steps(agent, tmp_path):
    """Hanging down gives about -1,200 an episode, the best policies -150."""
    means = [sum(each) / len(each) for each in returns(agent, "Pendulum-v1", tmp_path)]
    assert min(means) > -200.0


@pytest.mark.parametrize("agent", ["sac", "td3"])
def test_they_hold_an_inverted_pendulum_for_a_thousand_steps(agent, tmp_path):
    """A policy drawn at random holds it for about ten; 950 counts as solved."""
    means = [sum(each) / len(each) for each in returns(agent, "InvertedPendulum-v5", tmp_path)]
    assert min(means) > 950.0
